//! A directory of log files, a source that follows it, and what a WAL would have kept of it.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "shared by several test programs"
)]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use mote::host::ManualClock;
use mote::logs::Progress;
use mote::logs::file::{FileSource, Limits, Options};
use mote::model::{Block, Labels};
use tempfile::TempDir;

pub const LIMIT: usize = 256 << 10;
pub const QUIET: Duration = Duration::from_secs(11);
pub const NOTHING: [&str; 0] = [];

/// As logrotate's copytruncate does it, with what is written between the copy and the truncation.
pub fn copy_truncate(bench: &Bench, name: &str, to: &str, between: &str) {
    fs::copy(bench.path(name), bench.path(to)).unwrap();
    bench.append(name, between);
    OpenOptions::new().write(true).open(bench.path(name)).unwrap().set_len(0).unwrap();
}

/// Writes fall into different ticks of the file system's clock.
pub fn tick() {
    std::thread::sleep(Duration::from_millis(12));
}

/// A directory, a source that follows it, and what a WAL would have kept.
pub struct Bench {
    pub dir: TempDir,
    pub options: Vec<Options>,
    pub limits: Limits,
    pub positions: BTreeMap<String, Vec<u8>>,
    pub source: FileSource,
    pub clock: ManualClock,
    /// File name of the label `filename`, and the line.
    pub lines: Vec<(String, String)>,
    pub last: BTreeMap<String, i64>,
    /// The label as it is, for a source whose paths are not below the directory.
    pub raw_names: bool,
}

pub fn options(dir: &Path, patterns: &[&str]) -> Options {
    Options {
        paths: patterns.iter().map(|p| format!("{}/{p}", dir.display())).collect(),
        exclude: vec!["*.gz".to_owned()],
        labels: Labels::from_pairs([("job", "test")]).unwrap(),
        max_line: 1024,
        ..Options::default()
    }
}

impl Bench {
    pub fn new(patterns: &[&str]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let options = vec![options(dir.path(), patterns)];
        let clock = ManualClock::at(1_000);
        let source = FileSource::new(&options, &BTreeMap::new(), Rc::new(clock.clone())).unwrap();
        let (positions, lines, last) = Default::default();
        let limits = Limits::default();
        Bench { dir, options, limits, positions, source, clock, lines, last, raw_names: false }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// One read of at most this size; thrown away unless committed.
    pub fn read_once(&mut self, limit: usize, commit: bool) -> Progress {
        let mut block = Block::new();
        let progress = self.source.read(&mut block, limit);
        if !commit {
            return progress;
        }
        let prefix = format!("{}/", self.dir.path().display());
        for entry in block.entries() {
            let labels = &block.streams()[usize::from(entry.stream.0)];
            assert_eq!(labels.get("job"), Some("test"));
            let name = labels.get("filename").unwrap();
            let short = name.strip_prefix(&prefix).filter(|_| !self.raw_names);
            let name = short.unwrap_or(name).to_owned();
            let last = self.last.entry(name.clone()).or_insert(i64::MIN);
            assert!(entry.timestamp_ns > *last, "{name}: {} after {last}", entry.timestamp_ns);
            *last = entry.timestamp_ns;
            self.lines.push((name, entry.line.to_owned()));
        }
        for position in block.positions() {
            if position.position.is_empty() {
                self.positions.remove(position.key);
            } else {
                self.positions.insert(position.key.to_owned(), position.position.to_owned());
            }
        }
        progress
    }

    /// Reads and commits all there is.
    pub fn read(&mut self) -> Vec<String> {
        let from = self.lines.len();
        while self.read_once(LIMIT, true) == Progress::More {}
        self.lines[from..].iter().map(|(name, line)| format!("{name}: {line}")).collect()
    }

    /// The agent dies and starts again with what was committed.
    pub fn restart(&mut self) {
        let clock = Rc::new(self.clock.clone());
        self.source =
            FileSource::with_limits(&self.options, &self.positions, clock, self.limits).unwrap();
        // The clock of these tests stands still, a new process begins at the same nanosecond.
        self.last.clear();
    }

    /// The names that positions are kept for.
    pub fn keys(&self) -> Vec<String> {
        let prefix = format!("file:{}/", self.dir.path().display());
        self.positions.keys().map(|key| key.strip_prefix(&prefix).unwrap().to_owned()).collect()
    }

    /// The only position, to be tampered with.
    pub fn position(&mut self) -> &mut Vec<u8> {
        assert_eq!(self.positions.len(), 1);
        self.positions.values_mut().next().unwrap()
    }

    pub fn inode(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).unwrap().ino()
    }
}
