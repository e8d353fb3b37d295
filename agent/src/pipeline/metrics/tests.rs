//! Batches against servers that refuse parts of them, and WALs with damage.

use std::fs;

use super::*;
use crate::config::{Protocol, WriteOptions};
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
        MetricsSignal::for_test(max_samples, WriteOptions::default(), Rc::clone(&dropped));
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
    signal_by(WriteOptions::default(), rounds, series)
}

fn signal_by(write: WriteOptions, rounds: i64, series: usize) -> MetricsSignal {
    let dir = tempfile::tempdir().unwrap();
    let hour = Some(std::time::Duration::from_secs(3_600));
    let options = Options::new(1 << 20, OnFull::DropOldest, 1);
    let log = Log::for_test(dir.path(), options, hour);
    let mut encoder = RoundEncoder::new(Labels::new());
    for round in 0..rounds {
        log.append(ROUND, &mut OfRound(&mut encoder, round, series)).unwrap();
    }
    let dropped = Rc::new(Dropped::new(Rc::new(SystemClock)));
    let mut signal = MetricsSignal::for_test(10_000, write, dropped);
    let reader = log.reader("a").unwrap();
    signal.gather(&log, reader, &mut Gathered::default()).unwrap();
    signal
}

#[test]
fn while_memory_is_short_a_batch_has_a_round_or_what_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Some(std::time::Duration::from_secs(3_600));
    let log = Log::for_test(dir.path(), Options::new(1 << 20, OnFull::DropOldest, 1), hour);
    let mut encoder = RoundEncoder::new(Labels::new());
    for round in 0..6 {
        log.append(ROUND, &mut OfRound(&mut encoder, round, 3)).unwrap();
    }
    let dropped = Rc::new(Dropped::new(Rc::new(SystemClock)));
    let mut signal = MetricsSignal::for_test(100, WriteOptions::default(), dropped);
    let reader = log.reader("a").unwrap();
    let mut gathered = Gathered::default();
    for (room, items) in [(0, 3), (SAMPLE, 3), (4 * SAMPLE, 6), (u64::MAX, 6)] {
        signal.room(room);
        gathered = Gathered { until: gathered.until, ..Gathered::default() };
        signal.gather(&log, reader, &mut gathered).unwrap();
        assert_eq!((gathered.items, gathered.full), (items, room < u64::MAX));
        while signal.next_request(Bounds::NONE).is_some() {}
        signal.rest();
    }
}

#[test]
fn a_round_is_cut_in_the_middle_of_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Some(std::time::Duration::from_secs(3_600));
    let log = Log::for_test(dir.path(), Options::new(1 << 20, OnFull::DropOldest, 1), hour);
    let mut encoder = RoundEncoder::new(Labels::new());
    log.append(ROUND, &mut OfRound(&mut encoder, 0, 8)).unwrap();
    let dropped = Rc::new(Dropped::new(Rc::new(SystemClock)));
    let mut signal = MetricsSignal::for_test(100, WriteOptions::default(), dropped);
    signal.gather(&log, log.reader("a").unwrap(), &mut Gathered::default()).unwrap();
    let round = &mut signal.rounds[0];
    assert_eq!(middle(round, &(0..8)), 4);
    for gone in [0, 1, 2, 3] {
        round.remove(gone);
    }
    assert_eq!([middle(round, &(0..8)), middle(round, &(4..6)), middle(round, &(4..7))], [6, 5, 5]);
    // One or none: there is no middle of it.
    assert_eq!([middle(round, &(0..5)), middle(round, &(0..2))], [2, 1]);
}

/// The series and times of a request: (x, ms).
fn read(body: &[u8]) -> Vec<(String, i64)> {
    let request = crate::encode::remote_write::read_write(body);
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
fn many_refused_series_in_a_round_cost_no_good_ones() {
    // Spread over the round, side by side, and in pairs.
    let sorts: [fn(usize) -> bool; 3] =
        [|x| x % 35 == 3, |x| (300..320).contains(&x), |x| x % 70 < 2];
    for is_bad in sorts {
        let mut signal = signal_of(2, 700);
        let refuses = |(x, _): &(String, i64)| is_bad(x.parse().unwrap());
        let (has, requests, lost) = send_to(&mut signal, u64::MAX, refuses);
        assert_eq!((has.len(), lost), (2 * 680, 2 * 20));
        assert!(requests < 1_000, "{requests}");
    }
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
    let two = WriteOptions { protocol: Protocol::V2, ..WriteOptions::default() };
    let mut signal = signal_by(two, 3, 2);
    let items = signal.next_request(Bounds::NONE).unwrap().items;
    let written = Written { samples: Some(4), histograms: Some(0), exemplars: Some(0) };
    let refusal = Refusal { code: 400, why: "400", said: "", written, items };
    assert_eq!(signal.refused(&refusal), Verdict::Done { lost: 2 });
    assert!(signal.next_request(Bounds::NONE).is_none());
}

#[test]
fn what_a_server_of_1_0_did_not_understand_comes_again_by_1_0() {
    let two = WriteOptions { protocol: Protocol::V2, ..WriteOptions::default() };
    for answer in [202, 400, 415] {
        let mut signal = signal_by(two, 3, 2);
        assert_eq!(signal.content(), Content::RemoteWrite2);
        let items = signal.next_request(Bounds::NONE).unwrap().items;
        let (why, written) = ("", Written::default());
        let again = match answer {
            202 => signal.accepted(written, items) == Verdict::Again,
            400 => {
                let refusal = Refusal { code: 400, why, said: why, written, items };
                signal.refused(&refusal) == Verdict::Again
            }
            _ => signal.unsupported(why),
        };
        assert!(again && signal.content() == Content::RemoteWrite1, "{answer}");
        let is_bad = |(x, ms): &(String, i64)| x == "2" && *ms == 1;
        let (has, _, lost) = send_to(&mut signal, u64::MAX, is_bad);
        assert_eq!((has.len(), lost), (5, 1), "{answer}");
    }
}

#[test]
fn damage_to_a_segments_first_record_costs_its_segment_and_no_round_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Some(std::time::Duration::from_secs(3_600));
    let options = Options { segment_bytes: 600, ..Options::new(1 << 20, OnFull::DropOldest, 1) };
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
