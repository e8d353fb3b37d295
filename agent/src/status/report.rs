//! What the agent says of itself: one structure for the JSON, the page, `mote status` and the metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Desc, Samples};

/// The state of a running agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// The label `instance`.
    pub instance: String,
    /// The configuration file; empty for the built-in default.
    pub config: String,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Seconds from one round to the next.
    pub interval_seconds: f64,
    /// When the newest round was collected, in milliseconds since the Unix epoch.
    pub last_round_ms: Option<i64>,
    /// Samples of the newest round.
    pub last_round_samples: u64,
    /// The collectors, in the order in which they run.
    pub collectors: Vec<CollectorReport>,
    /// The probes.
    pub probes: Vec<ProbeReport>,
    /// The scraped targets.
    #[serde(default)]
    pub targets: Vec<TargetReport>,
    /// The log readers.
    pub sources: Vec<SourceReport>,
    /// What happens to entries between the log readers and the WAL, if there are log readers.
    #[serde(default)]
    pub stages: Option<StagesReport>,
    /// The WALs.
    pub wals: Vec<WalReport>,
    /// The endpoints.
    pub endpoints: Vec<EndpointReport>,
    /// What was given up, by signal and reason.
    pub dropped: Vec<DroppedReport>,
    /// What is sent of a day's bound on bytes, if there is one.
    #[serde(default)]
    pub egress: Option<EgressReport>,
    /// The wall clock.
    #[serde(default)]
    pub clock: ClockReport,
    /// Memory of the process.
    pub memory: MemoryReport,
    /// CPU time of the process in seconds, user and system.
    pub cpu_seconds: f64,
}

/// A collector.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CollectorReport {
    /// node_exporter's name of it.
    pub name: String,
    /// `good`, `no data` (this host has no such thing), `failed`, or `pending` before the first round.
    pub state: String,
    /// What it took.
    pub duration_seconds: f64,
    /// How long it rests between two runs at least; 0: it runs with each round.
    #[serde(default)]
    pub every_seconds: f64,
    /// Samples of its last run.
    #[serde(default)]
    pub series: u64,
    /// Samples that `metrics.max_series` has refused since the start.
    #[serde(default)]
    pub refused: u64,
    /// What was not there, or what was wrong.
    pub note: Option<String>,
}

/// A probe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Its name.
    pub name: String,
    /// `tracepoint` or `off`.
    pub mode: String,
    /// Why it is so.
    pub reason: String,
}

/// A scraped target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TargetReport {
    /// The label `job`.
    pub job: String,
    /// The label `instance`.
    pub instance: String,
    /// What is fetched; without secrets.
    pub url: String,
    /// `up`, `down`, or `pending` before the first scrape.
    pub state: String,
    /// From one scrape to the next.
    pub every_seconds: f64,
    /// What the last scrape took.
    pub duration_seconds: f64,
    /// When it ended, in milliseconds since the Unix epoch.
    pub last_ms: Option<i64>,
    /// Samples that it has given, `up` and its like included.
    pub series: u64,
    /// Samples of its page.
    pub scraped: u64,
    /// Of them, those with a time of their own, which is passed over.
    pub timestamps: u64,
    /// Scrapes since the start.
    pub scrapes: u64,
    /// Of them, those that failed.
    pub failures: u64,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// A log reader.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceReport {
    /// What it reads, such as `file /var/log/*.log`.
    pub name: String,
    /// Counts since the start, by what is counted.
    pub counts: BTreeMap<String, u64>,
    /// Whether it is held back because the WAL is full.
    pub paused: bool,
}

/// The stages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StagesReport {
    /// Streams that had an entry in the last hour.
    pub streams: u64,
    /// Entries of several lines that may not be complete yet.
    pub held: u64,
    /// Entries that went to the overflow's stream.
    pub overflow: u64,
    /// Entries with labels or metadata beyond Loki's bounds.
    pub trimmed: u64,
    /// Lines that were cut when their parts were joined.
    pub truncated: u64,
    /// Numbers of `[[logs.stage]]` tables, from 1, and how many entries each could do nothing with.
    #[serde(default)]
    pub misses: Vec<(u64, u64)>,
}

