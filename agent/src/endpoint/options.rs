//! What a connection to an endpoint is made of, as the configuration gives it, and its checks. It must
//! not know the configuration file.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use super::{Secret, SecretError, SecretFault, TlsError, TlsOptions, Url};

/// What a request carries, and thereby its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `prometheus.WriteRequest` of remote write 1.0 in snappy's block format.
    RemoteWrite1,
    /// `logproto.PushRequest` in snappy's block format.
    LokiPush,
    /// The same as JSON, uncompressed.
    LokiJson,
}

impl Content {
    pub(super) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Content::RemoteWrite1 => &[
                ("content-type", "application/x-protobuf"),
                ("content-encoding", "snappy"),
                ("x-prometheus-remote-write-version", "0.1.0"),
            ],
            Content::LokiPush => {
                &[("content-type", "application/x-protobuf"), ("content-encoding", "snappy")]
            }
            Content::LokiJson => &[("content-type", "application/json")],
        }
    }
}

/// Who we say we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nobody.
    #[default]
    None,
    /// HTTP Basic (RFC 7617).
    Basic {
        /// Without a colon.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token (RFC 6750).
    Bearer(Secret),
}

/// A connection's settings. `Debug` shows neither secrets nor the values of headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Where requests go.
    pub url: Url,
    /// The header `X-Scope-OrgID`.
    pub tenant: Option<String>,
    /// Who we say we are.
    pub auth: Auth,
    /// More headers, by name and value.
    pub headers: Vec<(String, String)>,
    /// For https.
    pub tls: TlsOptions,
    /// The most that one request may take, from looking up the host to the end of the answer.
    pub timeout: Duration,
}

