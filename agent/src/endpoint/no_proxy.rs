//! The list of `NO_PROXY`: hosts that are reached directly. By the rules of Go's
//! `golang.org/x/net/http/httpproxy`: names with or without a leading dot or `*.`, addresses, networks in CIDR
//! notation, each but the last with a port if need be, and `*` for everything. What is none of that names nothing.

use std::net::{IpAddr, Ipv6Addr};

use super::Host;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Everything,
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    /// Without the dot, and whether the name itself is meant beside those below it.
    Name(String, bool, Option<u16>),
}

/// A parsed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoProxy(Vec<Rule>);

impl NoProxy {
    pub(super) fn parse(list: &str) -> NoProxy {
        NoProxy(
            list.split(',').filter_map(|part| rule(&part.trim().to_ascii_lowercase())).collect(),
        )
    }

    /// Whether a host is on the list.
    pub(super) fn names(&self, host: &Host, port: u16) -> bool {
        let port_fits = |only: &Option<u16>| only.is_none_or(|only| only == port);
        self.0.iter().any(|rule| match (rule, host) {
            (Rule::Everything, _) => true,
            (Rule::Network(network, bits), Host::Address(address)) => {
                within(address.to_canonical(), *network, *bits)
            }
            (Rule::Address(only, of), Host::Address(address)) => {
                address.to_canonical() == *only && port_fits(of)
            }
            (Rule::Name(suffix, itself, of), Host::Name(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let below = name
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|head| head.ends_with('.') || (*itself && head.is_empty()));
                below && port_fits(of)
            }
            _ => false,
        })
    }
}

/// Whether a list names a host. For the fuzz targets.
#[doc(hidden)]
pub fn names_directly(list: &str, host: &Host, port: u16) -> bool {
    NoProxy::parse(list).names(host, port)
}

fn rule(part: &str) -> Option<Rule> {
    if part == "*" {
        return Some(Rule::Everything);
    }
    if let Some((network, bits)) = part.split_once('/') {
        let network: IpAddr = network.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        return (bits <= most).then_some(Rule::Network(network, bits));
    }
    let (host, port) = match part.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']')?;
            (host, after.strip_prefix(':').map(str::parse).transpose().ok()?)
        }
        None if part.parse::<Ipv6Addr>().is_ok() => (part, None),
        None => match part.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (part, None),
        },
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Rule::Address(address.to_canonical(), port));
    }
    let (name, itself) = match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
        Some(name) => (name, false),
        None => (host, true),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| Rule::Name(name.to_owned(), itself, port))
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let shift = width.saturating_sub(u32::from(bits));
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Url;

    fn named(list: &str, url: &str) -> bool {
        let url = Url::parse(url).unwrap();
        NoProxy::parse(list).names(url.host(), url.port())
    }

    #[test]
    fn every_sort_of_entry_names_what_it_names_in_go() {
        let cases = [
            ("example.com", "http://example.com/", true),
            ("example.com", "http://a.example.com/", true),
            ("example.com", "http://anexample.com/", false),
            (".example.com", "http://a.example.com/", true),
            (".example.com", "http://example.com/", false),
            ("*.example.com", "http://a.b.example.com/", true),
            ("*.example.com", "http://example.com/", false),
            ("Example.COM", "http://EXAMPLE.com./", true),
            ("example.com:8080", "http://example.com:8080/", true),
            ("example.com:8080", "http://example.com/", false),
            (" a , b ", "https://b/", true),
            ("*", "http://anything/", true),
            ("x,*", "http://10.0.0.1/", true),
            ("10.0.0.1", "http://10.0.0.1/", true),
            ("10.0.0.1:80", "http://10.0.0.1:81/", false),
            ("10.0.0.0/8", "http://10.255.1.2/", true),
            ("10.0.0.0/8", "http://11.0.0.1/", false),
            ("10.0.0.0/0", "http://11.0.0.1/", true),
            ("192.168.1.128/25", "http://192.168.1.127/", false),
            ("2001:db8::/32", "http://[2001:db8:1::1]/", true),
            ("2001:db8::/32", "http://[2001:db9::1]/", false),
            ("2001:db8::1", "http://[2001:db8::1]:9/", true),
            ("[2001:db8::1]:9", "http://[2001:db8::1]:9/", true),
            ("[2001:db8::1]:9", "http://[2001:db8::1]:8/", false),
            ("10.0.0.1", "http://[::ffff:10.0.0.1]/", true),
            ("::/0", "http://10.0.0.1/", false),
            ("", "http://h/", false),
            (",,", "http://h/", false),
            ("h:x", "http://h/", false),
            (":80", "http://h/", false),
            ("10.0.0.0/33", "http://10.0.0.1/", false),
            ("10.0.0.0/8/8", "http://10.0.0.1/", false),
            (".", "http://h/", false),
            ("[::1", "http://[::1]/", false),
        ];
        for (list, url, expected) in cases {
            assert_eq!(named(list, url), expected, "{list} {url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(list in ".{0,60}", other in "[*.,:/\\[\\]0-9a-f]{0,40}") {
            named(&list, "http://h.example/");
            named(&other, "http://[2001:db8::1]/");
            named(&other, "http://10.0.0.1/");
        }
    }
}
