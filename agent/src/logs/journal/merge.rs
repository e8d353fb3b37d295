//! All files of some directories as one sequence of entries: which files there are, which of them has
//! the next entry, and what has been read.
//!
//! Of each file the next entry's key is known, so that the merge needs no descriptor. Files that are
//! still written are looked at again when nothing else is left, and before a missing number is
//! believed: journald writes one entry after the other, so that whoever sees one sees all before it,
//! if he looks again.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::data::Fields;
use super::entry::Entry;
use super::file::{self, File, Identity};
use super::order::{Key, Points};
use super::pages::Pages;
use super::{
    Counts, Cursor, Directory, FieldSet, JournalError, Limits, Matches, Next, Problem, Start,
};

/// Errors that wait to be told; more are only counted.
const MAX_ERRORS: usize = 32;
/// Longer than the clock that dates files stands still.
const TICK: Duration = Duration::from_millis(50);

/// The merged journal.
#[derive(Debug)]
pub struct Journal {
    directories: Vec<Directory>,
    limits: Limits,
    counts: Counts,
    errors: VecDeque<JournalError>,
    /// All that can have files, and when they changed last; `None` if they don't exist.
    watched: Vec<(PathBuf, Option<SystemTime>)>,
    files: Vec<File>,
    /// What is no file that can be read, so that it is told once.
    refused: Vec<PathBuf>,
    /// A file without a header yet.
    unborn: bool,
    /// Some file has moved from where it was.
    moved: bool,
    /// So much of some file is damaged that its next entry has not been found yet.
    unfinished: bool,
    pages: Pages,
    fields: Fields,
    points: Points,
    last: Option<Key>,
    /// The file that gave the last entry, and the first key of the others while they don't change.
    current: Option<(usize, Option<Key>)>,
    clock: u32,
    numbers: u32,
}

impl Journal {
    /// Of these directories; [`Journal::seek`] comes next, before it nothing is opened.
    #[must_use]
    pub fn new(
        directories: Vec<Directory>,
        fields: FieldSet,
        matches: Matches,
        limits: Limits,
    ) -> Journal {
        Journal {
            directories,
            fields: Fields::new(fields, matches, limits.entry_bytes),
            limits,
            counts: Counts::default(),
            errors: VecDeque::new(),
            watched: Vec::new(),
            files: Vec::new(),
            refused: Vec::new(),
            unborn: false,
            moved: false,
            unfinished: false,
            pages: Pages::default(),
            points: Points::default(),
            last: None,
            current: None,
            clock: 0,
            numbers: 0,
        }
    }

    /// Goes to where reading is to begin. A file that is found later is read from its beginning, but
    /// for what has been read.
    pub fn seek(&mut self, start: Start) {
        self.files.clear();
        self.refused.clear();
        (self.current, self.last) = (None, None);
        self.points = match &start {
            Start::After(cursor) => Points::of(cursor),
            _ => Points::default(),
        };
        self.scan(Some(&start));
    }

    /// Looks which files there are: after files came, went or were renamed.
    pub fn rescan(&mut self) {
        self.scan(None);
    }

    /// The next entry that matches.
    ///
    /// # Errors
    /// A file, or a part of it, can't be read: told once for each file; the next call goes on with
    /// what can be.
    pub fn next(&mut self, entry: &mut Entry) -> Result<Next, JournalError> {
        entry.clear();
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        let mut refreshed = false;
        for _ in 0..self.limits.passed_over.max(1) {
            if self.moved {
                // Its entries come before those of others.
                self.look_again();
            }
            let Some((at, key)) = self.first() else {
                if refreshed {
                    return Ok(if self.unfinished { Next::Busy } else { Next::Idle });
                }
                refreshed = true;
                self.look_again();
                if let Some(error) = self.errors.pop_front() {
                    return Err(error);
                }
                continue;
            };
            let Some(file) = self.files.get(at) else { return Ok(Next::Idle) };
            let volatile = file.volatile;
            if self.points.passed(&key, volatile)
                || self.last.is_some_and(|last| last.is_same(&key))
            {
                self.counts.repeated += 1;
                self.points.add_repeated(&key, volatile);
                self.step(at);
                continue;
            }
            if !refreshed && self.points.missing(&key) > 0 {
                refreshed = true;
                self.look_again();
                continue;
            }
            refreshed = false;
            if !self.open(at) {
                continue;
            }
            let matches = self.take(at, entry);
            let missing = self.points.add(&key, volatile);
            if self.refused.is_empty() {
                self.counts.lost_entries = self.counts.lost_entries.saturating_add(missing);
            }
            self.last = Some(key);
            self.step(at);
            if matches {
                self.counts.entries += 1;
                return Ok(Next::Entry);
            }
        }
        Ok(Next::Busy)
    }

