//! Metrics between the WAL and remote write: consecutive rounds of one segment in one request, each
//! series' labels once and its samples in the order of time.

use super::held::{Times, strip};
use super::log::Log;
use super::losses::Dropped;
use super::send::{Bounds, Gathered, Refusal, Request, Signal, Verdict};
use super::shape::SeriesShape;
use super::write::{View, Writer};
use super::{DAMAGED, TOO_LARGE};
use crate::encode::{Round, RoundDecoder};
use crate::endpoint::{Content, Written};
use crate::memory;
use crate::wal::{ReaderId, WalError};

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// Values that a batch has room for at least: the series of its table, for each of its rounds.
const ROOM: u64 = 64 << 10;

/// Bytes of memory for a sample of a batch at most: its value while it is gathered, and its part of the request with
/// all labels, as long as it may grow to, before and after compression.
const SAMPLE: u64 = 450;

/// How often the refused parts of one round are cut in two, to find what of it the server refuses, since the server
/// has last taken one of its parts. A series among 700 takes ten cuts.
const CUTS: u32 = 40;

/// After so many rounds in a row of which the server has taken nothing, a round is cut in four only, until it
/// takes something again: it is not single series that it refuses.
const HOPELESS: u32 = 2;
const HOPELESS_CUTS: u32 = 3;

/// What of a batch is still to be sent. Parts that share series stand in the order of their rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    rounds: Range<usize>,
    /// Numbers of series in the table.
    series: Range<usize>,
}

/// What the server has said to parts of one round.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    round: usize,
    /// Since a part was last taken.
    cuts: u32,
    has_good: bool,
}

/// The metrics signal of one endpoint.
pub(super) struct MetricsSignal {
    max_samples: u64,
    decoder: RoundDecoder,
    shape: SeriesShape,
    /// Whether the record before could not be decoded.
    gap: bool,
    /// The segment that the decoder's table belongs to.
    segment: Option<u64>,
    rounds: Vec<Round>,
    /// How many of `rounds` are in the batch; the others are kept for their memory.
    used: usize,
    /// Of the batch, once its first request was asked for.
    parts: Option<VecDeque<Part>>,
    /// What the last request was made of.
    last: Part,
    search: Search,
    /// Rounds in a row of which nothing was taken.
    hopeless: u32,
    writer: Writer,
    payload: Vec<u8>,
    /// What there is room for in memory.
    room: u64,
    dropped: Rc<Dropped>,
    pub(super) times: Times,
}

