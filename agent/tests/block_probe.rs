//! The probe `block` on this machine's own kernel: real I/O on a loop device, counted by the probe and
//! by /proc/diskstats. Needs root, a BPF object in the checkout, and util-linux.
//!
//! The tests that need a process of another kind (without privileges, in a mount namespace without
//! tracefs) start this file's `print_report` in one and read what it prints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mote::host::{Host, Roots};
use mote::model::Samples;
use mote::probe::proc::BlockStats;
use mote::probe::{Loader, Options, Probes, Source};

const FAMILY: &str = "mote_block_io_duration_seconds";
const OPERATIONS: [&str; 4] = ["read", "write", "discard", "flush"];
const BLOCK: usize = 4096;

fn options() -> Options {
    let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
    Options { loader, ..Options::only("block") }
}

/// The probes, attached; a failure says what to do, such as `cargo xtask build-ebpf`.
fn start(host: &Host) -> Probes {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test attaches BPF programs: run it as root"
    );
    let probes = Probes::start(&options(), host);
    if let Err(error) = probes.required() {
        panic!("{error}");
    }
    probes
}

/// A loop device over a file of its own, undone when dropped.
struct Loop {
    path: PathBuf,
    image: PathBuf,
}

impl Loop {
    fn new(name: &str, bytes: usize) -> Loop {
        let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.img"));
        // Written and not only sized, so that the disk below has blocks for all of it.
        let mut file = File::create(&image).unwrap();
        for _ in 0..bytes / BLOCK {
            file.write_all(&[0x5a; BLOCK]).unwrap();
        }
        file.sync_all().unwrap();
        let out =
            Command::new("losetup").args(["--find", "--show", "--partscan"]).arg(&image).output();
        let out = out.expect("losetup, of util-linux");
        assert!(out.status.success(), "losetup: {}", String::from_utf8_lossy(&out.stderr));
        Loop { path: String::from_utf8(out.stdout).unwrap().trim().into(), image }
    }

    fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    /// Past the page cache: each read and write is a request.
    fn open(&self) -> File {
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        OpenOptions::new().read(true).write(true).custom_flags(direct).open(&self.path).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
        let _ = std::fs::remove_file(&self.image);
    }
}

/// O_DIRECT wants memory that is aligned like the device's blocks.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// Requests and their time, of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Done {
    count: f64,
    seconds: f64,
}

impl Done {
    fn since(self, before: Done) -> Done {
        Done { count: self.count - before.count, seconds: self.seconds - before.seconds }
    }
}

/// What the probe says of a device and operation.
fn probed(probes: &mut Probes, host: &mut Host, device: &str, operation: &str) -> Done {
    let mut out = Samples::with_limit(10_000);
    probes.collect(host, 0, &mut out);
    let mut done = Done::default();
    for sample in out.iter().filter(|sample| sample.family == FAMILY) {
        let labels: Vec<_> = sample.labels().collect();
        if labels.contains(&("device", device)) && labels.contains(&("operation", operation)) {
            match sample.name().strip_prefix(FAMILY).unwrap() {
                "_count" => done.count = sample.value,
                "_sum" => done.seconds = sample.value,
                _ => {}
            }
        }
    }
    done
}

/// What /proc/diskstats says (Documentation/admin-guide/iostats.rst): requests completed and the
/// milliseconds that they took, for each operation.
fn diskstats(device: &str, operation: &str) -> Done {
    let text = std::fs::read_to_string("/proc/diskstats").unwrap();
    let line = text.lines().find(|line| line.split_whitespace().nth(2) == Some(device)).unwrap();
    let fields: Vec<f64> = line.split_whitespace().skip(3).map(|f| f.parse().unwrap()).collect();
    let (count, ms) = match operation {
        "read" => (fields[0], fields[3]),
        "write" => (fields[4], fields[7]),
        "discard" => (fields[11], fields[14]),
        "flush" => (fields[15], fields[16]),
        other => panic!("{other}"),
    };
    Done { count, seconds: ms / 1000.0 }
}

/// Both accounts of a device, for each of [`OPERATIONS`].
fn both(probes: &mut Probes, host: &mut Host, device: &str) -> [(Done, Done); 4] {
    OPERATIONS
        .map(|operation| (probed(probes, host, device, operation), diskstats(device, operation)))
}

