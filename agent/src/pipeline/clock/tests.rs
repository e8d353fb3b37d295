//! A machine whose clock is wrong, is set, crashes and reboots at random, beside somebody who knows the time.

use super::*;
use crate::config::{Limits, WriteOptions};
use crate::encode::{BLOCK, ROUND, RoundEncoder, encode_block};
use crate::endpoint::Written;
use crate::host::{Discipline, ManualClock};
use crate::model::{Block, Desc, Labels, Samples};
use crate::pipeline::entries::EntriesSignal;
use crate::pipeline::held::Times;
use crate::pipeline::metrics::MetricsSignal;
use crate::pipeline::open::newest_timestamp;
use crate::pipeline::send::{Bounds, Gathered, Signal};
use crate::pipeline::shape::StreamShape;
use crate::wal::{Encoded, OnFull, Options, Payload};

const HOUR: i64 = 3_600_000;
const SOME_DAY: i64 = 1_800_000_000_000;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A round of one sample, whose value is its number.
struct OfRound<'a>(Now, &'a mut RoundEncoder, u32);

impl Payload for OfRound<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        const A: Desc = Desc::gauge("a", "");
        let mut samples = Samples::with_limit(9);
        samples.family(&A).add(&[], f64::from(self.2));
        self.0.put(out);
        Encoded { items: self.1.encode(&[&samples], fresh, out), time_ms: self.0.ms }
    }
}

struct OfBlock<'a>(Now, &'a Block);

impl Payload for OfBlock<'_> {
    fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> Encoded {
        self.0.put(out);
        let items = encode_block(self.1, [].into_iter(), out);
        Encoded { items, time_ms: self.0.ms }
    }
}

/// A process.
struct Agent {
    time: Rc<Time>,
    dropped: Rc<Dropped>,
    encoder: RoundEncoder,
    metrics: Rc<Log>,
    logs: Rc<Log>,
    rounds: MetricsSignal,
    entries: EntriesSignal,
}

/// What was collected, and what the servers have: by number, in milliseconds.
#[derive(Default)]
struct Truth {
    /// The boot, the real time.
    rounds: Vec<(u8, i64)>,
    entries: Vec<(u8, i64)>,
    stored_rounds: Vec<(u32, i64)>,
    stored_entries: Vec<(u32, i64)>,
}

struct Machine {
    dir: tempfile::TempDir,
    clock: ManualClock,
    real_ms: i64,
    boot: u8,
    synchronised: bool,
    agent: Option<Agent>,
    truth: Truth,
}

impl Machine {
    fn new() -> Machine {
        let mut machine = Machine {
            dir: tempfile::tempdir().unwrap(),
            clock: ManualClock::default(),
            real_ms: SOME_DAY,
            boot: 0,
            synchronised: false,
            agent: None,
            truth: Truth::default(),
        };
        machine.boot(0);
        machine
    }

    fn pass(&mut self, ms: i64) {
        self.real_ms += ms;
        self.clock.pass(ms);
    }

    /// Boots with the clock at this time, and starts an agent.
    fn boot(&mut self, wall_ms: i64) {
        self.agent = None;
        self.boot += 1;
        self.set(wall_ms);
        self.clock.set_boot_ms(0);
        self.synchronise(false);
        self.pass(7_000);
        self.start();
    }

    fn set(&self, wall_ms: i64) {
        self.clock.set(wall_ms * 1_000_000);
    }

    fn synchronise(&mut self, synchronised: bool) {
        self.synchronised = synchronised;
        self.clock.set_discipline(Discipline { synchronised, ..Discipline::default() });
        if synchronised {
            self.set(self.real_ms);
        }
    }

