//! What a message of the kernel's says, as facts: the name of the probe, the counter and its labels, and
//! what an event tells. It must not know how the messages are written.

use crate::model::{Desc, Event};
use crate::probe::{block, filesystem, mmc, oom, scsi, thermal};

/// Something that the kernel has reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A process was killed for want of memory.
    OomKill(OomKill),
    /// A request to a block device failed.
    IoError(IoError),
    /// A command to an SD card or eMMC failed.
    MmcError(MmcError),
    /// A SCSI command failed; USB disks too.
    ScsiError(ScsiError),
    /// A file system has met damage, or lost something.
    FilesystemError(FilesystemError),
    /// A command or a link of libata's failed.
    AtaError(AtaError),
    /// Something was too hot.
    ThermalTrip(ThermalTrip),
    /// A Raspberry Pi's supply was below 4.63 V, or is not any more.
    Undervoltage(Undervoltage),
}

/// A process that the OOM killer has killed. What the kernel does not say is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OomKill {
    /// Its thread group's number, in the initial namespace.
    pub pid: u32,
    /// Its name, of 15 bytes at most.
    pub comm: String,
    /// Whose it was.
    pub uid: Option<u32>,
    /// Its memory in KiB: `total_vm`, `anon_rss`, `file_rss`, `shmem_rss`, `pgtables`.
    pub memory_kb: [Option<u64>; 5],
    /// -1000 to 1000.
    pub oom_score_adj: Option<i16>,
    /// Its cgroup, such as `/system.slice/cron.service`.
    pub cgroup: Option<String>,
    /// What it is counted under: the cgroup's unit or container, or `unknown`.
    pub unit: String,
    /// The cgroup whose limit was met; none if all of the host's memory was used up.
    pub limited: Option<String>,
    /// Whether it was a cgroup's limit and not the host's memory.
    pub in_cgroup: bool,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// The disk, such as `sda`, never a partition; `unknown` for messages that the kernel has left out.
    pub device: String,
    /// Its first sector, of 512 bytes.
    pub sector: Option<u64>,
    /// `read`, `write`, `discard`, `flush`, `other`; `unknown` before Linux 5.1.
    pub operation: &'static str,
    /// The name of the errno, such as `EIO`; `unknown` for messages that the kernel has left out.
    pub error: &'static str,
    /// The kernel's words.
    pub message: String,
}

/// A failed command of an MMC host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmcError {
    /// Such as `mmc0`.
    pub host: String,
    /// The name of an errno, such as `ETIMEDOUT`, or one word.
    pub error: String,
    /// The kernel's words.
    pub message: String,
}

/// A failed SCSI command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiError {
    /// Such as `sda`; where the kernel does not say, the address.
    pub device: String,
    /// `HOST:CHANNEL:TARGET:LUN`.
    pub address: String,
    /// As the probe calls it, such as `medium_error` or `did_no_connect`; or `offline`, `other`.
    pub error: String,
    /// The kernel's words.
    pub message: String,
}

/// An error of a file system's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemError {
    /// Such as `sda1`; `unknown` where the kernel does not say.
    pub device: String,
    /// Such as `ext4`; `unknown` where the block layer speaks for it.
    pub filesystem: &'static str,
    /// As the probe calls it: `ext4`, or the name of an errno; or the kind of another file system, or one
    /// word for what it has come to, such as `read_only`.
    pub error: String,
    /// The kernel's words.
    pub message: String,
}

/// An error of libata's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtaError {
    /// Such as `ata1`.
    pub port: String,
    /// One word.
    pub error: &'static str,
    /// The kernel's words.
    pub message: String,
}

/// Something was too hot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThermalTrip {
    /// The number in `thermal_zoneN`, or `core` or `package` of x86.
    pub zone: String,
    /// `critical`, which shuts the machine down, or `throttle`.
    pub trip: &'static str,
    /// Degrees Celsius, where the kernel says it.
    pub celsius: Option<u64>,
    /// The kernel's words.
    pub message: String,
}

/// The supply's voltage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undervoltage {
    /// Whether it is good again.
    pub over: bool,
    /// The kernel's words.
    pub message: String,
}

const ATA_ERRORS: Desc =
    Desc::counter("mote_ata_errors_total", "Errors of ATA commands and links, by port.");
const UNDERVOLTAGE: Desc =
    Desc::counter("mote_undervoltage_total", "Changes of the supply's voltage, by state.");

/// The figures of [`OomKill::memory_kb`], as the kernel and as fields name them.
pub(super) const MEMORY: [(&str, &str); 5] = [
    ("total-vm", "total_vm_kb"),
    ("anon-rss", "anon_rss_kb"),
    ("file-rss", "file_rss_kb"),
    ("shmem-rss", "shmem_rss_kb"),
    ("pgtables", "pgtables_kb"),
];

/// The labels of a counter; no notice has more than three.
pub type NoticeLabels<'a> = heapless::Vec<(&'static str, &'a str), 3>;

