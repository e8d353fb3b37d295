//! The journal of a real journald: what journalctl shows is what the source gives, each entry once and in
//! order, whatever is rotated, flushed, removed or stopped in between.

// clippy.toml allows these in #[test] functions, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod journal_bench;
mod support;

use std::fs;
use std::time::Duration;

use journal_bench::*;
use mote::logs::journal::{KEY, Matches, Options, Units};
use mote::logs::{Progress, Source};
use rustix::time::{ClockId, clock_gettime};
use support::machine::{ID, message};
use support::{Dice, Journald};
use tokio::time::timeout;

fn label<'a>(got: &'a Got, name: &str) -> Option<&'a str> {
    got.labels.get(name).map(String::as_str)
}

/// Everything that journalctl shows, as it should arrive.
fn expected(journald: &Journald) -> Vec<(i64, String, Option<String>, Option<String>)> {
    let entries = journald.entries(&[]);
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let with_message = entries.iter().filter(|entry| !entry["MESSAGE"].is_null());
    with_message
        .map(|entry| {
            let time: i64 = entry["__REALTIME_TIMESTAMP"].as_str().unwrap().parse().unwrap();
            let identifier = text(&entry["SYSLOG_IDENTIFIER"]);
            (time, message(entry), identifier, text(&entry["_TRANSPORT"]))
        })
        .collect()
}

fn arrived(got: &[Got]) -> Vec<(i64, String, Option<String>, Option<String>)> {
    let owned = |got, name| label(got, name).map(str::to_owned);
    got.iter()
        .map(|got| {
            let (identifier, transport) =
                (owned(got, "syslog_identifier"), owned(got, "transport"));
            (got.timestamp_ns / 1000, got.line.clone(), identifier, transport)
        })
        .collect()
}

#[tokio::test]
async fn followed_while_written_flushed_rotated_and_restarted() {
    let journald = Journald::volatile("");
    let mut bench = Bench::new(journald.root(), options());
    journald.say(0..50);
    bench.follow("test", 50).await;
    journald.say(50..70);
    journald.flush();
    journald.say(70..100);
    bench.follow("test", 100).await;
    bench.restart();
    for round in 1..=5 {
        journald.say(round * 100..round * 100 + 50);
        journald.rotate();
        journald.say(round * 100 + 50..round * 100 + 100);
        bench.follow("test", round as usize * 100 + 100).await;
    }
    journald.await_messages("test", 600);
    bench.read();
    assert_eq!(arrived(&bench.got), expected(&journald));
    assert_eq!(bench.lines("test"), (0..600).map(|n| format!("line {n}")).collect::<Vec<_>>());
    for name in ["errors", "lost_entries", "damaged_objects", "invalid_utf8", "clock_set_back"] {
        assert_eq!(bench.count(name), 0, "{name}");
    }
}

#[tokio::test]
async fn a_stop_at_any_block_neither_repeats_nor_loses_an_entry() {
    let journald = Journald::persistent("");
    let mut bench = Bench::new(journald.root(), options());
    bench.limit = 300;
    let mut dice = Dice::new(7);
    for round in 0..30 {
        journald.say(round * 20..round * 20 + 20);
        match dice.roll(4) {
            0 => journald.rotate(),
            1 => bench.restart(),
            _ => {}
        }
        for _ in 0..dice.roll(8) {
            bench.step();
            if dice.roll(3) == 0 {
                bench.restart();
            }
        }
    }
    journald.await_messages("test", 600);
    bench.follow("test", 600).await;
    bench.read();
    assert_eq!(arrived(&bench.got), expected(&journald));
}

