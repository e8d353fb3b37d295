//! Appending: from a payload to bytes in the newest segment, or in a new one.

use super::record::{HEADER as RECORD_HEADER, Header, SYNCED_BEFORE, UNTIMED};
use super::segment::{self, HEADER as SEGMENT_HEADER, Segment};
use super::{Active, AppendError, Encoded, Payload, Record, Storage, StorageFile, Wal, WalError};

/// What a file grows by; a block is no larger.
static ZEROS: [u8; 4 << 10] = [0; 4 << 10];

/// The time of a record, unless nobody vouches for it.
fn known(kind: u8, time_ms: i64) -> Option<i64> {
    (kind & UNTIMED == 0).then_some(time_ms)
}

impl<S: Storage> Wal<S> {
    /// Appends a record of `kind`, which is not 0; with the bit [`UNTIMED`](super::UNTIMED) if nobody vouches
    /// for its time.
    ///
    /// # Errors
    /// [`AppendError`] says which; after any of them the log is as it was before, though a segment may
    /// have gone to make room.
    pub fn append(&mut self, kind: u8, payload: &mut impl Payload) -> Result<Record, AppendError> {
        if self.syncs.failed() {
            self.break_off();
        }
        if self.broken {
            return Err(AppendError::Broken);
        }
        self.check_there()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.append_with(kind, payload, &mut buffer);
        // A huge record is rare; its memory is not kept for the small ones.
        if buffer.capacity() as u64 <= 2 * self.options.segment_bytes {
            self.buffer = buffer;
        }
        result
    }

    fn append_with(
        &mut self,
        kind: u8,
        payload: &mut impl Payload,
        buffer: &mut Vec<u8>,
    ) -> Result<Record, AppendError> {
        let mut fresh = self.active.is_none();
        let mut encoded = encode(payload, fresh, buffer);
        let is_full = self.active_len() + buffer.len() as u64 > self.options.segment_bytes;
        if !fresh && (is_full || self.is_old(known(kind, encoded.time_ms))) {
            fresh = true;
            encoded = encode(payload, true, buffer);
        }
        let time = known(kind, encoded.time_ms);
        let head = if fresh { SEGMENT_HEADER } else { 0 };
        let bytes = (buffer.len() - head) as u64;
        if bytes > self.options.max_record_bytes() {
            return Err(AppendError::TooLarge { bytes, max: self.options.max_record_bytes() });
        }
        let (len, size) = match self.segments.back() {
            Some(newest) if !fresh => (newest.len, newest.size),
            _ => (0, 0),
        };
        let end = len + buffer.len() as u64;
        let padded = if end > size { end.next_multiple_of(self.storage.block()) } else { end };
        self.expire(time)?;
        self.make_room(padded.saturating_sub(size))?;
        if fresh {
            self.close_active().map_err(AppendError::Failed)?;
        }

        let base = if fresh { self.next_base } else { self.next_base - len };
        let position = base + len + head as u64;
        // A segment that is moved to the disk is written there in one go: a power cut may take any part.
        let is_synced = self.synced >= self.next_base && self.storage.is_lasting();
        let flags = if is_synced { SYNCED_BEFORE } else { 0 };
        let (items, time_ms) = (encoded.items, encoded.time_ms);
        let length = (bytes as usize - RECORD_HEADER) as u32;
        let header = Header { length, items, time_ms, kind, flags };
        let (front, record) = buffer.split_at_mut(head);
        header.seal(position, record);
        if fresh {
            front.copy_from_slice(&segment::header(base, self.options.content));
        }
        if fresh {
            self.begin_segment(base, time)?;
        }
        self.write_active(len, padded, buffer)?;
        if let Some(newest) = self.segments.back_mut() {
            newest.len = end;
            newest.size = newest.size.max(padded);
        }
        self.next_base = base + end;
        self.stats.records += 1;
        self.stats.written_bytes += padded - len;
        let next = self.next_base;
        Ok(Record { kind, items, time_ms, position, next, segment: base, fresh })
    }

