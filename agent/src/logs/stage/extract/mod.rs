//! Actions that take an entry apart or edit it: each makes labels, structured metadata, a timestamp or
//! another line of what is there. None drops an entry, but `json` if it is told to.

pub mod edit;
mod escape;
pub mod json;
pub mod level;
pub mod logfmt;
mod pick;
pub mod regex;
pub mod replace;
mod take;
mod template;
pub mod timestamp;

pub use pick::{Part, Pick};
pub use take::{Destination, Found, Input, MAX_LABEL_VALUE, MAX_METADATA_VALUE, MAX_TAKES};
pub use template::Template;

use super::Action;

/// One of these actions, as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Options {
    /// `regex`
    Regex(regex::Options),
    /// `json`
    Json(json::Options),
    /// `logfmt`
    Logfmt(logfmt::Options),
    /// `replace`
    Replace(replace::Options),
    /// `labels`, `metadata`, `rename`, `remove` and `keep_labels`
    Edit(edit::Options),
    /// `level`
    Level(level::Options),
    /// `timestamp`
    Timestamp(timestamp::Options),
}

impl Options {
    /// The action.
    pub fn action(&self) -> Box<dyn Action> {
        match self {
            Options::Regex(options) => Box::new(regex::Regex::new(options)),
            Options::Json(options) => Box::new(json::Json::new(options)),
            Options::Logfmt(options) => Box::new(logfmt::Logfmt::new(options)),
            Options::Replace(options) => Box::new(replace::Replace::new(options)),
            Options::Edit(options) => Box::new(edit::Edit::new(options)),
            Options::Level(options) => Box::new(level::Level::new(options)),
            Options::Timestamp(options) => Box::new(timestamp::Timestamp::new(options)),
        }
    }
}
