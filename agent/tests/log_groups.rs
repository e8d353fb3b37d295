//! What belongs together and comes apart: entries of several lines, and parts of lines as Docker and the CRI
//! write them, in files that are rotated while the agent is killed at random moments. Each arrives once,
//! whole and in order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Agent, Dice, Fault, StrictLoki};

const LONG: Duration = Duration::from_secs(90);
/// Bytes of text in each part of a line but its last.
const DOCKER_PART: usize = 16 << 10;
const TIME: &str = "2026-03-01T10:00:00";

/// How lines stand in a log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Docker,
    Cri,
}

/// One log, written piece by piece: a piece is a line of a file, and not all of an entry.
struct Log {
    kind: Kind,
    path: PathBuf,
    file: File,
    entries: Vec<String>,
    /// Of the last entry, in turn.
    left: Vec<String>,
    /// Each record has its own time.
    pieces: u32,
    rotations: u64,
    /// How many entries had been begun at each rotation.
    rotated: Vec<usize>,
}

fn create(path: &PathBuf) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

impl Log {
    fn new(kind: Kind, path: PathBuf) -> Log {
        let file = create(&path);
        let (entries, left, rotated) = Default::default();
        Log { kind, path, file, entries, left, pieces: 0, rotations: 0, rotated }
    }

    fn begin(&mut self, dice: &mut Dice) {
        let number = self.entries.len();
        // Docker's parts are long, and 64 KiB the longest line.
        let count = match self.kind {
            Kind::Docker if dice.roll(12) > 0 => 1,
            Kind::Docker => 1 + dice.roll(4),
            _ => 1 + dice.roll(6),
        };
        let pieces = (0..count).map(|piece| match (self.kind, piece) {
            (Kind::Lines, 0) => format!("S {number}"),
            (Kind::Lines, _) => {
                format!("  {number} {piece} {}", "x".repeat(dice.roll(300) as usize))
            }
            (Kind::Docker, _) if piece + 1 < count => {
                let text = format!("{number}.{piece}:");
                format!("{text}{}", "z".repeat(DOCKER_PART - text.len()))
            }
            _ => format!("{number}.{piece}:{};", "y".repeat(dice.roll(300) as usize)),
        });
        let pieces: Vec<String> = pieces.collect();
        self.entries.push(pieces.join(if self.kind == Kind::Lines { "\n" } else { "" }));
        self.left = pieces;
        self.left.reverse();
    }

