//! Which entry comes first, and which have been read: the rules of sd-journal's
//! `journal_file_compare_locations`, and where they leave something out, ours.
//!
//! Two entries of one sequence compare by number; else, of one boot, by the time since it; else by the
//! wall clock; else by the hash over their data. Two that agree in boot, both times and hash are the
//! same entry, whatever their numbers: journald numbers what it copies from the volatile journal anew.
//!
//! An entry has been read if its sequence's last point has its number or a higher one. The copies that
//! journald makes of the volatile journal are numbered in another sequence: there an entry of the same
//! boot counts as read up to the point of the other one of the two, volatile and persistent. journald
//! writes in one of them at a time, in order, so that this misses nothing.
//!
//! In a sequence that no point is of (a journal that was deleted or damaged and begun anew, a card of
//! another machine) the wall clock decides, of whole boots: a board without a clock begins each boot
//! behind the end of the last one. The module must not know files.

use std::cmp::Ordering;

use super::Id;
use super::cursor::{Cursor, MAX_POINTS};

/// What an entry is told and ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) seqnum_id: Id,
    pub(super) boot_id: Id,
    pub(super) seqnum: u64,
    pub(super) monotonic: u64,
    pub(super) realtime: u64,
    pub(super) xor_hash: u64,
}

impl Key {
    pub(super) fn order(&self, other: &Key) -> Ordering {
        if self.is_same(other) {
            return Ordering::Equal;
        }
        if self.seqnum_id == other.seqnum_id && self.seqnum != other.seqnum {
            return self.seqnum.cmp(&other.seqnum);
        }
        if self.boot_id == other.boot_id {
            return self.by_boot(other);
        }
        self.realtime.cmp(&other.realtime).then(self.xor_hash.cmp(&other.xor_hash))
    }

    /// The same entry, maybe of another file.
    pub(super) fn is_same(&self, other: &Key) -> bool {
        self.xor_hash == other.xor_hash
            && self.monotonic == other.monotonic
            && self.realtime == other.realtime
            && self.boot_id == other.boot_id
    }

    fn by_boot(&self, other: &Key) -> Ordering {
        let times = self.monotonic.cmp(&other.monotonic).then(self.realtime.cmp(&other.realtime));
        times.then(self.xor_hash.cmp(&other.xor_hash))
    }
}

/// The last entry of a sequence that has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) key: Key,
    pub(super) volatile: bool,
}

/// What has been read: a point for each sequence, the last one read first.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    points: Vec<Point>,
}

impl Points {
    pub(super) fn of(cursor: &Cursor) -> Points {
        Points { points: cursor.points.clone() }
    }

    pub(super) fn cursor(&self) -> Option<Cursor> {
        (!self.points.is_empty()).then(|| Cursor { points: self.points.clone() })
    }

    pub(super) fn point(&self, seqnum_id: &Id) -> Option<&Point> {
        self.points.iter().find(|point| point.key.seqnum_id == *seqnum_id)
    }

    /// Whether it has been read.
    pub(super) fn passed(&self, key: &Key, volatile: bool) -> bool {
        let own = self.point(&key.seqnum_id);
        // Of two entries with one number, which should not be, the second one counts too.
        if own.is_some_and(|own| {
            key.seqnum < own.key.seqnum
                || (key.seqnum == own.key.seqnum && key.order(&own.key).is_le())
        }) {
            return true;
        }
        self.points.iter().any(|point| {
            point.volatile != volatile
                && point.key.boot_id == key.boot_id
                && key.by_boot(&point.key).is_le()
        })
    }

    /// Whether it lies before all that is to be read, where a file is to be entered of whose sequence
    /// nothing is known.
    pub(super) fn before(&self, key: &Key) -> bool {
        let same = self.points.iter().filter(|point| point.key.boot_id == key.boot_id);
        match same.map(|point| key.by_boot(&point.key)).min() {
            Some(order) => order.is_le(),
            None => self.points.first().is_some_and(|last| key.order(&last.key).is_le()),
        }
    }

    /// Whether a boot of which this is the last entry (of one file) has not been read at all, whatever its
    /// clock said at first. `boot` is the one that is running.
    pub(super) fn is_new_boot(&self, last: &Key, boot: Option<Id>) -> bool {
        if self.points.is_empty() || self.points.iter().any(|have| have.key.boot_id == last.boot_id)
        {
            return false;
        }
        // Boots of one machine follow each other: what ends after the cursor began after it. With points
        // given up it may be another machine's that has been read.
        boot == Some(last.boot_id) || (self.points.len() < MAX_POINTS && !self.before(last))
    }

    /// Notes an entry as read; says how many numbers are missing before it.
    pub(super) fn add(&mut self, key: &Key, volatile: bool) -> u64 {
        let point = Point { key: *key, volatile };
        let at = self.points.iter().position(|have| have.key.seqnum_id == key.seqnum_id);
        match at {
            Some(at) => {
                let missing = self.missing(key);
                if let Some(known) = self.points.get_mut(..=at) {
                    known.rotate_right(1);
                }
                if let Some(first) = self.points.first_mut() {
                    *first = point;
                }
                missing
            }
            None => {
                self.points.truncate(MAX_POINTS - 1);
                self.points.insert(0, point);
                0
            }
        }
    }

