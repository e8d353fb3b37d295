//! What recovery and readers make of damage.

use super::*;

#[test]
fn a_cursor_file_that_somebody_made_longer_is_cut_to_what_the_bound_counts() {
    let temp = Temp::new("long-cursor");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..3, 10);
    let reader = wal.reader("a").unwrap();
    let first = wal.read(reader, 0, &mut Vec::new()).unwrap().unwrap();
    wal.acknowledge(reader, first.next, true).unwrap();
    drop(wal);
    let cursor = temp.0.join("a.cursor");
    let file = fs::OpenOptions::new().write(true).open(&cursor).unwrap();
    file.write_all_at(&[7; 9_000], 1_024).unwrap();
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(fs::metadata(&cursor).unwrap().len(), 1_024);
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
    assert_eq!(read_all(&mut wal), [1, 2]);
}

#[test]
fn torn_cursor_write_costs_one_step_and_a_lost_cursor_file_no_data() {
    let temp = Temp::new("torn-cursor");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..4, 10);
    let reader = wal.reader("a").unwrap();
    let mut payload = Vec::new();
    let mut positions = vec![];
    let mut at = 0;
    while let Some(record) = wal.read(reader, at, &mut payload).unwrap() {
        at = record.next;
        positions.push(at);
    }
    wal.acknowledge(reader, positions[0], true).unwrap();
    wal.acknowledge(reader, positions[1], true).unwrap();
    drop(wal);
    // Generation 2 is in slot 0.
    let file = fs::OpenOptions::new().write(true).open(temp.0.join("a.cursor")).unwrap();
    file.write_all_at(&[0xee; 20], 8).unwrap();
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(wal.cursor(reader), positions[0]);
    drop(read_all(&mut wal));
    drop(wal);
    fs::remove_file(temp.0.join("a.cursor")).unwrap();
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(read_all(&mut wal), [0, 1, 2, 3]);
}

#[test]
fn torn_tail_is_cut_at_every_length() {
    let temp = Temp::new("torn-tail");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..3, 20);
    let before = fs::metadata(&temp.segments()[0]).unwrap().len();
    append(&mut wal, 3..4, 20);
    drop(wal);
    let path = temp.segments()[0].clone();
    let whole = fs::read(&path).unwrap();
    for len in before..whole.len() as u64 {
        fs::write(&path, &whole[..len as usize]).unwrap();
        let mut wal = open(&temp.0, SMALL);
        assert_eq!(wal.stats().torn_bytes, len - before);
        assert_eq!(read_all(&mut wal), [0, 1, 2], "cut at {len}");
        assert_eq!(fs::metadata(&path).unwrap().len(), before);
        append(&mut wal, 9..10, 20);
        assert_eq!(read_all(&mut wal), [0, 1, 2, 9]);
        drop(wal);
        for extra in &temp.segments()[1..] {
            fs::remove_file(extra).unwrap();
        }
        let _ = fs::remove_file(temp.0.join("a.cursor"));
    }
}

