//! What stands before the payload of a held record: which boot it is of, and how its clock stood.
//!
//! # Layout (version 1; little-endian)
//! ```text
//!  0  version  u8 = 0xC1: no round and no block begins with it
//!  1  boot     16 bytes of its id
//! 17  offset   i64  wall clock less time since the boot when the record was made, in ms
//! 25  before   i64  the same before the newest step of the clock that was seen; else the offset again
//! 33  from     i64  the time since the boot, in ms, when the clock was last seen before that step; else 0
//! 41  to       i64  and when the step was noticed; 0 if there was none
//! 49           the round or the block
//! ```

use crate::host::BootId;

/// The first byte.
pub const VERSION: u8 = 0xC1;

/// Bytes of it.
const LEN: usize = 49;

/// How far entries may be ahead of the record that they are in, and how sharp a step's edge is, in ms.
const SLACK: i64 = 1_000;

/// The clock when a held record was made. Times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The boot.
    pub boot: BootId,
    /// Wall clock less time since the boot.
    pub offset_ms: i64,
    /// The same before the newest step.
    pub before_ms: i64,
    /// The time since the boot when the clock was last seen before that step.
    pub from_ms: i64,
    /// And when the step was noticed; 0 without a step.
    pub to_ms: i64,
}

impl Stamp {
    /// Appends it to `out`.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.boot);
        for number in [self.offset_ms, self.before_ms, self.from_ms, self.to_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// The stamp at the beginning of a held record's payload, and the rest. None if it is none.
    pub fn split(payload: &[u8]) -> Option<(Stamp, &[u8])> {
        let (head, rest) = payload.split_at_checked(LEN)?;
        let (&version, head) = head.split_first()?;
        let (boot, head) = head.split_first_chunk::<16>()?;
        let mut numbers = head.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok());
        let mut number = || numbers.next().map(i64::from_le_bytes);
        let stamp = Stamp {
            boot: *boot,
            offset_ms: number()?,
            before_ms: number()?,
            from_ms: number()?,
            to_ms: number()?,
        };
        (version == VERSION).then_some((stamp, rest))
    }

    /// Takes the stamp off a held record's payload. None if there is none, and the payload stays.
    pub fn take(payload: &mut Vec<u8>) -> Option<Stamp> {
        let (stamp, _) = Stamp::split(payload)?;
        payload.drain(..LEN);
        Some(stamp)
    }

    /// The time since the boot of a record that this clock gave the time `time_ms`.
    pub fn boot_ms(&self, time_ms: i64) -> i64 {
        time_ms.saturating_sub(self.offset_ms)
    }

    /// The real time of a record that this clock gave the time `time_ms`, by the boot's true offset.
    pub fn real_ms(&self, time_ms: i64, true_ms: i64) -> i64 {
        self.boot_ms(time_ms).saturating_add(true_ms)
    }

    /// The real time of a log entry at `at_ns` in a record of `time_ms`: see the [module](super). In nanoseconds.
    pub fn real_ns(&self, at_ns: i64, time_ms: i64, true_ms: i64) -> i64 {
        let at_ms = at_ns.div_euclid(1_000_000);
        let within = |from: i64, to: i64| (from..=to.saturating_add(SLACK)).contains(&at_ms);
        let offset = if within(self.offset_ms.saturating_add(self.from_ms), time_ms) {
            self.offset_ms
        } else if self.to_ms > 0
            && within(self.before_ms, self.before_ms.saturating_add(self.to_ms))
        {
            self.before_ms
        } else {
            return at_ns;
        };
        at_ns.saturating_add(true_ms.saturating_sub(offset).saturating_mul(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const REAL: i64 = 1_800_000_000_000;

    fn stamp() -> Stamp {
        Stamp { boot: [7; 16], offset_ms: 5_000, before_ms: 5_000, from_ms: 0, to_ms: 0 }
    }

    #[test]
    fn layout_is_as_written() {
        let mut out = vec![9];
        let stamp =
            Stamp { boot: *b"0123456789abcdef", offset_ms: 1, before_ms: -2, from_ms: 3, to_ms: 4 };
        stamp.put(&mut out);
        out.extend_from_slice(b"rest");
        let mut expected = b"\x09\xc10123456789abcdef".to_vec();
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0xfe]);
        expected.extend_from_slice(&[0xff; 7]);
        expected.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(b"rest");
        assert_eq!(out, expected);
        assert_eq!(Stamp::split(&out[1..]), Some((stamp, &b"rest"[..])));
        let mut payload = out[1..].to_vec();
        assert_eq!((Stamp::take(&mut payload), payload), (Some(stamp), b"rest".to_vec()));
    }

    #[test]
    fn what_is_no_stamp_is_none_and_stays() {
        let mut whole = Vec::new();
        stamp().put(&mut whole);
        for len in 0..whole.len() {
            assert_eq!(Stamp::split(&whole[..len]), None);
        }
        whole[0] = 2;
        let before = whole.clone();
        assert_eq!((Stamp::take(&mut whole), &whole), (None, &before));
    }

    #[test]
    fn of_entries_only_those_of_this_boot_by_this_clock_are_changed() {
        // An hour after a boot in 1970, with five seconds at the boot.
        let now = 5_000 + HOUR;
        let real = |at_ms: i64| stamp().real_ns(at_ms * 1_000_000 + 17, now, REAL);
        for (at, shown) in [
            (5_000, REAL),
            (5_000 + HOUR / 2, REAL + HOUR / 2),
            (now, REAL + HOUR),
            (now + 900, REAL + HOUR + 900),
            // Before the boot; another machine's, whose clock is right; nothing at all.
            (4_999, 4_999),
            (REAL + HOUR / 2, REAL + HOUR / 2),
            (now + 1_002, now + 1_002),
            (-HOUR, -HOUR),
        ] {
            assert_eq!(real(at), shown * 1_000_000 + 17, "{at}");
        }
        assert_eq!(stamp().real_ms(now, REAL), REAL + HOUR);
    }

    #[test]
    fn entries_from_before_a_step_are_changed_by_the_clock_that_told_them() {
        // Half an hour after the boot the clock was set from 1970 to a wrong day.
        let wrong = 1_700_000_000_000;
        let stamp =
            Stamp { offset_ms: wrong, from_ms: HOUR / 2 - 60_000, to_ms: HOUR / 2, ..stamp() };
        let now = wrong + HOUR;
        let real = |at_ms: i64| stamp.real_ns(at_ms * 1_000_000, now, REAL) / 1_000_000;
        assert_eq!(real(5_000 + HOUR / 4), REAL + HOUR / 4);
        assert_eq!(real(wrong + 3 * HOUR / 4), REAL + 3 * HOUR / 4);
        // That clock did not show this in this boot.
        assert_eq!(real(wrong + HOUR / 4), wrong + HOUR / 4);
        assert_eq!(real(5_000 + HOUR), 5_000 + HOUR);
    }

    #[test]
    fn forged_numbers_overflow_nothing() {
        for number in [i64::MIN, -1, 0, 1, i64::MAX] {
            for other in [i64::MIN, 0, i64::MAX] {
                let stamp = Stamp {
                    boot: [0; 16],
                    offset_ms: number,
                    before_ms: other,
                    from_ms: number,
                    to_ms: other,
                };
                for at in [i64::MIN, 0, i64::MAX] {
                    let _ = (stamp.real_ns(at, other, number), stamp.real_ms(at, other));
                }
            }
        }
    }
}
