//! node_exporter's `netstat`, from /proc/net/netstat, /proc/net/snmp (net/ipv4/proc.c) and
//! /proc/net/snmp6 (net/ipv6/proc.c): the counters of the protocols that `metrics.netstat.fields` matches.
//!
//! The files have 400 fields, of which 45 are wanted, in the same order in each round: what the pattern
//! said of a line of names, or of a field of IPv6, is remembered by its place, and asked again only where
//! another one stands there.

use std::ops::Range;

use super::options::NetstatOptions;
use super::parse::{FirstError, fields, lines, malformed, signed, unsigned, whole};
use super::pattern::Pattern;
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Kind, Samples};

const NETSTAT: &str = "proc/net/netstat";
const SNMP: &str = "proc/net/snmp";
const SNMP6: &str = "proc/net/snmp6";

/// Counters of IP, ICMP, TCP and UDP.
pub(super) struct Netstat {
    choice: Choice,
    /// Of /proc/net/netstat and of /proc/net/snmp.
    tables: [Table; 2],
    name: String,
    help: String,
}

impl Netstat {
    pub(super) fn new(options: &NetstatOptions) -> Netstat {
        let pattern = options.fields.clone();
        Netstat {
            choice: Choice { pattern, ..Choice::default() },
            tables: Default::default(),
            name: String::new(),
            help: String::new(),
        }
    }

    /// Two lines for each protocol: `TcpExt: SyncookiesSent …` and `TcpExt: 0 …`.
    fn pairs(
        &mut self,
        file: &'static str,
        bytes: &[u8],
        errors: &mut FirstError,
        out: &mut Samples,
    ) {
        let bytes = whole(file, bytes, errors);
        if bytes.is_empty() {
            errors.note(malformed(file, bytes, "two lines for each protocol"));
        }
        let mut lines = lines(bytes);
        let mut place = 0;
        while let Some(names) = lines.next() {
            let (heading, values) = (first(names), lines.next().unwrap_or_default());
            let protocol = heading.strip_suffix(b":").unwrap_or_default();
            if protocol.is_empty() || first(values) != heading {
                // Which line belongs to which is not known from here on.
                return errors.note(malformed(file, heading, "two lines of one protocol"));
            }
            let table = &mut self.tables[usize::from(file == SNMP)];
            let line = table.line(place, names, protocol, self.choice.pattern.as_ref());
            place += 1;
            let values = fields(values).skip(1);
            if values.clone().count() != line.count as usize {
                errors.note(malformed(file, heading, "as many names as values"));
                continue;
            }
            let mut wanted = line.wanted;
            for (index, value) in values.enumerate() {
                let Some(next) = table.wanted.get(wanted.start) else { break };
                if wanted.is_empty() || next.0 as usize != index {
                    continue;
                }
                wanted.start += 1;
                let name = table.text.get(next.1.clone()).unwrap_or_default();
                emit(file, protocol, name, value, (&mut self.name, &mut self.help), out)
                    .unwrap_or_else(|error| errors.note(error));
            }
        }
    }

    /// A line for each field, `Ip6InReceives 12`; the protocol ends with the 6. A line whose key has none
    /// is no field of IPv6.
    fn lines(
        &mut self,
        file: &'static str,
        bytes: &[u8],
        errors: &mut FirstError,
        out: &mut Samples,
    ) {
        for line in lines(whole(file, bytes, errors)) {
            let mut fields = fields(line);
            let key = fields.next().unwrap_or_default();
            let Some(six) = key.iter().position(|&byte| byte == b'6') else { continue };
            let Some((protocol, name)) = key.split_at_checked(six + 1) else { continue };
            let value = fields.next().unwrap_or_default();
            self.field(file, protocol, name, value, out).unwrap_or_else(|error| errors.note(error));
        }
    }

    fn field(
        &mut self,
        file: &str,
        protocol: &[u8],
        name: &[u8],
        value: &[u8],
        out: &mut Samples,
    ) -> Result<(), CollectError> {
        if !self.choice.is_wanted(protocol, name) {
            return Ok(());
        }
        emit(file, protocol, name, value, (&mut self.name, &mut self.help), out)
    }
}

fn first(line: &[u8]) -> &[u8] {
    fields(line).next().unwrap_or_default()
}

