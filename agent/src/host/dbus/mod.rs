//! A client of D-Bus that asks one question at a time and waits for the answer up to a deadline, over a
//! bus or over a service's own socket (D-Bus Specification 0.43, "Message Protocol", "Authentication
//! Protocol"). Whatever the other side says is checked, and has bounds; after an error other than an
//! answer that is one, the connection is closed and the next call makes a new one.
//!
//! Not a library, because those there are bring an executor and threads (zbus) or a second copy of
//! the system calls and no deadline for a whole answer (rustbus), for a tenth of whose code there is use.
//!
//! It must not know what services say.

mod message;
mod wire;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

pub use message::{Call, Header, MessageType, read_header, write_call};
pub use wire::{Malformed, Reader, Value};

/// The most bytes of a message. The units of a large system take 300 KiB; the protocol allows 128 MiB.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The most messages that are passed over on the way to an answer, signals for one.
const MAX_OTHERS: usize = 1_000;

/// The most bytes of a line of the authentication.
const MAX_LINE: usize = 512;

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// The socket could not be connected to.
    Connect(io::Error),
    /// The connection broke, or the deadline passed.
    Io(io::Error),
    /// The other side did not let us in.
    Refused(String),
    /// What came is no D-Bus, or not what was asked for.
    Malformed(Malformed),
    /// The answer is an error of this name. The connection stays.
    Answer(String),
}

/// A connection, or what is needed to make one.
#[derive(Debug, Default)]
pub struct Bus {
    socket: Option<OwnedFd>,
    serial: u32,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Bus {
    /// Not connected yet.
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Whether there is a connection; it may turn out to be broken.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Lets go of the connection, and of the memory that large answers took.
    fn close(&mut self) {
        self.socket = None;
        self.input = Vec::new();
    }

    /// Connects to a socket. A bus has to be greeted, a service's own socket must not be.
    ///
    /// # Errors
    /// The socket can't be connected to, or what is behind it does not authenticate us.
    pub fn connect(&mut self, path: &Path, bus: bool, deadline: Instant) -> Result<(), Error> {
        self.socket = None;
        self.serial = 0;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = || -> io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            // A socket whose queue is full says EAGAIN and does not hold us.
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        self.socket = Some(socket().map_err(Error::Connect)?);
        let result = self.authenticate(deadline).and_then(|()| {
            if !bus {
                return Ok(());
            }
            let hello = Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                arguments: &[],
            };
            self.call(&hello, "s", deadline).map(drop)
        });
        if result.is_err() {
            self.close();
        }
        result
    }

    /// Makes a service on its own socket look at what we send: sd-bus (systemd 252) that reads the end of the
    /// authentication and a call at once takes up the call only when more comes. Answers to what this
    /// sends are passed over later.
    ///
    /// # Errors
    /// Nothing came back before the deadline.
    pub fn wake(&mut self, destination: &str, deadline: Instant) -> Result<(), Error> {
        let result = self.ping_until_answered(destination, deadline);
        if result.is_err() {
            self.close();
        }
        result
    }

    fn ping_until_answered(&mut self, destination: &str, deadline: Instant) -> Result<(), Error> {
        let ping = Call {
            destination,
            path: "/",
            interface: "org.freedesktop.DBus.Peer",
            member: "Ping",
            arguments: &[],
        };
        let mut pause = Duration::from_millis(5);
        loop {
            self.serial = self.serial.checked_add(1).unwrap_or(1);
            let mut out = Vec::new();
            write_call(&ping, self.serial, &mut out);
            self.send(&out, deadline)?;
            let socket = self.socket.as_ref().ok_or_else(closed)?;
            if wait(socket, PollFlags::IN, deadline.min(Instant::now() + pause))? {
                return Ok(());
            }
            pause *= 2;
        }
    }

