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
mod errors;
mod fallback;
mod filesystem;
pub mod format;
mod histogram;
mod jit;
mod kernel;
pub mod kmsg;
mod launch;
mod loader;
mod maps;
mod messages;
mod mmc;
pub mod mountinfo;
mod nested;
mod object;
mod oom;
mod options;
mod pending;
mod perf;
pub mod proc;
mod reclaim;
mod record;
mod rights;
mod scsi;
mod spec;
mod sweep;
mod tcp;
mod tcp_burst;
mod thermal;
mod tracefs;
mod transport;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use agent_common::event::{KINDS, Kind};
use aya::maps::MapError;

use self::kernel::{InLog, Kernel};
use self::messages::Messages;
use self::nested::nested;
use self::pending::{MAX_PENDING, Pending};
use self::record::Record;
use self::spec::Spec;
use self::transport::{Events, Missed};
use crate::host::Host;
use crate::host::kmsg::Position;
use crate::model::{Desc, Event, Samples};

pub use launch::Loader;
pub use loader::{LOADER_ARGUMENT, loader_main};
pub use options::{Mode, Options, ProbeError, ProbeStatus, Source};
pub use pending::Waiting;
pub use transport::Transport;

/// Every probe. Its place here is its number between the loader and the agent.
static SPECS: &[&Spec] = &[
    &block::SPEC,
    &tcp::SPEC,
    &oom::SPEC,
    &mmc::SPEC,
    &scsi::SPEC,
    &filesystem::SPEC,
    &reclaim::SPEC,
    &thermal::SPEC,
    &ATA,
    &UNDERVOLTAGE,
];

static ATA: Spec = Spec::of_log("ata", "errors of ATA commands and links, from the kernel's log");
static UNDERVOLTAGE: Spec =
    Spec::of_log("undervoltage", "a supply that is too weak (Raspberry Pi), from the kernel's log");

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

/// Why a probe that was off at the start can't be switched on.
const RESTART: &str =
    "it was switched off, and what starts it has been given up; a restart starts it";

const NO_LOG: &str = "the kernel's log can't be read";

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

/// A probe that runs. Dropped, it detaches.
trait Probe {
    /// Writes what it has counted since it was started, and adds the events that a look at the counts
    /// gives.
    ///
    /// # Errors
    /// The kernel's maps can't be read any more: the probe is off from then on.
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError>;

    /// Counts an OOM kill that its program has not seen.
    fn unseen(&mut self, unit: &str) {
        let _ = unit;
    }

    /// What an event of its programs says. None if it makes no sense.
    fn event(&mut self, moment: &mut Moment<'_>, event: Record<'_>) -> Option<Event> {
        let _ = (moment, event);
        None
    }
}

/// What a probe is given with an event.
struct Moment<'a> {
    host: &'a mut Host,
    /// When it happened, in nanoseconds since the Unix epoch.
    at_ns: i64,
    /// The kernel's log, where it can be read.
    kernel: Option<&'a Kernel>,
}

/// What a probe is given once a round.
struct Round<'a> {
    host: &'a mut Host,
    out: &'a mut Samples,
    events: &'a mut Pending,
    /// In nanoseconds since the Unix epoch.
    now_ns: i64,
    missed: Gone,
}

/// What is known of the events that did not come through.
#[derive(Clone, Copy)]
enum Gone {
    /// Nothing at the moment.
    Unknown,
    /// None comes through.
    All,
    /// How many since the start, by kind.
    Some([Missed; KINDS]),
}

struct Slot {
    spec: &'static Spec,
    status: ProbeStatus,
    probe: Option<Box<dyn Probe>>,
    /// The number of the first record of the kernel's log that was not there yet when its programs ran:
    /// what was said before, they have not seen. The log's times do not tell: its clock is not the
    /// monotonic one, and is seconds off after a month.
    since: u64,
}

