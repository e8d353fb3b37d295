//! From an entry's object to its fields. An entry has some twenty data objects, most of them shared by
//! many entries; what they are is remembered for a bounded number of them, so that only what is new is
//! read. It must not know which entry comes next.

use std::io::{self, Read};

use super::decompress::{Decompressor, Failure};
use super::entry::{Entry, FieldSet};
use super::file::{File, Head};
use super::format::{self, Bytes, Codec, ENTRY_HEAD, Payload};
use super::matches::{Matches, is_field_name};
use super::pages::Pages;
use super::{Counts, Problem};

/// A field's name has at most 64 bytes, `=` follows.
const NAME: usize = 65;
/// What journald accepts in one entry, four times.
const MAX_ITEMS: u64 = 4_096;
/// Data objects that are remembered.
const ROWS: usize = 512;
/// Of names and values together, to be remembered; what entries share is short.
const ROW: usize = 104;

/// What a data object is.
#[derive(Clone, Copy)]
struct Row {
    file: u32,
    at: u64,
    /// The match term that it is.
    bit: u64,
    wanted: bool,
    /// It was met again since it was put here.
    met: bool,
    name: u8,
    len: u8,
    bytes: [u8; ROW],
}

/// Reads fields and owns the memory for it.
pub(super) struct Fields {
    wanted: FieldSet,
    matches: Matches,
    entry_bytes: usize,
    rows: Vec<Option<Row>>,
    items: Vec<u8>,
    text: Vec<u8>,
    decompressor: Decompressor,
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fields").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// What came of an entry.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) matches: bool,
    /// The first thing that was damaged.
    pub(super) problem: Option<Problem>,
}

impl Fields {
    pub(super) fn new(wanted: FieldSet, matches: Matches, entry_bytes: usize) -> Fields {
        Fields {
            wanted,
            matches,
            entry_bytes,
            rows: Vec::new(),
            items: Vec::new(),
            text: Vec::new(),
            decompressor: Decompressor::default(),
        }
    }

    /// Gives the memory back.
    pub(super) fn clear(&mut self) {
        (self.rows, self.items, self.text) = (Vec::new(), Vec::new(), Vec::new());
        self.decompressor.clear();
    }

    /// Fills the entry, if it matches, with what `head` leads to. What is damaged is left out.
    pub(super) fn take(
        &mut self,
        file: &File,
        head: &Head,
        pages: &mut Pages,
        counts: &mut Counts,
        entry: &mut Entry,
    ) -> Result<Taken, Problem> {
        entry.clear();
        let mut taken = Taken { matches: false, problem: None };
        let Some(mut bytes) = file.bytes(pages) else { return Ok(taken) };
        let mut items = std::mem::take(&mut self.items);
        let result = self.items(&mut bytes, file, head, &mut items);
        let result = result.and_then(|whole| {
            if let Some(problem) = whole {
                counts.damaged_objects += 1;
                taken.problem = Some(problem);
            }
            if !self.matches.is_empty() {
                let bits = self.pass(&mut bytes, file, &items, counts, &mut taken, None)?;
                if !self.matches.accept(bits) {
                    return Ok(());
                }
            }
            taken.matches = true;
            self.pass(&mut bytes, file, &items, counts, &mut taken, Some(entry)).map(drop)
        });
        self.items = items;
        result?;
        let key = &head.key;
        entry.seqnum_id = key.seqnum_id;
        entry.seqnum = key.seqnum;
        entry.boot_id = key.boot_id;
        entry.monotonic_us = key.monotonic;
        entry.realtime_us = key.realtime;
        Ok(taken)
    }

    /// Reads where the entry's data are; says if not all of them can be known.
    fn items(
        &self,
        bytes: &mut Bytes<'_>,
        file: &File,
        head: &Head,
        items: &mut Vec<u8>,
    ) -> Result<Option<Problem>, Problem> {
        let item = format::entry_item(&file.header) as u64;
        let number = (head.size - ENTRY_HEAD) / item;
        // At most 64 KiB.
        items.resize((number.min(MAX_ITEMS) * item) as usize, 0);
        let have = bytes.some(head.at + ENTRY_HEAD, items)?;
        let whole = have == items.len() && number <= MAX_ITEMS;
        items.truncate(have);
        Ok((!whole).then_some(Problem::Damaged("entry", head.at)))
    }

    /// Goes through the data objects: for the terms that they are, or for the wanted fields.
    fn pass(
        &mut self,
        bytes: &mut Bytes<'_>,
        file: &File,
        items: &[u8],
        counts: &mut Counts,
        taken: &mut Taken,
        mut entry: Option<&mut Entry>,
    ) -> Result<u64, Problem> {
        let mut bits = 0;
        for (at, hash) in format::entry_items(&file.header, items) {
            let slot = row_of(file.number, at);
            let found = self.rows.get_mut(slot).and_then(Option::as_mut);
            if let Some(row) = found.filter(|row| row.at == at && row.file == file.number) {
                row.met = true;
                bits |= row.bit;
                if let Some(entry) = entry.as_deref_mut().filter(|_| row.wanted) {
                    let (name, len) = (usize::from(row.name), usize::from(row.len));
                    let part = |from, to| row.bytes.get(from..to).unwrap_or_default();
                    push(entry, part(0, name), part(name, len), false, self.entry_bytes, counts);
                }
                continue;
            }
            match self.object(bytes, file, at, hash, entry.as_deref_mut(), counts) {
                Ok(bit) => bits |= bit,
                Err(problem @ Problem::Io(..)) if !file.given_up => return Err(problem),
                Err(problem) => {
                    // Met twice with matches, counted once.
                    if entry.is_some() || self.matches.is_empty() {
                        counts.damaged_objects += 1;
                    }
                    taken.problem.get_or_insert(problem);
                }
            }
        }
        Ok(bits)
    }

