//! What the consoles have said: read, judged, and made into a table.
//!
//! A boot fails if a check of it has failed or was not made because the agent lacks what it is about, if
//! it has not come to its end, or if no probe was compared with anything. A run of all boots also fails
//! for a check that no boot could make.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::boots::Boot;
use crate::Result;

/// The name of the table's marks in README.md.
pub(super) const MARKS: &str = "kernel-matrix";

/// The probes, in the order of the table.
const PROBES: [&str; 8] =
    ["block", "tcp", "oom", "mmc", "scsi", "filesystem", "reclaim", "thermal"];

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    Failed,
    Skipped,
    Absent,
}

/// A check's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Its name, which begins with the probe's.
    pub(super) name: String,
    /// How it ended.
    pub(super) status: Status,
    /// What was compared, or why not.
    pub(super) detail: String,
}

impl Check {
    fn probe(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }
}

/// What one console has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Console {
    /// In their order.
    pub(super) checks: Vec<Check>,
    /// The mode of each probe that the agent knows; behind it may stand why.
    pub(super) modes: Vec<(String, String)>,
    /// How many events of each kind.
    pub(super) events: BTreeMap<String, u32>,
    /// What the agent held of the machine's memory at its end, in KiB, by name.
    pub(super) memory: BTreeMap<String, u64>,
    /// What went wrong and concerns no check.
    pub(super) notes: Vec<String>,
    done: bool,
}

impl Console {
    /// Reads a console. The kernel's own messages are passed over; a line that begins like one of the
    /// test program's and makes no sense is a failed check.
    pub(super) fn parse(text: &str) -> Console {
        let mut console = Console::default();
        for line in text.lines().map(str::trim_end) {
            let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
            match what {
                "CHECK" => console.checks.push(check(rest).unwrap_or_else(|| Check {
                    name: "console".to_owned(),
                    status: Status::Failed,
                    detail: format!("a line that can't be read: {line:?}"),
                })),
                "MODE" => {
                    let (probe, mode) = rest.split_once(' ').unwrap_or((rest, ""));
                    console.modes.push((probe.to_owned(), mode.to_owned()));
                }
                "EVENT" => {
                    let kind = rest.split_once("event=\"").map_or("", |(_, kind)| kind);
                    let kind = kind.split('"').next().unwrap_or_default();
                    *console.events.entry(kind.to_owned()).or_default() += 1;
                }
                "MEMORY" => {
                    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
                    let pairs = words.as_chunks::<2>().0.iter();
                    let known = pairs.filter_map(|[name, kib]| Some((*name, kib.parse().ok()?)));
                    console.memory = known.map(|(name, kib)| (name.to_owned(), kib)).collect();
                }
                "NOTE" => console.notes.push(rest.to_owned()),
                "DONE" if rest.is_empty() => console.done = true,
                _ => {}
            }
        }
        console
    }

    /// Why the boot has failed; empty if it has not.
    pub(super) fn failures(&self, allow_absent: bool) -> Vec<String> {
        let mut failures: Vec<String> = self
            .checks
            .iter()
            .filter(|check| match check.status {
                Status::Failed => true,
                Status::Absent => !allow_absent,
                Status::Good | Status::Skipped => false,
            })
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        if !self.done {
            failures.push("it did not come to its end".to_owned());
        }
        let compared =
            |check: &&Check| check.status == Status::Good && PROBES.contains(&check.probe());
        let absent = |check: &Check| check.status == Status::Absent && check.name.contains("-mode");
        if self.checks.iter().find(compared).is_none()
            && !(allow_absent && self.checks.iter().any(absent))
        {
            failures.push("no probe was compared with anything".to_owned());
        }
        failures
    }

    fn mode(&self, probe: &str) -> Option<&str> {
        let found = self.modes.iter().find(|(name, _)| name == probe);
        found.map(|(_, mode)| mode.split(':').next().unwrap_or(mode))
    }

