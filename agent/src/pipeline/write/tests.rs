//! What requests are made of rounds, by either version, and what of them a server is believed.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::*;
use crate::encode::proto::{Message, WriteRequest};
use crate::encode::proto2::{Count, Request};
use crate::encode::{RoundDecoder, RoundEncoder};
use crate::model::{Desc, LATENCY_BOUNDS, Labels, STALE, Samples};
use crate::pipeline::shape::SeriesShape;

const BOOT: Desc = Desc::gauge("node_boot_time_seconds", "Boot.");
const PROCESS: Desc = Desc::gauge("process_start_time_seconds", "Start.");
const FORKS: Desc = Desc::counter("node_forks_total", "Forks.");
const LATENCY: Desc = Desc::histogram("mote_x_seconds", "X.");
const FOREIGN: Desc = Desc::histogram("x_seconds", "X.");

const NATIVE: WriteOptions =
    WriteOptions { protocol: Protocol::V2, histograms: Histograms::Native, metadata_every: None };
const ON_WIRE_FIRST: usize = 3;

fn newest() -> Newest {
    let rounds = [(); 2].map(|()| Rc::new(RefCell::new(Samples::with_limit(999))));
    Newest { rounds, texts: Rc::default() }
}

/// A histogram of one observation up to each of the first bounds, as many as `buckets` says.
fn histogram(samples: &mut Samples, desc: &Desc, device: &str, buckets: usize) {
    let below = |at: usize| at.min(buckets) as u64;
    let bounds = LATENCY_BOUNDS.into_iter().zip((1..).map(below));
    samples.family(desc).histogram(&[("device", device)], bounds, 2.5, buckets as u64 + 1);
}

/// Rounds as a reader of the WAL has them, and a writer that knows them.
struct Batch {
    decoder: RoundDecoder,
    rounds: Vec<Round>,
    shape: SeriesShape,
    writer: Writer,
}

impl Batch {
    /// One round for each, a second apart from 2000 s on.
    fn new(options: WriteOptions, fill: &[&dyn Fn(&mut Samples)]) -> Batch {
        let labels = Labels::from_pairs([("instance", "h")]).unwrap();
        let mut encoder = RoundEncoder::new(labels);
        let writer = Writer::new(options, "http://h/".into(), newest());
        let (decoder, shape) = (RoundDecoder::new(), SeriesShape::default());
        let mut batch = Batch { decoder, rounds: Vec::new(), shape, writer };
        for (index, fill) in fill.iter().enumerate() {
            let mut samples = Samples::with_limit(999);
            samples.begin(1);
            fill(&mut samples);
            let (mut payload, mut round) = (Vec::new(), Round::default());
            encoder.encode(&[&samples], false, &mut payload);
            let time_ms = 2_000_000 + 1000 * index as i64;
            batch.decoder.decode(&payload, time_ms, &mut round).unwrap();
            batch.writer.round(index, batch.decoder.table(), &round);
            batch.rounds.push(round);
        }
        batch
    }

    /// The request of these series.
    fn request(&mut self, series: Range<usize>) -> Vec<u8> {
        self.writer.clear();
        let view = View { table: self.decoder.table(), shape: &self.shape };
        let mut next = self.writer.begin_of(view, series.start);
        while next < series.end {
            next += self.writer.add(view, next, &self.rounds, 0..self.rounds.len()).unwrap();
        }
        snap::raw::Decoder::new().decompress_vec(self.writer.finish()).unwrap()
    }

    fn two(&mut self) -> Request {
        let all = 0..self.decoder.table().len();
        Request::decode(&self.request(all)[..]).unwrap()
    }
}

fn labels(request: &Request, series: usize) -> Vec<(&str, &str)> {
    let text = |number: u32| request.symbols[number as usize].as_str();
    let refs = &request.timeseries[series].labels_refs;
    refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect()
}

fn one_of_each(samples: &mut Samples) {
    samples.value(&BOOT, 1000.0);
    samples.value(&PROCESS, 1500.0);
    samples.value(&FORKS, 7.0);
    histogram(samples, &LATENCY, "sda", 3);
    histogram(samples, &FOREIGN, "sda", 3);
}

