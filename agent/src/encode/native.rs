//! One native histogram of schema 0 into the bytes of an `io.prometheus.write.v2.Histogram`: bucket `n`
//! counts (2^(n-1), 2^n] (<https://prometheus.io/docs/specs/native_histograms/>). It must not know where
//! counts come from.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::wire::{Buffer, double_len, int64_len, nested_len};
use crate::model::{LATENCY_BOUNDS, LATENCY_FIRST, STALE};

/// Buckets above that of zero: one for each bound but the first, and one for what is longer than all.
const BUCKETS: usize = LATENCY_BOUNDS.len();

/// Up to so many empty buckets between others are written: a new span takes more bytes.
const GAP: usize = 2;

/// What an own histogram of latencies was at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NativeHistogram {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When it began to count; 0 if that is not known.
    pub start_ms: i64,
    /// The sum of the observations; Prometheus' marker of staleness if the series ends.
    pub sum: f64,
    /// Observations of at most the first of [`LATENCY_BOUNDS`], which are the bucket of zero.
    pub zero: u64,
    /// Those up to each further bound, and then those above the last one, which are in the bucket that
    /// follows it: 64 s to 128 s, and what is longer still is not told apart.
    pub buckets: [u64; BUCKETS],
}

/// Where there are buckets; at most every fourth one begins a span.
#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    /// First bucket and the one behind the last.
    all: [(u8, u8); BUCKETS / (GAP + 2) + 1],
    count: usize,
}

impl NativeHistogram {
    /// The marker that the series ends.
    pub fn stale(timestamp_ms: i64) -> NativeHistogram {
        let sum = f64::from_bits(STALE);
        NativeHistogram { timestamp_ms, start_ms: 0, sum, zero: 0, buckets: [0; BUCKETS] }
    }

    /// All observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(self.zero, |sum, count| sum.saturating_add(*count))
    }

    /// A histogram that ends has no buckets, and so none of zero.
    fn threshold(&self) -> f64 {
        if self.sum.to_bits() == STALE { 0.0 } else { f64::from(LATENCY_FIRST).exp2() }
    }

    fn spans(&self) -> Spans {
        let mut spans = Spans::default();
        for (at, _) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let last = spans.count.checked_sub(1).and_then(|last| spans.all.get_mut(last));
            match last {
                Some((_, end)) if at - usize::from(*end) <= GAP => *end = at as u8 + 1,
                _ => {
                    if let Some(span) = spans.all.get_mut(spans.count) {
                        *span = (at as u8, at as u8 + 1);
                        spans.count += 1;
                    }
                }
            }
        }
        spans
    }

    /// Each bucket's difference to the one before, of those within spans.
    fn deltas(&self, spans: &Spans) -> impl Iterator<Item = u64> {
        let mut before = 0u64;
        let within = spans.iter().flat_map(|(start, end)| {
            self.buckets.get(usize::from(start)..usize::from(end)).unwrap_or_default()
        });
        within.map(move |count| {
            let delta = count.wrapping_sub(before) as i64;
            before = *count;
            zigzag(delta)
        })
    }

    /// Bytes of the message.
    pub(super) fn len(&self) -> usize {
        let spans = self.spans();
        let deltas: usize = self.deltas(&spans).map(encoded_len_varint).sum();
        uint64_len(1, self.count())
            + double_len(3, self.sum)
            + double_len(5, self.threshold())
            + uint64_len(6, self.zero)
            + spans.offsets().map(|(o, l)| nested_len(11, span_len(o, l))).sum::<usize>()
            + if spans.count > 0 { nested_len(12, deltas) } else { 0 }
            + int64_len(15, self.timestamp_ms)
            + int64_len(17, self.start_ms)
    }

    pub(super) fn write(&self, buffer: &mut Buffer) {
        let spans = self.spans();
        // Both are there when they are 0, because they say that counts are whole numbers.
        uint64(buffer, 1, self.count());
        buffer.double(3, self.sum);
        buffer.double(5, self.threshold());
        uint64(buffer, 6, self.zero);
        for (offset, length) in spans.offsets() {
            buffer.nested(11, span_len(offset, length));
            buffer.int64(1, offset as i64);
            buffer.int64(2, length as i64);
        }
        if spans.count > 0 {
            buffer.nested(12, self.deltas(&spans).map(encoded_len_varint).sum());
            self.deltas(&spans).for_each(|delta| encode_varint(delta, buffer.out()));
        }
        buffer.int64(15, self.timestamp_ms);
        buffer.int64(17, self.start_ms);
    }
}

impl Spans {
    fn iter(&self) -> impl Iterator<Item = (u8, u8)> + use<> {
        self.all.into_iter().take(self.count)
    }

    /// Offsets as they are written, in zigzag, and lengths.
    fn offsets(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        // The bucket behind the bound of the bucket of zero.
        let mut before = -i64::from(LATENCY_FIRST + 1);
        self.iter().map(move |(start, end)| {
            let offset = i64::from(start) - before;
            before = i64::from(end);
            (zigzag(offset), u64::from(end - start))
        })
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn uint64_len(tag: u32, value: u64) -> usize {
    key_len(tag) + encoded_len_varint(value)
}

fn uint64(buffer: &mut Buffer, tag: u32, value: u64) {
    encode_key(tag, WireType::Varint, buffer.out());
    encode_varint(value, buffer.out());
}

fn span_len(offset: u64, length: u64) -> usize {
    int64_len(1, offset as i64) + int64_len(2, length as i64)
}
