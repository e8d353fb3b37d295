//! How far a container's log has been read by its API, as bytes, and how to go on there.
//!
//! **Version 1**, little-endian, 25 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 0 | 1 |
//! | 1–8 | the latest timestamp of all messages, i64, nanoseconds since the Unix epoch |
//! | 9–16 | how many messages were taken from the first with that timestamp on, u64 |
//! | 17–20 | CRC-32C of the last one: the timestamp that its entry has, text, output |
//! | 21–24 | CRC-32C of the daemon's address as it is configured |
//!
//! **Going on.** The daemon is asked for what it has since a second before that timestamp: whole seconds
//! mean the same to all daemons, and messages of two outputs may stand in the log a little out of order.
//! What comes before the first message with that timestamp has been taken, and from it on so many messages
//! as are counted. A later timestamp can't have been taken. This holds for timestamps of any precision, and
//! where the clock was set back.
//!
//! **Rotated away.** Where a clock that was ahead gave the latest timestamp, all that is written until it is
//! reached is earlier. If the log has the first message with it no more, the last one that was taken ends what
//! has been, by its CRC-32C; without that one too, what was written since the connection was made is new, and
//! the rest can't be told apart: it is passed over, and counted.

use std::fmt;

/// The first byte.
const VERSION: u8 = 1;
const LEN: usize = 25;

/// How far a log has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The latest timestamp.
    pub latest_ns: i64,
    /// Messages from the first with it on; none: nothing was read.
    pub taken: u64,
    /// Of the last one.
    pub hash: u32,
    /// Of the daemon's address.
    pub host: u32,
}

/// Why bytes are no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkError {
    /// Another version, or none.
    Version(Option<u8>),
    /// Another length.
    Length(usize),
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MarkError::Version(Some(version)) => write!(f, "a position of version {version}"),
            MarkError::Version(None) => f.write_str("an empty position"),
            MarkError::Length(length) => write!(f, "a position of {length} bytes"),
        }
    }
}

impl std::error::Error for MarkError {}

impl Mark {
    /// The bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let mut bytes = [VERSION; LEN];
        let fields = self
            .latest_ns
            .to_le_bytes()
            .into_iter()
            .chain(self.taken.to_le_bytes())
            .chain(self.hash.to_le_bytes())
            .chain(self.host.to_le_bytes());
        bytes.iter_mut().skip(1).zip(fields).for_each(|(place, byte)| *place = byte);
        bytes
    }

    /// # Errors
    /// They are no position of this version.
    pub fn decode(bytes: &[u8]) -> Result<Mark, MarkError> {
        match bytes.first() {
            Some(&VERSION) => {}
            other => return Err(MarkError::Version(other.copied())),
        }
        if bytes.len() != LEN {
            return Err(MarkError::Length(bytes.len()));
        }
        let short = || MarkError::Length(bytes.len());
        let u64_at = |at: usize| {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
            Ok(u64::from_le_bytes(*field))
        };
        let u32_at = |at: usize| {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
            Ok(u32::from_le_bytes(*field))
        };
        Ok(Mark {
            latest_ns: u64_at(1)?.cast_signed(),
            taken: u64_at(9)?,
            hash: u32_at(17)?,
            host: u32_at(21)?,
        })
    }

    /// Counts a message that is taken.
    pub fn take(&mut self, timestamp_ns: i64, hash: u32) {
        if self.taken == 0 || timestamp_ns > self.latest_ns {
            (self.latest_ns, self.taken) = (timestamp_ns, 1);
        } else {
            self.taken = self.taken.saturating_add(1);
        }
        self.hash = hash;
    }

    /// From which timestamp on a message was written after a request of this time: another host's clock may be
    /// ahead, and the mark with it.
    pub fn live_from(&self, asked_ns: i64, is_here: bool) -> i64 {
        let told = is_here || self.latest_ns.saturating_sub(asked_ns) > SKEW_NS;
        if told { asked_ns } else { i64::MAX }
    }

    /// The whole second since which the daemon is to be asked; none: from the start. Docker before 23.0
    /// leaves out each message before it, later ones all before the first one behind it: where the clock is
    /// behind what was read, only all will do.
    pub fn since(&self, now_ns: i64) -> Option<i64> {
        let known = self.taken > 0 && self.latest_ns <= now_ns;
        known.then(|| (self.latest_ns.div_euclid(1_000_000_000) - 1).max(1))
    }
}

