//! A disk that is played in memory: it numbers every operation, fails them by plan, knows what is on
//! the platter and what only the kernel has, and keeps the bound of the log that it serves. It must not
//! know the log's format.
//!
//! A file has the content that was durable at its last sync, the content that is shown to readers, and
//! the changes between the two; the directory likewise. A machine that dies runs nothing any more, so
//! death needs no plan: with [`Sim::watch`] the disk keeps a [`Moment`] for every operation, from which
//! `power_cut` makes what the next start may find.
//!
//! After a failed sync the unsynced changes are shown still and never become durable, which is what
//! Linux does: the pages are marked clean. Only writing them once more helps.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::power_cut::{Last, Moment};
use super::{Storage, StorageFile, WalError};

/// A file's bytes, shared until somebody writes.
pub(super) type Content = Rc<Vec<u8>>;

/// All files of a directory.
pub(super) type Files = BTreeMap<String, Content>;

/// A change of a file's content that no sync has made durable.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Rc<[u8]> },
    Truncate(usize),
}

impl Change {
    /// Makes the change, of a write only the first `most` bytes.
    pub(super) fn apply(&self, content: &mut Vec<u8>, most: usize) {
        match self {
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len().min(most);
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(&bytes[..end - offset]);
            }
            Change::Truncate(len) if most > 0 => content.resize(*len, 0),
            Change::Truncate(_) => {}
        }
    }
}

/// A file, whatever its names.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Content,
    pub(super) shown: Content,
    /// From `durable` on; with what failed syncs have lost, not all of what leads to `shown`.
    pub(super) pending: Vec<Change>,
    /// Whether `pending` leads to `shown`.
    pub(super) lost: bool,
}

impl Inode {
    fn change(&mut self, change: Change, most: usize) {
        change.apply(Rc::make_mut(&mut self.shown), most);
        self.pending.push(match change {
            Change::Write { offset, bytes } if most < bytes.len() => {
                Change::Write { offset, bytes: bytes[..most].into() }
            }
            whole => whole,
        });
    }

    fn sync(&mut self) {
        if self.lost {
            let content = Rc::make_mut(&mut self.durable);
            for change in self.pending.drain(..) {
                change.apply(content, usize::MAX);
            }
            self.lost = self.durable != self.shown;
        } else {
            self.durable = Rc::clone(&self.shown);
            self.pending.clear();
        }
    }
}

/// A change of the directory that no sync has made durable.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Entry {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Entry::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Entry::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Entry::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// What a planned fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing that needs more room works (ENOSPC).
    NoSpace,
    /// No change works, and syncs lose what was unsynced (EIO).
    Io,
    /// The same from a file system that was remounted read-only (EROFS).
    ReadOnly,
    /// Only syncs of files fail.
    Sync,
}

/// A fault and when it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) fault: Fault,
    /// The number of the first operation that fails.
    pub(super) from: u64,
    /// How many operations it lasts.
    pub(super) count: u64,
    /// How much of a failing write happens: nothing, half, or (2) all but a byte.
    pub(super) part: u8,
}

/// What an operation asks of the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Room,
    Change,
    Sync,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    durable: BTreeMap<String, usize>,
    shown: BTreeMap<String, usize>,
    pending: Vec<Entry>,
    operations: u64,
    plan: Option<Plan>,
    max_bytes: u64,
    bytes: u64,
    moments: Option<Vec<Moment>>,
    /// Names that were synced, the directory as "directory".
    synced: Vec<String>,
}

/// A directory of the played disk; a clone is another handle of it.
#[derive(Clone, Debug)]
pub(super) struct Sim(Rc<RefCell<State>>);

/// An open file of it.
#[derive(Debug)]
pub(super) struct SimFile {
    disk: Sim,
    inode: usize,
    name: Rc<str>,
}

