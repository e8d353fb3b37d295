//! `mote wal ls | show | verify` on WALs of a real agent and on damaged ones: what they say, how they
//! exit, and that they change nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
#![allow(clippy::single_range_in_vec_init, reason = "a WAL of one segment")]

mod support;
mod wal_made;
mod wal_unread;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mote::encode::{BLOCK, ROUND, RoundEncoder};
use mote::model::Labels;
use serde_json::Value;
use support::Agent;
use wal_made::{
    Bytes, Lines, Round, flip, metrics, name, objects, of_type, offset, open, said, snapshot, text,
    wal,
};

const LONG: Duration = Duration::from_secs(60);

/// An agent that collects each second, follows a log file and reaches nobody.
fn agent(lines: &str) -> Agent {
    let agent = Agent::new("");
    fs::create_dir(agent.path("logs")).unwrap();
    fs::write(agent.path("logs/a.log"), lines).unwrap();
    agent.configure(&format!(
        "interval = \"1s\"\nshutdown_timeout = \"0s\"\n[[mimir]]\nurl = \"http://127.0.0.1:9/push\"\n\
         [[loki]]\nurl = \"http://127.0.0.1:9/push\"\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
        agent.path("logs").display()
    ));
    agent
}

fn started(lines: &str) -> Agent {
    let mut agent = agent(lines);
    agent.start();
    agent.wait("rounds and lines", LONG, |agent| {
        let wals = &agent.status()["wals"];
        wals[0]["records"].as_u64() >= Some(3) && wals[1]["records"].as_u64() >= Some(1)
    });
    agent
}

#[test]
fn wals_of_a_stopped_agent_are_told_as_they_are_and_not_touched() {
    let mut agent = started("one\ntwo\nthree\n");
    assert!(agent.terminate().0.success());
    let rounds = agent.rounds();
    let state = agent.path("state");
    let before = snapshot(&state);

    let listed = objects(&["ls"], &state, 0);
    let totals = of_type(&listed, "total");
    assert_eq!(totals[0]["records"], rounds.len());
    assert_eq!(totals[0]["items"], rounds.iter().map(|(_, n)| u64::from(*n)).sum::<u64>());
    assert_eq!((&totals[1]["items"], &totals[1]["damaged_bytes"]), (&3.into(), &0.into()));
    let bytes: u64 = of_type(&listed, "wal").iter().map(|w| w["bytes"].as_u64().unwrap()).sum();
    let in_wals = before.iter().filter(|(path, _)| path.starts_with(state.join("wal")));
    assert_eq!(bytes, in_wals.map(|(_, (bytes, _))| bytes.len() as u64).sum::<u64>());
    let contents: Vec<_> = of_type(&listed, "wal").iter().map(|w| w["content"].clone()).collect();
    assert_eq!(contents, ["metrics", "logs"]);
    for (cursor, total) in of_type(&listed, "cursor").iter().zip(&totals) {
        assert_eq!(cursor["unread_records"], total["records"]);
        assert_eq!(cursor["unread_items"], total["items"]);
    }

    let shown = objects(&["show"], &state, 0);
    let samples = of_type(&shown, "sample");
    for (time, items) in &rounds {
        let found = samples.iter().filter(|s| s["timestamp_ms"] == *time).count();
        assert_eq!(found, *items as usize);
    }
    assert_eq!(samples.len(), rounds.iter().map(|(_, n)| *n as usize).sum::<usize>());
    let lines: Vec<_> = of_type(&shown, "entry").iter().map(|e| e["line"].clone()).collect();
    assert_eq!(lines, ["one", "two", "three"]);
    let records = objects(&["show", "--records"], &state, 0);
    assert_eq!(
        of_type(&records, "record").len() as u64,
        rounds.len() as u64 + { totals[1]["records"].as_u64().unwrap() }
    );

    let verified = objects(&["verify"], &state, 0);
    assert_eq!(of_type(&verified, "finding"), Vec::<&Value>::new());
    assert!(of_type(&verified, "summary").iter().all(|s| s["good"] == true));

    // The same by every way to it.
    let said_there = said(&["verify"], &state.join("wal"), 0);
    assert_eq!(said_there, said(&["verify"], &state, 0));
    assert_eq!(said_there.matches("  good: ").count(), 2, "{said_there}");
    let configured = agent.command("wal").arg("verify").output().unwrap();
    assert_eq!(text(&configured.stdout), said_there);
    let one = said(&["show"], &state.join("wal/metrics"), 0);
    assert!(one.lines().any(|line| line.starts_with("node_load1{instance=")), "{one}");
    assert!(said(&["ls"], &state.join("wal/logs"), 0).contains("total: 2 files"));

    assert_eq!(snapshot(&state), before);
}

