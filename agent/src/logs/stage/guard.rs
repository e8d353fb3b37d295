//! The last stage: the bounds that Loki sets on streams, and the guard against too many of them.
//!
//! Every stream costs Loki memory and an index entry, and a label that takes any value, such as a request's
//! number, makes one for each. At most so many streams are active at a time; an entry of a further one goes
//! to one stream that all of them share, with its labels as structured metadata.

use std::collections::HashMap;

use super::hash::{Fnv, of_labels};
use crate::model::{Labels, is_label_name};

/// A stream is active for so long after its last entry.
const ACTIVE_SECONDS: i64 = 3_600;

/// What Loki takes of a stream's labels and of an entry's structured metadata; by default what it takes by
/// default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Labels of a stream (`max_label_names_per_series`).
    pub names: usize,
    /// Bytes of a label's name (`max_label_name_length`).
    pub name_bytes: usize,
    /// Bytes of a label's value (`max_label_value_length`).
    pub value_bytes: usize,
    /// Pairs of an entry (`max_structured_metadata_entries_count`).
    pub pairs: usize,
    /// Bytes of their names and values (`max_structured_metadata_size`).
    pub pair_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        StreamLimits {
            names: 15,
            name_bytes: 1024,
            value_bytes: 2048,
            pairs: 128,
            pair_bytes: 64 << 10,
        }
    }
}

impl StreamLimits {
    /// What one of two takes.
    #[must_use]
    pub fn widest(self, other: StreamLimits) -> StreamLimits {
        StreamLimits {
            names: self.names.max(other.names),
            name_bytes: self.name_bytes.max(other.name_bytes),
            value_bytes: self.value_bytes.max(other.value_bytes),
            pairs: self.pairs.max(other.pairs),
            pair_bytes: self.pair_bytes.max(other.pair_bytes),
        }
    }

    /// Labels that don't fit, as they fit: values are cut, and names that are too long, no names or too many
    /// are left out. None if they fit as they are.
    pub fn trimmed(&self, labels: &Labels) -> Option<Labels> {
        let fits = |(name, value): (&str, &str)| {
            name.len() <= self.name_bytes && value.len() <= self.value_bytes && is_label_name(name)
        };
        if (1..=self.names).contains(&labels.len()) && labels.iter().all(fits) {
            return None;
        }
        let mut kept = Labels::new();
        let usable = labels.iter().filter(|(name, value)| fits((name, "")) && !value.is_empty());
        // The last by name goes, but who somebody is does not.
        let first = |name: &str| matches!(name, "job" | "instance");
        for (name, value) in usable.clone().filter(|(name, _)| first(name)).chain(usable) {
            if kept.len() >= self.names {
                break;
            }
            let value = value.get(..value.floor_char_boundary(self.value_bytes));
            kept.set(name, value.unwrap_or_default());
        }
        if kept.is_empty() {
            kept.set("job", "mote/unlabeled");
        }
        Some(kept)
    }
}

/// Whether a label goes on to the WAL: internal and empty ones don't.
pub(super) fn is_stored(name: &str, value: &str) -> bool {
    !name.starts_with("__") && !value.is_empty()
}

/// Where the entries of a stream go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Target {
    pub(super) labels: Labels,
    /// What the stream's labels had too much, for the structured metadata of each entry.
    pub(super) moved: Vec<(String, String)>,
    /// The stream is one too many.
    pub(super) overflow: bool,
    /// Something was cut or moved to stay within Loki's bounds.
    pub(super) trimmed: bool,
}

/// The streams that are active.
#[derive(Debug)]
pub(super) struct Guard {
    max_streams: usize,
    limits: StreamLimits,
    /// Labels that every stream has; nothing is gained by moving them.
    common: Labels,
    /// The hash of a stream, and the second of its last entry.
    active: HashMap<u64, i64>,
    /// When what is no longer active was last looked for.
    swept: i64,
    /// When the guard last had to step in.
    overflowed: Option<i64>,
}

impl Guard {
    pub(super) fn new(max_streams: usize, limits: StreamLimits, common: Labels) -> Guard {
        let active = HashMap::new();
        Guard { max_streams, limits, common, active, swept: i64::MIN, overflowed: None }
    }

    /// What Loki takes.
    pub(super) fn limits(&self) -> StreamLimits {
        self.limits
    }

    /// How many streams are active.
    pub(super) fn active(&self) -> usize {
        self.active.len()
    }

