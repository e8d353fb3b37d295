//! Sockets that are bound and stay so over a reload, and the datagrams that were taken from them when it came. It must
//! not know what is in a message.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::net::sockopt;

use super::Listen;
use super::inbox::Inbox;
use crate::host::Roots;

/// What a socket of datagrams may hold while nobody reads: some thousand messages. The kernel gives less where
/// net.core.rmem_max is less and the agent may not go beyond it.
const BUFFER: usize = 1 << 20;

/// A bound socket; the file of a Unix one goes with it.
#[derive(Debug)]
struct Bound {
    /// What messages call it; no other socket has had it.
    id: u16,
    descriptor: OwnedFd,
    file: Option<(PathBuf, u64)>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.file
            && fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == *inode)
        {
            // A file that is left tells nobody anything but that nobody listens.
            let _ = fs::remove_file(path);
        }
    }
}

/// The bound sockets of the agent, and what was received and not yet read. Copies are the same.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    bound: Rc<RefCell<BTreeMap<Listen, Bound>>>,
    ids: Rc<Cell<u16>>,
    pub(super) inbox: Rc<Inbox>,
}

impl Sockets {
    /// A descriptor of the socket that listens there, which is bound unless it is, and what it is called.
    ///
    /// # Errors
    /// What binding gave, with what the user can do.
    pub(super) fn open(&self, listen: &Listen, roots: &Roots) -> Result<(u16, OwnedFd), String> {
        let mut bound = self.bound.borrow_mut();
        let dup = |bound: &Bound| {
            let descriptor = bound.descriptor.try_clone();
            let descriptor =
                descriptor.map_err(|error| format!("listening on {listen}: {error}"))?;
            Ok((bound.id, descriptor))
        };
        if let Some(bound) = bound.get(listen) {
            return dup(bound);
        }
        let id = self.ids.replace(self.ids.get().wrapping_add(1));
        let new = bind(listen, roots, id)
            .map_err(|error| format!("listening on {listen}: {error}{}", hint(listen, &error)))?;
        let dupped = dup(&new);
        bound.insert(listen.clone(), new);
        dupped
    }

    /// Closes what nobody wants any more.
    pub fn retain<'a>(&self, wanted: impl Iterator<Item = &'a Listen> + Clone) {
        self.bound.borrow_mut().retain(|have, _| wanted.clone().any(|listen| listen == have));
    }
}

fn hint(listen: &Listen, error: &io::Error) -> &'static str {
    match (error.kind(), listen) {
        (io::ErrorKind::PermissionDenied, Listen::Unix(_)) => {
            " (the agent may not write into that directory)"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            " (a port below 1024 takes root or CAP_NET_BIND_SERVICE; or listen on a higher one)"
        }
        (io::ErrorKind::AddrInUse, Listen::Unix(_)) => {
            " (another program serves this socket, as syslogd and systemd-journald do /dev/log; it is not taken over)"
        }
        (io::ErrorKind::AddrInUse, _) => " (another program listens there; find it with ss -lnp)",
        (io::ErrorKind::AddrNotAvailable, _) => " (this host does not have that address now)",
        _ => "",
    }
}

fn bind(listen: &Listen, roots: &Roots, id: u16) -> io::Result<Bound> {
    match listen {
        Listen::Udp(address) => {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            enlarge(&socket);
            Ok(Bound { id, descriptor: socket.into(), file: None })
        }
        Listen::Tcp(address) => {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(Bound { id, descriptor: socket.into(), file: None })
        }
        Listen::Unix(path) => {
            let path = roots.root.join(path.strip_prefix("/").unwrap_or(path));
            let socket = match UnixDatagram::bind(&path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(&path) => {
                    fs::remove_file(&path)?;
                    UnixDatagram::bind(&path)?
                }
                other => other?,
            };
            let inode = fs::symlink_metadata(&path)?.ino();
            let bound = Bound { id, file: Some((path.clone(), inode)), descriptor: socket.into() };
            // Any program may log.
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
            rustix::io::ioctl_fionbio(&bound.descriptor, true)?;
            Ok(bound)
        }
    }
}

/// More than the default holds some hundred small messages, each counted with its kernel's memory.
fn enlarge(socket: &UdpSocket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        // The default is enough for all but storms.
        let _ = sockopt::set_socket_recv_buffer_size(socket, BUFFER);
    }
}

/// Whether it is a socket whose owner is gone.
fn is_left(path: &Path) -> bool {
    // Not through a link: /dev/log is one where systemd-journald serves it.
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        return false;
    }
    let probe = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_bound_once_and_closed_when_nobody_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots { root: dir.path().into(), ..Roots::default() };
        let listen: Listen = "unix:///log".parse().unwrap();
        let path = dir.path().join("log");
        let sockets = Sockets::default();
        let first = UnixDatagram::from(sockets.open(&listen, &roots).unwrap().1);
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"<1>x", &path).unwrap();
        drop(first);
        // What came while nobody read is there.
        let second = UnixDatagram::from(sockets.clone().open(&listen, &roots).unwrap().1);
        let mut buffer = [0; 9];
        assert_eq!(second.recv(&mut buffer).unwrap(), 4);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        sockets.retain([listen.clone()].iter());
        assert!(path.exists());
        sockets.retain([].iter());
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_of_another_program_is_not_taken_over_and_one_that_was_left_is() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots { root: dir.path().into(), ..Roots::default() };
        let listen: Listen = "unix:///log".parse().unwrap();
        let path = dir.path().join("log");
        let other = UnixDatagram::bind(&path).unwrap();
        let error = Sockets::default().open(&listen, &roots).unwrap_err();
        assert!(error.contains("not taken over"), "{error}");
        drop(other);
        drop(Sockets::default().open(&listen, &roots).unwrap());
        assert!(!path.exists());
        // Nor is a file, nor what a link leads to.
        fs::write(&path, "x").unwrap();
        assert!(Sockets::default().open(&listen, &roots).is_err());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        drop(UnixDatagram::bind(dir.path().join("elsewhere")).unwrap());
        assert!(Sockets::default().open(&listen, &roots).is_err());
        assert!(path.is_symlink());
    }

    #[test]
    fn a_port_that_is_taken_says_so() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = Listen::Udp(taken.local_addr().unwrap());
        let error = Sockets::default().open(&listen, &Roots::default()).unwrap_err();
        assert!(error.contains("another program listens there"), "{error}");
    }
}
