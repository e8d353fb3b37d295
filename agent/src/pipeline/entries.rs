//! Log entries between the WAL and Loki: a batch of whole blocks up to a number of bytes, grouped by
//! stream, each stream's entries in the order of their time, cut into requests anywhere.
//!
//! What is refused as a whole, for its size or by somebody before Loki, comes again in smaller requests, down
//! to one entry; an entry that is refused alone is dropped.

use std::ops::Range;
use std::rc::Rc;

use super::fit::{Batch, Fit};
use super::held::Times;
use super::log::Log;
use super::losses::Dropped;
use super::newest;
use super::refusal;
use super::send::{Bounds, Gathered, Refusal, Request, Signal, Verdict};
use super::shape::StreamShape;
use super::{DAMAGED, TOO_LARGE};
use crate::config::Limits;
use crate::encode::{MAX_BYTES, Push, PushEntry, block_bytes, decode_block};
use crate::endpoint::{Content, Written};
use crate::host::Clock;
use crate::memory::Part;
use crate::model::StreamId;
use crate::wal::{ReaderId, WalError};

/// Bytes of a batch whose memory is given back when nothing waits any more.
const LARGE: u64 = 32 << 10;

/// So many pushes of a batch end with a stream that Loki has nothing of, so that it can say that it takes no more
/// streams. When it has taken all of these, the others of the batch go together.
const NEW_ENDS: u32 = 8;

/// What a batch takes in memory, of its bytes: the block, the request, and the request compressed.
const COPIES: u64 = 3;

/// Requests of a batch that are refused whole, after which no more are cut: a server that refuses everything
/// is not sent each entry by itself.
const MAX_CUTS: u32 = 64;

/// The logs signal of one endpoint.
pub(super) struct EntriesSignal {
    max_bytes: u64,
    batch: Batch,
    /// Bytes of the batch's records in the clear, as [`block_bytes`] counts them. The lines alone would
    /// not bound it: there may be a million of them in 16 MiB, each empty.
    batch_bytes: u64,
    shape: StreamShape,
    fit: Fit,
    /// The batch's entries that are to be sent, by stream and time; made with the first request.
    order: Option<Vec<u32>>,
    /// Of `order`: what the last request has.
    sent: Range<usize>,
    /// The entries of `order` from the next request on are to be looked at again: time has gone by.
    is_stale: bool,
    /// Bytes of the last request.
    bytes: u64,
    cut: Cut,
    /// What was refused as too new has been sent again with Loki's clock in mind.
    corrected: bool,
    request: Push,
    payload: Vec<u8>,
    /// Pushes of the batch that were accepted and ended with a new stream.
    new_ends: u32,
    /// A batch has needed more memory than those of a quiet host.
    is_large: bool,
    /// What there is room for in memory.
    room: u64,
    dropped: Rc<Dropped>,
    pub(super) times: Times,
}

/// How a batch is cut to find what was refused as a whole.
#[derive(Debug, Default)]
struct Cut {
    /// The most bytes of the next request.
    bytes: Option<u64>,
    /// Requests that were refused whole.
    refused: u32,
}

impl Cut {
    /// A request of so many bytes and several entries was refused; false if it is not to be cut any more.
    fn halve(&mut self, bytes: u64) -> bool {
        self.refused += 1;
        if self.refused <= MAX_CUTS {
            self.bytes = Some(bytes / 2);
        }
        self.refused <= MAX_CUTS
    }

    /// A request is done with, so that the next one may be larger again.
    fn grow(&mut self) {
        self.bytes = self.bytes.map(|bytes| bytes.max(64).saturating_mul(2));
    }
}

