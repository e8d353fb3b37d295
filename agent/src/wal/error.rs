//! What can go wrong in the log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on the log's files.
#[derive(Debug)]
pub struct WalError {
    /// What was attempted, in a participle: "writing a record".
    pub attempt: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What came back.
    pub source: io::Error,
}

impl WalError {
    fn new(attempt: &'static str, path: PathBuf, source: io::Error) -> WalError {
        WalError { attempt, path, source }
    }

    pub(super) fn open(directory: &Path, source: io::Error) -> WalError {
        WalError::new("opening the WAL", directory.to_owned(), source)
    }

    pub(super) fn write(directory: &Path, source: io::Error) -> WalError {
        WalError::new("writing to the WAL", directory.to_owned(), source)
    }

    pub(super) fn sync(directory: &Path, source: io::Error) -> WalError {
        WalError::new("syncing the WAL", directory.to_owned(), source)
    }

    pub(super) fn create(directory: &Path, name: &str, source: io::Error) -> WalError {
        WalError::new("creating the WAL segment", directory.join(name), source)
    }

    pub(super) fn read(directory: &Path, name: &str, source: io::Error) -> WalError {
        WalError::new("reading the WAL file", directory.join(name), source)
    }

    pub(super) fn gone(directory: &Path, name: &str) -> WalError {
        let source = io::Error::new(
            io::ErrorKind::NotFound,
            "it is no longer there: the directory was deleted, moved or unmounted",
        );
        WalError::new("writing to the WAL segment", directory.join(name), source)
    }

    pub(super) fn remove(directory: &Path, name: &str, source: io::Error) -> WalError {
        WalError::new("removing the WAL file", directory.join(name), source)
    }

    pub(super) fn rewrite(directory: &Path, name: &str, source: io::Error) -> WalError {
        WalError::new("writing once more the WAL segment", directory.join(name), source)
    }

    pub(super) fn truncate(directory: &Path, name: &str, source: io::Error) -> WalError {
        WalError::new("cutting off the torn end of the WAL segment", directory.join(name), source)
    }

    pub(super) fn set_aside(directory: &Path, name: &str, source: io::Error) -> WalError {
        WalError::new("setting aside the WAL file", directory.join(name), source)
    }
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.attempt, self.path.display(), self.source)
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why a record was not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The log has reached its bound and may not drop anything for this.
    Full {
        /// The bound in bytes.
        max_bytes: u64,
    },
    /// The file system has less than `min_free` left, and the log may not drop anything for this.
    NoSpace {
        /// Bytes that the file system has.
        free: u64,
        /// Bytes that it must keep.
        min_free: u64,
    },
    /// The record is larger than a record may be: a quarter of the bound.
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A write or a sync failed just now. The log takes nothing until it is opened again.
    Failed(WalError),
    /// A write or a sync failed before.
    Broken,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Full { max_bytes } => write!(f, "the WAL is full ({max_bytes} bytes)"),
            AppendError::NoSpace { free, min_free } => write!(
                f,
                "the file system has {free} bytes left, and wal.min_free keeps {min_free} of them"
            ),
            AppendError::TooLarge { bytes, max } => {
                write!(f, "a record of {bytes} bytes is larger than the WAL allows ({max})")
            }
            AppendError::Failed(error) => write!(f, "{error}"),
            AppendError::Broken => f.write_str("the WAL is closed after a failed write"),
        }
    }
}

impl std::error::Error for AppendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AppendError::Failed(error) => Some(error),
            _ => None,
        }
    }
}
