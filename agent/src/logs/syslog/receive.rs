//! Takes datagrams out of their socket as they come, whether or not anybody reads entries: see
//! [`Inbox`](super::inbox::Inbox). It must not know what is in a message.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{RecvFlags, recvfrom};
use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};

use super::address::is_loopback;
use super::inbox::{Inbox, Sender};
use super::{Origin, Range};
use crate::host::Clock;

/// The largest datagram of UDP; of a longer one, which a Unix socket may have, the rest is lost.
const BUFFER: usize = 64 << 10;
/// Datagrams that are taken before anybody else gets a turn.
const BATCH: usize = 256;
/// How long datagrams of UDP gather in the kernel, so that a storm does not wake the agent for each.
const PAUSE: Duration = Duration::from_millis(10);
/// After an error.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// A socket of datagrams.
pub(super) enum Datagrams {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Datagrams {
    pub(super) fn udp(descriptor: OwnedFd) -> io::Result<Datagrams> {
        UdpSocket::from_std(descriptor.into()).map(Datagrams::Udp)
    }

    pub(super) fn unix(descriptor: OwnedFd) -> io::Result<Datagrams> {
        UnixDatagram::from_std(descriptor.into()).map(Datagrams::Unix)
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Datagrams::Udp(socket) => socket.readable().await,
            Datagrams::Unix(socket) => socket.readable().await,
        }
    }

    /// One datagram: how much of it is in the buffer, how long it was, who sent it.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, usize, Option<IpAddr>)> {
        // With TRUNC the length is the datagram's own.
        match self {
            Datagrams::Udp(socket) => socket.try_io(Interest::READABLE, || {
                let (kept, length, peer) = recvfrom(socket, buffer, RecvFlags::TRUNC)?;
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Ok((kept, length, peer.map(|peer| peer.ip())))
            }),
            Datagrams::Unix(socket) => socket.try_io(Interest::READABLE, || {
                let (kept, length, _) = recvfrom(socket, buffer, RecvFlags::TRUNC)?;
                Ok((kept, length, None))
            }),
        }
    }
}

/// Whose message it is; none if that machine may not send.
pub(super) fn sender(socket: u16, ip: Option<IpAddr>, allow: &[Range]) -> Option<Sender> {
    match ip {
        None => Some(Sender { socket, origin: Origin::Local, ip: None }),
        Some(ip) if is_loopback(ip) => Some(Sender { socket, origin: Origin::Loopback, ip: None }),
        Some(ip) => {
            let sender = Sender { socket, origin: Origin::Remote, ip: Some(ip) };
            allow.iter().any(|range| range.contains(ip)).then_some(sender)
        }
    }
}

/// Receives until it is dropped.
pub(super) async fn receive(
    datagrams: Datagrams,
    socket: u16,
    allow: Vec<Range>,
    inbox: Rc<Inbox>,
    clock: Rc<dyn Clock>,
) {
    let mut failing = false;
    loop {
        let drained = match datagrams.readable().await {
            Ok(()) => drain(&datagrams, socket, &allow, &inbox, clock.as_ref()),
            Err(error) => Err(error),
        };
        match drained {
            Ok(all) => {
                failing = false;
                match datagrams {
                    Datagrams::Udp(_) if all => tokio::time::sleep(PAUSE).await,
                    // Its senders wait for each other: few messages fit into it.
                    Datagrams::Udp(_) | Datagrams::Unix(_) => tokio::task::yield_now().await,
                }
            }
            Err(error) => {
                inbox.count(|losses| losses.errors += 1);
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("receiving syslog: {error}; it is tried again each second");
                }
                tokio::time::sleep(LONG_PAUSE).await;
            }
        }
    }
}

/// Takes what has come; true if that was all.
fn drain(
    datagrams: &Datagrams,
    socket: u16,
    allow: &[Range],
    inbox: &Inbox,
    clock: &dyn Clock,
) -> io::Result<bool> {
    // An idle socket holds no memory.
    let mut buffer = vec![0; BUFFER];
    for _ in 0..BATCH {
        let (kept, length, ip) = match datagrams.receive(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match sender(socket, ip, allow) {
            Some(sender) => {
                let bytes = buffer.get(..kept).unwrap_or_default();
                inbox.put(bytes, clock.now_ns(), sender, length > kept);
            }
            None => inbox.count(|losses| losses.refused += 1),
        }
    }
    Ok(false)
}