#[test]
fn damage_in_the_middle_costs_the_record_alone_wherever_it_hits() {
    let temp = Temp::new("damage");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..200, 1_000);
    wal.sync().unwrap();
    drop(wal);
    let path = temp.segments()[1].clone();
    let whole = fs::read(&path).unwrap();
    let first = read_all(&mut open(&temp.0, SMALL)).len();
    assert_eq!(first, 200);
    let in_segment = (64 << 10) / record_bytes(1_000);
    // In the second record of the second segment: its length, time, kind, checks, payload.
    for at in [0, 2, 9, 16, 17, 18, 21, 24, 500, 1_032] {
        let mut bad = whole.clone();
        bad[(32 + record_bytes(1_000) + at) as usize] ^= 0x55;
        fs::write(&path, &bad).unwrap();
        let mut wal = open(&temp.0, SMALL);
        let got = read_all(&mut wal);
        let lost: Vec<_> = (0..200).filter(|n| !got.contains(n)).collect();
        assert_eq!(lost, [in_segment + 1], "at {at}");
        let stats = wal.stats();
        assert_eq!(stats.damaged_bytes, record_bytes(1_000), "at {at}");
        assert_eq!(stats.damaged_items, u64::from(at > 19), "a good header tells how many");
        // Reading again neither finds more nor counts it again.
        assert_eq!(read_all(&mut wal), got);
        assert_eq!(wal.stats(), stats);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn payload_that_looks_like_a_record_is_none() {
    let temp = Temp::new("fake");
    let mut wal = open(&temp.0, SMALL);
    for number in 0..4 {
        append(&mut wal, number..number + 1, 100);
        wal.sync().unwrap();
    }
    drop(wal);
    let path = temp.segments()[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    // The third record's bytes in the second one's payload, whose header is damaged.
    let (second, third) = (32 + 133, 32 + 2 * 133);
    bytes.copy_within(third..third + 60, second + 30);
    bytes[second] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(read_all(&mut open(&temp.0, SMALL)), [0, 2, 3]);
}

#[test]
fn unsynced_records_behind_a_hole_are_cut_off_with_it_and_synced_ones_are_not() {
    for (synced, want) in [(false, vec![0, 1]), (true, vec![0, 1, 3, 4])] {
        let temp = Temp::new("hole");
        let mut wal = open(&temp.0, SMALL);
        append(&mut wal, 0..2, 100);
        wal.sync().unwrap();
        append(&mut wal, 2..4, 100);
        if synced {
            wal.sync().unwrap();
        }
        append(&mut wal, 4..5, 100);
        drop(wal);
        // A power cut may write a later block and not an earlier one.
        let file = fs::OpenOptions::new().write(true).open(&temp.segments()[0]).unwrap();
        file.write_all_at(&[0; 133], 32 + 2 * 133).unwrap();
        assert_eq!(read_all(&mut open(&temp.0, SMALL)), want);
    }
}

#[test]
fn cursor_beyond_the_end_after_a_power_cut_skips_nothing_new() {
    let temp = Temp::new("beyond");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..10, 100);
    let reader = wal.reader("a").unwrap();
    wal.acknowledge(reader, wal.end(), true).unwrap();
    drop(wal);
    // The power cut took the unsynced records, and left the cursor that was synced.
    let path = temp.segments()[0].clone();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(300).unwrap();
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 10..12, 100);
    assert_eq!(read_all(&mut wal), [10, 11]);
}

#[test]
fn foreign_files_are_set_aside_and_never_stop_the_start() {
    let temp = Temp::new("foreign");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..3, 10);
    drop(wal);
    fs::write(temp.0.join(segment::name(1 << 40)), b"").unwrap();
    fs::write(temp.0.join(segment::name(2 << 40)), [7; 100]).unwrap();
    let mut later = segment::header(3 << 40, 1);
    later[8] = 3;
    fs::write(temp.0.join(segment::name(3 << 40)), later).unwrap();
    fs::write(temp.0.join(segment::name(4 << 40)), segment::header(4 << 40, 9)).unwrap();
    fs::write(temp.0.join("notes.txt"), b"mine").unwrap();
    fs::write(temp.0.join("gone.cursor"), b"").unwrap();
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(wal.stats().set_aside, 4);
    assert!(temp.0.join(segment::name(1 << 40) + ".aside").exists());
    assert_eq!(read_all(&mut wal), [0, 1, 2]);
    assert!(temp.0.join(segment::name(2 << 40) + ".aside").exists());
    assert!(temp.0.join("notes.txt").exists());
    assert!(!temp.0.join("gone.cursor").exists());
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
}

#[test]
fn starts_that_came_to_nothing_leave_nothing() {
    let temp = Temp::new("empty");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..3, 100);
    let end = wal.end();
    drop(wal);
    for tail in [&b""[..], &[0; 31], &segment::header(end, 1), &segment::header(end, 1)[..10]] {
        fs::write(temp.0.join(segment::name(end)), tail).unwrap();
        let mut wal = open(&temp.0, SMALL);
        let aside = u64::from(tail.len() < SEGMENT_HEADER);
        assert_eq!((temp.segments().len(), wal.stats().set_aside), (1, aside), "{}", tail.len());
        assert_eq!(read_all(&mut wal), [0, 1, 2]);
    }
}

