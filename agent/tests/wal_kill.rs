//! SIGKILL at random moments, over and over: what the WAL holds arrives without a gap and in order, and
//! nothing comes twice but the request that was under way at the kill.
//!
//! The receivers keep each request with the connection that it came over and the moment of its answer. A
//! request may repeat what an earlier one held only if
//! - it is the first one of its process, to this server,
//! - all that it repeats was in the request before it, which was the last of the process before,
//! - and that one had no answer, or got it less than [`GRACE`] before the kill, so that the cursor may
//!   not have been written.
//!
//! What has to arrive is not taken from the agent's words: the rounds are those in the WAL's files
//! after each kill, with the number of samples of each, and the lines are those that the test has written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::http::Service;
use support::{Agent, Dice, Fault, Server, StrictLoki, StrictMimir, strict_loki, strict_mimir};

const KILLS: usize = 210;
const SEED: u64 = 20_260_301;
const LONG: Duration = Duration::from_secs(60);
/// From the answer to the cursor's write, on a machine that does other things as well.
const GRACE: Duration = Duration::from_millis(250);

fn agent(mimir: &StrictMimir, loki: &StrictLoki) -> Agent {
    let agent = Agent::new("");
    fs::create_dir(agent.path("logs")).unwrap();
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"1s\"\nlog = {{ level = \"warn\" }}\n\
         [probes]\ndefault = \"off\"\n\
         [metrics.collectors]\nonly = [\"time\", \"loadavg\", \"meminfo\"]\n\
         [[mimir]]\nurl = {:?}\nsend_interval = \"0s\"\n\
         backoff = {{ min = \"20ms\", max = \"100ms\" }}\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"0s\"\nbackoff = {{ min = \"20ms\", max = \"100ms\" }}\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
        mimir.url(),
        loki.url(),
        agent.path("logs").display()
    ));
    agent
}

