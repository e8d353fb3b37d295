//! What the user may set of the collectors, with node_exporter's defaults on Linux (upstream's:
//! Debian's package excludes other mount points and the loopback device).

use std::time::Duration;

use super::Entry;
use super::cgroup::{ContainersOptions, ServicesOptions};
use super::pattern::{Pattern, pattern};
use super::statfs::Statfs;
use super::sysctl::Sysctl;

/// What the user may set of the collectors. Patterns are compiled already.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `metrics.intervals`: how long a collector rests between two runs, where it is not as
    /// `Entry::every` says.
    pub intervals: Vec<(&'static str, Duration)>,
    /// `metrics.filesystem`
    pub filesystem: FilesystemOptions,
    /// `metrics.netdev`
    pub netdev: NetdevOptions,
    /// `metrics.netclass`
    pub netclass: NetclassOptions,
    /// `metrics.netstat`
    pub netstat: NetstatOptions,
    /// `metrics.diskstats`
    pub diskstats: DiskstatsOptions,
    /// `metrics.textfile`
    pub textfile: TextfileOptions,
    /// `metrics.hwmon`
    pub hwmon: HwmonOptions,
    /// `metrics.smart`
    pub smart: SmartOptions,
    /// `metrics.containers`
    pub containers: ContainersOptions,
    /// `metrics.services`
    pub services: ServicesOptions,
    /// `metrics.cpu`
    pub cpu: CpuOptions,
    /// `metrics.stat`
    pub stat: StatOptions,
    /// `metrics.vmstat`
    pub vmstat: VmstatOptions,
    /// `metrics.sysctl`
    pub sysctl: SysctlOptions,
    /// `metrics.systemd`
    pub systemd: SystemdOptions,
}

/// Which units are reported, and what of them.
#[derive(Clone, Debug)]
pub struct SystemdOptions {
    /// If set, only units whose whole name matches.
    pub unit_include: Option<Pattern>,
    /// Units whose whole name matches are left out.
    pub unit_exclude: Option<Pattern>,
    /// How often services were restarted.
    pub enable_restarts_metrics: bool,
    /// When units were started.
    pub enable_start_time_metrics: bool,
    /// How many tasks services have.
    pub enable_task_metrics: bool,
}

/// Whose text is read.
#[derive(Clone, Debug, Default)]
pub struct TextfileOptions {
    /// Directories, as whole paths below the host's root, that may be globs.
    pub directories: Vec<String>,
}

/// What is told of the processors.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Whether /proc/cpuinfo is told.
    pub info: bool,
    /// Whether the seconds in guests are told apart.
    pub guest: bool,
    /// Whether the frequency is told with `info`: where the collector `cpufreq` doesn't run.
    pub frequency: bool,
    /// Flags that are told with `info`; none unless given.
    pub flags_include: Option<Pattern>,
    /// Bugs that are told with `info`; none unless given.
    pub bugs_include: Option<Pattern>,
}

impl Default for CpuOptions {
    fn default() -> CpuOptions {
        CpuOptions {
            info: false,
            guest: true,
            frequency: false,
            flags_include: None,
            bugs_include: None,
        }
    }
}

/// What is told of /proc/stat.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatOptions {
    /// Whether softirqs are told by vector.
    pub softirq: bool,
}

/// Which fields of /proc/vmstat are reported.
#[derive(Clone, Debug, Default)]
pub struct VmstatOptions {
    /// Fields that are reported, if not node_exporter's.
    pub fields: Option<Pattern>,
}

/// Which kernel settings are reported.
#[derive(Clone, Debug, Default)]
pub struct SysctlOptions {
    /// As numbers.
    pub include: Vec<Sysctl>,
    /// As words in labels.
    pub include_info: Vec<Sysctl>,
}

/// Which mounts are reported.
#[derive(Clone, Debug)]
pub struct FilesystemOptions {
    /// Types of file systems that are left out, such as `proc`.
    pub fs_types_exclude: Option<Pattern>,
    /// Mount points that are left out.
    pub mount_points_exclude: Option<Pattern>,
    /// How long a collection waits for mounts that don't answer, all together.
    pub mount_timeout: Duration,
    /// The system call that asks a mount; a test puts its own here.
    pub statfs: Statfs,
}

/// Which network devices are reported.
#[derive(Clone, Debug, Default)]
pub struct NetdevOptions {
    /// Devices that are left out.
    pub device_exclude: Option<Pattern>,
    /// If set, only devices that match are reported.
    pub device_include: Option<Pattern>,
}

/// Of which network devices the properties are reported.
#[derive(Clone, Debug, Default)]
pub struct NetclassOptions {
    /// Devices that are left out; by default none, node_exporter's `^$`.
    pub device_exclude: Option<Pattern>,
}

/// Which counters of the network protocols are reported.
#[derive(Clone, Debug)]
pub struct NetstatOptions {
    /// What a counter must match, as `TcpExt_ListenDrops`; none: all are.
    pub fields: Option<Pattern>,
}

/// Which block devices are reported.
#[derive(Clone, Debug)]
pub struct DiskstatsOptions {
    /// Devices that are left out; by default partitions, RAM disks, loop devices and floppies.
    pub device_exclude: Option<Pattern>,
}

