//! The series of a segment's table as one endpoint gets them. It must not know requests.
//!
//! Two series that become one are sent by one of them only: in each batch by the first that has a value,
//! and from the round on in which that one has none by one behind it in the table, so that no request
//! has a series' samples out of order. A staleness marker never wins over a value.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use super::count;
use crate::config::Endpoint;
use crate::encode::{Round, Series, Table};
use crate::model::{Labels, STALE};
use crate::pipeline::losses::Dropped;
use crate::relabel::{Counts, Keys, LabelSet, NAME, Rules, Verdict, is_metric_name};

/// Results that are no number of [`SeriesShape::stored`].
const SAME: u32 = u32::MAX;
const DROPPED: u32 = u32::MAX - 1;
const NAMELESS: u32 = u32::MAX - 2;
const TOO_LARGE: u32 = u32::MAX - 3;

/// Closes each name and value of a stored result, as no byte of UTF-8 does.
const END: u8 = 0xff;

/// External labels, rules, and what they have made of the series of a table.
#[derive(Debug, Default)]
pub(crate) struct SeriesShape {
    external: Labels,
    rules: Rules,
    /// By the series' number. [`SAME`]: its own labels and the external ones.
    results: Vec<u32>,
    /// Labels that are others.
    stored: Keys,
    /// The first series with a result, by the result's hash.
    by_hash: HashMap<u64, u32>,
    hasher: RandomState,
    /// By the first of them, series that become the same one. Nearly always empty.
    twins: BTreeMap<u32, Vec<u32>>,
    /// Of those, by the first again, the one that the batch has taken.
    taken: BTreeMap<u32, u32>,
    /// Whether rules let a series of the table go.
    lets_go: bool,
    told: bool,
    set: LabelSet,
}

impl SeriesShape {
    /// What an endpoint's configuration wants.
    pub(crate) fn new(endpoint: &Endpoint) -> SeriesShape {
        SeriesShape {
            external: endpoint.labels.clone(),
            rules: endpoint.relabel.clone(),
            ..SeriesShape::default()
        }
    }

    fn is_plain(&self) -> bool {
        self.external.is_empty() && self.rules.is_empty()
    }

    /// The table begins anew: a number means another series from now on.
    pub(crate) fn forget(&mut self) {
        if !self.is_plain() {
            self.results = Vec::new();
            self.by_hash = HashMap::new();
            self.stored.clear();
            self.twins.clear();
            self.lets_go = false;
            self.begin();
        }
    }

    /// A batch begins.
    pub(crate) fn begin(&mut self) {
        self.taken.clear();
    }

    /// Takes out of a round what does not go to this endpoint, counts it, and returns how much it was.
    pub(crate) fn round(&mut self, table: &Table, round: &mut Round, dropped: &Dropped) -> u64 {
        if self.is_plain() {
            return 0;
        }
        for index in self.results.len()..table.len() {
            self.resolve(table, index);
        }
        let mut counts = Counts::default();
        if self.lets_go {
            for (index, result) in self.results.iter().enumerate() {
                let count = match *result {
                    DROPPED => &mut counts.dropped,
                    NAMELESS => &mut counts.nameless,
                    TOO_LARGE => &mut counts.too_large,
                    _ => continue,
                };
                if round.value(index).is_some() {
                    round.remove(index);
                    *count += 1;
                }
            }
        }
        for (first, members) in &self.twins {
            let taken = self.taken.get(first).copied();
            let value = |member: u32| round.value(member as usize).map(f64::to_bits);
            let may = |member: &&u32| taken.is_none_or(|taken| **member >= taken);
            let lives = |member: &&u32| value(**member).is_some_and(|bits| bits != STALE);
            let next = members.iter().filter(may).find(lives);
            let next = next.or_else(|| members.iter().filter(may).find(|m| value(**m).is_some()));
            let next = next.copied();
            for member in members {
                if next != Some(*member) && round.value(*member as usize).is_some() {
                    round.remove(*member as usize);
                    counts.duplicates += 1;
                }
            }
            if let Some(next) = next {
                self.taken.insert(*first, next);
            }
        }
        count(dropped, "metrics", counts);
        counts.dropped + counts.duplicates + counts.nameless + counts.too_large
    }