    /// After the entry that was given out or passed over last; `None` if there was none yet.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.points.cursor()
    }

    /// The files that are known, read to their end or not.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The directories to be watched: those that can have files, with those that `subdirectories` asks
    /// for; in place of one that does not exist, the nearest one above it that does.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let there = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
        self.watched.iter().filter_map(move |(path, when)| match when {
            Some(_) => Some(path.as_path()),
            None => path.ancestors().find(|path| there(path)),
        })
    }

    /// What was met.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives buffers back until the next call; positions stay, and the files that are still written
    /// stay open.
    pub fn idle(&mut self) {
        self.pages.clear();
        self.fields.clear();
        for file in &mut self.files {
            if file.done {
                file.descriptor = None;
            }
        }
    }

    /// The file whose next entry is the first of all.
    fn first(&mut self) -> Option<(usize, Key)> {
        if let Some((at, others)) = self.current
            && let Some(head) = self.files.get(at).and_then(|file| file.head)
            && others.is_none_or(|other| head.key.order(&other).is_lt())
        {
            return Some((at, head.key));
        }
        let mut first: Option<(usize, Key)> = None;
        let mut second: Option<Key> = None;
        for (at, file) in self.files.iter().enumerate() {
            let Some(key) = file.head.map(|head| head.key) else { continue };
            match first {
                Some((_, have)) if have.order(&key).is_le() => {
                    if second.is_none_or(|second| key.order(&second).is_lt()) {
                        second = Some(key);
                    }
                }
                _ => {
                    second = first.map(|(_, have)| have);
                    first = Some((at, key));
                }
            }
        }
        self.current = first.map(|(at, _)| (at, second));
        first
    }

    /// Reads the next entry of the file; says whether it matches.
    fn take(&mut self, at: usize, entry: &mut Entry) -> bool {
        let Some(file) = self.files.get_mut(at) else { return false };
        let Some(head) = file.head else { return false };
        let (pages, counts) = (&mut self.pages, &mut self.counts);
        match self.fields.take(file, &head, pages, counts, entry) {
            Ok(taken) => {
                if let Some(problem) = taken.problem {
                    tell(&mut self.errors, file, problem);
                }
                self.counts.unmatched += u64::from(!taken.matches);
                taken.matches
            }
            Err(problem) => {
                self.counts.damaged_objects += 1;
                self.counts.lost_entries += 1;
                tell(&mut self.errors, file, problem);
                false
            }
        }
    }

    /// Goes on to the file's next entry.
    fn step(&mut self, at: usize) {
        if let Some(file) = self.files.get_mut(at) {
            file.advance();
        }
        if self.open(at) {
            self.walk(at);
        }
    }

    /// Finds the file's next entry. It is open.
    fn walk(&mut self, at: usize) {
        let Some(file) = self.files.get_mut(at) else { return };
        match file.walk(&mut self.pages) {
            Ok(walked) => {
                self.counts.damaged_objects += walked.damaged;
                self.unfinished |= walked.unfinished;
                if let Some(problem) = walked.first {
                    tell(&mut self.errors, file, problem);
                }
            }
            Err(problem) => {
                self.counts.unreadable_files += 1;
                tell(&mut self.errors, file, problem);
                file.done = true;
            }
        }
        if file.done && file.head.is_none() {
            file.descriptor = None;
        }
    }

    /// Opens the file, if need be in place of the one that was used longest ago; `false` if that can't
    /// be: then it gives nothing any more, or for now.
    fn open(&mut self, at: usize) -> bool {
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        let Some(file) = self.files.get_mut(at) else { return false };
        file.used = clock;
        if file.descriptor.is_some() {
            return true;
        }
        match file.ensure_open() {
            Ok(true) => {}
            Ok(false) => {
                // Renamed, or vacuumed: the next scan tells.
                (file.head, self.current, self.moved) = (None, None, true);
                return false;
            }
            Err(problem) => {
                self.counts.unreadable_files += 1;
                tell(&mut self.errors, file, problem);
                (file.head, file.done, self.current) = (None, true, None);
                return false;
            }
        }
        let open = self.files.iter().filter(|file| file.descriptor.is_some());
        if open.count() > self.limits.open_files.max(1) {
            let others =
                self.files.iter_mut().enumerate().filter(|(other, file)| {
                    *other != at && file.descriptor.is_some() && !file.gone
                });
            let oldest = others.max_by_key(|(_, file)| clock.wrapping_sub(file.used));
            if let Some((_, file)) = oldest {
                file.descriptor = None;
            }
        }
        true
    }

    /// Looks for what has been written since: in the files that are not at their end for good, and in
    /// directories that have changed.
    fn look_again(&mut self) {
        self.unfinished = false;
        let changed = |(path, when): &(PathBuf, Option<SystemTime>)| changed_at(path) != *when;
        if self.unborn || self.moved || self.watched.iter().any(changed) {
            self.scan(None);
        }
        self.current = None;
        for at in 0..self.files.len() {
            self.refresh(at);
        }
        let finished = |file: &File| {
            file.gone && file.head.is_none() && (file.done || file.descriptor.is_none())
        };
        self.files.retain(|file| !finished(file));
    }

    fn refresh(&mut self, at: usize) {
        let waits = |file: &File| !file.done && file.head.is_none();
        if !self.files.get(at).is_some_and(waits) || !self.open(at) {
            return;
        }
        let Some(file) = self.files.get_mut(at) else { return };
        match file.refresh(&mut self.pages) {
            Ok(()) => self.walk(at),
            Err(problem) => {
                self.counts.unreadable_files += 1;
                tell(&mut self.errors, file, problem);
                file.done = true;
            }
        }
    }

    /// Looks for files; those that are new are entered as `start` says, or as what has been read says.
    fn scan(&mut self, start: Option<&Start>) {
        (self.current, self.unborn, self.moved) = (None, false, false);
        self.watched.clear();
        self.counts.files_left_out = 0;
        for file in &mut self.files {
            file.gone = true;
        }
        let refused = std::mem::take(&mut self.refused);
        let mut tails = Vec::new();
        for directory in self.directories.clone() {
            self.list(&directory.path, &refused, start, &mut tails);
            if !directory.subdirectories {
                continue;
            }
            let Ok(entries) = fs::read_dir(&directory.path) else { continue };
            for entry in entries.flatten().take(self.limits.files) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    self.list(&entry.path(), &refused, start, &mut tails);
                }
            }
        }
        self.files.retain(|file| !file.gone || file.descriptor.is_some());
        tails.sort_by(|(one, _): &(Key, bool), (other, _)| one.order(other));
        for (key, volatile) in tails {
            if !self.points.passed(&key, volatile) {
                self.points.add(&key, volatile);
            }
        }
    }

    fn list(
        &mut self,
        directory: &Path,
        refused: &[PathBuf],
        start: Option<&Start>,
        tails: &mut Vec<(Key, bool)>,
    ) {
        let changed = changed_at(directory).map(|when| {
            // What happens within the same tick of the clock would not show.
            let age = SystemTime::now().duration_since(when);
            if age.is_ok_and(|age| age < TICK) { SystemTime::UNIX_EPOCH } else { when }
        });
        self.watched.push((directory.to_owned(), changed));
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    self.refuse(directory, Problem::Io("list it", error), refused);
                }
                return;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if !name.ends_with(b".journal") && !name.ends_with(b".journal~") {
                continue;
            }
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
            self.found(entry.path(), identity, refused, start, tails);
        }
    }

    /// A path that was found: of a file that is known, or of a new one.
    fn found(
        &mut self,
        path: PathBuf,
        identity: Identity,
        refused: &[PathBuf],
        start: Option<&Start>,
        tails: &mut Vec<(Key, bool)>,
    ) {
        let known = self.files.iter().position(|file| file.identity == identity);
        if let Some(file) = known.and_then(|at| self.files.get_mut(at))
            && file.path == path
            && (file.descriptor.is_some() || !file.done)
        {
            file.gone = false;
            return;
        }
        let opened = match file::open(&path) {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(Problem::Io(_, error)) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(problem) => return self.refuse(&path, problem, refused),
        };
        let header = match file::read_header(&opened.0) {
            Ok(Some(header)) => header,
            Ok(None) => {
                self.unborn = true;
                return;
            }
            Err(problem) => return self.refuse(&path, problem, refused),
        };
        if let Some(file) = known.and_then(|at| self.files.get_mut(at))
            && file.header.file_id == header.file_id
        {
            (file.path, file.gone) = (path, false);
            return;
        }
        if self.files.len() >= self.limits.files {
            self.counts.files_left_out += 1;
            return;
        }
        self.numbers = self.numbers.wrapping_add(1);
        let ids = (self.pages.tag(), self.numbers);
        let volatile = is_volatile(&path);
        self.files.push(File::new(path, volatile, opened, header, ids));
        let at = self.files.len() - 1;
        if !self.open(at) {
            return;
        }
        let Some(file) = self.files.get_mut(at) else { return };
        match enter(file, &mut self.pages, &self.points, start) {
            Ok(tail) => tails.extend(tail.map(|key| (key, volatile))),
            Err(problem) => {
                self.counts.unreadable_files += 1;
                tell(&mut self.errors, file, problem);
                file.done = true;
            }
        }
        self.walk(at);
        self.close_beyond_limit(at);
    }

    /// After a file was opened by a scan.
    fn close_beyond_limit(&mut self, at: usize) {
        let open = self.files.iter().filter(|file| file.descriptor.is_some()).count();
        if open > self.limits.open_files.max(1)
            && let Some(file) = self.files.get_mut(at)
        {
            file.descriptor = None;
        }
    }

    fn refuse(&mut self, path: &Path, problem: Problem, refused: &[PathBuf]) {
        if self.refused.len() >= self.limits.files {
            return;
        }
        self.refused.push(path.to_owned());
        if !refused.iter().any(|have| have == path) {
            self.counts.unreadable_files += 1;
            if self.errors.len() < MAX_ERRORS {
                self.errors.push_back(problem.at(path));
            }
        }
    }
}

