//! Messages of SD cards and eMMC: the core and the block driver (drivers/mmc/core), sdhci and its
//! command queue (drivers/mmc/host/sdhci.c, cqhci-core.c), and the Raspberry Pi's own hosts.
//!
//! `mmc0: …` is a host, `mmcblk0: …` and `mmcblk0p1: …` the disk on it, which has the host's number
//! from 4.6 on. The dump of registers that follows a timeout makes no notice.

use super::filesystem::MAX_ERRNO;
use super::notice::{MmcError, Notice};
use super::scan::{Scan, phrase};
use crate::probe::errno;

/// What is wrong: an errno's name where the kernel has one for it, as the tracepoint gives it; else what
/// the host's driver says of itself, with which no request ends. In this order, for a text may have more
/// than one; an empty one is no error.
pub(super) const PHRASES: [(&str, &str); 18] = [
    ("sdhci: ===", ""),
    ("response CRC error", "EILSEQ"),
    ("timed out sending", "ETIMEDOUT"),
    ("imeout waiting for hardware", "ETIMEDOUT"),
    ("cqhci: timeout", "ETIMEDOUT"),
    ("Card stuck", "busy"),
    ("never left busy", "busy"),
    ("still busy", "busy"),
    ("Card removed during transfer", "ENOMEDIUM"),
    ("never released inhibit", "controller"),
    ("never completed", "controller"),
    ("clock never stabilised", "controller"),
    ("ADMA error", "dma"),
    ("even though no", "interrupt"),
    ("Unexpected interrupt", "interrupt"),
    ("tuning execution failed", "tuning"),
    ("recovery failed", "recovery"),
    ("running CQE recovery", "recovery"),
];

pub(super) fn look(text: &str) -> Option<Notice> {
    let host = host(text)?;
    let error = match phrase(text, &PHRASES) {
        Some("") => return None,
        Some(error) => error.to_owned(),
        None => errno::name(coded(text)?),
    };
    Some(Notice::MmcError(MmcError { host, error, message: text.to_owned() }))
}

/// `error -110 whilst initialising SD card`: the negative number of an errno.
fn coded(text: &str) -> Option<u32> {
    let (_, code) = text.split_once("error -")?;
    let mut code = Scan(code);
    let number = code.number()?;
    // A process may be called "mmc0: error -11", and some messages begin with its name: "… invoked
    // oom-killer", "… (12) used greatest stack depth".
    if !code.0.is_empty() {
        code.tag(" ")?;
        let word = code.word(&[' '])?;
        let is_verb = word.bytes().all(|byte| byte.is_ascii_lowercase()) && word != "invoked";
        is_verb.then_some(())?;
    }
    u32::try_from(number).ok().filter(|number| (1..MAX_ERRNO).contains(number))
}

fn host(text: &str) -> Option<String> {
    let mut scan = Scan(text);
    // sdhost-bcm2835 20202000.mmc: timeout waiting for hardware interrupt.
    for driver in ["sdhost-bcm2835 ", "mmc-bcm2835 "] {
        if scan.tag(driver).is_some() {
            return scan.until(": ").map(str::to_owned);
        }
    }
    scan.tag("mmc")?;
    let is_disk = scan.tag("blk").is_some();
    let number = scan.number()?;
    if is_disk {
        // p1, boot0, rpmb, gp0
        let part = scan.0.find(':')?;
        scan.0 = scan.0.get(part..).filter(|_| part <= 8)?;
    }
    scan.tag(": ")?;
    Some(format!("mmc{number}"))
}
