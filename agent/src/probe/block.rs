//! The probe `block`: how long the disks take, by device and operation. The programs are
//! agent-ebpf/src/block.rs; here are the fields that they need, and their maps read once a round.
//!
//! A latency is from the request's issue to its driver to the completion of its last sector: the time
//! that the device has it. /proc/diskstats adds the time that the request waited for its turn.

use std::fmt::Write as _;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::{fs, io};

use agent_common::block::{BlockCounters, BlockHistogram, BlockKey, Operation, SLOTS};
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap};

use super::channel::Report;
use super::spec::{Needed, Shape, Spec, Tracepoint};
use crate::host::Host;
use crate::model::{Desc, Samples};

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "block",
    tracepoints: &[
        Tracepoint {
            family: "block",
            event: "block_rq_issue",
            fields: &[
                needed("dev", "BLOCK_ISSUE_DEV", Shape::Number(4)),
                needed("sector", "BLOCK_ISSUE_SECTOR", Shape::Number(8)),
                needed("nr_sector", "BLOCK_ISSUE_NR_SECTOR", Shape::Number(4)),
                needed("rwbs", "BLOCK_ISSUE_RWBS", Shape::Array(4)),
            ],
        },
        Tracepoint {
            family: "block",
            event: "block_rq_complete",
            fields: &[
                needed("dev", "BLOCK_COMPLETE_DEV", Shape::Number(4)),
                needed("sector", "BLOCK_COMPLETE_SECTOR", Shape::Number(8)),
                needed("nr_sector", "BLOCK_COMPLETE_NR_SECTOR", Shape::Number(4)),
                needed("rwbs", "BLOCK_COMPLETE_RWBS", Shape::Array(4)),
            ],
        },
    ],
    maps: &["BLOCK_LATENCY", "BLOCK_COUNTERS"],
    // Each CPU keeps up to 128 free entries of an LRU map to itself (LOCAL_FREE_TARGET of
    // kernel/bpf/bpf_lru_list.c); 1,024 more are as many requests as a fast NVMe device has queued.
    sized: Some(("BLOCK_STARTS", 1024, 256)),
};

const fn needed(field: &'static str, global: &'static str, shape: Shape) -> Needed {
    Needed { field, global, shape }
}

const DURATION: Desc = Desc::histogram(
    "mote_block_io_duration_seconds",
    "Time from a request's issue to the device's driver to its completion.",
);
pub(super) const UNMATCHED: Desc = Desc::counter(
    "mote_probe_unmatched_total",
    "Events that end something of which the probe has not seen the beginning.",
);
pub(super) const LOST: Desc =
    Desc::counter("mote_probe_lost_total", "Events that the probe could not count, by reason.");

/// The slot of the first bucket: up to 16 µs, below which no disk answers.
const FIRST: usize = 4;
/// The buckets' upper bounds in seconds, 2^4 µs to 2^23 µs, written as Prometheus' clients write
/// numbers; what is longer is in `+Inf`.
const BOUNDS: [&str; 20] = [
    "1.6e-05", "3.2e-05", "6.4e-05", "0.000128", "0.000256", "0.000512", "0.001024", "0.002048",
    "0.004096", "0.008192", "0.016384", "0.032768", "0.065536", "0.131072", "0.262144", "0.524288",
    "1.048576", "2.097152", "4.194304", "8.388608",
];

/// Bits of a dev_t that are the minor number (include/linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(BlockKey);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Histogram(BlockHistogram);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counters(BlockCounters);

#[expect(unsafe_code, reason = "aya reads and writes map values as plain bytes")]
// SAFETY: all three are repr(C) structs of integers without padding, which agent-common asserts by
// their sizes: every pattern of bytes is a value, and every byte of a value is initialised.
mod pod {
    unsafe impl aya::Pod for super::Key {}
    unsafe impl aya::Pod for super::Histogram {}
    unsafe impl aya::Pod for super::Counters {}
}

/// A device and operation that have been seen.
struct Known {
    key: BlockKey,
    operation: Operation,
    /// The device's name when it was last there, or `MAJ:MIN`.
    device: String,
    /// Whether the device was there in the last round.
    present: bool,
    /// The sum over the CPUs of the last round.
    total: BlockHistogram,
}

/// The attached probe. Dropped, it detaches.
pub(super) struct Block {
    latency: PerCpuHashMap<MapData, Key, Histogram>,
    counters: PerCpuArray<MapData, Counters>,
    programs: Vec<OwnedFd>,
    _events: Vec<OwnedFd>,
    known: Vec<Known>,
    path: String,
    text: String,
}

