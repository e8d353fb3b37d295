//! The probe `reclaim`: how long threads are held up because there is no free memory, on the host or in
//! their cgroup. The programs are agent-ebpf/src/reclaim.rs.

use std::os::fd::OwnedFd;
use std::time::Duration;

use agent_common::histogram::Histogram;
use agent_common::reclaim::{ReclaimStalls, Scope};
use aya::maps::MapError;

use super::channel::Report;
use super::fallback::Fallback;
use super::maps::{self, PerCpu, Table};
use super::perf::Attachment;
use super::spec::{Sized, Spec, Tracepoint};
use super::sweep::{self, Sweeper};
use super::{LOST, Probe, Round, UNMATCHED, histogram, nested};
use crate::model::Desc;

/// A tracepoint of which the programs need no field.
const fn tracepoint(event: &'static str, optional: bool) -> Tracepoint {
    Tracepoint { family: "vmscan", event, optional, fields: &[] }
}

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "reclaim",
    about: "how long threads wait because they have to free memory first",
    tracepoints: &[
        tracepoint("mm_vmscan_direct_reclaim_begin", false),
        tracepoint("mm_vmscan_direct_reclaim_end", false),
        // Not without memory cgroups.
        tracepoint("mm_vmscan_memcg_reclaim_begin", true),
        tracepoint("mm_vmscan_memcg_reclaim_end", true),
    ],
    maps: &["RECLAIM_STALLS", "RECLAIM_STARTS"],
    // The kernel lets few threads reclaim at once (throttle_direct_reclaim, too_many_isolated in
    // mm/vmscan.c), but it does not count them.
    sized: &[Sized { map: "RECLAIM_STARTS", base: 256, each_device: 0, most: 256, mask: None }],
    events: &[],
    start: |report| Ok(Box::new(Reclaim::new(report)?)),
    fallback: Fallback::None,
};

const STALLS: Desc = Desc::histogram(
    "mote_memory_reclaim_stall_seconds",
    "Time for which a thread was held up to free memory, by whose memory it was: the host's or a cgroup's.",
);

/// No thread reclaims for so long without a break.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The attached probe. Dropped, it detaches.
struct Reclaim {
    stalls: PerCpu<ReclaimStalls>,
    starts: Table<u32, u64>,
    programs: Vec<OwnedFd>,
    _events: Attachment,
    totals: [Histogram; Scope::ALL.len()],
    sweeper: Sweeper,
    text: String,
}

impl Reclaim {
    fn new(report: Report) -> Result<Reclaim, String> {
        let [stalls, starts] = maps::all(report.maps)?;
        Ok(Reclaim {
            stalls: maps::per_cpu(stalls)?,
            starts: maps::table(starts)?,
            programs: report.programs,
            _events: report.events,
            totals: [Histogram::ZERO; Scope::ALL.len()],
            sweeper: Sweeper::default(),
            text: String::new(),
        })
    }
}

impl Probe for Reclaim {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        let (mut unmatched, mut full) = (0, 0);
        for (scope, total) in Scope::ALL.into_iter().zip(&mut self.totals) {
            let mut now = Histogram::ZERO;
            maps::sum(&self.stalls, scope as u32, |cpu: ReclaimStalls| {
                histogram::add(&mut now, &cpu.durations);
                unmatched += cpu.unmatched;
                full += cpu.starts_lost;
            })?;
            histogram::advance(total, &now);
            histogram::write(round.out, &STALLS, &[("scope", scope.as_str())], total);
        }
        let now_ns = sweep::now_ns();
        self.sweeper.sweep(&mut self.starts, full, |at_ns| {
            now_ns.saturating_sub(at_ns) > FORGOTTEN.as_nanos() as u64
        })?;
        let nested = nested(&self.programs, &mut self.text);
        round.out.family(&UNMATCHED).add(&[("probe", SPEC.name)], unmatched as f64);
        for (reason, count) in
            [("starts_full", full), ("forgotten", self.sweeper.forgotten), ("nested", nested)]
        {
            let labels = [("probe", SPEC.name), ("reason", reason)];
            round.out.family(&LOST).add(&labels, count as f64);
        }
        Ok(())
    }
}
