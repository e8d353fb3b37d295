//! Byte strings, each with a number: 0, 1, 2. All in one arena, with an index that finds a string's number.

use std::hash::{BuildHasher, RandomState};

/// The most strings, and the most bytes of all of them: far beyond what a round or a table has.
const MAX_KEYS: usize = 1 << 18;
const MAX_BYTES: usize = 64 << 20;

/// The strings. 12 to 20 bytes for each beside its own.
#[derive(Debug, Default)]
pub struct Keys {
    arena: Vec<u8>,
    /// Where each ends; it begins where the one before ends.
    ends: Vec<u32>,
    /// A table with open addressing, of numbers + 1; 0 is free. Its length is a power of two, and at
    /// least half of it is free.
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Keys {
    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.arena.capacity() + 4 * (self.ends.capacity() + self.slots.capacity())
    }

    /// Forgets the strings and gives their memory back.
    pub fn clear(&mut self) {
        (self.arena, self.ends, self.slots) = Default::default();
    }

    /// The string of a number.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)? as usize;
        let before = number.checked_sub(1).and_then(|before| self.ends.get(before));
        self.arena.get(before.map_or(0, |before| *before as usize)..end)
    }

    /// The number of a string; None if it is not there.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let slot = *self.slots.get(self.slot(key)?)?;
        (slot as usize).checked_sub(1)
    }

    /// The number of a string, which is added if it is not there; None if there is no room.
    pub fn add(&mut self, key: &[u8]) -> Option<usize> {
        if let Some(number) = self.find(key) {
            return Some(number);
        }
        if self.ends.len() >= MAX_KEYS || self.arena.len() + key.len() > MAX_BYTES {
            return None;
        }
        if self.slots.len() < 2 * (self.ends.len() + 1) {
            self.grow();
        }
        let slot = self.slot(key)?;
        self.arena.extend_from_slice(key);
        self.ends.push(self.arena.len() as u32);
        *self.slots.get_mut(slot)? = self.ends.len() as u32;
        Some(self.ends.len() - 1)
    }

    /// The slot of a string, or the free one where it belongs; None while there are no slots.
    fn slot(&self, key: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = self.hasher.hash_one(key) as usize & mask;
        // Ends, because a slot is free.
        loop {
            let number = *self.slots.get(slot)? as usize;
            let Some(number) = number.checked_sub(1) else { return Some(slot) };
            if self.get(number) == Some(key) {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let len = (2 * (self.ends.len() + 1)).next_power_of_two().max(64);
        self.slots.clear();
        self.slots.resize(len, 0);
        for number in 0..self.ends.len() {
            let slot = self.get(number).and_then(|key| self.slot(key));
            if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
                *slot = number as u32 + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_keep_their_numbers_while_the_index_grows_and_after_a_clear() {
        let mut keys = Keys::default();
        for _ in 0..2 {
            assert_eq!((keys.find(b"?"), keys.get(0)), (None, None));
            for n in 0..3_000u32 {
                assert_eq!(keys.add(&n.to_le_bytes()), Some(n as usize));
                assert_eq!(keys.add(&(n / 2).to_le_bytes()), Some(n as usize / 2));
            }
            for n in 0..3_000u32 {
                assert_eq!(keys.find(&n.to_le_bytes()), Some(n as usize));
                assert_eq!(keys.get(n as usize).unwrap(), n.to_le_bytes());
            }
            assert_eq!((keys.find(b"?"), keys.len()), (None, 3_000));
            keys.clear();
            assert_eq!(keys.memory(), 0);
        }
        assert_eq!(keys.add(b""), Some(0));
        assert_eq!(keys.find(b""), Some(0));
    }

    #[test]
    fn what_has_no_room_is_not_added() {
        let mut keys = Keys::default();
        let half = vec![1; MAX_BYTES / 2 + 1];
        assert_eq!(keys.add(&half), Some(0));
        assert_eq!(keys.add(&half[1..]), None);
        assert_eq!((keys.len(), keys.add(&half)), (1, Some(0)));
    }
}
