//! Connections to a daemon, and the requests that are sent: all are GET, without a version in the path, so
//! that the server's newest holds; each has a connection of its own, which the server closes. It must not know
//! what answers mean.

use std::io;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::objects::Objects;
use super::said;
use crate::host::Endpoint;
use crate::host::http::{self, Body, Piece};

/// All containers.
pub(super) const LIST: &str = "/containers/json?all=1";

/// `{"type":["container"],"event":[…]}`: no health checks, and Podman's words as well as Docker's.
pub(super) const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C\
                          %22die%22%2C%22died%22%2C%22destroy%22%2C%22remove%22%2C%22rename%22%5D%7D";

/// What a container is.
pub(super) fn inspect(id: &str) -> String {
    format!("/containers/{id}/json")
}

/// Its log; `since` in seconds.
pub(super) fn logs(id: &str, follow: bool, since: Option<i64>) -> String {
    let mut path =
        format!("/containers/{id}/logs?follow={}&stdout=1&stderr=1&timestamps=1", u8::from(follow));
    if let Some(since) = since {
        path.push_str(&format!("&since={since}"));
    }
    path
}

/// The most that is kept of an answer that is no success.
const MAX_FAILURE: usize = 512;

/// The most bytes of one JSON object.
const MAX_OBJECT: usize = 256 << 10;

/// Why there is no answer of use.
#[derive(Debug)]
pub(super) enum ApiError {
    /// No socket, or nobody behind it.
    Absent,
    /// No connection.
    Unreachable(io::Error),
    /// Another code than 200, and what was said.
    Status(u16, String),
    /// The connection or the answer.
    Io(io::Error),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApiError::Absent => f.write_str("nobody is there"),
            ApiError::Status(code, said) if said.is_empty() => write!(f, "status {code}"),
            ApiError::Status(code, said) => write!(f, "status {code}: {said}"),
            ApiError::Unreachable(error) | ApiError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> ApiError {
        ApiError::Io(error)
    }
}

fn unreachable(error: io::Error) -> ApiError {
    use io::ErrorKind::{NotADirectory, NotFound};
    match error.kind() {
        NotFound | NotADirectory => ApiError::Absent,
        _ => ApiError::Unreachable(error),
    }
}

/// Where a daemon is, and how long it is waited for.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    /// As it is configured.
    pub(super) endpoint: Endpoint,
    /// The host's root.
    pub(super) root: PathBuf,
    /// For connecting, for an answer's head, and for each further part of it.
    pub(super) timeout: Duration,
}

/// A connection.
#[derive(Debug)]
pub(super) enum Socket {
    /// In the file system.
    Unix(UnixStream),
    /// Over the network.
    Tcp(TcpStream),
}

impl Socket {
    /// Whether root answers: only then what it says of files is believed.
    pub(super) fn is_roots(&self) -> bool {
        match self {
            Socket::Unix(stream) => stream.peer_cred().is_ok_and(|peer| peer.uid() == 0),
            Socket::Tcp(_) => false,
        }
    }

    /// Whether there is something to read.
    pub(super) fn poll_read(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Unix(stream) => stream.poll_read_ready(context),
            Socket::Tcp(stream) => stream.poll_read_ready(context),
        }
    }

    /// Reads what is there without waiting.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.try_read(buffer),
            Socket::Tcp(stream) => stream.try_read(buffer),
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read(buffer).await,
            Socket::Tcp(stream) => stream.read(buffer).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.write_all(bytes).await,
            Socket::Tcp(stream) => stream.write_all(bytes).await,
        }
    }
}

