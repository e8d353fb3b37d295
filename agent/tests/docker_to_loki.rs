//! Containers' logs through the agent to a strict Loki: each line once and in order, through kills of the
//! agent, restarts of the daemon, connections that are cut, and a full WAL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::time::Duration;

use support::dockerd::START;
use support::{Agent, Dice, Dockerd, StrictLoki};

const LONG: Duration = Duration::from_secs(60);

fn agent(loki: &StrictLoki, daemon: &Dockerd, more: &str) -> Agent {
    Agent::new(&format!(
        "instance = \"box\"\ninterval = \"5s\"\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [logs.docker]\nhost = {:?}\nread = \"api\"\nmax_age = \"off\"\nlabels = {{ job = \"docker\" }}\n{more}",
        loki.url(),
        daemon.host()
    ))
}

fn lines(loki: &StrictLoki, container: &str, stream: &str) -> Vec<String> {
    loki.lines(&[
        ("container", container),
        ("image", "busybox:1"),
        ("instance", "box"),
        ("job", "docker"),
        ("stream", stream),
    ])
}

fn expected(count: u32) -> Vec<String> {
    (0..count).map(|line| format!("line {line}")).collect()
}

/// Now, so that nothing is too old for anybody.
fn set_clock(daemon: &Dockerd) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_nanos()).unwrap();
    assert!(now > 0 && START > 0);
    daemon.change(|state| state.now_ns = now - 3_600_000_000_000);
}

#[test]
fn lines_arrive_once_and_in_order_when_the_agent_and_the_daemon_die() {
    let mut dice = Dice::new(11);
    let loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut daemon = Dockerd::new();
    set_clock(&daemon);
    let (web, tty) = (daemon.run("web"), daemon.run_as("shell", |c| c.tty = true));
    let mut agent = agent(&loki, &daemon, "");
    agent.start();
    let mut written = 0;
    for round in 0..10 {
        daemon.change(|state| state.faults.cut = (dice.roll(2) == 0).then_some(20_000));
        let more = written + 20 + dice.roll(200) as u32;
        daemon.lines(&web, 1, written..more);
        daemon.lines(&web, 2, written..more);
        for line in written..more {
            daemon.write(&tty, 1, &format!("line {line}\r\n"));
        }
        // So that what is asked for again is not always all.
        daemon.change(|state| state.now_ns += 3_000_000_000);
        written = more;
        std::thread::sleep(dice.millis(10, 1_500));
        match round % 4 {
            1 | 3 => {
                agent.kill();
                std::thread::sleep(dice.millis(0, 200));
                agent.spawn();
            }
            2 => {
                daemon.stop();
                std::thread::sleep(dice.millis(0, 200));
                daemon.start();
            }
            _ => {}
        }
    }
    daemon.change(|state| state.faults.cut = None);
    agent.wait("all lines", LONG, |_| {
        [("web", "stdout"), ("web", "stderr"), ("shell", "stdout")]
            .iter()
            .all(|(name, stream)| lines(&loki, name, stream).len() >= written as usize)
    });
    assert!(agent.terminate().0.success());
    for (name, stream) in [("web", "stdout"), ("web", "stderr"), ("shell", "stdout")] {
        assert_eq!(lines(&loki, name, stream), expected(written), "{name} {stream}");
    }
    daemon.assert_clean();
    loki.assert_clean();
}

#[test]
fn a_full_wal_leaves_the_lines_with_the_daemon() {
    let mut loki = StrictLoki::new();
    loki.tolerate_aborts();
    let daemon = Dockerd::new();
    set_clock(&daemon);
    let id = daemon.run("app");
    let mut agent = agent(&loki, &daemon, "[wal.logs]\nmax_bytes = \"1MiB\"\n");
    loki.stop();
    agent.start();
    // Lines that no compression makes small.
    let mut dice = Dice::new(5);
    let random: Vec<String> = (0..8_000)
        .map(|n| {
            let text: String = (0..20).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
            format!("{n} {text}")
        })
        .collect();
    for line in &random {
        daemon.write(&id, 1, &format!("{line}\n"));
    }
    agent.wait("the WAL is full", LONG, |agent| agent.log().contains("read no further"));
    agent.kill();
    agent.start();
    loki.start();
    agent.wait("all lines", LONG, |_| lines(&loki, "app", "stdout").len() >= random.len());
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki, "app", "stdout"), random);
    daemon.assert_clean();
    loki.assert_clean();
}
