//! Order, cursors, readers and the lock.

use super::*;

#[test]
fn records_come_back_in_order_over_segments_and_restarts() {
    let temp = Temp::new("order");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..200, 1_000);
    wal.sync().unwrap();
    assert!(wal.is_synced());
    assert!(temp.segments().len() > 2);
    assert_eq!(read_all(&mut wal), (0..200).collect::<Vec<_>>());
    drop(wal);
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 200..210, 1_000);
    assert_eq!(read_all(&mut wal), (0..210).collect::<Vec<_>>());
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
}

#[test]
fn only_an_acknowledgement_moves_the_cursor_and_it_survives() {
    let temp = Temp::new("cursor");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..10, 10);
    let reader = wal.reader("a").unwrap();
    let mut payload = Vec::new();
    let first = wal.read(reader, 0, &mut payload).unwrap().unwrap();
    let second = wal.read(reader, first.next, &mut payload).unwrap().unwrap();
    drop(wal);
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(read_all(&mut wal).len(), 10);
    wal.acknowledge(reader, second.next, true).unwrap();
    // An older acknowledgement changes nothing.
    wal.acknowledge(reader, first.next, true).unwrap();
    drop(wal);
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(wal.cursor(reader), second.next);
    assert_eq!(read_all(&mut wal), (2..10).collect::<Vec<_>>());
}

#[test]
fn second_agent_on_one_directory_is_refused() {
    let temp = Temp::new("lock");
    let _first = open(&temp.0, SMALL);
    let error = Wal::open(Disk::new(&temp.0).unwrap(), SMALL, &["a"]).unwrap_err();
    assert!(error.to_string().contains("another agent uses this directory"), "{error}");
}

#[test]
fn two_readers_hold_data_back_for_each_other() {
    let temp = Temp::new("readers");
    let mut wal = Wal::open(Disk::new(&temp.0).unwrap(), SMALL, &["a", "b"]).unwrap();
    append(&mut wal, 0..300, 1_000);
    wal.sync().unwrap();
    let (a, b) = (wal.reader("a").unwrap(), wal.reader("b").unwrap());
    let segments = temp.segments().len();
    wal.acknowledge(a, wal.end(), false).unwrap();
    assert_eq!(temp.segments().len(), segments);
    wal.acknowledge(b, wal.end(), false).unwrap();
    assert_eq!(temp.segments().len(), 1);
    drop(wal);
    assert!(Wal::open(Disk::new(&temp.0).unwrap(), SMALL, &["a"]).unwrap().reader("b").is_none());
}

#[test]
fn reader_that_comes_back_goes_on_where_it_was() {
    let temp = Temp::new("retired");
    let mut wal = Wal::open(Disk::new(&temp.0).unwrap(), SMALL, &["a", "b"]).unwrap();
    append(&mut wal, 0..10, 10);
    wal.sync().unwrap();
    let b = wal.reader("b").unwrap();
    let (mut at, mut payload) = (0, Vec::new());
    for _ in 0..4 {
        at = wal.read(b, at, &mut payload).unwrap().unwrap().next;
    }
    wal.acknowledge(b, at, true).unwrap();
    drop(wal);
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
    append(&mut wal, 10..200, 1_000);
    wal.sync().unwrap();
    drop(wal);
    let wal = Wal::open(Disk::new(&temp.0).unwrap(), SMALL, &["a", "b"]).unwrap();
    assert_eq!(wal.cursor(b), at);
    drop(wal);
    // It holds nothing back, and what it says goes when the log has passed it.
    let mut wal = open(&temp.0, SMALL);
    let a = wal.reader("a").unwrap();
    wal.acknowledge(a, wal.end(), true).unwrap();
    assert_eq!(temp.segments().len(), 1);
    drop(wal);
    drop(open(&temp.0, SMALL));
    assert!(!temp.0.join("b.cursor").exists());
}

#[test]
fn newest_acknowledgement_counts_after_every_number_of_them() {
    let temp = Temp::new("slots");
    append(&mut open(&temp.0, SMALL), 0..6, 10);
    for acknowledged in 1..=6 {
        let mut wal = open(&temp.0, SMALL);
        let reader = wal.reader("a").unwrap();
        let record = wal.read(reader, wal.cursor(reader), &mut Vec::new()).unwrap().unwrap();
        wal.acknowledge(reader, record.next, true).unwrap();
        drop(wal);
        let want: Vec<_> = (acknowledged..6).collect();
        assert_eq!(read_all(&mut open(&temp.0, SMALL)), want);
    }
}
