//! The URL of an endpoint, parsed strictly: what is wrong is said with its column, before anything is
//! sent anywhere. Neither a URL nor an error of it ever shows user names, passwords or the query, where
//! some servers want their keys.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An http or https URL without user name, password and fragment.
#[derive(Clone)]
pub struct Url {
    tls: bool,
    host: Host,
    port: u16,
    /// Whether the port stands in the URL.
    ported: bool,
    /// Path and query as they go into the request line.
    target: String,
}

/// The host of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name for the resolver.
    Name(String),
    /// An address; IPv6 stands in brackets in the URL.
    Address(IpAddr),
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlFault {
    /// It does not start with `http://` or `https://`.
    Scheme,
    /// A user name or password before the host.
    UserInfo,
    /// No host after the scheme.
    NoHost,
    /// The host is neither a name nor an address.
    Host,
    /// What stands in brackets is no IPv6 address.
    Ipv6,
    /// Only digits and dots, and no IPv4 address.
    Ipv4,
    /// Not a number from 1 to 65535.
    Port,
    /// A `#`: a server never sees what follows it.
    Fragment,
    /// A character that a URL can't have there.
    Character(char),
    /// A `%` without two hexadecimal digits.
    Percent,
}

/// A URL that can't be used. It does not repeat the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlError {
    /// The character within the URL, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub fault: UrlFault,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {} of the URL: ", self.column)?;
        match self.fault {
            UrlFault::Scheme => f.write_str("it has to start with http:// or https://"),
            UrlFault::UserInfo => f.write_str(
                "a user name or password does not belong into a URL; use basic_auth for it",
            ),
            UrlFault::NoHost => f.write_str("the host is missing"),
            UrlFault::Host => f.write_str(
                "not a host name: letters, digits, '-', '_' and '.', labels of 1 to 63 characters",
            ),
            UrlFault::Ipv6 => f.write_str("not an IPv6 address in brackets, such as [::1]"),
            UrlFault::Ipv4 => f.write_str("not an IPv4 address"),
            UrlFault::Port => f.write_str("the port has to be a number from 1 to 65535"),
            UrlFault::Fragment => f.write_str("a '#' and what follows it is never sent; remove it"),
            UrlFault::Character(c) => {
                write!(f, "{c:?} can't stand there; write it percent-encoded")
            }
            UrlFault::Percent => f.write_str("'%' has to be followed by two hexadecimal digits"),
        }
    }
}

impl std::error::Error for UrlError {}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Without the query, of which only the `?` is shown.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())?;
        match self.target.split_once('?') {
            Some((path, _)) => write!(f, "{path}?…"),
            None => f.write_str(&self.target),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// With the scheme's own port or without it, it is the same.
impl PartialEq for Url {
    fn eq(&self, other: &Url) -> bool {
        let parts = |url: &Url| (url.tls, url.host.clone(), url.port, url.target.clone());
        parts(self) == parts(other)
    }
}

impl Eq for Url {}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        Url::parse(text)
    }
}

impl Url {
    /// Parses a URL. A missing path becomes `/`, a missing port that of the scheme.
    ///
    /// # Errors
    /// What is wrong, and at which character.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let fail = |at: usize, fault| Err(UrlError { column: column(text, at), fault });
        let (tls, start) = match scheme_len(text) {
            Some(found) => found,
            None => return fail(0, UrlFault::Scheme),
        };
        let rest = &text[start..];
        let end = start + rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = &text[start..end];
        if authority.contains('@') {
            return fail(start, UrlFault::UserInfo);
        }
        if authority.is_empty() {
            return fail(start, UrlFault::NoHost);
        }
        let (host, port) = match split_authority(authority) {
            Ok(parts) => parts,
            Err((at, fault)) => return fail(start + at, fault),
        };
        if let Err((at, fault)) = check_target(&text[end..]) {
            return fail(end + at, fault);
        }
        let mut target = text[end..].to_owned();
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        let ported = port.is_some();
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Url { tls, host, port, ported, target })
    }

    /// Whether the scheme is https.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the scheme's own where the URL gives none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the port stands in the URL.
    pub(super) fn has_port(&self) -> bool {
        self.ported
    }

    /// Path and query as they go into the request line. Not for messages: see [`Url`]'s `Display`.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// All of it. Not for messages, either.
    pub(super) fn absolute(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.target)
    }

    /// The query, if there is one that could hold a key.
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query).filter(|query| !query.is_empty())
    }

    /// Host and port as the header `Host` has them: the scheme's own port is left out.
    pub fn authority(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A URL without its user name and password, and these two. Columns of errors in what is left are those of
/// the whole.
pub(super) fn split_user(text: &str) -> Result<(String, Option<String>, Option<String>), UrlError> {
    let start = scheme_len(text).map_or(0, |(_, start)| start);
    let (scheme, rest) = text.split_at(start);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest.get(..end).and_then(|authority| authority.rfind('@')) else {
        return Ok((text.to_owned(), None, None));
    };
    let (user, host) = (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default());
    let plain = |part: &str, from: usize| {
        decoded(part)
            .map_err(|at| UrlError { column: column(text, from + at), fault: UrlFault::Percent })
    };
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(plain(password, start + name.len() + 1)?)),
        None => (user, None),
    };
    let name = Some(plain(name, start)?).filter(|name| !name.is_empty());
    let url = format!("{scheme}{host}");
    // What is wrong with the rest is said with the columns of the whole.
    if let Err(error) = Url::parse(&url) {
        let shift = if error.column > start { user.chars().count() + 1 } else { 0 };
        return Err(UrlError { column: error.column + shift, ..error });
    }
    Ok((url, name, password))
}