#[test]
fn an_own_histogram_is_one_series_and_a_foreign_one_stays_as_it_is() {
    let mut batch = Batch::new(NATIVE, &[&one_of_each, &one_of_each]);
    let request = batch.two();
    assert_eq!(request.timeseries.len(), ON_WIRE_FIRST + 1 + SERIES);
    let series = &request.timeseries[ON_WIRE_FIRST];
    let expected = [("__name__", "mote_x_seconds"), ("device", "sda"), ("instance", "h")];
    assert_eq!(labels(&request, ON_WIRE_FIRST), expected);
    assert_eq!((series.samples.len(), series.histograms.len()), (0, 2));
    assert_eq!(series.metadata.unwrap().r#type, 3);
    let first = &series.histograms[0];
    assert_eq!((first.count, first.sum), (Some(Count::Int(4)), 2.5));
    assert_eq!((first.timestamp, first.start_timestamp), (2_000_000, 1_500_000));
    let items = 2 * (ON_WIRE_FIRST + 2 * SERIES) as u64;
    assert_eq!((batch.writer.items(), batch.writer.on_wire()), (items, 8 + 2 * SERIES as u64));
    assert!(labels(&request, ON_WIRE_FIRST + 1).contains(&("__name__", "x_seconds_bucket")));
}

#[test]
fn classic_and_both_are_what_they_say() {
    let classic = WriteOptions { histograms: Histograms::Classic, ..NATIVE };
    let mut batch = Batch::new(classic, &[&one_of_each]);
    assert_eq!(batch.two().timeseries.len(), ON_WIRE_FIRST + 2 * SERIES);
    let both = WriteOptions { histograms: Histograms::Both, ..NATIVE };
    let mut batch = Batch::new(both, &[&one_of_each]);
    assert_eq!(batch.two().timeseries.len(), ON_WIRE_FIRST + 2 * SERIES + 1);
    assert_eq!(batch.writer.items(), (ON_WIRE_FIRST + 2 * SERIES) as u64);
    // The native one stands for none of the WAL's samples.
    let samples = Some(batch.writer.items());
    let written = Written { samples, histograms: Some(0), exemplars: Some(0) };
    assert_eq!(batch.writer.accepted(written), Some(0));
}

#[test]
fn what_counts_since_a_known_moment_says_so() {
    let mut batch = Batch::new(NATIVE, &[&one_of_each]);
    let request = batch.two();
    let starts: Vec<i64> =
        request.timeseries[..3].iter().map(|s| s.samples[0].start_timestamp).collect();
    assert_eq!(starts, [0, 0, 1_000_000]);
    let foreign = |samples: &mut Samples| {
        one_of_each(samples);
        samples.family(&FORKS).add(&[("instance", "other"), ("job", "j")], 1.0);
    };
    let mut batch = Batch::new(NATIVE, &[&foreign]);
    let request = batch.two();
    let of = |series: usize| labels(&request, series);
    let scraped = (0..request.timeseries.len()).find(|s| of(*s).contains(&("job", "j"))).unwrap();
    assert_eq!(request.timeseries[scraped].samples[0].start_timestamp, 0);
}

#[test]
fn a_histogram_that_is_gone_ends_and_one_with_gaps_goes_on() {
    let without = |samples: &mut Samples| samples.value(&FORKS, 8.0);
    let mut batch = Batch::new(NATIVE, &[&one_of_each, &without, &one_of_each]);
    let request = batch.two();
    let histograms = &request.timeseries[ON_WIRE_FIRST].histograms;
    let sums: Vec<u64> = histograms.iter().map(|h| h.sum.to_bits()).collect();
    assert_eq!(sums, [2.5f64.to_bits(), STALE, 2.5f64.to_bits()]);
    assert_eq!(histograms[1].start_timestamp, 0);
}

#[test]
fn a_round_with_a_part_of_a_histogram_loses_none_of_it() {
    let torn = |samples: &mut Samples| {
        samples.value(&FORKS, 8.0);
        // The count is not that of the buckets.
        let below = LATENCY_BOUNDS.into_iter().map(|bound| (bound, 1));
        let mut family = samples.family(&LATENCY);
        family.histogram(&[("device", "sda")], below, 1.0, 0);
    };
    let mut batch = Batch::new(NATIVE, &[&one_of_each, &torn]);
    let request = batch.two();
    let histogram = &request.timeseries[ON_WIRE_FIRST];
    assert_eq!(histogram.histograms.len(), 1);
    let classic: usize = request.timeseries[ON_WIRE_FIRST + 1..][..SERIES]
        .iter()
        .map(|series| series.samples.len())
        .sum();
    assert_eq!(classic, SERIES, "the second round's");
    let sent: usize =
        request.timeseries.iter().map(|s| s.samples.len() + s.histograms.len() * SERIES).sum();
    assert_eq!(sent as u64, batch.writer.items());
}

#[test]
fn a_cut_through_a_histogram_leaves_it_whole() {
    let mut batch = Batch::new(NATIVE, &[&one_of_each]);
    let all = batch.decoder.table().len();
    let whole = Request::decode(&batch.request(0..all)[..]).unwrap();
    for cut in 0..=all {
        let mut items = 0;
        let mut series = 0;
        for part in [0..cut, cut..all] {
            let request = Request::decode(&batch.request(part)[..]).unwrap();
            items += batch.writer.items();
            series += request.timeseries.len();
        }
        assert_eq!((items, series), (3 + 2 * SERIES as u64, whole.timeseries.len()), "at {cut}");
    }
}

#[test]
fn texts_ride_along_by_either_version() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let every = Some(Duration::from_secs(60));
        let mut batch =
            Batch::new(WriteOptions { protocol, metadata_every: every, ..NATIVE }, &[&one_of_each]);
        let newest = newest();
        one_of_each(&mut newest.rounds[0].borrow_mut());
        batch.writer.families = Families::new(newest, every);
        batch.writer.batch_begins();
        let all = 0..batch.decoder.table().len();
        let raw = batch.request(all.clone());
        if protocol == Protocol::V1 {
            let metadata = WriteRequest::decode(&raw[..]).unwrap().metadata;
            let of = |at: usize| {
                let m = &metadata[at];
                (m.metric_family_name.as_str(), m.help.as_str(), m.unit.as_str(), m.r#type)
            };
            assert_eq!(metadata.len(), 5);
            assert_eq!(of(2), ("node_forks_total", "Forks.", "", 1));
            assert_eq!(of(3), ("mote_x_seconds", "X.", "seconds", 3));
        } else {
            let request = Request::decode(&raw[..]).unwrap();
            let metadata = request.timeseries[2].metadata.unwrap();
            assert_eq!(request.symbols[metadata.help_ref as usize], "Forks.");
            let metadata = request.timeseries[3].metadata.unwrap();
            assert_eq!(request.symbols[metadata.unit_ref as usize], "seconds");
        }
        batch.writer.batch_ends();
        batch.writer.batch_begins();
        let raw = batch.request(all);
        assert!(!raw.windows(6).any(|six| six == b"Forks."));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_1_0_is_found_out_and_asked_again_after_an_hour() {
    let written = Written { samples: Some(3), histograms: Some(1), ..Written::default() };
    let fresh = || {
        let mut batch = Batch::new(NATIVE, &[&one_of_each]);
        batch.two();
        batch.writer
    };
    let is_one = |writer: &Writer| writer.content() == Content::RemoteWrite1;
    // 415, any refusal, a 2xx without headers.
    let mut writer = fresh();
    assert!(writer.unsupported("415") && is_one(&writer) && !writer.unsupported("415"));
    let mut writer = fresh();
    assert!(writer.refused("400") && is_one(&writer) && !writer.refused("400"));
    assert_eq!(writer.written(written), None);
    let mut writer = fresh();
    assert_eq!(writer.accepted(Written::default()), None);
    assert!(is_one(&writer) && writer.protocol().contains("does not take 2.0"));
    assert_eq!(writer.accepted(Written::default()), Some(0), "1.0 says nothing");
    tokio::time::advance(FALL_BACK - Duration::from_secs(1)).await;
    writer.batch_begins();
    assert!(is_one(&writer));
    tokio::time::advance(Duration::from_secs(1)).await;
    writer.batch_begins();
    assert!(!is_one(&writer));
    // One that has shown that it understands may refuse.
    let mut writer = fresh();
    assert_eq!(writer.accepted(written), Some(SERIES as u64), "the foreign one's samples");
    assert!(!writer.refused("400") && !is_one(&writer));
    assert_eq!(writer.accepted(Written::default()), None, "it was replaced");
}

#[test]
fn what_was_not_written_is_counted_as_the_wal_counts() {
    let mut batch = Batch::new(NATIVE, &[&one_of_each]);
    batch.two();
    let samples = 3 + SERIES as u64;
    let mut lost = |samples: Option<u64>, histograms: Option<u64>| {
        batch.writer.written(Written { samples, histograms, ..Written::default() })
    };
    assert_eq!(lost(Some(samples), Some(1)), Some(0));
    assert_eq!(lost(Some(samples - 2), Some(1)), Some(2));
    assert_eq!(lost(Some(samples), None), Some(SERIES as u64), "missing is none");
    assert_eq!(lost(None, Some(1)), Some(samples));
    assert_eq!(lost(None, Some(0)), None, "nothing was written: it is an ordinary refusal");
    assert_eq!(lost(Some(u64::MAX), Some(u64::MAX)), Some(0));
    assert_eq!(lost(None, None), None);
}
