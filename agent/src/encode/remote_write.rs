//! Remote write 1.0: series and their samples straight into the bytes of a `prometheus.WriteRequest`,
//! in snappy's block format. Nothing but the two reused buffers is held, whatever the number of series.
//!
//! It must not know where samples come from; the caller puts labels in the order of their names and
//! samples in the order of their timestamps, without which servers drop samples and say nothing.

use super::wire::{Buffer, Full, double_len, int64_len, kind_number, nested_len, string_len};
use crate::model::Kind;

/// A request under construction.
pub struct RemoteWrite {
    buffer: Buffer,
    series: usize,
    samples: usize,
}

impl std::fmt::Debug for RemoteWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWrite")
            .field("bytes", &self.len())
            .field("series", &self.series)
            .field("samples", &self.samples)
            .finish()
    }
}

impl Default for RemoteWrite {
    fn default() -> RemoteWrite {
        RemoteWrite::new()
    }
}

impl RemoteWrite {
    /// An empty request, without memory.
    pub fn new() -> RemoteWrite {
        RemoteWrite { buffer: Buffer::new(), series: 0, samples: 0 }
    }

    /// An empty request without memory, which takes at once what one like this needs.
    pub fn anew(&self) -> RemoteWrite {
        RemoteWrite { buffer: self.buffer.anew(), series: 0, samples: 0 }
    }

    /// Bytes that it has allocated.
    pub fn memory(&self) -> usize {
        self.buffer.memory()
    }

    /// Forgets the contents and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.series = 0;
        self.samples = 0;
    }

    /// Adds a series: its labels with `__name__` among them, and samples of milliseconds since the Unix
    /// epoch and value. Each iterator runs twice, first for the lengths. Labels with an empty value are
    /// left out, as the specification wants it: to Prometheus they are labels that are not there.
    ///
    /// # Errors
    /// The request would pass [`MAX_BYTES`](super::MAX_BYTES); it is as it was.
    pub fn series<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        samples: impl Iterator<Item = (i64, f64)> + Clone,
    ) -> Result<(), Full> {
        let labels = labels.filter(|(_, value)| !value.is_empty());
        let content = labels.clone().map(|(n, v)| nested_len(1, pair_len(n, v))).sum::<usize>()
            + samples.clone().map(|(t, v)| nested_len(2, sample_len(t, v))).sum::<usize>();
        self.buffer.begin(content)?;
        for (name, value) in labels {
            self.buffer.nested(1, pair_len(name, value));
            self.buffer.string(1, name);
            self.buffer.string(2, value);
        }
        for (timestamp_ms, value) in samples {
            self.buffer.nested(2, sample_len(timestamp_ms, value));
            self.buffer.double(1, value);
            self.buffer.int64(2, timestamp_ms);
            self.samples += 1;
        }
        self.series += 1;
        Ok(())
    }

    /// Adds what a family means; nothing if that is nothing.
    ///
    /// # Errors
    /// The request would pass [`MAX_BYTES`](super::MAX_BYTES); it is as it was.
    pub fn metadata(
        &mut self,
        kind: Kind,
        family: &str,
        help: &str,
        unit: &str,
    ) -> Result<(), Full> {
        if kind == Kind::Untyped && help.is_empty() {
            return Ok(());
        }
        let number = kind_number(kind);
        let content = int64_len(1, number)
            + string_len(2, family)
            + string_len(4, help)
            + string_len(5, unit);
        self.buffer.begin_of(3, content, 0)?;
        self.buffer.int64(1, number);
        self.buffer.string(2, family);
        self.buffer.string(4, help);
        self.buffer.string(5, unit);
        Ok(())
    }

    /// Bytes so far, before compression.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }

    /// How many series were added; one that was added twice counts twice.
    pub fn series_added(&self) -> usize {
        self.series
    }

    /// How many samples the request has.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The protobuf bytes, before compression.
    pub fn raw(&self) -> &[u8] {
        self.buffer.raw()
    }

    /// The body to send. The contents stay until [`clear`](RemoteWrite::clear), so that the same
    /// request can be tried again.
    pub fn finish(&mut self) -> &[u8] {
        self.buffer.pack()
    }
}

/// A body as a receiver reads it, for tests of those who make requests.
#[cfg(test)]
pub(crate) fn read_write(body: &[u8]) -> super::proto::WriteRequest {
    let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap_or_default();
    prost::Message::decode(&raw[..]).unwrap_or_default()
}

fn pair_len(name: &str, value: &str) -> usize {
    string_len(1, name) + string_len(2, value)
}

