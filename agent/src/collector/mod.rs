//! The collectors: each reads a few files of the kernel's and writes samples with node_exporter's
//! names, labels, units and values. A collector is one file and one row of [`TABLE`].
//!
//! A collector knows `model`, `host` and `memory`; never another collector, tokio, the configuration
//! file or where samples go. Absence is not failure: no file is [`CollectError::NoData`].

mod error;
mod loadavg;

use crate::host::Host;
use crate::model::Samples;

pub use error::CollectError;

/// One source of samples.
pub trait Collector {
    /// Reads the source and writes its samples. What was written before an error is kept.
    ///
    /// # Errors
    /// [`CollectError::NoData`] where this host has no such thing; anything else is a fault.
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError>;
}

/// What the user may set of the collectors. Patterns are regular expressions, compiled already.
#[derive(Clone, Debug, Default)]
pub struct Options {}

/// A row of the table of collectors.
#[derive(Debug)]
pub struct Entry {
    /// node_exporter's name of the collector, as `metrics.collectors` and the label `collector` use.
    pub name: &'static str,
    /// Whether it runs unless told otherwise.
    pub default: bool,
    /// Builds it.
    pub new: fn(&Options) -> Box<dyn Collector>,
}

/// Every collector, in the order in which a round runs them.
pub static TABLE: &[Entry] =
    &[Entry { name: "loadavg", default: true, new: |_| Box::new(loadavg::Loadavg) }];
