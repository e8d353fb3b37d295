//! Structured metadata: pairs of names and values that are stored with an entry and make no stream, of all
//! entries of a block in one arena.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    start: u32,
    middle: u32,
    end: u32,
}

/// Owned pairs, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pairs: Vec<Pair>,
    text: String,
}

impl Metadata {
    /// No pairs.
    pub fn new() -> Metadata {
        Metadata::default()
    }

    /// Forgets the pairs and keeps the memory.
    pub fn clear(&mut self) {
        self.pairs.clear();
        self.text.clear();
    }

    /// Adds a pair.
    pub fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len() as u32;
        self.text.push_str(name);
        let middle = self.text.len() as u32;
        self.text.push_str(value);
        let end = self.text.len() as u32;
        self.pairs.push(Pair { start, middle, end });
    }

    /// All pairs.
    pub fn pairs(&self) -> Pairs<'_> {
        Pairs { pairs: &self.pairs, text: &self.text }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Bytes of all names and values together.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn range(&self, start: u32, end: u32) -> Pairs<'_> {
        let pairs = self.pairs.get(start as usize..end as usize).unwrap_or_default();
        Pairs { pairs, text: &self.text }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.text.truncate(self.pairs.get(len).map_or(self.text.len(), |pair| pair.start as usize));
        self.pairs.truncate(len);
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Metadata {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Metadata {
        let mut metadata = Metadata::new();
        pairs.into_iter().for_each(|(name, value)| metadata.push(name.as_ref(), value.as_ref()));
        metadata
    }
}

/// Pairs of one entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pairs<'a> {
    pairs: &'a [Pair],
    text: &'a str,
}

impl<'a> Pairs<'a> {
    /// Names and values in the order in which they were added.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone {
        self.pairs.iter().map(move |pair| {
            // Always there: `push` filled these ranges.
            let part = |start: u32, end: u32| self.text.get(start as usize..end as usize);
            let name = part(pair.start, pair.middle).unwrap_or_default();
            (name, part(pair.middle, pair.end).unwrap_or_default())
        })
    }

    /// The first pairs, as many as there are within so many pairs and bytes of names and values.
    #[must_use]
    pub fn within(self, max_pairs: usize, max_bytes: usize) -> Pairs<'a> {
        let mut bytes = 0usize;
        let fits = |pair: &&Pair| {
            bytes = bytes.saturating_add((pair.end - pair.start) as usize);
            bytes <= max_bytes
        };
        let count = self.pairs.iter().take(max_pairs).take_while(fits).count();
        Pairs { pairs: self.pairs.get(..count).unwrap_or_default(), ..self }
    }

    /// Bytes of all names and values together.
    pub fn text_len(self) -> usize {
        self.pairs.iter().map(|pair| (pair.end - pair.start) as usize).sum()
    }

    /// The first value of a name.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// How many pairs there are.
    pub fn len(self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.pairs.is_empty()
    }
}

impl PartialEq for Pairs<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Pairs<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_in_the_order_in_which_they_came() {
        let metadata = Metadata::from_iter([("a", "1"), ("", ""), ("ü", "2"), ("a", "3")]);
        let pairs = metadata.pairs();
        assert!(pairs.iter().eq([("a", "1"), ("", ""), ("ü", "2"), ("a", "3")]));
        assert_eq!((pairs.get("a"), pairs.get("ü"), pairs.get("b")), (Some("1"), Some("2"), None));
        assert_eq!((pairs.len(), metadata.text_len()), (4, 7));
        assert!(pairs.within(2, 9).iter().eq([("a", "1"), ("", "")]));
        assert!(pairs.within(9, 5).iter().eq([("a", "1"), ("", ""), ("ü", "2")]));
        assert_eq!((pairs.within(0, 9).len(), pairs.text_len()), (0, 7));
        assert!(metadata.range(1, 3).iter().eq([("", ""), ("ü", "2")]));
    }

    #[test]
    fn what_is_cut_off_leaves_the_rest_as_it_was() {
        let mut metadata = Metadata::from_iter([("a", "1"), ("b", "2")]);
        metadata.truncate(1);
        metadata.push("c", "3");
        assert!(metadata.pairs().iter().eq([("a", "1"), ("c", "3")]));
        metadata.truncate(9);
        assert_eq!(metadata.len(), 2);
    }
}
