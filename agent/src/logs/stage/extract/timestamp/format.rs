//! Formats of times: names such as `rfc3339`, strftime's directives, and Go's layouts, all read into the
//! same parts.

use std::fmt;

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// This text.
    Literal(String),
    /// One space or more.
    Space,
    /// `T`, `t` or a space, between date and time.
    Separator,
    /// Four digits.
    Year,
    /// Two digits: 69 to 99 are of the last century.
    ShortYear,
    /// 1 to 12
    Month,
    /// Three letters or the whole name, in English.
    MonthName,
    /// 1 to 31
    Day,
    /// 1 to 366
    DayOfYear,
    /// Three letters or the whole name, in English; its meaning is passed over.
    Weekday,
    /// 0 to 23
    Hour,
    /// 1 to 12
    Hour12,
    /// AM or PM
    Half,
    /// 0 to 59
    Minute,
    /// 0 to 60, and a fraction if one follows that the format does not name.
    Second,
    /// Digits of a fraction of a second.
    Fraction,
    /// `.` or `,` and the digits of a fraction, or nothing.
    DotFraction,
    /// `Z`, `+0100`, `+01:00` or `+01`
    Offset,
    /// The same, or nothing.
    MaybeOffset,
    /// An abbreviation. UTC, GMT and Z are UTC; any other is passed over.
    ZoneName,
    /// Unix time with a fraction, in units of so many nanoseconds.
    Unix(i64),
}

/// A format, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pub(super) parts: Vec<Part>,
}

/// What is wrong with a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError(String);

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FormatError {}

const NANO: i64 = 1_000_000_000;

/// Names of formats, less `_` and in lower case, each with what it stands for as strftime has it. `%+`
/// is RFC 3339's, `%Ez` an offset that may lack.
const NAMED: &[(&str, &str)] = &[
    ("rfc3339", "%+"),
    ("rfc3339nano", "%+"),
    ("iso8601", "%+"),
    ("rfc3164", "%b %d %H:%M:%S"),
    ("ansic", "%a %b %d %H:%M:%S %Y"),
    ("unixdate", "%a %b %d %H:%M:%S %Z %Y"),
    ("rubydate", "%a %b %d %H:%M:%S %z %Y"),
    ("rfc822", "%d %b %y %H:%M %Z"),
    ("rfc822z", "%d %b %y %H:%M %z"),
    ("rfc850", "%A, %d-%b-%y %H:%M:%S %Z"),
    ("rfc1123", "%a, %d %b %Y %H:%M:%S %Z"),
    ("rfc1123z", "%a, %d %b %Y %H:%M:%S %z"),
    ("rfc2822", "%a, %d %b %Y %H:%M:%S %z"),
    ("clf", "%d/%b/%Y:%H:%M:%S %z"),
];

