//! The health that disks tell of themselves: SMART of ATA disks, also behind USB bridges that translate
//! (SAT), the health log of NVMe, and the log pages of SCSI. Through ioctls, so it takes CAP_SYS_RAWIO and
//! the right to open the devices; for NVMe CAP_SYS_ADMIN (nvme_cmd_allowed in drivers/nvme/host/ioctl.c),
//! which the agent gives up at its start unless `metrics.smart.nvme` says otherwise.
//!
//! Not one of node_exporter's. The families are called `node_smart_*`, with the words of smartctl_exporter's
//! `smartctl_device_*` behind it: those names break the rules of all others here (percentages, no
//! `_total`, no base units), and beside a real smartctl_exporter one name would have two meanings. The
//! labels of attributes are smartctl_exporter's.
//!
//! A disk that stands still is not started: it is asked for its power mode first, and one whose power the
//! kernel has taken is not even opened. One that runs and has had no I/O is asked for no more than that for an
//! hour, because the timer by which some disks fall asleep begins anew with each question. Bridges that don't tell the power mode let the disk be asked.
//! Removable disks behind USB, which are sticks and card readers, are left alone, as udev's ata_id does. A
//! controller with several namespaces is asked once, through the first of them.
//!
//! Disks are asked by a thread, which may hang with one: see `asker`. An answer that comes too late for
//! its round is written in the next one.

pub mod ata;
mod attributes;
pub mod device;
pub mod nvme;
pub mod scsi;
mod write;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::asker::{Asker, Unanswered};
use super::options::{SmartOptions, excludes};
use super::parse::FirstError;
use super::{CollectError, Collector};
use crate::host::{Host, Names, ReadError, Root};
use crate::model::Samples;
use crate::sort;
use ata::Text;
use device::{Access, Report};

/// How long a round waits for all disks together. Those that are well answer in milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// In so many rounds, an hour of those by default, a disk without I/O is asked for all once.
const BRIEF: u32 = 15;

/// A disk, and what it has said.
#[derive(Default)]
struct Disk {
    name: String,
    /// Whether it is still there.
    seen: bool,
    /// How to ask it; none: not at all, because the kernel has taken its power.
    access: Option<Access>,
    model: Text,
    serial: Text,
    firmware: Text,
    /// The answer of this round, and that of the one before.
    report: Option<Report>,
    previous: Option<Report>,
    /// What the kernel had counted of its I/O (block/stat) when it was last asked for all.
    stat: Vec<u8>,
    /// Rounds since then.
    briefs: u32,
    /// The buffers that travel, when they are here.
    task: Option<Box<Task>>,
}

/// A question, which comes back with its answer.
struct Task {
    name: String,
    path: PathBuf,
    access: Access,
    /// Only whether it stands still.
    brief: bool,
    answer: io::Result<Report>,
}

/// Health of each disk.
pub(super) struct Smart {
    options: SmartOptions,
    asker: Asker<Box<Task>>,
    names: Names,
    disks: Vec<Disk>,
    /// Whether it was told that the rights are missing.
    told: bool,
}

impl Smart {
    pub(super) fn new(options: &SmartOptions) -> Smart {
        Smart::with(options, PATIENCE, |task| {
            task.answer = device::ask(&task.path, task.access, task.brief)
        })
    }

    fn with(
        options: &SmartOptions,
        patience: Duration,
        ask: impl Fn(&mut Task) + Send + Sync + 'static,
    ) -> Smart {
        let call = Arc::new(move |task: &mut Box<Task>| ask(task));
        Smart {
            options: options.clone(),
            asker: Asker::new("mote-smart", call, patience),
            names: Names::new(),
            disks: Vec::new(),
            told: false,
        }
    }
}

impl Collector for Smart {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, "block", &mut self.names)?;
        self.find(host);
        let denied = self.ask(host, &mut errors);
        write::disks(&self.disks, out);
        let nothing = self.disks.iter().all(|disk| disk.report.is_none());
        if let Some(denied) = denied {
            if nothing && errors.is_empty() {
                return Err(CollectError::NoData(denied));
            }
            if !std::mem::replace(&mut self.told, true) {
                log::info!("collector smart: {denied}");
            }
        }
        if nothing && errors.is_empty() {
            // Without words of its own, which would allocate in each round.
            host.path(Root::Sys, "block/*/device");
            return Err(CollectError::NoData(host.error(io::ErrorKind::NotFound.into())));
        }
        errors.result()
    }
}

