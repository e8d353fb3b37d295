//! A regular expression of the user's, or a default of node_exporter's, with bounded cost.
//!
//! It matches bytes without Unicode tables, which this binary doesn't carry: `\d` and `\w` are ASCII,
//! and letters beyond ASCII match as themselves.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Bounds the compiled program; node_exporter's longest default takes a tenth of it.
const SIZE_LIMIT: usize = 256 << 10;

/// A compiled regular expression; it matches anywhere in a text unless it is anchored.
#[derive(Clone)]
pub struct Pattern(Regex);

/// Compiles a pattern.
///
/// # Errors
/// What is wrong with the syntax, or that the compiled program would be larger than 256 KiB.
pub fn pattern(text: &str) -> Result<Pattern, regex::Error> {
    let regex =
        RegexBuilder::new(text).unicode(false).size_limit(SIZE_LIMIT).nest_limit(64).build()?;
    Ok(Pattern(regex))
}

impl Pattern {
    /// Whether the pattern matches somewhere in the text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.as_str() == other.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_letters_beyond_ascii_work_without_unicode_tables() {
        let disks = pattern(r"^nvme\d+n\d+p\d+$").unwrap();
        assert!(disks.is_match(b"nvme0n1p2") && !disks.is_match(b"nvme0n1"));
        assert!(pattern("^/média$").unwrap().is_match("/média".as_bytes()));
        assert!(pattern(r"^\S+\w$").unwrap().is_match(b"/a/\xff/b"));
    }

    #[test]
    fn bad_and_huge_patterns_are_refused() {
        assert!(pattern("(").is_err());
        assert!(pattern("((a{1000}){1000}){1000}").is_err());
        assert!(pattern(&"(".repeat(1000)).is_err());
    }
}
