//! All files of some directories as one sequence of entries.

use std::path::Path;

use super::{
    Counts, Cursor, Directory, Entry, FieldSet, JournalError, Limits, Matches, Next, Start,
};

/// The merged journal.
#[derive(Debug)]
pub struct Journal {
    directories: Vec<Directory>,
    counts: Counts,
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
        let _ = (fields, matches, limits);
        Journal { directories, counts: Counts::default() }
    }

    /// Goes to where reading is to begin.
    pub fn seek(&mut self, start: Start) {
        let _ = start;
    }

    /// Looks which files there are: after files came, went or were renamed.
    pub fn rescan(&mut self) {}

    /// The next entry that matches.
    ///
    /// # Errors
    /// A file, or a part of it, can't be read: told once for each file and kind; the next call goes
    /// on with what can.
    pub fn next(&mut self, entry: &mut Entry) -> Result<Next, JournalError> {
        entry.clear();
        Ok(Next::Idle)
    }

    /// After the entry that was given out or passed over last; `None` if nothing was ever there.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        None
    }

    /// The files that are known, read to their end or not.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [].into_iter()
    }

    /// The directories that exist, to be watched; a parent with `subdirectories` included.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(|directory| directory.path.as_path())
    }

    /// What was met.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives buffers back until the next call; positions stay.
    pub fn idle(&mut self) {}
}
