//! A bounded log on disk: records of bytes in segment files, one writer, and for each reader a cursor
//! that only an acknowledgement moves. It knows bytes, not telemetry: the caller says how many *items*
//! (samples, entries) a record holds, so that what is given up can be counted without being decoded.
//!
//! # Positions
//! A position is a `u64` offset in one endless log. A segment's file name is the position of its first
//! byte in 16 hexadecimal digits, so names sort as the log does, and a reader's lag is a subtraction.
//! Segments may leave gaps between them; they never overlap.
//!
//! # Layout (format version 1; all numbers little-endian)
//! `SSSSSSSSSSSSSSSS.wal`, a segment: a header of 32 bytes, then records without padding.
//! ```text
//! segment header                          record header
//!  0  magic     "MOTE-WAL"                 0  length   u32  bytes of payload
//!  8  version   u16 = 1                    4  items    u32  samples or entries in it
//! 10  header    u16 = 32                   8  kind     u8   the caller's
//! 12  content   u32  the caller's          9  flags    u8 = 0
//! 16  base      u64  the file's position  10  reserved u16 = 0
//! 24  reserved  u32 = 0                   12  crc      u32  CRC32C of the record's position (u64),
//! 28  crc       u32  CRC32C of 0..28                        header bytes 0..12 and payload
//! ```
//! The position is part of a record's checksum, so a block that a card wrote to the wrong place is not
//! taken for the record that belongs there.
//!
//! `NAME.cursor`, a reader's acknowledged position: two slots, at 0 and at 512, each
//! `"MOTECURS" generation:u64 position:u64 crc:u32`. A slot is written in turn and the valid one with
//! the highest generation counts, so a torn write loses at most one step, which repeats and skips
//! nothing. `LOCK` is held with flock while the log is open.
//!
//! # Operation
//! *Append* asks the caller for the payload, because a segment must be readable alone: the first record
//! of a segment has to carry what the others refer to. A segment that would grow beyond a sixteenth of the
//! bound is closed (synced) and the next one begun. Opening a log always begins a new segment, at the first
//! append, since the caller's state died with the last process.
//!
//! *Bound*: the bytes of all files in the directory stay at or below `max_bytes`. Before a write that
//! would pass it, segments that every reader has acknowledged go first, then files that were set aside; then, with
//! [`OnFull::DropOldest`], the oldest segment goes with its unread items counted, and with
//! [`OnFull::Refuse`] the append is refused and nothing changes. The newest segment with a synced record
//! is never removed: the caller may need its first record after a restart.
//!
//! *Sync* is split in two ([`Wal::start_sync`], [`Wal::end_sync`]) so that fsync can run on a thread
//! that may hang. Readers see records as soon as they are written: sending what a power cut may still
//! take away is not a loss.
//!
//! # Recovery
//! | found | done |
//! |---|---|
//! | an incomplete or damaged record at the end of the newest segment | cut off there, bytes counted; the rest is synced |
//! | a newest segment without a record, or a segment shorter than its header | removed |
//! | a damaged record elsewhere | the rest of its segment is skipped by readers, counted |
//! | a cursor before the oldest segment | moved to it; what lay between was counted when it was dropped |
//! | a cursor after the end (unsynced records died with the power) | the next segment begins at the cursor |
//! | a cursor file that is missing or damaged in both slots (a number above 2^63 is damage) | the reader begins at the oldest record |
//! | a cursor file that is longer than its two slots | cut off there |
//! | a segment with a foreign header, a wrong base, a later version or a base above 2^63 | renamed to `*.aside`, counted; goes before anything else when room is needed |
//! | a failed write or fsync | [`AppendError::Broken`] until [`Wal::open`] has recovered again; after a failed fsync the newest segment is written once more |

mod cursor;
mod error;
mod read;
mod record;
mod room;
mod segment;
mod storage;
mod tail;

use std::collections::VecDeque;

use cursor::CursorFile;
use record::{HEADER as RECORD_HEADER, Header};
use segment::{HEADER as SEGMENT_HEADER, Segment};

pub use error::{AppendError, WalError};
pub use storage::{Disk, Storage, StorageFile};

/// What happens to an append for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// The oldest segment is removed; its unread items are counted.
    DropOldest,
    /// The append is refused; the caller reads its source no further.
    Refuse,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most bytes that all files of the log may have together; at least [`Options::MIN_BYTES`].
    pub max_bytes: u64,
    /// What to do when they have.
    pub on_full: OnFull,
    /// What the log holds, as the caller numbers it; a segment with another number is set aside.
    pub content: u32,
}