impl Sim {
    /// A disk with these files, all durable, that panics when an operation takes it over `max_bytes`.
    pub(super) fn new(files: Files, max_bytes: u64) -> Sim {
        let mut state = State { max_bytes, ..State::default() };
        for (name, content) in files {
            state.bytes += content.len() as u64;
            state.shown.insert(name, state.inodes.len());
            let durable = Rc::clone(&content);
            state.inodes.push(Inode { durable, shown: content, ..Inode::default() });
        }
        state.durable = state.shown.clone();
        Sim(Rc::new(RefCell::new(state)))
    }

    /// Keeps a moment of every operation from now on.
    pub(super) fn watch(&self) {
        self.0.borrow_mut().moments = Some(Vec::new());
    }

    /// The moments since the last call; none without [`watch`](Sim::watch).
    pub(super) fn take_moments(&self) -> Vec<Moment> {
        self.0.borrow_mut().moments.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The moment between two operations.
    pub(super) fn moment(&self) -> Moment {
        self.0.borrow().moment(Last::Nothing)
    }

    /// Operations so far.
    pub(super) fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    pub(super) fn plan(&self, plan: Option<Plan>) {
        self.0.borrow_mut().plan = plan;
    }

    /// The planned fault, while it lasts.
    pub(super) fn fault(&self) -> Option<Fault> {
        let state = self.0.borrow();
        state.plan.filter(|p| state.operations < p.from + p.count).map(|p| p.fault)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.0.borrow().bytes
    }

    /// The files as a running process sees them.
    pub(super) fn files(&self) -> Files {
        let state = self.0.borrow();
        let content = |inode: usize| Rc::clone(&state.inodes[inode].shown);
        state.shown.iter().map(|(name, &inode)| (name.clone(), content(inode))).collect()
    }

    /// What was synced since the last call, in order.
    pub(super) fn take_synced(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut().synced)
    }

    /// Somebody else puts a durable file into the directory. False if the name is taken.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> bool {
        let mut state = self.0.borrow_mut();
        if state.shown.contains_key(name) || state.durable.contains_key(name) {
            return false;
        }
        let inode = state.inodes.len();
        state.bytes += bytes.len() as u64;
        let content = Rc::new(bytes);
        let durable = Rc::clone(&content);
        state.inodes.push(Inode { durable, shown: content, ..Inode::default() });
        state.shown.insert(name.to_owned(), inode);
        state.durable.insert(name.to_owned(), inode);
        true
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.0.borrow().shown.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn handle(&self, name: &str, inode: usize) -> SimFile {
        SimFile { disk: self.clone(), inode, name: name.into() }
    }

    fn enter(&self, entry: Entry, asks: Asks) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.begin(asks)?;
        entry.apply(&mut state.shown);
        state.pending.push(entry);
        state.end(Last::Directory);
        Ok(())
    }
}

impl State {
    /// Numbers an operation and says whether it fails.
    fn begin(&mut self, asks: Asks) -> io::Result<()> {
        self.operations += 1;
        let Some(plan) = self.plan else { return Ok(()) };
        if !(plan.from..plan.from + plan.count).contains(&(self.operations - 1)) {
            return Ok(());
        }
        let kind = match plan.fault {
            Fault::NoSpace if asks == Asks::Room => io::ErrorKind::StorageFull,
            Fault::Sync if asks == Asks::Sync => io::ErrorKind::Other,
            Fault::Io => io::ErrorKind::Other,
            Fault::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            Fault::NoSpace | Fault::Sync => return Ok(()),
        };
        Err(kind.into())
    }

    fn moment(&self, last: Last) -> Moment {
        Moment {
            operation: self.operations,
            inodes: self.inodes.clone(),
            names: self.durable.clone(),
            entries: self.pending.clone(),
            last,
        }
    }

