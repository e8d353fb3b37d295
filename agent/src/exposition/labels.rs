//! The labels of a sample, between their braces: checked once, and read again where they are wanted, so
//! that none is stored.

use super::{Dialect, Escaped, Wrong, skip_blanks, split_name};

/// The most labels of one sample.
pub const MAX_LABELS: usize = 32;

/// Labels in the order of the text; no name comes twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Labels<'a> {
    /// Checks the labels whose opening brace has been read, and gives what follows the closing one.
    pub(super) fn read(
        bytes: &'a [u8],
        dialect: Dialect,
    ) -> Result<(Labels<'a>, &'a [u8]), Wrong<'a>> {
        let mut names: heapless::Vec<&str, MAX_LABELS> = heapless::Vec::new();
        let mut rest = bytes;
        while let Some((name, _, after)) = next(rest, dialect)? {
            if name == "__name__" || names.contains(&name) {
                return Err((name.as_bytes(), "a label that the sample doesn't have yet"));
            }
            names.push(name).map_err(|name| (name.as_bytes(), "at most 32 labels"))?;
            rest = after;
        }
        let rest = skip_blanks(rest);
        // `next` has seen the brace.
        let after = rest.get(1..).unwrap_or_default();
        let inside = bytes.get(..bytes.len() - after.len()).unwrap_or_default();
        Ok((Labels(inside), after))
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Escaped<'a>)> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            // `read` has been through it, by its own dialect.
            let (name, value, after) = next(rest, Dialect::Scrape).ok().flatten()?;
            rest = after;
            Some((name, value))
        })
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<Escaped<'a>> {
        self.iter().find(|label| label.0 == name).map(|label| label.1)
    }
}

/// A label and what follows it.
type Next<'a> = (&'a str, Escaped<'a>, &'a [u8]);

/// The next label and its comma, or none at the closing brace.
fn next(bytes: &[u8], dialect: Dialect) -> Result<Option<Next<'_>>, Wrong<'_>> {
    let bytes = skip_blanks(bytes);
    if bytes.is_empty() || bytes.first() == Some(&b'}') {
        return if bytes.is_empty() { Err((bytes, "a closing brace")) } else { Ok(None) };
    }
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let (name, rest) = split_name(bytes, inside).ok_or((bytes, "the name of a label"))?;
    let rest = skip_blanks(rest);
    let rest = rest.strip_prefix(b"=").ok_or((rest, "an equals sign behind a label's name"))?;
    let rest = skip_blanks(rest);
    let rest = rest.strip_prefix(b"\"").ok_or((rest, "a quote before a label's value"))?;
    let (value, rest) = Escaped::value(rest, dialect)?;
    let rest = skip_blanks(rest);
    match rest.split_first() {
        Some((b',', after)) => Ok(Some((name, value, after))),
        Some((b'}', _)) => Ok(Some((name, value, rest))),
        _ => Err((rest, "a comma or a brace behind a label's value")),
    }
}