/// Percent-encoded text, or where it is none. Control characters are nobody's password.
fn decoded(text: &str) -> Result<String, usize> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes().enumerate();
    while let Some((at, byte)) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|(_, digit)| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) if high * 16 + low >= 32 => {
                bytes.push(u8::try_from(high * 16 + low).map_err(|_| at)?);
            }
            _ => return Err(at),
        }
    }
    String::from_utf8(bytes).map_err(|_| 0)
}

/// Whether it is https, and where the authority starts.
fn scheme_len(text: &str) -> Option<(bool, usize)> {
    let starts = |scheme: &str| {
        text.get(..scheme.len()).is_some_and(|have| have.eq_ignore_ascii_case(scheme))
    };
    if starts("http://") {
        Some((false, "http://".len()))
    } else if starts("https://") {
        Some((true, "https://".len()))
    } else {
        None
    }
}

fn column(text: &str, at: usize) -> usize {
    text.char_indices().take_while(|&(start, _)| start < at).count() + 1
}

type Fault = (usize, UrlFault);

fn split_authority(authority: &str) -> Result<(Host, Option<u16>), Fault> {
    if let Some(inner) = authority.strip_prefix('[') {
        let Some((address, after)) = inner.split_once(']') else {
            return Err((0, UrlFault::Ipv6));
        };
        let parsed = address.parse::<Ipv6Addr>().map_err(|_| (1, UrlFault::Ipv6))?;
        let colon = address.len() + 2;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(parse_port(port).ok_or((colon + 1, UrlFault::Port))?),
            None if after.is_empty() => None,
            None => return Err((colon, UrlFault::Ipv6)),
        };
        return Ok((Host::Address(parsed.into()), port));
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err((0, UrlFault::Ipv6));
    }
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => {
            (name, Some(parse_port(port).ok_or((name.len() + 1, UrlFault::Port))?))
        }
        None => (authority, None),
    };
    if name.is_empty() {
        return Err((0, UrlFault::NoHost));
    }
    Ok((parse_host(name)?, port))
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|&port| port > 0)
}

