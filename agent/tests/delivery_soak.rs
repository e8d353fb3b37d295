//! Random faults at 100 times the normal speed, with exact accounts at the end. A dozen seconds of it run with all
//! tests; `cargo xtask soak --minutes 10 --seed 7` runs more of it.
//!
//! Two agents run beside each other, each with two Mimirs and two Lokis behind gates that break connections
//! while the weather is bad. The first is killed, ended and reloaded all the time and has room for everything:
//! what it has collected is what its WAL held after each death and the lines that were written, and all of it
//! has to be at each server, but for what this very server has refused. The second runs through, and its WALs are
//! too small for what comes while its servers are dead: what its endpoints miss has to be what it has counted as
//! dropped, sample by sample and entry by entry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mote::wal::{Disk, OnFull, Options, Wal};
use rustix::process::Signal;
use serde_json::Value;
use support::http::Request;
use support::ledger::{Kept, Ledger, by_round, ledger, series};
use support::strict_loki::Loki;
use support::strict_mimir::Mimir;
use support::{Agent, Dice, Fault, Gate, Server, Wire, strict_mimir};

const SEED: u64 = 7;
const LONG: Duration = Duration::from_secs(120);

fn length() -> Duration {
    let given = std::env::var("MOTE_SOAK_SECONDS").ok();
    Duration::from_secs(given.map_or(12, |text| text.parse().expect("MOTE_SOAK_SECONDS")))
}

const GOOD: u64 = 0;
const BAD: u64 = 1;
const DEAD: u64 = 2;

/// A server, and the weather on the way to it.
struct Receiver<S: Kept> {
    server: Server<S>,
    gate: Gate,
    weather: Arc<AtomicU64>,
    /// Numbers of connections after which the agent was another one.
    ends: RefCell<Vec<usize>>,
}

impl<S: Kept> Receiver<S> {
    fn new(dice: &mut Dice, service: S, refuses: bool) -> Receiver<S> {
        let server = Server::with(service);
        server.tolerate_aborts();
        let gate = Gate::before(server.address());
        let weather = Arc::new(AtomicU64::new(GOOD));
        let (mut own, now) = (dice.fork(), Arc::clone(&weather));
        server.play(move || {
            let bad = now.load(Ordering::SeqCst) != GOOD;
            match own.roll(24) {
                0 if refuses => Some(Fault::status([400, 422][own.roll(2) as usize])),
                1..12 if bad => Some(fault(&mut own)),
                _ => None,
            }
        });
        let (mut own, now) = (dice.fork(), Arc::clone(&weather));
        gate.play(move || match (now.load(Ordering::SeqCst), own.roll(3)) {
            (DEAD, 0) => Some(Wire::Silent),
            (DEAD, 1) => Some(Wire::Reset),
            (DEAD, _) => Some(Wire::Close),
            (BAD, 0) => Some(wire(&mut own)),
            _ => None,
        });
        Receiver { server, gate, weather, ends: RefCell::default() }
    }

    fn config(&self) -> String {
        format!(
            "[[{}]]\nurl = \"http://{}{}\"\n{}\ntimeout = \"1s\"\n\
             backoff = {{ min = \"20ms\", max = \"1s\" }}\n",
            S::TABLE,
            self.gate.address(),
            S::PATH,
            S::AT_ONCE
        )
    }

    fn set(&self, weather: u64) {
        self.weather.store(weather, Ordering::SeqCst);
    }

