//! How new the newest entry of each stream is that a Loki has, as far as it is known: Loki refuses what is
//! further behind it than half of its `max_chunk_age`.
//!
//! Bounded, the longest unused stream out, and forgotten at a restart. A stream that Loki has had nothing of
//! for [`SURE`] may be forgotten there, too (`chunk_idle_period`): it takes older entries again then.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Labels;

/// Streams that are known at a time. What falls out is sent with more care, and nothing else.
const MOST: usize = 1_024;

/// Loki's default `chunk_idle_period`, and so the least that it remembers a stream for.
const SURE: Duration = Duration::from_secs(1_800);

/// The newest entries, by stream.
#[derive(Debug, Default)]
pub(super) struct Newest {
    streams: HashMap<u64, (i64, Instant)>,
}

/// What is known of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The time of its newest entry, in nanoseconds since the Unix epoch.
    Sure(i64),
    /// What was its newest entry, long ago.
    Once(i64),
    /// Nothing.
    Nothing,
}

/// A stream's name in the table.
pub(super) fn key(labels: &Labels) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

impl Newest {
    /// What is known of a stream.
    pub(super) fn of(&self, key: u64) -> Known {
        match self.streams.get(&key) {
            Some((newest, at)) if at.elapsed() < SURE => Known::Sure(*newest),
            Some((newest, _)) => Known::Once(*newest),
            None => Known::Nothing,
        }
    }

    /// Loki has an entry of this time.
    pub(super) fn has(&mut self, key: u64, timestamp_ns: i64) {
        let now = Instant::now();
        if self.streams.len() >= MOST && !self.streams.contains_key(&key) {
            let oldest = self.streams.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key);
            oldest.map(|key| self.streams.remove(&key));
        }
        let known = self.streams.entry(key).or_insert((timestamp_ns, now));
        // What was known long ago is not known any more.
        let newest =
            if known.1.elapsed() < SURE { known.0.max(timestamp_ns) } else { timestamp_ns };
        *known = (newest, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_newest_counts_and_only_for_as_long_as_loki_has_it_for_sure() {
        let mut newest = Newest::default();
        assert_eq!(newest.of(1), Known::Nothing);
        newest.has(1, 50);
        newest.has(1, 40);
        assert_eq!(newest.of(1), Known::Sure(50));
        tokio::time::advance(SURE).await;
        assert_eq!(newest.of(1), Known::Once(50));
        newest.has(1, 20);
        assert_eq!(newest.of(1), Known::Sure(20));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_streams_are_known_and_the_longest_unused_goes() {
        let mut newest = Newest::default();
        for key in 0..MOST as u64 {
            newest.has(key, 1);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        newest.has(0, 2);
        newest.has(u64::MAX, 3);
        assert_eq!(newest.streams.len(), MOST);
        assert_eq!((newest.of(0), newest.of(1)), (Known::Sure(2), Known::Nothing));
        assert_eq!(newest.of(u64::MAX), Known::Sure(3));
    }
}
