//! The layout of a journal file: header, objects, and the checks that an offset leads to what it says.
//! Numbers are little-endian, offsets count from the file's beginning, objects begin at multiples of 8.
//!
//! | header | | object | | entry | | data | |
//! |---|---|---|---|---|---|---|---|
//! | 0 | `LPKSHHRH` | 0 | type | 16 | number | 16 | hash |
//! | 8 | compatible flags | 1 | compression | 24 | realtime | 64 | payload, regular |
//! | 12 | incompatible flags | 8 | size with this head | 32 | monotonic | 72 | payload, compact |
//! | 16 | state | | | 40 | boot id | | |
//! | 24 | file id | | | 56 | hash | | |
//! | 72 | id of the sequence | | | 64 | offsets of data | | |
//! | 88 | header's size | | | | | | |
//! | 152 | `n_entries` | | | | | | |
//! | 160 | last, 168: first number | | array | | | | |
//! | 176 | first entry array | 16 | next array | | | | |
//! | | | 24 | offsets of entries | | | | |
//!
//! An offset is 8 bytes, in compact files 4; in an entry of a regular file the data's hash follows it.
//! The header of systemd before 187 has 208 bytes, which is all that is needed here.

use std::fs::File;

use super::order::Key;
use super::pages::Pages;
use super::{Id, Problem};

pub(super) const HEADER: usize = 208;

const COMPRESSED_XZ: u32 = 1;
const COMPRESSED_LZ4: u32 = 1 << 1;
const KEYED_HASH: u32 = 1 << 2;
const COMPRESSED_ZSTD: u32 = 1 << 3;
const COMPACT: u32 = 1 << 4;
const KNOWN: u32 = COMPRESSED_XZ | COMPRESSED_LZ4 | KEYED_HASH | COMPRESSED_ZSTD | COMPACT;

const STATE_ARCHIVED: u8 = 2;

const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;

/// Times are below this in all that systemd writes.
const MAX_TIME: u64 = 1 << 55;

/// What is needed of the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) archived: bool,
    pub(super) compact: bool,
    pub(super) file_id: Id,
    pub(super) seqnum_id: Id,
    pub(super) size: u64,
    pub(super) n_entries: u64,
    pub(super) tail_seqnum: u64,
    pub(super) head_seqnum: u64,
    pub(super) entry_array: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn id_at(bytes: &[u8], at: usize) -> Id {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default()
}

impl Header {
    /// `None`: journald has made the file, but not written the header yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Problem> {
        if bytes.len() < HEADER || bytes.iter().take(8).all(|byte| *byte == 0) {
            return if bytes.iter().all(|byte| *byte == 0) { Ok(None) } else { short(bytes) };
        }
        if !bytes.starts_with(b"LPKSHHRH") {
            return Err(Problem::NotAJournal);
        }
        let flags = u32_at(bytes, 12);
        if flags & !KNOWN != 0 {
            return Err(Problem::Unsupported(flags & !KNOWN));
        }
        let state = bytes.get(16).copied().unwrap_or_default();
        if state > STATE_ARCHIVED {
            return Err(Problem::BadHeader("state"));
        }
        let size = u64_at(bytes, 88);
        if size < HEADER as u64 || !size.is_multiple_of(8) || size > 1 << 20 {
            return Err(Problem::BadHeader("size of the header"));
        }
        let entry_array = u64_at(bytes, 176);
        if entry_array != 0 && (entry_array < size || !entry_array.is_multiple_of(8)) {
            return Err(Problem::BadHeader("first entry array"));
        }
        Ok(Some(Header {
            archived: state == STATE_ARCHIVED,
            compact: flags & COMPACT != 0,
            file_id: id_at(bytes, 24),
            seqnum_id: id_at(bytes, 72),
            size,
            n_entries: u64_at(bytes, 152),
            tail_seqnum: u64_at(bytes, 160),
            head_seqnum: u64_at(bytes, 168),
            entry_array,
        }))
    }

    /// Bytes of an offset in an entry array.
    pub(super) fn item(&self) -> u64 {
        if self.compact { 4 } else { 8 }
    }

    /// Whether the entry that is number `index` of the file can have this number in its sequence. A
    /// damaged one would make all that follow it look as if they had been read.
    pub(super) fn fits(&self, seqnum: u64, index: u64) -> bool {
        let (head, tail) = (self.head_seqnum, self.tail_seqnum);
        let after = self.n_entries.saturating_sub(index).saturating_sub(1);
        let room =
            tail.checked_sub(head).is_some_and(|room| room >= self.n_entries.saturating_sub(1));
        !room || (head.saturating_add(index)..=tail.saturating_sub(after)).contains(&seqnum)
    }
}

