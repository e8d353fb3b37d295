//! An entry as its reader gets it, and the set of fields that it wants. One [`Entry`] is filled again
//! and again; it must not know files.

use super::Id;

/// The fields that are wanted, each with a bound in bytes for one value.
#[derive(Clone, Debug, Default)]
pub struct FieldSet {
    names: Vec<(Box<str>, usize)>,
    others: Option<usize>,
}

impl FieldSet {
    /// None yet.
    #[must_use]
    pub fn new() -> FieldSet {
        FieldSet::default()
    }

    /// Every field, with the same bound.
    #[must_use]
    pub fn all(max: usize) -> FieldSet {
        FieldSet { names: Vec::new(), others: Some(max) }
    }

    /// This field too; of two bounds the larger one counts.
    #[must_use]
    pub fn with(mut self, name: &str, max: usize) -> FieldSet {
        match self.names.iter_mut().find(|(have, _)| **have == *name) {
            Some((_, have)) => *have = max.max(*have),
            None => self.names.push((name.into(), max)),
        }
        self
    }

    /// The bound for a value of the field; `None` if it is not wanted.
    pub(super) fn max(&self, name: &[u8]) -> Option<usize> {
        let own = self.names.iter().find(|(have, _)| have.as_bytes() == name);
        own.map(|&(_, max)| max).or(self.others)
    }

    /// The largest bound.
    pub(super) fn largest(&self) -> usize {
        self.names.iter().map(|&(_, max)| max).chain(self.others).max().unwrap_or(0)
    }
}

/// One entry: its times, and the wanted fields in the file's order. A field can be there repeatedly.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub(super) seqnum_id: Id,
    pub(super) seqnum: u64,
    pub(super) boot_id: Id,
    pub(super) monotonic_us: u64,
    pub(super) realtime_us: u64,
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where in the text a field is: name and value, one after the other.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: usize,
    value: usize,
    end: usize,
    cut: bool,
}

impl Entry {
    /// An empty one, to be filled.
    #[must_use]
    pub fn new() -> Entry {
        Entry::default()
    }

    /// When journald got it, by the wall clock: microseconds since 1970.
    #[must_use]
    pub fn realtime_us(&self) -> u64 {
        self.realtime_us
    }

    /// When journald got it: microseconds since the boot.
    #[must_use]
    pub fn monotonic_us(&self) -> u64 {
        self.monotonic_us
    }

    /// The boot that `monotonic_us` counts from.
    #[must_use]
    pub fn boot_id(&self) -> Id {
        self.boot_id
    }

    /// Its number in its sequence.
    #[must_use]
    pub fn seqnum(&self) -> u64 {
        self.seqnum
    }

    /// The sequence that it is numbered in.
    #[must_use]
    pub fn seqnum_id(&self) -> Id {
        self.seqnum_id
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(have, _)| *have == name.as_bytes()).map(|(_, value)| value)
    }

    /// All values of a field.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(move |(have, _)| *have == name.as_bytes()).map(|(_, value)| value)
    }

    /// All fields: name and value, in the file's order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| {
            let part = |from, to| self.text.get(from..to).unwrap_or_default();
            (part(field.name, field.value), part(field.value, field.end))
        })
    }

    /// Whether a value of this field was cut at its bound.
    #[must_use]
    pub fn is_cut(&self, name: &str) -> bool {
        let cut = self.fields.iter().filter(|field| field.cut);
        cut.map(|field| self.text.get(field.name..field.value))
            .any(|have| have == Some(name.as_bytes()))
    }

    /// Gives memory back that one large entry took.
    pub fn shrink(&mut self, keep: usize) {
        if self.text.capacity() > keep {
            self.clear();
            self.text.shrink_to(keep);
        }
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    /// Bytes of all names and values.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn push(&mut self, name: &[u8], value: &[u8], cut: bool) {
        let at = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let value = at + name.len();
        self.fields.push(Field { name: at, value, end: self.text.len(), cut });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_can_be_there_repeatedly_empty_and_cut() {
        let mut entry = Entry::new();
        entry.push(b"A", b"1", false);
        entry.push(b"B", b"", false);
        entry.push(b"A", b"\xff", true);
        assert_eq!(entry.values("A").collect::<Vec<_>>(), [b"1", b"\xff"]);
        assert_eq!((entry.get("B"), entry.get("C")), (Some(&b""[..]), None));
        assert!(entry.is_cut("A") && !entry.is_cut("B"));
        entry.clear();
        assert_eq!(entry.fields().count(), 0);
    }

    #[test]
    fn of_two_bounds_the_larger_one_counts() {
        let set = FieldSet::new().with("A", 5).with("A", 3);
        assert_eq!((set.max(b"A"), set.max(b"B"), set.largest()), (Some(5), None, 5));
        assert_eq!(FieldSet::all(7).with("A", 9).max(b"B"), Some(7));
    }
}