    /// The agent is another one from now on; the one before is dead.
    fn settle(&self) {
        let end = Instant::now() + LONG;
        while self.gate.open() > 0 {
            assert!(Instant::now() < end, "connections of a dead agent don't end");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.server.settle();
        self.ends.borrow_mut().push(self.server.connections());
    }

    fn ledger(&self, name: &str) -> Ledger<S::Item> {
        let faulty = |request: &Request| request.faulty || self.gate.broke(request);
        let ledger = ledger::<S>(name, &self.server.requests(), faulty, &self.ends.borrow());
        let stored = self.server.with_service(|service| service.counts());
        assert_eq!((ledger.stored.len() as u64, ledger.again), stored, "{name}");
        self.server.assert_clean();
        ledger
    }
}

fn fault(dice: &mut Dice) -> Fault {
    match dice.roll(20) {
        0 => Fault::status(500),
        1 => Fault::status(502),
        2 => Fault::status(503).header("Retry-After", "1"),
        3 => Fault::status(504),
        4 => Fault::status(408),
        5 => Fault::status(429),
        6 => Fault::status(429).header("Retry-After", "1"),
        7 => Fault::status(401),
        8 => Fault::status(404),
        9 => Fault::status(307).header("Location", "/elsewhere"),
        10 => Fault::close(),
        11 | 12 => Fault::accept_then_lose_answer(),
        13 => Fault::garbage("HTTP/9.9 what\r\n\r\n"),
        14 => Fault::garbage(vec![0x16; 40]).accepting(),
        15 => Fault::close_after_head(200).accepting(),
        16 => Fault::close_after_head(503),
        17 => Fault::slow_answer(Duration::from_millis(1_200)),
        18 => Fault::status(200).accepting().then_close(),
        _ => Fault::never(),
    }
}

fn wire(dice: &mut Dice) -> Wire {
    match dice.roll(11) {
        0 => Wire::Close,
        1 => Wire::Reset,
        2 => Wire::Silent,
        3 => Wire::Deaf,
        4 => Wire::Late(Duration::from_millis(200 + dice.roll(1_200))),
        5 => Wire::ResetRequest(1 + dice.roll(2_000) as usize),
        6 => Wire::CloseRequest(1 + dice.roll(2_000) as usize),
        7 => Wire::ResetAnswer(1 + dice.roll(30) as usize),
        8 => Wire::CloseAnswer(1 + dice.roll(30) as usize),
        9 => Wire::HalfClosed,
        _ => Wire::HalfClosedAnswer,
    }
}

/// One sample of some rounds, which the second Mimir does not take, nor anything that comes with it.
fn is_bad(labels: &strict_mimir::Labels, time: i64) -> bool {
    let is = |(name, value): &(String, String)| {
        name == "at" && value == "777" || name == "__name__" && value == "node_load5"
    };
    time % 8 < 2 && labels.iter().any(is)
}

/// Those of them that a server was ever sent.
fn bad_samples(server: &Server<Mimir>) -> BTreeSet<(i64, u64)> {
    let mut bad = BTreeSet::new();
    for request in server.requests() {
        for (labels, samples) in strict_mimir::decode(&request.body).unwrap() {
            let times = samples.iter().map(|(time, _)| *time).filter(|time| is_bad(&labels, *time));
            bad.extend(times.map(|time| (time, series(&labels))));
        }
    }
    bad
}

/// The servers of one agent; the second of each kind refuses something now and then.
struct Receivers {
    mimirs: [Receiver<Mimir>; 2],
    lokis: [Receiver<Loki>; 2],
}

impl Receivers {
    fn new(dice: &mut Dice) -> Receivers {
        Receivers {
            mimirs: [
                Receiver::new(dice, Mimir::default(), false),
                Receiver::new(dice, Mimir { refuses: Some(is_bad), ..Mimir::default() }, false),
            ],
            lokis: [
                Receiver::new(dice, Loki::default(), false),
                Receiver::new(dice, Loki::default(), true),
            ],
        }
    }

    fn config(&self) -> String {
        let [a, b] = self.mimirs.each_ref().map(Receiver::config);
        let [c, d] = self.lokis.each_ref().map(Receiver::config);
        format!("{a}{b}{c}{d}")
    }

    fn set(&self, at: usize, weather: u64) {
        match at {
            0 | 1 => self.mimirs[at].set(weather),
            _ => self.lokis[at - 2].set(weather),
        }
    }