fn emit(
    file: &str,
    protocol: &[u8],
    name: &[u8],
    value: &[u8],
    buffers: (&mut String, &mut String),
    out: &mut Samples,
) -> Result<(), CollectError> {
    let word = |bytes| {
        let word = std::str::from_utf8(bytes).ok()?;
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(word)
    };
    let protocol = word(protocol)
        .ok_or_else(|| malformed(file, protocol, "a protocol of letters and digits"))?;
    let name = word(name).ok_or_else(|| malformed(file, name, "a key of letters and digits"))?;
    // A counter has 64 bits; Tcp's MaxConn is -1.
    let number = unsigned(value).map(|value| value as f64);
    let number = number.or_else(|| signed(value).map(|value| value as f64));
    let number = number.ok_or_else(|| malformed(file, value, "a number"))?;
    let (family, help) = buffers;
    family.clear();
    help.clear();
    ["node_netstat_", protocol, "_", name].iter().for_each(|part| family.push_str(part));
    ["Statistic ", protocol, name, "."].iter().for_each(|part| help.push_str(part));
    out.family_named(family, help, Kind::Untyped).add(&[], number);
    Ok(())
}

impl Collector for Netstat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.choice.place = 0;
        let mut found = false;
        for (path, file) in [("net/netstat", NETSTAT), ("net/snmp", SNMP), ("net/snmp6", SNMP6)] {
            match host.proc(path) {
                Ok(bytes) if file == SNMP6 => self.lines(file, bytes, &mut errors, out),
                Ok(bytes) => {
                    found = true;
                    self.pairs(file, bytes, &mut errors, out);
                }
                // A kernel without IPv6 has two files only.
                Err(error) if found && file == SNMP6 && error.is_absent() => {}
                Err(error) => errors.note(error.into()),
            }
        }
        errors.result()
    }
}

/// The lines of names of one file, and which of their fields are wanted.
#[derive(Default)]
struct Table {
    /// The lines, one behind the other.
    text: Vec<u8>,
    lines: Vec<Line>,
    /// Numbers of fields in their lines, and where their names lie in the text.
    wanted: Vec<(u32, Range<usize>)>,
}

#[derive(Clone, Default)]
struct Line {
    text: Range<usize>,
    /// Fields.
    count: u32,
    /// Those that are wanted, in [`Table::wanted`].
    wanted: Range<usize>,
}

impl Table {
    /// What is known of the line at this place, which is looked at only if it is another one.
    fn line(
        &mut self,
        place: usize,
        line: &[u8],
        protocol: &[u8],
        pattern: Option<&Pattern>,
    ) -> Line {
        let known = self.lines.get(place);
        if let Some(known) = known.filter(|known| self.text.get(known.text.clone()) == Some(line)) {
            return known.clone();
        }
        // What stood behind it is looked at again, too.
        self.lines.truncate(place);
        let last = self.lines.last().cloned().unwrap_or_default();
        self.text.truncate(last.text.end);
        self.wanted.truncate(last.wanted.end);
        self.text.extend_from_slice(line);
        let (mut count, mut field) = (0, Vec::new());
        for name in fields(line).skip(1) {
            field.clear();
            field.extend_from_slice(protocol);
            field.push(b'_');
            field.extend_from_slice(name);
            if pattern.is_none_or(|pattern| pattern.is_match(&field)) {
                // A name is a part of the line.
                let start = last.text.end + (name.as_ptr().addr() - line.as_ptr().addr());
                self.wanted.push((count, start..start + name.len()));
            }
            count += 1;
        }
        let text = last.text.end..self.text.len();
        let line = Line { text, count, wanted: last.wanted.end..self.wanted.len() };
        self.lines.push(line.clone());
        line
    }
}

/// Which fields of IPv6 are wanted, by their place in the file.
#[derive(Default)]
struct Choice {
    pattern: Option<Pattern>,
    /// The fields as the pattern sees them, `TcpExt_SyncookiesSent`, one behind the other.
    text: Vec<u8>,
    /// Where each ends, and whether it is wanted.
    known: Vec<(u32, bool)>,
    place: usize,
}

