//! An owned, sorted set of labels.

use std::fmt;

/// Why a label can't be part of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// The name does not match `[a-zA-Z_][a-zA-Z0-9_]*`.
    Name(String),
    /// The name stands in the set already.
    Duplicate(String),
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelError::Name(name) => write!(
                f,
                "{name:?} is not a label name: letters, digits and '_' only, no digit first"
            ),
            LabelError::Duplicate(name) => write!(f, "the label {name:?} is given twice"),
        }
    }
}

impl std::error::Error for LabelError {}

/// Labels in the order of their names, each name once: the identity of a series or of a log stream.
#[derive(Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Vec<(String, String)>);

impl Clone for Labels {
    fn clone(&self) -> Labels {
        Labels(self.0.clone())
    }

    /// Uses the memory that is there.
    fn clone_from(&mut self, from: &Labels) {
        self.0.truncate(from.0.len());
        let (reused, new) = from.0.split_at(self.0.len());
        for (to, from) in self.0.iter_mut().zip(reused) {
            to.0.clone_from(&from.0);
            to.1.clone_from(&from.1);
        }
        self.0.extend_from_slice(new);
    }
}

impl Labels {
    /// The empty set.
    pub fn new() -> Labels {
        Labels::default()
    }

    /// A set from pairs in any order.
    ///
    /// # Errors
    /// A name that is not a label name, or one that is given twice.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Labels, LabelError> {
        let mut labels = Labels::new();
        for (name, value) in pairs {
            let name = name.into();
            if !is_label_name(&name) {
                return Err(LabelError::Name(name));
            }
            match labels.find(&name) {
                Ok(_) => return Err(LabelError::Duplicate(name)),
                Err(at) => labels.0.insert(at, (name, value.into())),
            }
        }
        Ok(labels)
    }

    /// Sets a label, replacing a value that it had.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = value.into(),
            Err(at) => self.0.insert(at, (name.to_owned(), value.into())),
        }
    }

    /// Sets a label unless the set has it.
    pub fn set_default(&mut self, name: &str, value: impl Into<String>) {
        if let Err(at) = self.find(name) {
            self.0.insert(at, (name.to_owned(), value.into()));
        }
    }

    /// Removes a label, and returns the value that it had.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.find(name).ok().map(|at| self.0.remove(at).1)
    }

    /// Removes the labels that `keep` refuses by name and value.
    pub fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).ok().map(|at| self.0[at].1.as_str())
    }

    /// The pairs in the order of their names.
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (&str, &str)> + DoubleEndedIterator + Clone {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many labels the set has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(have, _)| have.as_str().cmp(name))
    }
}

/// `{a="1", b="2"}`: the form of a LogQL stream selector, and of Loki's push request.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}=\"")?;
            for c in value.chars() {
                match c {
                    '"' => f.write_str("\\\"")?,
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    '\r' => f.write_str("\\r")?,
                    // Go's strconv.Unquote, which Loki applies, takes \u with four digits.
                    c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(f, "\\u{:04x}", c as u32)?,
                    c => write!(f, "{c}")?,
                }
            }
            f.write_str("\"")?;
        }
        f.write_str("}")
    }
}

/// Prometheus' classic label names: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(crate) fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_a_second_name_is_refused() {
        let labels = Labels::from_pairs([("job", "a"), ("instance", "b")]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("instance", "b"), ("job", "a")]);
        assert_eq!(
            Labels::from_pairs([("a", "1"), ("a", "2")]),
            Err(LabelError::Duplicate("a".into()))
        );
        assert_eq!(Labels::from_pairs([("1a", "1")]), Err(LabelError::Name("1a".into())));
        assert_eq!(Labels::from_pairs([("", "1")]), Err(LabelError::Name("".into())));
    }

    #[test]
    fn a_copy_into_old_memory_is_a_copy() {
        let sets = [
            Labels::new(),
            Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "3")]).unwrap(),
            Labels::from_pairs([("b", "22")]).unwrap(),
        ];
        for from in &sets {
            for to in &sets {
                let mut to = to.clone();
                to.clone_from(from);
                assert_eq!(&to, from);
            }
        }
        let mut labels = sets[1].clone();
        assert_eq!((labels.remove("b"), labels.remove("x")), (Some("2".to_owned()), None));
        assert_eq!(labels.to_string(), "{a=\"1\", c=\"3\"}");
    }

    #[test]
    fn display_quotes_what_loki_would_misread() {
        let labels = Labels::from_pairs([("a", "x\"y\\z\n\u{1}"), ("b", "ü")]).unwrap();
        assert_eq!(labels.to_string(), "{a=\"x\\\"y\\\\z\\n\\u0001\", b=\"ü\"}");
    }
}
