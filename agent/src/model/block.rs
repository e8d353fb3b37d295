//! A block: log entries on their way into the WAL, together with how far their sources have been
//! read, so that the lines and the position that covers them are written in one record.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Labels;
use super::metadata::{Metadata, Pairs};

/// The index of a stream within its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub u16);

#[derive(Clone, Debug, PartialEq)]
struct Row {
    stream: StreamId,
    timestamp_ns: i64,
    start: u32,
    end: u32,
    /// The first of its pairs, and the one behind its last.
    pairs: (u32, u32),
    partial: bool,
}

/// Entries of any number of streams in the order in which they were read, and their positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    streams: Vec<Labels>,
    /// Of each stream: looking up labels compares numbers, not texts.
    hashes: Vec<u64>,
    rows: Vec<Row>,
    text: String,
    metadata: Metadata,
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
    pub metadata: Pairs<'a>,
    /// Whether the line goes on in the next entry of its stream, see [`Block::set_partial`].
    pub partial: bool,
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
    /// What an entry costs beside its texts where the size of a block is bounded.
    pub const ENTRY_COST: usize = 48;
    /// What a position costs.
    pub const POSITION_COST: usize = 128;

    /// An empty block.
    pub fn new() -> Block {
        Block::default()
    }

    /// Forgets the contents and keeps the memory.
    pub fn clear(&mut self) {
        self.streams.clear();
        self.hashes.clear();
        self.rows.clear();
        self.text.clear();
        self.metadata.clear();
        self.positions.clear();
    }

    /// Makes room for so many more entries, with so many bytes of lines.
    pub fn reserve(&mut self, entries: usize, text_bytes: usize) {
        self.rows.reserve(entries);
        self.text.reserve(text_bytes);
    }

    /// Moves everything of `other` behind what is here. False if the streams of both are too many for one block:
    /// nothing has changed then.
    pub fn append(&mut self, other: &mut Block) -> bool {
        if self.is_empty() {
            std::mem::swap(self, other);
            other.clear();
            return true;
        }
        if self.streams.len() + other.streams.len() > usize::from(u16::MAX) {
            return false;
        }
        let known: Vec<StreamId> =
            other.streams.iter().filter_map(|labels| self.stream(labels)).collect();
        for entry in other.entries() {
            // Always there: each of the streams above has found its place.
            let Some(stream) = known.get(usize::from(entry.stream.0)) else { continue };
            self.push_with(*stream, entry.timestamp_ns, entry.line, entry.metadata.iter());
            if entry.partial {
                self.set_partial();
            }
        }
        for position in other.positions() {
            self.set_position(position.key, position.position);
        }
        other.clear();
        true
    }

    /// The index of a stream, which is added if the block has not seen it. None if the block has
    /// 65,535 streams already: write it out first.
    pub fn stream(&mut self, labels: &Labels) -> Option<StreamId> {
        let hash = hash_of(labels);
        let is_this = |(have, stream): (&u64, &Labels)| *have == hash && stream == labels;
        if let Some(at) = self.hashes.iter().zip(&self.streams).rposition(is_this) {
            return Some(StreamId(at as u16));
        }
        if self.streams.len() >= usize::from(u16::MAX) {
            return None;
        }
        self.streams.push(labels.clone());
        self.hashes.push(hash);
        Some(StreamId((self.streams.len() - 1) as u16))
    }

    /// Gives the entries from the `first` on other times.
    pub fn retime(&mut self, first: usize, time: impl Fn(i64) -> i64) {
        for row in self.rows.iter_mut().skip(first) {
            row.timestamp_ns = time(row.timestamp_ns);
        }
    }

    /// Adds an entry of a stream of this block.
    pub fn push(&mut self, stream: StreamId, timestamp_ns: i64, line: &str) {
        self.push_with::<&str, &str>(stream, timestamp_ns, line, []);
    }

    /// Adds an entry with structured metadata.
    pub fn push_with<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        stream: StreamId,
        timestamp_ns: i64,
        line: &str,
        metadata: impl IntoIterator<Item = (N, V)>,
    ) {
        debug_assert!(usize::from(stream.0) < self.streams.len());
        let start = self.text.len() as u32;
        self.text.push_str(line);
        let end = self.text.len() as u32;
        let first = self.metadata.len() as u32;
        for (name, value) in metadata {
            self.metadata.push(name.as_ref(), value.as_ref());
        }
        let pairs = (first, self.metadata.len() as u32);
        self.rows.push(Row { stream, timestamp_ns, start, end, pairs, partial: false });
    }

    /// Marks the entry that was added last as one whose line goes on in the next entry of its stream.
    /// It is not kept in the WAL: who prepares a block for it joins such entries before.
    pub fn set_partial(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.partial = true;
        }
    }

    /// Gives an entry another time.
    pub fn set_timestamp(&mut self, index: usize, timestamp_ns: i64) {
        if let Some(row) = self.rows.get_mut(index) {
            row.timestamp_ns = timestamp_ns;
        }
    }

    /// Forgets the entries from the `len`th on, and keeps streams and positions.
    pub fn truncate(&mut self, len: usize) {
        let end = self.text(len).len();
        self.text.truncate(end);
        let pairs = self.rows.get(len).map(|row| row.pairs.0);
        self.metadata.truncate(pairs.map_or(self.metadata.len(), |first| first as usize));
        self.rows.truncate(len);
    }

    /// Removes the labels that `keep` refuses from the streams, of which several may be the same then.
    pub fn retain_labels(&mut self, keep: impl Fn(&str, &str) -> bool) {
        for (labels, hash) in self.streams.iter_mut().zip(&mut self.hashes) {
            if labels.iter().any(|(name, value)| !keep(name, value)) {
                labels.retain(&keep);
                *hash = hash_of(labels);
            }
        }
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
        self.rows.iter().map(|row| self.entry_of(row))
    }

    /// The entry that was added as the `index`th.
    pub fn entry(&self, index: usize) -> Option<EntryRef<'_>> {
        self.rows.get(index).map(|row| self.entry_of(row))
    }

    fn entry_of(&self, row: &Row) -> EntryRef<'_> {
        EntryRef {
            stream: row.stream,
            timestamp_ns: row.timestamp_ns,
            // Always there: `push` filled this range.
            line: self.text.get(row.start as usize..row.end as usize).unwrap_or_default(),
            metadata: self.metadata.range(row.pairs.0, row.pairs.1),
            partial: row.partial,
        }
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

    /// What the block takes of a bound: bytes of lines and metadata, 48 for each entry, 128 for each
    /// position.
    pub fn size(&self) -> usize {
        self.text.len()
            + self.metadata.text_len()
            + Block::ENTRY_COST * self.rows.len()
            + Block::POSITION_COST * self.positions.len()
    }
}