    /// Writes one piece.
    fn piece(&mut self, dice: &mut Dice) {
        if self.left.is_empty() {
            self.begin(dice);
        }
        let Some(text) = self.left.pop() else { return };
        let is_last = self.left.is_empty();
        self.pieces += 1;
        let time = format!("{TIME}.{:09}Z", self.pieces);
        let line = match self.kind {
            Kind::Lines => format!("{text}\n"),
            Kind::Docker => {
                let end = if is_last { "\\n" } else { "" };
                format!("{{\"log\":\"{text}{end}\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
            }
            Kind::Cri => format!("{time} stdout {} {text}\n", if is_last { 'F' } else { 'P' }),
        };
        self.file.write_all(line.as_bytes()).unwrap();
    }

    fn rename(&mut self) {
        self.rotations += 1;
        self.rotated.push(self.entries.len());
        let aside = format!("{}.{}", self.path.display(), 20_260_301_000_000 + self.rotations);
        fs::rename(&self.path, aside).unwrap();
        self.file = create(&self.path);
    }

    /// The end of all: nothing is open any more, and a last entry says so.
    fn end(&mut self, dice: &mut Dice) {
        while !self.left.is_empty() {
            self.piece(dice);
        }
        if self.kind == Kind::Lines {
            self.file.write_all(b"S end\n").unwrap();
        }
    }

    fn arrived(&self, loki: &StrictLoki) -> Vec<String> {
        loki.lines(&[("filename", &self.path.display().to_string()), ("instance", "box")])
    }
}

fn write(mut logs: Vec<Log>, mut dice: Dice, stop: &AtomicBool) -> (Vec<Log>, Dice) {
    while !stop.load(Ordering::SeqCst) {
        for log in &mut logs {
            for _ in 0..dice.roll(12) {
                log.piece(&mut dice);
            }
            // In the middle of an entry, mostly.
            if dice.roll(60) == 0 {
                log.rename();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    logs.iter_mut().for_each(|log| log.end(&mut dice));
    (logs, dice)
}

#[test]
fn what_belongs_together_arrives_together_and_once_past_rotations_and_kills() {
    let mut dice = Dice::new(20_260_601);
    let mut loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut agent = Agent::new("");
    let folder = agent.path("logs");
    fs::create_dir(&folder).unwrap();
    let at = |name: &str| folder.join(name);
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"5s\"\nlog = {{ level = \"warn\" }}\n\
         [probes]\ndefault = \"off\"\n\
         [metrics.collectors]\nonly = [\"time\"]\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"0s\"\nmax_rate = \"64MiB\"\nmax_entry_age = \"off\"\n\
         backoff = {{ min = \"20ms\", max = \"200ms\" }}\n\
         [[logs.file]]\npaths = [{:?}]\nmultiline = {{ start = '^S', max_wait = \"60s\" }}\n\
         [[logs.file]]\npaths = [{:?}]\nformat = \"docker\"\n\
         [[logs.file]]\npaths = [{:?}]\nformat = \"cri\"\n",
        loki.url(),
        at("lines.log"),
        at("docker.log"),
        at("cri.log"),
    ));
    let kinds = [("lines.log", Kind::Lines), ("docker.log", Kind::Docker), ("cri.log", Kind::Cri)];
    let logs: Vec<Log> = kinds.map(|(name, kind)| Log::new(kind, at(name))).into();
    let stop = Arc::new(AtomicBool::new(false));
    agent.start();
    let (heard, chances) = (Arc::clone(&stop), Dice::new(7));
    let writer = std::thread::spawn(move || write(logs, chances, &heard));
    let (mut kills, mut outage) = (0, false);
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        let life = if dice.roll(3) == 0 { dice.millis(5, 600) } else { dice.millis(900, 2_500) };
        std::thread::sleep(life);
        if dice.roll(2) == 0 {
            loki.script(match dice.roll(3) {
                0 => Fault::status(500).body("tired"),
                1 => Fault::close(),
                _ => Fault::accept_then_lose_answer(),
            });
        }
        agent.kill();
        kills += 1;
        if std::mem::replace(&mut outage, false) {
            loki.start();
        } else if dice.roll(3) == 0 {
            loki.stop();
            outage = true;
        }
        agent.spawn();
    }
    if outage {
        loki.start();
    }
    stop.store(true, Ordering::SeqCst);
    let (logs, _) = writer.join().unwrap();
    agent.wait("the last of each", LONG, |_| {
        logs.iter().all(|log| log.arrived(&loki).last() == log.entries.last())
    });
    assert!(agent.terminate().0.success());
    loki.assert_clean();
    let mut told = Vec::new();
    for log in &logs {
        let got = log.arrived(&loki);
        let name = log.path.file_name().unwrap().to_str().unwrap().to_owned();
        let other = log.entries.iter().zip(&got).position(|(a, b)| a != b);
        if let Some(at) = other {
            panic!(
                "{name}: entry {at} of {} is {:?} and not {:?}; {} arrived; rotated at {:?}; the last log: {}",
                log.entries.len(),
                got[at],
                log.entries[at],
                got.len(),
                log.rotated,
                agent.log()
            );
        }
        assert_eq!(got.len(), log.entries.len(), "{name}");
        assert!(log.rotations > 5, "{name}: {} rotations", log.rotations);
        told.push((name, got.len(), log.rotations));
    }
    println!("{kills} kills; (entries, rotations): {told:?}; {} repeats", loki.repeats());
    assert!(kills >= 5, "{kills}");
}
