//! Log sources while memory is really short: a host with so many series that `agent.memory_limit` is nearly reached.
//! Lines stay where they are, rounds go on, and with more memory each line arrives, once and in order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use support::{Agent, StrictLoki, StrictMimir};

const LONG: Duration = Duration::from_secs(60);

/// The smallest limit that can be set, and one that leaves room for all, in MiB.
const LITTLE: u64 = 4;
const ENOUGH: u64 = 64;

fn configure(agent: &Agent, mimir: &StrictMimir, loki: &StrictLoki, limit: u64) {
    let dir = agent.dir_of(&["logs", "prom"]);
    agent.configure(&format!(
        "interval = \"1s\"\nmemory_limit = \"{limit}MiB\"\n\
         [wal]\nmemory = \"64KiB\"\n\
         [metrics]\nmax_series = 4000\n[metrics.collectors]\nonly = [\"textfile\"]\n\
         [metrics.textfile]\ndirectory = \"{dir}/prom\"\n\
         [[mimir]]\nurl = {:?}\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\n\
         [[logs.file]]\npaths = [\"{dir}/logs/app.log\"]\nlabels = {{ job = \"test\" }}\n",
        mimir.url(),
        loki.url()
    ));
}

fn append(agent: &Agent, lines: std::ops::Range<u32>) {
    let path = agent.path("logs/app.log");
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    for line in lines {
        writeln!(file, "line {line}").unwrap();
    }
}

fn lines(loki: &StrictLoki) -> Vec<String> {
    loki.lines(&[("job", "test")])
}

fn metric(agent: &Agent, name: &str) -> f64 {
    let (code, page) = agent.get("/metrics").unwrap();
    assert_eq!(code, 200);
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

fn rounds(mimir: &StrictMimir) -> usize {
    mimir.find("up", &[]).iter().map(|(_, samples)| samples.len()).sum()
}

#[test]
fn lines_wait_where_they_are_until_there_is_memory() {
    let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
    let mut agent = Agent::new("");
    configure(&agent, &mimir, &loki, LITTLE);
    append(&agent, 0..50);
    agent.start();
    agent.wait("the first lines", LONG, |_| lines(&loki).len() >= 50);

    let mut page = String::from("# TYPE much gauge\n");
    for series in 0..3_200 {
        writeln!(page, "much{{number=\"{series}\",of=\"{}\"}} {series}", "x".repeat(60)).unwrap();
    }
    fs::write(agent.path("prom/much.tmp"), page).unwrap();
    fs::rename(agent.path("prom/much.tmp"), agent.path("prom/much.prom")).unwrap();
    agent.wait("too little memory", LONG, |agent| metric(agent, "mote_memory_pressure") >= 3.0);
    // A source that was promised its memory before reads once more, and is asked when there is more to read.
    let mut next = 50;
    agent.wait("the pause", LONG, |agent| {
        append(agent, next..next + 1);
        next += 1;
        std::thread::sleep(Duration::from_millis(200));
        agent.log().contains("log sources are read no further")
    });
    // What was read before is delivered.
    agent.wait("its delivery", LONG, |agent| {
        let status = agent.status();
        let mut endpoints = status["endpoints"].as_array().unwrap().iter();
        endpoints.any(|endpoint| endpoint["signal"] == "logs" && endpoint["lag_seconds"] == 0.0)
    });
    let read = lines(&loki).len();
    append(&agent, next..next + 50);
    fs::rename(agent.path("logs/app.log"), agent.path("logs/app.log.1")).unwrap();
    append(&agent, next + 50..next + 100);
    let before = rounds(&mimir);
    agent.wait("rounds go on", LONG, |_| rounds(&mimir) > before);
    assert!(metric(&agent, "mote_memory_pressure") >= 3.0);
    let live = metric(&agent, "mote_memory_live_bytes");
    let limit = (LITTLE << 20) as f64;
    assert!(live > limit * 0.8 && live < limit * 1.1, "{live} bytes");
    let arrived = lines(&loki).len();
    assert!(
        arrived < next as usize && arrived <= read + 10,
        "{arrived} of {next}: {}",
        agent.log()
    );

    configure(&agent, &mimir, &loki, ENOUGH);
    agent.signal(Signal::HUP);
    agent.wait("all lines", LONG, |_| lines(&loki).len() >= next as usize + 100);
    assert!(agent.terminate().0.success());
    let expected: Vec<String> = (0..next + 100).map(|line| format!("line {line}")).collect();
    assert_eq!(lines(&loki), expected);
    loki.assert_clean();
    mimir.assert_clean();
}
