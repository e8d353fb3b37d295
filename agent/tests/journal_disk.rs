//! The journal on a disk that fails, and with more archived files than descriptors: nothing is passed over
//! that can still be read. Needs root, util-linux, e2fsprogs and a journald.

// clippy.toml allows these in #[test] functions, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod journal_bench;
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use journal_bench::*;
use mote::logs::Source as _;
use mote::logs::journal::Options;
use support::Journald;
use support::small_disk::SmallDisk;
use tokio::time::timeout;

/// Lines in the archived file, and in both.
const FIRST: u32 = 1_500;
const ALL: u32 = 2_000;

/// A disk with an archived file and the one that followed it, in one sequence.
struct Card {
    disk: SmallDisk,
    image: Vec<u8>,
    archived: PathBuf,
    active: PathBuf,
    bench: Bench,
}

impl Card {
    fn new() -> Card {
        let journald = Journald::persistent("SystemMaxFileSize=4M\nSplitMode=none");
        journald.say(0..FIRST);
        journald.await_messages("test", FIRST as usize);
        journald.rotate();
        journald.say(FIRST..ALL);
        journald.await_messages("test", ALL as usize);
        let mut disk = SmallDisk::new(64 << 10, 48 << 10);
        disk.mount();
        let directory = disk.mountpoint().join("journal");
        fs::create_dir(&directory).unwrap();
        for entry in fs::read_dir(journald.directory()).unwrap() {
            let path = entry.unwrap().path();
            let to = directory.join(path.file_name().unwrap());
            fs::copy(&path, &to).unwrap();
            File::open(&to).unwrap().sync_all().unwrap();
        }
        rustix::fs::sync();
        let archived = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let archived = archived.filter(|path| path.to_string_lossy().contains('@'));
        let archived = archived.collect::<Vec<_>>().pop().unwrap();
        let active = directory.join("system.journal");
        let options = Options { directories: vec![directory], ..options() };
        let bench = Bench::at(&disk.mountpoint(), options, 0);
        let image = disk.image_bytes();
        Card { disk, image, archived, active, bench }
    }

    /// From now on nothing can be read of the archived file that nobody holds; of the other one all can.
    fn fail(&mut self) {
        fs::read(&self.active).unwrap();
        forget(&self.archived);
        self.disk.truncate(0);
        assert!(fs::read(&self.archived).is_err(), "the disk fails");
    }

    fn mend(&self) {
        self.disk.restore(&self.image);
    }
}

/// Has the kernel forget what it has of a file.
fn forget(path: &Path) {
    let file = File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn expected(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("line {n}")).collect()
}

#[tokio::test]
async fn a_card_that_fails_for_a_moment_costs_nothing() {
    for restart in [false, true] {
        let mut card = Card::new();
        card.bench.limit = 2_000;
        while card.bench.lines("test").len() < 50 {
            card.bench.step();
        }
        card.fail();
        card.bench.limit = LIMIT;
        card.bench.step();
        card.bench.read_all();
        let before = card.bench.lines("test");
        assert!(before.len() < FIRST as usize, "{}", before.len());
        assert_eq!(before, expected(before.len() as u32));
        assert_eq!(card.bench.count("errors"), 1);
        if restart {
            card.bench.restart();
            card.bench.read_all();
            assert_eq!(card.bench.lines("test"), before);
        }
        // While it fails journald's own writing makes nobody give up.
        for _ in 0..50 {
            card.bench.read_all();
        }
        card.mend();
        while card.bench.lines("test").len() < ALL as usize {
            timeout(LONG, card.bench.source.ready()).await.expect("it is tried again");
            card.bench.read_all();
        }
        assert_eq!(card.bench.lines("test"), expected(ALL));
        for name in ["lost_entries", "damaged_objects", "unreadable_files"] {
            assert_eq!(card.bench.count(name), 0, "{name} {restart}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_unreadable_is_given_up_and_the_next_one_goes_on() {
    let mut card = Card::new();
    card.bench.limit = 2_000;
    while card.bench.lines("test").len() < 50 {
        card.bench.step();
    }
    card.fail();
    card.bench.limit = LIMIT;
    let began = tokio::time::Instant::now();
    let last = format!("line {}", ALL - 1);
    loop {
        card.bench.read_all();
        if card.bench.lines("test").last() == Some(&last) {
            break;
        }
        timeout(Duration::from_secs(300), card.bench.source.ready()).await.expect("it goes on");
    }
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(60) && waited < Duration::from_secs(600), "{waited:?}");
    let lines = card.bench.lines("test");
    let (first, second) = lines.split_at(lines.len() - (ALL - FIRST) as usize);
    assert_eq!(second, &expected(ALL)[FIRST as usize..]);
    assert!(first.len() < FIRST as usize && first == &expected(FIRST)[..first.len()]);
    assert!(card.bench.count("lost_entries") as usize >= FIRST as usize - first.len());
    assert!(card.bench.count("errors") <= 3, "{}", card.bench.count("errors"));
}

/// Descriptors of this process that lead below a directory.
fn descriptors(directory: &Path) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let paths = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.filter(|path| path.starts_with(directory)).count()
}

#[tokio::test]
async fn a_hundred_archived_files_need_few_descriptors_and_may_be_vacuumed_while_read() {
    let journald =
        Journald::persistent("SystemMaxFileSize=512K\nSystemMaxFiles=200\nSplitMode=none");
    const FILES: u32 = 110;
    for file in 0..FILES {
        journald.say(file * 4..file * 4 + 4);
        journald.rotate();
    }
    journald.await_messages("test", 4 * FILES as usize);
    let directory = journald.directory();
    assert!(fs::read_dir(&directory).unwrap().count() > 100);
    let mut bench = Bench::new(journald.root(), options());
    bench.limit = 200;
    let mut most = 0;
    while bench.lines("test").len() < 120 {
        bench.step();
        most = most.max(descriptors(&directory));
    }
    // By now most have been read once; the others go while they are needed.
    let status = Command::new("journalctl")
        .args(["--quiet", "--vacuum-files=20", "--directory"])
        .arg(&directory)
        .status()
        .unwrap();
    assert!(status.success());
    let left = journald.messages("test");
    assert!(left.len() < 120, "{}", left.len());
    journald.say(1_000..1_010);
    bench.follow_to("line 1009").await;
    most = most.max(descriptors(&directory));
    let lines = bench.lines("test");
    assert!((1..=9).contains(&most), "{most}");
    let wanted: Vec<String> =
        left.into_iter().chain((1_000..1_010).map(|n| format!("line {n}"))).collect();
    assert!(lines.ends_with(&wanted), "{lines:?}");
    // Those between are counted; journald's own entries are among them.
    let missing = 4 * FILES as usize + 10 - lines.len();
    let lost = bench.count("lost_entries") as usize;
    assert!(lost >= missing && lost <= missing + 2 * FILES as usize, "{lost} {missing}");
    assert_eq!((bench.count("damaged_objects"), bench.count("errors")), (0, 0));
}
