//! The report of the agent's state, filled in place: that of each round finds what the round before it has
//! left, and allocates nothing for what is as it was. It must not know how it is shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::endpoint_state::EndpointState;
use super::log::Log;
use super::process;
use super::state::State;
use crate::collector::Outcome;
use crate::model::Samples;
use crate::status::{
    CollectorReport, DroppedReport, EgressReport, EndpointReport, ProbeReport, Report,
    SourceReport, TargetReport, WalReport,
};

/// Makes a text another one.
pub(super) fn set(text: &mut String, to: &str) {
    if text != to {
        text.clear();
        text.push_str(to);
    }
}

/// The same of one that may be absent.
fn set_some(text: &mut Option<String>, to: Option<&str>) {
    match (text.as_mut(), to) {
        (Some(text), Some(to)) => set(text, to),
        _ => *text = to.map(str::to_owned),
    }
}

/// Makes rows what these things are, in their order.
pub(super) fn rows<R: Default, T>(
    rows: &mut Vec<R>,
    things: impl Iterator<Item = T>,
    mut fill: impl FnMut(&mut R, T),
) {
    let mut count = 0;
    for thing in things {
        if rows.len() == count {
            rows.push(R::default());
        }
        if let Some(row) = rows.get_mut(count) {
            fill(row, thing);
        }
        count += 1;
    }
    rows.truncate(count);
}

/// Sets a count by its name; none is ever taken back.
fn count(counts: &mut BTreeMap<String, u64>, name: &str, value: u64) {
    match counts.get_mut(name) {
        Some(count) => *count = value,
        None => _ = counts.insert(name.to_owned(), value),
    }
}

impl State {
    /// Makes the report of now.
    pub(super) fn fill(&self, report: &mut Report, samples: u64) {
        report.cpu_seconds = process::read(&mut report.memory);
        self.memory.report(&mut report.memory);
        set(&mut report.version, env!("CARGO_PKG_VERSION"));
        report.pid = std::process::id();
        set(&mut report.instance, &self.instance);
        set(&mut report.config, &self.config);
        set(&mut report.board, self.board.0);
        set(&mut report.board_by, &self.board.1);
        report.uptime_seconds = self.started.elapsed().as_secs_f64();
        report.interval_seconds = self.interval.as_secs_f64();
        report.last_round_ms = self.last_round_ms.get();
        report.last_round_samples = samples;
        rows(&mut report.collectors, self.collectors.borrow().status(), collector);
        rows(&mut report.probes, self.probes.borrow().status(), probe);
        let targets = self.targets.borrow();
        rows(&mut report.targets, targets.iter().map(|one| one.borrow()), |row, one| {
            target(row, &one);
        });
        rows(
            &mut report.sources,
            self.sources.borrow().iter(),
            |row: &mut SourceReport, source| {
                set(&mut row.name, source.name);
                row.short = self.short.get();
                row.paused = self.paused.get() || row.short;
                row.counts.retain(|name, _| source.counts.iter().any(|(known, _)| known == name));
                source.counts.iter().for_each(|(name, value)| count(&mut row.counts, name, *value));
            },
        );
        // Its names are none, and its counts of stages are as many as before.
        report.stages.clone_from(&self.stages.borrow());
        rows(&mut report.wals, self.logs(), |row, log| wal(row, log));
        rows(&mut report.endpoints, self.endpoints.iter(), |row, one| {
            self.endpoint(row, &one.borrow());
        });
        self.logs().for_each(|log| self.dropped.take_from(log));
        self.dropped.each(|counts| {
            rows(
                &mut report.dropped,
                counts,
                |row: &mut DroppedReport, (signal, reason, count)| {
                    set(&mut row.signal, signal);
                    set(&mut row.reason, reason);
                    row.count = count;
                },
            );
        });
        report.egress = self
            .egress
            .day(self.clock.now_ms())
            .map(|(daily_bytes, today_bytes)| EgressReport { daily_bytes, today_bytes });
        self.time.fill(&mut report.clock);
    }

    /// The agent's own metrics, after a round of so many samples.
    pub(super) fn write_own(&self, samples: u64, out: &mut Samples) {
        let mut report = self.report.borrow_mut();
        self.fill(&mut report, samples);
        report.write_samples(out);
    }

    fn endpoint(&self, row: &mut EndpointReport, state: &EndpointState) {
        let lag_ms = state.oldest_ms.map_or(0, |oldest| self.clock.now_ms() - oldest).max(0);
        // While the clock is wrong, what it says of the age of older things is wrong too.
        let lag_ms = if self.time.is_held() { self.time.held_ms() } else { lag_ms };
        set(&mut row.name, &state.name);
        set(&mut row.url, &state.url);
        set(&mut row.signal, state.signal);
        set(&mut row.protocol, state.protocol);
        row.sent = state.sent;
        row.lag_seconds = lag_ms as f64 / 1000.0;
        for (code, value) in state.answers.iter() {
            let mut name: heapless::String<8> = heapless::String::new();
            let name = match code {
                Some(code) if write!(name, "{code}").is_ok() => name.as_str(),
                Some(_) => "other",
                None => "error",
            };
            count(&mut row.requests, name, value);
        }
        if state.answers.others() > 0 {
            count(&mut row.requests, "other", state.answers.others());
        }
        set_some(&mut row.trouble, state.trouble.as_deref());
        row.sent_bytes = state.bytes;
        set_some(&mut row.waits, state.waits);
    }
}

fn collector(row: &mut CollectorReport, status: crate::collector::Status<'_>) {
    let (state, note) = match status.outcome {
        Outcome::Pending => ("pending", None),
        Outcome::Good => ("good", None),
        Outcome::NoData(note) => ("no data", Some(note.as_str())),
        Outcome::Failed(note) => ("failed", Some(note.as_str())),
    };
    set(&mut row.name, status.name);
    set(&mut row.state, state);
    row.duration_seconds = status.duration.as_secs_f64();
    row.every_seconds = status.every.as_secs_f64();
    row.series = status.series as u64;
    row.refused = status.refused;
    set_some(&mut row.note, note);
    row.passed_over = status.passed_over;
}

fn probe(row: &mut ProbeReport, status: &crate::probe::ProbeStatus) {
    set(&mut row.name, status.name);
    set(&mut row.mode, status.source.as_str());
    set(&mut row.reason, &status.reason);
}

fn target(row: &mut TargetReport, from: &TargetReport) {
    let TargetReport { job, instance, url, state, error, .. } = from;
    set(&mut row.job, job);
    set(&mut row.instance, instance);
    set(&mut row.url, url);
    set(&mut row.state, state);
    set_some(&mut row.error, error.as_deref());
    *row = TargetReport {
        job: std::mem::take(&mut row.job),
        instance: std::mem::take(&mut row.instance),
        url: std::mem::take(&mut row.url),
        state: std::mem::take(&mut row.state),
        error: row.error.take(),
        ..*from
    };
}

fn wal(row: &mut WalReport, log: &Log) {
    let stats = log.stats();
    set(&mut row.name, log.name());
    if row.path.is_empty() {
        row.path = log.path().display().to_string();
    }
    row.bytes = log.bytes();
    row.max_bytes = log.max_bytes();
    row.records = stats.records;
    row.written_bytes = stats.written_bytes;
    row.syncs = stats.syncs;
    row.memory_bytes = log.memory_bytes();
    row.damaged_bytes = stats.torn_bytes + stats.damaged_bytes;
    row.failure = log.failure();
}
