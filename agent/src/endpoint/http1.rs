//! HTTP/1.1 over one connection, by hyper. It must not know what requests hold.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::link::MAX_HEAD;
use super::pipe::Stream;

/// Most headers that an answer may have.
const MAX_HEADERS: usize = 64;

pub(super) struct Http1 {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
}

/// hyper's side of the connection. It moves only while a request is waited for.
struct Driver {
    connection: Connection<TokioIo<Stream>, Full<Bytes>>,
    done: bool,
}

impl Http1 {
    pub(super) async fn new(stream: Stream) -> hyper::Result<Http1> {
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Http1 { sender, driver: Driver { connection, done: false } })
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

    pub(super) async fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> hyper::Result<Response<Incoming>> {
        let response = self.sender.send_request(request.map(Full::new));
        self.driver.while_waiting(response).await
    }

    /// The next piece of an answer's body; None at its end.
    pub(super) async fn next(&mut self, body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
        loop {
            match self.driver.while_waiting(body.frame()).await? {
                Err(error) => return Some(Err(error)),
                // What is no data are trailers.
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
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
