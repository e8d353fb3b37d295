//! Keeping the bound: what goes when there is no room, and in which order. It never looks into a record.

use super::record;
use super::segment::{self, HEADER as SEGMENT_HEADER};
use super::{AppendError, OnFull, Storage, Wal, WalError};

impl<S: Storage> Wal<S> {
    /// Frees room for `growth` more bytes, or says that there is none.
    pub(super) fn make_room(&mut self, growth: u64) -> Result<(), AppendError> {
        self.remove_acknowledged()?;
        while self.bytes() + growth > self.options.max_bytes {
            if self.remove_aside()? {
                continue;
            }
            if self.options.on_full == OnFull::Refuse || !self.may_remove_oldest() {
                return Err(AppendError::Full { max_bytes: self.options.max_bytes });
            }
            let dropped = self.unread_in_oldest();
            self.remove_oldest()?;
            self.stats.dropped_items += dropped;
        }
        Ok(())
    }

    /// The newest segment with a synced record must stay, and so must everything after it.
    fn may_remove_oldest(&self) -> bool {
        let newest_synced = self.segments.iter().rposition(|s| {
            s.len > SEGMENT_HEADER as u64 && self.synced > s.base + SEGMENT_HEADER as u64
        });
        newest_synced.is_some_and(|newest| newest > 0)
    }

    pub(super) fn remove_acknowledged(&mut self) -> Result<(), AppendError> {
        let Some(min) = self.min_cursor() else { return Ok(()) };
        while self.segments.front().is_some_and(|s| s.end() <= min) && self.may_remove_oldest() {
            self.remove_oldest()?;
        }
        Ok(())
    }

    /// Removes the oldest file that was set aside, if there is one: what no reader can use is the first
    /// to go.
    fn remove_aside(&mut self) -> Result<bool, AppendError> {
        let Some((name, bytes)) = self.aside.front().cloned() else { return Ok(false) };
        log::warn!(
            "{} was set aside and goes, to make room in the WAL",
            self.storage.path().join(&name).display()
        );
        self.storage
            .remove(&name)
            .map_err(|e| AppendError::Failed(WalError::remove(self.storage.path(), &name, e)))?;
        self.aside.pop_front();
        self.other_bytes -= bytes;
        Ok(true)
    }

    fn remove_oldest(&mut self) -> Result<(), AppendError> {
        let Some(oldest) = self.segments.front().copied() else { return Ok(()) };
        let name = segment::name(oldest.base);
        self.storage
            .remove(&name)
            .map_err(|e| AppendError::Failed(WalError::remove(self.storage.path(), &name, e)))?;
        self.segments.pop_front();
        let first = self.segments.front().map_or(self.next_base, |s| s.base);
        for reader in &mut self.readers {
            reader.cursor = reader.cursor.max(first.min(self.next_base));
            if reader.open.as_ref().is_some_and(|(base, _)| *base == oldest.base) {
                reader.open = None;
            }
        }
        self.scanned = None;
        Ok(())
    }

    /// Items of the oldest segment that some reader has not acknowledged; without readers, all.
    fn unread_in_oldest(&self) -> u64 {
        let Some(oldest) = self.segments.front() else { return 0 };
        let from = self.min_cursor().unwrap_or(0);
        let Ok(file) = self.storage.open(&segment::name(oldest.base)) else { return 0 };
        let mut items = 0;
        let mut at = SEGMENT_HEADER as u64;
        while let Ok(Some((header, next))) = record::header_at(&file, oldest, at) {
            if oldest.base + at >= from {
                items += u64::from(header.items);
            }
            at = next;
        }
        items
    }

    fn min_cursor(&self) -> Option<u64> {
        self.readers.iter().map(|reader| reader.cursor).min()
    }
}
