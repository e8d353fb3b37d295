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
//! The first makes it if the host's code says what was wrong, the second if the device says it, the last
//! if nobody did.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::notice::{Notice, ScsiError};
use super::scan::Scan;

/// The lines of a command come within this.
const WINDOW_US: u64 = 2_000_000;

/// DID_… of include/scsi/scsi_status.h, by number, for kernels without CONFIG_SCSI_CONSTANTS.
const HOST_BYTES: [&str; 21] = [
    "ok",
    "no_connect",
    "bus_busy",
    "time_out",
    "bad_target",
    "abort",
    "parity",
    "error",
    "reset",
    "bad_intr",
    "passthrough",
    "soft_error",
    "imm_retry",
    "requeue",
    "transport_disrupted",
    "transport_failfast",
    "target_failure",
    "nexus_failure",
    "alloc_failure",
    "medium_error",
    "transport_marginal",
];

/// The sense keys of drivers/scsi/constants.c, by number.
const SENSE_KEYS: [(&str, &str); 16] = [
    ("No Sense", ""),
    // The command has succeeded.
    ("Recovered Error", ""),
    ("Not Ready", "not_ready"),
    ("Medium Error", "medium_error"),
    ("Hardware Error", "hardware_error"),
    ("Illegal Request", "illegal_request"),
    ("Unit Attention", "unit_attention"),
    ("Data Protect", "data_protect"),
    ("Blank Check", "blank_check"),
    ("Vendor Specific", "vendor_specific"),
    ("Copy Aborted", "copy_aborted"),
    ("Aborted Command", "aborted_command"),
    ("Equal", "other"),
    ("Volume Overflow", "volume_overflow"),
    ("Miscompare", "miscompare"),
    ("Completed", ""),
];

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
        let error = if let Some((_, host)) = line.rest.split_once("Result: hostbyte=") {
            match host_byte(host) {
                "ok" => {
                    *self = Scsi { command, usec, told: false };
                    return None;
                }
                error => error,
            }
        } else if let Some(key) = line.rest.strip_prefix("Sense Key : ") {
            let told = same && self.told;
            let error = sense_key(key);
            *self = Scsi { command, usec, told: true };
            return if told || error.is_empty() { None } else { Some(notice(&line, error, text)) };
        } else if line.rest.starts_with("CDB: ") || line.rest.starts_with("Sense not available") {
            let waiting = same && !std::mem::replace(&mut self.told, true);
            return waiting.then(|| notice(&line, "other", text));
        } else if line.rest.starts_with("timing out command") {
            "time_out"
        } else if line.rest.contains("uas_eh_abort_handler") {
            "abort"
        } else if line.rest.starts_with("Device offlined")
            || line.rest.starts_with("rejecting I/O to offline device")
            || line.rest.starts_with("rejecting I/O to dead device")
        {
            "offline"
        } else {
            return None;
        };
        *self = Scsi { command, usec, told: true };
        Some(notice(&line, error, text))
    }
}

fn notice(line: &Line<'_>, error: &'static str, text: &str) -> Notice {
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

fn host_byte(host: &str) -> &'static str {
    let word = host.split(' ').next().unwrap_or_default();
    if let Some(number) = word.strip_prefix("0x") {
        let number = usize::from_str_radix(number, 16).ok();
        return number.and_then(|n| HOST_BYTES.get(n)).copied().unwrap_or("other");
    }
    let word = word.strip_prefix("DID_").unwrap_or(word);
    HOST_BYTES.into_iter().find(|name| name.eq_ignore_ascii_case(word)).unwrap_or("other")
}

fn sense_key(key: &str) -> &'static str {
    let word = key.split_once(" [").map_or(key, |(word, _)| word).trim_end();
    let found = match word.strip_prefix("0x") {
        Some(number) => usize::from_str_radix(number, 16).ok().and_then(|n| SENSE_KEYS.get(n)),
        None => SENSE_KEYS.iter().find(|(name, _)| *name == word),
    };
    found.map_or("other", |(_, label)| label)
}
