//! Metrics between the WAL and remote write: consecutive rounds of one segment in one request, each
//! series' labels once and its samples in the order of time.

use super::log::Log;
use super::losses::Dropped;
use super::send::{Bounds, Gathered, Refusal, Request, Signal, Verdict};
use super::shape::SeriesShape;
use super::{DAMAGED, TOO_LARGE};
use crate::encode::{RemoteWrite, Round, RoundDecoder};
use crate::endpoint::{Content, Written};
use crate::wal::{ReaderId, WalError};

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// Values that a batch has room for at least: the series of its table, for each of its rounds.
const ROOM: u64 = 64 << 10;

/// How often the refused parts of one round are cut in two, to find what of it the server refuses. A series
/// among 700 takes ten cuts.
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
    request: RemoteWrite,
    payload: Vec<u8>,
    dropped: Rc<Dropped>,
}

impl MetricsSignal {
    /// A signal whose requests have at most `max_samples` samples.
    pub(super) fn new(max_samples: u64, shape: SeriesShape, dropped: Rc<Dropped>) -> MetricsSignal {
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
        self.shape.forget();
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
    fn content(&self) -> Content {
        Content::RemoteWrite1
    }

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
            match self.decoder.decode(&self.payload, record.time_ms, round) {
                Ok(()) => {
                    self.gap = false;
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

    fn next_request(&mut self, bounds: Bounds) -> Option<Request<'_>> {
        let all = Part { rounds: 0..self.used, series: 0..self.decoder.table().len() };
        self.parts.get_or_insert_with(|| {
            self.search = Search::default();
            VecDeque::from([all])
        });
        while let Some(part) = self.parts.as_mut().and_then(VecDeque::pop_front) {
            self.request.clear();
            if !part.rounds.is_empty() && !part.series.is_empty() {
                self.fill(part, bounds.bytes);
            }
            if !self.request.is_empty() {
                let (items, bytes) = (self.request.samples() as u64, self.request.len() as u64);
                return Some(Request { body: self.request.finish(), items, bytes });
            }
        }
        self.parts = None;
        self.used = 0;
        None
    }

    fn accepted(&mut self, _written: Written, _items: u64) -> Verdict {
        if self.last.rounds == (self.search.round..self.search.round + 1) {
            self.search.has_good = true;
        }
        self.hopeless = 0;
        Verdict::Done { lost: 0 }
    }

    /// Round by round, and then a round in halves. The halves come after what else is left of their round, so
    /// that what is good of it arrives soon.
    fn refused(&mut self, refusal: &Refusal<'_>) -> Verdict {
        if refusal.written != Written::default() {
            // A partial write of 2.0: what is not written never will be.
            let Written { samples, histograms, .. } = refusal.written;
            let written = samples.unwrap_or(0).saturating_add(histograms.unwrap_or(0));
            return Verdict::Done { lost: refusal.items.saturating_sub(written) };
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
        if refusal.items > 1 && self.search.cuts < cuts {
            self.search.cuts += 1;
            let middle = series.start + series.len() / 2;
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

    fn again(&mut self) {
        self.parts.get_or_insert_default().push_front(self.last.clone());
    }
}

impl MetricsSignal {
    /// Fills a request with a part, up to its bounds; what does not fit comes first the next time.
    fn fill(&mut self, part: Part, bytes: u64) {
        let Part { rounds, series } = part;
        let values = self.rounds.get(rounds.clone()).unwrap_or_default();
        let table = self.decoder.table();
        let mut next = series.start;
        while next < series.end {
            let full = self.request.samples() as u64 >= self.max_samples
                || self.request.len() as u64 >= bytes;
            if full && !self.request.is_empty() {
                break;
            }
            let samples = values
                .iter()
                .filter_map(move |round| Some((round.timestamp_ms, round.value(next)?)));
            if samples.clone().next().is_some()
                && let Some(series) = table.get(next)
                && let Err(full) =
                    self.request.series(self.shape.labels(series, next), samples.clone())
            {
                if !self.request.is_empty() {
                    break;
                }
                // One series that no request can hold: megabytes of labels.
                log::error!("a series was dropped: {full}");
                self.dropped.add("metrics", TOO_LARGE, samples.count() as u64);
            }
            next += 1;
        }
        let parts = self.parts.get_or_insert_default();
        if next < series.end {
            parts.push_front(Part { rounds: rounds.clone(), series: next..series.end });
        }
        if next == series.start + 1 && rounds.len() > 1 && self.request.len() as u64 > bytes {
            // Not even one series fits with all its rounds.
            self.request.clear();
            let middle = rounds.start + rounds.len() / 2;
            for half in [middle..rounds.end, rounds.start..middle] {
                parts.push_front(Part { rounds: half, series: series.start..next });
            }
            return;
        }
        self.last = Part { rounds, series: series.start..next };
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

    /// A round of some series at some time.
    struct OfRound<'a>(&'a mut RoundEncoder, i64, usize);

    impl Payload for OfRound<'_> {
        fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
            const A: Desc = Desc::gauge("a", "");
            let mut samples = Samples::with_limit(999);
            let mut family = samples.family(&A);
            for series in 1..=self.2 {
                family.add(&[("x", &series.to_string())], self.1 as f64 / series as f64);
            }
            Encoded { items: self.0.encode(&[&samples], fresh, out), time_ms: self.1 }
        }
    }

    /// The signal's requests and samples up to the end of the log.
    fn send_all(log: &Log, max_samples: u64) -> (u64, Rc<Dropped>) {
        let dropped = Rc::new(Dropped::new(Rc::new(SystemClock)));
        let mut signal =
            MetricsSignal::new(max_samples, SeriesShape::default(), Rc::clone(&dropped));
        let reader = log.reader("a").unwrap();
        let (mut sent, mut gathered) = (0, Gathered::default());
        loop {
            let from = gathered.until;
            signal.gather(log, reader, &mut gathered).unwrap();
            while let Some(request) = signal.next_request(Bounds::NONE) {
                sent += request.items;
            }
            if gathered.until == from {
                return (sent, dropped);
            }
            gathered = Gathered { until: gathered.until, ..Gathered::default() };
        }
    }

    /// A signal whose batch has so many rounds at 0, 1, … ms of series with x = 1, 2, ….
    fn signal_of(rounds: i64, series: usize) -> MetricsSignal {
        let dir = tempfile::tempdir().unwrap();
        let hour = Some(std::time::Duration::from_secs(3_600));
        let options = Options::new(1 << 20, OnFull::DropOldest, 1);
        let log = Log::for_test(dir.path(), options, hour);
        let mut encoder = RoundEncoder::new(Labels::new());
        for round in 0..rounds {
            log.append(ROUND, &mut OfRound(&mut encoder, round, series)).unwrap();
        }
        let dropped = Rc::new(Dropped::new(Rc::new(SystemClock)));
        let mut signal = MetricsSignal::new(10_000, SeriesShape::default(), dropped);
        let reader = log.reader("a").unwrap();
        signal.gather(&log, reader, &mut Gathered::default()).unwrap();
        signal
    }

    /// The series and times of a request: (x, ms).
    fn read(body: &[u8]) -> Vec<(String, i64)> {
        let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        let request: crate::encode::proto::WriteRequest = prost::Message::decode(&raw[..]).unwrap();
        let of = |series: crate::encode::proto::TimeSeries| {
            let x = series.labels.iter().find(|label| label.name == "x").unwrap().value.clone();
            series.samples.into_iter().map(move |sample| (x.clone(), sample.timestamp))
        };
        request.timeseries.into_iter().flat_map(of).collect()
    }

    /// Sends to a server that refuses whole requests in which there is a bad sample: what it has, how many
    /// requests it took, and how many samples were given up.
    fn send_to(
        signal: &mut MetricsSignal,
        bytes: u64,
        is_bad: impl Fn(&(String, i64)) -> bool,
    ) -> (Vec<(String, i64)>, usize, u64) {
        let (mut has, mut requests, mut lost) = (Vec::new(), 0, 0);
        while let Some(Request { body, items, .. }) =
            signal.next_request(Bounds { bytes, ..Bounds::NONE })
        {
            requests += 1;
            let samples = read(body);
            assert_eq!(samples.len() as u64, items);
            let verdict = if samples.iter().any(&is_bad) {
                let (why, written) = ("400", Written::default());
                signal.refused(&Refusal { code: 400, why, said: why, written, items })
            } else {
                has.extend(samples);
                signal.accepted(Written::default(), items)
            };
            if let Verdict::Done { lost: more } = verdict {
                lost += more;
            }
        }
        (has, requests, lost)
    }

    fn in_order(has: &[(String, i64)]) -> bool {
        ["1", "2"].iter().all(|x| {
            let times: Vec<i64> = has.iter().filter(|(y, _)| y == x).map(|(_, ms)| *ms).collect();
            times.is_sorted_by(|a, b| a < b)
        })
    }

    #[test]
    fn of_a_refused_batch_only_what_is_refused_alone_is_dropped() {
        for rounds in [1, 2, 9] {
            for bytes in [u64::MAX, 100, 1] {
                let is_bad = |(x, ms): &(String, i64)| x == "2" && (*ms == 0 || *ms == 7);
                let bad = if rounds > 7 { 2 } else { 1 };
                let (has, _, lost) = send_to(&mut signal_of(rounds, 2), bytes, is_bad);
                assert_eq!((has.len() as i64, lost), (2 * rounds - bad, bad as u64));
                assert!(in_order(&has), "{has:?}");
            }
        }
    }

    #[test]
    fn a_server_that_refuses_everything_is_not_asked_about_every_series_for_ever() {
        let (has, requests, lost) = send_to(&mut signal_of(50, 100), u64::MAX, |_| true);
        assert_eq!((has.len(), lost), (0, 5_000));
        // All; each round; and its parts.
        let parts = HOPELESS * CUTS + (50 - HOPELESS) * HOPELESS_CUTS;
        assert_eq!(requests, 1 + 50 + 2 * parts as usize);
        // Where it takes something again, it is asked again about what it does not.
        let is_bad = |(x, ms): &(String, i64)| *ms < 25 || x == "2";
        let (has, requests, lost) = send_to(&mut signal_of(50, 100), u64::MAX, is_bad);
        assert_eq!((has.len(), lost), (25 * 99, 25 * 100 + 25));
        assert!(requests < 800, "{requests}");
    }

    #[test]
    fn what_the_link_does_not_take_at_once_is_sent_in_smaller_requests_in_order() {
        for bytes in [1, 60, 200] {
            let mut signal = signal_of(20, 2);
            let whole = signal.next_request(Bounds::NONE).unwrap().items;
            assert_eq!(whole, 40);
            signal.again();
            let (has, requests, lost) = send_to(&mut signal, bytes, |_| false);
            assert_eq!((has.len(), lost), (40, 0));
            assert!(in_order(&has) && requests > 1, "{requests} of {bytes} bytes");
        }
    }

    #[test]
    fn what_a_server_says_it_has_written_is_not_lost_and_not_sent_again() {
        let mut signal = signal_of(3, 2);
        let items = signal.next_request(Bounds::NONE).unwrap().items;
        let written = Written { samples: Some(4), histograms: Some(0), exemplars: Some(0) };
        let refusal = Refusal { code: 400, why: "400", said: "", written, items };
        assert_eq!(signal.refused(&refusal), Verdict::Done { lost: 2 });
        assert!(signal.next_request(Bounds::NONE).is_none());
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
            log.append(ROUND, &mut OfRound(&mut encoder, round as i64, 2)).unwrap();
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
