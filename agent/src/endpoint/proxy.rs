//! Which proxy a request goes through, by the configuration or the environment. It must not know how a proxy
//! is spoken to. The environment is read as Go's `golang.org/x/net/http/httpproxy` reads it, which Prometheus
//! and its relatives use, and `ALL_PROXY` as curl does.

use std::fmt;

use super::no_proxy::NoProxy;
use super::url::split_user;
use super::{Host, Secret, Url, UrlError};

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP: CONNECT for https, the whole URL in the request line for http.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS version 5 (RFC 1928); names are looked up by the proxy.
    Socks5,
}

/// Where a proxy is. Neither `Display` nor `Debug` show a user or password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    kind: ProxyKind,
    at: Url,
    user: Option<String>,
    password: Option<String>,
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Https => "https",
            ProxyKind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.at.host(), self.port())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

impl ProxyUrl {
    /// Parses a proxy's URL: `http`, `https`, `socks5` or `socks5h`, with a user name and password or
    /// without, percent-encoded; a path means nothing.
    ///
    /// # Errors
    /// What is wrong, and at which character.
    pub fn parse(text: &str) -> Result<ProxyUrl, UrlError> {
        let (kind, plain) = match socks(text) {
            Some(rest) => (ProxyKind::Socks5, Some(rest)),
            None => (ProxyKind::Http, None),
        };
        // Parsed as http, with the columns of what was written.
        let shift = plain.map_or(0, |rest| text.len() - rest.len() - "http://".len());
        let text = plain.map_or_else(|| text.to_owned(), |rest| format!("http://{rest}"));
        let moved = |error: UrlError| UrlError { column: error.column + shift, ..error };
        let (text, user, password) = split_user(&text).map_err(moved)?;
        let at = Url::parse(&text).map_err(moved)?;
        let kind = match kind {
            ProxyKind::Http if at.is_tls() => ProxyKind::Https,
            kind => kind,
        };
        Ok(ProxyUrl { kind, at, user, password })
    }

    /// How it is spoken to.
    pub fn kind(&self) -> ProxyKind {
        self.kind
    }

    pub(super) fn host(&self) -> &Host {
        self.at.host()
    }

    /// By default 1080 of SOCKS; those of HTTP are the schemes' own.
    pub(super) fn port(&self) -> u16 {
        match self.kind {
            ProxyKind::Socks5 if !self.at.has_port() => 1080,
            _ => self.at.port(),
        }
    }

    /// The user's name, if there is one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }
}

fn socks(text: &str) -> Option<&str> {
    ["socks5://", "socks5h://"].iter().find_map(|scheme| {
        let head = text.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| text.get(scheme.len()..)).flatten()
    })
}

/// Through which proxy an endpoint is reached. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// This one, but for what `no_proxy` names.
    pub url: Option<ProxyUrl>,
    /// The password that goes with the URL's user, where the URL has none.
    pub password: Option<Secret>,
    /// What is reached directly all the same, in the notation of the variable `NO_PROXY`.
    pub no_proxy: String,
    /// Without `url`, what the environment says.
    pub from_environment: bool,
}

impl Default for ProxyOptions {
    fn default() -> ProxyOptions {
        ProxyOptions { url: None, password: None, no_proxy: String::new(), from_environment: true }
    }
}

/// A variable of the environment that names no proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentError {
    /// Which one.
    pub variable: &'static str,
    /// What is wrong with its value, which is not shown.
    pub error: UrlError,
}

