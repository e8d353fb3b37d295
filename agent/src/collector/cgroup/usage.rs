//! What one group has used: its files in a v2 tree (Documentation/admin-guide/cgroup-v2.rst), or those of
//! the v1 controllers (Documentation/admin-guide/cgroup-v1), each read once.
//!
//! What a group's files lack is not there: a controller that is off for it, a kernel before the file came.

use std::fmt;

use super::devices::{Devices, Index, numbers};
use super::layout::Layout;
use crate::collector::parse::{FirstError, fields, lines, malformed, named, unsigned};
use crate::host::{Host, Root};

/// v1's word for no limit: the largest number of pages, in bytes. On 32-bit machines it is that of pages
/// that a `long` can count.
const V1_UNLIMITED: u64 = 1 << 62;
const V1_UNLIMITED_32: std::ops::RangeInclusive<u64> =
    (i32::MAX as u64) << 12..=(i32::MAX as u64) << 16;

/// Of one group. Limits are 0 where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// CPU time in seconds.
    pub(super) cpu: Option<f64>,
    pub(super) user: Option<f64>,
    pub(super) system: Option<f64>,
    /// Of the bandwidth controller; none where the group has never had a quota.
    pub(super) periods: Option<u64>,
    pub(super) throttled_periods: Option<u64>,
    pub(super) throttled: Option<f64>,
    /// In microseconds.
    pub(super) quota: Option<u64>,
    pub(super) period: Option<u64>,
    /// Memory in bytes.
    pub(super) memory: Option<u64>,
    pub(super) peak: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) swap_limit: Option<u64>,
    pub(super) swap: Option<u64>,
    pub(super) anon: Option<u64>,
    pub(super) file: Option<u64>,
    pub(super) mapped: Option<u64>,
    pub(super) inactive_file: Option<u64>,
    /// How often the limit was met.
    pub(super) failures: Option<u64>,
    /// Of memory.events.
    pub(super) high: Option<u64>,
    pub(super) oom: Option<u64>,
    pub(super) oom_kill: Option<u64>,
    pub(super) tasks: Option<u64>,
    pub(super) tasks_limit: Option<u64>,
    /// Seconds in which some or all tasks waited for CPU, memory and I/O.
    pub(super) stalls: [[Option<f64>; 2]; 3],
}

impl Usage {
    /// As Kubernetes and Docker count it: without file pages that are not in use.
    pub(super) fn working_set(&self) -> Option<u64> {
        Some(self.memory?.saturating_sub(self.inactive_file?))
    }
}

/// What a group has read from and written to one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) device: Index,
    /// Bytes read, bytes written, reads, writes.
    pub(super) counts: [u64; 4],
}

/// Reads one group after the other.
pub(super) struct Reader<'a> {
    pub(super) host: &'a mut Host,
    pub(super) layout: &'a Layout,
    pub(super) devices: &'a mut Devices,
    pub(super) errors: &'a mut FirstError,
}