    /// Reads one data object.
    fn object(
        &mut self,
        bytes: &mut Bytes<'_>,
        file: &File,
        at: u64,
        hash: Option<u64>,
        entry: Option<&mut Entry>,
        counts: &mut Counts,
    ) -> Result<u64, Problem> {
        let damaged = Problem::Damaged("data", at);
        let payload = format::data(bytes, &file.header, at, hash)?;
        // The name, and a term of the match rules if it can be one.
        let mut first = NAME.max(self.matches.longest().saturating_add(1)).max(ROW);
        let whole = match payload.codec {
            Codec::Plain => self.plain(bytes, &payload, first)?,
            codec => {
                if entry.is_some() {
                    // Decoded once, in case that it is wanted.
                    first = first.max(self.wanted.largest().saturating_add(NAME));
                }
                let mut from = Payloads { bytes, at: payload.at, left: payload.len };
                let prefix = self.decompressor.prefix(codec, &mut from, first, &mut self.text);
                prefix.map_err(|failure| match failure {
                    Failure::Io(error) => Problem::Io("read", error),
                    Failure::Damaged => Problem::Damaged("compressed data", at),
                })?
            }
        };
        let name = self.text.iter().take(NAME).position(|byte| *byte == b'=').ok_or(damaged)?;
        let max = match self.text.get(..name) {
            Some(name) if is_field_name(name) => self.wanted.max(name),
            _ => return Err(Problem::Damaged("name of a field", at)),
        };
        let bit = if whole { self.matches.bit(&self.text) } else { 0 };
        let Some((entry, max)) = entry.zip(max) else {
            if max.is_none() {
                self.remember(file.number, at, bit, None);
            }
            return Ok(bit);
        };
        let mut whole = whole;
        if !whole && payload.codec == Codec::Plain {
            whole = self.plain(bytes, &payload, (name + 1).saturating_add(max))?;
        }
        let value = self.text.get(name + 1..).unwrap_or_default();
        let cut = !whole || value.len() > max;
        let value = value.get(..max).unwrap_or(value);
        let name_bytes = self.text.get(..name).unwrap_or_default();
        push(entry, name_bytes, value, cut, self.entry_bytes, counts);
        if !cut && self.text.len() <= ROW {
            self.remember(file.number, at, bit, Some(name));
        }
        Ok(bit)
    }

    /// The first bytes of a payload as it is; says whether that is all.
    fn plain(
        &mut self,
        bytes: &mut Bytes<'_>,
        payload: &Payload,
        want: usize,
    ) -> Result<bool, Problem> {
        let len = usize::try_from(payload.len).unwrap_or(usize::MAX).min(want);
        self.text.clear();
        // A damaged size must not cost memory before it is known to be there.
        while self.text.len() < len {
            let done = self.text.len();
            let more = (len - done).min(done.max(64 << 10));
            self.text.resize(done + more, 0);
            let rest = self.text.get_mut(done..).unwrap_or_default();
            bytes.all("data", payload.at + done as u64, rest)?;
        }
        Ok(payload.len <= want as u64)
    }

    fn remember(&mut self, file: u32, at: u64, bit: u64, name: Option<usize>) {
        if self.rows.is_empty() {
            self.rows.resize(ROWS, None);
        }
        let Some(slot) = self.rows.get_mut(row_of(file, at)) else { return };
        if let Some(row) = slot.as_mut().filter(|row| row.met) {
            // What was met again stays once more: much of what is new is never met again.
            row.met = false;
            return;
        }
        let mut row = Row {
            file,
            at,
            bit,
            wanted: name.is_some(),
            met: false,
            name: 0,
            len: 0,
            bytes: [0; ROW],
        };
        if let Some(name) = name {
            let len = self.text.len().min(ROW);
            // Without the equals sign.
            let mut put = 0;
            for (number, byte) in self.text.iter().take(len).enumerate() {
                if number != name
                    && let Some(to) = row.bytes.get_mut(put)
                {
                    *to = *byte;
                    put += 1;
                }
            }
            (row.name, row.len) = (name as u8, put as u8);
        }
        *slot = Some(row);
    }
}

fn push(
    entry: &mut Entry,
    name: &[u8],
    value: &[u8],
    cut: bool,
    limit: usize,
    counts: &mut Counts,
) {
    if entry.bytes() + name.len() + value.len() > limit {
        counts.cut_values += 1;
        return;
    }
    counts.cut_values += u64::from(cut);
    entry.push(name, value, cut);
}

/// Fibonacci hashing (Knuth): where a data object's row is.
fn row_of(file: u32, at: u64) -> usize {
    let mixed = (at ^ (u64::from(file) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 55) as usize % ROWS
}

/// A payload as a reader.
struct Payloads<'a, 'b> {
    bytes: &'a mut Bytes<'b>,
    at: u64,
    left: u64,
}

impl Read for Payloads<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let Some(into) = into.get_mut(..len) else { return Ok(0) };
        let len = self.bytes.pages.read(self.bytes.file, self.bytes.tag, self.at, into)?;
        self.at += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}
