//! The kernel's log as a source of the probes: for those that have no tracepoint here, and for the OOM
//! killer's own words about its victims. What `kmsg` recognises is counted here and turned into events.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::blackbox::{self, Victim, Whole};
use super::kmsg::{Finding, Notice, OomKill, Recognizer};
use super::oom::Kills;
use super::proc::OomCount;
use crate::host::Host;
use crate::host::SystemClock;
use crate::host::kmsg::{Kmsg, Position, Start, unix_ns};
use crate::model::{Desc, Event, Samples};

/// Counters of one process' life; more devices and errors than that are not told apart.
const MAX_COUNTERS: usize = 256;

/// A kill is described by what /proc says now only if now is not long after.
const FRESH_NS: i64 = 10_000_000_000;

/// Records that are taken at a time.
const BATCH: usize = 256;

struct Counter {
    probe: &'static str,
    desc: &'static Desc,
    labels: Vec<(&'static str, String)>,
    count: u64,
}

/// What becomes of what the log says of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InLog {
    /// It is told and counted here.
    Told,
    /// It is told: the probe's programs did not run yet.
    Unseen,
    /// The probe is off, or its programs have seen it.
    Ignored,
}

/// Something that was found.
pub(super) struct Told {
    /// What is to be reported, and up to where the log was read then.
    pub(super) event: Option<(Event, Position)>,
    /// The unit of a kill that the probe has to count itself.
    pub(super) unseen_kill: Option<String>,
}

const LOST: Desc = Desc::counter(
    "mote_kernel_log_lost_total",
    "Records of the kernel's log that were overwritten unread, and findings without a counter.",
);

/// The open log and what it has said.
pub(super) struct Kernel {
    log: Kmsg,
    recognizer: Recognizer,
    counters: Vec<Counter>,
    /// Findings for which there was no counter any more.
    uncounted: u64,
    kills: Kills,
    vmstat: OomCount,
    /// Kills of the log that /proc/vmstat has not been asked about.
    named: u64,
    /// The number of the first record that was not there yet when it was opened.
    since: u64,
    whole: Whole,
    /// Whether something was found since the position was last kept.
    pub(super) moved: bool,
    /// Whether reading fails, which is said once.
    failing: bool,
}

impl Kernel {
    /// Opens the log behind `position`, or at its end.
    ///
    /// # Errors
    /// A sentence that says what the user can do.
    pub(super) fn open(host: &mut Host, position: Option<Position>) -> Result<Kernel, String> {
        let start = position.map_or(Start::End, Start::After);
        let log = Kmsg::open(host, start).map_err(|error| {
            let denied = matches!(error.source.raw_os_error(), Some(libc::EPERM | libc::EACCES));
            let hint = if denied { " (run the agent as root, or give it CAP_SYSLOG)" } else { "" };
            format!("{error}{hint}")
        })?;
        let since = match start {
            Start::End => Some(log.position().next),
            _ => Kernel::end(host),
        };
        let mut vmstat = OomCount::default();
        // Kills from now on.
        let _ = vmstat.look(host);
        Ok(Kernel {
            log,
            recognizer: Recognizer::new(),
            counters: Vec::new(),
            uncounted: 0,
            kills: Kills::default(),
            vmstat,
            named: 0,
            since: since.unwrap_or(0),
            whole: Whole::default(),
            moved: false,
            failing: false,
        })
    }

    /// The number that the kernel's next record will have; None where the log can't be read.
    pub(super) fn end(host: &Host) -> Option<u64> {
        let mut host = Host::new(host.roots().clone());
        Kmsg::open(&mut host, Start::End).ok().map(|log| log.position().next)
    }

