//! systemd's journal files, read without libsystemd: all files of some directories as one sequence
//! of entries, in sd-journal's order, each once.
//!
//! **Use.** [`Journal::new`], [`Journal::seek`], then [`Journal::next`] until it says [`Next::Idle`];
//! when inotify tells of a change in one of [`Journal::directories`], [`Journal::rescan`] if a file
//! came, went or was renamed, and [`Journal::next`] again. [`Journal::cursor`] says where that was.
//!
//! **Format**: <https://systemd.io/JOURNAL_FILE_FORMAT/> and systemd's `journal-def.h`, regular and
//! compact, data compressed by XZ, LZ4 or zstd. The crates that read it (sdjournal 0.1,
//! systemd-journal-sdk 0.10) hold every file open, map it into memory or read it in pieces without a
//! bound, have a C library for XZ or a licence that does not fit; hence own code.
//!
//! **No mmap**: a failing card would answer with SIGBUS. Everything is read with pread through one
//! small cache of pages that all files share (`pages.rs`); a file costs its row in a table, and at most
//! [`Limits::open_files`] are open.
//!
//! **While journald writes**: the header's `n_entries` is read first, and pages are thrown away when
//! it has changed, so that what it covers is whole. Past it nothing is looked at.
//!
//! **Damage** costs the entry or the data object that it hit; it is counted, and told once for each
//! file. Payloads are not checked against their hashes, as sd-journal doesn't either.
//!
//! **A read that fails** (EIO, no descriptor left) passes over nothing: [`Next::Later`] says so, eight times;
//! then what can't be read is damage. Files whose permissions forbid it are left out at once.
//!
//! **Order and identity** are in `order.rs`, what a stored position holds in `cursor.rs`. Lost entries
//! (vacuumed while nobody read) show as missing numbers and are counted; while some file may not be
//! read nothing is said of them, since that file may have them.
//!
//! The module must not know labels, configuration, or how changes are noticed.

mod cursor;
mod data;
mod decompress;
mod entry;
mod file;
mod format;
mod matches;
mod merge;
mod order;
mod pages;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use cursor::Cursor;
pub use entry::{Entry, FieldSet};
pub use matches::{MatchError, Matches};
pub use merge::Journal;

// The source: the one user of the reader.
mod labels;
mod place;
mod position;
mod source;
mod streams;
mod units;

pub use labels::LABELS;
pub use position::KEY;
pub use source::{JournalSource, Options};
pub use units::{UnitError, Units};

/// A 128-bit id of systemd's: machine, boot, file, sequence.
pub type Id = [u8; 16];

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest entry.
    Head,
    /// After the newest entry of now.
    Tail,
    /// In each file with the first entry from this time on, in microseconds since 1970. Entries that a
    /// wrong clock dated before it can follow, and where the clock was set back, more than asked for.
    Since(u64),
    /// After what was read.
    After(Cursor),
}

/// What [`Journal::next`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The entry is the next one.
    Entry,
    /// Nothing more to read for now.
    Idle,
    /// Many entries were passed over; there may be more, call again.
    Busy,
    /// Something can't be read for now, and nothing is passed over: call again after a while.
    Later,
}

/// Where journal files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The directory. It need not exist.
    pub path: PathBuf,
    /// Its subdirectories too, one level: those of all machines and namespaces.
    pub subdirectories: bool,
}

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files known at once; more are counted and left out.
    pub files: usize,
    /// Files open at once.
    pub open_files: usize,
    /// Entries that one [`Journal::next`] may pass over.
    pub passed_over: usize,
    /// Bytes of all wanted fields of one entry together; fields beyond it are left out.
    pub entry_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { files: 4_096, open_files: 8, passed_over: 4_096, entry_bytes: 1 << 20 }
    }
}

/// What was met since the journal was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries given out.
    pub entries: u64,
    /// Entries passed over because they don't match.
    pub unmatched: u64,
    /// Entries that two files had.
    pub repeated: u64,
    /// Entries that no file has any more, or whose objects are damaged.
    pub lost_entries: u64,
    /// Objects that are damaged or could not be read.
    pub damaged_objects: u64,
    /// Times a file could not be opened, or was no journal file that can be read.
    pub unreadable_files: u64,
    /// Files beyond [`Limits::files`], at the last scan.
    pub files_left_out: u64,
    /// Values that were cut at their field's bound, or left out for [`Limits::entry_bytes`].
    pub cut_values: u64,
}

/// A file, or a part of it, that could not be read; the others go on.
#[derive(Debug)]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub problem: Problem,
}

/// Why a file could not be read.
#[derive(Debug)]
pub enum Problem {
    /// The system said no.
    Io(&'static str, io::Error),
    /// It is not a journal file.
    NotAJournal,
    /// The header has values that can't be.
    BadHeader(&'static str),
    /// It needs what is not known here: the names, or numbers, of the flags.
    Unsupported(u32),
    /// An object is not what leads to it says: what, and where.
    Damaged(&'static str, u64),
}

impl Problem {
    /// Whether the next try may say something else.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Problem::Io(_, error) if error.kind() != io::ErrorKind::PermissionDenied)
    }

    pub(super) fn at(self, path: &Path) -> JournalError {
        JournalError { path: path.to_owned(), problem: self }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problem::Io(what, error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "journal {path}: can't {what}: {error}; the agent's user needs the group systemd-journal"
            ),
            Problem::Io(what, error) => write!(f, "journal {path}: can't {what}: {error}"),
            Problem::NotAJournal => write!(f, "journal {path}: not a journal file, left out"),
            Problem::BadHeader(what) => {
                write!(f, "journal {path}: damaged header ({what}), the file is left out")
            }
            Problem::Unsupported(flags) => {
                write!(f, "journal {path}: the file uses the incompatible flag")?;
                for bit in (0..32).filter(|bit| flags & (1 << bit) != 0) {
                    write!(f, " {:#x}", 1u32 << bit)?;
                }
                write!(f, " of a newer systemd: not supported, the file is left out")
            }
            Problem::Damaged(what, offset) => write!(
                f,
                "journal {path}: damaged {what} at byte {offset}; what can be read of the file is, \
                 the rest is counted and passed over"
            ),
        }
    }
}

impl std::error::Error for JournalError {}
