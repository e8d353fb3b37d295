//! All files of some directories as one sequence of entries: which files there are, which of them has
//! the next entry, and what has been read.
//!
//! Of each file the next entry's key is known, so that the merge needs no descriptor. Files that are
//! still written are looked at again when nothing else is left, and before a missing number is
//! believed: journald writes one entry after the other, so that whoever sees one sees all before it,
//! if he looks again. The look that found the one does not do: it went through the files one by one,
//! and what it saw of the first is older than what it saw of the last.
//!
//! **A read that fails** (a card that says EIO once, no descriptor left) is no reason to pass over what it
//! would have read: as long as tries are left, nothing behind it is given out, and the cursor stays. Then
//! what can't be read is damage, and a file of which too much can't is left until the next scan.

mod scan;

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::data::Fields;
use super::entry::Entry;
use super::file::{File, Identity};
use super::order::{Key, Points};
use super::pages::Pages;
use super::{
    Counts, Cursor, Directory, FieldSet, Id, JournalError, Limits, Matches, Next, Problem, Start,
};

/// Errors that wait to be told; more are only counted.
const MAX_ERRORS: usize = 32;
/// Times that what could not be read is tried again.
const TRIES: u32 = 8;

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
    /// Something could not be read and is tried again, so often since something could; and whether that
    /// has been said.
    stalled: bool,
    tries: u32,
    said: bool,
    /// What files are entered by that a scan of [`Journal::seek`] could not read yet.
    start: Option<Start>,
    /// Files that were given up: they are not waited for again.
    given_up: Vec<Identity>,
    /// The boot that is running.
    boot: Option<Id>,
    pages: Pages,
    fields: Fields,
    points: Points,
    /// The entry that was given out or passed over last, and the number of its file.
    last: Option<(Key, u32)>,
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
            stalled: false,
            tries: 0,
            said: false,
            start: None,
            given_up: Vec::new(),
            boot: None,
            pages: Pages::default(),
            points: Points::default(),
            last: None,
            current: None,
            clock: 0,
            numbers: 0,
        }
    }

    /// Says which boot is running: what it wrote comes after what earlier ones did, whatever its clock
    /// says.
    pub fn set_boot(&mut self, boot: Option<Id>) {
        self.boot = boot;
    }

    /// Goes to where reading is to begin. A file that is found later is read from its beginning, but
    /// for what has been read.
    pub fn seek(&mut self, start: Start) {
        self.files.clear();
        self.refused.clear();
        self.given_up.clear();
        (self.current, self.last, self.stalled, self.tries) = (None, None, false, 0);
        self.points = match &start {
            Start::After(cursor) => Points::of(cursor),
            _ => Points::default(),
        };
        self.start = Some(start);
        self.scan();
    }

    /// Looks which files there are: after files came, went or were renamed.
    pub fn rescan(&mut self) {
        self.scan();
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
        if self.stalled {
            if !self.said {
                return self.stop();
            }
            (self.stalled, self.said) = (false, false);
            self.tries = self.tries.saturating_add(1);
            self.look_again();
        }
        // Looked again since the last entry: because nothing was left, because of a gap.
        let (mut at_end, mut at_gap) = (false, false);
        for _ in 0..self.limits.passed_over.max(1) {
            if self.stalled {
                return self.stop();
            }
            if self.moved {
                // Its entries come before those of others.
                self.look_again();
            }
            let Some((at, key)) = self.first() else {
                if at_end {
                    self.tries = 0;
                    return Ok(if self.unfinished { Next::Busy } else { Next::Idle });
                }
                at_end = true;
                self.look_again();
                if let Some(error) = self.errors.pop_front() {
                    return Err(error);
                }
                continue;
            };
            let Some(file) = self.files.get(at) else { return Ok(Next::Idle) };
            let (volatile, number) = (file.volatile, file.number);
            // Of one file they are two: what comes as one write has one time, and may be the same line
            // twice.
            let is_copy = |(last, from): (Key, u32)| from != number && last.is_same(&key);
            if self.points.passed(&key, volatile) || self.last.is_some_and(is_copy) {
                self.counts.repeated += 1;
                self.points.add_repeated(&key, volatile);
                self.step(at);
                continue;
            }
            if !at_gap && !self.points.is_next(&key) {
                // Of the look that found it, another file's part can be older.
                at_gap = true;
                self.look_again();
                continue;
            }
            (at_end, at_gap) = (false, false);
            if !self.open(at) {
                continue;
            }
            let Some(matches) = self.take(at, entry) else { continue };
            self.tries = 0;
            let missing = self.points.add(&key, volatile);
            if self.refused.is_empty() {
                self.counts.lost_entries = self.counts.lost_entries.saturating_add(missing);
            }
            self.last = Some((key, number));
            self.step(at);
            if matches {
                self.counts.entries += 1;
                return Ok(Next::Entry);
            }
        }
        Ok(Next::Busy)
    }

    /// Has what is wrong told first, then waits.
    fn stop(&mut self) -> Result<Next, JournalError> {
        match self.errors.pop_front() {
            Some(error) => Err(error),
            None => {
                self.said = true;
                Ok(Next::Later)
            }
        }
    }

    /// Whether what could not be read is to be tried again, before anything else is read.
    fn stalls(&mut self, problem: &Problem, given_up: bool) -> bool {
        let stalls = !given_up && self.tries < TRIES && problem.may_pass();
        self.stalled |= stalls;
        stalls
    }

    /// Whether what looks like damage is journald's own doing: it frees a file's blocks before it removes
    /// it, so that whoever has it open reads zeros. What was in it is missed by its numbers.
    fn vacuumed(&mut self, at: usize) -> bool {
        let Some(file) = self.files.get_mut(at) else { return false };
        let metadata = file.descriptor.as_ref().map(std::fs::File::metadata);
        if !metadata.is_some_and(|metadata| metadata.is_ok_and(|metadata| metadata.nlink() == 0)) {
            return false;
        }
        (file.head, file.done, file.descriptor) = (None, true, None);
        (self.current, self.moved) = (None, true);
        true
    }

    /// Nothing more is read of the file, for now.
    fn give_up(&mut self, at: usize, problem: Problem) {
        let Some(file) = self.files.get_mut(at) else { return };
        self.counts.unreadable_files += 1;
        let problem = match problem {
            Problem::Io(_, error) => {
                file.told = false;
                Problem::Io("read what is left of it, which is passed over", error)
            }
            problem => problem,
        };
        tell(&mut self.errors, file, problem);
        (file.head, file.done, file.descriptor, file.lame) = (None, true, None, true);
        self.current = None;
        if !self.given_up.contains(&file.identity) {
            self.given_up.push(file.identity);
        }
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

    /// Reads the next entry of the file; says whether it matches, and nothing if it has to be tried again.
    fn take(&mut self, at: usize, entry: &mut Entry) -> Option<bool> {
        let file = self.files.get_mut(at)?;
        let Some(head) = file.head else { return Some(false) };
        let (pages, counts) = (&mut self.pages, &mut self.counts);
        let damaged = counts.damaged_objects;
        let result = self.fields.take(file, &head, pages, counts, entry);
        let whole = matches!(&result, Ok(taken) if taken.problem.is_none());
        if !whole && self.vacuumed(at) {
            self.counts.damaged_objects = damaged;
            return None;
        }
        let file = self.files.get_mut(at)?;
        match result {
            Ok(taken) => {
                if let Some(problem) = taken.problem {
                    file.bad += u32::from(problem.may_pass());
                    tell(&mut self.errors, file, problem);
                }
                self.counts.unmatched += u64::from(!taken.matches);
                Some(taken.matches)
            }
            Err(problem) => {
                let given_up = file.given_up;
                tell_io(&mut self.errors, file, &problem);
                if self.stalls(&problem, given_up) {
                    return None;
                }
                let file = self.files.get_mut(at)?;
                if problem.may_pass() && !file.given_up {
                    // Once more, for what can be read of it.
                    file.given_up = true;
                    return None;
                }
                file.bad += u32::from(problem.may_pass());
                self.counts.damaged_objects += 1;
                self.counts.lost_entries += 1;
                tell(&mut self.errors, file, problem);
                Some(false)
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
        let result = file.walk(&mut self.pages);
        if result.as_ref().is_ok_and(|walked| walked.damaged > 0) && self.vacuumed(at) {
            return;
        }
        let walked = match result {
            Ok(walked) => walked,
            Err(problem) => return self.failed(at, problem),
        };
        self.counts.damaged_objects += walked.damaged;
        self.unfinished |= walked.unfinished;
        let Some(file) = self.files.get_mut(at) else { return };
        if let Some(problem) = walked.first {
            tell(&mut self.errors, file, problem);
        }
        if file.done && file.head.is_none() {
            file.descriptor = None;
        }
    }

    /// A file's next entry, or what has been written since, could not be read.
    fn failed(&mut self, at: usize, problem: Problem) {
        if self.vacuumed(at) {
            return;
        }
        let Some(file) = self.files.get_mut(at) else { return };
        tell_io(&mut self.errors, file, &problem);
        let given_up = file.given_up;
        if self.stalls(&problem, given_up) {
            return;
        }
        match self.files.get_mut(at) {
            Some(file) if !given_up && problem.may_pass() => {
                // Once more, for what is behind it.
                file.given_up = true;
                if self.open(at) {
                    self.walk(at);
                }
            }
            _ => self.give_up(at, problem),
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
                self.failed(at, problem);
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
            self.scan();
        }
        self.current = None;
        for at in 0..self.files.len() {
            self.refresh(at);
        }
        let finished = |file: &File| {
            file.gone && file.head.is_none() && (file.done || file.descriptor.is_none())
        };
        if !self.stalled {
            self.files.retain(|file| !finished(file));
        }
    }

    fn refresh(&mut self, at: usize) {
        let waits = |file: &File| !file.done && file.head.is_none();
        if !self.files.get(at).is_some_and(waits) || !self.open(at) {
            return;
        }
        let Some(file) = self.files.get_mut(at) else { return };
        match file.refresh(&mut self.pages) {
            Ok(()) => self.walk(at),
            Err(problem) => self.failed(at, problem),
        }
    }
}

/// Tells of damage, once for each file.
fn tell(errors: &mut VecDeque<JournalError>, file: &mut File, problem: Problem) {
    if !file.told && errors.len() < MAX_ERRORS {
        errors.push_back(problem.at(&file.path));
    }
    file.told = true;
}

/// The same of what may yet be read, in the words of the system.
fn tell_io(errors: &mut VecDeque<JournalError>, file: &mut File, problem: &Problem) {
    if let Problem::Io(what, error) = problem {
        let again = match error.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code),
            None => error.kind().into(),
        };
        tell(errors, file, Problem::Io(what, again));
    }
}

fn changed_at(directory: &Path) -> Option<SystemTime> {
    fs::metadata(directory).and_then(|metadata| metadata.modified()).ok()
}
