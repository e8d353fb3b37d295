//! Loki's push as JSON, for gateways that take nothing else: streams and their entries straight into the
//! bytes of a request, uncompressed. Nothing but the reused buffer is held, whatever the number of lines.
//!
//! ```json
//! {"streams":[{"stream":{"job":"a"},"values":[["1794600000000000000","line",{"pid":"1"}]]}]}
//! ```
//!
//! It must not know where entries come from, nor which of them Loki would refuse.

use std::io::Write;

use super::loki::PushEntry;
use super::wire::{Full, MAX_BYTES};
use crate::model::Labels;

const HEAD: &[u8] = b"{\"streams\":[";
const TAIL: &[u8] = b"]}";

/// A request under construction.
#[derive(Debug, Default)]
pub struct JsonPush {
    raw: Vec<u8>,
    entries: usize,
    /// The end is written.
    finished: bool,
}

impl JsonPush {
    /// Forgets the contents and keeps the memory.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.entries = 0;
        self.finished = false;
    }

    /// Adds a stream: its labels as a JSON object, and entries.
    ///
    /// # Errors
    /// The request would pass [`MAX_BYTES`]; it is as it was.
    pub fn stream<'a>(
        &mut self,
        labels: &str,
        entries: impl Iterator<Item = PushEntry<'a>>,
    ) -> Result<(), Full> {
        let before = self.raw.len();
        self.raw.extend_from_slice(if before == 0 { HEAD } else { b"," });
        self.raw.extend_from_slice(b"{\"stream\":");
        self.raw.extend_from_slice(labels.as_bytes());
        self.raw.extend_from_slice(b",\"values\":[");
        let mut count = 0;
        for entry in entries {
            if count > 0 {
                self.raw.push(b',');
            }
            self.entry(&entry);
            count += 1;
            if self.raw.len() > MAX_BYTES {
                break;
            }
        }
        self.raw.extend_from_slice(b"]}");
        let needed = self.raw.len() + TAIL.len();
        if needed > MAX_BYTES {
            self.raw.truncate(before);
            return Err(Full { needed });
        }
        self.entries += count;
        Ok(())
    }

    fn entry(&mut self, entry: &PushEntry<'_>) {
        // Writing to memory never fails.
        let _ = write!(self.raw, "[\"{}\",", entry.timestamp_ns);
        string(&mut self.raw, entry.line);
        if !entry.metadata.is_empty() {
            self.raw.push(b',');
            pairs(&mut self.raw, entry.metadata.iter());
        }
        self.raw.push(b']');
    }

    /// Bytes of the whole request.
    pub fn len(&self) -> usize {
        match self.raw.len() {
            0 => 0,
            len if self.finished => len,
            len => len + TAIL.len(),
        }
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// How many entries the request has.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The body to send. The contents stay until [`clear`](JsonPush::clear).
    pub fn finish(&mut self) -> &[u8] {
        if !self.finished {
            let missing: &[u8] = if self.raw.is_empty() { HEAD } else { b"" };
            self.raw.extend_from_slice(missing);
            self.raw.extend_from_slice(TAIL);
            self.finished = true;
        }
        &self.raw
    }
}

/// Labels as a JSON object.
pub(super) fn object(labels: &Labels) -> String {
    let mut out = Vec::new();
    pairs(&mut out, labels.iter());
    // Always text: names, values and ASCII between them.
    String::from_utf8(out).unwrap_or_default()
}

/// Bytes of an entry in a request, with the comma after it.
pub(super) fn entry_len(entry: &PushEntry<'_>) -> usize {
    // Brackets, quotes, commas and the longest time.
    let pairs = entry.metadata.iter().map(|(name, value)| string_len(name) + string_len(value) + 2);
    string_len(entry.line) + 28 + pairs.sum::<usize>()
}

fn string_len(text: &str) -> usize {
    text.bytes().map(escaped_len).sum::<usize>() + 2
}

fn escaped_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

