//! A board whose clock is wrong: what the agent collects before somebody sets the clock arrives with its real times, over
//! SIGKILLs, a reboot and a step back, at servers that refuse everything else.
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::{Agent, Page, Pages, StrictLoki, StrictMimir};

const LONG: Duration = Duration::from_secs(60);
const YEAR_MS: i64 = 365 * 24 * 3_600 * 1_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The agent, what its clocks and its kernel say, and a log file that it follows.
struct Board {
    agent: Agent,
    mimir: StrictMimir,
    loki: StrictLoki,
    began_ms: i64,
    lines: u32,
}

impl Board {
    fn new() -> Board {
        let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
        let agent = Agent::new("");
        let root = agent.dir_of(&["proc/sys/kernel/random", "root/logs"]);
        agent.configure(&format!(
            "instance = \"box\"\ninterval = \"1s\"\nshutdown_timeout = \"1s\"\n\
             [host]\nproc = \"{root}/proc\"\nroot = \"{root}/root\"\n\
             [clock]\nwait = \"100h\"\n[probes]\ndefault = \"off\"\n\
             [metrics.collectors]\nonly = [\"loadavg\"]\n\
             [[mimir]]\nurl = {:?}\nsend_interval = \"1s\"\n\
             [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\n\
             [[logs.file]]\npaths = [\"/logs/*.log\"]\nlabels = {{ job = \"test\" }}\n",
            mimir.url(),
            loki.url(),
        ));
        fs::write(agent.path("proc/loadavg"), "0.25 0.5 0.75 1/100 4242\n").unwrap();
        let board = Board { agent, mimir, loki, began_ms: now_ms(), lines: 0 };
        board.boot("5752c0dc-3306-4cae-a50b-e3af7e9247ec");
        board
    }

    /// The kernel's number of its boot.
    fn boot(&self, id: &str) {
        fs::write(self.agent.path("proc/sys/kernel/random/boot_id"), format!("{id}\n")).unwrap();
    }

    /// By how much the wall clock and the time since the boot differ from this machine's, and whether the kernel vouches for it.
    fn clock(&self, wall_ms: i64, boot_ms: i64, synchronised: bool) {
        let beside = self.agent.path("clock.lie.new");
        fs::write(&beside, format!("{wall_ms} {boot_ms} {}", u8::from(synchronised))).unwrap();
        fs::rename(beside, self.agent.path("clock.lie")).unwrap();
    }

    fn start(&mut self) {
        self.agent.set_environment("MOTE_TEST_CLOCK", self.agent.path("clock.lie"));
        self.agent.start();
    }

