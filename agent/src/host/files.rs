//! Reading the kernel's files into one reused buffer: files below /proc stay open between rounds, all
//! others are opened anew. It must not know what the files mean.
//!
//! A kept file saves the way through the directories, a third of what a read costs, and holds a page of
//! the kernel's memory; [`Kept`] therefore has a bound, and is for /proc alone, of which a round reads some
//! thirty files, not for /sys with hundreds of small ones. A file of procfs is produced anew by each read
//! at offset 0. Files that belong to a process are not kept.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::Names;

/// More than any file that the agent reads whole; /proc/stat of 512 CPUs has 60 KiB.
const MAX_FILE: usize = 4 << 20;

/// What a read asks for at least; an attribute below /sys has at most a page.
const CHUNK: usize = 4 << 10;

/// The read of files of one directory from which on the directory is kept.
const NEAR: u32 = 3;

/// A device or pipe where a file should be must not hold the round up.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The most files that stay open.
const MAX_KEPT: usize = 64;

/// Files that stay open, by path.
#[derive(Debug, Default)]
pub(super) struct Kept(HashMap<OsString, OwnedFd>);

impl Kept {
    /// Reads a file that stays open if there is room for it.
    /// With `short`, a read of less than half a page ends it.
    pub(super) fn read(
        &mut self,
        path: &OsStr,
        buffer: &mut Vec<u8>,
        short: bool,
    ) -> io::Result<()> {
        let end = if short { End::HalfPage } else { End::Nothing };
        if let Some(file) = self.0.get(path) {
            match read(file, buffer, end) {
                Ok(()) => return Ok(()),
                // What it belonged to is gone (EIO, ENODEV); there may be another one of the name.
                Err(_) => self.0.remove(path),
            };
        }
        let file = open(path)?;
        read(&file, buffer, end)?;
        if self.0.len() < MAX_KEPT {
            self.0.insert(path.to_owned(), file);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn replace(&mut self, path: &OsStr, file: OwnedFd) {
        self.0.insert(path.to_owned(), file);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The directory of the file that was read last: attributes of a device are read one after the other, and
/// from the third on only the last part of their path is looked up, which halves what a read costs. It is
/// not kept for longer, so that a device that is removed and comes back is never taken for the old one.
#[derive(Debug, Default)]
pub(super) struct Near {
    parent: OsString,
    reads: u32,
    directory: Option<OwnedFd>,
}

impl Near {
    /// Forgets the directory and keeps the memory.
    pub(super) fn forget(&mut self) {
        self.reads = 0;
        self.directory = None;
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.directory.is_some()
    }

    /// Reads an attribute; a read that does not fill the buffer ends it.
    pub(super) fn read(&mut self, path: &OsStr, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        let slash = path.as_bytes().iter().rposition(|&byte| byte == b'/');
        let Some((parent, name)) = slash.and_then(|at| path.as_bytes().split_at_checked(at)) else {
            return read(&open(path)?, buffer, End::Room);
        };
        let (parent, name) = (OsStr::from_bytes(parent), name.get(1..).unwrap_or_default());
        if self.parent != parent {
            self.forget();
            self.parent.clear();
            self.parent.push(parent);
        }
        self.reads = self.reads.saturating_add(1);
        if self.reads == NEAR {
            let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
            self.directory = rustix::fs::open(parent.as_bytes(), flags, Mode::empty()).ok();
        }
        let file = match &self.directory {
            Some(directory) => rustix::fs::openat(directory, name, READ, Mode::empty())?,
            None => open(path)?,
        };
        read(&file, buffer, End::Room)
    }
}

/// Reads a file. With `at_once`, a read that does not fill the buffer ends it: so do attributes below
/// /sys and files on a disk.
pub(super) fn read_once(path: &OsStr, buffer: &mut Vec<u8>, at_once: bool) -> io::Result<()> {
    buffer.clear();
    read(&open(path)?, buffer, if at_once { End::Room } else { End::Nothing })
}

/// The target of a symbolic link.
pub(super) fn read_link(path: &OsStr, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    buffer.reserve(CHUNK);
    rustix::fs::readlinkat_raw(CWD, path.as_bytes(), rustix::buffer::spare_capacity(buffer))?;
    Ok(())
}

/// The names in a directory, without `.` and `..`, and those that are not UTF-8.
pub(super) fn read_names(path: &OsStr, buffer: &mut Vec<u8>, names: &mut Names) -> io::Result<()> {
    names.clear();
    buffer.clear();
    buffer.reserve(CHUNK);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let directory = rustix::fs::openat(CWD, path.as_bytes(), flags, Mode::empty())?;
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name),
        }
        if names.bytes() > MAX_FILE {
            return Err(io::Error::other("names of more than 4 MiB, which no such directory has"));
        }
    }
    names.sort();
    Ok(())
}

fn open(path: &OsStr) -> io::Result<OwnedFd> {
    let file = rustix::fs::openat(CWD, path.as_bytes(), READ, Mode::empty())?;
    Ok(file)
}

/// Which read is the last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// One that gives nothing.
    Nothing,
    /// One that leaves room in the buffer.
    Room,
    /// The first, if it gives less than half of the smallest page.
    HalfPage,
}

fn read(file: impl AsFd, buffer: &mut Vec<u8>, end: End) -> io::Result<()> {
    buffer.clear();
    loop {
        if buffer.capacity() - buffer.len() < CHUNK {
            buffer.reserve(CHUNK.max(buffer.len()));
        }
        let room = buffer.capacity() - buffer.len();
        let offset = buffer.len() as u64;
        let spare = rustix::buffer::spare_capacity(buffer);
        let count = match rustix::io::pread(&file, spare, offset) {
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if buffer.len() > MAX_FILE {
            return Err(io::Error::other("larger than 4 MiB, which no such file is"));
        }
        let short = end == End::HalfPage && offset == 0 && count < CHUNK / 2;
        if count == 0 || (end == End::Room && count < room) || short {
            return Ok(());
        }
    }
}
