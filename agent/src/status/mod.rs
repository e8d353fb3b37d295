//! What the agent says of itself, over HTTP on loopback and on the command line. It must not know where
//! the report comes from.

mod fetch;
mod report;
mod samples;
mod server;
mod summary;
mod text;

pub use fetch::{FetchError, fetch, parse};
pub use report::{
    ClockReport, CollectorReport, DroppedReport, EgressReport, EndpointReport, MemoryReport,
    PartReport, ProbeReport, Report, SourceReport, StagesReport, TargetReport, WalReport,
};
pub use server::{Source, serve};
pub use summary::summary;
pub use text::render;
