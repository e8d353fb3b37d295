//! One container's log, what reads it, and what a WAL would have kept of it.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "of a test program")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use mote::host::ManualClock;
use mote::logs::docker::disk::{self, CRI, Container, DiskContainers, JSON_FILE, LOCAL};
use mote::logs::file::Limits;
use mote::logs::{Progress, Source};
use mote::model::{Block, Labels};

use super::docker_engine::{Driver, Engine};

pub const LIMIT: usize = 64 << 10;
pub const MAX_LINE: usize = 64 << 10;
pub const QUIET: Duration = Duration::from_secs(11);
pub const ALL: [Driver; 3] = [Driver::JsonFile, Driver::Local, Driver::Cri];

/// One line as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub stream: Option<String>,
    pub text: String,
    pub time_ns: i64,
    pub partial: bool,
    pub malformed: Option<String>,
}

/// One container, what reads it, and what a WAL would have kept.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub container: Container,
    pub limits: Limits,
    pub disk: DiskContainers,
    pub positions: BTreeMap<String, Vec<u8>>,
    pub lines: Vec<Line>,
}

impl Bench {
    pub fn new(driver: Driver) -> (Bench, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let id = "c0ffee".to_owned();
        let folder = dir.path().join("containers").join(&id);
        let (path, format) = match driver {
            Driver::JsonFile => (folder.join(format!("{id}-json.log")), JSON_FILE),
            Driver::Local => (folder.join("local-logs/container.log"), LOCAL),
            Driver::Cri => (folder.join("userdata/ctr.log"), CRI),
        };
        if driver == Driver::Local {
            assert_eq!(path.to_str(), Some(&*disk::local_path(dir.path().to_str().unwrap(), &id)));
        }
        let engine = Engine::new(driver, &path);
        let labels = Labels::from_pairs([("container", "web")]).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let container = Container { id, path, format, labels, max_line: MAX_LINE };
        // The kernel frees inotify instances late, and has 128 for each user.
        let limits = Limits { watch: false, ..disk::limits() };
        let disk = source(&BTreeMap::new(), limits);
        let (positions, lines) = Default::default();
        let mut bench = Bench { dir, container, limits, disk, positions, lines };
        bench.disk.add(&bench.container).unwrap();
        (bench, engine)
    }

    pub fn read_once(&mut self, limit: usize, commit: bool) -> Progress {
        let mut block = Block::new();
        let progress = self.disk.read(&mut block, limit);
        if !commit {
            return progress;
        }
        for entry in block.entries() {
            let labels = &block.streams()[usize::from(entry.stream.0)];
            assert_eq!(labels.get("__source__"), Some("docker"));
            assert_eq!(labels.get("container"), Some("web"));
            self.lines.push(Line {
                stream: labels.get("stream").map(str::to_owned),
                text: entry.line.to_owned(),
                time_ns: entry.timestamp_ns,
                partial: entry.partial,
                malformed: entry.metadata.get("malformed").map(str::to_owned),
            });
        }
        for position in block.positions() {
            assert!(position.key.starts_with(disk::KEY_PREFIX));
            if position.position.is_empty() {
                self.positions.remove(position.key);
            } else {
                self.positions.insert(position.key.to_owned(), position.position.to_owned());
            }
        }
        progress
    }

    /// Reads and commits all there is: the new lines.
    pub fn read(&mut self) -> Vec<Line> {
        let from = self.lines.len();
        while self.read_once(LIMIT, true) == Progress::More {}
        self.lines[from..].to_vec()
    }

    pub fn texts(&mut self) -> Vec<String> {
        self.read().into_iter().map(|line| line.text).collect()
    }

    pub fn restart(&mut self) {
        self.disk = source(&self.positions, self.limits);
        self.disk.add(&self.container).unwrap();
    }

    pub fn count(&self, name: &str) -> u64 {
        let mut found = None;
        self.disk.counts(&mut |have, count| found = found.or((have == name).then_some(count)));
        found.unwrap()
    }

    /// The lines of a stream with their parts joined.
    pub fn joined(&self, stream: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut text = String::new();
        for line in self.lines.iter().filter(|line| line.stream.as_deref() == Some(stream)) {
            text.push_str(&line.text);
            if !line.partial {
                lines.push(std::mem::take(&mut text));
            }
        }
        assert_eq!(text, "", "a part without an end");
        lines
    }
}

pub fn source(positions: &BTreeMap<String, Vec<u8>>, limits: Limits) -> DiskContainers {
    DiskContainers::new(positions, Rc::new(ManualClock::at(5)), limits)
}

pub fn append(path: &str, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// A repeatable source of chances (xorshift).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
