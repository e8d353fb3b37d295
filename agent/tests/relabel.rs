//! Relabel rules and external labels in the whole agent: what each of several endpoints gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use support::{Agent, StrictLoki, StrictMimir};

const LONG: Duration = Duration::from_secs(60);

const SMALL: &str = "instance = \"box\"\ninterval = \"1s\"\n[probes]\ndefault = \"off\"\n";

/// How many samples or entries were dropped for a reason.
fn dropped(agent: &Agent, signal: &str, reason: &str) -> u64 {
    let (_, text) = agent.get("/metrics").unwrap();
    let line = text.lines().find(|line| {
        line.starts_with("mote_dropped_total{")
            && line.contains(&format!("signal=\"{signal}\""))
            && line.contains(&format!("reason=\"{reason}\""))
    });
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
}

fn names(mimir: &StrictMimir) -> Vec<String> {
    mimir.with_service(|mimir| {
        let name = |labels: &support::strict_mimir::Labels| {
            labels.iter().find(|(name, _)| name == "__name__").unwrap().1.clone()
        };
        mimir.series.keys().map(name).collect()
    })
}

#[test]
fn each_mimir_gets_what_its_own_rules_and_labels_say() {
    let (one, other) = (StrictMimir::new(), StrictMimir::new());
    let mut agent = Agent::new(&format!(
        r#"{SMALL}
        [metrics]
        collectors = {{ only = ["loadavg", "meminfo"] }}
        max_series = 10
        [[metrics.relabel]]
        source_labels = ["__name__"]
        regex = "node_memory_.+"
        action = "drop"
        [[metrics.relabel]]
        source_labels = ["__name__"]
        regex = "node_load(.*)"
        target_label = "__name__"
        replacement = "host_load${{1}}"
        [[metrics.relabel]]
        source_labels = ["__name__"]
        regex = "host_load5"
        target_label = "instance"
        replacement = ""
        [[mimir]]
        url = {:?}
        send_interval = "1s"
        labels = {{ cluster = "one" }}
        [[mimir.relabel]]
        source_labels = ["cluster", "__name__"]
        regex = "one;(host_load.+|up)"
        action = "keep"
        [[mimir]]
        url = {:?}
        send_interval = "1s"
        labels = {{ cluster = "other", job = "not this" }}
        [[mimir.relabel]]
        action = "labeldrop"
        regex = "instance"
        [[mimir.relabel]]
        source_labels = ["__name__"]
        regex = "host_load(1|15)"
        target_label = "__name__"
        replacement = "host_loads"
        "#,
        one.url(),
        other.url()
    ));
    agent.start();
    let node = "integrations/node_exporter";
    agent.wait("samples at both", LONG, |_| {
        one.find("host_load5", &[]).iter().any(|(_, samples)| samples.len() > 2)
            && other.find("host_load5", &[]).iter().any(|(_, samples)| samples.len() > 2)
    });
    assert_eq!(names(&one), ["host_load1", "host_load15", "host_load5", "up"]);
    let labels = |mimir: &StrictMimir, name: &str| {
        let found = mimir.find(name, &[]);
        assert_eq!(found.len(), 1, "{name}");
        found[0].0.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
    };
    let of = |name: &str, rest: &str| format!("__name__={name} cluster=one{rest} job={node}");
    assert_eq!(labels(&one, "host_load1"), of("host_load1", " instance=box"));
    // Taken from this one alone.
    assert_eq!(labels(&one, "host_load5"), of("host_load5", ""));
    assert_eq!(labels(&one, "up"), of("up", " instance=box"));
    assert_eq!(
        labels(&other, "host_loads"),
        format!("__name__=host_loads cluster=other job={node}")
    );
    let all = names(&other);
    assert!(all.iter().any(|name| name.starts_with("mote_")), "{all:?}");
    assert!(!all.iter().any(|name| name.starts_with("node_memory")), "{all:?}");
    // One of the two series that became one, each round.
    let rounds = other.find("up", &[])[0].1.len();
    assert!(other.find("host_loads", &[])[0].1.len().abs_diff(rounds) <= 1);
    assert!(dropped(&agent, "metrics", "relabel") > 0);
    assert!(dropped(&agent, "metrics", "relabel_duplicate") > 0);
    assert_eq!(dropped(&agent, "metrics", "max_series"), 0, "what goes takes no place");
    assert_eq!(agent.log().matches("several series one").count(), 1, "{}", agent.log());
    // The newest round is the one that is written.
    let (_, page) = agent.get("/metrics?collect=node").unwrap();
    assert!(page.contains("# TYPE host_load1 untyped\nhost_load1{instance=\"box\"} "), "{page}");
    agent.terminate();
    one.assert_clean();
    other.assert_clean();
}

