//! Rate limits: a bucket of tokens for each stream, filled by the entries' own timestamps.
//!
//! Timestamps and not the time of reading, so that what is read after an outage in one go is measured by
//! when it was written, and so that the same entries always give the same result.

use std::collections::HashMap;
use std::time::Duration;

use super::hash::{Fnv, of_labels};
use super::{Action, Verdict, Work};

/// The most streams with a bucket of their own; those beyond share one.
const MAX_BUCKETS: usize = 1024;

/// A timestamp this much before the newest one is no disorder among entries, but another time.
const DISORDER_NS: i64 = 60_000_000_000;

/// How much may pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Entries in each `per`.
    pub entries: Option<u32>,
    /// Bytes of lines in each `per`.
    pub bytes: Option<u64>,
    /// The time that both are for.
    pub per: Duration,
    /// How many entries may come at once; None: as many as in one `per`.
    pub burst: Option<u32>,
    /// The labels whose values have a limit of their own; None: all labels, so each stream has one. An
    /// empty list is one limit for all.
    pub by: Option<Vec<String>>,
    /// The reason under which those that go are counted.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    entries: f64,
    bytes: f64,
    at_ns: i64,
}

pub(super) struct RateLimit {
    limit: Limit,
    /// What a full bucket has.
    full: (f64, f64),
    /// What comes in each nanosecond.
    rate: (f64, f64),
    buckets: HashMap<u64, Bucket>,
}

impl RateLimit {
    pub(super) fn new(limit: &Limit) -> RateLimit {
        let per = (limit.per.as_nanos() as f64).max(1.0);
        let entries = limit.entries.map_or(f64::INFINITY, f64::from);
        let bytes = limit.bytes.map_or(f64::INFINITY, |bytes| bytes as f64);
        let burst = limit.burst.map_or(entries, f64::from).max(1.0);
        // A burst of entries is one of bytes too.
        let bytes_full =
            if entries.is_finite() { bytes * (burst / entries).max(1.0) } else { bytes };
        RateLimit {
            limit: limit.clone(),
            full: (if entries.is_finite() { burst } else { entries }, bytes_full),
            rate: (entries / per, bytes / per),
            buckets: HashMap::new(),
        }
    }

    fn key(&self, entry: &Work) -> u64 {
        match &self.limit.by {
            None => of_labels(entry.labels()),
            Some(names) => {
                let value = |name: &String| entry.get(name).unwrap_or_default();
                names.iter().fold(Fnv::new(), |hash, name| hash.text(value(name))).finish()
            }
        }
    }

    /// The bucket's key if there is room for it, or the one that is shared.
    fn place(&mut self, key: u64, now_ns: i64) -> u64 {
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            let (full, rate) = (self.full, self.rate);
            // A bucket that has filled up again is as good as none.
            self.buckets.retain(|_, bucket| {
                let mut later = *bucket;
                later.fill(full, rate, now_ns);
                later.entries < full.0 || later.bytes < full.1
            });
            if self.buckets.len() >= MAX_BUCKETS {
                return 0;
            }
        }
        key
    }
}

impl Bucket {
    fn fill(&mut self, full: (f64, f64), rate: (f64, f64), now_ns: i64) {
        let passed = now_ns.saturating_sub(self.at_ns);
        if passed > 0 {
            let add = |have: f64, full: f64, rate: f64| match full.is_finite() {
                true => (have + passed as f64 * rate).min(full),
                false => full,
            };
            self.entries = add(self.entries, full.0, rate.0);
            self.bytes = add(self.bytes, full.1, rate.1);
        }
        if !(-DISORDER_NS..=0).contains(&passed) {
            self.at_ns = now_ns;
        }
    }
}