#[tokio::test]
async fn what_is_removed_while_stopped_is_counted_and_nothing_else_is_lost() {
    let journald = Journald::persistent("");
    let mut bench = Bench::new(journald.root(), options());
    journald.say(0..10);
    bench.follow("test", 10).await;
    bench.read();
    let last = bench.got.last().unwrap().timestamp_ns / 1000;
    for round in 1..4 {
        journald.say(round * 10..round * 10 + 10);
        journald.await_messages("test", round as usize * 10 + 10);
        journald.rotate();
    }
    let before = journald.entries(&[]);
    journald.remove_oldest(1);
    let after = journald.entries(&[]);
    let time =
        |e: &serde_json::Value| e["__REALTIME_TIMESTAMP"].as_str().unwrap().parse::<i64>().unwrap();
    let unread = before.iter().filter(|entry| time(entry) > last).count();
    let left = after.iter().filter(|entry| time(entry) > last).count();
    assert!(left < unread);
    bench.restart();
    journald.say(40..50);
    bench.follow("test", 40).await;
    bench.read();
    let mut want = vec![];
    want.extend(0..10);
    want.extend(20..50);
    let want: Vec<String> = want.iter().map(|n| format!("line {n}")).collect();
    assert_eq!(bench.lines("test"), want);
    assert_eq!(bench.count("lost_entries"), (unread - left) as u64);
}

#[tokio::test]
async fn every_transport_has_its_labels_and_odd_messages_arrive_whole() {
    let journald = Journald::persistent("");
    let mut options = options();
    options.metadata_from = vec![("pid".into(), "_PID".into()), ("none".into(), "NO_FIELD".into())];
    options.labels_from = vec![("comm".into(), "_COMM".into()), ("__gid".into(), "_GID".into())];
    let mut bench = Bench::new(journald.root(), options);
    let send = |message: &[u8], more: &[(&str, &[u8])]| {
        let mut fields = vec![("MESSAGE", message), ("SYSLOG_IDENTIFIER", b"odd")];
        fields.extend_from_slice(more);
        journald.send(&fields);
    };
    send(b"two\nlines", &[("PRIORITY", b"3")]);
    send(b"nul \0 and \xff", &[("PRIORITY", b"9")]);
    send(b"", &[("PRIORITY", b"7")]);
    send(&b"x".repeat(5000), &[]);
    send(&[b'y'; 4096], &[]);
    send(b"part ", &[("CONTAINER_PARTIAL_MESSAGE", b"true")]);
    send(b"end", &[]);
    // What a container of Docker's ended with, which had no line end.
    let docker: &[(&str, &[u8])] =
        &[("CONTAINER_PARTIAL_MESSAGE", b"true"), ("CONTAINER_PARTIAL_ID", b"0123456789")];
    send(b"fatal", docker);
    send(&[b'z'; 16 << 10], docker);
    send(b"first", &[("MESSAGE", b"second")]);
    journald.send(&[("SYSLOG_IDENTIFIER", b"odd"), ("OTHER", b"no message")]);
    journald.syslog("<11>Nov 21 22:00:00 sys[1]: by syslog");
    send(b"last", &[]);
    bench.follow("odd", 11).await;
    let lines = bench.lines("odd");
    assert_eq!(lines[..3], ["two\nlines", "nul \0 and \u{fffd}", ""]);
    assert_eq!(lines[3], "x".repeat(4096));
    assert_eq!(lines[4], "y".repeat(4096));
    assert_eq!(lines[5..8], ["part ", "end", "fatal"]);
    assert_eq!(lines[9..], ["first", "last"]);
    let odd: Vec<&Got> =
        bench.got.iter().filter(|got| label(got, "syslog_identifier") == Some("odd")).collect();
    let levels: Vec<_> = odd.iter().map(|got| label(got, "level")).collect();
    assert_eq!(levels[..4], [Some("error"), None, Some("debug"), None]);
    let partial: Vec<_> = odd.iter().map(|got| got.partial).collect();
    let want: Vec<_> = (0..11).map(|at| [5, 8].contains(&at)).collect();
    assert_eq!(partial, want);
    for got in &odd {
        assert_eq!(label(got, "transport"), Some("journal"));
        assert_eq!(label(got, "__source__"), Some("journal"));
        assert_eq!(label(got, "job"), Some("test"));
        assert_eq!(label(got, "__gid"), Some("0"));
        assert!(label(got, "comm").is_some() && label(got, "boot_id").is_none());
        assert_eq!(got.metadata, [("pid".to_owned(), std::process::id().to_string())]);
    }
    let sys = bench.got.iter().find(|got| got.line == "by syslog").unwrap();
    assert_eq!(label(sys, "syslog_identifier"), Some("sys"));
    assert_eq!(label(sys, "transport"), Some("syslog"));
    assert_eq!(label(sys, "level"), Some("error"));
    assert_eq!(bench.count("truncated_lines"), 2);
    assert_eq!(bench.count("invalid_utf8"), 1);
    assert_eq!(bench.count("without_message"), 1);
}

