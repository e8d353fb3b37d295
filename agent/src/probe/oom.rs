//! The probe `oom`: processes that the kernel kills for want of memory. The program is
//! agent-ebpf/src/oom.rs; `blackbox` adds what can be read of the moment.

use std::os::fd::OwnedFd;

use agent_common::event::Kind;
use agent_common::oom::{COMM, OomCounters, UNKNOWN};
use aya::maps::MapError;

use super::blackbox::{self, Victim, Whole};
use super::channel::Report;
use super::fallback::Fallback;
use super::maps::{self, PerCpu};
use super::perf::Attachment;
use super::record::Record;
use super::spec::{Shape, Spec, Tracepoint, needed, optional};
use super::{Gone, LOST, Moment, Probe, Round, nested};
use crate::model::{Desc, Event};

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "oom",
    about: "processes that the kernel kills for want of memory",
    tracepoints: &[Tracepoint {
        family: "oom",
        event: "mark_victim",
        optional: false,
        fields: &[
            needed("pid", "OOM_PID", Shape::Number(4)),
            // Since 6.9, and in stable kernels to which it was ported back.
            optional("comm", "OOM_COMM", Shape::Text),
            optional("total_vm", "OOM_TOTAL_VM", Shape::Word),
            optional("anon_rss", "OOM_ANON_RSS", Shape::Word),
            optional("file_rss", "OOM_FILE_RSS", Shape::Word),
            optional("shmem_rss", "OOM_SHMEM_RSS", Shape::Word),
            optional("uid", "OOM_UID", Shape::Number(4)),
            optional("pgtables", "OOM_PGTABLES", Shape::Word),
            optional("oom_score_adj", "OOM_SCORE_ADJ", Shape::Number(2)),
        ],
    }],
    maps: &["OOM_COUNTERS"],
    sized: &[],
    events: &[Kind::Oom],
    start: |report| Ok(Box::new(Oom::new(report)?)),
    fallback: Fallback::OomKill,
};

pub(super) const KILLS: Desc = Desc::counter(
    "mote_oom_kills_total",
    "Processes that the kernel has killed for want of memory, by systemd unit or container.",
);

/// The most values of the label `unit`; what comes beyond is in `other`.
const MAX_UNITS: usize = 64;

/// Kills by unit; kills of which nothing is known but that they were are in `unknown`.
#[derive(Default)]
pub(super) struct Kills {
    units: Vec<(String, u64)>,
}

impl Kills {
    pub(super) fn add(&mut self, unit: &str, kills: u64) {
        let known = self.units.iter().position(|(known, _)| known == unit);
        let unit = if known.is_none() && self.units.len() >= MAX_UNITS { "other" } else { unit };
        match self.units.iter_mut().find(|(known, _)| known == unit) {
            Some((_, count)) => *count += kills,
            None => self.units.push((unit.to_owned(), kills)),
        }
    }

    pub(super) fn write(&self, out: &mut crate::model::Samples) {
        if self.units.is_empty() {
            // A rate needs a sample from before the first kill.
            out.family(&KILLS).add(&[("unit", "unknown")], 0.0);
        }
        for (unit, count) in &self.units {
            out.family(&KILLS).add(&[("unit", unit)], *count as f64);
        }
    }
}

/// The attached probe. Dropped, it detaches.
struct Oom {
    counters: PerCpu<OomCounters>,
    programs: Vec<OwnedFd>,
    _events: Attachment,
    kills: Kills,
    /// How many of them are known from the programs' counts alone.
    unnamed: u64,
    whole: Whole,
    text: String,
}

impl Oom {
    fn new(report: Report) -> Result<Oom, String> {
        let [counters] = maps::all(report.maps)?;
        Ok(Oom {
            counters: maps::per_cpu(counters)?,
            programs: report.programs,
            _events: report.events,
            kills: Kills::default(),
            unnamed: 0,
            whole: Whole::default(),
            text: String::new(),
        })
    }
}

impl Probe for Oom {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        let mut victims = 0;
        maps::sum(&self.counters, 0, |cpu: OomCounters| victims += cpu.victims)?;
        // All that has no event.
        let unnamed = match round.missed {
            Gone::Unknown => 0,
            Gone::All => victims,
            Gone::Some(missed) => missed[Kind::Oom as usize].lost,
        };
        if unnamed > self.unnamed {
            self.kills.add("unknown", unnamed - self.unnamed);
            self.unnamed = unnamed;
        }
        self.kills.write(round.out);
        let nested = nested(&self.programs, &mut self.text);
        let labels = [("probe", SPEC.name), ("reason", "nested")];
        round.out.family(&LOST).add(&labels, nested as f64);
        Ok(())
    }

    fn unseen(&mut self, unit: &str) {
        self.kills.add(unit, 1);
    }

    fn event(&mut self, moment: &mut Moment<'_>, mut event: Record<'_>) -> Option<Event> {
        let mut figure = || event.u64().map(|kb| Some(kb).filter(|kb| *kb != UNKNOWN));
        let (total_vm_kb, anon_rss_kb, file_rss_kb) = (figure()?, figure()?, figure()?);
        let (shmem_rss_kb, pgtables_kb) = (figure()?, figure()?);
        let pid = event.u32()?;
        let uid = Some(event.u32()?).filter(|uid| *uid != u32::MAX);
        let trigger_pid = event.u32()?;
        let oom_score_adj = Some(event.i32()?).filter(|adjust| *adjust != i32::MIN);
        let (comm, trigger) = (event.text::<COMM>()?, event.text::<COMM>()?);
        // The kernel has said it before it chose the victim, whose own cgroup is the root once it ends.
        let cgroup = moment.kernel.and_then(|kernel| kernel.cgroup_of(pid, &comm));
        let victim = Victim {
            pid,
            comm,
            uid,
            total_vm_kb,
            anon_rss_kb,
            file_rss_kb,
            shmem_rss_kb,
            pgtables_kb,
            oom_score_adj,
            trigger: Some((trigger, trigger_pid)),
            cgroup,
        };
        let at_ns = moment.at_ns;
        let brief = self.whole.is_used_up(at_ns);
        let (unit, event) = blackbox::event(moment.host, at_ns, victim, brief);
        self.kills.add(&unit, 1);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Samples;

    #[test]
    fn units_are_bounded_and_no_kill_is_lost() {
        let mut kills = Kills::default();
        for at in 0..MAX_UNITS + 10 {
            kills.add(&format!("u{at}"), 1);
        }
        kills.add("u0", 1);
        let total: u64 = kills.units.iter().map(|(_, count)| count).sum();
        assert_eq!((kills.units.len(), total), (MAX_UNITS + 1, MAX_UNITS as u64 + 11));
        assert_eq!(kills.units.last().unwrap(), &("other".to_owned(), 10));
        let mut out = Samples::with_limit(1_000);
        kills.write(&mut out);
        assert_eq!(out.len(), MAX_UNITS + 1);
    }

    #[test]
    fn before_the_first_kill_there_is_a_zero() {
        let mut out = Samples::with_limit(10);
        Kills::default().write(&mut out);
        assert_eq!(out.iter().map(|sample| sample.value).collect::<Vec<_>>(), [0.0]);
    }
}
