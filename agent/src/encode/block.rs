//! Blocks as the logs WAL keeps them, and back.
//! ```text
//! version    u8 = 1
//! streams    u16; each: labels u16, each name u16 + UTF-8, value u16 + UTF-8, sorted by name
//! positions  u32; each: key u16 + UTF-8, length u16, bytes; a segment's first record has every one
//! entries    u32; each:
//!   stream     u16   index into the streams
//!   timestamp  i64   nanoseconds since the Unix epoch
//!   metadata   u16   pairs, as labels
//!   line       u32 + UTF-8
//! ```

use std::collections::BTreeMap;

use super::bytes::{DecodeError, Reader, put_pairs, put_str};
use crate::model::{Block, Labels};

/// The record's kind in the WAL.
pub const BLOCK: u8 = 2;

const VERSION: u8 = 1;

/// How far each source has been read, by the source's key.
pub type Positions = BTreeMap<String, Vec<u8>>;

/// Appends a block to `out` and returns how many entries it has. `positions` is what is written of the
/// positions: the block's own, or every one if the record is the first of its segment.
pub fn encode_block<'a>(
    block: &Block,
    positions: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
    out: &mut Vec<u8>,
) -> u32 {
    out.push(VERSION);
    out.extend_from_slice(&(block.streams().len() as u16).to_le_bytes());
    for labels in block.streams() {
        put_pairs(out, labels.iter());
    }
    out.extend_from_slice(&(positions.len() as u32).to_le_bytes());
    for (key, position) in positions {
        put_str(out, key);
        let position = position.get(..usize::from(u16::MAX)).unwrap_or(position);
        out.extend_from_slice(&(position.len() as u16).to_le_bytes());
        out.extend_from_slice(position);
    }
    out.extend_from_slice(&(block.len() as u32).to_le_bytes());
    for entry in block.entries() {
        out.extend_from_slice(&entry.stream.0.to_le_bytes());
        out.extend_from_slice(&entry.timestamp_ns.to_le_bytes());
        put_pairs(out, entry.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        out.extend_from_slice(&(entry.line.len() as u32).to_le_bytes());
        out.extend_from_slice(entry.line.as_bytes());
    }
    block.len() as u32
}

/// Appends a record's entries and positions to `block`.
///
/// # Errors
/// The record is not well-formed; a part of it may have been appended.
pub fn decode_block(payload: &[u8], block: &mut Block) -> Result<(), DecodeError> {
    let mut reader = Reader::new(payload);
    let streams = read_head(&mut reader, |key, position| block.set_position(key, position))?;
    let mut ids = Vec::with_capacity(streams.len());
    for labels in &streams {
        ids.push(block.stream(labels).ok_or(reader.error("fewer streams"))?);
    }
    for _ in 0..reader.u32("a number of entries")? {
        let stream = usize::from(reader.u16("a stream")?);
        let stream = *ids.get(stream).ok_or(reader.error("a stream of this record"))?;
        let timestamp_ns = reader.i64("a timestamp")?;
        let metadata = read_pairs(&mut reader)?;
        let len = reader.u32("a line's length")? as usize;
        let line =
            std::str::from_utf8(reader.take(len, "a line")?).map_err(|_| reader.error("UTF-8"))?;
        block.push_with(stream, timestamp_ns, line, metadata);
    }
    reader.end()
}

/// Applies a record's positions to `positions`, without reading its entries.
///
/// # Errors
/// The record is not well-formed.
pub fn decode_positions(payload: &[u8], positions: &mut Positions) -> Result<(), DecodeError> {
    read_head(&mut Reader::new(payload), |key, position| apply(positions, key, position))?;
    Ok(())
}

/// Applies one position: an empty one removes the key.
pub fn apply(positions: &mut Positions, key: &str, position: &[u8]) {
    if position.is_empty() {
        positions.remove(key);
    } else {
        positions.insert(key.to_owned(), position.to_vec());
    }
}

fn read_head(
    reader: &mut Reader<'_>,
    mut position: impl FnMut(&str, &[u8]),
) -> Result<Vec<Labels>, DecodeError> {
    if reader.u8("a version")? != VERSION {
        return Err(DecodeError { expected: "version 1", offset: 0 });
    }
    let mut streams = Vec::new();
    for _ in 0..reader.u16("a number of streams")? {
        let pairs = read_pairs(reader)?;
        streams.push(Labels::from_pairs(pairs).map_err(|_| reader.error("labels"))?);
    }
    for _ in 0..reader.u32("a number of positions")? {
        let key = reader.text("a position's key")?;
        let len = usize::from(reader.u16("a position's length")?);
        position(key, reader.take(len, "a position")?);
    }
    Ok(streams)
}

fn read_pairs(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, DecodeError> {
    let mut pairs = Vec::new();
    for _ in 0..reader.u16("a number of pairs")? {
        let name = reader.text("a name")?.to_owned();
        pairs.push((name, reader.text("a value")?.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Block {
        let mut block = Block::new();
        let a = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
        let b = block.stream(&Labels::from_pairs([("job", "b")]).unwrap()).unwrap();
        block.push(a, -5, "line \u{fc}");
        block.push_with(b, i64::MAX, "", vec![("trace".into(), "1".into())]);
        block.set_position("file:/x", b"\x01\x02");
        block
    }

    fn encode(block: &Block) -> Vec<u8> {
        let mut out = Vec::new();
        let positions: Vec<_> = block.positions().map(|p| (p.key, p.position)).collect();
        assert_eq!(encode_block(block, positions.into_iter(), &mut out), block.len() as u32);
        out
    }

    #[test]
    fn a_block_is_pinned() {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs([("j", "a")]).unwrap()).unwrap();
        block.push(stream, 2, "hi");
        block.set_position("k", &[9]);
        let mut want = b"\x01\x01\0\x01\0\x01\0j\x01\0a\x01\0\0\0\x01\0k\x01\0\x09".to_vec();
        want.extend_from_slice(b"\x01\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\x02\0\0\0hi");
        assert_eq!(encode(&block), want);
    }

    #[test]
    fn a_block_comes_back_and_blocks_add_up() {
        let block = sample();
        let bytes = encode(&block);
        let mut back = Block::new();
        decode_block(&bytes, &mut back).unwrap();
        assert_eq!(back, block);
        decode_block(&bytes, &mut back).unwrap();
        assert_eq!((back.len(), back.streams().len(), back.positions().len()), (4, 2, 1));
    }

    #[test]
    fn an_empty_position_forgets_its_source() {
        let mut positions = Positions::new();
        decode_positions(&encode(&sample()), &mut positions).unwrap();
        assert_eq!(positions.get("file:/x").map(Vec::as_slice), Some(&b"\x01\x02"[..]));
        let mut block = Block::new();
        block.set_position("file:/x", b"");
        decode_positions(&encode(&block), &mut positions).unwrap();
        assert!(positions.is_empty());
    }

    #[test]
    fn malformed_records_are_errors() {
        let bytes = encode(&sample());
        for len in 0..bytes.len() {
            assert!(decode_block(&bytes[..len], &mut Block::new()).is_err(), "{len}");
        }
        assert!(decode_block(&[&bytes[..], &[0]].concat(), &mut Block::new()).is_err());
        for at in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut bad = bytes.clone();
                bad[at] = byte;
                let _ = decode_block(&bad, &mut Block::new());
            }
        }
    }
}
