//! Tracefs and kernel as they should not be: what one probe can't use costs no other probe. Needs root and
//! the BPF objects.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use mote::host::{Host, Roots};
use mote::probe::{Loader, Mode, Options, Probes, Source};

mod support;

use support::probed::Tracefs;

/// The source and the reason of each probe, with this kernel's format files as `change` makes them.
fn started(change: impl Fn(&str, String) -> String) -> BTreeMap<&'static str, (Source, String)> {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test attaches BPF programs: run it as root"
    );
    let (sys, tracefs) = (tempfile::tempdir().unwrap(), Tracefs::new());
    for family in ["block", "tcp", "sock"] {
        let from = tracefs.path().join("events").join(family);
        let into = sys.path().join("kernel/tracing/events").join(family);
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            copy(&entry.path(), &into.join(entry.file_name()), &change);
        }
    }
    let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
    let host = Host::new(Roots { sys: sys.path().into(), ..Roots::default() });
    let options = Options { loader, default: Mode::Auto, ..Options::default() };
    let probes = Probes::start(&options, &host);
    probes.status().map(|status| (status.name, (status.source, status.reason.clone()))).collect()
}

fn copy(from: &Path, into: &Path, change: impl Fn(&str, String) -> String) {
    let Ok(format) = std::fs::read_to_string(from.join("format")) else { return };
    let event = from.file_name().unwrap().to_string_lossy();
    std::fs::create_dir_all(into).unwrap();
    std::fs::write(into.join("format"), change(&event, format)).unwrap();
}

#[test]
fn a_field_that_can_not_be_read_costs_its_own_probe_alone() {
    let probes = started(|event, format| {
        if event != "block_rq_issue" {
            return format;
        }
        assert!(format.contains("dev_t dev;\toffset:8;"), "{format}");
        format.replace("dev_t dev;\toffset:8;", "dev_t dev;\toffset:9;")
    });
    let (source, reason) = &probes["block"];
    assert_ne!(*source, Source::Tracepoint);
    assert!(reason.contains("\"dev\" of 4 bytes at 9 can't be read"), "{reason}");
    assert_eq!(probes["tcp"].0, Source::Tracepoint, "{probes:?}");
}

#[test]
fn an_optional_program_that_can_not_be_attached_is_missing_and_its_probe_is_not() {
    let probes = started(|event, format| {
        let changed = |line: &str| {
            let id = event == "inet_sk_error_report" && line.starts_with("ID: ");
            if id { "ID: 987654\n".to_owned() } else { format!("{line}\n") }
        };
        format.lines().map(changed).collect()
    });
    let (source, reason) = &probes["tcp"];
    assert_eq!(*source, Source::Tracepoint, "{reason}");
    assert!(reason.starts_with("inet_sk_error_report is not used: attaching to "), "{reason}");
    assert_eq!(probes["block"], (Source::Tracepoint, String::new()));
}