    fn start(&mut self) {
        self.agent = None;
        let hour = Some(Duration::from_secs(3_600));
        let open = |name, content, on_full| {
            let options = Options::new(8 << 20, on_full, content);
            Rc::new(Log::for_test(&self.dir.path().join(name), options, hour))
        };
        let metrics = open("metrics", 1, OnFull::DropOldest);
        let logs = open("logs", 2, OnFull::Refuse);
        let dropped = Rc::new(Dropped::new(Rc::new(self.clock.clone())));
        let newest = newest_timestamp(&metrics, u64::MAX, i64::MAX);
        let belief = Belief::new(Some([self.boot; 16]), i64::MAX, newest);
        let roots = Roots { root: self.dir.path().to_owned(), ..Roots::default() };
        let clock: Rc<dyn Clock> = Rc::new(self.clock.clone());
        let own = Rc::clone(&clock);
        let book = self.dir.path().join(BOOK);
        let time = Rc::new(Time::load(clock, belief, &roots, book, Rc::clone(&dropped)));
        time.logs.replace(vec![Rc::downgrade(&metrics), Rc::downgrade(&logs)]);
        let cursor = metrics.cursor(metrics.reader("a").unwrap());
        time.look();
        let sent = newest_timestamp(&metrics, cursor, time.latest_ms());
        let mut rounds = MetricsSignal::for_test(50, WriteOptions::default(), Rc::clone(&dropped));
        rounds.times = Times::new(&time, "metrics", sent);
        let shape = StreamShape::default();
        let mut entries =
            EntriesSignal::new(4 << 10, Limits::default(), shape, Rc::clone(&dropped), own);
        entries.times = Times::new(&time, "logs", None);
        let encoder = RoundEncoder::new(Labels::new());
        self.agent = Some(Agent { time, dropped, encoder, metrics, logs, rounds, entries });
    }

    fn round(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let number = self.truth.rounds.len() as u32;
        let now = agent.time.look();
        self.truth.rounds.push((self.boot, self.real_ms));
        let mut payload = OfRound(now, &mut agent.encoder, number);
        agent.metrics.append(now.kind(ROUND), &mut payload).unwrap();
    }

    /// A line is read, time goes on, the clock is set perhaps, and the line is written.
    fn entry(&mut self, step: Option<i64>) {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
        let number = self.truth.entries.len() as u32;
        block.push(stream, self.clock.now_ns(), &number.to_string());
        self.truth.entries.push((self.boot, self.real_ms));
        self.pass(700);
        // A step back by minutes shows the same times again: nobody can tell which clock told them.
        let now_ms = self.clock.now_ms();
        if let Some(wall_ms) = step.filter(|wall_ms| wall_ms.abs_diff(now_ms) > HOUR as u64) {
            self.set(wall_ms);
        }
        let Some(agent) = &mut self.agent else { return };
        let now = agent.time.look();
        agent.logs.append(now.kind(BLOCK), &mut OfBlock(now, &block)).unwrap();
    }

    async fn keep(&mut self) {
        let Some(agent) = &self.agent else { return };
        if agent.time.is_finding() || agent.time.again.get() {
            agent.time.save().await;
        }
    }

    /// Sends what can be sent.
    async fn drain(&mut self) {
        loop {
            self.keep().await;
            let server_ms = self.synchronised.then_some(self.real_ms);
            let Some(agent) = &mut self.agent else { return };
            let bounds = Bounds { now_ms: server_ms, ..Bounds::NONE };
            for (log, text) in [(&agent.metrics, false), (&agent.logs, true)] {
                let reader = log.reader("a").unwrap();
                let mut gathered = Gathered { until: log.cursor(reader), ..Gathered::default() };
                loop {
                    let (rounds, entries) = (&mut agent.rounds, &mut agent.entries);
                    match text {
                        false => rounds.gather(log, reader, &mut gathered).unwrap(),
                        true => entries.gather(log, reader, &mut gathered).unwrap(),
                    }
                    if gathered.items == 0 && !gathered.full {
                        break;
                    }
                    if text {
                        while let Some(request) = entries.next_request(bounds) {
                            let items = request.items;
                            for stream in crate::encode::loki::read_push(request.body).streams {
                                self.truth.stored_entries.extend(stream.entries.iter().map(|e| {
                                    let at = e.timestamp.as_ref().unwrap();
                                    let ms = at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000;
                                    (e.line.parse::<u32>().unwrap(), ms)
                                }));
                            }
                            entries.accepted(Written::default(), items);
                        }
                    } else {
                        while let Some(request) = rounds.next_request(bounds) {
                            let items = request.items;
                            let sent = crate::encode::remote_write::read_write(request.body);
                            let samples = sent.timeseries.iter().flat_map(|s| &s.samples);
                            self.truth
                                .stored_rounds
                                .extend(samples.map(|s| (s.value as u32, s.timestamp)));
                            rounds.accepted(Written::default(), items);
                        }
                    }
                    log.acknowledge(reader, gathered.until).await;
                    gathered = Gathered { until: gathered.until, ..Gathered::default() };
                }
            }
            if agent.time.found.borrow().is_empty() {
                return;
            }
        }
    }

