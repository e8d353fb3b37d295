//! Text with backslashes, as it stands in a file: checked once, and turned into characters when it is
//! wanted, without a copy of its own.

use std::fmt::{self, Write as _};
use std::str;

use super::{Dialect, Wrong};

/// The text of a HELP line or a label's value, with its escapes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Escaped<'a>(&'a str);

impl<'a> Escaped<'a> {
    /// Checks the text of a HELP line, in which `\\`, `\n` and, in newer versions, `\"` are escapes.
    pub(super) fn help(bytes: &'a [u8], dialect: Dialect) -> Result<Escaped<'a>, Wrong<'a>> {
        let text = str::from_utf8(bytes).map_err(|_| (bytes, "a help text in UTF-8"))?;
        if dialect != Dialect::Files {
            return Ok(Escaped(text));
        }
        let mut rest = bytes.iter();
        while let Some(byte) = rest.next() {
            if *byte == b'\\' && !matches!(rest.next(), Some(b'\\' | b'n' | b'"')) {
                return Err((bytes, r"\\ or \n behind a backslash"));
            }
        }
        Ok(Escaped(text))
    }

    /// Checks a label's value whose opening quote has been read, and gives what follows the closing one.
    pub(super) fn value(
        bytes: &'a [u8],
        dialect: Dialect,
    ) -> Result<(Escaped<'a>, &'a [u8]), Wrong<'a>> {
        let mut at = 0;
        loop {
            match bytes.get(at) {
                None => return Err((bytes, "a quote behind the label's value")),
                Some(b'"') => break,
                Some(b'\\') if matches!(bytes.get(at + 1), Some(b'\\' | b'n' | b'"')) => at += 2,
                Some(b'\\') if dialect != Dialect::Files => at += 2,
                Some(b'\\') => return Err((bytes, r#"\\, \n or \" behind a backslash"#)),
                Some(_) => at += 1,
            }
        }
        let (value, rest) = bytes.split_at_checked(at).unwrap_or_default();
        let text = str::from_utf8(value).map_err(|_| (value, "a label's value in UTF-8"))?;
        Ok((Escaped(text), rest.get(1..).unwrap_or_default()))
    }

    /// Whether there is no character.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The characters, without the escapes; a backslash that begins none stays.
    pub fn chars(&self) -> impl Iterator<Item = char> + use<'a> {
        let mut chars = self.0.chars();
        std::iter::from_fn(move || match chars.next()? {
            '\\' => match chars.as_str().chars().next() {
                Some('n') => chars.next().map(|_| '\n'),
                Some('\\' | '"') => chars.next(),
                _ => Some('\\'),
            },
            other => Some(other),
        })
    }

    /// Appends the characters.
    pub fn push_to(&self, out: &mut String) {
        if self.0.contains('\\') {
            out.extend(self.chars());
        } else {
            out.push_str(self.0);
        }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chars().try_for_each(|char| f.write_char(char))
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}