    fn line(&mut self) {
        let path = self.agent.path("root/logs/a.log");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "line {}", self.lines).unwrap();
        self.lines += 1;
    }

    /// Waits until so many more rounds and a line are in the WAL.
    fn collect(&mut self, rounds: usize) {
        let have = self.records("metrics");
        self.line();
        let (until, logs) = (have + rounds, self.records("logs") + 1);
        let end = Instant::now() + LONG;
        while self.records("metrics") < until || self.records("logs") < logs {
            assert!(Instant::now() < end, "no rounds; its log:\n{}", self.agent.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn show(&self, wal: &str) -> String {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mote"));
        let dir = self.agent.path("state/wal").join(wal);
        command.args(["wal", "show", "--records"]).arg(dir).stderr(Stdio::null());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    fn records(&self, wal: &str) -> usize {
        self.show(wal).lines().filter(|line| !line.starts_with('#')).count()
    }

    fn samples(&self) -> Vec<(i64, f64)> {
        self.mimir.samples("node_load1", &[])
    }

    /// Everything that came has a time of this test, and is in order; every line is there once.
    fn check(&self, slack_ms: i64) {
        self.check_again(slack_ms, 0);
    }

    /// As [`Board::check`], of which so many samples may have come twice: those of the batch that a kill left in doubt.
    fn check_again(&self, slack_ms: i64, most: u64) {
        let samples = self.samples();
        assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "{samples:?}");
        let (from, to) = (self.began_ms - 1_000, now_ms() + slack_ms);
        assert!(
            samples.iter().all(|(ms, _)| (from..=to).contains(ms)),
            "{from} to {to}: {samples:?}"
        );
        let entries = self.loki.entries(&[("job", "test")]);
        let lines: Vec<_> = entries.iter().map(|entry| entry.line.clone()).collect();
        let expected: Vec<_> = (0..self.lines).map(|line| format!("line {line}")).collect();
        assert_eq!(lines, expected);
        for entry in &entries {
            let ms = (entry.timestamp_ns / 1_000_000) as i64;
            assert!((from..=to).contains(&ms), "{entry:?} is not of {from} to {to}");
        }
        let (mimir, loki) = (self.mimir.repeats(), self.loki.repeats());
        assert!(mimir <= most && loki <= most, "{mimir} and {loki} came again");
        self.mimir.assert_clean();
        self.loki.assert_clean();
    }

    fn arrives(&mut self, rounds: usize) {
        let lines = self.lines as usize;
        let Board { agent, mimir, loki, .. } = self;
        agent.wait("everything arrives", LONG, |_| {
            mimir.samples("node_load1", &[]).len() >= rounds
                && loki.lines(&[("job", "test")]).len() >= lines
        });
    }
}

#[test]
fn what_was_collected_in_1970_arrives_with_its_real_times_over_a_kill() {
    let mut board = Board::new();
    let in_1970 = -board.began_ms + 60_000;
    board.clock(in_1970, 0, false);
    board.start();
    board.collect(2);
    let status = board.agent.status();
    assert_eq!(status["clock"]["held"], true, "{status}");
    assert!(board.show("metrics").contains("held-round"), "{}", board.show("metrics"));
    assert!(board.show("metrics").contains("1970-01-01T00:01"), "{}", board.show("metrics"));
    // Set, and not by somebody who keeps it right.
    board.clock(-3 * YEAR_MS, 0, false);
    board.collect(2);
    board.agent.kill();
    board.line();
    board.start();
    board.collect(2);
    assert_eq!((board.samples().len(), board.loki.entries(&[]).len()), (0, 0), "held");
    let rounds = board.records("metrics");
    board.clock(0, 0, true);
    board.line();
    board.arrives(rounds + 1);
    board.check(0);
    let status = board.agent.status();
    assert_eq!(status["clock"]["held"], false, "{status}");
    let (_, metrics) = board.agent.get("/metrics").unwrap();
    for line in [
        "mote_clock_synchronized 1",
        "mote_clock_steps_total{direction=\"forward\"} 1",
        "mote_clock_estimated_total{signal=\"metrics\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // A kill, and NTP that is gone: this boot has been believed, and stays so.
    board.agent.kill();
    board.clock(0, 0, false);
    board.start();
    assert_eq!(board.agent.status()["clock"]["held"], false);
    let rounds = board.samples().len();
    board.line();
    board.arrives(rounds + 2);
    board.check_again(0, 2_000);
}

#[test]
fn a_boot_that_never_learned_the_time_comes_before_the_next_one() {
    let mut board = Board::new();
    // Two boots without a network, and one with.
    for (boot, id) in ["1111", "2222"].iter().enumerate() {
        board.boot(&format!("5752c0dc-3306-4cae-a50b-e3af7e92{id}"));
        let up_ms = 3_600_000 * boot as i64;
        board.clock(up_ms - board.began_ms, up_ms, false);
        board.start();
        board.collect(3);
        board.agent.kill();
    }
    board.boot("5752c0dc-3306-4cae-a50b-e3af7e923333");
    // Booted at this moment.
    let up = fs::read_to_string("/proc/uptime").unwrap();
    let up_ms = (up.split(' ').next().unwrap().parse::<f64>().unwrap() * 1_000.0) as i64;
    board.clock(-board.began_ms, 1_000 - up_ms, false);
    board.start();
    board.collect(2);
    assert_eq!(board.samples(), []);
    let rounds = board.records("metrics");
    board.clock(0, 1_000 - up_ms, true);
    board.line();
    board.arrives(rounds + 1);
    // How long ago those boots were nobody knows; the servers got them in order, and not of the future.
    let samples = board.samples();
    assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "{samples:?}");
    assert!(samples.last().unwrap().0 <= now_ms());
    assert_eq!((board.mimir.repeats(), board.loki.repeats()), (0, 0));
    board.mimir.assert_clean();
    board.loki.assert_clean();
    let (_, metrics) = board.agent.get("/metrics").unwrap();
    let line = "mote_clock_estimated_total{signal=\"metrics\"} ";
    let estimated = metrics.lines().find_map(|have| have.strip_prefix(line)).unwrap();
    assert!(estimated.parse::<f64>().unwrap() > 5.0, "{estimated}");
    assert_eq!(board.agent.log().matches("before the time was known").count(), 2);
}

#[test]
fn one_run_delivers_what_an_earlier_boot_held() {
    let mut board = Board::new();
    board.clock(-board.began_ms, 0, false);
    board.start();
    board.collect(3);
    board.agent.kill();
    assert_eq!(board.samples(), []);
    let (rounds, lines) = (board.records("metrics"), board.lines as usize);
    board.boot("5752c0dc-3306-4cae-a50b-e3af7e924444");
    let up = fs::read_to_string("/proc/uptime").unwrap();
    let up_ms = (up.split(' ').next().unwrap().parse::<f64>().unwrap() * 1_000.0) as i64;
    board.clock(0, 1_000 - up_ms, true);
    // A backlog's requests are seconds apart.
    let config = fs::read_to_string(board.agent.path("mote.toml")).unwrap();
    let config = config.replace("shutdown_timeout = \"1s\"", "shutdown_timeout = \"40s\"");
    fs::write(board.agent.path("mote.toml"), config).unwrap();
    let mut once = board.agent.command("run");
    once.arg("--once").env("MOTE_TEST_CLOCK", board.agent.path("clock.lie"));
    assert!(once.stderr(Stdio::null()).status().unwrap().success());
    let samples = board.samples();
    assert!(samples.len() > rounds, "{} of {rounds} and its own", samples.len());
    assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "{samples:?}");
    assert_eq!(board.loki.lines(&[("job", "test")]).len(), lines);
}

#[test]
fn a_scrape_in_which_the_clock_is_set_arrives() {
    let mut board = Board::new();
    let slow = Pages::new(Page::Made(|_| {
        std::thread::sleep(Duration::from_secs(4));
        "a 1\n".to_owned()
    }));
    let mut config = fs::read_to_string(board.agent.path("mote.toml")).unwrap();
    config += &format!(
        "[[scrape]]\njob = \"slow\"\ntargets = [{:?}]\ninterval = \"10s\"\ntimeout = \"8s\"\n",
        slow.target()
    );
    fs::write(board.agent.path("mote.toml"), config).unwrap();
    board.clock(-YEAR_MS, 0, false);
    board.start();
    board.agent.wait("a scrape", LONG, |_| !slow.requests().is_empty());
    // Rounds of the old clock come behind its beginning.
    board.collect(2);
    assert_eq!(slow.requests().len(), 1);
    board.clock(0, 0, true);
    board.line();
    let mimir = &board.mimir;
    board.agent.wait("its sample", LONG, |_| !mimir.samples("a", &[("job", "slow")]).is_empty());
    assert_eq!(slow.requests().len(), 1);
    let (_, metrics) = board.agent.get("/metrics").unwrap();
    assert!(!metrics.contains("clock_backwards"), "{metrics}");
    board.agent.terminate();
    board.mimir.tolerate_aborts();
}