impl EntriesSignal {
    /// A signal whose batches have at most `max_bytes` of entries as [`block_bytes`] counts them, or one block.
    pub(super) fn new(
        max_bytes: u64,
        limits: Limits,
        shape: StreamShape,
        dropped: Rc<Dropped>,
        clock: Rc<dyn Clock>,
    ) -> EntriesSignal {
        EntriesSignal {
            // A short entry takes more in a request than it is counted, by less than half.
            max_bytes: max_bytes.min(MAX_BYTES as u64 / 2),
            batch: Batch::new(),
            shape,
            batch_bytes: 0,
            fit: Fit::new(limits, Rc::clone(&dropped), clock),
            order: None,
            sent: 0..0,
            is_stale: false,
            bytes: 0,
            cut: Cut::default(),
            corrected: false,
            request: Push::new(limits.json),
            payload: Vec::new(),
            new_ends: 0,
            is_large: false,
            room: u64::MAX,
            dropped,
            times: Times::default(),
        }
    }

    /// Finds out what the batch's streams are to this endpoint.
    fn name_streams(&mut self) {
        let Batch { block, targets, keys, .. } = &mut self.batch;
        self.shape.batch(block, &self.dropped);
        for (at, _) in (0..=u16::MAX).zip(block.streams()) {
            let target = self.shape.stream(StreamId(at));
            targets.push(target);
            let Some(target) = target else { continue };
            let named = usize::from(target.0) < keys.len();
            if let (false, Some(labels)) = (named, self.shape.labels(block, target)) {
                keys.resize(usize::from(target.0), 0);
                keys.push(newest::key(labels));
            }
        }
    }

    /// The entries that are still to be sent.
    fn arrange(&mut self, bounds: Bounds) -> Vec<u32> {
        match self.order.take() {
            None => {
                self.name_streams();
                let all = 0..u32::try_from(self.batch.block.len()).unwrap_or(u32::MAX);
                self.fit.order(&mut self.batch, all, bounds)
            }
            Some(mut order) if self.is_stale => {
                self.is_stale = false;
                let rest = order.split_off(self.sent.end.min(order.len()));
                self.sent = 0..0;
                self.fit.order(&mut self.batch, rest.into_iter(), bounds)
            }
            Some(order) => order,
        }
    }

