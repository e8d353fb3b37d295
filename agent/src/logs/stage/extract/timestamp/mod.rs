//! The stage `timestamp`: an entry gets the time that it says itself.
//!
//! Times are within 1970 and April 2262, and not further ahead of the reading than the options allow:
//! Loki refuses what is. How far back they may lie is `drop`'s matter. Within a stream they need not rise:
//! Loki takes entries that are up to an hour older than the newest of their stream.

mod format;
mod parse;
mod zone;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

pub use format::{Format, FormatError};
pub use zone::Zone;

use super::super::{Action, Verdict, Work};
use super::pick::{Pick, Picker};

/// The most streams whose last time is remembered.
const MAX_STREAMS: usize = 1_024;

/// What happens to an entry that says no time, or one that can't be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It keeps the time of its reading.
    #[default]
    Keep,
    /// It gets the time of the entry before it in its stream, and a nanosecond. Where none is remembered
    /// it keeps the time of its reading.
    Fudge,
}

/// The options of the stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Which text is the time.
    pub pick: Pick,
    /// How it is written.
    pub format: Format,
    /// Where it is a local time.
    pub zone: Zone,
    /// What becomes of the others.
    pub on_failure: OnFailure,
    /// How far ahead of the reading it may be, in nanoseconds.
    pub max_ahead_ns: i64,
}

/// The stage.
#[derive(Debug)]
pub struct Timestamp {
    picker: Picker,
    options: Options,
    /// The last time of each stream, by the hash of its labels.
    last: HashMap<u64, i64>,
    hasher: RandomState,
    misses: u64,
}

impl Timestamp {
    /// The stage.
    pub fn new(options: &Options) -> Timestamp {
        Timestamp {
            picker: Picker::new(&options.pick),
            options: options.clone(),
            last: HashMap::new(),
            hasher: RandomState::new(),
            misses: 0,
        }
    }
}

impl Action for Timestamp {
    fn apply(&mut self, entry: &mut Work, now_ns: i64) -> Verdict {
        let Options { format, zone, on_failure, max_ahead_ns, .. } = &self.options;
        let latest = now_ns.saturating_add(*max_ahead_ns);
        // Of a line the time is the beginning.
        let whole = !self.picker.is_whole_line();
        let time = self.picker.pick(entry).and_then(|text| {
            let text = text.trim_ascii();
            format.read(text, whole, zone, now_ns).filter(|time| *time <= latest)
        });
        if time.is_none() {
            self.misses += 1;
        }
        if *on_failure == OnFailure::Keep {
            entry.timestamp_ns = time.unwrap_or(entry.timestamp_ns);
            return Verdict::Keep;
        }
        let stream = self.hasher.hash_one(entry.labels());
        let before = self.last.get(&stream).and_then(|last| last.checked_add(1));
        let Some(time) = time.or(before) else { return Verdict::Keep };
        entry.timestamp_ns = time;
        if self.last.len() >= MAX_STREAMS && !self.last.contains_key(&stream) {
            self.last.clear();
        }
        self.last.insert(stream, time);
        Verdict::Keep
    }

    fn misses(&self) -> u64 {
        self.misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_298_400_000_000_000;

    fn stage(pick: Pick, format: &str, on_failure: OnFailure) -> Timestamp {
        Timestamp::new(&Options {
            pick,
            format: Format::parse(format).unwrap(),
            zone: Zone::utc(),
            on_failure,
            max_ahead_ns: 600_000_000_000,
        })
    }

    fn entry(stage: &mut Timestamp, stream: &str, line: &str) -> i64 {
        let mut work = Work::default();
        work.set_label("stream", stream);
        work.line.push_str(line);
        work.timestamp_ns = NOW;
        stage.apply(&mut work, NOW);
        work.timestamp_ns
    }

    #[test]
    fn an_entry_gets_the_time_at_its_lines_beginning() {
        let mut stage = stage(Pick::default(), "unix", OnFailure::Keep);
        assert_eq!(entry(&mut stage, "a", " 1795298000.5 x"), 1_795_298_000_500_000_000);
        assert_eq!(stage.misses(), 0);
        // Without a time, and with one that Loki would refuse, it keeps that of its reading.
        assert_eq!(entry(&mut stage, "a", "x"), NOW);
        assert_eq!(entry(&mut stage, "a", "1795299001"), NOW);
        assert_eq!(entry(&mut stage, "a", "1795299000"), 1_795_299_000_000_000_000);
        assert_eq!(entry(&mut stage, "a", "-5"), NOW);
        assert_eq!(stage.misses(), 3);
    }

    #[test]
    fn a_time_that_lacks_follows_the_one_before_in_its_stream() {
        let mut stage = stage(Pick::default(), "unix", OnFailure::Fudge);
        assert_eq!(entry(&mut stage, "a", "at x"), NOW);
        assert_eq!(entry(&mut stage, "a", "1795298000"), 1_795_298_000_000_000_000);
        assert_eq!(entry(&mut stage, "b", "1795297000"), 1_795_297_000_000_000_000);
        assert_eq!(entry(&mut stage, "a", "at x"), 1_795_298_000_000_000_001);
        assert_eq!(entry(&mut stage, "a", "at y"), 1_795_298_000_000_000_002);
        assert_eq!(entry(&mut stage, "b", "at x"), 1_795_297_000_000_000_001);
        assert_eq!(stage.misses(), 4);
    }

    #[test]
    fn streams_without_end_take_no_memory_without_end() {
        let mut stage = stage(Pick::default(), "unix", OnFailure::Fudge);
        for number in 0..10_000 {
            entry(&mut stage, &number.to_string(), "1795298000");
        }
        assert!(stage.last.len() <= MAX_STREAMS);
    }
}
