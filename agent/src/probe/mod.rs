//! The kernel probes: load the BPF object, attach its programs to tracepoints, read their maps once a
//! round. It must not know the WAL, the configuration file or where samples go.
//!
//! A probe is a row of `SPECS`, a file here that reads its maps, and a file of agent-ebpf. Loading is
//! done by a child (`launch` starts it, `loader` is it) that passes on nothing but descriptors: aya
//! reads all of the kernel's type information where there is any, memory that an allocator would never
//! give back, and the child can mount tracefs for itself where nobody has.
//!
//! What can't work is off, with a reason; nothing here ends the agent.

mod blackbox;
mod block;
mod channel;
mod device;
mod direct;
mod errno;
pub mod format;
mod histogram;
mod jit;
pub mod kmsg;
mod launch;
mod loader;
mod maps;
mod object;
mod oom;
mod perf;
pub mod proc;
mod record;
mod rights;
mod spec;
mod tracefs;
mod transport;

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use agent_common::event::{KINDS, Kind};
use aya::maps::MapError;

use self::record::Record;
use self::spec::Spec;
use self::transport::{Events, Missed};
use crate::host::Host;
use crate::model::{Desc, Event, Samples};

pub use launch::Loader;
pub use loader::{LOADER_ARGUMENT, loader_main};
pub use transport::Transport;

/// Every probe. Its place here is its number between the loader and the agent.
static SPECS: &[&Spec] = &[&block::SPEC, &oom::SPEC];

const UNMATCHED: Desc = Desc::counter(
    "mote_probe_unmatched_total",
    "Events that end something of which the probe has not seen the beginning.",
);
const LOST: Desc =
    Desc::counter("mote_probe_lost_total", "Events that the probe could not count, by reason.");
const WITHHELD: Desc = Desc::counter(
    "mote_probe_withheld_total",
    "Events that were counted and not reported one by one, because there were too many.",
);

/// The most events that wait until the pipeline takes them; then the oldest go, counted.
const MAX_PENDING: usize = 256;

/// Events that are taken out of the programs' buffer at a time, and how often in a round: more than it
/// has room for.
const BATCH: usize = 64;
const MAX_BATCHES: usize = 64;

/// Whether this binary was built with its BPF programs.
pub fn has_object() -> bool {
    object::object(Transport::Ring).is_some()
}

/// The name of each probe and what it is about.
pub fn table() -> impl Iterator<Item = (&'static str, &'static str)> {
    SPECS.iter().map(|spec| (spec.name, spec.about))
}

/// Events that came while another program of perf's ran on the same CPU, which the kernel counts in
/// `recursion_misses` of the program's fdinfo (bpf_prog_show_fdinfo in kernel/bpf/syscall.c, 5.12 and
/// later; tracepoints count from 5.17 on). `text` is memory to use.
fn nested(programs: &[OwnedFd], text: &mut String) -> u64 {
    let mut sum: u64 = 0;
    for program in programs {
        text.clear();
        // The path of this process' own /proc, which need not be the host's.
        let _ = write!(text, "/proc/self/fdinfo/{}", program.as_raw_fd());
        let Ok(mut file) = fs::File::open(text.as_str()) else { continue };
        text.clear();
        if file.read_to_string(text).is_err() {
            continue;
        }
        sum += recursion_misses(text).unwrap_or(0);
    }
    sum
}

fn recursion_misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// What the user wants of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where it works.
    #[default]
    Auto,
    /// It must work; see [`Probes::required`].
    On,
    /// Never.
    Off,
}

/// What the user may set of the probes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For the probes that are not named.
    pub default: Mode,
    /// By name.
    pub named: Vec<(&'static str, Mode)>,
    /// How the programs get into the kernel.
    pub loader: Loader,
}

impl Options {
    /// One probe that must work, and no other.
    pub fn only(name: &'static str) -> Options {
        Options { default: Mode::Off, named: vec![(name, Mode::On)], ..Options::default() }
    }

    /// Whether any probe is not off.
    pub fn any(&self) -> bool {
        SPECS.iter().any(|spec| self.mode(spec.name) != Mode::Off)
    }

    fn mode(&self, name: &str) -> Mode {
        self.named.iter().find(|(named, _)| *named == name).map_or(self.default, |(_, mode)| *mode)
    }
}

/// The source that a probe uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// BPF programs on the kernel's tracepoints.
    Tracepoint,
    /// The kernel's messages in /dev/kmsg.
    Kmsg,
    /// Files of /proc.
    Proc,
    /// None.
    Off,
}