/// Writes `line N` to the log file until it is told to stop, not always in one piece.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(path: PathBuf) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            let mut line = 0;
            while !told.load(Ordering::SeqCst) {
                match line % 7 {
                    0 => {
                        file.write_all(b"line ").unwrap();
                        std::thread::sleep(Duration::from_millis(2));
                        writeln!(file, "{line}").unwrap();
                    }
                    _ => writeln!(file, "line {line}").unwrap(),
                }
                line += 1;
                std::thread::sleep(Duration::from_millis(2));
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

/// One process of the agent, as the receivers and the files saw it.
struct Life {
    /// Connections that each server had had before it.
    connections: [usize; 2],
    killed: Instant,
}

/// A request: whose it was, what was in it, when it was answered.
struct Batch<T> {
    life: usize,
    items: Vec<T>,
    answered: Option<Instant>,
}

fn batches<S: Service, T>(
    server: &Server<S>,
    which: usize,
    lives: &[Life],
    decode: impl Fn(&[u8]) -> Vec<T>,
) -> Vec<Batch<T>> {
    let answered = server.answered();
    let requests = server.requests();
    assert_eq!(answered.len(), requests.len());
    let batch = |(request, answered): (&support::http::Request, _)| Batch {
        life: lives.iter().filter(|l| l.connections[which] < request.connection).count() - 1,
        items: decode(&request.body),
        answered,
    };
    requests.iter().zip(answered).map(batch).collect()
}

/// What the repeats came to.
#[derive(Default)]
struct Verdict {
    requests: usize,
    /// Requests that began with a repeat.
    repeats: usize,
    /// Requests whose answer came long before the kill that was the end of their process, where a repeat
    /// would have been wrong.
    safe: usize,
}

impl Verdict {
    fn text(&self) -> String {
        format!(
            "{} requests, {} that repeat, {} where that would be wrong",
            self.requests, self.repeats, self.safe
        )
    }
}

/// Holds what came against what had to come, which is in its order; the last `stays` may still be on the
/// disk.
fn judge<T: Copy + Ord + Debug>(
    batches: &[Batch<T>],
    expected: &[T],
    lives: &[Life],
    stays: usize,
) -> Verdict {
    let mut verdict = Verdict { requests: batches.len(), ..Verdict::default() };
    let mut left = expected.iter().peekable();
    let mut newest = None;
    for (at, batch) in batches.iter().enumerate() {
        let Batch { life, items, .. } = batch;
        assert!(
            items.windows(2).all(|two| two[0] < two[1]),
            "no order within a request: {items:?}"
        );
        let before = at.checked_sub(1).map(|at| &batches[at]);
        let others = before.filter(|before| before.life < *life);
        let safe = others
            .and_then(|before| Some((before.answered?, lives[before.life].killed)))
            .is_some_and(|(answered, killed)| killed.duration_since(answered) > GRACE);
        let split = items.partition_point(|item| newest.is_some_and(|newest| *item <= newest));
        let (again, new) = items.split_at(split);
        verdict.safe += usize::from(safe);
        if !again.is_empty() {
            verdict.repeats += 1;
            let before = others.unwrap_or_else(|| {
                panic!("request {at} of process {life} is not its first and repeats {again:?}")
            });
            let known: BTreeSet<_> = before.items.iter().collect();
            let old: Vec<_> = again.iter().filter(|item| !known.contains(item)).collect();
            assert!(old.is_empty(), "request {at} repeats {old:?}, older than the newest request");
            assert!(
                !safe,
                "request {at} repeats {again:?}, answered {:?} before the kill",
                lives[before.life].killed.duration_since(before.answered.unwrap())
            );
        }
        for item in new {
            let next = left.next();
            assert_eq!(Some(item), next, "request {at} of process {life}: a gap, or never written");
        }
        newest = newest.max(items.last().copied());
    }
    let missing: Vec<_> = left.take(5).collect();
    assert!(missing.len() <= stays, "never arrived: {missing:?} and more");
    verdict
}

/// The rounds of a request, each with the number of its samples.
fn rounds(body: &[u8]) -> Vec<(i64, u32)> {
    let mut rounds = BTreeMap::<i64, u32>::new();
    for (_, samples) in strict_mimir::decode(body).unwrap() {
        for (time, _) in samples {
            *rounds.entry(time).or_default() += 1;
        }
    }
    rounds.into_iter().collect()
}

/// The numbers of a request's lines.
fn lines(body: &[u8]) -> Vec<u64> {
    let streams = strict_loki::decode(body).unwrap();
    assert_eq!(streams.len(), 1, "one file is one stream");
    let number = |entry: &strict_loki::Entry| {
        let number = entry.line.strip_prefix("line ").and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("a line that nobody wrote: {:?}", entry.line))
    };
    streams[0].1.iter().map(number).collect()
}

/// When to kill next.
fn live(agent: &mut Agent, dice: &mut Dice, loki: &StrictLoki, mimir: &StrictMimir) {
    let kind = dice.roll(20);
    if kind < 4 {
        // While it starts.
        std::thread::sleep(dice.millis(0, 30));
        return;
    }
    let answered = |requests: [usize; 2]| {
        let all = [mimir.answered(), loki.answered()];
        all.iter().zip(requests).all(|(all, from)| all[from..].iter().any(Option::is_some))
    };
    let before = [mimir.answered().len(), loki.answered().len()];
    agent.wait("ready", LONG, Agent::is_ready);
    match kind {
        // In its first rounds, whatever it does.
        4..12 => std::thread::sleep(dice.millis(0, 250)),
        // With a request under way.
        12..17 => {
            let end = Instant::now() + Duration::from_millis(1_500);
            while mimir.busy() + loki.busy() == 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_micros(200));
            }
            std::thread::sleep(dice.millis(0, 12));
        }
        // Around the next round and the next block.
        17 => std::thread::sleep(dice.millis(800, 1_300)),
        // When all has been quiet: nothing may come again.
        _ => {
            agent.wait("answers", LONG, |_| answered(before));
            std::thread::sleep(GRACE + dice.millis(20, 200));
        }
    }
}

