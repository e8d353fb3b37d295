//! What readers have is noted, and put on the disk for good now and then.

use std::io;

use tokio::time::Instant;

use super::{Log, PATIENCE, Syncing};
use crate::wal::{ReaderId, StorageFile, Wal, WalError};

impl Log {
    /// Moves a reader's cursor, which is what an acknowledgement does, and syncs it on a thread of its
    /// own if that is due.
    pub(in crate::pipeline) async fn acknowledge(&self, reader: ReaderId, position: u64) {
        self.with_buffer(|wal| wal.acknowledge(reader, position, false));
        if let Some(Err(error)) = self.with(|wal| wal.acknowledge(reader, position, false)) {
            self.failed(&error);
        }
        self.freed.notify_waiters();
        if self.options.sync_every.is_some() || !self.is_cursor_due(reader) {
            return;
        }
        match self.with(|wal| wal.share_cursor(reader)) {
            Some(Ok(Some(file))) => {
                let syncing = Syncing::begin(&self.syncing.borrow());
                self.synced_device.set(self.device());
                let synced = tokio::task::spawn_blocking(move || {
                    let result = file.sync();
                    drop(syncing);
                    result
                });
                let failed = match tokio::time::timeout(PATIENCE, synced).await {
                    Ok(Ok(result)) => result.err(),
                    Ok(Err(_)) => None,
                    Err(_) => Some(io::ErrorKind::TimedOut.into()),
                };
                if let Some(source) = failed {
                    let path = self.options.path.clone();
                    self.with(Wal::break_off);
                    self.failed(&WalError { attempt: "syncing a cursor of the WAL", path, source });
                }
            }
            Some(Err(error)) => self.failed(&error),
            Some(Ok(None)) | None => {}
        }
    }

    pub(super) fn is_cursor_due(&self, reader: ReaderId) -> bool {
        let now = Instant::now();
        let mut synced_at = self.cursors_synced_at.borrow_mut();
        let Some(last) = synced_at.get_mut(reader.index()) else { return true };
        let is_due = now.saturating_duration_since(*last) >= self.options.cursor_every;
        if is_due {
            *last = now;
        }
        is_due
    }
}
