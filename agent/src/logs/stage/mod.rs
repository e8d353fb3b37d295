//! The stages: what the user wants done with entries between their sources and the WAL, in order, for
//! the streams that match.
//!
//! A stage has a [`Selector`] and one [`Action`]. An action sees one entry at a time as a [`Work`] and
//! edits it or lets it go; it does no input or output, keeps no more memory than its options say, and
//! never fails: an entry that it can't treat passes as it is.

mod engine;
pub mod extract;
mod filter;
mod guard;
mod hash;
mod held;
mod level;
mod limit;
mod multiline;
mod pattern;
mod sample;
mod selector;
mod work;

pub use engine::{Counts, Setup, Stages};
pub use filter::Conditions;
pub use guard::StreamLimits;
pub use held::KEY_PREFIX;
pub use level::Level;
pub use limit::Limit;
pub use multiline::{Lines, Mark};
pub use pattern::{Pattern, PatternError, pattern};
pub use sample::Share;
pub use selector::{Selector, SelectorError};
pub use work::{Fields, Work};

/// A stage as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The streams that it is for.
    pub selector: Selector,
    /// What it does.
    pub step: Step,
}

/// What a stage does, as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Entries that meet the conditions go.
    Drop(Conditions),
    /// Entries that don't meet the conditions go.
    Keep(Conditions),
    /// Entries beyond a rate go.
    RateLimit(Limit),
    /// A share of the entries stays.
    Sample(Share),
    /// Lines that belong together become one entry.
    Multiline(Lines),
    /// What takes an entry apart or edits it.
    Extract(extract::Options),
}

impl Step {
    /// The action; None for the one that needs more than one entry at a time.
    fn action(&self) -> Option<Box<dyn Action>> {
        Some(match self {
            Step::Drop(conditions) => Box::new(filter::Filter::new(conditions, true)),
            Step::Keep(conditions) => Box::new(filter::Filter::new(conditions, false)),
            Step::RateLimit(limit) => Box::new(limit::RateLimit::new(limit)),
            Step::Sample(share) => Box::new(sample::Sample::new(share)),
            Step::Extract(options) => options.action(),
            Step::Multiline(_) => return None,
        })
    }
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next stage gets it.
    Keep,
    /// It goes, and is counted by the stage's reason.
    Drop,
}

/// What a stage does.
pub trait Action {
    /// Treats one entry; `now_ns` is the time of its reading, in nanoseconds since the Unix epoch.
    fn apply(&mut self, entry: &mut Work, now_ns: i64) -> Verdict;

    /// The reason in `mote_dropped_total` of the entries that it lets go.
    fn reason(&self) -> &str {
        "stage_drop"
    }

    /// Gives back memory that lines have made large.
    fn rest(&mut self) {}

    /// How many entries passed untreated because they were not what the action is for, such as lines that
    /// are no JSON.
    fn misses(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests;
