//! A directory in memory, as the WAL sees it: strict where a file system is (a file that is created
//! must not exist, one that is opened must), and without failures of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use mote::wal::{Storage, StorageFile, WalError};

type Bytes = Rc<RefCell<Vec<u8>>>;

/// The directory; clones share it.
#[derive(Clone, Default)]
pub struct Memory(Rc<RefCell<BTreeMap<String, Bytes>>>);

/// An open file.
pub struct MemoryFile(Bytes);

impl Memory {
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.0.borrow_mut().insert(name.to_owned(), Rc::new(RefCell::new(bytes.to_vec())));
    }

    pub fn bytes(&self) -> u64 {
        self.0.borrow().values().map(|file| file.borrow().len() as u64).sum()
    }
}

impl Storage for Memory {
    type File = MemoryFile;

    fn path(&self) -> &Path {
        Path::new("/memory")
    }

    fn lock(&self) -> Result<(), WalError> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let files = self.0.borrow();
        Ok(files.iter().map(|(name, file)| (name.clone(), file.borrow().len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        if self.0.borrow().contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(name, &[]);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let files = self.0.borrow();
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemoryFile(Rc::clone(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.0.borrow_mut().remove(name);
        removed.map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageFile for MemoryFile {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let file = self.0.borrow();
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| file.get(start..)?.get(..buffer.len()));
        if let Some(bytes) = range {
            buffer.copy_from_slice(bytes);
        }
        Ok(range.is_some())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0.borrow_mut();
        let start = usize::try_from(offset).expect("an offset that memory has");
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.borrow_mut().resize(usize::try_from(len).expect("a length that memory has"), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn share(&self) -> io::Result<MemoryFile> {
        Ok(MemoryFile(Rc::clone(&self.0)))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }
}
