//! What rotation leaves behind: files that were renamed more than once while nobody looked, logs behind
//! links. Copies of copytruncate: `log_copies`.

// clippy.toml allows these in #[test] functions, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_bench;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::Duration;

use log_bench::*;
use mote::logs::file::StartAt;
use tokio::time::{advance, timeout};

#[tokio::test(start_paused = true)]
async fn a_file_that_got_the_inode_of_a_removed_one_is_read_in_its_own_turn() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    assert_eq!(bench.read(), ["app.log: 1"]);
    let inode = bench.inode("app.log");
    bench.remove("app.log");
    bench.append("app.log", "2\n");
    assert_eq!(bench.read(), ["app.log: 2"]);
    // Nobody has the first file open any more.
    bench.restart();
    bench.append("app.log", "3\n");
    bench.rename("app.log", "app.log.1");
    tick();
    let has_it = (0..10_000).any(|at| {
        let name = format!("new-{at}");
        bench.append(&name, "4\n");
        let has_it = bench.inode(&name) == inode;
        if has_it {
            bench.rename(&name, "app.log");
        }
        has_it
    });
    assert!(has_it, "this file system gives no inode away twice: nothing to see here");
    assert_eq!(bench.read(), ["app.log: 3", "app.log: 4"]);
    assert_eq!(bench.source.counters().truncations, 0);
}