impl Slot {
    /// Takes the next best source if the best one does not work; `log` is why the kernel's log can't be
    /// read.
    fn fall_back(&mut self, log: Option<&String>) {
        if self.status.wanted == Mode::Off || self.status.source != Source::Off {
            return;
        }
        match self.spec.fallback.start(log.is_none()) {
            Some((source, probe)) => (self.status.source, self.probe) = (source, probe),
            None => {
                let parts = [Some(self.status.reason.clone()), log.cloned()];
                let parts: Vec<_> = parts.into_iter().flatten().filter(|p| !p.is_empty()).collect();
                self.status.reason = parts.join("; ");
            }
        }
    }

    /// Whether the kernel's log tells what this probe is about.
    fn is_told_by_log(&self) -> bool {
        matches!(self.status.source, Source::Kmsg | Source::Proc)
    }

    /// Gives up a source that works no more.
    fn fall(&mut self, reason: String, has_log: bool) {
        self.probe = None;
        self.status.source = Source::Off;
        self.status.reason = reason;
        let no_log = NO_LOG.to_owned();
        self.fall_back(if has_log { None } else { Some(&no_log) });
        let ProbeStatus { name, source, reason, .. } = &self.status;
        log::warn!("probe {name}: {}: {reason}", source.as_str());
    }

    /// What becomes of what the kernel's log says of this probe's.
    fn in_log(&self, number: u64) -> InLog {
        match self.status.source {
            Source::Kmsg | Source::Proc => InLog::Told,
            Source::Tracepoint if number < self.since => InLog::Unseen,
            Source::Tracepoint | Source::Off => InLog::Ignored,
        }
    }
}

/// The probes of a running agent. Dropped, they detach from the kernel.
pub struct Probes {
    slots: Vec<Slot>,
    events: Option<Events>,
    kernel: Option<Kernel>,
    pending: Pending,
    messages: Messages,
}