    /// The probe's mode, and how its checks have ended.
    fn cell(&self, probe: &str) -> String {
        let Some(mode) = self.mode(probe) else { return "–".to_owned() };
        let of_probe =
            || self.checks.iter().filter(|check| check.probe() == probe).map(|check| check.status);
        if of_probe().any(|status| status == Status::Failed) {
            return format!("{mode}, **failed**");
        }
        // That a probe is in a mode is not yet that it counts.
        let counts = |check: &Check| {
            check.probe() == probe && !check.name.ends_with("-mode") && check.status == Status::Good
        };
        if mode == "off" || self.checks.iter().any(counts) {
            mode.to_owned()
        } else {
            format!("{mode} (not compared)")
        }
    }
}

fn check(rest: &str) -> Option<Check> {
    let mut parts = rest.splitn(3, ' ');
    let (name, status) = (parts.next().filter(|name| !name.is_empty())?, parts.next()?);
    let status = match status {
        "ok" => Status::Good,
        "FAIL" => Status::Failed,
        "skip" => Status::Skipped,
        "absent" => Status::Absent,
        _ => return None,
    };
    Some(Check {
        name: name.to_owned(),
        status,
        detail: parts.next().unwrap_or_default().to_owned(),
    })
}

/// A boot that came to a kernel's console, or did not.
pub(super) struct Booted {
    /// Which.
    pub(super) boot: &'static Boot,
    /// Debian's version of the kernel.
    pub(super) version: String,
    /// What the console has said; or why there is none.
    pub(super) console: Result<Console>,
}

impl Booted {
    /// Why it has failed; empty if it has not.
    pub(super) fn failures(&self, allow_absent: bool) -> Vec<String> {
        match &self.console {
            Ok(console) => console.failures(allow_absent),
            Err(error) => vec![error.clone()],
        }
    }
}

/// Checks that no boot could make, with the reason that the last one gave.
pub(super) fn never_made(boots: &[Booted]) -> Vec<String> {
    let all = || boots.iter().filter_map(|booted| booted.console.as_ref().ok());
    let checks = || all().flat_map(|console| &console.checks);
    let made = |check: &&Check| matches!(check.status, Status::Good | Status::Failed);
    let made: BTreeSet<&str> = checks().filter(made).map(|check| check.name.as_str()).collect();
    let skipped: BTreeMap<&str, &str> = checks()
        .filter(|check| check.status == Status::Skipped && !made.contains(check.name.as_str()))
        .map(|check| (check.name.as_str(), check.detail.as_str()))
        .collect();
    skipped.into_iter().map(|(name, why)| format!("{name}: {why}")).collect()
}

/// The table, in Markdown, of boots that have run.
pub(super) fn table(boots: &[Booted]) -> String {
    let mut text = format!("| kernel | architecture | {} | events seen |\n", PROBES.join(" | "));
    text.push_str(&"|---".repeat(PROBES.len() + 3));
    text.push('|');
    for booted in boots {
        let special = booted.boot.special.describe();
        let comma = if special.is_empty() { "" } else { ", " };
        let _ =
            write!(text, "\n| {}{comma}{special} | {} |", booted.version, booted.boot.board.arch);
        match &booted.console {
            Ok(console) => {
                for probe in PROBES {
                    let _ = write!(text, " {} |", console.cell(probe));
                }
                let events: Vec<&str> = console.events.keys().map(String::as_str).collect();
                let events = if events.is_empty() { "–".to_owned() } else { events.join(", ") };
                let _ = write!(text, " {events} |");
            }
            Err(_) => text.push_str(&" **failed** |".repeat(PROBES.len() + 1)),
        }
    }
    text
}

