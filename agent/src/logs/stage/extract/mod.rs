//! Actions that take an entry apart or edit it: each makes labels, structured metadata, a timestamp or
//! another line of what is there, and drops nothing.

use super::Action;

/// One of these actions, as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Options {}

impl Options {
    /// The action.
    pub fn action(&self) -> Box<dyn Action> {
        match *self {}
    }
}
