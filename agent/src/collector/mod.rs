//! The collectors: each reads a few files of the kernel's and writes samples with node_exporter's
//! names, labels, units and values (those of version 1.5.0). A collector is one file and one row of
//! [`TABLE`]; [`Set`] runs those that are on.
//!
//! A collector knows `model`, `host` and `memory`; never another collector, tokio, the configuration
//! file or where samples go. Absence is not failure: no file is [`CollectError::NoData`]. A malformed
//! line costs itself: the other lines' samples are written, and the first error is returned.

mod arp;
mod asker;
mod bcache;
mod board;
mod bonding;
mod btrfs;
mod buddyinfo;
mod bus;
mod cgroup;
mod cgroups;
mod conntrack;
mod cpu;
mod cpufreq;
mod cpuinfo;
mod diskstats;
mod dmi;
mod drbd;
mod edac;
mod entropy;
mod error;
mod ethtool;
mod filefd;
mod filesystem;
mod hwmon;
mod interrupts;
mod ipvs;
mod ksmd;
mod lnstat;
mod loadavg;
mod logind;
mod mdadm;
mod meminfo;
mod meminfo_numa;
mod mmc;
mod mountstats;
mod netclass;
mod netdev;
mod netstat;
mod network_route;
mod nfs;
mod nfsd;
mod nvme;
mod options;
mod os;
mod parse;
mod pattern;
mod powersupplyclass;
mod pressure;
mod processes;
mod qdisc;
mod rapl;
mod rows;
mod schedstat;
mod selinux;
mod set;
mod slabinfo;
pub mod smart;
mod sockstat;
mod softirqs;
mod softnet;
mod stat;
mod statfs;
mod sunrpc;
mod sysctl;
mod systemd;
mod tcpstat;
#[cfg(test)]
mod testing;
mod textfile;
mod thermal_zone;
mod time;
mod timex;
mod topology;
mod udev;
mod udp_queues;
mod uname;
mod vmstat;
mod watchdog;
mod xfs;
mod zfs;
mod zoneinfo;

use std::time::Duration;

use crate::host::Host;
use crate::model::Samples;

pub use cgroup::{ContainersOptions, ServicesOptions, fuzz_runtime};
pub use error::CollectError;
pub use options::*;
pub use pattern::{Pattern, pattern};
pub use set::{Outcome, Set, Status};
pub use statfs::{Statfs, Usage};
pub use sysctl::Sysctl;

/// Reads bytes as the body of one of netlink's messages, and as ethtool's answers; for the fuzz target.
#[doc(hidden)]
pub fn fuzz_netlink(body: &[u8], out: &mut Samples) {
    network_route::fuzz(body, out);
    qdisc::fuzz(body);
    tcpstat::fuzz(body, out);
    ethtool::fuzz(body, out);
}

/// One source of samples.
pub trait Collector {
    /// Reads the source and writes its samples. What was written before an error is kept.
    ///
    /// # Errors
    /// [`CollectError::NoData`] where this host has no such thing; anything else is a fault.
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError>;

    /// Gives back what it keeps from one run to the next, if that may be much: memory is short, and it is passed
    /// over. Kept, it might be what keeps it from running for good.
    fn give_back(&mut self) {}
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
    Entry::on("netclass", |o| Box::new(netclass::Netclass::new(&o.netclass))),
    Entry::on("netstat", |o| Box::new(netstat::Netstat::new(&o.netstat))),
    Entry::on("sockstat", |_| Box::new(sockstat::Sockstat::default())),
    Entry::on("softnet", |_| Box::new(softnet::Softnet::default())),
    Entry::on("udp_queues", |_| Box::new(udp_queues::UdpQueues)),
    Entry::on("conntrack", |_| Box::new(conntrack::Conntrack)),
    Entry::on("arp", |_| Box::new(arp::Arp::default())),
    Entry::on("bonding", |_| Box::new(bonding::Bonding::default())),
    Entry::on("ipvs", |_| Box::new(ipvs::Ipvs::default())),
    // Disks, arrays and file systems.
    Entry::on("mdadm", |_| Box::new(mdadm::Mdadm::default())),
    Entry::on("zfs", |_| Box::new(zfs::Zfs::default())),
    Entry::on("xfs", |_| Box::new(xfs::Xfs::default())),
    Entry::on("btrfs", |_| Box::new(btrfs::Btrfs::default())),
    Entry::on("bcache", |_| Box::new(bcache::Bcache::default())),
    Entry::on("nfs", |_| Box::new(nfs::Nfs)),
    Entry::on("nfsd", |_| Box::new(nfsd::Nfsd)),
    Entry::on("nvme", |_| Box::new(nvme::Nvme::default())),
    Entry::on("mmc", |_| Box::new(mmc::Mmc::default())),
    Entry::on("smart", |o| Box::new(smart::Smart::new(&o.smart))).every(240),
    Entry::off("mountstats", |_| Box::new(mountstats::Mountstats::default())),
    Entry::off("drbd", |_| Box::new(drbd::Drbd::default())),
    // Sensors, power, board and health.
    Entry::on("thermal_zone", |_| Box::new(thermal_zone::ThermalZone::default())),
    Entry::on("hwmon", |o| Box::new(hwmon::Hwmon::new(&o.hwmon))),
    Entry::on("powersupplyclass", |_| Box::new(powersupplyclass::PowerSupplyClass::default())),
    Entry::on("rapl", |_| Box::new(rapl::Rapl::default())),
    Entry::on("edac", |_| Box::new(edac::Edac::default())),
    Entry::on("board", |_| Box::new(board::Board::new())),
    // Services, containers and processes.
    Entry::on("services", |o| Box::new(cgroup::Services::new(o))),
    Entry::on("containers", |o| Box::new(cgroup::Containers::new(o))),
    // Off unless asked for.
    Entry::off("systemd", |o| Box::new(systemd::Systemd::new(&o.systemd))),
    Entry::off("logind", |_| Box::new(logind::Logind::new())),
    Entry::off("tcpstat", |_| Box::new(tcpstat::Tcpstat::new())),
    Entry::off("qdisc", |_| Box::new(qdisc::Qdiscs::new())),
    Entry::off("lnstat", |_| Box::new(lnstat::Lnstat::default())),
    Entry::off("ethtool", |_| Box::new(ethtool::Ethtools::default())),
    Entry::off("network_route", |_| Box::new(network_route::NetworkRoute::new())),
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
    // What others say.
    Entry::on("textfile", |o| Box::new(textfile::Textfile::new(&o.textfile))),
];
