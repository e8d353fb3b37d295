//! Tracefs and kernel as they should not be: what one probe can't use costs no other probe. Needs root and
//! the BPF objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mote::host::{Host, Roots};
use mote::probe::{Loader, Mode, Options, Probes, Source};

mod support;

use support::probed::Tracefs;

/// The descriptors that one test counts are all tests'.
static ONE: Mutex<()> = Mutex::new(());

/// The source and the reason of each probe, with this kernel's format files as `change` makes them.
fn started(change: impl Fn(&str, String) -> String) -> BTreeMap<&'static str, (Source, String)> {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test attaches BPF programs: run it as root"
    );
    let (sys, tracefs) = (tempfile::tempdir().unwrap(), Tracefs::new());
    for family in ["block", "tcp", "sock"] {
        let from = tracefs.path().join("events").join(family);
        let into = sys.path().join("kernel/tracing/events").join(family);
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            copy(&entry.path(), &into.join(entry.file_name()), &change);
        }
    }
    let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
    let host = Host::new(Roots { sys: sys.path().into(), ..Roots::default() });
    let options = Options { loader, default: Mode::Auto, ..Options::default() };
    let probes = Probes::start(&options, &host);
    probes.status().map(|status| (status.name, (status.source, status.reason.clone()))).collect()
}

fn copy(from: &Path, into: &Path, change: impl Fn(&str, String) -> String) {
    let Ok(format) = std::fs::read_to_string(from.join("format")) else { return };
    let event = from.file_name().unwrap().to_string_lossy();
    std::fs::create_dir_all(into).unwrap();
    std::fs::write(into.join("format"), change(&event, format)).unwrap();
}

#[test]
fn a_field_that_can_not_be_read_costs_its_own_probe_alone() {
    let probes = started(|event, format| {
        if event != "block_rq_issue" {
            return format;
        }
        assert!(format.contains("dev_t dev;\toffset:8;"), "{format}");
        format.replace("dev_t dev;\toffset:8;", "dev_t dev;\toffset:9;")
    });
    let (source, reason) = &probes["block"];
    assert_ne!(*source, Source::Tracepoint);
    assert!(reason.contains("\"dev\" of 4 bytes at 9 can't be read"), "{reason}");
    assert_eq!(probes["tcp"].0, Source::Tracepoint, "{probes:?}");
}

#[test]
fn an_optional_program_that_can_not_be_attached_is_missing_and_its_probe_is_not() {
    let probes = started(|event, format| {
        let changed = |line: &str| {
            let id = event == "inet_sk_error_report" && line.starts_with("ID: ");
            if id { "ID: 987654\n".to_owned() } else { format!("{line}\n") }
        };
        format.lines().map(changed).collect()
    });
    let (source, reason) = &probes["tcp"];
    assert_eq!(*source, Source::Tracepoint, "{reason}");
    assert!(reason.starts_with("inet_sk_error_report is not used: attaching to "), "{reason}");
    assert_eq!(probes["block"], (Source::Tracepoint, String::new()));
}

/// The perf events that this process holds, attached programs; and the threads that end some.
fn attached() -> (usize, usize) {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    let held = targets.filter(|target| target.to_string_lossy() == "anon_inode:[perf_event]");
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    (held.count(), names.filter(|name| name.trim() == "mote-detach").count())
}

#[test]
fn probes_that_are_switched_off_end_and_hold_nobody_up() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    assert!(
        rustix::process::geteuid().is_root(),
        "this test attaches BPF programs: run it as root"
    );
    let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
    let host = Host::new(Roots::default());
    let options = Options { loader, default: Mode::Auto, ..Options::default() };
    // Those of another test may not have ended yet.
    while attached() != (0, 0) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let mut probes = Probes::start(&options, &host);
        let (before, _) = attached();
        assert!(before > 5, "{before}");
        let off = Options { default: Mode::Off, ..Options::default() };
        let began = Instant::now();
        probes.adjust(&off);
        let took = began.elapsed();
        shortest = shortest.min(took);
        while attached() != (0, 0) {
            assert!(began.elapsed() < Duration::from_secs(30), "{:?} stay attached", attached());
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("{before} programs: {took:?}, and {:?} until the last was gone", began.elapsed());
    }
    // One after the other the kernel would wait for more than a second, each time.
    assert!(shortest < Duration::from_millis(250), "{shortest:?}");
}
