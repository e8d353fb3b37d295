//! Asks one disk for its health: which commands, in which order, and what their failures mean. A disk that
//! stands still gets no command that could start it.
//!
//! Whoever calls this may wait long: the kernel ends a command after `TIMEOUT`, and may then reset the
//! device and its bus for minutes. It must not know metrics.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};

use super::ata::{self, Attributes, Identity, Malformed};
use super::{nvme, scsi};
use crate::host::ioctl::{self, ScsiAnswer};

/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// SCSI's status CHECK CONDITION: there is sense data.
const CHECK_CONDITION: u8 = 0x02;

/// How a disk is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A namespace of an NVMe controller.
    Nvme,
    /// A disk that says it is ATA's.
    Ata,
    /// A disk behind USB: ATA's if its bridge translates, SCSI's otherwise.
    Bridge,
    /// Another disk of SCSI's.
    Scsi,
}

/// What commands are sent through: a disk, or what a test puts in its place.
pub trait Transport {
    /// As [`ioctl::scsi_read`].
    ///
    /// # Errors
    /// The command did not get through.
    fn scsi(&mut self, command: &[u8], data: &mut [u8]) -> io::Result<ScsiAnswer>;

    /// As [`ioctl::nvme_log_page`].
    ///
    /// # Errors
    /// The command did not get through.
    fn log_page(&mut self, page: u8, data: &mut [u8]) -> io::Result<u16>;
}

/// What a disk has said.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each disk, used again")]
pub enum Report {
    /// It tells nothing of its health.
    #[default]
    Silent,
    /// It stands still, and was not asked more.
    Standby,
    /// It runs, and was asked nothing else.
    Running,
    /// ATA's.
    Ata(AtaHealth),
    /// NVMe's.
    Nvme(nvme::Log),
    /// SCSI's.
    Scsi(scsi::Health),
}

/// What an ATA disk says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AtaHealth {
    /// What it is.
    pub identity: Identity,
    /// Its attributes, with thresholds; none without SMART.
    pub attributes: Attributes,
    /// Whether it finds itself well.
    pub healthy: Option<bool>,
    /// The first page that was malformed.
    pub fault: Option<(&'static str, Malformed)>,
}

/// Opens a disk and asks it.
///
/// # Errors
/// It can't be opened, or a command did not get through.
pub(super) fn ask(path: &Path, access: Access, brief: bool) -> io::Result<Report> {
    // Without NONBLOCK, opening waits for media, and for what a pipe in its place would never have.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    if !file.metadata()?.file_type().is_block_device() {
        return Err(io::Error::from_raw_os_error(libc::ENOTBLK));
    }
    read(&mut Device(file), access, brief)
}

struct Device(File);

impl Transport for Device {
    fn scsi(&mut self, command: &[u8], data: &mut [u8]) -> io::Result<ScsiAnswer> {
        ioctl::scsi_read(self.0.as_fd(), command, data, TIMEOUT)
    }

    fn log_page(&mut self, page: u8, data: &mut [u8]) -> io::Result<u16> {
        ioctl::nvme_log_page(self.0.as_fd(), page, data, TIMEOUT)
    }
}

/// Asks a disk; if `brief`, an ATA disk only whether it stands still.
///
/// # Errors
/// A command did not get through, or failed in a way that says nothing of what the disk supports.
pub fn read(disk: &mut impl Transport, access: Access, brief: bool) -> io::Result<Report> {
    match access {
        Access::Nvme => read_nvme(disk),
        Access::Ata => Ok(read_ata(disk, brief)?.unwrap_or_default()),
        Access::Bridge => match read_ata(disk, brief)? {
            Some(report) => Ok(report),
            None => read_scsi(disk),
        },
        Access::Scsi => read_scsi(disk),
    }
}

fn read_nvme(disk: &mut impl Transport) -> io::Result<Report> {
    /// Invalid opcode, invalid field, and invalid log page, without the bits "more" and "do not retry".
    const UNSUPPORTED: [u16; 3] = [0x001, 0x002, 0x109];
    let mut page = [0; nvme::LENGTH];
    match disk.log_page(nvme::PAGE, &mut page)? & 0x7ff {
        0 => Ok(nvme::decode(&page).map_or(Report::Silent, Report::Nvme)),
        status if UNSUPPORTED.contains(&status) => Ok(Report::Silent),
        status => Err(io::Error::other(format!("Get Log Page: status {status:#05x}"))),
    }
}