#[test]
fn a_series_that_a_reload_drops_is_marked_stale_and_one_that_an_endpoint_drops_just_ends() {
    const STALE: u64 = 0x7ff0_0000_0000_0002;
    let mimir = StrictMimir::new();
    let config = |rules: &str, own: &str| {
        format!(
            "{SMALL}[metrics]\ncollectors = {{ only = [\"loadavg\"] }}\n{rules}\n\
             [[mimir]]\nurl = {:?}\nsend_interval = \"1s\"\n{own}\n",
            mimir.url()
        )
    };
    let mut agent = Agent::new(&config("", ""));
    agent.start();
    let samples = |name: &str| mimir.samples(name, &[]);
    agent.wait("all three", LONG, |_| samples("node_load15").len() > 1);
    agent.configure(&config(
        "[[metrics.relabel]]\nsource_labels = [\"__name__\"]\nregex = \"node_load5\"\naction = \"drop\"",
        "[[mimir.relabel]]\nsource_labels = [\"__name__\"]\nregex = \"node_load15\"\naction = \"drop\"",
    ));
    agent.signal(Signal::HUP);
    let is_stale = |name: &str| samples(name).last().unwrap().1.to_bits() == STALE;
    agent.wait("the marker", LONG, |_| is_stale("node_load5"));
    let (fives, fifteens) = (samples("node_load5").len(), samples("node_load15").len());
    let ones = samples("node_load1").len();
    agent.wait("more rounds", LONG, |_| samples("node_load1").len() > ones + 2);
    assert_eq!((samples("node_load5").len(), samples("node_load15").len()), (fives, fifteens));
    assert!(!is_stale("node_load15"));
    // And back.
    agent.configure(&config("", ""));
    agent.signal(Signal::HUP);
    agent.wait("both again", LONG, |_| {
        samples("node_load5").len() > fives && samples("node_load15").len() > fifteens
    });
    agent.terminate();
    mimir.assert_clean();
}

#[test]
fn streams_that_become_one_at_a_loki_are_sent_in_the_order_of_time() {
    let (plain, shaped) = (StrictLoki::new(), StrictLoki::new());
    let mut agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir_all(&logs).unwrap();
    agent.configure(&format!(
        r#"{SMALL}
        [[logs.file]]
        paths = ["{logs}/*.log"]
        [[loki]]
        url = {:?}
        batch_wait = "500ms"
        [[loki]]
        url = {:?}
        batch_wait = "500ms"
        labels = {{ cluster = "home", instance = "not this" }}
        [[loki.relabel]]
        source_labels = ["filename"]
        regex = ".*/secret\\.log"
        action = "drop"
        [[loki.relabel]]
        source_labels = ["filename"]
        regex = ".*/([^/]+)\\.log"
        target_label = "__tmp_name"
        [[loki.relabel]]
        action = "labelkeep"
        regex = "cluster|instance|__.*"
        [[loki.relabel]]
        target_label = "job"
        replacement = "all"
        "#,
        plain.url(),
        shaped.url(),
        logs = logs.display(),
    ));
    agent.start();
    for n in 0..40 {
        for name in ["a", "b", "secret"] {
            let path = logs.join(format!("{name}.log"));
            let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
            std::io::Write::write_all(&mut file, format!("{name} {n}\n").as_bytes()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let all = [("job", "all"), ("cluster", "home"), ("instance", "box")];
    agent.wait("all lines", LONG, |_| {
        shaped.lines(&all).len() == 80 && plain.lines(&[("instance", "box")]).len() >= 120
    });
    shaped.with_service(|loki| assert_eq!(loki.streams.len(), 1, "{:?}", loki.streams.keys()));
    for name in ["a", "b"] {
        let lines: Vec<_> =
            shaped.lines(&all).into_iter().filter(|line| line.starts_with(name)).collect();
        let expected: Vec<_> = (0..40).map(|n| format!("{name} {n}")).collect();
        assert_eq!(lines, expected);
    }
    assert!(dropped(&agent, "logs", "relabel") >= 40);
    agent.terminate();
    plain.assert_clean();
    shaped.assert_clean();
}