#[test]
fn wals_in_use_are_told_so_and_the_agent_goes_on() {
    let mut agent = started("one\n");
    let state = agent.path("state");
    for _ in 0..5 {
        assert!(said(&["ls"], &state, 0).contains("in use by a running agent"));
        let verified = objects(&["verify"], &state, 0);
        assert!(of_type(&verified, "summary").iter().all(|s| s["in_use"] == true));
        assert!(said(&["show", "--last", "1h"], &state, 0).contains(" one\n"));
    }
    let before = agent.rounds().len();
    agent.wait("another round", LONG, |agent| agent.rounds().len() > before);
    agent.kill();
    let killed = said(&["verify"], &state, 0);
    assert!(!killed.contains("in use"), "{killed}");
}

#[test]
fn a_flipped_byte_is_found_where_it_is_and_costs_the_rounds_that_build_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..6, 6..8]);
    // In a closed segment's second record's payload.
    flip(&dir.path().join(name(&records[1])), offset(&records[1]) + 30);
    let before = snapshot(dir.path());
    let verified = objects(&["verify"], dir.path(), 1);
    let findings = of_type(&verified, "finding");
    assert_eq!(findings[0]["file"], name(&records[1]));
    assert_eq!(findings[0]["offset"], offset(&records[1]));
    assert_eq!(findings[0]["bytes"], records[1].next - records[1].position);
    assert!(findings.iter().all(|finding| finding["severity"] == "damage"));
    assert_eq!(of_type(&verified, "summary")[0]["good"], false);
    assert_eq!(of_type(&verified, "summary")[0]["records"], 7);

    let plain = said(&["verify"], dir.path(), 1);
    let place = format!("DAMAGE  {} byte {}: ", name(&records[1]), offset(&records[1]));
    assert!(plain.contains(&place), "{plain}");
    let listed = said(&["ls"], dir.path(), 0);
    assert!(listed.contains("DAMAGED: "), "{listed}");
    let shown = said(&["show"], dir.path(), 0);
    assert!(shown.contains(&format!("byte {}: DAMAGED, ", offset(&records[1]))), "{shown}");
    assert!(shown.contains("a damaged record before it is missing"), "{shown}");
    assert!(shown.contains("a{x=\"0\"} 0 0\n"), "{shown}");
    // The next segment needs nothing of this one.
    assert!(shown.contains("a{x=\"7\"} 7 7\n"), "{shown}");
    let shown = objects(&["show"], dir.path(), 0);
    assert_eq!(of_type(&shown, "damage")[0]["items"], records[1].items);
    assert_eq!(of_type(&shown, "record").len(), 7);
    assert_eq!(of_type(&shown, "undecodable").len() + 1, findings.len());
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_damaged_record_header_is_passed_to_the_next_record() {
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..3, 3..4]);
    flip(&dir.path().join(name(&records[0])), offset(&records[0]) + 1);
    let verified = objects(&["verify"], dir.path(), 1);
    let first = of_type(&verified, "finding")[0];
    assert_eq!(
        (&first["offset"], &first["bytes"]),
        (&32.into(), &{ Value::from(records[0].next - records[0].position) })
    );
    let shown = objects(&["show"], dir.path(), 0);
    assert!(of_type(&shown, "damage")[0]["items"].is_null());
    assert_eq!(of_type(&shown, "record").len(), 3);
}

