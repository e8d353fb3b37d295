//! The collectors: each reads a few files of the kernel's and writes samples with node_exporter's
//! names, labels, units and values (those of version 1.5.0). A collector is one file and one row of
//! [`TABLE`]; [`Set`] runs those that are on.
//!
//! A collector knows `model`, `host` and `memory`; never another collector, tokio, the configuration
//! file or where samples go. Absence is not failure: no file is [`CollectError::NoData`]. A malformed
//! line costs itself: the other lines' samples are written, and the first error is returned.

mod buddyinfo;
mod cgroups;
mod cpu;
mod cpufreq;
mod cpuinfo;
mod diskstats;
mod dmi;
mod entropy;
mod error;
mod filefd;
mod filesystem;
mod interrupts;
mod ksmd;
mod loadavg;
mod meminfo;
mod meminfo_numa;
mod netdev;
mod options;
mod os;
mod parse;
mod pattern;
mod pressure;
mod processes;
mod schedstat;
mod selinux;
mod set;
mod slabinfo;
mod softirqs;
mod stat;
mod statfs;
mod sysctl;
#[cfg(test)]
mod testing;
mod time;
mod timex;
mod topology;
mod udev;
mod uname;
mod vmstat;
mod watchdog;
mod zoneinfo;

use std::time::Duration;

use crate::host::Host;
use crate::model::Samples;

pub use error::CollectError;
pub use options::{
    CpuOptions, DiskstatsOptions, FilesystemOptions, NetdevOptions, Options, StatOptions,
    SysctlOptions, VmstatOptions,
};
pub use pattern::{Pattern, pattern};
pub use set::{Outcome, Set, Status};
pub use statfs::{Statfs, Usage};
pub use sysctl::Sysctl;

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
    Entry::on("cpu", |o| Box::new(cpu::CpuTime::new(&o.cpu))),
    Entry::on("stat", |o| Box::new(stat::Stat::new(&o.stat))),
    Entry::on("loadavg", |_| Box::new(loadavg::Loadavg)),
    Entry::on("meminfo", |_| Box::new(meminfo::Meminfo::default())),
    Entry::on("vmstat", |o| Box::new(vmstat::Vmstat::new(&o.vmstat))),
    Entry::on("pressure", |_| Box::new(pressure::Pressure)),
    Entry::on("diskstats", |o| Box::new(diskstats::Diskstats::new(&o.diskstats))),
    Entry::on("filesystem", |o| Box::new(filesystem::Filesystem::new(&o.filesystem))),
    Entry::on("netdev", |o| Box::new(netdev::Netdev::new(&o.netdev))),
    Entry::on("uname", |_| Box::new(uname::Uname)),
    Entry::on("time", |_| Box::new(time::Time::new())),
    // The kernel and the processor.
    Entry::on("os", |_| Box::new(os::Os::default())),
    Entry::on("timex", |_| Box::new(timex::Adjtimex)),
    Entry::on("filefd", |_| Box::new(filefd::Filefd)),
    Entry::on("entropy", |_| Box::new(entropy::Entropy)),
    Entry::on("cpufreq", |_| Box::new(cpufreq::Cpufreq::default())),
    Entry::on("schedstat", |_| Box::new(schedstat::Schedstat)),
    Entry::on("dmi", |_| Box::new(dmi::Dmi::default())),
    Entry::on("selinux", |_| Box::new(selinux::Selinux)),
    Entry::on("watchdog", |_| Box::new(watchdog::Watchdog::default())),
    // The network.
    // Disks, arrays and file systems.
    // Sensors, power, board and health.
    // Services, containers and processes.
    // Text of the user's, and what is off unless asked for.
    Entry::off("processes", |_| Box::new(processes::Processes::new())),
    Entry::off("sysctl", |o| Box::new(sysctl::Sysctls::new(&o.sysctl))),
    Entry::off("ksmd", |_| Box::new(ksmd::Ksmd::default())),
    Entry::off("cgroups", |_| Box::new(cgroups::Cgroups)),
    Entry::off("buddyinfo", |_| Box::new(buddyinfo::Buddyinfo)),
    Entry::off("meminfo_numa", |_| Box::new(meminfo_numa::MeminfoNuma::default())),
    Entry::off("zoneinfo", |_| Box::new(zoneinfo::Zoneinfo::default())),
    Entry::off("softirqs", |_| Box::new(softirqs::Softirqs::default())),
    Entry::off("interrupts", |_| Box::new(interrupts::Interrupts::default())),
    Entry::off("slabinfo", |_| Box::new(slabinfo::Slabinfo)),
];
