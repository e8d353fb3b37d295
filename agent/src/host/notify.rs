//! The service manager, as one that it has started may speak to it: datagrams to `$NOTIFY_SOCKET`, lines of
//! `NAME=value`. Nothing here waits: a datagram that can't be taken at once is the caller's to send again. It
//! must not know what is told, nor when.
//!
//! Sources: sd_notify(3) and sd_watchdog_enabled(3) of systemd 252; unix(7) for the abstract namespace, which
//! a name that begins with `@` means. The kernel adds whose process it is; systemd believes only the main
//! one (`NotifyAccess=main`), so that what the agent starts can't speak for it.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    way: Option<Way>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Way {
    name: OsString,
    address: SocketAddr,
    socket: UnixDatagram,
}

impl Notify {
    /// The one that the process' environment names.
    pub fn of_environment() -> Notify {
        Notify::new(|name| std::env::var_os(name), std::process::id())
    }

    /// The one that the variables name, for the process `pid`. What makes no sense is as if it was not there.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Notify {
        let Some(way) = variable("NOTIFY_SOCKET").and_then(Way::new) else {
            return Notify::default();
        };
        let number = |name| variable(name).map(|text| digits(text.as_bytes()));
        // Set for another process, such as the one that has become this one's parent, it means that one.
        let ours = number("WATCHDOG_PID").is_none_or(|number| number == Some(u64::from(pid)));
        let watchdog = number("WATCHDOG_USEC")
            .flatten()
            .filter(|usec| ours && *usec > 0 && *usec < u64::MAX)
            .map(Duration::from_micros);
        Notify { way: Some(way), watchdog }
    }

    /// Whether anybody listens.
    pub fn is_on(&self) -> bool {
        self.way.is_some()
    }

    /// After which silence the service manager takes this process for hung.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Where it is, for messages.
    pub fn name(&self) -> String {
        self.way.as_ref().map_or(String::new(), |way| way.name.to_string_lossy().into_owned())
    }

    /// Sends one datagram; nothing where nobody listens.
    ///
    /// # Errors
    /// What sending it gave; `WouldBlock` where there is no room for it now.
    pub fn send(&self, lines: &str) -> io::Result<()> {
        match &self.way {
            Some(way) => way.socket.send_to_addr(lines.as_bytes(), &way.address).map(drop),
            None => Ok(()),
        }
    }
}

impl Way {
    fn new(name: OsString) -> Option<Way> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] if !rest.is_empty() => SocketAddr::from_abstract_name(rest).ok()?,
            [b'/', ..] => {
                SocketAddr::from_pathname(OsString::from_vec(name.as_bytes().into())).ok()?
            }
            // Also `vsock:`, which is for virtual machines.
            _ => return None,
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Way { name, address, socket })
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(variables: &[(&str, &str)]) -> Notify {
        let find = |name: &str| variables.iter().find(|(have, _)| *have == name);
        Notify::new(|name| find(name).map(|(_, value)| (*value).into()), 42)
    }

    #[test]
    fn without_a_socket_nothing_is_told_and_nothing_watched() {
        for name in ["", "@", "relative", "vsock:2:1", &"/x".repeat(100), "@a\0b/../"] {
            let notify = notify(&[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "1000")]);
            let strange = name.starts_with("@a");
            assert!(notify.is_on() == strange, "{name:?}");
            assert!(strange || (notify.watchdog().is_none() && notify.send("READY=1").is_ok()));
        }
        assert!(!notify(&[("WATCHDOG_USEC", "1000")]).is_on());
        let nobody = notify(&[("NOTIFY_SOCKET", "/no/such/socket")]);
        assert_eq!(nobody.send("READY=1").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(nobody.name(), "/no/such/socket");
    }

    #[test]
    fn a_watchdog_of_another_process_or_without_sense_is_none() {
        let watchdog = |usec: &str, pid: Option<&str>| {
            let mut variables = vec![("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", usec)];
            variables.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            notify(&variables).watchdog()
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog("1000000", Some("42")), second);
        // As sd_watchdog_enabled(3) has it.
        assert_eq!(watchdog("1000000", None), second);
        for pid in ["43", "", "-42", "+42", "42 "] {
            assert_eq!(watchdog("1000000", Some(pid)), None, "{pid:?}");
        }
        for usec in
            ["", "0", "-1", "+1", "1s", "1.5", "18446744073709551615", "99999999999999999999"]
        {
            assert_eq!(watchdog(usec, None), None, "{usec:?}");
        }
    }

    #[test]
    fn datagrams_arrive_by_path_and_by_abstract_name_and_never_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("mote-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, name) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))]
        {
            let notify = notify(&[("NOTIFY_SOCKET", &name)]);
            let mut buffer = [0; 100];
            notify.send("READY=1\n").unwrap();
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\n");
            // Nobody reads any more.
            let full = (0..10_000).find_map(|_| notify.send("WATCHDOG=1\n").err()).unwrap();
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
