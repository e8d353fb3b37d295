//! A block: log entries on their way into the WAL, together with how far their sources have been
//! read, so that the lines and the position that covers them are written in one record.

use super::Labels;

/// The index of a stream within its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub u16);

#[derive(Clone, Debug, PartialEq)]
struct Row {
    stream: StreamId,
    timestamp_ns: i64,
    start: u32,
    end: u32,
    metadata: Vec<(String, String)>,
}

/// Entries of any number of streams in the order in which they were read, and their positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    streams: Vec<Labels>,
    rows: Vec<Row>,
    text: String,
    positions: Vec<(String, Vec<u8>)>,
}

/// One entry as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntryRef<'a> {
    /// The stream that it belongs to.
    pub stream: StreamId,
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// The line, without its line break; always UTF-8.
    pub line: &'a str,
    /// Structured metadata: pairs that are stored with the entry and don't make a stream.
    pub metadata: &'a [(String, String)],
}

/// How far a source has been read: its key, and bytes that only that source understands. An empty
/// position means that the source is gone and its key is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionRef<'a> {
    /// Which source, such as `file:/var/log/syslog`; unique in the agent.
    pub key: &'a str,
    /// The position, opaque to everything but the source.
    pub position: &'a [u8],
}

impl Block {
    /// An empty block.
    pub fn new() -> Block {
        Block::default()
    }

    /// Forgets the contents and keeps the memory.
    pub fn clear(&mut self) {
        self.streams.clear();
        self.rows.clear();
        self.text.clear();
        self.positions.clear();
    }

    /// Makes room for so many more entries, with so many bytes of lines.
    pub fn reserve(&mut self, entries: usize, text_bytes: usize) {
        self.rows.reserve(entries);
        self.text.reserve(text_bytes);
    }

    /// The index of a stream, which is added if the block has not seen it. None if the block has
    /// 65,535 streams already: write it out first.
    pub fn stream(&mut self, labels: &Labels) -> Option<StreamId> {
        if let Some(at) = self.streams.iter().rposition(|have| have == labels) {
            return Some(StreamId(at as u16));
        }
        if self.streams.len() >= usize::from(u16::MAX) {
            return None;
        }
        self.streams.push(labels.clone());
        Some(StreamId((self.streams.len() - 1) as u16))
    }

    /// Adds an entry of a stream of this block.
    pub fn push(&mut self, stream: StreamId, timestamp_ns: i64, line: &str) {
        self.push_with(stream, timestamp_ns, line, Vec::new());
    }

    /// Adds an entry with structured metadata.
    pub fn push_with(
        &mut self,
        stream: StreamId,
        timestamp_ns: i64,
        line: &str,
        metadata: Vec<(String, String)>,
    ) {
        debug_assert!(usize::from(stream.0) < self.streams.len());
        let start = self.text.len() as u32;
        self.text.push_str(line);
        let end = self.text.len() as u32;
        self.rows.push(Row { stream, timestamp_ns, start, end, metadata });
    }

    /// Forgets the entries from the `len`th on, and keeps streams and positions.
    pub fn truncate(&mut self, len: usize) {
        let end = self.text(len).len();
        self.text.truncate(end);
        self.rows.truncate(len);
    }

    /// Sets how far a source has been read; the last word for a key counts.
    pub fn set_position(&mut self, key: &str, position: &[u8]) {
        match self.positions.iter_mut().find(|(have, _)| have == key) {
            Some((_, old)) => {
                old.clear();
                old.extend_from_slice(position);
            }
            None => self.positions.push((key.to_owned(), position.to_vec())),
        }
    }

    /// The streams; an entry's [`StreamId`] is an index into them.
    pub fn streams(&self) -> &[Labels] {
        &self.streams
    }

    /// The entries in the order in which they were added.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = EntryRef<'_>> + Clone {
        self.rows.iter().map(|row| EntryRef {
            stream: row.stream,
            timestamp_ns: row.timestamp_ns,
            // Always there: `push` filled this range.
            line: self.text.get(row.start as usize..row.end as usize).unwrap_or_default(),
            metadata: &row.metadata,
        })
    }

    /// The positions, each key once.
    pub fn positions(&self) -> impl ExactSizeIterator<Item = PositionRef<'_>> {
        self.positions.iter().map(|(key, position)| PositionRef { key, position })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is neither an entry nor a position.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.positions.is_empty()
    }

    /// The lines of the first `len` entries, one after the other without anything between them.
    pub fn text(&self, len: usize) -> &str {
        let end = self.rows.get(len).map_or(self.text.len(), |row| row.start as usize);
        self.text.get(..end).unwrap_or_default()
    }

    /// Bytes of all lines together.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }
}
