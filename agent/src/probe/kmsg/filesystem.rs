//! Messages of file systems about damage and loss (fs/ext4/super.c, fs/jbd2, fs/btrfs/messages.c and
//! super.c, fs/xfs/xfs_message.c, fs/f2fs, fs/fat/misc.c, fs/exfat/misc.c, fs/squashfs), and the page
//! cache's about data that it could not write (fs/buffer.c, buffer_io_error).
//!
//! That a buffer could not be read makes no notice: the request that failed for it makes one.

use super::notice::{FilesystemError, Notice};
use super::scan::{Scan, phrase};

type Phrases = &'static [(&'static str, &'static str)];

/// ext2, ext3 and ext4, when it is not `error (device …)`.
const EXT: Phrases = &[
    ("Remounting filesystem read-only", "read_only"),
    ("potential data loss", "lost_write"),
    ("Data will be lost", "lost_write"),
    ("Delayed block allocation failed", "lost_write"),
    ("I/O error while writing superblock", "lost_write"),
    ("previous I/O error to superblock detected", "lost_write"),
];

const JBD: Phrases = &[
    ("Aborting journal", "journal_aborted"),
    ("Detected IO errors while flushing file data", "lost_write"),
    ("when updating journal superblock", "lost_write"),
    ("I/O error reading journal", "io"),
];

const BTRFS: Phrases = &[
    ("forced readonly", "read_only"),
    ("errs: wr ", "device"),
    ("csum failed", "checksum"),
    ("checksum", "checksum"),
    ("csum mismatch", "checksum"),
    ("lost page write", "lost_write"),
    ("corrupt ", "corruption"),
];

/// What a line of the given severity is, when no phrase says more.
const BTRFS_LEVELS: Phrases = &[
    ("BTRFS: error (device ", "error"),
    ("BTRFS error (device ", "error"),
    ("BTRFS critical (device ", "error"),
    ("BTRFS alert (device ", "error"),
    ("BTRFS emergency (device ", "error"),
];

const XFS: Phrases = &[
    // Advice, below what it is about.
    ("Unmount and run xfs_repair", ""),
    ("Please unmount the filesystem and rectify", ""),
    ("Metadata corruption detected", "corruption"),
    ("Metadata CRC error detected", "checksum"),
    ("Corruption ", "corruption"),
    ("orruption warning", "corruption"),
    ("Internal error", "corruption"),
    ("hutting down filesystem", "shutdown"),
    ("has been shut down", "shutdown"),
    ("User initiated shutdown", "shutdown"),
    ("log I/O error", "io"),
    ("metadata I/O error", "io"),
    ("writeback error on", "lost_write"),
    ("xfs_log_force: error", "io"),
    ("xfs_do_force_shutdown", "shutdown"),
];

const F2FS: Phrases = &[
    // Said of every other file system that is tried as f2fs.
    ("Can't find valid F2FS", ""),
    ("Magic Mismatch", ""),
    ("Stopped filesystem", "shutdown"),
    ("checkpoint error", "shutdown"),
    ("nconsistent", "corruption"),
    ("orrupt", "corruption"),
];

const FAT: Phrases = &[
    ("): error, ", "error"),
    ("set read-only", "read_only"),
    ("not properly unmounted", "unclean"),
];

const PAGE_CACHE: Phrases =
    &[(", lost async page write", "lost_write"), (", lost sync page write", "lost_write")];

pub(super) fn look(text: &str, level: u8) -> Option<Notice> {
    let mut scan = Scan(text);
    let (filesystem, device, error) = if scan.tag("EXT").is_some() {
        let filesystem = match scan.0.bytes().next()? {
            b'2' => "ext2",
            b'3' => "ext3",
            _ => "ext4",
        };
        scan.0 = scan.0.get(1..)?;
        scan.tag("-fs ")?;
        if scan.tag("error (device ").is_some() {
            (filesystem, name(&mut scan)?, "error")
        } else if scan.tag("warning (device ").is_some() {
            (filesystem, name(&mut scan)?, "warning")
        } else {
            scan.tag("(")?;
            (filesystem, name(&mut scan)?, phrase(text, EXT)?)
        }
    } else if text.starts_with("Aborting journal on device ") || scan.tag("JBD2: ").is_some() {
        let error = phrase(text, JBD)?;
        let device = ["on device ", "file data on ", "superblock for "];
        let device = device.iter().find_map(|before| text.split_once(before));
        ("ext4", device.map_or("unknown", |(_, device)| journal(device)), error)
    } else if text.starts_with("BTRFS") {
        let error = phrase(text, BTRFS).or_else(|| phrase(text, BTRFS_LEVELS))?;
        scan.until("(device ")?;
        ("btrfs", name(&mut scan)?, error)
    } else if scan.tag("XFS (").is_some() {
        ("xfs", name(&mut scan)?, phrase(text, XFS)?)
    } else if scan.tag("F2FS-fs (").is_some() {
        let error = phrase(text, F2FS).or((level <= 3).then_some("error"))?;
        ("f2fs", name(&mut scan)?, error)
    } else if scan.tag("FAT-fs (").is_some() {
        ("fat", name(&mut scan)?, phrase(text, FAT)?)
    } else if scan.tag("exFAT-fs (").is_some() {
        ("exfat", name(&mut scan)?, phrase(text, FAT)?)
    } else if scan.tag("SQUASHFS error: ").is_some() {
        ("squashfs", "unknown", "error")
    } else if scan.tag("Buffer I/O error on dev ").is_some() {
        let device = scan.until(", logical block ")?;
        ("unknown", device, phrase(scan.0, PAGE_CACHE)?)
    } else {
        return None;
    };
    if error.is_empty() {
        return None;
    }
    let (device, message) = (device.to_owned(), text.to_owned());
    Some(Notice::FilesystemError(FilesystemError { device, filesystem, error, message }))
}

/// The device in parentheses: `sda1)`, `sda1): `, `sda1 state EA)`, `sda1: state A)`.
fn name<'a>(scan: &mut Scan<'a>) -> Option<&'a str> {
    scan.word(&[')', ' ', ':'])
}

/// The device of a journal: `sda1-8` is the inode 8 on sda1. A full stop may follow.
fn journal(device: &str) -> &str {
    let device = device.trim_end_matches('.');
    device.rsplit_once('-').map_or(device, |(device, _)| device)
}
