//! Loki's push: streams and their entries straight into the bytes of a `logproto.PushRequest`, in
//! snappy's block format. Nothing but the two reused buffers is held, whatever the number of lines.
//!
//! It must not know where entries come from, nor which of them Loki would refuse.

use crate::model::Pairs;

use super::wire::{Buffer, Full, int64_len, nested_len, string_len};

const NANOS: i64 = 1_000_000_000;

/// One line on its way to Loki.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushEntry<'a> {
    /// Nanoseconds since the Unix epoch; negative before 1970.
    pub timestamp_ns: i64,
    /// The line, without its line break.
    pub line: &'a str,
    /// Structured metadata: pairs that are stored with the entry and don't make a stream.
    pub metadata: Pairs<'a>,
}

/// A request under construction.
pub struct LokiPush {
    buffer: Buffer,
    streams: usize,
    entries: usize,
}

impl std::fmt::Debug for LokiPush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LokiPush")
            .field("bytes", &self.len())
            .field("streams", &self.streams)
            .field("entries", &self.entries)
            .finish()
    }
}

impl Default for LokiPush {
    fn default() -> LokiPush {
        LokiPush::new()
    }
}

impl LokiPush {
    /// An empty request, without memory.
    pub fn new() -> LokiPush {
        LokiPush { buffer: Buffer::new(), streams: 0, entries: 0 }
    }

    /// Forgets the contents and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.streams = 0;
        self.entries = 0;
    }

    /// Adds a stream: its labels as a LogQL selector (`{a="1", b="2"}`, what `Labels` displays), and
    /// entries. The iterator runs twice, first for the lengths.
    ///
    /// # Errors
    /// The request would pass [`MAX_BYTES`](super::MAX_BYTES); it is as it was.
    pub fn stream<'a>(
        &mut self,
        labels: &str,
        entries: impl Iterator<Item = PushEntry<'a>> + Clone,
    ) -> Result<(), Full> {
        let content =
            string_len(1, labels) + entries.clone().map(|entry| entry_bytes(&entry)).sum::<usize>();
        self.buffer.begin(content)?;
        self.buffer.string(1, labels);
        for entry in entries {
            self.entry(&entry);
        }
        self.streams += 1;
        Ok(())
    }

    fn entry(&mut self, entry: &PushEntry<'_>) {
        let (seconds, nanos) = split(entry.timestamp_ns);
        self.buffer.nested(2, entry_len(entry));
        // Go's decoder takes a missing timestamp for the year 1, so it is there even when it is empty.
        self.buffer.nested(1, timestamp_len(seconds, nanos));
        self.buffer.int64(1, seconds);
        self.buffer.int64(2, nanos);
        self.buffer.string(2, entry.line);
        for (name, value) in entry.metadata.iter() {
            self.buffer.nested(3, pair_len(name, value));
            self.buffer.string(1, name);
            self.buffer.string(2, value);
        }
        self.entries += 1;
    }

    /// Bytes so far, before compression.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }

    /// How many streams were added; one that was added twice counts twice.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// How many entries the request has.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The protobuf bytes, before compression.
    pub fn raw(&self) -> &[u8] {
        self.buffer.raw()
    }

    /// The body to send. The contents stay until [`clear`](LokiPush::clear), so that the same request
    /// can be tried again.
    pub fn finish(&mut self) -> &[u8] {
        self.buffer.pack()
    }
}

/// A body as Loki reads it, for tests of those who make requests.
#[cfg(test)]
pub(crate) fn read_push(body: &[u8]) -> super::proto::PushRequest {
    let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap_or_default();
    prost::Message::decode(&raw[..]).unwrap_or_default()
}

/// Seconds rounded down and the nanoseconds from there on, as `google.protobuf.Timestamp` wants them.
fn split(timestamp_ns: i64) -> (i64, i64) {
    (timestamp_ns.div_euclid(NANOS), timestamp_ns.rem_euclid(NANOS))
}

fn timestamp_len(seconds: i64, nanos: i64) -> usize {
    int64_len(1, seconds) + int64_len(2, nanos)
}

fn pair_len(name: &str, value: &str) -> usize {
    string_len(1, name) + string_len(2, value)
}

/// Bytes of an entry in a request.
pub(super) fn entry_bytes(entry: &PushEntry<'_>) -> usize {
    nested_len(2, entry_len(entry))
}

