//! The file system as the log needs it: a directory of files, small enough for a test to play it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One open file.
pub trait StorageFile: Sized {
    /// Fills `buffer` from `offset`; false if the file ends before that.
    ///
    /// # Errors
    /// The system's.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The system's; any part of the bytes may have been written then.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Puts the file's contents on the disk for good.
    ///
    /// # Errors
    /// The system's; nothing that was unsynced may be taken for safe then.
    fn sync(&self) -> io::Result<()>;
    /// Another handle of the same file, for a sync on another thread.
    ///
    /// # Errors
    /// The system's.
    fn share(&self) -> io::Result<Self>;
    /// Bytes of the file.
    ///
    /// # Errors
    /// The system's.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// One directory.
pub trait Storage {
    /// Its files.
    type File: StorageFile;
    /// Where it is, for messages.
    fn path(&self) -> &Path;
    /// Takes the directory for this process alone, until it is dropped.
    ///
    /// # Errors
    /// Another process has it, or the lock file can't be made.
    fn lock(&self) -> Result<(), super::WalError>;
    /// Names and sizes of the regular files.
    ///
    /// # Errors
    /// The system's.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Renames a file.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Puts the directory's entries on the disk for good.
    ///
    /// # Errors
    /// The system's.
    fn sync_directory(&self) -> io::Result<()>;
}

/// A directory of a real file system.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    lock: File,
}

impl Disk {
    /// The directory at `path`, created with mode 0700 if it is missing.
    ///
    /// # Errors
    /// It can't be created, or its lock file can't be opened.
    pub fn new(path: &Path) -> Result<Disk, super::WalError> {
        let error = |source| super::WalError::open(path, source);
        fs::create_dir_all(path).map_err(error)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("LOCK"))
            .map_err(error)?;
        Ok(Disk { path: path.to_owned(), lock })
    }
}

impl Storage for Disk {
    type File = Arc<File>;

    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> Result<(), super::WalError> {
        self.lock.try_lock().map_err(|error| {
            let source = match error {
                TryLockError::WouldBlock => io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another agent uses this directory; stop it, or give this one a state_dir of its own",
                ),
                TryLockError::Error(error) => error,
            };
            super::WalError::open(&self.path, source)
        })
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<Arc<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<File>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl StorageFile for Arc<File> {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        match FileExt::read_exact_at(self.as_ref(), buffer, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn share(&self) -> io::Result<Arc<File>> {
        Ok(Arc::clone(self))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