impl Options {
    /// No tenant, no credentials, the system's CA certificates, 30 seconds.
    pub fn new(url: Url) -> Options {
        Options {
            url,
            tenant: None,
            auth: Auth::None,
            headers: Vec::new(),
            tls: TlsOptions::default(),
            timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("tenant", &self.tenant)
            .field("auth", &self.auth)
            .field("headers", &headers)
            .field("tls", &self.tls)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Options that can't be used.
#[derive(Debug)]
pub enum OptionsError {
    /// The tenant is empty or has a character that a header can't have.
    Tenant,
    /// The user name has a colon or a control character.
    Username,
    /// Not a header's name.
    HeaderName(String),
    /// The value of this header has a character that a header can't have.
    HeaderValue(String),
    /// This header is set twice.
    HeaderTwice(String),
    /// This header is Mote's own to set.
    HeaderReserved(String),
    /// The timeout is zero.
    Timeout,
    /// The password or token.
    Secret(SecretError),
    /// The TLS options.
    Tls(TlsError),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionsError::Tenant => {
                f.write_str("tenant has to be visible ASCII characters; leave it out for none")
            }
            OptionsError::Username => {
                f.write_str("basic_auth.username can have neither ':' nor control characters")
            }
            OptionsError::HeaderName(name) => write!(f, "{name:?} is not a header's name"),
            OptionsError::HeaderValue(name) => {
                write!(f, "the value of header {name:?} has to be visible ASCII characters")
            }
            OptionsError::HeaderTwice(name) => write!(f, "the header {name:?} is set twice"),
            OptionsError::HeaderReserved(name) => {
                write!(f, "the header {name:?} is set by Mote")?;
                match name.as_str() {
                    "authorization" => f.write_str("; basic_auth or bearer_token is set as well"),
                    "x-scope-orgid" => f.write_str("; tenant is set as well"),
                    _ => f.write_str(" itself"),
                }
            }
            OptionsError::Timeout => f.write_str("timeout has to be more than zero"),
            OptionsError::Secret(error) => write!(f, "{error}"),
            OptionsError::Tls(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for OptionsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OptionsError::Secret(error) => Some(error),
            OptionsError::Tls(error) => Some(error),
            _ => None,
        }
    }
}

const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

/// Set for each request, or meaningful to the connection.
const RESERVED: [&str; 11] = [
    "host",
    "user-agent",
    "content-type",
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "x-prometheus-remote-write-version",
    "connection",
    "upgrade",
    "expect",
    "te",
];

/// The headers that are the same for every request.
pub(super) fn fixed_headers(options: &Options) -> Result<HeaderMap, OptionsError> {
    let mut map = HeaderMap::new();
    let host = header_value(&options.url.authority());
    map.insert(HOST, host.ok_or_else(|| OptionsError::HeaderValue("host".into()))?);
    map.insert(USER_AGENT, HeaderValue::from_static(concat!("mote/", env!("CARGO_PKG_VERSION"))));
    if let Some(tenant) = &options.tenant {
        if tenant.is_empty() {
            return Err(OptionsError::Tenant);
        }
        map.insert(TENANT, header_value(tenant).ok_or(OptionsError::Tenant)?);
    }
    for (name, value) in &options.headers {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| OptionsError::HeaderName(name.clone()))?;
        let ours = RESERVED.contains(&key.as_str())
            || (key == AUTHORIZATION && options.auth != Auth::None)
            || (key == TENANT && options.tenant.is_some());
        if ours {
            return Err(OptionsError::HeaderReserved(key.as_str().to_owned()));
        }
        let mut value =
            header_value(value).ok_or_else(|| OptionsError::HeaderValue(name.clone()))?;
        value.set_sensitive(true);
        if map.insert(key, value).is_some() {
            return Err(OptionsError::HeaderTwice(name.clone()));
        }
    }
    Ok(map)
}

/// Visible ASCII and spaces in between. HTTP allows more, and servers disagree about it.
fn header_value(text: &str) -> Option<HeaderValue> {
    let plain = text.bytes().all(|b| (0x20..=0x7e).contains(&b)) && text.trim() == text;
    plain.then(|| HeaderValue::from_str(text).ok()).flatten()
}

/// The header `Authorization`, and what of it a message must never show.
pub(super) struct Credentials {
    pub(super) header: HeaderValue,
    pub(super) hide: Vec<String>,
}

/// Reads the secret anew.
pub(super) fn credentials(auth: &Auth) -> Result<Option<Credentials>, SecretError> {
    let (secret, header, hide) = match auth {
        Auth::None => return Ok(None),
        Auth::Basic { username, password } => {
            let secret = password.read()?;
            let pair = BASE64.encode(format!("{username}:{secret}"));
            (password, format!("Basic {pair}"), vec![pair, secret])
        }
        Auth::Bearer(token) => {
            let secret = token.read()?;
            (token, format!("Bearer {secret}"), vec![secret])
        }
    };
    let mut header = header_value(&header).ok_or_else(|| SecretError {
        path: secret.path().map(std::path::Path::to_owned),
        fault: SecretFault::NotToken,
    })?;
    header.set_sensitive(true);
    Ok(Some(Credentials { header, hide }))
}

/// What can be said about options without touching a file or the network.
pub(super) fn check(options: &Options) -> Result<(), OptionsError> {
    if options.timeout.is_zero() {
        return Err(OptionsError::Timeout);
    }
    if let Auth::Basic { username, .. } = &options.auth
        && username.chars().any(|c| c == ':' || c.is_control())
    {
        return Err(OptionsError::Username);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new(Url::parse("http://h:1/push").unwrap())
    }

    fn refused(headers: &[(&str, &str)]) -> String {
        let mut options = options();
        options.tenant = Some("t".into());
        options.auth = Auth::Bearer(Secret::value("hunter2"));
        options.headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let error = fixed_headers(&options).unwrap_err();
        assert!(!format!("{error} {error:?} {options:?}").contains("hunter2"));
        error.to_string()
    }

    #[test]
    fn headers_that_cannot_be_sent_are_refused_by_name() {
        assert!(refused(&[("a b", "x")]).contains("\"a b\" is not a header's name"));
        assert!(refused(&[("", "x")]).contains("not a header's name"));
        assert!(refused(&[("X-A", "hunter2\r\nX-B: y")]).contains("\"X-A\""));
        assert!(refused(&[("X-A", "1"), ("x-a", "2")]).contains("twice"));
        assert!(refused(&[("Content-Length", "1")]).contains("set by Mote itself"));
        assert!(refused(&[("Authorization", "hunter2")]).contains("bearer_token"));
        assert!(refused(&[("X-Scope-OrgID", "u")]).contains("tenant"));
    }

    #[test]
    fn a_tenant_is_visible_ascii() {
        for tenant in ["", " ", "a\nb", "ü"] {
            let mut options = options();
            options.tenant = Some(tenant.into());
            let error = fixed_headers(&options).unwrap_err();
            assert!(matches!(error, OptionsError::Tenant), "{tenant:?}: {error}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_rfcs() {
        // RFC 7617, section 2
        let basic =
            Auth::Basic { username: "Aladdin".into(), password: Secret::value("open sesame") };
        let got = credentials(&basic).unwrap().unwrap();
        assert_eq!(got.header.to_str().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{:?}", got.header).contains("QWxh"));
        let bearer = credentials(&Auth::Bearer(Secret::value("abc"))).unwrap().unwrap();
        assert_eq!(bearer.header.to_str().unwrap(), "Bearer abc");
        let fault = credentials(&Auth::Bearer(Secret::value("ü"))).map(|_| ()).unwrap_err().fault;
        assert!(matches!(fault, SecretFault::NotToken));
        assert!(credentials(&Auth::None).unwrap().is_none());
    }

    #[test]
    fn a_user_name_without_colon_and_a_timeout_above_zero() {
        let mut options = options();
        options.auth = Auth::Basic { username: "a:b".into(), password: Secret::value("x") };
        assert!(matches!(check(&options), Err(OptionsError::Username)));
        options.auth = Auth::None;
        options.timeout = Duration::ZERO;
        assert!(matches!(check(&options), Err(OptionsError::Timeout)));
    }
}