    /// Looks for streams that are no longer active, now and then.
    pub(super) fn sweep(&mut self, now_ns: i64) {
        let now = now_ns.div_euclid(1_000_000_000);
        // The clock may have gone back.
        if now.saturating_sub(self.swept).unsigned_abs() < 60 {
            return;
        }
        self.swept = now;
        self.active.retain(|_, last| {
            *last = (*last).min(now);
            now - *last < ACTIVE_SECONDS
        });
        if self.overflowed.is_some_and(|last| now.saturating_sub(last) >= ACTIVE_SECONDS) {
            self.overflowed = None;
            log::info!("log streams are no more than logs.max_streams again");
        }
    }

    /// Whether entries with these labels go to the stream that is left without [what is not
    /// stored](is_stored), and nothing else is to be done. Otherwise [`target`](Guard::target) says what.
    pub(super) fn is_plain(&mut self, labels: &Labels, now_ns: i64) -> bool {
        let (mut count, mut hash) = (0, Fnv::new());
        for (name, value) in labels.iter().filter(|(name, value)| is_stored(name, value)) {
            if name.len() > self.limits.name_bytes || value.len() > self.limits.value_bytes {
                return false;
            }
            count += 1;
            hash = hash.text(name).text(value);
        }
        (1..=self.limits.names).contains(&count) && self.admit(hash.finish(), now_ns)
    }

    /// Whether the stream is active or may become so.
    fn admit(&mut self, hash: u64, now_ns: i64) -> bool {
        let now = now_ns.div_euclid(1_000_000_000);
        if let Some(last) = self.active.get_mut(&hash) {
            *last = now;
            return true;
        }
        let room = self.active.len() < self.max_streams;
        if room {
            self.active.insert(hash, now);
        }
        room
    }

    /// Where entries with these labels go.
    pub(super) fn target(&mut self, labels: &Labels, now_ns: i64) -> Target {
        let mut target = self.trim(labels);
        if !self.admit(of_labels(&target.labels), now_ns) {
            let now = now_ns.div_euclid(1_000_000_000);
            if self.overflowed.replace(now).is_none() {
                log::warn!(
                    "there are more log streams than logs.max_streams ({}): entries of further ones, such as \
                     {}, go to one with job=\"mote/overflow\", their labels as structured metadata; \
                     a label with too many values belongs into structured metadata",
                    self.max_streams,
                    target.labels
                );
            }
            let own = |(name, value): &(&str, &str)| self.common.get(name) != Some(*value);
            let pairs = target.labels.iter().filter(own);
            let mut moved: Vec<_> = pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            moved.append(&mut target.moved);
            let mut labels = self.common.clone();
            labels.set("job", "mote/overflow");
            target = Target { labels, moved, overflow: true, trimmed: target.trimmed };
        }
        target
    }

