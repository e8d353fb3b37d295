//! One error for everything that can be wrong with a configuration: where, what, and what to do.

use std::fmt;
use std::path::PathBuf;

/// A place in the configuration, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line and a column of the file, both counted from 1; columns in characters.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// The command line: `--set KEY=VALUE`, as it was typed.
    Set(String),
    /// The file as a whole, or no file at all.
    Whole(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            // The key alone: the value may be a password.
            Place::Set(text) => {
                write!(f, "--set {}", text.split_once('=').map_or(text.as_str(), |(key, _)| key))
            }
            Place::Whole(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is wrong, where, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub hint: String,
}

impl ConfigError {
    pub(super) fn new(
        place: &Place,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        ConfigError { place: place.clone(), problem: problem.into(), hint: hint.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The candidate that is nearest to `word`, if one is near enough to be meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) + 1) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_what_was_meant_and_nothing_else() {
        let keys = ["interval", "instance", "labels"];
        assert_eq!(nearest("intervall", keys), Some("interval"));
        assert_eq!(nearest("Interval", keys), Some("interval"));
        assert_eq!(nearest("label", keys), Some("labels"));
        assert_eq!(nearest("xyzzy", keys), None);
        assert_eq!(nearest("foo", ["log", "url"]), None);
        assert_eq!(nearest("blokc", ["block"]), Some("block"));
    }
}
