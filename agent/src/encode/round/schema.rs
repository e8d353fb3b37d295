//! The labels of series as text: grouped by name and label names, each part closed by 0xFF, a byte that
//! UTF-8 never contains. It must not know values, records or how the text is compressed.
//!
//! The layout is in the folder's documentation.

use memchr::memchr;

use super::super::bytes::DecodeError;
use crate::model::{Kind, Labels};

/// Closes each part.
pub(super) const END: u8 = 0xff;

/// The most labels of a series and the most series of a group; `Samples` takes 32 labels.
const MANY: usize = 255;

/// A series as the encoder has it: its kind and its key as `Samples` makes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a [u8],
}

/// A name and a value.
type Label<'a> = (&'a [u8], &'a [u8]);

/// A series' name and own labels as they are written: no empty value, which equals no label; no name
/// twice, of which the first stays; and not `__name__`, which is the name.
fn own(key: &[u8]) -> (&[u8], Vec<Label<'_>>) {
    let mut parts = key.split(|&byte| byte == END);
    let name = parts.next().unwrap_or_default();
    let mut labels: Vec<Label<'_>> = Vec::new();
    while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
        let again = labels.last().is_some_and(|(last, _)| *last == label);
        if !value.is_empty() && !again && label != b"__name__" && labels.len() < MANY {
            labels.push((label, value));
        }
    }
    (name, labels)
}

/// Appends the labels that every series has unless it has them itself.
pub(super) fn put_external(labels: &Labels, out: &mut Vec<u8>) {
    // A series always has a name of its own.
    let kept = |(name, value): &(&str, &str)| !value.is_empty() && *name != "__name__";
    let labels = || labels.iter().filter(kept).take(MANY);
    out.push(labels().count() as u8);
    for (name, value) in labels() {
        put(name.as_bytes(), out);
        put(value.as_bytes(), out);
    }
}

/// The group that is being written.
struct Group<'a> {
    kind: Kind,
    name: &'a [u8],
    names: Vec<&'a [u8]>,
    series: usize,
    /// Where it begins.
    at: usize,
}

/// Appends series in groups.
pub(super) fn put_series<'a>(series: impl Iterator<Item = Named<'a>>, out: &mut Vec<u8>) {
    let mut open: Option<Group<'_>> = None;
    for Named { kind, key } in series {
        let (name, labels) = own(key);
        let names = labels.iter().map(|(name, _)| *name);
        let group = open.take().filter(|group| {
            group.kind == kind
                && group.name == name
                && group.series < MANY
                && !group.names.is_empty()
                && names.clone().eq(group.names.iter().copied())
        });
        let mut group = group.unwrap_or_else(|| {
            let at = out.len();
            out.extend_from_slice(&[kind as u8, labels.len() as u8, 0]);
            put(name, out);
            names.clone().for_each(|name| put(name, out));
            Group { kind, name, names: names.collect(), series: 0, at }
        });
        group.series += 1;
        if let Some(count) = out.get_mut(group.at + 2) {
            *count = group.series as u8;
        }
        labels.iter().for_each(|(_, value)| put(value, out));
        open = Some(group);
    }
}

fn put(part: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(part);
    out.push(END);
}

/// Calls `piece` with the bytes by which two tables are told apart: those of each series, however they
/// are grouped.
pub(super) fn identity(named: Named<'_>, mut piece: impl FnMut(&[u8])) {
    let (name, labels) = own(named.key);
    piece(&[named.kind as u8]);
    piece(name);
    for (name, value) in labels {
        piece(&[END]);
        piece(name);
        piece(&[END]);
        piece(value);
    }
}

/// A walk over text that [`put_external`] and [`put_series`] wrote.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(all: &'a [u8], at: usize) -> Walk<'a> {
        Walk { all, at }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.all.len()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = self.all.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// A part, without its end.
    pub(super) fn part(&mut self) -> Option<&'a str> {
        let rest = self.all.get(self.at..)?;
        let part = rest.get(..memchr(END, rest)?)?;
        self.at += part.len() + 1;
        std::str::from_utf8(part).ok()
    }

    /// Passes over parts.
    pub(super) fn skip(&mut self, count: u8) {
        for _ in 0..count {
            let rest = self.all.get(self.at..).unwrap_or_default();
            self.at += memchr(END, rest).map_or(rest.len(), |at| at + 1);
        }
    }

    /// Passes over the external labels, checking them.
    pub(super) fn check_external(&mut self) -> Result<(), DecodeError> {
        let count = self.byte().ok_or(wrong("a number of labels"))?;
        let mut before = None;
        for _ in 0..count {
            self.check_name(&mut before)?;
            self.check_value()?;
        }
        Ok(())
    }

    /// Passes over a group, checking it; calls `series` with where each of its series' values begin.
    pub(super) fn check_group(&mut self, mut series: impl FnMut(usize)) -> Result<(), DecodeError> {
        let mut number = || self.byte().ok_or(wrong("a group of series"));
        let (kind, labels, count) = (number()?, number()?, number()?);
        Kind::from_u8(kind).ok_or(wrong("a kind of 0 to 3"))?;
        // Without labels all series of the group were the same one.
        if count == 0 || (labels == 0 && count > 1) {
            return Err(wrong("a plausible number of series"));
        }
        self.part().ok_or(wrong("a name"))?;
        let mut before = None;
        for _ in 0..labels {
            self.check_name(&mut before)?;
        }
        for _ in 0..count {
            series(self.at);
            for _ in 0..labels {
                self.check_value()?;
            }
        }
        Ok(())
    }

    fn check_name(&mut self, before: &mut Option<&'a str>) -> Result<(), DecodeError> {
        let name = self.part().ok_or(wrong("a label name"))?;
        if before.is_some_and(|before| name <= before) || name == "__name__" {
            return Err(wrong("label names in order, without __name__"));
        }
        *before = Some(name);
        Ok(())
    }

    fn check_value(&mut self) -> Result<(), DecodeError> {
        match self.part() {
            None | Some("") => Err(wrong("a label value")),
            Some(_) => Ok(()),
        }
    }
}

/// Of the whole schema: an offset in text that was compressed says nothing.
fn wrong(expected: &'static str) -> DecodeError {
    DecodeError { expected, offset: 0 }
}
