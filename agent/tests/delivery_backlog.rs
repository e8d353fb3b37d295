//! Hours of backlog into a real Prometheus, over kills of the agent and of Prometheus: what its HTTP API gives back
//! is what was put into the WAL, value by value and bit by bit, each sample once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mote::encode::{ROUND, RoundEncoder};
use mote::model::{Desc, Labels, Samples};
use mote::wal::{Disk, Encoded, OnFull, Options, Payload, Wal};
use support::{Agent, Dice, Prometheus};

const SEED: u64 = 20_261_122;
const LONG: Duration = Duration::from_secs(120);
const HOURS: i64 = 6;
const ROUNDS: i64 = HOURS * 60;
const MINUTE_MS: i64 = 60_000;

const GAUGE: Desc = Desc::gauge("backlog_value", "Anything that a float can be.");
const COUNTER: Desc = Desc::counter("backlog_total", "What grows.");
const GUEST: Desc = Desc::gauge("backlog_guest", "What comes and goes.");

/// One round on its way into the WAL.
struct OfRound<'a> {
    encoder: &'a mut RoundEncoder,
    samples: &'a Samples,
    time_ms: i64,
}

impl Payload for OfRound<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let items = self.encoder.encode(&[self.samples], fresh, out);
        Encoded { items, time_ms: self.time_ms }
    }
}

/// Values as they can be, and seldom are.
fn value(dice: &mut Dice, at: usize, round: i64) -> f64 {
    match at % 8 {
        0 => {
            [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE][dice.roll(5) as usize]
        }
        1 => f64::from_bits(dice.roll(1 << 52)),
        2 => round as f64,
        3 => 1.0 / 3.0 * round as f64,
        4 => (dice.roll(u64::MAX) >> 11) as f64,
        5 => 42.0,
        _ => loop {
            let any = f64::from_bits(dice.roll(u64::MAX));
            // Which NaN it is the API does not say.
            if !any.is_nan() {
                break any;
            }
        },
    }
}

/// By name and label, and by time in milliseconds: the bits.
type Stored = BTreeMap<(String, String), BTreeMap<i64, u64>>;

/// Puts the backlog where the agent finds it, its newest round a minute old.
fn put(agent: &Agent, dice: &mut Dice) -> Stored {
    let path = agent.path("state/wal/metrics");
    std::fs::create_dir_all(&path).unwrap();
    let options = Options::new(32 << 20, OnFull::DropOldest, 1);
    let mut wal = Wal::open(Disk::new(&path).unwrap(), options, &[]).unwrap();
    let mut labels = Labels::new();
    labels.set_default("job", "backlog".to_owned());
    let mut encoder = RoundEncoder::new(labels);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut stored = Stored::new();
    let mut keep = |name: &str, at: &str, time_ms: i64, value: f64| {
        let series = stored.entry((name.to_owned(), at.to_owned())).or_default();
        assert!(series.insert(time_ms, value.to_bits()).is_none());
    };
    for round in 0..ROUNDS {
        let time_ms = now - (ROUNDS - round) * MINUTE_MS;
        let mut samples = Samples::with_limit(999);
        for at in 0..96usize {
            let (name, value) = (at.to_string(), value(dice, at, round));
            samples.family(&GAUGE).add(&[("at", &name)], value);
            keep("backlog_value", &name, time_ms, value);
        }
        let total = (round * round) as f64 * 0.1;
        samples.family(&COUNTER).add(&[("at", "0")], total);
        keep("backlog_total", "0", time_ms, total);
        if round / 7 % 3 == 0 {
            samples.family(&GUEST).add(&[("at", "0")], round as f64);
            keep("backlog_guest", "0", time_ms, round as f64);
        }
        let (encoder, samples) = (&mut encoder, &samples);
        wal.append(ROUND, &mut OfRound { encoder, samples, time_ms }).unwrap();
    }
    wal.sync().unwrap();
    stored
}

/// What Prometheus has of the backlog.
fn get(prometheus: &Prometheus) -> Stored {
    let mut stored = Stored::new();
    for series in prometheus.query(&format!("{{job=\"backlog\"}}[{}h]", HOURS + 1)) {
        let times = series.times_ms();
        let values = series.samples.iter().map(|(_, value)| value.to_bits());
        let samples: BTreeMap<i64, u64> = times.iter().copied().zip(values).collect();
        assert_eq!(samples.len(), times.len(), "two samples of one time");
        assert_eq!(series.labels.len(), 3, "{:?}", series.labels);
        let key = (series.labels["__name__"].clone(), series.labels["at"].clone());
        assert!(stored.insert(key, samples).is_none());
    }
    stored
}

fn count(stored: &Stored) -> usize {
    stored.values().map(BTreeMap::len).sum()
}

#[test]
fn hours_of_backlog_are_in_prometheus_bit_by_bit_over_kills_of_both() {
    let mut dice = Dice::new(SEED);
    let mut prometheus = Prometheus::new();
    let mut agent = Agent::new(&format!(
        "instance = \"box\"\ninterval = \"1h\"\nlog = {{ level = \"warn\" }}\n\
         [probes]\ndefault = \"off\"\n[metrics.collectors]\nonly = [\"time\"]\n\
         [[mimir]]\nurl = {:?}\nmax_samples_per_send = 1000\nsend_interval = \"0s\"\n\
         backoff = {{ min = \"20ms\", max = \"200ms\" }}\n",
        prometheus.url()
    ));
    let expected = put(&agent, &mut dice);
    let (mut kills, mut seen) = (0, Vec::new());
    let sent = |agent: &Agent| agent.try_status().and_then(|s| s["endpoints"][0]["sent"].as_u64());
    // Each life gets a part of it done.
    while kills < 8 {
        agent.spawn();
        let part = 1_500 + dice.roll(3_000);
        let end = Instant::now() + Duration::from_secs(20);
        while sent(&agent) < Some(part) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        match kills {
            2 => prometheus.kill(),
            5 => prometheus.stop(),
            _ => {}
        }
        agent.kill();
        kills += 1;
        if kills == 3 || kills == 6 {
            // The agent meets nobody at first.
            agent.spawn();
            std::thread::sleep(dice.millis(200, 500));
            prometheus.start();
        }
        if agent.runs() {
            std::thread::sleep(dice.millis(50, 300));
            agent.kill();
        }
        seen.push(count(&get(&prometheus)));
    }
    agent.start();
    agent.wait("the backlog is drained", LONG, |agent| {
        agent.status()["endpoints"][0]["lag_seconds"] == 0.0
    });
    let have = get(&prometheus);
    println!("samples at each kill: {seen:?} of {}", count(&expected));
    assert!(seen[0] > 0 && seen[5] < count(&expected), "the kills were not in the drain: {seen:?}");
    assert_eq!(have.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (series, expected) in &expected {
        let have = &have[series];
        assert!(have == expected, "{series:?}: {} of {} samples", have.len(), expected.len());
    }
    assert!(agent.terminate().0.success());
}