impl MetricsSignal {
    /// A signal whose requests have at most `max_samples` samples.
    pub(super) fn new(
        max_samples: u64,
        writer: Writer,
        shape: SeriesShape,
        dropped: Rc<Dropped>,
    ) -> MetricsSignal {
        MetricsSignal {
            max_samples,
            decoder: RoundDecoder::new(),
            shape,
            gap: false,
            segment: None,
            rounds: Vec::new(),
            used: 0,
            parts: None,
            last: Part { rounds: 0..0, series: 0..0 },
            search: Search::default(),
            hopeless: 0,
            writer,
            payload: Vec::new(),
            room: u64::MAX,
            dropped,
            times: Times::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(
        max_samples: u64,
        write: crate::config::WriteOptions,
        dropped: Rc<Dropped>,
    ) -> MetricsSignal {
        let rounds = [(); 2].map(|()| Rc::new(crate::model::Samples::with_limit(9).into()));
        let newest = super::write::Newest { rounds, texts: Rc::default() };
        let writer = Writer::new(write, "http://h/".into(), newest);
        MetricsSignal::new(max_samples, writer, SeriesShape::default(), dropped)
    }

    /// Brings the decoder's table to where `until` is in its segment, after a restart.
    fn replay(
        &mut self,
        log: &Log,
        reader: ReaderId,
        segment: u64,
        until: u64,
    ) -> Result<(), WalError> {
        let mut at = segment;
        let mut round = Round::default();
        self.decoder = RoundDecoder::new();
        self.writer.table_begins();
        self.shape.forget();
        while at < until {
            let Some(record) = log.read(reader, at, &mut self.payload)? else { break };
            if record.position >= until {
                break;
            }
            strip(&record, &mut self.payload);
            // What can't be decoded was counted before, or lies before the cursor.
            let _ = self.decoder.decode(&self.payload, record.time_ms, &mut round);
            at = record.next;
        }
        self.segment = Some(segment);
        Ok(())
    }
}

impl Signal for MetricsSignal {
    fn content(&self) -> Content {
        self.writer.content()
    }

    fn gather(
        &mut self,
        log: &Log,
        reader: ReaderId,
        gathered: &mut Gathered,
    ) -> Result<(), WalError> {
        if self.used == 0 {
            self.writer.batch_begins();
        }
        while !gathered.full {
            let mut payload = std::mem::take(&mut self.payload);
            let read = log.read(reader, gathered.until, &mut payload);
            self.payload = payload;
            let Some(record) = read? else { return Ok(()) };
            let Some(told) = self.times.of(&record, &mut self.payload) else { return Ok(()) };
            let last = self.used.checked_sub(1).and_then(|last| self.rounds.get(last));
            if last.is_some_and(|last| told.ms <= last.timestamp_ms) {
                // The clock was set back: whether the server takes this round is known once it has the others.
                gathered.full = true;
                return Ok(());
            }
            if RoundDecoder::restarts(&self.payload) {
                if self.used > 0 {
                    // Its series have other numbers.
                    gathered.full = true;
                    return Ok(());
                }
                self.writer.table_begins();
                self.shape.forget();
            } else if self.segment != Some(record.segment) {
                if self.used > 0 {
                    // The first record of the next segment is damaged: these rounds go before another
                    // table is begun.
                    gathered.full = true;
                    return Ok(());
                }
                self.replay(log, reader, record.segment, record.position)?;
                continue;
            }
            self.segment = Some(record.segment);
            let items = u64::from(record.items);
            if self.used > 0 && gathered.items + items > self.max_samples {
                gathered.full = true;
                return Ok(());
            }
            if self.rounds.len() == self.used {
                self.rounds.push(Round::default());
            }
            let round = &mut self.rounds[self.used];
            match self.decoder.decode(&self.payload, told.ms, round) {
                Ok(()) if self.times.is_behind(told.ms) => {
                    self.gap = false;
                    self.dropped.add_of("metrics", "clock_backwards", items, told.ms, told.ms);
                }
                Ok(()) => {
                    self.gap = false;
                    self.writer.round(self.used, self.decoder.table(), round);
                    self.times.sends(&told, items);
                    if self.used == 0 {
                        self.shape.begin();
                        gathered.oldest_ms = round.timestamp_ms;
                    }
                    let gone = self.shape.round(self.decoder.table(), round, &self.dropped);
                    // A round of which nothing is left has no request to clear it away.
                    if gone < items {
                        self.used += 1;
                        gathered.items += items - gone;
                    }
                }
                Err(error) => {
                    // Once, not for each round up to the next one that needs no other.
                    if !std::mem::replace(&mut self.gap, true) {
                        log::warn!("the metrics WAL's record at {}: {error}", record.position);
                    }
                    self.dropped.add_of("metrics", DAMAGED, items, told.ms, told.ms);
                }
            }
            gathered.until = record.next;
            // A round takes memory for each series of its table, whatever its header says of items.
            let room = (self.used * self.decoder.table().len()) as u64;
            gathered.full = gathered.items >= self.max_samples
                || room >= ROOM.max(4 * self.max_samples)
                || gathered.items >= self.room / SAMPLE;
        }
        Ok(())
    }

    fn next_request(&mut self, bounds: Bounds) -> Option<Request<'_>> {
        self.times.asks(bounds.now_ms);
        let all = Part { rounds: 0..self.used, series: 0..self.decoder.table().len() };
        if self.parts.is_none() {
            self.search = Search::default();
            self.parts = Some(VecDeque::from([all]));
        }
        while let Some(part) = self.parts.as_mut().and_then(VecDeque::pop_front) {
            self.writer.clear();
            if !part.rounds.is_empty() && !part.series.is_empty() {
                self.fill(part, bounds.bytes);
            }
            if !self.writer.is_empty() {
                let (items, bytes) = (self.writer.items(), self.writer.len() as u64);
                return Some(Request { body: self.writer.finish(), items, bytes });
            }
        }
        self.writer.batch_ends();
        self.parts = None;
        self.used = 0;
        None
    }

    fn accepted(&mut self, written: Written, _items: u64) -> Verdict {
        let Some(lost) = self.writer.accepted(written) else {
            self.again();
            return Verdict::Again;
        };
        if self.last.rounds == (self.search.round..self.search.round + 1) {
            (self.search.has_good, self.search.cuts) = (true, 0);
        }
        self.hopeless = 0;
        let newest = self.last.rounds.end.checked_sub(1).and_then(|last| self.rounds.get(last));
        if let Some(newest) = newest {
            self.times.accepted(newest.timestamp_ms);
        }
        Verdict::Done { lost }
    }

    /// Round by round, and then a round in halves. The halves come after what else is left of their round, so
    /// that what is good of it arrives soon.
    fn refused(&mut self, refusal: &Refusal<'_>) -> Verdict {
        if let Some(lost) = self.writer.written(refusal.written) {
            // A partial write of 2.0: what is not written never will be.
            return Verdict::Done { lost };
        }
        if self.writer.refused(refusal.why) {
            self.again();
            return Verdict::Again;
        }
        let Part { rounds, series } = self.last.clone();
        let parts = self.parts.get_or_insert_default();
        if rounds.len() > 1 {
            let part = |round| Part { rounds: round..round + 1, series: series.clone() };
            rounds.map(part).rev().for_each(|part| parts.push_front(part));
            return Verdict::Again;
        }
        if self.search.round != rounds.start {
            self.search = Search { round: rounds.start, ..Search::default() };
        }
        let behind = parts.iter().position(|part| part.rounds != rounds).unwrap_or(parts.len());
        let cuts = if self.hopeless < HOPELESS { CUTS } else { HOPELESS_CUTS };
        if self.writer.on_wire() > 1 && series.len() > 1 && self.search.cuts < cuts {
            self.search.cuts += 1;
            let middle =
                self.rounds.get(rounds.start).map_or(series.start, |round| middle(round, &series));
            for half in [middle..series.end, series.start..middle] {
                parts.insert(behind, Part { rounds: rounds.clone(), series: half });
            }
            return Verdict::Again;
        }
        if behind == 0 && !self.search.has_good {
            self.hopeless = self.hopeless.saturating_add(1);
        }
        Verdict::Done { lost: refusal.items }
    }

    const PART: memory::Part = memory::Part::Metrics;

    fn wants(&self) -> u64 {
        self.max_samples.saturating_mul(SAMPLE)
    }

    fn room(&mut self, bytes: u64) {
        self.room = bytes;
    }

    fn holds(&self) -> u64 {
        (self.used * self.decoder.table().len()) as u64 * SAMPLE
    }

    fn rest(&mut self) {
        // One round is what the next one takes, too.
        self.rounds.truncate(self.used.max(1));
        self.rounds.shrink_to(1);
        self.writer.rest();
    }

    fn unsupported(&mut self, why: &str) -> bool {
        let other = self.writer.unsupported(why);
        if other {
            self.again();
        }
        other
    }

    fn protocol(&self) -> &'static str {
        self.writer.protocol()
    }

