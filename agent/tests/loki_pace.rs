//! A backlog on its way to Loki: no faster than the configuration says, slower after a 429, each line once and
//! in order, while new lines join it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use support::{Agent, Fault, StrictLoki, strict_loki};

const LONG: Duration = Duration::from_secs(60);

fn agent(url: &str, max_rate: &str) -> Agent {
    let agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir(&logs).unwrap();
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"60s\"\n\
         [[loki]]\nurl = {url:?}\nbatch_wait = \"100ms\"\nbatch_bytes = \"32KiB\"\nmax_rate = {max_rate:?}\n\
         backoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [[logs.file]]\npaths = [\"{logs}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
        logs = logs.display()
    ));
    agent
}

fn append(agent: &Agent, name: &str, lines: std::ops::Range<u32>) {
    let path = agent.path("logs").join(name);
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    for line in lines {
        writeln!(file, "line {line} {}", "x".repeat(84)).unwrap();
    }
}

fn count(loki: &StrictLoki, agent: &Agent, name: &str) -> usize {
    let filename = agent.path("logs").join(name).display().to_string();
    loki.lines(&[("filename", &filename)]).len()
}

#[test]
fn backlog_goes_no_faster_than_it_may_and_new_lines_come_along() {
    let mut loki = StrictLoki::new();
    loki.stop();
    let mut agent = agent(&loki.url(), "64KiB");
    // 400 KiB of lines.
    append(&agent, "old.log", 0..4_000);
    agent.start();
    agent.wait("the backlog is in the WAL", LONG, |agent| {
        agent.status()["sources"][0]["counts"]["lines"].as_u64() == Some(4_000)
    });
    loki.start();
    let began = Instant::now();
    append(&agent, "live.log", 0..10);
    agent.wait("all lines", LONG, |agent| {
        (count(&loki, agent, "old.log"), count(&loki, agent, "live.log")) == (4_000, 10)
    });
    // 400 KiB at 64 KiB/s, of which a second's worth and a request may go at once.
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(agent.terminate().0.success());
    assert_eq!(loki.repeats(), 0);
    loki.assert_clean();
}

#[test]
fn server_that_takes_less_is_sent_less_and_loses_nothing() {
    let loki = StrictLoki::new();
    (0..4).for_each(|_| loki.script(Fault::status(429).body("ingestion rate limit exceeded")));
    let mut agent = agent(&loki.url(), "1MiB");
    append(&agent, "old.log", 0..3_000);
    agent.start();
    agent.wait("all lines", LONG, |agent| count(&loki, agent, "old.log") == 3_000);
    assert_eq!(loki.script_left(), 0);
    let requests = agent.status()["endpoints"][0]["requests"].clone();
    assert_eq!(requests["429"], 4, "{requests}");
    assert!(agent.terminate().0.success());
    assert_eq!(loki.repeats(), 0);
    loki.assert_clean();
}

#[test]
fn what_is_more_than_a_streams_rate_is_cut_though_loki_says_400() {
    let loki = StrictLoki::new();
    let said =
        "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec)'";
    (0..9).for_each(|_| loki.script(Fault::status(400).body(said)));
    let mut agent = agent(&loki.url(), "1MiB");
    append(&agent, "old.log", 0..200);
    agent.start();
    agent.wait("all lines", LONG, |agent| count(&loki, agent, "old.log") == 200);
    let requests = loki.requests();
    let lines = |at: usize| {
        let streams = strict_loki::decode(&requests[at].body).unwrap();
        streams.iter().map(|(_, entries)| entries.len()).sum::<usize>()
    };
    assert_eq!(lines(0), lines(7));
    assert!(lines(8) <= lines(7) / 2 + 1, "{} and then {}", lines(7), lines(8));
    assert!(agent.terminate().0.success());
    assert_eq!(loki.repeats(), 0);
    loki.assert_clean();
}
