//! HTTP over one connection: a request goes out, an answer comes back, piece by piece. It must not know what
//! either holds. hyper's side of the connection moves only while somebody waits for it: there is no task and
//! no timer.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::pipe::{Flood, Stream};

/// Bounds the answer's head, and the connection's buffers.
const MAX_HEAD: usize = 16 << 10;

/// Most headers that an answer may have.
const MAX_HEADERS: usize = 64;

/// Why a connection came to nothing.
#[derive(Debug)]
pub(super) enum Broken {
    Http1(hyper::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken::Http1(error) = self;
        if let Some(flood) = flood(error) {
            return write!(f, "{flood}");
        }
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

/// The bound on what is read, if that is what an error comes from.
fn flood<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Flood> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(flood) = inner.and_then(|inner| inner.downcast_ref::<Flood>()) {
            return Some(flood);
        }
        next = error.source();
    }
    None
}

type Sender = SendRequest<Full<Bytes>>;

/// A connection that requests go over, one after the other.
pub(super) struct Link {
    sender: Sender,
    driver: Driver,
}

/// What an answer's body comes from.
pub(super) struct Body(Incoming);

/// hyper's side of the connection. It moves only while a request is waited for.
struct Driver {
    connection: Connection<TokioIo<Stream>, Full<Bytes>>,
    done: bool,
}

impl Link {
    pub(super) async fn new(stream: Stream) -> Result<Link, Broken> {
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Broken::Http1)?;
        Ok(Link { sender, driver: Driver { connection, done: false } })
    }

    /// Whether another request can be sent. Notices a server that has closed meanwhile.
    pub(super) async fn is_open(&mut self) -> bool {
        poll_fn(|cx| {
            self.driver.poll(cx);
            Poll::Ready(())
        })
        .await;
        !self.driver.done && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Body>, Broken> {
        let response = self.sender.send_request(request.map(Full::new));
        let response = self.driver.while_waiting(response).await.map_err(Broken::Http1)?;
        Ok(response.map(Body))
    }

    /// The next piece of an answer's body; None at its end.
    pub(super) async fn next(&mut self, body: &mut Body) -> Option<Result<Bytes, Broken>> {
        loop {
            match self.driver.while_waiting(body.0.frame()).await? {
                Err(error) => return Some(Err(Broken::Http1(error))),
                // What is no data are trailers.
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => continue,
                },
            }
        }
    }
}

impl Driver {
    /// Its errors reach whoever waits for the answer, too.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.done && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.done = true;
        }
    }

    async fn while_waiting<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.poll(cx);
            future.as_mut().poll(cx)
        })
        .await
    }
}