impl Daemon {
    /// Connects and asks.
    ///
    /// # Errors
    /// There is no connection, or it takes nothing.
    pub(super) async fn ask(&self, path: &str) -> Result<Socket, ApiError> {
        let name = match &self.endpoint {
            Endpoint::Unix(_) => "localhost",
            Endpoint::Tcp(authority) => authority,
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: mote\r\nConnection: close\r\n\r\n"
        );
        let talk = async {
            let mut socket = self.connect().await.map_err(unreachable)?;
            socket.write(request.as_bytes()).await?;
            Ok(socket)
        };
        timeout(self.timeout, talk).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Asks, and reads the head of the answer.
    ///
    /// # Errors
    /// There is none, or it is no success.
    pub(super) async fn answer(&self, path: &str) -> Result<Answer, ApiError> {
        let mut socket = self.ask(path).await?;
        let mut bytes = Vec::new();
        // One that comes byte by byte is none.
        let end = Instant::now() + self.timeout;
        let (head, length) = loop {
            if let Some(head) = http::head(&bytes).map_err(foreign)? {
                break head;
            }
            let more = timeout_at(end, receive(&mut socket, &mut bytes)).await;
            if !more.map_err(|_| timed_out())?? {
                return Err(cut_off());
            }
        };
        bytes.drain(..length);
        let (body, objects) = (Body::new(head.framing), Objects::new(MAX_OBJECT));
        let (decoded, at, ended) = (Vec::new(), 0, false);
        let mut answer = Answer { socket, body, decoded, at, ended, objects };
        answer.decode(&bytes)?;
        if head.status == 200 {
            return Ok(answer);
        }
        // Whatever comes of it; the code is what counts.
        let _ = timeout(self.timeout, answer.first()).await;
        let said = answer.decoded.get(..MAX_FAILURE).unwrap_or(&answer.decoded);
        Err(ApiError::Status(head.status, said::failure(said)))
    }

    async fn connect(&self) -> io::Result<Socket> {
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for candidate in self.endpoint.candidates(&self.root) {
            let connected = match &candidate {
                Endpoint::Unix(path) => connect_unix(path).await,
                Endpoint::Tcp(authority) => connect_tcp(authority).await,
            };
            match connected {
                Ok(socket) => return Ok(socket),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

async fn connect_unix(path: &Path) -> io::Result<Socket> {
    Ok(Socket::Unix(UnixStream::connect(path).await?))
}

async fn connect_tcp(authority: &str) -> io::Result<Socket> {
    let stream = TcpStream::connect(authority).await?;
    // A log may be silent for days, and a peer vanish meanwhile.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(20))?;
    sockopt::set_tcp_keepcnt(&stream, 3)?;
    Ok(Socket::Tcp(stream))
}

/// An answer with a body of JSON objects.
pub(super) struct Answer {
    socket: Socket,
    body: Body,
    /// What has come of the body, and how much of it is used up.
    decoded: Vec<u8>,
    at: usize,
    ended: bool,
    objects: Objects,
}

impl Answer {
    /// Whether root answers.
    pub(super) fn is_roots(&self) -> bool {
        self.socket.is_roots()
    }

    /// How many objects were too long to be read.
    pub(super) fn too_long(&self) -> u64 {
        self.objects.too_long
    }

    /// The next object of the body, and what `read` makes of it; none at the body's end. Waits for ever:
    /// dropping it loses nothing.
    ///
    /// # Errors
    /// The connection ended before the body did.
    pub(super) async fn next<T>(
        &mut self,
        read: impl Fn(&[u8]) -> T,
    ) -> Result<Option<T>, ApiError> {
        loop {
            let mut rest = self.decoded.get(self.at..).unwrap_or_default();
            let object = self.objects.next(&mut rest).map(&read);
            self.at = self.decoded.len() - rest.len();
            if object.is_some() || !self.more().await? {
                return Ok(object);
            }
        }
    }

    /// Waits for the first bytes of the body.
    async fn first(&mut self) -> Result<(), ApiError> {
        while self.decoded.len() < MAX_FAILURE && self.more().await? {}
        Ok(())
    }

    /// Waits for more of the body; false at its end.
    async fn more(&mut self) -> Result<bool, ApiError> {
        if self.ended {
            return Ok(false);
        }
        self.decoded.drain(..self.at.min(self.decoded.len()));
        self.at = 0;
        let mut bytes = Vec::new();
        if receive(&mut self.socket, &mut bytes).await? {
            self.decode(&bytes)?;
        } else if self.body.may_end_here() {
            self.ended = true;
        } else {
            return Err(cut_off());
        }
        Ok(true)
    }

    fn decode(&mut self, mut bytes: &[u8]) -> Result<(), ApiError> {
        loop {
            match self.body.next(&mut bytes).map_err(foreign)? {
                Piece::Data { bytes, .. } => self.decoded.extend_from_slice(bytes),
                Piece::More => return Ok(()),
                Piece::End => {
                    self.ended = true;
                    return Ok(());
                }
            }
        }
    }
}

/// Waits for more bytes; false at the connection's end.
async fn receive(socket: &mut Socket, bytes: &mut Vec<u8>) -> Result<bool, ApiError> {
    let mut chunk = [0; 2 << 10];
    let count = socket.read(&mut chunk).await?;
    bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count > 0)
}

fn foreign(reason: &'static str) -> ApiError {
    ApiError::Io(io::Error::new(io::ErrorKind::InvalidData, reason))
}

fn timed_out() -> ApiError {
    ApiError::Io(io::ErrorKind::TimedOut.into())
}

fn cut_off() -> ApiError {
    ApiError::Io(io::ErrorKind::UnexpectedEof.into())
}
