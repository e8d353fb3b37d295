//! A thousand OOM kills while nobody takes the events. By itself, because the kernel names the cgroups of
//! ten kills in 5 s only, which other tests need. Needs root and the BPF objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::{Command, Stdio};

use mote::host::{Host, Roots};
use mote::model::Samples;
use mote::probe::{Loader, Options, Probes};
use support::Group;

/// All kills that the probe has counted.
fn counted(probes: &mut Probes, host: &mut Host) -> f64 {
    let mut out = Samples::with_limit(1_000);
    probes.collect(host, 0, &mut out);
    let kills = out.iter().filter(|sample| sample.name() == "mote_oom_kills_total");
    kills.map(|sample| sample.value).sum()
}

#[test]
fn a_thousand_kills_are_all_counted_and_what_has_no_room_is_counted_as_lost() {
    let mut host = Host::new(Roots::default());
    let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
    let mut probes = Probes::start(&Options { loader, ..Options::only("oom") }, &host);
    probes.required().unwrap();
    let group = Group::new("flood", 2 << 20);
    // One process is the victim of so many kills that no one is reading the events meanwhile: each of
    // its children is one.
    let kills = 1_000;
    let before = counted(&mut probes, &mut host);
    let script = "i=0; while [ $i -lt 1000 ]; do \
                  (echo 0 > \"$0\"; exec tail /dev/zero); i=$((i+1)); done";
    let mut shell = Command::new("sh");
    let procs = group.path.join("cgroup.procs");
    let status = shell.args(["-c", script]).arg(procs).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    assert_eq!(group.kills(), kills);
    let now = counted(&mut probes, &mut host) - before;
    assert!(now >= kills as f64, "{now} counted of {kills}");
    let mut out = Samples::with_limit(1_000);
    probes.collect(&mut host, 0, &mut out);
    let is_lost = |labels: Vec<(&str, &str)>| labels.contains(&("reason", "events_full"));
    let lost = out
        .iter()
        .find(|s| s.name() == "mote_probe_lost_total" && is_lost(s.labels().collect()))
        .unwrap()
        .value;
    // The ring has room for some three hundred, and no one took any.
    assert!(lost >= 500.0 && lost < kills as f64, "{lost}");
    let mut told = 0;
    while probes.next_event().is_some() {
        told += 1;
    }
    assert!(
        told > 100 && told as f64 + lost <= now + probes.take_dropped() as f64,
        "{told} {lost}"
    );
}