#[test]
fn what_a_killed_process_left_to_the_kernel_is_synced_before_anything_refers_to_it() {
    let temp = Temp::new("unsynced");
    append(&mut open(&temp.0, SMALL), 0..3, 100);
    let plan = Rc::new(Plan::default());
    let wal = open_faulty(&temp.0, &plan);
    assert!(plan.synced.borrow().contains(&segment::name(0)), "{:?}", plan.synced);
    assert!(wal.is_synced());
}

#[test]
fn log_that_is_only_read_changes_nothing() {
    let temp = Temp::new("look");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..3, 100);
    let reader = wal.reader("a").unwrap();
    let first = wal.read(reader, 0, &mut Vec::new()).unwrap().unwrap();
    wal.acknowledge(reader, first.next, true).unwrap();
    let before: Vec<_> = temp.segments().iter().map(|path| fs::read(path).unwrap()).collect();
    fs::write(temp.0.join(segment::name(1 << 40)), [7; 100]).unwrap();
    // Also beside the agent that has it.
    let disk = Disk::look(&temp.0).unwrap();
    assert!(disk.is_taken());
    let mut look = Wal::open_to_read(disk, SMALL, &["a"]).unwrap();
    assert_eq!(read_all(&mut look), [1, 2]);
    assert!(matches!(look.append(1, &mut Number(3, 1)), Err(AppendError::Broken)));
    look.acknowledge(reader, look.end(), true).unwrap();
    assert_eq!(read_all(&mut look), [] as [u64; 0]);
    assert_eq!(read_all(&mut wal), [1, 2]);
    assert_eq!(fs::read(&temp.segments()[0]).unwrap(), before[0]);
    assert!(temp.0.join(segment::name(1 << 40)).exists());
    drop(wal);
    assert!(!Disk::look(&temp.0).unwrap().is_taken());
    assert!(Disk::look(&temp.0.join("none")).is_err());
}

#[test]
fn segment_that_was_not_cut_when_it_was_closed_does_not_hide_the_next() {
    let temp = Temp::new("padded");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..100, 1_000);
    wal.sync().unwrap();
    drop(wal);
    let first = temp.segments()[0].clone();
    let len = fs::metadata(&first).unwrap().len();
    fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(len + 3_000).unwrap();
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(read_all(&mut wal), (0..100).collect::<Vec<_>>());
    assert_eq!((wal.stats().set_aside, wal.stats().damaged_bytes), (0, 0));
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
}

#[test]
fn record_after_damage_in_the_active_segment_stands_alone() {
    let temp = Temp::new("active-damage");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..4, 100);
    let file = fs::OpenOptions::new().write(true).open(&temp.segments()[0]).unwrap();
    file.write_all_at(&[0xaa], 32 + 125 + 60).unwrap();
    assert_eq!(read_all(&mut wal), [0, 2, 3]);
    append(&mut wal, 4..6, 100);
    assert_eq!(temp.segments().len(), 2);
    // `read_all` checks that the first record of the new segment was told so.
    assert_eq!(read_all(&mut wal), [0, 2, 3, 4, 5]);
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
}

#[test]
fn segment_that_overlaps_another_is_set_aside() {
    let temp = Temp::new("overlap");
    append(&mut open(&temp.0, SMALL), 0..3, 100);
    let mut foreign = segment::header(64, 1).to_vec();
    foreign.resize(2_000, 7);
    fs::write(temp.0.join(segment::name(64)), foreign).unwrap();
    let mut wal = open(&temp.0, SMALL);
    assert_eq!(wal.stats().set_aside, 1);
    append(&mut wal, 3..4, 100);
    assert_eq!(read_all(&mut wal), [0, 1, 2, 3]);
}
