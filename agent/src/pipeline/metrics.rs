//! Metrics between the WAL and remote write: consecutive rounds of one segment in one request, each
//! series' labels once and its samples in the order of time.

use super::log::Log;
use super::losses::Dropped;
use super::send::{Gathered, Request, Signal};
use super::{DAMAGED, TOO_LARGE};
use crate::encode::{RemoteWrite, Round, RoundDecoder};
use crate::endpoint::Content;
use crate::wal::{ReaderId, WalError};

use std::ops::Range;
use std::rc::Rc;

/// Values that a batch has room for at least: the series of its table, for each of its rounds.
const ROOM: u64 = 64 << 10;

/// The metrics signal of one endpoint.
pub(super) struct MetricsSignal {
    max_samples: u64,
    decoder: RoundDecoder,
    /// Whether the record before could not be decoded.
    gap: bool,
    /// The segment that the decoder's table belongs to.
    segment: Option<u64>,
    rounds: Vec<Round>,
    /// How many of `rounds` are in the batch; the others are kept for their memory.
    used: usize,
    /// The rounds of the next request.
    window: Range<usize>,
    /// Whether a request has one round only.
    one_by_one: bool,
    /// The first series of the next request.
    next_series: usize,
    request: RemoteWrite,
    payload: Vec<u8>,
    dropped: Rc<Dropped>,
}

impl MetricsSignal {
    /// A signal whose requests have at most `max_samples` samples.
    pub(super) fn new(max_samples: u64, dropped: Rc<Dropped>) -> MetricsSignal {
        MetricsSignal {
            max_samples,
            decoder: RoundDecoder::new(),
            gap: false,
            segment: None,
            rounds: Vec::new(),
            used: 0,
            window: 0..0,
            one_by_one: false,
            next_series: 0,
            request: RemoteWrite::new(),
            payload: Vec::new(),
            dropped,
        }
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
        while at < until {
            let Some(record) = log.read(reader, at, &mut self.payload)? else { break };
            if record.position >= until {
                break;
            }
            // What can't be decoded was counted before, or lies before the cursor.
            let _ = self.decoder.decode(&self.payload, record.time_ms, &mut round);
            at = record.next;
        }
        self.segment = Some(segment);
        Ok(())
    }
}

impl Signal for MetricsSignal {
    const CONTENT: Content = Content::RemoteWrite1;

    fn gather(
        &mut self,
        log: &Log,
        reader: ReaderId,
        gathered: &mut Gathered,
    ) -> Result<(), WalError> {
        while !gathered.full {
            let mut payload = std::mem::take(&mut self.payload);
            let read = log.read(reader, gathered.until, &mut payload);
            self.payload = payload;
            let Some(record) = read? else { return Ok(()) };
            if RoundDecoder::restarts(&self.payload) {
                if self.used > 0 {
                    // Its series have other numbers.
                    gathered.full = true;
                    return Ok(());
                }
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
            match self.decoder.decode(&self.payload, record.time_ms, round) {
                Ok(()) => {
                    self.gap = false;
                    if self.used == 0 {
                        gathered.oldest_ms = round.timestamp_ms;
                    }
                    self.used += 1;
                    gathered.items += items;
                }
                Err(error) => {
                    // Once, not for each round up to the next one that needs no other.
                    if !std::mem::replace(&mut self.gap, true) {
                        log::warn!("the metrics WAL's record at {}: {error}", record.position);
                    }
                    let time_ms = record.time_ms;
                    self.dropped.add_of("metrics", DAMAGED, items, time_ms, time_ms);
                }
            }
            gathered.until = record.next;
            // A round takes memory for each series of its table, whatever its header says of items.
            let room = (self.used * self.decoder.table().len()) as u64;
            gathered.full =
                gathered.items >= self.max_samples || room >= ROOM.max(4 * self.max_samples);
        }
        Ok(())
    }

    fn next_request(&mut self, _now_ms: Option<i64>) -> Option<Request<'_>> {
        loop {
            if self.next_series == 0 {
                let end = if self.one_by_one { self.window.end + 1 } else { self.used };
                self.window = self.window.end..end.min(self.used);
                if self.window.is_empty() {
                    self.window = 0..0;
                    self.one_by_one = false;
                    self.used = 0;
                    return None;
                }
            }
            self.fill();
            let table = self.decoder.table().len();
            if self.next_series >= table {
                self.next_series = 0;
            }
            if !self.request.is_empty() {
                let (items, bytes) = (self.request.samples() as u64, self.request.len() as u64);
                return Some(Request { body: self.request.finish(), items, bytes });
            }
        }
    }

