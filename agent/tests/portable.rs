//! What a binary must do on any machine. `cargo xtask dist --test` runs this with the static binaries on
//! emulated processors: sizes beyond 4 GiB, timestamps, floats, alignment and the WAL's bytes are where a
//! machine of 32 bits, or another one, would differ.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::process::Output;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::agent::program;
use support::{Agent, StrictLoki, StrictMimir};

/// An emulated processor takes its time.
const LONG: Duration = Duration::from_secs(120);

fn good(output: Output) -> String {
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {why}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn mote(arguments: &[&str]) -> Output {
    program().args(arguments).env_remove("MOTE_CONFIG").output().unwrap()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A value of a page of the Prometheus text format.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {page}")).parse().unwrap()
}

fn total_memory() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() * 1024.0
}

#[test]
fn the_version_is_the_packages_and_the_machine_the_one_that_was_asked_for() {
    let json: serde_json::Value =
        serde_json::from_str(&good(mote(&["version", "--json"]))).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    match std::env::var("MOTE_TEST_ARCH") {
        Ok(arch) => {
            assert_eq!(json["arch"], arch);
            assert_eq!(json["probes"], true, "a release without its BPF object");
        }
        Err(_) => assert_eq!(json["arch"], std::env::consts::ARCH),
    }
}

#[test]
fn a_configuration_is_judged_with_line_and_column() {
    let agent = Agent::new("interval = \"15s\"\n[wal.metrics]\nmax_bytes = \"6GiB\"\n");
    good(agent.command("check").output().unwrap());
    agent.configure("intervall = \"15s\"\n");
    let output = agent.command("check").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(why.contains("mote.toml:4:1: unknown key \"agent.intervall\""), "{why}");
}

#[test]
fn one_round_has_what_proc_and_statvfs_say_also_beyond_4_gib() {
    let agent = Agent::new("");
    let page = good(agent.command("run").args(["--once", "--stdout"]).output().unwrap());
    assert_eq!(value(&page, "node_memory_MemTotal_bytes"), total_memory());
    let root = rustix::fs::statvfs("/").unwrap();
    let size = (root.f_blocks * root.f_frsize) as f64;
    let of_root = |line: &&str| {
        line.starts_with("node_filesystem_size_bytes{") && line.contains("mountpoint=\"/\"}")
    };
    let line = page.lines().find(of_root).expect("the root file system");
    assert_eq!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap(), size);
    let boot = value(&page, "node_boot_time_seconds");
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!((boot + uptime - now_ms() as f64 / 1000.0).abs() < 60.0, "{boot} {uptime}");
    for collector in ["cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "stat"] {
        let success = format!("node_scrape_collector_success{{collector=\"{collector}\"}}");
        assert_eq!(value(&page, &success), 1.0, "{collector}");
    }
}

#[test]
fn the_wal_of_one_round_is_sound_and_has_what_was_collected() {
    // Nobody listens there.
    let agent = Agent::new("[[mimir]]\nurl = \"http://127.0.0.1:9/api/v1/push\"\n");
    let _ = agent.command("run").arg("--once").output().unwrap();
    let wal = agent.path("state/wal/metrics");
    let directory = wal.to_str().unwrap();
    good(mote(&["wal", "verify", directory]));
    // The library of this test is of this machine; the bytes are the same everywhere.
    let rounds = agent.rounds();
    assert_eq!(rounds.len(), 1, "{rounds:?}");
    let (time, samples) = rounds[0];
    assert!((now_ms() - time).abs() < 120_000 && samples > 100, "{rounds:?}");
    let shown = good(mote(&["wal", "show", directory]));
    assert!(shown.contains("node_memory_MemTotal_bytes"), "{shown}");
    // A byte that is not what it was is found.
    let segment = wal.join("0000000000000000.wal");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, bytes).unwrap();
    let verified = mote(&["wal", "verify", directory]);
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(told.contains("good: 1 segment, 0 records"), "{told}");
}

/// Everything at once: rounds to a strict Mimir, a file of 5 GiB to a strict Loki, a kill, and what the
/// agent says of its memory.
#[test]
fn rounds_and_lines_arrive_once_through_a_kill() {
    const HOLE: u64 = 5 << 30;
    let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
    mimir.tolerate_aborts();
    loki.tolerate_aborts();
    let mut agent = Agent::new("");
    let log = agent.path("app.log");
    let mut file = File::options().create(true).append(true).open(&log).unwrap();
    // A hole before the first line; reading begins behind it.
    file.set_len(HOLE).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    writeln!(file).unwrap();
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"1s\"\n[[mimir]]\nurl = {:?}\nsend_interval = \"0s\"\n\
         backoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [[logs.file]]\npaths = [{log:?}]\nstart_at = \"end\"\nlabels = {{ job = \"test\" }}\n",
        mimir.url(),
        loki.url()
    ));
    agent.start();
    // Where the file ends is seen at some moment after the start; what comes from then on arrives.
    let all = [("job", "test")];
    let mut first = file.try_clone().unwrap();
    let lines = |loki: &StrictLoki| {
        let numbered = loki.lines(&all).into_iter().filter(|line| line.starts_with("line "));
        numbered.collect::<Vec<String>>()
    };
    agent.wait("it follows the file", LONG, |_| {
        std::thread::sleep(Duration::from_millis(100));
        writeln!(first, "begin").unwrap();
        !loki.lines(&all).is_empty()
    });
    for line in 0..100 {
        writeln!(file, "line {line} ä").unwrap();
    }
    agent.wait("100 lines", LONG, |_| lines(&loki).len() >= 100);
    agent.wait("rounds", LONG, |_| mimir.samples("node_load1", &[]).len() >= 3);
    agent.kill();
    for line in 100..200 {
        writeln!(file, "line {line} ä").unwrap();
    }
    agent.start();
    agent.wait("200 lines", LONG, |_| lines(&loki).len() >= 200);
    let before = mimir.samples("node_load1", &[]).len();
    agent.wait("more rounds", LONG, |_| mimir.samples("node_load1", &[]).len() >= before + 5);

    let own = agent.get("/metrics").unwrap().1;
    println!(
        "FIGURE live_bytes {} series {}",
        value(&own, "mote_memory_live_bytes"),
        agent
            .get("/metrics?collect=node")
            .unwrap()
            .1
            .lines()
            .filter(|l| !l.starts_with('#'))
            .count()
    );
    assert!(agent.terminate().0.success());
    let want: Vec<String> = (0..200).map(|line| format!("line {line} ä")).collect();
    assert_eq!(lines(&loki), want);
    let totals = mimir.samples("node_memory_MemTotal_bytes", &[]);
    assert!(totals.iter().all(|(_, bytes)| *bytes == total_memory()), "{totals:?}");
    let times = mimir.samples("node_time_seconds", &[]);
    for (stamp, seconds) in &times {
        assert!((*stamp as f64 / 1000.0 - seconds).abs() < 30.0, "{stamp} {seconds}");
    }
    // What was written is what was sent: no round is missing.
    let sent: Vec<i64> = times.iter().map(|(stamp, _)| *stamp).collect();
    let kept: Vec<i64> = agent.rounds().iter().map(|(time, _)| *time).collect();
    assert!(kept.iter().all(|time| sent.contains(time)), "kept {kept:?}, sent {sent:?}");
    mimir.assert_clean();
    loki.assert_clean();
}
