//! How far the journal has been read, as bytes that are written beside the entries.
//!
//! Layout, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1..9 | the timestamp that was given to the last entry, in nanoseconds; the next one's is later |
//! | 9.. | the cursor of the last entry that was passed, as `cursor.rs` has it |
//!
//! Anything else is malformed and read as no position at all.

use std::fmt;

use super::cursor::Cursor;

const VERSION: u8 = 1;

/// The one key of the journal's position.
pub const KEY: &str = "journal:";

/// A position.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Position {
    pub(super) last_ns: i64,
    pub(super) cursor: Cursor,
}

/// Why bytes are no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PositionError {
    /// Another version, or no byte at all.
    Version(Option<u8>),
    /// So many bytes are too few, or no cursor.
    Cursor(usize),
}

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PositionError::Version(Some(version)) => {
                write!(f, "version {version} where {VERSION} is known")
            }
            PositionError::Version(None) => f.write_str("no bytes"),
            PositionError::Cursor(len) => write!(f, "{len} bytes without a cursor"),
        }
    }
}

impl std::error::Error for PositionError {}
