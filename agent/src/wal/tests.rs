//! The log on a real file system, one test for each damage.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::faulty::{Faulty, Plan};
use super::*;

/// A directory that goes when the test ends.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let path = std::env::temp_dir().join(format!("mote-wal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "wal"))
            .collect();
        all.sort();
        all
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A payload of a number and padding, which says whether it was the first of its segment.
struct Number(u64, usize);

impl Payload for Number {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> u32 {
        out.push(u8::from(fresh));
        out.extend_from_slice(&self.0.to_le_bytes());
        out.resize(out.len() + self.1, 0x55);
        1
    }
}

const SMALL: Options =
    Options { max_bytes: Options::MIN_BYTES, on_full: OnFull::DropOldest, content: 1 };

fn open(path: &Path, options: Options) -> Wal<Disk> {
    Wal::open(Disk::new(path).unwrap(), options, &["a"]).unwrap()
}

fn append(wal: &mut Wal<Disk>, numbers: std::ops::Range<u64>, padding: usize) {
    for number in numbers {
        let record = wal.append(1, &mut Number(number, padding)).unwrap();
        assert_eq!(record.items, 1);
        assert!(wal.bytes() <= wal.max_bytes());
    }
}

/// Every number from the reader's cursor on; checks that `fresh` is what the writer was told.
fn read_all(wal: &mut Wal<Disk>) -> Vec<u64> {
    let reader = wal.reader("a").unwrap();
    let (mut at, mut payload, mut all) = (wal.cursor(reader), Vec::new(), Vec::new());
    while let Some(record) = wal.read(reader, at, &mut payload).unwrap() {
        assert_eq!((record.kind, record.items), (1, 1));
        assert!(record.position >= at && record.next > record.position);
        assert_eq!(payload[0] != 0, record.fresh);
        all.push(u64::from_le_bytes(payload[1..9].try_into().unwrap()));
        at = record.next;
    }
    all
}

fn disk_bytes(path: &Path) -> u64 {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

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
fn damage_in_the_middle_costs_the_rest_of_its_segment_and_no_more() {
    let temp = Temp::new("damage");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..200, 1_000);
    drop(wal);
    let path = temp.segments()[1].clone();
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // The second record of the second segment: 32 + (16 + 9 + 1000) + a bit.
    file.write_all_at(&[0xaa], 32 + 1_025 + 500).unwrap();
    let mut wal = open(&temp.0, SMALL);
    let got = read_all(&mut wal);
    assert!(wal.stats().damaged_bytes > 0);
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]));
    let lost: Vec<_> = (0..200).filter(|n| !got.contains(n)).collect();
    let in_segment = (64 << 10) / 1_025;
    assert!(!lost.is_empty() && lost.len() <= in_segment, "{lost:?}");
    // Reading again neither finds more nor counts it again.
    let counted = wal.stats().damaged_bytes;
    assert_eq!(read_all(&mut wal), got);
    assert_eq!(wal.stats().damaged_bytes, counted);
}

#[test]
fn bound_holds_and_drops_the_oldest_counted() {
    let temp = Temp::new("bound");
    let mut wal = open(&temp.0, SMALL);
    for number in 0..5_000 {
        wal.append(1, &mut Number(number, 1_000)).unwrap();
        assert!(wal.bytes() <= SMALL.max_bytes);
        if number % 100 == 0 {
            wal.sync().unwrap();
            assert_eq!(disk_bytes(&temp.0), wal.bytes());
        }
    }
    let got = read_all(&mut wal);
    assert_eq!(got.last(), Some(&4_999));
    assert!(got.windows(2).all(|pair| pair[0] + 1 == pair[1]), "the oldest went, and only they");
    assert_eq!(wal.stats().dropped_items, 5_000 - got.len() as u64);
    assert!(got.len() > 800, "the bound is used: {}", got.len());
}

