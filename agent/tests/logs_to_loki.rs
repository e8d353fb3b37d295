//! Log files through the agent to a strict Loki: each line once and in order, through rotation, a dead
//! Loki, a full WAL and kills.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use support::{Agent, Fault, StrictLoki, StrictMimir};

const LONG: Duration = Duration::from_secs(60);

/// The state directory of an agent is known before its configuration is written.
fn agent(url: &str, more: &str) -> Agent {
    let agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir(&logs).unwrap();
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"5s\"\nlabels = {{ site = \"home\" }}\n\
         [[loki]]\nurl = {url:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [[logs.file]]\npaths = [\"{logs}/*.log\"]\nlabels = {{ job = \"test\" }}\n{more}",
        logs = logs.display()
    ));
    agent
}

fn append(agent: &Agent, lines: std::ops::Range<u32>) {
    let path = agent.path("logs/app.log");
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    for line in lines {
        writeln!(file, "line {line}").unwrap();
    }
}

fn expected(count: u32) -> Vec<String> {
    (0..count).map(|line| format!("line {line}")).collect()
}

fn stream(agent: &Agent) -> Vec<(&'static str, String)> {
    let filename = agent.path("logs/app.log").display().to_string();
    vec![
        ("filename", filename),
        ("instance", "box".into()),
        ("job", "test".into()),
        ("site", "home".into()),
    ]
}

fn lines(loki: &StrictLoki, agent: &Agent) -> Vec<String> {
    let stream = stream(agent);
    let labels: Vec<(&str, &str)> = stream.iter().map(|(n, v)| (*n, v.as_str())).collect();
    loki.lines(&labels)
}

fn await_lines(loki: &StrictLoki, agent: &mut Agent, count: usize) {
    agent.wait(&format!("{count} lines"), LONG, |agent| lines(loki, agent).len() >= count);
}

#[test]
fn lines_arrive_once_and_in_order_through_rotation_and_truncation() {
    let loki = StrictLoki::new();
    let mut agent = agent(&loki.url(), "");
    append(&agent, 0..10);
    agent.start();
    await_lines(&loki, &mut agent, 10);
    append(&agent, 10..20);
    fs::rename(agent.path("logs/app.log"), agent.path("logs/app.log.1")).unwrap();
    append(&agent, 20..30);
    await_lines(&loki, &mut agent, 30);
    File::options().write(true).open(agent.path("logs/app.log")).unwrap().set_len(0).unwrap();
    agent.wait("the truncation is seen", LONG, |agent| {
        agent.status()["sources"][0]["counts"]["truncations"].as_u64() == Some(1)
    });
    append(&agent, 30..40);
    await_lines(&loki, &mut agent, 40);
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki, &agent), expected(40));
    loki.assert_clean();
}

#[test]
fn no_line_is_lost_or_repeated_when_loki_and_the_agent_die() {
    let mut loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut agent = agent(&loki.url(), "");
    append(&agent, 0..100);
    agent.start();
    await_lines(&loki, &mut agent, 100);
    loki.stop();
    append(&agent, 100..200);
    agent.wait("the WAL has them", LONG, |agent| {
        agent.status()["sources"][0]["counts"]["lines"].as_u64() == Some(200)
    });
    agent.kill();
    // Rotated while nobody looks, with lines that nobody has seen.
    append(&agent, 200..250);
    fs::rename(agent.path("logs/app.log"), agent.path("logs/app.log.1")).unwrap();
    append(&agent, 250..300);
    agent.start();
    agent.wait("the WAL has the rest", LONG, |agent| {
        agent.status()["sources"][0]["counts"]["lines"].as_u64() == Some(100)
    });
    loki.start();
    await_lines(&loki, &mut agent, 300);
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki, &agent), expected(300));
    loki.assert_clean();
}

