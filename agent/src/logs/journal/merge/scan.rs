//! Which files there are, and where those that are new are entered. It must not know which entry comes
//! next.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::sort;

use super::super::file::{self, File, Identity};
use super::super::order::{Key, Points};
use super::super::pages::Pages;
use super::super::{Id, Problem, Start};
use super::{Journal, MAX_ERRORS, changed_at, tell_io};

/// Longer than the clock that dates files stands still.
const TICK: Duration = Duration::from_millis(50);

impl Journal {
    /// Looks for files; those that are new are entered as `start` says, or as what has been read says.
    pub(super) fn scan(&mut self) {
        let start = self.start.take();
        let stalled = std::mem::take(&mut self.stalled);
        self.look(start.as_ref());
        if self.stalled {
            // What is missing may be what could not be read.
            (self.start, self.moved) = (start, true);
        } else {
            self.files.retain(|file| !file.gone || file.descriptor.is_some());
        }
        self.stalled |= stalled;
    }

    fn look(&mut self, start: Option<&Start>) {
        (self.current, self.unborn, self.moved) = (None, false, false);
        self.watched.clear();
        self.counts.files_left_out = 0;
        self.files.retain(|file| !file.lame);
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
        sort::stable_by(&mut tails, |(one, _), (other, _)| one.order(other));
        for (key, volatile) in tails {
            if self.points.passed(&key, volatile) {
                self.points.add_repeated(&key, volatile);
            } else {
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
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.refuse(&entry.path(), Problem::Io("look at it", error), refused);
                    continue;
                }
            };
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
            && file.descriptor.is_some()
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
            if file.path != path && file.header.compact == header.compact {
                // What was written before it got a name that ends it counts.
                (file.header, file.tag) = (header, self.pages.tag());
            }
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
        let mut file = File::new(path, volatile, opened, header, ids);
        file.given_up = self.given_up.contains(&file.identity);
        self.files.push(file);
        let at = self.files.len() - 1;
        if !self.open(at) {
            return;
        }
        let Some(file) = self.files.get_mut(at) else { return };
        match enter(file, &mut self.pages, &self.points, self.boot, start) {
            Ok(tail) => tails.extend(tail.map(|key| (key, volatile))),
            Err(problem) => {
                tell_io(&mut self.errors, file, &problem);
                let given_up = file.given_up;
                match self.stalls(&problem, given_up) {
                    // Found again when it is tried again.
                    true => self.files.truncate(at),
                    false => self.give_up(at, problem),
                }
                return;
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
        let known = refused.iter().any(|have| have == path);
        if self.refused.len() >= self.limits.files || self.stalls(&problem, known) {
            return;
        }
        self.refused.push(path.to_owned());
        if !known {
            self.counts.unreadable_files += 1;
            if self.errors.len() < MAX_ERRORS {
                self.errors.push_back(problem.at(path));
            }
        }
    }
}

/// Goes to where a new file is to be read from, with the key of the entry before it, if that counts as
/// read.
fn enter(
    file: &mut File,
    pages: &mut Pages,
    points: &Points,
    boot: Option<Id>,
    start: Option<&Start>,
) -> Result<Option<Key>, Problem> {
    let volatile = file.volatile;
    match start {
        Some(Start::Tail) => return file.enter_at_end(pages),
        Some(Start::Since(time)) => {
            file.enter(pages, true, &|key| key.realtime < *time, &|_| false)?
        }
        _ if let Some(point) = points.point(&file.header.seqnum_id) => {
            if file.is_closed() && file.header.tail_seqnum < point.key.seqnum {
                file.done = true;
                return Ok(None);
            }
            file.enter(pages, false, &|key| points.passed(key, volatile), &|_| false)?;
        }
        Some(Start::After(_)) => {
            let new = |last: &Key| points.is_new_boot(last, boot);
            file.enter(pages, true, &|key| points.before(key), &new)?;
        }
        Some(Start::Head) | None => return Ok(None),
    }
    // Copies of what was read in the volatile journal are no gap.
    Ok(file.skipped(pages)?.filter(|key| points.passed(key, volatile)))
}

/// Journald's volatile journal is below /run/log/journal, whatever root that is in.
fn is_volatile(path: &Path) -> bool {
    path.ancestors().skip(1).take(2).any(|directory| directory.ends_with("run/log/journal"))
}