/// What the agent held at the end of each boot, in Markdown; None if no machine has said. The machines
/// are emulated; their kernels count pages as any does.
pub(super) fn memory(boots: &[Booted]) -> Option<String> {
    let mut text = String::from(
        "| kernel | architecture | resident, MiB | of it anonymous, MiB | heap in use, MiB | threads |\n\
         |---|---|---:|---:|---:|---:|",
    );
    let header = text.len();
    for booted in boots {
        let Ok(console) = &booted.console else { continue };
        let Some(threads) = console.memory.get("threads") else { continue };
        let _ = write!(text, "\n| {} | {} |", booted.version, booted.boot.board.arch);
        for name in ["resident", "anonymous", "live"] {
            let kib = console.memory.get(name).copied().unwrap_or_default();
            let _ = write!(text, " {:.2} |", kib as f64 / 1024.0);
        }
        let _ = write!(text, " {threads} |");
    }
    (text.len() > header).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::super::boots::BOOTS;
    use super::*;

    const CONSOLE: &str = "\
[    0.5] some kernel said CHECK nothing\r
KERNEL 6.1.0\r
MODE block tracepoint\r
MODE tcp off: no tracepoint: none\r
CHECK agent-works ok its page has a round\r
CHECK block-mode ok tracepoint\r
CHECK block-io ok vda read 5\r
CHECK mmc-error absent the agent has no probe mmc\r
CHECK scsi-error skip this machine has no SCSI disk\r
EVENT 2026 {event=\"io_error\",job=\"mote/events\"} device=vdb\r
EVENT 2026 {event=\"io_error\",job=\"mote/events\"} device=vdb\r
MEMORY resident 4096 anonymous 1536 threads 2 live 700\r
DONE \r
";

    #[test]
    fn a_console_is_read_and_absence_fails_unless_it_is_allowed() {
        let console = Console::parse(CONSOLE);
        assert_eq!(console.checks.len(), 5);
        assert_eq!(console.checks[2].detail, "vda read 5");
        assert_eq!(console.events.get("io_error"), Some(&2));
        assert_eq!(console.failures(true), Vec::<String>::new());
        let failures = console.failures(false);
        assert_eq!(failures, ["mmc-error: the agent has no probe mmc"]);
        assert_eq!(console.cell("block"), "tracepoint");
        assert_eq!(console.cell("tcp"), "off");
        assert_eq!(console.cell("oom"), "–");
    }

    #[test]
    fn what_compared_nothing_or_was_cut_has_failed() {
        let cut = CONSOLE.replace("DONE", "");
        assert!(Console::parse(&cut).failures(true)[0].contains("its end"));
        let idle = CONSOLE.replace("block-io ok", "block-io skip").replace("block-mode ok", "x ok");
        assert!(Console::parse(&idle).failures(true)[0].contains("no probe was compared"));
        assert_eq!(Console::parse("").failures(true).len(), 2);
        for bad in ["CHECK", "CHECK block-io", "CHECK block-io good", "CHECK  ok x"] {
            let console = Console::parse(&format!("{CONSOLE}{bad}\r\n"));
            assert_eq!(console.failures(true).len(), 1, "{bad:?}");
        }
        let failed = Console::parse(&CONSOLE.replace("block-io ok", "block-io FAIL"));
        assert_eq!(failed.failures(true), ["block-io: vda read 5"]);
        assert_eq!(failed.cell("block"), "tracepoint, **failed**");
        let unmade = Console::parse(&CONSOLE.replace("block-io ok", "block-io skip"));
        assert_eq!(unmade.cell("block"), "tracepoint (not compared)");
    }

    #[test]
    fn memory_is_a_row_for_each_boot_that_told_it() {
        let boots = [booted(Ok(Console::parse(CONSOLE))), booted(Err("no console".to_owned()))];
        let table = memory(&boots).unwrap();
        assert_eq!(table.lines().count(), 3);
        assert!(table.ends_with("| x86_64 | 4.00 | 1.50 | 0.68 | 2 |"), "{table}");
        for told in ["MEMORY", "MEMORY resident", "MEMORY resident much threads -1"] {
            assert_eq!(memory(&[booted(Ok(Console::parse(told)))]), None, "{told}");
        }
    }

    fn booted(console: Result<Console>) -> Booted {
        Booted { boot: &BOOTS[0], version: "6.1.0-1".to_owned(), console }
    }

    #[test]
    fn the_table_has_a_row_a_boot_and_says_what_could_never_be_checked() {
        let boots = [booted(Ok(Console::parse(CONSOLE))), booted(Err("no console".to_owned()))];
        let table = table(&boots);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        let cells = |line: &str| line.matches('|').count();
        assert!(lines.iter().all(|line| cells(line) == cells(lines[0])), "{table}");
        assert!(lines[2].starts_with("| 6.1.0-1 | x86_64 | tracepoint | off | – |"));
        assert!(lines[2].ends_with("| io_error |"));
        assert!(lines[3].contains("**failed**"));
        assert_eq!(never_made(&boots), ["scsi-error: this machine has no SCSI disk"]);
        assert_eq!(boots[1].failures(true), ["no console"]);
    }
}
