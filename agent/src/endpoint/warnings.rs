//! What is allowed and should not be: credentials that everybody on the way can read, certificates that nobody
//! checks. Said at the start, at a reload and by `mote check`.

use super::proxy::is_loopback;
use super::{Auth, Options, ProxyKind};

/// Parts of the names of headers that carry secrets.
const SECRET_WORDS: [&str; 7] =
    ["auth", "token", "key", "secret", "password", "cookie", "credential"];

impl Options {
    /// One line for each thing that should not be, without a secret. What stays on this machine is no
    /// concern of anybody.
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let url = &self.url;
        if !url.is_tls() && !is_loopback(url.host()) {
            let what = match &self.auth {
                Auth::Basic { .. } => Some("basic_auth".to_owned()),
                Auth::Bearer(_) => Some("the bearer token".to_owned()),
                Auth::None => self
                    .headers
                    .iter()
                    .map(|(name, _)| name)
                    .find(|name| {
                        let name = name.to_ascii_lowercase();
                        SECRET_WORDS.iter().any(|word| name.contains(word))
                    })
                    .map(|name| format!("the header {name:?}")),
            };
            if let Some(what) = what {
                found.push(format!(
                    "{url}: {what} goes over plain HTTP, where everybody on the way can read it; use https"
                ));
            }
        }
        if url.is_tls() && self.tls.insecure_skip_verify {
            found.push(format!(
                "{url}: tls.insecure_skip_verify takes every certificate: whoever sits in between can read \
                 and change everything; set tls.ca_file instead"
            ));
        }
        if let Some(proxy) = &self.proxy.url
            && proxy.user().is_some()
            && proxy.kind() != ProxyKind::Https
            && !is_loopback(proxy.host())
        {
            found.push(format!(
                "{url}: the user and password for the proxy {proxy} go to it unencrypted; use an https:// \
                 proxy if it offers that"
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{ProxyUrl, Secret, Url};

    fn of(url: &str, change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options::new(Url::parse(url).unwrap());
        change(&mut options);
        let warnings = options.warnings().join("\n");
        assert!(!warnings.contains("hunter2"), "{warnings}");
        warnings
    }

    #[test]
    fn credentials_that_leave_the_machine_unencrypted_are_told() {
        let basic = |o: &mut Options| {
            o.auth = Auth::Basic { username: "u".into(), password: Secret::value("hunter2") };
        };
        let bearer = |o: &mut Options| o.auth = Auth::Bearer(Secret::value("hunter2"));
        let header = |o: &mut Options| o.headers = vec![("X-Api-Key".into(), "hunter2".into())];
        let plain = |o: &mut Options| o.headers = vec![("X-Trace".into(), "1".into())];
        assert!(
            of("http://nas.lan/push?k=hunter2", basic)
                .starts_with("http://nas.lan/push?…: basic_auth goes")
        );
        assert!(of("http://10.0.0.1/", bearer).contains("the bearer token"));
        assert!(of("http://10.0.0.1/", header).contains("the header \"X-Api-Key\""));
        assert_eq!(of("http://10.0.0.1/", plain), "");
        for url in ["http://127.0.0.1/", "http://localhost:9/", "http://[::1]/", "https://nas.lan/"]
        {
            assert_eq!(of(url, basic) + &of(url, bearer) + &of(url, header), "", "{url}");
        }
    }

    #[test]
    fn certificates_that_nobody_checks_are_told() {
        let skip = |o: &mut Options| o.tls.insecure_skip_verify = true;
        assert!(of("https://nas.lan/", skip).contains("takes every certificate"));
        assert_eq!(of("http://nas.lan/", skip), "");
    }

    #[test]
    fn a_proxys_password_is_a_credential_too() {
        let proxy = |url: &'static str| {
            move |o: &mut Options| o.proxy.url = Some(ProxyUrl::parse(url).unwrap())
        };
        assert!(
            of("https://h/", proxy("http://u:hunter2@p:1")).contains("the proxy http://p:1 go")
        );
        assert_eq!(of("https://h/", proxy("https://u:hunter2@p:1")), "");
        assert_eq!(of("https://h/", proxy("http://u:hunter2@127.0.0.1:1")), "");
        assert_eq!(of("https://h/", proxy("http://p:1")), "");
    }
}