/// At once, late, or stored late: a kill can come anywhere in between.
fn answer(dice: &mut Dice) -> Fault {
    match dice.roll(4) {
        0 | 1 => Fault::slow_answer(Duration::ZERO),
        2 => Fault::slow_answer(dice.millis(0, 80)),
        _ => Fault::slow(dice.millis(0, 40)),
    }
}

#[test]
fn no_gap_no_reorder_and_no_repeat_but_what_was_in_flight_over_hundreds_of_kills() {
    let mut dice = Dice::new(SEED);
    let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
    // A kill may cut a request off.
    mimir.tolerate_aborts();
    loki.tolerate_aborts();
    for _ in 0..4 * KILLS {
        mimir.script(answer(&mut dice));
        loki.script(answer(&mut dice));
    }
    let mut agent = agent(&mimir, &loki);
    let writer = Writer::start(agent.path("logs/app.log"));
    let mut lives: Vec<Life> = Vec::new();
    let mut expected: BTreeMap<i64, u32> = BTreeMap::new();
    let (mut unready, mut in_flight) = (0, 0);
    for _ in 0..KILLS {
        let connections = [mimir.connections(), loki.connections()];
        agent.spawn();
        live(&mut agent, &mut dice, &loki, &mimir);
        // What it says that it has is in the files.
        let said = agent.try_status().and_then(|status| status["wals"][0]["records"].as_u64());
        in_flight += usize::from(mimir.busy() + loki.busy() > 0);
        unready += usize::from(said.is_none_or(|records| records == 0));
        let killed = Instant::now();
        agent.kill();
        lives.push(Life { connections, killed });
        mimir.settle();
        loki.settle();
        let before = expected.len();
        if agent.path("state/wal/metrics").exists() {
            expected.extend(agent.rounds());
        }
        let new = (expected.len() - before) as u64;
        assert!(new >= said.unwrap_or(0), "{new} new rounds in the files, {said:?} by its words");
    }
    let written = writer.stop();
    let connections = [mimir.connections(), loki.connections()];
    agent.start();
    agent.wait("all delivered", LONG, |agent| {
        let status = agent.status();
        let lag = |at: usize| status["endpoints"][at]["lag_seconds"].as_f64();
        status["wals"][0]["records"].as_u64() > Some(1)
            && lag(0) < Some(1.5)
            && lag(1) == Some(0.0)
            && loki.with_service(|loki| loki.lines) >= written
    });
    let dropped = agent.status()["dropped"].clone();
    assert!(mimir.script_left() > 0 && loki.script_left() > 0, "the answers were not at random");
    // The last rounds are delivered in the time that a shutdown has.
    mimir.clear_script();
    loki.clear_script();
    assert!(agent.terminate().0.success());
    lives.push(Life { connections, killed: Instant::now() });
    expected.extend(agent.rounds());

    assert_eq!(dropped, serde_json::json!([]));
    let expected: Vec<(i64, u32)> = expected.into_iter().collect();
    // A round that is written while the senders end stays in the WAL.
    let metrics = judge(&batches(&mimir, 0, &lives, rounds), &expected, &lives, 1);
    let all: Vec<u64> = (0..written).collect();
    let logs = judge(&batches(&loki, 1, &lives, lines), &all, &lives, 0);
    // What comes again is what came before, values and timestamps included.
    mimir.assert_clean();
    loki.assert_clean();
    assert_eq!(loki.with_service(|loki| loki.lines), written);
    println!(
        "{KILLS} kills: {unready} before the first record, {in_flight} with a request under way\n\
         metrics: {} rounds, {}\nlogs: {written} lines, {}",
        expected.len(),
        metrics.text(),
        logs.text()
    );
    assert!(unready >= 5 && in_flight >= 20, "the kills did not hit what they are to hit");
    assert!(metrics.repeats > 0 && logs.repeats > 0, "no kill hit between answer and cursor");
    assert!(metrics.safe >= 10 && logs.safe >= 10, "no kill came when a repeat is wrong");
}
