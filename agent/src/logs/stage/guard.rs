//! The last stage: the bounds that Loki sets on streams, and the guard against too many of them.
//!
//! Every stream costs Loki memory and an index entry, and a label that takes any value, such as a request's
//! number, makes one for each. At most so many streams are active at a time; an entry of a further one goes
//! to one stream that all of them share, with its labels as structured metadata.

use std::collections::HashMap;

use super::hash::{Fnv, of_labels};
use crate::model::Labels;

/// A stream is active for so long after its last entry.
const ACTIVE_SECONDS: i64 = 3_600;

/// Loki's defaults: `max_label_names_per_series`, `max_label_name_length`, `max_label_value_length`.
const MAX_NAMES: usize = 15;
const MAX_NAME_BYTES: usize = 1024;
const MAX_VALUE_BYTES: usize = 2048;

/// Loki's default `max_structured_metadata_entries_count`: it refuses an entry with more pairs.
pub const MAX_PAIRS: usize = 128;
/// Loki's default `max_structured_metadata_size`, in bytes of names and values: it refuses an entry with more.
pub const MAX_PAIR_BYTES: usize = 64 << 10;

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
    pub(super) fn new(max_streams: usize, common: Labels) -> Guard {
        Guard { max_streams, common, active: HashMap::new(), swept: i64::MIN, overflowed: None }
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
            if name.len() > MAX_NAME_BYTES || value.len() > MAX_VALUE_BYTES {
                return false;
            }
            count += 1;
            hash = hash.text(name).text(value);
        }
        (1..=MAX_NAMES).contains(&count) && self.admit(hash.finish(), now_ns)
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
        let fitting = |name: &str| name.len() <= MAX_NAME_BYTES;
        let count =
            from.iter().filter(|(name, value)| is_stored(name, value) && fitting(name)).count();
        // The agent's own labels stay, and of the others the first by name.
        let mut excess = count.saturating_sub(MAX_NAMES);
        for (name, value) in from.iter().rev() {
            if !is_stored(name, value) {
                continue;
            }
            let cut = value.get(..value.floor_char_boundary(MAX_VALUE_BYTES)).unwrap_or_default();
            target.trimmed |= cut.len() < value.len();
            let is_own = self.common.get(name).is_some() || matches!(name, "job" | "instance");
            if !fitting(name) || (excess > 0 && !is_own) {
                excess -= usize::from(fitting(name));
                let name = name.get(..name.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or_default();
                target.moved.push((name.to_owned(), cut.to_owned()));
                target.trimmed = true;
            } else {
                target.labels.set(name, cut);
            }
        }
        target.moved.reverse();
        // So many labels of the agent's own.
        while target.labels.len() > MAX_NAMES {
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
        Guard::new(max, labels(&[("instance", "pi")]))
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
        let mut guard = Guard::new(9, labels(&[("zone", "home")]));
        let target = guard.target(&all, 0);
        assert_eq!((target.labels.len(), target.moved.len()), (15, 7));
        assert!(target.labels.get("zone").is_some() && target.labels.get("job").is_some());
        assert_eq!(target.moved[0].0, "l13");
        assert!(!guard.target(&labels(&[("a", "1")]), 0).trimmed);
    }

    #[test]
    fn no_stream_is_without_labels() {
        let target = guard(9).target(&labels(&[("__source__", "x")]), 0);
        assert_eq!(target.labels, labels(&[("job", "mote/unlabeled")]));
    }
}