    fn settle(&self) {
        self.mimirs.iter().for_each(Receiver::settle);
        self.lokis.iter().for_each(Receiver::settle);
    }

    /// How many connections each has had.
    fn connections(&self) -> [usize; 4] {
        let [a, b] = self.mimirs.each_ref().map(|mimir| mimir.server.connections());
        let [c, d] = self.lokis.each_ref().map(|loki| loki.server.connections());
        [a, b, c, d]
    }

    /// The agent became another one at some time since there were so many connections.
    fn in_doubt(&self, before: [usize; 4]) {
        let now = self.connections();
        let ends = |at: usize| before[at]..=now[at];
        for (at, mimir) in self.mimirs.iter().enumerate() {
            mimir.ends.borrow_mut().extend(ends(at));
        }
        for (at, loki) in self.lokis.iter().enumerate() {
            loki.ends.borrow_mut().extend(ends(at + 2));
        }
    }

    /// The end of all faults, for good.
    fn end(&self) {
        for receiver in &self.mimirs {
            receiver.server.rest();
            receiver.gate.rest();
        }
        for receiver in &self.lokis {
            receiver.server.rest();
            receiver.gate.rest();
        }
    }
}

/// Writes `line N` and some more to the log file until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(path: PathBuf, pause: Duration, bytes: usize, mut dice: Dice) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            let mut line = 0;
            while !told.load(Ordering::SeqCst) {
                let mut text = format!("line {line} ");
                while text.len() < bytes {
                    write!(text, "{:016x}", dice.roll(u64::MAX)).unwrap();
                }
                text.push('\n');
                file.write_all(text.as_bytes()).unwrap();
                line += 1;
                std::thread::sleep(pause);
            }
            line
        });
        Writer { stop, thread }
    }

    /// How many lines there are.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Records of a WAL by position: their time and items. What is there is added to what is known.
fn look(dir: &Path, known: &mut BTreeMap<u64, (i64, u32)>) {
    let content = if dir.ends_with("metrics") { 1 } else { 2 };
    let options = Options::new(1 << 30, OnFull::DropOldest, content);
    let Ok(disk) = Disk::look(dir) else { return };
    let Ok(mut wal) = Wal::open_to_read(disk, options, &[]) else { return };
    let (mut at, mut payload) = (0, Vec::new());
    while let Ok(Some(record)) = wal.scan(at, &mut payload) {
        known.insert(record.position, (record.time_ms, record.items));
        at = record.next;
    }
}

fn caught_up(agent: &mut Agent, receivers: &Receivers, lines: u64) {
    let has_last = |loki: &Receiver<Loki>| {
        let newest = loki.server.newest(20);
        let mut newest = newest.iter().filter(|r| r.stored || r.answer.is_some());
        newest.any(|request| Loki::items(&request.body).contains(&Ok(lines - 1)))
    };
    agent.wait("all is delivered", LONG, |agent| {
        let Some(status) = agent.try_status() else { return false };
        let endpoints = status["endpoints"].as_array().unwrap();
        let is_witness = |one: &Value| one["url"].as_str().is_some_and(|url| url.ends_with(":9/"));
        // An endpoint that nothing was sent to yet has not begun to look what waits.
        let is_live = |one: &Value| one["sent"] != 0 && one["lag_seconds"].as_f64() < Some(1.5);
        endpoints.iter().all(|one| is_witness(one) || is_live(one))
            && receivers.lokis.iter().all(has_last)
    });
}

fn config(agent: &Agent, receivers: &Receivers, head: &str, rest: &str) {
    let dir = agent.path("").display().to_string();
    agent.configure(&format!(
        "instance = \"box\"\nlog = {{ level = \"error\" }}\nshutdown_timeout = \"2s\"\n{head}\n\
         [probes]\ndefault = \"off\"\n[wal]\nmin_free = \"0B\"\n{rest}\n{}\
         [[logs.file]]\npaths = [\"{dir}app.log\"]\nlabels = {{ job = \"test\" }}\n",
        receivers.config()
    ));
}

