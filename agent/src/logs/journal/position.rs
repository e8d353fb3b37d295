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
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Position {
    /// As bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.last_ns.to_le_bytes());
        bytes.extend(self.cursor.to_bytes());
        bytes
    }

    /// Of what [`Position::to_bytes`] made.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Position, PositionError> {
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return Err(PositionError::Version(bytes.first().copied()));
        };
        let fail = || PositionError::Cursor(bytes.len());
        let (last_ns, rest) = rest.split_first_chunk::<8>().ok_or_else(fail)?;
        let cursor = Cursor::from_bytes(rest).ok_or_else(fail)?;
        Ok(Position { last_ns: i64::from_le_bytes(*last_ns), cursor })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_these_and_anything_else_is_no_position() {
        let mut cursor = vec![1, 1];
        cursor.extend([7; 64]);
        cursor.push(0);
        let mut bytes = vec![1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        bytes.extend(&cursor);
        let position = Position::from_bytes(&bytes).unwrap();
        assert_eq!(position.last_ns, -2);
        assert_eq!(position.cursor, Cursor::from_bytes(&cursor).unwrap());
        assert_eq!(position.to_bytes(), bytes);
        assert_eq!(Position::from_bytes(&[]), Err(PositionError::Version(None)));
        for len in 1..bytes.len() {
            assert_eq!(Position::from_bytes(&bytes[..len]), Err(PositionError::Cursor(len)));
        }
        bytes[0] = 2;
        assert_eq!(Position::from_bytes(&bytes), Err(PositionError::Version(Some(2))));
    }
}
