//! Which files: glob patterns with excludes, checked when the configuration is read, expanded when
//! files are looked for. It must not know what is done with the files.
//!
//! `*`, `?`, `[a-z]` and `[!a-z]` stay within one component of the path, `**` stands for any number
//! of directories (links are not followed there), `{a,b}` for either; as in a shell, a leading `.` is
//! only matched by a `.`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::sort;

use super::root::Root;

/// How many patterns one with `{a,b}` may stand for.
const MAX_ALTERNATIVES: usize = 256;

/// What makes a component of a path a pattern.
const WILD: [char; 3] = ['*', '?', '['];

/// How deep `**` looks.
const MAX_DEPTH: usize = 32;

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
/// A pattern that is not absolute, ends in a directory, has an unfinished `[` or `{`, or a `**` that
/// is not a whole component.
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

fn compile(pattern: &str) -> Result<Vec<Pattern>, PatternError> {
    let fail = |position, reason| PatternError { pattern: pattern.to_owned(), position, reason };
    if let Some(at) = pattern.chars().position(|c| c == '\0') {
        return Err(fail(at, "a path holds no NUL"));
    }
    let all = alternatives(pattern).map_err(|(at, reason)| fail(at, reason))?;
    let one = |(text, places): &(String, Vec<usize>)| {
        Pattern::new(text)
            .map_err(|error| fail(places.get(error.pos).copied().unwrap_or_default(), error.msg))
    };
    all.iter().map(one).collect()
}

/// A text, and where its characters are in the pattern that was given.
type Placed = (String, Vec<usize>);

/// A pattern with `{a,b}` as those that it stands for, each with where its characters are.
fn alternatives(pattern: &str) -> Result<Vec<Placed>, (usize, &'static str)> {
    let chars: Vec<(usize, char)> = pattern.chars().enumerate().collect();
    let mut done = Vec::new();
    let mut todo = vec![chars];
    while let Some(chars) = todo.pop() {
        let Some((open, close, commas)) = braces(&chars)? else {
            let text = chars.iter().map(|(_, c)| *c).collect();
            done.push((text, chars.iter().map(|(at, _)| *at).collect()));
            continue;
        };
        if done.len() + todo.len() + commas.len() >= MAX_ALTERNATIVES {
            let at = chars.get(open).map_or(0, |(at, _)| *at);
            return Err((at, "this stands for more than 256 patterns"));
        }
        let ends = commas.iter().copied().chain([close]);
        let starts = [open].into_iter().chain(commas.iter().copied());
        // The last first: they are taken from the end.
        let parts: Vec<_> = starts.zip(ends).collect();
        for (start, end) in parts.into_iter().rev() {
            let part = chars.get(start + 1..end).unwrap_or_default();
            let before = chars.get(..open).unwrap_or_default();
            let after = chars.get(close + 1..).unwrap_or_default();
            todo.push([before, part, after].concat());
        }
    }
    Ok(done)
}

/// Where a `{`, its `}` and the commas between them are.
type Braces = (usize, usize, Vec<usize>);

/// The first `{`, its `}` and the commas between them, outside of `[…]`.
fn braces(chars: &[(usize, char)]) -> Result<Option<Braces>, (usize, &'static str)> {
    let mut open: Option<(usize, usize)> = None;
    let (mut depth, mut commas, mut index) = (0, Vec::new(), 0);
    while let Some(&(at, c)) = chars.get(index) {
        match c {
            '[' => {
                // As glob reads it: a `]` that comes first is a character of the class.
                let from =
                    index + if chars.get(index + 1).is_some_and(|c| c.1 == '!') { 3 } else { 2 };
                let end = chars.iter().skip(from).position(|c| c.1 == ']');
                index = end.map_or(index, |end| from + end);
            }
            '{' => {
                depth += 1;
                open.get_or_insert((index, at));
            }
            ',' if depth == 1 => commas.push(index),
            '}' if depth == 0 => {
                return Err((at, "a `}` without its `{`: write [}] for the character"));
            }
            '}' => {
                depth -= 1;
                if let Some((open, _)) = open.filter(|_| depth == 0) {
                    return Ok(Some((open, index, commas)));
                }
            }
            _ => {}
        }
        index += 1;
    }
    match open {
        Some((_, at)) => Err((at, "a `{` without its `}`: write [{] for the character")),
        None => Ok(None),
    }
}

