//! A fleet after an outage: the request rate that a server sees from 10,000 agents which all have an hour
//! to tell, with the agent's own [`Backoff`] and [`Pace`], and without: retries and drains as a remote
//! write with Prometheus' defaults does them. Simulated time, the same figures for the same seed.
//!
//! `cargo run --release -p benches --bin fleet [SEED]`; seconds.
//!
//! The server takes requests one after another in the order in which they come. A full request keeps it busy
//! for 1/[`CAPACITY`] s, half of that for the request and half for its samples; an answer takes 50 ms
//! and whatever waits before it. When [`QUEUE`] of work waits it answers 503, which keeps it busy for a tenth of
//! a full request: connections and TLS are not free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use benches::Result;
use benches::table::{Table, thousands};
use mote::endpoint::{Backoff, Random};
use mote::pipeline::Pace;
use tokio::time::Instant;

const AGENTS: usize = 10_000;
/// Full requests a second. The fleet's live rounds, of half of that size, keep the server busy for a quarter of
/// the time.
const CAPACITY: f64 = 500.0;
/// Rounds in a full request: 2,000 samples, the default of `max_samples_per_send`.
const FULL: u64 = 2;
/// Of work; more is refused.
const QUEUE: f64 = 2.0;
/// Of an answer without any work before it.
const LATENCY: f64 = 0.05;
const INTERVAL: f64 = 60.0;
const OUTAGE: f64 = 3_600.0;
/// After the outage.
const END: f64 = 3.0 * 3_600.0;
/// Of the curve.
const SLOT: f64 = 60.0;

/// When an agent sends.
enum Manners {
    /// As the agent does: its own types.
    Ours(Box<(Backoff, Pace)>),
    /// Pauses of 30 ms that double up to 5 s, no jitter, no pause after a success.
    Prometheus(f64),
}

struct Agent {
    manners: Manners,
    /// Rounds in the WAL.
    waiting: u64,
    /// Of them, those of the request in flight.
    flying: u64,
    /// When its oldest round was collected.
    oldest: f64,
    /// Whether an event of its own will come.
    busy: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Round,
    Send,
    Answered { refused: bool, took: u64 },
}

/// A number of microseconds, an agent and what happens to it.
type Event = Reverse<(u64, usize, What)>;

#[derive(Clone, Copy, Default)]
struct Slot {
    taken: u64,
    refused: u64,
    work: f64,
    longest: f64,
}

struct Outcome {
    slots: Vec<Slot>,
    /// Attempts at a server that is not there, a second in the last ten minutes of the outage.
    knocks: f64,
    /// Requests in the worst second.
    worst_second: u64,
    /// After the return: when half of the agents, nearly all, and all had caught up.
    caught_up: [Option<f64>; 3],
    /// Of answers after the return, in the order of their size.
    answers: Vec<f64>,
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

struct Fleet {
    agents: Vec<Agent>,
    events: BinaryHeap<Event>,
    start: Instant,
    /// When the server has done all its work.
    idle_at: f64,
    seconds: BTreeMap<u64, u64>,
    knocks: u64,
    slots: Vec<Slot>,
    answers: Vec<f64>,
    behind: Vec<bool>,
    caught_up: Vec<f64>,
}

impl Fleet {
    fn new(ours: bool, seed: u64) -> Result<Fleet> {
        let mut random = Random::with_seed(seed);
        let (mut agents, mut events) = (Vec::new(), BinaryHeap::new());
        for number in 0..AGENTS {
            let seed = random.next_u64();
            let manners = if ours {
                let backoff =
                    Backoff::with_seed(Duration::from_secs(1), Duration::from_secs(300), seed)?;
                Manners::Ours(Box::new((backoff, Pace::with_seed(None, seed ^ 1))))
            } else {
                Manners::Prometheus(0.0)
            };
            let agent = Agent { manners, waiting: 0, flying: 0, oldest: 0.0, busy: false };
            agents.push(agent);
            // Both have offsets by identity.
            let phase = random.up_to(Duration::from_secs_f64(INTERVAL)).as_secs_f64();
            events.push(Reverse((micros(phase), number, What::Round)));
        }
        let slots = vec![Slot::default(); ((OUTAGE + END) / SLOT) as usize + 1];
        Ok(Fleet {
            agents,
            events,
            start: Instant::now(),
            idle_at: 0.0,
            seconds: BTreeMap::new(),
            knocks: 0,
            slots,
            answers: Vec::new(),
            behind: vec![true; AGENTS],
            caught_up: Vec::new(),
        })
    }

