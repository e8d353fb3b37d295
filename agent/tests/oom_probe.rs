//! The probe `oom` on this machine's own kernel: real OOM kills in a memory cgroup, counted by the probe
//! and by the cgroup, and told with what was known of the moment. Needs root and the BPF objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mote::host::{Host, Roots};
use mote::model::{Event, Samples};
use mote::probe::{Loader, Options, Probes, Transport};

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

/// A memory cgroup of its own with a limit, of whichever version this host has.
struct Group {
    path: PathBuf,
    limit: &'static str,
    kills: &'static str,
}

impl Group {
    fn new(name: &str, bytes: u64) -> Group {
        let (root, limit, kills) = match fs::exists("/sys/fs/cgroup/memory").unwrap() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
            false => ("/sys/fs/cgroup", "memory.max", "memory.events"),
        };
        if limit == "memory.max" {
            // Already there where systemd has set it.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        }
        let path = PathBuf::from(root).join(format!("mote-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(limit), bytes.to_string()).unwrap();
        Group { path, limit, kills }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// How many processes the kernel has killed in it, as the cgroup says.
    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.kills)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.trim().parse().unwrap()
    }

    /// A shell in the cgroup that asks for more and more memory.
    fn hog(&self) -> Child {
        let procs = self.path.join("cgroup.procs");
        let script = "echo $$ > \"$0\"; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&procs).arg0("sh").stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join(self.limit), "-1");
        // Its processes have been waited for.
        let _ = fs::remove_dir(&self.path);
    }
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

#[test]
fn a_thousand_kills_are_all_counted_and_what_has_no_room_is_counted_as_lost() {
    let mut host = Host::new(Roots::default());
    let mut probes = start(&host, None);
    let group = Group::new("flood", 2 << 20);
    // One process is the victim of so many kills that no one is reading the events meanwhile: each of
    // its children is one.
    let kills = 1_000;
    let before = counted(&mut probes, &mut host);
    let script = "i=0; while [ $i -lt 1000 ]; do \
                  (echo 0 > \"$0\"; exec tail /dev/zero); i=$((i+1)); done";
    let mut shell = Command::new("sh");
    let procs = group.path.join("cgroup.procs");
    let status = shell.args(["-c", script]).arg(procs).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    assert_eq!(group.kills(), kills);
    let now = counted(&mut probes, &mut host) - before;
    assert!(now >= kills as f64, "{now} counted of {kills}");
    let mut out = Samples::with_limit(1_000);
    probes.collect(&mut host, 0, &mut out);
    let is_lost = |labels: Vec<(&str, &str)>| labels.contains(&("reason", "events_full"));
    let lost = out
        .iter()
        .find(|s| s.name() == "mote_probe_lost_total" && is_lost(s.labels().collect()))
        .unwrap()
        .value;
    // The ring has room for some three hundred, and no one took any.
    assert!(lost >= 500.0 && lost < kills as f64, "{lost}");
    let mut told = 0;
    while probes.next_event().is_some() {
        told += 1;
    }
    assert!(
        told > 100 && told as f64 + lost <= now + probes.take_dropped() as f64,
        "{told} {lost}"
    );
}