fn parse_host(name: &str) -> Result<Host, Fault> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some((at, _)) = name.char_indices().find(|&(_, c)| !allowed(c)) {
        return Err((at, UrlFault::Host));
    }
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let address = name.parse::<Ipv4Addr>().map_err(|_| (0, UrlFault::Ipv4))?;
        return Ok(Host::Address(address.into()));
    }
    // One dot at the end is the root: a name that the resolver searches no further.
    let labels = name.strip_suffix('.').unwrap_or(name);
    let mut at = 0;
    for label in labels.split('.') {
        if label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return Err((at, UrlFault::Host));
        }
        at += label.len() + 1;
    }
    if labels.len() > 253 {
        return Err((253, UrlFault::Host));
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

/// The characters of RFC 3986, sections 3.3 and 3.4.
fn check_target(target: &str) -> Result<(), Fault> {
    for (at, c) in target.char_indices() {
        match c {
            '#' => return Err((at, UrlFault::Fragment)),
            '%' => {
                let digits = target.as_bytes().get(at + 1..at + 3);
                if !digits.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) {
                    return Err((at, UrlFault::Percent));
                }
            }
            c if c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?".contains(c) => {}
            c => return Err((at, UrlFault::Character(c))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_good_urls() {
        let cases = [
            ("http://127.0.0.1:9009/api/v1/push", false, "127.0.0.1", 9009, "/api/v1/push"),
            ("HTTPS://Mimir.Example", true, "mimir.example", 443, "/"),
            ("http://[::1]:3100/loki?x=%2f", false, "[::1]", 3100, "/loki?x=%2f"),
            ("https://[2001:db8::2]", true, "[2001:db8::2]", 443, "/"),
            ("http://nas_1.lan./a", false, "nas_1.lan.", 80, "/a"),
            ("http://h?tenant=1", false, "h", 80, "/?tenant=1"),
            ("http://1.2.3.4.example/@:", false, "1.2.3.4.example", 80, "/@:"),
        ];
        for (text, tls, host, port, target) in cases {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.is_tls(), url.host().to_string().as_str(), url.port(), url.target()),
                (tls, host, port, target),
                "{text}"
            );
        }
    }

    #[test]
    fn display_shows_neither_query_nor_default_port() {
        let shown = |text: &str| Url::parse(text).unwrap().to_string();
        assert_eq!(shown("https://h:443/push"), "https://h/push");
        assert_eq!(shown("https://h:80/push?key=hunter2"), "https://h:80/push?…");
        let debug = format!("{:?}", Url::parse("http://h/?key=hunter2").unwrap());
        assert_eq!(debug, "Url(http://h/?…)");
    }

    #[test]
    fn faults_come_with_their_column() {
        let cases = [
            ("", 1, UrlFault::Scheme),
            ("localhost:9009/push", 1, UrlFault::Scheme),
            ("ftp://h/", 1, UrlFault::Scheme),
            ("http:/h/", 1, UrlFault::Scheme),
            (" http://h/", 1, UrlFault::Scheme),
            ("httpü://h", 1, UrlFault::Scheme),
            ("http://", 8, UrlFault::NoHost),
            ("http:///path", 8, UrlFault::NoHost),
            ("http://:80/", 8, UrlFault::NoHost),
            ("http://user:hunter2@h/", 8, UrlFault::UserInfo),
            ("http://user@h/", 8, UrlFault::UserInfo),
            ("http://h h/", 9, UrlFault::Host),
            ("http://hü/", 9, UrlFault::Host),
            ("http://a\\b/", 9, UrlFault::Host),
            ("http://a..b/", 10, UrlFault::Host),
            ("http://-a/", 8, UrlFault::Host),
            ("http://1.2.3/", 8, UrlFault::Ipv4),
            ("http://1.2.3.256/", 8, UrlFault::Ipv4),
            ("http://h:/", 10, UrlFault::Port),
            ("http://h:0/", 10, UrlFault::Port),
            ("http://h:65536/", 10, UrlFault::Port),
            ("http://h:+80/", 10, UrlFault::Port),
            ("http://h:80:80/", 10, UrlFault::Port),
            ("http://::1/", 8, UrlFault::Ipv6),
            ("http://[::1/", 8, UrlFault::Ipv6),
            ("http://[::g]/", 9, UrlFault::Ipv6),
            ("http://[fe80::1%25eth0]/", 9, UrlFault::Ipv6),
            ("http://[::1]80/", 13, UrlFault::Ipv6),
            ("http://[::1]:/", 14, UrlFault::Port),
            ("http://h/a b", 11, UrlFault::Character(' ')),
            ("http://h/ä", 10, UrlFault::Character('ä')),
            ("http://h/\r\nX: y", 10, UrlFault::Character('\r')),
            ("http://h/\0", 10, UrlFault::Character('\0')),
            ("http://h/%2", 10, UrlFault::Percent),
            ("http://h/%zz", 10, UrlFault::Percent),
            ("http://h/a#b", 11, UrlFault::Fragment),
            ("http://h#b", 9, UrlFault::Fragment),
        ];
        for (text, column, fault) in cases {
            assert_eq!(Url::parse(text), Err(UrlError { column, fault }), "{text:?}");
        }
        let long = format!("http://{}/", "a.".repeat(150));
        assert_eq!(Url::parse(&long).unwrap_err().fault, UrlFault::Host);
        let label = format!("http://{}/", "a".repeat(64));
        assert_eq!(Url::parse(&label).unwrap_err().fault, UrlFault::Host);
    }

    #[test]
    fn an_error_never_repeats_the_password() {
        let error = Url::parse("http://user:hunter2@h/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!(error.to_string().contains("basic_auth"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,60}", tail in "[a-z@:\\[\\]%#/?. ]{0,30}") {
            let _ = Url::parse(&text);
            let _ = Url::parse(&format!("http://{text}"));
            let _ = Url::parse(&format!("https://{tail}"));
        }

        #[test]
        fn what_is_accepted_hyper_accepts_too(host in "[a-z]{1,9}", path in "[ -~]{0,30}") {
            if let Ok(url) = Url::parse(&format!("http://{host}/{path}")) {
                proptest::prop_assert!(url.target().parse::<hyper::Uri>().is_ok(), "{}", url.target());
            }
        }
    }
}
