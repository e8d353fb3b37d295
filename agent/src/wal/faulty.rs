//! A disk for tests: its writes fail when a test says so, and it tells what was synced.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::{Disk, Storage, StorageFile, WalError};

/// A disk whose writes and syncs fail when a test says so, and which tells what was synced.
#[derive(Clone)]
pub(super) struct Faulty {
    pub(super) disk: Disk,
    pub(super) plan: Rc<Plan>,
}

#[derive(Default)]
pub(super) struct Plan {
    /// Writes of more bytes than this fail.
    pub(super) largest_write: Cell<Option<usize>>,
    pub(super) synced: RefCell<Vec<String>>,
    /// What is said of the free space.
    pub(super) free: Cell<Option<u64>>,
}

pub(super) struct FaultyFile {
    name: String,
    file: Arc<File>,
    pub(super) plan: Rc<Plan>,
}

impl Faulty {
    fn wrap(&self, name: &str, file: Arc<File>) -> FaultyFile {
        FaultyFile { name: name.to_owned(), file, plan: Rc::clone(&self.plan) }
    }
}

impl Storage for Faulty {
    type File = FaultyFile;

    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn lock(&self) -> Result<(), WalError> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        Ok(self.wrap(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        Ok(self.wrap(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.plan.free.get().map_or_else(|| self.disk.free_bytes(), Ok)
    }

    fn holds(&self, name: &str, file: &FaultyFile) -> io::Result<bool> {
        self.disk.holds(name, &file.file)
    }

    fn block(&self) -> u64 {
        self.disk.block()
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.plan.synced.borrow_mut().push("directory".into());
        self.disk.sync_directory()
    }
}

impl StorageFile for FaultyFile {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        StorageFile::read_exact_at(&self.file, offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.plan.largest_write.get().is_some_and(|largest| bytes.len() > largest) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(offset, bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.plan.synced.borrow_mut().push(self.name.clone());
        StorageFile::sync(&self.file)
    }

    fn share(&self) -> io::Result<FaultyFile> {
        let file = self.file.share()?;
        Ok(FaultyFile { name: self.name.clone(), file, plan: Rc::clone(&self.plan) })
    }

    fn len(&self) -> io::Result<u64> {
        StorageFile::len(&self.file)
    }
}
