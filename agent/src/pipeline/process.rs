//! What the agent's own process takes, from /proc/self: always the agent's own /proc, never the host's
//! that a container mounts elsewhere.

use std::sync::OnceLock;

use crate::memory::live_bytes;
use crate::status::MemoryReport;

/// Memory and CPU seconds of this process; zeros where /proc can't be read.
pub(super) fn read() -> (MemoryReport, f64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').map(|pages| pages.trim().parse::<u64>().unwrap_or(0));
    let page = rustix::param::page_size() as u64;
    let virtual_bytes = pages.next().unwrap_or(0) * page;
    let resident_bytes = pages.next().unwrap_or(0) * page;
    let (cpu_seconds, start_seconds) = times();
    let memory = MemoryReport {
        live_bytes: live_bytes() as u64,
        resident_bytes,
        virtual_bytes,
        // One of them is the directory that is read.
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64).max(1)
            - 1,
        max_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX),
        max_virtual_bytes: rustix::process::getrlimit(rustix::process::Resource::As)
            .current
            .unwrap_or(u64::MAX),
        start_seconds,
        proportional_bytes: of("/proc/self/smaps_rollup", "Pss:").map(|kibibytes| kibibytes << 10),
        threads: of("/proc/self/status", "Threads:").unwrap_or(0),
        switches: ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
            .map(|key| of("/proc/self/status", key).unwrap_or(0)),
        disk_bytes: of("/proc/self/io", "read_bytes:")
            .zip(of("/proc/self/io", "write_bytes:"))
            .map(|(read, written)| [read, written]),
    };
    (memory, cpu_seconds)
}

/// The number behind a key at the beginning of a line; none where the kernel does not say, as it does not
/// of memory and I/O once the process is not to be looked into (it has given up rights).
fn of(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// CPU seconds, and the start in seconds since the Unix epoch, from /proc/self/stat (proc_pid_stat(5)).
fn times() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may have spaces; field 3 follows it.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let field = |number: usize| {
        after.split(' ').nth(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let hz = rustix::param::clock_ticks_per_second() as f64;
    let cpu = (field(14) + field(15)) as f64 / hz;
    // Once: the wall clock may be stepped later, and the start does not move with it.
    static START: OnceLock<f64> = OnceLock::new();
    (cpu, *START.get_or_init(|| boot_seconds() + field(22) as f64 / hz))
}

fn boot_seconds() -> f64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up = uptime.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    now - up
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_files_and_a_start() {
        let (memory, _) = super::read();
        assert!(memory.resident_bytes > 100_000 && memory.virtual_bytes >= memory.resident_bytes);
        assert!(memory.open_files >= 3 && memory.max_files >= memory.open_files);
        assert!(memory.max_virtual_bytes >= memory.virtual_bytes);
        assert!(memory.threads >= 1);
        for key in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
            assert!(super::of("/proc/self/status", key).is_some(), "{key}");
        }
        let proportional = memory.proportional_bytes.unwrap();
        assert!(proportional > 0 && proportional <= memory.virtual_bytes);
        assert!(memory.disk_bytes.is_some());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - memory.start_seconds;
        assert!((-1.0..3_600.0).contains(&age), "{age}");
    }
}
