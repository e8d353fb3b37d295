//! The Prometheus text exposition format, version 0.0.4, from bytes to events: pure, strict, and without
//! allocating for a sample. For text that others write: the files of `textfile` as a whole ([`Parser`]), the
//! pages of scraped targets in pieces ([`Stream`]).
//!
//! Strict as Go's `expfmt` is: a line that is not well formed ends the reading with an error that has its
//! number and the token. Beyond it: a name ends at a blank or a brace, help texts are UTF-8, a line has at
//! most 64 KiB and a sample at most 32 labels. A [`Dialect`] is what differs by who reads and writes.
//!
//! What an event means for those before it (a second TYPE, the parts of a histogram) is its reader's
//! business. This must not know files, hosts or metrics.

mod escaped;
mod labels;
mod number;
mod stream;

use std::fmt;
use std::str;

use memchr::memchr;

pub use escaped::Escaped;
pub use labels::{Labels, MAX_LABELS};
pub use number::{number, show};
pub use stream::Stream;

/// The most bytes of a line, its break not counted.
pub const MAX_LINE: usize = 64 << 10;

/// The most characters of a token that an error repeats.
const MAX_TOKEN: usize = 80;

/// What differs between the readers and writers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// As `expfmt` reads files.
    Files,
    /// As Prometheus reads the pages of its targets (`model/textparse/promparse.go`): a backslash that begins
    /// no escape stands for itself, and the last line needs no break.
    Scrape,
    /// OpenMetrics 1.0: as `Scrape`, with timestamps in seconds, exemplars, which are passed over, and more
    /// types.
    OpenMetrics,
}

/// The type of a family, as a TYPE line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `counter`
    Counter,
    /// `gauge`
    Gauge,
    /// `histogram`
    Histogram,
    /// `summary`
    Summary,
    /// `untyped`
    Untyped,
}

/// A line that says something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// `# HELP name text`
    Help {
        /// The family's name.
        name: &'a str,
        /// What it is about; none if the line ends at the name.
        text: Option<Escaped<'a>>,
    },
    /// `# TYPE name type`
    Type {
        /// The family's name.
        name: &'a str,
        /// Its type; none if the line ends at the name.
        kind: Option<Type>,
    },
    /// A sample.
    Sample {
        /// The metric's name, with a histogram's suffix.
        name: &'a str,
        /// The labels, in their order.
        labels: Labels<'a>,
        /// The value.
        value: f64,
        /// Milliseconds since 1970, if given.
        timestamp: Option<i64>,
    },
}

/// Why reading ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// From 1.
    pub line: u32,
    /// The offending token, cut at 80 characters.
    pub token: String,
    /// What stands there in a well-formed text.
    pub expected: &'static str,
}

/// What is wrong with a line.
type Wrong<'a> = (&'a [u8], &'static str);

/// The events of a text, one after the other; after an error there are no more.
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    rest: &'a [u8],
    line: u32,
}

impl<'a> Parser<'a> {
    /// Reads a text.
    pub fn new(text: &'a [u8]) -> Parser<'a> {
        Parser { rest: text, line: 0 }
    }

    /// The number of the line that the last event came from.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// An error of that line.
    pub fn error(&self, token: &[u8], expected: &'static str) -> Error {
        let token = String::from_utf8_lossy(token.get(..MAX_TOKEN * 4).unwrap_or(token));
        Error { line: self.line, token: token.chars().take(MAX_TOKEN).collect(), expected }
    }
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Event<'a>, Error>;

    fn next(&mut self) -> Option<Result<Event<'a>, Error>> {
        while !self.rest.is_empty() {
            self.line = self.line.saturating_add(1);
            let text = self.rest;
            let line = memchr(b'\n', text).and_then(|end| text.split_at_checked(end));
            let read = match line {
                Some((line, rest)) => {
                    self.rest = rest.get(1..).unwrap_or_default();
                    read_line(line, Dialect::Files)
                }
                None => Err((text, "a line break at the end of the last line")),
            };
            match read {
                Ok(None) => {}
                Ok(Some(event)) => return Some(Ok(event)),
                Err((token, expected)) => {
                    self.rest = &[];
                    return Some(Err(self.error(token, expected)));
                }
            }
        }
        None
    }
}

fn read_line(line: &[u8], dialect: Dialect) -> Result<Option<Event<'_>>, Wrong<'_>> {
    if line.len() > MAX_LINE {
        return Err((line, "a line of at most 64 KiB"));
    }
    let line = skip_blanks(line);
    match line.split_first() {
        None => Ok(None),
        Some((b'#', comment)) => read_comment(comment, dialect),
        Some(_) => read_sample(line, dialect).map(Some),
    }
}

