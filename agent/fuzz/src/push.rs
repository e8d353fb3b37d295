//! The encoders of requests: what they write is what prost reads, and what was given.

use mote::encode::proto::{Label, PushRequest, Sample, TimeSeries, WriteRequest};
use mote::encode::{LokiPush, MAX_BYTES, PushEntry, RemoteWrite};
use mote::model::Metadata;
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
