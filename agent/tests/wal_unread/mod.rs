//! `mote wal` where there is nothing yet, where files can't be read, and where they are being written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use mote::encode::{BLOCK, ROUND, RoundEncoder};
use mote::model::{Desc, Labels, Samples};
use mote::wal::{Encoded, Inspection, OtherKind, Payload, Place};
use serde_json::Value;

use super::wal_made::{
    Bytes, Lines, Round, flip, metrics, name, objects, of_type, offset, open, said, snapshot, text,
};

/// Runs a command as a user to whom files of mode 0 are closed.
struct Unprivileged(tempfile::TempDir);

impl Unprivileged {
    fn new() -> Unprivileged {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_mote"), dir.path().join("mote")).unwrap();
        Unprivileged(dir)
    }

    fn wal(&self, arguments: &[&str], dir: &Path) -> Output {
        let mut command = Command::new(self.0.path().join("mote"));
        command.arg("wal").args(arguments).arg(dir);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        command.output().unwrap()
    }
}

#[test]
fn what_can_not_be_read_is_not_called_damaged() {
    let command = Unprivileged::new();
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..3, 3..5, 5..6]);
    let mut wal = open(dir.path(), 1);
    let reader = wal.reader("a").unwrap();
    wal.acknowledge(reader, records[0].next, true).unwrap();
    drop(wal);
    let mode = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
    };
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        mode(entry.unwrap().file_name().to_str().unwrap(), 0o644);
    }
    let run = |arguments: &[&str], code: i32| {
        let output = command.wal(arguments, dir.path());
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{out}{}", text(&output.stderr));
        (out, text(&output.stderr))
    };
    let lines = |out: &str| -> Vec<Value> {
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for arguments in ["verify", "ls", "show"] {
        run(&[arguments], 0);
    }

    let closed = name(&records[3]);
    for file in ["LOCK", "a.cursor", &closed] {
        mode(file, 0);
    }
    let (verified, error) = run(&["verify"], 1);
    assert!(error.contains("2 files can't be read") && !error.contains("damage"), "{error}");
    let finding = format!("ERROR   {closed}: can't be read: Permission denied");
    assert!(verified.contains(&finding) && !verified.contains("DAMAGE"), "{verified}");
    assert!(verified.contains("perhaps in use: its LOCK can't be read"), "{verified}");
    assert!(verified.contains("UNKNOWN (2 files can't be read): 2 segments, 4 rec"), "{verified}");
    let verified = lines(&run(&["verify", "--json"], 1).0);
    let summary = of_type(&verified, "summary")[0];
    assert_eq!((&summary["good"], &summary["in_use"]), (&false.into(), &Value::Null));
    assert_eq!((&summary["damage"], &summary["errors"]), (&0.into(), &2.into()));
    assert!(of_type(&verified, "finding").iter().all(|finding| finding["severity"] == "error"));

    let (listed, error) = run(&["ls", "--json"], 1);
    assert!(error.contains("2 files can't be read"), "{error}");
    let listed = lines(&listed);
    assert_eq!(of_type(&listed, "unreadable")[0]["file"], closed);
    assert_eq!(of_type(&listed, "cursor")[0]["damaged"], false);
    assert!(of_type(&listed, "cursor")[0]["error"].is_string());
    assert_eq!(of_type(&listed, "total")[0]["records"], 4);
    assert!(run(&["ls"], 1).0.contains("can't be read: Permission denied"));

    let (shown, error) = run(&["show"], 1);
    assert!(error.contains("1 file can't be read"), "{error}");
    assert!(shown.contains(&format!("# {closed}: can't be read: ")), "{shown}");
    assert!(shown.contains("a{x=\"5\"} 5 5\n"), "{shown}");

    // Beside it damage is still damage.
    flip(&dir.path().join(name(&records[0])), offset(&records[0]) + 30);
    let (verified, error) = run(&["verify"], 1);
    assert!(error.contains("the WAL is damaged: ") && error.contains("; 2 files"), "{error}");
    assert!(verified.contains("  DAMAGED ("), "{verified}");
}

#[test]
fn a_record_that_is_being_written_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), 1);
    let first = wal.append(ROUND, &mut Bytes(b"first", 1)).unwrap();
    let second = wal.append(ROUND, &mut Bytes(&[7; 99], 1)).unwrap();
    let path = dir.path().join(name(&first));
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut rest = vec![0; 60];
    let at = second.next - second.segment - 60;
    file.read_exact_at(&mut rest, at).unwrap();
    file.write_all_at(&[0; 60], at).unwrap();

    // One that stays so.
    let verified = super::wal_made::wal(&["verify"], dir.path());
    let out = text(&verified.stdout);
    assert!(out.contains("bytes that are being written, or a torn tail"), "{out}");
    assert!(!out.contains(&format!("DAMAGE  {} byte {}", name(&first), offset(&second))), "{out}");

    // One that is whole a little later.
    let torn = || -> bool {
        let looked = Inspection::new(dir.path(), None).unwrap();
        assert_eq!(looked.in_use, Some(true));
        let mut walk = looked.walk(&looked.segments[0]).unwrap().unwrap();
        let mut payload = Vec::new();
        let mut places = std::iter::from_fn(|| walk.next(&mut payload).unwrap());
        places.any(|place| matches!(place, Place::Torn { .. }))
    };
    assert!(torn());
    later(|| file.write_all_at(&[0; 60], at), || file.write_all_at(&rest, at), || !torn());
}

