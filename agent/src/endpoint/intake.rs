//! Where an answer's body goes: its first bytes are kept for messages, or a sink has all of it, piece by
//! piece. It must not know what the body means.

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::answer::MAX_SAID;
use super::link::{Body, Broken, Link};

/// Takes a piece of a body with the answer's `Content-Type`; false if it wants no more.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&str, &[u8]) -> bool;

/// What became of a body.
#[derive(Debug)]
pub(super) enum End {
    /// All of it was read.
    Whole,
    /// It is longer than was allowed.
    TooLong,
    /// The sink wanted no more.
    Enough,
    /// It is encoded in a way that nobody asked for.
    Encoded(String),
    /// It broke off.
    Broken(Broken),
    /// The time was up.
    Timeout,
}

pub(super) struct Intake<'a, 'b> {
    sink: Option<&'a mut Sink<'b>>,
    content_type: &'a str,
    encoding: Option<String>,
    max_bytes: u64,
    /// The first bytes, where there is no sink.
    pub(super) kept: Vec<u8>,
    pub(super) bytes: u64,
}

impl<'a, 'b> Intake<'a, 'b> {
    pub(super) fn new(
        headers: &'a HeaderMap,
        sink: Option<&'a mut Sink<'b>>,
        max_bytes: u64,
    ) -> Intake<'a, 'b> {
        let identity = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"identity");
        let encoding = headers
            .get(CONTENT_ENCODING)
            .filter(|value| !identity(value.as_bytes()))
            .map(|value| super::words(value.as_bytes()));
        Intake {
            sink,
            content_type: content_type(headers),
            encoding,
            max_bytes,
            kept: Vec::new(),
            bytes: 0,
        }
    }

    /// Reads a body to its end.
    pub(super) async fn drain(&mut self, link: &mut Link, body: &mut Body) -> End {
        if self.sink.is_some()
            && let Some(encoding) = self.encoding.take()
        {
            return End::Encoded(encoding);
        }
        loop {
            match link.next(body).await {
                None => return End::Whole,
                Some(Err(error)) => return End::Broken(error),
                Some(Ok(data)) => {
                    if let Some(end) = self.piece(&data) {
                        return end;
                    }
                }
            }
        }
    }

    fn piece(&mut self, data: &Bytes) -> Option<End> {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        if self.bytes > self.max_bytes {
            return Some(End::TooLong);
        }
        match &mut self.sink {
            Some(sink) => {
                if !data.is_empty() && !sink(self.content_type, data) {
                    return Some(End::Enough);
                }
            }
            None => {
                let room = MAX_SAID.saturating_sub(self.kept.len()).min(data.len());
                self.kept.extend_from_slice(data.get(..room).unwrap_or_default());
            }
        }
        None
    }
}

/// The header `Content-Type`, or nothing.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