    fn again(&mut self) {
        self.parts.get_or_insert_default().push_front(self.last.clone());
    }
}

impl MetricsSignal {
    /// Fills a request with a part, up to its bounds; what does not fit comes first the next time.
    fn fill(&mut self, part: Part, bytes: u64) {
        let Part { rounds, series } = part;
        let view = View { table: self.decoder.table(), shape: &self.shape };
        let mut next = self.writer.begin_of(view, series.start);
        let mut units = 0;
        while next < series.end {
            let full = self.writer.on_wire() >= self.max_samples
                || self.writer.len() as u64 >= bytes
                || self.writer.is_nearly_full();
            if full && !self.writer.is_empty() {
                break;
            }
            let before = self.writer.items();
            match self.writer.add(view, next, &self.rounds, rounds.clone()) {
                Ok(passed) => next += passed,
                Err(_) if before > 0 => break,
                Err(full) => {
                    // One series that no request can hold: megabytes of labels.
                    log::error!("a series was dropped: {full}");
                    let values = self.rounds.get(rounds.clone()).unwrap_or_default();
                    let count = values.iter().filter(|round| round.value(next).is_some()).count();
                    self.dropped.add("metrics", TOO_LARGE, count as u64);
                    next += 1;
                }
            }
            units += usize::from(self.writer.items() > before);
        }
        let next = next.min(series.end);
        let parts = self.parts.get_or_insert_default();
        if next < series.end {
            parts.push_front(Part { rounds: rounds.clone(), series: next..series.end });
        }
        if units == 1 && rounds.len() > 1 && self.writer.len() as u64 > bytes {
            // Not even one series fits with all its rounds.
            self.writer.clear();
            let middle = rounds.start + rounds.len() / 2;
            for half in [middle..rounds.end, rounds.start..middle] {
                parts.push_front(Part { rounds: half, series: series.start..next });
            }
            return;
        }
        self.last = Part { rounds, series: series.start..next };
    }
}

/// Where to cut a round's series in two so that each half has half of those with a value: a record of a target has
/// them side by side in a table that has the host's as well, and a half of the table could be the same request.
fn middle(round: &Round, series: &Range<usize>) -> usize {
    let has = |series: &usize| round.value(*series).is_some();
    let count = series.clone().filter(has).count();
    let behind = series.clone().filter(has).nth((count / 2).saturating_sub(1));
    let middle = behind.filter(|_| count > 1).map(|last| last + 1);
    middle.unwrap_or(series.start + series.len() / 2)
}

#[cfg(test)]
mod tests;
