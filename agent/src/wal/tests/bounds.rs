//! The bounds: bytes, free space, age, and who goes first.

use super::*;

#[test]
fn files_grow_by_blocks_and_closed_ones_end_with_their_records() {
    let temp = Temp::new("blocks");
    let plan = Rc::new(Plan::default());
    let mut wal = open_faulty(&temp.0, &plan);
    let mut sizes = Vec::new();
    for number in 0..100 {
        wal.append(1, &mut Number(number, 1_000)).unwrap();
        wal.sync().unwrap();
        sizes.push(fs::metadata(&temp.segments()[0]).unwrap().len());
    }
    assert!(sizes[..60].iter().all(|size| size.is_multiple_of(4_096)));
    let grown = sizes[..60].windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((14..=16).contains(&grown), "{grown} times in 60 records of 1,033 bytes");
    assert_eq!((sizes[99] - 32) % 1_033, 0, "closed");
    assert_eq!(wal.bytes(), disk_bytes(&temp.0));
    // Synced before: closing it has nothing to wait for.
    let synced = plan.synced.borrow();
    assert_eq!(
        synced.iter().filter(|name| *name == "directory").count(),
        3,
        "opening, two segments"
    );
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
    assert_eq!(wal.stats().evicted_items, 5_000 - got.len() as u64);
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
    assert_eq!(wal.stats().evicted_items, 0);
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
    assert_eq!(wal.stats().evicted_items, 0);
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
fn record_that_is_too_large_is_refused_and_the_log_goes_on() {
    let temp = Temp::new("large");
    let mut wal = open(&temp.0, SMALL);
    let error = wal.append(1, &mut Number(0, 300 << 10)).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    append(&mut wal, 1..2, 10);
    assert_eq!(read_all(&mut wal), [1]);
}

#[test]
fn file_system_that_is_short_of_space_freezes_the_size() {
    let temp = Temp::new("min-free");
    let plan = Rc::new(Plan::default());
    let options = Options { min_free: 1 << 20, ..SMALL };
    let storage = Faulty { disk: Disk::new(&temp.0).unwrap(), plan: Rc::clone(&plan) };
    let mut wal = Wal::open(storage, options, &["a"]).unwrap();
    plan.free.set(Some(2 << 20));
    for number in 0..300 {
        wal.append(1, &mut Number(number, 1_000)).unwrap();
        wal.sync().unwrap();
    }
    let before = wal.bytes();
    plan.free.set(Some(1 << 20));
    for number in 300..600 {
        wal.append(1, &mut Number(number, 1_000)).unwrap();
        wal.sync().unwrap();
        assert!(wal.bytes() <= before);
    }
    let stats = wal.stats();
    assert!(stats.min_free_items > 0 && stats.evicted_items == 0, "{stats:?}");
    let losses = wal.take_losses();
    let last = stats.min_free_items as i64 - 1;
    let reason = LossReason::MinFree;
    assert_eq!(losses, [Loss { reason, items: stats.min_free_items, from_ms: 0, to_ms: last }]);
    plan.free.set(Some(4 << 20));
    for number in 600..900 {
        wal.append(1, &mut Number(number, 1_000)).unwrap();
        wal.sync().unwrap();
    }
    assert!(wal.bytes() > before);
    // A log that may drop nothing refuses, and writes again what readers have freed.
    plan.free.set(Some(0));
    wal.options.on_full = OnFull::Refuse;
    let error = loop {
        match wal.append(1, &mut Number(900, 1_000)) {
            Ok(_) => wal.sync().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::NoSpace { free: 0, .. }), "{error}");
    let reader = wal.reader("a").unwrap();
    wal.acknowledge(reader, wal.end(), true).unwrap();
    wal.append(1, &mut Number(901, 1_000)).unwrap();
}

#[test]
fn data_beyond_its_age_goes_a_segment_at_a_time() {
    let temp = Temp::new("age");
    let mut wal = open(&temp.0, Options { max_age_ms: Some(150), ..SMALL });
    for number in 0..400 {
        append(&mut wal, number..number + 1, 1_000);
        wal.sync().unwrap();
        let kept = read_all(&mut wal);
        // A record a millisecond, and a segment spans an eighth of the bound.
        assert!(kept[0] + 150 + 150 / 8 + 2 >= number, "{} at {number}", kept[0]);
        assert!(number < 150 || kept[0] + 150 <= number + 150 / 8 + 2);
    }
    let stats = wal.stats();
    assert_eq!(stats.expired_items, read_all(&mut wal)[0]);
}

#[test]
fn times_that_nobody_vouches_for_let_nothing_expire_and_give_losses_no_time() {
    let temp = Temp::new("untimed");
    let mut wal = open(&temp.0, Options { max_age_ms: Some(150), ..SMALL });
    // Years ahead, and years ago.
    for time in [1 << 40, 0] {
        for number in 0..40 {
            wal.append(1 | crate::wal::UNTIMED, &mut Number(time + number, 1_000)).unwrap();
        }
        wal.sync().unwrap();
        append(&mut wal, 100_000..100_040, 1_000);
        wal.sync().unwrap();
    }
    assert_eq!((read_all(&mut wal).len(), wal.stats().expired_items), (160, 0));
    // They go with what is behind them.
    for number in 100_200..100_240 {
        append(&mut wal, number..number + 1, 1_000);
        wal.sync().unwrap();
    }
    assert!(wal.stats().expired_items > 120, "{:?}", wal.stats());
    let losses = wal.take_losses();
    assert_eq!((losses[0].from_ms, losses[0].to_ms), (100_000, 100_039), "of the timed");
    assert!(read_all(&mut wal)[0] > 100_000);
}

#[test]
fn what_a_reader_has_in_memory_is_not_lost_with_its_segment() {
    let temp = Temp::new("held");
    let mut wal = open(&temp.0, SMALL);
    let reader = wal.reader("a").unwrap();
    append(&mut wal, 0..100, 1_000);
    wal.sync().unwrap();
    wal.hold(reader, wal.end());
    append(&mut wal, 100..2_000, 1_000);
    wal.sync().unwrap();
    append(&mut wal, 2_000..2_001, 1_000);
    let left = read_all(&mut wal).len() as u64;
    assert_eq!(wal.stats().evicted_items, 2_001 - 100 - left);
    // It is delivered after all, or given up and counted.
    let first = wal.cursor(reader);
    wal.give_up_held();
    assert_eq!(wal.stats().evicted_items, 2_001 - left);
    wal.take_losses();
    wal.hold(reader, wal.end());
    append(&mut wal, 2_001..4_000, 1_000);
    let counted = wal.stats().evicted_items;
    wal.acknowledge(reader, first, true).unwrap();
    wal.acknowledge(reader, wal.end(), true).unwrap();
    wal.give_up_held();
    assert_eq!(wal.stats().evicted_items, counted);
}

/// A log that has dropped what a reader holds, and how many items that are.
fn withholding(temp: &Temp) -> (Wal<Disk>, u64) {
    let mut wal = open(&temp.0, SMALL);
    let reader = wal.reader("a").unwrap();
    append(&mut wal, 0..100, 1_000);
    wal.sync().unwrap();
    wal.hold(reader, wal.end());
    append(&mut wal, 100..2_000, 1_000);
    wal.sync().unwrap();
    append(&mut wal, 2_000..2_001, 1_000);
    let left = read_all(&mut wal).len() as u64;
    let withheld = 2_001 - left - wal.stats().evicted_items;
    assert!(withheld > 0);
    (wal, withheld)
}

fn lost(wal: &mut Wal<Disk>) -> u64 {
    wal.take_losses();
    wal.give_up_held();
    wal.take_losses().iter().map(|loss| loss.items).sum()
}

#[test]
fn what_a_reader_has_in_memory_alone_is_known_to_the_log_that_is_opened_again() {
    for is_delivered in [false, true] {
        let temp = Temp::new(&format!("held-again-{is_delivered}"));
        let (mut wal, withheld) = withholding(&temp);
        wal.break_off();
        let disk = wal.storage().again().unwrap();
        let mut again = Wal::open(disk, SMALL, &["a"]).unwrap();
        again.resume(&wal).unwrap();
        drop(wal);
        if is_delivered {
            let reader = again.reader("a").unwrap();
            again.acknowledge(reader, again.cursor(reader), true).unwrap();
        }
        assert_eq!(lost(&mut again), if is_delivered { 0 } else { withheld });
        assert_eq!(lost(&mut again), 0, "once");
    }
}

#[test]
fn what_a_reader_has_of_a_log_in_memory_alone_is_known_to_the_one_that_takes_it_in() {
    for is_delivered in [false, true] {
        let temp = Temp::new(&format!("held-memory-{is_delivered}"));
        let mut wal = open(&temp.0, SMALL);
        append(&mut wal, 0..1, 1_000);
        wal.sync().unwrap();
        let mut buffer = Wal::open(Memory::default(), SMALL, &["a"]).unwrap();
        buffer.begin_at(wal.end());
        let reader = buffer.reader("a").unwrap();
        let fill = |buffer: &mut Wal<Memory>, numbers: std::ops::Range<u64>| {
            for number in numbers {
                buffer.append(1, &mut Number(number, 1_000)).unwrap();
                buffer.sync().unwrap();
            }
        };
        fill(&mut buffer, 1..101);
        let held = buffer.end();
        buffer.hold(reader, held);
        fill(&mut buffer, 101..2_001);
        let gone = buffer.segments().next().unwrap();
        assert!(held < gone);
        buffer.take_losses();
        wal.adopt(&mut buffer).unwrap();
        if is_delivered {
            wal.acknowledge(reader, held, true).unwrap();
        }
        wal.take_losses();
        wal.give_up_held();
        let losses = wal.take_losses();
        if is_delivered {
            assert_eq!(losses, []);
        } else {
            assert_eq!((losses.len(), losses[0].reason), (1, LossReason::NoDisk), "{losses:?}");
            assert_eq!(losses[0].items, 100);
        }
    }
}

#[test]
fn what_was_given_up_is_held_no_more() {
    let temp = Temp::new("held-no-more");
    let mut wal = open(&temp.0, SMALL);
    append(&mut wal, 0..100, 1_000);
    wal.sync().unwrap();
    wal.hold(ReaderId(0), wal.end());
    wal.give_up_held();
    append(&mut wal, 100..2_000, 1_000);
    let left = read_all(&mut wal).len() as u64;
    assert_eq!(wal.stats().evicted_items, 2_000 - left);
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
    assert_eq!(wal.stats().evicted_items, 3_000 - got.len() as u64);
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
    assert_eq!(wal.stats().evicted_items, 3_000 - 20 - left);
}