impl Source {
    /// The value of the label `mode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Tracepoint => "tracepoint",
            Source::Kmsg => "kmsg",
            Source::Proc => "proc",
            Source::Off => "off",
        }
    }
}

/// How a probe is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// The probe's name.
    pub name: &'static str,
    /// What the user wants.
    pub wanted: Mode,
    /// What it uses.
    pub source: Source,
    /// Why it uses no better source, and what to do about it, or what it has to do without; empty where
    /// there is nothing to say.
    pub reason: String,
}

/// A probe that has to work does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeError {
    /// The probe's name.
    pub name: &'static str,
    /// Why it is off.
    pub reason: String,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the probe {} is \"on\" and can't work: {}", self.name, self.reason)
    }
}

impl std::error::Error for ProbeError {}

/// A probe that runs. Dropped, it detaches.
trait Probe {
    /// Writes what it has counted since it was started, and adds the events that a look at the counts
    /// gives.
    ///
    /// # Errors
    /// The kernel's maps can't be read any more: the probe is off from then on.
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError>;

    /// What an event of its programs says; `at_ns` is its time in nanoseconds since the Unix epoch. None
    /// if it makes no sense.
    fn event(&mut self, host: &mut Host, at_ns: i64, event: Record<'_>) -> Option<Event> {
        let _ = (host, at_ns, event);
        None
    }
}

/// What a probe is given once a round.
struct Round<'a> {
    host: &'a mut Host,
    out: &'a mut Samples,
    events: &'a mut Pending,
    /// What did not come through since the start, by kind; None where events can't be handed over.
    missed: Option<[Missed; KINDS]>,
}

/// An event that waits for the pipeline.
#[derive(Debug)]
pub struct Waiting {
    /// What has happened.
    pub event: Event,
    /// Whether it was [put back](Probes::put_back).
    pub told: bool,
}

/// Events that wait for the pipeline.
#[derive(Default)]
struct Pending {
    events: VecDeque<Waiting>,
    dropped: u64,
}

impl Pending {
    fn push(&mut self, event: Event) {
        if self.events.len() >= MAX_PENDING {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(Waiting { event, told: false });
    }
}

struct Slot {
    spec: &'static Spec,
    status: ProbeStatus,
    probe: Option<Box<dyn Probe>>,
}

impl Slot {
    fn fall(&mut self, reason: String) {
        log::warn!("probe {}: off: {reason}", self.spec.name);
        self.probe = None;
        self.status.source = Source::Off;
        self.status.reason = reason;
    }
}

/// The probes of a running agent. Dropped, they detach from the kernel.
pub struct Probes {
    slots: Vec<Slot>,
    events: Option<Events>,
    pending: Pending,
}

impl Probes {
    /// Starts the probes that are not off, which takes as long as the loader's child does: some tens
    /// of milliseconds, at most [`Loader::timeout`] and a second.
    pub fn start(options: &Options, host: &Host) -> Probes {
        let mut probes = Probes { slots: Vec::new(), events: None, pending: Pending::default() };
        let mut names = String::new();
        for spec in SPECS {
            let wanted = options.mode(spec.name);
            let mut reason = String::new();
            if wanted == Mode::Off {
                reason.push_str("switched off");
            } else {
                let comma = if names.is_empty() { "" } else { "," };
                names.extend([comma, spec.name]);
            }
            let source = Source::Off;
            let status = ProbeStatus { name: spec.name, wanted, source, reason };
            probes.slots.push(Slot { spec, status, probe: None });
        }
        if !names.is_empty() {
            probes.load(options, host, &names);
        }
        for Slot { status, .. } in &probes.slots {
            let because = if status.reason.is_empty() { "" } else { ": " };
            let source = match status.source {
                Source::Tracepoint => "attached",
                other => other.as_str(),
            };
            log::info!("probe {}: {source}{because}{}", status.name, status.reason);
        }
        probes
    }