    /// Writes entries of one stream from the `from`th on into the request, as many as fit; None if none does.
    fn add(&mut self, order: &[u32], from: usize, most: u64, now_ms: Option<i64>) -> Option<usize> {
        let batch = &self.batch;
        let limits = &self.fit.limits;
        let (most_pairs, most_bytes) = match limits.no_metadata {
            true => (0, 0),
            false => (limits.streams.pairs, limits.streams.pair_bytes),
        };
        let entry = |index: &u32| batch.entry(*index);
        let rest = order.get(from..).unwrap_or_default();
        let (stream, first) = rest.first().and_then(entry)?;
        let key = batch.key(stream);
        let is_alone = self.fit.is_risky(batch, key, first.timestamp_ns, now_ms);
        if is_alone && !self.request.is_empty() {
            return None;
        }
        let labels = self.shape.labels(&batch.block, stream)?;
        let trimmed = limits.streams.trimmed(labels);
        let labels = self.request.labels(trimmed.as_ref().unwrap_or(labels));
        let entries = rest.iter().map_while(entry).take_while(|(of, _)| *of == stream);
        let entries = entries.map(|(_, entry)| PushEntry {
            timestamp_ns: entry.timestamp_ns,
            line: entry.line,
            metadata: entry.metadata.within(most_pairs, most_bytes),
        });
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(MAX_BYTES);
        let mut room = most.checked_sub(self.request.len() + self.request.stream_bytes(&labels));
        let fits = |entry: &PushEntry<'_>| {
            room = room.and_then(|room| room.checked_sub(self.request.entry_bytes(entry)));
            room.is_some()
        };
        let mut count = entries.clone().take_while(fits).count();
        if count == 0 {
            if !self.request.is_empty() {
                return None;
            }
            count = 1;
        }
        if let Err(full) = self.request.stream(&labels, entries.take(count)) {
            if !self.request.is_empty() {
                return None;
            }
            log::error!("an entry of {labels} was dropped: {full}");
            self.dropped.add("logs", TOO_LARGE, count as u64);
        }
        Some(count)
    }

    /// Whether more may join the request, of which the entry before `next` is the last.
    fn goes_on(&self, order: &[u32], next: usize, now_ms: Option<i64>) -> bool {
        let entry = |at: usize| order.get(at).and_then(|index| self.batch.entry(*index));
        let (Some((stream, first)), Some((last, _))) =
            (entry(self.sent.start), entry(next.saturating_sub(1)))
        else {
            return true;
        };
        if next == self.sent.start {
            return true;
        }
        // What is left of a stream is there because it did not fit.
        let is_cut = entry(next).is_some_and(|(next, _)| next == last);
        let key = self.batch.key(stream);
        let is_last = self.new_ends < NEW_ENDS && self.fit.is_new(self.batch.key(last));
        !is_cut && !is_last && !self.fit.is_risky(&self.batch, key, first.timestamp_ns, now_ms)
    }

    /// The streams of the last request, and the time of the newest entry of each.
    fn newest_sent(&self) -> Vec<(u64, i64)> {
        let sent = self.order.as_ref().and_then(|order| order.get(self.sent.clone()));
        let mut streams: Vec<(StreamId, i64)> = Vec::new();
        for index in sent.unwrap_or_default() {
            let Some((of, entry)) = self.batch.entry(*index) else { continue };
            match streams.last_mut() {
                Some((stream, newest)) if *stream == of => *newest = entry.timestamp_ns,
                _ => streams.push((of, entry.timestamp_ns)),
            }
        }
        streams.into_iter().map(|(stream, newest)| (self.batch.key(stream), newest)).collect()
    }

    fn forget(&mut self) {
        self.sent = 0..0;
        self.order = None;
        self.is_stale = false;
        self.corrected = false;
        self.cut = Cut::default();
        self.new_ends = 0;
        self.batch.clear();
        self.batch_bytes = 0;
    }
}

impl Signal for EntriesSignal {
    fn content(&self) -> Content {
        if self.request.is_json() { Content::LokiJson } else { Content::LokiPush }
    }

    fn gather(
        &mut self,
        log: &Log,
        reader: ReaderId,
        gathered: &mut Gathered,
    ) -> Result<(), WalError> {
        let most = self.max_bytes.min(self.room / COPIES);
        while !gathered.full {
            let Some(record) = log.read(reader, gathered.until, &mut self.payload)? else {
                return Ok(());
            };
            let Some(told) = self.times.of(&record, &mut self.payload) else { return Ok(()) };
            let before = self.batch.block.len();
            // What can't be read adds nothing; decoding says why.
            let bytes = self.batch_bytes + block_bytes(&self.payload).unwrap_or_default();
            if before > 0 && bytes > most {
                gathered.full = true;
                return Ok(());
            }
            if let Err(error) = decode_block(&self.payload, &mut self.batch.block) {
                log::warn!("the logs WAL's record at {}: {error}", record.position);
                self.batch.block.truncate(before);
                self.dropped.add("logs", DAMAGED, u64::from(record.items));
            } else {
                told.retime(&mut self.batch.block, before);
                self.times.sends(&told, (self.batch.block.len() - before) as u64);
                if before == 0
                    && let Some(first) = self.batch.block.entries().next()
                {
                    gathered.oldest_ms = first.timestamp_ns.div_euclid(1_000_000);
                }
            }
            if self.batch.block.len() > before {
                self.batch.records.push((before as u32, told.ms));
            }
            // Records without entries leave nothing behind: no request will clear it away.
            gathered.items = self.batch.block.len() as u64;
            if gathered.items == 0 {
                self.batch.block.clear();
            } else {
                self.batch_bytes = bytes;
                self.is_large |= bytes > LARGE;
            }
            gathered.until = record.next;
            gathered.full = self.batch_bytes >= most;
        }
        Ok(())
    }

