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
mod http1;
mod http2;
mod intake;
mod keys;
mod link;
mod no_proxy;
mod options;
mod own_words;
mod pipe;
mod proxy;
mod random;
mod redact;
mod roots;
mod secret;
mod tls;
mod tunnel;
mod url;
mod warnings;
mod watched;

pub use answer::{MAX_SAID, Outcome, Written};
// For the fuzz targets: what a server or a proxy says is judged without one.
#[doc(hidden)]
pub use answer::{MAX_RETRY_AFTER, judge, words};
pub use backoff::{Backoff, BackoffError};
pub use client::Client;
pub use get::GetOutcome;
#[doc(hidden)]
pub use no_proxy::names_directly;
pub use options::{Auth, Content, Options, OptionsError};
pub use own_words::own_words;
pub use proxy::{EnvironmentError, ProxyKind, ProxyOptions, ProxyUrl};
pub use random::Random;
pub use secret::{Secret, SecretError, SecretFault};
pub use tls::{MinVersion, TlsError, TlsOptions};
#[doc(hidden)]
pub use tunnel::connect_answer;
pub use url::{Host, Url, UrlError, UrlFault};
