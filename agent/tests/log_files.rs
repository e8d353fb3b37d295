//! Log files on a real file system: what is written arrives once and in order, whatever is renamed,
//! truncated, removed or stopped in between.

// clippy.toml allows these in #[test] functions, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_bench;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::rc::Rc;
use std::time::Duration;

use mote::logs::Progress;
use mote::logs::file::{FileSource, Limits};
use mote::model::{Block, Labels};
use tokio::time::{Instant, advance, timeout};

const NOTHING: [&str; 0] = [];
use log_bench::*;
#[tokio::test(start_paused = true)]
async fn lines_are_read_as_they_are_appended() {
    let mut bench = Bench::new(&["*.log"]);
    assert_eq!(bench.read(), NOTHING);
    bench.append("a.log", "one\ntwo\r\n\nüü\0\n");
    bench.append("b.txt", "no\n");
    bench.append("c.log.gz", "no\n");
    assert_eq!(bench.read(), ["a.log: one", "a.log: two", "a.log: ", "a.log: üü\0"]);
    bench.append("a.log", "three\n");
    assert_eq!(bench.read(), ["a.log: three"]);
    assert_eq!(bench.read(), NOTHING);
    let counters = bench.source.counters();
    assert_eq!((counters.lines, counters.bytes, counters.errors), (5, 4 + 5 + 1 + 6 + 6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_partial_line_waits_for_its_end_also_over_a_restart() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "one\ntw");
    assert_eq!(bench.read(), ["a.log: one"]);
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
    bench.append("a.log", "o");
    assert_eq!(bench.read(), NOTHING);
    bench.append("a.log", "\n");
    assert_eq!(bench.read(), ["a.log: two"]);
}

#[tokio::test(start_paused = true)]
async fn renamed_to_a_name_that_is_not_matched() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    assert_eq!(bench.read(), ["app.log: 1"]);
    bench.append("app.log", "2\n");
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", "4\n");
    bench.append("app.log.1", "3\n5 without an end");
    assert_eq!(bench.read(), ["app.log: 2", "app.log: 3", "app.log: 4"]);
    assert_eq!(bench.source.followed(), 2);
    advance(QUIET).await;
    assert_eq!(bench.read(), ["app.log: 5 without an end"]);
    assert_eq!(bench.source.followed(), 1);
    bench.append("app.log.1", "nobody reads this\n");
    bench.append("app.log", "6\n");
    assert_eq!(bench.read(), ["app.log: 6"]);
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
    assert_eq!(bench.source.counters().lost_files, 0);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_file_that_is_still_written_is_finished_only_when_it_is_quiet() {
    let mut bench = Bench::new(&["app.log"]);
    let quiet = bench.limits.quiet;
    bench.append("app.log", "0\n");
    assert_eq!(bench.read(), ["app.log: 0"]);
    // It was quiet for longer when it is renamed; its writer may be about to go on.
    advance(3 * quiet).await;
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", "");
    for round in 1..8 {
        assert_eq!(bench.read(), NOTHING);
        advance(quiet - Duration::from_secs(1)).await;
        assert_eq!(bench.read(), NOTHING);
        assert_eq!(bench.source.followed(), 2, "round {round}");
        bench.append("app.log.1", format!("{round}\n"));
        assert_eq!(bench.read(), [format!("app.log: {round}")]);
    }
    // Part of a line is growth, too.
    advance(quiet - Duration::from_secs(1)).await;
    bench.append("app.log.1", "8 with");
    assert_eq!(bench.read(), NOTHING);
    advance(quiet - Duration::from_secs(1)).await;
    bench.append("app.log.1", " an end\n");
    assert_eq!(bench.read(), ["app.log: 8 with an end"]);
    advance(quiet).await;
    assert_eq!(bench.read(), NOTHING);
    assert_eq!(bench.source.followed(), 1);
}

#[tokio::test(start_paused = true)]
async fn renamed_to_a_name_that_is_matched() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.append("app.log", "1\n");
    bench.read();
    for round in 0..3 {
        for old in (1..=round).rev() {
            bench.rename(&format!("app.log.{old}"), &format!("app.log.{}", old + 1));
        }
        bench.rename("app.log", "app.log.1");
        bench.append("app.log", format!("new {round}\n"));
        assert_eq!(bench.read(), [format!("app.log: new {round}")]);
        bench.append("app.log.1", format!("late {round}\n"));
        assert_eq!(bench.read(), [format!("app.log: late {round}")]);
        if round == 1 {
            bench.restart();
            assert_eq!(bench.read(), NOTHING);
        }
        advance(QUIET).await;
        assert_eq!(bench.read(), NOTHING);
        assert_eq!(bench.source.followed(), round + 2);
        assert_eq!(bench.keys().len(), round + 2);
    }
    // By now each file belongs to the path where it is.
    bench.append("app.log.3", "very late\n");
    assert_eq!(bench.read(), ["app.log.3: very late"]);
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
}