/// The bytes, and of which devices there are requests in flight, as `device operation`.
fn told(out: &Samples, named: &str) -> (f64, Vec<String>) {
    // loop1 and loop1p1, and not loop10.
    let is_of = |device: &str| {
        let rest = device.strip_prefix(named);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
    };
    let (mut bytes, mut labels) = (0.0, Vec::new());
    for sample in out.iter() {
        let [(_, device), (_, operation)] = sample.labels().take(2).collect::<Vec<_>>()[..] else {
            continue;
        };
        match sample.name() {
            "mote_block_io_bytes_total" if is_of(device) => bytes += sample.value,
            "mote_block_io_inflight" if is_of(device) => {
                labels.push(format!("{device} {operation}"));
            }
            _ => {}
        }
    }
    (bytes, labels)
}

#[test]
fn a_disk_with_a_partition_is_the_same_to_both_sources() {
    let disk = Loop::new("partitioned", 64 * BLOCK);
    let added = Command::new("addpart").arg(&disk.path).args(["1", "64", "256"]).status();
    assert!(added.expect("addpart, of util-linux").success());
    let partition = format!("{}p1", disk.name());
    let host = &mut Host::new(Roots::default());
    let (mut probes, mut stats) = (start(host), BlockStats::default());
    let mut both = || {
        let mut outs = [Samples::with_limit(10_000), Samples::with_limit(10_000)];
        probes.collect(host, 0, &mut outs[0]);
        stats.collect(host, &mut outs[1]).unwrap();
        outs.each_ref().map(|out| told(out, disk.name()))
    };
    let [probed_before, proc_before] = both();
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let mut opened = OpenOptions::new();
    let opened = opened.read(true).write(true).custom_flags(direct);
    let file = opened.open(Path::new("/dev").join(&partition)).unwrap();
    for at in 0..20 {
        let mut block = Aligned([at; BLOCK]);
        file.write_all_at(&block.0, u64::from(at) * BLOCK as u64).unwrap();
        file.read_exact_at(&mut block.0, u64::from(at) * BLOCK as u64).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(5);
    let expected = 40.0 * BLOCK as f64;
    let [probed, proc] = loop {
        let told = both();
        let moved = [told[0].0 - probed_before.0, told[1].0 - proc_before.0];
        // The kernel adds to both after it has woken who waits.
        if moved == [expected; 2] || Instant::now() > until {
            assert_eq!(moved, [expected; 2]);
            break told;
        }
    };
    let name = disk.name();
    assert_eq!(probed.1, [format!("{name} read"), format!("{name} write")]);
    assert_eq!(probed.1, proc.1);
}

#[test]
fn counts_and_times_agree_with_diskstats() {
    let mut host = Host::new(Roots::default());
    let mut probes = start(&host);
    let device = Loop::new("counts", 16 << 20);
    let file = device.open();
    let before = both(&mut probes, &mut host, device.name());

    let mut block = Aligned([7; BLOCK]);
    for at in 0..300 {
        file.write_all_at(&block.0, at * BLOCK as u64).unwrap();
    }
    for at in 0..200 {
        file.read_exact_at(&mut block.0, at * BLOCK as u64).unwrap();
    }
    for at in 0..25 {
        file.write_all_at(&block.0, at * BLOCK as u64).unwrap();
        file.sync_all().unwrap();
    }
    for at in 0..10 {
        let offset = (at << 20).to_string();
        let mut discard = Command::new("blkdiscard");
        discard.args(["--force", "--length", "65536", "--offset", &offset]).arg(&device.path);
        assert!(discard.status().expect("blkdiscard, of util-linux").success());
    }

    // The kernel adds to diskstats after it has woken who waits, so the last request may be missing.
    let deadline = Instant::now() + Duration::from_secs(10);
    let [reads, writes, discards, flushes] = loop {
        let mut now = both(&mut probes, &mut host, device.name());
        for ((probe, kernel), (probe_before, kernel_before)) in now.iter_mut().zip(before) {
            (*probe, *kernel) = (probe.since(probe_before), kernel.since(kernel_before));
        }
        let settled = [0, 2, 3].iter().all(|&at: &usize| now[at].0.count == now[at].1.count);
        if settled || Instant::now() > deadline {
            for (operation, (probe, kernel)) in OPERATIONS.iter().zip(now) {
                println!("{operation}: probe {probe:?}, diskstats {kernel:?}");
            }
            break now;
        }
        std::thread::yield_now();
    };
    // Whatever else reads a new block device (udev, for its label) is in both.
    assert!(reads.0.count >= 200.0, "{reads:?}");
    assert_eq!(reads.0.count, reads.1.count, "reads");
    assert_eq!(writes.0.count, 325.0, "writes");
    // An fsync of a block device is an empty write with a preflush. Diskstats counts it as a write, and
    // the flush that goes to the device as a flush; the probe counts only what goes to the device. A
    // write is never merged or split here: it is one block, and the next comes when it is done.
    assert_eq!(writes.1.count, 325.0 + 25.0, "writes in diskstats, the empty ones among them");
    assert_eq!(flushes.0.count, 25.0, "flushes");
    assert_eq!(flushes.1.count, 25.0, "flushes in diskstats");
    assert_eq!((discards.0.count, discards.1.count), (10.0, 10.0), "discards");
    // An empty write lasts as long as its flush, so diskstats has the flushes' time twice: here each
    // flush has an empty write of its own.
    let mut data_writes = writes;
    data_writes.1.seconds -= flushes.1.seconds;
    let times = [reads, data_writes, discards, flushes];
    for (probe, kernel) in times {
        // Diskstats' time begins earlier, when the request is made. Each figure of its is cut to a
        // millisecond, and the writes are a difference of two.
        assert!(probe.seconds > 0.0, "{probe:?} {kernel:?}");
        assert!(probe.seconds <= kernel.seconds + 0.002, "{probe:?} {kernel:?}");
    }
    // One request at a time waits for nothing but a CPU, so most of the time is the device's; taken
    // together, because on a busy machine one operation may have been unlucky.
    let sum = |of: fn(&(Done, Done)) -> Done| times.iter().map(|pair| of(pair).seconds).sum();
    let (probe, kernel): (f64, f64) = (sum(|pair| pair.0), sum(|pair| pair.1));
    assert!(probe >= kernel / 2.0, "{probe} s in the probe, {kernel} s in diskstats");
    assert_eq!(not_counted_for_want_of_room(&mut probes, &mut host), 0.0);
}

/// Events that met another program on their CPU are not among them: others may use perf too.
fn not_counted_for_want_of_room(probes: &mut Probes, host: &mut Host) -> f64 {
    let mut out = Samples::with_limit(10_000);
    probes.collect(host, 0, &mut out);
    let lost: Vec<_> = out
        .iter()
        .filter(|sample| sample.name() == "mote_probe_lost_total")
        .filter(|sample| sample.labels().any(|(_, value)| value.ends_with("_full")))
        .map(|sample| sample.value)
        .collect();
    assert_eq!(lost.len(), 4);
    lost.iter().sum()
}

#[test]
fn a_histogram_is_whole_and_never_shrinks() {
    let mut host = Host::new(Roots::default());
    let mut probes = start(&host);
    let device = Loop::new("whole", 1 << 20);
    let file = device.open();
    for _ in 0..50 {
        file.read_exact_at(&mut Aligned([0; BLOCK]).0, 0).unwrap();
    }
    let mut out = Samples::with_limit(10_000);
    probes.collect(&mut host, 0, &mut out);
    let mine: Vec<_> = out
        .iter()
        .filter(|sample| sample.family == FAMILY)
        .filter(|sample| sample.labels().any(|label| label == ("device", device.name())))
        .filter(|sample| sample.labels().any(|label| label == ("operation", "read")))
        .collect();
    // 23 buckets, +Inf, sum, count.
    assert_eq!(mine.len(), 26);
    let buckets: Vec<(f64, f64)> = mine
        .iter()
        .filter(|sample| sample.name().ends_with("_bucket"))
        .map(|sample| {
            let (_, le) = sample.labels().find(|(name, _)| *name == "le").unwrap();
            (if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() }, sample.value)
        })
        .collect();
    assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
    let count = mine.last().unwrap().value;
    assert!(count >= 50.0, "{count}");
    assert_eq!(buckets.last().unwrap().1, count);
    let mut again = Samples::with_limit(10_000);
    probes.collect(&mut host, 0, &mut again);
    for sample in &mine {
        let now = again.iter().find(|other| other.key == sample.key).expect("the series stays");
        assert!(now.value >= sample.value);
    }
}

