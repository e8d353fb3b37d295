//! One reading of all files: each into rows of families of its own, then into the families of all, whose
//! type and help text the first file says.

use std::collections::HashMap;

use super::parts::{self, Part};
use super::store::{Family, Span, Store};
use super::{Failure, MAX_SAMPLES};
use crate::exposition::{Error, Escaped, Event, Labels, MAX_LABELS, Parser, Type, number};
use crate::model::Kind;
use crate::sort;

/// The most text of all files together.
const MAX_TEXT: usize = 16 << 20;

/// A help text that is made up names files until it has this many bytes.
const MAX_HELP: usize = 4 << 10;

/// A family whose samples are left out.
const DROPPED: u32 = u32::MAX;

/// A sample. Its family is one of its file's, until the file has been read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) family: u32,
    /// A hash of the labels.
    pub(super) series: u64,
    pub(super) file: u32,
    pub(super) line: u32,
    pub(super) labels: (u32, u32),
    pub(super) part: Part,
    pub(super) value: f64,
}

/// A family as one file tells of it.
struct Local<'a> {
    name: &'a str,
    kind: Option<Type>,
    help: Option<Escaped<'a>>,
}

/// A family of one file or several.
#[derive(Debug)]
struct Global {
    name: Span,
    kind: Type,
    help: Option<Span>,
    files: Vec<u32>,
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    store: Store,
    rows: Vec<Parsed>,
    names: HashMap<String, u32>,
    families: Vec<Global>,
    files: Vec<String>,
    failure: Option<Failure>,
}

/// The families of one file by name.
#[derive(Default)]
struct Locals<'a> {
    names: HashMap<&'a str, usize>,
    families: Vec<Local<'a>>,
}

impl Reading {
    /// Reads a file. After an error nothing of it is kept.
    pub(super) fn add(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let marks = (self.store.text.len(), self.store.labels.len(), self.rows.len());
        if marks.0 + bytes.len() > MAX_TEXT {
            let expected = "at most 16 MiB in all files";
            return Err(Failure { place: path.to_owned(), token: path.to_owned(), expected });
        }
        // At most 1000.
        let file = self.files.len() as u32;
        self.files.push(path.to_owned());
        let mut locals = Locals::default();
        let read =
            self.parse(file, bytes, &mut locals).and_then(|()| self.complete(marks.2, &locals));
        if let Err(error) = read {
            self.store.text.truncate(marks.0);
            self.store.labels.truncate(marks.1);
            self.rows.truncate(marks.2);
            let place = format!("{path}, line {}", error.line);
            return Err(Failure { place, token: error.token, expected: error.expected });
        }
        self.unite(marks.2, file, &locals);
        Ok(())
    }

