//! Syncs, and what becomes of bytes that the disk may not have.

use std::io;

use super::segment::{self, HEADER, Segment};
use super::{Storage, StorageFile, Wal, WalError};

/// A sync that is to be done, on whatever thread may hang.
#[derive(Debug)]
pub struct SyncJob<S: Storage> {
    file: S::File,
    /// Where an entry of the directory has changed.
    directory: Option<S>,
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
        // First the entries: what was removed to make room must not come back beside what needed it.
        if let Some(directory) = &self.directory {
            directory.sync_directory()?;
        }
        self.file.sync()
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
        match result {
            Ok(()) => {
                self.stats.syncs += 1 + u64::from(job.directory.is_some());
                self.synced_changes = self.synced_changes.max(job.changes);
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

    /// Goes on from a broken log on the same path: its unsynced bytes are written again, its cursors
    /// are taken over, and nothing new comes before its end. For a log just opened.
    ///
    /// # Errors
    /// The unsynced bytes can't be written: the next try has to be with a log that is opened anew.
    pub fn resume(&mut self, before: &Wal<S>) -> Result<(), WalError> {
        if let Some(unsynced) = &before.unsynced {
            self.restore(unsynced)?;
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
        Ok(())
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