#[test]
fn refusing_log_is_full_until_a_reader_acknowledges() {
    let temp = Temp::new("refuse");
    let options = Options { on_full: OnFull::Refuse, ..SMALL };
    let mut wal = open(&temp.0, options);
    let mut written = 0;
    let error = loop {
        match wal.append(1, &mut Number(written, 1_000)) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full { .. }), "{error}");
    wal.sync().unwrap();
    assert!(wal.append(1, &mut Number(written, 1_000)).is_err());
    assert_eq!(read_all(&mut wal), (0..written).collect::<Vec<_>>());
    assert_eq!(wal.stats().dropped_items, 0);
    let reader = wal.reader("a").unwrap();
    let half = wal.segments().nth(8).unwrap();
    wal.acknowledge(reader, half, false).unwrap();
    append(&mut wal, written..written + 100, 1_000);
    assert_eq!(*read_all(&mut wal).last().unwrap(), written + 99);
}

#[test]
fn acknowledged_segments_go_and_the_newest_stays() {
    let temp = Temp::new("reclaim");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..300, 1_000);
    wal.sync().unwrap();
    let reader = wal.reader("a").unwrap();
    wal.acknowledge(reader, wal.end(), true).unwrap();
    assert_eq!(temp.segments().len(), 1);
    assert_eq!(read_all(&mut wal), [] as [u64; 0]);
    assert_eq!(wal.stats().dropped_items, 0);
    drop(wal);
    // The next process begins a segment; until that is synced, the one before stays.
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 300..301, 10);
    wal.acknowledge(reader, wal.end(), true).unwrap();
    assert_eq!(temp.segments().len(), 2);
    wal.sync().unwrap();
    append(&mut wal, 301..302, 10);
    assert_eq!(temp.segments().len(), 1);
    assert_eq!(read_all(&mut wal), [301]);
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
    later[8] = 2;
    fs::write(temp.0.join(segment::name(3 << 40)), later).unwrap();
    fs::write(temp.0.join(segment::name(4 << 40)), segment::header(4 << 40, 9)).unwrap();
    fs::write(temp.0.join("notes.txt"), b"mine").unwrap();
    fs::write(temp.0.join("gone.cursor"), b"").unwrap();
    let mut wal = open(&temp.0, SMALL);
    // The one without a byte holds nothing to look at.
    assert_eq!(wal.stats().set_aside, 3);
    assert!(!temp.0.join(segment::name(1 << 40) + ".aside").exists());
    assert_eq!(read_all(&mut wal), [0, 1, 2]);
    assert!(temp.0.join(segment::name(2 << 40) + ".aside").exists());
    assert!(temp.0.join("notes.txt").exists());
    assert!(!temp.0.join("gone.cursor").exists());
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
}

#[test]
fn second_agent_on_one_directory_is_refused() {
    let temp = Temp::new("lock");
    let _first = open(&temp.0, SMALL);
    let error = Wal::open(Disk::new(&temp.0).unwrap(), SMALL, &["a"]).unwrap_err();
    assert!(error.to_string().contains("another agent uses this directory"), "{error}");
}

#[test]
fn record_that_is_too_large_is_refused_and_the_log_goes_on() {
    let temp = Temp::new("large");
    let mut wal = open(&temp.0, SMALL);
    let error = wal.append(1, &mut Number(0, 300 << 10)).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    append(&mut wal, 1..2, 10);
    assert_eq!(read_all(&mut wal), [1]);
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
    // `b` is not configured any more and holds nothing back.
    let wal = Wal::open(Disk::new(&temp.0).unwrap(), SMALL, &["a"]).unwrap();
    assert!(wal.reader("b").is_none() && !temp.0.join("b.cursor").exists());
}

fn open_faulty(path: &Path, plan: &Rc<Plan>) -> Wal<Faulty> {
    let storage = Faulty { disk: Disk::new(path).unwrap(), plan: Rc::clone(plan) };
    Wal::open(storage, SMALL, &["a"]).unwrap()
}

