//! Docker's driver `local`: `<id>/local-logs/container.log`. A record is its size as a big-endian u32,
//! a protobuf message of that size, and the size again. moby has the message in
//! api/types/plugins/logdriver/entry.proto (`LogEntry`):
//!
//! | field | what |
//! |---|---|
//! | 1 | `source`: `stdout` or `stderr` |
//! | 2 | `time_nano`, a varint |
//! | 3 | `line`, without its break |
//! | 4 | `partial`: the record is a part of a line, also the last part, or a program's last line without an end |
//! | 5 | `partial_log_metadata`: field 1 `last`, 2 `id`, 3 `ordinal` |
//!
//! dockerd writes at most 16 KiB of a line into a record, and each record with one write. A record
//! that a crash tore is followed by the next one; where sizes don't agree, the next record is looked
//! for by what its beginning always is. It must not know files.

use memchr::memmem;

use super::PART;
use crate::logs::file::{Entry, Format, Frame, Stream};

/// The longest message: dockerd's are at most 16 KiB of text and some 100 bytes.
const MAX: usize = 64 << 10;
/// The size on either side.
const SIZE: usize = 4;
/// How every message begins: the field `source` with six bytes, of which these are the first three.
const BEGINNING: &[u8] = b"\x0a\x06std";

/// The format. Users can't choose it for a glob, because nothing else writes it.
pub const LOCAL: &dyn Format = &Local;

#[derive(Debug)]
struct Local;

impl Format for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn max_record(&self, _: usize) -> usize {
        MAX
    }

    fn overhead(&self) -> usize {
        2 * SIZE
    }

    fn frame(&self, data: &[u8], last: bool) -> Option<Frame> {
        Some(match sized(data) {
            Sized::Record(size) => Frame::Record { body: SIZE..SIZE + size, len: size + 2 * SIZE },
            Sized::Short if !last => Frame::Wait,
            Sized::Short | Sized::Damaged => Frame::Damaged { len: damaged(data, last) },
        })
    }

    fn decode<'a>(&self, record: &'a [u8], _: usize, _: &'a mut Vec<u8>) -> Option<Entry<'a>> {
        let mut entry = Entry::default();
        let (mut partial, mut is_last) = (false, false);
        let mut rest = record;
        while !rest.is_empty() {
            let (number, value, after) = field(rest)?;
            rest = after;
            match (number, value) {
                (1, Value::Bytes(source)) => entry.stream = Stream::of(source),
                // A proto3 int64 is its two's complement.
                (2, Value::Varint(time)) => entry.time_ns = Some(time as i64),
                (3, Value::Bytes(line)) => entry.text = line,
                (4, Value::Varint(value)) => partial = value != 0,
                (5, Value::Bytes(metadata)) => is_last = is_last_part(metadata)?,
                (1..=5, _) => return None,
                _ => {}
            }
        }
        let is_open = partial && !is_last;
        // What is shorter goes on nowhere: the next record is another run's.
        entry.partial = is_open && entry.text.len() >= PART;
        if !is_open {
            // A terminal's line break has two characters, of which the writer has taken one.
            entry.text = entry.text.strip_suffix(b"\r").unwrap_or(entry.text);
        }
        Some(entry)
    }
}

enum Sized {
    Record(usize),
    /// It may become one.
    Short,
    Damaged,
}

fn sized(data: &[u8]) -> Sized {
    let Some(size) = size_at(data, 0) else { return Sized::Short };
    if size > MAX || size < BEGINNING.len() {
        return Sized::Damaged;
    }
    let body = data.get(SIZE..).unwrap_or_default();
    let known = body.len().min(BEGINNING.len());
    if body.get(..known) != BEGINNING.get(..known) {
        return Sized::Damaged;
    }
    match size_at(data, SIZE + size) {
        Some(again) if again == size => Sized::Record(size),
        Some(_) => Sized::Damaged,
        None => Sized::Short,
    }
}

/// How many bytes to pass over to where a record may begin.
fn damaged(data: &[u8], last: bool) -> usize {
    for at in memmem::find_iter(data.get(SIZE + 1..).unwrap_or_default(), BEGINNING) {
        // Counted from the size before it, which does not begin before the second byte.
        let start = at + 1;
        match data.get(start..).map(sized) {
            Some(Sized::Record(_)) => return start,
            Some(Sized::Short) if !last => return start,
            _ => {}
        }
    }
    // The end may be a size and the first bytes of a beginning, for which more is to come.
    let kept = if last { 0 } else { SIZE + BEGINNING.len() - 1 };
    data.len().saturating_sub(kept).max(1)
}

fn size_at(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..)?.first_chunk::<SIZE>()?;
    usize::try_from(u32::from_be_bytes(*bytes)).ok()
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// A field's number and value, and what follows it.
fn field(data: &[u8]) -> Option<(u64, Value<'_>, &[u8])> {
    let (key, rest) = varint(data)?;
    let (value, rest) = match key & 7 {
        0 => {
            let (value, rest) = varint(rest)?;
            (Value::Varint(value), rest)
        }
        1 => (Value::Other, rest.get(8..)?),
        2 => {
            let (len, rest) = varint(rest)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Value::Bytes(bytes), rest)
        }
        5 => (Value::Other, rest.get(4..)?),
        _ => return None,
    };
    (key >> 3 != 0).then_some((key >> 3, value, rest))
}

fn varint(data: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, &byte) in data.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, data.get(index + 1..)?));
        }
    }
    None
}

fn is_last_part(metadata: &[u8]) -> Option<bool> {
    let (mut is_last, mut rest) = (false, metadata);
    while !rest.is_empty() {
        let (number, value, after) = field(rest)?;
        rest = after;
        if let (1, Value::Varint(value)) = (number, value) {
            is_last = value != 0;
        }
    }
    Some(is_last)
}
