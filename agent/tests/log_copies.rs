//! The copies that copytruncate leaves: what they have more than was read, and which file they are copies
//! of.

// clippy.toml allows these in #[test] functions, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_bench;

use std::fs::{self, File};

use log_bench::*;
use tokio::time::advance;

#[tokio::test(start_paused = true)]
async fn what_a_copy_has_and_was_not_read_before_the_truncation_is_read_from_it() {
    let mut bench = Bench::new(&["app.log"]);
    for round in 0..4 {
        bench.append("app.log", format!("{round} read\n"));
        assert_eq!(bench.read(), [format!("app.log: {round} read")]);
        bench.append("app.log", format!("{round} not read\n"));
        let between = if round == 2 { "gone\n" } else { "" };
        copy_truncate(&bench, "app.log", "app.log.1", between);
        bench.append("app.log", format!("{round} new\n"));
        // With a stop between, and without.
        if round % 2 == 1 {
            bench.restart();
        }
        let expected = [format!("app.log: {round} not read"), format!("app.log: {round} new")];
        assert_eq!(bench.read(), expected, "{round}");
        let counters = *bench.source.counters();
        assert_eq!(counters.lost_files, 0);
        assert!(counters.truncations > 0);
        advance(QUIET).await;
        assert_eq!(bench.read(), NOTHING);
        assert_eq!(bench.source.followed(), 1);
        tick();
    }
    assert_eq!(bench.source.counters().lost_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn what_came_between_the_copy_and_the_truncation_is_counted() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    bench.append("app.log", "2\n");
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log", "three\nfour");
    // The size is seen, the last line is not complete.
    assert_eq!(bench.read(), ["app.log: 2", "app.log: three"]);
    File::create(bench.path("app.log")).unwrap();
    bench.append("app.log", "5\n");
    assert_eq!(bench.read(), ["app.log: 5"]);
    assert_eq!(bench.source.counters().lost_bytes, 4);
    // Seen, stopped, and truncated without any copy.
    bench.append("app.log", "six");
    assert_eq!(bench.read(), NOTHING);
    bench.append("app.log", "\n7\n");
    bench.read_once(50, true);
    File::create(bench.path("app.log")).unwrap();
    bench.restart();
    bench.append("app.log", "8\n");
    let from = bench.lines.len();
    bench.read();
    assert_eq!(bench.lines[from..].last().unwrap().1, "8");
    assert_eq!(bench.source.counters().lost_bytes, 2);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_compressed_at_once_was_held() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    bench.append("app.log", "2\n");
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.source.scan();
    bench.source.gather(tokio::time::Instant::now()).await;
    bench.append("app.log", "lost\n");
    File::create(bench.path("app.log")).unwrap();
    bench.remove("app.log.1");
    bench.append("app.log", "3\n");
    assert_eq!(bench.read(), ["app.log: 2", "app.log: 3"]);
    assert_eq!(bench.source.counters().lost_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_matched_too_is_not_read_twice() {
    let mut bench = Bench::new(&["app.log*"]);
    for round in 0..3 {
        let line = format!("{round} {}", "x".repeat(300));
        bench.append("app.log", format!("{line}\n"));
        assert_eq!(bench.read(), [format!("app.log: {line}")]);
        bench.append("app.log", format!("{round} not read\n"));
        if round > 0 {
            bench.rename("app.log.1", &format!("app.log.{}", round + 1));
        }
        fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
        if round == 1 {
            // Read between the copy and the truncation.
            assert_eq!(bench.read(), [format!("app.log: {round} not read")]);
        }
        File::create(bench.path("app.log")).unwrap();
        bench.append("app.log", format!("{round} new\n"));
        let mut expected =
            vec![format!("app.log: {round} not read"), format!("app.log: {round} new")];
        if round == 1 {
            expected.remove(0);
        }
        assert_eq!(bench.read(), expected, "{round}");
        advance(QUIET).await;
        assert_eq!(bench.read(), NOTHING);
        bench.restart();
        assert_eq!(bench.read(), NOTHING);
        tick();
    }
    assert_eq!(bench.source.counters().lost_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_copied_and_truncated_again_before_it_was_read_loses_nothing() {
    let mut bench = Bench::new(&["app.log"]);
    let copied = |bench: &Bench, to: &str| {
        fs::copy(bench.path("app.log"), bench.path(to)).unwrap();
        File::create(bench.path("app.log")).unwrap();
    };
    for round in 0..3 {
        bench.append("app.log", format!("{round} read\n"));
        assert_eq!(bench.read(), [format!("app.log: {round} read")]);
        tick();
        copied(&bench, &format!("app.log.{round}-1"));
        bench.append("app.log", format!("{round} not read\n"));
        tick();
        // At this look the second copy has been begun, and the log not been read since the first.
        File::create(bench.path(&format!("app.log.{round}-2"))).unwrap();
        bench.source.gather(tokio::time::Instant::now()).await;
        copied(&bench, &format!("app.log.{round}-2"));
        tick();
        bench.append("app.log", format!("{round} new\n"));
        let mut expected =
            vec![format!("app.log: {round} not read"), format!("app.log: {round} new")];
        if round == 1 {
            // The log goes before anybody has looked again.
            bench.rename("app.log", "app.log.1-3");
            bench.append("app.log", "newer\n");
            expected.push("app.log: newer".to_owned());
        }
        assert_eq!(bench.read(), expected, "{round}");
        advance(QUIET).await;
        assert_eq!(bench.read(), NOTHING);
        tick();
    }
    assert_eq!(bench.source.counters().lost_bytes, 0);
    assert_eq!(bench.source.counters().lost_files, 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_log_was_removed_while_stopped_is_not_read_from_its_start() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    assert_eq!(bench.read(), ["app.log: 1"]);
    bench.restart();
    bench.append("app.log", "2\n");
    tick();
    copy_truncate(&bench, "app.log", "app.log.1", "");
    bench.remove("app.log");
    tick();
    bench.append("app.log", "3\n");
    assert_eq!(bench.read(), ["app.log: 2", "app.log: 3"]);
    assert_eq!(bench.source.counters().lost_files, 0);
    advance(QUIET).await;
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_had_nothing_new_is_not_read_after_a_restart() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "0\n");
    assert_eq!(bench.read(), ["app.log: 0"]);
    tick();
    bench.append("app.log", "1\n");
    copy_truncate(&bench, "app.log", "app.log-1", "");
    bench.append("app.log", "2\n");
    assert_eq!(bench.read(), ["app.log: 1", "app.log: 2"]);
    tick();
    // All that it has was read: it is forgotten at once, the copy before it is held for a while.
    copy_truncate(&bench, "app.log", "app.log-2", "");
    bench.append("app.log", "3\n");
    assert_eq!(bench.read(), ["app.log: 3"]);
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
    tick();
    bench.append("app.log", "4\n");
    copy_truncate(&bench, "app.log", "app.log-3", "");
    assert_eq!(bench.read(), ["app.log: 4"]);
    assert_eq!(bench.source.counters().lost_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_read_is_not_taken_for_one_of_later_contents_that_begin_alike() {
    const BANNER: &str = "=== start ===\n";
    for restarts in [false, true] {
        let mut bench = Bench::new(&["app.log"]);
        bench.append("app.log", format!("{BANNER}1\n"));
        assert_eq!(bench.read(), ["app.log: === start ===", "app.log: 1"]);
        tick();
        copy_truncate(&bench, "app.log", "app.log-1", "");
        tick();
        bench.append("app.log", BANNER);
        // Noticed, and not read.
        bench.append("other", "");
        bench.rename("other", "app.log-0");
        bench.source.gather(tokio::time::Instant::now()).await;
        if restarts {
            bench.read_once(50, true);
            bench.restart();
        }
        File::create(bench.path("app.log")).unwrap();
        bench.append("app.log", "2\n");
        let read = bench.read();
        assert!(!read.contains(&"app.log: 1".to_owned()), "{restarts}: {read:?}");
        assert_eq!(read.last().unwrap(), "app.log: 2");
    }
}

#[tokio::test(start_paused = true)]
async fn somebodys_own_copy_takes_nothing_from_the_log() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log", "2\n");
    assert_eq!(bench.read(), ["app.log: 2"]);
    bench.rename("app.log", "app.log.2");
    bench.append("app.log", "3\n");
    assert_eq!(bench.read(), ["app.log: 3"]);
    advance(QUIET).await;
    assert_eq!(bench.read(), NOTHING);
    assert_eq!(bench.source.followed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_begins_as_the_one_before_did_is_no_copy_of_it() {
    // A header, a date, or the beginning of a line whose rest is not written yet.
    for begin in ["# Fields: date time\n", "2026-11-2"] {
        for pattern in ["app.log*", "*.log*"] {
            let mut bench = Bench::new(&[pattern]);
            bench.append("app.log", format!("{begin}0\n"));
            bench.read();
            // Nobody has seen the one in the middle at the path.
            tick();
            bench.rename("app.log", "app.log.2");
            bench.append("app.log", format!("{begin}1\n2\n"));
            bench.rename("app.log", "app.log.1");
            tick();
            bench.append("app.log", begin);
            let mut read = bench.read();
            bench.append("app.log", "3\n");
            read.extend(bench.read());
            let lines = read.iter().map(|line| line.split_once(": ").unwrap().1.to_owned());
            let mut lines: Vec<String> = lines.filter(|line| !line.starts_with('#')).collect();
            lines.sort();
            let first = begin.trim_end().trim_start_matches("# Fields: date time");
            let expected = [format!("{first}1"), "2".to_owned(), format!("{first}3")];
            assert_eq!(lines.len(), 3, "{pattern} {begin}: {lines:?}");
            assert!(expected.iter().all(|line| lines.contains(line)), "{pattern}: {lines:?}");
            advance(QUIET).await;
            assert_eq!(bench.read(), NOTHING);
            bench.restart();
            assert_eq!(bench.read(), NOTHING);
        }
    }
}
