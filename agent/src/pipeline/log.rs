//! A WAL as the tasks of the pipeline share it: appends that wait for the disk on a thread that may
//! hang, readers that are woken, and recovery after a failed write.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::wal::{AppendError, Disk, Options, Payload, ReaderId, Record, Stats, Wal, WalError};

/// A WAL and what wakes its users.
#[derive(Debug)]
pub(super) struct Log {
    name: &'static str,
    path: PathBuf,
    options: Options,
    readers: Vec<String>,
    wal: RefCell<Option<Wal<Disk>>>,
    /// How long appended records may stay unsynced; None for not at all.
    sync_every: Option<Duration>,
    synced_at: Cell<Instant>,
    /// Counts of WALs that were closed after a failure.
    before: Cell<Stats>,
    /// What the last failure said; None while the WAL works.
    failure: RefCell<Option<String>>,
    appended: Notify,
    freed: Notify,
}

impl Log {
    /// Opens the WAL in `path`. See [`Wal::open`].
    pub(super) fn open(
        name: &'static str,
        path: &Path,
        options: Options,
        readers: Vec<String>,
        sync_every: Option<Duration>,
    ) -> Result<Log, WalError> {
        let log = Log {
            name,
            path: path.to_owned(),
            options,
            readers,
            wal: RefCell::new(None),
            sync_every,
            synced_at: Cell::new(Instant::now()),
            before: Cell::default(),
            failure: RefCell::default(),
            appended: Notify::new(),
            freed: Notify::new(),
        };
        let wal = log.open_wal()?;
        log.wal.replace(Some(wal));
        Ok(log)
    }

    fn open_wal(&self) -> Result<Wal<Disk>, WalError> {
        let readers: Vec<&str> = self.readers.iter().map(String::as_str).collect();
        Wal::open(Disk::new(&self.path)?, self.options, &readers)
    }

    /// `metrics` or `logs`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` on the WAL; None while it is closed after a failure.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Wal<Disk>) -> T) -> Option<T> {
        self.wal.borrow_mut().as_mut().map(f)
    }

    /// Appends a record. The error is logged where it is the first since the WAL worked; the caller
    /// decides what becomes of the data. [`settle`](Log::settle) comes after it.
    pub(super) fn append(
        &self,
        kind: u8,
        payload: &mut impl Payload,
    ) -> Result<Record, AppendError> {
        self.reopen();
        match self.with(|wal| wal.append(kind, payload)).unwrap_or(Err(AppendError::Broken)) {
            Err(AppendError::Failed(error)) => {
                self.failed(&error);
                Err(AppendError::Failed(error))
            }
            other => other,
        }
    }

    /// Syncs what was appended if that is due, and wakes the readers.
    pub(super) async fn settle(&self) -> Result<(), WalError> {
        if self.sync_every.is_none_or(|every| self.synced_at.get().elapsed() >= every) {
            self.sync().await?;
        }
        self.recovered();
        self.appended.notify_waiters();
        Ok(())
    }

    /// Syncs what was appended, on a thread of its own.
    pub(super) async fn sync(&self) -> Result<(), WalError> {
        let job = match self.with(|wal| wal.start_sync()) {
            Some(Ok(Some(job))) => job,
            Some(Ok(None)) | None => return Ok(()),
            Some(Err(error)) => return Err(error),
        };
        let ran = tokio::task::spawn_blocking(move || {
            let result = job.run();
            (job, result)
        });
        let Ok((job, result)) = ran.await else {
            // Only a panic of the job, which has none, or the runtime's end.
            return Ok(());
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
        let every = self.sync_every?;
        let synced = self.with(|wal| wal.is_synced()).unwrap_or(true);
        (!synced).then(|| every.saturating_sub(self.synced_at.get().elapsed()))
    }

    fn failed(&self, error: &WalError) {
        let text = error.to_string();
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            log::error!(
                "{text}; the {} WAL takes nothing until its disk does: it is tried again with each record",
                self.name
            );
        }
        *failure = Some(text);
    }

    fn recovered(&self) {
        if self.failure.take().is_some() {
            log::info!("the {} WAL in {} works again", self.name, self.path.display());
        }
    }

    /// Opens the WAL again after a failure.
    fn reopen(&self) {
        let mut slot = self.wal.borrow_mut();
        let end = match slot.as_ref() {
            Some(wal) if !wal.is_broken() => return,
            Some(wal) => {
                self.before.set(sum(self.before.get(), wal.stats()));
                wal.end()
            }
            None => 0,
        };
        // The lock goes with the old one, which would refuse the new one.
        *slot = None;
        match self.open_wal() {
            Ok(mut wal) => {
                // A reader may hold a position of what the failure took: nothing new may come before it.
                wal.begin_at(end);
                *slot = Some(wal);
            }
            Err(error) => {
                drop(slot);
                self.failed(&error);
            }
        }
    }

    /// The last failure, while it lasts.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Counts since the agent started.
    pub(super) fn stats(&self) -> Stats {
        let now = self.with(|wal| wal.stats()).unwrap_or_default();
        sum(self.before.get(), now)
    }

    /// Bytes of all files, zero while the WAL is closed after a failure.
    pub(super) fn bytes(&self) -> u64 {
        self.with(|wal| wal.bytes()).unwrap_or(0)
    }

    /// The bound.
    pub(super) fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// The reader of this name.
    pub(super) fn reader(&self, name: &str) -> Option<ReaderId> {
        self.with(|wal| wal.reader(name)).flatten()
    }

    /// Reads a record; None at the end, and while the WAL is closed after a failure.
    pub(super) fn read(
        &self,
        reader: ReaderId,
        from: u64,
        payload: &mut Vec<u8>,
    ) -> Result<Option<Record>, WalError> {
        self.with(|wal| wal.read(reader, from, payload)).unwrap_or(Ok(None))
    }

    /// Moves a reader's cursor, which is what an acknowledgement does.
    pub(super) fn acknowledge(&self, reader: ReaderId, position: u64) {
        let sync = self.sync_every.is_none();
        if let Some(Err(error)) = self.with(|wal| wal.acknowledge(reader, position, sync)) {
            log::warn!("{error}; after a crash, what was sent since is sent again");
        }
        self.freed.notify_waiters();
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

fn sum(a: Stats, b: Stats) -> Stats {
    Stats {
        records: a.records + b.records,
        written_bytes: a.written_bytes + b.written_bytes,
        dropped_items: a.dropped_items + b.dropped_items,
        torn_bytes: a.torn_bytes + b.torn_bytes,
        damaged_bytes: a.damaged_bytes + b.damaged_bytes,
        set_aside: a.set_aside + b.set_aside,
    }
}
