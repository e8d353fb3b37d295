//! What both requests share: protobuf fields into a reused buffer, and that buffer into snappy's block
//! format. It must not know which message it writes.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::fmt;

use crate::model::Kind;

/// The most that a request may hold before compression. Mimir answers 500 to pushes of 8 MB, which
/// would be tried again for ever.
pub const MAX_BYTES: usize = 4 << 20;

/// The request would pass [`MAX_BYTES`]; nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Uncompressed bytes that the request would have had.
    pub needed: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request would have {} bytes, and {MAX_BYTES} is the most", self.needed)
    }
}

impl std::error::Error for Full {}

/// A request's bytes, before and after compression.
pub(super) struct Buffer {
    raw: Vec<u8>,
    packed: Vec<u8>,
    encoder: snap::raw::Encoder,
    /// Room that is made with the first byte.
    expected: usize,
}

impl Buffer {
    pub(super) fn new() -> Buffer {
        let encoder = snap::raw::Encoder::new();
        Buffer { raw: Vec::new(), packed: Vec::new(), encoder, expected: 0 }
    }

    /// One without memory, which takes at once what this one's contents have taken.
    pub(super) fn anew(&self) -> Buffer {
        Buffer { expected: self.raw.len(), ..Buffer::new() }
    }

    pub(super) fn clear(&mut self) {
        self.raw.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(super) fn memory(&self) -> usize {
        self.raw.capacity() + self.packed.capacity()
    }

    /// Where to write what this file has no word for.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.raw
    }

    /// Opens a message of the request's own repeated field 1, whose content has this length.
    pub(super) fn begin(&mut self, content: usize) -> Result<(), Full> {
        self.begin_of(1, content, 0)
    }

    /// The same of another field, with so many bytes of the request that are not here.
    pub(super) fn begin_of(&mut self, tag: u32, content: usize, more: usize) -> Result<(), Full> {
        let needed = self.raw.len().saturating_add(more).saturating_add(nested_len(tag, content));
        if needed > MAX_BYTES {
            return Err(Full { needed });
        }
        if self.raw.capacity() == 0 {
            // A sixteenth more, for series that are new.
            self.raw.reserve(self.expected + self.expected / 16);
        }
        self.nested(tag, content);
        Ok(())
    }

    /// The key and the length of a nested message; the caller writes the content.
    pub(super) fn nested(&mut self, tag: u32, content: usize) {
        encode_key(tag, WireType::LengthDelimited, &mut self.raw);
        encode_varint(content as u64, &mut self.raw);
    }

    pub(super) fn string(&mut self, tag: u32, value: &str) {
        if !value.is_empty() {
            self.nested(tag, value.len());
            self.raw.extend_from_slice(value.as_bytes());
        }
    }

    pub(super) fn int64(&mut self, tag: u32, value: i64) {
        if value != 0 {
            encode_key(tag, WireType::Varint, &mut self.raw);
            encode_varint(value as u64, &mut self.raw);
        }
    }

    /// Only the positive zero is left out: -0.0 equals it and is another value.
    pub(super) fn double(&mut self, tag: u32, value: f64) {
        if value.to_bits() != 0 {
            encode_key(tag, WireType::SixtyFourBit, &mut self.raw);
            self.raw.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }

    /// As [`pack`](Buffer::pack), of these bytes and then the contents, which stay as they are.
    pub(super) fn pack_behind(&mut self, front: &[u8]) -> &[u8] {
        let contents = self.raw.len();
        self.raw.extend_from_slice(front);
        self.raw.rotate_left(contents);
        let written = self.compress();
        self.raw.rotate_left(front.len());
        self.raw.truncate(contents);
        self.packed.get(..written).unwrap_or_default()
    }

    /// The request in snappy's block format, good until the next call of anything.
    pub(super) fn pack(&mut self) -> &[u8] {
        let written = self.compress();
        self.packed.get(..written).unwrap_or_default()
    }

    fn compress(&mut self) -> usize {
        let room = snap::raw::max_compress_len(self.raw.len());
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        // It fails only above 4 GiB of input or with too small an output; `begin` and `resize` rule
        // both out, and an empty body is one that every server refuses.
        self.encoder.compress(&self.raw, &mut self.packed).unwrap_or(0)
    }
}

/// `MetricType` of both versions.
pub(super) fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Untyped => 0,
        Kind::Counter => 1,
        Kind::Gauge => 2,
        Kind::Histogram => 3,
        Kind::Summary => 5,
    }
}

/// The length of a nested message with key and length.
pub(super) fn nested_len(tag: u32, content: usize) -> usize {
    key_len(tag) + encoded_len_varint(content as u64) + content
}

pub(super) fn string_len(tag: u32, value: &str) -> usize {
    if value.is_empty() { 0 } else { nested_len(tag, value.len()) }
}

pub(super) fn int64_len(tag: u32, value: i64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value as u64) }
}

pub(super) fn double_len(tag: u32, value: f64) -> usize {
    if value.to_bits() == 0 { 0 } else { key_len(tag) + 8 }
}