#[test]
fn a_torn_tail_and_zeros_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..4]);
    let path = dir.path().join(name(&records[3]));
    let zeros = fs::metadata(&path).unwrap().len();
    assert!(zeros > records[3].next, "the newest segment ends in zeros");
    assert_eq!(objects(&["verify"], dir.path(), 0).len(), 1);
    for cut in [1, 17, 30] {
        let len = records[3].next - cut - records[3].segment;
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let before = snapshot(dir.path());
        let verified = objects(&["verify"], dir.path(), 0);
        let finding = of_type(&verified, "finding")[0];
        assert_eq!(finding["severity"], "note");
        assert_eq!(finding["offset"], offset(&records[3]));
        let said_so = said(&["verify"], dir.path(), 0);
        assert!(said_so.contains("torn tail, "), "{said_so}");
        assert!(said_so.contains("is cut off at the next start"), "{said_so}");
        let shown = objects(&["show"], dir.path(), 0);
        assert_eq!(of_type(&shown, "torn").len(), 1);
        assert_eq!(of_type(&shown, "record").len(), 3);
        assert!(of_type(&objects(&["ls"], dir.path(), 0), "segment")[0]["torn_bytes"] != 0);
        assert_eq!(snapshot(dir.path()), before);
    }
    // What it said is what a start does.
    drop(open(dir.path(), 1));
    assert_eq!(fs::metadata(&path).unwrap().len(), offset(&records[3]));
}

#[test]
fn what_is_no_wal_is_refused_with_what_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    fs::create_dir(dir.path().join("metrics")).unwrap();
    for command in ["ls", "show", "verify"] {
        let output = wal(&[command], dir.path());
        assert_eq!(output.status.code(), Some(1), "{command}");
        let error = text(&output.stderr);
        assert!(error.contains("there is no WAL in "), "{error}");
        assert!(error.contains("*.wal") && error.contains("wal/metrics"), "{error}");
        for missing in [dir.path().join("missing"), dir.path().join("notes.txt")] {
            let output = wal(&[command], &missing);
            assert_eq!(output.status.code(), Some(1), "{command}");
            assert!(text(&output.stderr).contains(&missing.display().to_string()));
        }
    }
    let agent = Agent::new("");
    let output = agent.command("wal").arg("ls").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/state: "), "{}", text(&output.stderr));
    assert!(!agent.path("state").exists());
}

