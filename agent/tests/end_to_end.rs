//! The agent beside a real Prometheus: what /proc says arrives, and no round is lost or doubled when
//! either of them dies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use support::prometheus::Series;
use support::{Agent, Fault, Prometheus, StrictMimir};

const LONG: Duration = Duration::from_secs(60);

fn config(url: &str) -> String {
    format!(
        "instance = \"box\"\ninterval = \"1s\"\nlabels = {{ site = \"home\" }}\n\
         [[mimir]]\nurl = {url:?}\nsend_interval = \"1s\"\n\
         backoff = {{ min = \"50ms\", max = \"500ms\" }}\n"
    )
}

/// Asks until there is an answer.
fn await_query(prometheus: &Prometheus, agent: &mut Agent, promql: &str) -> Vec<Series> {
    let mut found = Vec::new();
    agent.wait(promql, LONG, |_| {
        found = prometheus.query(promql);
        !found.is_empty()
    });
    found
}

fn proc_value(file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn near(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got} where {want} ± {tolerance} should be");
}

fn labels(series: &Series) -> BTreeMap<&str, &str> {
    series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn what_proc_says_is_what_prometheus_has() {
    let prometheus = Prometheus::new();
    let mut agent = Agent::new(&config(&prometheus.url()));
    agent.start();
    // Block I/O of this test's own, so that the probe has something to tell.
    let file = agent.path("io");
    fs::write(&file, vec![1; 1 << 20]).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    agent.wait("several rounds", LONG, |_| {
        prometheus.query("count_over_time(node_time_seconds[1m]) >= 4").len() == 1
    });

    // Each comparison allows for what the host does in the seconds between the round and the reading.
    let idle = await_query(&prometheus, &mut agent, "sum(node_cpu_seconds_total{mode=\"idle\"})");
    let user_now = proc_value("/proc/stat", "cpu ") / 100.0;
    let user = await_query(&prometheus, &mut agent, "sum(node_cpu_seconds_total{mode=\"user\"})");
    near(user[0].samples[0].1, user_now, 20.0);
    assert!(idle[0].samples[0].1 > 0.0);
    let cpu = prometheus.query("node_cpu_seconds_total{cpu=\"0\",mode=\"system\"}");
    let want = [
        ("__name__", "node_cpu_seconds_total"),
        ("cpu", "0"),
        ("instance", "box"),
        ("job", "integrations/node_exporter"),
        ("mode", "system"),
        ("site", "home"),
    ];
    assert_eq!(labels(&cpu[0]).into_iter().collect::<Vec<_>>(), want);

    let total = prometheus.query("node_memory_MemTotal_bytes");
    assert_eq!(total[0].samples[0].1, proc_value("/proc/meminfo", "MemTotal:") * 1024.0);
    let available = prometheus.query("node_memory_MemAvailable_bytes");
    let now = proc_value("/proc/meminfo", "MemAvailable:") * 1024.0;
    near(available[0].samples[0].1, now, total[0].samples[0].1 * 0.1);

    let root = "{mountpoint=\"/\"}";
    let fs_size = prometheus.query(&format!("node_filesystem_size_bytes{root}"));
    let fs_avail = prometheus.query(&format!("node_filesystem_avail_bytes{root}"));
    let stat = rustix::fs::statvfs("/").unwrap();
    assert_eq!(fs_size[0].samples[0].1, (stat.f_blocks * stat.f_frsize) as f64);
    near(fs_avail[0].samples[0].1, (stat.f_bavail * stat.f_frsize) as f64, 2e9);
    let names = labels(&fs_avail[0]);
    assert!(names.contains_key("device") && names.contains_key("fstype"), "{names:?}");

    // The probe: every bucket up to +Inf, which is the count, for a device that the kernel knows.
    let name = "mote_block_io_duration_seconds";
    let inf = await_query(&prometheus, &mut agent, &format!("{name}_bucket{{le=\"+Inf\"}}"));
    let disks = fs::read_to_string("/proc/diskstats").unwrap();
    for series in &inf {
        let (device, operation) = (&series.labels["device"], &series.labels["operation"]);
        assert!(disks.split_whitespace().any(|word| word == device), "{device}");
        assert!(["read", "write", "discard", "flush"].contains(&&operation[..]), "{operation}");
        let of = format!("{{device=\"{device}\",operation=\"{operation}\"}}");
        // One round's buckets are one picture: rising, and the last of them the count.
        let time = series.samples[0].0;
        let count = prometheus.query_at(&format!("{name}_count{of}"), time)[0].samples[0].1;
        let infinite =
            format!("{name}_bucket{{device=\"{device}\",operation=\"{operation}\",le=\"+Inf\"}}");
        assert_eq!(prometheus.query_at(&infinite, time)[0].samples[0].1, count);
        let mut buckets: Vec<(f64, f64)> = prometheus
            .query_at(&format!("{name}_bucket{of}"), time)
            .iter()
            .map(|b| (b.labels["le"].parse().unwrap_or(f64::INFINITY), b.samples[0].1))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!((buckets.len(), buckets[0].0), (24, 0.000_015_258_789_062_5));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
    }
    assert!(!inf.is_empty());

    let status = agent.status();
    assert_eq!(status["endpoints"][0]["trouble"], serde_json::Value::Null);
    // Events are of the whole machine, whose disks may be failing.
    let dropped = status["dropped"].as_array().unwrap().iter();
    assert_eq!(dropped.filter(|d| d["reason"] != "event_rate").count(), 0, "{status}");
    let (exit, _) = agent.terminate();
    assert!(exit.success());
}

/// Every timestamp that Prometheus has of a series, in milliseconds.
fn stored(prometheus: &Prometheus, series: &str) -> Vec<i64> {
    let found = prometheus.query(&format!("{series}[1h]"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].times_ms()
}

#[test]
fn no_round_is_missing_or_doubled_when_the_backend_and_the_agent_die() {
    let mut prometheus = Prometheus::new();
    let mut agent = Agent::new(&config(&prometheus.url()));
    agent.start();
    agent.wait("rounds before", LONG, |_| {
        prometheus.query("count_over_time(node_time_seconds[1m]) >= 3").len() == 1
    });
    prometheus.stop();
    let rounds = |agent: &Agent| agent.status()["wals"][0]["records"].as_u64().unwrap();
    let before = rounds(&agent);
    agent.wait("rounds without a backend", LONG, |agent| rounds(agent) >= before + 8);
    agent.kill();
    let killed = agent.rounds();
    agent.start();
    agent.wait("rounds after the kill", LONG, |agent| rounds(agent) >= 5);
    // A second kill, so that the WAL of this run is there to be read whole.
    agent.kill();
    let expected: Vec<i64> = agent.rounds().iter().map(|(time, _)| *time).collect();
    assert!(expected.len() >= 13 && killed.iter().all(|(time, _)| expected.contains(time)));
    agent.start();
    agent.wait("a round after it", LONG, |agent| rounds(agent) >= 2);
    prometheus.start();
    agent.wait("the backlog is drained", LONG, |agent| {
        let endpoint = &agent.status()["endpoints"][0];
        endpoint["sent"].as_u64() > Some(0) && endpoint["lag_seconds"].as_f64() < Some(1.5)
    });
    let status = agent.status();
    assert!(agent.terminate().0.success());

    let got = stored(&prometheus, "node_time_seconds");
    for time in &expected {
        assert_eq!(got.iter().filter(|have| *have == time).count(), 1, "{time} in {got:?}");
    }
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{got:?}");
    // Another series, with labels: the same rounds.
    assert_eq!(stored(&prometheus, "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}"), got);
    // While the agent lived, a round each second: a gap is a time when it was dead.
    let gaps = got.windows(2).filter(|pair| pair[1] - pair[0] > 1_500).count();
    assert!(gaps <= 2, "{got:?}");
    // A value is the one of its time: node_time_seconds is the time of collection.
    for series in prometheus.query("node_time_seconds[1h]") {
        for (time, value) in series.samples {
            near(value, time, 1.0);
        }
    }
    let lost: u64 = status["dropped"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| !d["reason"].as_str().unwrap().ends_with("_repeat"))
        .map(|d| d["count"].as_u64().unwrap())
        .sum();
    assert_eq!(lost, 0, "{status}");
}

#[test]
fn strict_server_gets_every_round_once_and_in_order_over_kills() {
    let mimir = StrictMimir::new();
    // A kill may cut a request off.
    mimir.tolerate_aborts();
    let mut agent = Agent::new(&config(&mimir.url()));
    let mut all = Vec::new();
    for kill in 0..5 {
        agent.start();
        let sent = |agent: &Agent| agent.status()["endpoints"][0]["sent"].as_u64().unwrap_or(0);
        agent.wait("something sent", LONG, |agent| sent(agent) > 0);
        // Somewhere else in the second each time.
        std::thread::sleep(Duration::from_millis(1_000 + 230 * kill));
        agent.kill();
        all.extend(agent.rounds().iter().map(|(time, _)| *time));
    }
    agent.start();
    agent.wait("everything sent", LONG, |agent| {
        agent.status()["endpoints"][0]["lag_seconds"].as_f64() < Some(1.5)
            && agent.status()["wals"][0]["records"].as_u64() > Some(1)
    });
    assert!(agent.terminate().0.success());
    let got: Vec<i64> =
        mimir.samples("node_time_seconds", &[]).iter().map(|(time, _)| *time).collect();
    all.sort_unstable();
    all.dedup();
    assert!(all.len() >= 10, "{all:?}");
    for time in &all {
        assert_eq!(got.iter().filter(|have| *have == time).count(), 1, "{time} in {got:?}");
    }
    mimir.assert_clean();
}

#[test]
fn dead_backend_does_not_hold_up_the_end() {
    let mut mimir = StrictMimir::new();
    let url = mimir.url();
    mimir.stop();
    let mut agent = Agent::new(&config(&url));
    agent.start();
    agent.wait("trouble is seen", LONG, |agent| {
        agent.status()["endpoints"][0]["trouble"].as_str().is_some_and(|t| t.contains("refused"))
    });
    let (exit, took) = agent.terminate();
    assert!(exit.success() && took < Duration::from_secs(6), "{exit} after {took:?}");
    let kept = agent.rounds();
    assert!(!kept.is_empty());
    // And nothing of it is lost.
    mimir.start();
    agent.start();
    let oldest = kept[0].0;
    mimir.wait("the oldest round", LONG, |service| service.accepted > 0);
    agent.wait("all sent", LONG, |agent| {
        agent.status()["endpoints"][0]["lag_seconds"].as_f64() < Some(1.5)
    });
    assert!(agent.terminate().0.success());
    assert_eq!(mimir.samples("node_time_seconds", &[])[0].0, oldest);
    mimir.assert_clean();
}

/// What Prometheus answers to a batch whose first rounds it has stored already, because the answer of
/// the first time got lost: nothing of it is kept.
#[test]
fn refused_batch_is_sent_again_round_by_round() {
    let mut mimir = StrictMimir::new();
    let url = mimir.url();
    mimir.stop();
    let mut agent = Agent::new(&config(&url));
    agent.start();
    let records = |agent: &Agent| agent.status()["wals"][0]["records"].as_u64();
    agent.wait("a backlog", LONG, |agent| records(agent) >= Some(4));
    agent.kill();
    let backlog = agent.rounds();
    mimir.script(Fault::accept_then_lose_answer());
    mimir.script(Fault::status(400).body("out of order sample"));
    mimir.start();
    agent.start();
    agent.wait("all sent", LONG, |agent| {
        let status = agent.status();
        status["endpoints"][0]["lag_seconds"].as_f64() < Some(1.5)
            && status["endpoints"][0]["sent"].as_u64() > Some(0)
    });
    let status = agent.status();
    assert!(agent.terminate().0.success());
    assert_eq!(mimir.script_left(), 0);
    assert_eq!(status["dropped"].as_array().unwrap().len(), 0, "{status}");
    assert_eq!(status["endpoints"][0]["requests"]["400"], 1, "{status}");
    let got = mimir.samples("node_time_seconds", &[]);
    for (time, _) in &backlog {
        assert_eq!(got.iter().filter(|(have, _)| have == time).count(), 1, "{time}: {got:?}");
    }
    // Stored with the lost answer, and repeated one by one.
    assert!(mimir.repeats() > 0);
    mimir.assert_clean();
}

#[test]
fn time_is_that_of_this_machine() {
    let mimir = StrictMimir::new();
    let mut agent = Agent::new(&config(&mimir.url()));
    agent.start();
    agent.wait("a request", LONG, |_| !mimir.samples("node_time_seconds", &[]).is_empty());
    let (time, value) = mimir.samples("node_time_seconds", &[])[0];
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    near(time as f64 / 1000.0, now, 30.0);
    near(value, time as f64 / 1000.0, 1.0);
    assert!(agent.terminate().0.success());
    mimir.assert_clean();
}