impl Smart {
    /// Brings the list of disks up to date.
    fn find(&mut self, host: &mut Host) {
        let Smart { options, names, disks, .. } = self;
        disks.iter_mut().for_each(|disk| disk.seen = false);
        let mut controller = "";
        for name in names.iter() {
            if excludes(options.device_exclude.as_ref(), name.as_bytes()) {
                continue;
            }
            let access = if let Some(of) = nvme_controller(name) {
                // In the order of bytes, all namespaces of one controller stand together.
                if std::mem::replace(&mut controller, of) == of {
                    continue;
                }
                Access::Nvme
            } else if let Some(access) = scsi_access(host, name) {
                access
            } else {
                continue;
            };
            let known = disks.iter().position(|disk| disk.name == name);
            let index = known.unwrap_or(disks.len());
            if known.is_none() {
                disks.push(Disk { name: name.to_owned(), ..Disk::default() });
            }
            if let Some(disk) = disks.get_mut(index) {
                disk.seen = true;
                disk.previous = disk.report.take();
                disk.access = Some(access).filter(|_| !is_suspended(host, name));
                disk.identify(host, access);
            }
        }
        disks.retain(|disk| disk.seen);
        sort::unstable_by(disks, |a, b| a.name.cmp(&b.name));
    }

    /// Asks the disks. Gives the first that the system does not let us ask.
    fn ask(&mut self, host: &mut Host, errors: &mut FirstError) -> Option<ReadError> {
        let Smart { asker, disks, .. } = self;
        let mut denied = None;
        let patience = asker.begin(|task| {
            // A disk that has gone meanwhile is not in the list.
            if let Some(disk) = disks.iter_mut().find(|disk| disk.name == task.name) {
                disk.take(task, errors, &mut denied);
            }
        });
        for disk in disks.iter_mut() {
            let Some(access) = disk.access else {
                disk.report = Some(Report::Standby);
                continue;
            };
            let brief = disk.is_idle(host);
            let Disk { name, task, .. } = disk;
            let path = host.path(Root::Root, format_args!("dev/{name}"));
            let kind = if access == Access::Nvme { "nvme" } else { "scsi" };
            let answer = asker.ask(name.as_bytes(), kind, patience, || {
                let mut task = task.take().unwrap_or_else(|| Box::new(Task::new(name)));
                task.path.clear();
                task.path.push(path);
                task.access = access;
                task.brief = brief;
                task
            });
            match answer {
                Ok(task) => disk.take(task, errors, &mut denied),
                // What it said late, to the question before, is better than nothing.
                Err(_) if disk.report.is_some() => {}
                Err(why) => errors.note(unanswered(&disk.name, why)),
            }
        }
        let (name, source) = denied?;
        host.path(Root::Root, format_args!("dev/{name}"));
        Some(host.error(source))
    }
}

/// The first disk that could not be asked for want of rights, and what the system said.
type Denied = Option<(String, io::Error)>;

impl Disk {
    /// Takes an answer.
    fn take(&mut self, mut task: Box<Task>, errors: &mut FirstError, denied: &mut Denied) {
        match std::mem::replace(&mut task.answer, Ok(Report::Silent)) {
            // Such a disk has no line of its own anywhere.
            Ok(Report::Silent) => log::debug!("{}: no health", task.path.display()),
            Ok(Report::Running) => self.report = self.previous.take(),
            Ok(report) => {
                if let Report::Ata(health) = &report {
                    let identity = &health.identity;
                    self.model.clone_from(&identity.model);
                    self.serial.clone_from(&identity.serial);
                    self.firmware.clone_from(&identity.firmware);
                    if let Some((page, malformed)) = health.fault {
                        let source = io::Error::new(io::ErrorKind::InvalidData, malformed);
                        errors.note(system(format!("{page} of {}", self.name), source));
                    }
                }
                self.report = Some(report);
            }
            Err(error) if is_absent(&error) => log::debug!("{}: {error}", task.path.display()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                denied.get_or_insert_with(|| (self.name.clone(), lacking(&task, &error)));
            }
            Err(error) => {
                errors.note(system(format!("asking {} for its health", self.name), error))
            }
        }
        self.task = Some(task);
    }

    /// Whether an ATA disk has had nothing to do since it was asked for all, which is less than
    /// [`BRIEF`] rounds ago: then its health is the same, and asking for it would keep some disks from
    /// falling asleep.
    fn is_idle(&mut self, host: &mut Host) -> bool {
        let stat = host.find(Root::Sys, format_args!("block/{}/stat", self.name));
        let stat = stat.unwrap_or_default();
        let idle = !stat.is_empty()
            && self.stat == stat
            && matches!(self.previous, Some(Report::Ata(_)))
            && self.briefs < BRIEF;
        if idle {
            self.briefs += 1;
        } else {
            self.briefs = 0;
            self.stat.clear();
            self.stat.extend_from_slice(stat);
        }
        idle
    }