impl Action for RateLimit {
    fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
        let now_ns = entry.timestamp_ns;
        let key = self.place(self.key(entry), now_ns);
        let (full, rate) = (self.full, self.rate);
        let fresh = Bucket { entries: full.0, bytes: full.1, at_ns: now_ns };
        let bucket = self.buckets.entry(key).or_insert(fresh);
        bucket.fill(full, rate, now_ns);
        let bytes = entry.line.len() as f64;
        // A line that is larger than a full bucket passes when it is full, and is owed.
        if bucket.entries < 1.0 || bucket.bytes < bytes.min(full.1) {
            return Verdict::Drop;
        }
        bucket.entries -= 1.0;
        bucket.bytes -= bytes;
        Verdict::Keep
    }

    fn reason(&self) -> &str {
        self.limit.reason.as_deref().unwrap_or("rate_limit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    const SECOND: i64 = 1_000_000_000;

    fn limit(entries: Option<u32>, bytes: Option<u64>, burst: Option<u32>) -> RateLimit {
        let (per, by, reason) = (Duration::from_secs(1), None, None);
        RateLimit::new(&Limit { entries, bytes, per, burst, by, reason })
    }

    fn passes(limit: &mut RateLimit, unit: &str, at_ns: i64, line: &str) -> bool {
        let mut work = Work::new(at_ns, line);
        work.set_stream(&Labels::from_pairs([("unit", unit), ("x", line)]).unwrap());
        limit.apply(&mut work, 0) == Verdict::Keep
    }

    #[test]
    fn each_stream_has_its_own_bucket_which_fills_with_time() {
        let mut limit = limit(Some(2), None, None);
        let pattern: Vec<bool> = [("a", 0), ("a", 0), ("a", 0), ("b", 0), ("a", 1), ("a", 1)]
            .map(|(unit, half)| passes(&mut limit, unit, half * SECOND / 2, "x"))
            .to_vec();
        assert_eq!(pattern, [true, true, false, true, true, false]);
        // An hour later no more than a burst.
        let passed = (0..10).filter(|_| passes(&mut limit, "a", 3600 * SECOND, "x")).count();
        assert_eq!(passed, 2);
    }

    #[test]
    fn a_burst_may_be_larger_than_the_rate() {
        let mut limit = limit(Some(1), Some(100), Some(5));
        assert_eq!((0..9).filter(|_| passes(&mut limit, "a", 0, "x")).count(), 5);
        assert_eq!((0..9).filter(|_| passes(&mut limit, "a", SECOND, "x")).count(), 1);
    }

    #[test]
    fn bytes_are_limited_and_a_huge_line_is_owed() {
        let mut limit = limit(None, Some(10), None);
        assert!(passes(&mut limit, "a", 0, &"x".repeat(25)) && limit.buckets.len() == 1);
        let huge = "x".repeat(25);
        assert!(
            !passes(&mut limit, "a", SECOND, &huge) && !passes(&mut limit, "a", 2 * SECOND, &huge)
        );
        assert!(passes(&mut limit, "a", 3 * SECOND, &huge));
    }

    #[test]
    fn timestamps_that_go_to_and_fro_fill_nothing() {
        let mut limit = limit(Some(1), None, None);
        assert!(passes(&mut limit, "a", 10 * SECOND, "x"));
        for _ in 0..10 {
            assert!(!passes(&mut limit, "a", 9 * SECOND, "x"));
            assert!(!passes(&mut limit, "a", 10 * SECOND, "x"));
        }
        // A clock that was in the future does not stop the stream for ever.
        assert!(passes(&mut limit, "a", 4000 * SECOND, "x"));
        assert!(!passes(&mut limit, "a", 20 * SECOND, "x"));
        assert!(passes(&mut limit, "a", 21 * SECOND, "x"));
        for extreme in [i64::MIN, i64::MAX, i64::MIN] {
            passes(&mut limit, "a", extreme, "x");
        }
    }

    #[test]
    fn streams_without_number_share_a_bucket_and_idle_ones_make_room() {
        let mut limit = limit(Some(1), None, None);
        let mut passed = 0;
        for n in 0..5_000 {
            passed += usize::from(passes(&mut limit, &n.to_string(), 0, "x"));
        }
        assert_eq!((passed, limit.buckets.len()), (MAX_BUCKETS + 1, MAX_BUCKETS + 1));
        assert!(passes(&mut limit, "new", 9 * SECOND, "x") && limit.buckets.len() == 1);
    }

    #[test]
    fn a_limit_may_be_for_all_or_by_a_label() {
        for (by, passed) in [(vec![], 1), (vec!["unit".to_owned()], 2)] {
            let per = Duration::from_secs(1);
            let (entries, by) = (Some(1), Some(by));
            let limit = Limit { entries, bytes: None, per, burst: None, by, reason: None };
            let mut limit = RateLimit::new(&limit);
            let units = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")];
            let count =
                units.iter().filter(|(unit, line)| passes(&mut limit, unit, 0, line)).count();
            assert_eq!(count, passed);
        }
    }
}