#[test]
fn a_device_that_is_gone_is_forgotten_once_nothing_comes_from_it() {
    // Loop devices stay, so a sysfs without any device plays the part of one that has lost them. The
    // loader is given the real one.
    let mut host = Host::new(Roots::default());
    let mut probes = start(&host);
    let device = Loop::new("gone", 1 << 20);
    let file = device.open();
    let read = || file.read_exact_at(&mut Aligned([0; BLOCK]).0, 0).unwrap();
    for _ in 0..3 {
        read();
    }
    let number = rustix::fs::stat(&device.path).unwrap().st_rdev;
    let numbers = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let mut bare = Host::new(Roots { sys: "/nonexistent".into(), ..Roots::default() });
    let before = probed(&mut probes, &mut bare, &numbers, "read").count;
    assert!(before >= 3.0, "{before}");
    // Something came since: it is not lost with the device.
    read();
    let last = probed(&mut probes, &mut bare, &numbers, "read").count;
    assert!(last > before, "{last}");
    // The kernel's map has forgotten it as well, or the third round would bring it back.
    for round in 0..3 {
        let gone = probed(&mut probes, &mut bare, &numbers, "read").count;
        assert_eq!(gone, 0.0, "round {round}");
    }
    // And it may come back, or another one with its number: what it counts is new.
    read();
    let back = probed(&mut probes, &mut host, device.name(), "read").count;
    assert!(back >= 1.0 && back < last, "{back} after {last}");
}

