//! Measurements of the agent's parts: counts that noise cannot move (allocations, instructions, bytes),
//! or ratios against a peer in the same run. The programs are in `bin`, one a subject; this library
//! holds what they share. Each prints a table in which every number says how it was measured.
//!
//! `cargo run --release -p benches --bin round` (or `wal`, `encode`, `blocks`, `recorded`, `device`, `agent_mode`, `journal`, `logs`, `fleet`, `delivery`, `growth`). It must not know the pipeline: the
//! parts are measured through their public interfaces, put together as the pipeline does it.

pub mod allocator;
pub mod cpu;
pub mod exporter;
pub mod made;
pub mod recording;
pub mod rounds;
pub mod sink;
pub mod system;
pub mod table;
pub mod valgrind;

/// What every step of a measurement may come to.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
