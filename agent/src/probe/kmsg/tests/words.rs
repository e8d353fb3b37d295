//! The log's values of labels are those of the tracepoints' probes: one name for one fact, whichever source
//! tells it. What the log alone tells is listed here, with the reason.

use std::collections::BTreeSet;

use agent_common::scsi::{code, error};
use agent_common::thermal::trip_type;

use super::*;
use crate::probe::kmsg::filesystem::{MAX_ERRNO, TABLES};
use crate::probe::kmsg::hardware::THROTTLE;
use crate::probe::kmsg::scsi::{BEGINNINGS, OFFLINE, OTHER, SENSE_KEYS};
use crate::probe::scsi::{HOST_BYTES, error_name};
use crate::probe::{errno, filesystem as fs_probe};

/// Compares what the log says with what the probe can say, and with what only the log does.
#[track_caller]
fn compare(log: &BTreeSet<String>, probe: &BTreeSet<String>, only_log: &[&str]) {
    assert!(log.intersection(probe).count() > 0);
    let alone: Vec<_> = log.difference(probe).map(String::as_str).collect();
    let mut expected = only_log.to_vec();
    expected.sort_unstable();
    assert_eq!(alone, expected);
}

/// The label's value of each finding.
fn values<'a>(label: &str, texts: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for text in texts {
        let Some(finding) = one(text) else { continue };
        let labels = finding.notice.labels();
        values.extend(labels.iter().filter(|(name, _)| *name == label).map(|(_, v)| v.to_string()));
    }
    values
}

fn errnos() -> impl Iterator<Item = String> {
    (1..MAX_ERRNO).map(errno::name)
}

#[test]
fn scsi() {
    let mut texts = Vec::new();
    let hosts = HOST_BYTES.map(str::to_uppercase).into_iter();
    for host in hosts.chain((0..=0x100).map(|n| format!("0x{n:02x}"))).chain(["DID_NEW".into()]) {
        for what in ["tag#0 FAILED ", "Test Unit Ready failed: ", ""] {
            texts.push(format!("sd 0:0:0:0: [sda] {what}Result: hostbyte={host} driverbyte=x"));
        }
    }
    for key in SENSE_KEYS.map(str::to_owned).into_iter().chain((0..32).map(|n| format!("{n:#x}"))) {
        texts.push(format!("sd 0:0:0:0: [sda] tag#0 Sense Key : {key} [current] "));
    }
    texts.extend(BEGINNINGS.map(|(words, _)| format!("sd 0:0:0:0: [sda] tag#0 {words} x")));
    texts.push("sd 0:0:0:0: [sda] tag#0 Sense not available.".to_owned());

    let mut probe = BTreeSet::from([error_name(code::TIMEOUT), error_name(code::DISPATCH)]);
    for low in (0..=0xff).chain((0..=0xff).map(|host| host << 16)) {
        for key in (0..16).chain([u32::MAX]) {
            probe.extend(
                [0x00, 0x12, 0x28].iter().filter_map(|op| error(low, *op, key)).map(error_name),
            );
        }
    }
    // Refused before any tracepoint; a host's code that these kernels don't have.
    compare(&values("error", &texts), &probe, &[OFFLINE, OTHER]);
    // Each key is decided on alike, by name and by number.
    for (key, name) in (0..).zip(SENSE_KEYS) {
        let expected = error(0x02, 0x28, key).map(error_name);
        for name in [name.to_owned(), format!("{key:#x}")] {
            let said =
                values("error", [&format!("sd 0:0:0:0: [sda] Sense Key : {name} [current]")]);
            assert_eq!(said.into_iter().next(), expected, "{name}");
        }
    }
    for (host, name) in (0..).zip(HOST_BYTES) {
        let expected = error(host << 16, 0x28, 0).map(error_name);
        let name = name.to_uppercase();
        let said =
            values("error", [&format!("sd 0:0:0:0: [sda] Result: hostbyte={name} driverbyte=x")]);
        assert_eq!(said.into_iter().next(), expected, "{name}");
    }
}

#[test]
fn file_systems() {
    let mut log = BTreeSet::new();
    for (kind, phrases) in TABLES {
        let kinds: &[&str] = if kind == "ext4" { &["ext2", "ext3", "ext4"] } else { &[kind] };
        for (words, says) in phrases {
            for kind in kinds {
                for text in
                    [words.to_string(), format!("{words} error -30"), format!("{words} error 0")]
                {
                    log.extend(says.error(kind, &text));
                }
            }
        }
    }
    let mut probe: BTreeSet<String> = errnos().collect();
    probe.insert(fs_probe::error_name(agent_common::filesystem::EXT4));
    let only_log = [
        // Kinds for which there is no tracepoint: called as ext4's are.
        "ext2",
        "ext3",
        "btrfs",
        "xfs",
        "f2fs",
        "fat",
        "exfat",
        "squashfs",
        // What a file system has come to, for which there is none either.
        "journal_aborted",
        "read_only",
        "shutdown",
        "unclean",
    ];
    compare(&log, &probe, &only_log);
}

#[test]
fn cards() {
    let mut texts: Vec<_> = mmc::PHRASES.map(|(words, _)| format!("mmc0: {words}")).to_vec();
    texts.extend((0..5_000).map(|n| format!("mmc0: error -{n} whilst initialising SD card")));
    // What a host's driver says of itself and the card; no request ends with it.
    let only_log = ["busy", "controller", "dma", "interrupt", "recovery", "tuning"];
    compare(&values("error", &texts), &errnos().collect(), &only_log);
}

#[test]
fn heat() {
    let texts = [
        "thermal thermal_zone0: critical temperature reached (95 C), shutting down",
        "thermal thermal_zone12: cpu-thermal: critical temperature reached, shutting down",
        "CPU3: Package temperature above threshold, cpu clock throttled (total events = 1)",
        "CPU3: Core temperature above threshold, cpu clock throttled (total events = 1)",
    ]
    .map(str::to_owned);
    // A CPU of x86's that slows itself down has no zone, and no trip point.
    let types = (0..5).map(|number| trip_type(number).to_owned()).collect();
    compare(&values("type", &texts), &types, &[THROTTLE]);
    let zones = (0..100u32).map(|zone| zone.to_string()).collect();
    compare(&values("zone", &texts), &zones, &["core", "package"]);
}
