//! A bounded log on disk: records of bytes in segment files, one writer, and for each reader a cursor
//! that only an acknowledgement moves. It knows bytes, not telemetry: the caller says how many *items*
//! (samples, entries) a record holds and of what time they are, so that what is given up can be counted
//! without being decoded.
//!
//! # Positions
//! A position is a `u64` offset in one endless log. A segment's file name is the position of its first
//! byte in 16 hexadecimal digits, so names sort as the log does, and a reader's lag is a subtraction.
//! Segments may leave gaps between them; they never overlap.
//!
//! # Layout (format version 2; all numbers little-endian)
//! `SSSSSSSSSSSSSSSS.wal`, a segment: a header of 32 bytes, then records without padding, then, while it
//! is the newest, zeros up to a multiple of 4 KiB.
//! ```text
//! segment header                          record header
//!  0  magic     "MOTE-WAL"                 0  length   u32  bytes of payload, at most 16 MiB
//!  8  version   u16 = 2                    4  items    u32  samples or entries in it
//! 10  header    u16 = 32                   8  time     i64  of its data, ms since the Unix epoch
//! 12  content   u32  the caller's         16  kind     u8   the caller's, never 0; bit 7: nobody vouches
//!                                                           for the time
//! 16  base      u64  the file's position  17  flags    u8   1: all before it was synced
//! 24  reserved  u32 = 0                   18  check    u16  low half of the CRC32C of the record's
//! 28  crc       u32  CRC32C of 0..28                        position (u64) and header bytes 0..18
//!                                         20  crc      u32  CRC32C of the record's position, header
//!                                                           bytes 0..20 and payload
//! ```
//! The position is part of a record's checksums, so a block that a card wrote to the wrong place is not
//! taken for the record that belongs there, and a log line that looks like a record is none.
//!
//! `NAME.cursor`, a reader's acknowledged position: two slots, at 0 and at 512, each
//! `"MOTECURS" generation:u64 position:u64 crc:u32`. A slot is written in turn and the valid one with
//! the highest generation counts, so a torn write falls back to an older position, and skips
//! nothing. `LOCK` is held with flock while the log is open.
//!
//! # Operation
//! *Append* asks the caller for the payload, because a segment must be readable alone: the first record
//! of a segment has to carry what the others refer to. A segment that would grow beyond
//! [`Options::segment_bytes`] is closed and the next one begun. Opening a log always begins a new segment,
//! at the first append, since the caller's state died with the last process. A file grows by whole blocks:
//! most appends then change no size, and a sync writes one block and no metadata.
//!
//! *Bound*: the bytes of all files in the directory stay at or below `max_bytes`; room for
//! [`Options::MAX_CURSORS`] cursor files is always kept. Before a write that would pass it, segments that
//! every reader has acknowledged go first, then files that were set aside; then, with
//! [`OnFull::DropOldest`], the oldest segment goes with its unread items counted, and with
//! [`OnFull::Refuse`] the append is refused and nothing changes. The newest segment with a synced record
//! is never removed: the caller may need its first record after a restart. Items that a reader
//! [holds](Wal::hold) in memory are not lost with their segment, and not counted.
//!
//! *Free space*: while the file system has less than `min_free` left, the log keeps the size at which it
//! found that; what it writes then, it must have freed. *Age*: a segment goes when the one behind it begins
//! more than `max_age_ms` before the record that is appended, and is closed when it spans an eighth of that.
//!
//! *Sync* is split in two ([`Wal::start_sync`], [`Wal::end_sync`]) so that fsync can run on a thread
//! that may hang; it syncs the directory too where an entry of it has changed. A closed segment is synced
//! before the next one is made, if it is not yet. Room that was made is used when it is there for good:
//! a power cut must not bring removed files back beside what took their place.
//!
//! *Readers* that were configured once and are no more hold nothing back. Their cursor files stay until
//! the log has passed them, so that a reader that comes back goes on where it was.
//!
//! # Failure
//! After a failed write or sync, and when the files are no longer in the directory ([`Storage::holds`]),
//! the log takes nothing ([`AppendError::Broken`]) and can still be read. What was not synced is read into
//! memory at that moment, because the kernel may forget it while it shows it as written. A new log on the
//! same path then [resumes](Wal::resume) the broken one: it writes those bytes again and takes over the
//! cursors. In between, the caller can append to a log in [`Memory`] that
//! [begins](Wal::begin_at) where this one ended; [`Wal::adopt`] moves its segments to the disk as they are,
//! at the same positions.
//!
//! # Recovery
//! | found | done |
//! |---|---|
//! | an incomplete or damaged place in the newest segment, and behind it no record that says that all before it was synced | cut off from there, bytes counted; the rest is synced |
//! | zeros behind the last record | cut off |
//! | a damaged record elsewhere | skipped, up to the next one whose checksum is good (the rest of the segment, if bytes that look like headers make the search read four times what it searches); bytes and, where its header is good, items are counted |
//! | a newest segment without a record | removed |
//! | a cursor before the oldest segment | moved to it; what lay between was counted when it was dropped |
//! | a cursor after the end (unsynced records died with the power) | the next segment begins at the cursor |
//! | a cursor file that is missing or damaged in both slots (a number above 2^63 is damage) | the reader begins at the oldest record |
//! | a cursor file that is longer than its two slots | cut off there |
//! | a cursor file that can't be opened or made | the cursor is kept in memory alone |
//! | a segment that ends behind the beginning of the next one | it ends there, if its records do; else the next one is set aside |
//! | a segment that is shorter than its header or longer than 32 MiB, with a foreign header, a wrong base, another version or a base above 2^63, or that can't be read | renamed to `*.aside`, counted; goes before anything else when room is needed, and when there are more than 16 |
//! | any other file | left alone, and counted in the bytes |
//! | a file system that can only be read | [`Wal::open_to_read`]: nothing is cut, removed or renamed, appends are [`AppendError::Broken`] |

