//! The kernel's netlink sockets (net/netlink/af_netlink.c): a request for a dump, and the messages and
//! attributes of its answer. It must not know what they mean.
//!
//! A socket is opened at the first dump and kept. An answer has bounds: in bytes, and in the time that the
//! kernel may let us wait for its next piece. Whatever goes wrong closes the socket, so that what is left of
//! an answer is never taken for the beginning of the next one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt,
};

/// The kernel fills no more than this at a time, and says so if a message should be larger.
const BUFFER: usize = 32 << 10;
/// The largest answer: some 100000 routes or sockets.
const MAX_ANSWER: usize = 16 << 20;
/// A dump is answered at once, by the thread that asks.
const TIMEOUT: Duration = Duration::from_secs(1);

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST and NLM_F_DUMP.
const DUMP: u16 = 0x301;

/// A socket of one of netlink's protocols.
#[derive(Debug)]
pub struct Netlink {
    protocol: Option<Protocol>,
    socket: Option<OwnedFd>,
    sequence: u32,
    buffer: Vec<u8>,
    request: Vec<u8>,
}

impl Netlink {
    /// Links, routes and queueing disciplines (NETLINK_ROUTE).
    pub fn route() -> Netlink {
        // Its number is 0.
        Netlink::new(None)
    }

    /// Sockets (NETLINK_SOCK_DIAG).
    pub fn sock_diag() -> Netlink {
        Netlink::new(Some(net::netlink::SOCK_DIAG))
    }

    fn new(protocol: Option<Protocol>) -> Netlink {
        Netlink { protocol, socket: None, sequence: 0, buffer: Vec::new(), request: Vec::new() }
    }

    /// Asks for everything of a kind, and hands over the messages one by one: type and body.
    ///
    /// # Errors
    /// What the system or the answer says; the messages before it have been handed over.
    pub fn dump(&mut self, kind: u16, body: &[u8], take: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(self.protocol)?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.request.clear();
        let length = (HEADER + body.len()) as u32;
        self.request.extend_from_slice(&length.to_ne_bytes());
        self.request.extend_from_slice(&kind.to_ne_bytes());
        self.request.extend_from_slice(&DUMP.to_ne_bytes());
        self.request.extend_from_slice(&self.sequence.to_ne_bytes());
        self.request.extend_from_slice(&[0; 4]);
        self.request.extend_from_slice(body);
        net::send(&socket, &self.request, SendFlags::empty())?;
        self.buffer.resize(BUFFER, 0);
        receive(&socket, &mut self.buffer, self.sequence, take)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// The socket, if one is open; any socket will do to ask for a device's name.
    pub fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }
}

fn open(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    let socket = net::socket_with(family, SocketType::RAW, flags, protocol)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIMEOUT))?;
    Ok(socket)
}

fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
    sequence: u32,
    mut take: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let mut all = 0;
    while all < MAX_ANSWER {
        // The second number is the whole length, also of what has been cut.
        let (count, length) = match net::recv(socket, &mut *buffer, RecvFlags::TRUNC) {
            Ok(counts) => counts,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        };
        if length > count {
            return Err(io::Error::other("a message larger than 32 KiB"));
        }
        all += count.max(1);
        if messages(buffer.get(..count).unwrap_or_default(), sequence, &mut take)? {
            return Ok(());
        }
    }
    Err(io::Error::other("an answer larger than 16 MiB"))
}

