//! Messages of the SCSI middle layer, which also speaks for USB and SATA disks
//! (drivers/scsi/scsi_logging.c, scsi_lib.c, scsi_error.c, drivers/usb/storage/uas.c).
//!
//! A failed command takes four lines and is one notice:
//!
//! ```text
//! sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_SENSE
//! sd 0:0:0:0: [sda] tag#0 Sense Key : Medium Error [current]
//! sd 0:0:0:0: [sda] tag#0 Add. Sense: Unrecovered read error
//! sd 0:0:0:0: [sda] tag#0 CDB: Read(10) 28 00 00 00 00 08 00 00 08 00
//! ```
//!
//! The first makes it if the host's code says what was wrong, else the second. Whether that is an error of
//! the device, and what it is called, is decided as for the tracepoints: agent-common/src/scsi.rs, and the
//! probe's names. If neither line says it, it is a device that is busy or another host's, or the log does
//! not tell it from these; the block layer's message about the request makes a notice then.

use std::hash::{DefaultHasher, Hash, Hasher};

use agent_common::scsi::{NO_SENSE_KEY, code, error};

use super::notice::{Notice, ScsiError};
use super::scan::Scan;
use crate::probe::scsi::{HOST_BYTES, error_name};

/// The lines of a command come within this.
const WINDOW_US: u64 = 2_000_000;

/// The sense keys of drivers/scsi/constants.c, by number.
pub(super) const SENSE_KEYS: [&str; 16] = [
    "No Sense",
    "Recovered Error",
    "Not Ready",
    "Medium Error",
    "Hardware Error",
    "Illegal Request",
    "Unit Attention",
    "Data Protect",
    "Blank Check",
    "Vendor Specific",
    "Copy Aborted",
    "Aborted Command",
    "Equal",
    "Volume Overflow",
    "Miscompare",
    "Completed",
];

/// A device that the kernel has given up: what is sent to it is refused before any tracepoint.
pub(super) const OFFLINE: &str = "offline";
/// A host's code that a later kernel has a word for.
pub(super) const OTHER: &str = "other";

/// What lines without a result begin with. A command is aborted because it was not done in time.
pub(super) const BEGINNINGS: [(&str, Option<u32>); 5] = [
    ("timing out command", Some(code::TIMEOUT)),
    ("uas_eh_abort_handler", Some(code::TIMEOUT)),
    ("Device offlined", None),
    ("rejecting I/O to offline device", None),
    ("rejecting I/O to dead device", None),
];

/// The only command that says "no" to a question and of which the log tells (sd_spinup_disk in
/// drivers/scsi/sd.c); and one that stands for all that ask none.
const TEST_UNIT_READY: u32 = 0x00;
const READ: u32 = 0x28;
/// A status byte.
const CHECK_CONDITION: u32 = 0x02;

/// The command of which the last line was.
#[derive(Debug, Default)]
pub(super) struct Scsi {
    /// Of the line's beginning, up to the tag.
    command: u64,
    usec: u64,
    told: bool,
}

impl Scsi {
    pub(super) fn look(&mut self, text: &str, usec: u64) -> Option<Notice> {
        let line = line(text)?;
        let mut hasher = DefaultHasher::new();
        line.command.hash(&mut hasher);
        let command = hasher.finish();
        let same = command == self.command && usec.saturating_sub(self.usec) <= WINDOW_US;
        let error = if let Some((before, host)) = line.rest.split_once("Result: hostbyte=") {
            let asks = before.starts_with("Test Unit Ready");
            let opcode = if asks { TEST_UNIT_READY } else { READ };
            match host_byte(host).map(|host| error(host << 16, opcode, NO_SENSE_KEY)) {
                Some(Some(code)) => error_name(code),
                Some(None) => {
                    *self = Scsi { command, usec, told: false };
                    return None;
                }
                None => OTHER.to_owned(),
            }
        } else if let Some(key) = line.rest.strip_prefix("Sense Key : ") {
            let told = same && self.told;
            *self = Scsi { command, usec, told: true };
            let code = sense_key(key).and_then(|key| error(CHECK_CONDITION, READ, key));
            return code.filter(|_| !told).map(|code| notice(&line, error_name(code), text));
        } else {
            let is_it = |(words, _): &&(&str, Option<u32>)| line.rest.starts_with(words);
            let (_, code) = BEGINNINGS.iter().find(is_it)?;
            code.map_or_else(|| OFFLINE.to_owned(), error_name)
        };
        *self = Scsi { command, usec, told: true };
        Some(notice(&line, error, text))
    }
}

fn notice(line: &Line<'_>, error: String, text: &str) -> Notice {
    Notice::ScsiError(ScsiError {
        device: line.name.unwrap_or(line.address).to_owned(),
        address: line.address.to_owned(),
        error,
        message: text.to_owned(),
    })
}

struct Line<'a> {
    address: &'a str,
    name: Option<&'a str>,
    command: &'a str,
    rest: &'a str,
}

/// `DRIVER H:C:T:L: [NAME] tag#N REST`, of which name and tag need not be there.
fn line(text: &str) -> Option<Line<'_>> {
    let mut scan = Scan(text);
    ["sd ", "sr ", "scsi ", "ses ", "st "].iter().find(|driver| scan.tag(driver).is_some())?;
    let address = scan.until(": ")?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if address.matches(':').count() != 3 || !address.split(':').all(is_number) {
        return None;
    }
    let mut name = None;
    if scan.tag("[").is_some() {
        name = Some(scan.until("]")?);
        scan.0 = scan.0.trim_start();
    }
    if scan.tag("tag#").is_some() {
        scan.number()?;
        scan.0 = scan.0.trim_start();
    }
    let command = text.get(..text.len() - scan.0.len())?;
    Some(Line { address, name, command, rest: scan.0 })
}

/// The number of a host's code, which stands there instead of its name without CONFIG_SCSI_CONSTANTS.
fn host_byte(host: &str) -> Option<u32> {
    let word = host.split(' ').next().unwrap_or_default();
    match word.strip_prefix("0x") {
        Some(number) => u32::from_str_radix(number, 16).ok().filter(|number| *number <= 0xff),
        None => place(&HOST_BYTES, word),
    }
}

fn sense_key(key: &str) -> Option<u32> {
    let word = key.split_once(" [").map_or(key, |(word, _)| word).trim_end();
    match word.strip_prefix("0x") {
        Some(number) => u32::from_str_radix(number, 16).ok().filter(|number| *number <= 0x0f),
        None => place(&SENSE_KEYS, word),
    }
}

fn place(names: &[&str], word: &str) -> Option<u32> {
    (0..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(number, _)| number)
}
