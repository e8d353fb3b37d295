//! The servers that data goes to: HTTP connections, authentication, what each answer means, when to try
//! again. It must not know collectors or the WAL.
//!
//! [`Client::post`] sends one request and says what became of it as an [`Outcome`], never as an error:
//! the caller only moves its cursor (accepted, refused) or keeps the request and asks [`Backoff`] how
//! long to wait (everything else).

mod answer;
mod backoff;
mod client;
mod connect;
mod get;
mod intake;
mod link;
mod options;
mod pipe;
mod secret;
mod tls;
mod url;

pub use answer::{MAX_SAID, Outcome, Written};
// For the fuzz targets: what a server says is judged without a server.
#[doc(hidden)]
pub use answer::{MAX_RETRY_AFTER, judge, words};
pub use backoff::{Backoff, BackoffError};
pub use client::Client;
pub use get::GetOutcome;
pub use options::{Auth, Content, Options, OptionsError};
pub use secret::{Secret, SecretError, SecretFault};
pub use tls::{MinVersion, TlsError, TlsOptions};
pub use url::{Host, Url, UrlError, UrlFault};
