//! HTTP/2 over one connection (RFC 9113), by the crate h2: one stream at a time. It must not know what
//! requests hold.
//!
//! As with HTTP/1.1, the connection moves only while a request is waited for. A server's pings are answered with
//! the next request; one that gives up a connection for that has closed it by then, which is noticed. What a server
//! may make us hold is bounded: heads by [`MAX_HEAD`], bodies by the smallest windows that the protocol has,
//! frames by its smallest frame, streams of its own by none; all else by what [`Stream`] lets through.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Error, Reason, RecvStream};
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response, Version};

use super::link::MAX_HEAD;
use super::pipe::Stream;

/// The windows' initial size (RFC 9113, section 6.9.2), below which that of the connection can't be set.
const WINDOW: u32 = 65_535;

pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    driver: Driver,
}

struct Driver {
    /// None once it has ended: only its end tells the streams of a write that failed.
    connection: Option<Connection<Stream, Bytes>>,
}

impl Http2 {
    pub(super) async fn new(stream: Stream) -> Result<Http2, Error> {
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .max_concurrent_reset_streams(1)
            .handshake(stream)
            .await?;
        Ok(Http2 { sender, driver: Driver { connection: Some(connection) } })
    }

    /// Whether another request can be sent. Notices a server that has closed or said GOAWAY meanwhile.
    pub(super) async fn is_open(&mut self) -> bool {
        poll_fn(|cx| {
            self.driver.poll(cx);
            let ready = matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())));
            Poll::Ready(self.driver.connection.is_some() && ready)
        })
        .await
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> Result<Response<RecvStream>, Error> {
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_2;
        if !body.is_empty() {
            // RFC 9110, section 8.6: what passes it on by HTTP/1.1 need not hold all of it first.
            parts.headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let sender = &mut self.sender;
        self.driver.while_waiting(|cx| sender.poll_ready(cx)).await?;
        let request = Request::from_parts(parts, ());
        let (mut response, mut stream) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            // It goes as the server's windows allow; nothing is copied.
            stream.send_data(body, true)?;
        }
        self.driver.while_waiting(|cx| Pin::new(&mut response).poll(cx)).await
    }

    /// The next piece of an answer's body; None at its end.
    pub(super) async fn next(&mut self, body: &mut RecvStream) -> Option<Result<Bytes, Error>> {
        let data = self.driver.while_waiting(|cx| body.poll_data(cx)).await?;
        if let Ok(data) = &data {
            // Fails only for a stream that has ended, which needs no window.
            let _ = body.flow_control().release_capacity(data.len());
        }
        Some(data)
    }
}

impl Driver {
    /// Its errors reach whoever waits for the answer, too.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if self
            .connection
            .as_mut()
            .is_some_and(|connection| Pin::new(connection).poll(cx).is_ready())
        {
            self.connection = None;
        }
    }

    async fn while_waiting<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|cx| {
            self.poll(cx);
            let polled = poll(cx);
            if polled.is_pending() {
                // What the poll has made ready to be written.
                self.poll(cx);
            }
            polled
        })
        .await
    }
}

/// Whether the server says that it has not begun with the request (RFC 9113, section 8.7): a stream that it
/// refused, or one beyond the last that its GOAWAY names. Of others h2 does not say that it came to an
/// end by a GOAWAY.
pub(super) fn unprocessed(error: &Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// Whether the server wants HTTP/1.1 for this request (section 9.2, HTTP_1_1_REQUIRED).
pub(super) fn wants_http1(error: &Error) -> bool {
    error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED)
}

/// One line of what happened.
pub(super) fn explain(error: &Error) -> String {
    let reason = error.reason().unwrap_or(Reason::NO_ERROR);
    let reason = reason.description();
    if error.is_remote() && error.is_go_away() {
        return format!("the server ended the HTTP/2 connection: {reason}");
    }
    if error.is_remote() && error.is_reset() {
        return format!("the server gave up the HTTP/2 stream of the request: {reason}");
    }
    match error.get_io() {
        Some(error) => {
            format!("{error}; the server, or something in between, gave up the connection")
        }
        None => format!("{error}: the answer is not HTTP/2 as it has to be"),
    }
}
