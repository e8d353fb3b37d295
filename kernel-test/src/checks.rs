//! The checks, a row each: which probe it is about, which family of metrics it needs, in which modes of
//! the probe it says something, and what causes and compares. Every row ends in a line, and none passes
//! that has compared nothing:
//!
//! - `ok`: it was caused, and the agent says the same as the kernel.
//! - `FAIL`: it does not, or the probe is off although its source is there.
//! - `skip`: this machine can't cause it, or the probe has no source on this kernel.
//! - `absent`: this agent does not know the probe or the family.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::agent::{self, Agent};
use crate::events::{block, faults, health, memory, oom, tcp};
use crate::page::{Kernel, Page};
use crate::plan::Plan;
use crate::{Result, say};

/// How a check ended, where it was not a failure.
pub(crate) enum Outcome {
    /// What was compared.
    Good(String),
    /// Why nothing could be.
    Skip(String),
}

struct Check {
    name: &'static str,
    probe: &'static str,
    family: &'static str,
    /// The modes in which the check says something.
    modes: &'static [&'static str],
    run: fn(&mut World) -> Result<Outcome>,
}

const TRACEPOINT: &[&str] = &["tracepoint"];
const AND_KMSG: &[&str] = &["tracepoint", "kmsg"];
const ANY: &[&str] = &["tracepoint", "kmsg", "proc"];

static CHECKS: &[Check] = &[
    Check {
        name: "block-io",
        probe: "block",
        family: "mote_block_io_duration_seconds",
        modes: ANY,
        run: block::requests,
    },
    Check {
        name: "block-errors",
        probe: "block",
        family: "mote_block_io_errors_total",
        modes: ANY,
        run: block::errors,
    },
    Check {
        name: "tcp-connects",
        probe: "tcp",
        family: "mote_tcp_connects_total",
        modes: TRACEPOINT,
        run: tcp::connects,
    },
    Check {
        name: "tcp-refused",
        probe: "tcp",
        family: "mote_tcp_connects_total",
        modes: TRACEPOINT,
        run: tcp::refused,
    },
    Check {
        name: "tcp-resets",
        probe: "tcp",
        family: "mote_tcp_resets_total",
        modes: TRACEPOINT,
        run: tcp::resets,
    },
    Check {
        name: "tcp-retransmits",
        probe: "tcp",
        family: "mote_tcp_retransmits_total",
        modes: ANY,
        run: tcp::retransmits,
    },
    Check {
        name: "oom-kill",
        probe: "oom",
        family: "mote_oom_kills_total",
        modes: ANY,
        run: oom::kill,
    },
    Check {
        name: "oom-unit",
        probe: "oom",
        family: "mote_oom_kills_total",
        modes: AND_KMSG,
        run: oom::unit,
    },
    Check {
        name: "mmc-error",
        probe: "mmc",
        family: "mote_mmc_errors_total",
        modes: AND_KMSG,
        run: faults::card,
    },
    Check {
        name: "scsi-error",
        probe: "scsi",
        family: "mote_scsi_errors_total",
        modes: AND_KMSG,
        run: faults::scsi,
    },
    Check {
        name: "filesystem-error",
        probe: "filesystem",
        family: "mote_filesystem_errors_total",
        modes: AND_KMSG,
        run: faults::filesystem,
    },
    Check {
        name: "reclaim-stall",
        probe: "reclaim",
        family: "mote_memory_reclaim_stall_seconds",
        modes: TRACEPOINT,
        run: memory::reclaim,
    },
];

/// Probes whose source every Debian kernel has: where BPF works they must be on tracepoints, and where
/// it does not, in another mode.
const ALWAYS: &[&str] = &["block", "tcp", "oom"];

/// The machine as the checks see it.
pub(crate) struct World<'a> {
    /// What this boot is.
    pub(crate) plan: &'a Plan,
    agent: Agent,
    /// The mode of each probe that the agent knows.
    modes: Vec<(String, String)>,
    /// What was so when the last check ended.
    last: Rc<Snapshot>,
    pages: u32,
    /// Rounds from this time on (Unix time, seconds) have everything that this program has caused.
    settled: f64,
}

/// The agent's page and the kernel's accounts of one moment at which nothing happens.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// The agent's page.
    pub(crate) page: Page,
    /// The kernel's accounts.
    pub(crate) kernel: Kernel,
    /// How often the page was read before, which neither of the two has more of.
    pub(crate) pages: u32,
}