/// Go's pieces of a layout, those first that begin like others.
const GO: &[(&str, &str)] = &[
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    ("2006", "%Y"),
    ("-07:00:00", "%z"),
    ("-070000", "%z"),
    ("-07:00", "%z"),
    ("-0700", "%z"),
    ("-07", "%z"),
    ("Z07:00:00", "%z"),
    ("Z070000", "%z"),
    ("Z07:00", "%z"),
    ("Z0700", "%z"),
    ("Z07", "%z"),
    ("002", "%j"),
    ("__2", "%j"),
    ("_2", "%d"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("pm", "%p"),
    ("1", "%m"),
    ("2", "%d"),
    ("3", "%I"),
    ("4", "%M"),
    ("5", "%S"),
];

/// One of these is in each of Go's layouts; single digits are in other things as well.
const GO_SIGNS: &[&str] = &["2006", "06", "15", "04", "Jan"];

impl Format {
    /// Reads a format: a name (`rfc3339`, `unix_ms`), strftime's directives if it has a `%`, else a
    /// layout of Go's.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Format, FormatError> {
        let name = text.to_ascii_lowercase().replace('_', "");
        let unix = match name.as_str() {
            "unix" => Some(NANO),
            "unixms" => Some(1_000_000),
            "unixus" => Some(1_000),
            "unixns" => Some(1),
            _ => None,
        };
        if let Some(unit) = unix {
            return Ok(Format { parts: vec![Part::Unix(unit)] });
        }
        let mut parts = Parts::default();
        if let Some((_, directives)) = NAMED.iter().find(|(have, _)| *have == name) {
            parts.strftime(directives)?;
        } else if text.contains('%') {
            parts.strftime(text)?;
        } else if GO_SIGNS.iter().any(|sign| text.contains(sign)) {
            parts.go(text)?;
        }
        let format = Format { parts: parts.0 };
        format.check()?;
        Ok(format)
    }

    /// A format has to say when something was.
    fn check(&self) -> Result<(), FormatError> {
        use Part::{Day, DayOfYear, Half, Hour, Hour12, Month, MonthName, ShortYear, Unix, Year};
        let has = |part: &Part| self.parts.contains(part);
        let month = has(&Month) || has(&MonthName);
        let year = has(&Year) || has(&ShortYear);
        let hour = has(&Hour) || has(&Hour12);
        let date = month && has(&Day) || has(&DayOfYear) && year;
        if has(&Unix(NANO)) || date && hour || date && year {
            return Ok(());
        }
        let (begun, wrong) = (month || has(&Day) || has(&DayOfYear) || year, has(&Half) && !hour);
        if hour && !begun && !wrong {
            return Ok(());
        }
        let problem = if begun {
            "the format has no whole date: a month and a day, or a day of the year and a year; and where \
             it has no year, the hour"
        } else {
            "there is no time in the format: a name such as rfc3339, directives such as %Y-%m-%d \
             %H:%M:%S, or a layout such as 2006-01-02 15:04:05"
        };
        Err(FormatError(problem.into()))
    }
}

