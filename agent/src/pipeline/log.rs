//! A WAL as the tasks of the pipeline share it: appends that wait for the disk on a thread that may
//! hang, readers that are woken, and recovery after a failed write.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::wal::{
    AppendError, Disk, Options, Payload, ReaderId, Record, Stats, StorageFile, Wal, WalError,
};

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
    /// The end of a WAL that was closed after a failure.
    end: Cell<u64>,
    /// Whether the newest segment must be written once more when it is opened again.
    rewrite: Cell<bool>,
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
            end: Cell::default(),
            rewrite: Cell::default(),
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

    /// Appends a record and settles it. `written` is None at first; after an error the same call with
    /// the same `written` does what is left to do, so that a record whose sync failed is not written
    /// twice.
    pub(super) async fn write(
        &self,
        kind: u8,
        payload: &mut impl Payload,
        written: &mut Option<Record>,
    ) -> Result<(), AppendError> {
        self.reopen();
        if let Some(record) = *written {
            let found = self.with(|wal| wal.scan(record.position, &mut Vec::new()));
            match found.unwrap_or(Ok(None)) {
                Err(error) => return Err(AppendError::Failed(error)),
                Ok(found) if self.wal.borrow().is_some() => {
                    *written = found.filter(|found| found.position == record.position);
                }
                Ok(_) => return Err(AppendError::Broken),
            }
        }
        if written.is_none() {
            *written = Some(self.append(kind, payload)?);
        }
        self.settle().await.map_err(AppendError::Failed)
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
        match slot.as_ref() {
            Some(wal) if !wal.is_broken() => return,
            Some(wal) => {
                self.before.set(sum(self.before.get(), wal.stats()));
                self.end.set(wal.end());
                self.rewrite.set(self.rewrite.get() || wal.lost_sync());
            }
            // It could not be opened the last time.
            None => {}
        }
        // The lock goes with the old one, which would refuse the new one.
        *slot = None;
        let opened = self.open_wal().and_then(|mut wal| {
            if self.rewrite.get() {
                wal.rewrite_newest()?;
            }
            Ok(wal)
        });
        match opened {
            Ok(mut wal) => {
                self.rewrite.set(false);
                // A reader may hold a position of what the failure took: nothing new may come before it.
                wal.begin_at(self.end.get());
                *slot = Some(wal);
                drop(slot);
                // Readers found nothing, and an acknowledgement freed nothing, while it was closed.
                self.appended.notify_waiters();
                self.freed.notify_waiters();
            }
            Err(error) => {
                drop(slot);
                // A sync may have been a part of it.
                self.rewrite.set(true);
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

    /// Reads a record; None at the end, and while the WAL is closed after a failure. Where each record
    /// is synced, one that is not yet is the end: after a power cut its source is read again, and a line
    /// that was sent already would be sent a second time with another timestamp.
    pub(super) fn read(
        &self,
        reader: ReaderId,
        from: u64,
        payload: &mut Vec<u8>,
    ) -> Result<Option<Record>, WalError> {
        let read = |wal: &mut Wal<Disk>| {
            let found = wal.read(reader, from, payload)?;
            let readable = if self.sync_every.is_none() { wal.synced() } else { u64::MAX };
            Ok(found.filter(|record| record.next <= readable))
        };
        self.with(read).unwrap_or(Ok(None))
    }

    /// Moves a reader's cursor, which is what an acknowledgement does, and syncs it on a thread of its
    /// own.
    pub(super) async fn acknowledge(&self, reader: ReaderId, position: u64) {
        let warn = |error: &dyn std::fmt::Display| {
            log::warn!("{error}; after a crash, what was sent since is sent again");
        };
        if let Some(Err(error)) = self.with(|wal| wal.acknowledge(reader, position, false)) {
            warn(&error);
        }
        self.freed.notify_waiters();
        if self.sync_every.is_some() {
            return;
        }
        match self.with(|wal| wal.share_cursor(reader)) {
            Some(Ok(file)) => {
                let synced = tokio::task::spawn_blocking(move || file.sync()).await;
                if let Ok(Err(error)) = synced {
                    warn(&format!("syncing a cursor in {}: {error}", self.path.display()));
                }
            }
            Some(Err(error)) => warn(&error),
            None => {}
        }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::*;
    use crate::wal::OnFull;

    struct Bytes(u8);

    impl Payload for Bytes {
        fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> u32 {
            out.extend_from_slice(&[self.0; 100]);
            1
        }
    }

    fn log(dir: &tempfile::TempDir) -> Log {
        let options = Options { max_bytes: 1 << 20, on_full: OnFull::Refuse, content: 2 };
        Log::open("logs", dir.path(), options, vec!["a".into()], None).unwrap()
    }

    fn fail_sync(log: &Log) {
        let failed = log.with(|wal| {
            let job = wal.start_sync().unwrap().unwrap();
            wal.end_sync(&job, Err(io::ErrorKind::Other.into()))
        });
        assert!(failed.unwrap().is_err());
    }

    fn read_all(log: &Log, mut at: u64) -> Vec<u8> {
        let (reader, mut payload, mut all) = (log.reader("a").unwrap(), Vec::new(), Vec::new());
        while let Some(record) = log.read(reader, at, &mut payload).unwrap() {
            all.push(payload[0]);
            at = record.next;
        }
        all
    }

    #[tokio::test]
    async fn what_is_not_synced_is_not_sent_where_each_record_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.append(1, &mut Bytes(1)).unwrap();
        log.settle().await.unwrap();
        log.append(1, &mut Bytes(2)).unwrap();
        assert_eq!(read_all(&log, 0), [1]);
        log.settle().await.unwrap();
        assert_eq!(read_all(&log, 0), [1, 2]);
    }

    #[tokio::test]
    async fn record_whose_sync_failed_is_not_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        let mut written = Some(log.append(1, &mut Bytes(1)).unwrap());
        fail_sync(&log);
        log.write(1, &mut Bytes(1), &mut written).await.unwrap();
        log.write(1, &mut Bytes(2), &mut None).await.unwrap();
        assert_eq!(read_all(&log, 0), [1, 2]);
        // And it is written again where the failure has taken it.
        let mut written = Some(log.append(1, &mut Bytes(3)).unwrap());
        fail_sync(&log);
        let newest = log.with(|wal| wal.segments().next().unwrap()).unwrap();
        let file = dir.path().join(format!("{newest:016x}.wal"));
        let len = fs::metadata(&file).unwrap().len();
        fs::File::options().write(true).open(&file).unwrap().set_len(len - 1).unwrap();
        log.write(1, &mut Bytes(3), &mut written).await.unwrap();
        assert_eq!(read_all(&log, 0), [1, 2, 3]);
        assert_eq!(log.failure(), None);
    }

    #[tokio::test]
    async fn nothing_new_comes_before_what_a_reader_has_seen_however_often_opening_fails() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.append(1, &mut Bytes(1)).unwrap();
        log.append(1, &mut Bytes(2)).unwrap();
        let seen = log.with(|wal| wal.end()).unwrap();
        fail_sync(&log);
        // The disk is away for two tries and comes back without the unsynced records.
        let (lock, away) = (dir.path().join("LOCK"), dir.path().join("away"));
        fs::rename(&lock, &away).unwrap();
        fs::create_dir(&lock).unwrap();
        for _ in 0..2 {
            assert!(matches!(log.append(1, &mut Bytes(3)), Err(AppendError::Broken)));
            assert!(log.failure().is_some());
        }
        fs::remove_dir(&lock).unwrap();
        fs::rename(&away, &lock).unwrap();
        fs::File::options()
            .write(true)
            .open(dir.path().join(format!("{:016x}.wal", 0)))
            .unwrap()
            .set_len(40)
            .unwrap();
        log.write(1, &mut Bytes(3), &mut None).await.unwrap();
        assert_eq!(read_all(&log, seen), [3]);
    }

    #[tokio::test]
    async fn readers_and_writers_are_woken_when_the_wal_is_open_again() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.append(1, &mut Bytes(1)).unwrap();
        fail_sync(&log);
        let (appended, freed) = (log.appended(), log.freed());
        log.append(1, &mut Bytes(2)).unwrap();
        let both = async { tokio::join!(appended, freed) };
        tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
    }

    #[tokio::test]
    async fn record_is_synced_before_its_write_returns() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir);
        log.write(1, &mut Bytes(1), &mut None).await.unwrap();
        assert_eq!(log.with(|wal| wal.is_synced()), Some(true));
        log.append(1, &mut Bytes(2)).unwrap();
        assert_eq!(log.with(|wal| wal.is_synced()), Some(false));
        log.settle().await.unwrap();
        assert_eq!(log.with(|wal| wal.is_synced()), Some(true));
    }
}
