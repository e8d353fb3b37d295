//! Rounds as the metrics WAL keeps them, and back.

use super::bytes::DecodeError;

mod coder;
mod decoder;
mod encoder;
mod keys;
mod model;
mod packed;
mod scale;
mod schema;
mod table;
#[cfg(test)]
mod tests;

pub use decoder::{Round, RoundDecoder};
pub use encoder::RoundEncoder;
pub use table::{Series, Table};

/// The record's kind in the WAL.
pub const ROUND: u8 = 1;

const VERSION: u8 = 2;

/// Kinds of records, and the bits that hold them.
const FULL: u8 = 0;
const KEY: u8 = 1;
const DIFFERENCE: u8 = 2;
const KIND: u8 = 3;
/// Which series are present is coded.
const SPARSE: u8 = 4;
/// There is a schema.
const SCHEMA: u8 = 8;
/// It is compressed.
const PACKED: u8 = 16;

/// After so many records comes a key record.
const KEY_EVERY: u32 = 64;

/// Why a record could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundError {
    /// It refers to a record that was not decoded before it: nothing is wrong with this one. The next key
    /// or full record can be decoded again.
    Gap,
    /// It is not well-formed.
    Malformed(DecodeError),
}

impl From<DecodeError> for RoundError {
    fn from(error: DecodeError) -> RoundError {
        RoundError::Malformed(error)
    }
}

impl std::fmt::Display for RoundError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RoundError::Gap => f.write_str("a record before this one is missing or damaged"),
            RoundError::Malformed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RoundError {}
