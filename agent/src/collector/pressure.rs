//! node_exporter's `pressure`, from /proc/pressure (kernel/sched/psi.c; Linux 4.20 and later, and not
//! where the kernel was built or started with pressure stall information off).
//!
//! The parser is our own because the procfs crate's demands the line `full`, which /proc/pressure/cpu
//! has only since Linux 5.13, and panics on a line that is cut after `some`.

use super::parse::{FirstError, fields, lines, malformed, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

struct Resource {
    /// Below the root of /proc.
    path: &'static str,
    file: &'static str,
    /// Of the line `some`.
    waiting: Desc,
    /// Of the line `full`; none for the CPU, where `full` has no meaning for the whole system.
    stalled: Option<Desc>,
}

const RESOURCES: [Resource; 3] = [
    Resource {
        path: "pressure/cpu",
        file: "proc/pressure/cpu",
        waiting: Desc::counter(
            "node_pressure_cpu_waiting_seconds_total",
            "Total time in seconds that processes have waited for CPU time",
        ),
        stalled: None,
    },
    Resource {
        path: "pressure/io",
        file: "proc/pressure/io",
        waiting: Desc::counter(
            "node_pressure_io_waiting_seconds_total",
            "Total time in seconds that processes have waited due to IO congestion",
        ),
        stalled: Some(Desc::counter(
            "node_pressure_io_stalled_seconds_total",
            "Total time in seconds no process could make progress due to IO congestion",
        )),
    },
    Resource {
        path: "pressure/memory",
        file: "proc/pressure/memory",
        waiting: Desc::counter(
            "node_pressure_memory_waiting_seconds_total",
            "Total time in seconds that processes have waited for memory",
        ),
        stalled: Some(Desc::counter(
            "node_pressure_memory_stalled_seconds_total",
            "Total time in seconds no process could make progress due to memory congestion",
        )),
    },
];

/// The time that tasks have waited for CPU, I/O and memory.
pub(super) struct Pressure;

impl Collector for Pressure {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        for resource in &RESOURCES {
            match host.proc(resource.path) {
                Ok(bytes) => {
                    read(resource, bytes, out).unwrap_or_else(|error| errors.note(error));
                }
                Err(error) => errors.note(error.into()),
            }
        }
        errors.result()
    }
}

fn read(resource: &Resource, bytes: &[u8], out: &mut Samples) -> Result<(), CollectError> {
    let mut errors = FirstError::default();
    let bytes = whole(resource.file, bytes, &mut errors);
    for (key, desc) in
        [(&b"some"[..], Some(&resource.waiting)), (b"full", resource.stalled.as_ref())]
    {
        let Some(desc) = desc else { continue };
        let line = lines(bytes)
            .find(|line| fields(line).next() == Some(key))
            .ok_or_else(|| malformed(resource.file, bytes, "a line `some` and a line `full`"))?;
        let total = fields(line).find_map(|field| field.strip_prefix(b"total="));
        let micros = total
            .and_then(unsigned)
            .ok_or_else(|| malformed(resource.file, line, "total= and microseconds"))?;
        // Two divisions, as node_exporter: one by 1e6 differs in the last bit.
        out.value(desc, micros as f64 / 1000.0 / 1000.0);
    }
    errors.result()
}
