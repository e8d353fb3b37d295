//! The names in a directory, kept in one piece of memory that is used again.

use crate::sort;

/// Names in the order of their bytes.
#[derive(Clone, Debug, Default)]
pub struct Names {
    text: String,
    spans: Vec<(u32, u32)>,
}

impl Names {
    /// No names.
    pub fn new() -> Names {
        Names::default()
    }

    /// Forgets the names and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The name at this place.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.spans.get(index).map(|span| word(&self.text, *span))
    }

    /// The names in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.spans.iter().map(|span| word(&self.text, *span))
    }

    pub(super) fn push(&mut self, name: &str) {
        // A listing ends at 4 MiB of names.
        let start = self.text.len() as u32;
        self.text.push_str(name);
        self.spans.push((start, self.text.len() as u32));
    }

    pub(super) fn sort(&mut self) {
        let text = &self.text;
        sort::unstable_by_key(&mut self.spans, |span| word(text, *span));
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }
}

fn word(text: &str, (start, end): (u32, u32)) -> &str {
    // Only `push` makes these spans.
    text.get(start as usize..end as usize).unwrap_or_default()
}