/// Hands over the messages that answer this request, and says whether the answer has ended.
///
/// # Errors
/// What a message says, or that a length is not right.
pub fn messages(
    mut bytes: &[u8],
    sequence: u32,
    take: &mut impl FnMut(u16, &[u8]),
) -> io::Result<bool> {
    while !bytes.is_empty() {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a message of a wrong length");
        let length = u32_at(bytes, 0).ok_or_else(wrong)? as usize;
        let message = bytes.get(..length).ok_or_else(wrong)?;
        let body = message.get(HEADER..).ok_or_else(wrong)?;
        let kind = u16_at(message, 4).ok_or_else(wrong)?;
        let ours = u32_at(message, 8) == Some(sequence);
        match kind {
            _ if !ours => {}
            // Both begin with an error's number, negative, or 0.
            NLMSG_ERROR | NLMSG_DONE => {
                return match u32_at(body, 0).unwrap_or_default() as i32 {
                    0 => Ok(true),
                    number => Err(io::Error::from_raw_os_error(number.saturating_neg())),
                };
            }
            // NLMSG_NOOP and NLMSG_OVERRUN are below.
            16.. => take(kind, body),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes (`struct nlattr`) of a message: their types, without the flags for nesting and byte order,
/// and their bytes. They end where a length is not right.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The 16 bits at this place, in the machine's byte order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 32 bits at this place, in the machine's byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 64 bits at this place, in the machine's byte order.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<(u16, Vec<u8>)>, io::Result<bool>) {
        let mut taken = Vec::new();
        let ended = messages(bytes, 7, &mut |kind, body| taken.push((kind, body.to_vec())));
        (taken, ended)
    }

    #[test]
    fn answers_to_another_request_are_passed_over() {
        let bytes = [message(24, 6, b"old"), message(24, 7, b"new!!"), message(3, 6, &[0; 4])];
        let (taken, ended) = read(&bytes.concat());
        assert_eq!(taken, [(24, b"new!!".to_vec())]);
        assert!(!ended.unwrap());
        let (taken, ended) = read(&[message(24, 7, b""), message(3, 7, &[0; 4])].concat());
        assert!(taken.len() == 1 && ended.unwrap());
    }

    #[test]
    fn an_error_ends_the_answer() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let bytes = [message(24, 7, b"x"), message(kind, 7, &(-2i32).to_ne_bytes())].concat();
            let (taken, ended) = read(&bytes);
            assert_eq!(taken.len(), 1);
            assert_eq!(ended.unwrap_err().raw_os_error(), Some(2));
            let (_, ended) = read(&message(kind, 7, &i32::MIN.to_ne_bytes()));
            assert!(ended.is_err());
        }
    }

    #[test]
    fn a_cut_message_is_an_error_and_a_cut_attribute_the_end() {
        let whole = [message(24, 7, b"one"), message(24, 7, b"two")].concat();
        for length in 1..whole.len() - 1 {
            let (taken, ended) = read(&whole[..length]);
            assert!(taken.len() < 2, "{length}");
            assert_eq!(ended.is_err(), length != 20 && length != 19, "{length}");
        }
        for length in [0u32, 1, 15, 1 << 20, u32::MAX] {
            let mut bytes = message(24, 7, b"one");
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(read(&bytes).1.is_err(), "{length}");
        }
        let bytes = [5u16.to_ne_bytes(), 0x8001u16.to_ne_bytes(), [9, 0], [0, 0]].concat();
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &[9][..])]);
        for length in 0..5 {
            assert_eq!(attributes(&bytes[..length]).count(), 0);
        }
        for bad in [[0u8, 0, 1, 0], [3, 0, 1, 0], [9, 0, 1, 0], [0xff; 4]] {
            assert_eq!(attributes(&bad).count(), 0);
        }
    }

    #[test]
    fn the_kernel_answers_and_a_dump_that_is_refused_leaves_no_answer_behind() {
        let mut netlink = Netlink::route();
        let mut links = 0;
        // RTM_GETLINK with a struct ifinfomsg; the answers are RTM_NEWLINK.
        netlink.dump(18, &[0; 16], |kind, _| links += u32::from(kind == 16)).unwrap();
        assert!(links > 0 && netlink.socket().is_some());
        let refused = netlink.dump(0xfff, &[0; 16], |_, _| ()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
        assert!(netlink.socket().is_none());
        let mut again = 0;
        netlink.dump(18, &[0; 16], |_, _| again += 1).unwrap();
        assert_eq!(again, links);
    }

    #[test]
    fn an_answer_that_does_not_come_is_a_timeout() {
        let socket = open(None).unwrap();
        let wait = Some(Duration::from_millis(20));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, wait).unwrap();
        let error = receive(&socket, &mut [0; 64], 1, |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
