//! The encoders of requests: what they write is what prost reads, and what was given.

use mote::encode::proto::{Label, PushRequest, Sample, TimeSeries, WriteRequest};
use mote::encode::{
    LokiPush, MAX_BYTES, Meta, NativeHistogram, Point, PushEntry, RemoteWrite, RemoteWrite2, proto2,
};
use mote::model::{Kind, LATENCY_BOUNDS, Metadata};
use prost::Message;

use super::bytes::Input;

fn unpack(packed: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(packed).expect("snappy's block format")
}

/// Series: `[labels u8] [name, value]* [samples u8] [timestamp, value]*`.
pub fn remote_write(data: &[u8]) {
    let mut input = Input(data);
    let mut request = RemoteWrite::new();
    let mut expected = WriteRequest::default();
    while !input.is_empty() {
        let labels: Vec<_> = (0..input.u8() % 8).map(|_| (input.text(), input.text())).collect();
        let samples: Vec<_> = (0..input.u8() % 8)
            .map(|_| (input.u64() as i64, f64::from_bits(input.u64())))
            .collect();
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        request.series(pairs, samples.iter().copied()).expect("far below the bound");
        let given = labels.into_iter().filter(|(_, value)| !value.is_empty());
        expected.timeseries.push(TimeSeries {
            labels: given.map(|(name, value)| Label { name, value }).collect(),
            samples: samples
                .iter()
                .map(|&(timestamp, value)| Sample { value, timestamp })
                .collect(),
        });
    }
    assert_eq!(request.series_added(), expected.timeseries.len());
    assert!(request.len() <= MAX_BYTES);
    let raw = unpack(request.finish());
    let mut back = WriteRequest::decode(raw.as_slice()).expect("a WriteRequest");
    // Bits, because a NaN equals nothing, and -0.0 equals 0.0 and is another value.
    let bits = |request: &WriteRequest| -> Vec<Vec<u64>> {
        let of = |series: &TimeSeries| series.samples.iter().map(|s| s.value.to_bits()).collect();
        request.timeseries.iter().map(of).collect()
    };
    assert_eq!(bits(&back), bits(&expected));
    for request in [&mut back, &mut expected] {
        let samples = request.timeseries.iter_mut().flat_map(|series| &mut series.samples);
        samples.for_each(|sample| sample.value = 0.0);
    }
    assert_eq!(back, expected);
}

/// Series as [`remote_write`]'s; one whose number of samples has the highest bit is of histograms.
pub fn remote_write2(data: &[u8]) {
    let mut input = Input(data);
    let mut request = RemoteWrite2::new();
    let mut expected = Vec::new();
    while !input.is_empty() {
        let labels: Vec<_> = (0..input.u8() % 8).map(|_| (input.text(), input.text())).collect();
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let count = input.u8();
        let help = input.text();
        let meta = Meta { kind: Kind::Counter, help: &help, unit: "" };
        let mut items = Vec::new();
        if count & 0x80 == 0 {
            let mut points = Vec::new();
            for _ in 0..count % 8 {
                let (timestamp_ms, bits) = (input.u64() as i64, input.u64());
                let value = f64::from_bits(bits);
                points.push(Point { timestamp_ms, value, start_ms: bits as i64 });
                items.push((timestamp_ms, bits, None));
            }
            request.series(pairs, meta, points.into_iter()).expect("far below the bound");
        } else {
            let mut histograms = Vec::new();
            for _ in 0..count % 4 {
                let (timestamp_ms, bits) = (input.u64() as i64, input.u64());
                let mut buckets = [0; LATENCY_BOUNDS.len()];
                for bucket in &mut buckets {
                    *bucket = u64::from(input.u8() % 3) * (bits >> 8);
                }
                let (sum, zero) = (f64::from_bits(bits), bits >> 40);
                histograms.push(NativeHistogram { timestamp_ms, start_ms: 1, sum, zero, buckets });
                items.push((timestamp_ms, bits, Some((zero, buckets.to_vec()))));
            }
            request.histogram(pairs, meta, histograms.into_iter()).expect("far below the bound");
        }
        let given = labels.into_iter().filter(|(_, value)| !value.is_empty());
        expected.push((given.collect::<Vec<_>>(), help, items));
    }
    let raw = unpack(request.finish());
    assert_eq!(raw, request.to_raw());
    let back = proto2::Request::decode(raw.as_slice()).expect("a Request");
    let symbol = |number: u32| back.symbols.get(number as usize).expect("a symbol").clone();
    let mut once = back.symbols.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), back.symbols.len(), "each string once");
    let series = back.timeseries.iter().map(|series| {
        let pairs = series.labels_refs.chunks(2);
        let pairs = pairs.map(|pair| match pair {
            [name, value] => (symbol(*name), symbol(*value)),
            _ => panic!("an odd number"),
        });
        let mut items: Vec<_> =
            series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), None)).collect();
        items.extend(series.histograms.iter().map(|histogram| {
            let buckets = buckets(histogram);
            let Some(proto2::ZeroCount::Int(zero)) = histogram.zero_count else {
                panic!("no zero count")
            };
            let Some(proto2::Count::Int(count)) = histogram.count else { panic!("no count") };
            // Counts of outside bytes may pass 64 bits together; they saturate then.
            assert_eq!(count, buckets.iter().fold(zero, |sum, one| sum.saturating_add(*one)));
            (histogram.timestamp, histogram.sum.to_bits(), Some((zero, buckets)))
        }));
        let help = series.metadata.map(|metadata| symbol(metadata.help_ref)).unwrap_or_default();
        (pairs.collect::<Vec<_>>(), help, items)
    });
    assert_eq!(series.collect::<Vec<_>>(), expected);
}