    fn parse<'a>(
        &mut self,
        file: u32,
        bytes: &'a [u8],
        locals: &mut Locals<'a>,
    ) -> Result<(), Error> {
        let mut parser = Parser::new(bytes);
        let mut scratch = String::new();
        while let Some(event) = parser.next() {
            match event? {
                Event::Help { text: None, .. } | Event::Type { kind: None, .. } => {}
                Event::Help { name, text } => {
                    let Some((_, local, _)) = locals.open(name) else { continue };
                    if local.help.is_some() {
                        return Err(parser.error(name.as_bytes(), "no second HELP for the family"));
                    }
                    local.help = text;
                }
                Event::Type { name, kind } => {
                    let Some((_, local, _)) = locals.open(name) else { continue };
                    if local.kind.is_some() {
                        let expected = "one TYPE for the family, before its samples";
                        return Err(parser.error(name.as_bytes(), expected));
                    }
                    local.kind = kind;
                }
                Event::Sample { name, timestamp: Some(_), .. } => {
                    return Err(parser.error(name.as_bytes(), "a sample without a timestamp"));
                }
                Event::Sample { name, labels, value, timestamp: None } => {
                    let Some((family, local, part)) = locals.open(name) else { continue };
                    let kind = *local.kind.get_or_insert(Type::Untyped);
                    if self.rows.len() >= MAX_SAMPLES {
                        let expected = "at most 60000 samples in all files";
                        return Err(parser.error(name.as_bytes(), expected));
                    }
                    let bound = parts::bound(kind);
                    let mut part = part;
                    if let Some(text) = bound.and_then(|label| labels.get(label)) {
                        scratch.clear();
                        text.push_to(&mut scratch);
                        let bound = number(scratch.as_bytes()).filter(|bound| !bound.is_nan());
                        let expected = "a number as the bound of a bucket or quantile";
                        let bound =
                            bound.ok_or_else(|| parser.error(scratch.as_bytes(), expected))?;
                        part = part.with_bound(bound);
                    }
                    if part == Part::Unbound {
                        let expected = "a sample of a histogram or summary, with le or quantile";
                        return Err(parser.error(name.as_bytes(), expected));
                    }
                    let labels = self.keep_labels(labels, bound);
                    let line = parser.line();
                    self.rows.push(Parsed { family, series: 0, file, line, labels, part, value });
                }
            }
        }
        Ok(())
    }

    fn keep_labels(&mut self, labels: Labels<'_>, but: Option<&str>) -> (u32, u32) {
        let from = self.store.labels.len() as u32;
        for (name, value) in labels.iter().filter(|(name, _)| Some(*name) != but) {
            let name = self.store.keep(|text| text.push_str(name));
            let value = self.store.keep(|text| value.push_to(text));
            self.store.labels.push((name, value));
        }
        (from, self.store.labels.len() as u32)
    }

    /// Gives the series of each of the file's families the labels of the others.
    fn complete(&mut self, from: usize, locals: &Locals<'_>) -> Result<(), Error> {
        let rows = self.rows.get_mut(from..).unwrap_or_default();
        // As they stand in the file: tens of thousands, which the stable sort takes long for.
        sort::unstable_by_key(rows, |row| (row.family, row.line));
        for rows in rows.chunk_by_mut(|a, b| a.family == b.family) {
            let Some(first) = rows.first() else { continue };
            let local = locals.families.get(first.family as usize);
            // One more is for the bound.
            let most = match local.and_then(|local| local.kind) {
                Some(Type::Histogram | Type::Summary) => MAX_LABELS - 1,
                _ => MAX_LABELS,
            };
            let mut union: heapless::Vec<Span, MAX_LABELS> = heapless::Vec::new();
            for row in &*rows {
                for &(name, _) in self.store.labels(row.labels) {
                    let text = self.store.get(name);
                    if union.iter().any(|&known| self.store.get(known) == text) {
                        continue;
                    }
                    if union.len() >= most || union.push(name).is_err() {
                        let expected = "at most 32 labels in a family";
                        return Err(Error { line: row.line, token: text.to_owned(), expected });
                    }
                }
            }
            for row in rows {
                let mut labels: heapless::Vec<(Span, Span), MAX_LABELS> = heapless::Vec::new();
                labels.extend(self.store.labels(row.labels).iter().copied().take(MAX_LABELS));
                let own = labels.len();
                if own < union.len() {
                    for &name in &union {
                        let text = self.store.get(name);
                        let has =
                            labels.iter().take(own).any(|label| self.store.get(label.0) == text);
                        if !has {
                            let _ = labels.push((name, Span::default()));
                        }
                    }
                    let from = self.store.labels.len() as u32;
                    self.store.labels.extend_from_slice(&labels);
                    row.labels = (from, self.store.labels.len() as u32);
                }
                sort::unstable_by_key(&mut labels, |label| self.store.get(label.0));
                row.series = hash(&self.store, &labels);
            }
        }
        Ok(())
    }

    /// Makes the file's families those of all files.
    fn unite(&mut self, from: usize, file: u32, locals: &Locals<'_>) {
        let mut dropped = false;
        let rows = self.rows.get_mut(from..).unwrap_or_default();
        for rows in rows.chunk_by_mut(|a, b| a.family == b.family) {
            let Some(first) = rows.first() else { continue };
            let line = first.line;
            let Some(local) = locals.families.get(first.family as usize) else { continue };
            let kind = local.kind.unwrap_or(Type::Untyped);
            let index = match self.names.get(local.name) {
                Some(&index) => index,
                None => {
                    let index = self.families.len() as u32;
                    let name = self.store.keep(|text| text.push_str(local.name));
                    let help = local.help.map(|help| self.store.keep(|text| help.push_to(text)));
                    self.names.insert(local.name.to_owned(), index);
                    self.families.push(Global { name, kind, help, files: Vec::new() });
                    index
                }
            };
            let Some(family) = self.families.get_mut(index as usize) else { continue };
            family.files.push(file);
            let same_help = match (family.help, local.help) {
                (None, None) => true,
                (Some(known), Some(help)) => self.store.get(known).chars().eq(help.chars()),
                _ => false,
            };
            let fits = family.kind == kind && same_help;
            rows.iter_mut().for_each(|row| row.family = if fits { index } else { DROPPED });
            if !fits {
                dropped = true;
                let place = format!("{}, line {line}", self.files.last().map_or("", |path| path));
                let expected = "the type and the help text of the first file with the family";
                self.failure.get_or_insert(Failure {
                    place,
                    token: local.name.to_owned(),
                    expected,
                });
            }
        }
        if dropped {
            self.rows.retain(|row| row.family != DROPPED);
        }
    }

    /// Puts what was read into a store, and says what was wrong between the files.
    pub(super) fn finish(mut self, out: &mut Store) -> Option<Failure> {
        let mut made_up: HashMap<&[u32], Span> = HashMap::new();
        let mut families = Vec::with_capacity(self.families.len());
        for family in &self.families {
            let help = family.help.unwrap_or_else(|| {
                *made_up.entry(&family.files).or_insert_with(|| {
                    let paths =
                        family.files.iter().filter_map(|&file| self.files.get(file as usize));
                    self.store.keep(|text| {
                        let start = text.len();
                        text.push_str("Metric read from ");
                        for (index, path) in paths.enumerate() {
                            if text.len() - start < MAX_HELP {
                                text.push_str(if index > 0 { ", " } else { "" });
                                text.push_str(path);
                            }
                        }
                    })
                })
            });
            let kind = match family.kind {
                Type::Counter => Kind::Counter,
                Type::Gauge => Kind::Gauge,
                Type::Histogram => Kind::Histogram,
                Type::Summary => Kind::Summary,
                Type::Untyped => Kind::Untyped,
            };
            families.push(Family { name: family.name, help, kind });
        }
        self.store.families = families;
        sort::unstable_by_key(&mut self.rows, |row| (row.family, row.series, row.file, row.line));
        let series = self.rows.chunk_by(|a, b| (a.family, a.series) == (b.family, b.series));
        for rows in series {
            if let Some(twice) = parts::write(rows, &mut self.store) {
                let family = self.store.families.get(twice.family as usize);
                let token = family.map_or("", |family| self.store.get(family.name)).to_owned();
                let path = self.files.get(twice.file as usize).map_or("", |path| path);
                let place = format!("{path}, line {}", twice.line);
                let expected = "a series that was not there before";
                self.failure.get_or_insert(Failure { place, token, expected });
            }
        }
        *out = self.store;
        self.failure
    }
}

