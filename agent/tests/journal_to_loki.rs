//! A real journald's journal through the agent to a strict Loki: each entry once and in order, through
//! rotation, kills, a dead Loki, a full WAL and a reload.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use support::machine::message;
use support::{Agent, Dice, Journald, StrictLoki};

const LONG: Duration = Duration::from_secs(60);

fn agent(journald: &Journald, url: &str, journal: &str, more: &str) -> Agent {
    Agent::new(&format!(
        "instance = \"box\"\ninterval = \"5s\"\n\
         [host]\nroot = {root:?}\n[metrics]\ncollectors = {{ only = [\"loadavg\"] }}\n\
         [probes]\ndefault = \"off\"\n\
         [[loki]]\nurl = {url:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [logs.journal]\n{journal}\n{more}",
        root = journald.root()
    ))
}

/// The lines of the test's own program, which are one stream.
fn lines(loki: &StrictLoki) -> Vec<String> {
    loki.lines(&[("syslog_identifier", "test")])
}

fn expected(count: u32) -> Vec<String> {
    (0..count).map(|line| format!("line {line}")).collect()
}

fn counts(agent: &Agent, name: &str) -> Option<u64> {
    let status = agent.status();
    let sources = status["sources"].as_array()?.clone();
    let journal = sources.iter().find(|source| source["name"] == "journal")?;
    journal["counts"][name].as_u64()
}

#[test]
fn what_journalctl_shows_is_what_loki_has() {
    let loki = StrictLoki::new();
    let journald = Journald::volatile("");
    let settings = "labels = { job = \"j\" }\nmetadata_from = { pid = \"_PID\" }";
    let mut agent = agent(&journald, &loki.url(), settings, "");
    journald.say(0..100);
    agent.start();
    journald.flush();
    journald.syslog("<12>Nov 21 22:00:00 sys: a warning");
    journald.say(100..200);
    journald.rotate();
    journald.say(200..300);
    agent.wait("the lines", LONG, |_| lines(&loki).len() >= 300);
    journald.await_messages("test", 300);
    let want = journald.entries(&[]);
    let all = || loki.entries(&[("job", "j"), ("instance", "box")]);
    agent.wait("all entries", LONG, |_| all().len() >= want.len());
    let mut have: Vec<(i128, String)> =
        all().into_iter().map(|e| (e.timestamp_ns / 1000, e.line)).collect();
    let time = |e: &serde_json::Value| e["__REALTIME_TIMESTAMP"].as_str().unwrap().parse().unwrap();
    let mut want: Vec<(i128, String)> = want.iter().map(|e| (time(e), message(e))).collect();
    have.sort();
    want.sort();
    assert_eq!(have, want);
    let sys = loki.entries(&[
        ("syslog_identifier", "sys"),
        ("transport", "syslog"),
        ("level", "warning"),
    ]);
    assert_eq!(sys.len(), 1);
    assert_eq!(sys[0].metadata, [("pid".to_owned(), std::process::id().to_string())]);
    loki.with_service(|loki| {
        for stream in loki.streams.keys() {
            assert!(stream.keys().all(|name| !name.starts_with("__")), "{stream:?}");
        }
    });
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki), expected(300));
    loki.assert_clean();
}

#[test]
fn killed_at_any_moment_it_goes_on_exactly_there() {
    let loki = StrictLoki::new();
    loki.tolerate_aborts();
    let journald = Journald::persistent("");
    let mut agent = agent(&journald, &loki.url(), "", "");
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut dice, mut said) = (Dice::new(3), 0);
            while !done.load(Ordering::Relaxed) {
                let more = 1 + dice.roll(60) as u32;
                journald.say(said..said + more);
                said += more;
                if dice.roll(40) == 0 {
                    journald.rotate();
                }
                std::thread::sleep(Duration::from_millis(dice.roll(20)));
            }
            said
        });
        let mut dice = Dice::new(11);
        for _ in 0..12 {
            agent.spawn();
            std::thread::sleep(Duration::from_millis(100 + dice.roll(2500)));
            agent.kill();
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    agent.start();
    agent.wait("all lines", LONG, |_| lines(&loki).len() >= said as usize);
    assert!(agent.terminate().0.success());
    assert!(lines(&loki) == expected(said), "{said} lines");
    println!("{said} lines, {} repeats", loki.repeats());
    loki.assert_clean();
}

#[test]
fn a_full_wal_pauses_the_journal_and_loses_nothing() {
    let mut loki = StrictLoki::new();
    loki.stop();
    let journald = Journald::persistent("");
    // Digits that nothing shortens by more than half.
    let mut dice = Dice::new(5);
    let mut said = Vec::new();
    for number in 0..20_000u32 {
        let text: String = (0..14).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
        let text = format!("line {number} {text}");
        journald.send(&[("MESSAGE", text.as_bytes()), ("SYSLOG_IDENTIFIER", b"test")]);
        said.push(text);
    }
    let mut agent = agent(&journald, &loki.url(), "", "[wal.logs]\nmax_bytes = \"1MiB\"\n");
    agent.start();
    agent.wait("the pause", LONG, |agent| agent.log().contains("read no further"));
    agent.signal(Signal::HUP);
    agent.wait("the reload", LONG, |agent| agent.log().matches("read no further").count() > 1);
    loki.start();
    agent.wait("all lines", LONG, |_| lines(&loki).len() >= said.len());
    assert!(agent.terminate().0.success());
    assert!(lines(&loki) == said);
    loki.assert_clean();
}

#[test]
fn a_machine_without_a_journal_has_no_errors() {
    let loki = StrictLoki::new();
    let mut journald = Journald::stopped();
    let mut agent = agent(&journald, &loki.url(), "", "");
    agent.start();
    assert_eq!(counts(&agent, "errors"), Some(0));
    let log = agent.log();
    assert!(!log.contains("journal"), "{log}");
    journald.set("auto", "");
    journald.start();
    journald.say(0..10);
    agent.wait("the lines", LONG, |_| lines(&loki).len() >= 10);
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki), expected(10));
}