mod adopt;
mod append;
mod cursor;
mod error;
mod inspect;
mod memory;
mod options;
mod read;
mod record;
mod recover;
mod room;
mod segment;
mod storage;
mod sync;

use std::collections::VecDeque;
use std::sync::Arc;

use cursor::CursorFile;
use room::Withheld;
use segment::Segment;
use sync::{Syncs, Unsynced};

pub use error::{AppendError, WalError};
pub use inspect::{Cursor, Damage, Inspection, Other, OtherKind, Place, SegmentFile, Slot, Walk};
pub use memory::{Memory, MemoryFile};
pub use options::{Encoded, Loss, LossReason, OnFull, Options, Payload, ReaderId, Record, Stats};
pub use storage::{Disk, Storage, StorageFile};
pub use sync::SyncJob;

/// The bit of a record's kind that says that nobody vouches for its time. The log keeps such a time and compares it with
/// none: its records have no age until there are others behind them.
pub const UNTIMED: u8 = record::UNTIMED;

#[derive(Debug)]
struct Reader<F> {
    name: String,
    cursor: u64,
    /// Everything before it is in the reader's memory.
    held: u64,
    /// None where it can't be written.
    file: Option<CursorFile<F>>,
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
    /// Cursor files of readers that are configured no more.
    retired: u64,
    /// For reads on nobody's behalf.
    scanned: Open<S::File>,
    /// Everything below is on the disk for good.
    synced: u64,
    /// Where the next segment begins at the earliest.
    next_base: u64,
    /// Bytes of files other than segments and cursors.
    other_bytes: u64,
    /// Bumped when a segment is closed, so that a late sync is not credited to another file.
    generation: u64,
    /// Changes of the directory's entries and of the closed segment's length, and how many of them are on
    /// the disk for good.
    changes: u64,
    synced_changes: u64,
    /// Bytes that such changes have freed and that a power cut would bring back.
    freed: u64,
    /// The segment that was closed last, while its length is not on the disk for good.
    closed: Option<S::File>,
    /// What became of syncs on other threads.
    syncs: Arc<Syncs>,
    broken: bool,
    /// Whether it was opened to be read.
    only_reads: bool,
    /// What the disk may not have, as it was when the log broke.
    unsynced: Option<Unsynced>,
    /// The bytes at which the log stays while the file system is short of space.
    frozen: Option<u64>,
    /// Files that were set aside, oldest first, with their bytes.
    aside: VecDeque<(String, u64)>,
    stats: Stats,
    losses: Vec<Loss>,
    withheld: Vec<Withheld>,
    buffer: Vec<u8>,
}

impl<S: Storage> Wal<S> {
    /// Opens the log in `storage` with these readers, recovers it and takes its lock.
    ///
    /// # Errors
    /// Another process holds the lock; the storage can't be listed, read or written.
    pub fn open(storage: S, options: Options, readers: &[&str]) -> Result<Wal<S>, WalError> {
        storage.lock()?;
        let mut wal = Wal::closed(storage, options);
        wal.recover(readers)?;
        match wal.make_room(0) {
            Err(AppendError::Failed(error)) => Err(error),
            // A bound that was lowered below what may not be dropped: appends will be refused.
            _ => Ok(wal),
        }
    }

