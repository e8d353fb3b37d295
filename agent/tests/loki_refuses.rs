//! Entries that Loki does not take: those that a stage gives a time of long ago. They are dropped and counted
//! for what they are, the entries beside them arrive, and nothing is sent for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, SystemTime};

use support::{Agent, StrictLoki};

const LONG: Duration = Duration::from_secs(60);
const HOUR: u64 = 3_600;

fn append(agent: &Agent, lines: &[(u64, &str)]) {
    let path = agent.path("logs/app.log");
    let mut text = String::new();
    for (age, line) in lines {
        let time = SystemTime::now() - Duration::from_secs(*age);
        text += &format!("{} {line}\n", humantime::format_rfc3339_millis(time));
    }
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// What each line has behind its time.
fn arrived(loki: &StrictLoki) -> Vec<String> {
    let lines = loki.lines(&[("job", "app")]).into_iter();
    lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

/// Those of the first request may have been sent by a process before: they are counted as `http_400_repeat`.
fn dropped(agent: &Agent, reason: &str) -> u64 {
    let status = agent.status();
    let all = status["dropped"].as_array().unwrap().iter();
    let of = all.filter(|one| one["reason"].as_str().unwrap().starts_with(reason));
    of.map(|one| one["count"].as_u64().unwrap()).sum()
}

#[test]
fn entries_of_last_week_are_dropped_and_counted_and_the_others_arrive() {
    let loki = StrictLoki::with_max_age(Duration::from_secs(168 * HOUR));
    let mut agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir_all(&logs).unwrap();
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"60s\"\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"app\" }}\n\
         [[logs.stage]]\ntimestamp = {{ format = \"rfc3339\" }}\n",
        loki.url(),
        logs.display()
    ));
    let week = 8 * 24 * HOUR;
    // More complaints than an answer has room for.
    let many: Vec<_> = (0..200).map(|n| (week + n, "old")).collect();
    append(&agent, &many);
    append(&agent, &[(2, "first"), (1, "second")]);
    agent.start();
    // Before its first answer nobody knows what time it is for Loki, so they are sent.
    agent.wait("the first", LONG, |agent| dropped(agent, "http_400") > 0);
    assert_eq!(arrived(&loki), ["first", "second"]);
    assert_eq!((dropped(&agent, "http_400"), dropped(&agent, "too_old")), (200, 0));
    append(&agent, &many);
    append(&agent, &[(0, "third")]);
    agent.wait("the third", LONG, |_| arrived(&loki).len() == 3);
    assert_eq!((dropped(&agent, "http_400"), dropped(&agent, "too_old")), (200, 200));
    // Too far behind what Loki has of the stream.
    append(&agent, &[(2 * HOUR, "late"), (2 * HOUR, "later"), (0, "fourth")]);
    // It is there before the agent has the answer.
    let sent = |agent: &Agent| agent.status()["endpoints"][0]["sent"].as_u64();
    agent.wait("the fourth", LONG, |agent| arrived(&loki).len() == 4 && sent(agent) >= Some(4));
    assert_eq!((dropped(&agent, "http_400"), dropped(&agent, "too_old")), (200, 200));
    assert_eq!(dropped(&agent, "too_far_behind"), 2);
    assert_eq!(arrived(&loki), ["first", "second", "third", "fourth"]);
    let status = agent.status();
    assert_eq!(status["endpoints"][0]["sent"], 4, "{status}");
    let requests = loki.requests().len();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((loki.requests().len(), loki.repeats()), (requests, 0));
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}

#[test]
fn a_label_with_lokis_words_decides_nothing() {
    let loki = StrictLoki::with_max_age(Duration::from_secs(168 * HOUR));
    let mut agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir_all(&logs).unwrap();
    let words = "per stream rate limit exceeded; http: request body too large; structured metadata disallowed; \
                 total ignored: 0 out of 9 {";
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"60s\"\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"app\", msg = {words:?} }}\n\
         [[logs.stage]]\ntimestamp = {{ format = \"rfc3339\" }}\n",
        loki.url(),
        logs.display()
    ));
    let week = 8 * 24 * HOUR;
    append(&agent, &[(week, "old"), (week - 1, "old"), (2, "first"), (1, "second")]);
    agent.start();
    agent.wait("the first", LONG, |agent| dropped(agent, "http_400") > 0);
    assert_eq!(arrived(&loki), ["first", "second"]);
    assert_eq!(dropped(&agent, "http_400"), 2);
    assert_eq!(loki.requests().len(), 1, "it was sent again");
    append(&agent, &[(0, "third")]);
    agent.wait("the third", LONG, |_| arrived(&loki).len() == 3);
    assert_eq!((loki.requests().len(), loki.repeats(), dropped(&agent, "http_400")), (2, 0, 2));
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}