#[test]
fn what_was_read_and_is_not_written_yet_is_read_again() {
    let mut loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut agent = agent(&loki.url(), "");
    // With its defaults what it reads is written within five seconds.
    let path = agent.path("mote.toml");
    let text = fs::read_to_string(&path).unwrap().replace("batch_wait = \"100ms\"\n", "");
    fs::write(&path, text).unwrap();
    let (mut written, mut late) = (0, false);
    for millis in [2_200, 2_900, 1_300, 3_700] {
        let began = Instant::now();
        agent.start();
        agent.wait("ready", LONG, Agent::is_ready);
        let end = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < end {
            append(&agent, written..written + 7);
            written += 7;
            std::thread::sleep(Duration::from_millis(50));
        }
        if millis == 2_900 {
            loki.stop();
        }
        agent.kill();
        late |= began.elapsed() > Duration::from_millis(4_800);
    }
    loki.start();
    agent.start();
    await_lines(&loki, &mut agent, written as usize);
    // And what a stop finds in memory.
    append(&agent, written..written + 5);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki, &agent), expected(written + 5));
    // A busy machine may have killed it while it delivered.
    assert!(late || loki.repeats() == 0, "{} repeats", loki.repeats());
    loki.assert_clean();
}

#[test]
fn answers_that_say_later_are_heeded_and_one_that_refuses_is_counted() {
    let loki = StrictLoki::new();
    loki.script(Fault::status(500).body("ingester is tired"));
    loki.script(Fault::status(429).header("Retry-After", "1"));
    loki.script(Fault::close());
    let mut agent = agent(&loki.url(), "");
    append(&agent, 0..5);
    agent.start();
    await_lines(&loki, &mut agent, 5);
    assert_eq!(loki.script_left(), 0);
    loki.script(Fault::status(400).body("entry too far behind"));
    append(&agent, 5..10);
    agent.wait("the refusal is counted", LONG, |agent| {
        agent.status()["dropped"][0]["reason"].as_str() == Some("http_400")
    });
    let status = agent.status();
    assert_eq!(status["dropped"][0]["count"], 5);
    assert_eq!(status["dropped"][0]["signal"], "logs");
    append(&agent, 10..12);
    await_lines(&loki, &mut agent, 7);
    let (_, metrics) = agent.get("/metrics").unwrap();
    assert!(
        metrics.contains("mote_dropped_total{reason=\"http_400\",signal=\"logs\"} 5"),
        "{metrics}"
    );
    assert!(agent.terminate().0.success());
    let log = agent.log();
    assert_eq!(log.matches("entry too far behind").count(), 1, "{log}");
    assert!(log.contains("ingester is tired"), "{log}");
    let got = lines(&loki, &agent);
    assert_eq!(got, ["line 0", "line 1", "line 2", "line 3", "line 4", "line 10", "line 11"]);
}

#[test]
fn wrong_password_drops_nothing() {
    let loki = StrictLoki::new();
    for _ in 0..3 {
        loki.script(Fault::status(401));
    }
    let mut agent = agent(&loki.url(), "");
    append(&agent, 0..5);
    agent.start();
    await_lines(&loki, &mut agent, 5);
    assert_eq!(agent.status()["dropped"].as_array().unwrap().len(), 0);
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki, &agent), expected(5));
}

#[test]
fn full_wal_pauses_the_files_and_loses_nothing() {
    let mut loki = StrictLoki::new();
    loki.stop();
    let mut agent = agent(&loki.url(), "[wal.logs]\nmax_bytes = \"1MiB\"\n");
    // Digits that nothing shortens by more than half: lines that repeat would all have room.
    let mut state: u64 = 1;
    let mut digits = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:08x}", state >> 32)
    };
    let long = |_| (0..25).map(|_| digits()).collect::<String>();
    let want: Vec<String> =
        (0..20_000).map(long).enumerate().map(|(at, long)| format!("line {at} {long}")).collect();
    let path = agent.path("logs/app.log");
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    for line in &want {
        writeln!(file, "{line}").unwrap();
    }
    agent.start();
    agent.wait("paused", LONG, |agent| agent.status()["sources"][0]["paused"] == true);
    let wal = &agent.status()["wals"][1];
    assert!(wal["bytes"].as_u64() <= Some(1 << 20), "{wal}");
    let on_disk: u64 = fs::read_dir(agent.path("state/wal/logs"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk <= 1 << 20, "{on_disk}");
    loki.start();
    await_lines(&loki, &mut agent, 20_000);
    assert!(agent.terminate().0.success());
    assert!(lines(&loki, &agent) == want);
    loki.assert_clean();
}

