//! A directory in memory, for what is collected while the disk takes nothing. Everything in it is gone
//! with the process, so a sync does nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::{Storage, StorageFile, WalError};

/// A directory in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: Rc<RefCell<BTreeMap<String, MemoryFile>>>,
}

/// A file in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile(Rc<RefCell<Vec<u8>>>);

impl Storage for Memory {
    type File = MemoryFile;

    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn lock(&self) -> Result<(), WalError> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let files = self.files.borrow();
        Ok(files.iter().map(|(name, file)| (name.clone(), file.0.borrow().len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let file = MemoryFile::default();
        self.files.borrow_mut().insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        self.files.borrow().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.borrow_mut().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn holds(&self, _name: &str, _file: &MemoryFile) -> io::Result<bool> {
        Ok(true)
    }

    fn block(&self) -> u64 {
        1
    }

    fn is_lasting(&self) -> bool {
        false
    }
}

impl StorageFile for MemoryFile {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let bytes = self.0.borrow();
        let found = usize::try_from(offset)
            .ok()
            .and_then(|from| bytes.get(from..from.checked_add(buffer.len())?));
        if let Some(found) = found {
            buffer.copy_from_slice(found);
        }
        Ok(found.is_some())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut have = self.0.borrow_mut();
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let to = from.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if have.len() < to {
            have.resize(to, 0);
        }
        if let Some(place) = have.get_mut(from..to) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.borrow_mut().truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn share(&self) -> io::Result<MemoryFile> {
        Ok(self.clone())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }
}
