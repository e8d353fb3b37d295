//! The directories that the user names, patterns among them, and the files `*.prom` in them with what tells
//! that one has changed. It must not know what the files hold.

use std::io;

use glob::{MatchOptions, Pattern};
use rustix::fs::{FileType, Stat};

use super::{MAX_FILES, ROOT};
use crate::collector::CollectError;
use crate::collector::parse::FirstError;
use crate::host::{Host, Names};

/// As Go's `filepath.Glob` matches one name.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// The most names in a path that are patterns, and the most directories that they give.
const MAX_DEPTH: usize = 32;
const MAX_DIRECTORIES: usize = 100;

/// What changes with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) regular: bool,
    pub(super) modified: i64,
    pub(super) changed: i64,
    nanoseconds: (u64, u64),
    size: u64,
    device: u64,
    inode: u64,
}

/// A file of a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    start: u32,
    end: u32,
    /// None if it could not be asked.
    pub(super) stamp: Option<Stamp>,
    /// Whether it was read and is well formed.
    pub(super) good: bool,
}

/// Files in the order in which they are read, their paths in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Files {
    paths: String,
    files: Vec<File>,
}

impl PartialEq for Files {
    /// Whether they are the same files, unchanged.
    fn eq(&self, other: &Files) -> bool {
        self.paths == other.paths
            && self.files.len() == other.files.len()
            && self
                .files
                .iter()
                .zip(&other.files)
                .all(|(a, b)| a.end == b.end && a.stamp == b.stamp)
    }
}

impl Files {
    pub(super) fn clear(&mut self) {
        self.paths.clear();
        self.files.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<(&str, &mut File)> {
        let file = self.files.get_mut(index)?;
        let path = self.paths.get(file.start as usize..file.end as usize).unwrap_or_default();
        Some((path, file))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &File)> {
        let path = |file: &File| self.paths.get(file.start as usize..file.end as usize);
        self.files.iter().map(move |file| (path(file).unwrap_or_default(), file))
    }

    /// Adds a file; false if there is no room for it.
    fn push(&mut self, directory: &str, name: &str) -> bool {
        if self.files.len() >= MAX_FILES {
            return false;
        }
        // Paths have at most 4 KiB.
        let start = self.paths.len() as u32;
        self.paths.push_str(directory);
        self.paths.push('/');
        self.paths.push_str(name);
        let end = self.paths.len() as u32;
        self.files.push(File { start, end, stamp: None, good: false });
        true
    }
}

/// A directory of the user's, in pieces.
#[derive(Debug)]
enum Piece {
    /// Some names, each with a slash before it.
    Path(String),
    /// One name.
    Any(Pattern),
}

/// The directories.
#[derive(Debug)]
pub(super) struct Directories {
    given: Vec<(String, Vec<Piece>)>,
    /// Those of a round, one after the other, and where each ends.
    paths: String,
    ends: Vec<u32>,
    path: String,
    /// The names in the directories on the way down, and in the last one.
    levels: Vec<Names>,
    names: Names,
    failed: bool,
}

impl Directories {
    pub(super) fn new(given: &[String]) -> Directories {
        let mut levels = 0;
        let given = given.iter().filter(|path| !path.is_empty()).map(|path| {
            let mut pieces = Vec::new();
            for name in path.split('/').filter(|name| !name.is_empty()) {
                match Pattern::new(name) {
                    Ok(pattern) if name.contains(['*', '?', '[']) && pieces.len() < MAX_DEPTH => {
                        pieces.push(Piece::Any(pattern));
                    }
                    _ => match pieces.last_mut() {
                        Some(Piece::Path(path)) => *path = format!("{path}/{name}"),
                        _ => pieces.push(Piece::Path(format!("/{name}"))),
                    },
                }
            }
            levels = levels.max(pieces.len());
            (path.clone(), pieces)
        });
        let given = given.collect();
        Directories {
            given,
            paths: String::new(),
            ends: Vec::new(),
            path: String::new(),
            levels: vec![Names::new(); levels],
            names: Names::new(),
            failed: false,
        }
    }

