//! Help texts of targets' families, by what their pages have said of them, for whoever tells them to a server.
//! It must not know who that is, nor when.
//!
//! Samples go to the WAL without them, and the pages are gone by the time they are told. So they are kept,
//! within a bound that is for all targets together: beyond it families go without a text. What is given back
//! when memory is short comes again with the next page.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// All texts together, with what it takes to keep them.
const MAX: usize = 64 << 10;

/// What a text takes beside its bytes, in the table and in the allocator.
const ENTRY: usize = 48;

/// A longer text is cut here, before Mimir does it (`max_metadata_length`: 1024 with name and unit).
pub(super) const MAX_TEXT: usize = 500;

/// The texts.
#[derive(Debug, Default)]
pub struct Texts {
    /// By the hash of the family's name.
    texts: HashMap<u64, Box<str>>,
    bytes: usize,
    hasher: RandomState,
    is_wanted: bool,
}

impl Texts {
    /// Somebody will ask: until then nothing is kept.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// The text of a family, of at most [`MAX_TEXT`] bytes, as a page has it now.
    pub(super) fn note(&mut self, family: &str, text: &str) {
        let key = self.hasher.hash_one(family);
        let known = self.texts.get(&key).map(|known| &**known);
        if !self.is_wanted || known == Some(text) {
            return;
        }
        if let Some(old) = self.texts.remove(&key) {
            self.bytes = self.bytes.saturating_sub(old.len() + ENTRY);
        }
        let bytes = self.bytes + text.len() + ENTRY;
        if !text.is_empty() && bytes <= MAX {
            self.bytes = bytes;
            self.texts.insert(key, text.into());
        }
    }

    /// The text of a family, or nothing.
    pub fn get(&self, family: &str) -> &str {
        self.texts.get(&self.hasher.hash_one(family)).map_or("", |text| text)
    }

    /// Gives all memory back.
    pub fn clear(&mut self) {
        (self.texts, self.bytes) = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_that_nobody_wants() {
        let mut texts = Texts::default();
        texts.note("a", "A.");
        assert_eq!(texts.get("a"), "");
        texts.want();
        texts.note("a", "A.");
        texts.note("b", "");
        assert_eq!((texts.get("a"), texts.get("b"), texts.get("c")), ("A.", "", ""));
    }

    #[test]
    fn a_text_that_changes_takes_the_place_of_the_old_one() {
        let mut texts = Texts::default();
        texts.want();
        for n in 0..10_000 {
            texts.note("a", &format!("version {n}"));
        }
        assert_eq!((texts.get("a"), texts.bytes), ("version 9999", ENTRY + 12));
        texts.note("a", "");
        assert_eq!((texts.get("a"), texts.bytes, texts.texts.len()), ("", 0, 0));
    }

    #[test]
    fn however_many_families_there_are_the_texts_stay_within_their_bound() {
        let mut texts = Texts::default();
        texts.want();
        for n in 0..100_000 {
            texts.note(&format!("family_{n}"), &"x".repeat(n % MAX_TEXT));
        }
        assert!(texts.bytes <= MAX && texts.texts.len() < 1_000, "{}", texts.texts.len());
        assert_eq!(texts.get("family_9"), "xxxxxxxxx", "who was first stays");
        texts.clear();
        assert_eq!((texts.get("family_9"), texts.bytes, texts.texts.capacity()), ("", 0, 0));
        texts.note("family_9", "again");
        assert_eq!(texts.get("family_9"), "again");
    }
}
