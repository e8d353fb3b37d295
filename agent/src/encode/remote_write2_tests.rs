//! Remote write 2.0's bytes against pinned ones and against prost's.

use std::collections::HashMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::encode::MAX_BYTES;
use crate::encode::proto2::{
    BucketSpan, Count, Histogram, Metadata, Request, Sample, TimeSeries, ZeroCount,
};
use crate::model::{Kind, LATENCY_BOUNDS, STALE};

const GAUGE: Meta<'static> = Meta { kind: Kind::Gauge, help: "", unit: "" };

fn unpack(body: &[u8]) -> Request {
    let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    Request::decode(&raw[..]).unwrap()
}

fn point(timestamp_ms: i64, value: f64) -> Point {
    Point { timestamp_ms, value, start_ms: 0 }
}

#[test]
fn the_bytes_of_one_series_are_these() {
    let mut request = RemoteWrite2::new();
    let meta = Meta { kind: Kind::Counter, help: "H", unit: "" };
    let sample = Point { timestamp_ms: 1, value: 1.0, start_ms: 300 };
    let labels = [("__name__", "up"), ("e", ""), ("f", "up")];
    request.series(labels.into_iter(), meta, std::iter::once(sample)).unwrap();
    let expected = [
        &[0x22, 0][..], // field 4: the empty symbol
        &[0x22, 8],
        b"__name__",
        &[0x22, 2, b'u', b'p', 0x22, 1, b'f', 0x22, 1, b'H'],
        &[0x2a, 28],            // field 5, a series of 6 + 16 + 6 bytes
        &[0x0a, 4, 1, 2, 3, 2], // labels
        &[0x12, 14, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 1], // value, time
        &[0x18, 0xac, 2],       // start
        &[0x2a, 4, 0x08, 1, 0x18, 4], // type, help
    ]
    .concat();
    assert_eq!(request.to_raw(), expected);
    assert_eq!((request.len(), request.series_added(), request.samples()), (expected.len(), 1, 1));
}

#[test]
fn the_bytes_of_one_histogram_are_these() {
    let mut buckets = [0; LATENCY_BOUNDS.len()];
    // (2^-16, 2^-15], (2^-15, 2^-14], a gap that is written, (2^-11, 2^-10], one that is not, above 64 s.
    (buckets[0], buckets[1], buckets[4], buckets[22]) = (3, 1, 2, 1);
    let histogram = NativeHistogram { timestamp_ms: 1000, start_ms: 1, sum: 0.5, zero: 4, buckets };
    assert_eq!(histogram.count(), 11);
    let mut request = RemoteWrite2::new();
    let meta = Meta { kind: Kind::Histogram, help: "", unit: "" };
    request.histogram([("a", "b")].into_iter(), meta, std::iter::once(histogram)).unwrap();
    let message = [
        &[0x08, 11][..],                       // count
        &[0x19, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f], // sum
        &[0x29, 0, 0, 0, 0, 0, 0, 0xf0, 0x3e], // threshold 2^-16; schema 0 is not written
        &[0x30, 4],                            // in the bucket of zero
        &[0x5a, 4, 0x08, 29, 0x10, 5],         // from bucket -15 on 5
        &[0x5a, 4, 0x08, 34, 0x10, 1],         // 17 further on 1: bucket 7, up to 2^7
        &[0x62, 6, 6, 3, 1, 0, 4, 1],          // +3 -2 -1 0 +2 -1
        &[0x78, 0xe8, 7, 0x88, 1, 1],          // time, start
    ]
    .concat();
    let raw = request.to_raw();
    let len = message.len() as u8;
    let expected =
        [
            &[
                0x22,
                0,
                0x22,
                1,
                b'a',
                0x22,
                1,
                b'b',
                0x2a,
                4 + 2 + len + 4,
                0x0a,
                2,
                1,
                2,
                0x1a,
                len,
            ][..],
            &message,
            &[0x2a, 2, 0x08, 3],
        ]
        .concat();
    assert_eq!(raw, expected);
    assert_eq!((request.samples(), request.histograms()), (0, 1));
}

#[test]
fn a_histogram_that_ends_is_its_sum_alone() {
    let mut request = RemoteWrite2::new();
    let stale = std::iter::once(NativeHistogram::stale(7));
    request.histogram([("a", "b")].into_iter(), GAUGE, stale).unwrap();
    let got = unpack(request.finish()).timeseries[0].histograms[0].clone();
    assert_eq!(got.sum.to_bits(), STALE);
    let rest = Histogram { sum: 0.0, ..got };
    let expected = Histogram {
        count: Some(Count::Int(0)),
        zero_count: Some(ZeroCount::Int(0)),
        timestamp: 7,
        ..Default::default()
    };
    assert_eq!(rest, expected);
}