fn read_comment(comment: &[u8], dialect: Dialect) -> Result<Option<Event<'_>>, Wrong<'_>> {
    let (keyword, rest) = until_blank(skip_blanks(comment));
    let is_help = keyword == b"HELP";
    if !is_help && keyword != b"TYPE" {
        return Ok(None);
    }
    let rest = skip_blanks(rest);
    if rest.is_empty() {
        return Ok(None);
    }
    let (token, rest) = until_blank(rest);
    let name = match metric_name(token) {
        Some((name, b"")) => name,
        _ => return Err((token, "the name of a metric")),
    };
    let rest = skip_blanks(rest);
    if is_help {
        let text = if rest.is_empty() { None } else { Some(Escaped::help(rest, dialect)?) };
        return Ok(Some(Event::Help { name, text }));
    }
    const TYPES: [(&[u8], Type); 5] = [
        (b"counter", Type::Counter),
        (b"gauge", Type::Gauge),
        (b"histogram", Type::Histogram),
        (b"summary", Type::Summary),
        (b"untyped", Type::Untyped),
    ];
    const MORE: [(&[u8], Type); 4] = [
        (b"unknown", Type::Untyped),
        (b"info", Type::Gauge),
        (b"stateset", Type::Gauge),
        (b"gaugehistogram", Type::Untyped),
    ];
    let more = if dialect == Dialect::OpenMetrics { &MORE[..] } else { &[] };
    let mut types = TYPES.iter().chain(more);
    let kind = types.find(|(word, _)| word.eq_ignore_ascii_case(rest)).map(|known| known.1);
    if kind.is_none() && !rest.is_empty() {
        return Err((rest, "counter, gauge, histogram, summary or untyped"));
    }
    Ok(Some(Event::Type { name, kind }))
}

fn read_sample(line: &[u8], dialect: Dialect) -> Result<Event<'_>, Wrong<'_>> {
    let (name, rest) = metric_name(line).ok_or((until_blank(line).0, "the name of a metric"))?;
    let after = skip_blanks(rest);
    let (labels, rest) = match after.split_first() {
        Some((b'{', inside)) => Labels::read(inside, dialect)?,
        _ if after.len() < rest.len() => (Labels::default(), after),
        _ => return Err((until_blank(line).0, "a name, and labels or a value behind it")),
    };
    let (token, rest) = until_blank(skip_blanks(rest));
    let value = number(token).ok_or((token, "a number"))?;
    let timestamp = match rest.split_first() {
        None => None,
        Some(_) if dialect == Dialect::OpenMetrics => seconds(skip_blanks(rest))?,
        Some(_) => {
            let (token, rest) = until_blank(skip_blanks(rest));
            let time = str::from_utf8(token).ok().and_then(|token| token.parse().ok());
            let time: i64 = time.ok_or((token, "a timestamp in milliseconds"))?;
            // Prometheus takes blanks at the end of a line, `expfmt` does not.
            if !rest.is_empty() && (dialect == Dialect::Files || !skip_blanks(rest).is_empty()) {
                return Err((rest, "the end of the line"));
            }
            Some(time)
        }
    };
    Ok(Event::Sample { name, labels, value, timestamp })
}

/// The timestamp of OpenMetrics in milliseconds, if there is one; an exemplar behind it is passed over.
fn seconds(rest: &[u8]) -> Result<Option<i64>, Wrong<'_>> {
    let (token, rest) = match rest.first() {
        None | Some(b'#') => return Ok(None),
        Some(_) => until_blank(rest),
    };
    let time = number(token).filter(|time| time.is_finite()).map(|time| (time * 1_000.0) as i64);
    let time = time.ok_or((token, "a timestamp in seconds"))?;
    match skip_blanks(rest).first() {
        None | Some(b'#') => Ok(Some(time)),
        Some(_) => Err((rest, "the end of the line, or an exemplar")),
    }
}

/// The name at the beginning, and what follows it.
fn metric_name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let inside = |&byte: &u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    split_name(bytes, inside)
}

fn split_name(bytes: &[u8], inside: fn(&u8) -> bool) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| !inside(byte)).unwrap_or(bytes.len());
    let (name, rest) = bytes.split_at_checked(end)?;
    if name.first().is_none_or(u8::is_ascii_digit) {
        return None;
    }
    Some((str::from_utf8(name).ok()?, rest))
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}

/// What stands before the first blank, and the rest with it.
fn until_blank(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(is_blank).unwrap_or(bytes.len());
    bytes.split_at_checked(end).unwrap_or_default()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?} where {} should stand", self.line, self.token, self.expected)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
