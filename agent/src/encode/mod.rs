//! Bytes from samples and entries, and back: rounds and blocks as the WAL keeps them, remote write and
//! Loki's push as the servers take them, the Prometheus text format. It must not know files, servers or
//! where samples come from.

mod block;
mod bytes;
pub mod loki;
mod loki_json;
pub mod proto;
mod push;
pub mod remote_write;
mod round;
mod text;
mod wire;

pub use block::{
    BLOCK, Positions, apply, block_bytes, decode_block, decode_positions, encode_block,
};
pub use bytes::DecodeError;
pub use loki::{LokiPush, PushEntry};
pub use loki_json::JsonPush;
pub use push::Push;
pub use remote_write::RemoteWrite;
pub use round::{ROUND, Round, RoundDecoder, RoundEncoder, RoundError, Series, Table};
pub use text::write_text;
pub use wire::{Full, MAX_BYTES};
