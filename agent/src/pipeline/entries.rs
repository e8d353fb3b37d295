//! Log entries between the WAL and Loki: whole blocks up to a number of bytes in one push, grouped by
//! stream, each stream's entries in the order in which they were read.

use std::rc::Rc;

use super::log::Log;
use super::losses::Dropped;
use super::refusal;
use super::send::{Bounds, Gathered, Refusal, Request, Signal, Verdict};
use super::shape::StreamShape;
use super::{DAMAGED, TOO_LARGE};
use crate::config::Limits;
use crate::encode::{LokiPush, MAX_BYTES, PushEntry, block_bytes, decode_block};
use crate::endpoint::Content;
use crate::logs::stage::{MAX_PAIR_BYTES, MAX_PAIRS};
use crate::model::Block;
use crate::wal::{ReaderId, WalError};

/// Bytes of a batch whose memory is given back when nothing waits any more.
const LARGE: u64 = 32 << 10;

/// The logs signal of one endpoint.
pub(super) struct EntriesSignal {
    max_bytes: u64,
    limits: Limits,
    shape: StreamShape,
    batch: Block,
    /// Bytes of the batch's records in the clear, as [`block_bytes`] counts them. The lines alone would
    /// not bound it: there may be a million of them in 16 MiB, each empty.
    batch_bytes: u64,
    /// The batch's entries that are to be sent, by stream and time; made with the first request.
    order: Option<Vec<u32>>,
    /// Of `order`: the first of the last request, and the first of the next one.
    sent: (usize, usize),
    request: LokiPush,
    payload: Vec<u8>,
    /// A batch has needed more memory than those of a quiet host.
    is_large: bool,
    dropped: Rc<Dropped>,
}

impl EntriesSignal {
    /// A signal whose requests have at most `max_bytes` of entries as [`block_bytes`] counts them, or one block.
    pub(super) fn new(
        max_bytes: u64,
        limits: Limits,
        shape: StreamShape,
        dropped: Rc<Dropped>,
    ) -> EntriesSignal {
        EntriesSignal {
            // A short entry takes more in a request than it is counted, by less than half.
            max_bytes: max_bytes.min(MAX_BYTES as u64 / 2),
            limits,
            shape,
            batch: Block::new(),
            batch_bytes: 0,
            order: None,
            sent: (0, 0),
            request: LokiPush::new(),
            payload: Vec::new(),
            is_large: false,
            dropped,
        }
    }

    /// Which entries are sent, in which order: each stream's by time, which is that of reading but where
    /// a stage has read another one from the line.
    fn arrange(&mut self, now_ms: Option<i64>) -> Vec<u32> {
        self.shape.batch(&self.batch, &self.dropped);
        let max_age = self.limits.max_age.map(|age| i64::try_from(age.as_millis()));
        let max_age = max_age.map(|age| age.unwrap_or(i64::MAX));
        let oldest_ms = now_ms.zip(max_age).map_or(i64::MIN, |(now, age)| now.saturating_sub(age));
        let (mut old, mut long) = (Refused::default(), Refused::default());
        let mut order = Vec::with_capacity(self.batch.len());
        for (index, entry) in self.batch.entries().enumerate() {
            let time_ms = entry.timestamp_ns.div_euclid(1_000_000);
            if self.shape.stream(entry.stream).is_none() {
                // Counted there.
            } else if time_ms < oldest_ms {
                old.add(time_ms);
            } else if self.limits.max_line.is_some_and(|max| entry.line.len() as u64 > max) {
                long.add(time_ms);
            } else {
                // At most what a batch's bytes allow.
                order.push(index as u32);
            }
        }
        for (refused, reason) in [(old, "too_old"), (long, "line_too_long")] {
            self.dropped.add_of("logs", reason, refused.entries, refused.from_ms, refused.to_ms);
        }
        let key = |index: &u32| {
            let entry = self.batch.entry(*index as usize)?;
            Some((self.shape.stream(entry.stream)?.0, entry.timestamp_ns))
        };
        order.sort_by_key(key);
        order
    }
}

/// Entries that Loki would refuse.
#[derive(Default)]
struct Refused {
    entries: u64,
    from_ms: i64,
    to_ms: i64,
}

