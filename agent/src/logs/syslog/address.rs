//! Where syslog is listened for, and who may send it, as the configuration writes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// `udp://127.0.0.1:514`, `tcp://127.0.0.1:601` or `unix:///dev/log`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listen {
    /// A datagram a message.
    Udp(SocketAddr),
    /// Framed as RFC 6587 says.
    Tcp(SocketAddr),
    /// A socket of datagrams in the file system, where syslog() of the C libraries writes.
    Unix(PathBuf),
}

impl Listen {
    /// Whether other machines can reach it.
    pub fn is_remote(&self) -> bool {
        match self {
            Listen::Udp(address) | Listen::Tcp(address) => !address.ip().is_loopback(),
            Listen::Unix(_) => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Udp(address) => write!(f, "udp://{address}"),
            Listen::Tcp(address) => write!(f, "tcp://{address}"),
            Listen::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Listen, &'static str> {
        let (kind, rest) = text.split_once("://").ok_or("it lacks udp://, tcp:// or unix://")?;
        let port = match kind {
            "udp" => 514,
            "tcp" => 601,
            "unix" if rest.starts_with('/') && rest.len() > 1 && !rest.contains('\0') => {
                return Ok(Listen::Unix(rest.into()));
            }
            "unix" => return Err("the path of a socket begins with a slash"),
            _ => return Err("it is none of udp://, tcp:// and unix://"),
        };
        let rest = match rest.strip_prefix("localhost") {
            Some(port) => format!("127.0.0.1{port}"),
            None => rest.to_owned(),
        };
        let address = rest
            .parse()
            .or_else(|_| rest.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)))
            .map_err(|_| "behind :// stand an IP address and a port")?;
        Ok(if kind == "udp" { Listen::Udp(address) } else { Listen::Tcp(address) })
    }
}

/// A range of addresses, such as `192.168.0.0/16`, `fd00::/8` or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    address: u128,
    mask: u128,
}

impl Range {
    /// Whether an address lies in it. IPv4 addresses that IPv6 sockets tell are IPv4 addresses.
    pub fn contains(&self, ip: IpAddr) -> bool {
        number(ip) & self.mask == self.address
    }
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Range, &'static str> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| "it is no address")?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or("it has too many bits")?
            }
        };
        let mask = u128::MAX.checked_shl(most - bits).unwrap_or(0);
        // The 96 bits before an IPv4 address are always meant.
        let mask = if ip.is_ipv4() { mask | u128::MAX << 32 } else { mask };
        Ok(Range { address: number(ip) & mask, mask })
    }
}

/// An address as IPv6 writes it, `::ffff:a.b.c.d` for IPv4.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Whether an address is this host's own loopback.
pub(super) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback() || ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in
            ["udp://127.0.0.1:514", "tcp://[::1]:601", "unix:///dev/log", "udp://0.0.0.0:5514"]
        {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for (text, full) in [
            ("udp://localhost", "udp://127.0.0.1:514"),
            ("tcp://127.0.0.1", "tcp://127.0.0.1:601"),
            ("tcp://::1", "tcp://[::1]:601"),
            ("tcp://localhost:6514", "tcp://127.0.0.1:6514"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), full);
        }
        for text in [
            "",
            "127.0.0.1:514",
            "http://127.0.0.1",
            "udp://",
            "udp://host:514",
            "udp://127.0.0.1:99999",
            "unix://dev/log",
            "unix:///",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_lies_in_a_range_does() {
        for (range, inside, outside) in [
            ("192.168.0.0/16", "192.168.255.1", "192.169.0.1"),
            ("192.168.7.9/16", "::ffff:192.168.0.1", "::192.168.0.1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "8.8.8.8", "2001::1"),
        ] {
            let range: Range = range.parse().unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!("::/0".parse::<Range>().unwrap().contains("8.8.8.8".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "home"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }
}
