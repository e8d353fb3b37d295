//! What the tasks share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Time;
use super::egress::Egress;
use super::endpoint_state::EndpointState;
use super::events::Limiter;
use super::log::Log;
use super::losses::Dropped;
use super::memory::Memory;
use super::service::Service;
use super::shape;
use super::sources::SourceCounts;
use super::write::Newest;
use crate::collector::Set;
use crate::encode::{Positions, write_text};
use crate::host::{Clock, Host};
use crate::memory::{Part, Pressure};
use crate::model::{Desc, Labels, Samples, Shape};
use crate::probe::Probes;
use crate::relabel::Shaper;
use crate::scrape::Texts;
use crate::status::{Report, StagesReport, TargetReport};

/// The agent's own series: a few for each collector, WAL and endpoint.
const MAX_OWN: usize = 2_000;

/// What a Prometheus that scrapes adds by itself, and dashboards and alerts ask for. Not on `/metrics`, where
/// it would stand beside that Prometheus' own.
const UP: Desc =
    Desc::gauge("up", "Whether the host is being observed: always 1, and absent if not.");

/// Sections of samples, beside those of the collectors. See [`Samples::begin`].
const PROBES: u16 = 254;
const OWN: u16 = 255;

/// The collecting half, and what the status page shows.
pub(super) struct State {
    pub(super) clock: Rc<dyn Clock>,
    pub(super) time: Rc<Time>,
    pub(super) started: Instant,
    pub(super) instance: String,
    pub(super) config: String,
    pub(super) interval: Duration,
    /// By how much of the interval rounds begin later than its multiples, in parts of 2^32.
    pub(super) phase: u32,
    pub(super) host: RefCell<Host>,
    pub(super) collectors: RefCell<Set>,
    pub(super) probes: Rc<RefCell<Probes>>,
    /// The newest round's samples of collectors and probes.
    pub(super) samples: Rc<RefCell<Samples>>,
    /// The newest round's samples of the agent itself.
    pub(super) own: Rc<RefCell<Samples>>,
    /// The rules that both pass, if there are any.
    pub(super) shaper: Option<Rc<RefCell<Shaper>>>,
    /// That of the newest round, kept for its memory.
    pub(super) report: RefCell<Report>,
    pub(super) last_round_ms: Cell<Option<i64>>,
    /// The timestamp of the newest record in the metrics WAL, and whether it is a scrape's.
    pub(super) newest: Cell<Option<(i64, bool)>>,
    /// The scraped targets, in the configuration's order.
    pub(super) targets: RefCell<Vec<Rc<RefCell<TargetReport>>>>,
    /// Help texts of their families.
    pub(super) texts: Rc<RefCell<Texts>>,
    pub(super) metrics: Option<Rc<Log>>,
    pub(super) logs: Option<Rc<Log>>,
    pub(super) endpoints: Vec<Rc<RefCell<EndpointState>>>,
    pub(super) sources: RefCell<Vec<SourceCounts>>,
    /// What the stages have met, if there are sources.
    pub(super) stages: RefCell<Option<StagesReport>>,
    /// Whether the sources are held back because the logs WAL is full.
    pub(super) paused: Cell<bool>,
    /// The same because memory is short.
    pub(super) short: Cell<bool>,
    /// How far every source of the logs WAL has been read.
    pub(super) positions: RefCell<Positions>,
    /// The labels of every stream of the agent's own.
    pub(super) agent_labels: Labels,
    pub(super) limiter: Limiter,
    /// When the position in the kernel's log was last written.
    pub(super) positioned: Cell<Instant>,
    pub(super) dropped: Rc<Dropped>,
    pub(super) egress: Rc<Egress>,
    pub(super) memory: Rc<Memory>,
    /// The board, and by what it was found.
    pub(super) board: (&'static str, String),
    pub(super) service: Rc<Service>,
}

impl State {
    /// The samples of the agent itself have a bound of their own.
    pub(super) fn own_samples(shape: Option<Box<dyn Shape>>) -> Rc<RefCell<Samples>> {
        Rc::new(RefCell::new(Samples::with_limit(MAX_OWN).shaped(shape)))
    }

    /// Who has the help texts of families.
    pub(super) fn told_of_families(&self) -> Newest {
        let rounds = [Rc::clone(&self.samples), Rc::clone(&self.own)];
        Newest { rounds, texts: Rc::clone(&self.texts) }
    }

    /// How much later than the multiples of the interval rounds begin, in nanoseconds.
    pub(super) fn offset_ns(&self) -> i64 {
        let interval = self.interval.as_nanos();
        i64::try_from((interval * u128::from(self.phase)) >> 32).unwrap_or(0)
    }

    /// The time of a round of the host: behind scrapes that were written in the same moment.
    pub(super) fn behind_scrapes(&self, now_ms: i64) -> i64 {
        match self.newest.get() {
            Some((newest, true)) if (0..1_000).contains(&newest.saturating_sub(now_ms)) => {
                newest.saturating_add(1)
            }
            _ => now_ms,
        }
    }

