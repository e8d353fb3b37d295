//! What other programs say of themselves over HTTP, in the Prometheus text format: from the bytes of a
//! target's page to samples with its labels, as a Prometheus that scrapes it would have them.
//!
//! [`Page`] takes the page in pieces, as they come, and puts what it finds into `Samples` that the caller
//! owns; [`Report`] adds what is said of each scrape (`up` and its like). All samples of a scrape have the
//! scrape's timestamp: what a page says of its own times is passed over, and counted.
//!
//! A scrape is whole or it is nothing: a page that is malformed or passes one of its [`Limits`] has failed,
//! and its series are gone until a later one.
//!
//! This must not know HTTP, files or the WAL, nor when a target is scraped.

mod page;
mod report;
#[cfg(test)]
mod tests;
mod texts;

use std::fmt;

use crate::exposition;
use crate::model::Labels;
use crate::relabel::Rules;

pub use page::{Counts, Page};
pub use report::{REPORTED, Report};
pub use texts::Texts;

/// The formats that are asked for.
pub const ACCEPT: &str =
    "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";

/// The most labels of a sample, its name counted, that can be asked for.
pub const MAX_LABELS: u32 = exposition::MAX_LABELS as u32;

/// What is scraped, and what becomes of its samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// The labels that every sample gets: `job`, `instance` and the user's. Names that the agent keeps to
    /// itself (`__address__`) are not among them.
    pub labels: Labels,
    /// Where a sample has a label of that name already, the sample's stays; else it is renamed to
    /// `exported_…`.
    pub honor_labels: bool,
    /// What fails a scrape.
    pub limits: Limits,
    /// What is done to each sample's labels.
    pub relabel: Rules,
    /// What is done to them behind that, as to those of the host; before it, each sample gets `common`
    /// unless it has them.
    pub then: Rules,
    /// See `then`.
    pub common: Labels,
}

/// What a page may have at most; beyond any of them the whole scrape fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Samples, behind the relabel rules.
    pub samples: u32,
    /// Bytes of the page.
    pub body: u64,
    /// Labels of a sample, its name counted.
    pub labels: u32,
    /// Bytes of a label's name.
    pub name: u32,
    /// Bytes of a label's value.
    pub value: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        // Mimir's, for labels: what is beyond would be refused there.
        Limits { samples: 5_000, body: 4 << 20, labels: 30, name: 1_024, value: 2_048 }
    }
}

/// Why a scrape failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapeError {
    /// The page is not well formed.
    Page(exposition::Error),
    /// A limit was passed: which, by the name of its key, its value, and where.
    Limit {
        /// The configuration's key.
        key: &'static str,
        /// The limit.
        most: u64,
        /// The line of the page; 0 for the page as a whole.
        line: u32,
        /// What has passed it, cut.
        token: String,
    },
    /// The page is in a format that is not read.
    Format(String),
}

impl From<exposition::Error> for ScrapeError {
    fn from(error: exposition::Error) -> ScrapeError {
        ScrapeError::Page(error)
    }
}

impl fmt::Display for ScrapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScrapeError::Page(error) => write!(f, "the page's {error}"),
            ScrapeError::Limit { key, most, line: 0, .. } => {
                write!(f, "the page has more than {key} = {most}")
            }
            ScrapeError::Limit { key, most, line, token } => {
                write!(f, "the page's line {line}: {token:?} is more than {key} = {most}")
            }
            ScrapeError::Format(format) => write!(
                f,
                "the page is {format:?}, and not text that a Prometheus could scrape; is metrics_path right?"
            ),
        }
    }
}

impl std::error::Error for ScrapeError {}
