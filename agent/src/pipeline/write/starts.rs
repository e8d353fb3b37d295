//! Since when counters have been counting, by what each round says itself: `node_boot_time_seconds` for
//! the kernel's, `process_start_time_seconds` for the agent's. It must not know requests.
//!
//! Both times are differences between two clocks, so that they move by a second from round to round, and
//! further as the wall clock is slewed. A receiver would take each move for a new start; so a start is the
//! one of the round before, unless it has moved by more than a clock is slewed between two looks.
//!
//! Only what is certain gets a start: counters that nothing but a boot sets to zero, what the agent has
//! counted since it began, and the probes' histograms with buckets, which only their programs have. Devices
//! and interfaces come and go, without BPF the probes' counters are the kernel's, a reload begins some of
//! `mote_*` anew, and of files and scraped targets nothing is known.

use crate::encode::{Round, Series, Table};
use crate::model::Kind;

/// A boot time moves on with the clock by less than this, or else there was a boot, or the clock was set.
const BOOT_MS: i64 = 10_000;

/// How long the kernel ran before the agent began moves by the rounding of both times.
const PROCESS_MS: i64 = 2_000;

/// Counters of the kernel's that nothing resets.
const KERNEL: [&str; 9] = [
    "node_context_switches_total",
    "node_cpu_guest_seconds_total",
    "node_cpu_seconds_total",
    "node_forks_total",
    "node_interrupts_total",
    "node_intr_total",
    "node_schedstat_",
    "node_softirqs_",
    "node_softnet_",
];

/// The starts by one round, in milliseconds since the Unix epoch; 0 where the round does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) boot_ms: i64,
    pub(super) process_ms: i64,
}

/// What a counter has been counting since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Unknown,
    Boot,
    Process,
}

impl Since {
    pub(super) fn of(series: &Series<'_>) -> Since {
        if series.kind != Kind::Counter {
            return Since::Unknown;
        }
        let name = series.name();
        let since = if name == "process_cpu_seconds_total" {
            Since::Process
        } else if KERNEL.iter().any(|kernel| name.starts_with(kernel)) {
            Since::Boot
        } else {
            return Since::Unknown;
        };
        // Those of a scraped target have labels that say whose they are.
        let foreign = series.own_labels().any(|(name, _)| matches!(name, "job" | "instance"));
        if foreign { Since::Unknown } else { since }
    }

    /// The start for a sample of this time; 0 if there is none.
    pub(super) fn at(self, start: Start, timestamp_ms: i64) -> i64 {
        let start_ms = match self {
            Since::Unknown => 0,
            Since::Boot => start.boot_ms,
            Since::Process => start.process_ms,
        };
        if start_ms < timestamp_ms { start_ms } else { 0 }
    }
}

/// Where a series stands in the table.
#[derive(Debug, Default)]
struct Place {
    at: Option<usize>,
    /// How far the table has been looked through.
    looked: usize,
}

impl Place {
    fn value(&mut self, name: &str, table: &Table, round: &Round) -> Option<i64> {
        let is_it = |at: usize| {
            table.get(at).is_some_and(|s| s.name() == name && s.own_labels().next().is_none())
        };
        if self.at.is_none_or(|at| !is_it(at)) {
            self.at = (self.looked.min(table.len())..table.len()).find(|at| is_it(*at));
            self.looked = table.len();
        }
        let seconds = round.value(self.at?)?;
        // Up to the year 5138; a marker of staleness is no time.
        (1.0..1e11).contains(&seconds).then_some((seconds * 1e3).round() as i64)
    }
}

/// The starts round by round.
#[derive(Debug, Default)]
pub(super) struct Starts {
    boot: Place,
    process: Place,
    boot_ms: i64,
    /// From the boot to the start of the process.
    after_ms: i64,
}

impl Starts {
    /// The table is begun anew.
    pub(super) fn forget_table(&mut self) {
        (self.boot, self.process) = Default::default();
    }