    fn split(&mut self, _why: &str) -> bool {
        if self.window.len() < 2 {
            return false;
        }
        self.one_by_one = true;
        self.window = 0..0;
        self.next_series = 0;
        true
    }
}

impl MetricsSignal {
    /// Fills a request from `next_series` on, up to its bounds.
    fn fill(&mut self) {
        self.request.clear();
        let rounds = &self.rounds[self.window.clone()];
        let table = self.decoder.table();
        while self.next_series < table.len() && (self.request.samples() as u64) < self.max_samples {
            let index = self.next_series;
            let samples = rounds
                .iter()
                .filter_map(move |round| Some((round.timestamp_ms, round.value(index)?)));
            if samples.clone().next().is_some()
                && let Some(series) = table.get(index)
                && let Err(full) = self.request.series(series.labels(), samples.clone())
            {
                if !self.request.is_empty() {
                    return;
                }
                // One series that no request can hold: megabytes of labels.
                log::error!("a series was dropped: {full}");
                self.dropped.add("metrics", TOO_LARGE, samples.count() as u64);
            }
            self.next_series += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::encode::{ROUND, RoundEncoder};
    use crate::host::SystemClock;
    use crate::model::{Desc, Labels, Samples};
    use crate::wal::{Encoded, OnFull, Options, Payload};

    struct OfRound<'a>(&'a mut RoundEncoder, i64);

    impl Payload for OfRound<'_> {
        fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
            const A: Desc = Desc::gauge("a", "");
            let mut samples = Samples::with_limit(9);
            samples.family(&A).add(&[("x", "1")], self.1 as f64).add(&[("x", "2")], 0.5);
            Encoded { items: self.0.encode(&[&samples], fresh, out), time_ms: self.1 }
        }
    }

    /// The signal's requests and samples up to the end of the log.
    fn send_all(log: &Log, max_samples: u64) -> (u64, Rc<Dropped>) {
        let dropped = Rc::new(Dropped::new(Rc::new(SystemClock)));
        let mut signal = MetricsSignal::new(max_samples, Rc::clone(&dropped));
        let reader = log.reader("a").unwrap();
        let (mut sent, mut gathered) = (0, Gathered::default());
        loop {
            let from = gathered.until;
            signal.gather(log, reader, &mut gathered).unwrap();
            while let Some(request) = signal.next_request(None) {
                sent += request.items;
            }
            if gathered.until == from {
                return (sent, dropped);
            }
            gathered = Gathered { until: gathered.until, ..Gathered::default() };
        }
    }

    #[test]
    fn damage_to_a_segments_first_record_costs_its_segment_and_no_round_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Some(std::time::Duration::from_secs(3_600));
        let options =
            Options { segment_bytes: 600, ..Options::new(1 << 20, OnFull::DropOldest, 1) };
        let mut encoder = RoundEncoder::new(Labels::new());
        let log = Log::for_test(dir.path(), options, hour);
        let rounds: u64 = 60;
        for round in 0..rounds {
            log.append(ROUND, &mut OfRound(&mut encoder, round as i64)).unwrap();
        }
        let mut bases: Vec<u64> = log.with(|wal| wal.segments().collect()).unwrap();
        bases.reverse();
        assert!(bases.len() > 3);
        assert_eq!(send_all(&log, 1_000).0, 2 * rounds);
        let in_second = log.with(|wal| {
            let (mut at, mut payload, mut count) = (bases[1], Vec::new(), 0);
            while let Some(record) = wal.scan(at, &mut payload).unwrap()
                && record.segment == bases[1]
            {
                (at, count) = (record.next, count + 1);
            }
            count
        });
        let in_second: u64 = in_second.unwrap();
        drop(log);
        let path = dir.path().join(format!("{:016x}.wal", bases[1]));
        let mut bytes = fs::read(&path).unwrap();
        bytes[70] ^= 1;
        fs::write(&path, bytes).unwrap();
        for max_samples in [1_000, 7, 2] {
            let log = Log::for_test(dir.path(), options, hour);
            let (sent, dropped) = send_all(&log, max_samples);
            assert_eq!(sent, 2 * (rounds - in_second), "{max_samples} in a request");
            dropped.take_from(&log);
            assert_eq!(dropped.total(), 2 * in_second, "each is counted");
        }
    }
}