/// How far the clock of another host may be ahead.
const SKEW_NS: i64 = 300 * 1_000_000_000;

/// How far a message's time may be behind the moment at which it is looked at.
const SLACK_NS: i64 = 1_000_000_000;

/// Tells which messages of a stream that begins before a mark have been taken.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    mark: Mark,
    /// What has this timestamp or a later one was written after the request.
    live_ns: i64,
    /// How many of those that are counted have come again; none: the first has not.
    again: Option<u64>,
    over: bool,
    /// Bytes of messages before the first that is counted.
    passed: u64,
    lost: u64,
}

impl Resume {
    /// Goes on behind this mark, in an answer in which from a timestamp on all is new, see [`Mark::live_from`].
    pub fn new(mark: Mark, live_ns: i64) -> Resume {
        Resume { mark, live_ns, again: None, over: mark.taken == 0, passed: 0, lost: 0 }
    }

    /// Whether the next message of the stream, of so many bytes, is a new one.
    pub fn is_new(&mut self, timestamp_ns: i64, hash: u32, bytes: u64, now_ns: i64) -> bool {
        if self.over {
            return true;
        }
        // A time to the nanosecond is its message's own, whatever else has gone from the log.
        let is_last = timestamp_ns % 1_000_000_000 != 0 && hash == self.mark.hash;
        let again = match self.again {
            None if timestamp_ns < self.mark.latest_ns => {
                // Not what the log may have from before the clock was set back.
                let live = self.live_ns..=now_ns.saturating_add(SLACK_NS);
                if !is_last && live.contains(&timestamp_ns) {
                    self.end();
                    return true;
                }
                self.passed = self.passed.saturating_add(bytes);
                self.over = is_last;
                return false;
            }
            // The daemon has it no more.
            None if timestamp_ns > self.mark.latest_ns => {
                self.end();
                self.over = true;
                return true;
            }
            None => 1,
            Some(_) if timestamp_ns > self.mark.latest_ns => {
                self.over = true;
                return true;
            }
            Some(again) => again + 1,
        };
        self.again = Some(again);
        self.over = again >= self.mark.taken || is_last;
        false
    }

    /// The log is at its end: a mark that has not come is not there.
    pub fn end(&mut self) {
        if !self.over && self.again.is_none() {
            self.lost = self.lost.saturating_add(std::mem::take(&mut self.passed));
        }
    }