    /// Whether one of them could not be read in this round, or there were too many files.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Finds the files.
    pub(super) fn find(&mut self, host: &mut Host, files: &mut Files, errors: &mut FirstError) {
        self.failed = false;
        self.paths.clear();
        self.ends.clear();
        for (_, pieces) in &self.given {
            let before = self.ends.len();
            self.path.clear();
            let mut walk =
                Walk { path: &mut self.path, paths: &mut self.paths, ends: &mut self.ends };
            walk.down(host, pieces, &mut self.levels);
            // As node_exporter: what matches nothing is taken for the name of a directory.
            if self.ends.len() == before {
                self.path.clear();
                for piece in pieces {
                    match piece {
                        Piece::Path(path) => self.path.push_str(path),
                        Piece::Any(pattern) => {
                            self.path.push('/');
                            self.path.push_str(pattern.as_str());
                        }
                    }
                }
                push(&self.path, &mut self.paths, &mut self.ends);
            }
        }
        let mut start = 0;
        for end in &self.ends {
            let directory = self.paths.get(start..*end as usize).unwrap_or_default();
            start = *end as usize;
            if let Err(error) = host.list(ROOT, directory, &mut self.names) {
                self.failed = true;
                // The user has named it, so that it must be there.
                errors.note(CollectError::Read(error));
            }
            for name in self.names.iter().filter(|name| name.ends_with(".prom")) {
                if !files.push(directory, name) {
                    self.failed = true;
                    let expected = "at most 1000 files";
                    errors.note(CollectError::parse(directory, name, expected));
                    break;
                }
                let Some((path, file)) =
                    files.files.len().checked_sub(1).and_then(|at| files.get_mut(at))
                else {
                    continue;
                };
                match rustix::fs::stat(host.path(ROOT, path)) {
                    Ok(stat) => file.stamp = Some(stamp(&stat)),
                    Err(error) => {
                        errors.note(CollectError::Read(host.error(io::Error::from(error))))
                    }
                }
            }
        }
    }
}

/// On the way through the pieces of a path.
struct Walk<'a> {
    path: &'a mut String,
    paths: &'a mut String,
    ends: &'a mut Vec<u32>,
}

impl Walk<'_> {
    fn down(&mut self, host: &mut Host, pieces: &[Piece], levels: &mut [Names]) {
        let (Some((piece, rest)), Some((names, deeper))) =
            (pieces.split_first(), levels.split_first_mut())
        else {
            // Patterns also match files; what can't be listed otherwise is told.
            let is_file =
                |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !rustix::fs::stat(host.path(ROOT, &*self.path)).is_ok_and(is_file) {
                push(self.path, self.paths, self.ends);
            }
            return;
        };
        let length = self.path.len();
        match piece {
            Piece::Path(path) => {
                self.path.push_str(path);
                if rustix::fs::stat(host.path(ROOT, &*self.path)).is_ok() {
                    self.down(host, rest, deeper);
                }
            }
            Piece::Any(pattern) => {
                if host.list(ROOT, &*self.path, names).is_err() {
                    names.clear();
                }
                for name in names.iter().filter(|name| pattern.matches_with(name, MATCH)) {
                    self.path.truncate(length);
                    self.path.push('/');
                    self.path.push_str(name);
                    if rustix::fs::stat(host.path(ROOT, &*self.path)).is_ok() {
                        self.down(host, rest, deeper);
                    }
                }
            }
        }
        self.path.truncate(length);
    }
}

/// Adds a directory that is not among them yet.
fn push(path: &str, paths: &mut String, ends: &mut Vec<u32>) {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let known = starts.zip(ends.iter()).any(|(start, end)| {
        paths.get(start as usize..*end as usize).is_some_and(|known| known == path)
    });
    if !known && ends.len() < MAX_DIRECTORIES {
        paths.push_str(path);
        ends.push(paths.len() as u32);
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        regular: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
        modified: stat.st_mtime as i64,
        changed: stat.st_ctime as i64,
        nanoseconds: (stat.st_mtime_nsec as u64, stat.st_ctime_nsec as u64),
        size: stat.st_size as u64,
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
    }
}
