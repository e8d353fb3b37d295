//! Blocks as the logs WAL keeps them, and back: entries as columns, compressed where that is shorter, and
//! in the same record how far their sources have been read.
//!
//! Numbers are varints (LEB128, see `varint.rs`) unless a type is given; *text* is a number of bytes and
//! UTF-8, *bytes* a number of bytes and them.
//! ```text
//! version    u8 = 2
//! flags      u8   bit 0: the body is a zstd frame; bit 1: the positions are one; other bits 0
//! frame      bytes of the frame of positions, only with bit 1
//! positions  as below, in the clear or in the frame
//! entries    how many there are
//! body       the rest of the record: as below, in the clear or in a frame; no byte without entries
//!
//! positions: how many; each: key text, position bytes (none: the source is gone)
//!
//! body, in columns:
//!   streams     how many; each: how many labels; each: name text, value text; sorted by name
//!   stream      of each entry: index into the streams
//!   timestamp   of each entry: nanoseconds since the Unix epoch, as the difference to the one before (of
//!               the first: to 0), modulo 2^64, zigzag: 0, -1, 1, -2 are 0, 1, 2, 3
//!   metadata    of each entry: how many pairs; each: name text, value text
//!   length      of each entry: bytes of its line
//!   lines       UTF-8, one after the other, to the end of the body
//! ```
//! A frame is one zstd frame that says how long its contents are. Positions stand before the body, so that a
//! start, which reads the positions of every record, opens no body; they are worth a frame in the first
//! record of a segment only, which has every source's.
//!
//! **Bounds.** Neither a body nor positions that unpack to more than 17 MiB, or whose contents *weigh* more,
//! are read: 48 for each stream, entry, pair and position, and the bytes of its texts. That is about the
//! memory they take here, which the record's own length does not bound. [`encode_block`] writes no more
//! entries than that.

mod decode;
mod packed;
mod varint;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::{Block, EntryRef};

pub use decode::{block_bytes, decode_block, decode_positions};

/// The record's kind in the WAL.
pub const BLOCK: u8 = 2;

const VERSION: u8 = 2;
const BODY_PACKED: u8 = 1;
const POSITIONS_PACKED: u8 = 2;

/// What a stream, an entry, a pair or a position weighs beside its texts: what it takes in memory, and
/// more than its numbers take in a record.
const WEIGHT: u64 = 48;

/// How far each source has been read, by the source's key.
pub type Positions = BTreeMap<String, Vec<u8>>;

/// Appends a block to `out` and returns how many entries it has: all of the block's, or the first ones, as
/// many as may be read back (17 MiB, see the module). `positions` is what is written of the positions:
/// the block's own, or every one if the record is the first of its segment.
pub fn encode_block<'a>(
    block: &Block,
    positions: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
    out: &mut Vec<u8>,
) -> u32 {
    let flags_at = out.len() + 1;
    out.extend_from_slice(&[VERSION, 0]);
    let mut flags = 0;

    // One or two positions.
    let mut raw = Vec::with_capacity(256);
    varint::put(&mut raw, positions.len() as u64);
    for (key, position) in positions {
        varint::put_bytes(&mut raw, key.as_bytes());
        varint::put_bytes(&mut raw, position);
    }
    let mut frame = Vec::new();
    if packed::put(&raw, &mut frame) {
        flags |= POSITIONS_PACKED;
        varint::put(out, frame.len() as u64);
    }
    out.append(&mut frame);

    let entries = entries_that_fit(block);
    varint::put(out, entries as u64);
    if entries > 0 {
        raw.clear();
        put_body(block, entries, &mut raw);
        if packed::put(&raw, out) {
            flags |= BODY_PACKED;
        }
    }
    if let Some(byte) = out.get_mut(flags_at) {
        *byte = flags;
    }
    // At most MAX_RAW / WEIGHT.
    entries as u32
}

fn entries_that_fit(block: &Block) -> usize {
    let mut budget = Budget::new();
    let heads = block.streams().iter().all(|labels| {
        budget.spend(0) && labels.iter().all(|(name, value)| budget.spend(name.len() + value.len()))
    });
    let fits = |budget: &mut Budget, entry: &EntryRef<'_>| {
        budget.spend(entry.line.len())
            && entry.metadata.iter().all(|(name, value)| budget.spend(name.len() + value.len()))
    };
    if heads { block.entries().take_while(|entry| fits(&mut budget, entry)).count() } else { 0 }
}

fn put_body(block: &Block, count: usize, out: &mut Vec<u8>) {
    let entries = || block.entries().take(count);
    let text = block.text(count);
    // Enough where there is no metadata.
    out.reserve(text.len() + 6 * count + 256);
    varint::put(out, block.streams().len() as u64);
    for labels in block.streams() {
        put_pairs(out, labels.iter());
    }
    entries().for_each(|entry| varint::put(out, u64::from(entry.stream.0)));
    let mut before: i64 = 0;
    for entry in entries() {
        varint::put(out, varint::zigzag(entry.timestamp_ns.wrapping_sub(before)));
        before = entry.timestamp_ns;
    }
    for entry in entries() {
        put_pairs(out, entry.metadata.iter());
    }
    entries().for_each(|entry| varint::put(out, entry.line.len() as u64));
    out.extend_from_slice(text.as_bytes());
}

fn put_pairs<'a>(out: &mut Vec<u8>, pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
    varint::put(out, pairs.len() as u64);
    for (name, value) in pairs {
        varint::put_bytes(out, name.as_bytes());
        varint::put_bytes(out, value.as_bytes());
    }
}

/// Applies one position: an empty one removes the key.
pub fn apply(positions: &mut Positions, key: &str, position: &[u8]) {
    if position.is_empty() {
        positions.remove(key);
    } else {
        positions.insert(key.to_owned(), position.to_vec());
    }
}

/// How much of [`packed::MAX_RAW`] is left, see the module.
struct Budget(u64);

impl Budget {
    fn new() -> Budget {
        Budget(packed::MAX_RAW)
    }

    /// Takes a thing with so many bytes of text; false if there is too little left.
    fn spend(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(WEIGHT).and_then(|left| left.checked_sub(bytes as u64));
        self.0 = left.unwrap_or_default();
        left.is_some()
    }
}
