//! Remote write 2.0 by the whole agent: at a strict receiver, and at receivers that are older or write a
//! part only, the real Prometheus of Debian among them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::time::Duration;

use support::strict_receiver::{Plays, StrictReceiver};
use support::{Agent, Prometheus};

const LONG: Duration = Duration::from_secs(60);
const LATENCY: &str = "mote_block_io_duration_seconds";

fn config(url: &str, more: &str) -> String {
    format!(
        "instance = \"box\"\ninterval = \"1s\"\n[[mimir]]\nurl = {url:?}\nprotocol = \"2.0\"\n\
         send_interval = \"1s\"\nbackoff = {{ min = \"50ms\", max = \"500ms\" }}\n{more}"
    )
}

/// Block I/O of this test's own, so that the probe has something to tell.
fn write(agent: &Agent) {
    let file = agent.path("io");
    fs::write(&file, vec![1; 1 << 20]).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
}

fn protocol(agent: &Agent) -> String {
    agent.status()["endpoints"][0]["protocol"].as_str().unwrap().to_owned()
}

/// What was given up, but for events of the machine's.
fn dropped(agent: &Agent, reason: &str) -> u64 {
    let status = agent.status();
    let all = status["dropped"].as_array().unwrap();
    let of = |d: &&serde_json::Value| d["signal"] == "metrics" && d["reason"] == reason;
    all.iter().filter(of).map(|d| d["count"].as_u64().unwrap()).sum()
}

#[test]
fn samples_histograms_starts_and_texts_arrive_by_2_0() {
    let receiver = StrictReceiver::new(Plays::Two);
    let mut agent = Agent::new(&config(&receiver.url(), ""));
    agent.start();
    write(&agent);
    agent.wait("several histograms", LONG, |_| {
        receiver.histograms(LATENCY).iter().any(|(_, all)| all.len() >= 4)
    });
    assert_eq!(protocol(&agent), "remote write 2.0");
    for (labels, all) in receiver.histograms(LATENCY) {
        assert!(labels.iter().all(|(name, _)| name != "le"), "{labels:?}");
        for two in all.windows(2) {
            assert!(two[0].count <= two[1].count && two[0].sum <= two[1].sum, "{two:?}");
            assert!(two[0].start > 0 && two[0].start == two[1].start, "{two:?}");
            assert!(two[0].threshold == 1.0 / 65_536.0);
        }
    }
    assert!(receiver.samples(&format!("{LATENCY}_bucket")).is_empty());
    // A start is the boot, and stays it.
    let (_, forks) = receiver.samples("node_forks_total").pop().unwrap();
    let (_, boot) = receiver.samples("node_boot_time_seconds").pop().unwrap();
    for (_, start, _) in &forks {
        assert!((*start as f64 / 1e3 - boot[0].2).abs() < 5.0, "{start} {boot:?}");
        assert_eq!(*start, forks[0].1);
    }
    let (load, samples) = receiver.samples("node_load1").pop().unwrap();
    assert!(samples.iter().all(|(_, start, _)| *start == 0));
    receiver.with_service(|receiver| {
        assert_eq!(receiver.metadata[&load], (2, "1m load average.".into(), String::new()));
        assert_eq!(receiver.of_one, 0);
    });
    for reason in ["not_written", "http_400", "wal_damaged"] {
        assert_eq!(dropped(&agent, reason), 0, "{reason}");
    }
    assert!(agent.terminate().0.success());
    receiver.assert_clean();
}

#[test]
fn a_receiver_of_1_0_that_says_so_gets_everything_by_1_0() {
    for plays in [Plays::Says415, Plays::Says400] {
        let receiver = StrictReceiver::new(plays);
        let mut agent = Agent::new(&config(&receiver.url(), ""));
        agent.start();
        agent.wait("rounds", LONG, |_| {
            receiver.samples("node_load1").first().is_some_and(|(_, all)| all.len() >= 3)
        });
        assert!(protocol(&agent).starts_with("remote write 1.0"), "{plays:?}");
        let (exit, _) = agent.terminate();
        assert!(exit.success());
        let (_, stored) = receiver.samples("node_load1").pop().unwrap();
        let times: Vec<i64> = stored.iter().map(|sample| sample.0).collect();
        let collected: Vec<i64> = agent.rounds().iter().map(|round| round.0).collect();
        assert_eq!(times, collected[..times.len()], "each round from the first on");
        receiver.with_service(|receiver| {
            let load = &receiver.families["node_load1"];
            assert_eq!((load.0, load.1.as_str()), (2, "1m load average."));
        });
        let log = fs::read_to_string(agent.path("log")).unwrap();
        assert_eq!(log.matches("does not take remote write 2.0").count(), 1, "{log}");
        receiver.assert_clean();
    }
}

#[test]
fn what_a_receiver_has_not_written_is_counted_and_not_sent_again() {
    for (plays, reason) in
        [(Plays::NoHistograms, "http_400"), (Plays::LosesHistograms, "not_written")]
    {
        let receiver = StrictReceiver::new(plays);
        let mut agent = Agent::new(&config(&receiver.url(), ""));
        agent.start();
        write(&agent);
        // Before the first answer to a request the server may have had it from an earlier process.
        let lost =
            |agent: &Agent| dropped(agent, reason) + dropped(agent, &format!("{reason}_repeat"));
        agent.wait("losses", LONG, |agent| lost(agent) > 26);
        // 26 samples of the WAL for each histogram, and nothing else.
        assert_eq!(lost(&agent) % 26, 0, "{plays:?}");
        assert_eq!(protocol(&agent), "remote write 2.0");
        assert!(agent.terminate().0.success());
        receiver.assert_clean();
    }
}

#[test]
fn a_prometheus_of_1_0_that_takes_2_0_for_nothing_gets_each_round_by_1_0() {
    let prometheus = Prometheus::new();
    let mut agent = Agent::new(&config(&prometheus.url(), ""));
    agent.start();
    agent.wait("rounds", LONG, |_| {
        prometheus.query("count_over_time(node_load1[5m]) >= 4").len() == 1
    });
    assert!(protocol(&agent).starts_with("remote write 1.0"));
    assert!(agent.terminate().0.success());
    let stored = prometheus.query("node_load1[5m]")[0].times_ms();
    let collected: Vec<i64> = agent.rounds().iter().map(|round| round.0).collect();
    assert_eq!(stored, collected[..stored.len()], "each round from the first on");
    // Classic, by 1.0.
    assert!(!prometheus.query("{__name__=~\"mote_.+_bucket\"}").is_empty());
}