#[tokio::test(start_paused = true)]
async fn rotated_several_times_while_stopped() {
    for numbered in [true, false] {
        for is_removed in [false, true] {
            let mut bench = Bench::new(&["app.log"]);
            // Of another life, and of another program.
            bench.append("app.log.7", "ancient\n");
            bench.append("app.log.err", "another\n");
            tick();
            bench.append("app.log", "1\n");
            assert_eq!(bench.read(), ["app.log: 1"]);
            bench.append("app.log", "2\n");
            let held = is_removed.then(|| File::open(bench.path("app.log")).unwrap());
            for rotation in 0..3 {
                if numbered {
                    for old in (1..=rotation).rev() {
                        bench.rename(&format!("app.log.{old}"), &format!("app.log.{}", old + 1));
                    }
                    bench.rename("app.log", "app.log.1");
                } else {
                    bench.rename("app.log", &format!("app.log-2026030{rotation}"));
                }
                bench.append("app.log", format!("{}\n", rotation + 3));
            }
            bench.append("app.log.err", "more\n");
            if is_removed {
                bench.remove(if numbered { "app.log.3" } else { "app.log-20260300" });
            }
            bench.restart();
            let mut expected: Vec<String> = (2..6).map(|line| format!("app.log: {line}")).collect();
            if is_removed {
                expected.remove(0);
            }
            assert_eq!(bench.read(), expected, "numbered {numbered} removed {is_removed}");
            assert_eq!(bench.source.counters().lost_files, u64::from(is_removed));
            // All of it once.
            bench.restart();
            assert_eq!(bench.read(), NOTHING);
            advance(QUIET).await;
            assert_eq!(bench.read(), NOTHING);
            assert_eq!(bench.source.followed(), 1);
            bench.restart();
            assert_eq!(bench.read(), NOTHING);
            drop(held);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn truncated_and_then_rotated_while_stopped() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\n");
    bench.read();
    bench.append("app.log", "2\n");
    copy_truncate(&bench, "app.log", "app.log.1", "");
    tick();
    bench.append("app.log", "3\n");
    bench.rename("app.log.1", "app.log.2");
    copy_truncate(&bench, "app.log", "app.log.1", "");
    tick();
    bench.append("app.log", "4\n");
    for old in [2, 1] {
        bench.rename(&format!("app.log.{old}"), &format!("app.log.{}", old + 1));
    }
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", "5\n");
    bench.restart();
    let mut read = bench.read();
    assert_eq!(read.remove(0), "app.log: 2");
    read.sort();
    assert_eq!(read, ["app.log: 3", "app.log: 4", "app.log: 5"]);
    assert_eq!(bench.source.counters().lost_files, 0);
}

#[tokio::test(start_paused = true)]
async fn rotated_twice_between_two_looks() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log.9", "ancient\n");
    tick();
    bench.append("app.log", "1\n");
    bench.read();
    for round in 0..5 {
        for step in 0..3 {
            tick();
            bench.rename("app.log", &format!("app.log.{}", 2_026_030_100u64 + round * 10 + step));
            bench.append("app.log", format!("{round}.{step}\n"));
        }
        let expected = [0, 1, 2].map(|step| format!("app.log: {round}.{step}"));
        assert_eq!(bench.read(), expected);
        if round % 2 == 1 {
            advance(QUIET).await;
            assert_eq!(bench.read(), NOTHING);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_with_a_file_is_counted_as_far_as_it_was_seen() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "1\nand more");
    assert_eq!(bench.read(), ["app.log: 1"]);
    let held = File::open(bench.path("app.log")).unwrap();
    bench.remove("app.log");
    bench.restart();
    assert_eq!(bench.read(), NOTHING);
    let counters = bench.source.counters();
    assert_eq!((counters.lost_files, counters.lost_bytes), (1, 8));
    drop(held);
}

#[tokio::test]
async fn a_link_to_a_log_that_is_rotated_where_it_is() {
    // As in Kubernetes: a link in one directory, the log in another, which is what is rotated.
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut bench = Bench::new(&["containers/*.log"]);
    fs::create_dir_all(bench.path("pods/a")).unwrap();
    fs::create_dir(bench.path("containers")).unwrap();
    bench.append("pods/a/0.log", "1\n");
    symlink("../pods/a/0.log", bench.path("containers/a.log")).unwrap();
    assert_eq!(bench.read(), ["containers/a.log: 1"]);
    for round in 0..3 {
        let _ = timeout(Duration::from_millis(20), bench.source.ready()).await;
        bench.read();
        bench.append("pods/a/0.log", format!("{round} old\n"));
        bench.rename("pods/a/0.log", &format!("pods/a/0.log.20260301-00000{round}"));
        let mut got = Vec::new();
        while got.is_empty() {
            timeout(PATIENCE, bench.source.ready()).await.expect("no wake-up for the old one");
            got = bench.read();
        }
        // Not there for a moment.
        assert_eq!(got, [format!("containers/a.log: {round} old")]);
        bench.append("pods/a/0.log", format!("{round} new\n"));
        let mut got = Vec::new();
        while got.is_empty() {
            timeout(PATIENCE, bench.source.ready()).await.expect("no wake-up for the new one");
            got = bench.read();
        }
        assert_eq!(got, [format!("containers/a.log: {round} new")]);
        // Rotated while stopped, more than once.
        bench.append("pods/a/0.log", format!("{round} more\n"));
        for time in 0..2 {
            tick();
            let to = format!("pods/a/0.log.20260301-1{round}000{time}");
            bench.rename("pods/a/0.log", &to);
            bench.append("pods/a/0.log", format!("{round} again {time}\n"));
        }
        bench.restart();
        let expected = ["more", "again 0", "again 1"];
        let expected = expected.map(|text| format!("containers/a.log: {round} {text}"));
        assert_eq!(bench.read(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_mounted_elsewhere() {
    let mut bench = Bench::new(&[]);
    fs::create_dir_all(bench.path("var/log/pods")).unwrap();
    bench.append("var/log/pods/0.log", "1\n");
    symlink("/var/log/pods/0.log", bench.path("var/log/a.log")).unwrap();
    bench.append("var/log/b.log", "2\n");
    bench.options[0].paths = vec!["/var/log/*.log".to_owned()];
    bench.options[0].root = bench.dir.path().to_owned();
    bench.restart();
    bench.raw_names = true;
    assert_eq!(bench.read(), ["/var/log/a.log: 1", "/var/log/b.log: 2"]);
    bench.append("var/log/b.log", "3\n");
    bench.rename("var/log/b.log", "var/log/b.log.1");
    bench.append("var/log/b.log", "4\n");
    bench.append("var/log/pods/0.log", "5\n");
    bench.rename("var/log/pods/0.log", "var/log/pods/0.log.1");
    bench.append("var/log/pods/0.log", "6\n");
    bench.restart();
    let mut read = bench.read();
    read.sort();
    let expected = ["a.log: 5", "a.log: 6", "b.log: 3", "b.log: 4"];
    assert_eq!(read, expected.map(|text| format!("/var/log/{text}")));
}

#[tokio::test(start_paused = true)]
async fn start_at_the_end_and_old_files_left_alone() {
    let mut bench = Bench::new(&["*.log"]);
    bench.options[0].start_at = StartAt::End;
    bench.restart();
    bench.append("a.log", format!("old\n{}\nunfinished", "x".repeat(9_000)));
    bench.append("b.log", "");
    assert_eq!(bench.read(), NOTHING);
    bench.append("a.log", " line\nnew\n");
    bench.append("b.log", "whole\n");
    bench.append("c.log", "whole, too\n");
    let expected = ["a.log: unfinished line", "a.log: new", "b.log: whole", "c.log: whole, too"];
    let mut read = bench.read();
    read.sort_by_key(|line| line.split(':').next().unwrap().to_owned());
    assert_eq!(read, expected);
    bench.append("a.log", "while stopped\n");
    bench.restart();
    assert_eq!(bench.read(), ["a.log: while stopped"]);

    let mut bench = Bench::new(&["*.log"]);
    bench.options[0].ignore_older = Some(Duration::from_secs(3600));
    bench.append("old.log", "1\n");
    bench.append("new.log", "2\n");
    let modified = fs::metadata(bench.path("new.log")).unwrap().modified().unwrap();
    let now = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    bench.clock.set(i64::try_from(now.as_nanos()).unwrap());
    let before = modified - Duration::from_secs(3601);
    File::options().write(true).open(bench.path("old.log")).unwrap().set_modified(before).unwrap();
    bench.restart();
    assert_eq!(bench.read(), ["new.log: 2"]);
    assert_eq!(bench.source.followed(), 1);
    bench.append("old.log", "3\n");
    advance(Duration::from_secs(61)).await;
    assert_eq!(bench.read(), ["old.log: 1", "old.log: 3"]);
}

#[tokio::test(start_paused = true)]
async fn byte_order_marks_tell_the_encoding() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", b"\xef\xbb\xbfone\ntwo\n");
    bench.append("b.log", b"\xff\xfeo\0n\0e\0\n\0");
    assert_eq!(bench.read(), ["a.log: one", "a.log: two"]);
    assert_eq!(bench.source.followed(), 1);
    // A name that is not UTF-8 does nobody harm.
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"\xff.log");
    fs::write(bench.dir.path().join(name), "x\n").unwrap();
    bench.append("c.log", "3\n");
    bench.restart();
    assert_eq!(bench.read(), ["c.log: 3"]);
}

#[tokio::test]
async fn writes_wake_nobody_who_only_holds() {
    use mote::logs::Source;
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "0\n");
    bench.read();
    for round in 1..4 {
        bench.append("app.log", format!("{round}\n"));
        bench.remove("app.log");
        // Created, and removed with the next round: only who looks in between has it.
        bench.append("app.log", format!("{round} in a new file\n"));
        let _ = timeout(Duration::from_millis(50), Source::hold(&mut bench.source)).await;
    }
    let lines: Vec<String> = bench.read();
    let expected: Vec<String> = (1..4)
        .flat_map(|round| [format!("{round}"), format!("{round} in a new file")])
        .map(|line| format!("app.log: {line}"))
        .collect();
    assert_eq!(lines, expected);
}

#[tokio::test(start_paused = true)]
async fn reading_from_the_end_is_for_the_first_start_only() {
    let mut bench = Bench::new(&["*.log"]);
    bench.options[0].start_at = StartAt::End;
    bench.restart();
    bench.append("app.log", "before\n");
    assert_eq!(bench.read(), NOTHING);
    bench.append("app.log", "1\n");
    assert_eq!(bench.read(), ["app.log: 1"]);
    // What is rotated or created while the agent is stopped is not there from before.
    bench.append("app.log", "2\n");
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", "3\n");
    bench.append("new.log", "4\n");
    bench.restart();
    let mut read = bench.read();
    read.sort();
    assert_eq!(read, ["app.log: 2", "app.log: 3", "new.log: 4"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_off_while_nothing_may_be_read_is_counted() {
    use mote::logs::Source;
    // However often whoever holds is interrupted.
    for hold in [10, 59, 600] {
        let mut bench = Bench::new(&["app.log"]);
        bench.append("app.log", "1\n");
        bench.read();
        bench.append("app.log", "never read\n");
        let pause = tokio::time::Instant::now() + Duration::from_secs(600);
        while tokio::time::Instant::now() < pause {
            let _ = timeout(Duration::from_secs(hold), Source::hold(&mut bench.source)).await;
        }
        File::create(bench.path("app.log")).unwrap();
        bench.append("app.log", "2\n");
        assert_eq!(bench.read(), ["app.log: 2"], "{hold}");
        assert_eq!(bench.source.counters().lost_bytes, 11, "{hold}");
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_twice_between_two_looks_while_many_old_files_are_not_quiet_yet() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", "first\n");
    bench.read();
    for round in 0..50u64 {
        for step in 0..2 {
            tick();
            bench.rename("app.log", &format!("app.log.{}", 2_026_030_100 + round * 10 + step));
            bench.append("app.log", format!("{round}.{step}\n"));
        }
        let expected = [0, 1].map(|step| format!("app.log: {round}.{step}"));
        assert_eq!(bench.read(), expected);
    }
}
