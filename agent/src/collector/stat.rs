//! node_exporter's `stat`, from /proc/stat (fs/proc/stat.c): the lines that are not about one CPU.
//! Interrupts by softirq vector are off in node_exporter unless asked for, and left out here.
//!
//! The parser is our own because the procfs crate drops the line `intr`.

use super::parse::{FirstError, fields, lines, malformed, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/stat";

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
pub(super) struct Stat;

impl Collector for Stat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut found = [false; LINES.len()];
        for line in lines(whole(FILE, host.proc("stat")?, &mut errors)) {
            let mut fields = fields(line);
            let key = fields.next().unwrap_or_default();
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