/// A WAL.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WalReport {
    /// `metrics` or `logs`.
    pub name: String,
    /// Its directory.
    pub path: String,
    /// Bytes on disk, every file counted.
    pub bytes: u64,
    /// The bound.
    pub max_bytes: u64,
    /// Records since the start.
    pub records: u64,
    /// Bytes handed to the file system since the start.
    pub written_bytes: u64,
    /// Syncs of files and directories since the start.
    pub syncs: u64,
    /// Bytes that are kept in memory because the disk takes nothing.
    pub memory_bytes: u64,
    /// Bytes that recovery cut off or readers skipped, since the start.
    pub damaged_bytes: u64,
    /// Why it takes nothing at the moment.
    pub failure: Option<String>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EndpointReport {
    /// The label `endpoint`.
    pub name: String,
    /// Where it is; without secrets.
    pub url: String,
    /// `metrics` or `logs`.
    pub signal: String,
    /// The protocol that is spoken, where there is a choice; empty if not.
    #[serde(default)]
    pub protocol: String,
    /// Samples or entries that the server has acknowledged since the start.
    pub sent: u64,
    /// Age of the oldest thing that waits.
    pub lag_seconds: f64,
    /// Requests by the code of their answer; `error` where there was none.
    pub requests: BTreeMap<String, u64>,
    /// The last answer that was not good; none since the last good one.
    pub trouble: Option<String>,
    /// Bytes written to its sockets since the start, TLS included.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Why it is sent nothing at the moment, if that is on purpose.
    #[serde(default)]
    pub waits: Option<String>,
}

/// The bound of a day on the bytes that are sent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct EgressReport {
    /// The most bytes of a day.
    pub daily_bytes: u64,
    /// What was sent today, UTC.
    pub today_bytes: u64,
}

/// The wall clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClockReport {
    /// The kernel or systemd-timesyncd says that it is synchronised.
    pub synchronised: bool,
    /// What is collected is held until the clock is believed.
    pub held: bool,
    /// Why it is believed or not.
    pub why: String,
    /// How long records have been held for.
    pub held_seconds: f64,
    /// How often it was set forward since the start.
    pub steps_forward: u64,
    /// And backward.
    pub steps_backward: u64,
    /// Samples of boots that never learned the time, whose times are estimated.
    pub estimated_samples: u64,
    /// Log entries of such boots.
    pub estimated_entries: u64,
    /// By how much the clock of a server was ahead when it last answered.
    pub server_ahead_seconds: Option<f64>,
}

/// A count of what was given up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DroppedReport {
    /// `metrics` or `logs`.
    pub signal: String,
    /// Why.
    pub reason: String,
    /// Samples or entries.
    pub count: u64,
}

/// Memory of the process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MemoryReport {
    /// Bytes that the program has allocated and not freed.
    pub live_bytes: u64,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Virtual bytes.
    pub virtual_bytes: u64,
    /// The most virtual bytes that there may be; all that a u64 holds where there is no limit.
    #[serde(default)]
    pub max_virtual_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// The most that may be open.
    pub max_files: u64,
    /// When the process began, in seconds since the Unix epoch.
    pub start_seconds: f64,
    /// Resident bytes, each shared page by its share; none where the kernel does not say.
    #[serde(default)]
    pub proportional_bytes: Option<u64>,
    /// Threads.
    #[serde(default)]
    pub threads: u64,
    /// Switches of context that the process asked for by waiting, and those that it was put to.
    #[serde(default)]
    pub switches: [u64; 2],
    /// Bytes that were read from and written to disks for it; none where the kernel does not say.
    #[serde(default)]
    pub disk_bytes: Option<[u64; 2]>,
}

