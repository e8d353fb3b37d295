//! 20,000 lines a second into logs that are rotated by rename, by copytruncate and by deletion, an agent
//! that is killed at random moments and started again, and a Loki that fails at times: each line arrives
//! once and in order.
//!
//! What may be missing, and is named here by the one writer, which knows what it did:
//! - **copytruncate's race**: lines that were written between the copy and the truncation. Nobody else
//!   has them any more;
//! - **deletion's race**: the end of a log that was deleted while no agent had it open, or one that was
//!   killed before it had read it: a suffix of what that file held, and only if an agent was killed
//!   between shortly before the deletion and the end of its reading.
//!
//! What is missing although an agent had seen it, that agent has counted (`lost_bytes`, `lost_files`); a
//! killed one's counts are gone with it, so they are held against what is missing where nobody is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use support::{Agent, Dice, Fault, StrictLoki};

const SECONDS: u64 = 12;
const LINES_PER_SECOND: u64 = 20_000;
const LONG: Duration = Duration::from_secs(90);
/// An agent that lives from here before a deletion has the file open, and to here after it has read it:
/// on a machine that does other things as well.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);
const SEED: u64 = 20_260_401;

/// One log, and what its writer did to it.
struct Log {
    path: PathBuf,
    file: File,
    /// The next line's number, and the first one in the file.
    next: u64,
    first: u64,
    rotations: u64,
    /// Lines between a copy and its truncation.
    raced: BTreeSet<u64>,
    /// What was in deleted files, and when they were deleted.
    deleted: Vec<(Range<u64>, Instant)>,
    /// What was done to it, when (since 1970), and which line came next.
    history: Vec<(&'static str, Duration, u64)>,
}

impl Log {
    fn new(path: PathBuf) -> Log {
        let file = create(&path);
        let (raced, deleted, history) = Default::default();
        Log { path, file, next: 0, first: 0, rotations: 0, raced, deleted, history }
    }

    fn note(&mut self, what: &'static str) {
        self.history.push((what, std::time::UNIX_EPOCH.elapsed().unwrap(), self.next));
    }

    /// What was done around these lines.
    fn tell(&self, lines: &[u64]) -> String {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return String::new() };
        let start = self.history.partition_point(|(.., next)| next < first).saturating_sub(4);
        let mut text = format!("{first}..={last}, {} lines:", lines.len());
        for (what, at, next) in self.history.iter().skip(start).take_while(|h| h.2 <= last + 4000) {
            text.push_str(&format!(" {at:?} {what} @{next};"));
        }
        text
    }

    /// Whole lines in one piece, as programs write them.
    fn write(&mut self, lines: u64) {
        let mut text = String::new();
        for _ in 0..lines {
            let line = self.next;
            text.push_str(&text_of(line));
            self.next += 1;
        }
        self.file.write_all(text.as_bytes()).unwrap();
    }

    fn aside(&mut self) -> PathBuf {
        self.rotations += 1;
        // No name is used again: what is deleted unread is the matter of `delete`.
        let stamp = 20_260_301_000_000 + self.rotations;
        PathBuf::from(format!("{}-{stamp}", self.path.display()))
    }

    fn rename(&mut self, late: u64) {
        let aside = self.aside();
        self.note("rename");
        fs::rename(&self.path, aside).unwrap();
        let new = create(&self.path);
        // The writer notices later than the new file is there.
        self.write(late);
        self.file = new;
        self.note("renamed");
        self.first = self.next;
    }

    fn copy_truncate(&mut self, between: u64) {
        let aside = self.aside();
        self.note("copy");
        fs::copy(&self.path, aside).unwrap();
        self.note("copied");
        self.raced.extend(self.next..self.next + between);
        self.write(between);
        self.file.set_len(0).unwrap();
        self.note("truncated");
        self.first = self.next;
    }

    fn delete(&mut self) {
        self.rotations += 1;
        fs::remove_file(&self.path).unwrap();
        self.note("deleted");
        self.deleted.push((self.first..self.next, Instant::now()));
        self.file = create(&self.path);
        self.first = self.next;
    }
}

fn text_of(line: u64) -> String {
    format!("line {line} {}\n", "x".repeat((line % 50) as usize))
}

