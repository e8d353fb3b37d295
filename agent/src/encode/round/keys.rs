//! The series of a segment as the writer has them: their keys in one arena, with an index of numbers that
//! finds a key's series. It must not know values or records.

use std::hash::{BuildHasher, RandomState};

use super::schema::Named;
use crate::model::Kind;

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Where the key ends; it begins where the one before ends.
    end: u32,
    kind: Kind,
    /// Which part of the agent gives it, as of its last sample.
    section: u16,
    life: Life,
}

/// Whether a series goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has come, and has not been missing since.
    Alive,
    /// That it is gone stands in the newest record, which may not have been written.
    Ending,
    /// That it is gone has been written.
    Gone,
}

/// Keys of series, each with a number: 0, 1, 2. 16 to 24 bytes a series beside the key's own.
#[derive(Debug, Default)]
pub(super) struct Keys {
    arena: Vec<u8>,
    rows: Vec<Row>,
    /// A table with open addressing, of numbers + 1; 0 is free. Its length is a power of two, and at
    /// least half of it is free.
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of all keys.
    pub(super) fn bytes(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.arena.capacity() + self.rows.capacity() * size_of::<Row>() + self.slots.capacity() * 4
    }

    /// Forgets the keys, and keeps their memory unless it is far more than so many series need.
    pub(super) fn clear(&mut self, expected: usize) {
        if self.rows.capacity() > 4 * expected + 1024 {
            (self.arena, self.rows, self.slots) = Default::default();
        }
        self.arena.clear();
        self.rows.clear();
        self.slots.fill(0);
    }

    #[inline]
    pub(super) fn get(&self, series: usize) -> Option<Named<'_>> {
        let row = self.rows.get(series)?;
        let start = series.checked_sub(1).and_then(|before| self.rows.get(before));
        let start = start.map_or(0, |row| row.end as usize);
        Some(Named { kind: row.kind, key: self.arena.get(start..row.end as usize)? })
    }

    /// Which part of the agent gives a series, and whether it goes on.
    pub(super) fn life(&self, series: usize) -> Option<(u16, Life)> {
        self.rows.get(series).map(|row| (row.section, row.life))
    }

    pub(super) fn set_life(&mut self, series: usize, section: u16, life: Life) {
        if let Some(row) = self.rows.get_mut(series) {
            (row.section, row.life) = (section, life);
        }
    }

    /// The series from a number on.
    pub(super) fn from(&self, series: usize) -> impl Iterator<Item = Named<'_>> {
        (series..self.len()).filter_map(|series| self.get(series))
    }

    /// The number of a key; None if it is not there yet.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        let found = self.slots.get(self.slot(key)?)?;
        (*found as usize).checked_sub(1)
    }

    /// Adds a key that is not there, and returns its number. The caller keeps the arena below 4 GiB.
    pub(super) fn add(&mut self, key: &[u8], kind: Kind) -> usize {
        if self.slots.len() < 2 * (self.rows.len() + 1) {
            self.grow();
        }
        let slot = self.slot(key);
        self.arena.extend_from_slice(key);
        let end = self.arena.len() as u32;
        self.rows.push(Row { end, kind, section: 0, life: Life::Gone });
        if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = self.rows.len() as u32;
        }
        self.rows.len() - 1
    }

    /// The slot of a key, or the free one where it belongs; None while there are no slots.
    fn slot(&self, key: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = self.hasher.hash_one(key) as usize & mask;
        // Ends, because a slot is free.
        loop {
            let number = *self.slots.get(slot)? as usize;
            let Some(series) = number.checked_sub(1) else { return Some(slot) };
            if self.get(series).is_some_and(|named| named.key == key) {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let len = (4 * (self.rows.len() + 1)).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(len, 0);
        for series in 0..self.rows.len() {
            let slot = self.get(series).and_then(|named| self.slot(named.key));
            if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
                *slot = series as u32 + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_numbers_while_the_index_grows_and_after_a_clear() {
        let mut keys = Keys::default();
        for _ in 0..2 {
            for n in 0..1000u32 {
                let key = n.to_le_bytes();
                assert_eq!(keys.find(&key), None);
                assert_eq!(keys.add(&key, Kind::Gauge), n as usize);
            }
            for n in 0..1000u32 {
                assert_eq!(keys.find(&n.to_le_bytes()), Some(n as usize));
                assert_eq!(keys.get(n as usize).unwrap().key, n.to_le_bytes());
            }
            assert_eq!((keys.find(b"?"), keys.from(998).count()), (None, 2));
            keys.clear(1000);
        }
        assert!(keys.memory() > 0);
        keys.clear(1000);
        assert!(keys.memory() > 0);
        (0..9999u32).for_each(|n| _ = keys.add(&n.to_le_bytes(), Kind::Gauge));
        keys.clear(10);
        assert_eq!((keys.memory(), keys.len(), keys.find(b"?")), (0, 0, None));
    }
}
