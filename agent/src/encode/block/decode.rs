//! Records of blocks read back, within the bounds that the [module](super) states. Whatever the bytes, an
//! error is the worst.

use super::super::bytes::{DecodeError, Reader};
use super::{
    BODY_PACKED, Budget, POSITIONS_PACKED, Positions, VERSION, WEIGHT, apply, packed, varint,
};
use crate::model::{Block, Labels, StreamId};

/// The fewest bytes of a body that an entry takes: four numbers.
const MIN_ENTRY: u64 = 4;

/// What [`block_bytes`] counts for an entry beside its bytes of the body.
const ENTRY_BYTES: u64 = 12;

type Result<T> = std::result::Result<T, DecodeError>;

/// Bytes of a record, in the clear or as a frame.
struct Part<'a> {
    bytes: &'a [u8],
    /// Where they are in the record.
    at: usize,
    packed: bool,
}

impl<'a> Part<'a> {
    fn error(&self, expected: &'static str) -> DecodeError {
        DecodeError { expected, offset: self.at }
    }

    /// Bytes in the clear.
    fn raw_len(&self) -> Result<u64> {
        if !self.packed {
            return Ok(self.bytes.len() as u64);
        }
        packed::raw_len(self.bytes).ok_or(self.error("a zstd frame of at most 17 MiB"))
    }

    /// Reads all of it. An error's offset is the record's; inside a frame no offset says anything of the
    /// record, and the frame's own is given.
    fn read(&self, read: impl FnOnce(&mut Reader<'_>) -> Result<()>) -> Result<()> {
        let raw =
            packed::open(self.bytes, self.packed).ok_or(self.error("a zstd frame in order"))?;
        let mut reader = Reader::new(&raw);
        read(&mut reader).and_then(|()| reader.end()).map_err(|error| DecodeError {
            offset: self.at + if self.packed { 0 } else { error.offset },
            ..error
        })
    }
}

struct Parts<'a> {
    positions: Part<'a>,
    entries: u64,
    body: Part<'a>,
}

fn split(payload: &[u8]) -> Result<Parts<'_>> {
    let mut reader = Reader::new(payload);
    if reader.u8("a version")? != VERSION {
        return Err(DecodeError { expected: "version 2", offset: 0 });
    }
    let flags = reader.u8("flags")?;
    if flags & !(BODY_PACKED | POSITIONS_PACKED) != 0 {
        return Err(DecodeError { expected: "known flags", offset: 1 });
    }
    let packed = flags & POSITIONS_PACKED != 0;
    let positions = if packed {
        let bytes = varint::read_bytes(&mut reader, "a frame of positions")?;
        Part { bytes, at: reader.offset() - bytes.len(), packed }
    } else {
        let at = reader.offset();
        read_positions(&mut reader, |_, _| {})?;
        Part { bytes: payload.get(at..reader.offset()).unwrap_or_default(), at, packed }
    };
    let entries = varint::read(&mut reader, "a number of entries")?;
    let at = reader.offset();
    let bytes = payload.get(at..).unwrap_or_default();
    let body = Part { bytes, at, packed: flags & BODY_PACKED != 0 };
    if entries == 0 && (body.packed || !bytes.is_empty()) {
        return Err(body.error("no body without entries"));
    }
    if entries > packed::MAX_RAW / WEIGHT {
        return Err(body.error("a plausible number of entries"));
    }
    Ok(Parts { positions, entries, body })
}

/// Appends a record's entries to `block`. Its positions are the matter of [`decode_positions`].
///
/// # Errors
/// The record is not well-formed; a part of it may have been appended.
pub fn decode_block(payload: &[u8], block: &mut Block) -> Result<()> {
    let Parts { entries, body, .. } = split(payload)?;
    if entries == 0 {
        return Ok(());
    }
    if body.raw_len()? / MIN_ENTRY < entries {
        return Err(body.error("so many entries"));
    }
    body.read(|reader| read_body(reader, entries as usize, block))
}

/// Bytes that a record's entries have once they are read, at least 16 for each and its line: what bounds
/// a batch of records, since the record's own length says little of it.
///
/// # Errors
/// The record is not well-formed, as far as that shows without opening its body.
pub fn block_bytes(payload: &[u8]) -> Result<u64> {
    let Parts { entries, body, .. } = split(payload)?;
    Ok(body.raw_len()?.saturating_add(entries * ENTRY_BYTES))
}

/// Applies a record's positions to `positions`, without opening its body.
///
/// # Errors
/// The record is not well-formed; a part of them may have been applied.
pub fn decode_positions(payload: &[u8], positions: &mut Positions) -> Result<()> {
    let part = split(payload)?.positions;
    part.read(|reader| read_positions(reader, |key, position| apply(positions, key, position)))
}

