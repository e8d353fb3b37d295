//! The agent's own metrics, of its report. It must not know where the report comes from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::{Report, WalReport};
use crate::model::{Desc, Samples};

/// Jobs of scrapes that take no memory.
const JOBS: usize = 32;

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
const PEAK: Desc = Desc::gauge("mote_memory_peak_bytes", "The most live bytes since the start.");
const ALLOCATIONS: Desc =
    Desc::counter("mote_memory_allocations_total", "How often memory was allocated.");
const LIMIT: Desc = Desc::gauge(
    "mote_memory_limit_bytes",
    "The limit on live bytes in force: agent.memory_limit, or what a cgroup leaves.",
);
const PRESSURE: Desc = Desc::gauge(
    "mote_memory_pressure",
    "How many steps of giving memory back are in force: 0 none, 1 caches, 2 batches, 3 logs, 4 scrapes, 5 collectors.",
);
const STEPS_BEGUN: Desc = Desc::counter(
    "mote_memory_pressure_steps_total",
    "How often a step of giving memory back has begun.",
);
const PART: Desc = Desc::gauge(
    "mote_memory_part_bytes",
    "Live bytes that were allocated while a part of the agent ran.",
);
const RESERVED: Desc = Desc::gauge(
    "mote_memory_reserved_bytes",
    "Bytes of the budget that a part of the agent holds.",
);
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
        // Those of more jobs than there is room for are kept elsewhere.
        let mut jobs: heapless::LinearMap<&str, [u64; 2], JOBS> = heapless::LinearMap::new();
        let mut more: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for target in &self.targets {
            let job = target.job.as_str();
            let counts = match jobs.contains_key(&job) || jobs.insert(job, [0; 2]).is_ok() {
                true => jobs.get_mut(&job),
                false => Some(more.entry(job).or_default()),
            };
            let Some([good, failed]) = counts else { continue };
            *good += target.scrapes.saturating_sub(target.failures);
            *failed += target.failures;
        }
        // `job` is who says it.
        for (job, [good, failed]) in jobs.iter().chain(&more) {
            out.family(&SCRAPES)
                .add(&[("scrape_job", job), ("result", "good")], *good as f64)
                .add(&[("scrape_job", job), ("result", "failed")], *failed as f64);
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
                let mut number: heapless::String<20> = heapless::String::new();
                // A u64 has at most 20 digits.
                let _ = write!(number, "{stage}");
                out.family(&MISSES).add(&[("stage", &number)], *count as f64);
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
        out.value(&PEAK, m.peak_bytes as f64);
        out.value(&ALLOCATIONS, m.allocations as f64);
        out.value(&LIMIT, m.limit_bytes as f64);
        out.value(&PRESSURE, f64::from(m.pressure.0));
        for (step, count) in &m.steps {
            out.family(&STEPS_BEGUN).add(&[("step", step)], *count as f64);
        }
        for part in &m.parts {
            out.family(&PART).add(&[("part", &part.name)], part.live_bytes as f64);
        }
        for part in &m.parts {
            let Some(reserved) = part.reserved_bytes else { continue };
            out.family(&RESERVED).add(&[("part", &part.name)], reserved as f64);
        }
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