const BUILD_INFO: Desc = Desc::gauge("mote_build_info", "The version of the agent; always 1.");
const COLLECTOR_DURATION: Desc = Desc::gauge(
    "mote_collector_duration_seconds",
    "Time that a collector took in the newest round.",
);
const COLLECTOR_SUCCESS: Desc = Desc::gauge(
    "mote_collector_success",
    "Whether a collector had all of its samples in the newest round.",
);
const COLLECTOR_REFUSED: Desc = Desc::counter(
    "mote_collector_refused_samples_total",
    "Samples of a collector that metrics.max_series has refused.",
);
const PROBE_MODE: Desc =
    Desc::gauge("mote_probe_mode", "The source that a probe uses: 1 for the mode in use.");
const WAL_BYTES: Desc = Desc::gauge("mote_wal_bytes", "Bytes of all files of a WAL.");
const WAL_MAX_BYTES: Desc = Desc::gauge("mote_wal_max_bytes", "The bound of a WAL in bytes.");
const WAL_RECORDS: Desc = Desc::counter("mote_wal_records_total", "Records appended to a WAL.");
const WAL_WRITTEN: Desc =
    Desc::counter("mote_wal_written_bytes_total", "Bytes of a WAL handed to the file system.");
const WAL_SYNCS: Desc =
    Desc::counter("mote_wal_syncs_total", "Syncs of a WAL's files and of its directory.");
const WAL_MEMORY: Desc = Desc::gauge(
    "mote_wal_memory_bytes",
    "Bytes of a WAL that are in memory because its disk takes nothing.",
);
const WAL_FAILING: Desc =
    Desc::gauge("mote_wal_failing", "Whether the disk of a WAL takes nothing at the moment.");
const WAL_DAMAGED: Desc = Desc::counter(
    "mote_wal_damaged_bytes_total",
    "Bytes of a WAL that recovery cut off or readers skipped.",
);
const DROPPED: Desc =
    Desc::counter("mote_dropped_total", "Samples and entries that were given up, by reason.");
const LAG: Desc =
    Desc::gauge("mote_endpoint_lag_seconds", "Age of the oldest data that waits for an endpoint.");
const SENT: Desc = Desc::counter(
    "mote_endpoint_sent_total",
    "Samples or entries that an endpoint has acknowledged.",
);
const REQUESTS: Desc = Desc::counter(
    "mote_endpoint_requests_total",
    "Requests to an endpoint by the code of the answer.",
);
const EGRESS: Desc = Desc::counter(
    "mote_egress_bytes_total",
    "Bytes written to an endpoint's sockets, TLS and its handshakes included.",
);
const EGRESS_BUDGET: Desc =
    Desc::gauge("mote_egress_budget_bytes", "The most bytes of a day (UTC), egress.daily.");
const EGRESS_TODAY: Desc =
    Desc::gauge("mote_egress_today_bytes", "Bytes that egress.daily counts as sent today (UTC).");
const SYNCHRONISED: Desc = Desc::gauge(
    "mote_clock_synchronized",
    "Whether the kernel or systemd-timesyncd says that the clock is synchronised.",
);
const CLOCK_HELD: Desc = Desc::gauge(
    "mote_clock_held_seconds",
    "How long samples and entries have been held until the clock is right; 0: they are not.",
);
const STEPS: Desc = Desc::counter("mote_clock_steps_total", "How often the clock was set.");
const ESTIMATED: Desc = Desc::counter(
    "mote_clock_estimated_total",
    "Samples and entries with estimated times, of boots that never learned the time.",
);
const SOURCE: Desc = Desc::counter(
    "mote_log_source_total",
    "Lines, bytes, errors and losses of a log source, as the label event says; before any stage.",
);
const SCRAPES: Desc =
    Desc::counter("mote_scrapes_total", "Scrapes of a job's targets, by how they ended.");
const STREAMS: Desc =
    Desc::gauge("mote_log_streams", "Log streams that had an entry in the last hour.");
