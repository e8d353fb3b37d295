//! The probes in a running agent: an OOM kill reaches Loki with everything that was known of it and is on
//! the disk before that; the rights that only loading needs are gone; a reload loses no count. Needs root
//! and the BPF objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Agent, Group, StrictLoki};

const PATIENCE: Duration = Duration::from_secs(30);

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill_one(group: &Group) -> u32 {
    let mut hog = group.hog();
    let pid = hog.id();
    assert_eq!(hog.wait().unwrap().signal(), Some(9), "not killed");
    pid
}

/// The value of a sample of the agent's newest round.
fn sample(agent: &Agent, series: &str) -> Option<f64> {
    let (_, text) = agent.get("/metrics?collect=node")?;
    let line = text.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

/// All kills that the agent has counted: the kernel names the cgroups of ten kills in 5 s only.
fn kills(agent: &Agent) -> Option<f64> {
    let (_, text) = agent.get("/metrics?collect=node")?;
    let values = text.lines().filter(|line| line.starts_with("mote_oom_kills_total"));
    values.map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Kills are of the whole machine: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn capabilities(pid: i32, set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

/// CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF.
const FOR_LOADING: u64 = 1 << 21 | 1 << 38 | 1 << 39;

fn configure(agent: &Agent, loki: &StrictLoki, probes: &str) {
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"1s\"\nlabels = {{ site = \"home\" }}\n\
         [probes]\n{probes}\n\
         [wal]\nsync = \"1h\"\n\
         [metrics.collectors]\nonly = [\"loadavg\"]\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"0s\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n",
        loki.url(),
    ));
}

#[test]
fn an_oom_kill_is_on_the_disk_at_once_and_reaches_loki() {
    let _alone = alone();
    let mut loki = StrictLoki::new();
    loki.stop();
    let agent = Agent::new("");
    configure(&agent, &loki, "default = \"off\"\noom = \"on\"");
    let mut agent = agent;
    agent.start();
    wait("a round", || {
        sample(&agent, "mote_probe_mode{mode=\"tracepoint\",probe=\"oom\"}").is_some()
    });
    let group = Group::new("agent", 16 << 20);
    // The kernel names the cgroups of ten kills in 5 s, and tests before this one have had more.
    std::thread::sleep(Duration::from_secs(6));
    let pid = kill_one(&group);
    // Nothing else would be synced within the hour that `sync` allows.
    let told = format!(" pid={pid} ");
    wait("it is told", || agent.log().contains("was killed"));
    let syncs = |status: serde_json::Value| status["wals"][1]["syncs"].as_u64();
    wait("it is synced", || agent.try_status().and_then(syncs) > Some(0));
    agent.kill();
    let shown = Command::new(env!("CARGO_BIN_EXE_mote"))
        .args(["wal", "show"])
        .arg(agent.path("state/wal/logs"))
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&told), "{shown}");
    loki.start();
    agent.start();
    let labels =
        [("event", "oom_kill"), ("instance", "box"), ("job", "mote/events"), ("site", "home")];
    wait("it reaches Loki", || loki.lines(&labels).iter().any(|line| line.contains(&told)));
    // Long enough for a second one, from the kernel's log.
    wait("some rounds", || agent.rounds().len() > 5);
    let entries = loki.entries(&labels);
    let mine: Vec<_> = entries.iter().filter(|entry| entry.line.contains(&told)).collect();
    assert_eq!(mine.len(), 1, "told more than once: {mine:#?}");
    let value = |name: &str| {
        let found = mine[0].metadata.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!((value("comm"), value("unit")), ("sh".to_owned(), group.name()));
    assert!(mine[0].line.contains(&format!("unit={}", group.name())), "{}", mine[0].line);
    assert_eq!(value("top").split(',').count(), 5);
}

#[test]
fn rights_are_given_up_and_a_reload_goes_on_counting() {
    let _alone = alone();
    let loki = StrictLoki::new();
    let agent = Agent::new("");
    configure(&agent, &loki, "oom = \"on\"\nblock = \"on\"");
    let mut agent = agent;
    agent.start();
    wait("a round", || {
        sample(&agent, "mote_probe_mode{mode=\"tracepoint\",probe=\"oom\"}").is_some()
    });
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd"] {
        assert_eq!(capabilities(agent.pid().as_raw_nonzero().get(), set) & FOR_LOADING, 0, "{set}");
    }
    let group = Group::new("reload", 16 << 20);
    kill_one(&group);
    wait("it is counted", || kills(&agent) == Some(1.0));
    configure(&agent, &loki, "oom = \"on\"\nblock = \"off\"");
    agent.signal(Signal::HUP);
    let off = "mote_probe_mode{mode=\"off\",probe=\"block\"}";
    wait("the reload", || sample(&agent, off).is_some());
    kill_one(&group);
    wait("it goes on counting", || kills(&agent) == Some(2.0));
    // A reload that is refused leaves everything as it was.
    configure(&agent, &loki, "oom = \"off\"\nmmc = \"on\"\nblock = \"off\"");
    agent.signal(Signal::HUP);
    wait("a reload that is refused", || agent.log().contains("not reloaded, the agent goes on"));
    kill_one(&group);
    wait("it still counts", || kills(&agent) == Some(3.0));
    // What was switched off can't be loaded again without a restart, and says so.
    configure(&agent, &loki, "oom = \"on\"");
    agent.signal(Signal::HUP);
    let says = || agent.try_status().map(|status| status["probes"].to_string());
    wait("the second reload", || says().is_some_and(|says| says.contains("a restart starts it")));
    configure(&agent, &loki, "oom = \"on\"\nblock = \"on\"");
    agent.signal(Signal::HUP);
    wait("a second reload that is refused", || {
        agent.log().contains("not reloaded, the agent goes on as it was: the probe block is ")
    });
    kill_one(&group);
    wait("it still goes on", || kills(&agent) == Some(4.0));
}

#[test]
fn what_happened_while_the_agent_was_away_is_told_and_counted_when_it_is_back() {
    let _alone = alone();
    let loki = StrictLoki::new();
    let agent = Agent::new("");
    configure(&agent, &loki, "default = \"off\"\noom = \"on\"");
    let mut agent = agent;
    agent.start();
    let attached = "mote_probe_mode{mode=\"tracepoint\",probe=\"oom\"}";
    wait("a round", || sample(&agent, attached).is_some());
    let group = Group::new("away", 16 << 20);
    let first = kill_one(&group);
    let labels = [("event", "oom_kill"), ("instance", "box")];
    let arrived = |pid: u32| {
        let told = format!(" pid={pid} ");
        loki.lines(&labels).iter().filter(|line| line.contains(&told)).count()
    };
    wait("it reaches Loki", || arrived(first) == 1);
    assert!(agent.terminate().0.success());
    let away = kill_one(&group);
    agent.start();
    wait("what was missed reaches Loki", || arrived(away) == 1);
    wait("it is counted", || kills(&agent) == Some(1.0));
    assert_eq!((arrived(first), arrived(away)), (1, 1), "told a second time");
}