#[test]
fn values_arrive_bit_for_bit() {
    let bits = [0.0f64.to_bits(), (-0.0f64).to_bits(), STALE, 0xfff8_dead_beef_0001, 1];
    let samples = bits.iter().map(|bits| point(3, f64::from_bits(*bits)));
    let mut request = RemoteWrite2::new();
    request.series([("a", "b")].into_iter(), GAUGE, samples).unwrap();
    let back = unpack(request.finish());
    let got: Vec<_> = back.timeseries[0].samples.iter().map(|s| s.value.to_bits()).collect();
    assert_eq!(got, bits);
}

#[test]
fn a_request_keeps_its_contents_until_it_is_cleared() {
    let mut request = RemoteWrite2::new();
    assert!(request.is_empty());
    assert_eq!(request.finish(), [0], "snappy's empty block");
    request.series([("a", "b")].into_iter(), GAUGE, std::iter::once(point(5, 0.0))).unwrap();
    let (first, raw) = (request.finish().to_vec(), request.to_raw());
    assert_eq!(request.finish(), first);
    assert_eq!(request.to_raw(), raw);
    request.series([("a", "c")].into_iter(), GAUGE, std::iter::once(point(5, 0.0))).unwrap();
    assert_eq!(unpack(request.finish()).timeseries.len(), 2);
    request.clear();
    assert_eq!((request.len(), request.series_added(), request.samples()), (0, 0, 0));
    assert_eq!(request.finish(), [0]);
}

#[test]
fn a_full_request_says_so_and_is_as_it_was() {
    let mut request = RemoteWrite2::new();
    let long = |letter: &str| letter.repeat(MAX_BYTES / 2);
    let one = std::iter::once(point(1, 1.0));
    request.series([("a", long("v").as_str())].into_iter(), GAUGE, one.clone()).unwrap();
    let before = request.to_raw();
    let full = request.series([("b", long("w").as_str())].into_iter(), GAUGE, one.clone());
    assert!(full.unwrap_err().needed > MAX_BYTES);
    assert_eq!(request.to_raw(), before);
    // The same string once more costs next to nothing.
    request.series([("b", long("v").as_str())].into_iter(), GAUGE, one).unwrap();
    assert_eq!((request.series_added(), request.samples()), (2, 2));
    assert!(request.memory() < 4 * MAX_BYTES);
}

#[test]
fn more_strings_than_a_request_may_have_are_refused() {
    let mut request = RemoteWrite2::new();
    let values: Vec<_> = (0..70_000).map(|value| value.to_string()).collect();
    let mut added = 0;
    for value in &values {
        let one = std::iter::once(point(1, 1.0));
        match request.series([("__name__", value.as_str())].into_iter(), GAUGE, one) {
            Ok(()) => added += 1,
            Err(full) => assert!(full.needed > MAX_BYTES),
        }
    }
    assert_eq!((added, request.series_added()), (65_534, 65_534));
    assert_eq!(unpack(request.finish()).symbols.len(), 1 << 16);
}

type Series = (Vec<(String, String)>, (u8, String, String), Vec<(i64, u64, i64)>);
type Counts = (i64, i64, u64, u64, Vec<(usize, u64)>);

/// Makes the tree of the same series in the plainest way.
#[derive(Default)]
struct Reference {
    request: Request,
    known: HashMap<String, u32>,
}

impl Reference {
    fn symbol(&mut self, text: &str) -> u32 {
        if self.request.symbols.is_empty() {
            self.request.symbols.push(String::new());
            self.known.insert(String::new(), 0);
        }
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let number = self.request.symbols.len() as u32;
        self.request.symbols.push(text.to_owned());
        self.known.insert(text.to_owned(), number);
        number
    }

    fn add(&mut self, labels: &[(String, String)], meta: Meta<'_>) -> &mut TimeSeries {
        let mut series = TimeSeries::default();
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            series.labels_refs.push(self.symbol(name));
            series.labels_refs.push(self.symbol(value));
        }
        let (help_ref, unit_ref) = (self.symbol(meta.help), self.symbol(meta.unit));
        let metadata = Metadata { r#type: kind_number(meta.kind) as i32, help_ref, unit_ref };
        series.metadata = (metadata != Metadata::default()).then_some(metadata);
        self.request.timeseries.push(series);
        self.request.timeseries.last_mut().unwrap()
    }
}