    /// Everything has arrived, in order, and has the time that it is promised to have.
    fn check(&self, seed: u64) {
        let agent = self.agent.as_ref().unwrap();
        assert_eq!(agent.dropped.counts(), [], "seed {seed}");
        let stored = &self.truth.stored_rounds;
        let numbers: Vec<u32> = stored.iter().map(|(number, _)| *number).collect();
        let all: Vec<u32> = (0..self.truth.rounds.len() as u32).collect();
        assert_eq!(numbers, all, "seed {seed}: each round once");
        assert!(stored.is_sorted_by(|a, b| a.1 < b.1), "seed {seed}: {stored:?}");
        let numbers: Vec<u32> = self.truth.stored_entries.iter().map(|(n, _)| *n).collect();
        let all: Vec<u32> = (0..self.truth.entries.len() as u32).collect();
        assert_eq!(numbers, all, "seed {seed}: each entry once");
        for (stored, truth) in
            [(stored, &self.truth.rounds), (&self.truth.stored_entries, &self.truth.entries)]
        {
            for ((number, ms), (boot, real_ms)) in stored.iter().zip(truth) {
                let exact = agent.time.boot(&[*boot; 16]).is_some_and(|boot| !boot.estimated);
                let off = ms - real_ms;
                assert!(
                    if exact { off.abs() <= 2 } else { off >= 0 && *ms <= self.real_ms },
                    "seed {seed}: {number} of boot {boot} is off by {off} ms, exact: {exact}"
                );
            }
        }
    }
}

/// What a board without a battery shows after a boot, or what somebody sets by hand.
fn wrong(dice: &mut Dice, real_ms: i64) -> i64 {
    match dice.below(4) {
        0 => 0,
        1 => real_ms - 2 * HOUR - (dice.below(1_000) as i64) * HOUR,
        2 => real_ms + 2 * HOUR + (dice.below(100_000) as i64) * HOUR,
        _ => (dice.below(200_000) as i64) * HOUR,
    }
}

#[tokio::test]
async fn whatever_the_clock_does_all_of_it_arrives_in_order_with_its_time() {
    let (mut exact, mut estimated) = (0, 0);
    for seed in 1..=60 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut machine = Machine::new();
        for _ in 0..150 {
            match dice.below(100) {
                0..45 => {
                    machine.pass(5_000 + dice.below(55_000) as i64);
                    machine.round();
                }
                45..65 => machine.entry(None),
                // Nobody sets a clock that is kept right.
                65..72 if !machine.synchronised => {
                    let wall = wrong(&mut dice, machine.real_ms);
                    machine.entry(Some(wall));
                }
                72..77 if !machine.synchronised => {
                    machine.set(wrong(&mut dice, machine.real_ms));
                    machine.pass(1_000);
                    machine.round();
                }
                77..80 => machine.synchronise(true),
                80..86 => machine.start(),
                86..90 => {
                    machine.pass(dice.below(100_000) as i64);
                    machine.boot(wrong(&mut dice, machine.real_ms));
                }
                90..94 => machine.keep().await,
                94.. => machine.drain().await,
                _ => {}
            }
        }
        machine.synchronise(true);
        machine.pass(60_000);
        machine.round();
        machine.drain().await;
        machine.check(seed);
        let time = &machine.agent.as_ref().unwrap().time;
        for boot in 1..=machine.boot {
            match time.boot(&[boot; 16]) {
                Some(boot) if boot.estimated => estimated += 1,
                Some(_) => exact += 1,
                None => {}
            }
        }
    }
    assert!(
        exact > 50 && estimated > 50,
        "{exact} boots that learned the time, {estimated} that did not"
    );
}

#[tokio::test]
async fn a_clock_that_was_years_ahead_stops_nothing_and_one_that_goes_back_repeats_nothing() {
    let mut machine = Machine::new();
    machine.synchronise(true);
    for _ in 0..5 {
        machine.pass(60_000);
        machine.round();
    }
    machine.drain().await;
    let before = machine.truth.stored_rounds.len();
    // Believed, and wrong for three rounds, whose server says yes to anything.
    machine.set(machine.real_ms + 20 * 365 * 24 * HOUR);
    for _ in 0..3 {
        machine.pass(60_000);
        machine.round();
    }
    machine.drain().await;
    // Right again, and then an hour behind.
    machine.set(machine.real_ms + 660_000);
    machine.pass(60_000);
    machine.round();
    machine.drain().await;
    assert_eq!(machine.truth.stored_rounds.len(), before + 4);
    machine.set(machine.real_ms - HOUR);
    machine.pass(60_000);
    machine.round();
    machine.drain().await;
    assert_eq!(machine.truth.stored_rounds.len(), before + 4, "the server has newer ones");
    let agent = machine.agent.as_ref().unwrap();
    let reasons: Vec<_> = agent.dropped.counts().into_iter().map(|(_, r, n)| (r, n)).collect();
    assert_eq!(reasons, [("clock_backwards".to_owned(), 1)]);
    assert_eq!((agent.time.report().steps_forward, agent.time.report().steps_backward), (2, 2));
    // A restart knows it too, up to a day, unless somebody vouches for the clock as it is.
    machine.synchronise(false);
    machine.start();
    machine.pass(60_000);
    machine.round();
    machine.drain().await;
    assert_eq!(machine.truth.stored_rounds.len(), before + 4);
}