fn pairs<'a>(out: &mut Vec<u8>, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    out.push(b'{');
    for (index, (name, value)) in pairs.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// A string as RFC 8259 wants it: quotes, backslashes and control characters escaped, all else as it is.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| escaped_len(*byte) > 1) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = from.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // Writing to memory never fails.
            byte => drop(write!(out, "\\u{byte:04x}")),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, Pairs};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    type Entry = (i64, String, Metadata);

    fn push_entries(entries: &[Entry]) -> impl Iterator<Item = PushEntry<'_>> + Clone {
        entries.iter().map(|(timestamp_ns, line, metadata)| PushEntry {
            timestamp_ns: *timestamp_ns,
            line,
            metadata: metadata.pairs(),
        })
    }

    #[test]
    fn the_bytes_of_one_line_are_these() {
        let mut push = JsonPush::default();
        let metadata = Metadata::from_iter([("k", "v\"")]);
        let entry = PushEntry {
            timestamp_ns: 1_000_000_002,
            line: "h\\i\n\u{1}ü\u{7f}",
            metadata: metadata.pairs(),
        };
        let labels = object(&Labels::from_pairs([("a", "b"), ("c", "\t")]).unwrap());
        push.stream(&labels, std::iter::once(entry)).unwrap();
        let expected = "{\"streams\":[{\"stream\":{\"a\":\"b\",\"c\":\"\\t\"},\"values\":[[\"1000000002\",\
                        \"h\\\\i\\n\\u0001ü\u{7f}\",{\"k\":\"v\\\"\"}]]}]}";
        assert_eq!((push.len(), push.entries()), (expected.len(), 1));
        assert_eq!(std::str::from_utf8(push.finish()).unwrap(), expected);
        assert_eq!(std::str::from_utf8(push.finish()).unwrap(), expected, "twice is once");
        assert_eq!(push.len(), expected.len());
    }

    #[test]
    fn a_full_request_says_so_and_is_as_it_was() {
        let mut push = JsonPush::default();
        let long = "x".repeat(MAX_BYTES / 2);
        let entry = PushEntry { timestamp_ns: 1, line: &long, metadata: Pairs::default() };
        push.stream("{}", std::iter::once(entry)).unwrap();
        let before = push.len();
        assert!(push.stream("{}", [entry, entry].into_iter()).unwrap_err().needed > MAX_BYTES);
        assert_eq!((push.len(), push.entries()), (before, 1));
        push.clear();
        assert!(push.is_empty());
        assert_eq!(push.finish(), b"{\"streams\":[]}");
    }

    proptest! {
        #[test]
        fn serde_json_reads_what_was_written_and_no_entry_is_longer_than_it_was_counted(
            all in prop::collection::vec(
                (
                    prop::collection::btree_map("[a-z_]{1,5}", "(?s).{0,30}", 0..4),
                    prop::collection::vec(
                        (
                            any::<i64>(),
                            "(?s).{0,200}",
                            prop::collection::btree_map("(?s).{1,9}", "(?s).{0,9}", 0..3)
                                .prop_map(Metadata::from_iter),
                        ),
                        1..6,
                    ),
                ),
                0..5,
            )
        ) {
            let mut push = JsonPush::default();
            for (labels, entries) in &all {
                let labels = object(&Labels::from_pairs(labels.clone()).unwrap());
                let (mut lens, mut before) = (0, push.len());
                push.stream(&labels, push_entries(entries)).unwrap();
                lens += push_entries(entries).map(|entry| entry_len(&entry)).sum::<usize>();
                before += labels.len() + 64;
                prop_assert!(push.len() <= before + lens);
            }
            let expected = json!({ "streams": all.iter().map(|(labels, entries)| json!({
                "stream": labels,
                "values": entries.iter().map(|(ns, line, metadata)| {
                    let mut value = vec![json!(ns.to_string()), json!(line)];
                    let pairs: serde_json::Map<String, Value> =
                        metadata.pairs().iter().map(|(n, v)| (n.to_owned(), json!(v))).collect();
                    if !pairs.is_empty() {
                        value.push(Value::Object(pairs));
                    }
                    Value::Array(value)
                }).collect::<Vec<_>>(),
            })).collect::<Vec<_>>() });
            let read: Value = serde_json::from_slice(push.finish()).unwrap();
            prop_assert_eq!(read, expected);
        }
    }
}