#[test]
fn bad_usage_exits_with_2_and_says_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    metrics(dir.path(), &[0..1]);
    for (arguments, hint) in [
        (&["lst"][..], "ls, show and verify"),
        (&["ls", "--record"], "--record"),
        (&["ls", "--records"], "goes with mote wal show"),
        (&["verify", "--from", "2026-01-01T00:00:00Z"], "goes with mote wal show"),
        (&["show", "--from", "yesterday"], "RFC 3339"),
        (&["show", "--last", "soon"], "10m"),
        (&["show", "--last", "1h", "--to", "2026-01-01T00:00:00Z"], "--last goes with"),
        (&["show", "here"], "unexpected argument"),
    ] {
        let output = wal(arguments, dir.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(hint), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
    let alone = Command::new(env!("CARGO_BIN_EXE_mote")).arg("wal").output().unwrap();
    assert_eq!(alone.status.code(), Some(2));
    for command in ["ls", "show", "verify"] {
        let help = said(&[command, "--help"], dir.path(), 0);
        assert!(help.contains(&format!("Usage: mote wal {command} [DIR]")), "{help}");
    }
}

#[test]
fn times_choose_records_and_rounds_before_them_are_still_read() {
    let dir = tempfile::tempdir().unwrap();
    metrics(dir.path(), &[60_000..60_020]);
    let times = |arguments: &[&str]| -> Vec<String> {
        let shown = objects(&[&["show"], arguments].concat(), dir.path(), 0);
        assert!(of_type(&shown, "undecodable").is_empty());
        of_type(&shown, "record").iter().map(|r| r["time"].as_str().unwrap()[19..].into()).collect()
    };
    assert_eq!(times(&["--last", "2ms"]), [".017Z", ".018Z", ".019Z"]);
    let (from, to) = ("1970-01-01T02:01:00.005+02:00", "1970-01-01 00:01:00.007Z");
    assert_eq!(times(&["--from", from, "--to", to]), [".005Z", ".006Z", ".007Z"]);
    assert_eq!(times(&["--to", "1970-01-01T00:00:59Z"]), Vec::<String>::new());
    assert_eq!(times(&["--last", "1h"]).len(), 20);
}

#[test]
fn a_hostile_line_is_shown_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = "a\u{1b}[2J\u{1b}]0;title\u{7}\r\u{8}\u{9b}31m\u{202e}\n# fake";
    open(dir.path(), 2).append(BLOCK, &mut Lines(&[hostile, "next"])).unwrap();
    for arguments in [&["show"][..], &["show", "--json"]] {
        let shown = said(arguments, dir.path(), 0);
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(bad), "{shown:?}");
        assert!(!shown.contains("\n# fake"), "{shown}");
    }
    let shown = said(&["show"], dir.path(), 0);
    let line = "1970-01-01T00:00:00.000000000Z {job=\"j\\x9b2J\"}+{\"m\\x1b\"=\"v\"} \
                a\\x1b[2J\\x1b]0;title\\x07\\r\\x08\\x9b31m\\u{202e}\\n# fake\n";
    assert!(shown.contains(line), "{shown}");
    let exact = objects(&["show"], dir.path(), 0);
    assert_eq!(of_type(&exact, "entry")[0]["line"], hostile);
}

#[test]
fn bad_cursors_are_found_and_good_ones_are_counted_from() {
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..4]);
    let cursor = dir.path().join("a.cursor");
    let ack = |to: u64| {
        let mut wal = open(dir.path(), 1);
        let reader = wal.reader("a").unwrap();
        wal.acknowledge(reader, to, true).unwrap();
    };
    ack(records[0].next);
    ack(records[1].next);
    let listed = objects(&["ls"], dir.path(), 0);
    let line = of_type(&listed, "cursor")[0];
    assert_eq!(line["position"], records[1].next);
    assert_eq!(line["behind_bytes"], records[3].next - records[1].next);
    assert_eq!((&line["unread_records"], &line["unread_items"]), (&2.into(), &7.into()));

    // Generation 2 is in the first slot.
    flip(&cursor, 17);
    let verified = objects(&["verify"], dir.path(), 1);
    let finding = of_type(&verified, "finding")[0];
    assert_eq!((&finding["file"], &finding["offset"]), (&"a.cursor".into(), &0.into()));
    assert_eq!(of_type(&objects(&["ls"], dir.path(), 0), "cursor")[0]["position"], records[0].next);
    flip(&cursor, 512 + 3);
    let both = said(&["verify"], dir.path(), 1);
    assert!(both.contains("a.cursor byte 512: a slot is damaged; its reader begins at"), "{both}");
    let listed = said(&["ls"], dir.path(), 0);
    assert!(listed.contains("damaged: begins at the oldest record"), "{listed}");

    for (bytes, code) in [(0, 0), (1_024, 0), (1_030, 0)] {
        fs::write(&cursor, vec![0; bytes]).unwrap();
        said(&["verify"], dir.path(), code);
        assert!(said(&["ls"], dir.path(), 0).contains("nothing acknowledged"), "{bytes}");
    }
    for (bytes, damaged) in [(5, 1), (512, 1), (600, 2)] {
        fs::write(&cursor, vec![9; bytes]).unwrap();
        let verified = objects(&["verify"], dir.path(), 1);
        assert_eq!(of_type(&verified, "finding").len(), damaged, "{bytes}");
    }
    fs::remove_file(&cursor).unwrap();
    ack(records[1].position + 5);
    let inside = said(&["verify"], dir.path(), 1);
    assert!(inside.contains("a.cursor: its position is inside the record at byte "), "{inside}");
}

