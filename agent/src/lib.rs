//! Mote: a host telemetry agent for small machines. The library holds every part; the binary `mote`
//! only reads its arguments. `pipeline` is the one module that knows them all.

pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod encode;
pub mod endpoint;
pub mod exposition;
pub mod host;
pub mod logs;
pub mod memory;
pub mod model;
pub mod pipeline;
pub mod probe;
pub mod relabel;
pub mod scrape;
pub mod sort;
pub mod status;
pub mod wal;