fn include(pattern: &str) -> Result<Vec<Pattern>, PatternError> {
    let fail = |position, reason| PatternError { pattern: pattern.to_owned(), position, reason };
    let all = compile(pattern)?;
    if !pattern.starts_with('/') || all.iter().any(|one| !one.as_str().starts_with('/')) {
        return Err(fail(0, "the path must be absolute"));
    }
    if all.iter().any(|one| one.as_str().ends_with('/')) {
        let last = pattern.chars().count() - 1;
        return Err(fail(last, "this is a directory: add * for its files"));
    }
    Ok(all)
}

struct Exclude {
    pattern: Pattern,
    whole_path: bool,
}

fn exclude(pattern: &str) -> Result<Vec<Exclude>, PatternError> {
    if pattern.is_empty() {
        let reason = "an empty pattern matches nothing";
        return Err(PatternError { pattern: String::new(), position: 0, reason });
    }
    let whole_path = pattern.contains('/');
    let all = if whole_path { include(pattern)? } else { compile(pattern)? };
    Ok(all.into_iter().map(|pattern| Exclude { pattern, whole_path }).collect())
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
        Ok(Patterns { include: flat(paths, include)?, exclude: flat(excluded, exclude)? })
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

    /// What there is now, excluded paths left out; of any type. Links are given, not followed.
    pub(super) fn expand(&self, root: &Root, out: &mut dyn FnMut(Found)) {
        let mut emit = |found: Found| match found {
            Found::Path(path) if self.is_excluded(Path::new(&path)) => {}
            found => out(found),
        };
        for pattern in &self.include {
            let mut walk = Walk { root, found: &mut emit, directories: None };
            walk.start(pattern.as_str());
        }
    }

    /// Adds the directories in which something may appear that changes what `expand` gives: for each
    /// component of each pattern the directories before it, as far as they exist.
    pub(super) fn directories(&self, root: &Root, out: &mut BTreeSet<PathBuf>, limit: usize) {
        for pattern in &self.include {
            let mut walk = Walk { root, found: &mut |_| {}, directories: Some((&mut *out, limit)) };
            walk.start(pattern.as_str());
        }
    }
}

fn flat<T>(
    texts: &[String],
    one: fn(&str) -> Result<Vec<T>, PatternError>,
) -> Result<Vec<T>, PatternError> {
    let all: Vec<Vec<T>> = texts.iter().map(|text| one(text)).collect::<Result<_, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

/// A walk to what a pattern means. Paths are the host's.
struct Walk<'a> {
    root: &'a Root,
    found: &'a mut dyn FnMut(Found),
    directories: Option<(&'a mut BTreeSet<PathBuf>, usize)>,
}

impl Walk<'_> {
    fn start(&mut self, pattern: &str) {
        let wild = pattern.find(WILD).unwrap_or(pattern.len());
        let plain = pattern.get(..wild).and_then(|plain| plain.rfind('/')).unwrap_or(0);
        let (plain, rest) = pattern.split_at(plain);
        let start = Path::new(if plain.is_empty() { "/" } else { plain });
        let mut there = start;
        while !self.root.real(there).is_dir()
            && let Some(parent) = there.parent()
        {
            there = parent;
        }
        self.note(there);
        if there == start {
            let rest: Vec<&str> = rest.split('/').skip(1).collect();
            self.step(start, &rest, MAX_DEPTH);
        }
    }

    fn note(&mut self, directory: &Path) {
        if let Some((directories, limit)) = &mut self.directories
            && directories.len() < *limit
        {
            directories.insert(directory.to_owned());
        }
    }

    fn step(&mut self, directory: &Path, rest: &[&str], depth: usize) {
        let Some((&first, after)) = rest.split_first() else { return };
        if first == "**" {
            // At the end it means all files.
            self.step(directory, if after.is_empty() { &["*"] } else { after }, depth);
            let is_own = |entry: &Entry| entry.is_directory(None) && !entry.is_hidden();
            for entry in self.list(directory, true).into_iter().filter(is_own) {
                if let Some(depth) = depth.checked_sub(1) {
                    self.note(&entry.path);
                    self.step(&entry.path, rest, depth);
                }
            }
        } else if !first.contains(WILD) {
            let path = directory.join(first);
            if !after.is_empty() {
                if self.root.real(&path).is_dir() {
                    self.note(&path);
                    self.step(&path, after, depth);
                }
            } else if std::fs::symlink_metadata(self.root.real(&path)).is_ok() {
                self.emit(path);
            }
        } else if let Ok(pattern) = Pattern::new(first) {
            // Who wants only directories need not know a last component's files.
            if after.is_empty() && self.directories.is_some() {
                return;
            }
            let dots = first.starts_with('.');
            for entry in self.list(directory, false) {
                let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
                if (entry.is_hidden() && !dots) || !pattern.matches_with(&name, MATCH) {
                    continue;
                }
                if after.is_empty() {
                    self.emit(entry.path);
                } else if entry.is_directory(Some(self.root)) {
                    self.note(&entry.path);
                    self.step(&entry.path, after, depth);
                }
            }
        }
    }

    fn emit(&mut self, path: PathBuf) {
        (self.found)(match path.into_os_string().into_string() {
            Ok(path) => Found::Path(path),
            Err(path) => Found::NotUtf8(path.into()),
        });
    }

    /// What is in a directory, by name.
    fn list(&mut self, directory: &Path, quiet: bool) -> Vec<Entry> {
        let entries = match std::fs::read_dir(self.root.real(directory)) {
            Ok(entries) => entries,
            Err(error) => {
                use std::io::ErrorKind::{NotADirectory, NotFound};
                if !quiet && !matches!(error.kind(), NotFound | NotADirectory) {
                    (self.found)(Found::Error(directory.to_owned(), error));
                }
                return Vec::new();
            }
        };
        let entry = |entry: std::fs::DirEntry| {
            Some(Entry { path: directory.join(entry.file_name()), kind: entry.file_type().ok()? })
        };
        let mut entries: Vec<Entry> = entries.flatten().filter_map(entry).collect();
        sort::stable_by(&mut entries, |a, b| a.path.cmp(&b.path));
        entries
    }
}

