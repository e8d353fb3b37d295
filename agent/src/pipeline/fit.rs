//! Which entries of a batch go to Loki, in which order and with which time, so that it refuses none of them
//! and hides no refusal. It must not know how requests are made.
//!
//! | entry | what becomes of it |
//! |---|---|
//! | older than `max_entry_age` by Loki's clock | dropped, `too_old` |
//! | longer than `max_line` | dropped, `line_too_long` |
//! | further behind its stream than `max_behind` | dropped, `too_far_behind` |
//! | further ahead than `max_ahead` by Loki's clock, such as local time taken for UTC | goes with the time of its reading |
//! | the same, and read by a clock that was ahead itself and is right now | goes with the time of its sending |
//! | the same, and the clock is still ahead | stays as it is: the sender waits for the clock |
//! | of a stream that Loki has had nothing of for half an hour | goes as the last of its push, since only of that Loki says that it is one too many |
//! | close to being too old or too far behind, or of a stream of which nothing is known and old | goes, each stream in a push of its own |
//!
//! Loki answers a push of several streams with what became of the last one, so that a refusal of an earlier
//! one is hidden by its 204.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::losses::Dropped;
use super::newest::{Known, Newest};
use super::send::Bounds;
use crate::config::Limits;
use crate::host::Clock;
use crate::model::{Block, EntryRef, StreamId};
use crate::sort;

/// Entries so close to a limit go alone: clocks differ, and requests take a while.
const MARGIN_NS: i64 = 600 * 1_000_000_000;

/// How often it is said that entries are ahead.
const REPEAT_LOG: Duration = Duration::from_secs(3_600);

/// A batch and what is known of it.
pub(super) struct Batch {
    pub(super) block: Block,
    /// The first entry of each record, and when it was read, in milliseconds since the Unix epoch.
    pub(super) records: Vec<(u32, i64)>,
    /// Of each stream of the block, the one that it becomes for this endpoint; None if it does not go there.
    pub(super) targets: Vec<Option<StreamId>>,
    /// Of each of those, its name in the table of the newest entries.
    pub(super) keys: Vec<u64>,
}

impl Batch {
    pub(super) fn new() -> Batch {
        let (records, targets, keys) = (Vec::new(), Vec::new(), Vec::new());
        Batch { block: Block::new(), records, targets, keys }
    }

    pub(super) fn clear(&mut self) {
        self.block.clear();
        self.records.clear();
        self.targets.clear();
        self.keys.clear();
    }

    /// An entry that goes, and its stream.
    pub(super) fn entry(&self, index: u32) -> Option<(StreamId, EntryRef<'_>)> {
        let entry = self.block.entry(index as usize)?;
        let target = *self.targets.get(usize::from(entry.stream.0))?;
        target.map(|target| (target, entry))
    }

    /// A stream's name in the table of the newest entries.
    pub(super) fn key(&self, stream: StreamId) -> u64 {
        self.keys.get(usize::from(stream.0)).copied().unwrap_or_default()
    }

    /// When an entry was read, in nanoseconds since the Unix epoch, and a little later for each before it in
    /// its record: Loki takes equal lines of the same time for one. Every sending gives the same.
    fn read_ns(&self, index: u32) -> i64 {
        let after = self.records.partition_point(|(first, _)| *first <= index);
        let record = after.checked_sub(1).and_then(|at| self.records.get(at));
        let (first, time_ms) = record.copied().unwrap_or_default();
        ns(time_ms).saturating_add(i64::from(index - first))
    }

    /// When the newest record was read, in milliseconds since the Unix epoch.
    fn newest_ms(&self) -> i64 {
        self.records.last().map_or(i64::MIN, |(_, time_ms)| *time_ms)
    }
}

pub(super) struct Fit {
    pub(super) limits: Limits,
    pub(super) newest: Newest,
    dropped: Rc<Dropped>,
    clock: Rc<dyn Clock>,
    /// When it was last said that entries are ahead.
    ahead: Option<Instant>,
    /// The last time of sending that an entry was given for its own.
    given_ns: i64,
}

impl Fit {
    pub(super) fn new(limits: Limits, dropped: Rc<Dropped>, clock: Rc<dyn Clock>) -> Fit {
        Fit { limits, newest: Newest::default(), dropped, clock, ahead: None, given_ns: i64::MIN }
    }