/// Goes to where a new file is to be read from; at the end, with the key of the entry before it.
fn enter(
    file: &mut File,
    pages: &mut Pages,
    points: &Points,
    start: Option<&Start>,
) -> Result<Option<Key>, Problem> {
    let volatile = file.volatile;
    match start {
        Some(Start::Tail) => return file.enter_at_end(pages),
        Some(Start::Since(time)) => file.enter(pages, true, &|key| key.realtime < *time)?,
        _ if let Some(point) = points.point(&file.header.seqnum_id) => {
            if file.is_closed() && file.header.tail_seqnum < point.key.seqnum {
                file.done = true;
                return Ok(None);
            }
            file.enter(pages, false, &|key| points.passed(key, volatile))?;
        }
        Some(Start::After(_)) => file.enter(pages, true, &|key| points.before(key))?,
        Some(Start::Head) | None => {}
    }
    Ok(None)
}

/// Tells of damage, once for each file.
fn tell(errors: &mut VecDeque<JournalError>, file: &mut File, problem: Problem) {
    if !file.told && errors.len() < MAX_ERRORS {
        errors.push_back(problem.at(&file.path));
    }
    file.told = true;
}

/// Journald's volatile journal is below /run/log/journal, whatever root that is in.
fn is_volatile(path: &Path) -> bool {
    path.ancestors().skip(1).take(2).any(|directory| directory.ends_with("run/log/journal"))
}

fn changed_at(directory: &Path) -> Option<SystemTime> {
    fs::metadata(directory).and_then(|metadata| metadata.modified()).ok()
}