    /// The starts of a round, of which those before it have been asked for.
    pub(super) fn of(&mut self, table: &Table, round: &Round) -> Start {
        let boot_ms = self.boot.value("node_boot_time_seconds", table, round);
        let process_ms = self.process.value("process_start_time_seconds", table, round);
        let Some(boot_ms) = boot_ms else {
            // Without its collector: the process' own start is all that there is.
            let steady = self.boot_ms + self.after_ms;
            let Some(process_ms) = process_ms else { return Start::default() };
            if steady.abs_diff(process_ms) > BOOT_MS.unsigned_abs() {
                (self.boot_ms, self.after_ms) = (0, process_ms);
            }
            return Start { boot_ms: 0, process_ms: self.boot_ms + self.after_ms };
        };
        if self.boot_ms.abs_diff(boot_ms) > BOOT_MS.unsigned_abs() {
            self.boot_ms = boot_ms;
        }
        let Some(process_ms) = process_ms else {
            return Start { boot_ms: self.boot_ms, process_ms: 0 };
        };
        let after_ms = process_ms - boot_ms;
        if self.after_ms.abs_diff(after_ms) > PROCESS_MS.unsigned_abs() {
            self.after_ms = after_ms;
        }
        Start { boot_ms: self.boot_ms, process_ms: self.boot_ms + self.after_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{RoundDecoder, RoundEncoder};
    use crate::model::{Desc, Labels, Samples};

    const BOOT: Desc = Desc::gauge("node_boot_time_seconds", "");
    const PROCESS: Desc = Desc::gauge("process_start_time_seconds", "");

    fn starts(rounds: &[(Option<f64>, Option<f64>)]) -> Vec<(i64, i64)> {
        let mut encoder = RoundEncoder::new(Labels::new());
        let (mut decoder, mut starts) = (RoundDecoder::new(), Starts::default());
        let mut one = |&(boot, process): &(Option<f64>, Option<f64>)| {
            let mut samples = Samples::with_limit(9);
            samples.family(&BOOT).add(&[("instance", "other")], 5.0);
            boot.into_iter().for_each(|boot| samples.value(&BOOT, boot));
            process.into_iter().for_each(|process| samples.value(&PROCESS, process));
            let (mut payload, mut round) = (Vec::new(), Round::default());
            encoder.encode(&[&samples], false, &mut payload);
            decoder.decode(&payload, 1, &mut round).unwrap();
            let start = starts.of(decoder.table(), &round);
            (start.boot_ms, start.process_ms)
        };
        rounds.iter().map(&mut one).collect()
    }

    #[test]
    fn a_start_does_not_move_with_the_clock() {
        let got = starts(&[
            (Some(1000.0), Some(1500.25)),
            (Some(1001.0), Some(1501.25)),
            (Some(999.0), Some(1500.25)),
            (Some(1009.0), Some(1509.25)),
        ]);
        assert_eq!(got, [(1_000_000, 1_500_250); 4]);
    }

    #[test]
    fn a_boot_a_new_process_and_a_clock_that_was_set_are_seen() {
        let got = starts(&[
            (Some(1000.0), Some(1500.0)),
            (Some(1000.0), Some(1505.0)),     // another process
            (Some(90_000.0), Some(90_505.0)), // the clock was set
            (Some(99_000.0), Some(99_007.0)), // a boot
        ]);
        let expected = [(1_000, 1_500), (1_000, 1_505), (90_000, 90_505), (99_000, 99_007)];
        assert_eq!(got, expected.map(|(boot, process)| (boot * 1000, process * 1000)));
    }

    #[test]
    fn what_a_round_does_not_say_is_not_known() {
        let got = starts(&[
            (None, None),
            (None, Some(1500.0)),
            (None, Some(1504.0)),
            (Some(f64::from_bits(crate::model::STALE)), None),
            (Some(1000.0), None),
        ]);
        assert_eq!(got, [(0, 0), (0, 1_500_000), (0, 1_500_000), (0, 0), (1_000_000, 0)]);
    }

    #[test]
    fn no_sample_is_older_than_its_start() {
        let start = Start { boot_ms: 100, process_ms: 200 };
        assert_eq!(Since::Boot.at(start, 101), 100);
        assert_eq!((Since::Boot.at(start, 100), Since::Process.at(start, 150)), (0, 0));
        assert_eq!(Since::Unknown.at(start, 500), 0);
    }
}
