//! Keeping the bounds: what goes when there is no room, and in which order. It never looks into a
//! payload.

use super::segment::{self, HEADER as SEGMENT_HEADER};
use super::{AppendError, Loss, LossReason, OnFull, Options, Storage, Wal, WalError, cursor};

/// A segment is closed when it spans this part of the bound on age, so that no data gets older than the
/// bound by more than that while something is appended.
const AGE_STEPS: i64 = 8;

impl<S: Storage> Wal<S> {
    /// Frees room for `growth` more bytes, or says that there is none.
    pub(super) fn make_room(&mut self, growth: u64) -> Result<(), AppendError> {
        self.remove_acknowledged()?;
        while let Some((reason, error)) = self.lack(growth) {
            if self.remove_aside()? {
                continue;
            }
            if self.options.on_full == OnFull::Refuse || !self.may_remove_oldest() {
                return Err(error);
            }
            self.drop_oldest(reason)?;
        }
        if growth > 0 && self.taken_bytes() + growth + self.freed > self.options.max_bytes {
            self.sync_freed().map_err(AppendError::Failed)?;
        }
        Ok(())
    }

    /// Bytes that count against the bound: room for cursor files is always kept.
    fn taken_bytes(&self) -> u64 {
        let reserved = (Options::MAX_CURSORS * cursor::FILE).max(self.cursor_bytes());
        self.data_bytes() + reserved
    }

    /// What stands against `growth` more bytes.
    fn lack(&mut self, growth: u64) -> Option<(LossReason, AppendError)> {
        let Options { max_bytes, min_free, .. } = self.options;
        if self.taken_bytes() + growth > max_bytes {
            return Some((LossReason::Full, AppendError::Full { max_bytes }));
        }
        if growth == 0 || min_free == 0 {
            return None;
        }
        // Where it can't be told, a write will find out.
        let free = self.storage.free_bytes().unwrap_or(u64::MAX);
        if free >= min_free.saturating_add(growth) {
            self.frozen = None;
            return None;
        }
        let bytes = self.data_bytes();
        let limit = *self.frozen.get_or_insert(bytes);
        (bytes + growth > limit)
            .then_some((LossReason::MinFree, AppendError::NoSpace { free, min_free }))
    }

    /// Whether the newest segment has to be closed, so that age is bounded in small steps.
    pub(super) fn is_old(&self, now_ms: i64) -> bool {
        let Some(max_age_ms) = self.options.max_age_ms else { return false };
        let begins = now_ms.saturating_sub(max_age_ms / AGE_STEPS);
        self.segments.back().and_then(|s| s.first_ms).is_some_and(|first| first < begins)
    }

    /// Removes what is older than the bound on age, `now_ms` being the time of the newest record.
    pub(super) fn expire(&mut self, now_ms: i64) -> Result<(), AppendError> {
        let Some(max_age_ms) = self.options.max_age_ms else { return Ok(()) };
        let begins = now_ms.saturating_sub(max_age_ms);
        while let Some(second) = self.segments.get(1)
            && second.first_ms.is_some_and(|first| first < begins)
            && self.may_remove_oldest()
        {
            self.drop_oldest(LossReason::Expired)?;
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
    pub(super) fn remove_aside(&mut self) -> Result<bool, AppendError> {
        let Some((name, bytes)) = self.aside.front().cloned() else { return Ok(false) };
        log::warn!(
            "{} was set aside and goes, to make room in the WAL",
            self.storage.path().join(&name).display()
        );
        self.remove_file(&name, bytes)?;
        self.aside.pop_front();
        self.other_bytes -= bytes;
        Ok(true)
    }

    fn remove_file(&mut self, name: &str, bytes: u64) -> Result<(), AppendError> {
        self.storage
            .remove(name)
            .map_err(|e| AppendError::Failed(WalError::remove(self.storage.path(), name, e)))?;
        self.changes += 1;
        self.freed += bytes;
        Ok(())
    }

    fn drop_oldest(&mut self, reason: LossReason) -> Result<(), AppendError> {
        let loss = self.unread_in_oldest(reason);
        self.remove_oldest()?;
        if let Some(loss) = loss {
            self.lose(loss);
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<(), AppendError> {
        let Some(oldest) = self.segments.front().copied() else { return Ok(()) };
        self.remove_file(&segment::name(oldest.base), oldest.size)?;
        self.segments.pop_front();
        let first = self.segments.front().map_or(self.next_base, |s| s.base);
        for reader in &mut self.readers {
            // One that has not come as far is still in the log that this one goes on from.
            if reader.cursor >= oldest.base {
                reader.cursor = reader.cursor.max(first.min(self.next_base));
            }
            reader.open.take_if(|(base, _)| *base == oldest.base);
        }
        self.scanned = None;
        Ok(())
    }

    /// What some reader has neither acknowledged nor in memory; without readers, everything.
    fn unread_in_oldest(&self, reason: LossReason) -> Option<Loss> {
        let oldest = self.segments.front()?;
        let from = self.readers.iter().map(|reader| reader.cursor.max(reader.held)).min();
        let from = from.unwrap_or(0);
        let file = self.storage.open(&segment::name(oldest.base)).ok()?;
        let view = oldest.view(&file);
        let mut loss: Option<Loss> = None;
        let mut at = SEGMENT_HEADER as u64;
        while let Ok(found) = view.header(at) {
            let Some(header) = found else {
                match view.search(at + 1, &mut Vec::new()) {
                    Ok(Some(next)) => at = next,
                    _ => break,
                }
                continue;
            };
            if oldest.base + at >= from {
                let (items, time) = (u64::from(header.items), header.time_ms);
                let this = Loss { reason, items, from_ms: time, to_ms: time };
                match &mut loss {
                    Some(loss) => loss.join(&this),
                    None => loss = Some(this),
                }
            }
            at += header.record_bytes();
        }
        loss.filter(|loss| loss.items > 0)
    }

    pub(super) fn min_cursor(&self) -> Option<u64> {
        self.readers.iter().map(|reader| reader.cursor).min()
    }
}