    /// A descriptor that is readable when the kernel has said something.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.log.as_fd().try_clone_to_owned()
    }

    /// Up to where the log has been read.
    pub(super) fn position(&self) -> Position {
        self.log.position()
    }

    /// Takes records; `in_log` says what becomes of what is said of a probe in the record of some number.
    /// True if there may be more.
    pub(super) fn read(
        &mut self,
        host: &mut Host,
        in_log: impl Fn(&str, u64) -> InLog,
        mut told: impl FnMut(Told),
    ) -> bool {
        for _ in 0..BATCH {
            let found = match self.log.read() {
                Ok(Some(record)) => {
                    let (number, usec) = (record.seq, record.usec);
                    self.recognizer.look(&record).map(|finding| (finding, number, usec))
                }
                Ok(None) => {
                    self.failing = false;
                    return false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        log::warn!("reading the kernel's log: {error}");
                    }
                    return false;
                }
            };
            let Some((finding, number, usec)) = found else { continue };
            self.moved = true;
            let place = in_log(finding.notice.probe(), number);
            let unseen_kill = match (place, &finding.notice) {
                (InLog::Ignored, _) => continue,
                (InLog::Told, _) => {
                    self.count(&finding, number);
                    None
                }
                (InLog::Unseen, Notice::OomKill(kill)) => Some(kill.unit.clone()),
                (InLog::Unseen, _) => None,
            };
            let event = self.event(host, &finding, unix_ns(&SystemClock, usec));
            let event = event.map(|event| (event, self.log.position()));
            told(Told { event, unseen_kill });
        }
        true
    }

    fn event(&mut self, host: &mut Host, finding: &Finding, at_ns: i64) -> Option<Event> {
        let event = finding.event(at_ns)?;
        let Notice::OomKill(kill) = &finding.notice else { return Some(event) };
        let now = crate::host::Clock::now_ns(&SystemClock);
        if now.saturating_sub(at_ns) > FRESH_NS {
            return Some(event);
        }
        let brief = self.whole.is_used_up(now);
        let (_, mut whole) = blackbox::event(host, at_ns, victim(kill), brief);
        // The kernel's own words, and after them those of /proc.
        for field in event.fields {
            if !whole.fields.iter().any(|(name, _)| *name == field.0) {
                whole.fields.push(field);
            }
        }
        Some(Event { message: event.message, ..whole })
    }

    fn count(&mut self, finding: &Finding, number: u64) {
        if let Notice::OomKill(kill) = &finding.notice {
            self.kills.add(&kill.unit, finding.count);
            // What was before the start is not in what /proc/vmstat adds since.
            if number >= self.since {
                self.named += finding.count;
            }
            return;
        }
        let (probe, desc) = (finding.notice.probe(), finding.notice.family());
        let labels = finding.notice.labels();
        let same = |counter: &&mut Counter| {
            let have = counter.labels.iter().map(|(name, value)| (*name, value.as_str()));
            counter.desc.name == desc.name && have.eq(labels.iter().copied())
        };
        let is_full = self.counters.len() >= MAX_COUNTERS;
        match self.counters.iter_mut().find(same) {
            Some(counter) => counter.count += finding.count,
            None if is_full => self.uncounted += finding.count,
            None => {
                let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
                let (labels, count) = (labels.collect(), finding.count);
                self.counters.push(Counter { probe, desc, labels, count });
            }
        }
    }

    /// The cgroup of a victim, where the kernel has said it.
    pub(super) fn cgroup_of(&self, pid: u32, comm: &str) -> Option<String> {
        self.recognizer.cgroup_of(pid, comm)
    }

    /// Writes the counts of the probes that are told by the log.
    pub(super) fn collect(
        &mut self,
        host: &mut Host,
        wants: impl Fn(&str) -> bool,
        out: &mut Samples,
    ) {
        for counter in self.counters.iter().filter(|counter| wants(counter.probe)) {
            let labels: heapless::Vec<(&str, &str), 4> =
                counter.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            out.family(counter.desc).add(&labels, counter.count as f64);
        }
        if wants("oom") {
            self.collect_kills(host, out);
        }
        let mut lost = out.family(&LOST);
        lost.add(&[("reason", "overwritten")], self.log.lost() as f64);
        lost.add(&[("reason", "counters_full")], self.uncounted as f64);
    }

    /// Kills: those that the log has named, and those that only /proc/vmstat has counted.
    fn collect_kills(&mut self, host: &mut Host, out: &mut Samples) {
        if let Ok(Some(kills)) = self.vmstat.look(host) {
            // The log may be ahead of the counter by what is being killed now.
            let unnamed = kills.saturating_sub(self.named);
            self.named = self.named.saturating_sub(kills);
            if unnamed > 0 {
                self.kills.add("unknown", unnamed);
            }
        }
        self.kills.write(out);
    }
}

fn victim(kill: &OomKill) -> Victim {
    let [total_vm_kb, anon_rss_kb, file_rss_kb, shmem_rss_kb, pgtables_kb] = kill.memory_kb;
    Victim {
        pid: kill.pid,
        comm: kill.comm.clone(),
        uid: kill.uid,
        total_vm_kb,
        anon_rss_kb,
        file_rss_kb,
        shmem_rss_kb,
        pgtables_kb,
        oom_score_adj: kill.oom_score_adj.map(i32::from),
        trigger: None,
        cgroup: kill.cgroup.clone(),
    }
}
