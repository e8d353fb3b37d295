//! A WAL as the tasks of the pipeline share it: appends that wait for the disk on a thread that may
//! hang, readers that are woken, and what happens while the disk takes nothing.
//!
//! Then the WAL on disk is only read, as far as that works, and records go to a second one in memory, at
//! positions behind it: to a reader both are one log. The disk is tried again with the records that
//! follow, with growing pauses; when it works, what is in memory is moved to it and it goes on there. A
//! process that dies meanwhile loses what is in memory and not yet delivered.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::wal::{
    AppendError, Disk, Loss, Memory, Options, Payload, ReaderId, Record, Stats, Wal, WalError,
};

use memory::{of_memory, of_memory_losses};

/// The pause before a failed disk is tried again, which doubles each time, and the longest.
const MEND: Duration = Duration::from_secs(1);
const MEND_MAX: Duration = Duration::from_secs(60);

/// How long a sync may take until the disk is taken for one that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The parts of the buffer that are dropped one by one when it is full.
const BUFFER_SEGMENTS: u64 = 8;

/// A sync that is counted while it runs.
struct Syncing(Arc<AtomicU32>);

impl Syncing {
    fn begin(count: &Arc<AtomicU32>) -> Syncing {
        count.fetch_add(1, Ordering::AcqRel);
        Syncing(Arc::clone(count))
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How a [`Log`] is kept.
#[derive(Clone, Debug)]
pub(super) struct LogOptions {
    /// `metrics` or `logs`.
    pub(super) name: &'static str,
    /// The directory.
    pub(super) path: PathBuf,
    pub(super) wal: Options,
    /// Names of the readers' cursors.
    pub(super) readers: Vec<String>,
    /// How long appended records may stay unsynced; None for not at all.
    pub(super) sync_every: Option<Duration>,
    /// How long an acknowledgement may stay unsynced where records do not.
    pub(super) cursor_every: Duration,
    /// The bound of what is kept in memory while the disk takes nothing, in bytes.
    pub(super) memory_bytes: u64,
}

/// A WAL and what wakes its users.
#[derive(Debug)]
pub(super) struct Log {
    options: LogOptions,
    /// A broken one stays, to be read. There is one from the opening on.
    disk: RefCell<Option<Wal<Disk>>>,
    /// What was collected since the disk takes nothing.
    buffer: RefCell<Option<Wal<Memory>>>,
    synced_at: Cell<Instant>,
    /// The same of each reader's cursor.
    cursors_synced_at: RefCell<Vec<Instant>>,
    /// Syncs that run, on their threads. A disk that hangs in one would hang this thread too.
    syncing: RefCell<Arc<AtomicU32>>,
    /// The device that the last sync was of.
    synced_device: Cell<Option<u64>>,
    /// When the disk may be tried again, and the pause after that.
    mend_at: Cell<Instant>,
    mend_pause: Cell<Duration>,
    /// Counts of WALs that were closed after a failure, and of buffers that were moved to the disk.
    before: Cell<Stats>,
    losses: RefCell<Vec<Loss>>,
    /// What the last failure said; None while the disk works.
    failure: RefCell<Option<String>>,
    appended: Notify,
    freed: Notify,
}

impl Log {
    /// Opens the WAL, or begins in memory if the disk can't be written.
    ///
    /// # Errors
    /// Another agent uses the directory, this one may not, or what is in it can't even be read: to go on
    /// in memory would pass over it.
    pub(super) fn open(options: LogOptions) -> Result<Log, WalError> {
        let now = Instant::now();
        let log = Log {
            disk: RefCell::default(),
            buffer: RefCell::default(),
            synced_at: Cell::new(now),
            cursors_synced_at: RefCell::new(vec![now; options.readers.len()]),
            syncing: RefCell::default(),
            synced_device: Cell::new(None),
            mend_at: Cell::new(now),
            mend_pause: Cell::new(MEND),
            before: Cell::default(),
            losses: RefCell::default(),
            failure: RefCell::default(),
            appended: Notify::new(),
            freed: Notify::new(),
            options,
        };
        let (opened, error) = log.open_disk()?;
        let end = opened.end();
        log.disk.replace(Some(opened));
        if let Some(error) = error {
            log.failed(&error);
            log.begin_buffer(end);
        }
        Ok(log)
    }

    /// The WAL on disk, for reading only where an error says why.
    fn open_disk(&self) -> Result<(Wal<Disk>, Option<WalError>), WalError> {
        let readers = self.reader_names();
        let disk = Disk::new(&self.options.path)?;
        match Wal::open(disk.clone(), self.options.wal, &readers) {
            Ok(wal) => Ok((wal, None)),
            Err(error) if passes(&error.source) => {
                Ok((Wal::open_to_read(disk, self.options.wal, &readers)?, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn reader_names(&self) -> Vec<&str> {
        self.options.readers.iter().map(String::as_str).collect()
    }

    /// `metrics` or `logs`.
    pub(super) fn name(&self) -> &'static str {
        self.options.name
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.options.path
    }

    /// Runs `f` on the WAL on disk; None where there is none that can be read.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Wal<Disk>) -> T) -> Option<T> {
        self.disk.borrow_mut().as_mut().map(f)
    }

    fn with_buffer<T>(&self, f: impl FnOnce(&mut Wal<Memory>) -> T) -> Option<T> {
        self.buffer.borrow_mut().as_mut().map(f)
    }

    /// Appends a record, to memory while the disk takes nothing. [`settle`](Log::settle) comes after it.
    ///
    /// # Errors
    /// There is no room for it, or it is too large. An error of the disk is none.
    pub(super) fn append(
        &self,
        kind: u8,
        payload: &mut impl Payload,
    ) -> Result<Record, AppendError> {
        self.mend();
        let mut is_gone = false;
        while self.buffer.borrow().is_none() {
            match self.with(|wal| wal.append(kind, payload)).unwrap_or(Err(AppendError::Broken)) {
                Err(AppendError::Failed(error)) => {
                    self.failed(&error);
                    // A directory that somebody has deleted can be made again at once.
                    let is_not_found = error.source.kind() == io::ErrorKind::NotFound;
                    if is_not_found && !is_gone && !self.is_syncing() {
                        is_gone = true;
                        self.mend_now();
                        if !self.with(|wal| wal.is_broken()).unwrap_or(true) {
                            continue;
                        }
                    }
                }
                Err(error @ AppendError::NoSpace { .. }) => self.failed(&error),
                Err(error @ AppendError::Broken) => {
                    if self.failure.borrow().is_none() {
                        self.failed(&error);
                    }
                }
                other => return other,
            }
            let end = self.with(|wal| wal.end()).unwrap_or(0);
            self.begin_buffer(end);
        }
        self.append_to_buffer(kind, payload)
    }

    fn append_to_buffer(
        &self,
        kind: u8,
        payload: &mut impl Payload,
    ) -> Result<Record, AppendError> {
        let append = |wal: &mut Wal<Memory>| {
            let record = wal.append(kind, payload)?;
            wal.sync().map_err(AppendError::Failed)?;
            Ok(record)
        };
        match self.with_buffer(append).unwrap_or(Err(AppendError::Broken)) {
            // The disk has more room.
            Err(AppendError::TooLarge { .. }) => {
                Err(AppendError::Full { max_bytes: self.options.memory_bytes })
            }
            other => other,
        }
    }

    fn begin_buffer(&self, position: u64) {
        let bytes = self.options.memory_bytes;
        let options = Options {
            segment_bytes: bytes / BUFFER_SEGMENTS,
            min_free: 0,
            ..self.options.wal.with_max_bytes(bytes)
        };
        // Memory has no file that can't be opened.
        let Ok(mut buffer) = Wal::open(Memory::default(), options, &self.reader_names()) else {
            return;
        };
        buffer.begin_at(position);
        self.buffer.replace(Some(buffer));
    }

    /// Syncs what was appended if that is due, and wakes the readers. A sync that fails costs nothing
    /// yet: what it was for is in memory, and is written again when the disk works.
    pub(super) async fn settle(&self) {
        if self.options.sync_every.is_none_or(|every| self.synced_at.get().elapsed() >= every) {
            let _ = self.sync().await;
        }
        self.recovered();
        self.appended.notify_waiters();
    }

    /// As [`settle`](Log::settle), but syncs only if the last sync is so long ago: a later record's does it
    /// too, and each sync wears the disk.
    pub(super) async fn settle_within(&self, most: Duration) {
        if self.synced_at.get().elapsed() >= most {
            self.settle().await;
        }
    }

    /// Syncs what was appended, on a thread of its own.
    ///
    /// # Errors
    /// The sync's, which is logged.
    pub(super) async fn sync(&self) -> Result<(), WalError> {
        let job = match self.with(|wal| wal.start_sync()) {
            Some(Ok(Some(job))) => job,
            Some(Ok(None)) | None => return Ok(()),
            Some(Err(error)) => return Err(error),
        };
        let syncing = Syncing::begin(&self.syncing.borrow());
        self.synced_device.set(self.device());
        let ran = tokio::task::spawn_blocking(move || {
            let result = job.run();
            drop(syncing);
            (job, result)
        });
        let (job, result) = match tokio::time::timeout(PATIENCE, ran).await {
            Ok(Ok(ended)) => ended,
            // Only a panic of the job, which has none, or the runtime's end.
            Ok(Err(_)) => return Ok(()),
            Err(_) => {
                let source = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the disk does not finish in {} s", PATIENCE.as_secs()),
                );
                let path = self.options.path.clone();
                let error = WalError { attempt: "syncing the WAL", path, source };
                // Whatever becomes of it, the same bytes are written again.
                self.with(Wal::break_off);
                self.failed(&error);
                return Err(error);
            }
        };
        self.synced_at.set(Instant::now());
        match self.with(|wal| wal.end_sync(&job, result)) {
            Some(Err(error)) => {
                self.failed(&error);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// How long until a sync is due; None if nothing is unsynced.
    pub(super) fn sync_due(&self) -> Option<Duration> {
        let every = self.options.sync_every?;
        let synced = self.with(|wal| wal.is_synced() || wal.is_broken()).unwrap_or(true);
        (!synced).then(|| every.saturating_sub(self.synced_at.get().elapsed()))
    }

    /// How long until a failed disk may be tried again; None while it works.
    pub(super) fn mend_due(&self) -> Option<Duration> {
        let broken = self.with(|wal| wal.is_broken()).unwrap_or(true);
        (broken || self.buffer.borrow().is_some())
            .then(|| self.mend_at.get().saturating_duration_since(Instant::now()))
    }

    fn failed(&self, error: &dyn std::fmt::Display) {
        let text = error.to_string();
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            log::error!(
                "{text}; up to {} bytes of {} are kept in memory until the disk takes them",
                self.options.memory_bytes,
                self.name()
            );
        } else {
            log::debug!("the {} WAL still fails: {text}", self.name());
        }
        *failure = Some(text);
        drop(failure);
        // Whoever waits to mend it must know.
        self.appended.notify_waiters();
        self.mend_at.set(Instant::now() + self.mend_pause.get());
        self.mend_pause.set((self.mend_pause.get() * 2).min(MEND_MAX));
    }

    fn recovered(&self) {
        let broken = self.with(|wal| wal.is_broken()).unwrap_or(true);
        if broken || self.buffer.borrow().is_some() {
            return;
        }
        if self.failure.take().is_some() {
            log::info!("the {} WAL in {} works again", self.name(), self.path().display());
            self.mend_pause.set(MEND);
        }
    }

    /// Opens the WAL on disk again after a failure, and moves to it what is in memory.
    pub(super) fn mend(&self) {
        if !self.mend_due().is_some_and(|left| left.is_zero()) {
            return;
        }
        if self.is_syncing() && self.synced_device.get() == self.device() {
            self.mend_at.set(Instant::now() + self.mend_pause.get());
            return;
        }
        // A sync that hangs with a disk that was taken away is none of the disk in its place.
        self.syncing.take();
        self.mend_now();
    }

    fn mend_now(&self) {
        let mended = self.reopen().map_err(AppendError::Failed).and_then(|()| {
            match (self.disk.borrow_mut().as_mut(), self.buffer.borrow_mut().as_mut()) {
                (Some(disk), Some(buffer)) => disk.adopt(buffer),
                _ => Ok(()),
            }
        });
        if let Err(error) = mended {
            self.failed(&error);
            return;
        }
        if let Some(mut buffer) = self.buffer.take() {
            self.keep_counts(of_memory(buffer.stats()), of_memory_losses(buffer.take_losses()));
        }
        self.recovered();
        // Readers found nothing, and an acknowledgement freed nothing, while it was closed.
        self.appended.notify_waiters();
        self.freed.notify_waiters();
    }

    fn reopen(&self) -> Result<(), WalError> {
        let mut slot = self.disk.borrow_mut();
        if slot.as_ref().is_some_and(|wal| !wal.is_broken()) {
            return Ok(());
        }
        let disk = match slot.as_ref() {
            Some(broken) => broken.storage().again()?,
            None => Disk::new(&self.options.path)?,
        };
        let mut wal = Wal::open(disk, self.options.wal, &self.reader_names())?;
        if let Some(broken) = slot.as_mut() {
            if let Err(error) = wal.resume(broken) {
                self.keep_counts(wal.stats(), wal.take_losses());
                return Err(error);
            }
            self.keep_counts(broken.stats(), broken.take_losses());
        }
        *slot = Some(wal);
        Ok(())
    }

    fn keep_counts(&self, stats: Stats, losses: Vec<Loss>) {
        self.before.set(self.before.get().plus(stats));
        self.losses.borrow_mut().extend(losses);
    }

    /// Syncs, and tries a failed disk a last time: what is in memory alone goes with the process.
    pub(super) async fn close(&self) {
        if self.mend_due().is_some() && !self.is_syncing() {
            self.mend_now();
        }
        let limit = Duration::from_secs(2);
        if tokio::time::timeout(limit, self.sync()).await.is_err() {
            log::warn!("{}: the disk does not finish a sync", self.path().display());
            self.with(Wal::break_off);
        }
        // A failure is logged with the sync, and leaves zeros that the next start cuts off.
        let _ = self.with(Wal::close);
        if self.keeps_in_memory() {
            log::error!(
                "the {} that were kept in memory while {} took nothing are lost where no endpoint has taken them",
                self.name(),
                self.path().display()
            );
        }
    }

    /// Whether something would be lost with the process.
    pub(super) fn keeps_in_memory(&self) -> bool {
        let unsynced = self.with(|wal| wal.keeps_unsynced()).unwrap_or(false);
        unsynced || self.with_buffer(|wal| wal.has_unread()).unwrap_or(false)
    }

    /// Whether a sync runs; a disk that fails may hang in it.
    pub(super) fn is_syncing(&self) -> bool {
        self.syncing.borrow().load(Ordering::Acquire) > 0
    }

    /// The device that the directory is on now.
    fn device(&self) -> Option<u64> {
        std::fs::metadata(&self.options.path).ok().map(|found| found.dev())
    }

    /// The last failure, while it lasts.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Counts since the agent started.
    pub(super) fn stats(&self) -> Stats {
        let disk = self.with(|wal| wal.stats()).unwrap_or_default();
        let memory = self.with_buffer(|wal| of_memory(wal.stats())).unwrap_or_default();
        self.before.get().plus(disk).plus(memory)
    }

    /// What the WAL has given up since this was last asked.
    pub(super) fn take_losses(&self) -> Vec<Loss> {
        let mut losses = self.losses.take();
        losses.extend(self.with(|wal| wal.take_losses()).unwrap_or_default());
        losses.extend(of_memory_losses(
            self.with_buffer(|wal| wal.take_losses()).unwrap_or_default(),
        ));
        losses
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.with(|wal| wal.bytes()).unwrap_or(0)
    }

    /// Bytes that are kept in memory because the disk takes nothing.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.with_buffer(|wal| wal.bytes()).unwrap_or(0)
    }

    /// The bound.
    pub(super) fn max_bytes(&self) -> u64 {
        self.options.wal.max_bytes
    }

    /// The reader of this name.
    pub(super) fn reader(&self, name: &str) -> Option<ReaderId> {
        let on_disk = self.with(|wal| wal.reader(name)).flatten();
        on_disk.or_else(|| self.with_buffer(|wal| wal.reader(name)).flatten())
    }

    /// The position behind the last record; 0 if that can't be told.
    pub(super) fn end(&self) -> u64 {
        self.with(|wal| wal.end()).unwrap_or_default()
    }

    /// How far a reader has acknowledged.
    pub(super) fn cursor(&self, reader: ReaderId) -> u64 {
        let disk = self.with(|wal| wal.cursor(reader)).unwrap_or(0);
        disk.max(self.with_buffer(|wal| wal.cursor(reader)).unwrap_or(0))
    }

    /// Reads a record; None at the end. Where each record is synced, one that is not yet is the end:
    /// after a power cut its source is read again, and a line that was sent already would be sent a
    /// second time with another timestamp. While the disk takes nothing, that can't be helped.
    ///
    /// # Errors
    /// The WAL can't be read.
    pub(super) fn read(
        &self,
        reader: ReaderId,
        from: u64,
        payload: &mut Vec<u8>,
    ) -> Result<Option<Record>, WalError> {
        let waits = self.options.sync_every.is_none();
        let read = |wal: &mut Wal<Disk>| {
            let found = wal.read(reader, from, payload)?;
            let readable = if waits && !wal.is_broken() { wal.synced() } else { u64::MAX };
            Ok(found.map(|record| (record, record.next <= readable)))
        };
        match self.with(read).unwrap_or(Ok(None))? {
            Some((record, true)) => Ok(Some(record)),
            // What is in memory comes after it.
            Some((_, false)) => Ok(None),
            None => self.with_buffer(|wal| wal.read(reader, from, payload)).unwrap_or(Ok(None)),
        }
    }

    /// Says that a reader has everything up to `position` in memory, until it is acknowledged.
    pub(super) fn hold(&self, reader: ReaderId, position: u64) {
        self.with(|wal| wal.hold(reader, position));
        self.with_buffer(|wal| wal.hold(reader, position));
    }

    /// Counts what readers held that the WAL no longer has: nobody delivers it any more.
    pub(super) fn give_up_held(&self) {
        self.with(Wal::give_up_held);
        self.with_buffer(Wal::give_up_held);
    }

    /// Wakes whoever waits for a record: what it has can be read further now.
    pub(super) fn wake(&self) {
        self.appended.notify_waiters();
    }

    /// Waits for a record that is appended after this call.
    pub(super) fn appended(&self) -> impl Future<Output = ()> + '_ {
        self.appended.notified()
    }

    /// Waits for an acknowledgement after this call.
    pub(super) fn freed(&self) -> impl Future<Output = ()> + '_ {
        self.freed.notified()
    }
}

/// Whether an agent can start in spite of an error of its disk: nothing that the user has set wrong, and
/// something that may pass.
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StaleNetworkFileHandle, StorageFull};
    let kinds = [QuotaExceeded, ReadOnlyFilesystem, StaleNetworkFileHandle, StorageFull];
    let codes = [libc::EIO, libc::ENODEV, libc::ENXIO, libc::EUCLEAN];
    kinds.contains(&error.kind()) || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

mod acknowledge;
mod memory;
mod stamps;
#[cfg(test)]
mod tests;
