//! Which files: glob patterns with excludes, checked when the configuration is read, expanded when
//! files are looked for. It must not know what is done with the files.
//!
//! `*`, `?`, `[a-z]` and `[!a-z]` stay within one component of the path, `**` stands for any number
//! of directories; as in a shell, a leading `.` is only matched by a `.`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// An exclude may hide what it likes, dot or not.
const MATCH_EXCLUDE: MatchOptions = MatchOptions { require_literal_leading_dot: false, ..MATCH };

/// A pattern that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The pattern as it was given.
    pub pattern: String,
    /// Where in it, counted in characters from 0; near enough to point at.
    pub position: usize,
    /// What is wrong, and what to do instead.
    pub reason: &'static str,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, character {}: {}", self.pattern, self.position + 1, self.reason)
    }
}

impl std::error::Error for PatternError {}

/// Checks a pattern of `paths`.
///
/// # Errors
/// A pattern that is not absolute, ends in a directory, has an unfinished `[` or a `**` that is not
/// a whole component, or uses `{a,b}`.
pub fn check_path(pattern: &str) -> Result<(), PatternError> {
    include(pattern).map(|_| ())
}

/// Checks a pattern of `exclude`: without a `/` it is matched against the file's name, else against
/// the whole path.
///
/// # Errors
/// As [`check_path`], except that a name need not be absolute.
pub fn check_exclude(pattern: &str) -> Result<(), PatternError> {
    exclude(pattern).map(|_| ())
}

fn compile(pattern: &str) -> Result<Pattern, PatternError> {
    let fail = |position, reason| PatternError { pattern: pattern.to_owned(), position, reason };
    if let Some(at) = pattern.chars().position(|c| c == '{') {
        return Err(fail(
            at,
            "{a,b} is not supported: write two patterns, or [{] for the character",
        ));
    }
    if let Some(at) = pattern.chars().position(|c| c == '\0') {
        return Err(fail(at, "a path holds no NUL"));
    }
    Pattern::new(pattern).map_err(|error| fail(error.pos, error.msg))
}

fn include(pattern: &str) -> Result<Pattern, PatternError> {
    let fail = |position, reason| PatternError { pattern: pattern.to_owned(), position, reason };
    if !pattern.starts_with('/') {
        return Err(fail(0, "the path must be absolute"));
    }
    if pattern.ends_with('/') {
        return Err(fail(pattern.chars().count() - 1, "this is a directory: add * for its files"));
    }
    compile(pattern)
}

struct Exclude {
    pattern: Pattern,
    whole_path: bool,
}

fn exclude(pattern: &str) -> Result<Exclude, PatternError> {
    if pattern.is_empty() {
        let reason = "an empty pattern matches nothing";
        return Err(PatternError { pattern: String::new(), position: 0, reason });
    }
    let whole_path = pattern.contains('/');
    let pattern = if whole_path { include(pattern)? } else { compile(pattern)? };
    Ok(Exclude { pattern, whole_path })
}

/// The compiled patterns of one section of the configuration.
pub(super) struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Exclude>,
}

/// What an expansion found: a path, one that is not UTF-8, or a directory that can't be read.
pub(super) enum Found {
    Path(String),
    NotUtf8(PathBuf),
    Error(PathBuf, std::io::Error),
}

impl Patterns {
    pub(super) fn new(paths: &[String], excluded: &[String]) -> Result<Patterns, PatternError> {
        Ok(Patterns {
            include: paths.iter().map(|p| include(p)).collect::<Result<_, _>>()?,
            exclude: excluded.iter().map(|p| exclude(p)).collect::<Result<_, _>>()?,
        })
    }