impl Options {
    /// How long a collector rests between two runs.
    pub fn every(&self, entry: &Entry) -> Duration {
        let set = self.intervals.iter().find(|(name, _)| *name == entry.name);
        set.map_or(entry.every, |(_, every)| *every)
    }
}

/// Which chips of hwmon are reported, by the label `chip`.
#[derive(Clone, Debug, Default)]
pub struct HwmonOptions {
    /// Chips that are left out.
    pub chip_exclude: Option<Pattern>,
    /// If set, only chips that match are reported.
    pub chip_include: Option<Pattern>,
}

/// Which disks are asked for their health.
#[derive(Clone, Debug, Default)]
pub struct SmartOptions {
    /// Disks that are left out.
    pub device_exclude: Option<Pattern>,
    /// Whether the agent keeps CAP_SYS_ADMIN, which NVMe takes.
    pub keep_sys_admin: bool,
}

impl FilesystemOptions {
    /// The default of `fs_types_exclude`.
    pub const FS_TYPES_EXCLUDE: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|\
        devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|\
        securityfs|selinuxfs|squashfs|sysfs|tracefs)$";
    /// The default of `mount_points_exclude`.
    pub const MOUNT_POINTS_EXCLUDE: &str = "^/(dev|proc|run/credentials/.+|sys|\
        var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";
    /// The default of `mount_timeout`.
    pub const MOUNT_TIMEOUT: Duration = Duration::from_secs(5);
}

impl NetstatOptions {
    /// The default of `fields`: that of node_exporter 1.9, of which 1.5.0 lacks TCPOFOQueue and TCPRcvQDrop.
    pub const FIELDS: &str = "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|\
        Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|\
        Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|\
        Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$";
}

impl Default for NetstatOptions {
    fn default() -> NetstatOptions {
        NetstatOptions { fields: pattern(NetstatOptions::FIELDS).ok() }
    }
}

impl DiskstatsOptions {
    /// The default of `device_exclude`.
    pub const DEVICE_EXCLUDE: &str = r"^(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
}

impl Default for FilesystemOptions {
    fn default() -> FilesystemOptions {
        FilesystemOptions {
            fs_types_exclude: pattern(FilesystemOptions::FS_TYPES_EXCLUDE).ok(),
            mount_points_exclude: pattern(FilesystemOptions::MOUNT_POINTS_EXCLUDE).ok(),
            mount_timeout: FilesystemOptions::MOUNT_TIMEOUT,
            statfs: Statfs::default(),
        }
    }
}

impl Default for DiskstatsOptions {
    fn default() -> DiskstatsOptions {
        DiskstatsOptions { device_exclude: pattern(DiskstatsOptions::DEVICE_EXCLUDE).ok() }
    }
}

impl SystemdOptions {
    /// The default of `unit_exclude`.
    pub const UNIT_EXCLUDE: &str = r".+\.(automount|device|mount|scope|slice)";

    /// The pattern that matches a whole name where the given one matches a part.
    pub fn whole(given: &str) -> Option<Pattern> {
        pattern(&format!("^(?:{given})$")).ok()
    }

    pub(super) fn wants(&self, name: &[u8]) -> bool {
        self.unit_include.as_ref().is_none_or(|include| include.is_match(name))
            && !excludes(self.unit_exclude.as_ref(), name)
    }
}

impl Default for SystemdOptions {
    fn default() -> SystemdOptions {
        SystemdOptions {
            unit_include: None,
            unit_exclude: SystemdOptions::whole(SystemdOptions::UNIT_EXCLUDE),
            enable_restarts_metrics: false,
            enable_start_time_metrics: false,
            enable_task_metrics: false,
        }
    }
}

/// Whether a name is left out.
pub(super) fn excludes(exclude: Option<&Pattern>, name: &[u8]) -> bool {
    exclude.is_some_and(|pattern| pattern.is_match(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_compile_and_leave_out_what_node_exporter_leaves_out() {
        let filesystem = FilesystemOptions::default();
        let types = filesystem.fs_types_exclude.unwrap();
        assert!(types.is_match(b"cgroup2") && types.is_match(b"tracefs"));
        assert!(!types.is_match(b"ext4") && !types.is_match(b"tmpfs"));
        let points = filesystem.mount_points_exclude.unwrap();
        assert!(points.is_match(b"/dev/shm") && points.is_match(b"/proc"));
        assert!(points.is_match(b"/var/lib/docker/overlay2/1/merged"));
        assert!(!points.is_match(b"/mnt/data") && !points.is_match(b"/device"));
        let fields = NetstatOptions::default().fields.unwrap();
        assert!(fields.is_match(b"TcpExt_ListenDrops") && fields.is_match(b"UdpLite6_InErrors"));
        assert!(fields.is_match(b"TcpExt_TCPRcvQDrop") && fields.is_match(b"TcpExt_TCPOFOQueue"));
        assert!(!fields.is_match(b"Tcp_RtoMin") && !fields.is_match(b"TcpExt_TCPTimeoutsX"));
        let disks = DiskstatsOptions::default().device_exclude.unwrap();
        assert!(
            disks.is_match(b"sda1") && disks.is_match(b"nvme0n1p3") && disks.is_match(b"loop7")
        );
        assert!(!disks.is_match(b"mmcblk0p1") && !disks.is_match(b"nvme0n1"));
    }
}
