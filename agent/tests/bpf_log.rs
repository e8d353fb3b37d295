//! What the BPF programs say, in the agent's own log: only in a build with the feature `bpf-log`, see
//! "A probe" in ARCHITECTURE.md. Needs root and the objects of `cargo xtask build-ebpf --debug`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use agent_common::tcp::Outcome;
use support::{Agent, Group, Port};

/// An agent that has given up its rights and whose next round is far away.
fn start(probe: &str) -> Agent {
    let mut agent = Agent::new(&format!(
        "log.level = \"debug\"\ninterval = \"1h\"\n[probes]\ndefault = \"off\"\n{probe} = \"on\"\n\
         [metrics.collectors]\nonly = [\"loadavg\"]\n",
    ));
    agent.start();
    agent
}

/// The line that says this, of level debug.
fn said(agent: &mut Agent, what: &str) -> String {
    agent.wait(what, Duration::from_secs(20), |agent| agent.log().contains(what));
    let log = agent.log();
    let line = log.lines().find(|line| line.contains(what)).unwrap();
    assert!(line.contains(" level=debug "), "{line}");
    line.to_owned()
}

/// Without an event: what is said wakes the agent by itself.
#[test]
fn a_refused_connection_is_said_in_the_log_of_a_running_agent() {
    let mut agent = start("tcp");
    let held = Port::new();
    let port = held.number();
    let error = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let line = said(&mut agent, &format!(" to port {port}: outcome "));
    assert!(line.contains(&format!("outcome {}\"", Outcome::Refused as u32)), "{line}");
}

#[test]
fn an_oom_kill_is_said_in_the_log_of_a_running_agent() {
    let mut agent = start("oom");
    let group = Group::new("said", 16 << 20);
    let mut hog = group.hog();
    let victim = format!("mark_victim: pid {} uid 0 anon_rss_kb ", hog.id());
    assert_eq!(hog.wait().unwrap().signal(), Some(9), "not killed");
    let line = said(&mut agent, &victim);
    // Resident within the limit, and most of it.
    let (_, rest) = line.split_once(&victim).unwrap();
    let resident: u64 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!((4_096..=17_408).contains(&resident), "{line}");
}