impl Probes {
    /// Starts the probes that are not off, which takes as long as the loader's child does: some tens
    /// of milliseconds, at most [`Loader::timeout`] and a second.
    pub fn start(options: &Options, host: &Host) -> Probes {
        let (pending, messages) = (Pending::default(), Messages::default());
        let mut probes =
            Probes { slots: Vec::new(), events: None, kernel: None, pending, messages };
        let mut names = String::new();
        for spec in SPECS {
            let wanted = options.mode(spec.name);
            let mut reason = String::new();
            if wanted == Mode::Off {
                reason.push_str("switched off");
            } else if !spec.tracepoints.is_empty() {
                let comma = if names.is_empty() { "" } else { "," };
                names.extend([comma, spec.name]);
            }
            let source = Source::Off;
            let status = ProbeStatus { name: spec.name, wanted, source, reason };
            probes.slots.push(Slot { spec, status, probe: None, since: 0 });
        }
        // Before the programs: what they see is not told a second time.
        let open = || Kernel::open(&mut Host::new(host.roots().clone()), options.position);
        let log = options.any().then(open);
        if !names.is_empty() {
            probes.load(options, host, &names);
        }
        let log = log.transpose();
        let since = probes.slots.iter().any(|slot| slot.probe.is_some()).then(|| Kernel::end(host));
        for slot in &mut probes.slots {
            slot.since = since.flatten().unwrap_or(0);
            slot.fall_back(log.as_ref().err());
        }
        probes.kernel = log.ok().flatten();
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
            self.messages.attach(&report.programs);
            match (slot.spec.start)(report) {
                Ok(probe) => {
                    slot.status.source = Source::Tracepoint;
                    slot.probe = Some(probe);
                }
                Err(reason) => slot.status.reason = reason,
            }
        }
        for Slot { status, spec, .. } in &mut self.slots {
            let silent = status.source == Source::Off && status.reason.is_empty();
            if silent && !spec.tracepoints.is_empty() {
                let unsaid = || "the loader ended without a word about it".to_owned();
                status.reason = fault.clone().unwrap_or_else(unsaid);
            }
        }
    }

    /// Whether [`adjust`](Probes::adjust) would leave every probe that has to work working.
    ///
    /// # Errors
    /// The first that it would not.
    pub fn would_do(&self, options: &Options) -> Result<(), ProbeError> {
        for Slot { spec, status, .. } in &self.slots {
            let starts = status.wanted == Mode::Off;
            if options.mode(spec.name) == Mode::On && (starts || status.source != spec.best()) {
                let reason = if starts { RESTART.to_owned() } else { status.reason.clone() };
                return Err(ProbeError { name: spec.name, reason });
            }
        }
        Ok(())
    }

    /// Switches probes off as the options of a reload want it. One that was off stays off: the rights to
    /// load it have been given up.
    pub fn adjust(&mut self, options: &Options) {
        for Slot { spec, status, probe, .. } in &mut self.slots {
            match (status.wanted, options.mode(spec.name)) {
                (_, Mode::Off) => {
                    *probe = None;
                    status.wanted = Mode::Off;
                    status.source = Source::Off;
                    status.reason = "switched off".to_owned();
                }
                // It stays one that would have to be started.
                (Mode::Off, _) => status.reason = RESTART.to_owned(),
                (_, wanted) => status.wanted = wanted,
            }
        }
    }

    /// Gives up the rights that are for loading the probes alone, except CAP_SYS_ADMIN if it is needed
    /// for something else. To be called by the only thread.
    pub fn give_up_rights(&mut self, keep_admin: bool) {
        let events = self.events.as_ref();
        // A map like all others.
        if let Err(kept) =
            rights::give_up(keep_admin, || events.is_none_or(|events| events.missed().is_ok()))
        {
            log::info!("{kept}");
        }
    }

    /// Whether every probe that has to work does, with its best source.
    ///
    /// # Errors
    /// The first that does not.
    pub fn required(&self) -> Result<(), ProbeError> {
        let failed =
            |slot: &&Slot| slot.status.wanted == Mode::On && slot.status.source != slot.spec.best();
        match self.slots.iter().find(failed) {
            None => Ok(()),
            Some(Slot { status, .. }) => {
                Err(ProbeError { name: status.name, reason: status.reason.clone() })
            }
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
        let _ = (0..MAX_BATCHES).all(|_| self.receive(host, now_ns));
        let missed = match self.events.as_ref().map(Events::missed) {
            None => Gone::All,
            Some(Err(_)) => Gone::Unknown,
            Some(Ok(missed)) => Gone::Some(missed),
        };
        let (events, has_log) = (&mut self.pending, self.kernel.is_some());
        for slot in &mut self.slots {
            let Some(probe) = &mut slot.probe else { continue };
            let mut round = Round { host, out, events, now_ns, missed };
            if let Err(error) = probe.collect(&mut round) {
                slot.fall(maps::explain(&error), has_log);
            }
        }
        if let Gone::Some(missed) = missed {
            self.count_missed(&missed, out);
        }
        if let Some(kernel) = &mut self.kernel {
            let slots = &self.slots;
            kernel.collect(host, |name| is_told_by_log(slots, name), out);
        }
    }

    fn count_missed(&self, missed: &[Missed; KINDS], out: &mut Samples) {
        let has_events = |slot: &&Slot| slot.probe.is_some() && !slot.spec.events.is_empty();
        for slot in self.slots.iter().filter(has_events) {
            let of_probe = || slot.spec.events.iter().filter_map(|kind| missed.get(*kind as usize));
            let withheld: u64 = of_probe().map(|missed| missed.withheld).sum();
            let lost: u64 = of_probe().map(|missed| missed.lost).sum();
            let name = slot.spec.name;
            out.family(&WITHHELD).add(&[("probe", name)], withheld as f64);
            let labels = [("probe", name), ("reason", "events_full")];
            out.family(&LOST).add(&labels, lost as f64);
        }
    }

    /// Descriptors that are readable when [`receive`](Probes::receive) has something to do: for what the
    /// programs hand over, for what the kernel's log says, and for what the programs say in debug builds.
    ///
    /// # Errors
    /// There are no more descriptors to be had.
    pub fn descriptors(&self) -> io::Result<[Option<OwnedFd>; 3]> {
        let events = self.events.as_ref().map(Events::descriptor).transpose()?;
        let log = self.kernel.as_ref().map(Kernel::descriptor).transpose()?;
        Ok([events, log, self.messages.descriptor().transpose()?])
    }

    /// Takes what the kernel's log has said and what the programs have handed over; true if there may be
    /// more.
    pub fn receive(&mut self, host: &mut Host, now_ns: i64) -> bool {
        self.messages.flush();
        // The log first, up to its end: what it has said explains the events.
        let more = (0..MAX_BATCHES).all(|_| self.read_log(host));
        // A flood is taken in turns with everything else that this thread has to do.
        self.take_events(host, now_ns) || more
    }

    fn read_log(&mut self, host: &mut Host) -> bool {
        let Some(kernel) = &mut self.kernel else { return false };
        let (slots, pending) = (&mut self.slots, &mut self.pending);
        let in_log = |name: &str, number| {
            let slot = slots.iter().find(|slot| slot.spec.name == name);
            slot.map_or(InLog::Ignored, |slot| slot.in_log(number))
        };
        let mut kills = Vec::new();
        let more = kernel.read(host, in_log, |found| {
            kills.extend(found.unseen_kill);
            if let Some((event, position)) = found.event {
                pending.push_waiting(Waiting { event, told: false, position: Some(position) });
            }
        });
        for unit in kills {
            slots.iter_mut().filter_map(|slot| slot.probe.as_mut()).for_each(|p| p.unseen(&unit));
        }
        more
    }

    fn take_events(&mut self, host: &mut Host, now_ns: i64) -> bool {
        let Some(events) = &mut self.events else { return false };
        let since_boot_ns = i64::try_from(sweep::now_ns()).unwrap_or(i64::MAX);
        let (slots, pending) = (&mut self.slots, &mut self.pending);
        let kernel = self.kernel.as_ref();
        events.take(BATCH, |bytes| {
            let mut record = Record::new(bytes);
            let (at_ns, kind, padding) = (record.u64(), record.u32(), record.u32());
            let (Some(at_ns), Some(kind), Some(_)) = (at_ns, kind, padding) else { return };
            let Some(kind) = Kind::from_u32(kind) else { return };
            let owner = slots.iter_mut().find(|slot| slot.spec.events.contains(&kind));
            let Some(probe) = owner.and_then(|slot| slot.probe.as_mut()) else { return };
            let age_ns = since_boot_ns.saturating_sub(i64::try_from(at_ns).unwrap_or(i64::MAX));
            let at_ns = now_ns.saturating_sub(age_ns);
            if let Some(event) = probe.event(&mut Moment { host, at_ns, kernel }, record) {
                pending.push(event);
            }
        })
    }

    /// Takes the oldest event that waits.
    pub fn next_event(&mut self) -> Option<Waiting> {
        self.pending.events.pop_front()
    }

    /// Puts events back in front, for which there was no room, and the position that went with them; the
    /// oldest go where there are too many.
    pub fn put_back(&mut self, events: Vec<Waiting>, position: Option<Position>) {
        if let (Some(kernel), Some(_)) = (&mut self.kernel, position) {
            kernel.moved = true;
        }
        for waiting in events.into_iter().rev() {
            if self.pending.events.len() >= MAX_PENDING {
                self.pending.dropped += 1;
            } else {
                self.pending.events.push_front(Waiting { told: true, ..waiting });
            }
        }
    }

    /// Up to where the kernel's log has been read, if something was found in it since the last call, and
    /// nothing of it waits.
    pub fn take_position(&mut self) -> Option<Position> {
        let kernel = self.kernel.as_mut()?;
        let waits = self.pending.events.iter().any(|waiting| waiting.position.is_some());
        if waits || !std::mem::take(&mut kernel.moved) {
            return None;
        }
        Some(kernel.position())
    }

    /// How many events had to go because nobody took them, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.pending.dropped)
    }
}

fn is_told_by_log(slots: &[Slot], name: &str) -> bool {
    slots.iter().any(|slot| slot.spec.name == name && slot.is_told_by_log())
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
}
