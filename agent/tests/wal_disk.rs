//! Real trouble with the disk under a running agent: full, read-only, taken away, deleted, too small. It
//! goes on collecting and delivering, says so once, loses nothing that fits its buffer in memory, and
//! goes on on disk when it can.
//!
//! What has to arrive is what the agent showed while it ran ([`Watch`]) and the lines that the test has
//! written. Needs root, for file systems of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Agent, Fault, StrictLoki, StrictMimir, Volume, Watch};

const LONG: Duration = Duration::from_secs(60);

/// A block has room for some dozens of rounds.
const NOTICED: Duration = Duration::from_secs(150);

/// From an answer to the cursor's write, on a machine that does other things as well.
const SETTLED: Duration = Duration::from_millis(250);

/// An agent between a disk, log files and two servers.
struct Field {
    // Dropped in this order.
    watch: Watch,
    agent: Agent,
    mimir: StrictMimir,
    loki: StrictLoki,
    volume: Option<Volume>,
    lines: u32,
}

impl Field {
    /// With its state on the volume, if there is one. `wal` are more keys of `[wal]`.
    fn new(volume: Option<Volume>, wal: &str) -> Field {
        let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
        let agent = Agent::new("");
        if let Some(volume) = &volume {
            std::os::unix::fs::symlink(volume.path(), agent.path("state")).unwrap();
        }
        fs::create_dir(agent.path("logs")).unwrap();
        let watch = Watch::new(agent.port());
        let field = Field { watch, agent, mimir, loki, volume, lines: 0 };
        field.configure(wal);
        field
    }

    fn configure(&self, wal: &str) {
        let backoff = "backoff = { min = \"50ms\", max = \"300ms\" }";
        self.agent.configure(&format!(
            "instance = \"box\"\ninterval = \"1s\"\nshutdown_timeout = \"1s\"\n\
             [probes]\ndefault = \"off\"\n\
             [wal]\n{wal}\n\
             [[mimir]]\nurl = {:?}\nsend_interval = \"0s\"\n{backoff}\n\
             [[loki]]\nurl = {:?}\nbatch_wait = \"0s\"\n{backoff}\n\
             [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
            self.mimir.url(),
            self.loki.url(),
            self.agent.path("logs").display()
        ));
    }

    fn volume(&mut self) -> &mut Volume {
        self.volume.as_mut().unwrap()
    }

    fn servers(&mut self, up: bool) {
        if up {
            self.mimir.start();
            self.loki.start();
            return;
        }
        // What is stored is answered, so that nothing comes again.
        self.mimir.play(|| Some(Fault::status(503)));
        self.loki.play(|| Some(Fault::status(503)));
        let (mimir, loki) = (&self.mimir, &self.loki);
        wait("the last answers", || mimir.busy() + loki.busy() == 0);
        self.mimir.stop();
        self.loki.stop();
        self.mimir.rest();
        self.loki.rest();
    }

    /// Waits for a moment soon after a round, when cursors are where the answers were.
    fn quiet(&self) {
        let settled = |answered: Vec<Option<Instant>>| {
            let newest = answered.into_iter().flatten().max();
            newest.is_none_or(|at| at.elapsed() > SETTLED)
        };
        wait("a quiet moment", || {
            // Not just before the next one.
            self.watch.rounds().last().is_some_and(|last| now_ms() - last < 800)
                && self.mimir.busy() + self.loki.busy() == 0
                && settled(self.mimir.answered())
                && settled(self.loki.answered())
        });
    }

    /// Lets this many rounds pass, with a few lines in each.
    fn rounds(&mut self, count: usize) {
        let from = self.watch.rounds().len();
        for round in 1..=count {
            self.write_lines(5);
            let watch = &self.watch;
            self.agent.wait("rounds", LONG, |_| watch.rounds().len() >= from + round);
        }
    }

    fn write_lines(&mut self, count: u32) {
        let path = self.agent.path("logs/app.log");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        for line in self.lines..self.lines + count {
            writeln!(file, "{}", text(line)).unwrap();
        }
        self.lines += count;
    }

    fn timestamps(&self) -> Vec<i64> {
        self.mimir.samples("node_time_seconds", &[]).iter().map(|(time, _)| *time).collect()
    }

    fn lines_sent(&self) -> Vec<String> {
        self.loki.lines(&[("job", "test")])
    }

