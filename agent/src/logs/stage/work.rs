//! An entry on its way through the stages, in buffers that all entries share.

use crate::model::Labels;

/// An entry that stages edit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    labels: Labels,
    relabeled: bool,
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// The line; of an entry of several lines all of them, separated by line breaks.
    pub line: String,
    /// Structured metadata.
    pub metadata: Fields,
}

impl Work {
    /// An entry without labels and metadata.
    pub fn new(timestamp_ns: i64, line: &str) -> Work {
        Work { timestamp_ns, line: line.to_owned(), ..Work::default() }
    }

    /// Sets the labels of the stream that the entry comes from.
    pub fn set_stream(&mut self, labels: &Labels) {
        self.labels.clone_from(labels);
        self.relabeled = false;
    }

    /// As [`set_stream`](Work::set_stream), by value; returns the labels that it had.
    pub(super) fn replace_stream(&mut self, labels: Labels) -> Labels {
        self.relabeled = false;
        std::mem::replace(&mut self.labels, labels)
    }

    /// Exchanges the contents with another entry's of the same labels; each keeps the knowledge of whether
    /// they have been changed.
    pub(super) fn exchange(&mut self, other: &mut Work) {
        std::mem::swap(self, other);
        std::mem::swap(&mut self.relabeled, &mut other.relabeled);
    }

    /// Says that the labels are not those of a stream of the block.
    pub(super) fn mark_relabeled(&mut self) {
        self.relabeled = true;
    }

    /// The labels as they are by now, internal ones (`__…`) included.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Whether labels have been set or removed since [`set_stream`](Work::set_stream).
    pub fn is_relabeled(&self) -> bool {
        self.relabeled
    }

    /// The value of a label, or else of structured metadata: where stages look up a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.labels.get(name).or_else(|| self.metadata.get(name))
    }

    /// Sets a label; an empty value removes it, as Loki knows no empty labels. The name must be a label
    /// name: `[a-zA-Z_][a-zA-Z0-9_]*`.
    pub fn set_label(&mut self, name: &str, value: &str) {
        match self.labels.get(name) {
            Some(have) if have == value => return,
            None if value.is_empty() => return,
            _ => {}
        }
        self.relabeled = true;
        if value.is_empty() {
            self.labels.remove(name);
        } else {
            self.labels.set(name, value);
        }
    }

    /// Removes a label, and returns the value that it had.
    pub fn remove_label(&mut self, name: &str) -> Option<String> {
        let removed = self.labels.remove(name);
        self.relabeled |= removed.is_some();
        removed
    }
}

/// Names and values in the order in which they came, each name once. Its strings are used again.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// The first `len` are there, the others are memory for those to come.
    pairs: Vec<(String, String)>,
    len: usize,
}

impl Fields {
    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The pairs.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.live().iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.live().iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Sets the value of a name; a new one goes to the end.
    pub fn set(&mut self, name: &str, value: &str) {
        let at = self.live().iter().position(|(have, _)| have == name).unwrap_or(self.len);
        if let Some((slot, old)) = self.pairs.get_mut(at) {
            if at == self.len {
                slot.clear();
                slot.push_str(name);
            }
            old.clear();
            old.push_str(value);
        } else {
            self.pairs.push((name.to_owned(), value.to_owned()));
        }
        self.len = self.len.max(at + 1);
    }

    /// Removes a name, and says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(at) = self.live().iter().position(|(have, _)| have == name) else { return false };
        if let Some(rest) = self.pairs.get_mut(at..self.len) {
            rest.rotate_left(1);
            self.len -= 1;
        }
        true
    }

    /// Gives a name another one, in its place; what had that name goes. Says whether it was there.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        if self.get(from).is_none() {
            return false;
        }
        if from != to {
            self.remove(to);
        }
        let len = self.len;
        if let Some((name, _)) = self.pairs.iter_mut().take(len).find(|(have, _)| have == from) {
            name.clear();
            name.push_str(to);
        }
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn live(&self) -> &[(String, String)] {
        self.pairs.get(..self.len).unwrap_or_default()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.live() == other.live()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_reuse_their_memory() {
        let mut fields = Fields::default();
        for (name, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("b", "4")] {
            fields.set(name, value);
        }
        assert!(fields.iter().eq([("a", "1"), ("b", "4"), ("c", "3")]));
        assert!(fields.remove("a") && !fields.remove("a"));
        assert!(fields.iter().eq([("b", "4"), ("c", "3")]));
        fields.set("d", "5");
        assert!(fields.rename("b", "d") && !fields.rename("x", "y"));
        assert!(fields.iter().eq([("d", "4"), ("c", "3")]));
        fields.clear();
        assert!(fields.is_empty() && fields.get("d").is_none());
        fields.set("e", "");
        assert_eq!((fields.len(), fields.get("e")), (1, Some("")));
    }

    #[test]
    fn a_label_that_stays_what_it_was_makes_no_new_stream() {
        let mut work = Work::default();
        work.set_stream(&Labels::from_pairs([("a", "1")]).unwrap());
        work.set_label("a", "1");
        work.set_label("b", "");
        assert!(!work.is_relabeled() && work.remove_label("c").is_none());
        assert!(!work.is_relabeled());
        work.set_label("a", "");
        assert!(work.is_relabeled() && work.labels().is_empty());
        work.metadata.set("a", "2");
        assert_eq!(work.get("a"), Some("2"));
        work.set_label("a", "3");
        assert_eq!(work.get("a"), Some("3"));
    }
}