/// The counts above the bucket of zero, in the order of their bounds.
fn buckets(histogram: &proto2::Histogram) -> Vec<u64> {
    let mut all = vec![0; LATENCY_BOUNDS.len()];
    let (mut at, mut value) = (15i32, 0i64);
    let mut deltas = histogram.positive_deltas.iter();
    for span in &histogram.positive_spans {
        at += span.offset;
        for _ in 0..span.length {
            value = value.wrapping_add(*deltas.next().expect("a delta"));
            let place = usize::try_from(at).ok().and_then(|at| all.get_mut(at));
            *place.expect("a bucket within the bounds") = value as u64;
            at += 1;
        }
    }
    assert!(deltas.next().is_none());
    all
}

type Entry = (i64, String, Metadata);

/// Streams: `[labels] [entries u8] [timestamp, line, pairs u8, [name, value]*]*`.
pub fn loki(data: &[u8]) {
    let mut input = Input(data);
    let mut request = LokiPush::new();
    let mut expected: Vec<(String, Vec<Entry>)> = Vec::new();
    while !input.is_empty() {
        let labels = input.text();
        let mut entry = || -> Entry {
            let timestamp = input.u64() as i64;
            let line = String::from_utf8_lossy(input.long()).into_owned();
            let pairs = (0..input.u8() % 4).map(|_| (input.text(), input.text())).collect();
            (timestamp, line, pairs)
        };
        let first = entry();
        let mut entries = vec![first];
        entries.extend((0..(entries[0].0 as u8) % 4).map(|_| entry()));
        let given = entries.iter().map(|(timestamp_ns, line, metadata)| PushEntry {
            timestamp_ns: *timestamp_ns,
            line,
            metadata: metadata.pairs(),
        });
        request.stream(&labels, given).expect("far below the bound");
        expected.push((labels, entries));
    }
    let raw = unpack(request.finish());
    assert_eq!(raw, request.raw());
    let back = PushRequest::decode(raw.as_slice()).expect("a PushRequest");
    assert_eq!(back.encode_to_vec(), raw, "prost writes the same bytes");
    let entry = |entry: mote::encode::proto::EntryAdapter| {
        let time = entry.timestamp.expect("a timestamp, always");
        assert!((0..1_000_000_000).contains(&time.nanos));
        let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let pairs = entry.structured_metadata.into_iter().map(|pair| (pair.name, pair.value));
        (i64::try_from(nanos).expect("a time that was given"), entry.line, pairs.collect())
    };
    let streams = back.streams.into_iter();
    let got: Vec<(String, Vec<Entry>)> =
        streams.map(|s| (s.labels, s.entries.into_iter().map(entry).collect())).collect();
    assert_eq!(got, expected);
}
