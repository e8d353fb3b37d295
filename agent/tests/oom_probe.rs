//! The probe `oom` on this machine's own kernel: real OOM kills in a memory cgroup, counted by the probe
//! and by the cgroup, and told with what was known of the moment. Needs root and the BPF objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use mote::host::{Host, Roots};
use mote::model::{Event, Samples};
use mote::probe::{Loader, Options, Probes, Transport};
use support::Group;

const PATIENCE: Duration = Duration::from_secs(20);

fn start(host: &Host, transport: Option<Transport>) -> Probes {
    let executable = env!("CARGO_BIN_EXE_mote").into();
    let loader = Loader { executable, transport, ..Loader::default() };
    let probes = Probes::start(&Options { loader, ..Options::only("oom") }, host);
    if let Err(error) = probes.required() {
        panic!("{error}");
    }
    probes
}

/// Takes events until there are so many of this cgroup's victims.
fn events(probes: &mut Probes, host: &mut Host, pids: &[u32]) -> Vec<Event> {
    let mut found: Vec<Event> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while found.len() < pids.len() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        while probes.receive(host, now.as_nanos() as i64) {}
        while let Some(waiting) = probes.next_event() {
            let pid: u32 = value(&waiting.event, "pid").parse().unwrap();
            if pids.contains(&pid) {
                found.push(waiting.event);
            }
        }
        assert!(Instant::now() < deadline, "{} events of {}", found.len(), pids.len());
        std::thread::sleep(Duration::from_millis(5));
    }
    found
}

fn value<'a>(event: &'a Event, name: &str) -> &'a str {
    event.fields.iter().find(|(have, _)| *have == name).map_or("", |(_, value)| value)
}

/// All kills that the probe has counted.
fn counted(probes: &mut Probes, host: &mut Host) -> f64 {
    let mut out = Samples::with_limit(1_000);
    probes.collect(host, 0, &mut out);
    let kills = out.iter().filter(|sample| sample.name() == "mote_oom_kills_total");
    kills.map(|sample| sample.value).sum()
}

fn kills_are_told(transport: Option<Transport>, name: &str) {
    let mut host = Host::new(Roots::default());
    let mut probes = start(&host, transport);
    let group = Group::new(name, 16 << 20);
    let before = counted(&mut probes, &mut host);
    let mut pids = Vec::new();
    for _ in 0..3 {
        let mut hog = group.hog();
        pids.push(hog.id());
        assert_eq!(hog.wait().unwrap().signal(), Some(9), "not killed");
    }
    let events = events(&mut probes, &mut host, &pids);
    assert_eq!(group.kills(), 3);
    for event in &events {
        assert_eq!(
            (event.kind, value(event, "comm"), value(event, "uid")),
            ("oom_kill", "sh", "0")
        );
        // Resident within the limit, and most of it.
        let resident: u64 = value(event, "anon_rss_kb").parse().unwrap();
        assert!((4_096..=17_408).contains(&resident), "{event:?}");
        assert_eq!(value(event, "trigger"), "sh");
        assert_eq!(value(event, "top").split(',').count(), 5, "{event:?}");
        assert_eq!(value(event, "unit"), group.name(), "{event:?}");
        assert!(event.message.contains(value(event, "pid")));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_nanos() as i64 - event.timestamp_ns;
        assert!((0..60_000_000_000).contains(&age), "{age} ns ago");
    }
    // Others on this machine may be killed as well.
    assert!(counted(&mut probes, &mut host) - before >= 3.0);
}

#[test]
fn kills_are_counted_and_told_through_the_ring_buffer() {
    kills_are_told(None, "ring");
}

#[test]
fn kills_are_counted_and_told_through_the_perf_buffer() {
    kills_are_told(Some(Transport::Perf), "perf");
}