    fn active_len(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.len)
    }

    fn begin_segment(&mut self, base: u64, first_ms: Option<i64>) -> Result<(), AppendError> {
        let name = segment::name(base);
        let file = match self.storage.create(&name) {
            Ok(file) => file,
            Err(e) => return Err(self.fail(WalError::create(self.storage.path(), &name, e))),
        };
        self.changes += 1;
        self.active = Some(Active { file, base });
        self.segments.push_back(Segment { first_ms, ..Segment::new(base, 0) });
        Ok(())
    }

    /// Writes the bytes at `len` of the active segment, whose file is to have `padded` bytes then.
    fn write_active(&mut self, len: u64, padded: u64, bytes: &[u8]) -> Result<(), AppendError> {
        let Some(active) = &mut self.active else { return Err(AppendError::Broken) };
        let end = len + bytes.len() as u64;
        // The padding first: then no write that fails in part has written a whole record.
        let mut written = Ok(());
        if let Some(zeros) = ZEROS.get(..(padded - end) as usize)
            && !zeros.is_empty()
        {
            written = active.file.write_at(end, zeros);
        }
        let Err(source) = written.and_then(|()| active.file.write_at(len, bytes)) else {
            return Ok(());
        };
        // What was written goes, as far as it can. A full disk is tried again and again; nothing of it
        // may stay behind each time.
        if len == 0 {
            let name = segment::name(active.base);
            let _ = self.storage.remove(&name);
            self.active = None;
            self.segments.pop_back();
        } else if active.file.truncate(len).is_ok()
            && let Some(newest) = self.segments.back_mut()
        {
            newest.size = newest.len;
        }
        Err(self.fail(WalError::write(self.storage.path(), source)))
    }

    /// Whether the file that is written to can still be found.
    fn check_there(&mut self) -> Result<(), AppendError> {
        let Some(active) = &self.active else { return Ok(()) };
        let name = segment::name_of(active.base);
        let error = match self.storage.holds(&name, &active.file) {
            Ok(true) => return Ok(()),
            Ok(false) => WalError::gone(self.storage.path(), &name),
            Err(e) => WalError::read(self.storage.path(), &name, e),
        };
        self.synced = self.synced.min(active.base);
        Err(self.fail(error))
    }

    /// Ends the newest segment where its records end. The next append begins another one.
    ///
    /// # Errors
    /// What was not synced could not be.
    pub fn close(&mut self) -> Result<(), WalError> {
        if self.broken { Ok(()) } else { self.close_active() }
    }

    fn fail(&mut self, error: WalError) -> AppendError {
        self.break_off();
        AppendError::Failed(error)
    }

    /// Closes the active segment, so that the next append begins a new one.
    pub(super) fn close_active(&mut self) -> Result<(), WalError> {
        if self.active.is_none() {
            return Ok(());
        }
        if self.synced < self.next_base {
            self.sync_all()?;
        }
        let Some(Active { mut file, .. }) = self.active.take() else { return Ok(()) };
        self.generation += 1;
        if let Some(newest) = self.segments.back_mut()
            && newest.size > newest.len
            && file.truncate(newest.len).is_ok()
        {
            self.freed += newest.size - newest.len;
            newest.size = newest.len;
            self.changes += 1;
            self.closed = Some(file);
        }
        Ok(())
    }

    /// Makes the next record come at `position` or later: a reader that was told of records which a
    /// failure has taken since must not find others in their place. For a log just opened.
    pub fn begin_at(&mut self, position: u64) {
        if self.active.is_none() {
            self.next_base = self.next_base.max(position);
            self.synced = self.next_base;
        }
    }
}

/// Asks for the payload. The places of the headers are kept free before it, so that a record goes to the
/// disk in one write.
fn encode(payload: &mut impl Payload, fresh: bool, buffer: &mut Vec<u8>) -> Encoded {
    buffer.clear();
    buffer.resize(if fresh { SEGMENT_HEADER + RECORD_HEADER } else { RECORD_HEADER }, 0);
    payload.encode(fresh, buffer)
}