/// By the definition of spans, with every gap of at most two buckets filled.
fn tree(histogram: &NativeHistogram) -> Histogram {
    let full: Vec<usize> =
        (0..histogram.buckets.len()).filter(|at| histogram.buckets[*at] > 0).collect();
    let mut buckets: Vec<usize> = Vec::new();
    for at in full {
        if let Some(last) = buckets.last().copied()
            && at - last <= 3
        {
            buckets.extend(last + 1..at);
        }
        buckets.push(at);
    }
    let (mut positive_spans, mut positive_deltas) = (Vec::<BucketSpan>::new(), Vec::new());
    let (mut before, mut end) = (0, 0);
    for at in buckets {
        let number = at as i32 - 15;
        match positive_spans.last_mut() {
            Some(span) if number == end => span.length += 1,
            _ => positive_spans.push(BucketSpan { offset: number - end, length: 1 }),
        }
        end = number + 1;
        positive_deltas.push(histogram.buckets[at] as i64 - before);
        before = histogram.buckets[at] as i64;
    }
    Histogram {
        count: Some(Count::Int(histogram.zero + histogram.buckets.iter().sum::<u64>())),
        sum: histogram.sum,
        schema: 0,
        zero_threshold: 1.0 / 65_536.0,
        zero_count: Some(ZeroCount::Int(histogram.zero)),
        positive_spans,
        positive_deltas,
        reset_hint: 0,
        timestamp: histogram.timestamp_ms,
        start_timestamp: histogram.start_ms,
    }
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_prost(
        all in prop::collection::vec(
            (
                prop::collection::vec((".{0,3}", "[a-c]{0,3}"), 0..6),
                (0u8..5, "[a-c]{0,3}", "[a-c]{0,2}"),
                prop::collection::vec((any::<i64>(), any::<u64>(), any::<i64>()), 0..6),
            ),
            0..6,
        ),
        histograms in prop::collection::vec(
            (
                any::<i64>(),
                any::<i64>(),
                any::<u64>().prop_map(|bits| bits >> 12),
                any::<u64>().prop_map(|count| count >> 24),
                prop::collection::vec((0..LATENCY_BOUNDS.len(), 0u64..1 << 50), 0..8),
            ),
            0..6,
        ),
    ) {
        let all: Vec<Series> = all;
        let histograms: Vec<Counts> = histograms;
        // prost leaves out -0.0, which `values_arrive_bit_for_bit` covers.
        prop_assume!(all.iter().all(|(_, _, s)| s.iter().all(|(_, bits, _)| *bits != 1 << 63)));
        let (mut request, mut reference) = (RemoteWrite2::new(), Reference::default());
        for (labels, (kind, help, unit), samples) in &all {
            let meta = Meta { kind: Kind::from_u8(*kind).unwrap(), help, unit };
            let points = samples.iter().map(|&(timestamp_ms, bits, start_ms)| Point {
                timestamp_ms,
                value: f64::from_bits(bits),
                start_ms,
            });
            let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            request.series(pairs, meta, points).unwrap();
            reference.add(labels, meta).samples = samples
                .iter()
                .map(|&(timestamp, bits, start_timestamp)| Sample {
                    value: f64::from_bits(bits),
                    timestamp,
                    start_timestamp,
                })
                .collect();
        }
        let natives: Vec<NativeHistogram> = histograms
            .iter()
            .map(|(timestamp_ms, start_ms, sum, zero, counts)| {
                let mut buckets = [0; LATENCY_BOUNDS.len()];
                counts.iter().for_each(|(at, count)| buckets[*at] = *count);
                let sum = f64::from_bits(*sum);
                NativeHistogram { timestamp_ms: *timestamp_ms, start_ms: *start_ms, sum, zero: *zero, buckets }
            })
            .collect();
        request.histogram([("a", "b")].into_iter(), GAUGE, natives.iter().copied()).unwrap();
        let labels = [("a".to_owned(), "b".to_owned())];
        reference.add(&labels, GAUGE).histograms = natives.iter().map(tree).collect();
        prop_assert_eq!(request.to_raw(), reference.request.encode_to_vec());
        let raw = snap::raw::Decoder::new().decompress_vec(request.finish()).unwrap();
        prop_assert_eq!(raw, request.to_raw());
        prop_assert_eq!(request.series_added(), all.len() + 1);
        prop_assert_eq!(request.histograms(), natives.len());
    }
}
