//! Each operation of a run fails in turn, of a full, a broken and a read-only disk, once or for a while,
//! with nothing or a part of a write done: no record that was taken is lost, none that was refused
//! appears, and the log works again when the disk does.

use super::power_cut::Dice;
use super::sim::{Fault, Plan};
use super::trial::{SEGMENT, Scene, Trial, options};
use super::{OnFull, segment};

/// Plays some segments with everything that a log does; failures are the disk's affair.
fn play(trial: &mut Trial, steps: u64) {
    let mut dice = Dice(9);
    for step in 1..=steps {
        // The bound leaves room for three segments, so the oldest are dropped or nothing is taken.
        drop(trial.append(dice.roll(SEGMENT / 3) as usize));
        match step % 5 {
            0 | 2 => drop(trial.sync()),
            1 => trial.start_sync(),
            3 => {
                trial.run_sync();
                drop(trial.append(50));
                drop(trial.end_sync());
            }
            _ => {}
        }
        let last = trial.book.records.len();
        if step % 3 == 0 && last > 2 {
            trial.acknowledge(0, last - 2, step % 2 == 0);
        }
        if step % 7 == 0 && last > 9 {
            trial.acknowledge(1, last - 9, true);
        }
        if step == steps / 2 {
            trial.run_sync();
            drop(trial.end_sync());
            drop(trial.reopen(2));
        }
    }
}

fn fail_each_operation(on_full: OnFull) {
    let started = std::time::Instant::now();
    let steps = 36;
    let mut whole = Trial::new(options(3, on_full));
    let first = whole.disk.operations();
    play(&mut whole, steps);
    whole.check();
    let operations = whole.disk.operations();
    let mut runs = 0;
    for from in first..operations {
        for fault in [Fault::NoSpace, Fault::Io, Fault::ReadOnly, Fault::Sync] {
            for count in [1, 2, 9] {
                let plan = Plan { fault, from, count, part: (from % 3) as u8 };
                let _scene = Scene(plan);
                let mut trial = Trial::new(options(3, on_full));
                trial.disk.plan(Some(plan));
                play(&mut trial, steps);
                trial.disk.plan(None);
                drop(trial.end_sync());
                trial.check();
                let taken = trial.append(10).expect("the log is open again");
                assert!(taken.is_ok() || on_full == OnFull::Refuse, "{taken:?}");
                trial.sync().unwrap();
                // A file that could neither be written nor removed may be set aside, with a part of a header.
                let foreign = |(name, content): (&String, &std::rc::Rc<Vec<u8>>)| {
                    name.ends_with(".aside") && content.len() >= segment::HEADER
                };
                let leftover = trial.disk.files().iter().any(foreign);
                assert!(!leftover, "a failure has left something foreign");
                // And all of it is on the disk, whatever a failed sync has lost before.
                let moment = trial.disk.moment();
                let (files, marks) = (moment.files(&moment.nothing()), trial.book.marks);
                Trial::power_on(files, trial.options, 2, &marks, &trial.book, false);
                runs += 1;
            }
        }
    }
    println!("{on_full:?}: {operations} operations, {runs} faults, {:?}", started.elapsed());
    assert!(runs > 1_000, "{runs}");
}

#[test]
fn each_operation_fails_while_the_oldest_is_dropped() {
    fail_each_operation(OnFull::DropOldest);
}

#[test]
fn each_operation_fails_of_a_refusing_log() {
    fail_each_operation(OnFull::Refuse);
}

#[test]
fn full_disk_leaves_nothing_behind_however_often_it_is_tried() {
    let mut trial = Trial::new(options(3, OnFull::DropOldest));
    for len in [100, 200] {
        trial.append(len).unwrap().unwrap();
    }
    trial.reopen(2).unwrap();
    let (before, bytes) = (trial.disk.files(), trial.disk.bytes());
    for part in [0, 1, 2] {
        for _ in 0..20 {
            let from = trial.disk.operations();
            trial.disk.plan(Some(Plan { fault: Fault::NoSpace, from, count: 1_000, part }));
            trial.append(100).unwrap().unwrap_err();
            assert!(trial.disk.files().keys().eq(before.keys()));
            assert_eq!(trial.disk.bytes(), bytes);
        }
    }
    trial.disk.plan(None);
    trial.append(100).unwrap().unwrap();
    trial.check();
}

#[test]
fn closed_segment_is_synced_before_the_next_one_is_in_the_directory() {
    let mut trial = Trial::new(options(3, OnFull::DropOldest));
    // Two of them are more than a segment, and one is no more than a record may be.
    let len = SEGMENT as usize * 2 / 3;
    trial.append(len).unwrap().unwrap();
    trial.disk.take_synced();
    trial.append(len).unwrap().unwrap();
    assert_eq!(trial.disk.take_synced(), ["directory".to_owned(), segment::name(0)]);
}

#[test]
fn what_a_killed_process_left_to_the_kernel_is_synced_before_anything_refers_to_it() {
    let mut trial = Trial::new(options(3, OnFull::DropOldest));
    trial.append(100).unwrap().unwrap();
    trial.disk.take_synced();
    trial.reopen(2).unwrap();
    let synced = trial.disk.take_synced();
    assert!(synced.contains(&segment::name(0)), "{synced:?}");
}

/// The power goes, and nothing unsynced survives.
fn cut(trial: &Trial) {
    let moment = trial.disk.moment();
    let (files, marks) = (moment.files(&moment.nothing()), trial.book.marks);
    Trial::power_on(files, trial.options, trial.configured, &marks, &trial.book, false);
}

#[test]
fn sync_that_failed_on_its_thread_is_not_taken_for_good_by_a_roll_before_its_end() {
    let mut trial = Trial::new(options(3, OnFull::DropOldest));
    trial.append(100).unwrap().unwrap();
    trial.start_sync();
    let from = trial.disk.operations();
    trial.disk.plan(Some(Plan { fault: Fault::Sync, from, count: 1, part: 0 }));
    trial.run_sync();
    for _ in 0..2 {
        // The second one needs a new segment.
        drop(trial.append(SEGMENT as usize * 2 / 3));
        cut(&trial);
    }
    drop(trial.end_sync());
    drop(trial.append(100));
    cut(&trial);
}

#[test]
fn new_reader_of_a_full_log_does_not_take_it_over_the_bound() {
    for on_full in [OnFull::DropOldest, OnFull::Refuse] {
        let mut trial = Trial::new(options(3, on_full));
        trial.reopen(1).unwrap();
        for _ in 0..400 {
            drop(trial.append(700));
        }
        // The disk panics over the bound.
        trial.reopen(2).unwrap();
        trial.check();
    }
}

#[test]
fn cursor_whose_sync_failed_is_written_again_when_the_log_is_opened_again() {
    let mut trial = Trial::new(options(3, OnFull::DropOldest));
    trial.append(100).unwrap().unwrap();
    trial.sync().unwrap();
    let from = trial.disk.operations();
    // The write works, and its sync does not.
    trial.disk.plan(Some(Plan { fault: Fault::Sync, from, count: 2, part: 0 }));
    trial.acknowledge(0, 0, true);
    trial.disk.plan(None);
    trial.reopen(2).unwrap();
    assert!(trial.book.marks.readers[0].floor > 0, "the book expects nothing");
    cut(&trial);
}
