//! From a message to an entry: labels, structured metadata, time and text, all bounded. It must not know which
//! socket a message came through.

use std::collections::HashMap;
use std::io::Write as _;

use tz::TimeZone;

use super::inbox::Sender;
use super::message::{Message, params, unescape};
use super::{Options, Origin};
use crate::logs::text::Converter;
use crate::logs::{SOURCE, severity};
use crate::model::{Block, Labels};

/// Priority of a message that has none: user, notice (RFC 3164, 4.3.3).
const DEFAULT_PRIORITY: u8 = 13;
/// Sets of labels that are kept made.
const MAX_STREAMS: usize = 256;
/// Bytes of a label's value and of a value of the metadata.
const MAX_VALUE: usize = 1 << 10;
/// Parameters of structured data of one message, and bytes of all their names and values.
const MAX_PARAMS: usize = 32;
const MAX_PARAMS_BYTES: usize = 8 << 10;
/// A time that is earlier than the last one by less is moved behind it; by more, the clock was set.
const STEP_NS: i64 = 10_000_000_000;

/// What has been made so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) truncated_lines: u64,
    pub(super) invalid_utf8: u64,
    pub(super) malformed: u64,
    pub(super) dropped_metadata: u64,
}

/// Pairs of one entry in memory that is used again.
#[derive(Debug, Default)]
struct Pairs {
    text: String,
    /// Ends of name and value.
    ends: Vec<(usize, usize)>,
}

impl Pairs {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn push(&mut self, name: impl Iterator<Item = char>, value: &str) {
        self.text.extend(name);
        let name = self.text.len();
        self.text.push_str(value);
        self.ends.push((name, self.text.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(name, value)| {
            let pair = (self.text.get(start..name), self.text.get(name..value));
            start = value;
            (pair.0.unwrap_or_default(), pair.1.unwrap_or_default())
        })
    }
}

/// Makes entries.
#[derive(Debug)]
pub(super) struct Writer {
    /// Labels by socket, priority, tag and host.
    streams: HashMap<Box<[u8]>, Labels>,
    key: Vec<u8>,
    pairs: Pairs,
    converter: Converter,
    value: Converter,
    unescaped: Vec<u8>,
    /// This host's name, which its own messages need not repeat.
    hostname: String,
    zone: TimeZone,
    /// The last time that was given out.
    last_ns: i64,
    /// How many times were taken from messages.
    taken: i64,
    pub(super) counters: Counters,
}

impl Writer {
    /// `now_ns`: what it numbers is set apart from what the one before it did, a message in a microsecond at most.
    pub(super) fn new(hostname: String, zone: TimeZone, now_ns: i64) -> Writer {
        Writer {
            streams: HashMap::new(),
            key: Vec::new(),
            pairs: Pairs::default(),
            converter: Converter::default(),
            value: Converter::default(),
            unescaped: Vec::new(),
            hostname,
            zone,
            last_ns: i64::MIN,
            taken: now_ns.div_euclid(1_000),
            counters: Counters::default(),
        }
    }

