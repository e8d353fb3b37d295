//! Reading: the next record at or after a position, past whatever is damaged.

use super::record;
use super::segment::{self, HEADER as SEGMENT_HEADER};
use super::{Open, ReaderId, Record, Storage, Wal, WalError};

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
            if at >= segment.good {
                index += 1;
                continue;
            }
            let name = segment::name(segment.base);
            let error = |e| WalError::read(self.storage.path(), &name, e);
            if open.as_ref().is_none_or(|(base, _)| *base != segment.base) {
                *open = Some((segment.base, self.storage.open(&name).map_err(error)?));
            }
            let Some((_, file)) = open else { return Ok(None) };
            let read = record::read_at(file, &segment, at, payload).map_err(error)?;
            if let Some((header, next)) = read {
                return Ok(Some(Record {
                    kind: header.kind,
                    items: header.items,
                    position: segment.base + at,
                    next: segment.base + next,
                    segment: segment.base,
                    fresh: at == SEGMENT_HEADER as u64,
                }));
            }
            log::warn!(
                "the WAL segment {} is damaged at byte {at}: {} bytes are skipped",
                self.storage.path().join(&name).display(),
                segment.good - at
            );
            self.stats.damaged_bytes += segment.good - at;
            if self.active.as_ref().is_some_and(|active| active.base == segment.base) {
                // Written by this process and damaged already: the next record begins a new segment.
                self.close_active()?;
            }
            self.segments[index].good = at;
            from = segment.end();
            index += 1;
        }
        Ok(None)
    }
}
