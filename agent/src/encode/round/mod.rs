//! Rounds as the metrics WAL keeps them, and back: at most 1.0 byte a sample of a real host on disk, with
//! all that is beside the values (`cargo run --release -p benches --bin recorded`).
//!
//! A segment has a *table* of series that grows as its records add to it; a round says which series of
//! the table have a value, and their values. There are three kinds of records:
//! - **Full**: the table starts anew, and the record needs no other one. The first of each segment, the
//!   first after [`RoundEncoder::forget`], every fourth in the place of a key record, so that damage to a
//!   full one does not cost its whole segment, and any when more than half of the table is gone (asked at each
//!   record) or much of it is new (asked at key records). Damage to one costs it and all up to the next full
//!   one, whose key records are gaps too: 256 rounds at most, 4 h 16 min at 60 s.
//! - **Key**: needs the full record that the table began with, and nothing in between: it states again what
//!   was added since, and its values are coded without those before. Every 64th record, so that
//!   damage to any but a full record costs at most 64 rounds, itself among them: 64 min at 60 s; it is some three times as long as a difference, so
//!   that all of them cost some 3 % together.
//! - **Difference**: needs the record before it.
//!
//! A record that needs one that was not decoded is a [`RoundError::Gap`], and never a wrong value: a
//! difference has to follow its predecessor's counter, which goes on over new tables, and a key record has
//! a checksum of the table that it needs. That of a damaged record is the WAL's.
//!
//! # Layout (version 2; numbers little-endian)
//! The time of a round is in the WAL's record.
//! ```text
//! version    u8 = 2
//! flags      u8    bits 0, 1: 0 full, 1 key, 2 difference
//!                  bit 2: which series are present is coded; else all that were in the round before and
//!                         all that are new to the coder (in full and key records: all of the table)
//!                  bit 3: there is a schema (always in a full record); bit 4: it is one zstd frame
//! counter    u16   of the encoder's records, modulo 2^16
//! key only:
//!   base     u32   series of the table's full record
//!   check    u32   CRC32C of that record's counter (u16), its external labels as they stand in the schema,
//!                  and for each of its series: kind (u8), name, and for each label 0xFF, name, 0xFF, value
//! with a schema:
//!   length   u32   bytes of the schema as it stands here
//!   schema         series after the first `base` (key), or those that are new (difference), or all (full)
//! values           the rest, as below
//! ```
//! The **schema** is text in which each part is closed by 0xFF, a byte that UTF-8 never contains:
//! ```text
//! full only, labels that every series has unless it has them itself:
//!   labels   u8    how many, sorted by name; each: name 0xFF value 0xFF
//! groups up to the end:
//!   kind     u8    model::Kind
//!   labels   u8    labels that each of the series has, its name not among them
//!   series   u8    1 to 255; 1 if there are no labels
//!   name     0xFF
//!   names    0xFF each, sorted, no `__name__`
//!   values   0xFF each, none empty: those of the first series, of the second, and so on
//! ```
//! A frame has the schema text of the table's full record as its dictionary (none in a full record), and
//! stands for at most 16 MiB and 32 times its own bytes and 4 KiB. A table has at most 2^16 series and
//! 64 MiB of text.
//!
//! # Values
//! One stream of decisions in a range coder ([`coder`]), each with a chance that has learned from those
//! like it (12 bits of it are used; it moves by 1 / (n + 1.6) of the way, n up to 24). The chances are all
//! in [`model`], a few hundred, shared by the series. Series by series of the table: is it present (if that
//! is coded); and its value.
//! - A value is a whole number in the series' [`scale`] (pages, hundredths, nanoseconds, or its bits), so
//!   each comes back bit for bit. If the scale does not fit it, another one follows.
//! - A **first** value (all those of full and key records): scale, zero or not, sign, length, bits.
//! - Another one: does it move by as much as the series' *link*, a series before it in the table that did
//!   so once (buckets of a histogram, free and available bytes)? If not, is it what it was? If not, the
//!   difference to a guess, which is the last value or that and the last difference, whichever has been
//!   better: exact or not, sign, length as compared to the mean length, bits.
//!
//! What each part is worth was measured on `benches/data/hour.zst` by leaving it out: the links 5 % of the
//! differences, the second guess 1.5 %. A mean of differences, more history, and a chance for the third bit
//! were worth less than 0.5 % and are not there.
//!
//! **Why not zstd for the values**: it finds repeated bytes, and there are none in the differences of one
//! round; each round has to be on disk before the next is known. Of the recorded hour, differences as varints
//! with zstd for each round take 1.5 to 1.65 bytes a sample, by how series that come and go are matched;
//! these take 0.553, and everything on disk counted 0.920.

use super::bytes::DecodeError;

mod coder;
mod decoder;
mod encoder;
mod keys;
mod model;
mod packed;
mod scale;
mod schema;
#[cfg(test)]
mod stale_tests;
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

/// After so many records, a full one comes instead.
const FULL_EVERY: u32 = 4 * KEY_EVERY;

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