struct Entry {
    path: PathBuf,
    kind: std::fs::FileType,
}

impl Entry {
    fn is_hidden(&self) -> bool {
        self.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    }

    /// With a root, also what a link leads to.
    fn is_directory(&self, root: Option<&Root>) -> bool {
        self.kind.is_dir()
            || (self.kind.is_symlink() && root.is_some_and(|root| root.real(&self.path).is_dir()))
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
        assert_eq!(check_path("/ü/{a,b{c,[}]}}/[{].log"), Ok(()));
        assert_eq!(position(check_path("/ü/{a,b")), 3);
        assert_eq!(position(check_path("/ü/a}")), 4);
        assert_eq!(position(check_path("/{aa,b[}/x")), 6);
        assert_eq!(position(check_path("/{aa,b**}/x")), 5);
        assert_eq!(position(check_path(&"/{0,1,2,3,4,5,6,7,8,9}".repeat(3))), 45);
        assert_eq!(position(check_path("{/a,b}")), 0);
        assert_eq!(position(check_path("/a{/,b}")), 6);
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
        let root_dir = Root::new(Path::new("/"));
        Patterns::new(&paths, &[]).unwrap().directories(&root_dir, &mut found, 100);
        let expected = [root.path().to_owned(), at("s"), at("s/a"), at("s/b"), at("s/a/logs")];
        assert_eq!(found, BTreeSet::from(expected));
    }

    fn expand(root: &Root, paths: &[&str]) -> Vec<String> {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        let mut out = Vec::new();
        Patterns::new(&paths, &[]).unwrap().expand(root, &mut |found| {
            out.push(match found {
                Found::Path(path) => path,
                Found::NotUtf8(path) => format!("not UTF-8: {}", path.to_string_lossy()),
                Found::Error(path, error) => format!("{}: {error}", path.display()),
            });
        });
        out
    }

    #[test]
    fn patterns_of_a_host_that_is_mounted_elsewhere_find_its_files() {
        use std::os::unix::ffi::OsStrExt;
        let host = tempfile::tempdir().unwrap();
        let at = |path: &str| host.path().join(path);
        for directory in ["l/a/b", "l/.h", "real"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["l/1.log", "l/a/2.log", "l/a/b/3.log", "l/.h/4.log", "real/5.txt"] {
            std::fs::write(at(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/real", at("l/link")).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("l/6.log")).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"\xff.log");
        std::fs::write(at("l").join(odd), "").unwrap();
        let root = Root::new(host.path());
        let all = ["/l/1.log", "/l/6.log", "not UTF-8: /l/\u{fffd}.log"];
        assert_eq!(expand(&root, &["/l/*.log"]), all);
        let deep = expand(&root, &["/l/**/*.log"]);
        assert_eq!(deep[3..], ["/l/a/2.log", "/l/a/b/3.log"]);
        assert_eq!(expand(&root, &["/l/*/*.{txt,log}"]), ["/l/link/5.txt", "/l/a/2.log"]);
        assert_eq!(expand(&root, &["/l/.?/*", "/l/[1]*", "/none/*"]), ["/l/.h/4.log", "/l/1.log"]);
        assert_eq!(expand(&root, &["/l/a/**"]), ["/l/a/2.log", "/l/a/b", "/l/a/b/3.log"]);
    }
}
