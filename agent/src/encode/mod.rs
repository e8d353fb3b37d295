//! Bytes from samples and entries, and back: rounds and blocks as the WAL keeps them, remote write and
//! Loki's push as the servers take them, the Prometheus text format. It must not know files, servers or
//! where samples come from.

mod block;
mod bytes;
mod round;
mod text;

pub use block::{BLOCK, Positions, apply, decode_block, decode_positions, encode_block};
pub use bytes::DecodeError;
pub use round::{ROUND, Round, RoundDecoder, RoundEncoder, Series, round_timestamp};
pub use text::write_text;