impl World<'_> {
    /// The mode of a probe; None if the agent does not know it.
    pub(crate) fn mode(&self, probe: &str) -> Option<&str> {
        let found = self.modes.iter().find(|(name, _)| name == probe);
        found.map(|(_, mode)| mode.as_str())
    }

    /// Whether the agent reads the kernel's log.
    pub(crate) fn has_log(&self) -> bool {
        self.modes.iter().any(|(_, mode)| mode == "kmsg")
    }

    /// What was so before anything was caused, and what is so since: waits for a round that has it all.
    /// Reading the page is a TCP connection that is not yet in the accounts it comes with, but in the
    /// next ones.
    ///
    /// # Errors
    /// No such round within 30 s, or the agent has ended.
    pub(crate) fn step(&mut self) -> Result<(Rc<Snapshot>, Rc<Snapshot>)> {
        const LIMIT: Duration = Duration::from_secs(30);
        // Rounds come every second.
        const WAIT: Duration = Duration::from_millis(1300);
        self.settled = now().max(self.settled);
        let deadline = Instant::now() + LIMIT;
        loop {
            std::thread::sleep(WAIT);
            self.agent.check()?;
            let kernel = Kernel::read()?;
            let page = Page::get()?;
            self.pages += 1;
            let round = page.sum("node_time_seconds", &[]);
            let complete = round > self.settled;
            self.settled = now();
            if complete {
                let after = Rc::new(Snapshot { page, kernel, pages: self.pages - 1 });
                let before = std::mem::replace(&mut self.last, Rc::clone(&after));
                return Ok((before, after));
            }
            if Instant::now() > deadline {
                return Err(format!("no round for {} s", LIMIT.as_secs()));
            }
        }
    }
}

