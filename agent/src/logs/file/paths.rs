//! Files whose paths are known and come and go while the agent runs: those of containers. The same
//! follower as for globs, but that a position is kept until somebody says that its path is given up:
//! a file that is absent for a moment, or was deleted while its writer goes on, loses nothing.
//!
//! It must not know whose files they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::time::Instant;

use super::chain::{Chain, Save};
use super::format::Format;
use super::pattern::{PatternError, Patterns};
use super::position::Record;
use super::root::Root;
use super::section::Section;
use super::source::{FileSource, stored};
use super::{Counters, Limits, StartAt};
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

/// Follows paths that are added and removed. See the module.
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

    /// Paths are those of a host whose root is mounted there; before any is added.
    pub fn with_root(mut self, root: &Path) -> Paths {
        self.source.root = Root::new(root);
        self
    }

    /// Follows a path, from where an earlier run was. One that is followed gets these options from its
    /// next line on.
    ///
    /// # Errors
    /// A path that is not absolute, ends in a directory or holds a NUL.
    pub fn add(&mut self, options: &PathOptions) -> Result<(), PatternError> {
        let section = Section {
            patterns: Patterns::literal(&options.path)?,
            labels: Rc::new(options.labels.clone()),
            start_at: StartAt::Beginning,
            ignore_older: None,
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

    /// The path by which this process finds what the host has there.
    pub fn real(&self, path: &str) -> PathBuf {
        self.source.root.real(Path::new(path))
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

impl FileSource {
    /// Follows one more section from now on, whose only path this is, or follows it so from now on.
    fn add(&mut self, path: &str, section: Section, records: Option<Vec<Record>>) {
        if self.buffer.len() < section.buffer() {
            self.buffer = vec![0; section.buffer()];
        }
        if let Some(chain) = self.chains.get_mut(path) {
            chain.apply(&section);
        }
        self.sections.retain(|section| !section.patterns.matches(Path::new(path)));
        self.sections.push(section);
        self.stored.extend(records.map(|records| (path.to_owned(), records)));
        self.scan_due = true;
    }

    /// Follows the only path of a section no further: what is there now is read, then its position
    /// is forgotten.
    fn retire(&mut self, path: &str) {
        self.sections.retain(|section| !section.patterns.matches(Path::new(path)));
        self.forget(path);
        if let Some(chain) = self.chains.get_mut(path) {
            chain.retired = true;
            let path = Rc::from(path);
            self.enqueue(&path);
        }
        // The directory need not be watched any longer.
        self.scan_due = true;
    }

    /// Forgets the stored position of a path, unless its files are being read.
    fn forget(&mut self, path: &str) {
        self.stored.remove(path);
        if !self.chains.contains_key(path) {
            let section = Section::bare();
            let mut chain = Box::new(Chain::new(self.prefix, path, &section));
            chain.save(Save::Now);
            let path: Rc<str> = Rc::from(path);
            self.chains.insert(path.clone(), chain);
            self.enqueue(&path);
        }
    }
}
