//! The stage `json`: fields of lines that are JSON.

mod scan;

pub use scan::{MAX_DEPTH, Malformed, Path, PathError, scan};

use super::super::{Action, Verdict, Work};
use super::take::{Destination, Input, Scanned, Taker};

/// What to read, and where it goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The text that is read.
    pub input: Input,
    /// The paths.
    pub paths: Vec<Path>,
    /// Where the value of each goes.
    pub to: Vec<Destination>,
    /// Entries whose text is no JSON go.
    pub drop_malformed: bool,
}

/// The stage.
#[derive(Debug)]
pub struct Json {
    paths: Vec<Path>,
    taker: Taker,
    drop_malformed: bool,
    misses: u64,
}

impl Json {
    /// The stage.
    pub fn new(options: &Options) -> Json {
        Json {
            paths: options.paths.clone(),
            taker: Taker::new(options.input.clone(), &options.to),
            drop_malformed: options.drop_malformed,
            misses: 0,
        }
    }
}

impl Action for Json {
    fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
        let scanned = self.taker.take(entry, |text, found| {
            let take = scan(text, &self.paths, found).is_ok();
            Scanned { take, malformed: !take }
        });
        if scanned.is_none_or(|scanned| !scanned.malformed) {
            return Verdict::Keep;
        }
        if self.drop_malformed {
            return Verdict::Drop;
        }
        self.misses += 1;
        Verdict::Keep
    }

    fn reason(&self) -> &str {
        "stage_malformed"
    }

    fn misses(&self) -> u64 {
        self.misses
    }
}