impl Refused {
    fn add(&mut self, time_ms: i64) {
        let first = self.entries == 0;
        self.from_ms = if first { time_ms } else { self.from_ms.min(time_ms) };
        self.to_ms = if first { time_ms } else { self.to_ms.max(time_ms) };
        self.entries += 1;
    }
}

impl Signal for EntriesSignal {
    fn content(&self) -> Content {
        Content::LokiPush
    }

    fn gather(
        &mut self,
        log: &Log,
        reader: ReaderId,
        gathered: &mut Gathered,
    ) -> Result<(), WalError> {
        while !gathered.full {
            let Some(record) = log.read(reader, gathered.until, &mut self.payload)? else {
                return Ok(());
            };
            let before = self.batch.len();
            // What can't be read adds nothing; decoding says why.
            let bytes = self.batch_bytes + block_bytes(&self.payload).unwrap_or_default();
            if before > 0 && bytes > self.max_bytes {
                gathered.full = true;
                return Ok(());
            }
            if let Err(error) = decode_block(&self.payload, &mut self.batch) {
                log::warn!("the logs WAL's record at {}: {error}", record.position);
                self.batch.truncate(before);
                self.dropped.add("logs", DAMAGED, u64::from(record.items));
            } else if before == 0
                && let Some(first) = self.batch.entries().next()
            {
                gathered.oldest_ms = first.timestamp_ns.div_euclid(1_000_000);
            }
            // Records without entries leave nothing behind: no request will clear it away.
            gathered.items = self.batch.len() as u64;
            if gathered.items == 0 {
                self.batch.clear();
            } else {
                self.batch_bytes = bytes;
                self.is_large |= bytes > LARGE;
            }
            gathered.until = record.next;
            gathered.full = self.batch_bytes >= self.max_bytes;
        }
        Ok(())
    }

