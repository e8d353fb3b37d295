//! node_exporter's `schedstat`, from the lines of the CPUs in /proc/schedstat (kernel/sched/stats.c,
//! versions 14 to 17, whose last three columns are the same).

use super::parse::{FirstError, fields, lines, malformed, text, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/schedstat";

/// Families of the columns from the seventh on, and what their unit is divided by.
const COLUMNS: [(Desc, f64); 3] = [
    (
        Desc::counter(
            "node_schedstat_running_seconds_total",
            "Number of seconds CPU spent running a process.",
        ),
        1e9,
    ),
    (
        Desc::counter(
            "node_schedstat_waiting_seconds_total",
            "Number of seconds spent by processing waiting for this CPU.",
        ),
        1e9,
    ),
    (
        Desc::counter("node_schedstat_timeslices_total", "Number of timeslices executed by CPU."),
        1.0,
    ),
];
const FIRST: usize = 6;

/// How long processes ran and waited on each CPU.
pub(super) struct Schedstat;

impl Collector for Schedstat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let bytes = whole(FILE, host.proc("schedstat")?, &mut errors);
        for (index, (desc, unit)) in COLUMNS.iter().enumerate() {
            let mut family = out.family(desc);
            for line in lines(bytes) {
                let mut columns = fields(line);
                let name = columns.next().unwrap_or_default();
                let Some(cpu) = name.strip_prefix(b"cpu") else { continue };
                let value = columns.nth(FIRST + index).and_then(unsigned);
                match value.filter(|_| unsigned(cpu).is_some()) {
                    Some(value) => family.add(&[("cpu", &text(cpu))], value as f64 / unit),
                    None => {
                        errors.note(malformed(FILE, line, "a CPU and nine numbers"));
                        continue;
                    }
                };
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
    fn a_malformed_cpu_leaves_the_others() {
        let file = "version 15\ntimestamp 4294\ncpu0 0 0 0 0 0 0 1500000000 2 3\ndomain0 3 1\n\
                    cpux 0 0 0 0 0 0 1 2 3\ncpu1 0 0 0 0 0 0 4 -5 6\ncpu2 0 0 0";
        let (text, result) = Tree::new(&[(FILE, file)]).collect(&mut Schedstat);
        assert_eq!(
            text,
            [
                "node_schedstat_running_seconds_total{cpu=\"0\"} 1.5",
                "node_schedstat_running_seconds_total{cpu=\"1\"} 0.000000004",
                "node_schedstat_waiting_seconds_total{cpu=\"0\"} 0.000000002",
                "node_schedstat_timeslices_total{cpu=\"0\"} 3",
                "node_schedstat_timeslices_total{cpu=\"1\"} 6",
            ]
        );
        assert!(result.unwrap_err().to_string().contains("cpu2 0 0 0"));
    }
}