    /// Waits until everything so far has arrived.
    fn arrived(&mut self) {
        let until = *self.watch.rounds().last().unwrap();
        let end = Instant::now() + LONG;
        loop {
            let rounds = self.timestamps();
            let missing = self.watch.missing(0, &rounds);
            let missing = missing.iter().filter(|round| **round <= until).count();
            let lines = self.lines_sent().len();
            if missing == 0 && lines >= self.lines as usize {
                return;
            }
            assert!(
                Instant::now() < end,
                "{missing} rounds and {} lines don't arrive; the log:\n{}",
                self.lines as usize - lines,
                self.agent.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until both WALs say that they fail, or that they don't, in the JSON and as a metric.
    fn failing(&mut self, fails: bool) {
        let end = Instant::now() + NOTICED;
        loop {
            // The page is away for a moment at a reload.
            let (Some(status), Some((_, text))) =
                (self.agent.try_status(), self.agent.get("/metrics"))
            else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let as_wanted = ["metrics", "logs"].iter().enumerate().all(|(at, name)| {
                let metric = format!("mote_wal_failing{{wal=\"{name}\"}} {}", u8::from(fails));
                status["wals"][at]["name"] == *name
                    && status["wals"][at]["failure"].is_string() == fails
                    && text.lines().any(|line| line == metric)
            });
            if as_wanted {
                return;
            }
            assert!(
                Instant::now() < end,
                "fails: {fails} is not what {} says, or mote_wal_failing; the log:\n{}",
                status["wals"],
                self.agent.log()
            );
            // The logs WAL is tried when there is something to write.
            self.write_lines(1);
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What the agent has logged of a WAL since its log had `from` bytes.
    fn said(&self, from: usize, wal: &str) -> Vec<String> {
        let (name, path) = (format!("{wal} WAL"), format!("wal/{wal}"));
        let log = self.agent.log();
        // What recovery finds of a record that the disk has not got whole is told beside it.
        let about = |line: &&str| {
            (line.contains(&name) || line.contains(&path)) && !line.contains("incomplete record")
        };
        log[from..].lines().filter(about).map(str::to_owned).collect()
    }

    /// One line of each WAL at the beginning and one at the end; `ended` is whether it has ended.
    fn said_once(&self, from: usize, ended: bool) {
        for wal in ["metrics", "logs"] {
            let said = self.said(from, wal);
            assert_eq!(said.len(), 1 + usize::from(ended), "{said:#?}");
            assert!(said[0].contains("level=error") || said[0].contains("level=warn"), "{said:#?}");
            assert!(said.get(1).is_none_or(|line| line.contains("again")), "{said:#?}");
        }
    }

    fn wal_files(&self) -> u64 {
        let bytes = |wal: &str| {
            let files = fs::read_dir(self.agent.path("state/wal").join(wal));
            let files =
                files.map(|files| files.map(|file| file.unwrap().metadata().unwrap().len()));
            files.map(Iterator::sum::<u64>).unwrap_or(0)
        };
        bytes("metrics") + bytes("logs")
    }

    /// Ends it: all rounds and lines are there, each once and in order, and nothing was given up.
    fn complete(mut self) {
        self.arrived();
        let status = self.agent.status();
        assert_eq!(status["dropped"], serde_json::json!([]));
        assert!(self.agent.terminate().0.success());
        let rounds = self.timestamps();
        assert_eq!(self.watch.missing(0, &rounds), [0; 0]);
        // Not only what was seen: without a round missing, there is one in each second.
        let seen = self.watch.rounds();
        assert!(rounds.len() >= seen.len(), "{rounds:?}, {seen:?}");
        assert_eq!(self.lines_sent(), lines(0..self.lines));
        assert_eq!((self.mimir.repeats(), self.loki.repeats()), (0, 0));
        self.mimir.assert_clean();
        self.loki.assert_clean();
    }
}

fn wait(what: &str, until: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !until() {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lines(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(text).collect()
}

/// A line that compression makes little of, so that a full disk is soon noticed: files grow by blocks, and
/// what still fits into the last one is written.
fn text(line: u32) -> String {
    let mut noise = u64::from(line);
    let mut text = format!("line {line} ");
    for _ in 0..12 {
        // SplitMix64.
        noise = noise.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (noise ^ (noise >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        text.push_str(&format!("{:016x}", mixed ^ (mixed >> 27)));
    }
    text
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    now.as_millis() as i64
}

/// Everything but the bound under test as it is by default; the volumes are smaller than its 64 MiB.
const SMALL: &str = "min_free = \"0B\"";

#[test]
fn full_disk_stops_neither_collecting_nor_delivering() {
    let mut field = Field::new(Some(Volume::new(8)), SMALL);
    field.agent.start();
    field.rounds(3);
    field.arrived();
    let from = field.agent.log().len();
    field.volume().fill();
    field.failing(true);
    field.rounds(5);
    // While it is full.
    field.arrived();
    field.failing(true);
    field.said_once(from, false);
    field.volume().free();
    field.failing(false);
    field.rounds(3);
    field.said_once(from, true);
    field.arrived();
    // What comes now is on the disk.
    field.servers(false);
    field.rounds(3);
    field.quiet();
    field.agent.kill();
    let on_disk: Vec<i64> = field.agent.rounds().iter().map(|(time, _)| *time).collect();
    let seen: Vec<i64> = field.watch.rounds().iter().rev().take(2).copied().collect();
    assert_eq!(field.watch.missing(seen[1], &on_disk), [0; 0]);
    field.servers(true);
    field.agent.start();
    field.complete();
}

#[test]
fn full_disk_loses_nothing_while_the_servers_are_down_as_well() {
    let mut field = Field::new(Some(Volume::new(8)), SMALL);
    field.agent.start();
    field.rounds(3);
    field.arrived();
    field.servers(false);
    // Some on the disk, others in memory.
    field.rounds(3);
    field.volume().fill();
    field.failing(true);
    field.rounds(8);
    field.servers(true);
    field.arrived();
    // And from memory to the disk.
    field.servers(false);
    let first = now_ms();
    field.rounds(8);
    field.failing(true);
    field.volume().free();
    field.failing(false);
    field.rounds(1);
    field.quiet();
    field.agent.kill();
    let on_disk: Vec<i64> = field.agent.rounds().iter().map(|(time, _)| *time).collect();
    assert_eq!(field.watch.missing(first, &on_disk), [0; 0], "{on_disk:?}");
    field.servers(true);
    field.agent.start();
    field.complete();
}

#[test]
fn disk_that_turns_read_only_still_gives_its_backlog() {
    let mut field = Field::new(Some(Volume::new(8)), SMALL);
    field.agent.start();
    field.rounds(2);
    field.arrived();
    field.servers(false);
    field.rounds(4);
    let from = field.agent.log().len();
    field.volume().turn_read_only();
    field.failing(true);
    field.rounds(4);
    field.servers(true);
    // Both from the disk and from memory, while nothing can be written.
    field.arrived();
    field.rounds(2);
    field.arrived();
    field.said_once(from, false);
    field.volume().replace();
    field.failing(false);
    field.rounds(2);
    field.said_once(from, true);
    field.complete();
}

#[test]
fn start_on_a_read_only_disk_delivers_its_backlog() {
    let mut field = Field::new(Some(Volume::new(8)), SMALL);
    field.agent.start();
    field.rounds(2);
    field.arrived();
    field.servers(false);
    field.rounds(4);
    assert!(field.agent.terminate().0.success());
    field.volume().remount("ro");
    field.servers(true);
    let from = field.agent.log().len();
    field.agent.start();
    field.failing(true);
    field.arrived();
    field.rounds(3);
    field.arrived();
    for wal in ["metrics", "logs"] {
        let said = field.said(from, wal);
        assert_eq!(said.iter().filter(|line| !line.contains("level=info")).count(), 1, "{said:#?}");
    }
    field.volume().remount("rw");
    field.failing(false);
    field.rounds(2);
    field.complete();
}

/// Takes the WALs' files away in `take`, while some of them are not sent: those alone may be lost.
fn without_its_files(mut field: Field, take: impl FnOnce(&mut Field) -> PathBuf) {
    field.agent.start();
    field.rounds(3);
    field.arrived();
    let sent = (*field.watch.rounds().last().unwrap(), field.lines);
    field.servers(false);
    field.rounds(3);
    let from = field.agent.log().len();
    field.quiet();
    let new = take(&mut field);
    let (taken, first) = (now_ms(), field.lines);
    // The next round notices, and one of those that follow brings the new directory.
    let files = |wal: &str| fs::read_dir(new.join(wal)).map_or(0, Iterator::count);
    for _ in 0..8 {
        field.rounds(1);
        if files("metrics") > 1 && files("logs") > 1 {
            break;
        }
    }
    assert!(files("metrics") > 1, "no new directory; the log:\n{}", field.agent.log());
    assert!(files("logs") > 1, "no new directory; the log:\n{}", field.agent.log());
    field.servers(true);
    let end = Instant::now() + LONG;
    let last = |field: &Field| field.lines_sent().last().cloned();
    while last(&field) != lines(0..field.lines).pop()
        || !field.watch.missing(taken, &field.timestamps()).is_empty()
    {
        assert!(Instant::now() < end, "not all arrives; the log:\n{}", field.agent.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    for wal in ["metrics", "logs"] {
        let said = field.said(from, wal);
        let warned = said.iter().filter(|line| !line.contains("level=info")).count();
        assert!(warned == 1 && said.len() <= 2, "{said:#?}");
    }
    // The positions of the files came along, so that nothing is read again.
    field.quiet();
    field.agent.kill();
    field.agent.start();
    field.rounds(2);
    let expected = field.lines;
    field.agent.wait("the last lines", LONG, |_| {
        field.loki.lines(&[("job", "test")]).last() == lines(0..expected).last()
    });
    assert!(field.agent.terminate().0.success());

    let rounds = field.timestamps();
    let watch = &field.watch;
    let lost: Vec<i64> = watch.missing(0, &rounds);
    assert!(
        lost.iter().all(|round| (sent.0 + 1..=taken).contains(round)),
        "{lost:?} of {rounds:?}"
    );
    let got = field.lines_sent();
    let number = |line: &String| line.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
    let numbers: Vec<u32> = got.iter().map(number).collect();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "again, or out of order: {numbers:?}");
    let lost = |line: &u32| numbers.binary_search(line).is_err();
    let lost: Vec<u32> = (0..field.lines).filter(lost).collect();
    assert!(lost.iter().all(|line| (sent.1..first).contains(line)), "{lost:?}");
    field.mimir.assert_clean();
    field.loki.assert_clean();
}

#[test]
fn deleted_directory_costs_what_was_in_it_and_nothing_else() {
    without_its_files(Field::new(None, SMALL), |field| {
        let wal = field.agent.path("state/wal");
        fs::remove_dir_all(&wal).unwrap();
        wal
    });
}

#[test]
fn unmounted_directory_costs_what_was_in_it_and_nothing_else() {
    without_its_files(Field::new(Some(Volume::new(8)), SMALL), |field| {
        field.volume().unmount_lazily();
        field.volume().path().join("wal")
    });
}

#[test]
fn second_agent_on_the_same_directory_is_refused() {
    let mut field = Field::new(None, SMALL);
    field.agent.start();
    let text = fs::read_to_string(field.agent.path("mote.toml")).unwrap();
    let other = field.agent.path("other.toml");
    fs::write(&other, text.replacen("http.listen = \"127.0.0.1:", "http.listen = \"127.0.0.2:", 1))
        .unwrap();
    let refused = |config: &Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mote"));
        let output = command.args(["run", "--config"]).arg(config).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&other);
    let path = field.agent.path("state").display().to_string();
    for part in ["another agent", &path, "state_dir"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // The first one goes on.
    field.rounds(2);
    field.complete();
}

#[test]
fn wal_does_not_grow_where_less_is_free_than_has_to_be() {
    let mut field = Field::new(Some(Volume::new(16)), SMALL);
    field.servers(false);
    field.agent.start();
    field.rounds(5);
    assert!(field.agent.terminate().0.success());
    let before = field.wal_files();
    assert!(before > 0);
    // More than the volume has.
    field.configure("min_free = \"1GiB\"");
    field.agent.start();
    for _ in 0..6 {
        field.rounds(1);
        let now = field.wal_files();
        assert!(now <= before, "{now} bytes, {before} before");
    }
    // Lines wait in their files; rounds wait in memory, or older ones go and are counted.
    field.servers(true);
    let newest = *field.watch.rounds().last().unwrap();
    let count = field.lines;
    let (watch, mimir, loki) = (&field.watch, &field.mimir, &field.loki);
    field.agent.wait("the newest", LONG, |_| {
        let samples = mimir.samples("node_time_seconds", &[]);
        let times: Vec<i64> = samples.iter().map(|(time, _)| *time).collect();
        watch.missing(newest, &times).is_empty()
            && loki.lines(&[("job", "test")]).starts_with(&lines(0..count))
    });
    let counted = field.agent.status()["dropped"][0]["count"].as_u64() > Some(0);
    let lost = field.watch.missing(0, &field.timestamps());
    assert!(lost.is_empty() || counted, "{lost:?} went, and were not counted");
    assert!(field.agent.terminate().0.success());
    field.mimir.assert_clean();
    field.loki.assert_clean();
}

#[test]
fn disk_that_is_too_full_from_the_start_is_left_alone() {
    let mut field = Field::new(Some(Volume::new(16)), "min_free = \"1GiB\"");
    let before = field.volume().available();
    field.agent.start();
    field.rounds(4);
    field.agent.wait("failing", LONG, |agent| agent.status()["wals"][0]["failure"].is_string());
    field.arrived();
    // Directories, locks and cursors: no records.
    let taken = before - field.volume().available();
    assert!(taken <= 16 << 10, "{taken} bytes");
    field.configure(SMALL);
    let mut asked = Instant::now();
    field.agent.signal(rustix::process::Signal::HUP);
    // While a sync goes on, a reload is refused.
    field.agent.wait("a reload", LONG, |agent| {
        if asked.elapsed() > Duration::from_secs(2) {
            asked = Instant::now();
            agent.signal(rustix::process::Signal::HUP);
        }
        let status = agent.try_status();
        status.is_some_and(|status| !status["wals"][0]["failure"].is_string())
    });
    field.failing(false);
    field.rounds(2);
    field.complete();
}