fn short(bytes: &[u8]) -> Result<Option<Header>, Problem> {
    let signature = b"LPKSHHRH";
    let have = bytes.len().min(signature.len());
    if bytes.get(..have) == signature.get(..have) && bytes.len() < HEADER {
        return Err(Problem::BadHeader("the file ends in it"));
    }
    Err(Problem::NotAJournal)
}

/// An open file and where its bytes are kept.
pub(super) struct Bytes<'a> {
    pub(super) file: &'a File,
    pub(super) pages: &'a mut Pages,
    pub(super) tag: u32,
}

impl Bytes<'_> {
    /// As many bytes as there are.
    pub(super) fn some(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, Problem> {
        let read = self.pages.read(self.file, self.tag, offset, into);
        read.map_err(|error| Problem::Io("read", error))
    }

    /// All of these bytes.
    pub(super) fn all(
        &mut self,
        what: &'static str,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), Problem> {
        let len = into.len();
        if self.some(offset, into)? < len {
            return Err(Problem::Damaged(what, offset));
        }
        Ok(())
    }

    fn get<const N: usize>(&mut self, what: &'static str, offset: u64) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.all(what, offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// The size of an object of which these are the first bytes, if it is one of the kind.
fn object(
    header: &Header,
    what: &'static str,
    kind: u8,
    head: usize,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, Problem> {
    let size = u64_at(bytes, 8);
    if bytes.first() != Some(&kind)
        || size < head as u64
        || offset.checked_add(size).is_none_or(|end| end > i64::MAX as u64)
        || !is_place(header, offset)
    {
        return Err(Problem::Damaged(what, offset));
    }
    Ok(size)
}

/// Whether an object can begin there.
pub(super) fn is_place(header: &Header, offset: u64) -> bool {
    offset.is_multiple_of(8) && offset >= header.size
}

/// An entry array: how many items it has room for, and the next one's offset, 0 if there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Array {
    pub(super) items: u64,
    pub(super) next: u64,
}

pub(super) const ARRAY_HEAD: u64 = 24;

/// The array at an offset. Arrays lie in the order in which they were added, so that `next` can't lead
/// round in a circle.
pub(super) fn array(bytes: &mut Bytes<'_>, header: &Header, at: u64) -> Result<Array, Problem> {
    let what = "entry array";
    let head = bytes.get::<{ ARRAY_HEAD as usize }>(what, at)?;
    let size = object(header, what, ENTRY_ARRAY, head.len(), at, &head)?;
    let next = u64_at(&head, 16);
    if next != 0 && (next <= at || !is_place(header, next)) {
        return Err(Problem::Damaged(what, at));
    }
    Ok(Array { items: (size - ARRAY_HEAD) / header.item(), next })
}

/// One item of an array.
pub(super) fn array_item(
    bytes: &mut Bytes<'_>,
    header: &Header,
    array: u64,
    number: u64,
) -> Result<u64, Problem> {
    let what = "entry array";
    let offset =
        number.checked_mul(header.item()).and_then(|at| at.checked_add(array + ARRAY_HEAD));
    let offset = offset.ok_or(Problem::Damaged(what, array))?;
    if header.compact {
        bytes.get::<4>(what, offset).map(|item| u64::from(u32::from_le_bytes(item)))
    } else {
        bytes.get::<8>(what, offset).map(u64::from_le_bytes)
    }
}

pub(super) const ENTRY_HEAD: u64 = 64;

/// An entry's head: what it is ordered by, and the size of its object.
pub(super) fn entry(
    bytes: &mut Bytes<'_>,
    header: &Header,
    at: u64,
) -> Result<(Key, u64), Problem> {
    let what = "entry";
    if !is_place(header, at) {
        return Err(Problem::Damaged(what, at));
    }
    let head = bytes.get::<{ ENTRY_HEAD as usize }>(what, at)?;
    let size = object(header, what, ENTRY, head.len(), at, &head)?;
    let key = Key {
        seqnum_id: header.seqnum_id,
        boot_id: id_at(&head, 40),
        seqnum: u64_at(&head, 16),
        monotonic: u64_at(&head, 32),
        realtime: u64_at(&head, 24),
        xor_hash: u64_at(&head, 56),
    };
    if key.seqnum == 0
        || key.seqnum == u64::MAX
        || key.realtime == 0
        || key.realtime >= MAX_TIME
        || key.monotonic >= MAX_TIME
    {
        return Err(Problem::Damaged(what, at));
    }
    Ok((key, size))
}

/// One item of an entry: the data's offset, and in regular files its hash.
pub(super) fn entry_items<'a>(
    header: &Header,
    bytes: &'a [u8],
) -> impl Iterator<Item = (u64, Option<u64>)> + use<'a> {
    let compact = header.compact;
    bytes.chunks_exact(entry_item(header)).map(move |item| {
        if compact {
            (u64::from(u32_at(item, 0)), None)
        } else {
            (u64_at(item, 0), Some(u64_at(item, 8)))
        }
    })
}