#[tokio::test(start_paused = true)]
async fn rotated_faster_than_old_files_are_finished() {
    let mut bench = Bench::new(&["app.log"]);
    for round in 0..200 {
        bench.append("app.log", format!("{round}\n"));
        assert_eq!(bench.read(), [format!("app.log: {round}")]);
        bench.rename("app.log", &format!("app.log.{round}"));
    }
    assert!(bench.source.followed() <= 33, "{}", bench.source.followed());
}

#[tokio::test(start_paused = true)]
async fn rotated_while_stopped() {
    for patterns in [["app.log"], ["app.log*"]] {
        let mut bench = Bench::new(&patterns);
        bench.append("app.log", "1\n");
        bench.read();
        bench.append("app.log", "2\n");
        bench.rename("app.log", "app.log.1");
        bench.append("app.log", "3\n");
        bench.restart();
        assert_eq!(bench.read(), ["app.log: 2", "app.log: 3"], "{patterns:?}");
        // And again in the middle: neither of the two may be forgotten.
        bench.append("app.log.1", "4\n");
        bench.append("app.log", "5\n");
        bench.restart();
        assert_eq!(bench.read(), ["app.log: 4", "app.log: 5"], "{patterns:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_while_stopped_before_anything_was_written() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "");
    bench.read();
    bench.append("app.log", "1\n");
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", "2\n");
    bench.restart();
    assert_eq!(bench.read(), ["app.log: 1", "app.log: 2"]);
}

#[tokio::test(start_paused = true)]
async fn rotated_and_removed_while_stopped_is_counted() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    // Kept open, so that its inode is not used again.
    let old = File::open(bench.path("app.log")).unwrap();
    bench.remove("app.log");
    bench.append("app.log", "2\n");
    bench.restart();
    assert_eq!(bench.read(), ["app.log: 2"]);
    assert_eq!(bench.source.counters().lost_files, 1);
    bench.remove("app.log");
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
    assert_eq!(bench.keys(), NOTHING);
    drop(old);
}

#[tokio::test(start_paused = true)]
async fn copied_and_truncated() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "one\ntwo\nthree\n");
    assert_eq!(bench.read().len(), 3);
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    File::create(bench.path("app.log")).unwrap();
    bench.append("app.log", "four\n");
    assert_eq!(bench.read(), ["app.log: four"]);
    // Longer than before when it is looked at again: only the first bytes tell.
    File::create(bench.path("app.log")).unwrap();
    bench.append("app.log", "five is longer than four\n");
    assert_eq!(bench.read(), ["app.log: five is longer than four"]);
    let counters = bench.source.counters();
    assert_eq!((counters.truncations, counters.lost_bytes), (2, 0));
    bench.append("app.log", "a partial line");
    assert_eq!(bench.read(), NOTHING);
    File::create(bench.path("app.log")).unwrap();
    assert_eq!(bench.read(), NOTHING);
    let counters = bench.source.counters();
    assert_eq!((counters.truncations, counters.lost_bytes), (3, 14));
    // Truncated while stopped.
    bench.append("app.log", "a line to be forgotten\n");
    bench.read();
    File::create(bench.path("app.log")).unwrap();
    bench.append("app.log", "six\n");
    bench.restart();
    assert_eq!(bench.read(), ["app.log: six"]);
}

#[tokio::test(start_paused = true)]
async fn truncated_under_a_writer_that_keeps_its_offset() {
    let mut bench = Bench::new(&["app.log"]);
    let mut writer = File::create(bench.path("app.log")).unwrap();
    writer.write_all(b"one\ntwo\n").unwrap();
    assert_eq!(bench.read().len(), 2);
    OpenOptions::new().write(true).open(bench.path("app.log")).unwrap().set_len(0).unwrap();
    writer.write_all(b"three\n").unwrap();
    assert_eq!(bench.read(), ["app.log: three"]);
    assert_eq!(bench.source.counters().truncations, 0);
}