    /// After a change: the bound is looked at, and the moment is kept.
    fn end(&mut self, last: Last) {
        let before = self.bytes;
        self.bytes = self.shown.values().map(|&i| self.inodes[i].shown.len() as u64).sum();
        assert!(
            self.bytes <= before || self.bytes <= self.max_bytes,
            "operation {} takes the files from {before} to {} bytes, the bound is {}",
            self.operations,
            self.bytes,
            self.max_bytes
        );
        self.keep(last);
    }

    fn keep(&mut self, last: Last) {
        if self.moments.is_some() {
            let moment = self.moment(last);
            self.moments.get_or_insert_default().push(moment);
        }
    }
}

/// Small, so that files grow often.
pub(super) const BLOCK: u64 = 512;

impl Storage for Sim {
    type File = SimFile;

    fn path(&self) -> &Path {
        Path::new("played")
    }

    fn lock(&self) -> Result<(), WalError> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.borrow();
        let len = |inode: usize| state.inodes[inode].shown.len() as u64;
        Ok(state.shown.iter().map(|(name, &inode)| (name.clone(), len(inode))).collect())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        if self.find(name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = {
            let mut state = self.0.borrow_mut();
            state.inodes.push(Inode::default());
            state.inodes.len() - 1
        };
        self.enter(Entry::Create(name.to_owned(), inode), Asks::Room)?;
        Ok(self.handle(name, inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        Ok(self.handle(name, self.find(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.find(from)?;
        assert!(self.find(to).is_err(), "{from} would replace {to}");
        self.enter(Entry::Rename(from.to_owned(), to.to_owned()), Asks::Change)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.find(name)?;
        self.enter(Entry::Remove(name.to_owned()), Asks::Change)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn holds(&self, name: &str, file: &SimFile) -> io::Result<bool> {
        Ok(self.find(name).is_ok_and(|inode| inode == file.inode))
    }

    fn block(&self) -> u64 {
        BLOCK
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.keep(Last::Nothing);
        state.begin(Asks::Change)?;
        state.synced.push("directory".to_owned());
        state.durable = state.shown.clone();
        state.pending.clear();
        Ok(())
    }
}

impl StorageFile for SimFile {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let state = self.disk.0.borrow();
        let content = &state.inodes[self.inode].shown;
        let range = offset as usize..offset as usize + buffer.len();
        let Some(bytes) = content.get(range) else { return Ok(false) };
        buffer.copy_from_slice(bytes);
        Ok(true)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        let mut state = self.disk.0.borrow_mut();
        let grows = offset + bytes.len() > state.inodes[self.inode].shown.len();
        let result = state.begin(if grows { Asks::Room } else { Asks::Change });
        let most = match (&result, state.plan.map_or(0, |plan| plan.part)) {
            (Ok(()), _) => bytes.len(),
            (Err(_), 0) => 0,
            (Err(_), 1) => bytes.len() / 2,
            (Err(_), _) => bytes.len().saturating_sub(1),
        };
        if most > 0 {
            let change = Change::Write { offset, bytes: bytes.into() };
            state.inodes[self.inode].change(change, most);
        }
        state.end(Last::File(self.inode));
        result
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let len = len as usize;
        let mut state = self.disk.0.borrow_mut();
        let grows = len > state.inodes[self.inode].shown.len();
        state.begin(if grows { Asks::Room } else { Asks::Change })?;
        state.inodes[self.inode].change(Change::Truncate(len), usize::MAX);
        state.end(Last::File(self.inode));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.borrow_mut();
        state.keep(Last::Nothing);
        let result = state.begin(Asks::Sync);
        let inode = &mut state.inodes[self.inode];
        match &result {
            Ok(()) => {
                inode.sync();
                state.synced.push(self.name.to_string());
            }
            Err(_) => {
                inode.lost |= !inode.pending.is_empty();
                inode.pending.clear();
            }
        }
        result
    }

    fn share(&self) -> io::Result<SimFile> {
        Ok(SimFile { disk: self.disk.clone(), inode: self.inode, name: Rc::clone(&self.name) })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.borrow().inodes[self.inode].shown.len() as u64)
    }
}