    fn run(mut self) -> Outcome {
        while let Some(Reverse((at, number, what))) = self.events.pop() {
            let now = at as f64 / 1e6;
            if now > OUTAGE + END {
                break;
            }
            match what {
                What::Round => self.round(number, now),
                What::Send => self.send(number, now),
                What::Answered { refused, took } => self.answered(number, now, refused, took),
            }
        }
        let mut answers = std::mem::take(&mut self.answers);
        answers.sort_by(f64::total_cmp);
        let part = |share: f64| {
            let index = (AGENTS as f64 * share) as usize;
            self.caught_up.get(index.min(AGENTS - 1)).copied()
        };
        Outcome {
            knocks: self.knocks as f64 / 600.0,
            worst_second: self.seconds.values().copied().max().unwrap_or(0),
            caught_up: [part(0.5), part(0.99), part(1.0)],
            slots: self.slots,
            answers,
        }
    }

    fn round(&mut self, number: usize, now: f64) {
        self.events.push(Reverse((micros(now + INTERVAL), number, What::Round)));
        let Some(agent) = self.agents.get_mut(number) else { return };
        if agent.waiting == 0 {
            agent.oldest = now;
        }
        agent.waiting += 1;
        if !std::mem::replace(&mut agent.busy, true) {
            self.send(number, now);
        }
    }

    fn send(&mut self, number: usize, now: f64) {
        let Some(agent) = self.agents.get_mut(number) else { return };
        agent.flying = agent.waiting.min(FULL);
        if let Manners::Ours(ours) = &mut agent.manners {
            ours.1.sent(0, self.start + Duration::from_secs_f64(now));
        }
        let (refused, took) = if now < OUTAGE {
            self.knocks += u64::from(now > OUTAGE - 600.0);
            (true, 0.001)
        } else {
            *self.seconds.entry(now as u64).or_default() += 1;
            let slot = self.slots.get_mut((now / SLOT) as usize);
            let waits = (self.idle_at - now).max(0.0);
            let refused = waits > QUEUE;
            let share = agent.flying as f64 / FULL as f64;
            let work = if refused { 0.1 } else { 0.5 + 0.5 * share } / CAPACITY;
            self.idle_at = now + waits + work;
            let took = LATENCY + if refused { 0.0 } else { waits + work };
            self.answers.push(took);
            if let Some(slot) = slot {
                slot.taken += u64::from(!refused);
                slot.refused += u64::from(refused);
                slot.work += work;
                slot.longest = slot.longest.max(took);
            }
            (refused, took)
        };
        let what = What::Answered { refused, took: micros(took) };
        self.events.push(Reverse((micros(now + took), number, what)));
    }

    fn answered(&mut self, number: usize, now: f64, refused: bool, took: u64) {
        let Some(agent) = self.agents.get_mut(number) else { return };
        if !refused {
            agent.waiting -= agent.flying;
            agent.oldest += agent.flying as f64 * INTERVAL;
            if agent.waiting <= 1
                && self.behind.get_mut(number).is_some_and(|b| std::mem::replace(b, false))
            {
                self.caught_up.push(now - OUTAGE);
            }
        }
        let at = self.start + Duration::from_secs_f64(now);
        let next = match &mut agent.manners {
            Manners::Ours(ours) => {
                let (backoff, pace) = &mut **ours;
                let code = match refused {
                    true if now < OUTAGE => None,
                    true => Some(503),
                    false => Some(200),
                };
                let backlog = agent.waiting > 0;
                pace.answered(code, Duration::from_micros(took), backlog, at);
                let retry = if refused {
                    backoff.next(None)
                } else {
                    backoff.reset();
                    if backlog {
                        pace.lag(Duration::from_secs_f64((now - agent.oldest).max(0.0)), at);
                    }
                    Duration::ZERO
                };
                let paced = pace.next_at(at) - at;
                now + retry.max(paced).as_secs_f64()
            }
            Manners::Prometheus(pause) => {
                *pause = if refused { (*pause * 2.0).clamp(0.03, 5.0) } else { 0.0 };
                now + *pause
            }
        };
        agent.busy = agent.waiting > 0;
        if agent.busy {
            self.events.push(Reverse((micros(next), number, What::Send)));
        }
    }
}

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).map_or(Ok(1), |seed| seed.parse())?;
    let ours = Fleet::new(true, seed)?.run();
    let theirs = Fleet::new(false, seed)?.run();
    let mut table = Table::new();
    let least = (OUTAGE / INTERVAL * AGENTS as f64 / FULL as f64)
        / (CAPACITY - AGENTS as f64 / INTERVAL / FULL as f64);
    let how = format!(
        "{} agents of 1,000 samples a minute, {CAPACITY} full requests a second at full work",
        thousands(AGENTS as u64)
    );
    table.row("least time to catch up", minutes(Some(least)), how);
    for (who, outcome) in [("mote", &ours), ("Prometheus' defaults", &theirs)] {
        rows(&mut table, who, outcome);
    }
    table.print("A fleet after an outage of an hour");
    curve(&ours, &theirs);
    Ok(())
}

