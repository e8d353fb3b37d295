//! node_exporter's `meminfo`, from /proc/meminfo (fs/proc/meminfo.c): a gauge for every line, also
//! for those that only one architecture or a later kernel has.
//!
//! The parser is our own because the procfs crate keeps only the keys that it knows.

use super::parse::{FirstError, fields, lines, malformed, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Kind, Samples};

const FILE: &str = "proc/meminfo";

/// Every line of /proc/meminfo, in bytes where the line has a unit.
#[derive(Default)]
pub(super) struct Meminfo {
    name: String,
    help: String,
}

impl Collector for Meminfo {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let bytes = host.proc("meminfo")?;
        if bytes.is_empty() {
            errors.note(malformed(FILE, bytes, "a line MemTotal"));
        }
        for line in lines(whole(FILE, bytes, &mut errors)) {
            match self.line(line) {
                Ok(value) => {
                    // As node_exporter; no line of the kernel's ends so.
                    let kind =
                        if self.name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
                    out.family_named(&self.name, &self.help, kind).add(&[], value);
                }
                Err(error) => errors.note(error),
            }
        }
        errors.result()
    }
}

impl Meminfo {
    /// Sets name and help for a line such as `Active(anon):  1234 kB`, and gives its value.
    fn line(&mut self, line: &[u8]) -> Result<f64, CollectError> {
        let mut fields = fields(line);
        let key = fields.next().and_then(|key| key.strip_suffix(b":")).filter(|key| is_key(key));
        let key = key.ok_or_else(|| malformed(FILE, line, "a key with a colon"))?;
        let token = fields.next().unwrap_or_default();
        let number =
            unsigned(token).ok_or_else(|| malformed(FILE, token, "a number of pages or kB"))?;
        let unit = match fields.next() {
            None => false,
            Some(b"kB") => true,
            Some(other) => return Err(malformed(FILE, other, "kB or nothing")),
        };
        self.name.clear();
        self.name.push_str("node_memory_");
        for &byte in key {
            match byte {
                b'(' => self.name.push('_'),
                b')' => {}
                byte => self.name.push(char::from(byte)),
            }
        }
        if unit {
            self.name.push_str("_bytes");
        }
        self.help.clear();
        let field = self.name.strip_prefix("node_memory_").unwrap_or_default();
        ["Memory information field ", field, "."].iter().for_each(|part| self.help.push_str(part));
        let number = number as f64;
        Ok(if unit { number * 1024.0 } else { number })
    }
}

/// Whether a key makes a metric name: letters, digits, underscores and one pair of parentheses.
fn is_key(key: &[u8]) -> bool {
    !key.is_empty()
        && key.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'(' | b')'))
}
