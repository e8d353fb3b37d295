//! What reads containers' logs by the API, and what a WAL would have kept of them.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by several test programs"
)]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mote::host::{Endpoint, ManualClock, Roots};
use mote::logs::docker::{DockerSource, Limits, Options, Read};
use mote::logs::{Progress, Source};
use mote::model::{Block, Labels};
use tokio::time::{Instant, timeout};

use super::support::Dockerd;
use super::support::dockerd::START;

pub type Positions = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub labels: Labels,
    pub time_ns: i64,
    pub line: String,
    pub partial: bool,
}

impl Entry {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).unwrap_or_default()
    }
}

pub struct Reader {
    pub source: DockerSource,
    pub options: Options,
    pub limits: Limits,
    pub positions: Positions,
    pub entries: Vec<Entry>,
    pub limit: usize,
}

pub fn limits() -> Limits {
    Limits {
        timeout: Duration::from_millis(300),
        pause: (Duration::from_millis(5), Duration::from_millis(50)),
        poll: Duration::from_millis(50),
        ..Limits::default()
    }
}

pub fn options(daemon: &Dockerd) -> Options {
    let hosts = vec![Endpoint::parse(&daemon.host()).unwrap()];
    Options { hosts, read: Read::Api, ..Options::default() }
}

pub fn build(options: &Options, positions: &Positions, limits: Limits) -> DockerSource {
    let clock = Rc::new(ManualClock::at(START + 3_600_000_000_000));
    DockerSource::with_limits(options.clone(), positions, clock, &Roots::default(), limits)
}

impl Reader {
    pub fn new(options: Options, limits: Limits) -> Reader {
        let positions = Positions::new();
        let source = build(&options, &positions, limits);
        Reader { source, options, limits, positions, entries: Vec::new(), limit: 64 << 10 }
    }

    /// As after a SIGKILL: only what was stored is known.
    pub fn restart(&mut self) {
        self.source = build(&self.options, &self.positions, self.limits);
    }

    pub fn read(&mut self) -> Progress {
        let mut block = Block::new();
        let progress = self.source.read(&mut block, self.limit);
        // At most a message more than it should be.
        assert!(block.size() <= self.limit + (1 << 16) + 2 * 128, "{}", block.size());
        for entry in block.entries() {
            self.entries.push(Entry {
                labels: block.streams()[usize::from(entry.stream.0)].clone(),
                time_ns: entry.timestamp_ns,
                line: entry.line.to_owned(),
                partial: entry.partial,
            });
        }
        for position in block.positions() {
            match position.position {
                [] => self.positions.remove(position.key),
                bytes => self.positions.insert(position.key.to_owned(), bytes.to_vec()),
            };
        }
        progress
    }

    /// Reads until a condition holds.
    pub async fn until(&mut self, what: &str, condition: impl Fn(&Reader) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            while self.read() == Progress::More {}
            if condition(self) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {} entries", self.entries.len());
            let _ = timeout(Duration::from_millis(20), self.source.ready()).await;
        }
    }

    pub async fn lines(&mut self, count: usize) {
        self.until(&format!("{count} lines"), |reader| reader.entries.len() >= count).await;
    }

    /// Reads for a while, in which nothing more may come.
    pub async fn no_more(&mut self) {
        let before = self.entries.len();
        let end = Instant::now() + Duration::from_millis(150);
        while Instant::now() < end {
            let _ = timeout(Duration::from_millis(10), self.source.ready()).await;
            self.read();
        }
        assert_eq!(self.entries[before..], []);
    }

    pub fn of(&self, container: &str, stream: &str) -> Vec<String> {
        let of = |e: &&Entry| e.label("container") == container && e.label("stream") == stream;
        self.entries.iter().filter(of).map(|entry| entry.line.clone()).collect()
    }
}

pub fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|line| format!("line {line}")).collect()
}
