//! The log readers: sources of entries, each with a position that travels with its entries.
//!
//! A source knows `model`, `host` and `memory`; never the WAL or where entries go.

pub mod file;
mod text;
mod watch;
