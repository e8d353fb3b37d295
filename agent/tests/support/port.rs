//! A port of its own for something that listens later, ends and comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A TCP port of 127.0.0.1 at which nobody listens yet, and which nobody else gets.
///
/// A socket is bound to it that never listens: connections to it are refused, the kernel takes it for the
/// near end of no connection, and gives it to none who asks for a free port. Whoever binds it by number with
/// `SO_REUSEADDR`, as servers do, may listen there, any number of times one after the other (bind in Linux'
/// net/ipv4/inet_connection_sock.c).
pub struct Port {
    address: SocketAddr,
    _bound: OwnedFd,
}

impl Port {
    pub fn new() -> Port {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        Port { address, _bound: socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }
}