/// The proxy for a URL; None if it is reached directly.
pub(super) fn proxy_for(
    options: &ProxyOptions,
    url: &Url,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<ProxyUrl>, EnvironmentError> {
    let host = url.host();
    if let Some(proxy) = &options.url {
        let direct = NoProxy::parse(&options.no_proxy).names(host, url.port());
        return Ok((!direct).then(|| proxy.clone()));
    }
    if !options.from_environment || is_loopback(host) {
        return Ok(None);
    }
    let first = |names: &[&'static str]| {
        let set = |name: &&'static str| environment(name).filter(|value| !value.trim().is_empty());
        names.iter().find_map(|name| Some((*name, set(name)?)))
    };
    if let Some((_, list)) = first(&["NO_PROXY", "no_proxy"])
        && NoProxy::parse(&list).names(host, url.port())
    {
        return Ok(None);
    }
    let of_scheme = match url.is_tls() {
        true => first(&["HTTPS_PROXY", "https_proxy"]),
        false => first(&["HTTP_PROXY", "http_proxy"]),
    };
    let Some((variable, value)) = of_scheme.or_else(|| first(&["ALL_PROXY", "all_proxy"])) else {
        return Ok(None);
    };
    // Without a scheme it is http.
    let value = value.trim();
    let parsed = match value.contains("://") {
        true => ProxyUrl::parse(value),
        false => ProxyUrl::parse(&format!("http://{value}")),
    };
    parsed.map(Some).map_err(|error| EnvironmentError { variable, error })
}

/// Whether a host is this machine by its name or address.
pub(super) fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Address(address) => address.to_canonical().is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::UrlFault;

    fn through(url: &str, environment: &[(&str, &str)]) -> Option<String> {
        let get = |name: &str| {
            environment.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned())
        };
        let url = Url::parse(url).unwrap();
        proxy_for(&ProxyOptions::default(), &url, &get).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_environment_names_a_proxy_for_each_scheme() {
        let all = [("HTTPS_PROXY", "http://s:1"), ("HTTP_PROXY", "p:2"), ("ALL_PROXY", "http://a")];
        assert_eq!(through("https://h/", &all).unwrap(), "http://s:1");
        assert_eq!(through("http://h/", &all).unwrap(), "http://p:2");
        assert_eq!(through("http://h/", &all[..1]), None);
        assert_eq!(through("http://h/", &all[2..]).unwrap(), "http://a:80");
        assert_eq!(through("https://h/", &[]), None);
        // Capitals first, as Go has it; an empty one is not set.
        let both = [("https_proxy", "http://small"), ("HTTPS_PROXY", "http://capital")];
        assert_eq!(through("https://h/", &both).unwrap(), "http://capital:80");
        let empty = [("HTTPS_PROXY", " "), ("https_proxy", "socks5h://u:p@small")];
        assert_eq!(through("https://h/", &empty).unwrap(), "socks5://small:1080");
    }

    #[test]
    fn the_environment_never_sends_this_machine_to_itself_by_a_proxy() {
        let all = [("ALL_PROXY", "http://a"), ("NO_PROXY", "lan, 10.0.0.0/8,")];
        for url in
            ["http://localhost:1/", "https://127.3.2.1/", "http://[::1]/", "http://a.localhost/"]
        {
            assert_eq!(through(url, &all), None, "{url}");
        }
        assert_eq!(through("http://nas.lan/", &all), None);
        assert_eq!(through("http://10.1.2.3/", &all), None);
        assert!(through("http://11.1.2.3/", &all).is_some());
    }

    #[test]
    fn the_configuration_comes_first_and_has_exceptions_of_its_own() {
        let options = ProxyOptions {
            url: Some(ProxyUrl::parse("http://p:3128").unwrap()),
            no_proxy: "nas".into(),
            ..ProxyOptions::default()
        };
        let environment = |name: &str| (name == "NO_PROXY").then(|| "*".to_owned());
        let of = |url: &str| proxy_for(&options, &Url::parse(url).unwrap(), &environment).unwrap();
        assert!(of("http://h/").is_some() && of("http://127.0.0.1/").is_some());
        assert_eq!(of("http://nas/"), None);
        let none = ProxyOptions { from_environment: false, ..ProxyOptions::default() };
        let all = |_: &str| Some("http://a".to_owned());
        assert_eq!(proxy_for(&none, &Url::parse("http://h/").unwrap(), &all), Ok(None));
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_named_without_its_value() {
        let environment =
            |name: &str| (name == "all_proxy").then(|| "ftp://u:hunter2@h".to_owned());
        let url = Url::parse("http://h/").unwrap();
        let error = proxy_for(&ProxyOptions::default(), &url, &environment).unwrap_err();
        assert_eq!(error.variable, "all_proxy");
        assert!(!format!("{error:?} {}", error.error).contains("hunter2"));
    }

    #[test]
    fn urls_of_proxies_have_users_and_passwords_that_nothing_shows() {
        let proxy = ProxyUrl::parse("http://us%40er:hun%3Ater2@proxy:3128/").unwrap();
        assert_eq!((proxy.user(), proxy.password()), (Some("us@er"), Some("hun:ter2")));
        assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy:3128 ProxyUrl(http://proxy:3128)");
        let proxy = ProxyUrl::parse("https://user@proxy").unwrap();
        assert_eq!(
            (proxy.kind(), proxy.user(), proxy.password()),
            (ProxyKind::Https, Some("user"), None)
        );
        assert_eq!(proxy.port(), 443);
        let socks = ProxyUrl::parse("SOCKS5://[::1]").unwrap();
        assert_eq!(
            (socks.kind(), socks.to_string().as_str()),
            (ProxyKind::Socks5, "socks5://[::1]:1080")
        );
        assert_eq!(ProxyUrl::parse("socks5://h:80").unwrap().port(), 80);
        for (text, column, fault) in [
            ("proxy:3128", 1, UrlFault::Scheme),
            ("http://u:%zz@h", 10, UrlFault::Percent),
            ("http://u:%00@h", 10, UrlFault::Percent),
            ("http://u:p@", 12, UrlFault::NoHost),
            ("socks5://h:0", 12, UrlFault::Port),
            ("http://u:p@h:x", 14, UrlFault::Port),
        ] {
            let error = ProxyUrl::parse(text).unwrap_err();
            assert_eq!((error.column, error.fault), (column, fault), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,40}", tail in "[a-z@:\\[\\]%#/?. 0-9]{0,30}") {
            for text in [text, format!("http://{tail}"), format!("socks5://{tail}")] {
                if let Ok(proxy) = ProxyUrl::parse(&text) {
                    let again = ProxyUrl::parse(&proxy.to_string()).unwrap();
                    proptest::prop_assert_eq!((again.kind(), again.port()), (proxy.kind(), proxy.port()));
                }
            }
        }
    }
}
