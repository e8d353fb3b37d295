//! Remote write 2.0: series with samples or native histograms straight into the bytes of an
//! `io.prometheus.write.v2.Request`, in snappy's block format. Beside the two reused buffers there is the
//! table of the request's strings, whatever the number of series.
//!
//! By the specification 2.0-rc.4, the newest that is published, in which each sample has a start of its
//! own; until rc.3 a series had one, in a field that is reserved now. Symbols stand before the series, since
//! receivers resolve them as they read.
//!
//! It must not know where samples come from; the caller puts labels in the order of their names and
//! samples in the order of their timestamps, without which servers drop samples and say nothing.

use prost::encoding::{encode_varint, encoded_len_varint};

use super::native::NativeHistogram;
use super::symbols::Symbols;
use super::wire::{Buffer, Full, double_len, int64_len, kind_number, nested_len};
use crate::model::Kind;

/// The request's field of series.
const SERIES: u32 = 5;

/// What a series means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta<'a> {
    /// The family's type.
    pub kind: Kind,
    /// The family's help text, or nothing.
    pub help: &'a str,
    /// The family's unit, or nothing.
    pub unit: &'a str,
}

/// A sample and since when it has been counting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The value.
    pub value: f64,
    /// When it began to count, in milliseconds since the Unix epoch; 0 if that is not known.
    pub start_ms: i64,
}

/// A request under construction.
pub struct RemoteWrite2 {
    symbols: Symbols,
    /// The series alone.
    buffer: Buffer,
    /// Those of the series' labels.
    refs: Vec<u32>,
    series: usize,
    samples: usize,
    histograms: usize,
}

/// What a series holds: samples or histograms.
trait Item {
    const TAG: u32;
    fn len(&self) -> usize;
    fn write(&self, buffer: &mut Buffer);
}

impl Item for Point {
    const TAG: u32 = 2;

    fn len(&self) -> usize {
        double_len(1, self.value) + int64_len(2, self.timestamp_ms) + int64_len(3, self.start_ms)
    }

    fn write(&self, buffer: &mut Buffer) {
        buffer.double(1, self.value);
        buffer.int64(2, self.timestamp_ms);
        buffer.int64(3, self.start_ms);
    }
}

impl Item for NativeHistogram {
    const TAG: u32 = 3;

    fn len(&self) -> usize {
        NativeHistogram::len(self)
    }

    fn write(&self, buffer: &mut Buffer) {
        NativeHistogram::write(self, buffer);
    }
}

impl std::fmt::Debug for RemoteWrite2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWrite2")
            .field("bytes", &self.len())
            .field("series", &self.series)
            .field("samples", &self.samples)
            .field("histograms", &self.histograms)
            .finish()
    }
}

impl Default for RemoteWrite2 {
    fn default() -> RemoteWrite2 {
        RemoteWrite2::new()
    }
}

impl RemoteWrite2 {
    /// An empty request, without memory.
    pub fn new() -> RemoteWrite2 {
        RemoteWrite2 {
            symbols: Symbols::new(),
            buffer: Buffer::new(),
            refs: Vec::new(),
            series: 0,
            samples: 0,
            histograms: 0,
        }
    }

    /// Forgets the contents and keeps the memory, but for that of more strings than few requests have.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.buffer.clear();
        (self.series, self.samples, self.histograms) = (0, 0, 0);
    }

    /// Adds a series: its labels with `__name__` among them, and samples. The iterator of samples runs
    /// twice, first for the lengths. Labels with an empty value are left out: the specification forbids
    /// them, and to Prometheus they are labels that are not there.
    ///
    /// # Errors
    /// The request would pass [`MAX_BYTES`](super::MAX_BYTES), or have more than 65,536 strings; it is as it was.
    pub fn series<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        meta: Meta<'_>,
        samples: impl Iterator<Item = Point> + Clone,
    ) -> Result<(), Full> {
        self.samples += self.add(labels, meta, samples)?;
        Ok(())
    }

    /// Adds a series of histograms, as [`series`](RemoteWrite2::series) adds one of samples.
    ///
    /// # Errors
    /// As there.
    pub fn histogram<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        meta: Meta<'_>,
        histograms: impl Iterator<Item = NativeHistogram> + Clone,
    ) -> Result<(), Full> {
        self.histograms += self.add(labels, meta, histograms)?;
        Ok(())
    }

    fn add<'a, I: Item>(
        &mut self,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        meta: Meta<'_>,
        items: impl Iterator<Item = I> + Clone,
    ) -> Result<usize, Full> {
        let mark = self.symbols.mark();
        let Some((help, unit)) = self.refer(labels, meta) else {
            self.symbols.back_to(mark);
            // No number of bytes, and more than any request may have.
            return Err(Full { needed: usize::MAX });
        };
        let kind = kind_number(meta.kind);
        let refs: usize = self.refs.iter().map(|r| encoded_len_varint(u64::from(*r))).sum();
        let metadata = int64_len(1, kind) + int64_len(3, help) + int64_len(4, unit);
        let content = (if refs > 0 { nested_len(1, refs) } else { 0 })
            + items.clone().map(|item| nested_len(I::TAG, item.len())).sum::<usize>()
            + if metadata > 0 { nested_len(5, metadata) } else { 0 };
        let opened = self.buffer.begin_of(SERIES, content, self.symbols.bytes().len());
        opened.inspect_err(|_| self.symbols.back_to(mark))?;
        if refs > 0 {
            self.buffer.nested(1, refs);
            for r in &self.refs {
                encode_varint(u64::from(*r), self.buffer.out());
            }
        }
        let mut count = 0;
        for item in items {
            self.buffer.nested(I::TAG, item.len());
            item.write(&mut self.buffer);
            count += 1;
        }
        if metadata > 0 {
            self.buffer.nested(5, metadata);
            self.buffer.int64(1, kind);
            self.buffer.int64(3, help);
            self.buffer.int64(4, unit);
        }
        self.series += 1;
        Ok(count)
    }

    /// The numbers of the labels' strings go to `refs`; returns those of help and unit.
    fn refer<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        meta: Meta<'_>,
    ) -> Option<(i64, i64)> {
        self.refs.clear();
        for (name, value) in labels.filter(|(_, value)| !value.is_empty()) {
            self.refs.push(self.symbols.refer(name)?);
            self.refs.push(self.symbols.refer(value)?);
        }
        let help = self.symbols.refer(meta.help)?;
        Some((i64::from(help), i64::from(self.symbols.refer(meta.unit)?)))
    }

    /// Bytes so far, before compression.
    pub fn len(&self) -> usize {
        self.symbols.bytes().len() + self.buffer.len()
    }

    /// Whether no series has been added.
    pub fn is_empty(&self) -> bool {
        self.series == 0
    }

    /// How many series were added; one that was added twice counts twice.
    pub fn series_added(&self) -> usize {
        self.series
    }

    /// How many samples the request has.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// How many histograms the request has.
    pub fn histograms(&self) -> usize {
        self.histograms
    }

    /// A copy of the protobuf bytes, before compression.
    pub fn to_raw(&self) -> Vec<u8> {
        [self.symbols.bytes(), self.buffer.raw()].concat()
    }

    /// The body to send. The contents stay until [`clear`](RemoteWrite2::clear), so that the same
    /// request can be tried again.
    pub fn finish(&mut self) -> &[u8] {
        self.buffer.pack_behind(self.symbols.bytes())
    }

    /// Bytes of memory that vectors hold.
    pub fn memory(&self) -> usize {
        self.symbols.memory() + self.buffer.memory() + self.refs.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
#[path = "remote_write2_tests.rs"]
mod tests;