fn create(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

/// What the writer is told.
#[derive(Default)]
struct Told {
    rotate: AtomicBool,
    stop: AtomicBool,
}

/// Writes until it is told to stop; which logs, and how long it took.
fn write(mut logs: Vec<Log>, mut dice: Dice, told: &Told) -> (Vec<Log>, Duration) {
    let start = Instant::now();
    let mut written = 0;
    while !told.stop.load(Ordering::SeqCst) {
        let due = start.elapsed().as_micros() as u64 * LINES_PER_SECOND / 1_000_000;
        while written < due {
            let at = dice.roll(logs.len() as u64) as usize;
            let lines = 1 + dice.roll(40);
            logs[at].write(lines);
            written += lines;
        }
        // Some six rotations a second.
        if told.rotate.load(Ordering::SeqCst) && dice.roll(50) == 0 {
            let at = dice.roll(logs.len() as u64) as usize;
            let kind = if at < 2 { at as u64 } else { dice.roll(3) };
            let log = &mut logs[at];
            match kind {
                0 => log.rename(dice.roll(60)),
                1 => log.copy_truncate(dice.roll(3)),
                _ => log.delete(),
            }
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    (logs, start.elapsed())
}

/// A process of the agent.
struct Life {
    ready: Option<Instant>,
    end: Option<Instant>,
    lost_files: u64,
    lost_bytes: u64,
}

fn observe(agent: &Agent, life: &mut Life) {
    let Some(status) = agent.try_status() else { return };
    life.ready.get_or_insert_with(Instant::now);
    let counts = &status["sources"][0]["counts"];
    life.lost_files = counts["lost_files"].as_u64().unwrap_or(life.lost_files);
    life.lost_bytes = counts["lost_bytes"].as_u64().unwrap_or(life.lost_bytes);
}

fn configure(agent: &Agent, loki: &StrictLoki, folder: &Path) {
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"5s\"\nlog = {{ level = \"warn\" }}\n\
         [probes]\ndefault = \"off\"\n\
         [metrics.collectors]\nonly = [\"time\"]\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"0s\"\nmax_rate = \"64MiB\"\n\
         backoff = {{ min = \"20ms\", max = \"200ms\" }}\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
        loki.url(),
        folder.display()
    ));
}

/// The numbers of the lines of a log that arrived.
fn lines(loki: &StrictLoki, path: &Path) -> Vec<u64> {
    let filename = path.display().to_string();
    let lines = loki.lines(&[("filename", filename.as_str()), ("job", "test")]);
    lines.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

/// One flood at a time: an agent that gets half a core can't keep up with rotations that go by the clock.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_flood_that_is_rotated_in_every_way_past_an_agent_that_dies_arrives_once_and_in_order() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut dice = Dice::new(SEED);
    let mut loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut agent = Agent::new("");
    let folder = agent.path("logs");
    fs::create_dir(&folder).unwrap();
    configure(&agent, &loki, &folder);
    let names = ["renamed.log", "truncated.log", "mixed.log"];
    let logs: Vec<Log> = names.iter().map(|name| Log::new(folder.join(name))).collect();
    let paths: Vec<PathBuf> = logs.iter().map(|log| log.path.clone()).collect();
    let told = Arc::new(Told::default());
    let chances = Dice::new(SEED ^ 0x5555);
    let heard = Arc::clone(&told);
    let writer = std::thread::spawn(move || write(logs, chances, &heard));

    let mut lives: Vec<Life> = Vec::new();
    let mut outage = false;
    // What was rotated before anybody has read a line of it is nobody's.
    agent.start();
    agent.wait("lines of all", LONG, |_| paths.iter().all(|path| !lines(&loki, path).is_empty()));
    told.rotate.store(true, Ordering::SeqCst);
    agent.kill();
    let end = Instant::now() + Duration::from_secs(SECONDS);
    while Instant::now() < end {
        agent.spawn();
        lives.push(Life { ready: None, end: None, lost_files: 0, lost_bytes: 0 });
        let life = lives.last_mut().unwrap();
        // One in three is killed at its start or in its first work.
        let long = if dice.roll(3) == 0 { dice.millis(5, 600) } else { dice.millis(1_000, 3_500) };
        let until = (Instant::now() + long).min(end);
        while Instant::now() < until {
            observe(&agent, life);
            if dice.roll(4) == 0 {
                loki.script(match dice.roll(12) {
                    0 => Fault::status(429).body("slower"),
                    1..5 => Fault::status(500).body("tired"),
                    5..9 => Fault::close(),
                    _ => Fault::accept_then_lose_answer(),
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        if Instant::now() < end {
            agent.kill();
            life.end = Some(Instant::now());
            if !std::mem::replace(&mut outage, true) {
                loki.stop();
            } else {
                loki.start();
                outage = false;
            }
        }
    }
    told.stop.store(true, Ordering::SeqCst);
    let (logs, took) = writer.join().unwrap();
    if lives.last().unwrap().end.is_some() {
        // The time was over while it was killed.
        agent.spawn();
        lives.push(Life { ready: None, end: None, lost_files: 0, lost_bytes: 0 });
    }
    if outage {
        loki.start();
    }
    // The last line of each is in a file that nobody rotates any more.
    let mut logs = logs;
    logs.iter_mut().for_each(|log| log.write(1));
    let life = lives.last_mut().unwrap();
    agent.wait("the last lines", LONG, |agent| {
        observe(agent, life);
        logs.iter().all(|log| lines(&loki, &log.path).contains(&(log.next - 1)))
    });
    assert!(agent.terminate().0.success());
    loki.assert_clean();

    let total: u64 = logs.iter().map(|log| log.next).sum();
    let rate = total as f64 / took.as_secs_f64();
    assert!(rate > 0.5 * LINES_PER_SECOND as f64, "the writer had {rate:.0} lines a second only");
    let mut report = BTreeMap::new();
    for log in &logs {
        let name = log.path.file_name().unwrap().to_str().unwrap();
        let got = lines(&loki, &log.path);
        let twisted = got.windows(2).find(|pair| pair[0] >= pair[1]);
        if let Some(&[before, after]) = twisted {
            eprintln!("{}", agent.log());
            let around = log.tell(&[after.min(before), before.max(after)]);
            panic!("{name}: {after} after {before}, twice or out of order: {around}");
        }
        let got: BTreeSet<u64> = got.into_iter().collect();
        let missing: Vec<u64> = (0..log.next).filter(|line| !got.contains(line)).collect();
        let (mut raced, mut deleted) = (0, 0);
        for &line in &missing {
            if log.raced.contains(&line) {
                raced += 1;
                continue;
            }
            let within = log.deleted.iter().find(|(range, _)| range.contains(&line));
            let Some((range, at)) = within else {
                eprintln!("{}", agent.log());
                let around = log.tell(&[line]);
                panic!(
                    "{name}: line {line} of {} is lost, and {} more: {around}",
                    log.next,
                    missing.len()
                );
            };
            let later = (line..range.end).find(|line| got.contains(line));
            assert_eq!(later, None, "{name}: {line} is missing in the middle of a deleted file");
            let safe = lives.iter().any(|life| {
                life.ready.is_some_and(|ready| ready + BEFORE < *at)
                    && life.end.is_none_or(|end| *at + AFTER < end)
            });
            assert!(!safe, "{name}: {line} was in a deleted file that an agent had open");
            deleted += 1;
        }
        report.insert(name, (log.next, log.rotations, raced, deleted));
    }
    let kills = lives.len() - 1;
    let lost_files: u64 = lives.iter().map(|life| life.lost_files).sum();
    let lost_bytes: u64 = lives.iter().map(|life| life.lost_bytes).sum();
    println!(
        "{total} lines, {rate:.0} a second; {kills} kills; (lines, rotations, lost to copytruncate's \
         race, to deletion's): {report:?}; the agents counted {lost_files} files and {lost_bytes} bytes \
         as lost; {} repeats",
        loki.repeats()
    );
    assert!(kills >= 3, "{kills}");
    // Who renames loses nothing at all.
    assert_eq!((report["renamed.log"].2, report["renamed.log"].3), (0, 0));
}

#[test]
fn an_agent_that_nobody_kills_loses_and_counts_no_more_than_copytruncate_takes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let loki = StrictLoki::new();
    let mut agent = Agent::new("");
    let folder = agent.path("logs");
    fs::create_dir(&folder).unwrap();
    configure(&agent, &loki, &folder);
    let names = ["renamed.log", "truncated.log", "mixed.log"];
    let logs: Vec<Log> = names.iter().map(|name| Log::new(folder.join(name))).collect();
    let paths: Vec<PathBuf> = logs.iter().map(|log| log.path.clone()).collect();
    let told = Arc::new(Told::default());
    let (heard, chances) = (Arc::clone(&told), Dice::new(SEED));
    let writer = std::thread::spawn(move || write(logs, chances, &heard));
    agent.start();
    agent.wait("lines of all", LONG, |_| paths.iter().all(|path| !lines(&loki, path).is_empty()));
    told.rotate.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(6));
    told.stop.store(true, Ordering::SeqCst);
    let (mut logs, _) = writer.join().unwrap();
    logs.iter_mut().for_each(|log| log.write(1));
    let mut life = Life { ready: None, end: None, lost_files: 0, lost_bytes: 0 };
    agent.wait("the last lines", LONG, |_| {
        logs.iter().all(|log| lines(&loki, &log.path).contains(&(log.next - 1)))
    });
    observe(&agent, &mut life);
    assert!(agent.terminate().0.success());
    loki.assert_clean();
    let mut missing_bytes = 0;
    for log in &logs {
        let got: BTreeSet<u64> = lines(&loki, &log.path).into_iter().collect();
        let missing = (0..log.next).filter(|line| !got.contains(line));
        let (raced, other): (Vec<u64>, Vec<u64>) = missing.partition(|l| log.raced.contains(l));
        if !other.is_empty() {
            eprintln!("{}", agent.log());
        }
        assert!(other.is_empty(), "{}: lost {}", log.path.display(), log.tell(&other));
        missing_bytes += raced.iter().map(|line| text_of(*line).len() as u64).sum::<u64>();
    }
    let rotations: u64 = logs.iter().map(|log| log.rotations).sum();
    let lost = life.lost_bytes;
    println!("{rotations} rotations; {missing_bytes} bytes missing, {lost} of them counted");
    assert_eq!(life.lost_files, 0);
    assert!(lost <= missing_bytes, "{lost} bytes counted as lost, {missing_bytes} missing");
}