impl Options {
    /// The smallest bound: below it a segment would be smaller than one full round of a busy host.
    pub const MIN_BYTES: u64 = 1 << 20;

    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(64 << 10, 4 << 20)
    }

    /// A quarter of the bound, so that the newest segment never holds everything.
    fn max_record_bytes(&self) -> u64 {
        self.max_bytes / 4
    }
}

/// What an append writes. It may be asked twice: once for the current segment, and again if the
/// record turned out to need a new one.
pub trait Payload {
    /// Appends the payload to `out`, which holds the place of the record's header already, and returns
    /// the number of items in it. With `fresh`, it is the first record of a segment and must be readable
    /// without any other.
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> u32;
}

/// A record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The caller's kind.
    pub kind: u8,
    /// How many items are in it.
    pub items: u32,
    /// Its position.
    pub position: u64,
    /// The position after it: what to acknowledge, and where to read on.
    pub next: u64,
    /// The position of its segment.
    pub segment: u64,
    /// Whether it is its segment's first record.
    pub fresh: bool,
}

/// Identifies a reader of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderId(usize);

/// Counts since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records appended.
    pub records: u64,
    /// Bytes handed to the file system: records, headers and cursors.
    pub written_bytes: u64,
    /// Items that went with a segment before some reader had acknowledged them.
    pub dropped_items: u64,
    /// Bytes cut off the newest segment when the log was opened.
    pub torn_bytes: u64,
    /// Bytes that readers skipped because a record was damaged.
    pub damaged_bytes: u64,
    /// Files that were set aside when the log was opened.
    pub set_aside: u64,
}

/// A sync that is to be done, on whatever thread may hang.
#[derive(Debug)]
pub struct SyncJob<F> {
    file: F,
    end: u64,
    generation: u64,
}

impl<F: StorageFile> SyncJob<F> {
    /// Runs it.
    ///
    /// # Errors
    /// Whatever fsync said; hand it to [`Wal::end_sync`].
    pub fn run(&self) -> std::io::Result<()> {
        self.file.sync()
    }
}

#[derive(Debug)]
struct Reader<F> {
    name: String,
    cursor: u64,
    file: CursorFile<F>,
    open: Open<F>,
}

/// The segment that was read last, kept open.
type Open<F> = Option<(u64, F)>;

#[derive(Debug)]
struct Active<F> {
    file: F,
    base: u64,
}

/// The log. See the module's documentation.
#[derive(Debug)]
pub struct Wal<S: Storage> {
    storage: S,
    options: Options,
    /// Oldest first. The last one is `active`, if there is one.
    segments: VecDeque<Segment>,
    active: Option<Active<S::File>>,
    readers: Vec<Reader<S::File>>,
    /// For reads on nobody's behalf.
    scanned: Open<S::File>,
    /// Everything below is on the disk for good.
    synced: u64,
    /// Where the next segment begins at the earliest.
    next_base: u64,
    /// Bytes of files other than segments.
    other_bytes: u64,
    /// Bumped by every roll, so that a late sync is not credited to another file.
    generation: u64,
    broken: bool,
    /// A sync has failed: what the kernel still shows of the newest segment may never reach the disk.
    lost_sync: bool,
    /// Files that were set aside, oldest first, with their bytes.
    aside: VecDeque<(String, u64)>,
    stats: Stats,
    buffer: Vec<u8>,
}

impl<S: Storage> Wal<S> {
    /// Opens the log in `storage` with these readers, recovers it and takes its lock. Cursor files of
    /// readers that are not named are removed.
    ///
    /// # Errors
    /// Another process holds the lock; the storage can't be listed, read or written.
    pub fn open(storage: S, options: Options, readers: &[&str]) -> Result<Wal<S>, WalError> {
        storage.lock()?;
        let mut wal = Wal {
            storage,
            options,
            segments: VecDeque::new(),
            active: None,
            readers: Vec::new(),
            scanned: None,
            synced: 0,
            next_base: 0,
            other_bytes: 0,
            generation: 0,
            broken: false,
            lost_sync: false,
            aside: VecDeque::new(),
            stats: Stats::default(),
            buffer: Vec::new(),
        };
        wal.recover(readers)?;
        match wal.make_room(0) {
            Err(AppendError::Failed(error)) => Err(error),
            // A bound that was lowered below what may not be dropped: appends will be refused.
            _ => Ok(wal),
        }
    }

