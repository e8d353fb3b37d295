//! The collectors: each reads a few files of the kernel's and writes samples with node_exporter's
//! names, labels, units and values (those of version 1.5.0). A collector is one file and one row of
//! [`TABLE`]; [`Set`] runs those that are on.
//!
//! A collector knows `model`, `host` and `memory`; never another collector, tokio, the configuration
//! file or where samples go. Absence is not failure: no file is [`CollectError::NoData`]. A malformed
//! line costs itself: the other lines' samples are written, and the first error is returned.

mod bus;
mod cpu;
mod diskstats;
mod error;
mod filesystem;
mod loadavg;
mod logind;
mod meminfo;
mod netdev;
mod options;
mod parse;
mod pattern;
mod pressure;
mod set;
mod stat;
mod statfs;
mod systemd;
mod textfile;
mod time;
mod topology;
mod udev;
mod uname;
mod vmstat;

use std::time::Duration;

use crate::host::Host;
use crate::model::Samples;

pub use error::CollectError;
pub use options::{
    DiskstatsOptions, FilesystemOptions, NetdevOptions, Options, SystemdOptions, TextfileOptions,
};
pub use pattern::{Pattern, pattern};
pub use set::{Outcome, Set, Status};
pub use statfs::{Statfs, Usage};

/// One source of samples.
pub trait Collector {
    /// Reads the source and writes its samples. What was written before an error is kept.
    ///
    /// # Errors
    /// [`CollectError::NoData`] where this host has no such thing; anything else is a fault.
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError>;
}

/// A row of the table of collectors.
#[derive(Debug)]
pub struct Entry {
    /// node_exporter's name of the collector, as `metrics.collectors` and the label `collector` use.
    pub name: &'static str,
    /// Whether it runs unless told otherwise.
    pub default: bool,
    /// How long it rests between two runs unless told otherwise; none: it runs with each round. Longer
    /// than 5 minutes, and Prometheus takes its series for gone.
    pub every: Duration,
    /// Builds it.
    pub new: fn(&Options) -> Box<dyn Collector>,
}

impl Entry {
    const fn on(name: &'static str, new: fn(&Options) -> Box<dyn Collector>) -> Entry {
        Entry { name, default: true, every: Duration::ZERO, new }
    }

    #[allow(dead_code, reason = "for those that cost more than most users want")]
    const fn off(name: &'static str, new: fn(&Options) -> Box<dyn Collector>) -> Entry {
        Entry { name, default: false, every: Duration::ZERO, new }
    }

    #[allow(dead_code, reason = "for those whose source wears, wakes or hardly moves")]
    const fn every(self, seconds: u64) -> Entry {
        Entry { every: Duration::from_secs(seconds), ..self }
    }
}

/// Every collector, in the order in which a round runs them: what dashboards can't do without comes first,
/// and what can have any number of series last, because beyond `metrics.max_series` it is the later ones
/// that are refused.
pub static TABLE: &[Entry] = &[
    // The host as a whole.
    Entry::on("cpu", |_| Box::new(cpu::CpuTime::new())),
    Entry::on("stat", |_| Box::new(stat::Stat)),
    Entry::on("loadavg", |_| Box::new(loadavg::Loadavg)),
    Entry::on("meminfo", |_| Box::new(meminfo::Meminfo::default())),
    Entry::on("vmstat", |_| Box::new(vmstat::Vmstat::default())),
    Entry::on("pressure", |_| Box::new(pressure::Pressure)),
    Entry::on("diskstats", |o| Box::new(diskstats::Diskstats::new(&o.diskstats))),
    Entry::on("filesystem", |o| Box::new(filesystem::Filesystem::new(&o.filesystem))),
    Entry::on("netdev", |o| Box::new(netdev::Netdev::new(&o.netdev))),
    Entry::on("uname", |_| Box::new(uname::Uname)),
    Entry::on("time", |_| Box::new(time::Time::new())),
    // The kernel and the processor.
    // The network.
    // Disks, arrays and file systems.
    // Sensors, power, board and health.
    // Services, containers and processes.
    // Text of the user's, and what is off unless asked for.
    Entry::off("systemd", |o| Box::new(systemd::Systemd::new(&o.systemd))),
    Entry::off("logind", |_| Box::new(logind::Logind::new())),
    Entry::on("textfile", |o| Box::new(textfile::Textfile::new(&o.textfile))),
];