    fn next_request(&mut self, bounds: Bounds) -> Option<Request<'_>> {
        self.request.clear();
        let order = self.arrange(bounds);
        // What a request takes beside what is counted is less than half, but in JSON.
        let most = bounds.bytes.min(self.max_bytes.saturating_mul(3) / 2);
        let most = most.min(self.cut.bytes.unwrap_or(u64::MAX));
        let mut next = self.sent.end;
        self.sent = next..next;
        while next < order.len()
            && self.goes_on(&order, next, bounds.now_ms)
            && let Some(count) = self.add(&order, next, most, bounds.now_ms)
        {
            next += count;
            if self.request.is_empty() {
                // It was dropped.
                self.sent.start = next;
            }
            self.sent.end = next;
        }
        if self.request.is_empty() {
            self.forget();
            return None;
        }
        self.order = Some(order);
        let items = self.request.entries() as u64;
        self.bytes = self.request.len() as u64;
        Some(Request { body: self.request.finish(), items, bytes: self.bytes })
    }

    fn again(&mut self) {
        self.sent.end = self.sent.start;
        self.is_stale = true;
    }

    fn accepted(&mut self, _written: Written, _items: u64) -> Verdict {
        let newest = self.newest_sent();
        self.new_ends += u32::from(newest.last().is_some_and(|(key, _)| self.fit.is_new(*key)));
        for (key, newest) in newest {
            self.fit.newest.has(key, newest);
        }
        self.cut.refused = 0;
        self.cut.grow();
        Verdict::Done { lost: 0 }
    }

    /// Loki keeps the good entries of a push that it refuses, so that nothing is sent again but what can't be
    /// there: it was too large as a whole, it was refused by who does not speak as Loki does, or Loki takes no
    /// structured metadata and refuses all entries that have some.
    fn refused(&mut self, refusal: &Refusal<'_>) -> Verdict {
        let said = refusal.said;
        if refusal::is_of_all_metadata(said) && !self.fit.limits.no_metadata {
            log::warn!(
                "this Loki takes no structured metadata, and is sent none from now on: {}",
                refusal.why
            );
            self.fit.limits.no_metadata = true;
            self.again();
            return Verdict::Again;
        }
        if refusal::is_too_large(refusal.code, said) || !refusal::is_lokis(refusal.code, said) {
            if self.sent.len() > 1 && self.cut.halve(self.bytes) {
                self.again();
                return Verdict::Again;
            }
            self.cut.grow();
            return Verdict::Done { lost: refusal.items };
        }
        // The first request may have gone before anybody knew what time it is for Loki.
        if refusal::is_too_new(said) && !std::mem::replace(&mut self.corrected, true) {
            self.again();
            return Verdict::Again;
        }
        let sent = self.newest_sent();
        if let (Some(floor), [(key, _)]) = (refusal::floor_ns(said), sent.as_slice()) {
            self.fit.learn_floor(*key, floor);
        }
        let range = self.order.as_ref().and_then(|order| order.get(self.sent.clone()));
        let entry = |index: &u32| self.batch.block.entry(*index as usize);
        let times = range.unwrap_or_default().iter().filter_map(entry).map(|e| e.timestamp_ns);
        let lost = refusal::lost(said, times).unwrap_or(refusal.items);
        Verdict::Done { lost: lost.min(refusal.items) }
    }

    const PART: Part = Part::Entries;

    fn wants(&self) -> u64 {
        self.max_bytes.saturating_mul(COPIES)
    }

    fn room(&mut self, bytes: u64) {
        self.room = bytes;
    }

    fn holds(&self) -> u64 {
        self.batch_bytes.saturating_mul(COPIES)
    }

    fn rest(&mut self) {
        self.shape.rest();
        if std::mem::take(&mut self.is_large) {
            let json = self.request.is_json();
            self.batch = Batch::new();
            self.request = Push::new(json);
            self.payload = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests;
