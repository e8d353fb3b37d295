//! The bytes of a connection: TCP, TLS over it, and TLS within that where a proxy speaks it, too. What goes
//! through is counted and bounded. It must not know HTTP.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What a client knows of its connections' bytes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Bytes written to sockets, below TLS.
    sent: Cell<u64>,
    /// Bytes above TLS that may still be read.
    allowed: Cell<u64>,
    /// Whether a byte above TLS has come since [`expect`](Meter::expect).
    heard: Cell<bool>,
}

impl Meter {
    /// A request begins, whose answer with everything around it has at most this many bytes.
    pub(super) fn expect(&self, bytes: u64) {
        self.allowed.set(bytes);
        self.heard.set(false);
    }

    /// Whether a byte has come since the request began.
    pub(super) fn heard(&self) -> bool {
        self.heard.get()
    }

    /// Bytes written since the last call.
    pub(super) fn take_sent(&self) -> u64 {
        self.sent.take()
    }
}

/// The server sent more than an answer has: heads without end, or frames that are none.
#[derive(Debug)]
pub(super) struct Flood;

impl std::fmt::Display for Flood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server sends more than any answer has; is it the right server?")
    }
}

impl std::error::Error for Flood {}

/// TCP, or TLS over another pipe.
pub(super) enum Pipe {
    Tcp(TcpStream, Rc<Meter>),
    Tls(Box<TlsStream<Pipe>>),
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Pipe::Tcp(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Pipe::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Pipe::Tcp(stream, meter) => count(Pin::new(stream).poll_write(cx, buf), meter),
            Pipe::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Pipe::Tcp(stream, meter) => {
                count(Pin::new(stream).poll_write_vectored(cx, bufs), meter)
            }
            Pipe::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Pipe::Tcp(stream, _) => Pin::new(stream).poll_flush(cx),
            Pipe::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Pipe::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Pipe::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

fn count(written: Poll<io::Result<usize>>, meter: &Meter) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(bytes)) = &written {
        meter.sent.set(meter.sent.get().saturating_add(*bytes as u64));
    }
    written
}

/// A connection as HTTP sees it: what is read is held against what the client expects.
pub(super) struct Stream {
    pub(super) pipe: Pipe,
    pub(super) meter: Rc<Meter>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.pipe).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before) as u64;
        if read > 0 {
            self.meter.heard.set(true);
            match self.meter.allowed.get().checked_sub(read) {
                Some(left) => self.meter.allowed.set(left),
                None => return Poll::Ready(Err(io::Error::other(Flood))),
            }
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
