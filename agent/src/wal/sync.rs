//! Syncs, and what becomes of bytes that the disk may not have.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::segment::{self, HEADER, Segment};
use super::{Storage, StorageFile, Wal, WalError};

/// A sync that is to be done, on whatever thread may hang.
#[derive(Debug)]
pub struct SyncJob<S: Storage> {
    file: S::File,
    /// Where an entry of the directory has changed.
    directory: Option<S>,
    closed: Option<S::File>,
    syncs: Arc<Syncs>,
    end: u64,
    generation: u64,
    changes: u64,
}

impl<S: Storage> SyncJob<S> {
    /// Runs it.
    ///
    /// # Errors
    /// Whatever fsync said; hand it to [`Wal::end_sync`].
    pub fn run(&self) -> io::Result<()> {
        self.syncs.running.fetch_add(1, Ordering::AcqRel);
        let result = self.run_all();
        if result.is_err() {
            self.syncs.failed.store(true, Ordering::Release);
        }
        self.syncs.running.fetch_sub(1, Ordering::AcqRel);
        result
    }

    fn run_all(&self) -> io::Result<()> {
        if let Some(closed) = &self.closed {
            closed.sync()?;
        }
        if let Some(directory) = &self.directory {
            directory.sync_directory()?;
        }
        self.file.sync()
    }
}

/// What became of syncs on other threads. The kernel tells a failure once: a sync that comes after one
/// that failed says that all is well.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    running: AtomicU32,
    failed: AtomicBool,
}

impl Syncs {
    /// Whether one has failed, as far as it has ended.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether one has failed. Waits for those that run: a sync of this thread has waited for the same
    /// bytes.
    fn have_failed(&self) -> bool {
        while self.running.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.failed()
    }
}

/// Bytes of the newest segment that were not synced when the log broke.
#[derive(Debug)]
pub(super) struct Unsynced {
    /// The segment's position.
    pub(super) base: u64,
    /// The bytes' offset in it.
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

impl Unsynced {
    /// Fills `buffer` from `offset` of the segment; false if not all of it was saved.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let found = offset
            .checked_sub(self.offset)
            .and_then(|from| usize::try_from(from).ok())
            .and_then(|from| self.bytes.get(from..from.checked_add(buffer.len())?));
        if let Some(found) = found {
            buffer.copy_from_slice(found);
        }
        found.is_some()
    }
}

impl<S: Storage> Wal<S> {
    /// Begins a sync of everything appended so far; None if there is nothing to sync.
    ///
    /// # Errors
    /// The file's handle could not be shared.
    pub fn start_sync(&self) -> Result<Option<SyncJob<S>>, WalError> {
        match &self.active {
            Some(active) if self.synced < self.next_base => Ok(Some(SyncJob {
                file: active.file.share().map_err(|e| WalError::sync(self.storage.path(), e))?,
                directory: (self.synced_changes < self.changes).then(|| self.storage.clone()),
                closed: self
                    .closed
                    .as_ref()
                    .map(StorageFile::share)
                    .transpose()
                    .map_err(|e| WalError::sync(self.storage.path(), e))?,
                syncs: Arc::clone(&self.syncs),
                end: self.next_base,
                generation: self.generation,
                changes: self.changes,
            })),
            _ => Ok(None),
        }
    }

    /// Takes the result of a sync. After a failure nothing that was unsynced is taken for safe: the log
    /// is broken until it is opened again.
    ///
    /// # Errors
    /// The failure, with the directory.
    pub fn end_sync(&mut self, job: &SyncJob<S>, result: io::Result<()>) -> Result<(), WalError> {
        if !Arc::ptr_eq(&job.syncs, &self.syncs) {
            // A log that was opened again meanwhile has written the same bytes again, and counts anew.
            return Ok(());
        }
        match result {
            Ok(()) => {
                let others = u64::from(job.directory.is_some()) + u64::from(job.closed.is_some());
                self.stats.syncs += 1 + others;
                self.synced_changes = self.synced_changes.max(job.changes);
                if self.synced_changes == self.changes {
                    self.freed = 0;
                    self.closed = None;
                }
                // The segment may have been closed meanwhile; `synced` is beyond `end` then.
                if job.generation == self.generation && !self.broken {
                    self.synced = self.synced.max(job.end);
                }
                Ok(())
            }
            Err(source) => {
                self.break_off();
                Err(WalError::sync(self.storage.path(), source))
            }
        }
    }

    /// Begins, runs and ends a sync on this thread.
    ///
    /// # Errors
    /// As [`end_sync`](Wal::end_sync).
    pub fn sync(&mut self) -> Result<(), WalError> {
        match self.start_sync()? {
            Some(job) => {
                let result = job.run();
                self.end_sync(&job, result)
            }
            None => Ok(()),
        }
    }

    /// As [`sync`](Wal::sync), before a segment is closed: a failure on another thread counts too.
    pub(super) fn sync_all(&mut self) -> Result<(), WalError> {
        self.sync()?;
        if self.syncs.have_failed() {
            self.break_off();
            let source = io::Error::other("a sync on another thread has failed");
            return Err(WalError::sync(self.storage.path(), source));
        }
        Ok(())
    }

    /// Puts what was freed on the disk for good.
    pub(super) fn sync_freed(&mut self) -> Result<(), WalError> {
        let closed = self.closed.as_ref().map_or(Ok(()), StorageFile::sync);
        let result = closed.and_then(|()| self.storage.sync_directory());
        if let Err(source) = result {
            self.break_off();
            return Err(WalError::sync(self.storage.path(), source));
        }
        self.stats.syncs += 1 + u64::from(self.closed.is_some());
        self.synced_changes = self.changes;
        self.freed = 0;
        self.closed = None;
        Ok(())
    }