#[test]
fn a_segment_that_is_being_made_is_not_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), 1);
    let record = wal.append(ROUND, &mut Bytes(b"first", 1)).unwrap();
    let path = dir.path().join(name(&record));
    let whole = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; whole.len()], 0).unwrap();
    let rejected = || {
        let looked = Inspection::new(dir.path(), None).unwrap();
        matches!(looked.others.first(), Some(other) if matches!(other.what, OtherKind::Rejected(_)))
    };
    assert!(rejected());
    later(|| file.set_len(0), || file.write_all_at(&whole, 0), || !rejected());
}

/// A gauge with an odd label name and the value that marks the end of a series.
struct Ended;

impl Payload for Ended {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        const A: Desc = Desc::gauge("a", "");
        let mut samples = Samples::with_limit(10);
        samples.family(&A).add(&[("x=\"1\",y", r"\n")], f64::from_bits(0x7ff0_0000_0000_0002));
        let items = RoundEncoder::new(Labels::new()).encode(&[&samples], fresh, out);
        Encoded { items, time_ms: 5 }
    }
}

#[test]
fn text_is_not_taken_for_what_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 1).append(ROUND, &mut Ended).unwrap();
    let shown = said(&["show"], dir.path(), 0);
    let line = r#"a{"x=\"1\",y"="\\n"} NaN(0x7ff0000000000002) 5"#;
    assert!(shown.lines().any(|shown| shown == line), "{shown}");
    let shown = objects(&["show"], dir.path(), 0);
    assert_eq!(of_type(&shown, "sample")[0]["value"], "NaN(0x7ff0000000000002)");

    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 2).append(BLOCK, &mut Lines(&["\u{1b}[2J", r"\x1b[2J"])).unwrap();
    let shown = said(&["show"], dir.path(), 0);
    assert!(shown.contains("} \\x1b[2J\n") && shown.contains("} \\\\x1b[2J\n"), "{shown}");
}

#[test]
fn records_that_can_not_be_decoded_do_not_hide_those_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut good = Vec::new();
    Round(&mut RoundEncoder::new(Labels::new()), 5).encode(true, &mut good);
    let mut wal = open(dir.path(), 1);
    let (mut state, mut hostile) = (1u32, 0);
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for kind in [ROUND, BLOCK, 77] {
        for len in 0..good.len() {
            wal.append(kind, &mut Bytes(&good[..len], 1)).unwrap();
            let mut bad = good.clone();
            for _ in 0..3 {
                let (at, byte) = (random() as usize % bad.len(), random() as u8);
                bad[at] = byte;
            }
            wal.append(kind, &mut Bytes(&bad, 1)).unwrap();
            let mut large = good.clone();
            large.truncate(len);
            large.extend_from_slice(&[0xff; 12]);
            wal.append(kind, &mut Bytes(&large, 1)).unwrap();
            hostile += 3;
        }
    }
    drop(wal);
    let last = open(dir.path(), 1)
        .append(ROUND, &mut Round(&mut RoundEncoder::new(Labels::new()), 2_000_077))
        .unwrap();
    let shown = objects(&["show"], dir.path(), 0);
    assert_eq!(of_type(&shown, "record").len(), hostile + 1);
    let undecodable = of_type(&shown, "undecodable").len();
    assert!(undecodable > hostile / 2, "{undecodable} of {hostile}");
    assert_eq!(shown.last().unwrap()["timestamp_ms"], 2_000_077);
    let verified = objects(&["verify"], dir.path(), 1);
    let summary = of_type(&verified, "summary")[0];
    assert_eq!(summary["records"], hostile + 1);
    assert_eq!(summary["damage"], of_type(&verified, "finding").len());
    assert!(of_type(&verified, "finding").len() >= undecodable);
    assert!(of_type(&verified, "finding").iter().all(|found| found["file"] != name(&last)));
}

/// Checks that `good` holds although the file is made whole only while it looks, and that it has waited
/// for that. The machine may be too busy once.
fn later(
    half: impl Fn() -> std::io::Result<()>,
    whole: impl Fn() -> std::io::Result<()> + Sync,
    good: impl Fn() -> bool,
) {
    for _ in 0..20 {
        half().unwrap();
        let began = Instant::now();
        let is_good = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                whole().unwrap();
            });
            good()
        });
        if is_good && began.elapsed() >= Duration::from_millis(100) {
            return;
        }
    }
    panic!("it was looked at once");
}

#[test]
fn a_wal_without_a_segment_is_one_by_every_way_to_it() {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("wal/metrics");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("LOCK"), "").unwrap();
    let before = snapshot(state.path());
    for command in ["ls", "show", "verify"] {
        let below = said(&[command], state.path(), 0);
        assert!(below.contains(": metrics, format version 2, 0 bytes"), "{below}");
        let direct = said(&[command], &dir, 0);
        assert_eq!(direct.replace(": empty,", ": metrics,"), below, "{command}");
    }
    assert_eq!(snapshot(state.path()), before);
}

#[test]
fn a_cursor_is_behind_by_the_records_and_not_by_the_gaps_between_segments() {
    let dir = tempfile::tempdir().unwrap();
    let first = metrics(dir.path(), &[0..2]);
    let mut wal = open(dir.path(), 1);
    let reader = wal.reader("a").unwrap();
    wal.acknowledge(reader, first[0].next, true).unwrap();
    wal.begin_at(1 << 40);
    let last = wal.append(ROUND, &mut Bytes(b"x", 1)).unwrap();
    drop(wal);
    assert!(last.position > 1 << 40);
    let bytes = first[1].next - first[1].position + last.next - last.position;
    let listed = objects(&["ls"], dir.path(), 0);
    let cursor = of_type(&listed, "cursor")[0];
    assert_eq!((&cursor["behind_bytes"], &cursor["unread_records"]), (&bytes.into(), &2.into()));
}
