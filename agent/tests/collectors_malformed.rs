//! Files of the kernel's that are missing, malformed or cut: an error that names the file and the token,
//! the lines beside it go on, and one line in the log when a collector begins to fail and one when it
//! recovers. That no file whatever stops a collector that does not read it, `collectors_foreign.rs` tries.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fixtures::{Copy, collect, host, options, outcome};
use mote::collector::{Outcome, Set};

/// Files of which each line ends with a line break, and the collectors that read them.
const LINES: &[(&str, &[&str])] = &[
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
];

struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));
/// Tests run at the same time, and the log is one.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info {
            let line = format!("{} {}", record.level(), record.args());
            self.0.lock().unwrap().push(line);
        }
    }
    fn flush(&self) {}
}

fn logged() -> MutexGuard<'static, ()> {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _ = log::set_logger(&LOG);
    log::set_max_level(log::LevelFilter::Debug);
    take_log();
    guard
}

fn take_log() -> Vec<String> {
    std::mem::take(&mut LOG.0.lock().unwrap())
}

#[test]
fn the_error_names_the_file_and_the_token_and_the_other_lines_are_kept() {
    let _guard = logged();
    // File, what is replaced, by what, the collector, what the error must name, a series that stays.
    let cases = [
        (
            "proc/stat",
            "cpu1 301",
            "cpu1 x301",
            "cpu",
            "\"x301\"",
            "node_cpu_seconds_total{cpu=\"3\"",
        ),
        (
            "proc/stat",
            "cpu1 301 5 100 98000 300 0 10 1 0 0",
            "cpu1 301",
            "cpu",
            "cpu1 301",
            "node_cpu_seconds_total{cpu=\"0\"",
        ),
        ("proc/stat", "ctxt 7654321", "ctxt -1", "stat", "ctxt -1", "node_forks_total 4242"),
        ("proc/stat", "btime 1700000000\n", "", "stat", "btime", "node_forks_total 4242"),
        ("proc/loadavg", "1.30", "1,30", "loadavg", "0.07 1,30", "node_forks_total 4242"),
        ("proc/meminfo", "38484", "38k", "meminfo", "38k", "node_memory_SwapTotal_bytes"),
        ("proc/meminfo", "27768 kB", "27768 MB", "meminfo", "MB", "node_memory_SwapTotal_bytes"),
        (
            "proc/meminfo",
            "Buffers:",
            "Buf-fers:",
            "meminfo",
            "Buf-fers",
            "node_memory_SwapTotal_bytes",
        ),
        ("proc/vmstat", "pswpin 1", "pswpin", "vmstat", "pswpin", "node_vmstat_oom_kill 3"),
        (
            "proc/vmstat",
            "pgpgin 3116841",
            "pg-fault 1",
            "vmstat",
            "pg-fault",
            "node_vmstat_oom_kill 3",
        ),
        (
            "proc/pressure/io",
            "total=12229297",
            "total=",
            "pressure",
            "total=",
            "node_pressure_cpu_waiting",
        ),
        (
            "proc/pressure/memory",
            "full",
            "fool",
            "pressure",
            "fool",
            "node_pressure_memory_waiting",
        ),
        (
            "proc/diskstats",
            "59850 5841 29",
            "59850 5841 x",
            "diskstats",
            "\"x\"",
            "node_disk_io_now{device=\"mmcblk0\"",
        ),
        (
            "proc/diskstats",
            "sda 37917",
            "sda -37917",
            "diskstats",
            "sda -37917",
            "node_disk_io_now{device=\"mmcblk0\"",
        ),
        (
            "proc/net/dev",
            "14696",
            "0x14696",
            "netdev",
            "0x14696",
            "node_network_receive_bytes_total{device=\"wlan0\"",
        ),
        (
            "proc/net/dev",
            " wlan0:",
            " wlan0 ",
            "netdev",
            "wlan0",
            "node_network_receive_bytes_total{device=\"eth0\"",
        ),
        (
            "proc/net/dev",
            " wlan0:",
            " ../x: ",
            "netdev",
            "../x",
            "node_network_receive_bytes_total{device=\"eth0\"",
        ),
        (
            "proc/net/dev",
            "Transmit\n face |",
            "Transmit\n face ",
            "netdev",
            "face",
            "node_forks_total 4242",
        ),
        (
            "proc/1/mounts",
            "/dev/mmcblk0p1 /boot/firmware",
            "/boot/firmware",
            "filesystem",
            "",
            "node_filesystem_size_bytes{device=\"/dev/sda1\"",
        ),
        ("sys/devices/system/cpu/isolated", "1,3", "3-1", "cpu", "3-1", "node_cpu_seconds_total"),
        (
            "sys/class/net/eth0/statistics/rx_nohandler",
            "7",
            "seven",
            "netdev",
            "seven",
            "node_network_receive_nohandler_total{device=\"lo\"",
        ),
        (
            "root/run/udev/data/b8:0",
            "RPM=5400",
            "RPM=fast",
            "diskstats",
            "fast",
            "node_disk_ata_write_cache{",
        ),
    ];
    for (file, from, to, collector, token, kept) in cases {
        let tree = Copy::new();
        let text = String::from_utf8(tree.read(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        tree.write(file, text.replacen(from, to, 1).as_bytes());
        let mut set = Set::new(|_| true, &options());
        let text = collect(&mut set, &mut host(tree.path()));
        assert!(text.contains(kept), "{file} with {to:?}: {kept} is gone");
        if token.is_empty() {
            continue;
        }
        let Outcome::Failed(error) = outcome(&set, collector) else {
            panic!("{file} with {to:?}: {:?}", outcome(&set, collector));
        };
        let name = file.strip_prefix("root/").unwrap_or(file);
        assert!(error.contains(name), "{error:?} does not name {name}");
        assert!(error.contains(token), "{error:?} does not name {token:?}");
        assert!(
            text.contains(&format!("node_scrape_collector_success{{collector=\"{collector}\"}} 0"))
        );
    }
}

#[test]
fn a_file_cut_inside_a_line_is_an_error() {
    let _guard = logged();
    for (file, readers) in LINES {
        let tree = Copy::new();
        let whole = tree.read(file);
        tree.write(file, &whole[..whole.len() - 2]);
        let mut set = Set::new(|_| true, &options());
        collect(&mut set, &mut host(tree.path()));
        for reader in *readers {
            // What is cut off /proc/loadavg is a part of a process' number, which nobody reads.
            let expected = *file != "proc/loadavg";
            let failed = matches!(outcome(&set, reader), Outcome::Failed(_));
            assert_eq!(failed, expected, "{file}, {reader}: {:?}", outcome(&set, reader));
        }
    }
}

#[test]
fn a_missing_file_is_quiet_and_counted() {
    let _guard = logged();
    let tree = Copy::new();
    for file in ["cpu", "io", "memory"] {
        tree.remove(&format!("proc/pressure/{file}"));
    }
    tree.remove("proc/diskstats");
    let mut set = Set::new(|_| true, &options());
    let text = collect(&mut set, &mut host(tree.path()));
    for (collector, file) in [("pressure", "proc/pressure/cpu"), ("diskstats", "proc/diskstats")] {
        let Outcome::NoData(why) = outcome(&set, collector) else {
            panic!("{collector}: {:?}", outcome(&set, collector));
        };
        assert!(why.contains(file), "{why}");
        assert!(
            text.contains(&format!("node_scrape_collector_success{{collector=\"{collector}\"}} 0"))
        );
    }
    assert!(text.contains("node_scrape_collector_success{collector=\"cpu\"} 1"));
    assert_eq!(take_log(), Vec::<String>::new());
}

#[test]
fn a_failure_is_logged_when_it_begins_and_when_it_ends() {
    let _guard = logged();
    let tree = Copy::new();
    let whole = tree.read("proc/meminfo");
    let mut set = Set::new(|_| true, &options());
    let mut host = host(tree.path());
    for bytes in [&whole[..], b"MemTotal: one kB\n", b"MemTotal: two kB\n", &whole, &whole] {
        tree.write("proc/meminfo", bytes);
        collect(&mut set, &mut host);
    }
    let log = take_log();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(
        log[0].starts_with("WARN collector meminfo: ") && log[0].contains("\"one\""),
        "{log:?}"
    );
    assert_eq!(log[1], "INFO collector meminfo: works again");
}

#[test]
fn hidden_process_1_gives_our_own_mounts() {
    let _guard = logged();
    let tree = Copy::new();
    tree.remove("proc/1/mounts");
    std::fs::create_dir_all(tree.path().join("proc/self")).unwrap();
    tree.write("proc/self/mounts", b"/dev/own /srv ext4 ro 0 0\n");
    let mut set = Set::new(|entry| entry.name == "filesystem", &options());
    let text = collect(&mut set, &mut host(tree.path()));
    let series =
        "node_filesystem_readonly{device=\"/dev/own\",fstype=\"ext4\",mountpoint=\"/srv\"} 1";
    assert!(text.contains(series), "{text}");
}

#[test]
fn mounts_that_come_and_go_are_noticed() {
    let _guard = logged();
    let tree = Copy::new();
    let mut set = Set::new(|entry| entry.name == "filesystem", &options());
    let mut host = host(tree.path());
    for (mounts, expected) in [
        (&b"/dev/a /a ext4 rw 0 0\n"[..], &["/a"][..]),
        (b"/dev/a /a ext4 rw 0 0\n/dev/b /b ext4 rw 0 0\n", &["/a", "/b"]),
        (b"/dev/a /a ext4 rw 0 0\nmalformed\n", &["/a"]),
        (b"/dev/a /a ext4 rw 0 0\nmalformed\n", &["/a"]),
        (b"", &[]),
        (b"/dev/b /b ext4 rw 0 0\n", &["/b"]),
    ] {
        tree.write("proc/1/mounts", mounts);
        let text = collect(&mut set, &mut host);
        for mount in ["/a", "/b"] {
            let series = format!("mountpoint=\"{mount}\"}} 0");
            assert_eq!(text.contains(&series), expected.contains(&mount), "{mount}: {text}");
        }
        let failed = matches!(outcome(&set, "filesystem"), Outcome::Failed(_));
        assert_eq!(failed, mounts.ends_with(b"malformed\n"));
    }
}

#[test]
fn a_mount_that_hangs_is_an_error_of_that_mount_alone() {
    let _guard = logged();
    let tree = Copy::new();
    let (revive, dead) = std::sync::mpsc::channel::<()>();
    let dead = Mutex::new(dead);
    let mut options = options();
    options.filesystem.mount_timeout = Duration::from_millis(10);
    options.filesystem.statfs = mote::collector::Statfs::new(move |path| {
        if path.ends_with("mnt/dead") {
            // Until the test drops its end.
            let _ = dead.lock().unwrap().recv();
        }
        Ok(mote::collector::Usage { blocks: 1, block_size: 512, ..Default::default() })
    });
    let mut set = Set::new(|entry| entry.name == "filesystem", &options);
    let mut host = host(tree.path());
    let error = |text: &str| {
        let line = |line: &&str| {
            line.starts_with("node_filesystem_device_error") && line.contains("nas:/export")
        };
        text.lines().find(line).unwrap().ends_with(" 1")
    };
    for _ in 0..2 {
        let text = collect(&mut set, &mut host);
        assert!(error(&text), "{text}");
        assert!(!text.contains("node_filesystem_size_bytes{device=\"nas:/export\""), "{text}");
        assert!(text.contains("node_filesystem_size_bytes{device=\"/dev/sda1\""), "{text}");
    }
    assert_eq!(outcome(&set, "filesystem"), Outcome::Good);
    drop(revive);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while error(&collect(&mut set, &mut host)) {
        assert!(std::time::Instant::now() < deadline, "the mount came back and is not asked");
    }
}