const OVERFLOW: Desc = Desc::counter(
    "mote_log_stream_overflow_total",
    "Entries that went to the stream with job=\"mote/overflow\" because of logs.max_streams.",
);
const TRIMMED: Desc = Desc::counter(
    "mote_log_trimmed_total",
    "Entries whose labels or metadata were cut or moved to stay within Loki's bounds.",
);
const MISSES: Desc = Desc::counter(
    "mote_log_stage_misses_total",
    "Entries that a stage could do nothing with, such as lines that are no JSON, by its number in the file.",
);
const TRUNCATED: Desc = Desc::counter(
    "mote_log_joined_truncated_total",
    "Lines that were cut at logs.max_line when their parts were joined.",
);
const HELD: Desc =
    Desc::gauge("mote_log_held", "Entries of several lines that may not be complete yet.");
const LIVE: Desc = Desc::gauge("mote_memory_live_bytes", "Bytes allocated and not freed.");
const RESIDENT: Desc =
    Desc::gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
const VIRTUAL: Desc = Desc::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.");
const MAX_VIRTUAL: Desc = Desc::gauge(
    "process_virtual_memory_max_bytes",
    "Maximum amount of virtual memory available in bytes.",
);
const CPU: Desc =
    Desc::counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
const OPEN_FDS: Desc = Desc::gauge("process_open_fds", "Number of open file descriptors.");
const MAX_FDS: Desc = Desc::gauge("process_max_fds", "Maximum number of open file descriptors.");
const START: Desc = Desc::gauge(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
);

const PROPORTIONAL: Desc = Desc::gauge(
    "mote_process_proportional_memory_bytes",
    "Resident memory of the agent in bytes, each shared page by its share.",
);
const THREADS: Desc = Desc::gauge("mote_process_threads", "Threads of the agent.");
const SWITCHES: Desc = Desc::counter(
    "mote_process_context_switches_total",
    "Context switches of the agent's main thread: voluntary where it waits, others where it has to yield.",
);
const DISK_READ: Desc = Desc::counter(
    "mote_process_disk_read_bytes_total",
    "Bytes that were read from disks for the agent.",
);
const DISK_WRITTEN: Desc = Desc::counter(
    "mote_process_disk_written_bytes_total",
    "Bytes that are written to disks for the agent.",
);