impl Choice {
    fn is_wanted(&mut self, protocol: &[u8], name: &[u8]) -> bool {
        let before = self.place.checked_sub(1).and_then(|place| self.known.get(place));
        let start = before.map_or(0, |(end, _)| *end as usize);
        let known = self.known.get(self.place).and_then(|(end, wanted)| {
            let text = self.text.get(start..*end as usize)?;
            let text = text.strip_prefix(protocol)?.strip_prefix(b"_")?;
            (text == name).then_some(*wanted)
        });
        let wanted = known.unwrap_or_else(|| {
            self.known.truncate(self.place);
            self.text.truncate(start);
            self.text.extend_from_slice(protocol);
            self.text.push(b'_');
            self.text.extend_from_slice(name);
            let text = self.text.get(start..).unwrap_or_default();
            let wanted = self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
            // A file of at most 4 MiB.
            self.known.push((self.text.len() as u32, wanted));
            wanted
        });
        self.place += 1;
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(netstat: &mut Netstat, text: &str) -> (Vec<(String, f64)>, Option<String>) {
        let mut errors = FirstError::default();
        let mut out = Samples::with_limit(1_000);
        netstat.choice.place = 0;
        if text.contains(':') || text.is_empty() {
            netstat.pairs(SNMP, text.as_bytes(), &mut errors, &mut out);
        } else {
            netstat.lines(SNMP6, text.as_bytes(), &mut errors, &mut out);
        }
        let samples = out.iter().map(|sample| {
            (sample.name().trim_start_matches("node_netstat_").to_owned(), sample.value)
        });
        (samples.collect(), errors.result().err().map(|error| error.to_string()))
    }

    fn all() -> Netstat {
        Netstat::new(&NetstatOptions { fields: None })
    }

    fn names(samples: &[(String, f64)]) -> Vec<&str> {
        samples.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_malformed_value_costs_itself_and_a_malformed_protocol_its_lines() {
        let good = "Tcp: RtoMin MaxConn\nTcp: 200 -1\n";
        let (samples, error) = read(&mut all(), good);
        assert_eq!(samples, [("Tcp_RtoMin".to_owned(), 200.0), ("Tcp_MaxConn".to_owned(), -1.0)]);
        assert_eq!(error, None);
        for (text, kept, token) in [
            ("Udp: A B\nUdp: x 1\n", &["Udp_B", "Tcp_RtoMin", "Tcp_MaxConn"][..], "\"x\""),
            ("Udp: A B\nUdp: 1\n", &["Tcp_RtoMin", "Tcp_MaxConn"], "\"Udp:\""),
            ("Udp: A-B\nUdp: 1\n", &["Tcp_RtoMin", "Tcp_MaxConn"], "\"A-B\""),
            ("Udp: A\n", &[], "\"Udp:\""),
            ("Udp A\nUdp 1\n", &[], "\"Udp\""),
        ] {
            let (samples, error) = read(&mut all(), &format!("{text}{good}"));
            assert_eq!(names(&samples), kept, "{text}");
            assert!(error.unwrap().contains(token), "{text}");
        }
        assert!(read(&mut all(), "").1.is_some());
    }

    #[test]
    fn fields_of_ipv6_are_split_behind_the_6() {
        let text = "Ip6InReceives \t4\nIcmp6OutType133 \t7\nUdpLite6InErrors 18446744073709551615\n\
                    Odd 1\nIp6Bad\nIp6Worse -\nIp6Good 1\n";
        let (samples, error) = read(&mut all(), text);
        let expected = ["Ip6_InReceives", "Icmp6_OutType133", "UdpLite6_InErrors", "Ip6_Good"];
        assert_eq!(names(&samples), expected);
        assert_eq!(samples[2].1, u64::MAX as f64);
        assert!(error.unwrap().contains("\"\" where a number"));
    }

    #[test]
    fn what_the_pattern_said_is_not_said_of_another_field_in_the_same_place() {
        let mut netstat = Netstat::new(&NetstatOptions::default());
        for _ in 0..2 {
            for (text, kept) in [
                (
                    "Tcp: RtoMin InSegs\nTcp: 1 2\nIp: Forwarding X\nIp: 3 4\n",
                    &["Tcp_InSegs", "Ip_Forwarding"][..],
                ),
                (
                    "Tcp: InSegs RtoMin\nTcp: 2 1\nIp: Forwarding X\nIp: 3 4\n",
                    &["Tcp_InSegs", "Ip_Forwarding"],
                ),
                ("Tc: pInSegs\nTc: 1\n", &[]),
                ("Tcp: InSegs\nTcp: 1\n", &["Tcp_InSegs"]),
            ] {
                for _ in 0..2 {
                    let (samples, error) = read(&mut netstat, text);
                    assert_eq!((names(&samples).as_slice(), error), (kept, None), "{text}");
                }
            }
        }
    }
}