    /// Bytes that were passed over without a mark behind them, since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_these() {
        let mark = Mark { latest_ns: -2, taken: 0x0102, hash: 0xa0b0_c0d0, host: 7 };
        #[rustfmt::skip]
        let expected = [
            1,
            0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0x02, 0x01, 0, 0, 0, 0, 0, 0,
            0xd0, 0xc0, 0xb0, 0xa0,
            7, 0, 0, 0,
        ];
        assert_eq!(mark.encode(), expected);
        assert_eq!(Mark::decode(&expected), Ok(mark));
    }

    #[test]
    fn malformed_positions_are_errors() {
        assert_eq!(Mark::decode(&[]), Err(MarkError::Version(None)));
        assert_eq!(Mark::decode(&[2; LEN]), Err(MarkError::Version(Some(2))));
        assert_eq!(Mark::decode(&[1; LEN - 1]), Err(MarkError::Length(LEN - 1)));
        assert_eq!(Mark::decode(&[1; LEN + 1]), Err(MarkError::Length(LEN + 1)));
    }

    #[test]
    fn a_clock_that_is_behind_asks_for_all() {
        let mut mark = Mark::default();
        assert_eq!(mark.since(5), None);
        mark.take(10_500_000_000, 0);
        assert_eq!(mark.since(10_500_000_000), Some(9));
        assert_eq!(mark.since(10_499_999_999), None);
    }

    #[test]
    fn the_clock_of_another_host_may_be_ahead() {
        let minute = 60_000_000_000;
        let mark = Mark { latest_ns: 100 * minute, taken: 1, ..Mark::default() };
        for (asked, is_here, expected) in [
            (99 * minute, true, 99 * minute),
            (99 * minute, false, i64::MAX),
            (90 * minute, false, 90 * minute),
            (101 * minute, false, i64::MAX),
        ] {
            assert_eq!(mark.live_from(asked, is_here), expected);
        }
    }

    #[test]
    fn a_log_that_was_rotated_away_goes_on_with_what_is_later() {
        let mut mark = Mark::default();
        (0..5).for_each(|n| mark.take(1_000, n));
        let mut resume = Resume::new(mark, 2_000);
        assert!(resume.is_new(1_001, 9, 1, 2_000) && resume.is_new(999, 9, 1, 2_000));
        // Two of the five are gone.
        let mut resume = Resume::new(mark, 2_000);
        let is_new = [2, 3, 4, 5].map(|n| resume.is_new(1_000, n, 1, 2_000));
        assert_eq!(is_new, [false, false, false, true]);
        assert_eq!(resume.take_lost(), 0);
    }

    #[test]
    fn a_mark_of_a_clock_that_was_ahead_and_is_rotated_away_stops_nothing() {
        let second = 1_000_000_000;
        let start = 1_000 * second + 1;
        let mut mark = Mark::default();
        mark.take(start + 7_200 * second, 1);
        mark.take(start, 2);
        // The last one that was taken is there: what is behind it is new, what was before is not.
        let asked = start + 5 * second;
        let mut resume = Resume::new(mark, asked);
        let log = [(start - 1, 9), (start, 2), (start + second, 3)];
        let is_new = log.map(|(time, hash)| resume.is_new(time, hash, 1, asked));
        assert_eq!((is_new, resume.take_lost()), ([false, false, true], 0));
        // It is not: what can't be told apart is counted, and what comes then is taken.
        let mut resume = Resume::new(mark, asked);
        for hash in [4, 5] {
            assert!(!resume.is_new(start + second, hash, 7, asked));
        }
        assert_eq!(resume.take_lost(), 0);
        let log = [(6, 6), (8, 8)].map(|(after, now)| {
            resume.is_new(start + after * second, after as u32, 1, start + now * second)
        });
        assert_eq!((log, resume.take_lost()), ([true; 2], 14));
        // A log that ends so has not got it either.
        let mut resume = Resume::new(mark, asked);
        assert!(!resume.is_new(start + second, 4, 7, asked));
        resume.end();
        assert_eq!(resume.take_lost(), 7);
    }

    #[test]
    fn a_mark_of_a_clock_that_was_ahead_is_waited_for_over_all_that_was_before_it() {
        let mut mark = Mark::default();
        let ahead = 100_000_000_001..100_000_000_005;
        ahead.clone().for_each(|time| mark.take(time, time as u32));
        // The clock is right again, and within what the log has.
        let asked = 50_000_000_001;
        let mut resume = Resume::new(mark, asked);
        let now = asked + 1;
        assert!(ahead.clone().all(|time| !resume.is_new(time, time as u32, 1, now)));
        assert!(resume.is_new(asked + 1, 0, 1, now));
        assert_eq!(resume.take_lost(), 0);
    }

    /// A log: timestamps as the daemon shows them, of any precision and order.
    fn logs() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![
            4 => 0i64..3,
            2 => -2i64..0,
            1 => 1_000_000_000i64..3_000_000_000,
            1 => -5_000_000_000i64..0,
        ];
        (proptest::collection::vec(step, 0..40), any::<bool>()).prop_map(|(steps, whole)| {
            let mut now = 100_000_000_000;
            let shown = steps.into_iter().map(|step| {
                now += step;
                if whole { now / 1_000_000_000 * 1_000_000_000 } else { now }
            });
            shown.collect()
        })
    }

    proptest! {
        #[test]
        fn whatever_was_taken_is_not_taken_again_and_the_rest_is(log in logs(), at in 0usize..40) {
            let at = at.min(log.len());
            let mut mark = Mark::default();
            // Each message is another one.
            (0..at).for_each(|n| mark.take(log[n], n as u32));
            // As Docker answers from 23.0 on: all from the first that is not before.
            let since = mark.since(i64::MAX).unwrap_or(0) * 1_000_000_000;
            let from = log.iter().position(|time| *time >= since).unwrap_or(log.len());
            let mut resume = Resume::new(Mark::decode(&mark.encode()).unwrap(), i64::MAX);
            let mut is_new = |n: &usize| resume.is_new(log[*n], *n as u32, 1, i64::MAX);
            let new: Vec<usize> = (from..log.len()).filter(&mut is_new).collect();
            prop_assert_eq!(new, (at..log.len()).collect::<Vec<_>>());
            prop_assert_eq!(resume.take_lost(), 0);
        }
    }
}
