//! Log entries between the WAL and Loki: whole blocks up to a number of bytes in one push, grouped by
//! stream, each stream's entries in the order in which they were read.

use std::rc::Rc;

use super::log::Log;
use super::send::{Gathered, Signal};
use super::state::Dropped;
use super::{DAMAGED, TOO_LARGE};
use crate::encode::{LokiPush, PushEntry, decode_block};
use crate::endpoint::Content;
use crate::model::Block;
use crate::wal::{ReaderId, WalError};

/// The logs signal of one endpoint.
pub(super) struct EntriesSignal {
    max_bytes: u64,
    batch: Block,
    /// The first stream of the next request.
    next_stream: usize,
    request: LokiPush,
    payload: Vec<u8>,
    dropped: Rc<Dropped>,
}

impl EntriesSignal {
    /// A signal whose requests have at most `max_bytes` of lines, or one block.
    pub(super) fn new(max_bytes: u64, dropped: Rc<Dropped>) -> EntriesSignal {
        EntriesSignal {
            max_bytes,
            batch: Block::new(),
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
            let bytes = (self.batch.text_len() + self.payload.len()) as u64;
            if !self.batch.is_empty() && bytes > self.max_bytes {
                gathered.full = true;
                return Ok(());
            }
            let before = self.batch.len();
            if let Err(error) = decode_block(&self.payload, &mut self.batch) {
                log::warn!("the logs WAL's record at {}: {error}", record.position);
                self.batch.truncate(before);
                self.dropped.add("logs", DAMAGED, u64::from(record.items));
            } else if before == 0
                && let Some(first) = self.batch.entries().next()
            {
                gathered.oldest_ms = first.timestamp_ns.div_euclid(1_000_000);
            }
            gathered.items = self.batch.len() as u64;
            gathered.until = record.next;
            gathered.full = self.batch.text_len() as u64 >= self.max_bytes;
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
