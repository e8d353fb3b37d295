//! Lines to entries of a block: their text, their time, their stream. It must not know files.

use super::Counters;
use super::follow::Sink;
use super::format::{Entry, Format, Stream};
use crate::logs::SOURCE;
use crate::logs::text::Converter;
use crate::model::{Block, Labels, StreamId};

/// A clock that is behind the last entry by more was set back: the entry gets its time all the same.
const SET_BACK_NS: i64 = 10_000_000_000;

/// A record's time that is behind the last entry's by no more is the same time once more.
const REPEATED_NS: i64 = 1_000;

/// The metadata of a line that is not in its file's format; its value is the format.
const MALFORMED: &str = "malformed";
/// What it takes of a block, about.
const MALFORMED_COST: usize = 16;

/// What all chains write with.
pub(super) struct Pen<'a> {
    pub(super) block: &'a mut Block,
    pub(super) limit: usize,
    pub(super) counters: &'a mut Counters,
    pub(super) converter: &'a mut Converter,
    /// What formats unescape into.
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) buffer: &'a mut [u8],
    pub(super) now_ns: i64,
}

/// What takes the lines of one chain.
pub(super) struct Writer<'a> {
    pub(super) block: &'a mut Block,
    pub(super) limit: usize,
    pub(super) counters: &'a mut Counters,
    pub(super) converter: &'a mut Converter,
    /// What becomes the label `filename`.
    pub(super) name: Option<&'a str>,
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) labels: &'a Labels,
    pub(super) max_line: usize,
    pub(super) format: &'static dyn Format,
    pub(super) streams: [Option<StreamId>; Stream::COUNT],
    pub(super) now_ns: i64,
    pub(super) last_ns: &'a mut [i64; Stream::COUNT],
    pub(super) malformed: u64,
}

impl Writer<'_> {
    /// Whether there is no room for so much more. A block that is empty takes any line, or a small
    /// limit would stop everything.
    fn is_full(&self, bytes: usize) -> bool {
        let have = self.block.size();
        have > 0 && have + bytes > self.limit
    }

    fn stream(&mut self, stream: Stream) -> Option<StreamId> {
        let at = self.streams.get_mut(stream as usize)?;
        if at.is_none() {
            // Made when they are needed: there are as many as files.
            let mut labels = self.labels.clone();
            if let Some(name) = self.name {
                labels.set("filename", name);
                labels.set(SOURCE, "file");
            }
            if let Some(value) = stream.label() {
                labels.set(Stream::LABEL, value);
            }
            *at = self.block.stream(&labels);
        }
        *at
    }

    /// A time of reading rises; the time of a record is taken as it is, but for the same one again:
    /// Loki drops a line that repeats another's text and time.
    fn time(&mut self, stream: Stream, record_ns: Option<i64>) -> i64 {
        let Some(last) = self.last_ns.get_mut(stream as usize) else { return self.now_ns };
        let (time, slack) = match record_ns {
            Some(time) => (time, REPEATED_NS),
            None => (self.now_ns, SET_BACK_NS),
        };
        let is_new = time > *last || last.saturating_sub(time) > slack;
        *last = if is_new { time } else { last.saturating_add(1) };
        *last
    }

    /// Adds what cannot be read as a record, as it is. False: no room in the block for its stream.
    fn raw(&mut self, record: &[u8]) -> bool {
        let Some(stream) = self.stream(Stream::None) else { return false };
        let time = self.time(Stream::None, None);
        let text = self.converter.text(record, self.max_line);
        self.block.push_with(stream, time, text.text, [(MALFORMED, self.format.name())]);
        self.counters.lines += 1;
        self.counters.truncated_lines += u64::from(text.truncated);
        self.counters.invalid_utf8 += u64::from(text.replaced);
        true
    }

    fn malformed(&mut self, record: &[u8], good: Option<usize>) -> bool {
        // Both parts or none.
        let bytes = record.len().min(2 * self.max_line) + 2 * (Block::ENTRY_COST + MALFORMED_COST);
        if self.is_full(bytes) {
            return false;
        }
        let (bad, rest) = record.split_at_checked(good.unwrap_or(record.len())).unwrap_or_default();
        if bad.iter().any(|&byte| byte != 0) && !self.raw(bad) {
            return false;
        }
        self.malformed += 1;
        self.counters.malformed += 1;
        if !rest.is_empty() {
            let mut scratch = std::mem::take(self.scratch);
            match self.format.decode(rest, self.max_line, &mut scratch) {
                Some(entry) => self.entry(&entry, true),
                None => self.raw(rest),
            };
            *self.scratch = scratch;
        }
        true
    }

    fn entry(&mut self, entry: &Entry<'_>, forced: bool) -> bool {
        let bytes = entry.text.len().min(self.max_line) + Block::ENTRY_COST;
        if !forced && self.is_full(bytes) {
            return false;
        }
        let Some(stream) = self.stream(entry.stream) else { return false };
        let time = self.time(entry.stream, entry.time_ns);
        let text = self.converter.text(entry.text, self.max_line);
        self.block.push(stream, time, text.text);
        if entry.partial {
            self.block.set_partial();
        }
        self.counters.lines += 1;
        self.counters.truncated_lines += u64::from(text.truncated || entry.cut);
        self.counters.invalid_utf8 += u64::from(text.replaced || entry.replaced);
        true
    }
}

impl Sink for Writer<'_> {
    fn line(&mut self, record: &[u8]) -> bool {
        let mut scratch = std::mem::take(self.scratch);
        let decoded = self.format.decode(record, self.max_line, &mut scratch);
        let taken = decoded.map(|entry| self.entry(&entry, false));
        *self.scratch = scratch;
        taken.unwrap_or_else(|| self.malformed(record, self.format.again(record)))
    }

    fn max_line(&self) -> usize {
        self.format.max_record(self.max_line)
    }

    fn format(&self) -> &'static dyn Format {
        self.format
    }

    fn damaged(&mut self, bytes: u64) {
        self.malformed += 1;
        self.counters.malformed += 1;
        self.counters.lost_bytes += bytes;
    }
}
