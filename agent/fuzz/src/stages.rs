//! Foreign stages, foreign entries and foreign positions of held entries.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mote::config;
use mote::logs::stage::{KEY_PREFIX, Selector, Setup, Stages};
use mote::model::{Block, Labels};
use tokio::time::Instant;

use super::bytes::Input;

const NOW: i64 = 1_700_000_000_000_000_000;

struct Entry {
    labels: Labels,
    timestamp_ns: i64,
    line: String,
    metadata: Vec<(String, String)>,
    partial: bool,
    /// The block ends behind it.
    ends: bool,
}

type Stored = Vec<(Labels, i64, String, Vec<(String, String)>)>;

/// Stages and what is stored behind them.
struct Bench {
    stages: Stages,
    positions: BTreeMap<String, Vec<u8>>,
    stored: Stored,
}

impl Bench {
    fn new(setup: &Setup, positions: BTreeMap<String, Vec<u8>>, now: Instant) -> Bench {
        Bench { stages: Stages::new(setup, &positions, now), positions, stored: Vec::new() }
    }

    fn run(&mut self, mut block: Block, now: Instant) {
        self.stages.run(&mut block, NOW, now);
        for entry in block.entries() {
            let labels = &block.streams()[usize::from(entry.stream.0)];
            assert!(!labels.is_empty() && labels.len() <= 15, "{labels}");
            assert!(
                labels.iter().all(|(name, value)| !name.starts_with("__") && value.len() <= 2048)
            );
            assert!(!entry.partial && entry.metadata.len() <= 128);
            let pairs = entry.metadata.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            self.stored.push((labels.clone(), entry.timestamp_ns, entry.line.to_owned(), pairs));
        }
        for position in block.positions() {
            assert!(position.key.starts_with(KEY_PREFIX));
            match position.position {
                [] => drop(self.positions.remove(position.key)),
                bytes => drop(self.positions.insert(position.key.to_owned(), bytes.to_vec())),
            }
        }
    }

    /// Until nothing is held.
    fn finish(&mut self, mut now: Instant) {
        // A group goes on to each stage behind its own at most once.
        for _ in 0..1_000 {
            let Some(due) = self.stages.due() else {
                assert!(self.positions.is_empty(), "{:?}", self.positions);
                return;
            };
            now = now.max(due);
            self.run(Block::new(), now);
        }
        panic!("what is held never goes");
    }
}

fn entry(input: &mut Input<'_>) -> Entry {
    let flags = input.u8();
    let mut labels = Labels::new();
    labels.set("__source__", "file");
    labels.set("n", (flags & 3).to_string());
    if flags & 4 != 0 {
        labels.set("level", input.text());
    }
    let pair = (flags & 8 != 0).then(|| (input.text(), input.text()));
    Entry {
        labels,
        timestamp_ns: NOW - i64::from(input.u8()) * 100_000_000,
        line: input.text(),
        metadata: pair.into_iter().collect(),
        partial: flags & 16 != 0,
        ends: flags & 32 != 0,
    }
}

/// `[configuration, with its length, u16][a selector][a held position][entries]`: blocks may be cut
/// anywhere without a difference, a restart between any two of them does no harm, and what is held goes.
pub fn stages(data: &[u8]) {
    let mut input = Input(data);
    let text = String::from_utf8_lossy(input.long()).into_owned();
    if let Ok(selector) = Selector::parse(&input.text()) {
        selector.matches(&Labels::new());
    }
    let held = input.short();
    // Nothing but stages: other sections read files and variables.
    if !text.starts_with("[[logs.stage]]") || text.contains("file") || text.contains('$') {
        return;
    }
    let Ok(config) = config::parse(&text, Path::new("mote.toml"), &[]) else { return };
    let setup = config.logs.stages;
    let mut entries = Vec::new();
    while !input.is_empty() && entries.len() < 100 {
        entries.push(entry(&mut input));
    }
    let now = Instant::now();
    let run = |cut: bool, restart: bool, positions: BTreeMap<String, Vec<u8>>| {
        let mut bench = Bench::new(&setup, positions, now);
        let mut block = Block::new();
        for entry in &entries {
            let stream = block.stream(&entry.labels).expect("there are few");
            let pairs = entry.metadata.iter().map(|(name, value)| (name, value));
            block.push_with(stream, entry.timestamp_ns, &entry.line, pairs);
            if entry.partial {
                block.set_partial();
            }
            if cut && entry.ends {
                bench.run(std::mem::take(&mut block), now);
                if restart {
                    bench.stages = Stages::new(&setup, &bench.positions, now);
                }
            }
        }
        bench.run(block, now);
        bench.finish(now + Duration::from_secs(1));
        bench.stored
    };
    assert!(run(false, false, BTreeMap::new()) == run(true, false, BTreeMap::new()));
    run(true, true, BTreeMap::from([(format!("{KEY_PREFIX}1"), held.to_vec())]));
}
