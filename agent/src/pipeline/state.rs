//! What the tasks share, and the report that is made of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::events::Limiter;
use super::log::Log;
use super::losses::Dropped;
use super::process;
use super::send::EndpointState;
use super::shape;
use super::sources::SourceCounts;
use crate::collector::{Outcome, Set};
use crate::encode::{Positions, write_text};
use crate::host::{Clock, Host};
use crate::model::{Desc, Labels, Samples, Shape};
use crate::probe::Probes;
use crate::relabel::Shaper;
use crate::status::{
    CollectorReport, DroppedReport, EndpointReport, ProbeReport, Report, SourceReport,
    StagesReport, WalReport,
};

/// The agent's own series: a few for each collector, WAL and endpoint.
const MAX_OWN: usize = 2_000;

/// What a Prometheus that scrapes adds by itself, and dashboards and alerts ask for. Not on `/metrics`, where
/// it would stand beside that Prometheus' own.
const UP: Desc =
    Desc::gauge("up", "Whether the host is being observed: always 1, and absent if not.");

/// Sections of samples, beside those of the collectors. See [`Samples::begin`].
const PROBES: u8 = 254;
const OWN: u8 = 255;

/// The collecting half, and what the status page shows.
pub(super) struct State {
    pub(super) clock: Rc<dyn Clock>,
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
    pub(super) samples: RefCell<Samples>,
    /// The newest round's samples of the agent itself.
    pub(super) own: RefCell<Samples>,
    /// The rules that both pass, if there are any.
    pub(super) shaper: Option<Rc<RefCell<Shaper>>>,
    pub(super) last_round_ms: Cell<Option<i64>>,
    pub(super) metrics: Option<Rc<Log>>,
    pub(super) logs: Option<Rc<Log>>,
    pub(super) endpoints: Vec<Rc<RefCell<EndpointState>>>,
    pub(super) sources: RefCell<Vec<SourceCounts>>,
    /// What the stages have met, if there are sources.
    pub(super) stages: RefCell<Option<StagesReport>>,
    /// Whether the sources are held back because the logs WAL is full.
    pub(super) paused: Cell<bool>,
    /// How far every source of the logs WAL has been read.
    pub(super) positions: RefCell<Positions>,
    /// The labels of every stream of the agent's own.
    pub(super) agent_labels: Labels,
    pub(super) limiter: Limiter,
    /// When the position in the kernel's log was last written.
    pub(super) positioned: Cell<Instant>,
    pub(super) dropped: Rc<Dropped>,
}

impl State {
    /// The samples of the agent itself have a bound of their own.
    pub(super) fn own_samples(shape: Option<Box<dyn Shape>>) -> RefCell<Samples> {
        RefCell::new(Samples::with_limit(MAX_OWN).shaped(shape))
    }

    /// How much later than the multiples of the interval rounds begin, in nanoseconds.
    pub(super) fn offset_ns(&self) -> i64 {
        let interval = self.interval.as_nanos();
        i64::try_from((interval * u128::from(self.phase)) >> 32).unwrap_or(0)
    }

    fn offset_ms(&self) -> i64 {
        self.offset_ns() / 1_000_000
    }

    /// Collects the newest round.
    pub(super) fn collect(&self) {
        let mut host = self.host.borrow_mut();
        let mut samples = self.samples.borrow_mut();
        samples.clear();
        if let Some(shaper) = &self.shaper {
            shaper.borrow_mut().begin();
        }
        // What few others have comes first, so that it is not what `max_series` refuses.
        samples.begin(PROBES);
        self.probes.borrow_mut().collect(&mut host, self.clock.now_ns(), &mut samples);
        let aligned_ms = self.clock.now_ms().saturating_sub(self.offset_ms());
        self.collectors.borrow_mut().collect_due(aligned_ms, &mut host, &mut samples);
        self.last_round_ms.set(Some(self.clock.now_ms()));
        let count = samples.len() as u64;
        drop(samples);
        let report = self.report_of(count);
        let mut own = self.own.borrow_mut();
        own.clear();
        own.begin(OWN);
        report.write_samples(&mut own);
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
        self.report().write_samples(&mut own);
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
        self.report_of(self.samples.borrow().len() as u64)
    }

