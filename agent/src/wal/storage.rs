//! The file system as the log needs it: a directory of files, small enough for a test to play it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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

/// One directory. A clone is another handle of it, for a sync on another thread.
pub trait Storage: Clone {
    /// Its files.
    type File: StorageFile;
    /// Where it is, for messages.
    fn path(&self) -> &Path;
    /// Takes the directory for this process alone, until it is dropped.
    ///
    /// # Errors
    /// Another process has it, or it can only be read; then it is taken all the same, if it has a lock.
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
    /// Opens a file for reading, and for writing where the file system lets it be written.
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
    /// Bytes that the file system still has for this process.
    ///
    /// # Errors
    /// The system's.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Whether `file` is still the one of that name: not deleted, nor in a directory that was deleted,
    /// renamed or unmounted.
    ///
    /// # Errors
    /// The system's, where the name can't be looked up for another reason than that it is gone.
    fn holds(&self, name: &str, file: &Self::File) -> io::Result<bool>;
    /// The unit in which the file system writes: files grow in such steps, so that most appends change
    /// no size.
    fn block(&self) -> u64;
    /// Whether what was synced outlives the process.
    fn is_lasting(&self) -> bool {
        true
    }
}

/// A directory of a real file system.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    /// None where there is none and none can be made.
    lock: Option<Arc<File>>,
    /// Whether the file system lets it be written.
    is_writable: bool,
}

/// How often a lock that is taken is tried again, and after how long.
const LOOKS: u32 = 4;
const LOOK: Duration = Duration::from_millis(5);

/// The name of the lock file.
pub(super) const LOCK: &str = "LOCK";

impl Disk {
    /// The directory at `path`, created with mode 0700 if it is missing.
    ///
    /// # Errors
    /// It can't be created, or its lock file can't be opened.
    pub fn new(path: &Path) -> Result<Disk, super::WalError> {
        let error = |source| super::WalError::open(path, source);
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            // A file system that can only be read may hold it.
            Err(source) if !path.is_dir() => return Err(error(source)),
            _ => {}
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK));
        let (lock, is_writable) = match lock {
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                (File::open(path.join(LOCK)).ok(), false)
            }
            other => (Some(other.map_err(error)?), true),
        };
        Ok(Disk { path: path.to_owned(), lock: lock.map(Arc::new), is_writable })
    }

    /// The directory at `path` as it is, for looking at: nothing is created, and the lock is not taken.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn look(path: &Path) -> Result<Disk, super::WalError> {
        fs::read_dir(path).map_err(|source| super::WalError::open(path, source))?;
        let lock = File::open(path.join(LOCK)).ok();
        Ok(Disk { path: path.to_owned(), lock: lock.map(Arc::new), is_writable: false })
    }

    /// What is at the same path now, which may be another directory. The lock of this one serves both
    /// if they are one.
    ///
    /// # Errors
    /// As [`new`](Disk::new).
    pub fn again(&self) -> Result<Disk, super::WalError> {
        let mut now = Disk::new(&self.path)?;
        if let (Some(held), Some(found)) = (&self.lock, &now.lock)
            && is_same(&held.metadata().ok(), &found.metadata().ok())
        {
            now.lock = Some(Arc::clone(held));
        }
        Ok(now)
    }

    /// Whether another process has the directory.
    pub fn is_taken(&self) -> bool {
        let Some(lock) = &self.lock else { return false };
        match lock.try_lock_shared() {
            Ok(()) => lock.unlock().is_err(),
            Err(error) => matches!(error, TryLockError::WouldBlock),
        }
    }
}

fn is_same(a: &Option<fs::Metadata>, b: &Option<fs::Metadata>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

impl Storage for Disk {
    type File = Arc<File>;

    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> Result<(), super::WalError> {
        let read_only =
            || super::WalError::open(&self.path, io::ErrorKind::ReadOnlyFilesystem.into());
        let Some(lock) = &self.lock else { return Err(read_only()) };
        // Somebody may just be looking whether it is taken.
        let mut locked = lock.try_lock();
        for _ in 0..LOOKS {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(LOOK);
            locked = lock.try_lock();
        }
        if locked.is_ok() && !self.is_writable {
            return Err(read_only());
        }
        locked.map_err(|error| {
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
            let metadata = match entry.metadata() {
                // Gone meanwhile, as the files of a log in use do.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
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
        let path = self.path.join(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                File::open(&path)?
            }
            other => other?,
        };
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

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn holds(&self, name: &str, file: &Arc<File>) -> io::Result<bool> {
        // With each record: a path of usual length takes no memory.
        let mut path: heapless::Vec<u8, 256> = heapless::Vec::new();
        let parts = [self.path.as_os_str().as_bytes(), b"/", name.as_bytes()];
        let fits = parts.iter().all(|part| path.extend_from_slice(part).is_ok());
        let found = match fits {
            true => fs::metadata(OsStr::from_bytes(&path)),
            false => fs::metadata(self.path.join(name)),
        };
        match found {
            Ok(found) => Ok(is_same(&Some(found), &Some(file.metadata()?))),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn block(&self) -> u64 {
        BLOCK
    }
}

/// The block of ext4 and the page of most kernels, in bytes.
const BLOCK: u64 = 4 << 10;

/// Whether an error says that a file, or the directory that it was in, is no longer there.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What the kernel says of a file that [`Storage::open`] could only open for reading.
fn only_read(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EBADF | libc::EINVAL) => io::ErrorKind::ReadOnlyFilesystem.into(),
        _ => error,
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
        self.write_all_at(bytes, offset).map_err(only_read)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len).map_err(only_read)
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