    fn offset_ms(&self) -> i64 {
        self.offset_ns() / 1_000_000
    }

    /// Collects the newest round.
    pub(super) fn collect(&self) {
        let budget = &self.memory.budget;
        let scope = budget.scope(Part::Collectors);
        let mut host = self.host.borrow_mut();
        let mut samples = self.samples.borrow_mut();
        samples.clear();
        if let Some(shaper) = &self.shaper {
            shaper.borrow_mut().begin();
        }
        // What few others have comes first, so that it is not what `max_series` refuses.
        samples.begin(PROBES);
        {
            let _scope = budget.scope(Part::Probes);
            self.probes.borrow_mut().collect(&mut host, self.clock.now_ns(), &mut samples);
        }
        let aligned_ms = self.clock.now_ms().saturating_sub(self.offset_ms());
        let short = budget.pressure() >= Pressure::Collectors;
        self.collectors.borrow_mut().collect_due(aligned_ms, short, &mut host, &mut samples);
        self.last_round_ms.set(Some(self.clock.now_ms()));
        let count = samples.len() as u64;
        host.rest();
        drop((samples, scope));
        let _scope = budget.scope(Part::Status);
        let mut own = self.own.borrow_mut();
        own.clear();
        own.begin(OWN);
        self.write_own(count, &mut own);
        self.service.round(&self.report.borrow(), self.interval);
        own.begin_own();
        own.value(&UP, 1.0);
        if let Some(shaper) = &self.shaper {
            let (counts, twin) = shaper.borrow_mut().take_counts();
            shape::count(&self.dropped, "metrics", counts);
            if let Some(twin) = twin {
                log::warn!(
                    "metrics.relabel makes several series one, such as {twin}: the first sample of each round stays (relabel_duplicate)"
                );
            }
        }
    }

    /// The newest round in the text format, the agent's own samples as they are now.
    pub(super) fn text(&self, newest_round: bool) -> Vec<u8> {
        let mut own = Samples::with_limit(MAX_OWN);
        self.write_own(self.samples.borrow().len() as u64, &mut own);
        let mut out = Vec::new();
        // Writing to a vector does not fail.
        if newest_round {
            let _ = write_text(&self.samples.borrow(), &mut out);
        }
        let _ = write_text(&own, &mut out);
        out
    }

    /// The state of the agent.
    pub(super) fn report(&self) -> Report {
        let mut report = Report::default();
        self.fill(&mut report, self.samples.borrow().len() as u64);
        report
    }

    /// The WALs.
    pub(super) fn logs(&self) -> impl Iterator<Item = &Rc<Log>> {
        self.metrics.iter().chain(&self.logs)
    }

    /// Why the agent must not end now, if that can be chosen: something is in memory alone.
    pub(super) fn keeps_in_memory(&self) -> Option<String> {
        if let Some(log) = self.logs().find(|log| log.failure().is_some() && log.is_syncing()) {
            return Some(format!("{} does not finish a sync", log.path().display()));
        }
        let log = self.logs().find(|log| log.keeps_in_memory())?;
        Some(format!(
            "{} bytes of {} are in memory alone while {} takes nothing; they would go with a reload, and do go with a restart",
            log.memory_bytes(),
            log.name(),
            log.path().display()
        ))
    }

    /// Reports what was given up: in the agent's log, and as entries of the logs WAL where there is one
    /// and it has room. With `all`, also what may still go on.
    pub(super) async fn report_losses(&self, all: bool) {
        for log in self.logs() {
            self.dropped.take_from(log);
        }
        // Times of a clock that is about to be set would be said wrong.
        if self.time.is_pending() && !all {
            return;
        }
        let over = self.dropped.over(all);
        if over.is_empty() {
            return;
        }
        let now_ns = self.clock.now_ns();
        let events: Vec<_> = over.iter().map(|report| report.event(now_ns)).collect();
        let appended = self.logs.as_ref().map(|logs| self.append_events(logs, &events, None));
        // Without room for the entry it is tried again with the next round.
        if !matches!(appended, Some(Err(_))) || all {
            for report in &over {
                log::warn!("{}", report.message());
            }
        }
        if let (Some(logs), Some(Ok(()))) = (&self.logs, &appended) {
            logs.settle().await;
        }
        if !matches!(appended, Some(Err(_))) {
            self.dropped.reported(&over);
        }
    }

    /// Closes the WALs, and says what had to go for that: what was in memory may have had no room on the disk. Too
    /// late for an entry.
    pub(super) async fn close_logs(&self) {
        let before = self.dropped.over(true);
        self.dropped.reported(&before);
        for log in self.logs() {
            log.close().await;
            self.dropped.take_from(log);
        }
        for report in self.dropped.over(true) {
            log::warn!("{}", report.message());
        }
    }
}
