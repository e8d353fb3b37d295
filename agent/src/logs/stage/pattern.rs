//! A regular expression of the user's, with bounded cost.
//!
//! It matches bytes without Unicode tables, which this binary doesn't carry: `\d` and `\w` are ASCII, and
//! `.` is one byte of a character beyond ASCII. What a match cuts out of a line may therefore be no
//! UTF-8: who stores it converts it.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Bounds the compiled program.
const SIZE_LIMIT: usize = 256 << 10;

/// A compiled regular expression; it matches anywhere in a text unless it is anchored.
#[derive(Clone)]
pub struct Pattern(Regex);

/// Why a pattern can't be used, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

/// Compiles a pattern.
///
/// # Errors
/// What is wrong with the syntax, or that the compiled program would be larger than 256 KiB.
pub fn pattern(text: &str) -> Result<Pattern, PatternError> {
    let built =
        RegexBuilder::new(text).unicode(false).size_limit(SIZE_LIMIT).nest_limit(64).build();
    built.map(Pattern).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            PatternError("compiled it takes more than 256 KiB".into())
        }
        // The library draws the pattern over several lines, with what is wrong on the last.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            PatternError(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        }
    })
}

/// Compiles a pattern that has to match the whole text, line breaks included: as label matchers do.
pub(super) fn anchored(text: &str) -> Result<Pattern, PatternError> {
    // On its own first, so that a stray parenthesis can't reach beyond the group.
    pattern(text)?;
    pattern(&format!("^(?s:{text})$"))
}

impl Pattern {
    /// Whether the pattern matches somewhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text.as_bytes())
    }

    /// The expression, for captures and replacements.
    pub fn regex(&self) -> &Regex {
        &self.0
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
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
    fn bad_and_huge_patterns_are_refused_in_one_line() {
        for bad in ["(", "((a{1000}){1000}){1000}", &"(".repeat(1000), "a)|(b", r"\pL"] {
            let error = pattern(bad).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
        assert_eq!(pattern("(").unwrap_err().to_string(), "unclosed group");
    }

    #[test]
    fn anchored_is_the_whole_text_and_nothing_less() {
        let either = anchored("a|b.*").unwrap();
        assert!(either.is_match("a") && either.is_match("bc\nd") && !either.is_match("ab"));
        assert!(!either.is_match("xb") && !either.is_match("a\n"));
        assert!(anchored("a)|(b").is_err());
        assert!(anchored("(?i)Err").unwrap().is_match("eRR"));
    }
}
