//! The families that both collectors write, with a table for each: what is read of a [`Usage`].

use super::usage::Usage;
use crate::model::Desc;

/// A family and what it takes.
pub(super) type Row = (Desc, fn(&Usage) -> Option<f64>);

const fn number(value: Option<u64>) -> Option<f64> {
    match value {
        Some(value) => Some(value as f64),
        None => None,
    }
}

/// A limit, unless there is none.
fn set(limit: Option<u64>) -> Option<f64> {
    number(limit.filter(|limit| *limit > 0))
}

/// cAdvisor's, with its names and help texts.
pub(super) const CONTAINERS: &[Row] = &[
    (
        Desc::counter(
            "container_cpu_user_seconds_total",
            "Cumulative user cpu time consumed in seconds.",
        ),
        |u| u.user,
    ),
    (
        Desc::counter(
            "container_cpu_system_seconds_total",
            "Cumulative system cpu time consumed in seconds.",
        ),
        |u| u.system,
    ),
    (
        Desc::counter(
            "container_cpu_cfs_periods_total",
            "Number of elapsed enforcement period intervals.",
        ),
        |u| number(u.periods),
    ),
    (
        Desc::counter(
            "container_cpu_cfs_throttled_periods_total",
            "Number of throttled period intervals.",
        ),
        |u| number(u.throttled_periods),
    ),
    (
        Desc::counter(
            "container_cpu_cfs_throttled_seconds_total",
            "Total time duration the container has been throttled.",
        ),
        |u| u.throttled,
    ),
    (Desc::gauge("container_spec_cpu_period", "CPU period of the container."), |u| {
        u.quota.and(number(u.period))
    }),
    (Desc::gauge("container_spec_cpu_quota", "CPU quota of the container."), |u| set(u.quota)),
    (
        Desc::gauge(
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
        ),
        |u| number(u.memory),
    ),
    (Desc::gauge("container_memory_working_set_bytes", "Current working set in bytes."), |u| {
        number(u.working_set())
    }),
    (Desc::gauge("container_memory_rss", "Size of RSS in bytes."), |u| number(u.anon)),
    (Desc::gauge("container_memory_cache", "Number of bytes of page cache memory."), |u| {
        number(u.file)
    }),
    (Desc::gauge("container_memory_mapped_file", "Size of memory mapped files in bytes."), |u| {
        number(u.mapped)
    }),
    (Desc::gauge("container_memory_swap", "Container swap usage in bytes."), |u| number(u.swap)),
    (
        Desc::gauge("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes"),
        |u| number(u.peak),
    ),
    (Desc::counter("container_memory_failcnt", "Number of memory usage hits limits"), |u| {
        number(u.failures)
    }),
    (Desc::gauge("container_spec_memory_limit_bytes", "Memory limit for the container."), |u| {
        number(u.limit)
    }),
    (
        Desc::gauge(
            "container_spec_memory_swap_limit_bytes",
            "Memory swap limit for the container.",
        ),
        |u| number(u.swap_limit),
    ),
    (
        Desc::counter(
            "container_oom_events_total",
            "Count of out of memory events observed for the container",
        ),
        |u| number(u.oom_kill),
    ),
    (Desc::gauge("container_threads", "Number of threads running inside the container"), |u| {
        number(u.tasks)
    }),
    (
        Desc::gauge(
            "container_threads_max",
            "Maximum number of threads allowed inside the container, infinity if value is zero",
        ),
        |u| number(u.tasks_limit),
    ),
    (
        Desc::counter(
            "container_pressure_cpu_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to CPU congestion.",
        ),
        |u| u.stalls[0][0],
    ),
    (
        Desc::counter(
            "container_pressure_cpu_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to CPU congestion.",
        ),
        |u| u.stalls[0][1],
    ),
    (
        Desc::counter(
            "container_pressure_memory_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to memory congestion.",
        ),
        |u| u.stalls[1][0],
    ),
    (
        Desc::counter(
            "container_pressure_memory_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to memory congestion.",
        ),
        |u| u.stalls[1][1],
    ),
    (
        Desc::counter(
            "container_pressure_io_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to IO congestion.",
        ),
        |u| u.stalls[2][0],
    ),
    (
        Desc::counter(
            "container_pressure_io_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to IO congestion.",
        ),
        |u| u.stalls[2][1],
    ),
];

/// In the order of the counts of [`Io`](super::usage::Io).
pub(super) const CONTAINERS_IO: [Desc; 4] = [
    Desc::counter("container_fs_reads_bytes_total", "Cumulative count of bytes read"),
    Desc::counter("container_fs_writes_bytes_total", "Cumulative count of bytes written"),
    Desc::counter("container_fs_reads_total", "Cumulative count of reads completed"),
    Desc::counter("container_fs_writes_total", "Cumulative count of writes completed"),
];

