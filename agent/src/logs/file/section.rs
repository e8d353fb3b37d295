//! A section of the configuration as the source goes by it. It must not know files.

use std::rc::Rc;
use std::time::Duration;

use super::format::{Format, PLAIN};
use super::pattern::{PatternError, Patterns};
use super::{Options, StartAt};
use crate::model::Labels;

/// What is followed, and how.
pub(super) struct Section {
    pub(super) patterns: Patterns,
    pub(super) labels: Rc<Labels>,
    pub(super) max_line: usize,
    pub(super) start_at: StartAt,
    pub(super) ignore_older: Option<Duration>,
    pub(super) format: &'static dyn Format,
    /// The label `filename` is added.
    pub(super) named: bool,
    /// See [`Chain::pinned`].
    pub(super) pinned: bool,
}

impl Section {
    pub(super) fn new(options: &Options) -> Result<Section, PatternError> {
        Ok(Section {
            patterns: Patterns::new(&options.paths, &options.exclude)?,
            labels: Rc::new(options.labels.clone()),
            max_line: options.max_line.max(16),
            start_at: options.start_at,
            ignore_older: options.ignore_older,
            format: options.format,
            named: true,
            pinned: false,
        })
    }

    /// The size of the buffer that its records take.
    pub(super) fn buffer(&self) -> usize {
        // Two more: a line that just fits, with its \r\n.
        self.format.max_record(self.max_line) + self.format.overhead().max(2)
    }

    /// For a path of which only the position is left.
    pub(super) fn bare() -> Section {
        Section {
            patterns: Patterns::none(),
            labels: Rc::new(Labels::new()),
            max_line: 0,
            start_at: StartAt::Beginning,
            ignore_older: None,
            format: PLAIN,
            named: false,
            pinned: false,
        }
    }
}
