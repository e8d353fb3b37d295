//! A disk that fails, and what is kept meanwhile.

use super::*;

#[test]
fn full_disk_leaves_nothing_behind_however_often_it_is_tried() {
    let temp = Temp::new("enospc");
    append(&mut open(&temp.0, SMALL), 0..3, 100);
    drop(open(&temp.0, SMALL));
    let before = disk_bytes(&temp.0);
    let plan = Rc::new(Plan::default());
    // Nothing fits; a header fits.
    for largest in [0, SEGMENT_HEADER] {
        plan.largest_write.set(Some(largest));
        for _ in 0..20 {
            let mut wal = open_faulty(&temp.0, &plan);
            let error = wal.append(1, &mut Number(3, 100)).unwrap_err();
            assert!(matches!(error, AppendError::Failed(_)), "{error}");
            assert!(wal.is_broken());
            assert_eq!((wal.stats().set_aside, wal.stats().torn_bytes), (0, 0));
        }
        assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 3, "segment, cursor, lock");
        assert_eq!(disk_bytes(&temp.0), before);
    }
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 3..4, 100);
    assert_eq!(read_all(&mut wal), [0, 1, 2, 3]);
}

#[test]
fn unsynced_bytes_are_written_again_after_a_failed_sync() {
    let temp = Temp::new("rewrite");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..50, 1_000);
    wal.sync().unwrap();
    append(&mut wal, 50..52, 1_000);
    let reader = wal.reader("a").unwrap();
    let first = wal.read(reader, 0, &mut Vec::new()).unwrap().unwrap();
    let job = wal.start_sync().unwrap().unwrap();
    wal.end_sync(&job, Err(io::ErrorKind::Other.into())).unwrap_err();
    assert!(wal.is_broken());
    assert!(matches!(wal.append(1, &mut Number(52, 1)), Err(AppendError::Broken)));
    // The kernel drops what it could not write.
    let path = temp.segments()[0].clone();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(32 + 50 * record_bytes(1_000)).unwrap();
    let all: Vec<_> = (0..52).collect();
    assert_eq!(read_all(&mut wal), all);
    wal.acknowledge(reader, first.next, true).unwrap();
    let mut again = Wal::open(wal.storage().again().unwrap(), SMALL, &["a"]).unwrap();
    again.resume(&wal).unwrap();
    drop((wal, job));
    assert_eq!(again.cursor(reader), first.next);
    append(&mut again, 52..53, 10);
    assert_eq!(read_all(&mut again), (1..53).collect::<Vec<_>>());
    drop(again);
    assert_eq!(read_all(&mut open(&temp.0, SMALL)), (1..53).collect::<Vec<_>>());
}

#[test]
fn log_in_memory_goes_on_where_the_disk_ended_and_is_moved_to_it() {
    let temp = Temp::new("adopt");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..10, 1_000);
    wal.sync().unwrap();
    let options = Options { segment_bytes: 8 << 10, ..SMALL.with_max_bytes(256 << 10) };
    let mut buffer = Wal::open(Memory::default(), options, &["a"]).unwrap();
    buffer.begin_at(wal.end());
    for number in 10..60 {
        buffer.append(1, &mut Number(number, 1_000)).unwrap();
        buffer.sync().unwrap();
    }
    let reader = wal.reader("a").unwrap();
    assert!(buffer.bytes() < 60 << 10);
    wal.adopt(&mut buffer).unwrap();
    assert_eq!(buffer.segments().count(), 0);
    append(&mut wal, 60..70, 1_000);
    assert_eq!(read_all(&mut wal), (0..70).collect::<Vec<_>>());
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
    assert_eq!(wal.cursor(reader), 0);
    drop(wal);
    assert_eq!(read_all(&mut open(&temp.0, SMALL)), (0..70).collect::<Vec<_>>());
}

#[test]
fn closed_segment_is_synced_before_the_next_one_is_in_the_directory() {
    let temp = Temp::new("roll");
    let plan = Rc::new(Plan::default());
    let mut wal = open_faulty(&temp.0, &plan);
    wal.append(1, &mut Number(0, 60 << 10)).unwrap();
    plan.synced.borrow_mut().clear();
    wal.append(1, &mut Number(1, 60 << 10)).unwrap();
    assert_eq!(*plan.synced.borrow(), ["directory".into(), segment::name(0)]);
    assert!(!wal.is_synced());
}