impl Reader<'_> {
    /// Reads the group at this path below the tree's root; its I/O is added to `io`.
    pub(super) fn read(&mut self, path: &str, io: &mut Vec<Io>) -> Usage {
        let mut usage = Usage::default();
        let layout = self.layout;
        if layout.is_v2 {
            self.cpu(path, &mut usage);
            if let Some(base) = &layout.memory {
                self.memory(&File { base, path }, &mut usage);
            }
            if let Some(base) = &layout.io {
                self.io(&File { base, path }, io);
            }
        } else {
            self.cpu_v1(path, &mut usage);
            if let Some(base) = &layout.memory {
                self.memory_v1(&File { base, path }, &mut usage);
            }
            if let Some(base) = &layout.io {
                self.io_v1(&File { base, path }, io);
            }
        }
        if let Some(base) = &layout.pids {
            let file = File { base, path };
            usage.tasks = self.number(&file, "pids.current");
            usage.tasks_limit = self.limit(&file, "pids.max");
        }
        if let Some(base) = &layout.unified {
            let file = File { base, path };
            for (name, stalls) in ["cpu.pressure", "memory.pressure", "io.pressure"]
                .into_iter()
                .zip(&mut usage.stalls)
            {
                self.stalls(&file, name, stalls);
            }
        }
        usage
    }

    fn cpu(&mut self, path: &str, usage: &mut Usage) {
        let Some(base) = &self.layout.unified else { return };
        let file = File { base, path };
        let micros = |value| Some(value as f64 / 1e6);
        self.keyed(&file, "cpu.stat", |key, value| match key {
            b"usage_usec" => usage.cpu = micros(value),
            b"user_usec" => usage.user = micros(value),
            b"system_usec" => usage.system = micros(value),
            b"nr_periods" => usage.periods = Some(value),
            b"nr_throttled" => usage.throttled_periods = Some(value),
            b"throttled_usec" => usage.throttled = micros(value),
            _ => {}
        });
        if self.layout.cpu.is_some()
            && let Some(bytes) = self.host.find(Root::Sys, file.of("cpu.max"))
        {
            let mut parts = fields(bytes);
            let (quota, period) =
                (parts.next().unwrap_or_default(), parts.next().and_then(unsigned));
            if quota != b"max" {
                usage.quota = unsigned(quota);
                if usage.quota.is_none() || period.is_none() {
                    let error = malformed(&file.name("cpu.max"), bytes, "quota and period");
                    self.errors.note(error);
                }
            }
            usage.period = period;
        }
        forget_unlimited(usage);
    }

    fn cpu_v1(&mut self, path: &str, usage: &mut Usage) {
        // The tree without controllers counts CPU time too, but has no groups where systemd makes none.
        self.cpu(path, usage);
        if let Some(base) = &self.layout.cpuacct {
            let file = File { base, path };
            if let Some(nanos) = self.number(&file, "cpuacct.usage") {
                usage.cpu = Some(nanos as f64 / 1e9);
            }
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            self.keyed(&file, "cpuacct.stat", |key, value| match key {
                b"user" => usage.user = Some(value as f64 / ticks),
                b"system" => usage.system = Some(value as f64 / ticks),
                _ => {}
            });
        }
        if let Some(base) = &self.layout.cpu {
            let file = File { base, path };
            self.keyed(&file, "cpu.stat", |key, value| match key {
                b"nr_periods" => usage.periods = Some(value),
                b"nr_throttled" => usage.throttled_periods = Some(value),
                b"throttled_time" => usage.throttled = Some(value as f64 / 1e9),
                _ => {}
            });
            usage.period = self.number(&file, "cpu.cfs_period_us");
            // -1 is none.
            usage.quota =
                self.find(&file, "cpu.cfs_quota_us").and_then(|bytes| unsigned(bytes.trim_ascii()));
        }
        forget_unlimited(usage);
    }

    fn memory(&mut self, file: &File<'_>, usage: &mut Usage) {
        usage.memory = self.number(file, "memory.current");
        usage.peak = self.number(file, "memory.peak");
        usage.limit = self.limit(file, "memory.max");
        usage.swap = self.number(file, "memory.swap.current");
        usage.swap_limit = self.limit(file, "memory.swap.max");
        self.keyed(file, "memory.stat", |key, value| match key {
            b"anon" => usage.anon = Some(value),
            b"file" => usage.file = Some(value),
            b"file_mapped" => usage.mapped = Some(value),
            b"inactive_file" => usage.inactive_file = Some(value),
            _ => {}
        });
        self.keyed(file, "memory.events", |key, value| match key {
            b"high" => usage.high = Some(value),
            b"max" => usage.failures = Some(value),
            b"oom" => usage.oom = Some(value),
            b"oom_kill" => usage.oom_kill = Some(value),
            _ => {}
        });
    }

    fn memory_v1(&mut self, file: &File<'_>, usage: &mut Usage) {
        let limited = |limit: u64| {
            let is_none = limit >= V1_UNLIMITED || V1_UNLIMITED_32.contains(&limit);
            if is_none { 0 } else { limit }
        };
        usage.memory = self.number(file, "memory.usage_in_bytes");
        usage.peak = self.number(file, "memory.max_usage_in_bytes");
        usage.limit = self.number(file, "memory.limit_in_bytes").map(limited);
        // Of memory and swap together.
        usage.swap_limit = self.number(file, "memory.memsw.limit_in_bytes").map(limited);
        usage.failures = self.number(file, "memory.failcnt");
        // With the groups below it; `use_hierarchy` has been always on since Linux 5.11.
        self.keyed(file, "memory.stat", |key, value| match key {
            b"total_rss" => usage.anon = Some(value),
            b"total_cache" => usage.file = Some(value),
            b"total_mapped_file" => usage.mapped = Some(value),
            b"total_inactive_file" => usage.inactive_file = Some(value),
            b"total_swap" => usage.swap = Some(value),
            _ => {}
        });
        // Since Linux 4.13.
        self.keyed(file, "memory.oom_control", |key, value| {
            if key == b"oom_kill" {
                usage.oom_kill = Some(value);
            }
        });
    }

    fn io(&mut self, file: &File<'_>, io: &mut Vec<Io>) {
        // The devices' names are read through the buffer that the lines are in.
        let mut found = heapless::Vec::<((u32, u32), [u64; 4]), MAX_DEVICES>::new();
        let Some(bytes) = self.host.find(Root::Sys, file.of("io.stat")) else { return };
        for line in lines(bytes) {
            let mut number = None;
            let mut counts = [None; 4];
            let mut fine = true;
            for field in fields(line) {
                let Some(equals) = field.iter().position(|&byte| byte == b'=') else {
                    // Before Linux 5.14 a device that has done nothing has no line break behind its number.
                    number = numbers(field);
                    fine &= number.is_some();
                    continue;
                };
                let (key, value) = field.split_at(equals);
                let place = match key {
                    b"rbytes" => 0,
                    b"wbytes" => 1,
                    b"rios" => 2,
                    b"wios" => 3,
                    _ => continue,
                };
                let value = value.get(1..).and_then(unsigned);
                fine &= value.is_some();
                if let Some(count) = counts.get_mut(place) {
                    *count = value;
                }
            }
            match (number, counts) {
                (Some(number), [Some(a), Some(b), Some(c), Some(d)]) if fine => {
                    let _ = found.push((number, [a, b, c, d]));
                }
                (Some(_), [None, None, None, None]) if fine => {}
                _ => self.errors.note(malformed(
                    &file.name("io.stat"),
                    line,
                    "a device, rbytes=, wbytes=, rios= and wios=",
                )),
            }
        }
        self.add(&found, io);
    }

    fn io_v1(&mut self, file: &File<'_>, io: &mut Vec<Io>) {
        let mut found = heapless::Vec::<((u32, u32), [u64; 4]), MAX_DEVICES>::new();
        // With the groups below it, or, on old kernels, without.
        const BYTES: [&str; 2] =
            ["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"];
        const OPERATIONS: [&str; 2] =
            ["blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"];
        for (names, first) in [(BYTES, 0), (OPERATIONS, 2)] {
            let name = names.into_iter().find(|name| self.find(file, name).is_some());
            let Some(name) = name else { continue };
            for line in lines(self.host.last()) {
                let mut parts = fields(line);
                let (device, word) = (parts.next().unwrap_or_default(), parts.next());
                let place = match word {
                    Some(b"Read") => first,
                    Some(b"Write") => first + 1,
                    // Sync, Async, Discard and Total, and the total of all devices, `Total 0`.
                    _ => continue,
                };
                let (Some(number), Some(value)) =
                    (numbers(device), parts.next().and_then(unsigned))
                else {
                    self.errors.note(malformed(&file.name(name), line, "a device and a number"));
                    continue;
                };
                let at = match found.iter().position(|(known, _)| *known == number) {
                    Some(at) => at,
                    None if found.push((number, [0; 4])).is_ok() => found.len() - 1,
                    None => continue,
                };
                if let Some(count) = found.get_mut(at).and_then(|(_, all)| all.get_mut(place)) {
                    *count = value;
                }
            }
        }
        self.add(&found, io);
    }

    fn add(&mut self, found: &[((u32, u32), [u64; 4])], io: &mut Vec<Io>) {
        let first = io.len();
        for (number, counts) in found {
            let Some(device) = self.devices.index(self.host, *number) else { continue };
            // A device with two lines would be two series of one name.
            if io.get(first..).is_some_and(|own| own.iter().all(|io| io.device != device)) {
                io.push(Io { device, counts: *counts });
            }
        }
    }

    /// Both lines of a file of stalls; `cpu.pressure` has its second since Linux 5.13.
    fn stalls(&mut self, file: &File<'_>, name: &'static str, stalls: &mut [Option<f64>; 2]) {
        // Not there, or the kernel was started without.
        let Some(bytes) = self.host.find(Root::Sys, file.of(name)) else { return };
        for line in lines(bytes) {
            let place = match fields(line).next() {
                Some(b"some") => 0,
                Some(b"full") => 1,
                _ => {
                    self.errors.note(malformed(&file.name(name), line, "`some` or `full`"));
                    continue;
                }
            };
            let total = fields(line).find_map(|field| field.strip_prefix(b"total="));
            match (total.and_then(unsigned), stalls.get_mut(place)) {
                (Some(micros), Some(stall)) => *stall = Some(micros as f64 / 1e6),
                _ => {
                    let expected = "total= and microseconds";
                    self.errors.note(malformed(&file.name(name), line, expected));
                }
            }
        }
    }

    fn find(&mut self, file: &File<'_>, name: &str) -> Option<&[u8]> {
        self.host.find(Root::Sys, file.of(name))
    }

    fn number(&mut self, file: &File<'_>, name: &str) -> Option<u64> {
        self.limit_or(file, name, None)
    }

    /// A number, or `max`, which is 0.
    fn limit(&mut self, file: &File<'_>, name: &str) -> Option<u64> {
        self.limit_or(file, name, Some(0))
    }

    fn limit_or(&mut self, file: &File<'_>, name: &str, max: Option<u64>) -> Option<u64> {
        let bytes = self.host.find(Root::Sys, file.of(name))?;
        let token = bytes.trim_ascii();
        if token == b"max" && max.is_some() {
            return max;
        }
        let value = unsigned(token);
        if value.is_none() {
            self.errors.note(malformed(&file.name(name), token, "a number"));
        }
        value
    }

    /// The lines of a name and a number each.
    fn keyed(&mut self, file: &File<'_>, name: &str, mut take: impl FnMut(&[u8], u64)) {
        let Some(bytes) = self.host.find(Root::Sys, file.of(name)) else { return };
        for line in lines(bytes) {
            let mut parts = fields(line);
            match (parts.next(), parts.next().and_then(unsigned)) {
                (Some(key), Some(value)) => take(key, value),
                _ => self.errors.note(malformed(&file.name(name), line, "a name and a number")),
            }
        }
    }
}

/// Block devices of one group; more are left out.
const MAX_DEVICES: usize = 64;

/// The bandwidth controller counts nothing without a quota; four zeros a group are not worth their place.
fn forget_unlimited(usage: &mut Usage) {
    if usage.periods == Some(0) {
        usage.periods = None;
        usage.throttled_periods = None;
        usage.throttled = None;
    }
}

/// The files of a group in one hierarchy.
struct File<'a> {
    base: &'a str,
    path: &'a str,
}

impl<'a> File<'a> {
    fn of(&self, name: &'a str) -> Path<'a> {
        Path { base: self.base, path: self.path, name }
    }

    /// As errors name it.
    fn name(&self, name: &str) -> String {
        named(Root::Sys, format_args!("{}{}/{name}", self.base, self.path))
    }
}

struct Path<'a> {
    base: &'a str,
    path: &'a str,
    name: &'a str,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", self.base, self.path, self.name)
    }
}