/// systemd_exporter's where it has them (tasks; CPU time, which it once had), and others by its habits.
pub(super) const SERVICES: &[Row] = &[
    (
        Desc::counter(
            "systemd_unit_cpu_throttled_periods_total",
            "Periods in which the unit had used up its CPU quota.",
        ),
        |u| number(u.throttled_periods),
    ),
    (
        Desc::counter(
            "systemd_unit_cpu_throttled_seconds_total",
            "Time in seconds for which the unit was held back because its CPU quota was used up.",
        ),
        |u| u.throttled,
    ),
    (Desc::gauge("systemd_unit_memory_current_bytes", "Memory of the unit in bytes."), |u| {
        number(u.memory)
    }),
    (
        Desc::gauge(
            "systemd_unit_memory_working_set_bytes",
            "Memory of the unit in bytes without inactive file pages.",
        ),
        |u| number(u.working_set()),
    ),
    (
        Desc::gauge("systemd_unit_memory_anon_bytes", "Anonymous memory of the unit in bytes."),
        |u| number(u.anon),
    ),
    (Desc::gauge("systemd_unit_memory_file_bytes", "Page cache of the unit in bytes."), |u| {
        number(u.file)
    }),
    (Desc::gauge("systemd_unit_memory_swap_bytes", "Swap of the unit in bytes."), |u| {
        number(u.swap)
    }),
    (
        Desc::gauge(
            "systemd_unit_memory_peak_bytes",
            "The most memory that the unit has had, in bytes.",
        ),
        |u| number(u.peak),
    ),
    (
        Desc::gauge(
            "systemd_unit_memory_max_bytes",
            "Memory limit of the unit in bytes, where it has one.",
        ),
        |u| set(u.limit),
    ),
    (Desc::gauge("systemd_unit_tasks_current", "Current number of tasks per Systemd unit"), |u| {
        number(u.tasks)
    }),
    (Desc::gauge("systemd_unit_tasks_max", "Maximum number of tasks per Systemd unit"), |u| {
        set(u.tasks_limit)
    }),
    (
        Desc::counter(
            "systemd_unit_pressure_cpu_waiting_seconds_total",
            "Time in seconds in which tasks of the unit have waited for the CPU.",
        ),
        |u| u.stalls[0][0],
    ),
    (
        Desc::counter(
            "systemd_unit_pressure_cpu_stalled_seconds_total",
            "Time in seconds in which all tasks of the unit have waited for the CPU.",
        ),
        |u| u.stalls[0][1],
    ),
    (
        Desc::counter(
            "systemd_unit_pressure_memory_waiting_seconds_total",
            "Time in seconds in which tasks of the unit have waited for memory.",
        ),
        |u| u.stalls[1][0],
    ),
    (
        Desc::counter(
            "systemd_unit_pressure_memory_stalled_seconds_total",
            "Time in seconds in which all tasks of the unit have waited for memory.",
        ),
        |u| u.stalls[1][1],
    ),
    (
        Desc::counter(
            "systemd_unit_pressure_io_waiting_seconds_total",
            "Time in seconds in which tasks of the unit have waited for I/O.",
        ),
        |u| u.stalls[2][0],
    ),
    (
        Desc::counter(
            "systemd_unit_pressure_io_stalled_seconds_total",
            "Time in seconds in which all tasks of the unit have waited for I/O.",
        ),
        |u| u.stalls[2][1],
    ),
];

/// In the order of the counts of [`Io`](super::usage::Io).
pub(super) const SERVICES_IO: [Desc; 4] = [
    Desc::counter("systemd_unit_io_read_bytes_total", "Bytes that the unit has read."),
    Desc::counter("systemd_unit_io_written_bytes_total", "Bytes that the unit has written."),
    Desc::counter("systemd_unit_io_reads_total", "Reads of the unit."),
    Desc::counter("systemd_unit_io_writes_total", "Writes of the unit."),
];

/// An event of memory.events and its count.
pub(super) type Event = (&'static str, fn(&Usage) -> Option<u64>);

/// Of containers, those that have no family of cAdvisor's.
pub(super) const CONTAINERS_EVENTS: &[Event] = &[("high", |u| u.high), ("oom", |u| u.oom)];

/// Of services.
pub(super) const SERVICES_EVENTS: &[Event] = &[
    ("high", |u| u.high),
    ("max", |u| u.failures),
    ("oom", |u| u.oom),
    ("oom_kill", |u| u.oom_kill),
];
