//! What the log is asked to keep, and what it says of what it did. Plain values.

/// What happens to an append for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// The oldest segment is removed; its unread items are counted.
    DropOldest,
    /// The append is refused; the caller reads its source no further.
    Refuse,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The most bytes that all files of the log may have together; at least [`Options::MIN_BYTES`].
    pub max_bytes: u64,
    /// What to do when they have.
    pub on_full: OnFull,
    /// What the log holds, as the caller numbers it; a segment with another number is set aside.
    pub content: u32,
    /// Where a segment is closed and the next one begun, in bytes.
    pub segment_bytes: u64,
    /// Bytes of the file system that stay free: with less than that the log grows no further.
    pub min_free: u64,
    /// A segment goes when all of it is this much older than the newest record, in milliseconds. The newest
    /// one stays; each is closed when it spans an eighth of this.
    pub max_age_ms: Option<i64>,
}

impl Options {
    /// The smallest bound that a user may set: below it a segment would be smaller than one full round
    /// of a busy host.
    pub const MIN_BYTES: u64 = 1 << 20;

    /// The most cursor files, those of removed readers included, for which room is kept.
    pub const MAX_CURSORS: u64 = 16;

    /// A log of this bound, without bounds on age and free space, in segments of a sixty-fourth: small,
    /// because a whole one goes when room is needed, and a reader that starts in the middle of one reads
    /// it from its beginning.
    pub fn new(max_bytes: u64, on_full: OnFull, content: u32) -> Options {
        Options {
            max_bytes,
            on_full,
            content,
            segment_bytes: (max_bytes / 64).clamp(64 << 10, 1 << 20),
            min_free: 0,
            max_age_ms: None,
        }
    }

    /// The same with another bound and segments that fit it.
    pub fn with_max_bytes(self, max_bytes: u64) -> Options {
        let segment_bytes = Options::new(max_bytes, self.on_full, self.content).segment_bytes;
        Options { max_bytes, segment_bytes, ..self }
    }

    /// A quarter of the bound, so that the newest segment never holds everything.
    pub(super) fn max_record_bytes(&self) -> u64 {
        (self.max_bytes / 4).min(MAX_RECORD)
    }
}

/// The most bytes of one record, whatever the bound.
pub(super) const MAX_RECORD: u64 = 16 << 20;

/// No segment of this log's gets as large; a file that is was made by something else.
pub(super) const MAX_SEGMENT: u64 = 2 * MAX_RECORD;

/// What an append has encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// How many items are in it: samples, entries.
    pub items: u32,
    /// The time of its data, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// What an append writes. It may be asked twice: once for the current segment, and again if the
/// record turned out to need a new one.
pub trait Payload {
    /// Appends the payload to `out`, in which other bytes may stand already. With `fresh`, it is the
    /// first record of a segment and must be readable without any other.
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded;
}

/// A record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The caller's kind, never 0.
    pub kind: u8,
    /// How many items are in it.
    pub items: u32,
    /// The time of its data, in milliseconds since the Unix epoch, as it was appended.
    pub time_ms: i64,
    /// Its position.
    pub position: u64,
    /// The position after it: what to acknowledge, and where to read on.
    pub next: u64,
    /// The position of its segment.
    pub segment: u64,
    /// Whether it is its segment's first record.
    pub fresh: bool,
}

impl Record {
    /// Its time, unless nobody vouches for it.
    pub fn time(&self) -> Option<i64> {
        (self.kind & super::UNTIMED == 0).then_some(self.time_ms)
    }
}

/// Identifies a reader of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderId(pub(super) usize);

impl ReaderId {
    /// Which of the names that the log was opened with it is.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Why items went with a segment before some reader had acknowledged them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossReason {
    /// The log had reached `max_bytes`.
    Full,
    /// The file system had less than `min_free` left.
    MinFree,
    /// They were older than `max_age_ms`.
    Expired,
    /// The disk took nothing, and the memory for that was full.
    NoDisk,
    /// Their records were damaged, or gone with their file.
    Damaged,
}

/// Items that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// How many; 0 where a damaged header no longer says it.
    pub items: u64,
    /// The time of the oldest and of the newest of them, in milliseconds since the Unix epoch; from `i64::MAX` to
    /// `i64::MIN` if none of them has a time that is known.
    pub from_ms: i64,
    /// See `from_ms`.
    pub to_ms: i64,
}

impl Loss {
    /// A record's items, with its time if that is known.
    pub(super) fn of(reason: LossReason, items: u32, time: Option<i64>) -> Loss {
        let (from_ms, to_ms) = time.map_or((i64::MAX, i64::MIN), |time| (time, time));
        Loss { reason, items: u64::from(items), from_ms, to_ms }
    }

    /// Adds another loss of the same reason to this one.
    pub fn join(&mut self, other: &Loss) {
        self.items += other.items;
        self.from_ms = self.from_ms.min(other.from_ms);
        self.to_ms = self.to_ms.max(other.to_ms);
    }
}

/// Counts since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records appended.
    pub records: u64,
    /// Bytes handed to the file system: records, headers, padding and cursors.
    pub written_bytes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Items that went to keep `max_bytes`, before some reader had acknowledged them.
    pub evicted_items: u64,
    /// Items that went to keep `min_free`.
    pub min_free_items: u64,
    /// Items that went because of their age.
    pub expired_items: u64,
    /// Items of damaged records, as far as their headers still told.
    pub damaged_items: u64,
    /// Bytes cut off the newest segment when the log was opened.
    pub torn_bytes: u64,
    /// Bytes that readers skipped because a record was damaged, or that went with their file.
    pub damaged_bytes: u64,
    /// Files that were set aside when the log was opened.
    pub set_aside: u64,
}

impl Stats {
    /// These counts and others, of the same log opened at another time.
    pub fn plus(self, b: Stats) -> Stats {
        Stats {
            records: self.records + b.records,
            written_bytes: self.written_bytes + b.written_bytes,
            syncs: self.syncs + b.syncs,
            evicted_items: self.evicted_items + b.evicted_items,
            min_free_items: self.min_free_items + b.min_free_items,
            expired_items: self.expired_items + b.expired_items,
            damaged_items: self.damaged_items + b.damaged_items,
            torn_bytes: self.torn_bytes + b.torn_bytes,
            damaged_bytes: self.damaged_bytes + b.damaged_bytes,
            set_aside: self.set_aside + b.set_aside,
        }
    }

    pub(super) fn lose(&mut self, reason: LossReason, items: u64) {
        *match reason {
            LossReason::Full | LossReason::NoDisk => &mut self.evicted_items,
            LossReason::MinFree => &mut self.min_free_items,
            LossReason::Expired => &mut self.expired_items,
            LossReason::Damaged => &mut self.damaged_items,
        } += items;
    }
}