#[test]
fn full_disk_leaves_nothing_behind_however_often_it_is_tried() {
    let temp = Temp::new("enospc");
    append(&mut open(&temp.0, SMALL), 0..3, 100);
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
fn starts_that_came_to_nothing_leave_nothing() {
    let temp = Temp::new("empty");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..3, 100);
    let end = wal.end();
    drop(wal);
    for tail in [&b""[..], &[0; 31], &segment::header(end, 1), &segment::header(end, 1)[..10]] {
        fs::write(temp.0.join(segment::name(end)), tail).unwrap();
        let mut wal = open(&temp.0, SMALL);
        assert_eq!((temp.segments().len(), wal.stats().set_aside), (1, 0), "{}", tail.len());
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
fn newest_segment_is_written_once_more_after_a_failed_sync() {
    let temp = Temp::new("rewrite");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..50, 1_000);
    let job = wal.start_sync().unwrap().unwrap();
    assert!(!wal.lost_sync());
    wal.end_sync(&job, Err(io::ErrorKind::Other.into())).unwrap_err();
    assert!(wal.lost_sync() && wal.is_broken());
    assert!(matches!(wal.append(1, &mut Number(50, 1)), Err(AppendError::Broken)));
    drop((wal, job));
    let before = fs::read(&temp.segments()[0]).unwrap();
    let mut wal = open(&temp.0, SMALL);
    wal.rewrite_newest().unwrap();
    assert_eq!(wal.stats().written_bytes, before.len() as u64);
    assert_eq!(fs::read(&temp.segments()[0]).unwrap(), before);
    assert_eq!(read_all(&mut wal), (0..50).collect::<Vec<_>>());
}

#[test]
fn record_after_damage_in_the_active_segment_stands_alone() {
    let temp = Temp::new("active-damage");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..4, 100);
    let file = fs::OpenOptions::new().write(true).open(&temp.segments()[0]).unwrap();
    file.write_all_at(&[0xaa], 32 + 125 + 60).unwrap();
    assert_eq!(read_all(&mut wal), [0]);
    append(&mut wal, 4..6, 100);
    // `read_all` checks that the first record of the new segment was told so.
    assert_eq!(read_all(&mut wal), [0, 4, 5]);
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
}

#[test]
fn files_set_aside_give_way_first_and_none_replaces_another() {
    let temp = Temp::new("aside");
    let options = Options { on_full: OnFull::Refuse, ..SMALL };
    let place = temp.0.join(segment::name(1 << 40));
    for round in 1..=9 {
        fs::write(&place, vec![round; 100 << 10]).unwrap();
        let wal = open(&temp.0, options);
        assert_eq!(wal.stats().set_aside, 1);
        assert_eq!(wal.bytes(), disk_bytes(&temp.0));
    }
    fs::write(temp.0.join("mine.aside"), [0; 1_000]).unwrap();
    let mut wal = open(&temp.0, options);
    append(&mut wal, 0..800, 1_000);
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
    assert!(temp.0.join("mine.aside").exists(), "no file of the log");
    assert_eq!(read_all(&mut wal), (0..800).collect::<Vec<_>>());
}

#[test]
fn lowered_bound_holds_from_the_start() {
    let temp = Temp::new("lowered");
    let mut wal = open(&temp.0, Options { max_bytes: 4 << 20, ..SMALL });
    append(&mut wal, 0..3_000, 1_000);
    drop(wal);
    let mut wal = open(&temp.0, SMALL);
    assert!(wal.bytes() <= SMALL.max_bytes && wal.bytes() == disk_bytes(&temp.0));
    let got = read_all(&mut wal);
    assert_eq!(wal.stats().dropped_items, 3_000 - got.len() as u64);
}

#[test]
fn closed_segment_is_synced_before_the_next_one_is_in_the_directory() {
    let temp = Temp::new("roll");
    let plan = Rc::new(Plan::default());
    let mut wal = open_faulty(&temp.0, &plan);
    wal.append(1, &mut Number(0, 60 << 10)).unwrap();
    plan.synced.borrow_mut().clear();
    wal.append(1, &mut Number(1, 60 << 10)).unwrap();
    assert_eq!(*plan.synced.borrow(), [segment::name(0), "directory".into()]);
    assert!(!wal.is_synced());
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

#[test]
fn what_a_reader_has_acknowledged_is_not_dropped() {
    let temp = Temp::new("half");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..200, 1_000);
    wal.sync().unwrap();
    let reader = wal.reader("a").unwrap();
    let (mut at, mut payload) = (0, Vec::new());
    for _ in 0..20 {
        at = wal.read(reader, at, &mut payload).unwrap().unwrap().next;
    }
    wal.acknowledge(reader, at, true).unwrap();
    append(&mut wal, 200..3_000, 1_000);
    let left = read_all(&mut wal).len() as u64;
    assert_eq!(wal.stats().dropped_items, 3_000 - 20 - left);
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
