//! The machine as the agent sees it: where /proc, /sys and / are, and one buffer through which their
//! files are read. It must not know what the files mean.

mod clock;
mod identity;
pub mod kmsg;
pub(crate) mod text;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use clock::{Clock, ManualClock, SystemClock};
pub use identity::hostname;
pub use kmsg::Kmsg;

/// More than any file that the agent reads whole; /proc/stat of 512 CPUs has 60 KiB.
const MAX_FILE: u64 = 4 << 20;

/// Where the host is mounted; other than the defaults in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`
    pub proc: PathBuf,
    /// `/sys`
    pub sys: PathBuf,
    /// `/`
    pub root: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { proc: "/proc".into(), sys: "/sys".into(), root: "/".into() }
    }
}

/// The roots and a reused read buffer.
#[derive(Debug)]
pub struct Host {
    roots: Roots,
    buffer: Vec<u8>,
    path: PathBuf,
}

/// A file that could not be read.
#[derive(Debug)]
pub struct ReadError {
    /// The whole path, root included.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl ReadError {
    /// Whether the file simply is not there: no such file, directory, device or process.
    pub fn is_absent(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound};
        matches!(self.source.kind(), NotFound | NotADirectory)
            || matches!(
                self.source.raw_os_error(),
                Some(libc_errno::ENODEV | libc_errno::ENXIO | libc_errno::EOPNOTSUPP)
            )
    }
}

/// The numbers that `std::io::ErrorKind` has no stable name for (asm-generic/errno.h).
mod libc_errno {
    pub(super) const ENXIO: i32 = 6;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EOPNOTSUPP: i32 = 95;
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reading {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Host {
    /// A host with these roots.
    pub fn new(roots: Roots) -> Host {
        Host { roots, buffer: Vec::new(), path: PathBuf::new() }
    }

    /// The roots.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Reads a file below the root of /proc, such as `net/dev`. The bytes are good until the next
    /// read.
    ///
    /// # Errors
    /// Whatever opening or reading the file gave, and a file larger than 4 MiB.
    pub fn proc(&mut self, relative: &str) -> Result<&[u8], ReadError> {
        self.path.clear();
        self.path.push(&self.roots.proc);
        self.path.push(relative);
        self.read()
    }

    /// Reads a file below the root of /sys, such as `class/net/eth0/mtu`.
    ///
    /// # Errors
    /// As [`proc`](Host::proc).
    pub fn sys(&mut self, relative: &str) -> Result<&[u8], ReadError> {
        self.path.clear();
        self.path.push(&self.roots.sys);
        self.path.push(relative);
        self.read()
    }

    /// Reads a file below the root of the file system, such as `run/udev/data/b8:0`.
    ///
    /// # Errors
    /// As [`proc`](Host::proc).
    pub fn root(&mut self, relative: &str) -> Result<&[u8], ReadError> {
        self.path.clear();
        self.path.push(&self.roots.root);
        self.path.push(relative);
        self.read()
    }

    /// What the last read gave; empty or partial if it failed.
    pub fn last(&self) -> &[u8] {
        &self.buffer
    }

    /// The names in a directory below the root of /sys, such as `class/net`, in the order of their
    /// names. It allocates: for what is looked up once and remembered.
    ///
    /// # Errors
    /// Whatever opening or reading the directory gave. Names that are not UTF-8 are left out.
    pub fn sys_names(&self, relative: &str) -> Result<Vec<String>, ReadError> {
        let path = self.roots.sys.join(relative);
        let read = || {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&path)? {
                names.extend(entry?.file_name().into_string().ok());
            }
            names.sort_unstable();
            Ok(names)
        };
        read().map_err(|source| ReadError { path, source })
    }

    fn read(&mut self) -> Result<&[u8], ReadError> {
        match read_into(&self.path, &mut self.buffer) {
            Ok(()) => Ok(&self.buffer),
            Err(source) => Err(ReadError { path: self.path.clone(), source }),
        }
    }
}

fn read_into(path: &Path, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_end(buffer)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::other("larger than 4 MiB, which no such file is"));
    }
    Ok(())
}