    /// Notes an entry as read that another sequence had: what comes after it follows without a gap.
    pub(super) fn add_repeated(&mut self, key: &Key, volatile: bool) {
        let own = self.point(&key.seqnum_id);
        if own.is_none_or(|own| own.key.seqnum < key.seqnum) {
            self.add(key, volatile);
        }
    }

    /// How many numbers are missing before this entry. journald counts on from one file to the next,
    /// also where a user's file is a sequence of its own (as all are before systemd 254): the highest
    /// number of the boot is what it follows.
    pub(super) fn missing(&self, key: &Key) -> u64 {
        let highest = self.highest(key);
        highest.map_or(0, |highest| key.seqnum.saturating_sub(highest).saturating_sub(1))
    }

    /// Whether nothing can be missing before it. Of the first entry of all, or of a boot with a sequence
    /// of its own, that can't be told.
    pub(super) fn is_next(&self, key: &Key) -> bool {
        self.highest(key).is_some() && self.missing(key) == 0
    }

    fn highest(&self, key: &Key) -> Option<u64> {
        let same = |point: &&Point| {
            point.key.boot_id == key.boot_id || point.key.seqnum_id == key.seqnum_id
        };
        self.points.iter().filter(same).map(|point| point.key.seqnum).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sequence: u8, seqnum: u64, boot: u8, monotonic: u64, realtime: u64) -> Key {
        let xor_hash = monotonic;
        Key {
            seqnum_id: [sequence; 16],
            boot_id: [boot; 16],
            seqnum,
            monotonic,
            realtime,
            xor_hash,
        }
    }

    #[test]
    fn numbers_then_the_boots_time_then_the_clock() {
        let first = key(1, 5, 1, 50, 500);
        assert!(first.order(&key(1, 6, 1, 40, 400)).is_lt());
        assert!(first.order(&key(2, 1, 1, 51, 400)).is_lt());
        assert!(first.order(&key(2, 9, 2, 10, 499)).is_gt());
        assert!(first.order(&key(2, 77, 1, 50, 500)).is_eq());
        assert!(first.order(&key(1, 5, 1, 51, 500)).is_lt());
    }

    #[test]
    fn what_was_read_is_told_by_number_and_across_a_flush_by_time() {
        let mut points = Points::default();
        assert!(!points.passed(&key(1, 1, 1, 1, 1), false));
        assert_eq!(points.add(&key(1, 10, 1, 100, 1_000), true), 0);
        assert!(points.passed(&key(1, 10, 1, 100, 1_000), true));
        assert!(points.passed(&key(1, 9, 1, 300, 3_000), true));
        assert!(!points.passed(&key(1, 11, 1, 100, 1_000), true));
        // Copies in the persistent journal, with other numbers; another file's own entries.
        assert!(points.passed(&key(2, 500, 1, 99, 999), false));
        assert!(!points.passed(&key(2, 501, 1, 101, 1_001), false));
        assert!(!points.passed(&key(3, 1, 1, 99, 999), true));
        assert!(!points.passed(&key(3, 1, 2, 99, 999), false));
    }

    #[test]
    fn missing_numbers_are_those_that_no_sequence_of_the_boot_has() {
        let mut points = Points::default();
        assert!(!points.is_next(&key(1, 10, 1, 100, 1_000)));
        assert_eq!(points.add(&key(1, 10, 1, 100, 1_000), false), 0);
        assert!(points.is_next(&key(2, 11, 1, 101, 1_001)));
        assert!(!points.is_next(&key(2, 12, 1, 101, 1_001)));
        assert!(!points.is_next(&key(2, 11, 2, 101, 1_001)));
        // A user's file begins.
        assert_eq!(points.add(&key(2, 11, 1, 101, 1_001), false), 0);
        assert_eq!(points.add(&key(1, 12, 1, 102, 1_002), false), 0);
        assert_eq!(points.add(&key(2, 13, 1, 103, 1_003), false), 0);
        assert_eq!(points.add(&key(1, 17, 1, 104, 1_004), false), 3);
        assert_eq!(points.missing(&key(2, 18, 1, 105, 1_005)), 0);
        assert_eq!(points.missing(&key(2, 20, 1, 105, 1_005)), 2);
        let cursor = points.cursor().unwrap();
        assert_eq!(cursor.points[0].key.seqnum, 17);
        assert_eq!(Points::of(&cursor).cursor(), Some(cursor));
    }

    #[test]
    fn of_many_sequences_those_read_last_are_kept() {
        let mut points = Points::default();
        for number in 0..40 {
            points.add(&key(number, 1, number, 1, 1), false);
            points.add(&key(0, 2 + u64::from(number), 0, 2, 2), false);
        }
        let cursor = points.cursor().unwrap();
        assert_eq!(cursor.points.len(), MAX_POINTS);
        assert!(points.point(&[0; 16]).is_some() && points.point(&[39; 16]).is_some());
        assert!(points.point(&[20; 16]).is_none());
    }
}
