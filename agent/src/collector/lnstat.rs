//! node_exporter's `lnstat`, from all files in /proc/net/stat: what caches and tables of the network have
//! counted on each CPU. Each file begins with a line of names; each further line is a CPU, counted from 0.
//! node_exporter calls all of them counters, sizes too, and so do we. Off unless asked for.

use std::fmt::Write as _;

use super::parse::{FirstError, Span, Texts, decimal, fields, hex, lines, malformed, whole};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Kind, Samples};
use crate::sort;

const HELP: &str = "linux network cache stats";

/// The kernel's longest line has 17.
const MAX_NAMES: usize = 128;

struct Value {
    name: Span,
    file: Span,
    cpu: u32,
    value: u64,
}

/// Counts by CPU.
#[derive(Default)]
pub(super) struct Lnstat {
    files: Names,
    headings: Vec<Span>,
    values: Vec<Value>,
    texts: Texts,
    name: String,
}

impl Collector for Lnstat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.values.clear();
        self.texts.clear();
        host.list(Root::Proc, "net/stat", &mut self.files)?;
        for index in 0..self.files.len() {
            let Some(name) = self.files.get(index) else { break };
            let file = self.texts.keep(name);
            match host.proc(format_args!("net/stat/{name}")) {
                Ok(bytes) => self.read(file, bytes, &mut errors),
                Err(error) => errors.note(error.into()),
            }
        }
        self.write(out);
        errors.result()
    }
}

impl Lnstat {
    fn read(&mut self, file: Span, bytes: &[u8], errors: &mut FirstError) {
        let path = || format!("proc/net/stat/{}", self.texts.get(file));
        if bytes.last().is_some_and(|&byte| byte != b'\n') {
            errors.note(malformed(&path(), bytes, "a line break at the end of the line"));
        }
        let mut lines = lines(whole("", bytes, &mut FirstError::default()));
        let heading = lines.next().unwrap_or_default();
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let bad = fields(heading)
            .find(|name| !name.iter().all(word) || hex(name).is_some_and(|_| name.len() == 8));
        if let Some(bad) = bad {
            return errors.note(malformed(&path(), bad, "a name"));
        }
        self.headings.clear();
        for name in fields(heading) {
            let name = std::str::from_utf8(name).unwrap_or_default();
            // A name that stands twice would make a series twice.
            let texts = &self.texts;
            if self.headings.len() >= MAX_NAMES
                || self.headings.iter().any(|known| texts.get(*known) == name)
            {
                let path = format!("proc/net/stat/{}", self.texts.get(file));
                return errors.note(malformed(&path, name.as_bytes(), "another name"));
            }
            self.headings.push(self.texts.keep(name));
        }
        for (cpu, line) in (0..).zip(lines) {
            let bad = fields(line).find(|token| hex(token).is_none());
            if bad.is_some() || fields(line).count() != self.headings.len() {
                let path = format!("proc/net/stat/{}", self.texts.get(file));
                let token = bad.unwrap_or(line);
                errors.note(malformed(&path, token, "a hexadecimal number for each name"));
                continue;
            }
            for (name, token) in self.headings.iter().zip(fields(line)) {
                let value = hex(token).unwrap_or_default();
                self.values.push(Value { name: *name, file, cpu, value });
            }
        }
    }

    fn write(&mut self, out: &mut Samples) {
        // A family may have values of several files.
        let texts = &self.texts;
        sort::unstable_by(&mut self.values, |a, b| {
            let key = |value: &Value| (texts.get(value.name), texts.get(value.file), value.cpu);
            key(a).cmp(&key(b))
        });
        for value in &self.values {
            self.name.clear();
            // Writing to a String can't fail.
            let _ = write!(self.name, "node_lnstat_{}_total", texts.get(value.name));
            let cpu = decimal(value.cpu.into());
            out.family_named(&self.name, HELP, Kind::Counter).add(
                &[("subsystem", texts.get(value.file)), ("cpu", cpu.as_str())],
                value.value as f64,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, u32, u64)>, Option<String>) {
        let mut lnstat = Lnstat::default();
        let mut errors = FirstError::default();
        let file = lnstat.texts.keep("rt_cache");
        lnstat.read(file, text.as_bytes(), &mut errors);
        let texts = &lnstat.texts;
        let values = lnstat.values.iter().map(|v| (texts.get(v.name).to_owned(), v.cpu, v.value));
        (values.collect(), errors.result().err().map(|error| error.to_string()))
    }

    #[test]
    fn a_heading_of_too_many_names_costs_its_file_and_no_time() {
        let names: String = (0..100_000).map(|n| format!("n{n} ")).collect();
        let (values, error) = read(&format!("{names}\n5 a\n"));
        assert!(values.is_empty() && error.unwrap().contains("n128"));
    }

    #[test]
    fn a_malformed_cpu_costs_itself_and_a_malformed_heading_its_file() {
        let (values, error) = read("entries  in_hit\n00000005 0000000a\n");
        let expected = [("entries".to_owned(), 0, 5), ("in_hit".to_owned(), 0, 10)];
        assert_eq!((values.as_slice(), error), (&expected[..], None));
        for bad in ["1", "1 2 3", "1 x", "1 11111111111111111"] {
            let (values, error) = read(&format!("entries in_hit\n{bad}\n5 a\n"));
            assert_eq!(values, expected.clone().map(|(name, _, value)| (name, 1, value)), "{bad}");
            assert!(error.unwrap().contains("proc/net/stat/rt_cache"), "{bad}");
        }
        for bad in ["a{b c", "a a", "00000005 0000000a"] {
            let (values, error) = read(&format!("{bad}\n5 a\n"));
            assert!(values.is_empty() && error.is_some(), "{bad}");
        }
        assert!(read("entries in_hit\n5 a").1.unwrap().contains("line break"));
        assert_eq!(read(""), (Vec::new(), None));
    }
}