#[test]
fn file_that_is_quiet_for_several_runs_is_not_read_again() {
    let loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut agent = agent(&loki.url(), "");
    append(&agent, 0..10);
    agent.start();
    await_lines(&loki, &mut agent, 10);
    let filename = agent.path("logs/other.log").display().to_string();
    let other = [("filename", &*filename), ("instance", "box"), ("job", "test"), ("site", "home")];
    // Each run begins a segment, whose first record is of the other file.
    for run in 1..=3 {
        agent.kill();
        let mut file = File::options().create(true).append(true).open(&filename).unwrap();
        writeln!(file, "run {run}").unwrap();
        agent.start();
        agent.wait("the other file", LONG, |_| loki.lines(&other).len() >= run);
    }
    append(&agent, 10..12);
    await_lines(&loki, &mut agent, 12);
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki, &agent), expected(12));
    assert_eq!(loki.lines(&other), ["run 1", "run 2", "run 3"]);
    loki.assert_clean();
}

#[test]
fn quick_rotations_lose_no_line() {
    let loki = StrictLoki::new();
    let mut agent = agent(&loki.url(), "");
    append(&agent, 0..1);
    agent.start();
    await_lines(&loki, &mut agent, 1);
    for rotation in 0..4 {
        append(&agent, 1 + rotation * 10..11 + rotation * 10);
        // Faster than lines gather; what rotates them is not slower.
        std::thread::sleep(Duration::from_millis(200));
        let to = agent.path(&format!("logs/app.log.{rotation}"));
        fs::rename(agent.path("logs/app.log"), to).unwrap();
    }
    await_lines(&loki, &mut agent, 41);
    assert!(agent.terminate().0.success());
    assert_eq!(lines(&loki, &agent), expected(41));
    loki.assert_clean();
}

#[test]
fn what_was_given_up_is_told_in_an_entry_of_its_own_over_a_restart() {
    let (loki, mimir) = (StrictLoki::new(), StrictMimir::new());
    // The first round, and its parts until no more are cut.
    for _ in 0..81 {
        mimir.script(Fault::status(400).body("no"));
    }
    let more = format!("[[mimir]]\nurl = {:?}\nsend_interval = \"100ms\"\n", mimir.url());
    let mut agent = agent(&loki.url(), &more);
    append(&agent, 0..1);
    agent.start();
    await_lines(&loki, &mut agent, 1);
    let mut dropped = 0;
    agent.wait("a round is refused", LONG, |agent| {
        // The last answer has been counted.
        let status = agent.status();
        let mut endpoints = status["endpoints"].as_array().unwrap().iter();
        let is_over = endpoints.any(|endpoint| endpoint["requests"]["400"] == 81);
        let refused = status["dropped"].as_array().unwrap().first().cloned();
        let before = dropped;
        dropped = refused.map_or(0, |refused| refused["count"].as_u64().unwrap());
        is_over && dropped > 0 && dropped == before
    });
    assert!(agent.terminate().0.success());
    agent.start();
    let stream =
        [("event", "dropped"), ("instance", "box"), ("job", "mote/events"), ("site", "home")];
    agent.wait("the report", LONG, |_| !loki.entries(&stream).is_empty());
    let entries = loki.entries(&stream);
    assert_eq!(entries.len(), 1);
    let line = &entries[0].line;
    assert!(line.contains("were dropped: refused by the server with HTTP 400\""), "{line}");
    assert!(
        line.contains(&format!(" signal=metrics reason=http_400_repeat count={dropped} ")),
        "{line}"
    );
    assert!(agent.log().contains("were dropped: refused by the server"));
    // The positions of the files came along: no line comes twice.
    append(&agent, 1..3);
    await_lines(&loki, &mut agent, 3);
    assert_eq!(lines(&loki, &agent), expected(3));
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}