#[test]
fn kills_and_faults_at_random_lose_and_repeat_nothing() {
    let mut dice = Dice::new(SEED);
    let receivers = Receivers::new(&mut dice);
    let mut agent = Agent::new("");
    // A Mimir that is never there keeps all rounds in the WAL, for this test to read.
    let witness = "[[mimir]]\nurl = \"http://127.0.0.1:9/\"\nbackoff.max = \"1h\"\n".to_owned();
    config(
        &agent,
        &receivers,
        "interval = \"600ms\"",
        &(witness
            + "[wal.logs]\nmax_bytes = \"1MiB\"\n[metrics.collectors]\n\
         only = [\"time\", \"loadavg\", \"meminfo\", \"cpu\", \"vmstat\", \"netdev\", \"diskstats\"]\n"),
    );
    let pause = Duration::from_millis(10);
    let writer = Writer::start(agent.path("app.log"), pause, 20, dice.fork());
    let mut rounds: BTreeMap<u64, (i64, u32)> = BTreeMap::new();
    let (mut kills, mut stops, mut reloads) = (0, 0, 0);
    let end = Instant::now() + length();
    agent.start();
    while Instant::now() < end {
        for at in 0..4 {
            receivers.set(at, [GOOD, BAD, BAD, DEAD][dice.roll(4) as usize]);
        }
        std::thread::sleep(dice.millis(100, 100 + length().as_millis().min(40_000) as u64 / 10));
        match dice.roll(8) {
            0 | 1 => {
                reloads += 1;
                agent.signal(Signal::HUP);
                // What was in flight is in doubt, as after a kill, and that moment is within these.
                let before = receivers.connections();
                std::thread::sleep(Duration::from_millis(2_500));
                receivers.in_doubt(before);
                continue;
            }
            2 => {
                stops += 1;
                let (status, took) = agent.terminate();
                assert!(status.success() && took < Duration::from_secs(10), "{status} {took:?}");
            }
            _ => {
                kills += 1;
                agent.kill();
            }
        }
        receivers.settle();
        look(&agent.path("state/wal/metrics"), &mut rounds);
        agent.spawn();
    }
    let lines = writer.stop();
    receivers.end();
    caught_up(&mut agent, &receivers, lines);
    assert!(agent.terminate().0.success());
    look(&agent.path("state/wal/metrics"), &mut rounds);
    let collected: BTreeMap<i64, u32> = rounds.values().copied().collect();
    let samples: u64 = collected.values().map(|items| u64::from(*items)).sum();
    assert_eq!(collected.len(), rounds.len(), "two rounds of one time");
    for (at, receiver) in receivers.mimirs.iter().enumerate() {
        let Ledger { mut stored, refused, again } = receiver.ledger(&format!("Mimir {at}"));
        println!(
            "Mimir {at}: {} of {samples} samples stored, {} refused, {again} came again; {} requests, {} met \
             a fault, {} connections did",
            stored.len(),
            refused.len(),
            receiver.server.requests().len(),
            receiver.server.played(),
            receiver.gate.played().len()
        );
        assert!(at == 1 || refused.is_empty());
        // What was only near something bad has to arrive.
        let bad = bad_samples(&receiver.server);
        let good: Vec<_> = refused.difference(&bad).take(9).collect();
        assert!(good.is_empty(), "Mimir {at} has not got {good:?}, which are good");
        stored.extend(refused);
        let have = by_round(&stored);
        let newest = collected.keys().next_back();
        for time in collected.keys().chain(have.keys()) {
            let (has, of) = (have.get(time), collected.get(time));
            // A round that is written while the senders end stays in the WAL.
            let stays = Some(time) == newest && has.is_none();
            assert!(
                has == of || stays,
                "Mimir {at}: {has:?} of {of:?} at {time}, {newest:?} is newest"
            );
        }
    }
    let all: BTreeSet<u64> = (0..lines).collect();
    for (at, receiver) in receivers.lokis.iter().enumerate() {
        let Ledger { mut stored, refused, again } = receiver.ledger(&format!("Loki {at}"));
        println!(
            "Loki {at}: {} of {lines} lines stored, {} refused, {again} came again; {} requests, {} met a \
             fault, {} connections did",
            stored.len(),
            refused.len(),
            receiver.server.requests().len(),
            receiver.server.played(),
            receiver.gate.played().len()
        );
        assert!(at == 1 || refused.is_empty());
        stored.extend(refused);
        let have: BTreeSet<u64> = stored.into_iter().filter_map(Result::ok).collect();
        assert!(
            have == all,
            "Loki {at} misses {:?}",
            all.difference(&have).take(9).collect::<Vec<_>>()
        );
    }
    println!("{kills} kills, {stops} stops, {reloads} reloads, {} rounds", collected.len());
    assert!(kills > 0);
}

