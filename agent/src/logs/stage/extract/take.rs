//! What the stages that read fields share: where they read, where a value goes, and in which form it
//! stands in the text.

use crate::sort;

use super::super::Work;
use super::escape::Unescaped;

/// The longest value of a label: Loki's `max_label_name_length` of 2,048 bytes refuses the whole stream
/// of a longer one.
pub const MAX_LABEL_VALUE: usize = 2_048;
/// The longest value of structured metadata: all of an entry's must stay below Loki's
/// `max_structured_metadata_size` of 64 KB.
pub const MAX_METADATA_VALUE: usize = 16 << 10;
/// The most values that one stage takes out of an entry.
pub const MAX_TAKES: usize = 64;

/// Which text of an entry a stage reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// The line.
    #[default]
    Line,
    /// The value of this label, or else of this structured metadata.
    Name(String),
}

impl Input {
    /// The text; None where the entry has no such name.
    pub(super) fn text<'a>(&self, work: &'a Work) -> Option<&'a str> {
        match self {
            Input::Line => Some(&work.line),
            Input::Name(name) => work.get(name),
        }
    }
}

/// Where a value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A label.
    Label(String),
    /// Structured metadata.
    Metadata(String),
    /// The line, which it replaces.
    Line,
}

/// How a value stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// With JSON's escapes.
    Json,
    /// With logfmt's escapes.
    Logfmt,
}

/// A value that was found: its place in the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) form: Form,
}

impl Found {
    /// Adds the value to `out`. The text must be the one in which it was found.
    pub fn append(&self, text: &str, out: &mut String) {
        let raw = text.get(self.start..self.end).unwrap_or_default();
        match self.form {
            Form::Plain => out.push_str(raw),
            // Found only where all escapes are good.
            Form::Json => out.extend(Unescaped::json(raw).flatten()),
            Form::Logfmt => out.extend(Unescaped::logfmt(raw).flatten()),
        }
    }
}

/// What a scan of a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// What was found counts.
    pub(super) take: bool,
    /// The text is not, or not in all its parts, what it should be.
    pub(super) malformed: bool,
}

/// Takes values out of entries, in memory that all entries share.
#[derive(Debug)]
pub(super) struct Taker {
    input: Input,
    /// Each with its slot in `found`; what replaces the line is the last.
    destinations: Vec<(usize, Destination)>,
    found: Vec<Option<Found>>,
    /// A copy of the text where it is not the line: its own name may be set.
    copy: String,
    value: String,
}

impl Taker {
    /// The slots of a scan are these destinations.
    pub(super) fn new(input: Input, to: &[Destination]) -> Taker {
        let mut destinations: Vec<_> = to.iter().cloned().enumerate().collect();
        sort::stable_by_key(&mut destinations, |(_, to)| *to == Destination::Line);
        let found = vec![None; to.len()];
        Taker { input, destinations, found, copy: String::new(), value: String::new() }
    }

    /// Scans the entry's text and puts what was found where it belongs; None without such a text. An
    /// empty value sets nothing.
    pub(super) fn take(
        &mut self,
        work: &mut Work,
        scan: impl FnOnce(&str, &mut [Option<Found>]) -> Scanned,
    ) -> Option<Scanned> {
        if let Input::Name(name) = &self.input {
            self.copy.clear();
            self.copy.push_str(work.get(name)?);
        }
        self.found.fill(None);
        let text = if self.input == Input::Line { &work.line } else { &self.copy };
        let scanned = scan(text, &mut self.found);
        if !scanned.take {
            return Some(scanned);
        }
        for (slot, to) in &self.destinations {
            let Some(found) = self.found.get(*slot).copied().flatten() else { continue };
            let text = if self.input == Input::Line { &work.line } else { &self.copy };
            self.value.clear();
            found.append(text, &mut self.value);
            put(work, to, &mut self.value);
        }
        Some(scanned)
    }
}

/// Gives a value to its destination, cut to what Loki takes. An empty one sets nothing.
pub(super) fn put(work: &mut Work, to: &Destination, value: &mut String) {
    if value.is_empty() {
        return;
    }
    match to {
        Destination::Label(name) => work.set_label(name, cut(value, MAX_LABEL_VALUE)),
        Destination::Metadata(name) => work.metadata.set(name, cut(value, MAX_METADATA_VALUE)),
        Destination::Line => std::mem::swap(&mut work.line, value),
    }
}

/// At most as many bytes, and whole characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