fn hash_of(labels: &Labels) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_their_own_metadata_also_after_a_cut() {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs([("a", "1")]).unwrap()).unwrap();
        block.push_with(stream, 1, "one", [("n", "1")]);
        block.push(stream, 2, "two");
        block.push_with(stream, 3, "three", [("n", "3"), ("m", "33")]);
        block.set_partial();
        block.set_position("k", b"p");
        assert_eq!(block.size(), 11 + 2 + 5 + 3 * 48 + 128);
        block.truncate(2);
        block.push_with(stream, 4, "four", [("n", "4")]);
        let read: Vec<_> =
            block.entries().map(|e| (e.line, e.metadata.get("n"), e.partial)).collect();
        assert_eq!(
            read,
            [("one", Some("1"), false), ("two", None, false), ("four", Some("4"), false)]
        );
    }

    #[test]
    fn blocks_become_one() {
        let labels = |value| Labels::from_pairs([("a", value)]).unwrap();
        let (mut all, mut more) = (Block::new(), Block::new());
        let one = more.stream(&labels("1")).unwrap();
        more.push_with(one, 1, "first", [("n", "1")]);
        more.set_position("k", b"1");
        assert!(all.append(&mut more) && more.is_empty() && more.streams().is_empty());
        let two = more.stream(&labels("2")).unwrap();
        let one = more.stream(&labels("1")).unwrap();
        more.push(one, 2, "second");
        more.set_partial();
        more.push_with(two, 3, "third", [("n", "3"), ("m", "4")]);
        more.set_position("k", b"2");
        more.set_position("l", b"3");
        let size = all.size() + more.size() - Block::POSITION_COST;
        assert!(all.append(&mut more) && more.is_empty());
        let read: Vec<_> = all
            .entries()
            .map(|e| (e.stream.0, e.timestamp_ns, e.line, e.metadata.get("n"), e.partial))
            .collect();
        assert_eq!(
            read,
            [
                (0, 1, "first", Some("1"), false),
                (0, 2, "second", None, true),
                (1, 3, "third", Some("3"), false)
            ]
        );
        assert_eq!(all.streams(), [labels("1"), labels("2")]);
        let positions: Vec<_> = all.positions().map(|p| (p.key, p.position)).collect();
        assert_eq!(positions, [("k", &b"2"[..]), ("l", &b"3"[..])]);
        assert_eq!(all.size(), size);
    }

    #[test]
    fn blocks_of_too_many_streams_stay_two() {
        let fill = |from: u32, to: u32| {
            let mut block = Block::new();
            for n in from..to {
                let labels = Labels::from_pairs([("n", n.to_string())]).unwrap();
                let stream = block.stream(&labels).unwrap();
                block.push(stream, 1, "x");
            }
            block
        };
        let (mut all, mut more) = (fill(0, 2), fill(2, 4));
        // As if there were that many: finding them would take minutes.
        all.streams.resize(usize::from(u16::MAX) - 1, Labels::from_pairs([("a", "")]).unwrap());
        all.hashes.resize(all.streams.len(), 0);
        let before = (all.clone(), more.clone());
        assert!(!all.append(&mut more));
        assert_eq!((all, more), before);
    }

    #[test]
    fn streams_with_fewer_labels_are_found_by_them() {
        let mut block = Block::new();
        let labels = |source| Labels::from_pairs([("__source__", source), ("a", "1")]).unwrap();
        let one = block.stream(&labels("x")).unwrap();
        assert_ne!(block.stream(&labels("y")).unwrap(), one);
        let plain = Labels::from_pairs([("a", "1")]).unwrap();
        block.retain_labels(|name, _| !name.starts_with("__"));
        assert!(block.streams().iter().all(|labels| *labels == plain));
        block.stream(&plain).unwrap();
        assert_eq!(block.streams().len(), 2);
    }
}
