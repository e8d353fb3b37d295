//! The labels of one series or stream while rules change them. Its buffers are reused.
//!
//! The order matters to `labelmap` alone, where two labels may be given one name: first the labels that came,
//! by name, then those that rules have set, as they did, so that the last of them wins as in Prometheus.

use crate::sort;

/// The most text of a set, what rules have replaced in it included.
const MAX_TEXT: usize = 256 << 10;

/// The most labels; the metrics WAL takes no more.
const MAX_LABELS: usize = 255;

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    name: Span,
    value: Span,
    /// A rule has set it.
    set: bool,
}

/// Labels, each name once, none with an empty value.
#[derive(Clone, Debug, Default)]
pub struct LabelSet {
    text: String,
    rows: Vec<Row>,
    /// Something had no room: what is in the set is not what should be.
    overfull: bool,
}

impl LabelSet {
    /// An empty set.
    pub fn new() -> LabelSet {
        LabelSet::default()
    }

    /// Forgets the labels and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
        self.overfull = false;
    }

    /// Adds a label unless the set has it or its value is empty.
    pub fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() && self.find(name).is_none() {
            self.push(name, value, false);
        }
    }

    /// Sets a label, or with an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return self.remove(name);
        }
        match self.find(name) {
            Some(at) if self.rows.get(at).is_some_and(|row| row.set) => {
                if let Some(span) = self.store(value)
                    && let Some(row) = self.rows.get_mut(at)
                {
                    row.value = span;
                }
            }
            found => {
                if let Some(at) = found {
                    self.rows.remove(at);
                }
                self.push(name, value, true);
            }
        }
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        if let Some(at) = self.find(name) {
            self.rows.remove(at);
        }
    }

    /// Removes the labels that `keep` refuses by name.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let text = &self.text;
        self.rows.retain(|row| keep(word(text, row.name)));
    }

    /// The value of a label; empty if there is no such label.
    pub fn get(&self, name: &str) -> &str {
        let row = self.find(name).and_then(|at| self.rows.get(at));
        row.map_or("", |row| word(&self.text, row.value))
    }

    /// Names and values; after [`sort`](LabelSet::sort) in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.rows.iter().map(|row| (word(&self.text, row.name), word(&self.text, row.value)))
    }

    /// Puts the labels in the order of their names.
    pub fn sort(&mut self) {
        let text = &self.text;
        sort::unstable_by(&mut self.rows, |a, b| word(text, a.name).cmp(word(text, b.name)));
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether a label had no room.
    pub fn is_overfull(&self) -> bool {
        self.overfull
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.rows.iter().position(|row| word(&self.text, row.name) == name)
    }

    fn push(&mut self, name: &str, value: &str, set: bool) {
        if self.rows.len() >= MAX_LABELS {
            self.overfull = true;
        } else if let (Some(name), Some(value)) = (self.store(name), self.store(value)) {
            self.rows.push(Row { name, value, set });
        }
    }

    fn store(&mut self, word: &str) -> Option<Span> {
        if self.text.len() + word.len() > MAX_TEXT {
            self.overfull = true;
            return None;
        }
        let start = self.text.len() as u32;
        self.text.push_str(word);
        Some(Span { start, end: self.text.len() as u32 })
    }
}

fn word(text: &str, span: Span) -> &str {
    // Only `store` makes these spans.
    text.get(span.start as usize..span.end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_added_once_set_again_and_removed() {
        let mut set = LabelSet::new();
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "3"), ("c", "")] {
            set.add(name, value);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [("b", "1"), ("a", "2")]);
        set.sort();
        set.set("a", "4");
        set.set("x", "5");
        set.set("a", "6");
        // What was set stands behind what came.
        assert_eq!(set.iter().collect::<Vec<_>>(), [("b", "1"), ("a", "6"), ("x", "5")]);
        set.set("b", "");
        set.remove("?");
        assert_eq!((set.len(), set.get("b"), set.get("x")), (2, "", "5"));
    }

    #[test]
    fn what_has_no_room_is_not_there_and_said() {
        let mut set = LabelSet::new();
        set.add("a", &"x".repeat(MAX_TEXT));
        assert!(set.is_overfull() && set.is_empty());
        set.clear();
        (0..300).for_each(|n| set.add(&format!("a{n}"), "1"));
        assert!(set.is_overfull() && set.len() == MAX_LABELS);
        set.clear();
        assert!(!set.is_overfull() && set.is_empty());
    }
}
