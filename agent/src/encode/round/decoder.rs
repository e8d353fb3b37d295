//! Reads rounds. It must not know where the records come from.

use super::super::bytes::{DecodeError, Reader as Bytes};
use super::coder::Reader;
use super::model::{Model, Values};
use super::table::Table;
use super::{DIFFERENCE, FULL, KEY, KIND, PACKED, RoundError, SCHEMA, SPARSE, VERSION, packed};

/// Reads the rounds of one segment, from its first record on.
#[derive(Debug)]
pub struct RoundDecoder {
    table: Table,
    model: Model,
    /// The counter of the full record that the table began with, and how much text that has.
    began: u16,
    began_text: usize,
    /// The counter that the next difference has to have; None if there is none to go on from.
    next: Option<u16>,
}

impl Default for RoundDecoder {
    fn default() -> RoundDecoder {
        RoundDecoder::new()
    }
}

/// A round that was read. Values by the numbers of the series in the decoder's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    values: Values,
}

impl Round {
    /// The value of a series of the table, by its number; None if the round has none.
    pub fn value(&self, series: usize) -> Option<f64> {
        self.values.get(series).map(f64::from_bits)
    }

    /// Takes the value of a series out.
    pub fn remove(&mut self, series: usize) {
        self.values.unset(series);
    }

    /// Whether no series has a value.
    pub fn is_empty(&self) -> bool {
        (0..self.values.len()).all(|series| !self.values.has(series))
    }
}

/// What stands before the values.
struct Head {
    kind: u8,
    sparse: bool,
    counter: u16,
    /// The series that stay, of the table or of one that starts anew, and those that are added to them.
    stay: usize,
    added: Table,
}

impl RoundDecoder {
    /// A decoder with an empty table.
    pub fn new() -> RoundDecoder {
        RoundDecoder {
            table: Table::default(),
            model: Model::new(),
            began: 0,
            began_text: 0,
            next: None,
        }
    }

    /// The series of the segment so far.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether this record starts the table anew, and so does not belong with the rounds before it.
    pub fn restarts(payload: &[u8]) -> bool {
        matches!(payload, [VERSION, flags, ..] if flags & KIND == FULL)
    }

    /// Decodes a record of the segment into `round`, which gets this time.
    ///
    /// # Errors
    /// [`RoundError::Gap`]: it refers to a record that was not decoded before it. [`RoundError::Malformed`]:
    /// it is not well-formed. The table stays as it was, and differences are gaps until a key or a full
    /// record is decoded.
    pub fn decode(
        &mut self,
        payload: &[u8],
        timestamp_ms: i64,
        round: &mut Round,
    ) -> Result<(), RoundError> {
        let mut bytes = Bytes::new(payload);
        let head = self.head(&mut bytes).inspect_err(|_| self.next = None)?;
        // Not set again unless all of it is good: a record that is not leaves the model in disorder.
        self.next = None;
        if head.kind != DIFFERENCE {
            self.model.reset();
        }
        round.timestamp_ms = timestamp_ms;
        round.values.reset(head.stay + head.added.len());
        let stream = payload.get(bytes.offset()..).unwrap_or_default();
        let mut reader = Reader::new(stream);
        let read = self.model.round(&mut reader, head.sparse, &mut round.values);
        if read.is_err() || !reader.finish() {
            let offset = payload.len();
            return Err(DecodeError { expected: "values that end with the record", offset }.into());
        }
        if head.kind == FULL {
            self.began = head.counter;
            self.table = head.added;
            self.began_text = self.table.text().len();
        } else {
            self.table.truncate(head.stay);
            self.table.append(&head.added);
        }
        self.next = Some(head.counter.wrapping_add(1));
        Ok(())
    }

    /// Bytes of memory, with what its vectors have to spare.
    pub fn memory(&self) -> usize {
        size_of::<RoundDecoder>() + self.table.memory() + self.model.memory()
    }

    fn head(&self, bytes: &mut Bytes<'_>) -> Result<Head, RoundError> {
        if bytes.u8("a version")? != VERSION {
            return Err(DecodeError { expected: "version 2", offset: 0 }.into());
        }
        let flags = bytes.u8("a kind")?;
        let kind = flags & KIND;
        let bits = KIND | SPARSE | SCHEMA | PACKED;
        let odd = kind > DIFFERENCE
            || flags & !bits != 0
            || (kind == FULL && flags & SCHEMA == 0)
            || (flags & PACKED != 0 && flags & SCHEMA == 0);
        if odd {
            return Err(DecodeError { expected: "a kind", offset: 1 }.into());
        }
        let counter = bytes.u16("a counter")?;
        let stay = match kind {
            FULL => 0,
            KEY => self.check_base(bytes)?,
            _ if self.next == Some(counter) => self.table.len(),
            _ => return Err(RoundError::Gap),
        };
        let added = if flags & SCHEMA != 0 {
            let len = bytes.u32("a schema's length")? as usize;
            let schema = bytes.take(len, "a schema")?;
            let text = if kind == FULL { &[][..] } else { self.table.text() };
            let known = text.get(..self.began_text).unwrap_or_default();
            let raw = packed::open(schema, flags & PACKED != 0, known)
                .ok_or(DecodeError { expected: "a schema that can be unpacked", offset: 0 })?;
            Table::parse(raw.into_owned(), kind == FULL, stay, text.len())?
        } else {
            Table::default()
        };
        // A table that has more than the writer's is another one.
        if kind == KEY && self.table.len() > stay + added.len() {
            return Err(RoundError::Gap);
        }
        Ok(Head { kind, sparse: flags & SPARSE != 0, counter, stay, added })
    }

    /// Reads how many series a key record refers to, and finds out whether the table has them.
    fn check_base(&self, bytes: &mut Bytes<'_>) -> Result<usize, RoundError> {
        let base = bytes.u32("a number of series")? as usize;
        let check = bytes.u32("a checksum")?;
        if self.table.text().is_empty() || base > self.table.len() || !self.table.has_edge(base) {
            return Err(RoundError::Gap);
        }
        let mut have = crc32c::crc32c(&self.began.to_le_bytes());
        self.table.identity(base, |piece| have = crc32c::crc32c_append(have, piece));
        if have == check { Ok(base) } else { Err(RoundError::Gap) }
    }
}
