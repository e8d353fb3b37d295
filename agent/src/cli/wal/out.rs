//! Standard output as text or as JSON Lines, in which nothing that was read steers a terminal.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};

use super::super::Failure;
use super::Stop;

/// Standard output.
pub(super) struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    /// Whether JSON is asked for.
    pub(super) json: bool,
    /// Whether the command goes on when nobody reads what it says.
    goes_on: bool,
}

impl Out {
    pub(super) fn new(json: bool, goes_on: bool) -> Out {
        Out { writer: BufWriter::with_capacity(16 << 10, io::stdout().lock()), json, goes_on }
    }

    /// Writes an object and a line break.
    pub(super) fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        object.serialize(&mut Serializer::with_formatter(&mut *self, Harmless))?;
        self.write_all(b"\n")
    }

    /// Writes what is left. A closed pipe is no error: its reader had enough.
    pub(super) fn end(mut self, result: Result<(), Stop>) -> Result<(), Failure> {
        let flushed = self.flush();
        match result.and_then(|()| Ok(flushed?)) {
            Ok(()) => Ok(()),
            Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(Stop::Output(error)) => {
                Err(Failure::Host(format!("writing to standard output: {error}")))
            }
            Err(Stop::Host(message)) => Err(Failure::Host(message)),
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.writer.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.goes_on => {
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.writer.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.goes_on => Ok(()),
            other => other,
        }
    }
}

/// Compact JSON in which DEL, the C1 controls and what turns the direction of text are escaped too.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        each_part(fragment, |part| match part {
            Part::Plain(text) => writer.write_all(text.as_bytes()),
            Part::Control(c) => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units)
                    .iter()
                    .try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
            }
        })
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        CompactFormatter.write_char_escape(writer, escape)
    }
}

enum Part<'a> {
    Plain(&'a str),
    Control(char),
}

/// Whether a terminal might obey it: control characters, and the marks that turn text around or end a
/// line.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn each_part<'a, E>(
    text: &'a str,
    mut part: impl FnMut(Part<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| steers(*c)) {
        let (plain, from) = rest.split_at(at);
        part(Part::Plain(plain))?;
        part(Part::Control(c))?;
        rest = from.get(c.len_utf8()..).unwrap_or_default();
    }
    part(Part::Plain(rest))
}

/// Text in which what would steer a terminal is spelled out: `\t`, `\x1b`, `\u{202e}`.
pub(super) fn safe(text: &str) -> Safe<'_> {
    Safe { text, escaped: &[] }
}

/// As [`safe`], with backslashes doubled: a line that has `\x1b` in it is not taken for one with ESC.
pub(super) fn exact(text: &str) -> Safe<'_> {
    Safe { text, escaped: &['\\'] }
}

/// As [`exact`], for between double quotes.
fn quoted(text: &str) -> Safe<'_> {
    Safe { text, escaped: &['\\', '"'] }
}

pub(super) struct Safe<'a> {
    text: &'a str,
    /// What gets a backslash.
    escaped: &'static [char],
}

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        each_part(self.text, |part| match part {
            Part::Plain(text) => {
                let mut from = 0;
                for (at, _) in text.match_indices(self.escaped) {
                    write!(f, "{}\\", text.get(from..at).unwrap_or_default())?;
                    from = at;
                }
                f.write_str(text.get(from..).unwrap_or_default())
            }
            Part::Control('\n') => f.write_str("\\n"),
            Part::Control('\r') => f.write_str("\\r"),
            Part::Control('\t') => f.write_str("\\t"),
            Part::Control(c) if u32::from(c) < 0x100 => write!(f, "\\x{:02x}", u32::from(c)),
            Part::Control(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        })
    }
}

/// A name of a metric, a label or of metadata: in quotes unless it is one without them.
pub(super) struct Name<'a>(pub(super) &'a str);

impl Name<'_> {
    pub(super) fn is_plain(&self) -> bool {
        !self.0.starts_with(|c: char| c.is_ascii_digit())
            && !self.0.is_empty()
            && self.0.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() { f.write_str(self.0) } else { write!(f, "\"{}\"", quoted(self.0)) }
    }
}