#[tokio::test(start_paused = true)]
async fn removed_and_created_again() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    bench.append("app.log", "2\n");
    bench.remove("app.log");
    bench.append("app.log", "3\n");
    assert_eq!(bench.read(), ["app.log: 2", "app.log: 3"]);
    advance(QUIET).await;
    assert_eq!(bench.read(), NOTHING);
    assert_eq!(bench.source.followed(), 1);
    // Removed for good: the key goes too.
    bench.remove("app.log");
    bench.read();
    advance(QUIET).await;
    bench.read();
    assert_eq!((bench.source.followed(), bench.keys().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_inode_that_is_used_again_is_another_file() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "the old file\n");
    bench.read();
    // The same inode in the position and on disk, as after a removal while nobody had it open.
    let old = bench.inode("app.log");
    bench.append("other", "something else, longer than the old one\n");
    bench.rename("other", "app.log");
    let new = bench.inode("app.log");
    assert_ne!(old, new);
    assert_eq!(bench.position()[9..17], old.to_le_bytes());
    bench.position()[9..17].copy_from_slice(&new.to_le_bytes());
    bench.restart();
    assert_eq!(bench.read(), ["app.log: something else, longer than the old one"]);
    // And as the file system does it by itself, where it does.
    for round in 0..20 {
        bench.read();
        bench.source =
            FileSource::new(&[], &BTreeMap::new(), Rc::new(bench.clock.clone())).unwrap();
        bench.remove("app.log");
        bench.append("app.log", format!("round {round}, made after the removal of the last\n"));
        bench.restart();
        assert_eq!(
            bench.read(),
            [format!("app.log: round {round}, made after the removal of the last")]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_file_with_the_stored_inode_is_left_alone() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "the old file\n");
    bench.read();
    bench.append("wtmp", "secret, and none of ours\n");
    let foreign = bench.inode("wtmp");
    bench.remove("app.log");
    bench.position()[9..17].copy_from_slice(&foreign.to_le_bytes());
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
    assert_eq!(bench.source.counters().lost_files, 1);
}

#[tokio::test(start_paused = true)]
async fn another_device_number_after_a_boot_is_no_other_file() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    bench.position()[1] ^= 0xff;
    bench.append("app.log", "2\n");
    bench.restart();
    assert_eq!(bench.read(), ["app.log: 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_position_means_from_the_start() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    let good = bench.position().clone();
    for bad in [&b"x"[..], &[1; 32], &[9; 33], &good[..32]] {
        *bench.position() = bad.to_vec();
        bench.restart();
        assert_eq!(bench.read(), ["app.log: 1"]);
    }
    // An offset from beyond the end.
    bench.position()[17..25].copy_from_slice(&u64::MAX.to_le_bytes());
    bench.restart();
    assert_eq!(bench.read(), ["app.log: 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_symlink_that_is_turned_to_another_file() {
    let mut bench = Bench::new(&["current"]);
    bench.append("2026-01", "1\n");
    symlink("2026-01", bench.path("current")).unwrap();
    assert_eq!(bench.read(), ["current: 1"]);
    bench.append("2026-01", "2\n");
    bench.append("2026-02", "3\n");
    symlink("2026-02", bench.path("next")).unwrap();
    bench.rename("next", "current");
    assert_eq!(bench.read(), ["current: 2", "current: 3"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_log_is_ignored_and_what_cannot_be_read_stops_nobody() {
    let mut bench = Bench::new(&["*.log"]);
    fs::create_dir(bench.path("dir.log")).unwrap();
    symlink("loop.log", bench.path("loop.log")).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, bench.path("fifo.log"), kind, mode, 0).unwrap();
    bench.append("packed.log", b"\x1f\x8b\x08\0\0\n\n\n");
    bench.append("good.log", "1\n");
    assert_eq!(bench.read(), ["good.log: 1"]);
    assert_eq!(bench.source.followed(), 1);
    // Compressed into a file that was there, empty, before.
    bench.append("later.log", "");
    assert_eq!(bench.read(), NOTHING);
    bench.append("later.log", b"\x28\xb5\x2f\xfd\n\n\n");
    assert_eq!(bench.read(), NOTHING);
    assert_eq!(bench.source.followed(), 1);
    advance(Duration::from_secs(61)).await;
    assert_eq!(bench.read(), NOTHING);
    // A path that leads to a log now is read.
    for name in ["loop.log", "packed.log", "fifo.log"] {
        bench.append("new", format!("now in {name}\n"));
        bench.rename("new", name);
    }
    let expected = ["fifo.log: now in fifo.log", "loop.log: now in loop.log"];
    let mut read = bench.read();
    read.sort();
    assert_eq!(read[..2], expected);
    assert_eq!(read[2..], ["packed.log: now in packed.log"]);
}

#[tokio::test(start_paused = true)]
async fn invalid_utf8_is_replaced_and_long_lines_are_cut() {
    let mut bench = Bench::new(&["a.log"]);
    let fits = "x".repeat(1024);
    bench.append("a.log", b"a\xff\xfeb\n");
    bench.append("a.log", format!("{fits}\r\n{fits}y\nü{fits}\nnext\n"));
    let read = bench.read();
    assert_eq!(read[0], "a.log: a\u{fffd}\u{fffd}b");
    assert_eq!(read[1], format!("a.log: {fits}"));
    assert_eq!(read[2], format!("a.log: {fits}"));
    assert_eq!(read[3], format!("a.log: ü{}", &fits[2..]));
    assert_eq!(read[4..], ["a.log: next"]);
    let counters = bench.source.counters();
    assert_eq!((counters.invalid_utf8, counters.truncated_lines), (1, 2));
    // An overlong line that comes in pieces, with a restart in it.
    bench.append("a.log", &fits);
    assert_eq!(bench.read(), NOTHING);
    bench.append("a.log", &fits);
    assert_eq!(bench.read(), [format!("a.log: {fits}")]);
    bench.restart();
    bench.append("a.log", format!("{fits}\nafter\n"));
    assert_eq!(bench.read(), ["a.log: after"]);
}

#[tokio::test(start_paused = true)]
async fn many_files_share_a_block_and_beyond_the_limit_they_are_counted() {
    let mut bench = Bench::new(&["*.log"]);
    let line = format!("{}\n", "x".repeat(100));
    for file in 0..300 {
        bench.append(&format!("{file:03}.log"), line.repeat(if file == 0 { 20_000 } else { 2 }));
    }
    // The one big file doesn't keep the others waiting.
    for _ in 0..10 {
        bench.read_once(64 << 10, true);
    }
    let names: BTreeSet<_> = bench.lines.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 300);
    bench.read();
    assert_eq!(bench.lines.len(), 20_000 + 299 * 2);
    assert_eq!(bench.keys().len(), 300);

    let limits = Limits { max_files: 100, ..Limits::default() };
    let clock = Rc::new(bench.clock.clone());
    let mut few = FileSource::with_limits(&bench.options, &BTreeMap::new(), clock, limits).unwrap();
    few.scan();
    assert_eq!((few.followed(), few.skipped()), (100, 200));
}

#[tokio::test(start_paused = true)]
async fn a_file_belongs_to_the_first_section_that_matches() {
    let mut bench = Bench::new(&["a.log"]);
    let mut second = options(bench.dir.path(), &["*.log"]);
    second.labels = Labels::from_pairs([("job", "test"), ("section", "2")]).unwrap();
    bench.options.push(second);
    bench.restart();
    bench.append("a.log", "1\n");
    bench.append("b.log", "2\n");
    let mut block = Block::new();
    assert_eq!(bench.source.read(&mut block, LIMIT), Progress::Idle);
    let sections: Vec<_> = block.streams().iter().map(|labels| labels.get("section")).collect();
    assert_eq!((block.len(), sections), (2, vec![None, Some("2")]));
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_block_holds() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "\n".repeat(100_000));
    bench.append("b.log", "0123456789\n".repeat(10_000));
    loop {
        let mut block = Block::new();
        let progress = bench.source.read(&mut block, 10_000);
        assert!(block.text_len() + 48 * block.len() <= 10_000);
        if progress == Progress::Idle {
            break;
        }
        assert!(!block.is_empty());
    }
    assert_eq!(bench.source.counters().lines, 110_000);
    // A limit below a single line doesn't stop everything.
    bench.append("a.log", "x".repeat(500) + "\n");
    bench.read_once(10, true);
    assert_eq!(bench.lines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn timestamps_rise_and_follow_a_clock_that_was_set_back() {
    const HOUR: i64 = 3_600_000_000_000;
    let mut bench = Bench::new(&["a.log"]);
    let mut stamps = |now: i64| {
        bench.clock.set(now);
        bench.append("a.log", "same\nsame\n");
        let mut block = Block::new();
        bench.source.read(&mut block, LIMIT);
        block.entries().map(|entry| entry.timestamp_ns).collect::<Vec<_>>()
    };
    assert_eq!(stamps(2 * HOUR), [2 * HOUR, 2 * HOUR + 1]);
    assert_eq!(stamps(2 * HOUR), [2 * HOUR + 2, 2 * HOUR + 3]);
    assert_eq!(stamps(2 * HOUR - 1_000_000_000), [2 * HOUR + 4, 2 * HOUR + 5]);
    assert_eq!(stamps(HOUR), [HOUR, HOUR + 1]);
}

#[tokio::test]
async fn ready_wakes_on_writes_new_files_new_directories_and_renames() {
    const PATIENCE: Duration = Duration::from_secs(5);
    async fn ready(bench: &mut Bench) -> Vec<String> {
        let mut got = Vec::new();
        while got.is_empty() {
            timeout(PATIENCE, bench.source.ready()).await.expect("no wake-up");
            got = bench.read();
        }
        got
    }
    async fn assert_asleep(bench: &mut Bench, why: &str) {
        let woken = timeout(Duration::from_millis(50), bench.source.ready()).await;
        assert!(woken.is_err(), "woke up {why}");
    }
    let mut bench = Bench::new(&["*/logs/*.log", "a.log"]);
    bench.append("a.log", "1\n");
    assert_eq!(ready(&mut bench).await, ["a.log: 1"]);
    assert_asleep(&mut bench, "without a reason").await;
    bench.append("a.log", "2\n");
    assert_eq!(ready(&mut bench).await, ["a.log: 2"]);
    bench.append("neighbour", "x\n");
    assert_asleep(&mut bench, "for a file that is not followed").await;
    fs::create_dir(bench.path("x")).unwrap();
    timeout(PATIENCE, bench.source.ready()).await.expect("no wake-up");
    assert_eq!(bench.read(), NOTHING);
    fs::create_dir(bench.path("x/logs")).unwrap();
    bench.append("x/logs/b.log", "3\n");
    assert_eq!(ready(&mut bench).await, ["x/logs/b.log: 3"]);
    bench.rename("a.log", "a.old");
    bench.append("a.old", "4\n");
    assert_eq!(ready(&mut bench).await, ["a.log: 4"]);
    bench.append("a.log", "5\n");
    assert_eq!(ready(&mut bench).await, ["a.log: 5"]);
}

#[tokio::test(start_paused = true)]
async fn ready_rescans_about_once_a_minute_and_is_otherwise_silent() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "1\n");
    bench.read();
    for _ in 0..3 {
        let before = Instant::now();
        bench.source.ready().await;
        // The paused clock jumps to the next timer.
        // A quarter of its time early, so as to go along with others' wake-ups.
        assert!(before.elapsed() >= Duration::from_secs(44), "{:?}", before.elapsed());
        assert_eq!(bench.read(), NOTHING);
    }
    // A renamed file is a reason: it is closed when it was quiet.
    bench.rename("a.log", "gone");
    bench.append("a.log", "");
    bench.read();
    assert_eq!(bench.source.followed(), 2);
    let before = Instant::now();
    bench.source.ready().await;
    bench.read();
    assert!(before.elapsed() <= Duration::from_secs(11));
    assert_eq!(bench.source.followed(), 1);
}

/// The look that is due ends a gathering, and must not end it again and again while nothing may be read.
#[tokio::test(start_paused = true)]
async fn a_rescan_that_is_due_while_nothing_may_be_read_is_no_loop() {
    use mote::logs::Source as _;
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", "1\n");
    bench.read();
    bench.source.ready().await;
    let held = tokio::time::timeout(Duration::from_secs(600), bench.source.hold()).await;
    assert!(held.is_err(), "there is nothing to wake for");
    bench.append("a.log", "2\n");
    assert_eq!(bench.read(), ["a.log: 2"]);
}

#[tokio::test(start_paused = true)]
async fn without_watches_the_files_are_polled() {
    let mut bench = Bench::new(&["*.log"]);
    bench.limits.watch = false;
    bench.restart();
    bench.append("a.log", "1\n");
    assert_eq!(bench.read(), ["a.log: 1"]);
    for round in 0..3 {
        bench.append("a.log", format!("{round}\n"));
        bench.append(&format!("{round}.log"), "new\n");
        let before = Instant::now();
        bench.source.ready().await;
        let waited = before.elapsed().as_secs_f64();
        assert!((4.9..5.1).contains(&waited), "{waited}");
        let mut read = bench.read();
        read.sort();
        assert_eq!(read, [format!("{round}.log: new"), format!("a.log: {round}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_away_and_removed_while_reading_is_paused() {
    let mut bench = Bench::new(&["app.log"]);
    for round in 0..5 {
        bench.append("app.log", format!("{round}\n"));
        bench.source.scan();
        bench.remove("app.log");
    }
    let expected: Vec<_> = (0..5).map(|round| format!("app.log: {round}")).collect();
    assert_eq!(bench.read(), expected);
}
