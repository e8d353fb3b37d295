//! node_exporter's `sockstat`, from /proc/net/sockstat and /proc/net/sockstat6 (net/ipv4/proc.c,
//! net/ipv6/proc.c): sockets in use by protocol, and their memory.

use std::fmt::Write as _;

use super::parse::{FirstError, fields, lines, malformed, signed, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Kind, Samples};

const USED: Desc = Desc::gauge("node_sockstat_sockets_used", "Number of IPv4 sockets in use.");

/// `mem` is in pages, `memory` in bytes.
const KEYS: [&str; 6] = ["inuse", "orphan", "tw", "alloc", "mem", "memory"];

/// Sockets by protocol.
#[derive(Default)]
pub(super) struct Sockstat {
    name: String,
    help: String,
}

impl Collector for Sockstat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut found = false;
        for (path, file) in
            [("net/sockstat", "proc/net/sockstat"), ("net/sockstat6", "proc/net/sockstat6")]
        {
            match host.proc(path) {
                Ok(bytes) => {
                    found = true;
                    if bytes.is_empty() {
                        errors.note(malformed(file, bytes, "a line for each protocol"));
                    }
                    for line in lines(whole(file, bytes, &mut errors)) {
                        self.line(file, line, out).unwrap_or_else(|error| errors.note(error));
                    }
                }
                // A kernel without IPv6 has one file only.
                Err(error) if found && error.is_absent() => {}
                Err(error) => errors.note(error.into()),
            }
        }
        errors.result()
    }
}

impl Sockstat {
    /// A line such as `TCP: inuse 5 orphan 0 tw 1 alloc 7 mem 2`. Nothing is written of a malformed one.
    fn line(&mut self, file: &str, line: &[u8], out: &mut Samples) -> Result<(), CollectError> {
        let mut fields = fields(line);
        let protocol = fields.next().and_then(|word| word.strip_suffix(b":")).unwrap_or_default();
        let protocol = std::str::from_utf8(protocol).unwrap_or_default();
        if protocol.is_empty() || !protocol.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed(file, line, "a protocol and a colon"));
        }
        let mut used = None;
        let mut values = [None; KEYS.len()];
        while let Some(key) = fields.next() {
            let token =
                fields.next().ok_or_else(|| malformed(file, line, "pairs of key and number"))?;
            let value = signed(token).ok_or_else(|| malformed(file, token, "a number"))?;
            if key == b"used" {
                used = Some(value);
            }
            let known = KEYS.iter().zip(&mut values).find(|(name, _)| name.as_bytes() == key);
            if let Some((_, slot)) = known {
                *slot = Some(value);
            }
        }
        if protocol == "sockets" {
            let used = used.ok_or_else(|| malformed(file, line, "the key used"))?;
            out.value(&USED, used as f64);
            return Ok(());
        }
        for (key, value) in KEYS.iter().zip(values) {
            match value {
                Some(value) => self.write(protocol, key, value as f64, out),
                // node_exporter has it for each protocol.
                None if *key == "inuse" => self.write(protocol, key, 0.0, out),
                None => {}
            }
            if let (Some(pages), "mem") = (value, *key) {
                let bytes = pages.saturating_mul(rustix::param::page_size() as i64);
                self.write(protocol, "mem_bytes", bytes as f64, out);
            }
        }
        Ok(())
    }

    fn write(&mut self, protocol: &str, key: &str, value: f64, out: &mut Samples) {
        self.name.clear();
        self.help.clear();
        // Writing to a String can't fail.
        let _ = write!(self.name, "node_sockstat_{protocol}_{key}");
        let _ = write!(self.help, "Number of {protocol} sockets in state {key}.");
        out.family_named(&self.name, &self.help, Kind::Gauge).add(&[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Vec<(String, f64)>, Option<String>) {
        let mut out = Samples::with_limit(100);
        let result = Sockstat::default().line("proc/net/sockstat", line.as_bytes(), &mut out);
        let samples = out.iter().map(|sample| (sample.name().to_owned(), sample.value));
        (samples.collect(), result.err().map(|error| error.to_string()))
    }

    #[test]
    fn a_malformed_line_writes_nothing() {
        for bad in [
            "TCP inuse 1",
            "TCP: inuse",
            "TCP: inuse x",
            "T-P: inuse 1",
            ": inuse 1",
            "sockets: a 1",
        ] {
            let (samples, error) = read(bad);
            assert!(samples.is_empty(), "{bad}");
            assert!(error.unwrap().contains("proc/net/sockstat"), "{bad}");
        }
    }

    #[test]
    fn memory_in_pages_is_given_in_bytes_too() {
        let (samples, error) = read("UDP: inuse 4 mem 2 new 7");
        let page = rustix::param::page_size() as f64;
        let expected = [("inuse", 4.0), ("mem", 2.0), ("mem_bytes", 2.0 * page)];
        let expected = expected.map(|(key, value)| (format!("node_sockstat_UDP_{key}"), value));
        assert_eq!((samples.as_slice(), error), (&expected[..], None));
        assert_eq!(read("TCP: mem 9223372036854775807").0.len(), 3);
        assert_eq!(read("sockets: used 7").0, [("node_sockstat_sockets_used".to_owned(), 7.0)]);
    }
}
