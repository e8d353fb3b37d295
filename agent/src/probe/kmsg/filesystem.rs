//! Messages of file systems about damage and loss (fs/ext4/super.c, fs/jbd2, fs/btrfs/messages.c and
//! super.c, fs/xfs/xfs_message.c, fs/f2fs, fs/fat/misc.c, fs/exfat/misc.c, fs/squashfs), and the page
//! cache's about data that it could not write (fs/buffer.c, buffer_io_error).
//!
//! That a buffer could not be read makes no notice: the request that failed for it makes one.
//!
//! What a line says is given the value that the tracepoints' probe gives it: the kind of a file system
//! whose structures are broken, else the error for which written data was lost.

use super::notice::{FilesystemError, Notice};
use super::scan::{Scan, number_after, phrase};
use crate::probe::errno;

/// What a phrase says, in the values that the tracepoints' probe has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing: advice, or what another message tells.
    Nothing,
    /// A broken structure, for which the probe has the file system's kind: `ext4`.
    Damage,
    /// Written data was lost because of an I/O error.
    Lost,
    /// As `Lost`, by the error whose number stands behind "error".
    LostBy,
    /// What the file system has come to, for which there is no tracepoint.
    State(&'static str),
}

type Phrases = &'static [(&'static str, Says)];

/// ext2, ext3 and ext4, when it is not `error (device …)`.
const EXT: Phrases = &[
    ("Remounting filesystem read-only", Says::State("read_only")),
    ("potential data loss", Says::LostBy),
    ("Delayed block allocation failed", Says::LostBy),
    ("I/O error while writing superblock", Says::Lost),
    ("previous I/O error to superblock detected", Says::Lost),
];

/// ext2, ext3 and ext4, `warning (device …)`. The others are no errors.
const EXT_WARNING: Phrases = &[(" writing to inode ", Says::Lost)];

/// ext2, ext3 and ext4, `error (device …)`.
const EXT_ERROR: Phrases = &[("", Says::Damage)];

const JBD: Phrases = &[
    ("Aborting journal", Says::State("journal_aborted")),
    ("Detected IO errors while flushing file data", Says::Lost),
    ("when updating journal superblock", Says::LostBy),
];

const BTRFS: Phrases = &[
    ("forced readonly", Says::State("read_only")),
    ("lost page write", Says::Lost),
    ("errs: wr ", Says::Damage),
    ("csum failed", Says::Damage),
    ("checksum", Says::Damage),
    ("csum mismatch", Says::Damage),
    ("corrupt ", Says::Damage),
    ("BTRFS: error (device ", Says::Damage),
    ("BTRFS error (device ", Says::Damage),
    ("BTRFS critical (device ", Says::Damage),
    ("BTRFS alert (device ", Says::Damage),
    ("BTRFS emergency (device ", Says::Damage),
];

const XFS: Phrases = &[
    // Advice, below what it is about.
    ("Unmount and run xfs_repair", Says::Nothing),
    ("Please unmount the filesystem and rectify", Says::Nothing),
    ("Metadata corruption detected", Says::Damage),
    ("Metadata CRC error detected", Says::Damage),
    ("Corruption ", Says::Damage),
    ("orruption warning", Says::Damage),
    ("Internal error", Says::Damage),
    ("hutting down filesystem", Says::State("shutdown")),
    ("has been shut down", Says::State("shutdown")),
    ("User initiated shutdown", Says::State("shutdown")),
    ("log I/O error", Says::Damage),
    ("metadata I/O error", Says::Damage),
    ("writeback error on", Says::Lost),
    ("xfs_log_force: error", Says::Damage),
    ("xfs_do_force_shutdown", Says::State("shutdown")),
];

const F2FS: Phrases = &[
    // Said of every other file system that is tried as f2fs.
    ("Can't find valid F2FS", Says::Nothing),
    ("Magic Mismatch", Says::Nothing),
    ("Stopped filesystem", Says::State("shutdown")),
    ("checkpoint error", Says::State("shutdown")),
    ("nconsistent", Says::Damage),
    ("orrupt", Says::Damage),
];

const FAT: Phrases = &[
    ("): error, ", Says::Damage),
    ("set read-only", Says::State("read_only")),
    ("not properly unmounted", Says::State("unclean")),
];

const SQUASHFS: Phrases = &[("", Says::Damage)];

const PAGE_CACHE: Phrases =
    &[(", lost async page write", Says::Lost), (", lost sync page write", Says::Lost)];