/// Samples or entries that were dropped: for a full WAL, and as refused.
fn dropped(status: &Value, signal: &str) -> (u64, u64) {
    let (mut evicted, mut refused) = (0, 0);
    for dropped in status["dropped"].as_array().unwrap() {
        if dropped["signal"] != signal {
            continue;
        }
        let count = dropped["count"].as_u64().unwrap();
        match dropped["reason"].as_str().unwrap() {
            "wal_evicted" => evicted += count,
            "http_400" | "http_400_repeat" | "http_422" | "http_422_repeat" => refused += count,
            other => panic!("dropped for another reason: {other}, {count} of {signal}"),
        }
    }
    (evicted, refused)
}

/// Holds what two servers have and have refused against what was collected and what was counted.
fn account<I: Ord + Clone>(
    signal: &str,
    (collected, stays): (u64, Vec<u64>),
    ledgers: [Ledger<I>; 2],
    (evicted, refused): (u64, u64),
) {
    let [a, b] = ledgers;
    for (at, ledger) in [&a, &b].into_iter().enumerate() {
        let (stored, refused) = (ledger.stored.len(), ledger.refused.len());
        println!(
            "{signal} {at}: {stored} of {collected} stored, {refused} refused, {} again",
            ledger.again
        );
    }
    // What was stored without an answer and refused when it came again is counted, too (`_repeat`).
    assert!((a.refused.len() + b.refused.len()) as u64 <= refused, "{signal}: refused");
    // What an endpoint misses that has refused nothing of it was evicted before it was its turn.
    let taken = |ledger: Ledger<I>| -> BTreeSet<I> {
        ledger.stored.into_iter().chain(ledger.refused).collect()
    };
    let (a, b) = (taken(a), taken(b));
    let both = a.intersection(&b).count() as u64;
    let missing = collected - both;
    println!("{signal}: {evicted} evicted, {missing} missing somewhere");
    // Of what was written after the counts were asked for, the newest may still be on the disk.
    assert!(
        stays.contains(&(missing - evicted)),
        "{signal}: {collected} collected, {both} taken by both, {evicted} dropped, on the disk one of {stays:?}"
    );
}

