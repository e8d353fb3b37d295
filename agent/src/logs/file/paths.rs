//! Files whose paths are known and come and go while the agent runs: those of containers. The same
//! follower as for globs, but that a position is kept until somebody says that its path is given up:
//! a file that is absent for a moment, or was deleted while its writer goes on, loses nothing.
//!
//! It must not know whose files they are.

use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::time::Instant;

use super::format::Format;
use super::pattern::{PatternError, Patterns};
use super::position::Record;
use super::source::{FileSource, Section, stored};
use super::{Counters, Limits, PLAIN};
use crate::host::Clock;
use crate::logs::{Progress, Source, Waiting};
use crate::model::{Block, Labels};

/// One path.
#[derive(Clone, Debug)]
pub struct PathOptions {
    /// Absolute, and no glob.
    pub path: String,
    /// The labels of its streams, without `stream`.
    pub labels: Labels,
    /// The longest line, in bytes; at least 16 are taken.
    pub max_line: usize,
    /// How lines stand in it.
    pub format: &'static dyn Format,
}

/// Follows paths that are added and removed. See the [module](self).
pub struct Paths {
    source: FileSource,
    /// Positions of an earlier run whose paths have not been added.
    waiting: BTreeMap<String, Vec<Record>>,
}

impl Paths {
    /// Follows nothing yet. Keys of positions are `prefix` and the path.
    pub fn new(
        prefix: &'static str,
        positions: &BTreeMap<String, Vec<u8>>,
        clock: Rc<dyn Clock>,
        limits: Limits,
    ) -> Paths {
        Paths {
            source: FileSource::build(prefix, Vec::new(), BTreeMap::new(), clock, limits),
            waiting: stored(prefix, positions),
        }
    }

    /// Follows a path, from where an earlier run was. One that is followed gets these options from its
    /// next line on.
    ///
    /// # Errors
    /// A path that is not absolute, ends in a directory or holds a NUL.
    pub fn add(&mut self, options: &PathOptions) -> Result<(), PatternError> {
        let section = Section {
            patterns: Patterns::literal(&options.path)?,
            labels: options.labels.clone(),
            max_line: options.max_line.max(16),
            format: options.format,
            named: false,
            pinned: true,
        };
        let records = self.waiting.remove(&options.path);
        self.source.add(&options.path, section, records);
        Ok(())
    }

    /// Gives a path up: what its file holds now, deleted or not, is read, then its position is
    /// forgotten.
    pub fn remove(&mut self, path: &str) {
        self.waiting.remove(path);
        self.source.retire(path);
    }

    /// Forgets the position of an earlier run of a path that has not been added: it is read in another way.
    pub fn abandon(&mut self, path: &str) {
        if self.waiting.remove(path).is_some() {
            self.source.forget(path);
        }
    }

    /// Forgets the positions of an earlier run whose paths have not been added, but for those that
    /// `exists` knows; how many.
    pub fn forget_others(&mut self, exists: impl Fn(&str) -> bool) -> usize {
        let mut gone = Vec::new();
        self.waiting.retain(|path, _| {
            let keep = exists(path);
            if !keep {
                gone.push(path.clone());
            }
            keep
        });
        gone.iter().for_each(|path| self.source.forget(path));
        gone.len()
    }

    /// Whether a path has been added, or is being read to its end after it was removed.
    pub fn follows(&self, path: &str) -> bool {
        self.source.section(path).is_some() || self.source.chains.contains_key(path)
    }

    /// Whether an earlier run has read from a path, or this one.
    pub fn knows(&self, path: &str) -> bool {
        self.waiting.contains_key(path) || self.follows(path)
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        self.source.counters()
    }
}

impl Source for Paths {
    fn name(&self) -> &'static str {
        self.source.name()
    }

    fn ready(&mut self) -> Waiting<'_> {
        Source::ready(&mut self.source)
    }

    fn gather(&mut self, until: Instant) -> Waiting<'_> {
        Source::gather(&mut self.source, until)
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        self.source.read(block, limit_bytes)
    }

    fn hold(&mut self) -> Waiting<'_> {
        self.source.hold()
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        self.source.counts(out);
    }
}

impl Section {
    /// For a path of which only the position is left.
    pub(super) fn bare() -> Section {
        Section {
            patterns: Patterns::none(),
            labels: Labels::new(),
            max_line: 0,
            format: PLAIN,
            named: false,
            pinned: false,
        }
    }
}