fn read_positions(reader: &mut Reader<'_>, mut position: impl FnMut(&str, &[u8])) -> Result<()> {
    let mut budget = Budget::new();
    for _ in 0..varint::read(reader, "a number of positions")? {
        let key = varint::read_text(reader, "a position's key")?;
        let bytes = varint::read_bytes(reader, "a position")?;
        spend(&mut budget, key.len() + bytes.len(), reader)?;
        position(key, bytes);
    }
    Ok(())
}

/// The columns of `count` entries, the number of which the body's length makes plausible.
fn read_body(reader: &mut Reader<'_>, count: usize, block: &mut Block) -> Result<()> {
    let mut budget = Budget::new();
    let streams = read_streams(reader, &mut budget, block)?;

    // Four columns are read side by side, so that what an entry takes meanwhile is no more than its row.
    let mut stream_column = reader.clone();
    skip(reader, count, "a stream")?;
    let mut timestamps = reader.clone();
    skip(reader, count, "a timestamp")?;
    let mut metadata = reader.clone();
    for _ in 0..count {
        for _ in 0..varint::read(reader, "a number of pairs")? {
            let name = varint::read_bytes(reader, "a name")?;
            let value = varint::read_bytes(reader, "a value")?;
            spend(&mut budget, name.len() + value.len(), reader)?;
        }
    }
    let mut lengths = reader.clone();
    let mut text_bytes: usize = 0;
    for _ in 0..count {
        let len = varint::read(reader, "a line's length")?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        spend(&mut budget, len, reader)?;
        // No overflow: the budget is smaller.
        text_bytes += len;
    }
    let text = reader.take(text_bytes, "lines")?;
    let mut lines = std::str::from_utf8(text).map_err(|_| reader.error("UTF-8"))?;

    block.reserve(count, text_bytes);
    let mut timestamp_ns: i64 = 0;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let stream = varint::read(&mut stream_column, "a stream")?;
        let stream = usize::try_from(stream).ok().and_then(|at| streams.get(at));
        let stream = *stream.ok_or(stream_column.error("a stream of this record"))?;
        let difference = varint::read(&mut timestamps, "a timestamp")?;
        timestamp_ns = timestamp_ns.wrapping_add(varint::unzigzag(difference));
        read_pairs(&mut metadata, &mut pairs)?;
        let len = varint::read(&mut lengths, "a line's length")? as usize;
        let (line, rest) =
            lines.split_at_checked(len).ok_or(lengths.error("whole characters in a line"))?;
        lines = rest;
        block.push_with(stream, timestamp_ns, line, pairs.iter().copied());
    }
    Ok(())
}

/// The most streams of one block: more than a block of [64 KiB of lines](crate::model::Block) has entries.
const MAX_STREAMS: u64 = 4_096;

fn read_streams(
    reader: &mut Reader<'_>,
    budget: &mut Budget,
    block: &mut Block,
) -> Result<Vec<StreamId>> {
    let mut streams = Vec::new();
    let count = varint::read(reader, "a number of streams")?;
    // Looking up each among the others takes the square of their number.
    if count > MAX_STREAMS {
        return Err(reader.error("a number of streams that a block has"));
    }
    for _ in 0..count {
        spend(budget, 0, reader)?;
        let mut pairs = Vec::new();
        let mut before = None;
        for _ in 0..varint::read(reader, "a number of labels")? {
            let name = varint::read_text(reader, "a label name")?;
            let value = varint::read_text(reader, "a label value")?;
            spend(budget, name.len() + value.len(), reader)?;
            if before.replace(name).is_some_and(|before| name <= before) {
                return Err(reader.error("label names in order"));
            }
            pairs.push((name, value));
        }
        let labels = Labels::from_pairs(pairs).map_err(|_| reader.error("labels"))?;
        streams.push(block.stream(&labels).ok_or(reader.error("fewer streams"))?);
    }
    Ok(streams)
}

fn read_pairs<'a>(reader: &mut Reader<'a>, pairs: &mut Vec<(&'a str, &'a str)>) -> Result<()> {
    pairs.clear();
    for _ in 0..varint::read(reader, "a number of pairs")? {
        let name = varint::read_text(reader, "a name")?;
        pairs.push((name, varint::read_text(reader, "a value")?));
    }
    Ok(())
}

fn skip(reader: &mut Reader<'_>, count: usize, expected: &'static str) -> Result<()> {
    for _ in 0..count {
        varint::read(reader, expected)?;
    }
    Ok(())
}

fn spend(budget: &mut Budget, bytes: usize, reader: &Reader<'_>) -> Result<()> {
    if budget.spend(bytes) { Ok(()) } else { Err(reader.error("no more than 17 MiB")) }
}