    /// Takes no more appends, as after a failed sync, and saves what the disk may not have while the
    /// kernel still has it.
    pub fn break_off(&mut self) {
        if std::mem::replace(&mut self.broken, true) {
            return;
        }
        let (Some(active), Some(newest)) = (&self.active, self.segments.back()) else { return };
        let offset = self.synced.saturating_sub(newest.base).min(newest.len);
        // A segment whose first record is unsynced is saved with its header.
        let offset = if offset <= HEADER as u64 { 0 } else { offset };
        let mut bytes = vec![0; (newest.len - offset) as usize];
        if !bytes.is_empty() && matches!(active.file.read_exact_at(offset, &mut bytes), Ok(true)) {
            self.unsynced = Some(Unsynced { base: newest.base, offset, bytes });
        }
    }

    /// Goes on from a broken log on the same path: its unsynced bytes are written again, its cursors and
    /// what readers hold are taken over, and nothing new comes before its end. For a log just opened.
    ///
    /// # Errors
    /// The unsynced bytes can't be written: the next try has to be with a log that is opened anew.
    pub fn resume(&mut self, before: &Wal<S>) -> Result<(), WalError> {
        self.cut_at(before.next_base)?;
        match &before.unsynced {
            Some(unsynced) => self.restore(unsynced)?,
            None if before.only_reads => self.rewrite_newest()?,
            None => {}
        }
        self.begin_at(before.next_base);
        let unread = before.min_cursor().unwrap_or(0);
        for old in before.segments.iter().filter(|old| old.end() > unread) {
            if !self.segments.iter().any(|new| new.base == old.base) {
                let bytes = old.end() - old.base.max(unread);
                log::error!(
                    "{} is gone, with {bytes} bytes that were not delivered",
                    self.storage.path().join(segment::name(old.base)).display()
                );
                self.stats.damaged_bytes += bytes;
            }
        }
        for index in 0..self.readers.len() {
            let Some(old) = before.readers.get(index) else { continue };
            let (cursor, held) = (old.cursor, old.held);
            self.acknowledge(super::ReaderId(index), cursor, true)?;
            if let Some(reader) = self.readers.get_mut(index) {
                reader.held = held;
            }
        }
        // After the cursors, which may have moved by what went: that is no delivery.
        self.withheld.clone_from(&before.withheld);
        Ok(())
    }

    /// Cuts off what lies behind `end`: a record whose append has failed, and which is whole all the same.
    fn cut_at(&mut self, end: u64) -> Result<(), WalError> {
        while let Some(newest) = self.segments.back().copied()
            && newest.end() > end
        {
            let name = segment::name(newest.base);
            if newest.base + HEADER as u64 >= end {
                self.storage
                    .remove(&name)
                    .map_err(|e| WalError::remove(self.storage.path(), &name, e))?;
                self.changes += 1;
                self.segments.pop_back();
                continue;
            }
            let len = end - newest.base;
            let error = |e| WalError::truncate(self.storage.path(), &name, e);
            let mut file = self.storage.open(&name).map_err(error)?;
            file.truncate(len).and_then(|()| file.sync()).map_err(error)?;
            if let Some(newest) = self.segments.back_mut() {
                newest.len = len;
                newest.size = len;
            }
        }
        let cursors = self.readers.iter().map(|reader| reader.cursor);
        let last = self.segments.back().map_or(0, Segment::end);
        self.next_base = cursors.fold(last, u64::max);
        self.synced = self.next_base;
        Ok(())
    }

    /// Writes the newest segment once more, as it can be read: the sync of a recovery before this one may
    /// have failed, after which the kernel takes what it shows for written.
    fn rewrite_newest(&mut self) -> Result<(), WalError> {
        let Some(newest) = self.segments.back().copied() else { return Ok(()) };
        let name = segment::name(newest.base);
        let error = |e| WalError::rewrite(self.storage.path(), &name, e);
        let mut file = self.storage.open(&name).map_err(error)?;
        let mut at = 0;
        while at < newest.len {
            self.buffer.resize((newest.len - at).min(64 << 10) as usize, 0);
            if !file.read_exact_at(at, &mut self.buffer).map_err(error)? {
                break;
            }
            file.write_at(at, &self.buffer).map_err(error)?;
            at += self.buffer.len() as u64;
            self.stats.written_bytes += self.buffer.len() as u64;
        }
        file.sync().map_err(error)
    }

    fn restore(&mut self, unsynced: &Unsynced) -> Result<(), WalError> {
        let Unsynced { base, offset, bytes } = unsynced;
        let name = segment::name(*base);
        let error = |e| WalError::rewrite(self.storage.path(), &name, e);
        let len = offset + bytes.len() as u64;
        let newest = self.segments.back().copied();
        let mut file = match newest {
            Some(newest) if newest.base == *base => self.storage.open(&name).map_err(error)?,
            // The whole segment was unsynced, or it is gone.
            _ if *offset == 0 && newest.is_none_or(|newest| newest.end() <= *base) => {
                let file = self.storage.create(&name).map_err(error)?;
                self.segments.push_back(Segment::new(*base, 0));
                file
            }
            _ => return Ok(()),
        };
        let written = file
            .write_at(*offset, bytes)
            .and_then(|()| file.truncate(len))
            .and_then(|()| file.sync())
            .and_then(|()| self.storage.sync_directory());
        if let Some(newest) = self.segments.back_mut() {
            newest.len = len;
            newest.size = len;
        }
        self.stats.written_bytes += bytes.len() as u64;
        written.map_err(error)?;
        self.begin_at(base + len);
        Ok(())
    }
}