    fn next_request(&mut self, bounds: Bounds) -> Option<Request<'_>> {
        self.request.clear();
        let order = self.order.take().unwrap_or_else(|| self.arrange(bounds.now_ms));
        let batch = &self.batch;
        let entry = |index: &u32| batch.entry(*index as usize);
        let shape = &self.shape;
        let stream = |index: &u32| shape.stream(entry(index)?.stream);
        let most_pairs = if self.limits.no_metadata { 0 } else { MAX_PAIRS };
        let (_, mut next) = self.sent;
        self.sent.0 = next;
        while let Some(first) = order.get(next) {
            let rest = order.get(next..).unwrap_or_default();
            let count = rest.iter().take_while(|index| stream(index) == stream(first)).count();
            let entries = rest.iter().take(count).filter_map(entry).map(|entry| PushEntry {
                timestamp_ns: entry.timestamp_ns,
                line: entry.line,
                metadata: entry.metadata.within(most_pairs, MAX_PAIR_BYTES),
            });
            let labels = stream(first).and_then(|stream| shape.labels(batch, stream));
            if let Some(labels) = labels
                && let Err(full) = self.request.stream(&labels.to_string(), entries)
            {
                if !self.request.is_empty() {
                    break;
                }
                log::error!("the entries of {labels} were dropped: {full}");
                self.dropped.add("logs", TOO_LARGE, count as u64);
            }
            next += count;
        }
        self.sent.1 = next;
        if self.request.is_empty() {
            self.sent = (0, 0);
            self.batch.clear();
            self.batch_bytes = 0;
            return None;
        }
        self.order = Some(order);
        let (items, bytes) = (self.request.entries() as u64, self.request.len() as u64);
        Some(Request { body: self.request.finish(), items, bytes })
    }

    fn rest(&mut self) {
        self.shape.rest();
        if std::mem::take(&mut self.is_large) {
            self.batch = Block::new();
            self.request = LokiPush::new();
            self.payload = Vec::new();
        }
    }

    /// Loki keeps the good entries of a push that it refuses, so nothing is sent again, but for a Loki that
    /// takes no structured metadata: it refuses all entries that have some.
    fn refused(&mut self, refusal: &Refusal<'_>) -> Verdict {
        let why = refusal.why;
        let refuses_all = why.contains("structured metadata") && why.contains("disallowed");
        if !self.limits.no_metadata && refuses_all {
            log::warn!(
                "this Loki takes no structured metadata, and is sent none from now on: {why}"
            );
            self.limits.no_metadata = true;
            self.again();
            return Verdict::Again;
        }
        let sent = self.order.as_ref().and_then(|order| order.get(self.sent.0..self.sent.1));
        let times = sent
            .unwrap_or_default()
            .iter()
            .filter_map(|index| self.batch.entry(*index as usize).map(|entry| entry.timestamp_ns));
        Verdict::Done { lost: refusal::lost(refusal.said, times).unwrap_or(refusal.items) }
    }

    fn again(&mut self) {
        self.sent.1 = self.sent.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{BLOCK, encode_block};
    use crate::endpoint::Written;
    use crate::host::SystemClock;
    use crate::model::Labels;
    use crate::wal::{Encoded, OnFull, Options, Payload};

    struct Entries<'a>(&'a Block);

    impl Payload for Entries<'_> {
        fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> Encoded {
            let positions = self.0.positions().map(|p| (p.key, p.position));
            Encoded { items: encode_block(self.0, positions, out), time_ms: 0 }
        }
    }

    fn log(dir: &tempfile::TempDir) -> Log {
        let hour = Some(std::time::Duration::from_secs(3_600));
        Log::for_test(dir.path(), Options::new(32 << 20, OnFull::Refuse, 2), hour)
    }

    fn dropped() -> Rc<Dropped> {
        Rc::new(Dropped::new(Rc::new(SystemClock)))
    }

    fn block(lines: usize, line: &str) -> Block {
        let mut block = Block::new();
        block.set_position("file:/a.log", &[7; 40]);
        for at in 0..lines {
            let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
            block.push(stream, at as i64, line);
        }
        block
    }

    #[test]
    fn positions_alone_fill_no_batch_and_leave_nothing_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        let reader = log.reader("a").unwrap();
        log.append(BLOCK, &mut Entries(&block(0, ""))).unwrap();
        log.append(BLOCK, &mut Entries(&block(1, &"x".repeat(2_000)))).unwrap();
        let mut signal =
            EntriesSignal::new(1_024, Limits::default(), StreamShape::default(), dropped());
        let mut gathered = Gathered::default();
        signal.gather(&log, reader, &mut gathered).unwrap();
        // A full batch without an entry would end the sender.
        assert_eq!((gathered.items, gathered.full), (1, true));
        assert_eq!(gathered.until, log.with(|wal| wal.end()).unwrap());
    }

    #[test]
    fn empty_lines_are_bounded_as_any_others_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        let reader = log.reader("a").unwrap();
        let blocks: u64 = 300;
        for _ in 0..blocks {
            log.append(BLOCK, &mut Entries(&block(1_300, ""))).unwrap();
        }
        for max in [256 << 10, 4 << 20] {
            let mut signal =
                EntriesSignal::new(max, Limits::default(), StreamShape::default(), dropped());
            let (mut sent, mut gathered) = (0, Gathered::default());
            loop {
                signal.gather(&log, reader, &mut gathered).unwrap();
                if gathered.items == 0 {
                    break;
                }
                assert!(gathered.items * 16 <= max, "{} entries in a batch", gathered.items);
                while let Some(request) = signal.next_request(Bounds::NONE) {
                    sent += request.items;
                }
                gathered = Gathered { until: gathered.until, ..Gathered::default() };
            }
            assert_eq!((sent, signal.dropped.total()), (blocks * 1_300, 0));
        }
    }

    /// A batch of one block, and what its requests hold: time in ns, line, number of pairs.
    fn sent(signal: &mut EntriesSignal, now_ms: Option<i64>) -> Vec<(i64, String, usize)> {
        let mut all = Vec::new();
        while let Some(request) = signal.next_request(Bounds { now_ms, ..Bounds::NONE }) {
            all.extend(read(request.body));
        }
        all
    }

    fn read(body: &[u8]) -> Vec<(i64, String, usize)> {
        let entries = crate::encode::loki::read_push(body).streams.into_iter();
        let time =
            |at: crate::encode::proto::Timestamp| at.seconds * 1_000_000_000 + i64::from(at.nanos);
        entries
            .flat_map(|stream| stream.entries)
            .map(|e| (time(e.timestamp.unwrap()), e.line, e.structured_metadata.len()))
            .collect()
    }

    fn signal_of(block: &Block, limits: Limits) -> EntriesSignal {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        let reader = log.reader("a").unwrap();
        log.append(BLOCK, &mut Entries(block)).unwrap();
        let mut signal = EntriesSignal::new(1 << 20, limits, StreamShape::default(), dropped());
        signal.gather(&log, reader, &mut Gathered::default()).unwrap();
        signal
    }

    fn counted(signal: &EntriesSignal) -> Vec<(String, u64)> {
        signal.dropped.counts().into_iter().map(|(_, reason, count)| (reason, count)).collect()
    }

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn what_loki_would_refuse_is_dropped_and_counted() {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
        for (hour, line) in [(0, "old"), (1, "older than it seems"), (3, "new"), (9, "of tomorrow")]
        {
            block.push(stream, hour * HOUR_MS * 1_000_000, line);
        }
        block.push(stream, 9 * HOUR_MS * 1_000_000 + 1, &"x".repeat(100));
        let limits = Limits {
            max_age: Some(std::time::Duration::from_secs(2 * 3_600)),
            max_line: Some(99),
            ..Limits::default()
        };
        let lines = |signal: &mut EntriesSignal, now_ms| -> Vec<String> {
            sent(signal, now_ms).into_iter().map(|(_, line, _)| line).collect()
        };
        let mut signal = signal_of(&block, limits);
        assert_eq!(lines(&mut signal, Some(3 * HOUR_MS + 1)), ["new", "of tomorrow"]);
        let expected = [("line_too_long".to_owned(), 1), ("too_old".to_owned(), 2)];
        assert_eq!(counted(&signal), expected);
        // While nobody knows what time it is for the server, nothing is too old.
        let mut signal = signal_of(&block, limits);
        assert_eq!(lines(&mut signal, None).len(), 4);
        assert_eq!(counted(&signal), [("line_too_long".to_owned(), 1)]);
        // Nothing is left, and nothing is sent.
        let mut signal = signal_of(&block, limits);
        assert_eq!(lines(&mut signal, Some(100 * HOUR_MS)), [""; 0]);
        assert_eq!(counted(&signal), [("too_old".to_owned(), 5)]);
    }

    #[test]
    fn entries_of_a_stream_go_in_the_order_of_their_time_and_equal_ones_as_they_came() {
        let mut block = Block::new();
        let [a, b] = ["a", "b"]
            .map(|job| block.stream(&Labels::from_pairs([("job", job)]).unwrap()).unwrap());
        for (stream, time, line) in [
            (b, 5, "b5"),
            (a, 3, "a3"),
            (b, 4, "b4"),
            (a, 1, "a1"),
            (a, 3, "a3 too"),
            (b, 5, "b5 too"),
        ] {
            block.push(stream, time, line);
        }
        let got = sent(&mut signal_of(&block, Limits::default()), None);
        let lines: Vec<&str> = got.iter().map(|(_, line, _)| line.as_str()).collect();
        // Streams in the order in which the block has them.
        let of = |first: char| {
            lines.iter().filter(|l| l.starts_with(first)).copied().collect::<Vec<_>>()
        };
        assert_eq!((of('a'), of('b')), (vec!["a1", "a3", "a3 too"], vec!["b4", "b5", "b5 too"]));
    }

    #[test]
    fn loki_without_structured_metadata_gets_the_entries_without_it() {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
        block.push_with(stream, 1, "one", [("pid", "1")]);
        block.push(stream, 2, "two");
        let mut signal = signal_of(&block, Limits::default());
        let first = read(signal.next_request(Bounds::NONE).unwrap().body);
        assert_eq!(first, [(1, "one".to_owned(), 1), (2, "two".to_owned(), 0)]);
        let why = "POST x: 400 stream '{job=\"a\"}' includes structured metadata, but this feature is disallowed.";
        let refusal = Refusal { why, said: why, written: Written::default(), items: 2 };
        assert_eq!(signal.refused(&refusal), Verdict::Again);
        assert_eq!(sent(&mut signal, None), [(1, "one".to_owned(), 0), (2, "two".to_owned(), 0)]);
    }

    #[test]
    fn metadata_beyond_lokis_bounds_costs_itself_and_not_its_entry() {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
        block.push_with(stream, 1, "many", (0..200).map(|n| (format!("n{n}"), "v")));
        block.push_with(stream, 2, "much", [("a", "v"), ("b", &"x".repeat(70_000))]);
        let got = sent(&mut signal_of(&block, Limits::default()), None);
        assert_eq!(got, [(1, "many".to_owned(), 128), (2, "much".to_owned(), 1)]);
    }
}
