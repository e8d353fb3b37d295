//! The journal reader beside a journald that writes, rotates, flushes and vacuums: each entry arrives
//! once and in order. Needs root, `unshare` and Debian's package `systemd`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/journald.rs"]
mod journald;
#[path = "support/journals.rs"]
mod journals;

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use journald::{Journald, send, send_as};
use mote::logs::journal::{Directory, Entry, FieldSet, Journal, Limits, Matches, Next, Start};
use rustix::process::Signal;

fn journal(directories: &[PathBuf]) -> Journal {
    let directory = |path: &PathBuf| Directory { path: path.clone(), subdirectories: false };
    let fields = FieldSet::new()
        .with("MESSAGE", 1_000)
        .with("NUMBER", 20)
        .with("TEST", 20)
        .with("SYSLOG_IDENTIFIER", 20);
    let limits = Limits { open_files: 3, ..Limits::default() };
    Journal::new(directories.iter().map(directory).collect(), fields, Matches::default(), limits)
}

/// Numbers of the entries that are the test's own, until there are as many as wanted.
struct Follower {
    directories: Vec<PathBuf>,
    journal: Journal,
    entry: Entry,
    numbers: Vec<usize>,
    restarts: usize,
    lost: u64,
}

impl Follower {
    fn new(directories: &[PathBuf]) -> Follower {
        let mut journal = journal(directories);
        journal.seek(Start::Head);
        let directories = directories.to_vec();
        Follower {
            directories,
            journal,
            entry: Entry::new(),
            numbers: Vec::new(),
            restarts: 0,
            lost: 0,
        }
    }

    fn one(&mut self) -> Next {
        let next = self.journal.next(&mut self.entry).unwrap();
        if next == Next::Entry
            && let Some(number) = self.entry.get("NUMBER")
        {
            self.numbers.push(std::str::from_utf8(number).unwrap().parse().unwrap());
        }
        next
    }

    /// Reads what there is; begins anew with the cursor now and then.
    fn read(&mut self, restart: bool) {
        let mut read = 0;
        loop {
            match self.one() {
                Next::Entry => read += 1,
                Next::Busy | Next::Later => {}
                Next::Idle => break,
            }
            if restart && read == 700 {
                break;
            }
        }
        if restart {
            self.restart();
        }
    }

    /// Begins anew with the cursor.
    fn restart(&mut self) {
        let Some(cursor) = self.journal.cursor() else { return };
        self.lost += self.journal.counts().lost_entries;
        self.journal = journal(&self.directories);
        self.journal.seek(Start::After(cursor));
        self.restarts += 1;
    }