#[tokio::test]
async fn matches_and_units_choose_what_journalctl_chooses() {
    let machine = Machine::new();
    machine.import(&[
        &[("_SYSTEMD_UNIT", "ssh.service"), ("PRIORITY", "3"), ("MESSAGE", "a")],
        &[("_SYSTEMD_UNIT", "ssh.service"), ("PRIORITY", "6"), ("MESSAGE", "b")],
        &[
            ("_SYSTEMD_UNIT", "init.scope"),
            ("UNIT", "ssh.service"),
            ("_PID", "1"),
            ("MESSAGE", "c"),
        ],
        &[("_SYSTEMD_UNIT", "x.service"), ("UNIT", "ssh.service"), ("_PID", "7"), ("MESSAGE", "d")],
        &[("_TRANSPORT", "kernel"), ("PRIORITY", "3"), ("MESSAGE", "e")],
        &[("_SYSTEMD_UNIT", "dock-1.service"), ("_SYSTEMD_SLICE", "dock.slice"), ("MESSAGE", "f")],
        &[("_SYSTEMD_UNIT", "dock-2.service"), ("PRIORITY", "4"), ("MESSAGE", "g")],
    ]);
    for (matches, units) in [
        (&[][..], &[][..]),
        (&["PRIORITY=3"], &[]),
        (&["PRIORITY=3", "PRIORITY=6", "_SYSTEMD_UNIT=ssh.service"], &[]),
        (&["PRIORITY=4", "+", "_TRANSPORT=kernel"], &[]),
        (&[], &["ssh"]),
        (&[], &["dock-*"]),
        (&[], &["dock.slice", "x.service"]),
        (&["PRIORITY=3"], &["ssh"]),
        (&["PRIORITY=5"], &["ssh"]),
    ] {
        let mut arguments: Vec<String> =
            units.iter().map(|unit| format!("--unit={unit}")).collect();
        arguments.extend(matches.iter().map(|m| (*m).to_owned()));
        let want: Vec<String> = machine.journalctl(&arguments);
        let mut options = options();
        options.matches = Matches::parse(matches).unwrap();
        options.units = Units::new(units.iter().copied()).unwrap();
        let mut bench = Bench::at(&machine.root(), options, 0);
        let got: Vec<String> = bench.read().into_iter().map(|got| got.line).collect();
        assert_eq!(got, want, "{matches:?} {units:?}");
        assert_eq!(bench.count("unmatched"), 7 - want.len() as u64);
        // What was passed over is passed for good.
        bench.restart();
        assert_eq!(bench.read(), []);
    }
}

#[tokio::test]
async fn units_are_called_as_users_know_them() {
    let machine = Machine::new();
    let session = ("_SYSTEMD_UNIT", "session-3.scope");
    let manager = ("_SYSTEMD_UNIT", "user@1000.service");
    let sudo = ("SYSLOG_IDENTIFIER", "sudo");
    machine.import(&[
        &[session, sudo, ("_TRANSPORT", "syslog"), ("MESSAGE", "sudo")],
        &[session, sudo, ("_TRANSPORT", "journal"), ("MESSAGE", "session-3.scope")],
        &[
            manager,
            ("_SYSTEMD_USER_UNIT", "a.service"),
            ("_TRANSPORT", "stdout"),
            ("MESSAGE", "a.service"),
        ],
        &[("_TRANSPORT", "kernel"), ("SYSLOG_IDENTIFIER", "kernel"), ("MESSAGE", "")],
        &[("_SYSTEMD_UNIT", "init.scope"), ("MESSAGE", "init.scope")],
    ]);
    let mut bench = Bench::at(&machine.root(), options(), 0);
    for got in bench.read() {
        assert_eq!(label(&got, "unit").unwrap_or(""), got.line);
    }
    assert_eq!(bench.count("lines"), 5);
}