#[tokio::test]
async fn a_hundred_boots_that_never_learned_the_time_arrive_in_order() {
    let mut machine = Machine::new();
    for boot in 0..100 {
        machine.pass(20_000 + boot * 1_000);
        machine.round();
        machine.entry(None);
        machine.pass(100);
        machine.boot([0, 86_400_000 * boot, SOME_DAY + 9 * HOUR][boot as usize % 3]);
    }
    machine.synchronise(true);
    machine.pass(60_000);
    machine.round();
    machine.drain().await;
    machine.check(0);
    let time = &machine.agent.as_ref().unwrap().time;
    let estimated = |boot: &u8| time.boot(&[*boot; 16]).is_some_and(|boot| boot.estimated);
    assert_eq!((1..=100).filter(estimated).count(), 100);
}

#[tokio::test]
async fn a_book_that_could_not_be_written_is_written_when_the_disk_works_again() {
    let mut machine = Machine::new();
    machine.round();
    let (book, beside) = (machine.dir.path().join(BOOK), machine.dir.path().join("clock.new"));
    std::fs::create_dir(&beside).unwrap();
    machine.synchronise(true);
    machine.pass(1_000);
    machine.round();
    machine.drain().await;
    assert_eq!(machine.truth.stored_rounds.len(), 2, "it is gone on without the disk");
    assert!(!book.exists());
    // Not with each round, and again if it is in vain.
    let mut tries = 0;
    for _ in 0..12 {
        machine.pass(20_000);
        machine.round();
        tries += usize::from(machine.agent.as_ref().unwrap().time.again.get());
        machine.keep().await;
    }
    assert_eq!(tries, 3);
    std::fs::remove_dir(&beside).unwrap();
    for _ in 0..4 {
        machine.pass(20_000);
        machine.round();
        machine.keep().await;
    }
    let boot = Book::load(&book).unwrap().get(&[1; 16]).unwrap();
    assert_eq!(Some(boot), machine.agent.as_ref().unwrap().time.boot(&[1; 16]));
    machine.pass(70_000);
    machine.round();
    assert!(!machine.agent.as_ref().unwrap().time.again.get());
}

#[tokio::test]
async fn a_book_is_written_by_one_at_a_time_whatever_becomes_of_who_waits_for_it() {
    let mut machine = Machine::new();
    machine.round();
    machine.synchronise(true);
    machine.round();
    let time = Rc::clone(&machine.agent.as_ref().unwrap().time);
    // A write that hangs, and whose pipeline is gone.
    let hangs = Arc::clone(&time.saving).lock_owned().await;
    let given_up = tokio::time::timeout(Duration::from_millis(50), time.save()).await;
    assert!(given_up.is_err() && time.is_finding() && !machine.dir.path().join(BOOK).exists());
    let (saved, ()) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(9), time.save()), async {
            drop(hangs)
        });
    saved.unwrap();
    assert!(!time.is_finding());
    assert!(Book::load(&machine.dir.path().join(BOOK)).unwrap().get(&[1; 16]).is_some());
}

#[tokio::test]
async fn who_is_forbidden_to_ask_the_kernel_is_told_unless_timesyncd_vouches() {
    let machine = Machine::new();
    let time = &machine.agent.as_ref().unwrap().time;
    assert!(!time.nobody_can_vouch());
    machine.clock.set_discipline(Discipline { forbidden: true, ..Discipline::default() });
    assert!(time.nobody_can_vouch());
    std::fs::create_dir_all(time.marker.parent().unwrap()).unwrap();
    std::fs::write(&time.marker, "").unwrap();
    assert!(!time.nobody_can_vouch());
}
