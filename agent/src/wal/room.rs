//! Keeping the bounds: what goes when there is no room, and in which order. It never looks into a
//! payload.

use super::segment::{self, HEADER as SEGMENT_HEADER};
use super::storage::is_gone;
use super::{
    AppendError, Loss, LossReason, OnFull, Options, Reader, Storage, Wal, WalError, cursor,
};

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

    /// Whether the newest segment has to be closed, so that age is bounded in small steps: a record of known
    /// time begins a new one behind those of unknown time.
    pub(super) fn is_old(&self, now_ms: Option<i64>) -> bool {
        let (Some(max_age_ms), Some(now_ms)) = (self.options.max_age_ms, now_ms) else {
            return false;
        };
        let begins = now_ms.saturating_sub(max_age_ms / AGE_STEPS);
        self.segments.back().is_some_and(|s| s.first_ms.is_none_or(|first| first < begins))
    }

    /// Removes what is older than the bound on age, `now_ms` being the time of the newest record. Segments of
    /// unknown time go with those of known time behind them.
    pub(super) fn expire(&mut self, now_ms: Option<i64>) -> Result<(), AppendError> {
        let (Some(max_age_ms), Some(now_ms)) = (self.options.max_age_ms, now_ms) else {
            return Ok(());
        };
        let begins = now_ms.saturating_sub(max_age_ms);
        // A segment whose first record is damaged does not say when it begins; the one behind it does.
        while self.segments.iter().skip(1).find_map(|s| s.first_ms).is_some_and(|ms| ms < begins)
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
        match self.storage.remove(name) {
            Ok(()) => {}
            // Somebody else has removed it.
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                self.break_off();
                let error = WalError::remove(self.storage.path(), name, error);
                return Err(AppendError::Failed(error));
            }
        }
        self.changes += 1;
        self.freed += bytes;
        Ok(())
    }

    fn drop_oldest(&mut self, reason: LossReason) -> Result<(), AppendError> {
        let (lost, withheld) = self.unread_in_oldest(reason);
        self.remove_oldest()?;
        if let Some(loss) = lost {
            self.lose(loss);
        }
        self.withheld.extend(withheld);
        Ok(())
    }

    /// What readers have in memory and the log no longer has is lost now, and so is what goes from now on: they
    /// end without a delivery.
    pub fn give_up_held(&mut self) {
        self.readers.iter_mut().for_each(|reader| reader.held = 0);
        for withheld in std::mem::take(&mut self.withheld) {
            self.lose(withheld.loss);
        }
    }

    /// A reader has delivered everything before `position`.
    pub(super) fn deliver_held(&mut self, reader: usize, position: u64) {
        self.withheld.retain_mut(|withheld| {
            if withheld.end <= position {
                withheld.readers.retain(|have| *have != reader);
            }
            !withheld.readers.is_empty()
        });
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

    /// What some reader has neither acknowledged nor in memory (without readers, everything), and what
    /// readers have in memory alone when the segment is gone.
    fn unread_in_oldest(&self, reason: LossReason) -> (Option<Loss>, Option<Withheld>) {
        let (mut lost, mut held, mut end) = (None, None, 0);
        let Some(oldest) = self.segments.front() else { return (None, None) };
        let Ok(file) = self.storage.open(&segment::name(oldest.base)) else { return (None, None) };
        let taken = self.readers.iter().map(|reader| reader.cursor.max(reader.held)).min();
        let (taken, acknowledged) = (taken.unwrap_or(0), self.min_cursor().unwrap_or(0));
        let view = oldest.view(&file);
        let mut at = SEGMENT_HEADER as u64;
        while let Ok(found) = view.header(at) {
            let Some(header) = found else {
                match view.search(at + 1, &mut Vec::new()) {
                    Ok(Some(next)) => at = next,
                    _ => break,
                }
                continue;
            };
            let position = oldest.base + at;
            at += header.record_bytes();
            let this = Loss::of(reason, header.items, header.time());
            if position >= taken {
                join(&mut lost, this);
            } else if position >= acknowledged {
                join(&mut held, this);
                end = oldest.base + at;
            }
        }
        let holds = |reader: &Reader<S::File>| reader.cursor < end && reader.held > oldest.base;
        let readers = (0..self.readers.len()).filter(|i| self.readers.get(*i).is_some_and(holds));
        let held = held.filter(|loss| loss.items > 0);
        let held = held.map(|loss| Withheld { end, readers: readers.collect(), loss });
        (lost.filter(|loss| loss.items > 0), held)
    }

    pub(super) fn min_cursor(&self) -> Option<u64> {
        self.readers.iter().map(|reader| reader.cursor).min()
    }
}

/// What went from the log while readers had it in memory.
#[derive(Clone, Debug)]
pub(super) struct Withheld {
    /// The position behind it.
    end: u64,
    /// The readers that have not delivered it yet.
    readers: Vec<usize>,
    loss: Loss,
}

impl Withheld {
    /// What went from a log in memory, for the one on the disk: that had room.
    pub(super) fn of_memory(mut self) -> Withheld {
        if self.loss.reason == LossReason::Full {
            self.loss.reason = LossReason::NoDisk;
        }
        self
    }
}

fn join(sum: &mut Option<Loss>, loss: Loss) {
    match sum {
        Some(sum) => sum.join(&loss),
        None => *sum = Some(loss),
    }
}
