//! journalctl's match rules: terms `FIELD=value` and the word `+`. Terms of one field are
//! alternatives, terms of different fields must all hold, and `+` separates alternatives of such
//! groups. Up to 64 terms. It must not know files.

use std::fmt;

/// Which entries are wanted; the default is all.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// `FIELD=value`, whole: a term is bit number i of a mask.
    terms: Vec<Box<[u8]>>,
    /// For each group, for each of its fields, the terms that are alternatives.
    groups: Vec<Vec<u64>>,
}

/// A term that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchError {
    /// The term.
    pub term: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for MatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no match: {}", self.term, self.why)
    }
}

impl std::error::Error for MatchError {}

const MAX_TERMS: usize = 64;

impl Matches {
    /// The rules of these words.
    ///
    /// # Errors
    /// A word that is neither a term nor `+`, a `+` with nothing on one side, too many terms.
    pub fn parse<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> Result<Matches, MatchError> {
        let mut matches = Matches::default();
        let mut group: Vec<(Box<[u8]>, u64)> = Vec::new();
        let mut open = false;
        for word in words {
            let word = word.as_ref();
            let error = |why| MatchError { term: word.to_owned(), why };
            if word == "+" {
                if group.is_empty() {
                    return Err(error("a + needs a FIELD=value before it"));
                }
                matches.groups.push(group.drain(..).map(|(_, mask)| mask).collect());
                open = true;
                continue;
            }
            let Some((field, _)) = word.split_once('=') else {
                return Err(error("write FIELD=value"));
            };
            if !is_field_name(field.as_bytes()) {
                return Err(error(
                    "a field's name is 1 to 64 characters of A-Z, 0-9 and _, not beginning with a digit",
                ));
            }
            let known = matches.terms.iter().position(|term| **term == *word.as_bytes());
            let number = known.unwrap_or_else(|| {
                matches.terms.push(word.as_bytes().into());
                matches.terms.len() - 1
            });
            if number >= MAX_TERMS {
                return Err(error("there are more than 64 terms"));
            }
            let bit = 1u64 << number;
            match group.iter_mut().find(|(have, _)| **have == *field.as_bytes()) {
                Some((_, mask)) => *mask |= bit,
                None => group.push((field.as_bytes().into(), bit)),
            }
            open = false;
        }
        if open {
            let why = "a + needs a FIELD=value after it";
            return Err(MatchError { term: "+".to_owned(), why });
        }
        if !group.is_empty() {
            matches.groups.push(group.drain(..).map(|(_, mask)| mask).collect());
        }
        Ok(matches)
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether an entry may be wanted of which `holds` says which terms, `FIELD=value`, it may have.
    pub(super) fn may_accept(&self, holds: impl Fn(&[u8]) -> bool) -> bool {
        let bits = self.terms.iter().enumerate().filter(|(_, term)| holds(term));
        self.accept(bits.fold(0, |bits, (number, _)| bits | 1 << number))
    }

    /// The bit of the term that a data object, `FIELD=value`, is; 0 if none.
    pub(super) fn bit(&self, data: &[u8]) -> u64 {
        self.terms.iter().position(|term| **term == *data).map_or(0, |number| 1 << number)
    }

    /// The longest term; a longer data object is none.
    pub(super) fn longest(&self) -> usize {
        self.terms.iter().map(|term| term.len()).max().unwrap_or(0)
    }

    /// Whether an entry with these terms is wanted.
    pub(super) fn accept(&self, bits: u64) -> bool {
        self.is_empty()
            || self.groups.iter().any(|group| group.iter().all(|field| field & bits != 0))
    }
}

/// Whether this can be a field's name: what journald accepts, and its own with underscores.
pub(super) fn is_field_name(name: &[u8]) -> bool {
    let byte = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    (1..=64).contains(&name.len())
        && name.iter().all(byte)
        && !name.first().is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(words: &[&str], entry: &[&str]) -> bool {
        let matches = Matches::parse(words).unwrap();
        matches.accept(entry.iter().fold(0, |bits, data| bits | matches.bit(data.as_bytes())))
    }

    #[test]
    fn fields_and_values_or_and_groups_or() {
        assert!(accepts(&[], &[]));
        assert!(accepts(&["A=1"], &["A=1", "B=2"]));
        assert!(!accepts(&["A=1"], &["A=12", "A="]));
        assert!(accepts(&["A=1", "A=2"], &["A=2"]));
        assert!(!accepts(&["A=1", "B=2"], &["A=1"]));
        assert!(accepts(&["A=1", "B=2", "A=3"], &["A=3", "B=2"]));
        let words = ["A=1", "B=2", "+", "C=3", "A=1"];
        assert!(accepts(&words, &["A=1", "C=3"]) && accepts(&words, &["B=2", "A=1"]));
        assert!(!accepts(&words, &["B=2", "C=3"]));
        assert!(accepts(&["A=x=y"], &["A=x=y"]));
    }

    #[test]
    fn what_is_no_match_is_named() {
        let why = |words: &[&str]| Matches::parse(words).unwrap_err().to_string();
        assert!(why(&["A=1", "b"]).starts_with("\"b\" is no match: write FIELD=value"));
        assert!(why(&["a=1"]).starts_with("\"a=1\" is no match: a field's name is"));
        assert!(why(&["=1"]).contains("a field's name"));
        assert!(why(&["1A=1"]).contains("a field's name"));
        assert!(why(&["+", "A=1"]).contains("before it"));
        assert!(why(&["A=1", "+"]).contains("after it"));
        assert!(why(&["A=1", "+", "+", "B=1"]).contains("before it"));
        let many: Vec<_> = (0..65).map(|number| format!("A={number}")).collect();
        assert!(Matches::parse(&many).unwrap_err().why.contains("64 terms"));
        assert!(Matches::parse(&many[..64]).is_ok());
    }
}
