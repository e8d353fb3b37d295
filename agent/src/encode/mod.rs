//! Bytes from samples and entries, and back: rounds and blocks as the WAL keeps them, remote write and
//! Loki's push as the servers take them, the Prometheus text format.

pub mod loki;
pub mod proto;
pub mod remote_write;
mod wire;

pub use loki::{LokiPush, PushEntry};
pub use remote_write::RemoteWrite;
pub use wire::{Full, MAX_BYTES};