    /// The labels of a series of a round that has passed [`round`](SeriesShape::round), by name.
    pub(crate) fn labels<'a>(
        &'a self,
        series: Series<'a>,
        index: usize,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        let stored = |result: &u32| self.stored.get(*result as usize);
        match self.results.get(index).and_then(stored) {
            Some(labels) => Which::Stored(read(labels)),
            None if self.external.is_empty() => Which::Own(series.labels()),
            None => Which::Merged(merge(series.labels(), self.external.iter())),
        }
    }

    /// What becomes of the series of this number, the next one.
    fn resolve(&mut self, table: &Table, index: usize) {
        let Some(series) = table.get(index) else { return self.results.push(DROPPED) };
        self.set.clear();
        series.labels().for_each(|(name, value)| self.set.add(name, value));
        for (name, value) in self.external.iter() {
            if self.set.get(name).is_empty() {
                self.set.set(name, value);
            }
        }
        let verdict = self.rules.apply(&mut self.set);
        self.set.sort();
        let result = match verdict {
            Verdict::Drop => DROPPED,
            Verdict::TooLarge => TOO_LARGE,
            Verdict::Keep if !is_metric_name(self.set.get(NAME)) => NAMELESS,
            Verdict::Keep if self.is_same(series) => SAME,
            Verdict::Keep => {
                let mut labels = Vec::new();
                for (name, value) in self.set.iter() {
                    for part in [name, value] {
                        labels.extend_from_slice(part.as_bytes());
                        labels.push(END);
                    }
                }
                self.stored.add(&labels).map_or(TOO_LARGE, |number| number as u32)
            }
        };
        self.results.push(result);
        if matches!(result, DROPPED | NAMELESS | TOO_LARGE) {
            self.lets_go = true;
            return;
        }
        let mut hasher = self.hasher.build_hasher();
        self.set.iter().for_each(|label| label.hash(&mut hasher));
        let first = *self.by_hash.entry(hasher.finish()).or_insert(index as u32);
        if first != index as u32
            && let Some(other) = table.get(first as usize)
            && self.labels(other, first as usize).eq(self.set.iter())
        {
            let twins = self.twins.entry(first).or_insert_with(|| vec![first]);
            twins.push(index as u32);
            if !std::mem::replace(&mut self.told, true) {
                let name = self.set.get(NAME);
                log::warn!(
                    "relabelling for an endpoint makes several series one, such as one of {name}: one of them is sent (relabel_duplicate)"
                );
            }
        }
    }

    /// Whether the set is what it was before the rules.
    fn is_same(&self, series: Series<'_>) -> bool {
        let full = |label: &(&str, &str)| !label.1.is_empty();
        merge(series.labels(), self.external.iter()).filter(full).eq(self.set.iter())
    }
}

/// Names and values as they are stored.
fn read(labels: &[u8]) -> impl Iterator<Item = (&str, &str)> + Clone {
    let mut parts = labels.split(|&byte| byte == END);
    std::iter::from_fn(move || {
        let mut part = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
        // What follows the last END is empty and has no partner.
        Some((part()?, part()?))
    })
}

/// Both in the order of their names, the first ones where both have a name.
fn merge<'a>(
    own: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    more: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
    let (mut own, mut more) = (own.peekable(), more.peekable());
    std::iter::from_fn(move || {
        let order = match (own.peek(), more.peek()) {
            (Some((own, _)), Some((more, _))) => own.cmp(more),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, _) => std::cmp::Ordering::Greater,
        };
        if order.is_eq() {
            more.next();
        }
        if order.is_le() { own.next() } else { more.next() }
    })
}

/// One of three iterators.
#[derive(Clone)]
enum Which<A, B, C> {
    Own(A),
    Merged(B),
    Stored(C),
}

impl<T, A, B, C> Iterator for Which<A, B, C>
where
    A: Iterator<Item = T>,
    B: Iterator<Item = T>,
    C: Iterator<Item = T>,
{
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Which::Own(labels) => labels.next(),
            Which::Merged(labels) => labels.next(),
            Which::Stored(labels) => labels.next(),
        }
    }
}