    /// What sysfs says of an NVMe or SCSI disk; an ATA disk says it itself, and not cut to 16 letters.
    fn identify(&mut self, host: &mut Host, access: Access) {
        let files = match access {
            Access::Ata | Access::Bridge => return,
            Access::Nvme => ["model", "serial", "firmware_rev"],
            Access::Scsi => ["model", "vpd_pg80", "rev"],
        };
        let Disk { name, model, serial, firmware, .. } = self;
        for (to, file) in [model, serial, firmware].into_iter().zip(files) {
            let path = format_args!("block/{name}/device/{file}");
            let bytes = host.find(Root::Sys, path).unwrap_or_default();
            // A page of vital product data has a header.
            let skipped = if file == "vpd_pg80" { 4 } else { 0 };
            let bytes = bytes.get(skipped..).unwrap_or_default().trim_ascii();
            *to = ata::tidy(bytes.iter().copied());
        }
    }
}

impl Task {
    fn new(name: &str) -> Task {
        let (name, path) = (name.to_owned(), PathBuf::new());
        Task { name, path, access: Access::Scsi, brief: false, answer: Ok(Report::Silent) }
    }
}

/// The controller of an NVMe namespace: `nvme0` of `nvme0n1`. None of a partition, and of the hidden paths of
/// multipath (`nvme0c1n1`).
fn nvme_controller(name: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (controller, namespace) = name.strip_prefix("nvme")?.split_once('n')?;
    let length = name.len() - namespace.len() - 1;
    (is_number(controller) && is_number(namespace)).then(|| name.get(..length)).flatten()
}

/// How a disk of the kernel's driver `sd` is asked; none if it is not.
fn scsi_access(host: &mut Host, name: &str) -> Option<Access> {
    if !name.strip_prefix("sd")?.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    // A disk, or one with zones.
    let kind = host.find(Root::Sys, format_args!("block/{name}/device/type"))?.trim_ascii();
    if !matches!(kind, b"0" | b"20") {
        return None;
    }
    // What libata and the firmware of SAS controllers put there.
    let vendor = host.find(Root::Sys, format_args!("block/{name}/device/vendor"))?;
    if vendor.trim_ascii() == b"ATA" {
        return Some(Access::Ata);
    }
    let link = host.link(Root::Sys, format_args!("block/{name}")).unwrap_or_default();
    if !link.windows(4).any(|part| part == b"/usb") {
        return Some(Access::Scsi);
    }
    let removable = host.find(Root::Sys, format_args!("block/{name}/removable"))?;
    (removable.trim_ascii() == b"0").then_some(Access::Bridge)
}

/// Whether the kernel has taken the disk's power, which opening it would give back.
fn is_suspended(host: &mut Host, name: &str) -> bool {
    let path = format_args!("block/{name}/device/power/runtime_status");
    host.find(Root::Sys, path).is_some_and(|status| status.trim_ascii() == b"suspended")
}

/// Whether the device is not there, not for us (a container), has no medium, or is no disk.
fn is_absent(error: &io::Error) -> bool {
    const ABSENT: [i32; 6] =
        [libc::ENXIO, libc::ENODEV, libc::ENOMEDIUM, libc::ENOTBLK, libc::ENOTTY, libc::EOPNOTSUPP];
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error().is_some_and(|number| ABSENT.contains(&number))
}

fn lacking(task: &Task, error: &io::Error) -> io::Error {
    let right = if task.access == Access::Nvme {
        "CAP_SYS_ADMIN, which the agent keeps with metrics.smart.nvme = \"sys_admin\" alone"
    } else {
        "CAP_SYS_RAWIO"
    };
    let text = format!("{error}: a disk's health takes the right to open it, and {right}");
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn unanswered(name: &str, why: Unanswered) -> CollectError {
    let source = match why {
        Unanswered::Stuck => io::Error::new(io::ErrorKind::TimedOut, "it has not answered yet"),
        Unanswered::Full => io::Error::other("not asked, because other disks don't answer"),
        Unanswered::NoThread(error) => error,
    };
    system(format!("asking {name} for its health"), source)
}

fn system(attempt: String, source: io::Error) -> CollectError {
    CollectError::System { attempt, source }
}

#[cfg(test)]
mod tests;
