//! The strings of a request of remote write 2.0, each once and the empty one first, as they stand on the
//! wire, with an index that finds a string's number. It must not know what the strings are.

use std::hash::{BuildHasher, RandomState};

use prost::encoding::{WireType, encode_key, encode_varint};

use super::wire::nested_len;

/// The request's field.
const TAG: u32 = 4;

/// The most of one request: with index and places at most 1.5 MiB beside the strings.
const MAX: usize = 1 << 16;

/// Strings that memory is kept for from request to request.
const KEPT: usize = 4 << 10;

/// Where a string stands in the bytes. Offsets fit: a request is bounded far below 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    end: u32,
}

#[derive(Debug)]
pub(super) struct Symbols {
    /// Key, length and text of each.
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// A table with open addressing, of numbers; 0 is free, for the empty string is not looked for. Its
    /// length is a power of two, and at least half of it is free.
    slots: Vec<u32>,
    hasher: RandomState,
}

/// The strings up to some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    bytes: usize,
    places: usize,
}

impl Symbols {
    /// None, without memory. [`clear`](Symbols::clear) makes a table of it.
    pub(super) fn new() -> Symbols {
        Symbols {
            bytes: Vec::new(),
            places: Vec::new(),
            slots: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// Forgets all strings, and memory that few requests need; the empty one comes with the first other.
    pub(super) fn clear(&mut self) {
        if self.places.capacity() > KEPT {
            (self.places, self.slots, self.bytes) = Default::default();
        }
        self.bytes.clear();
        self.places.clear();
        self.slots.fill(0);
    }

    /// The strings on the wire.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.places.capacity() * size_of::<Place>()
            + self.slots.capacity() * size_of::<u32>()
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), places: self.places.len() }
    }

    /// Forgets what has come since.
    pub(super) fn back_to(&mut self, mark: Mark) {
        while self.places.len() > mark.places {
            // The last one to come ends each run of taken slots that it is in.
            let last = self.places.len() - 1;
            if let Some(slot) = self.get(last).and_then(|text| self.slot(text))
                && let Some(slot) = self.slots.get_mut(slot)
                && *slot as usize == last
            {
                *slot = 0;
            }
            self.places.pop();
        }
        self.bytes.truncate(mark.bytes);
    }

    /// The number of a string, which is added if it is not there; None if there are too many.
    pub(super) fn refer(&mut self, text: &str) -> Option<u32> {
        if self.places.is_empty() {
            self.push("");
        }
        if text.is_empty() {
            return Some(0);
        }
        if self.slots.len() < 2 * (self.places.len() + 1) {
            self.grow();
        }
        let slot = self.slot(text.as_bytes())?;
        match self.slots.get(slot) {
            Some(&known) if known != 0 => return Some(known),
            _ if self.places.len() >= MAX => return None,
            _ => {}
        }
        let number = self.push(text);
        *self.slots.get_mut(slot)? = number;
        Some(number)
    }

    fn push(&mut self, text: &str) -> u32 {
        self.bytes.reserve(nested_len(TAG, text.len()));
        encode_key(TAG, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(text.len() as u64, &mut self.bytes);
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.as_bytes());
        self.places.push(Place { start, end: self.bytes.len() as u32 });
        self.places.len() as u32 - 1
    }

    fn get(&self, number: usize) -> Option<&[u8]> {
        let place = self.places.get(number)?;
        self.bytes.get(place.start as usize..place.end as usize)
    }

    /// The slot of a string, or the free one where it belongs; None while there are no slots.
    fn slot(&self, text: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = self.hasher.hash_one(text) as usize & mask;
        // Ends, because a slot is free.
        loop {
            let number = *self.slots.get(slot)? as usize;
            if number == 0 || self.get(number) == Some(text) {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let len = (4 * (self.places.len() + 1)).next_power_of_two().max(64);
        self.slots.clear();
        self.slots.resize(len, 0);
        for number in 1..self.places.len() {
            let slot = self.get(number).and_then(|text| self.slot(text));
            if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
                *slot = number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_string_stands_once_and_the_empty_one_first() {
        let mut symbols = Symbols::new();
        symbols.clear();
        assert!(symbols.bytes().is_empty());
        let refs = ["a", "", "b", "a", "b", ""].map(|text| symbols.refer(text).unwrap());
        assert_eq!(refs, [1, 0, 2, 1, 2, 0]);
        assert_eq!(symbols.bytes(), [0x22, 0, 0x22, 1, b'a', 0x22, 1, b'b']);
        symbols.clear();
        assert_eq!(symbols.refer("b"), Some(1));
    }

    #[test]
    fn there_is_a_bound_and_memory_of_many_is_given_back() {
        let mut symbols = Symbols::new();
        for number in 1..MAX {
            assert_eq!(symbols.refer(&number.to_string()), Some(number as u32));
        }
        assert_eq!((symbols.refer("one more"), symbols.refer("7")), (None, Some(7)));
        assert!(symbols.memory() <= (3 << 19) + 2 * symbols.bytes().len());
        symbols.clear();
        assert_eq!(symbols.memory(), 0);
    }

    proptest! {
        #[test]
        fn what_is_taken_back_was_never_there(
            kept in prop::collection::vec("[a-d]{0,3}", 0..80),
            tried in prop::collection::vec("[a-e]{0,3}", 0..80),
            then in prop::collection::vec("[a-e]{0,3}", 0..80),
        ) {
            let (mut symbols, mut plain) = (Symbols::new(), Symbols::new());
            for text in &kept {
                prop_assert_eq!(symbols.refer(text), plain.refer(text));
            }
            let mark = symbols.mark();
            for text in &tried {
                symbols.refer(text).unwrap();
            }
            symbols.back_to(mark);
            prop_assert_eq!(symbols.bytes(), plain.bytes());
            for text in &then {
                prop_assert_eq!(symbols.refer(text), plain.refer(text));
            }
            prop_assert_eq!(symbols.bytes(), plain.bytes());
        }
    }
}