    /// Without internal labels and empty ones, within Loki's bounds.
    fn trim(&self, from: &Labels) -> Target {
        let mut target = Target::default();
        let fitting = |name: &str| name.len() <= self.limits.name_bytes;
        let count =
            from.iter().filter(|(name, value)| is_stored(name, value) && fitting(name)).count();
        // The agent's own labels stay, and of the others the first by name.
        let mut excess = count.saturating_sub(self.limits.names);
        for (name, value) in from.iter().rev() {
            if !is_stored(name, value) {
                continue;
            }
            let cut =
                value.get(..value.floor_char_boundary(self.limits.value_bytes)).unwrap_or_default();
            target.trimmed |= cut.len() < value.len();
            let is_own = self.common.get(name).is_some() || matches!(name, "job" | "instance");
            if !fitting(name) || (excess > 0 && !is_own) {
                excess -= usize::from(fitting(name));
                let name = name
                    .get(..name.floor_char_boundary(self.limits.name_bytes))
                    .unwrap_or_default();
                target.moved.push((name.to_owned(), cut.to_owned()));
                target.trimmed = true;
            } else {
                target.labels.set(name, cut);
            }
        }
        target.moved.reverse();
        // So many labels of the agent's own.
        while target.labels.len() > self.limits.names {
            let last = target.labels.iter().next_back().map(|(name, _)| name.to_owned());
            let Some(name) = last else { break };
            let value = target.labels.remove(&name).unwrap_or_default();
            target.moved.push((name, value));
            target.trimmed = true;
        }
        if target.labels.is_empty() {
            // Loki takes no stream without labels.
            target.labels.set("job", "mote/unlabeled");
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn guard(max: usize) -> Guard {
        Guard::new(max, StreamLimits::default(), labels(&[("instance", "pi")]))
    }

    #[test]
    fn a_stream_too_many_goes_to_the_common_one_with_its_labels_as_metadata() {
        let mut guard = guard(2);
        let of = |guard: &mut Guard, id: &str, at| {
            let labels = labels(&[("instance", "pi"), ("id", id), ("__source__", "file")]);
            guard.target(&labels, at)
        };
        assert_eq!(of(&mut guard, "1", 0).labels, labels(&[("instance", "pi"), ("id", "1")]));
        assert!(!of(&mut guard, "2", 1_800 * SECOND).overflow);
        let third = of(&mut guard, "3", 1_801 * SECOND);
        assert_eq!(third.labels, labels(&[("instance", "pi"), ("job", "mote/overflow")]));
        assert_eq!(third.moved, [("id".to_owned(), "3".to_owned())]);
        assert!(third.overflow && !of(&mut guard, "1", 0).overflow);
        // An hour later the first has made room.
        guard.sweep(3_700 * SECOND);
        assert_eq!(guard.active(), 1);
        assert!(!of(&mut guard, "3", 3_700 * SECOND).overflow);
    }

    #[test]
    fn a_clock_that_goes_back_keeps_no_stream_for_ever() {
        let mut guard = guard(1);
        guard.target(&labels(&[("a", "1")]), 1_000_000 * SECOND);
        guard.sweep(1_000 * SECOND);
        guard.sweep(4_600 * SECOND);
        assert_eq!(guard.active(), 0);
        for extreme in [i64::MIN, i64::MAX] {
            guard.target(&labels(&[("a", "1")]), extreme);
            guard.sweep(extreme);
        }
    }

    #[test]
    fn what_loki_would_refuse_is_trimmed() {
        let long = "ü".repeat(2_000);
        let name = "n".repeat(1_100);
        let mut all = labels(&[("value", &long), (&name, "x"), ("empty", ""), ("__x", "y")]);
        let target = guard(9).target(&all, 0);
        assert_eq!(target.labels.get("value").map(str::len), Some(2_048));
        assert_eq!((target.labels.len(), target.trimmed), (1, true));
        assert_eq!(target.moved, [("n".repeat(1_024), "x".to_owned())]);

        all = (0..20).fold(Labels::new(), |mut all, n| {
            all.set(&format!("l{n:02}"), "x");
            all
        });
        all.set("zone", "home");
        all.set("job", "j");
        let mut guard = Guard::new(9, StreamLimits::default(), labels(&[("zone", "home")]));
        let target = guard.target(&all, 0);
        assert_eq!((target.labels.len(), target.moved.len()), (15, 7));
        assert!(target.labels.get("zone").is_some() && target.labels.get("job").is_some());
        assert_eq!(target.moved[0].0, "l13");
        assert!(!guard.target(&labels(&[("a", "1")]), 0).trimmed);
    }

    #[test]
    fn labels_that_came_later_are_trimmed_to_what_loki_takes() {
        let limits = StreamLimits { names: 3, name_bytes: 8, value_bytes: 4, ..Default::default() };
        let fine = labels(&[("a", "1"), ("job", "j"), ("z", "x")]);
        assert_eq!(limits.trimmed(&fine), None);
        let mut all = labels(&[("a", "1"), ("b", "2"), ("instance", "üüü"), ("job", "j")]);
        all.set("with.dot", "x");
        all.set("muchtoolong", "x");
        let expected = labels(&[("a", "1"), ("instance", "üü"), ("job", "j")]);
        assert_eq!(limits.trimmed(&all), Some(expected));
        let none = labels(&[("job", "mote/unlabeled")]);
        assert_eq!(limits.trimmed(&Labels::new()), Some(none));
        let wide = StreamLimits { names: 30, value_bytes: 1, ..Default::default() }.widest(limits);
        assert_eq!((wide.names, wide.value_bytes, wide.name_bytes), (30, 4, 1024));
    }

    #[test]
    fn no_stream_is_without_labels() {
        let target = guard(9).target(&labels(&[("__source__", "x")]), 0);
        assert_eq!(target.labels, labels(&[("job", "mote/unlabeled")]));
    }
}