    /// Asks, and gives the body of the answer, whose signature is as expected.
    ///
    /// # Errors
    /// Anything but such an answer.
    pub fn call(
        &mut self,
        call: &Call<'_>,
        signature: &'static str,
        deadline: Instant,
    ) -> Result<Reader<'_>, Error> {
        match self.exchange(call, signature, deadline) {
            Ok((start, big)) => {
                let body = self.input.get(start..).unwrap_or_default();
                Ok(Reader::new(body, big))
            }
            Err(error) => {
                if !matches!(error, Error::Answer(_)) {
                    self.close();
                }
                Err(error)
            }
        }
    }

    /// A property of an object.
    ///
    /// # Errors
    /// As [`call`](Bus::call).
    pub fn property(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        name: &str,
        deadline: Instant,
    ) -> Result<Value<'_>, Error> {
        let call = Call {
            destination,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            arguments: &[interface, name],
        };
        let mut body = self.call(&call, "v", deadline)?;
        let value = body.variant().map_err(Error::Malformed)?;
        body.end().map_err(Error::Malformed)?;
        Ok(value)
    }

    fn authenticate(&mut self, deadline: Instant) -> Result<(), Error> {
        use std::fmt::Write as _;
        let mut line = String::from("\0AUTH EXTERNAL ");
        for digit in rustix::process::geteuid().as_raw().to_string().bytes() {
            let _ = write!(line, "{digit:02x}");
        }
        line.push_str("\r\n");
        self.send(line.as_bytes(), deadline)?;
        self.input.clear();
        while !self.input.ends_with(b"\r\n") {
            if self.input.len() >= MAX_LINE {
                return Err(Error::Refused("a line without an end".into()));
            }
            // Nothing comes behind the line before we have answered it.
            let room = MAX_LINE - self.input.len();
            self.receive(room, deadline)?;
        }
        if !self.input.starts_with(b"OK ") {
            let line = String::from_utf8_lossy(&self.input);
            return Err(Error::Refused(line.trim_end().chars().take(80).collect()));
        }
        self.send(b"BEGIN\r\n", deadline)
    }

    /// Sends a call and waits for its answer, and gives where in the input its body begins and whether its
    /// numbers are big-endian.
    fn exchange(
        &mut self,
        call: &Call<'_>,
        signature: &'static str,
        deadline: Instant,
    ) -> Result<(usize, bool), Error> {
        // Zero is no serial number.
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let mut out = std::mem::take(&mut self.out);
        write_call(call, self.serial, &mut out);
        let sent = self.send(&out, deadline);
        self.out = out;
        sent?;
        for _ in 0..MAX_OTHERS {
            let big = self.read_message(deadline)?;
            let (header, start) = read_header(&self.input).map_err(Error::Malformed)?;
            if header.reply_serial != Some(self.serial) {
                continue;
            }
            match header.kind {
                MessageType::Return if header.signature == signature => return Ok((start, big)),
                MessageType::Return => {
                    return Err(Error::Malformed(Malformed::new(header.signature, signature)));
                }
                MessageType::Error => {
                    let name = header.error_name.unwrap_or_default();
                    return Err(Error::Answer(name.chars().take(80).collect()));
                }
                MessageType::Call | MessageType::Signal => {}
            }
        }
        Err(Error::Io(io::Error::other("a thousand messages, and no answer among them")))
    }

    /// Reads one message whole, and says whether its numbers are big-endian.
    fn read_message(&mut self, deadline: Instant) -> Result<bool, Error> {
        self.input.clear();
        self.fill(message::FIXED, deadline)?;
        let (length, big) = message::length(&self.input).map_err(Error::Malformed)?;
        self.fill(length, deadline)?;
        Ok(big)
    }

    /// Reads until the input has as many bytes.
    fn fill(&mut self, length: usize, deadline: Instant) -> Result<(), Error> {
        while self.input.len() < length {
            let room = length - self.input.len();
            self.receive(room, deadline)?;
        }
        Ok(())
    }

    fn receive(&mut self, room: usize, deadline: Instant) -> Result<(), Error> {
        // Memory grows with what came, not with what was announced.
        let room = room.min(16 << 10);
        loop {
            // Also for one that never lets us wait.
            time_left(deadline)?;
            let socket = self.socket.as_ref().ok_or_else(closed)?;
            match receive(socket, &mut self.input, room) {
                Ok(0) => return Err(closed()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    wait(socket, PollFlags::IN, deadline)?;
                }
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), Error> {
        let socket = self.socket.as_ref().ok_or_else(closed)?;
        while !bytes.is_empty() {
            match send(socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    wait(socket, PollFlags::OUT, deadline)?;
                }
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
        Ok(())
    }
}

/// Appends at most `room` bytes.
fn receive(socket: &OwnedFd, input: &mut Vec<u8>, room: usize) -> Result<usize, Errno> {
    let start = input.len();
    input.resize(start + room, 0);
    let got = recv(socket, input.get_mut(start..).unwrap_or_default(), RecvFlags::empty());
    let count = got.as_ref().map_or(0, |(count, _)| *count);
    input.truncate(start + count);
    got.map(|(count, _)| count)
}

/// Whether the socket was ready in time; an error only if there was no time left.
fn wait(socket: &OwnedFd, events: PollFlags, deadline: Instant) -> Result<bool, Error> {
    let left = time_left(deadline)?;
    let timeout =
        Timespec::try_from(left).map_err(|_| Error::Io(io::ErrorKind::TimedOut.into()))?;
    match poll(&mut [PollFd::new(socket, events)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(Error::Io(error.into())),
    }
}

fn time_left(deadline: Instant) -> Result<Duration, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Error::Io(io::ErrorKind::TimedOut.into())) } else { Ok(left) }
}

fn closed() -> Error {
    Error::Io(io::ErrorKind::UnexpectedEof.into())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect(error) => write!(f, "connecting: {error}"),
            Error::Io(error) => write!(f, "{error}"),
            Error::Refused(line) => write!(f, "not authenticated: {line:?}"),
            Error::Malformed(malformed) => write!(f, "{malformed}"),
            Error::Answer(name) => write!(f, "the answer is {name}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