#[test]
fn a_cursor_outside_of_the_log_is_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..4, 4..6, 6..7]);
    let mut wal = open(dir.path(), 1);
    let reader = wal.reader("a").unwrap();
    wal.acknowledge(reader, records[0].next, true).unwrap();
    drop(wal);
    fs::remove_file(dir.path().join(name(&records[0]))).unwrap();
    let before = said(&["verify"], dir.path(), 0);
    assert!(before.contains("note    a.cursor: it is ") && before.contains("oldest"), "{before}");
    let mut wal = open(dir.path(), 1);
    wal.acknowledge(reader, records[6].next, true).unwrap();
    drop(wal);
    let newest = dir.path().join(name(&records[6]));
    File::options().write(true).open(newest).unwrap().set_len(offset(&records[6])).unwrap();
    let behind = said(&["verify"], dir.path(), 0);
    assert!(behind.contains("behind the end"), "{behind}");
}

#[test]
fn strange_files_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..3, 3..5, 5..6]);
    let file = |n: u64| dir.path().join(format!("{n:016x}.wal"));
    let good = fs::read(dir.path().join(name(&records[0]))).unwrap();
    fs::write(file(1 << 40), b"short").unwrap();
    fs::write(file(2 << 40), b"").unwrap();
    fs::write(file(3 << 40), &good).unwrap();
    fs::write(file(4 << 40), [b"MOTE-WAL\x09\0".as_slice(), &[0; 60]].concat()).unwrap();
    fs::write(file(5 << 40), [7; 99]).unwrap();
    File::create(file(6 << 40)).unwrap().set_len(33 << 20).unwrap();
    fs::write(dir.path().join("0000000000000000.wal.aside"), [7; 40]).unwrap();
    fs::write(dir.path().join("x\u{1b}[2J"), "x").unwrap();
    fs::write(dir.path().join("ABC.wal"), "x").unwrap();
    // Another log's, which begins where the first segment's records are.
    let other = tempfile::tempdir().unwrap();
    let mut log = open(other.path(), 1);
    log.begin_at(records[1].position);
    let overlapping = log.append(ROUND, &mut Bytes(b"x", 1)).unwrap();
    fs::copy(other.path().join(name(&overlapping)), dir.path().join(name(&overlapping))).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();

    let before = snapshot(dir.path());
    let listed = objects(&["ls"], dir.path(), 1);
    let why: Vec<_> =
        of_type(&listed, "rejected").iter().map(|r| r["why"].as_str().unwrap()).collect();
    assert_eq!(
        why,
        [
            "it overlaps the segment before it",
            "it is shorter than a segment's header",
            "it is shorter than a segment's header",
            "its header is damaged or belongs to another log",
            "its format version is not 2",
            "it does not begin as a segment does",
            "it is larger than a segment gets",
        ]
    );
    assert_eq!(of_type(&listed, "aside")[0]["why"], "it does not begin as a segment does");
    assert_eq!(of_type(&listed, "foreign").len(), 2);
    assert_eq!(of_type(&listed, "segment").len(), 3);
    assert_eq!(of_type(&listed, "total")[0]["records"], 6);
    let verified = objects(&["verify"], dir.path(), 1);
    let damage = of_type(&verified, "finding").iter().filter(|f| f["severity"] == "damage").count();
    assert_eq!(damage, 7, "those that a start sets aside, and no other");
    for command in ["ls", "verify"] {
        assert!(!text(&wal(&[command], dir.path()).stdout).contains('\u{1b}'), "{command}");
    }
    let shown = objects(&["show"], dir.path(), 1);
    assert_eq!((of_type(&shown, "record").len(), of_type(&shown, "unreadable").len()), (6, 7));
    for command in ["ls", "show"] {
        let error = text(&wal(&[command], dir.path()).stderr);
        assert!(error.contains("7 files can't be read"), "{error}");
    }
    assert_eq!(snapshot(dir.path()), before);

    // A start sees it the same way.
    let wal = open(dir.path(), 1);
    assert_eq!(wal.stats().set_aside, 7);
}