#[tokio::test]
async fn equal_lines_of_one_microsecond_stay_apart_also_over_a_restart() {
    let machine = Machine::new();
    let same = &[("MESSAGE", "same")][..];
    machine.import_at(&[(1_000_000, same); 5]);
    let mut bench = Bench::at(&machine.root(), options(), 0);
    bench.limit = 1;
    for _ in 0..5 {
        bench.step();
        bench.restart();
    }
    let times: Vec<i64> = bench.got.iter().map(|got| got.timestamp_ns - 1_000_000_000).collect();
    assert_eq!(times, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_the_journals_order() {
    let machine = Machine::new();
    let line = |text: &'static str| vec![("MESSAGE", text)];
    let (a, b, c, d) = (line("a"), line("b"), line("c"), line("d"));
    machine.import_at(&[(9_000_000, &a), (8_500_000, &b), (2_000_000, &c), (2_000_001, &d)]);
    let mut bench = Bench::at(&machine.root(), options(), 0);
    let got: Vec<(i64, String)> =
        bench.read().into_iter().map(|got| (got.timestamp_ns, got.line)).collect();
    let want =
        [(9_000_000_000, "a"), (9_000_000_001, "b"), (2_000_000_000, "c"), (2_000_001_000, "d")];
    assert_eq!(got, want.map(|(time, line)| (time, line.to_owned())));
    assert_eq!(bench.count("clock_set_back"), 1);
}

#[tokio::test]
async fn the_first_start_reads_as_far_back_as_it_should() {
    let machine = Machine::new();
    let line = |text: &'static str| vec![("MESSAGE", text)];
    let second = 1_000_000;
    let now = NOW as u64 / 1000;
    let (old, edge, new) = (line("old"), line("edge"), line("new"));
    machine.import_at(&[
        (now - 7200 * second, &old),
        (now - 3600 * second, &edge),
        (now - 10 * second, &new),
    ]);
    let lines = |bench: &mut Bench| -> Vec<String> {
        bench.read().into_iter().map(|got| got.line).collect()
    };
    let mut bench = Bench::new(&machine.root(), options());
    assert_eq!(lines(&mut bench), ["edge", "new"]);
    // A position wins, however old.
    bench.now_ns = NOW + 86_400_000_000_000;
    bench.restart();
    let later = line("later");
    machine.import_at(&[(now + 10 * second, &later)]);
    assert_eq!(lines(&mut bench), ["later"]);
    // From now on, also if nothing comes before the next stop.
    let mut bench = Bench::new(&machine.root(), Options { max_age: Duration::ZERO, ..options() });
    assert_eq!(lines(&mut bench), [""; 0]);
    assert!(bench.positions.contains_key(KEY));
    let missed = line("missed");
    machine.import_at(&[(now + 20 * second, &missed)]);
    bench.restart();
    assert_eq!(lines(&mut bench), ["missed"]);
}

#[tokio::test]
async fn a_machine_without_a_journal_is_quiet_until_one_appears() {
    let mut journald = Journald::stopped();
    let mut bench = Bench::new(journald.root(), options());
    assert_eq!(bench.read(), []);
    assert!(timeout(Duration::from_secs(1), bench.source.ready()).await.is_err());
    assert!(bench.positions.is_empty());
    journald.set("auto", "");
    journald.start();
    journald.say(0..5);
    timeout(Duration::from_secs(5), bench.source.ready()).await.expect("inotify tells");
    bench.follow("test", 5).await;
    // journald moves to the disk where nothing was before.
    journald.say(5..10);
    journald.flush();
    journald.say(10..15);
    bench.follow("test", 15).await;
    journald.await_messages("test", 15);
    bench.read();
    assert_eq!(arrived(&bench.got), expected(&journald));
    assert_eq!((bench.count("errors"), bench.count("lost_entries")), (0, 0));
}

#[tokio::test]
async fn a_machine_that_gets_its_id_later_is_read_from_where_it_was() {
    let machine = Machine::new();
    let id = machine.root().join("etc/machine-id");
    fs::write(&id, "uninitialized\n").unwrap();
    machine.import(&[&[("MESSAGE", "one")]]);
    let mut bench = Bench::at(&machine.root(), options(), 0);
    assert_eq!(bench.read().len(), 1);
    assert!(timeout(Duration::from_millis(300), bench.source.ready()).await.is_err());
    fs::write(&id, format!("{ID}\n")).unwrap();
    fs::rename(&id, machine.root().join("etc/x")).unwrap();
    fs::rename(machine.root().join("etc/x"), &id).unwrap();
    let _ = timeout(Duration::from_secs(5), bench.source.ready()).await;
    assert_eq!(bench.read(), []);
    machine.import(&[&[("MESSAGE", "two")]]);
    timeout(Duration::from_secs(5), bench.source.ready()).await.unwrap();
    assert_eq!(bench.read()[0].line, "two");
}

#[tokio::test]
async fn an_idle_journal_wakes_nobody() {
    let journald = Journald::persistent("");
    let mut bench = Bench::new(journald.root(), options());
    journald.say(0..3);
    bench.follow("test", 3).await;
    // What journald still has to say: its last look at the mapping.
    while timeout(Duration::from_secs(1), bench.source.ready()).await.is_ok() {
        bench.read();
    }
    // A busy file beside the journal's, and one that comes and goes.
    fs::create_dir_all(journald.root().join("var/log/other")).unwrap();
    let before = switches();
    let idle = timeout(Duration::from_secs(3), bench.source.ready());
    let noise = std::thread::spawn({
        let log = journald.root().join("var/log/busy.log");
        move || {
            for round in 0..20 {
                fs::write(&log, format!("{round}\n")).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    assert!(idle.await.is_err());
    let after = switches();
    noise.join().unwrap();
    assert!(after - before <= 4, "{} wake-ups in 3 s", after - before);
}

/// How often this thread has waited.
fn switches() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// CPU time of this thread: waiting for a busy machine is not work.
fn used() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

#[tokio::test]
async fn a_filter_that_nothing_passes_takes_little_time_each_turn_and_moves_on() {
    let machine = Machine::new();
    let line = vec![("MESSAGE", "no"), ("_SYSTEMD_UNIT", "a.service"), ("PRIORITY", "6")];
    let many: Vec<_> = (0..120_000).map(|n| (1_000_000 + n, line.as_slice())).collect();
    machine.import_at(&many);
    for by_units in [false, true] {
        let mut options = options();
        match by_units {
            true => options.units = Units::new(["b"]).unwrap(),
            false => options.matches = Matches::parse(["_SYSTEMD_UNIT=b.service"]).unwrap(),
        }
        let mut bench = Bench::at(&machine.root(), options, 0);
        let (mut turns, mut longest, mut positions) = (0, Duration::ZERO, 0);
        loop {
            let start = used();
            let before = bench.positions.clone();
            let progress = bench.step();
            longest = longest.max(used() - start);
            turns += 1;
            positions += u32::from(bench.positions != before);
            if progress == Progress::Idle {
                break;
            }
        }
        println!("{turns} turns, the longest {longest:?}, {positions} positions");
        assert_eq!(bench.got, []);
        assert_eq!(bench.count("unmatched"), 120_000);
        assert!(turns > 5, "{turns}");
        // Far more than it takes.
        assert!(longest < Duration::from_millis(500), "{longest:?}");
        assert!((2..=4).contains(&positions), "{positions}");
    }
}