fn minutes(seconds: Option<f64>) -> String {
    seconds.map_or("never".into(), |seconds| format!("{:.1} min", seconds / 60.0))
}

fn rows(table: &mut Table, who: &str, outcome: &Outcome) {
    let after = outcome.slots.get((OUTAGE / SLOT) as usize..).unwrap_or_default();
    let refused: u64 = after.iter().map(|slot| slot.refused).sum();
    let busy = after.iter().filter(|slot| slot.work > 0.99 * SLOT).count();
    let worst = after.iter().map(|slot| slot.taken + slot.refused).max().unwrap_or(0);
    let quantile = |q: f64| {
        let index = (outcome.answers.len() as f64 * q) as usize;
        let answer = outcome.answers.get(index.min(outcome.answers.len().saturating_sub(1)));
        format!("{:.2} s", answer.copied().unwrap_or(0.0))
    };
    let mut row = |what: &str, value: String, how: &str| {
        table.row(format!("{who}: {what}"), value, how);
    };
    row("attempts while it is down", format!("{:.0}/s", outcome.knocks), "the last ten minutes");
    let value = thousands(outcome.worst_second);
    row("requests in the worst second", value, "after the return, 503s too");
    let value = format!("{:.0}/s", worst as f64 / SLOT);
    row("requests in the worst minute", value, "the same");
    row("requests refused", thousands(refused), "503, and sent again");
    row("minutes at full work", busy.to_string(), "the server has no time left");
    row("answers, median", quantile(0.5), "in the three hours after the return");
    row("answers, 99th percentile", quantile(0.99), "the same");
    for (what, at) in ["half", "99 in 100", "all"].iter().zip(outcome.caught_up) {
        row(&format!("{what} caught up"), minutes(at), "one round waits at most");
    }
}

/// Requests a second by minute, those refused as dots.
fn curve(ours: &Outcome, theirs: &Outcome) {
    const WIDTH: f64 = 40.0;
    let from = (OUTAGE / SLOT) as usize;
    let rate = |slot: &Slot| (slot.taken + slot.refused) as f64 / SLOT;
    let all = ours.slots.iter().chain(&theirs.slots);
    let most = all.map(rate).fold(1.0, f64::max);
    println!(
        "\nRequests a second in each minute after the server is back; `#` taken, `.` refused\n"
    );
    println!("```\n{:>4}  {:<46}  {:<46}", "min", "mote", "Prometheus' defaults");
    let bar = |slot: &Slot| {
        let part = |count: u64| (count as f64 / SLOT / most * WIDTH).round() as usize;
        let text = format!("{}{}", "#".repeat(part(slot.taken)), ".".repeat(part(slot.refused)));
        format!("{:>5.0} {text:<40}", rate(slot))
    };
    let pairs = ours.slots.iter().zip(&theirs.slots).skip(from).enumerate();
    for (minute, (our, their)) in pairs.take(60).filter(|(m, _)| *m < 20 || m % 5 == 0) {
        println!("{minute:>4}  {}  {}", bar(our), bar(their));
    }
    println!("```");
}