    fn report_of(&self, samples: u64) -> Report {
        let (memory, cpu_seconds) = process::read();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            instance: self.instance.clone(),
            config: self.config.clone(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            interval_seconds: self.interval.as_secs_f64(),
            last_round_ms: self.last_round_ms.get(),
            last_round_samples: samples,
            collectors: self.collectors(),
            probes: self.probes(),
            sources: self.sources(),
            stages: self.stages.borrow().clone(),
            wals: self.logs().map(wal).collect(),
            endpoints: self.endpoints.iter().map(|e| self.endpoint(&e.borrow())).collect(),
            dropped: self.dropped(),
            memory,
            cpu_seconds,
        }
    }

    fn logs(&self) -> impl Iterator<Item = &Rc<Log>> {
        self.metrics.iter().chain(&self.logs)
    }

    fn collectors(&self) -> Vec<CollectorReport> {
        let report = |status: crate::collector::Status<'_>| {
            let (state, note) = match status.outcome {
                Outcome::Pending => ("pending", None),
                Outcome::Good => ("good", None),
                Outcome::NoData(note) => ("no data", Some(note.clone())),
                Outcome::Failed(note) => ("failed", Some(note.clone())),
            };
            CollectorReport {
                name: status.name.to_owned(),
                state: state.to_owned(),
                duration_seconds: status.duration.as_secs_f64(),
                every_seconds: status.every.as_secs_f64(),
                series: status.series as u64,
                refused: status.refused,
                note,
            }
        };
        self.collectors.borrow().status().map(report).collect()
    }

    fn probes(&self) -> Vec<ProbeReport> {
        let probes = self.probes.borrow();
        let report = |status: &crate::probe::ProbeStatus| ProbeReport {
            name: status.name.to_owned(),
            mode: status.source.as_str().to_owned(),
            reason: status.reason.clone(),
        };
        probes.status().map(report).collect()
    }

    fn sources(&self) -> Vec<SourceReport> {
        let report = |source: &SourceCounts| SourceReport {
            name: source.name.to_owned(),
            counts: source
                .counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            paused: self.paused.get(),
        };
        self.sources.borrow().iter().map(report).collect()
    }

    fn endpoint(&self, state: &EndpointState) -> EndpointReport {
        let lag_ms = state.oldest_ms.map_or(0, |oldest| self.clock.now_ms() - oldest).max(0);
        EndpointReport {
            name: state.name.clone(),
            url: state.url.clone(),
            signal: state.signal.to_owned(),
            sent: state.sent,
            lag_seconds: lag_ms as f64 / 1000.0,
            requests: state.requests.clone(),
            trouble: state.trouble.clone(),
        }
    }

    fn dropped(&self) -> Vec<DroppedReport> {
        for log in self.logs() {
            self.dropped.take_from(log);
        }
        let report = |(signal, reason, count): (&'static str, String, u64)| DroppedReport {
            signal: signal.to_owned(),
            reason,
            count,
        };
        self.dropped.counts().into_iter().map(report).collect()
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
}

fn wal(log: &Rc<Log>) -> WalReport {
    let stats = log.stats();
    WalReport {
        name: log.name().to_owned(),
        path: log.path().display().to_string(),
        bytes: log.bytes(),
        max_bytes: log.max_bytes(),
        records: stats.records,
        written_bytes: stats.written_bytes,
        syncs: stats.syncs,
        memory_bytes: log.memory_bytes(),
        damaged_bytes: stats.torn_bytes + stats.damaged_bytes,
        failure: log.failure(),
    }
}