impl<'a> Locals<'a> {
    /// The family that a name belongs to, and as what; as `expfmt` finds it.
    fn open(&mut self, name: &'a str) -> Option<(u32, &mut Local<'a>, Part)> {
        let (index, part) = match self.find(name) {
            Some(found) => found,
            None => {
                self.names.insert(name, self.families.len());
                self.families.push(Local { name, kind: None, help: None });
                (self.families.len() - 1, Part::Plain)
            }
        };
        // A file of 4 MiB has fewer.
        Some((index as u32, self.families.get_mut(index)?, part))
    }

    fn find(&self, name: &str) -> Option<(usize, Part)> {
        let kind = |index: usize| self.families.get(index).and_then(|family| family.kind);
        if let Some(&index) = self.names.get(name) {
            let whole = matches!(kind(index), Some(Type::Histogram | Type::Summary));
            return Some((index, if whole { Part::Unbound } else { Part::Plain }));
        }
        const SUFFIXES: [(&str, Part); 3] =
            [("_count", Part::Count), ("_sum", Part::Sum), ("_bucket", Part::Unbound)];
        SUFFIXES.into_iter().find_map(|(suffix, part)| {
            let base = name.strip_suffix(suffix).filter(|base| !base.is_empty())?;
            let index = *self.names.get(base)?;
            match kind(index) {
                Some(Type::Histogram) => Some((index, part)),
                Some(Type::Summary) if part != Part::Unbound => Some((index, part)),
                _ => None,
            }
        })
    }
}

/// FNV-1a, so that the order of series is the same in every process.
fn hash(store: &Store, labels: &[(Span, Span)]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &(name, value) in labels {
        let (name, value) = (store.get(name).bytes(), store.get(value).bytes());
        for byte in name.chain([0xff]).chain(value).chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
