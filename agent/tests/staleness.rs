//! A series that goes away is gone in Prometheus with the next round, and not five minutes later; one whose
//! collector rests stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
#![allow(dead_code, reason = "each test file uses a part of the fixtures and of the support")]

mod fixtures;
mod support;

use std::time::Duration;

use support::{Agent, Prometheus};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn collector_that_a_reload_switches_off_is_gone_at_once() {
    let prometheus = Prometheus::new();
    let config = |collectors: &str| {
        format!(
            "interval = \"1s\"\n[probes]\ndefault = \"off\"\n\
             [metrics]\ncollectors = {{ only = {collectors} }}\n\
             [[mimir]]\nurl = {:?}\nsend_interval = \"1s\"\n",
            prometheus.url()
        )
    };
    let mut agent = Agent::new(&config(r#"["loadavg", "time"]"#));
    agent.start();
    let shown = |what: &str| prometheus.query(what).len();
    let success = "node_scrape_collector_success";
    agent.wait("both collectors", LONG, |_| {
        shown("node_load1") == 1 && shown("node_time_seconds") == 1 && shown(success) == 2
    });
    agent.configure(&config(r#"["time"]"#));
    agent.signal(rustix::process::Signal::HUP);
    agent.wait("the load to go", LONG, |_| shown("node_load1") == 0 && shown(success) == 1);
    assert_eq!(shown("node_time_seconds"), 1);
    agent.configure(&config(r#"["loadavg", "time"]"#));
    agent.signal(rustix::process::Signal::HUP);
    agent.wait("the load to come back", LONG, |_| shown("node_load1") == 1);
    agent.terminate();
}

#[test]
fn device_that_is_removed_is_gone_at_once_and_slow_series_stay() {
    let prometheus = Prometheus::new();
    let tree = fixtures::Copy::new();
    let path = |below: &str| tree.path().join(below).display().to_string();
    let mut agent = Agent::new(&format!(
        "interval = \"1s\"\n[host]\nproc = {:?}\nsys = {:?}\nroot = {:?}\n\
         [probes]\ndefault = \"off\"\n\
         [metrics]\ncollectors = {{ only = [\"netdev\", \"loadavg\"] }}\nintervals = {{ loadavg = \"1h\" }}\n\
         [[mimir]]\nurl = {:?}\nsend_interval = \"1s\"\n",
        path("proc"),
        path("sys"),
        path("root"),
        prometheus.url()
    ));
    agent.start();
    let shown = |what: &str| prometheus.query(what).len();
    let wlan = "node_network_receive_bytes_total{device=\"wlan0\"}";
    let eth = "node_network_receive_bytes_total{device=\"eth0\"}";
    agent.wait("both devices and the load", LONG, |_| {
        shown(wlan) == 1 && shown(eth) == 1 && shown("node_load1") == 1
    });
    let text = String::from_utf8(tree.read("proc/net/dev")).unwrap();
    let without: String =
        text.lines().filter(|line| !line.contains("wlan0")).flat_map(|line| [line, "\n"]).collect();
    tree.write("proc/net/dev", without.as_bytes());
    // Without a marker it would be there for 5 minutes more.
    agent.wait("wlan0 to go", LONG, |_| shown(wlan) == 0);
    assert_eq!((shown(eth), shown("node_load1")), (1, 1));
    // One sample of the resting collector, and no marker.
    assert_eq!(prometheus.query("count_over_time(node_load1[5m])")[0].samples[0].1, 1.0);
    // It comes back.
    tree.write("proc/net/dev", text.as_bytes());
    agent.wait("wlan0 to come back", LONG, |_| shown(wlan) == 1);
    agent.terminate();
}
