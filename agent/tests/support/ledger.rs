//! What a strict server was sent, request by request: which of it came again, and whether it may have. A request
//! that was stored leaves what it holds in doubt until the client has an answer; only what is in doubt may come
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::http::{Request, Service};
use super::{strict_loki, strict_mimir};

/// What the strict servers of both signals have in common.
pub trait Kept: Service + Default {
    /// What can be told apart of a request.
    type Item: Ord + Clone + Debug;
    /// The table of the configuration.
    const TABLE: &'static str;
    /// The key that lets nothing wait for company.
    const AT_ONCE: &'static str;
    /// The most items of a batch, which a kill leaves in doubt.
    const BATCH: usize;

    fn items(body: &[u8]) -> Vec<Self::Item>;
    /// What is stored, and what came again.
    fn counts(&self) -> (u64, u64);
}

impl Kept for strict_mimir::Mimir {
    /// A timestamp and a series.
    type Item = (i64, u64);
    const TABLE: &'static str = "mimir";
    const AT_ONCE: &'static str = "send_interval = \"0s\"";
    const BATCH: usize = 2_000;

    fn items(body: &[u8]) -> Vec<(i64, u64)> {
        let mut items = Vec::new();
        for (labels, samples) in strict_mimir::decode(body).unwrap() {
            let series = series(&labels);
            items.extend(samples.iter().map(|(time, _)| (*time, series)));
        }
        items
    }

    fn counts(&self) -> (u64, u64) {
        (self.samples, self.repeats)
    }
}

/// What stands for a series in a ledger.
pub fn series(labels: &strict_mimir::Labels) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

/// A line's number, if it has one, or else the moment of an event of the agent's own and its line's hash: several
/// may be of one moment.
pub type Line = Result<u64, (i128, u64)>;

impl Kept for strict_loki::Loki {
    type Item = Line;
    const TABLE: &'static str = "loki";
    const AT_ONCE: &'static str = "batch_wait = \"0s\"";
    const BATCH: usize = 20_000;

    fn items(body: &[u8]) -> Vec<Line> {
        let streams = strict_loki::decode(body).unwrap();
        let number = |entry: &strict_loki::Entry| {
            let number = entry.line.strip_prefix("line ");
            let number = number.and_then(|rest| rest.split(' ').next());
            let mut hasher = DefaultHasher::new();
            entry.line.hash(&mut hasher);
            let event = (entry.timestamp_ns, hasher.finish());
            number.and_then(|number| number.parse().ok()).ok_or(event)
        };
        streams.iter().flat_map(|(_, entries)| entries.iter().map(number)).collect()
    }

    fn counts(&self) -> (u64, u64) {
        (self.lines, self.repeats)
    }
}

/// What has become of everything that a server was sent.
pub struct Ledger<I> {
    pub stored: BTreeSet<I>,
    /// Refused, and not stored.
    pub refused: BTreeSet<I>,
    /// Items that came when they were stored.
    pub again: u64,
}

/// Reads what the server was sent. `faulty` says of a request that the client can't have had a good answer to
/// it; `ends` are the numbers of connections after which the client was another one, which knows no answer that
/// the one before had not written down: its last batch is in doubt.
///
/// # Panics
/// Something came again that was answered.
pub fn ledger<S: Kept>(
    name: &str,
    requests: &[Request],
    faulty: impl Fn(&Request) -> bool,
    ends: &[usize],
) -> Ledger<S::Item> {
    let mut ledger = Ledger { stored: BTreeSet::new(), refused: BTreeSet::new(), again: 0 };
    let mut doubt: BTreeSet<S::Item> = BTreeSet::new();
    // The last batch of this client, request by request.
    let mut batch: Vec<Vec<S::Item>> = Vec::new();
    let mut ends = ends.iter().peekable();
    for request in requests {
        while ends.next_if(|end| **end < request.connection).is_some() {
            doubt.extend(batch.drain(..).flatten());
        }
        let items = S::items(&request.body);
        if !request.stored {
            let code = request.answer.unwrap_or(0);
            if (400..500).contains(&code)
                && !matches!(
                    code,
                    401 | 403 | 404 | 405 | 407 | 408 | 411 | 415 | 421 | 426 | 429 | 431
                )
            {
                let new = items.into_iter().filter(|item| !ledger.stored.contains(item));
                ledger.refused.extend(new);
            }
            continue;
        }
        for item in &items {
            if !ledger.stored.insert(item.clone()) {
                ledger.again += 1;
                assert!(doubt.contains(item), "{name}: {item:?} was answered, and came again");
            }
            ledger.refused.remove(item);
        }
        if faulty(request) {
            doubt.extend(items.iter().cloned());
        } else {
            for item in &items {
                doubt.remove(item);
            }
        }
        batch.push(items);
        while batch.iter().skip(1).map(Vec::len).sum::<usize>() > S::BATCH {
            batch.remove(0);
        }
    }
    ledger
}

/// How many samples there are of each round.
pub fn by_round(items: &BTreeSet<(i64, u64)>) -> BTreeMap<i64, u32> {
    let mut rounds = BTreeMap::new();
    for (time, _) in items {
        *rounds.entry(*time).or_default() += 1;
    }
    rounds
}