#[test]
fn records_that_say_nothing_right_are_found_although_their_checksums_are_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 1);
    let mut encoder = RoundEncoder::new(Labels::new());
    let later = log.append(ROUND, &mut Round(&mut encoder, 2_000)).unwrap();
    log.append(ROUND, &mut Round(&mut encoder, 1_999)).unwrap();
    log.append(BLOCK, &mut Lines(&["x"])).unwrap();
    log.append(9, &mut Bytes(b"x", 1)).unwrap();
    log.append(ROUND, &mut Bytes(b"\xffx", 1)).unwrap();
    log.append(BLOCK, &mut Bytes(b"\xffx", 1)).unwrap();
    drop(log);
    assert!(later.fresh);
    let verified = objects(&["verify"], dir.path(), 1);
    let found: Vec<_> =
        of_type(&verified, "finding").iter().map(|f| f["what"].as_str().unwrap()).collect();
    for part in [
        "the clock was set back by 0.001 s",
        "a block in a WAL of another content",
        "its kind is unknown: kind-9",
        "a record of 1 item can't be decoded: version",
    ] {
        assert!(found.iter().any(|what| what.contains(part)), "{part}: {found:?}");
    }
    assert!(found.len() >= 5, "{found:?}");
    said(&["show"], dir.path(), 0);
}

#[test]
fn files_that_can_only_be_read_are_read() {
    let dir = tempfile::tempdir().unwrap();
    metrics(dir.path(), &[0..3]);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let before = snapshot(dir.path());
    for command in ["ls", "show", "verify"] {
        said(&[command], dir.path(), 0);
    }
    assert_eq!(snapshot(dir.path()), before);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A logs WAL of this many bytes, of lines that don't compress well.
fn large(dir: &Path, bytes: u64) {
    let mut log = open(dir, 2);
    let mut state = 1u64;
    while log.bytes() < bytes {
        let mut line = || -> String {
            (0..4_000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    char::from(33 + (state >> 40) as u8 % 94)
                })
                .collect()
        };
        let lines = [line(), line(), line(), line(), line(), line(), line(), line()];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        log.append(BLOCK, &mut Lines(&lines)).unwrap();
    }
}

fn resident_peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn a_large_wal_is_read_in_little_memory_and_a_reader_may_leave_early() {
    let dir = tempfile::tempdir().unwrap();
    large(dir.path(), 31 << 20);
    for arguments in [&["show"][..], &["show", "--json"], &["verify"], &["ls"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mote"))
            .arg("wal")
            .args(arguments)
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut out, mut peak, mut total) = (child.stdout.take().unwrap(), 0, 0);
        let mut buffer = vec![0; 64 << 10];
        loop {
            peak = resident_peak(child.id()).unwrap_or(0).max(peak);
            let read = out.read(&mut buffer).unwrap();
            total += read;
            if read == 0 {
                break;
            }
        }
        assert!(child.wait().unwrap().success());
        println!("mote wal {}: {peak} KiB at most", arguments.join(" "));
        assert!((1..24 << 10).contains(&peak), "{arguments:?}: {peak} KiB");
        assert!(arguments[0] != "show" || total > 24 << 20, "{arguments:?}: {total} bytes");
    }
    for arguments in [&["show"][..], &["show", "--records"], &["show", "--json"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mote"))
            .arg("wal")
            .args(arguments)
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert!(child.wait().unwrap().success(), "{error}");
        assert_eq!(error, "");
    }
}

#[test]
fn damage_is_the_exit_code_although_nobody_reads_the_findings() {
    let dir = tempfile::tempdir().unwrap();
    let records = metrics(dir.path(), &[0..3, 3..4]);
    flip(&dir.path().join(name(&records[0])), 40);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mote"))
        .args(["wal", "verify"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