    /// Of these entries those that go, each stream's by time, which is that of reading but where a stage or
    /// a source has another one.
    pub(super) fn order(
        &mut self,
        batch: &mut Batch,
        entries: impl Iterator<Item = u32>,
        bounds: Bounds,
    ) -> Vec<u32> {
        let limits = self.limits;
        let oldest_ns =
            bounds.now_ms.zip(limits.max_age).map(|(now, age)| ns(now).saturating_sub(nanos(age)));
        let latest_ns = bounds
            .server_ms
            .zip(limits.max_ahead)
            .map(|(now, ahead)| ns(now).saturating_add(nanos(ahead)));
        // Whether the clock that reads is ahead: what it read can't be told from what it will read.
        let is_ahead = latest_ns.is_some_and(|latest| ns(self.clock.now_ms()) > latest);
        let [mut old, mut long, mut behind] = [Refused::default(); 3];
        let mut restamped = 0u64;
        let mut order = Vec::new();
        for index in entries {
            if let Some(latest) = latest_ns
                && batch.entry(index).is_some_and(|(_, e)| e.timestamp_ns > latest)
            {
                let read_ns = batch.read_ns(index);
                let at = match read_ns > latest {
                    false => Some(read_ns),
                    true if is_ahead => None,
                    true => bounds.server_ms.map(|now| {
                        // A server's clock is told by the second: times must not go back between batches.
                        self.given_ns = ns(now).max(self.given_ns.saturating_add(1));
                        self.given_ns
                    }),
                };
                if let Some(at) = at {
                    batch.block.set_timestamp(index as usize, at);
                    restamped += 1;
                }
            }
            // What does not go to this endpoint was counted by its rules.
            let Some((stream, entry)) = batch.entry(index) else { continue };
            let time = entry.timestamp_ns;
            let key = batch.key(stream);
            if oldest_ns.is_some_and(|oldest| time < oldest) {
                old.add(time);
            } else if limits.max_line.is_some_and(|max| entry.line.len() as u64 > max) {
                long.add(time);
            } else if self.is_behind(key, time) {
                behind.add(time);
            } else {
                order.push(index);
            }
        }
        for (refused, reason) in
            [(old, "too_old"), (long, "line_too_long"), (behind, "too_far_behind")]
        {
            let (from, to) = (refused.from_ns / 1_000_000, refused.to_ns / 1_000_000);
            self.dropped.add_of("logs", reason, refused.entries, from, to);
        }
        if restamped > 0 && self.ahead.is_none_or(|at| at.elapsed() >= REPEAT_LOG) {
            self.ahead = Some(Instant::now());
            log::warn!(
                "{restamped} log entries have a time that is further ahead than Loki takes, and are sent with \
                 the time of their reading: does a timestamp stage take local time for UTC? Or was this \
                 machine's clock ahead?"
            );
        }
        // Streams of which Loki has nothing come last: see `is_new`.
        sort::unstable_by_key(&mut order, |index| {
            let (stream, entry) = batch.entry(*index)?;
            Some((self.is_new(batch.key(stream)), stream.0, entry.timestamp_ns, *index))
        });
        order
    }

    /// Whether a stream may be one too many for Loki, which is said of the last stream of a push only (pkg/ingester
    /// instance.go: the error of one is overwritten by what becomes of the next).
    pub(super) fn is_new(&self, key: u64) -> bool {
        !matches!(self.newest.of(key), Known::Sure(_))
    }

    /// Whether Loki refuses an entry of this time for sure.
    fn is_behind(&self, key: u64, time_ns: i64) -> bool {
        match (self.limits.max_behind, self.newest.of(key)) {
            (Some(max), Known::Sure(newest)) => time_ns < newest.saturating_sub(nanos(max)),
            _ => false,
        }
    }

    /// Whether Loki may refuse an entry of this time, the oldest of its stream in a batch, so that it has to
    /// go in a push without other streams.
    pub(super) fn is_risky(
        &self,
        batch: &Batch,
        key: u64,
        time_ns: i64,
        now_ms: Option<i64>,
    ) -> bool {
        let now_ns = ns(now_ms.unwrap_or_else(|| batch.newest_ms()));
        let close_to = |newest: i64, max: Duration| {
            time_ns < newest.saturating_sub(nanos(max)).saturating_add(MARGIN_NS)
        };
        let newest = match self.newest.of(key) {
            Known::Sure(newest) | Known::Once(newest) => newest,
            Known::Nothing => now_ns,
        };
        self.limits.max_age.is_some_and(|max| close_to(now_ns, max))
            || self.limits.max_behind.is_some_and(|max| close_to(newest, max))
    }

    /// Loki has said that it takes nothing older than this of a stream.
    pub(super) fn learn_floor(&mut self, key: u64, floor_ns: i64) {
        if let Some(max) = self.limits.max_behind {
            self.newest.has(key, floor_ns.saturating_add(nanos(max)));
        }
    }
}

fn ns(ms: i64) -> i64 {
    ms.saturating_mul(1_000_000)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Entries that Loki would refuse.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    entries: u64,
    from_ns: i64,
    to_ns: i64,
}

impl Refused {
    fn add(&mut self, time_ns: i64) {
        let first = self.entries == 0;
        self.from_ns = if first { time_ns } else { self.from_ns.min(time_ns) };
        self.to_ns = if first { time_ns } else { self.to_ns.max(time_ns) };
        self.entries += 1;
    }
}