fn sample_len(timestamp_ms: i64, value: f64) -> usize {
    double_len(1, value) + int64_len(2, timestamp_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::MAX_BYTES;
    use crate::encode::proto::{
        Label, MetricMetadata, MetricType, Sample, TimeSeries, WriteRequest,
    };
    use proptest::prelude::*;
    use prost::Message;

    type Series = (Vec<(String, String)>, Vec<(i64, f64)>);

    fn encode(into: &mut RemoteWrite, all: &[Series]) {
        for (labels, samples) in all {
            let labels = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            into.series(labels, samples.iter().copied()).unwrap();
        }
    }

    fn reference(all: &[Series]) -> WriteRequest {
        let timeseries = all.iter().map(|(labels, samples)| TimeSeries {
            labels: labels
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| Label { name: name.clone(), value: value.clone() })
                .collect(),
            samples: samples
                .iter()
                .map(|&(timestamp, value)| Sample { value, timestamp })
                .collect(),
        });
        WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() }
    }

    #[test]
    fn the_bytes_of_one_series_are_these() {
        let mut request = RemoteWrite::new();
        request
            .series([("__name__", "up"), ("e", "")].into_iter(), [(1, 1.0)].into_iter())
            .unwrap();
        let expected = [
            &[0x0a, 0x1d][..],         // field 1, a series of 16 + 13 bytes
            &[0x0a, 0x0e, 0x0a, 0x08], // label of 14 bytes, its name of 8
            b"__name__",
            &[0x12, 0x02, b'u', b'p'],
            &[0x12, 0x0b, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0x01],
        ]
        .concat();
        assert_eq!(request.raw(), expected);
        assert_eq!((request.len(), request.series_added(), request.samples()), (31, 1, 1));
    }

    #[test]
    fn metadata_stand_beside_the_series() {
        let mut request = RemoteWrite::new();
        request.series([("__name__", "x")].into_iter(), [(5, 0.0)].into_iter()).unwrap();
        request.metadata(Kind::Counter, "x_seconds_total", "X.", "seconds").unwrap();
        request.metadata(Kind::Untyped, "y", "", "").unwrap();
        request.metadata(Kind::Summary, "z", "", "").unwrap();
        assert_eq!((request.series_added(), request.samples()), (1, 1));
        let metadata = WriteRequest::decode(request.raw()).unwrap().metadata;
        let of = |kind: MetricType, name: &str, help: &str, unit: &str| MetricMetadata {
            r#type: kind as i32,
            metric_family_name: name.to_owned(),
            help: help.to_owned(),
            unit: unit.to_owned(),
        };
        let expected = [
            of(MetricType::Counter, "x_seconds_total", "X.", "seconds"),
            of(MetricType::Summary, "z", "", ""),
        ];
        assert_eq!(metadata, expected);
        let long = "h".repeat(MAX_BYTES);
        let before = request.raw().to_vec();
        assert!(request.metadata(Kind::Gauge, "g", &long, "").is_err());
        assert_eq!(request.raw(), before);
    }

    #[test]
    fn values_arrive_bit_for_bit() {
        let bits = [
            0.0f64.to_bits(),
            (-0.0f64).to_bits(),
            f64::NAN.to_bits(),
            0x7ff0_0000_0000_0002, // Prometheus' marker of staleness
            0xfff8_dead_beef_0001,
            f64::INFINITY.to_bits(),
            f64::MIN_POSITIVE.to_bits(),
            1,
        ];
        let samples = bits.iter().enumerate().map(|(at, &bits)| (at as i64, f64::from_bits(bits)));
        let mut request = RemoteWrite::new();
        request.series([("__name__", "x")].into_iter(), samples).unwrap();
        let raw = snap::raw::Decoder::new().decompress_vec(request.finish()).unwrap();
        let back = WriteRequest::decode(&raw[..]).unwrap();
        let got: Vec<_> = back.timeseries[0].samples.iter().map(|s| s.value.to_bits()).collect();
        assert_eq!(got, bits);
        let times: Vec<_> = back.timeseries[0].samples.iter().map(|s| s.timestamp).collect();
        assert_eq!(times, (0..8).collect::<Vec<i64>>());
    }

    #[test]
    fn a_request_keeps_its_contents_until_it_is_cleared() {
        let mut request = RemoteWrite::new();
        assert!(request.is_empty());
        assert_eq!(request.finish(), [0], "snappy's empty block");
        request.series([("__name__", "x")].into_iter(), [(5, 0.0)].into_iter()).unwrap();
        let first = request.finish().to_vec();
        assert_eq!(request.finish(), first);
        request.clear();
        assert_eq!((request.len(), request.series_added(), request.samples()), (0, 0, 0));
        assert_eq!(request.finish(), [0]);
    }

    #[test]
    fn a_full_request_says_so_and_is_as_it_was() {
        let mut request = RemoteWrite::new();
        let long = "v".repeat(MAX_BYTES / 2);
        request.series([("a", long.as_str())].into_iter(), [(1, 1.0)].into_iter()).unwrap();
        let before = request.raw().to_vec();
        let full = request.series([("a", long.as_str())].into_iter(), [(2, 1.0)].into_iter());
        assert!(full.unwrap_err().needed > MAX_BYTES);
        assert_eq!(request.raw(), before);
        assert_eq!((request.series_added(), request.samples()), (1, 1));
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_prost(
            all in prop::collection::vec(
                (
                    prop::collection::vec((".{0,12}", ".{0,40}"), 0..6),
                    prop::collection::vec((any::<i64>(), any::<u64>().prop_map(f64::from_bits)), 0..6),
                ),
                0..6,
            )
        ) {
            // prost leaves out -0.0, which `values_arrive_bit_for_bit` covers.
            prop_assume!(all.iter().all(|(_, s)| s.iter().all(|(_, v)| v.to_bits() != 1 << 63)));
            let mut request = RemoteWrite::new();
            encode(&mut request, &all);
            prop_assert_eq!(request.raw(), &reference(&all).encode_to_vec()[..]);
            let raw = snap::raw::Decoder::new().decompress_vec(request.finish()).unwrap();
            let back = WriteRequest::decode(&raw[..]).unwrap();
            for (series, (labels, samples)) in back.timeseries.iter().zip(&all) {
                let full = labels.iter().filter(|(_, value)| !value.is_empty());
                prop_assert_eq!(series.labels.len(), full.count());
                for (got, want) in series.samples.iter().zip(samples) {
                    prop_assert_eq!((got.timestamp, got.value.to_bits()), (want.0, want.1.to_bits()));
                }
            }
            prop_assert_eq!(back.timeseries.len(), all.len());
        }
    }
}