    /// Puts a message into the block; an empty one is none. `cut`: more of it was not kept.
    pub(super) fn write(
        &mut self,
        block: &mut Block,
        options: &Options,
        bytes: &[u8],
        received_ns: i64,
        sender: Sender,
        cut: bool,
    ) {
        // Python ends datagrams with a NUL byte, others with a line break.
        let end = bytes
            .iter()
            .rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0))
            .map_or(0, |at| at + 1);
        let trimmed = bytes.get(..end).unwrap_or_default();
        if trimmed.is_empty() {
            return;
        }
        let message = Message::parse(trimmed, sender.origin);
        let time = self.time(&message, options, received_ns);
        self.counters.malformed += u64::from(message.malformed);
        self.metadata(&message, sender);
        let labels = self.labels(&message, options, sender);
        let Some(stream) = block.stream(labels) else {
            // A block is full long before it has as many streams.
            return;
        };
        let line = self.converter.text(message.text, options.max_line);
        self.counters.truncated_lines += u64::from(line.truncated || cut);
        self.counters.invalid_utf8 += u64::from(line.replaced);
        self.counters.lines += 1;
        self.counters.bytes += bytes.len() as u64;
        block.push_with(stream, time, line.text, self.pairs.iter());
    }

    /// The time of reception, or the message's own. No two are the same: Loki takes an entry that repeats
    /// another's time and text for the same. Messages give whole seconds, milliseconds or microseconds, of one
    /// sender after the other or mixed; what they don't give is used to number them.
    fn time(&mut self, message: &Message<'_>, options: &Options, received_ns: i64) -> i64 {
        let carried = match message.stamp {
            Some(stamp) if options.use_timestamp => stamp.resolve(received_ns, &self.zone),
            _ => None,
        };
        if let Some(time) = carried {
            let free = if time % 1_000_000 == 0 { 1_000_000 } else { 1_000 };
            self.taken = self.taken.wrapping_add(1);
            return time.saturating_add(self.taken.rem_euclid(free));
        }
        let behind = self.last_ns.saturating_sub(received_ns);
        let late = (0..STEP_NS).contains(&behind);
        self.last_ns = if late { self.last_ns.saturating_add(1) } else { received_ns };
        self.last_ns
    }

    fn labels(&mut self, message: &Message<'_>, options: &Options, sender: Sender) -> &Labels {
        let priority = message.priority.unwrap_or(DEFAULT_PRIORITY);
        let remote = sender.origin == Origin::Remote;
        self.key.clear();
        self.key.extend_from_slice(&sender.socket.to_le_bytes());
        self.key.push(priority);
        self.key.extend_from_slice(&message.tag.len().to_le_bytes());
        self.key.extend_from_slice(message.tag);
        let host = self.key.len();
        if remote {
            self.key.extend_from_slice(message.host);
            if let (b"", Some(ip)) = (message.host, sender.ip) {
                // Writing to memory can't fail.
                let _ = write!(self.key, "{}", ip.to_canonical());
            }
        }
        if !self.streams.contains_key(self.key.as_slice()) {
            if self.streams.len() >= MAX_STREAMS {
                self.streams.clear();
            }
            let mut labels = options.labels.clone();
            labels.set(SOURCE, "syslog");
            labels.set("transport", "syslog");
            labels.set("level", severity::level(priority & 7));
            if let Some(facility) = severity::facility(u32::from(priority >> 3)) {
                labels.set("facility", facility);
            }
            if !message.tag.is_empty() {
                labels.set("syslog_identifier", self.value.text(message.tag, MAX_VALUE).text);
            }
            if let Some(host) = self.key.get(host..).filter(|host| !host.is_empty()) {
                labels.set("host", self.value.text(host, MAX_VALUE).text);
            }
            self.streams.insert(self.key.as_slice().into(), labels);
        }
        self.streams.entry(self.key.as_slice().into()).or_default()
    }

    fn metadata(&mut self, message: &Message<'_>, sender: Sender) {
        self.pairs.clear();
        let local = sender.origin != Origin::Remote && message.host != self.hostname.as_bytes();
        let host = if local { message.host } else { b"" };
        for (name, value) in [("hostname", host), ("pid", message.pid), ("msgid", message.msgid)] {
            if !value.is_empty() {
                self.pairs.push(name.chars(), self.value.text(value, MAX_VALUE).text);
            }
        }
        let first = self.pairs.ends.len();
        let mut out = 0;
        for (id, name, value) in params(message.structured) {
            let bytes = id.len() + name.len() + value.len();
            let full = self.pairs.text.len() + bytes > MAX_PARAMS_BYTES;
            if full || self.pairs.ends.len() - first >= MAX_PARAMS || name.is_empty() {
                out += 1;
                continue;
            }
            self.unescaped.clear();
            unescape(value, &mut self.unescaped);
            let word = |byte: &u8| {
                let c = char::from(*byte);
                if c.is_ascii_alphanumeric() { c } else { '_' }
            };
            let name =
                "sd_".chars().chain(id.iter().map(word)).chain(['_']).chain(name.iter().map(word));
            self.pairs.push(name, self.value.text(&self.unescaped, MAX_VALUE).text);
        }
        self.counters.dropped_metadata += out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(use_timestamp: bool) -> Options {
        Options {
            listen: "unix:///dev/log".parse().unwrap(),
            allow: Vec::new(),
            labels: Labels::from_pairs([("job", "syslog")]).unwrap(),
            max_line: 20,
            use_timestamp,
            idle_timeout: std::time::Duration::from_secs(1),
            max_connections: 1,
        }
    }

    fn writer() -> Writer {
        Writer::new("nas".into(), TimeZone::utc(), 0)
    }

    fn sender(origin: Origin) -> Sender {
        let ip = (origin == Origin::Remote).then(|| "::ffff:10.0.0.9".parse().unwrap());
        Sender { socket: 0, origin, ip }
    }

    type Entry = (String, i64, String, Vec<(String, String)>);

    fn entries(block: &Block) -> Vec<Entry> {
        block
            .entries()
            .map(|entry| {
                let labels = block.streams()[usize::from(entry.stream.0)].to_string();
                let pairs =
                    entry.metadata.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                (labels, entry.timestamp_ns, entry.line.to_owned(), pairs)
            })
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_and_metadata_say_what_the_message_says() {
        let (mut writer, mut block) = (writer(), Block::new());
        let mut write = |bytes: &[u8], origin| {
            writer.write(&mut block, &options(false), bytes, 5, sender(origin), false);
        };
        write(b"<30>Nov 21 08:00:01 dnsmasq[7]: hello\n\0", Origin::Local);
        write(b"<30>Nov 21 08:00:01 nas dnsmasq[7]: hello", Origin::Loopback);
        write(b"<30>Nov 21 08:00:01 other dnsmasq: hello", Origin::Loopback);
        write(b"<0>1 - router fw 9 M [a@1 b.c=\"x\\]y\"] \xff", Origin::Remote);
        write(b"no header, \xc3\xbc and too long a line", Origin::Remote);
        write(b"\n", Origin::Remote);
        let local = "{__source__=\"syslog\", facility=\"daemon\", job=\"syslog\", level=\"info\", syslog_identifier=\"dnsmasq\", transport=\"syslog\"}";
        let got = entries(&block);
        assert_eq!(got[0], (local.into(), 5, "hello".into(), pairs(&[("pid", "7")])));
        assert_eq!(got[1], (local.into(), 6, "hello".into(), pairs(&[("pid", "7")])));
        assert_eq!(got[2], (local.into(), 7, "hello".into(), pairs(&[("hostname", "other")])));
        let remote = "{__source__=\"syslog\", facility=\"kern\", host=\"router\", job=\"syslog\", level=\"emerg\", syslog_identifier=\"fw\", transport=\"syslog\"}";
        let expected = pairs(&[("pid", "9"), ("msgid", "M"), ("sd_a_1_b_c", "x]y")]);
        assert_eq!(got[3], (remote.into(), 8, "\u{fffd}".into(), expected));
        let unknown = "{__source__=\"syslog\", facility=\"user\", host=\"10.0.0.9\", job=\"syslog\", level=\"notice\", transport=\"syslog\"}";
        assert_eq!(got[4], (unknown.into(), 9, "no header, ü and to".into(), pairs(&[])));
        assert_eq!(got.len(), 5);
        let counters = writer.counters;
        assert_eq!((counters.lines, counters.truncated_lines, counters.invalid_utf8), (5, 1, 1));
    }

    #[test]
    fn own_times_are_taken_only_when_wanted_and_no_two_are_the_same() {
        let (mut first, mut block) = (writer(), Block::new());
        let now = 1_732_176_000_000_000_000; // 2024-11-21T08:00:00Z
        let write = |writer: &mut Writer, block: &mut _, own, text: &str| {
            let sender = sender(Origin::Local);
            writer.write(block, &options(own), text.as_bytes(), now, sender, false);
        };
        for (own, text) in [
            (true, "<30>Nov 21 07:59:01 a: x"),
            (true, "<30>Nov 21 07:59:01 a: x"),
            (true, "<30>Nov 21 07:59:02 a: x"),
            (true, "<30>Nov 21 07:59:01 a: x"),
            (true, "<30>1 2024-11-21T07:59:01.123456Z - a - - - x"),
            (true, "<30>a: x"),
            (false, "<30>Nov 21 07:59:01 a: x"),
        ] {
            write(&mut first, &mut block, own, text);
        }
        // After a reload.
        let mut second = Writer::new("nas".into(), TimeZone::utc(), 9_000);
        write(&mut second, &mut block, true, "<30>Nov 21 07:59:01 a: x");
        let times: Vec<_> = entries(&block).iter().map(|entry| entry.1 - now).collect();
        let minute = -59_000_000_000;
        let same = [minute + 1, minute + 2, minute + 1_000_000_003, minute + 4];
        assert_eq!(times[..4], same);
        assert_eq!(times[4..], [minute + 123_456_005, 0, 1, minute + 10]);
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed_and_a_trembling_one_is_not() {
        let (mut writer, mut block) = (writer(), Block::new());
        for received in [100, 90, 90, 200, 200 - STEP_NS, 300 - STEP_NS] {
            writer.write(
                &mut block,
                &options(false),
                b"<1>x",
                received,
                sender(Origin::Local),
                false,
            );
        }
        let times: Vec<_> = entries(&block).iter().map(|entry| entry.1).collect();
        assert_eq!(times, [100, 101, 102, 200, 200 - STEP_NS, 300 - STEP_NS]);
    }

    #[test]
    fn structured_data_and_streams_without_end_stay_bounded() {
        let (mut writer, mut block) = (writer(), Block::new());
        let many: String = (0..100).map(|n| format!(" p{n}=\"v\"")).collect();
        let long = format!("<1>1 - - - - - [x{many}][y z=\"{}\"] t", "v".repeat(9_000));
        writer.write(&mut block, &options(false), long.as_bytes(), 0, sender(Origin::Local), false);
        assert_eq!(entries(&block)[0].3.len(), MAX_PARAMS);
        assert_eq!(writer.counters.dropped_metadata, 69);
        for n in 0..3 * MAX_STREAMS {
            let text = format!("<1>tag{n}x: t");
            writer.write(
                &mut block,
                &options(false),
                text.as_bytes(),
                0,
                sender(Origin::Local),
                false,
            );
        }
        assert!(writer.streams.len() <= MAX_STREAMS);
    }
}
