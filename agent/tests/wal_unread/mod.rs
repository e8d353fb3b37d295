//! `mote wal` where there is nothing yet, where files can't be read, and where they are being written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs;

use super::wal_made::{metrics, objects, of_type, open, said, snapshot};

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
    let last = wal.append(mote::encode::ROUND, &mut super::Bytes(b"x", 1)).unwrap();
    drop(wal);
    assert!(last.position > 1 << 40);
    let bytes = first[1].next - first[1].position + last.next - last.position;
    let listed = objects(&["ls"], dir.path(), 0);
    let cursor = of_type(&listed, "cursor")[0];
    assert_eq!((&cursor["behind_bytes"], &cursor["unread_records"]), (&bytes.into(), &2.into()));
}