    fn until(&mut self, count: usize, restarts: bool) {
        let began = Instant::now();
        let mut round = 0;
        while self.numbers.len() < count {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{} of {count}, {:?}",
                self.numbers.len(),
                self.journal.counts()
            );
            round += 1;
            self.read(restarts && round % 3 == 0);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn check(follower: &Follower, count: usize) {
    for (at, number) in follower.numbers.iter().enumerate() {
        let around = &follower.numbers[at.saturating_sub(3)..(at + 3).min(follower.numbers.len())];
        assert_eq!(*number, at, "{around:?}, {:?}", follower.journal.counts());
    }
    assert_eq!(follower.numbers.len(), count);
    assert_eq!(follower.lost + follower.journal.counts().lost_entries, 0);
    assert_eq!(follower.journal.counts().damaged_objects, 0);
}

/// Waits until journald has written the entry.
fn written(directory: &Path, number: usize) {
    let field = format!("NUMBER={number}");
    let arguments = ["--directory".as_ref(), directory.as_os_str(), field.as_ref()];
    let began = Instant::now();
    while journals::journalctl(arguments).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "{field}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn rotated_while_followed_each_entry_arrives_once_and_in_order() {
    let root = tempfile::tempdir().unwrap();
    let journald = Journald::start(root.path(), "Storage=persistent\nSplitMode=none");
    let directories = journald.directories();
    let socket = journald.socket();
    const COUNT: usize = 20_000;
    let writer = thread::spawn(move || {
        let own = UnixDatagram::unbound().unwrap();
        own.connect(socket).unwrap();
        for number in 0..COUNT {
            send(&own, number, "own");
            if number % 50 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let rotor = {
        thread::spawn(move || {
            for _ in 0..8 {
                thread::sleep(Duration::from_millis(120));
                journald.signal(Signal::USR2);
            }
            journald
        })
    };
    let mut straight = Follower::new(&directories);
    let mut restarted = Follower::new(&directories);
    while !writer.is_finished() {
        straight.read(false);
        restarted.read(true);
    }
    writer.join().unwrap();
    straight.until(COUNT, false);
    restarted.until(COUNT, true);
    check(&straight, COUNT);
    check(&restarted, COUNT);
    assert!(restarted.restarts > 10, "{}", restarted.restarts);
    let _journald = rotor.join().unwrap();
    assert!(straight.journal.files().count() > 4);
    // And as journalctl sees it.
    let theirs = journals::journalctl(["--directory".as_ref(), directories[1].as_os_str()]);
    let theirs = theirs.iter().filter_map(|told| told.fields.get("NUMBER"));
    let ours = straight.numbers.iter().map(|number| vec![number.to_string().into_bytes()]);
    assert!(theirs.cloned().eq(ours));
}

/// Only in memory journald removes what it has flushed.
fn volatile_root() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

#[test]
fn a_flush_of_the_volatile_journal_repeats_nothing() {
    for restarts in [false, true] {
        let root = volatile_root();
        let journald = Journald::start(root.path(), "Storage=auto");
        let directories = journald.directories();
        let own = UnixDatagram::unbound().unwrap();
        own.connect(journald.socket()).unwrap();
        let mut follower = Follower::new(&directories);
        for number in 0..300 {
            send(&own, number, "volatile");
        }
        follower.until(200, restarts);
        assert!(directories[0].join("system.journal").exists());
        journald.signal(Signal::USR1);
        for number in 300..600 {
            send(&own, number, "flushing");
            follower.read(restarts && number % 50 == 0);
        }
        let began = Instant::now();
        while !directories[1].join("system.journal").exists() {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(10));
        }
        for number in 600..900 {
            send(&own, number, "persistent");
        }
        follower.until(900, restarts);
        follower.read(restarts);
        check(&follower, 900);
    }
}

/// Files are looked at one after the other while journald writes into any of them: what is seen of one
/// can be younger than what was not there yet in another.
#[test]
fn users_files_that_come_late_are_in_order_with_the_systems() {
    let root = tempfile::tempdir().unwrap();
    let journald = Journald::start(root.path(), "Storage=persistent\nSplitMode=uid");
    let directories = journald.directories();
    let socket = journald.socket();
    const COUNT: usize = 10_000;
    const USERS: usize = 24;
    let writer = thread::spawn(move || {
        let own = UnixDatagram::unbound().unwrap();
        own.connect(socket).unwrap();
        for number in 0..COUNT {
            // The users' files come one by one, and each is looked at after the system's.
            let user = match number % 2 {
                0 => 0,
                _ => 1_000 + (number / 2 % (1 + number / 100).min(USERS)) as u32,
            };
            send_as(&own, number, user);
            if number % 2 == 1 {
                // So that whoever reads is at the end.
                thread::sleep(Duration::from_micros(300));
            }
        }
    });
    let mut straight = Follower::new(&directories);
    let mut restarted = Follower::new(&directories);
    while !writer.is_finished() {
        straight.read(false);
        restarted.read(true);
    }
    writer.join().unwrap();
    straight.until(COUNT, false);
    restarted.until(COUNT, true);
    check(&straight, COUNT);
    check(&restarted, COUNT);
    let files = straight.journal.files().count();
    assert_eq!(files, 1 + USERS, "{:?}", straight.journal.files().collect::<Vec<_>>());
}

/// A restart reads from a cursor in the volatile journal what by then has other, higher numbers.
#[test]
fn a_flush_while_nobody_reads_is_no_gap() {
    let root = volatile_root();
    let own = UnixDatagram::unbound().unwrap();
    let journald = Journald::start(root.path(), "Storage=persistent");
    let directories = journald.directories();
    own.connect(journald.socket()).unwrap();
    let mut follower = Follower::new(&directories);
    for number in 0..500 {
        send(&own, number, "earlier");
    }
    follower.until(500, false);
    drop(journald);
    std::fs::remove_dir_all(root.path().join("run")).unwrap();
    let journald = Journald::start(root.path(), "Storage=auto");
    own.connect(journald.socket()).unwrap();
    for number in 500..700 {
        send(&own, number, "volatile");
    }
    follower.until(700, false);
    journald.signal(Signal::USR1);
    written(&directories[1], 699);
    let began = Instant::now();
    while !root.path().join("run/systemd/journal/flushed").exists() {
        assert!(began.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(10));
    }
    follower.restart();
    for number in 700..900 {
        send(&own, number, "later");
    }
    follower.until(900, false);
    check(&follower, 900);
}

/// journald finds its file as a kill left it, and puts it aside: under a name that says that it is done.
#[test]
fn what_a_killed_journald_had_written_is_read_by_whoever_is_behind() {
    let root = tempfile::tempdir().unwrap();
    let own = UnixDatagram::unbound().unwrap();
    let journald = Journald::start(root.path(), "Storage=persistent");
    let directories = journald.directories();
    own.connect(journald.socket()).unwrap();
    for number in 0..100 {
        send(&own, number, "seen");
    }
    written(&directories[1], 99);
    let mut follower = Follower::new(&directories);
    while follower.numbers.len() < 10 {
        follower.one();
    }
    for number in 100..300 {
        send(&own, number, "unseen");
    }
    written(&directories[1], 299);
    drop(journald);
    let journald = Journald::start(root.path(), "Storage=persistent");
    own.connect(journald.socket()).unwrap();
    for number in 300..400 {
        send(&own, number, "later");
    }
    written(&directories[1], 399);
    follower.journal.rescan();
    follower.until(400, false);
    check(&follower, 400);
    let aside = |path: &Path| path.extension().is_some_and(|end| end == "journal~");
    assert!(std::fs::read_dir(&directories[1]).unwrap().any(|file| aside(&file.unwrap().path())));
}

/// What comes as one write has one time.
#[test]
fn equal_lines_of_one_write_are_all_given() {
    let root = tempfile::tempdir().unwrap();
    let journald = Journald::start(root.path(), "Storage=persistent\nSplitMode=none");
    let directories = journald.directories();
    let mut stream = journald.stream("test");
    stream.write_all(b"same\nsame\nsame\nother\nsame\n").unwrap();
    let mut journal = journal(&directories);
    journal.seek(Start::Head);
    let (mut entry, mut lines) = (Entry::new(), Vec::new());
    let began = Instant::now();
    while lines.last().is_none_or(|last| last != "last") {
        assert!(began.elapsed() < Duration::from_secs(20), "{lines:?} {:?}", journal.counts());
        if journal.next(&mut entry).unwrap() == Next::Entry
            && entry.get("SYSLOG_IDENTIFIER") == Some(b"test")
        {
            let line = String::from_utf8(entry.get("MESSAGE").unwrap().to_vec()).unwrap();
            if line == "same" && lines.len() == 4 {
                stream.write_all(b"last\n").unwrap();
            }
            lines.push(line);
        }
    }
    assert_eq!(lines, ["same", "same", "same", "other", "same", "last"]);
    let theirs = journals::journalctl([
        "--directory".as_ref(),
        directories[1].as_os_str(),
        "SYSLOG_IDENTIFIER=test".as_ref(),
    ]);
    assert_eq!(theirs.len(), lines.len());
    assert_eq!((journal.counts().repeated, journal.counts().lost_entries), (0, 0));
}

#[test]
fn what_was_vacuumed_unread_is_counted() {
    let root = tempfile::tempdir().unwrap();
    let journald = Journald::start(root.path(), "Storage=persistent\nSplitMode=none");
    let directories = journald.directories();
    let own = UnixDatagram::unbound().unwrap();
    own.connect(journald.socket()).unwrap();
    let mut follower = Follower::new(&directories);
    for number in 0..100 {
        send(&own, number, "own");
    }
    follower.until(100, false);
    let cursor = follower.journal.cursor().unwrap();
    let wait = |files: usize| {
        let began = Instant::now();
        while std::fs::read_dir(&directories[1]).map_or(0, |files| files.count()) < files {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(10));
        }
    };
    // 400 entries in a file of their own, which is gone before anybody reads it.
    journald.signal(Signal::USR2);
    wait(2);
    for number in 100..500 {
        send(&own, number, "own");
    }
    written(&directories[1], 499);
    journald.signal(Signal::USR2);
    wait(3);
    for number in 500..600 {
        send(&own, number, "own");
    }
    written(&directories[1], 599);
    for file in std::fs::read_dir(&directories[1]).unwrap() {
        let path = file.unwrap().path();
        if path.display().to_string().contains('@') {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut again = journal(&directories);
    again.seek(Start::After(cursor));
    follower.journal = again;
    follower.until(200, false);
    assert_eq!(follower.numbers[100..], (500..600).collect::<Vec<_>>());
    // journald itself may say a word between.
    let lost = follower.journal.counts().lost_entries;
    assert!((400..410).contains(&lost), "{lost}");
}