    /// Means just this path, whatever characters it has.
    pub(super) fn literal(path: &str) -> Result<Patterns, PatternError> {
        let fail = |reason| PatternError { pattern: path.to_owned(), position: 0, reason };
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(fail("this is no absolute path of a file"));
        }
        let pattern = Pattern::new(&Pattern::escape(path)).map_err(|error| fail(error.msg))?;
        Ok(Patterns { include: vec![pattern], exclude: Vec::new() })
    }

    /// Matches nothing.
    pub(super) fn none() -> Patterns {
        Patterns { include: Vec::new(), exclude: Vec::new() }
    }

    /// Whether a path is meant, existing or not.
    pub(super) fn matches(&self, path: &Path) -> bool {
        self.include.iter().any(|pattern| pattern.matches_path_with(path, MATCH))
            && !self.is_excluded(path)
    }

    /// Whether a directory may hold what is meant, however deep.
    pub(super) fn leads(&self, directory: &Path) -> bool {
        // The root is a component, too: `/a/b` has three, and stands before the slash with index 2.
        let depth = directory.components().count().saturating_sub(1);
        let is_match = |upper: &str| {
            Pattern::new(upper).is_ok_and(|upper| upper.matches_path_with(directory, MATCH))
        };
        self.include.iter().map(Pattern::as_str).any(|pattern| {
            let end = pattern.match_indices('/').nth(depth).map(|(at, _)| at);
            let any_depth = pattern.find("**").map(|at| at + 2);
            end.is_some_and(|end| is_match(&pattern[..end]))
                || any_depth.is_some_and(|end| is_match(&pattern[..end]))
        })
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.iter().any(|exclude| {
            let subject =
                if exclude.whole_path { Some(path.as_os_str()) } else { path.file_name() };
            subject.is_some_and(|s| exclude.pattern.matches_path_with(Path::new(s), MATCH_EXCLUDE))
        })
    }

    /// What there is now, excluded paths left out; of any type.
    pub(super) fn expand(&self) -> impl Iterator<Item = Found> {
        self.include
            .iter()
            .filter_map(|pattern| glob::glob_with(pattern.as_str(), MATCH).ok())
            .flatten()
            .filter_map(|found| match found {
                Ok(path) if self.is_excluded(&path) => None,
                Ok(path) => Some(match path.into_os_string().into_string() {
                    Ok(path) => Found::Path(path),
                    Err(path) => Found::NotUtf8(path.into()),
                }),
                Err(error) => {
                    let path = error.path().to_owned();
                    Some(Found::Error(path, error.into()))
                }
            })
    }

    /// Adds the directories in which something may appear that changes what `expand` gives: for each
    /// component of each pattern the directories before it, as far as they exist.
    pub(super) fn directories(&self, out: &mut BTreeSet<PathBuf>, limit: usize) {
        for pattern in &self.include {
            let pattern = pattern.as_str();
            let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
            let plain = pattern[..wild].rfind('/').unwrap_or(0);
            let mut directory = Path::new(if plain == 0 { "/" } else { &pattern[..plain] });
            while !directory.is_dir()
                && let Some(parent) = directory.parent()
            {
                directory = parent;
            }
            out.insert(directory.to_owned());
            for (at, _) in pattern.match_indices('/').filter(|&(at, _)| at > wild) {
                let Ok(found) = glob::glob_with(&pattern[..at], MATCH) else { continue };
                for path in found.flatten().filter(|path| path.is_dir()) {
                    if out.len() >= limit {
                        return;
                    }
                    out.insert(path);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(result: Result<(), PatternError>) -> usize {
        result.unwrap_err().position
    }

    #[test]
    fn patterns_are_checked_and_errors_point_at_the_place() {
        for good in ["/var/log/*.log", "/a/**/b", "/a/[!x]?", "/ü"] {
            assert_eq!(check_path(good), Ok(()));
        }
        assert_eq!(position(check_path("var/log/*")), 0);
        assert_eq!(position(check_path("")), 0);
        assert_eq!(position(check_path("/var/log/")), 8);
        assert_eq!(position(check_path("/ü/{a,b}")), 3);
        assert_eq!(position(check_path("/a[b")), 2);
        assert_eq!(position(check_path("/a**")), 1);
        assert_eq!(position(check_path("/a\0")), 2);
        assert_eq!(check_exclude("*.gz"), Ok(()));
        assert_eq!(position(check_exclude("a/b")), 0);
        assert_eq!(position(check_exclude("")), 0);
        let text = check_path("/a[b").unwrap_err().to_string();
        assert!(text.starts_with("\"/a[b\", character 3: "), "{text}");
    }

    #[test]
    fn matching_follows_the_shell() {
        let strings = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let patterns =
            Patterns::new(&strings(&["/l/*.log", "/d/**/x"]), &strings(&["b*", "/l/c.log"]))
                .unwrap();
        let matches = |path: &str| patterns.matches(Path::new(path));
        assert!(matches("/l/a.log") && matches("/d/x") && matches("/d/e/f/x"));
        assert!(!matches("/l/b.log") && !matches("/l/c.log") && !matches("/l/.a.log"));
        assert!(!matches("/l/m/a.log") && !matches("/l/a.txt"));
    }

    #[test]
    fn a_directory_leads_to_files_or_not() {
        let paths = ["/l/*/x/*.log", "/d/**/y"].map(str::to_owned);
        let patterns = Patterns::new(&paths, &[]).unwrap();
        let leads = |path: &str| patterns.leads(Path::new(path));
        assert!(leads("/l") && leads("/l/a") && leads("/l/a/x"));
        assert!(leads("/d") && leads("/d/a") && leads("/d/a/b/c/d/e"));
        assert!(!leads("/m/a") && !leads("/l/a/y"));
        let plain = Patterns::new(&["/tmp/*.log".to_owned()], &[]).unwrap();
        assert!(plain.leads(Path::new("/tmp")) && !plain.leads(Path::new("/tmp/new")));
    }

    #[test]
    fn every_directory_that_matters_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |relative: &str| root.path().join(relative);
        for directory in ["s/a/logs", "s/b", "s/.hidden"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        let paths = [
            format!("{}/s/*/logs/*.log", root.path().display()),
            format!("{}/none/yet/x.log", root.path().display()),
        ];
        let mut found = BTreeSet::new();
        Patterns::new(&paths, &[]).unwrap().directories(&mut found, 100);
        let expected = [root.path().to_owned(), at("s"), at("s/a"), at("s/b"), at("s/a/logs")];
        assert_eq!(found, BTreeSet::from(expected));
    }
}