impl Report {
    /// Writes the agent's own metrics.
    pub fn write_samples(&self, out: &mut Samples) {
        out.family(&BUILD_INFO).add(&[("version", &self.version)], 1.0);
        for c in &self.collectors {
            out.family(&COLLECTOR_DURATION).add(&[("collector", &c.name)], c.duration_seconds);
        }
        for c in &self.collectors {
            let success = f64::from(u8::from(c.state == "good"));
            out.family(&COLLECTOR_SUCCESS).add(&[("collector", &c.name)], success);
        }
        for c in self.collectors.iter().filter(|c| c.refused > 0) {
            out.family(&COLLECTOR_REFUSED).add(&[("collector", &c.name)], c.refused as f64);
        }
        for p in &self.probes {
            out.family(&PROBE_MODE).add(&[("probe", &p.name), ("mode", &p.mode)], 1.0);
        }
        type Field = fn(&WalReport) -> u64;
        let fields: [(&Desc, Field); 8] = [
            (&WAL_BYTES, |w| w.bytes),
            (&WAL_MAX_BYTES, |w| w.max_bytes),
            (&WAL_RECORDS, |w| w.records),
            (&WAL_WRITTEN, |w| w.written_bytes),
            (&WAL_SYNCS, |w| w.syncs),
            (&WAL_MEMORY, |w| w.memory_bytes),
            (&WAL_FAILING, |w| u64::from(w.failure.is_some())),
            (&WAL_DAMAGED, |w| w.damaged_bytes),
        ];
        for (desc, field) in fields {
            for wal in &self.wals {
                out.family(desc).add(&[("wal", &wal.name)], field(wal) as f64);
            }
        }
        for d in &self.dropped {
            let labels = [("signal", d.signal.as_str()), ("reason", &d.reason)];
            out.family(&DROPPED).add(&labels, d.count as f64);
        }
        let clock = &self.clock;
        out.value(&SYNCHRONISED, f64::from(u8::from(clock.synchronised)));
        out.value(&CLOCK_HELD, clock.held_seconds);
        out.family(&STEPS)
            .add(&[("direction", "forward")], clock.steps_forward as f64)
            .add(&[("direction", "backward")], clock.steps_backward as f64);
        out.family(&ESTIMATED)
            .add(&[("signal", "metrics")], clock.estimated_samples as f64)
            .add(&[("signal", "logs")], clock.estimated_entries as f64);
        for e in &self.endpoints {
            out.family(&LAG).add(&[("endpoint", &e.name)], e.lag_seconds);
        }
        for e in &self.endpoints {
            out.family(&SENT).add(&[("endpoint", &e.name)], e.sent as f64);
        }
        for e in &self.endpoints {
            for (code, count) in &e.requests {
                let labels = [("endpoint", e.name.as_str()), ("code", code)];
                out.family(&REQUESTS).add(&labels, *count as f64);
            }
        }
        let mut jobs: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for target in &self.targets {
            let [good, failed] = jobs.entry(&target.job).or_default();
            *good += target.scrapes.saturating_sub(target.failures);
            *failed += target.failures;
        }
        // `job` is who says it.
        for (job, [good, failed]) in jobs {
            out.family(&SCRAPES)
                .add(&[("scrape_job", job), ("result", "good")], good as f64)
                .add(&[("scrape_job", job), ("result", "failed")], failed as f64);
        }
        for e in &self.endpoints {
            out.family(&EGRESS).add(&[("endpoint", &e.name)], e.sent_bytes as f64);
        }
        if let Some(egress) = &self.egress {
            out.value(&EGRESS_BUDGET, egress.daily_bytes as f64);
            out.value(&EGRESS_TODAY, egress.today_bytes as f64);
        }
        if let Some(stages) = &self.stages {
            out.family(&STREAMS).add(&[], stages.streams as f64);
            out.family(&HELD).add(&[], stages.held as f64);
            out.family(&OVERFLOW).add(&[], stages.overflow as f64);
            out.family(&TRIMMED).add(&[], stages.trimmed as f64);
            out.family(&TRUNCATED).add(&[], stages.truncated as f64);
            for (stage, count) in &stages.misses {
                out.family(&MISSES).add(&[("stage", &stage.to_string())], *count as f64);
            }
        }
        for source in &self.sources {
            for (what, count) in &source.counts {
                let labels = [("source", source.name.as_str()), ("event", what)];
                out.family(&SOURCE).add(&labels, *count as f64);
            }
        }
        let m = &self.memory;
        out.value(&LIVE, m.live_bytes as f64);
        out.value(&CPU, self.cpu_seconds);
        out.value(&MAX_FDS, m.max_files as f64);
        out.value(&OPEN_FDS, m.open_files as f64);
        out.value(&RESIDENT, m.resident_bytes as f64);
        out.value(&START, m.start_seconds);
        out.value(&VIRTUAL, m.virtual_bytes as f64);
        out.value(&MAX_VIRTUAL, m.max_virtual_bytes as f64);
        if let Some(bytes) = m.proportional_bytes {
            out.value(&PROPORTIONAL, bytes as f64);
        }
        out.value(&THREADS, m.threads as f64);
        let [voluntary, involuntary] = m.switches;
        out.family(&SWITCHES)
            .add(&[("kind", "voluntary")], voluntary as f64)
            .add(&[("kind", "involuntary")], involuntary as f64);
        if let Some([read, written]) = m.disk_bytes {
            out.value(&DISK_READ, read as f64);
            out.value(&DISK_WRITTEN, written as f64);
        }
    }
}
