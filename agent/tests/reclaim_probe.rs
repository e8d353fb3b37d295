//! The probe `reclaim` on this machine's own kernel: threads that have to free memory, counted by the probe
//! and by the kernel. Needs root and the BPF objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mote::host::{Host, Roots};
use mote::model::Samples;
use mote::probe::{Loader, Options, Probes};

struct Probed {
    host: Host,
    probes: Probes,
}

/// What the probe has counted since it was started.
#[derive(Clone, Copy, Debug)]
struct Stalls {
    count: f64,
    seconds: f64,
    unmatched: f64,
    lost: f64,
}

impl Probed {
    fn start() -> Probed {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test attaches BPF programs: run it as root"
        );
        let host = Host::new(Roots::default());
        let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
        let probes = Probes::start(&Options { loader, ..Options::only("reclaim") }, &host);
        if let Err(error) = probes.required() {
            panic!("{error}");
        }
        Probed { host, probes }
    }

    fn stalls(&mut self, scope: &str) -> Stalls {
        let mut out = Samples::with_limit(1_000);
        self.probes.collect(&mut self.host, 0, &mut out);
        let sum = |name: &str, wanted: Option<(&str, &str)>| -> f64 {
            out.iter()
                .filter(|sample| sample.name() == name)
                .filter(|sample| wanted.is_none_or(|label| sample.labels().any(|l| l == label)))
                .map(|sample| sample.value)
                .sum()
        };
        let family = "mote_memory_reclaim_stall_seconds";
        Stalls {
            count: sum(&format!("{family}_count"), Some(("scope", scope))),
            seconds: sum(&format!("{family}_sum"), Some(("scope", scope))),
            unmatched: sum("mote_probe_unmatched_total", None),
            lost: sum("mote_probe_lost_total", None),
        }
    }
}

/// A memory cgroup of its own with a limit, of whichever version this host has.
struct Group {
    path: PathBuf,
    v2: bool,
}

impl Group {
    fn new(name: &str, bytes: u64) -> Group {
        let v2 = !fs::exists("/sys/fs/cgroup/memory").unwrap();
        let (root, limit) = match v2 {
            false => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            true => ("/sys/fs/cgroup", "memory.max"),
        };
        if v2 {
            // Already there where systemd has set it.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        }
        let path = PathBuf::from(root).join(format!("mote-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(limit), bytes.to_string()).unwrap();
        Group { path, v2 }
    }

    /// How often something in it was at the limit, and the fewest reclaims that this means. Version 2
    /// counts reclaims; version 1 counts looks, of which a reclaim has one or two, and some more where
    /// another thread was quicker (try_charge_memcg in mm/memcontrol.c).
    fn at_the_limit(&self) -> (f64, f64) {
        let name = if self.v2 { "memory.events" } else { "memory.failcnt" };
        let text = fs::read_to_string(self.path.join(name)).unwrap();
        let max = text.lines().find_map(|line| line.strip_prefix("max ")).unwrap_or(&text);
        let looks: f64 = max.trim().parse().unwrap();
        (looks, if self.v2 { looks } else { looks / 4.0 })
    }

    /// Writes a file of its own through the page cache, of which the cgroup has little.
    fn writer(&self, name: &str, mebibytes: u32) -> Child {
        let group = self.path.file_name().unwrap().to_str().unwrap();
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{group}-{name}"));
        let script = "echo $$ > \"$0\"; trap 'rm \"$1\"' EXIT; dd if=/dev/zero of=\"$1\" bs=64K count=\"$2\"";
        Command::new("sh")
            .args(["-c", script])
            .arg(self.path.join("cgroup.procs"))
            .arg(&file)
            .arg((mebibytes * 16).to_string())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes have been waited for.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Each test here makes others' threads wait, which all count.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn who_reclaims_for_a_cgroup_at_its_limit_is_counted_and_timed() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut probed = Probed::start();
    let group = Group::new("reclaim", 8 << 20);
    let before = probed.stalls("cgroup");
    let began = Instant::now();
    assert!(group.writer("file", 256).wait().unwrap().success());
    let wall = began.elapsed().as_secs_f64();
    let after = probed.stalls("cgroup");
    let (count, seconds) = (after.count - before.count, after.seconds - before.seconds);
    let (most, fewest) = group.at_the_limit();
    println!("{count} stalls of {seconds} s in {wall} s; {most} times at the limit; {after:?}");
    assert!(most >= 1_000.0, "the file was written without reclaim");
    // Others may be at a limit of theirs, but seldom.
    assert!(count + after.lost >= fewest && count <= most * 1.1, "{fewest} {count} {most}");
    // One thread, which did other things as well.
    assert!(seconds > 0.0 && seconds < wall * 1.1, "{seconds} s of {wall} s");
    assert!(after.unmatched <= 2.0 && after.lost <= 2.0, "{after:?}");
}

#[test]
fn a_flood_of_stalls_in_many_threads_at_once_is_counted_and_grows_no_memory() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut probed = Probed::start();
    let group = Group::new("reclaim-flood", 16 << 20);
    assert!(group.writer("first", 32).wait().unwrap().success());
    let before = probed.stalls("cgroup");
    let (old, _) = group.at_the_limit();
    let resident = resident_kib();
    let mut writers: Vec<_> =
        ["a", "b", "c", "d"].into_iter().map(|name| group.writer(name, 768)).collect();
    while writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
        probed.stalls("cgroup");
    }
    let after = probed.stalls("cgroup");
    let grown = resident_kib() - resident;
    let (count, (most, fewest)) = (after.count - before.count, group.at_the_limit());
    println!("{count} stalls, {} times at the limit; {grown} KiB; {after:?}", most - old);
    assert!(most >= 20_000.0 && count <= most * 1.1, "{count} of {most}");
    assert!(before.count + count + after.lost >= fewest, "{count} of {fewest}");
    assert!(grown < 512, "{grown} KiB");
}

/// The pool of huge pages as it was.
struct HugePages(String);

impl HugePages {
    const PATH: &str = "/proc/sys/vm/nr_hugepages";
}

impl Drop for HugePages {
    fn drop(&mut self) {
        fs::write(HugePages::PATH, self.0.trim()).unwrap();
    }
}

#[test]
#[ignore = "takes all free memory of this machine for a moment"]
fn who_reclaims_for_the_host_is_counted_as_vmstat_does() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut probed = Probed::start();
    let pool = HugePages(fs::read_to_string(HugePages::PATH).unwrap());
    let free: u64 = number("/proc/meminfo", "MemFree:") as u64 / 2048;
    let (before, stalls) = (probed.stalls("host"), allocstall());
    // The pool's allocation reclaims and then gives up: it kills nothing (__GFP_RETRY_MAYFAIL).
    let pages = pool.0.trim().parse::<u64>().unwrap() + free + 100;
    fs::write(HugePages::PATH, pages.to_string()).unwrap();
    drop(pool);
    let (after, stalls) = (probed.stalls("host"), allocstall() - stalls);
    println!("{before:?} {after:?}, {stalls} in /proc/vmstat");
    let count = after.count - before.count;
    assert!(stalls > 0.0, "nothing was reclaimed");
    // What others wait for may begin or end in between.
    assert!((count + after.lost - stalls).abs() <= 3.0, "{count} of {stalls}");
    assert!(after.seconds > before.seconds);
}

/// How often a thread began to reclaim for the host, in any zone.
fn allocstall() -> f64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("allocstall"));
    lines.map(|line| line.split_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn number(path: &str, name: &str) -> i64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn resident_kib() -> i64 {
    number("/proc/self/status", "VmRSS:")
}