/// Each kind of file system with its phrases; ext2 and ext3 have those of ext4.
#[cfg(test)]
pub(super) const TABLES: [(&str, Phrases); 11] = [
    ("ext4", EXT),
    ("ext4", EXT_WARNING),
    ("ext4", EXT_ERROR),
    ("ext4", JBD),
    ("btrfs", BTRFS),
    ("xfs", XFS),
    ("f2fs", F2FS),
    ("fat", FAT),
    ("exfat", FAT),
    ("squashfs", SQUASHFS),
    ("unknown", PAGE_CACHE),
];

pub(super) fn look(text: &str, level: u8) -> Option<Notice> {
    let mut scan = Scan(text);
    let (filesystem, device, says) = if scan.tag("EXT").is_some() {
        let filesystem = match scan.0.bytes().next()? {
            b'2' => "ext2",
            b'3' => "ext3",
            _ => "ext4",
        };
        scan.0 = scan.0.get(1..)?;
        scan.tag("-fs ")?;
        if scan.tag("error (device ").is_some() {
            (filesystem, name(&mut scan)?, phrase(text, EXT_ERROR)?)
        } else if scan.tag("warning (device ").is_some() {
            (filesystem, name(&mut scan)?, phrase(text, EXT_WARNING)?)
        } else {
            scan.tag("(")?;
            (filesystem, name(&mut scan)?, phrase(text, EXT)?)
        }
    } else if text.starts_with("Aborting journal on device ") || scan.tag("JBD2: ").is_some() {
        let says = phrase(text, JBD)?;
        let device = ["on device ", "file data on ", "superblock for "];
        let device = device.iter().find_map(|before| text.split_once(before));
        ("ext4", device.map_or("unknown", |(_, device)| journal(device)), says)
    } else if text.starts_with("BTRFS") {
        let says = phrase(text, BTRFS)?;
        scan.until("(device ")?;
        ("btrfs", name(&mut scan)?, says)
    } else if scan.tag("XFS (").is_some() {
        ("xfs", name(&mut scan)?, phrase(text, XFS)?)
    } else if scan.tag("F2FS-fs (").is_some() {
        let says = phrase(text, F2FS).or((level <= 3).then_some(Says::Damage))?;
        ("f2fs", name(&mut scan)?, says)
    } else if scan.tag("FAT-fs (").is_some() {
        ("fat", name(&mut scan)?, phrase(text, FAT)?)
    } else if scan.tag("exFAT-fs (").is_some() {
        ("exfat", name(&mut scan)?, phrase(text, FAT)?)
    } else if scan.tag("SQUASHFS error: ").is_some() {
        ("squashfs", "unknown", phrase(text, SQUASHFS)?)
    } else if scan.tag("Buffer I/O error on dev ").is_some() {
        let device = scan.until(", logical block ")?;
        ("unknown", device, phrase(scan.0, PAGE_CACHE)?)
    } else {
        return None;
    };
    let error = says.error(filesystem, text)?;
    let (device, message) = (device.to_owned(), text.to_owned());
    Some(Notice::FilesystemError(FilesystemError { device, filesystem, error, message }))
}

impl Says {
    /// What the probe calls it, of this kind of file system.
    pub(super) fn error(self, filesystem: &str, text: &str) -> Option<String> {
        match self {
            Says::Nothing => None,
            Says::Damage => Some(filesystem.to_owned()),
            Says::Lost => Some(errno::name(EIO)),
            Says::LostBy => {
                let number = number_after(text, "rror -").or_else(|| number_after(text, "rror "));
                let number = number.and_then(|number| u32::try_from(number).ok());
                Some(errno::name(number.filter(|n| (1..MAX_ERRNO).contains(n)).unwrap_or(EIO)))
            }
            Says::State(state) => Some(state.to_owned()),
        }
    }
}

const EIO: u32 = 5;
/// Numbers of errors are lower (include/linux/err.h).
pub(super) const MAX_ERRNO: u32 = 4096;

/// The device in parentheses: `sda1)`, `sda1): `, `sda1 state EA)`, `sda1: state A)`.
fn name<'a>(scan: &mut Scan<'a>) -> Option<&'a str> {
    scan.word(&[')', ' ', ':'])
}

/// The device of a journal: `sda1-8` is the inode 8 on sda1. A full stop may follow.
fn journal(device: &str) -> &str {
    let device = device.trim_end_matches('.');
    device.rsplit_once('-').map_or(device, |(device, _)| device)
}