    fn load(&mut self, options: &Options, host: &Host, names: &str) {
        let (reports, fault) = match rights::lacking() {
            Some(reason) => (Vec::new(), Some(reason)),
            None => launch::run(&options.loader, &host.roots().sys, names),
        };
        for mut report in reports {
            if let Some(transport) = report.transport {
                match Events::new(report, transport) {
                    Ok(events) => self.events = Some(events),
                    Err(reason) => log::warn!("events of the probes are not reported: {reason}"),
                }
                continue;
            }
            let Some(slot) = self.slots.get_mut(usize::from(report.probe)) else { continue };
            slot.status.reason = std::mem::take(&mut report.reason);
            if !report.attached {
                continue;
            }
            match (slot.spec.start)(report) {
                Ok(probe) => {
                    slot.status.source = Source::Tracepoint;
                    slot.probe = Some(probe);
                }
                Err(reason) => slot.status.reason = reason,
            }
        }
        for Slot { status, .. } in &mut self.slots {
            let silent = status.source == Source::Off && status.reason.is_empty();
            if silent {
                let unsaid = || "the loader ended without a word about it".to_owned();
                status.reason = fault.clone().unwrap_or_else(unsaid);
            }
        }
    }

    /// Switches probes off, and those on again that still run, as the options of a reload want it. The
    /// others stay off: the rights to load them have been given up.
    pub fn adjust(&mut self, options: &Options) {
        for slot in &mut self.slots {
            let wanted = options.mode(slot.spec.name);
            let was = std::mem::replace(&mut slot.status.wanted, wanted);
            if wanted == Mode::Off {
                slot.probe = None;
                slot.status.source = Source::Off;
                slot.status.reason = "switched off".to_owned();
            } else if was == Mode::Off {
                slot.status.reason =
                    "it was off when the agent was started; a restart starts it".to_owned();
            }
        }
    }

    /// Gives up the rights that are for loading the probes alone. To be called by the only thread.
    pub fn give_up_rights(&mut self) {
        let events = &self.events;
        let mut scratch = Samples::with_limit(usize::MAX);
        let mut host = Host::new(Default::default());
        let slots = &mut self.slots;
        let given = rights::give_up(|| {
            events.as_ref().is_none_or(|events| events.missed().is_ok())
                && slots.iter_mut().filter_map(|slot| slot.probe.as_mut()).all(|probe| {
                    let (out, host, events) = (&mut scratch, &mut host, &mut Pending::default());
                    probe.collect(&mut Round { host, out, events, missed: None }).is_ok()
                })
        });
        if !given && self.slots.iter().any(|slot| slot.probe.is_some()) {
            log::info!("this kernel wants CAP_BPF for reading the probes' maps: it is kept");
        }
    }

    /// Whether every probe that has to work does, with its best source.
    ///
    /// # Errors
    /// The first that does not.
    pub fn required(&self) -> Result<(), ProbeError> {
        let failed = |status: &&ProbeStatus| {
            status.wanted == Mode::On && status.source != Source::Tracepoint
        };
        match self.status().find(failed) {
            None => Ok(()),
            Some(status) => Err(ProbeError { name: status.name, reason: status.reason.clone() }),
        }
    }

    /// How each probe is doing.
    pub fn status(&self) -> impl Iterator<Item = &ProbeStatus> {
        self.slots.iter().map(|slot| &slot.status)
    }

    /// Writes what the probes have counted since they were started; `now_ns` is the time in nanoseconds
    /// since the Unix epoch. A probe whose maps can't be read any more is off from then on.
    pub fn collect(&mut self, host: &mut Host, now_ns: i64, out: &mut Samples) {
        // What came since the last wake-up belongs to this round's counts. The buffer is small.
        for _ in 0..MAX_BATCHES {
            if !self.receive(host, now_ns) {
                break;
            }
        }
        let missed = self.events.as_ref().and_then(|events| events.missed().ok());
        let events = &mut self.pending;
        for slot in &mut self.slots {
            let Some(probe) = &mut slot.probe else { continue };
            let mut round = Round { host, out, events, missed };
            if let Err(error) = probe.collect(&mut round) {
                slot.fall(maps::explain(&error));
            }
        }
        if let Some(missed) = missed {
            self.count_missed(&missed, out);
        }
    }

    fn count_missed(&self, missed: &[Missed; KINDS], out: &mut Samples) {
        for slot in self.slots.iter().filter(|slot| slot.probe.is_some()) {
            let of_probe = || slot.spec.events.iter().filter_map(|kind| missed.get(*kind as usize));
            if slot.spec.events.is_empty() {
                continue;
            }
            let withheld: u64 = of_probe().map(|missed| missed.withheld).sum();
            let lost: u64 = of_probe().map(|missed| missed.lost).sum();
            let name = slot.spec.name;
            out.family(&WITHHELD).add(&[("probe", name)], withheld as f64);
            let labels = [("probe", name), ("reason", "events_full")];
            out.family(&LOST).add(&labels, lost as f64);
        }
    }

