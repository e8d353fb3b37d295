//! A push to Loki in either of the forms that it takes. It must not know where entries come from, nor which
//! of them Loki would refuse.

use std::fmt::Write as _;

use super::loki::{self, LokiPush, PushEntry};
use super::loki_json::{self, JsonPush};
use super::wire::Full;
use crate::model::Labels;

/// A request under construction.
#[derive(Debug)]
pub enum Push {
    /// Protobuf and snappy.
    Protobuf(Box<LokiPush>),
    /// JSON, uncompressed.
    Json(JsonPush),
}

impl Push {
    /// An empty request, without memory.
    pub fn new(json: bool) -> Push {
        if json { Push::Json(JsonPush::default()) } else { Push::Protobuf(Box::default()) }
    }

    /// Whether it is JSON.
    pub fn is_json(&self) -> bool {
        matches!(self, Push::Json(_))
    }

    /// Forgets the contents and keeps the memory.
    pub fn clear(&mut self) {
        match self {
            Push::Protobuf(push) => push.clear(),
            Push::Json(push) => push.clear(),
        }
    }

    /// Labels as [`stream`](Push::stream) takes them.
    pub fn labels(&self, labels: &Labels) -> String {
        match self {
            Push::Protobuf(_) => {
                // A usual set takes memory once.
                let mut text = String::with_capacity(256);
                // Writing to a string does not fail.
                let _ = write!(text, "{labels}");
                text
            }
            Push::Json(_) => loki_json::object(labels),
        }
    }

    /// Adds a stream with its entries, at least one.
    ///
    /// # Errors
    /// The request would pass [`MAX_BYTES`](super::MAX_BYTES); it is as it was.
    pub fn stream<'a>(
        &mut self,
        labels: &str,
        entries: impl Iterator<Item = PushEntry<'a>> + Clone,
    ) -> Result<(), Full> {
        match self {
            Push::Protobuf(push) => push.stream(labels, entries),
            Push::Json(push) => push.stream(labels, entries),
        }
    }

    /// The most bytes that a stream without entries adds.
    pub fn stream_bytes(&self, labels: &str) -> usize {
        labels.len() + 40
    }

    /// The most bytes that an entry adds.
    pub fn entry_bytes(&self, entry: &PushEntry<'_>) -> usize {
        match self {
            Push::Protobuf(_) => loki::entry_bytes(entry),
            Push::Json(_) => loki_json::entry_len(entry),
        }
    }

    /// Bytes so far, before compression.
    pub fn len(&self) -> usize {
        match self {
            Push::Protobuf(push) => push.len(),
            Push::Json(push) => push.len(),
        }
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries the request has.
    pub fn entries(&self) -> usize {
        match self {
            Push::Protobuf(push) => push.entries(),
            Push::Json(push) => push.entries(),
        }
    }

    /// The body to send. The contents stay until [`clear`](Push::clear), so that the same request can be
    /// tried again.
    pub fn finish(&mut self) -> &[u8] {
        match self {
            Push::Protobuf(push) => push.finish(),
            Push::Json(push) => push.finish(),
        }
    }
}
