//! The collectors over the fixture tree, in which one file is foreign.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mote::collector::{Options, Outcome, Set, Statfs, Sysctl, SysctlOptions, Usage, pattern};
use mote::encode::{Round, RoundDecoder, RoundEncoder, write_text};
use mote::host::{Host, Roots};
use mote::model::{Labels, Samples};

/// A file and the collectors that read it.
const FILES: &[(&str, &[&str])] = &[
    ("proc/stat", &["cpu", "stat"]),
    ("proc/loadavg", &["loadavg"]),
    ("proc/meminfo", &["meminfo"]),
    ("proc/vmstat", &["vmstat"]),
    ("proc/pressure/cpu", &["pressure"]),
    ("proc/pressure/io", &["pressure"]),
    ("proc/pressure/memory", &["pressure"]),
    ("proc/diskstats", &["diskstats"]),
    ("proc/net/dev", &["netdev"]),
    ("proc/1/mounts", &["filesystem"]),
    ("sys/class/net/eth0/statistics/rx_nohandler", &["netdev"]),
    ("sys/devices/system/cpu/isolated", &["cpu"]),
    ("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", &["cpu"]),
    ("sys/devices/system/cpu/cpu0/topology/core_id", &["cpu"]),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", &["time"]),
    ("root/run/udev/data/b8:0", &["diskstats"]),
    ("root/etc/localtime", &["time"]),
    ("proc/cpuinfo", &["cpu"]),
    ("proc/schedstat", &["schedstat"]),
    ("proc/sys/fs/file-nr", &["filefd", "sysctl"]),
    ("proc/interrupts", &["interrupts"]),
    ("proc/softirqs", &["softirqs"]),
    ("proc/buddyinfo", &["buddyinfo"]),
    ("proc/cgroups", &["cgroups"]),
    ("proc/zoneinfo", &["zoneinfo"]),
    ("proc/slabinfo", &["slabinfo"]),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", &["cpufreq"]),
    ("sys/devices/system/cpu/offline", &["cpufreq"]),
    ("sys/class/watchdog/watchdog0/timeout", &["watchdog"]),
    ("root/etc/os-release", &["os"]),
    ("proc/611/stat", &["processes"]),
    ("proc/611/task/613/stat", &["processes"]),
    ("proc/sys/kernel/printk", &["sysctl"]),
];

struct Fixture {
    tree: tempfile::TempDir,
    options: Options,
    /// What stands in each of the files.
    good: Vec<Vec<u8>>,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture::new());
}

impl Fixture {
    fn new() -> Fixture {
        let memory = Path::new("/dev/shm");
        let tree = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let tree = tree.expect("a temporary directory");
        copy(&source(), tree.path());
        fs::create_dir_all(tree.path().join("root/etc")).expect("in the copy");
        fs::write(tree.path().join("root/etc/localtime"), b"").expect("in the copy");
        let mut options = Options::default();
        options.filesystem.mount_timeout = Duration::from_secs(60);
        options.filesystem.statfs =
            Statfs::new(|_| Ok(Usage { block_size: 4096, blocks: u64::MAX, ..Usage::default() }));
        options.cpu.info = true;
        options.cpu.frequency = true;
        options.cpu.flags_include = pattern("s").ok();
        options.stat.softirq = true;
        let printk = Sysctl::parse("kernel.printk").expect("a setting");
        options.sysctl =
            SysctlOptions { include: vec![printk.clone()], include_info: vec![printk] };
        let read = |file| fs::read(tree.path().join(file)).expect("a file of the fixture");
        let good = FILES.iter().map(|(file, _)| read(file)).collect();
        Fixture { tree, options, good }
    }
}

/// The fixture lies beside the tests; this is built from the agent's folder and from its fuzz folder.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("tests/fixtures/pi5"))
        .find(|path| path.is_dir())
        .expect("agent/tests/fixtures/pi5")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder of the copy");
    for entry in fs::read_dir(from).expect("a folder of the fixture") {
        let entry = entry.expect("an entry of the fixture");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file of the fixture");
        }
    }
}

/// `[which file u8] [its bytes]`: collected twice, then with the good file again.
pub fn collectors(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    let index = usize::from(which) % FILES.len();
    let (file, readers) = FILES[index];
    FIXTURE.with_borrow_mut(|fixture| {
        let root = fixture.tree.path();
        let mut host = Host::new(Roots {
            proc: root.join("proc"),
            sys: root.join("sys"),
            root: root.join("root"),
        });
        let mut set = Set::new(|entry| readers.contains(&entry.name), &fixture.options);
        let write = |bytes: &[u8]| fs::write(root.join(file), bytes).expect("in the copy");
        write(bytes);
        collect(&mut set, &mut host);
        collect(&mut set, &mut host);
        write(&fixture.good[index]);
        collect(&mut set, &mut host);
        let recovered = |outcome: &Outcome| *outcome == Outcome::Good;
        // An empty file is no time zone, and was there before the fuzzing.
        assert!(
            file == "root/etc/localtime" || set.status().all(|status| recovered(status.outcome)),
            "{file} is good again, and a collector of it is not"
        );
    });
}

fn collect(set: &mut Set, host: &mut Host) {
    let mut samples = Samples::with_limit(10_000);
    set.collect(host, &mut samples);
    for status in set.status() {
        match status.outcome {
            Outcome::Pending => panic!("{} has not run", status.name),
            Outcome::Good => {}
            Outcome::NoData(why) | Outcome::Failed(why) => {
                assert!(!why.is_empty() && why.len() < 1 << 10, "{}: {why:?}", status.name);
            }
        }
    }
    for sample in samples.iter() {
        let name = sample.name();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_name));
        assert!(sample.labels().is_sorted_by(|a, b| a.0 < b.0), "{name}");
    }
    let mut text = Vec::new();
    write_text(&samples, &mut text).expect("writing to memory");
    assert!(std::str::from_utf8(&text).is_ok());
    let mut record = Vec::new();
    RoundEncoder::new(Labels::new()).encode(&[&samples], true, &mut record);
    RoundDecoder::new().decode(&record, 1, &mut Round::default()).expect("what was encoded");
}