    /// A descriptor that is readable when [`receive`](Probes::receive) has something to do; None where
    /// no program hands over events.
    ///
    /// # Errors
    /// There are no more descriptors to be had.
    pub fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        self.events.as_ref().map(Events::descriptor).transpose()
    }

    /// Takes events that the programs have handed over; true if there may be more.
    pub fn receive(&mut self, host: &mut Host, now_ns: i64) -> bool {
        let Some(events) = &mut self.events else { return false };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let since_boot_ns = now.tv_sec * 1_000_000_000 + i64::from(now.tv_nsec as i32);
        let (slots, pending) = (&mut self.slots, &mut self.pending);
        // A flood is taken in turns with everything else that this thread has to do.
        events.take(BATCH, |bytes| {
            let mut record = Record::new(bytes);
            let (at_ns, kind, padding) = (record.u64(), record.u32(), record.u32());
            let (Some(at_ns), Some(kind), Some(_)) = (at_ns, kind, padding) else { return };
            let Some(kind) = Kind::from_u32(kind) else { return };
            let owner = slots.iter_mut().find(|slot| slot.spec.events.contains(&kind));
            let Some(probe) = owner.and_then(|slot| slot.probe.as_mut()) else { return };
            let age_ns = since_boot_ns.saturating_sub(i64::try_from(at_ns).unwrap_or(i64::MAX));
            if let Some(event) = probe.event(host, now_ns.saturating_sub(age_ns), record) {
                pending.push(event);
            }
        })
    }

    /// Takes the oldest event that waits.
    pub fn next_event(&mut self) -> Option<Waiting> {
        self.pending.events.pop_front()
    }

    /// Puts events back in front, for which there was no room; the oldest go where there are too many.
    pub fn put_back(&mut self, events: Vec<Event>) {
        for event in events.into_iter().rev() {
            if self.pending.events.len() >= MAX_PENDING {
                self.pending.dropped += 1;
            } else {
                self.pending.events.push_front(Waiting { event, told: true });
            }
        }
    }

    /// How many events had to go because nobody took them, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.pending.dropped)
    }
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status: Vec<_> = self.status().collect();
        f.debug_struct("Probes").field("status", &status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_every_event_one_owner() {
        for (at, spec) in SPECS.iter().enumerate() {
            for other in SPECS.iter().skip(at + 1) {
                assert_ne!(other.name, spec.name);
                assert!(!other.events.iter().any(|kind| spec.events.contains(kind)));
            }
        }
    }

    #[test]
    fn a_probe_that_is_off_starts_nothing_and_is_no_error() {
        let loader = Loader { executable: "/nonexistent".into(), ..Loader::default() };
        let options = Options { default: Mode::Off, loader, ..Options::default() };
        let mut host = Host::new(Default::default());
        let mut probes = Probes::start(&options, &host);
        assert!(probes.status().all(|status| status.reason == "switched off"));
        assert_eq!(probes.required(), Ok(()));
        let mut out = Samples::with_limit(10);
        probes.collect(&mut host, 0, &mut out);
        assert!(out.is_empty());
        assert!(probes.status().all(|status| status.source.as_str() == "off"));
    }

    #[test]
    fn a_probe_that_has_to_work_and_does_not_is_an_error_that_says_why() {
        let loader = Loader { executable: "/bin/false".into(), ..Loader::default() };
        let options = Options { loader, ..Options::only("block") };
        let probes = Probes::start(&options, &Host::new(Default::default()));
        let error = probes.required().unwrap_err();
        assert!(error.to_string().starts_with("the probe block is \"on\" and can't work: "));
        assert!(!error.reason.is_empty());
    }

    #[test]
    fn recursion_misses_are_read_where_the_kernel_counts_them() {
        let fdinfo = "pos:\t0\nprog_type:\t5\nrun_cnt:\t7\nrecursion_misses:\t12\n";
        assert_eq!(recursion_misses(fdinfo), Some(12));
        assert_eq!(recursion_misses("run_cnt:\t7\n"), None);
        assert_eq!(recursion_misses("recursion_misses:\tx\n"), None);
    }

    #[test]
    fn events_that_nobody_takes_are_bounded_and_counted() {
        let mut pending = Pending::default();
        for at in 0..MAX_PENDING as i64 + 3 {
            pending.push(Event::new("io_error", at, ""));
        }
        assert_eq!((pending.events.len(), pending.dropped), (MAX_PENDING, 3));
        assert_eq!(pending.events[0].event.timestamp_ns, 3);
    }
}