#[test]
fn what_full_wals_give_up_is_counted_exactly() {
    let mut dice = Dice::new(SEED + 1);
    let receivers = Receivers::new(&mut dice);
    let mut agent = Agent::new("");
    let dir = agent.path("prom");
    fs::create_dir(&dir).unwrap();
    config(
        &agent,
        &receivers,
        "interval = \"300ms\"",
        &format!(
            "[wal.metrics]\nmax_bytes = \"1MiB\"\n[wal.logs]\nmax_bytes = \"1MiB\"\non_full = \"drop-oldest\"\n\
             [metrics.collectors]\nonly = [\"textfile\"]\n[metrics.textfile]\ndirectory = {:?}\n",
            dir.display().to_string()
        ),
    );
    // Outages of this length have to be more than a WAL holds, and not much more.
    let outage = length().mul_f64(0.75).min(Duration::from_secs(45));
    let series = 1_200;
    let pause = outage.div_f64(3_000.0);
    let stop = Arc::new(AtomicBool::new(false));
    let (told, mut own) = (Arc::clone(&stop), dice.fork());
    let values = std::thread::spawn(move || {
        while !told.load(Ordering::SeqCst) {
            let mut text = String::from("# TYPE noise gauge\n");
            for at in 0..series {
                writeln!(text, "noise{{at=\"{at}\"}} {}", own.roll(1 << 53)).unwrap();
            }
            fs::write(dir.join("new"), text).unwrap();
            fs::rename(dir.join("new"), dir.join("noise.prom")).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        fs::remove_file(dir.join("noise.prom")).unwrap();
    });
    let writer = Writer::start(agent.path("app.log"), pause, 1_000, dice.fork());
    let wals = ["metrics", "logs"].map(|name| agent.path(&format!("state/wal/{name}")));
    let seen = Arc::new(AtomicBool::new(true));
    let going = Arc::clone(&seen);
    let looker = std::thread::spawn(move || {
        let mut known = [BTreeMap::new(), BTreeMap::new()];
        loop {
            let last = !going.load(Ordering::SeqCst);
            for (dir, known) in wals.iter().zip(&mut known) {
                look(dir, known);
            }
            if last {
                return known;
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    });
    agent.start();
    let end = Instant::now() + length();
    while Instant::now() < end {
        let until = (Instant::now() + outage).min(end);
        (0..4).for_each(|at| receivers.set(at, DEAD));
        // One of each comes back earlier.
        std::thread::sleep(until.saturating_duration_since(Instant::now()).mul_f64(0.9));
        receivers.set(dice.roll(2) as usize, BAD);
        receivers.set(2 + dice.roll(2) as usize, BAD);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        (0..4).for_each(|at| receivers.set(at, BAD));
        let calm = (Instant::now() + outage / 2).min(end);
        std::thread::sleep(calm.saturating_duration_since(Instant::now()));
    }
    let lines = writer.stop();
    stop.store(true, Ordering::SeqCst);
    values.join().unwrap();
    receivers.end();
    caught_up(&mut agent, &receivers, lines);
    let status = agent.status();
    let counts = [dropped(&status, "metrics"), dropped(&status, "logs")];
    assert!(agent.terminate().0.success());
    seen.store(false, Ordering::SeqCst);
    let [metrics, logs] = looker.join().unwrap();
    let records = |at: usize| status["wals"][at]["records"].as_u64().unwrap();
    println!("{} of {}, {} of {} records", metrics.len(), records(0), logs.len(), records(1));
    assert!(
        metrics.len() as u64 >= records(0) && logs.len() as u64 >= records(1),
        "not all was seen"
    );
    let sum = |known: &BTreeMap<u64, (i64, u32)>, before: u64| -> (u64, Vec<u64>) {
        let items: Vec<u64> = known.values().map(|(_, items)| u64::from(*items)).collect();
        let after = items.len() - before as usize;
        let stays = (0..=after).map(|count| items.iter().rev().take(count).sum()).collect();
        (items.iter().sum(), stays)
    };
    let [a, b] = &receivers.mimirs;
    account(
        "metrics",
        sum(&metrics, records(0)),
        [a.ledger("Mimir 0"), b.ledger("Mimir 1")],
        counts[0],
    );
    let [a, b] = &receivers.lokis;
    account("logs", sum(&logs, records(1)), [a.ledger("Loki 0"), b.ledger("Loki 1")], counts[1]);
    println!("{} rounds, {lines} lines", metrics.len());
    // Of metrics that takes a long outage.
    let is_long = length() > Duration::from_secs(100);
    assert!(counts[1].0 > 0 && (counts[0].0 > 0 || !is_long), "the WALs were never full");
}
