//! The 155 names that Grafana's Linux Server integration asks for are all there: each on one of the fixtures,
//! or among the agent's own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]
#![allow(dead_code, reason = "each test file uses a part of the fixtures")]

mod fixtures;

use std::collections::BTreeSet;

use mote::collector::Set;
use mote::model::Samples;
use mote::status::Report;

/// Names that no fixture can have, and why.
const ELSEWHERE: [(&str, &str); 3] = [
    ("node_network_transmit_multicast_total", "FreeBSD's; Linux counts no such packets"),
    ("node_systemd_service_restart_total", "from systemd's bus; see systemd's tests"),
    ("node_systemd_unit_state", "as above"),
];

#[test]
fn no_name_of_grafanas_integration_is_missing() {
    let mut have = BTreeSet::new();
    for tree in fixtures::TREES {
        let mut set = Set::new(|_| true, &fixtures::options());
        let mut samples = Samples::with_limit(100_000);
        set.collect(&mut fixtures::host(&fixtures::tree(tree)), &mut samples);
        have.extend(samples.iter().map(|sample| sample.name().to_owned()));
    }
    let mut own = Samples::with_limit(1_000);
    Report::default().write_samples(&mut own);
    have.extend(own.iter().map(|sample| sample.name().to_owned()));
    let wanted = include_str!("fixtures/linux-server-integration.txt");
    assert_eq!(wanted.lines().count(), 155);
    let missing = wanted.lines().filter(|name| !have.contains(*name));
    let elsewhere = |name: &&str| ELSEWHERE.iter().any(|(other, _)| other == name);
    let missing: Vec<_> = missing.filter(|name| !elsewhere(name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
