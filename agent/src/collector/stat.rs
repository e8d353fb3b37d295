//! node_exporter's `stat`, from /proc/stat (fs/proc/stat.c): the lines that are not about one CPU.
//! Softirqs by vector are off unless asked for, as in node_exporter.
//!
//! The parser is our own because the procfs crate drops the line `intr`.

use super::options::StatOptions;
use super::parse::{FirstError, fields, lines, malformed, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/stat";

const SOFTIRQS: Desc = Desc::counter("node_softirqs_total", "Number of softirq calls.");
/// The columns of the line `softirq` behind the total (include/linux/interrupt.h).
const VECTORS: [&str; 10] = [
    "hi",
    "timer",
    "net_tx",
    "net_rx",
    "block",
    "block_iopoll",
    "tasklet",
    "sched",
    "hrtimer",
    "rcu",
];

const LINES: [(&str, Desc); 6] = [
    ("intr", Desc::counter("node_intr_total", "Total number of interrupts serviced.")),
    ("ctxt", Desc::counter("node_context_switches_total", "Total number of context switches.")),
    ("btime", Desc::gauge("node_boot_time_seconds", "Node boot time, in unixtime.")),
    ("processes", Desc::counter("node_forks_total", "Total number of forks.")),
    ("procs_running", Desc::gauge("node_procs_running", "Number of processes in runnable state.")),
    (
        "procs_blocked",
        Desc::gauge(
            "node_procs_blocked",
            "Number of processes blocked waiting for I/O to complete.",
        ),
    ),
];

/// Interrupts, context switches, forks, boot time, and processes running and blocked.
pub(super) struct Stat {
    softirq: bool,
}

impl Stat {
    pub(super) fn new(options: &StatOptions) -> Stat {
        Stat { softirq: options.softirq }
    }
}

impl Collector for Stat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut found = [false; LINES.len()];
        for line in lines(whole(FILE, host.proc("stat")?, &mut errors)) {
            let mut fields = fields(line);
            let key = fields.next().unwrap_or_default();
            if self.softirq && key == b"softirq" {
                softirqs(line, fields, out).unwrap_or_else(|error| errors.note(error));
                continue;
            }
            let known = LINES.iter().zip(&mut found).find(|((name, _), _)| name.as_bytes() == key);
            let Some(((_, desc), found)) = known else { continue };
            *found = true;
            // `intr` is followed by a number for each interrupt; the first is the total.
            let token = fields.next().unwrap_or_default();
            match unsigned(token) {
                Some(value) => out.value(desc, value as f64),
                None => errors.note(malformed(FILE, line, "a key and a number")),
            }
        }
        if let Some(((name, _), _)) = LINES.iter().zip(found).find(|(_, found)| !found) {
            errors.note(CollectError::parse(FILE, name, "a line with this key"));
        }
        errors.result()
    }
}

fn softirqs<'a>(
    line: &[u8],
    columns: impl Iterator<Item = &'a [u8]>,
    out: &mut Samples,
) -> Result<(), CollectError> {
    let mut family = out.family(&SOFTIRQS);
    let mut columns = columns.skip(1);
    for vector in VECTORS {
        let value = columns.next().and_then(unsigned);
        let value = value.ok_or_else(|| malformed(FILE, line, "a number for each softirq"))?;
        family.add(&[("vector", vector)], value as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn softirqs_are_there_when_asked_for_and_a_short_line_costs_the_rest() {
        let file = "intr 1\nctxt 2\nbtime 3\nprocesses 4\nprocs_running 5\nprocs_blocked 6\n\
                    softirq 99 1 2 x\n";
        let tree = Tree::new(&[(FILE, file)]);
        assert_eq!(tree.collect(&mut Stat::new(&StatOptions::default())).0.len(), 6);
        let (text, result) = tree.collect(&mut Stat::new(&StatOptions { softirq: true }));
        assert_eq!(text.len(), 8);
        assert_eq!(text[7], "node_softirqs_total{vector=\"timer\"} 2");
        assert!(result.unwrap_err().to_string().contains("softirq 99 1 2 x"));
    }
}