/// Bytes of an item of an entry.
pub(super) fn entry_item(header: &Header) -> usize {
    if header.compact { 4 } else { 16 }
}

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Xz,
    Lz4,
    Zstd,
}

/// A data object's payload: where, how long, and how compressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) codec: Codec,
}

/// The data object at an offset.
pub(super) fn data(
    bytes: &mut Bytes<'_>,
    header: &Header,
    at: u64,
    hash: Option<u64>,
) -> Result<Payload, Problem> {
    let what = "data";
    if !is_place(header, at) {
        return Err(Problem::Damaged(what, at));
    }
    let head = bytes.get::<24>(what, at)?;
    let skip = if header.compact { 72 } else { 64 };
    let size = object(header, what, DATA, skip, at, &head)?;
    if hash.is_some_and(|hash| hash != u64_at(&head, 16)) {
        return Err(Problem::Damaged(what, at));
    }
    let codec = match head.get(1) {
        Some(0) => Codec::Plain,
        Some(1) => Codec::Xz,
        Some(2) => Codec::Lz4,
        Some(4) => Codec::Zstd,
        _ => return Err(Problem::Damaged(what, at)),
    };
    Ok(Payload { at: at + skip as u64, len: size - skip as u64, codec })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(b"LPKSHHRH");
        bytes[12] = 0x1c;
        bytes[88..96].copy_from_slice(&272u64.to_le_bytes());
        bytes
    }

    #[test]
    fn headers_that_are_none_are_told_apart() {
        assert!(Header::parse(&[]).unwrap().is_none());
        assert!(Header::parse(&[0; 4096]).unwrap().is_none());
        assert!(Header::parse(&header()).unwrap().unwrap().compact);
        assert!(matches!(Header::parse(&[1; 300]), Err(Problem::NotAJournal)));
        assert!(matches!(Header::parse(&header()[..100]), Err(Problem::BadHeader(_))));
        let with = |at: usize, byte| {
            let mut bytes = header();
            bytes[at] = byte;
            Header::parse(&bytes).unwrap_err()
        };
        assert!(matches!(with(12, 0x60), Problem::Unsupported(0x60)));
        let text = with(12, 0x60).at(std::path::Path::new("/x")).to_string();
        assert!(text.contains("incompatible flag 0x20 0x40 of a newer systemd: not supported"));
        assert!(matches!(with(16, 3), Problem::BadHeader("state")));
        assert!(matches!(with(89, 0), Problem::BadHeader(_)));
        assert!(matches!(with(176, 8), Problem::BadHeader("first entry array")));
    }

    #[test]
    fn a_number_that_its_neighbours_leave_no_room_for_does_not_fit() {
        let mut header = Header::parse(&header()).unwrap().unwrap();
        (header.n_entries, header.head_seqnum, header.tail_seqnum) = (10, 100, 109);
        assert!(header.fits(103, 3) && !header.fits(104, 3) && !header.fits(102, 3));
        header.tail_seqnum = 111;
        assert!(header.fits(105, 3) && !header.fits(106, 3));
        // A damaged header is no reason to refuse what it says nothing true of.
        header.tail_seqnum = 5;
        assert!(header.fits(1_000, 3));
    }
}