fn entry_len(entry: &PushEntry<'_>) -> usize {
    let (seconds, nanos) = split(entry.timestamp_ns);
    let metadata = entry.metadata.iter().map(|(name, value)| nested_len(3, pair_len(name, value)));
    nested_len(1, timestamp_len(seconds, nanos))
        + string_len(2, entry.line)
        + metadata.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::MAX_BYTES;
    use crate::encode::proto::{
        EntryAdapter, LabelPairAdapter, PushRequest, StreamAdapter, Timestamp,
    };
    use crate::model::Metadata;
    use proptest::prelude::*;
    use prost::Message;

    type Entry = (i64, String, Metadata);

    fn push_entries(entries: &[Entry]) -> impl Iterator<Item = PushEntry<'_>> + Clone {
        entries.iter().map(|(timestamp_ns, line, metadata)| PushEntry {
            timestamp_ns: *timestamp_ns,
            line,
            metadata: metadata.pairs(),
        })
    }

    fn reference(all: &[(String, Vec<Entry>)]) -> PushRequest {
        let entry = |(timestamp_ns, line, metadata): &Entry| {
            let wide = i128::from(*timestamp_ns);
            let seconds = wide.div_euclid(1_000_000_000);
            EntryAdapter {
                timestamp: Some(Timestamp {
                    seconds: i64::try_from(seconds).unwrap(),
                    nanos: i32::try_from(wide - seconds * 1_000_000_000).unwrap(),
                }),
                line: line.clone(),
                structured_metadata: metadata
                    .pairs()
                    .iter()
                    .map(|(name, value)| LabelPairAdapter {
                        name: name.to_owned(),
                        value: value.to_owned(),
                    })
                    .collect(),
            }
        };
        let streams = all.iter().map(|(labels, entries)| StreamAdapter {
            labels: labels.clone(),
            entries: entries.iter().map(entry).collect(),
        });
        PushRequest { streams: streams.collect() }
    }

    #[test]
    fn the_bytes_of_one_line_are_these() {
        let mut push = LokiPush::new();
        let metadata = Metadata::from_iter([("k", "v")]);
        let metadata = metadata.pairs();
        let entry = PushEntry { timestamp_ns: 1_000_000_002, line: "hi", metadata };
        push.stream("{a=\"b\"}", std::iter::once(entry)).unwrap();
        let expected = [
            &[0x0a, 0x1d, 0x0a, 0x07][..],
            b"{a=\"b\"}",
            &[0x12, 0x12, 0x0a, 0x04, 0x08, 0x01, 0x10, 0x02, 0x12, 0x02],
            b"hi",
            &[0x1a, 0x06, 0x0a, 0x01, b'k', 0x12, 0x01, b'v'],
        ]
        .concat();
        assert_eq!(push.raw(), expected);
        assert_eq!((push.len(), push.streams(), push.entries()), (31, 1, 1));
    }

    #[test]
    fn seconds_are_rounded_down_before_1970() {
        assert_eq!(split(-1), (-1, 999_999_999));
        assert_eq!(split(-1_000_000_000), (-1, 0));
        assert_eq!(split(0), (0, 0));
        assert_eq!(split(i64::MIN), (-9_223_372_037, 145_224_192));
        assert_eq!(split(i64::MAX), (9_223_372_036, 854_775_807));
    }

    #[test]
    fn a_full_request_says_so_and_is_as_it_was() {
        let mut push = LokiPush::new();
        let long = "x".repeat(MAX_BYTES / 2);
        let entry = PushEntry { timestamp_ns: 1, line: &long, metadata: Pairs::default() };
        push.stream("{}", std::iter::once(entry)).unwrap();
        let before = push.len();
        assert!(push.stream("{}", std::iter::once(entry)).unwrap_err().needed > MAX_BYTES);
        assert_eq!((push.len(), push.streams(), push.entries()), (before, 1, 1));
        push.clear();
        assert!(push.is_empty());
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_prost(
            all in prop::collection::vec(
                (
                    ".{0,30}",
                    prop::collection::vec(
                        (
                            any::<i64>(),
                            ".{0,200}",
                            prop::collection::vec((".{0,9}", ".{0,9}"), 0..3)
                                .prop_map(Metadata::from_iter),
                        ),
                        0..6,
                    ),
                ),
                0..5,
            )
        ) {
            let mut push = LokiPush::new();
            for (labels, entries) in &all {
                push.stream(labels, push_entries(entries)).unwrap();
            }
            prop_assert_eq!(push.raw(), &reference(&all).encode_to_vec()[..]);
            let raw = snap::raw::Decoder::new().decompress_vec(push.finish()).unwrap();
            prop_assert_eq!(PushRequest::decode(&raw[..]).unwrap(), reference(&all));
        }
    }
}