#[test]
fn it_loads_where_tracefs_is_not_mounted_and_leaves_it_so() {
    let script = "umount -a -t tracefs; umount -a -t debugfs
        mounted() { grep -qE ' (tracefs|debugfs) ' /proc/self/mounts; }
        mounted && exit 3; \"$@\"; code=$?; mounted && exit 4; exit $code";
    let printed = report("unshare", &["--mount", "sh", "-c", script, "sh"]);
    assert!(printed.contains("block Tracepoint []"), "{printed}");
}

#[test]
fn without_privileges_it_uses_proc_and_says_what_it_would_need() {
    let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let capabilities = ["--inh-caps=-all", "--bounding-set=-all"];
    let printed = report("setpriv", &[&ids[..], &capabilities[..]].concat());
    assert!(
        printed.contains("block Proc [it needs root, or the capabilities CAP_BPF"),
        "{printed}"
    );
}

/// What a service may be given instead of root.
const FEW: &str = "--bounding-set=-all,+bpf,+perfmon,+dac_read_search";

#[test]
fn without_the_right_to_mount_it_says_how_tracefs_is_mounted() {
    let script = "umount -a -t tracefs; umount -a -t debugfs; exec setpriv \"$0\" \"$@\"";
    let printed = report("unshare", &["--mount", "sh", "-c", script, FEW]);
    assert!(printed.contains("block Proc [tracefs isn't mounted"), "{printed}");
    assert!(printed.contains("mount -t tracefs nodev /sys/kernel/tracing"), "{printed}");
}

#[test]
fn few_capabilities_are_enough_where_tracefs_is_mounted() {
    let script = "mount -t tracefs nodev /sys/kernel/tracing; exec setpriv \"$0\" \"$@\"";
    let printed = report("unshare", &["--mount", "sh", "-c", script, FEW]);
    assert!(printed.contains("block Tracepoint []"), "{printed}");
}

#[test]
fn loading_leaves_no_memory_behind() {
    let printed = report("env", &[]);
    let grown = printed.lines().find_map(|line| line.strip_prefix("grown KiB: ")).unwrap();
    println!("resident memory grew by {grown} KiB");
    // Pages of a debug build's code, for the most part; loading in this process would take 16 MiB.
    assert!(grown.parse::<i64>().unwrap() < 2048, "{printed}");
}

/// Runs `print_report` in a process that `program` and its arguments make.
fn report(program: &str, arguments: &[&str]) -> String {
    assert!(rustix::process::geteuid().is_root(), "this test changes its rights: run it as root");
    let out = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "print_report", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap_or_else(|error| panic!("{program}, of util-linux or coreutils: {error}"));
    let printed = String::from_utf8(out.stdout).unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program}: {}\n{printed}\n{errors}", out.status);
    printed
}

#[test]
#[ignore = "no test: what the tests above run in a process of another kind"]
fn print_report() {
    let mut host = Host::new(Roots::default());
    let before = resident_kib();
    let mut probes = Probes::start(&options(), &host);
    let mut out = Samples::with_limit(10_000);
    probes.collect(&mut host, 0, &mut out);
    let after = resident_kib();
    println!();
    for status in probes.status().filter(|status| status.name == "block") {
        assert_eq!(status.source == Source::Tracepoint, status.reason.is_empty());
        println!("{} {:?} [{}]", status.name, status.source, status.reason);
    }
    println!("resident KiB: {before} {after}\ngrown KiB: {}", after - before);
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