    /// Opens the log in `storage` as it is and changes nothing: it takes no lock and no appends, and its
    /// cursors move in memory alone.
    ///
    /// # Errors
    /// The storage can't be listed.
    pub fn open_to_read(
        storage: S,
        options: Options,
        readers: &[&str],
    ) -> Result<Wal<S>, WalError> {
        let mut wal = Wal::closed(storage, options);
        wal.broken = true;
        wal.only_reads = true;
        wal.recover(readers)?;
        Ok(wal)
    }

    fn closed(storage: S, options: Options) -> Wal<S> {
        Wal {
            storage,
            options,
            segments: VecDeque::new(),
            active: None,
            readers: Vec::new(),
            retired: 0,
            scanned: None,
            synced: 0,
            next_base: 0,
            other_bytes: 0,
            generation: 0,
            changes: 0,
            synced_changes: 0,
            freed: 0,
            closed: None,
            syncs: Arc::default(),
            broken: false,
            only_reads: false,
            unsynced: None,
            frozen: None,
            aside: VecDeque::new(),
            stats: Stats::default(),
            losses: Vec::new(),
            withheld: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// The directory.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The reader of this name, as it was given to [`open`](Wal::open).
    pub fn reader(&self, name: &str) -> Option<ReaderId> {
        self.readers.iter().position(|reader| reader.name == name).map(ReaderId)
    }

    /// Moves a reader's cursor to `position`, and removes the segments that every reader has passed.
    /// With `sync`, the cursor is on the disk for good when this returns. That of a broken log moves in
    /// memory alone, and is written when another one [resumes](Wal::resume) it.
    ///
    /// # Errors
    /// The cursor file could not be written: the log is broken, the cursor has moved in memory, and after
    /// a crash what it passed is sent again.
    pub fn acknowledge(
        &mut self,
        reader: ReaderId,
        position: u64,
        sync: bool,
    ) -> Result<(), WalError> {
        self.deliver_held(reader.0, position);
        let state = &mut self.readers[reader.0];
        let position = position.min(self.next_base).max(state.cursor);
        // One that has moved before may not be on the disk, or a failed sync has lost it since.
        if position == state.cursor && !sync {
            return Ok(());
        }
        state.cursor = position;
        if self.broken {
            return Ok(());
        }
        if let Some(file) = &mut state.file {
            self.stats.written_bytes += cursor::SLOT as u64;
            if let Err(error) = file.write(position, sync) {
                self.break_off();
                return Err(WalError::write(self.storage.path(), error));
            }
        }
        if let Err(AppendError::Failed(error)) = self.remove_acknowledged() {
            log::warn!("{error}");
        }
        Ok(())
    }

    /// Says that the reader has everything up to `position` in memory, where it keeps it until it is
    /// acknowledged: if it must go from the log meanwhile, it is not lost, unless the reader
    /// [gives it up](Wal::give_up_held).
    pub fn hold(&mut self, reader: ReaderId, position: u64) {
        self.readers[reader.0].held = position;
    }

    /// A handle of a reader's cursor file, for a sync on another thread; None where it has none.
    ///
    /// # Errors
    /// The file's handle could not be shared.
    pub fn share_cursor(&self, reader: ReaderId) -> Result<Option<S::File>, WalError> {
        let file = self.readers[reader.0].file.as_ref().filter(|_| !self.broken);
        let shared = file.map(CursorFile::share).transpose();
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
        self.data_bytes() + self.cursor_bytes()
    }

    fn data_bytes(&self) -> u64 {
        self.other_bytes + self.segments.iter().map(|segment| segment.size).sum::<u64>()
    }

    fn cursor_bytes(&self) -> u64 {
        let files = self.readers.iter().filter(|reader| reader.file.is_some()).count() as u64;
        (files + self.retired) * cursor::FILE
    }

    /// Whether the log broke with bytes that the disk may not have.
    pub fn keeps_unsynced(&self) -> bool {
        self.unsynced.is_some()
    }

    /// Whether a record is there that some reader has not acknowledged; without readers, any.
    pub fn has_unread(&self) -> bool {
        let read = self.min_cursor().unwrap_or(0);
        self.segments.back().is_some_and(|newest| newest.end() > read)
    }

    /// The bound.
    pub fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// Counts since the log was opened.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What was given up since this was last asked, each reason once.
    pub fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }

    fn lose(&mut self, loss: Loss) {
        self.stats.lose(loss.reason, loss.items);
        match self.losses.iter_mut().find(|have| have.reason == loss.reason) {
            Some(have) => have.join(&loss),
            None => self.losses.push(loss),
        }
    }
}

#[cfg(test)]
mod adopt_tests;
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