/// Waits for an event of this kind of which `wanted` is true.
///
/// # Errors
/// None came within 10 s, or the WAL can't be read.
pub(crate) fn event(kind: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    const LIMIT: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + LIMIT;
    loop {
        let events = agent::events(kind)?;
        if let Some(event) = events.iter().find(|event| wanted(event)) {
            return Ok(event.clone());
        }
        if Instant::now() > deadline {
            return Err(match events.last() {
                None => format!("no event {kind} within {} s", LIMIT.as_secs()),
                Some(last) => {
                    format!("{} events {kind}, none as expected; last: {last}", events.len())
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Runs every check and prints what came of it.
pub(crate) fn run(plan: &Plan, agent: Agent) {
    let mut world =
        World { plan, agent, modes: Vec::new(), last: Rc::default(), pages: 0, settled: now() };
    match world.step() {
        Ok((_, now)) => world.modes = now.page.modes(),
        Err(error) => {
            report("agent-works", "FAIL", &error);
            show_log();
            return;
        }
    }
    report("agent-works", "ok", "its page has a round");
    check_modes(&world);
    for check in CHECKS {
        let began = Instant::now();
        let (status, detail) = make(check, &mut world);
        report(check.name, status, &format!("{detail} [{:.1} s]", began.elapsed().as_secs_f64()));
    }
    check_traces(&world);
    match health::disks(plan) {
        Ok(Outcome::Good(detail)) => report("agent-disks", "ok", &detail),
        Ok(Outcome::Skip(detail)) => report("agent-disks", "skip", &detail),
        Err(error) => report("agent-disks", "FAIL", &error),
    }
    for entry in agent::entries().unwrap_or_default() {
        say("EVENT", &entry);
    }
    match world.agent.memory().and_then(|memory| Ok((memory, Page::get()?))) {
        Ok((memory, page)) => {
            let live = page.sum("mote_memory_live_bytes", &[]) / 1024.0;
            say("MEMORY", &format!("{memory} live {live:.0}"));
        }
        Err(error) => say("NOTE", &format!("the agent's memory: {error}")),
    }
    let World { agent, .. } = world;
    match agent.stop() {
        Ok(status) if status.success() => report("agent-ends", "ok", "after SIGTERM, with 0"),
        Ok(status) => report("agent-ends", "FAIL", &status.to_string()),
        Err(error) => report("agent-ends", "FAIL", &error),
    }
    show_log();
}

fn check_modes(world: &World<'_>) {
    for (probe, mode) in &world.modes {
        say("MODE", &format!("{probe} {mode}{}", reason(probe, mode)));
    }
    // An agent without the ladder has no other mode than tracepoints and off.
    let ladder = world.modes.iter().any(|(_, mode)| mode == "kmsg" || mode == "proc");
    for probe in ALWAYS {
        let name = format!("{probe}-mode");
        match (world.mode(probe), world.plan.bpf) {
            (None, _) => report(&name, "absent", "the agent does not know this probe"),
            (Some("tracepoint"), true) => report(&name, "ok", "tracepoint"),
            (Some(mode @ ("kmsg" | "proc")), false) => report(&name, "ok", mode),
            (Some("off"), false) if !ladder => {
                report(&name, "absent", "the agent has no other source than tracepoints");
            }
            (Some(other), _) => report(&name, "FAIL", &format!("{other}{}", reason(probe, other))),
        }
    }
}

fn make(check: &Check, world: &mut World<'_>) -> (&'static str, String) {
    let absent = match world.mode(check.probe) {
        None => format!("the agent has no probe {}", check.probe),
        Some(_) if !world.plan.knows(check.family) => {
            format!("the agent knows no {}", check.family)
        }
        Some(mode) if !check.modes.contains(&mode) => {
            return ("skip", format!("in this mode: {mode}{}", reason(check.probe, mode)));
        }
        Some(_) => {
            return match (check.run)(world) {
                Ok(Outcome::Good(detail)) => ("ok", detail),
                Ok(Outcome::Skip(detail)) => ("skip", detail),
                Err(error) => ("FAIL", error + &settle(world)),
            };
        }
    };
    ("absent", absent + &rehearse(check, world))
}

/// What the agent must not leave behind: a tracefs that others see, a changed setting of the kernel's,
/// or events that were lost.
fn check_traces(world: &World<'_>) {
    if !world.plan.tracefs {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        match mounts.lines().find(|line| line.contains(" tracefs ")) {
            None => report("agent-tracefs", "ok", "mounted for the loader alone"),
            Some(line) => report("agent-tracefs", "FAIL", line),
        }
    }
    for (name, value) in &world.plan.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let is = std::fs::read_to_string(&path).unwrap_or_default();
        let status = if is.trim() == value { "ok" } else { "FAIL" };
        report("agent-sysctl", status, &format!("{name} is {}, was {value}", is.trim()));
    }
    // What one program interrupts of another can't be counted, and is rare; nothing may be full.
    let (lost, page) = ("mote_probe_lost_total", &world.last.page);
    let nested = page.sum(lost, &[("reason", "nested")]);
    if page.sum(lost, &[]) != nested {
        report("agent-lost", "FAIL", &page.show(lost));
    } else if nested != 0.0 {
        report("agent-lost", "ok", &format!("{nested} programs interrupted others"));
    }
}

/// Causes what an agent is to notice that does not yet know it, and says what came of it.
fn rehearse(check: &Check, world: &mut World<'_>) -> String {
    if !world.plan.rehearse {
        return String::new();
    }
    let (Ok(Outcome::Good(detail) | Outcome::Skip(detail)) | Err(detail)) = (check.run)(world);
    format!("; rehearsed: {detail}{}", settle(world))
}

/// After a check that was broken off: lets its rest into what was so before the next one.
fn settle(world: &mut World<'_>) -> String {
    world.step().map_or_else(|error| format!("; then {error}"), |_| String::new())
}

/// Why a probe is not on tracepoints, from the agent's log; with a separator.
fn reason(probe: &str, mode: &str) -> String {
    if mode == "tracepoint" {
        return String::new();
    }
    let needle = format!("probe {probe}: ");
    let lines = agent::log();
    let said = lines.iter().rev().find_map(|line| Some(line.split_once(&needle)?.1));
    said.map_or_else(String::new, |why| {
        let why = why.trim_end_matches('"');
        // The mode's name, which is known already, stands before the reason.
        let why = why.strip_prefix(mode).unwrap_or(why).trim_start_matches(": ");
        if why.is_empty() { String::new() } else { format!(": {why}") }
    })
}

fn report(name: &str, status: &str, detail: &str) {
    say("CHECK", &format!("{name} {status} {detail}"));
}

fn show_log() {
    for line in agent::log() {
        say("LOG", &line);
    }
}
