//! Messages of libata's error handler (drivers/ata/libata-eh.c, ata_eh_link_report and _reset).
//!
//! ```text
//! ata1.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x0
//! ata1.00: irq_stat 0x40000001
//! ata1.00: failed command: READ DMA
//! ata1.00: cmd c8/00:08:…/e0 tag 0 dma 4096 in          res 51/40:08:…/e0 Emask 0x9 (media error)
//! ata1.00: status: { DRDY ERR }
//! ata1.00: error: { UNC }
//! ata1: hard resetting link
//! ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)
//! ```
//!
//! Each failed command is a notice, by its `cmd` line, which says what was wrong; an exception of a
//! device always comes with one, an exception of a port has none and is a notice itself. A link that is
//! down is the normal state of an empty port: only within a minute after an error it is one.

use super::notice::{AtaError, Notice};
use super::scan::{Scan, phrase};

/// ata_err_string in drivers/ata/libata-eh.c.
const MASKS: [(&str, &str); 10] = [
    ("(host bus error)", "host_bus"),
    ("(ATA bus error)", "bus"),
    ("(timeout)", "timeout"),
    ("(HSM violation)", "hsm"),
    ("(internal error)", "internal"),
    ("(media error)", "media"),
    ("(invalid argument)", "invalid"),
    ("(device error)", "device"),
    ("(NCQ error)", "ncq"),
    ("(unknown error)", "other"),
];

/// What the lines without a command begin with.
const BEGINNINGS: [(&str, &str); 7] = [
    ("hard resetting link", "reset"),
    ("soft resetting link", "reset"),
    ("COMRESET failed", "reset_failed"),
    ("reset failed", "reset_failed"),
    ("SATA link down", LINK_DOWN),
    ("limiting SATA link speed", "slowed"),
    ("qc timeout", "timeout"),
];

pub(super) const LINK_DOWN: &str = "link_down";

/// A link that is down is found here like any other error; who calls knows what was before.
pub(super) fn look(text: &str) -> Option<Notice> {
    let mut scan = Scan(text);
    scan.tag("ata")?;
    let number = scan.number()?;
    let is_device = scan.tag(".").and_then(|()| scan.number()).is_some();
    scan.tag(": ")?;
    let error = if let Some(command) = scan.0.strip_prefix("cmd ") {
        let (_, mask) = command.rsplit_once(" Emask 0x")?;
        phrase(mask, &MASKS).unwrap_or("other")
    } else if scan.0.starts_with("exception Emask") {
        (!is_device).then_some("link")?
    } else if scan.0 == "disabled" || scan.0 == "disable device" {
        "disabled"
    } else {
        BEGINNINGS.iter().find(|(words, _)| scan.0.starts_with(words)).map(|(_, label)| *label)?
    };
    let message = text.to_owned();
    Some(Notice::AtaError(AtaError { port: format!("ata{number}"), error, message }))
}
