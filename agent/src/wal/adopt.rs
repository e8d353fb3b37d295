//! From a log in memory to the disk: the segments that were written while the disk took nothing.

use super::room::Withheld;
use super::segment::{self, HEADER as SEGMENT_HEADER, Segment};
use super::{AppendError, Loss, LossReason, Memory, ReaderId, Storage, StorageFile, Wal, WalError};

impl<S: Storage> Wal<S> {
    /// Moves the segments of `buffer`, which went on where this log ended, to this log's storage, oldest
    /// first, as they are; and takes over its cursors. What fails stays in the buffer.
    ///
    /// # Errors
    /// No room for the next segment, or a failed write or sync, after which this log is broken.
    pub fn adopt(&mut self, buffer: &mut Wal<Memory>) -> Result<(), AppendError> {
        if self.broken {
            return Err(AppendError::Broken);
        }
        self.close_active().map_err(AppendError::Failed)?;
        // What was acknowledged need not be written, but for the newest: it has what the caller needs
        // after a restart.
        buffer.remove_acknowledged()?;
        while let Some(segment) = buffer.segments.front().copied() {
            // Before the next one, which may need room: what is moved and acknowledged makes it.
            self.take_cursors(buffer, false)?;
            self.adopt_segment(buffer, &segment)?;
            let _ = buffer.storage.remove(&segment::name(segment.base));
            buffer.segments.pop_front();
        }
        buffer.active = None;
        self.begin_at(buffer.next_base);
        self.take_cursors(buffer, true)?;
        // After the cursors, which may have moved by what went: that is no delivery.
        self.withheld.extend(buffer.withheld.drain(..).map(Withheld::of_memory));
        Ok(())
    }

    fn take_cursors(&mut self, buffer: &Wal<Memory>, sync: bool) -> Result<(), AppendError> {
        for index in 0..self.readers.len().min(buffer.readers.len()) {
            let reader = ReaderId(index);
            self.acknowledge(reader, buffer.cursor(reader), sync).map_err(AppendError::Failed)?;
        }
        Ok(())
    }

    fn adopt_segment(
        &mut self,
        buffer: &Wal<Memory>,
        segment: &Segment,
    ) -> Result<(), AppendError> {
        let name = segment::name(segment.base);
        let unreadable = |e| AppendError::Failed(WalError::read(buffer.storage.path(), &name, e));
        let memory = buffer.storage.open(&name).map_err(unreadable)?;
        let mut bytes = vec![0; segment.len as usize];
        memory.read_exact_at(0, &mut bytes).map_err(unreadable)?;
        // A try before this one has left a part of it.
        if self.segments.back().is_some_and(|newest| newest.base == segment.base) {
            self.storage
                .remove(&name)
                .map_err(|e| self.adopt_failed(WalError::remove(self.storage.path(), &name, e)))?;
            self.segments.pop_back();
            self.next_base = segment.base;
        }
        if segment.base < self.next_base {
            // The buffer began without knowing where this log ended.
            let loss = lost(segment, &memory);
            log::error!(
                "{} items that were kept in memory can't be placed in the WAL in {}",
                loss.items,
                self.storage.path().display()
            );
            self.lose(loss);
            return Ok(());
        }
        self.make_room(segment.len)?;
        let written = self.write_segment(&name, &bytes);
        if let Err(error) = written {
            let _ = self.storage.remove(&name);
            return Err(self.adopt_failed(error));
        }
        self.segments.push_back(Segment { size: segment.len, counted: 0, ..*segment });
        self.next_base = segment.end();
        self.synced = self.next_base;
        Ok(())
    }

    fn write_segment(&mut self, name: &str, bytes: &[u8]) -> Result<(), WalError> {
        let create = |e| WalError::create(self.storage.path(), name, e);
        let mut file = self.storage.create(name).map_err(create)?;
        file.write_at(0, bytes).map_err(|e| WalError::write(self.storage.path(), e))?;
        self.stats.written_bytes += bytes.len() as u64;
        file.sync()
            .and_then(|()| self.storage.sync_directory())
            .map_err(|e| WalError::sync(self.storage.path(), e))
    }

    fn adopt_failed(&mut self, error: WalError) -> AppendError {
        self.break_off();
        AppendError::Failed(error)
    }
}

/// Everything in a segment, as a loss.
fn lost(segment: &Segment, file: &impl StorageFile) -> Loss {
    let reason = LossReason::Damaged;
    let mut loss = Loss { reason, items: 0, from_ms: i64::MAX, to_ms: i64::MIN };
    let (view, mut at) = (segment.view(file), SEGMENT_HEADER as u64);
    while let Ok(Some(header)) = view.header(at) {
        loss.join(&Loss::of(reason, header.items, header.time()));
        at += header.record_bytes();
    }
    loss
}