/// None if it is no ATA disk, or its bridge does not translate.
fn read_ata(disk: &mut impl Transport, brief: bool) -> io::Result<Option<Report>> {
    match power(disk)? {
        Power::Unsupported => return Ok(None),
        Power::Standby => return Ok(Some(Report::Standby)),
        Power::On if brief => return Ok(Some(Report::Running)),
        Power::On => {}
    }
    let mut page = [0; ata::LENGTH];
    let Some(bytes) = read_page(disk, &ata::ASK_IDENTITY, &mut page)? else { return Ok(None) };
    let Some(identity) = ata::identity(bytes) else { return Ok(None) };
    let mut health = AtaHealth { identity, ..AtaHealth::default() };
    if !health.identity.smart {
        return Ok(Some(Report::Ata(health)));
    }
    if let Some(bytes) = read_page(disk, &ata::ASK_DATA, &mut page)? {
        match ata::attributes(bytes) {
            Ok(attributes) => health.attributes = attributes,
            Err(malformed) => health.fault = Some(("SMART READ DATA", malformed)),
        }
    }
    if let Some(bytes) = read_page(disk, &ata::ASK_THRESHOLDS, &mut page)?
        && let Err(malformed) = ata::thresholds(bytes, &mut health.attributes)
    {
        health.fault.get_or_insert(("SMART READ THRESHOLDS", malformed));
    }
    let answer = disk.scsi(&ata::ASK_STATUS, &mut [])?;
    // Bridges that keep the registers to themselves leave the judgement to the thresholds.
    health.healthy = match ata::registers(answer.sense()) {
        Some(registers) => ata::is_healthy(registers),
        None => by_thresholds(&health.attributes),
    };
    Ok(Some(Report::Ata(health)))
}

fn by_thresholds(attributes: &Attributes) -> Option<bool> {
    let mut judged = attributes.iter().filter(|one| one.prefailure && one.threshold.is_some());
    judged.clone().next()?;
    Some(!judged.any(ata::Attribute::is_failing))
}

enum Power {
    Unsupported,
    Standby,
    On,
}

fn power(disk: &mut impl Transport) -> io::Result<Power> {
    const NOT_READY: u8 = 0x02;
    const UNIT_ATTENTION: u8 = 0x06;
    let mut answer = disk.scsi(&ata::ASK_POWER, &mut [])?;
    if scsi::sense(answer.sense()).is_some_and(|sense| sense.key == UNIT_ATTENTION) {
        // It told what had happened to it, such as a reset, in the place of an answer.
        answer = disk.scsi(&ata::ASK_POWER, &mut [])?;
    }
    if let Some(registers) = ata::registers(answer.sense()) {
        return Ok(if ata::is_standby(registers) { Power::Standby } else { Power::On });
    }
    match scsi::sense(answer.sense()).filter(|_| answer.status == CHECK_CONDITION) {
        // No registers: as smartctl does, such a disk is asked.
        None if answer.status == 0 => Ok(Power::On),
        Some(sense) if sense.key <= 1 => Ok(Power::On),
        Some(sense) if sense.is_unsupported() => Ok(Power::Unsupported),
        // No medium, or stopped by START STOP UNIT, which only another one undoes.
        Some(sense) if sense.key == NOT_READY => Ok(Power::Standby),
        _ => Err(failed("CHECK POWER MODE", &answer)),
    }
}

/// Reads a page of ATA's; none if the disk does not have it.
fn read_page<'a>(
    disk: &mut impl Transport,
    command: &[u8; 16],
    page: &'a mut [u8; ata::LENGTH],
) -> io::Result<Option<&'a [u8]>> {
    page.fill(0);
    let answer = disk.scsi(command, page)?;
    match scsi::sense(answer.sense()).filter(|_| answer.status == CHECK_CONDITION) {
        None if answer.status == 0 => Ok(page.get(..answer.read)),
        // Recovered; or only told how it went.
        Some(sense) if sense.key <= 1 => Ok(page.get(..answer.read)),
        Some(sense) if sense.is_unsupported() => Ok(None),
        _ => Err(failed("reading a page", &answer)),
    }
}

fn read_scsi(disk: &mut impl Transport) -> io::Result<Report> {
    let mut health = scsi::Health::default();
    if let Some(bytes) = log_sense(disk, scsi::EXCEPTIONS)? {
        health = scsi::exceptions(&bytes);
    }
    if let Some(bytes) = log_sense(disk, scsi::TEMPERATURE)? {
        health.temperature = scsi::temperature(&bytes).or(health.temperature);
    }
    let silent = health == scsi::Health::default();
    Ok(if silent { Report::Silent } else { Report::Scsi(health) })
}

/// Reads a log page; none if the device does not have it, whatever it says instead.
fn log_sense(disk: &mut impl Transport, number: u8) -> io::Result<Option<[u8; scsi::LENGTH]>> {
    let mut page = [0; scsi::LENGTH];
    let answer = disk.scsi(&scsi::log_sense(number), &mut page)?;
    // What was not filled is zeros, which is no parameter of a device's health.
    page.iter_mut().skip(answer.read).for_each(|byte| *byte = 0);
    Ok((answer.status == 0).then_some(page))
}

fn failed(what: &str, answer: &ScsiAnswer) -> io::Error {
    let text = match scsi::sense(answer.sense()) {
        Some(scsi::Sense { key, code: [code, qualifier] }) => {
            format!("{what}: sense key {key:#x}, code {code:#04x}/{qualifier:#04x}")
        }
        None => format!("{what}: status {:#04x}", answer.status),
    };
    io::Error::other(text)
}
