//! What the agent says of itself: one structure for the JSON, the page, `mote status` and the metrics,
//! which are in `samples.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// The board whose values are the configuration's defaults.
    #[serde(default)]
    pub board: String,
    /// By what it was found.
    #[serde(default)]
    pub board_by: String,
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
    /// It was due in the newest round and not run, since memory is short.
    #[serde(default)]
    pub passed_over: bool,
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
    /// Whether it is held back, because the WAL is full or memory is short.
    pub paused: bool,
    /// Whether that is because memory is short.
    #[serde(default)]
    pub short: bool,
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
    /// The most live bytes since the start.
    #[serde(default)]
    pub peak_bytes: u64,
    /// How often memory was allocated since the start.
    #[serde(default)]
    pub allocations: u64,
    /// The limit on live bytes in force.
    #[serde(default)]
    pub limit_bytes: u64,
    /// The limit that is configured.
    #[serde(default)]
    pub configured_bytes: u64,
    /// The limit of the tightest cgroup, and what that holds that can't be dropped, if one has a limit.
    #[serde(default)]
    pub cgroup_bytes: Option<[u64; 2]>,
    /// Of the last 10 s, the share in which tasks of the cgroup waited for memory, in percent.
    #[serde(default)]
    pub waits: Option<f64>,
    /// How many steps of giving back are in force, and the last of them.
    #[serde(default)]
    pub pressure: (u8, String),
    /// How often each step has begun.
    #[serde(default)]
    pub steps: Vec<(String, u64)>,
    /// What each part holds.
    #[serde(default)]
    pub parts: Vec<PartReport>,
}

/// A part's memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PartReport {
    /// Its name.
    pub name: String,
    /// Live bytes that were allocated while it ran.
    pub live_bytes: i64,
    /// Bytes that it holds by leases, if it takes any.
    pub reserved_bytes: Option<u64>,
}
