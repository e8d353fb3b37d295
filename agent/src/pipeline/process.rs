//! What the agent's own process takes, from /proc/self: always the agent's own /proc, never the host's
//! that a container mounts elsewhere.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, RawDir};

use crate::memory::{allocations, live_bytes, peak_bytes};
use crate::status::MemoryReport;

/// Says the memory of this process, and returns its CPU seconds; zeros where /proc can't be read.
pub(super) fn read(memory: &mut MemoryReport) -> f64 {
    let page = rustix::param::page_size() as u64;
    let [virtual_bytes, resident_bytes] = with("/proc/self/statm", |statm| {
        let mut pages = statm.split(' ').map(|pages| pages.trim().parse::<u64>().unwrap_or(0));
        [(); 2].map(|()| pages.next().unwrap_or(0) * page)
    });
    let (cpu_seconds, start_seconds) = times();
    let (threads, switches) = with("/proc/self/status", |status| {
        let keys = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        let count = |key| number(status, key).unwrap_or(0);
        (count("Threads:"), keys.map(count))
    });
    let limit = |resource| rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX);
    *memory = MemoryReport {
        live_bytes: live_bytes() as u64,
        resident_bytes,
        virtual_bytes,
        open_files: open_files(),
        max_files: limit(rustix::process::Resource::Nofile),
        max_virtual_bytes: limit(rustix::process::Resource::As),
        start_seconds,
        proportional_bytes: with("/proc/self/smaps_rollup", |rollup| number(rollup, "Pss:"))
            .map(|kibibytes| kibibytes << 10),
        threads,
        switches,
        disk_bytes: with("/proc/self/io", |io| {
            let (read, written) = number(io, "read_bytes:").zip(number(io, "write_bytes:"))?;
            Some([read, written])
        }),
        peak_bytes: peak_bytes() as u64,
        allocations: allocations() as u64,
        // Names, which the budget knows.
        ..std::mem::take(memory)
    };
    cpu_seconds
}

/// Looks at a file's text, read into a buffer that is used again; at nothing if it can't be read.
fn with<T>(file: &str, look: impl FnOnce(&str) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
    }
    BUFFER.with_borrow_mut(|text| {
        text.clear();
        let read = File::open(file).and_then(|mut file| file.read_to_string(text));
        look(if read.is_ok() { text } else { "" })
    })
}

/// The number behind a key at the beginning of a line; none where the kernel does not say, as it does not
/// of memory and I/O once the process is not to be looked into (it has given up rights).
fn number(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How many files are open, without the directory that tells it.
fn open_files() -> u64 {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let Ok(directory) = rustix::fs::open("/proc/self/fd", flags, Mode::empty()) else { return 0 };
    let mut buffer = [MaybeUninit::uninit(); 4 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut count = 0u64;
    while let Some(Ok(entry)) = entries.next() {
        count += u64::from(entry.file_name().to_bytes().first() != Some(&b'.'));
    }
    count.saturating_sub(1)
}

/// CPU seconds, and the start in seconds since the Unix epoch, from /proc/self/stat (proc_pid_stat(5)).
fn times() -> (f64, f64) {
    let [user, system, start] = with("/proc/self/stat", |stat| {
        // The name in parentheses may have spaces; field 3 follows it.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        [14, 15, 22].map(|number: usize| {
            after.split(' ').nth(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        })
    });
    let hz = rustix::param::clock_ticks_per_second() as f64;
    // Once: the wall clock may be stepped later, and the start does not move with it.
    static START: OnceLock<f64> = OnceLock::new();
    let start = *START.get_or_init(|| boot_seconds() + start as f64 / hz);
    ((user + system) as f64 / hz, start)
}

fn boot_seconds() -> f64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    let up = with("/proc/uptime", |uptime| uptime.split(' ').next()?.parse::<f64>().ok());
    now - up.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_files_and_a_start() {
        let mut memory = super::MemoryReport::default();
        super::read(&mut memory);
        assert!(memory.resident_bytes > 100_000 && memory.virtual_bytes >= memory.resident_bytes);
        assert!(memory.open_files >= 3 && memory.max_files >= memory.open_files);
        assert!(memory.max_virtual_bytes >= memory.virtual_bytes);
        assert!(memory.threads >= 1);
        assert!(memory.switches[0] + memory.switches[1] > 0);
        let before = memory.open_files;
        let more: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let mut with_more = super::MemoryReport::default();
        super::read(&mut with_more);
        // Other tests open and close files at the same time.
        assert!((before + 200..before + 400).contains(&with_more.open_files), "{before}");
        drop(more);
        let proportional = memory.proportional_bytes.unwrap();
        assert!(proportional > 0 && proportional <= memory.virtual_bytes);
        assert!(memory.disk_bytes.is_some());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - memory.start_seconds;
        assert!((-1.0..3_600.0).contains(&age), "{age}");
    }
}
