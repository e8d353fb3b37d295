//! The keys of `[[logs.stage]]` that take an entry apart or edit it.

use crate::config::error::ConfigError;
use crate::config::reader::Reader;
use crate::logs::stage::extract::Options;

/// Those that stand in a stage's table, each with its name. Every key is asked for, so that it is known and
/// documented.
pub(super) fn steps(_t: &Reader<'_>) -> Result<Vec<(&'static str, Options)>, ConfigError> {
    Ok(Vec::new())
}
