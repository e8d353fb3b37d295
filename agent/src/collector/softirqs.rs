//! node_exporter's `softirqs` (since its version 1.6.0), from /proc/softirqs (fs/proc/softirqs.c): a column
//! for each CPU that there may be, a line for each kind.

use super::interrupts::header;
use super::parse::{FirstError, decimal, fields, lines, malformed, text, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/softirqs";
const TOTAL: Desc = Desc::counter("node_softirqs_functions_total", "Softirq counts per CPU.");

/// Soft interrupts by CPU and kind.
#[derive(Default)]
pub(super) struct Softirqs {
    cpus: Vec<u64>,
}

impl Collector for Softirqs {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut rows = lines(whole(FILE, host.proc("softirqs")?, &mut errors));
        self.cpus.clear();
        header(FILE, rows.next().unwrap_or_default(), &mut self.cpus)?;
        let mut family = out.family(&TOTAL);
        for row in rows {
            let mut columns = fields(row);
            let name = columns.next().and_then(|name| name.strip_suffix(b":"));
            let Some(kind) = name.map(text) else {
                errors.note(malformed(FILE, row, "a name and a colon"));
                continue;
            };
            for cpu in &self.cpus {
                let Some(value) = columns.next().and_then(unsigned) else {
                    errors.note(malformed(FILE, row, "a number for each CPU"));
                    break;
                };
                family.add(&[("cpu", &decimal(*cpu)), ("type", &kind)], value as f64);
            }
        }
        errors.result()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn a_malformed_number_leaves_those_before_it() {
        let file = "     CPU0 CPU1\n  HI: 1 2\nTIMER: 3\nRCU 4 5\nNET_RX: 6 7\n";
        let (text, result) = Tree::new(&[(FILE, file)]).collect(&mut Softirqs::default());
        let line = |cpu, kind, value| {
            format!("node_softirqs_functions_total{{cpu=\"{cpu}\",type=\"{kind}\"}} {value}")
        };
        let want = [
            line(0, "HI", 1),
            line(1, "HI", 2),
            line(0, "TIMER", 3),
            line(0, "NET_RX", 6),
            line(1, "NET_RX", 7),
        ];
        assert_eq!(text, want);
        assert!(result.unwrap_err().to_string().contains("TIMER: 3"));
    }
}