#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn literal(&mut self, c: char) {
        match self.0.last_mut() {
            _ if c == ' ' || c == '\t' || c == '\n' => self.space(),
            Some(Part::Literal(text)) => text.push(c),
            _ => self.0.push(Part::Literal(c.to_string())),
        }
    }

    fn space(&mut self) {
        if self.0.last() != Some(&Part::Space) {
            self.0.push(Part::Space);
        }
    }

    fn strftime(&mut self, text: &str) -> Result<(), FormatError> {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                self.literal(c);
                continue;
            }
            // How numbers are padded; both ways are read.
            while let Some('-' | '_' | '0' | '^' | '#') = chars.peek() {
                chars.next();
            }
            let mut dot = false;
            while let Some(c @ ('.' | ':' | '3' | '6' | '9')) = chars.peek() {
                dot |= *c == '.';
                chars.next();
            }
            let Some(directive) = chars.next() else {
                return Err(FormatError("the format ends in the middle of a directive".into()));
            };
            match directive {
                'Y' => self.0.push(Part::Year),
                'y' => self.0.push(Part::ShortYear),
                'm' => self.0.push(Part::Month),
                'b' | 'B' | 'h' => self.0.push(Part::MonthName),
                'd' | 'e' => self.0.push(Part::Day),
                'j' => self.0.push(Part::DayOfYear),
                'a' | 'A' => self.0.push(Part::Weekday),
                'H' | 'k' => self.0.push(Part::Hour),
                'I' | 'l' => self.0.push(Part::Hour12),
                'p' | 'P' => self.0.push(Part::Half),
                'M' => self.0.push(Part::Minute),
                'S' => self.0.push(Part::Second),
                'f' | 'N' | 'L' if dot => self.0.push(Part::DotFraction),
                'f' | 'N' | 'L' => self.0.push(Part::Fraction),
                'z' => self.0.push(Part::Offset),
                'Z' => self.0.push(Part::ZoneName),
                's' => self.0.push(Part::Unix(NANO)),
                'T' => self.strftime("%H:%M:%S")?,
                'R' => self.strftime("%H:%M")?,
                'r' => self.strftime("%I:%M:%S %p")?,
                'D' => self.strftime("%m/%d/%y")?,
                'F' => self.strftime("%Y-%m-%d")?,
                'c' => self.strftime("%a %b %d %H:%M:%S %Y")?,
                '+' => {
                    self.strftime("%F")?;
                    self.0.push(Part::Separator);
                    self.strftime("%T%.f")?;
                    self.0.push(Part::MaybeOffset);
                }
                'n' | 't' => self.space(),
                '%' => self.literal('%'),
                other => {
                    return Err(FormatError(format!("%{other} is no directive that is read here")));
                }
            }
        }
        Ok(())
    }

    fn go(&mut self, text: &str) -> Result<(), FormatError> {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let piece = GO.iter().find(|(piece, _)| rest.starts_with(piece));
            // `_2006` is a `_` and a year.
            let piece = piece.filter(|_| !rest.starts_with("_2006"));
            if let Some((piece, directive)) = piece {
                self.strftime(directive)?;
                rest = rest.get(piece.len()..).unwrap_or_default();
            } else if let Some(len) = go_fraction(rest) {
                self.0.push(Part::DotFraction);
                rest = rest.get(len..).unwrap_or_default();
            } else {
                self.literal(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// The length of `.000`, `,000` or `.999`, if the text begins with one.
fn go_fraction(text: &str) -> Option<usize> {
    let digits = text.strip_prefix(['.', ','])?;
    let first = digits.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let behind = digits.trim_start_matches(first);
    (!behind.starts_with(|c: char| c.is_ascii_digit())).then_some(text.len() - behind.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_of_gos_is_the_same_as_directives() {
        for (go, strftime) in [
            ("2006-01-02 15:04:05", "%Y-%m-%d %H:%M:%S"),
            ("2006-01-02T15:04:05.000Z07:00", "%FT%T%.f%z"),
            ("2006-01-02T15:04:05.999999999Z07:00", "%Y-%m-%dT%H:%M:%S%.9f%:z"),
            ("2006/01/02 15:04:05,000", "%Y/%m/%d %H:%M:%S%.3f"),
            ("Jan _2 15:04:05", "%b %e %T"),
            ("Mon, 02 Jan 2006 15:04:05 MST", "%a, %d %b %Y %H:%M:%S %Z"),
            ("02/Jan/2006:15:04:05 -0700", "%d/%b/%Y:%H:%M:%S %z"),
            ("1/2/06 3:04 PM", "%-m/%-d/%y %-I:%M %p"),
            ("0102 15:04:05.000000", "%m%d %H:%M:%S%.6f"),
            ("Monday, January 2, 2006 at 3pm", "%A, %B %d, %Y at %I%P"),
            ("x_2006 002", "x_%Y %j"),
        ] {
            let go = if go.contains(" at ") { go.replace("pm", " pm") } else { go.to_owned() };
            let strftime = if strftime.contains(" at ") {
                strftime.replace("%P", " %P")
            } else {
                strftime.to_owned()
            };
            let (go, strftime) = (Format::parse(&go), Format::parse(&strftime));
            assert_eq!(go, strftime);
            assert!(go.is_ok() || strftime.is_err());
        }
    }

    #[test]
    fn names_are_promtails_and_their_plain_forms() {
        for (name, other) in [
            ("RFC3339Nano", "rfc3339_nano"),
            ("UnixMs", "unix_ms"),
            ("ANSIC", "ansic"),
            ("RFC1123Z", "rfc1123z"),
        ] {
            assert_eq!(Format::parse(name).unwrap(), Format::parse(other).unwrap());
        }
        assert_ne!(Format::parse("unix").unwrap(), Format::parse("unix_ns").unwrap());
    }

    #[test]
    fn what_says_no_time_is_refused() {
        for bad in [
            "",
            "x",
            "%",
            "%Y-%",
            "%Q",
            "%Y",
            "%m-%d",
            "%H:%M %d",
            "%M:%S",
            "%p",
            "%j %H",
            "yyyy-mm-dd",
            "rfc3340",
            "%Y-%d %H:%M",
        ] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
        for good in ["%s", "%H:%M", "%m-%d %H", "%Y-%m-%d", "%Y %j", "%b %d %T", "15:04:05"] {
            assert!(Format::parse(good).is_ok(), "{good}");
        }
    }
}
