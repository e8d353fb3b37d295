//! Log entries between the WAL and Loki: whole blocks up to a number of bytes in one push, grouped by
//! stream, each stream's entries in the order in which they were read.

use std::rc::Rc;

use super::log::Log;
use super::losses::Dropped;
use super::send::{Gathered, Signal};
use super::{DAMAGED, TOO_LARGE};
use crate::encode::{LokiPush, MAX_BYTES, PushEntry, block_bytes, decode_block};
use crate::endpoint::Content;
use crate::model::Block;
use crate::wal::{ReaderId, WalError};

/// The logs signal of one endpoint.
pub(super) struct EntriesSignal {
    max_bytes: u64,
    batch: Block,
    /// Bytes of the batch's records in the clear, as [`block_bytes`] counts them. The lines alone would
    /// not bound it: there may be a million of them in 16 MiB, each empty.
    batch_bytes: u64,
    /// The first stream of the next request.
    next_stream: usize,
    request: LokiPush,
    payload: Vec<u8>,
    dropped: Rc<Dropped>,
}

impl EntriesSignal {
    /// A signal whose requests have at most `max_bytes` of entries as [`block_bytes`] counts them, or one block.
    pub(super) fn new(max_bytes: u64, dropped: Rc<Dropped>) -> EntriesSignal {
        EntriesSignal {
            // A short entry takes more in a request than it is counted, by less than half.
            max_bytes: max_bytes.min(MAX_BYTES as u64 / 2),
            batch: Block::new(),
            batch_bytes: 0,
            next_stream: 0,
            request: LokiPush::new(),
            payload: Vec::new(),
            dropped,
        }
    }
}

impl Signal for EntriesSignal {
    const CONTENT: Content = Content::LokiPush;

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
            }
            gathered.until = record.next;
            gathered.full = self.batch_bytes >= self.max_bytes;
        }
        Ok(())
    }

    fn next_request(&mut self) -> Option<(&[u8], u64)> {
        self.request.clear();
        let batch = &self.batch;
        while let Some(labels) = batch.streams().get(self.next_stream) {
            let index = self.next_stream;
            let entries = batch
                .entries()
                .filter(move |entry| usize::from(entry.stream.0) == index)
                .map(|entry| PushEntry {
                    timestamp_ns: entry.timestamp_ns,
                    line: entry.line,
                    metadata: entry.metadata,
                });
            if entries.clone().next().is_some()
                && let Err(full) = self.request.stream(&labels.to_string(), entries.clone())
            {
                if !self.request.is_empty() {
                    break;
                }
                log::error!("the entries of {labels} were dropped: {full}");
                self.dropped.add("logs", TOO_LARGE, entries.count() as u64);
            }
            self.next_stream += 1;
        }
        if self.request.is_empty() {
            self.next_stream = 0;
            self.batch.clear();
            self.batch_bytes = 0;
            return None;
        }
        let items = self.request.entries() as u64;
        Some((self.request.finish(), items))
    }

    /// Loki keeps the good entries of a push that it refuses, so nothing is ever sent again.
    fn split(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{BLOCK, encode_block};
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
        let mut signal = EntriesSignal::new(1_024, dropped());
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
            let mut signal = EntriesSignal::new(max, dropped());
            let (mut sent, mut gathered) = (0, Gathered::default());
            loop {
                signal.gather(&log, reader, &mut gathered).unwrap();
                if gathered.items == 0 {
                    break;
                }
                assert!(gathered.items * 16 <= max, "{} entries in a batch", gathered.items);
                while let Some((_, items)) = signal.next_request() {
                    sent += items;
                }
                gathered = Gathered { until: gathered.until, ..Gathered::default() };
            }
            assert_eq!((sent, signal.dropped.total()), (blocks * 1_300, 0));
        }
    }
}
