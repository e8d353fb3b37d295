//! Reading: the next record at or after a position, past whatever is damaged.

use std::io;

use super::record::{Found, ReadAt};
use super::segment::{self, HEADER as SEGMENT_HEADER, Segment};
use super::storage::is_gone;
use super::sync::Unsynced;
use super::{Loss, LossReason, Open, ReaderId, Record, Storage, StorageFile, Wal, WalError};

/// A segment's file, with what was saved of it over it.
struct Overlay<'a, F> {
    file: &'a F,
    saved: Option<&'a Unsynced>,
}

impl<F: StorageFile> ReadAt for Overlay<'_, F> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(saved) = self.saved else { return self.file.read_exact_at(offset, buffer) };
        let before = saved.offset.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (first, second) = buffer.split_at_mut(before);
        Ok((first.is_empty() || self.file.read_exact_at(offset, first)?)
            && (second.is_empty() || saved.read(offset + before as u64, second)))
    }
}

impl<S: Storage> Wal<S> {
    /// Reads the first record at or after `from` into `payload`. None at the end of the log.
    ///
    /// # Errors
    /// A segment can't be read. Damage is not an error: it is skipped and counted.
    pub fn read(
        &mut self,
        reader: ReaderId,
        from: u64,
        payload: &mut Vec<u8>,
    ) -> Result<Option<Record>, WalError> {
        let mut open = self.readers[reader.0].open.take();
        let result = self.read_through(&mut open, from, payload);
        self.readers[reader.0].open = open;
        result
    }

    /// As [`read`](Wal::read), on nobody's behalf: for the caller's own recovery.
    ///
    /// # Errors
    /// As [`read`](Wal::read).
    pub fn scan(&mut self, from: u64, payload: &mut Vec<u8>) -> Result<Option<Record>, WalError> {
        let mut open = self.scanned.take();
        let result = self.read_through(&mut open, from, payload);
        self.scanned = open;
        result
    }

    fn read_through(
        &mut self,
        open: &mut Open<S::File>,
        from: u64,
        payload: &mut Vec<u8>,
    ) -> Result<Option<Record>, WalError> {
        let Some(mut index) = self.segments.iter().position(|s| s.end() > from) else {
            return Ok(None);
        };
        let mut from = from;
        while let Some(segment) = self.segments.get(index).copied() {
            let at = from.saturating_sub(segment.base).max(SEGMENT_HEADER as u64);
            if at >= segment.len {
                index += 1;
                continue;
            }
            if open.as_ref().is_none_or(|(base, _)| *base != segment.base) {
                match self.open_segment(&segment)? {
                    Some(file) => *open = Some((segment.base, file)),
                    None => {
                        self.lose_segment(index, at);
                        continue;
                    }
                }
            }
            let Some((_, file)) = open else { return Ok(None) };
            let saved = self.unsynced.as_ref().filter(|saved| saved.base == segment.base);
            let source = Overlay { file, saved };
            let error = |e| WalError::read(self.storage.path(), &segment::name(segment.base), e);
            let view = segment.view(&source);
            let found = view.read(at, payload).map_err(error)?;
            let (lost, next) = match found {
                Found::Good(header) => {
                    return Ok(Some(Record {
                        kind: header.kind,
                        items: header.items,
                        time_ms: header.time_ms,
                        position: segment.base + at,
                        next: segment.base + at + header.record_bytes(),
                        segment: segment.base,
                        fresh: at == SEGMENT_HEADER as u64,
                    }));
                }
                Found::BadPayload(header) => (Some(header), at + header.record_bytes()),
                Found::None => match view.search(at + 1, payload).map_err(error)? {
                    Some(next) => (None, next),
                    // A newest segment that is read as it is may end in the zeros that it grows by.
                    None if view.last_nonzero(at).map_err(error)? == at => {
                        from = segment.end();
                        index += 1;
                        continue;
                    }
                    None => (None, segment.len),
                },
            };
            let loss = lost.map(|header| (header.items, header.time()));
            self.count_damage(index, at, next, loss)?;
            from = segment.base + next;
        }
        Ok(None)
    }

    /// The file of a segment; None if it is gone.
    fn open_segment(&self, segment: &Segment) -> Result<Option<S::File>, WalError> {
        let name = segment::name(segment.base);
        let opened = match &self.active {
            // It may be in a directory that was deleted.
            Some(active) if active.base == segment.base => active.file.share(),
            _ => self.storage.open(&name),
        };
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(WalError::read(self.storage.path(), &name, e)),
        }
    }

    /// Counts damage once, whoever meets it.
    fn count_damage(
        &mut self,
        index: usize,
        at: u64,
        next: u64,
        items: Option<(u32, Option<i64>)>,
    ) -> Result<(), WalError> {
        let Some(segment) = self.segments.get_mut(index) else { return Ok(()) };
        if at < segment.counted {
            return Ok(());
        }
        segment.counted = next;
        let base = segment.base;
        log::warn!(
            "the WAL segment {} is damaged at byte {at}: {} bytes are skipped",
            self.storage.path().join(segment::name(base)).display(),
            next - at
        );
        self.stats.damaged_bytes += next - at;
        // What every reader has is not lost with its record.
        let taken = self.readers.iter().map(|reader| reader.cursor.max(reader.held)).min();
        if let Some((items, time)) = items
            && base + at >= taken.unwrap_or(0)
        {
            self.lose(Loss::of(LossReason::Damaged, items, time));
        }
        if self.active.as_ref().is_some_and(|active| active.base == base) && !self.broken {
            // Written by this process and damaged already: the next record must not need it.
            self.close_active()?;
        }
        Ok(())
    }

    /// A segment's file has vanished.
    fn lose_segment(&mut self, index: usize, at: u64) {
        let Some(segment) = self.segments.remove(index) else { return };
        log::error!(
            "the WAL segment {} is gone: {} bytes that were not read went with it",
            self.storage.path().join(segment::name(segment.base)).display(),
            segment.len.saturating_sub(at)
        );
        self.stats.damaged_bytes += segment.len.saturating_sub(at.max(segment.counted));
    }
}
