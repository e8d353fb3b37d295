//! What Loki and what stands before it refuse, and what of it the agent knows: sizes, times behind and ahead,
//! clocks, and pushes of several streams whose refusals Loki hides. JSON for who takes nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use support::{Agent, StrictLoki};

const LONG: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600;
const WEEK: Duration = Duration::from_secs(168 * 3_600);

fn agent(loki: &StrictLoki, endpoint: &str, more: &str) -> Agent {
    let agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir(&logs).unwrap();
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"60s\"\n\
         [[loki]]\nurl = {:?}\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n{endpoint}\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"app\" }}\n{more}",
        loki.url(),
        logs.display()
    ));
    agent
}

const QUICK: &str = "batch_wait = \"100ms\"";
const TIMES: &str = "[[logs.stage]]\ntimestamp = { format = \"rfc3339\" }\n";

fn append(agent: &Agent, name: &str, text: &str) {
    let path = agent.path("logs").join(name);
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A line with a time of so many seconds from now.
fn at(seconds: i64, line: &str) -> String {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let time = if seconds < 0 { now - offset } else { now + offset };
    format!("{} {line}\n", humantime::format_rfc3339_millis(time))
}

/// What each line of a file has behind its time.
fn arrived(loki: &StrictLoki, agent: &Agent, name: &str) -> Vec<String> {
    let filename = agent.path("logs").join(name).display().to_string();
    let lines = loki.lines(&[("filename", &filename)]).into_iter();
    lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

fn dropped(agent: &Agent, reason: &str) -> u64 {
    let status = agent.status();
    let all = status["dropped"].as_array().unwrap().iter();
    let of = all.filter(|one| one["reason"].as_str().unwrap().starts_with(reason));
    of.map(|one| one["count"].as_u64().unwrap()).sum()
}

#[test]
fn json_arrives_as_protobuf_does() {
    let loki = StrictLoki::new();
    let endpoint = format!("{QUICK}\nencoding = \"json\"");
    let mut agent = agent(&loki, &endpoint, "");
    let lines: Vec<String> = (0..2_000)
        .map(|n| format!("{n}\"\\ ü\u{1}\u{1f}\t\u{7f}\u{2028}{{}}[] {}", "x".repeat(n % 50)))
        .collect();
    append(&agent, "app.log", &(lines.join("\n") + "\n"));
    agent.start();
    let filename = agent.path("logs/app.log").display().to_string();
    agent.wait("the lines", LONG, |_| loki.lines(&[("filename", &filename)]).len() == 2_000);
    assert!(agent.terminate().0.success());
    assert_eq!(loki.lines(&[("filename", &filename)]), lines);
    let (json, requests) = (loki.with_service(|loki| loki.json), loki.requests().len() as u64);
    assert_eq!(json, requests);
    loki.assert_clean();
}

#[test]
fn what_a_proxy_takes_no_more_of_is_cut_and_only_a_line_that_is_too_long_alone_is_lost() {
    let loki = StrictLoki::new();
    loki.change(|loki| loki.max_body = Some(4 << 10));
    // JSON is not compressed, so that sizes are what they seem.
    let endpoint = format!("{QUICK}\nencoding = \"json\"");
    let mut agent = agent(&loki, &endpoint, "");
    let mut lines: Vec<String> = (0..300).map(|n| format!("{n} {}", "x".repeat(90))).collect();
    lines.insert(150, format!("long {}", "y".repeat(5_000)));
    append(&agent, "app.log", &(lines.join("\n") + "\n"));
    agent.start();
    agent.wait("the lines", LONG, |agent| {
        arrived(&loki, agent, "app.log").len() == 300 && dropped(agent, "http_413") == 1
    });
    append(&agent, "app.log", "later x\n");
    // It is there before the agent has the answer.
    let sent = |agent: &Agent| agent.status()["endpoints"][0]["sent"].as_u64();
    agent.wait("the next", LONG, |agent| {
        arrived(&loki, agent, "app.log").len() == 301 && sent(agent) >= Some(301)
    });
    let status = agent.status();
    assert_eq!(status["endpoints"][0]["sent"], 301, "{status}");
    assert!(status["endpoints"][0]["requests"]["413"].as_u64().unwrap() < 40, "{status}");
    assert_eq!(loki.repeats(), 0);
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}

#[test]
fn no_refusal_of_what_is_too_far_behind_is_hidden_and_what_is_known_to_be_refused_is_not_sent() {
    let loki = StrictLoki::with_max_age(WEEK);
    let mut agent = agent(&loki, QUICK, TIMES);
    append(&agent, "a.log", &at(-1, "new"));
    append(&agent, "b.log", &at(-1, "new"));
    agent.start();
    let count = |agent: &Agent, name| arrived(&loki, agent, name).len();
    agent.wait("both", LONG, |agent| count(agent, "a.log") + count(agent, "b.log") == 2);
    append(&agent, "a.log", &(at(-2 * HOUR, "late") + &at(0, "next")));
    append(&agent, "b.log", &at(0, "next"));
    agent.wait("the next", LONG, |agent| count(agent, "a.log") + count(agent, "b.log") == 4);
    assert_eq!((dropped(&agent, "too_far_behind"), dropped(&agent, "http_400")), (1, 0));
    // A new process knows nothing of the streams; Loki does.
    assert!(agent.terminate().0.success());
    append(&agent, "a.log", &at(-2 * HOUR, "late"));
    append(&agent, "b.log", &at(0, "last"));
    agent.start();
    agent.wait("the last", LONG, |agent| {
        count(agent, "b.log") == 3 && dropped(agent, "http_400") == 1
    });
    // Loki has said how far it is.
    append(&agent, "a.log", &(at(-2 * HOUR, "late") + &at(0, "last")));
    agent.wait("the last", LONG, |agent| count(agent, "a.log") == 3);
    assert_eq!((dropped(&agent, "too_far_behind"), dropped(&agent, "http_400")), (1, 1));
    assert_eq!(arrived(&loki, &agent, "a.log"), ["new", "next", "last"]);
    assert_eq!(loki.with_service(|loki| loki.hidden), 0);
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}

#[test]
fn local_time_taken_for_utc_costs_no_line() {
    let loki = StrictLoki::with_max_age(WEEK);
    let mut agent = agent(&loki, QUICK, TIMES);
    append(&agent, "a.log", &(at(-1, "first") + &at(2 * HOUR, "ahead")));
    agent.start();
    // Before the first answer nobody knows what time it is for Loki.
    agent.wait("both", LONG, |agent| arrived(&loki, agent, "a.log").len() == 2);
    append(&agent, "a.log", &(at(2 * HOUR, "ahead again") + &at(300, "a little")));
    agent.wait("all", LONG, |agent| arrived(&loki, agent, "a.log").len() == 4);
    assert_eq!(arrived(&loki, &agent, "a.log"), ["first", "ahead", "ahead again", "a little"]);
    assert_eq!(agent.status()["dropped"].as_array().map(Vec::len), Some(0));
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}

#[test]
fn machine_whose_clock_is_ahead_waits_says_so_and_loses_nothing() {
    let loki = StrictLoki::with_max_age(WEEK);
    loki.change(|loki| loki.clock_behind = Duration::from_secs(1_500));
    let mut agent = agent(&loki, QUICK, "");
    append(&agent, "a.log", "1 one\n2 two\n");
    agent.start();
    let trouble = |agent: &Agent| agent.status()["endpoints"][0].to_string();
    agent.wait("the complaint", LONG, |agent| {
        trouble(agent).contains("clock is 25 minutes ahead of the server's")
    });
    append(&agent, "a.log", "3 three\n");
    // Over a restart, too.
    assert!(agent.terminate().0.success());
    agent.start();
    agent.wait("the complaint", LONG, |agent| trouble(agent).contains("minutes ahead"));
    assert_eq!(arrived(&loki, &agent, "a.log"), [""; 0]);
    loki.change(|loki| loki.clock_behind = Duration::ZERO);
    // The lines are there before the agent has the answer.
    agent.wait("all", LONG, |agent| {
        arrived(&loki, agent, "a.log").len() == 3 && !trouble(agent).contains("ahead")
    });
    assert_eq!(arrived(&loki, &agent, "a.log"), ["one", "two", "three"]);
    let status = agent.status();
    assert_eq!(status["dropped"].as_array().map(Vec::len), Some(0), "{status}");
    assert_eq!(loki.repeats(), 0);
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}

#[test]
fn trickle_shares_a_request_and_a_full_batch_waits_for_nothing() {
    let loki = StrictLoki::new();
    let mut agent = agent(&loki, "batch_wait = \"2s\"\nbatch_bytes = \"16KiB\"", "");
    agent.start();
    // What waits for no company is several requests each time, and not only where a machine stops.
    let shared = (1..=3).any(|all| {
        let (began, before) = (Instant::now(), loki.requests().len());
        for n in 0..5 {
            append(&agent, "a.log", &format!("{n} trickle\n"));
            std::thread::sleep(Duration::from_millis(100));
        }
        agent.wait("the lines", LONG, |agent| arrived(&loki, agent, "a.log").len() == 5 * all);
        assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
        loki.requests().len() == before + 1
    });
    assert!(shared, "{} requests", loki.requests().len());
    // Nothing to say, nothing said.
    let before = loki.requests().len();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(loki.requests().len(), before);
    // Four batches and a rest, of many streams.
    for file in 0..20 {
        append(&agent, &format!("s{file}.log"), &format!("x {}\n", "y".repeat(1_000)).repeat(4));
    }
    let all = |agent: &Agent| {
        (0..20).map(|file| arrived(&loki, agent, &format!("s{file}.log")).len()).sum::<usize>()
    };
    agent.wait("all", LONG, |agent| all(agent) == 80);
    // 80 KB, of which one and a half batches is the most.
    let requests = loki.requests().len() - before;
    assert!((4..=15).contains(&requests), "{requests} requests");
    assert!(agent.terminate().0.success());
    loki.assert_clean();
}
