//! HTTP over one connection, in either version: a request goes out, an answer comes back, piece by piece. It
//! must not know what either holds. A connection moves only while somebody waits for it: there is no task and
//! no timer.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::http1::Http1;
use super::http2::{self, Http2};
use super::pipe::Stream;
use super::tls::HTTP2;

/// Bounds the answer's head, and an HTTP/1.1 connection's buffers.
pub(super) const MAX_HEAD: usize = 16 << 10;

/// Why a connection came to nothing.
#[derive(Debug)]
pub(super) enum Broken {
    Http1(hyper::Error),
    Http2(h2::Error),
}

impl Broken {
    /// Whether the server says that it has not begun with the request.
    pub(super) fn unprocessed(&self) -> bool {
        matches!(self, Broken::Http2(error) if http2::unprocessed(error))
    }

    /// Whether the connection ended while the request was under way, and not for what the server said.
    pub(super) fn broke_off(&self) -> bool {
        match self {
            Broken::Http1(error) => !error.is_parse(),
            Broken::Http2(error) => error.is_io(),
        }
    }

    /// Whether the server wants HTTP/1.1.
    pub(super) fn wants_http1(&self) -> bool {
        matches!(self, Broken::Http2(error) if http2::wants_http1(error))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Broken::Http2(error) => return f.write_str(&http2::explain(error)),
            Broken::Http1(error) => error,
        };
        if error.is_parse_too_large() {
            return write!(
                f,
                "the head of the answer is longer than {MAX_HEAD} bytes; is it the right server?"
            );
        }
        if error.is_parse() {
            return write!(
                f,
                "{error}: the answer is not HTTP; is the URL's scheme or port wrong?"
            );
        }
        write!(f, "{error}")?;
        let mut source = error.source();
        while let Some(inner) = source {
            write!(f, ": {inner}")?;
            source = inner.source();
        }
        f.write_str("; the server, or something in between, gave up the connection")
    }
}

/// A connection that requests go over, one after the other.
pub(super) enum Link {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

/// What an answer's body comes from.
pub(super) enum Body {
    Http1(Incoming),
    Http2(h2::RecvStream),
}

impl Link {
    pub(super) async fn new(stream: Stream) -> Result<Link, Broken> {
        if stream.pipe.alpn() == Some(HTTP2) {
            return Ok(Link::Http2(Box::new(Http2::new(stream).await.map_err(Broken::Http2)?)));
        }
        Ok(Link::Http1(Box::new(Http1::new(stream).await.map_err(Broken::Http1)?)))
    }

    /// Whether requests name the whole URL, and no header `Host`.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Link::Http2(_))
    }

    /// Whether another request can be sent. Notices a server that has closed meanwhile.
    pub(super) async fn is_open(&mut self) -> bool {
        match self {
            Link::Http1(link) => link.is_open().await,
            Link::Http2(link) => link.is_open().await,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Body>, Broken> {
        match self {
            Link::Http1(link) => {
                let response = link.send(request).await.map_err(Broken::Http1)?;
                Ok(response.map(Body::Http1))
            }
            Link::Http2(link) => {
                let response = link.send(request).await.map_err(Broken::Http2)?;
                Ok(response.map(Body::Http2))
            }
        }
    }

    /// The next piece of the body of an answer over this connection; None at its end.
    pub(super) async fn next(&mut self, body: &mut Body) -> Option<Result<Bytes, Broken>> {
        match (self, body) {
            (Link::Http1(link), Body::Http1(body)) => {
                Some(link.next(body).await?.map_err(Broken::Http1))
            }
            (Link::Http2(link), Body::Http2(body)) => {
                Some(link.next(body).await?.map_err(Broken::Http2))
            }
            _ => None,
        }
    }
}