/// Labels in braces, as PromQL and LogQL write them.
pub(super) struct Braces<I>(pub(super) I);

impl<'a, I: Iterator<Item = (&'a str, &'a str)> + Clone> fmt::Display for Braces<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.0.clone().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}=\"{}\"", Name(name), quoted(value))?;
        }
        f.write_str("}")
    }
}

/// Labels as a JSON object.
pub(super) struct Object<I>(pub(super) I);

impl<'a, I: Iterator<Item = (&'a str, &'a str)> + Clone> Serialize for Object<I> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

/// A sample's value: in JSON a number, or a string where that has none: "NaN", "+Inf", "-Inf", and with its
/// bits a NaN that is not the plain one, as the marker of a series that has ended,
/// "NaN(0x7ff0000000000002)".
#[derive(Clone, Copy)]
pub(super) struct Number(pub(super) f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() && value.to_bits() != f64::NAN.to_bits() {
            return write!(f, "NaN({:#018x})", value.to_bits());
        }
        match value {
            value if value.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            _ if value != 0.0 && !(1e-7..1e21).contains(&value.abs()) => write!(f, "{value:e}"),
            _ => write!(f, "{value}"),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.collect_str(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        let hostile = "a\u{1b}]0;x\u{7}\r\n\t\u{9b}2J\u{7f}\u{202e}b\\";
        let text = safe(hostile).to_string();
        assert_eq!(text, "a\\x1b]0;x\\x07\\r\\n\\t\\x9b2J\\x7f\\u{202e}b\\");
        let mut json = Vec::new();
        hostile.serialize(&mut Serializer::with_formatter(&mut json, Harmless)).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert!(json.chars().all(|c| !steers(c)), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }

    #[test]
    fn what_was_a_backslash_is_told_from_what_was_escaped() {
        assert_eq!(exact("\u{1b}[2J\n").to_string(), r"\x1b[2J\n");
        assert_eq!(exact(r"\x1b[2J\n").to_string(), r"\\x1b[2J\\n");
        assert_eq!(exact("\\").to_string(), r"\\");
    }

    #[test]
    fn labels_are_quoted_as_a_selector() {
        let labels = [("a", "x\"y\\z\n"), ("b", "")];
        assert_eq!(Braces(labels.iter().copied()).to_string(), "{a=\"x\\\"y\\\\z\\n\",b=\"\"}");
        assert_eq!(Braces([].into_iter()).to_string(), "{}");
        for odd in ["", "1a", "a.b", "a=\"b\",c", "\u{fc}", "a\u{1b}"] {
            let odd = Name(odd).to_string();
            assert!(odd.starts_with('"') && odd.ends_with('"'), "{odd}");
        }
        let forged = [("a=\"b\\\",c", "d")];
        assert_eq!(Braces(forged.into_iter()).to_string(), r#"{"a=\"b\\\",c"="d"}"#);
        assert_eq!(Name("node:a_1").to_string(), "node:a_1");
    }

    #[test]
    fn numbers_read_back() {
        for value in [0.0, -0.0, 0.1, 1e6, 9007199254740993.0, 1e300, 5e-324, -1.5e-9] {
            let back: f64 = Number(value).to_string().parse().unwrap();
            assert_eq!(back.to_bits(), value.to_bits());
            assert!(Number(value).to_string().len() < 30);
            let json = serde_json::to_string(&Number(value)).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&json).unwrap().to_bits(), value.to_bits());
        }
        assert_eq!(Number(f64::NAN).to_string(), "NaN");
        let stale = Number(f64::from_bits(0x7ff0_0000_0000_0002));
        assert_eq!(stale.to_string(), "NaN(0x7ff0000000000002)");
        assert_eq!(serde_json::to_string(&stale).unwrap(), "\"NaN(0x7ff0000000000002)\"");
        assert_eq!(Number(-f64::NAN).to_string(), "NaN(0xfff8000000000000)");
        assert_eq!(serde_json::to_string(&Number(f64::NEG_INFINITY)).unwrap(), "\"-Inf\"");
    }
}
