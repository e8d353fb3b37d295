//! A source of the journal and what was stored of it, and a machine whose journal has what a test says.
//! The tests with a real journald and those with made entries share it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mote::host::{ManualClock, Roots};
use mote::logs::journal::{JournalSource, Matches, Options, Units};
use mote::logs::{Progress, Source};
use mote::model::{Block, Labels};
use tokio::time::timeout;

use super::support::machine::ID;

pub const LIMIT: usize = 64 << 10;
pub const LONG: Duration = Duration::from_secs(30);

/// 2020, so that `max_age` reaches everything by default.
pub const NOW: i64 = 1_577_836_800_000_000_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub labels: BTreeMap<String, String>,
    pub timestamp_ns: i64,
    pub line: String,
    pub metadata: Vec<(String, String)>,
    pub partial: bool,
}

/// A source and what was stored of it.
pub struct Bench {
    pub root: PathBuf,
    pub options: Options,
    pub now_ns: i64,
    pub source: JournalSource,
    pub positions: BTreeMap<String, Vec<u8>>,
    pub got: Vec<Got>,
    pub limit: usize,
}

pub fn options() -> Options {
    Options {
        labels: Labels::from_pairs([("job", "test")]).unwrap(),
        max_line: 4096,
        max_age: Duration::from_secs(3600),
        matches: Matches::default(),
        units: Units::default(),
        directories: Vec::new(),
        labels_from: Vec::new(),
        metadata_from: Vec::new(),
    }
}

fn open(
    root: &Path,
    options: &Options,
    now_ns: i64,
    positions: &BTreeMap<String, Vec<u8>>,
) -> JournalSource {
    let roots = Roots { root: root.to_owned(), ..Roots::default() };
    JournalSource::new(options, &roots, positions, &ManualClock::at(now_ns))
}

impl Bench {
    pub fn new(root: &Path, options: Options) -> Bench {
        Bench::at(root, options, NOW)
    }

    pub fn at(root: &Path, options: Options, now_ns: i64) -> Bench {
        let positions = BTreeMap::new();
        let source = open(root, &options, now_ns, &positions);
        let (got, limit) = (Vec::new(), LIMIT);
        Bench { root: root.to_owned(), options, now_ns, source, positions, got, limit }
    }

    /// Loses what is in memory and goes on with what is stored.
    pub fn restart(&mut self) {
        self.source = open(&self.root, &self.options, self.now_ns, &self.positions);
    }

    /// Reads one block and stores it.
    pub fn step(&mut self) -> Progress {
        let mut block = Block::new();
        let progress = self.source.read(&mut block, self.limit);
        for entry in block.entries() {
            let labels = block.streams()[usize::from(entry.stream.0)].iter();
            let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
            self.got.push(Got {
                labels: labels.map(owned).collect(),
                timestamp_ns: entry.timestamp_ns,
                line: entry.line.to_owned(),
                metadata: entry.metadata.iter().map(owned).collect(),
                partial: entry.partial,
            });
        }
        for position in block.positions() {
            self.positions.insert(position.key.to_owned(), position.position.to_vec());
        }
        progress
    }

    /// Reads all there is now.
    pub fn read(&mut self) -> Vec<Got> {
        let before = self.got.len();
        while self.step() == Progress::More {}
        self.got.split_off(before)
    }

    /// The same, for what was read before it to stay.
    pub fn read_all(&mut self) {
        while self.step() == Progress::More {}
    }

    /// Follows until this line is there.
    pub async fn follow_to(&mut self, line: &str) {
        let end = Instant::now() + LONG;
        while self.got.last().is_none_or(|got| got.line != line) {
            assert!(Instant::now() < end, "{line} does not come");
            if self.step() == Progress::Idle {
                let _ = timeout(LONG, self.source.ready()).await;
            }
        }
    }

    /// Follows until so many of the program's entries are there.
    pub async fn follow(&mut self, identifier: &str, count: usize) {
        let end = Instant::now() + LONG;
        loop {
            let progress = self.step();
            let have = self.lines(identifier).len();
            if have >= count {
                return;
            }
            assert!(Instant::now() < end, "{have} lines of {count}");
            if progress == Progress::Idle {
                let _ = timeout(LONG, self.source.ready()).await;
            }
        }
    }

    pub fn lines(&self, identifier: &str) -> Vec<String> {
        let of = |got: &&Got| got.labels.get("syslog_identifier").is_some_and(|i| i == identifier);
        self.got.iter().filter(of).map(|got| got.line.clone()).collect()
    }

    pub fn count(&self, name: &str) -> u64 {
        let mut found = None;
        self.source.counts(&mut |have, count| {
            if have == name {
                found = Some(count);
            }
        });
        found.unwrap_or_else(|| panic!("no count {name}"))
    }
}

/// A machine whose journal systemd-journal-remote writes, with any field and time.
pub struct Machine(tempfile::TempDir, Cell<u32>);

impl Machine {
    pub fn new() -> Machine {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("var/log/journal").join(ID)).unwrap();
        fs::write(root.path().join("etc/machine-id"), format!("{ID}\n")).unwrap();
        Machine(root, Cell::new(0))
    }

    pub fn root(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub fn directory(&self) -> PathBuf {
        self.root().join("var/log/journal").join(ID)
    }

    /// Adds entries, a second after the other.
    pub fn import(&self, entries: &[&[(&str, &str)]]) {
        let first = u64::from(self.1.get()) * 1_000_000_000 + 1_000_000_000;
        let timed = entries.iter().enumerate().map(|(n, e)| (first + n as u64 * 1_000_000, *e));
        self.import_at(&timed.collect::<Vec<_>>());
    }

    /// Adds entries with their times in microseconds since 1970, in a file of their own.
    pub fn import_at(&self, entries: &[(u64, &[(&str, &str)])]) {
        const PROGRAM: &str = "/lib/systemd/systemd-journal-remote";
        assert!(
            Path::new(PROGRAM).exists(),
            "no systemd-journal-remote: install its package, which `cargo xtask setup` gets"
        );
        let number = self.1.get();
        self.1.set(number + 1);
        let mut export = String::new();
        for (at, (time, fields)) in entries.iter().enumerate() {
            let monotonic = u64::from(number) * 1_000_000_000 + at as u64 + 1;
            export += &format!(
                "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={monotonic}\n\
                 _BOOT_ID=11111111111111111111111111111111\n"
            );
            for (name, value) in *fields {
                export += &format!("{name}={value}\n");
            }
            export += "\n";
        }
        let input = self.root().join("export");
        fs::write(&input, export).unwrap();
        let output = self.directory().join(format!("remote-{number}.journal"));
        let done = Command::new(PROGRAM).arg("-o").arg(&output).arg(&input).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn journalctl(&self, arguments: &[String]) -> Vec<String> {
        let mut command = Command::new("journalctl");
        command.args(["--output=cat", "--no-pager", "--quiet", "--directory"]);
        let output = command.arg(self.directory()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}