impl Block {
    /// The probe from what the loader handed over.
    pub(super) fn new(report: Report) -> Result<Block, String> {
        let [latency, counters] = <[OwnedFd; 2]>::try_from(report.maps)
            .map_err(|maps| format!("the loader gave {} maps instead of 2", maps.len()))?;
        let unusable = |error: MapError| format!("the loader's map: {error}");
        let latency = MapData::from_fd(latency).map_err(unusable)?;
        let counters = MapData::from_fd(counters).map_err(unusable)?;
        Ok(Block {
            latency: Map::PerCpuHashMap(latency).try_into().map_err(unusable)?,
            counters: Map::PerCpuArray(counters).try_into().map_err(unusable)?,
            programs: report.programs,
            _events: report.events,
            known: Vec::new(),
            path: String::new(),
            text: String::new(),
        })
    }

    /// Reads the maps and writes a histogram for each device and operation, and what was missed.
    pub(super) fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), MapError> {
        self.discover()?;
        let mut at = 0;
        while let Some(known) = self.known.get_mut(at) {
            let before = known.total;
            known.read(&self.latency)?;
            known.present = name_device(host, known.key.device, &mut self.path, &mut self.text);
            if known.present && known.device != self.text {
                known.device.clone_from(&self.text);
            }
            if !known.present && known.total == before {
                // Gone, and nothing came since: its place is for another device.
                match self.latency.remove(&Key(known.key)) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(error),
                }
                self.known.remove(at);
                continue;
            }
            if known.device.is_empty() {
                known.device.clone_from(&self.text);
            }
            known.write(out);
            at += 1;
        }
        let mut counters = BlockCounters { unmatched: 0, starts_lost: 0, histograms_lost: 0 };
        for Counters(cpu) in self.counters.get(&0, 0)?.iter() {
            counters.unmatched += cpu.unmatched;
            counters.starts_lost += cpu.starts_lost;
            counters.histograms_lost += cpu.histograms_lost;
        }
        let nested = self.nested();
        out.family(&UNMATCHED).add(&[("probe", SPEC.name)], counters.unmatched as f64);
        let mut lost = out.family(&LOST);
        for (reason, count) in [
            ("starts_full", counters.starts_lost),
            ("histograms_full", counters.histograms_lost),
            ("nested", nested),
        ] {
            lost.add(&[("probe", SPEC.name), ("reason", reason)], count as f64);
        }
        Ok(())
    }

    /// Takes up the keys that are new in the kernel's map.
    fn discover(&mut self) -> Result<(), MapError> {
        for key in self.latency.keys() {
            let Key(key) = key?;
            // The programs write no other operation.
            let Some(operation) = Operation::from_u32(key.operation) else { continue };
            let place = |known: &Known| (known.key.device, known.key.operation);
            if let Err(at) = self.known.binary_search_by_key(&(key.device, key.operation), place) {
                let total = BlockHistogram::ZERO;
                let device = String::new();
                self.known.insert(at, Known { key, operation, device, present: true, total });
            }
        }
        Ok(())
    }

    /// Events that came while another program of perf's ran on the same CPU, which the kernel counts
    /// in `recursion_misses` of the program's fdinfo (bpf_prog_show_fdinfo in kernel/bpf/syscall.c,
    /// 5.12 and later; tracepoints count from 5.17 on).
    fn nested(&mut self) -> u64 {
        let mut sum: u64 = 0;
        for program in &self.programs {
            self.text.clear();
            // The path of this process' own /proc, which need not be the host's.
            let _ = write!(self.text, "/proc/self/fdinfo/{}", program.as_raw_fd());
            let Ok(mut file) = fs::File::open(&self.text) else { continue };
            self.text.clear();
            if file.read_to_string(&mut self.text).is_err() {
                continue;
            }
            sum += recursion_misses(&self.text).unwrap_or(0);
        }
        sum
    }
}

impl Known {
    /// Sums the CPUs' histograms up. A 32-bit kernel may be read between the halves of a number; what
    /// would go backwards for that is kept as it was until the next round.
    fn read(&mut self, latency: &PerCpuHashMap<MapData, Key, Histogram>) -> Result<(), MapError> {
        let mut total = BlockHistogram::ZERO;
        for Histogram(cpu) in latency.get(&Key(self.key), 0)?.iter() {
            for (sum, slot) in total.slots.iter_mut().zip(&cpu.slots) {
                *sum += slot;
            }
            total.sum_ns += cpu.sum_ns;
        }
        for (old, new) in self.total.slots.iter_mut().zip(&total.slots) {
            *old = (*old).max(*new);
        }
        self.total.sum_ns = self.total.sum_ns.max(total.sum_ns);
        Ok(())
    }

    fn write(&self, out: &mut Samples) {
        let count = self.total.slots.iter().sum();
        if count == 0 {
            return;
        }
        let buckets = buckets(&self.total.slots);
        out.family(&DURATION).histogram(
            &[("device", &self.device), ("operation", self.operation.as_str())],
            BOUNDS.into_iter().zip(buckets),
            self.total.sum_ns as f64 / 1e9,
            count,
        );
    }
}

