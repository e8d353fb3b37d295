//! Stages in the whole agent: what reaches Loki of files whose lines belong together, over kills and
//! restarts in the middle of an entry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use support::{Agent, StrictLoki};

const LONG: Duration = Duration::from_secs(60);

fn configure(agent: &Agent, url: &str, file: &str, more: &str) {
    let logs = agent.path("logs");
    fs::create_dir_all(&logs).unwrap();
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"5s\"\n\
         [[loki]]\nurl = {url:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [[logs.file]]\npaths = [\"{logs}/*.log\"]\n{file}\n{more}",
        logs = logs.display()
    ));
}

fn append(agent: &Agent, name: &str, text: &str) {
    let path = agent.path(&format!("logs/{name}.log"));
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

fn lines(loki: &StrictLoki, agent: &Agent, name: &str) -> Vec<String> {
    let filename = agent.path(&format!("logs/{name}.log")).display().to_string();
    // Internal labels would make it another stream.
    loki.lines(&[("filename", &filename), ("instance", "box")])
}

#[test]
fn an_entry_of_several_lines_is_whole_however_often_the_agent_dies_in_it() {
    let loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut agent = Agent::new("");
    let multiline = "multiline = { start = '^S', max_wait = \"60s\" }";
    let noise = "[[logs.stage]]\ndrop = { regex = \"noise\", reason = \"noise\" }";
    configure(&agent, &loki.url(), multiline, noise);
    agent.start();
    let mut expected = Vec::new();
    for n in 0..6 {
        append(&agent, "app", &format!("S{n} noise\nS{n}\n one\n"));
        agent.wait("the group is held", LONG, |agent| {
            let status = agent.status();
            let lines = status["sources"][0]["counts"]["lines"].as_u64().unwrap_or(0);
            status["stages"]["held"] == 1 && lines >= if n == 0 { 3 } else { 4 }
        });
        if n % 2 == 0 {
            agent.kill();
        } else {
            assert!(agent.terminate().0.success());
        }
        append(&agent, "app", " two\n");
        agent.start();
        expected.push(format!("S{n}\n one\n two"));
    }
    append(&agent, "app", "S end\n");
    agent.wait("all but the last", LONG, |agent| lines(&loki, agent, "app").len() >= 6);
    assert_eq!(lines(&loki, &agent, "app"), expected);
    // A reload without the stage gives out what it held.
    configure(&agent, &loki.url(), "", noise);
    agent.signal(rustix::process::Signal::HUP);
    agent.wait("the last", LONG, |agent| lines(&loki, agent, "app").len() >= 7);
    expected.push("S end".into());
    assert_eq!(lines(&loki, &agent, "app"), expected);
    assert_eq!(agent.status()["stages"]["held"], 0);
    loki.assert_clean();
}

#[test]
fn an_entry_goes_when_nothing_more_comes_and_what_is_dropped_is_counted() {
    let loki = StrictLoki::new();
    let mut agent = Agent::new("");
    let stages = "[[logs.stage]]\nmatch = '{__source__=\"file\", filename=~\".*/app.log\"}'\n\
                  drop = { regex = \"noise\", reason = \"noise\" }\n\
                  [[logs.stage]]\nmultiline = { continues = '^ ', max_wait = \"500ms\" }";
    configure(&agent, &loki.url(), "", stages);
    append(&agent, "app", "noise\nfine\n more\nnoise\n");
    append(&agent, "other", "noise\n");
    agent.start();
    agent.wait("both", LONG, |agent| {
        !lines(&loki, agent, "app").is_empty() && !lines(&loki, agent, "other").is_empty()
    });
    assert_eq!(lines(&loki, &agent, "app"), ["fine\n more"]);
    assert_eq!(lines(&loki, &agent, "other"), ["noise"]);
    let metrics = agent.get("/metrics").unwrap().1;
    let dropped = "mote_dropped_total{reason=\"noise\",signal=\"logs\"} 2";
    let other = "mote_dropped_total{signal=\"logs\",reason=\"noise\"} 2";
    assert!(metrics.contains(dropped) || metrics.contains(other), "{metrics}");
    assert!(metrics.contains("mote_log_streams 2\n"), "{metrics}");
    loki.assert_clean();
}

#[test]
fn files_without_number_make_no_streams_without_number() {
    let loki = StrictLoki::new();
    let mut agent = Agent::new("");
    configure(&agent, &loki.url(), "", "[logs]\nmax_streams = 3");
    (0..9).for_each(|n| append(&agent, &format!("app{n}"), "line\n"));
    agent.start();
    let overflow = [("instance", "box"), ("job", "mote/overflow")];
    agent.wait("the rest", LONG, |_| loki.lines(&overflow).len() == 6);
    let own = (0..9).map(|n| lines(&loki, &agent, &format!("app{n}")).len()).sum::<usize>();
    assert_eq!(own, 3);
    assert!(
        loki.entries(&overflow).iter().all(|e| e.metadata.iter().any(|(n, _)| n == "filename"))
    );
    assert!(agent.get("/metrics").unwrap().1.contains("mote_log_stream_overflow_total 6\n"));
    loki.assert_clean();
}