    /// The reader of this name, as it was given to [`open`](Wal::open).
    pub fn reader(&self, name: &str) -> Option<ReaderId> {
        self.readers.iter().position(|reader| reader.name == name).map(ReaderId)
    }

    /// Appends a record of `kind`.
    ///
    /// # Errors
    /// [`AppendError`] says which; after any of them the log is as it was before.
    pub fn append(&mut self, kind: u8, payload: &mut impl Payload) -> Result<Record, AppendError> {
        if self.broken {
            return Err(AppendError::Broken);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.append_with(kind, payload, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn append_with(
        &mut self,
        kind: u8,
        payload: &mut impl Payload,
        buffer: &mut Vec<u8>,
    ) -> Result<Record, AppendError> {
        let mut fresh = self.active.is_none();
        let mut items = encode(payload, fresh, buffer);
        if !fresh && self.active_len() + buffer.len() as u64 > self.options.segment_bytes() {
            fresh = true;
            items = encode(payload, true, buffer);
        }
        let bytes = buffer.len() as u64;
        if bytes > self.options.max_record_bytes() {
            return Err(AppendError::TooLarge { bytes, max: self.options.max_record_bytes() });
        }
        let growth = bytes + if fresh { SEGMENT_HEADER as u64 } else { 0 };
        self.make_room(growth)?;
        if fresh {
            self.roll().map_err(|error| self.fail(error))?;
        }
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            return Err(AppendError::Broken);
        };
        let position = segment.end();
        let header = Header { length: (buffer.len() - RECORD_HEADER) as u32, items, kind };
        header.seal(position, buffer);
        if let Err(source) = active.file.write_at(segment.len, buffer) {
            // What the disk holds beyond `len` is unknown now; recovery will look at it.
            let _ = active.file.truncate(segment.len);
            if fresh {
                // A full disk is tried again and again; nothing of it may stay behind each time.
                let _ = self.storage.remove(&segment::name(segment.base));
                self.active = None;
                self.segments.pop_back();
            }
            return Err(self.fail(WalError::write(self.storage.path(), source)));
        }
        segment.grow(bytes);
        let record =
            Record { kind, items, position, next: segment.end(), segment: segment.base, fresh };
        self.next_base = segment.end();
        self.stats.records += 1;
        self.stats.written_bytes += bytes;
        Ok(record)
    }

    fn fail(&mut self, error: WalError) -> AppendError {
        self.broken = true;
        AppendError::Failed(error)
    }

    fn active_len(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.len)
    }

    /// Closes the active segment, so that the next append begins a new one.
    fn close_active(&mut self) -> Result<(), WalError> {
        let Some(active) = self.active.take() else { return Ok(()) };
        self.generation += 1;
        if let Err(source) = active.file.sync() {
            self.broken = true;
            self.lost_sync = true;
            return Err(WalError::sync(self.storage.path(), source));
        }
        self.synced = self.next_base;
        Ok(())
    }

    /// Closes the active segment and begins the next one.
    fn roll(&mut self) -> Result<(), WalError> {
        self.close_active()?;
        let base = self.next_base;
        let name = segment::name(base);
        let mut file = self
            .storage
            .create(&name)
            .map_err(|e| WalError::create(self.storage.path(), &name, e))?;
        if let Err(source) = file.write_at(0, &segment::header(base, self.options.content)) {
            let _ = self.storage.remove(&name);
            return Err(WalError::write(self.storage.path(), source));
        }
        self.storage.sync_directory().map_err(|e| WalError::sync(self.storage.path(), e))?;
        self.stats.written_bytes += SEGMENT_HEADER as u64;
        self.segments.push_back(Segment::new(base, SEGMENT_HEADER as u64));
        self.active = Some(Active { file, base });
        self.next_base = base + SEGMENT_HEADER as u64;
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

    /// Writes the newest segment once more, as it can be read, and syncs it. After a failed sync the
    /// kernel may hold contents that it takes for written and that the disk does not have. For a log
    /// just opened.
    ///
    /// # Errors
    /// The segment can't be read, written or synced.
    pub fn rewrite_newest(&mut self) -> Result<(), WalError> {
        let Some(newest) = self.segments.back().copied() else { return Ok(()) };
        let name = segment::name(newest.base);
        let error = |e| WalError::rewrite(self.storage.path(), &name, e);
        let mut file = self.storage.open(&name).map_err(error)?;
        let mut at = 0;
        while at < newest.len {
            self.buffer.resize((newest.len - at).min(64 << 10) as usize, 0);
            if !file.read_exact_at(at, &mut self.buffer).map_err(error)? {
                break;
            }
            file.write_at(at, &self.buffer).map_err(error)?;
            at += self.buffer.len() as u64;
            self.stats.written_bytes += self.buffer.len() as u64;
        }
        file.sync().map_err(error)
    }

    /// Whether a sync has failed, so that [`rewrite_newest`](Wal::rewrite_newest) must follow the next
    /// opening.
    pub fn lost_sync(&self) -> bool {
        self.lost_sync
    }

    /// Begins a sync of everything appended so far; None if there is nothing to sync.
    ///
    /// # Errors
    /// The file's handle could not be shared.
    pub fn start_sync(&self) -> Result<Option<SyncJob<S::File>>, WalError> {
        match &self.active {
            Some(active) if self.synced < self.next_base => Ok(Some(SyncJob {
                file: active.file.share().map_err(|e| WalError::sync(self.storage.path(), e))?,
                end: self.next_base,
                generation: self.generation,
            })),
            _ => Ok(None),
        }
    }

    /// Takes the result of a sync. After a failure nothing that was unsynced is taken for safe: the log
    /// is broken until it is opened again.
    ///
    /// # Errors
    /// The failure, with the directory.
    pub fn end_sync(
        &mut self,
        job: &SyncJob<S::File>,
        result: std::io::Result<()>,
    ) -> Result<(), WalError> {
        match result {
            Ok(()) => {
                // A roll has synced the old file itself, and `synced` is beyond `end` then.
                if job.generation == self.generation {
                    self.synced = self.synced.max(job.end);
                }
                Ok(())
            }
            Err(source) => {
                self.broken = true;
                self.lost_sync = true;
                Err(WalError::sync(self.storage.path(), source))
            }
        }
    }

    /// Begins, runs and ends a sync on this thread.
    ///
    /// # Errors
    /// As [`end_sync`](Wal::end_sync).
    pub fn sync(&mut self) -> Result<(), WalError> {
        match self.start_sync()? {
            Some(job) => {
                let result = job.run();
                self.end_sync(&job, result)
            }
            None => Ok(()),
        }
    }

    /// Moves a reader's cursor to `position`, and removes the segments that every reader has passed.
    /// With `sync`, the cursor is on the disk for good when this returns.
    ///
    /// # Errors
    /// The cursor file could not be written: the cursor has moved in memory, and after a crash what it
    /// passed is sent again.
    pub fn acknowledge(
        &mut self,
        reader: ReaderId,
        position: u64,
        sync: bool,
    ) -> Result<(), WalError> {
        let state = &mut self.readers[reader.0];
        if position <= state.cursor {
            return Ok(());
        }
        state.cursor = position.min(self.next_base);
        let written = state.file.write(state.cursor, sync);
        self.stats.written_bytes += cursor::SLOT as u64;
        if let Err(AppendError::Failed(error)) = self.remove_acknowledged() {
            log::warn!("{error}");
        }
        written.map_err(|e| WalError::write(self.storage.path(), e))
    }

    /// A handle of a reader's cursor file, for a sync on another thread.
    ///
    /// # Errors
    /// The file's handle could not be shared.
    pub fn share_cursor(&self, reader: ReaderId) -> Result<S::File, WalError> {
        let shared = self.readers[reader.0].file.share();
        shared.map_err(|e| WalError::sync(self.storage.path(), e))
    }

    /// How far a reader has acknowledged.
    pub fn cursor(&self, reader: ReaderId) -> u64 {
        self.readers[reader.0].cursor
    }

    /// The positions of the segments, newest first.
    pub fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.iter().rev().map(|segment| segment.base)
    }

    /// The position after the last record.
    pub fn end(&self) -> u64 {
        self.next_base
    }

    /// Whether every record up to the end is on the disk for good.
    pub fn is_synced(&self) -> bool {
        self.active.is_none() || self.synced >= self.next_base
    }

    /// The position up to which every record is on the disk for good.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether a failed write or sync has closed the log to appends.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes of all files of the log.
    pub fn bytes(&self) -> u64 {
        self.other_bytes + self.segments.iter().map(|segment| segment.len).sum::<u64>()
    }

    /// The bound.
    pub fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// Counts since the log was opened.
    pub fn stats(&self) -> Stats {
        self.stats
    }
}

fn encode(payload: &mut impl Payload, fresh: bool, buffer: &mut Vec<u8>) -> u32 {
    // The header's place is kept free, so that a record goes to the disk in one write.
    buffer.clear();
    buffer.resize(RECORD_HEADER, 0);
    payload.encode(fresh, buffer)
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod flip_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;