/// The cumulative counts at [`BOUNDS`].
fn buckets(slots: &[u64; SLOTS]) -> [u64; BOUNDS.len()] {
    let mut below: u64 = slots.iter().take(FIRST).sum();
    let mut buckets = [0; BOUNDS.len()];
    for (bucket, slot) in buckets.iter_mut().zip(slots.iter().skip(FIRST)) {
        below += slot;
        *bucket = below;
    }
    buckets
}

/// Writes the kernel's name of a device to `name`, as /proc/diskstats has it, or `MAJ:MIN` and false if
/// there is no such device. Asked anew each round, because minor numbers are given out again.
fn name_device(host: &Host, device: u32, path: &mut String, name: &mut String) -> bool {
    let (major, minor) = (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1));
    path.clear();
    let _ = write!(path, "{}/dev/block/{major}:{minor}", host.roots().sys.display());
    let mut target = [MaybeUninit::uninit(); 1024];
    let found = rustix::fs::readlinkat_raw(rustix::fs::CWD, path.as_str(), &mut target);
    name.clear();
    // ../../devices/pci0000:00/…/block/sda
    let last = found.ok().and_then(|(target, _)| {
        let target = std::str::from_utf8(target).ok()?;
        target.rsplit('/').next().filter(|last| !last.is_empty())
    });
    match last {
        // Sysfs can't have the slash of names like cciss/c0d0 and writes it so.
        Some(last) => {
            name.extend(last.chars().map(|c| if c == '!' { '/' } else { c }));
            true
        }
        None => {
            let _ = write!(name, "{major}:{minor}");
            false
        }
    }
}

fn recursion_misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// An error of a map's with what the system said.
pub(super) fn explain(error: &MapError) -> String {
    let source = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    format!("reading the probe's maps: {error}{source}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_the_powers_of_two_in_microseconds() {
        for (k, bound) in (FIRST..).zip(BOUNDS) {
            let us: f64 = bound.parse::<f64>().unwrap() * 1e6;
            assert_eq!(us.round() as u64, 1 << k, "{bound}");
            // The canonical form of Prometheus' clients: an exponent of two digits below 0.0001.
            let seconds = (1u64 << k) as f64 / 1e6;
            let short = if seconds < 1e-4 { format!("{seconds:e}") } else { seconds.to_string() };
            assert_eq!(short, bound.replace("e-0", "e-"));
        }
    }

    #[test]
    fn what_is_shorter_is_in_the_first_bucket_and_what_is_longer_only_in_the_count() {
        let mut slots = [0; SLOTS];
        (slots[0], slots[4], slots[5], slots[23], slots[24], slots[27]) = (1, 2, 4, 8, 16, 32);
        let buckets = buckets(&slots);
        assert_eq!((buckets[0], buckets[1], buckets[18], buckets[19]), (3, 7, 7, 15));
        assert_eq!(slots.iter().sum::<u64>(), 63);
    }

    #[test]
    fn a_device_that_is_not_there_is_called_by_its_numbers() {
        let host =
            Host::new(crate::host::Roots { sys: "/nonexistent".into(), ..Default::default() });
        let mut name = "old".to_owned();
        assert!(!name_device(&host, (8 << MINOR_BITS) | 17, &mut String::new(), &mut name));
        assert_eq!(name, "8:17");
    }

    #[test]
    fn a_device_is_called_as_the_kernel_calls_it_and_not_as_sysfs_writes_it() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("dev/block");
        std::fs::create_dir_all(&folder).unwrap();
        for (numbers, target) in [("104:0", "cciss!c0d0"), ("8:0", "sda")] {
            let target = format!("../../devices/pci0000:00/block/{target}");
            std::os::unix::fs::symlink(target, folder.join(numbers)).unwrap();
        }
        let host = Host::new(crate::host::Roots { sys: sys.path().into(), ..Default::default() });
        for (device, expected) in [(104 << MINOR_BITS, "cciss/c0d0"), (8 << MINOR_BITS, "sda")] {
            let mut name = "old".to_owned();
            assert!(name_device(&host, device, &mut String::new(), &mut name));
            assert_eq!(name, expected);
        }
    }

    #[test]
    fn recursion_misses_are_read_where_the_kernel_counts_them() {
        let fdinfo = "pos:\t0\nprog_type:\t5\nrun_cnt:\t7\nrecursion_misses:\t12\n";
        assert_eq!(recursion_misses(fdinfo), Some(12));
        assert_eq!(recursion_misses("run_cnt:\t7\n"), None);
        assert_eq!(recursion_misses("recursion_misses:\tx\n"), None);
    }
}
