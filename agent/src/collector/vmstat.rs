//! node_exporter's `vmstat`, from /proc/vmstat (mm/vmstat.c), with its default choice of fields
//! or the user's.
//!
//! The parser is our own because the procfs crate makes a map of all 180 lines, of which 7 are wanted.

use std::fmt::Write as _;

use super::options::VmstatOptions;
use super::parse::{FirstError, fields, lines, malformed, unsigned, whole};
use super::{CollectError, Collector, Pattern};
use crate::host::Host;
use crate::model::{Kind, Samples};

const FILE: &str = "proc/vmstat";

/// The counters of paging, swapping, faults and OOM kills; pages, not bytes.
pub(super) struct Vmstat {
    /// None is the default, for which no expression need run.
    fields: Option<Pattern>,
    name: String,
    help: String,
}

impl Vmstat {
    pub(super) fn new(options: &VmstatOptions) -> Vmstat {
        Vmstat { fields: options.fields.clone(), name: String::new(), help: String::new() }
    }

    fn is_wanted(&self, key: &[u8]) -> bool {
        self.fields.as_ref().map_or_else(|| is_wanted(key), |fields| fields.is_match(key))
    }
}

impl Collector for Vmstat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let bytes = host.proc("vmstat")?;
        if bytes.is_empty() {
            errors.note(malformed(FILE, bytes, "a line pgpgin"));
        }
        for line in lines(whole(FILE, bytes, &mut errors)) {
            let mut fields = fields(line);
            let Some(key) = fields.next().filter(|key| self.is_wanted(key)) else { continue };
            let key = match std::str::from_utf8(key) {
                Ok(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => key,
                _ => {
                    errors.note(malformed(FILE, key, "a key of letters, digits and underscores"));
                    continue;
                }
            };
            let token = fields.next().unwrap_or_default();
            let Some(value) = unsigned(token) else {
                errors.note(malformed(FILE, line, "a key and a number"));
                continue;
            };
            self.name.clear();
            self.help.clear();
            // Writing to a String can't fail.
            let _ = write!(self.name, "node_vmstat_{key}");
            let _ = write!(self.help, "/proc/vmstat information field {key}.");
            out.family_named(&self.name, &self.help, Kind::Untyped).add(&[], value as f64);
        }
        errors.result()
    }
}

/// node_exporter's default pattern, `^(oom_kill|pgpg|pswp|pg.*fault).*`.
fn is_wanted(key: &[u8]) -> bool {
    key.starts_with(b"oom_kill")
        || key.starts_with(b"pgpg")
        || key.starts_with(b"pswp")
        || key.strip_prefix(b"pg").is_some_and(|rest| rest.windows(5).any(|part| part == b"fault"))
}

#[cfg(test)]
mod tests {
    use super::super::pattern;
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn the_fields_of_the_user_take_the_place_of_the_default() {
        let tree = Tree::new(&[(FILE, "pgpgin 1\nnr_free_pages 2\nnr_dirty x\nswap_ra y\n")]);
        let options = VmstatOptions { fields: pattern("^nr_").ok() };
        let (text, result) = tree.collect(&mut Vmstat::new(&options));
        assert_eq!(text, ["node_vmstat_nr_free_pages 2"]);
        assert!(result.unwrap_err().to_string().contains("nr_dirty x"));
    }

    #[test]
    fn the_default_fields_and_no_others() {
        for wanted in ["oom_kill", "pgpgin", "pswpout", "pgfault", "pgmajfault", "pgfaults"] {
            assert!(is_wanted(wanted.as_bytes()), "{wanted}");
        }
        for other in ["pgalloc_dma", "nr_free_pages", "thp_fault_alloc", "pg", "", "swap_ra"] {
            assert!(!is_wanted(other.as_bytes()), "{other}");
        }
    }
}