impl Notice {
    /// The probe that it belongs to.
    pub fn probe(&self) -> &'static str {
        self.names().0
    }

    /// The event's kind, such as `oom_kill`.
    pub fn kind(&self) -> &'static str {
        self.names().1
    }

    /// The counter that it raises.
    pub fn family(&self) -> &'static Desc {
        self.names().2
    }

    fn names(&self) -> (&'static str, &'static str, &'static Desc) {
        match self {
            Notice::OomKill(_) => ("oom", "oom_kill", &oom::KILLS),
            Notice::IoError(_) => ("block", "io_error", &block::ERRORS),
            Notice::MmcError(_) => ("mmc", "mmc_error", &mmc::ERRORS),
            Notice::ScsiError(_) => ("scsi", "scsi_error", &scsi::ERRORS),
            Notice::FilesystemError(_) => ("filesystem", "filesystem_error", &filesystem::ERRORS),
            Notice::AtaError(_) => ("ata", "ata_error", &ATA_ERRORS),
            Notice::ThermalTrip(_) => ("thermal", "thermal_trip", &thermal::TRIPS),
            Notice::Undervoltage(_) => ("undervoltage", "undervoltage", &UNDERVOLTAGE),
        }
    }

    /// The labels of its counter.
    pub fn labels(&self) -> NoticeLabels<'_> {
        let labels: &[(&'static str, &str)] = match self {
            Notice::OomKill(kill) => &[("unit", &kill.unit)],
            Notice::IoError(io) => {
                &[("device", &io.device), ("operation", io.operation), ("error", io.error)]
            }
            Notice::MmcError(mmc) => &[("host", &mmc.host), ("error", &mmc.error)],
            Notice::ScsiError(scsi) => &[("device", &scsi.device), ("error", &scsi.error)],
            Notice::FilesystemError(fs) => &[("device", &fs.device), ("error", &fs.error)],
            Notice::AtaError(ata) => &[("device", &ata.port), ("error", ata.error)],
            Notice::ThermalTrip(trip) => &[("zone", &trip.zone), ("type", trip.trip)],
            Notice::Undervoltage(state) => &[("state", state.state())],
        };
        labels.iter().copied().collect()
    }

    /// One line for people.
    fn message(&self) -> String {
        match self {
            Notice::OomKill(kill) => kill.message(),
            Notice::IoError(IoError { message, .. })
            | Notice::MmcError(MmcError { message, .. })
            | Notice::ScsiError(ScsiError { message, .. })
            | Notice::FilesystemError(FilesystemError { message, .. })
            | Notice::AtaError(AtaError { message, .. })
            | Notice::ThermalTrip(ThermalTrip { message, .. })
            | Notice::Undervoltage(Undervoltage { message, .. }) => message.clone(),
        }
    }

    /// The event, at nanoseconds since the Unix epoch. Each name of its fields stands once.
    pub fn event(&self, timestamp_ns: i64) -> Event {
        let (message, fields) = (self.message(), self.fields());
        Event { kind: self.kind(), timestamp_ns, message, fields }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        if let Notice::OomKill(kill) = self {
            return kill.fields();
        }
        let mut fields: Vec<_> =
            self.labels().into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        match self {
            Notice::IoError(io) => {
                fields.extend(io.sector.map(|sector| ("sector", sector.to_string())));
            }
            Notice::FilesystemError(fs) => {
                fields.push(("filesystem", fs.filesystem.to_owned()));
            }
            Notice::ScsiError(scsi) => fields.push(("address", scsi.address.clone())),
            Notice::ThermalTrip(trip) => {
                fields.extend(trip.celsius.map(|celsius| ("celsius", celsius.to_string())));
            }
            _ => {}
        }
        fields
    }
}

impl OomKill {
    fn message(&self) -> String {
        let OomKill { comm, pid, unit, .. } = self;
        let [_, anon, file, shmem, _] = self.memory_kb;
        let resident = [anon, file, shmem.or(Some(0))]
            .into_iter()
            .try_fold(0u64, |sum, kb| Some(sum.saturating_add(kb?)));
        let size = resident.map(|kb| format!(", {} MiB resident", kb / 1024)).unwrap_or_default();
        let of = match (self.in_cgroup, &self.limited) {
            (true, Some(limited)) => format!("the cgroup {limited} is out of memory"),
            (true, None) => "a cgroup is out of memory".to_owned(),
            (false, _) => "out of memory".to_owned(),
        };
        format!("{of}: {comm} (PID {pid}{size}) of {unit} was killed")
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("unit", self.unit.clone()),
            ("pid", self.pid.to_string()),
            ("comm", self.comm.clone()),
            ("scope", if self.in_cgroup { "cgroup" } else { "host" }.to_owned()),
        ];
        fields.extend(self.uid.map(|uid| ("uid", uid.to_string())));
        fields.extend(self.cgroup.clone().map(|cgroup| ("cgroup", cgroup)));
        fields.extend(self.limited.clone().map(|limited| ("limited_cgroup", limited)));
        for ((_, name), kb) in MEMORY.iter().zip(self.memory_kb) {
            fields.extend(kb.map(|kb| (*name, kb.to_string())));
        }
        fields.extend(self.oom_score_adj.map(|adj| ("oom_score_adj", adj.to_string())));
        fields
    }
}

impl Undervoltage {
    fn state(&self) -> &'static str {
        if self.over { "normalised" } else { "detected" }
    }
}
