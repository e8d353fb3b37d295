//! A look at a log's directory that changes nothing there, for a person who asks what is in it: which
//! files there are, what recovery would make of each, and their records and damaged places one by one, in
//! the memory of one record.
//!
//! It opens everything read-only and holds no lock, so it works on a directory in use, in which segments
//! come and go meanwhile, and on a file system that can only be read. It must not know what records hold.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sort;

use super::options::MAX_SEGMENT;
use super::record::{Found, View};
use super::recover::{ASIDE, end_of_records};
use super::segment::{self, HEADER};
use super::storage::{LOCK, Storage, StorageFile};
use super::{Disk, Record, WalError, cursor};

/// How long what is being written may take before it is looked at once more.
const MOMENT: Duration = Duration::from_millis(100);

/// A directory as it was found.
#[derive(Debug)]
pub struct Inspection {
    disk: Disk,
    /// Whether another process has the log open; None if its lock can't be looked at.
    pub in_use: Option<bool>,
    /// What the log holds, as its writer numbers it; None without a segment.
    pub content: Option<u32>,
    /// The segments that recovery takes, oldest first.
    pub segments: Vec<SegmentFile>,
    /// The cursors, by name.
    pub cursors: Vec<Cursor>,
    /// All other files but the lock, by name.
    pub others: Vec<Other>,
}

/// A segment's file.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// Its name.
    pub name: String,
    /// Its position: that of its first byte.
    pub base: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Where the next segment begins inside of this one, in bytes of this one's file.
    cut: Option<u64>,
}

/// A reader's cursor file.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// Its name.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its two slots; the kind of error where they can't be read.
    pub slots: Result<[Slot; 2], io::ErrorKind>,
}

/// One of a cursor file's two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Never written.
    Empty,
    /// A position, and how many were written before it.
    Written {
        /// The highest one of the two slots counts.
        generation: u64,
        /// What was acknowledged.
        position: u64,
    },
    /// Neither.
    Damaged,
}

/// A file that is no part of the log.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// What it is.
    pub what: OtherKind,
}

/// What a file is that is no part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtherKind {
    /// It was set aside; why it would be again, where it still says so.
    Aside(Option<String>),
    /// It has a segment's name, and the next start sets it aside for this reason.
    Rejected(String),
    /// It has a segment's name and can't be read, for this reason.
    Unreadable(String),
    /// The log takes no notice of it.
    Foreign,
}

/// What stands in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A whole record.
    Record(Record),
    /// Bytes that are no record and that readers skip.
    Damage(Damage),
    /// Bytes behind the last record of the newest segment that the next start cuts off: a write that was
    /// torn, or one that is made at this moment.
    Torn {
        /// Where they begin in the file.
        offset: u64,
        /// How many there are, up to the last one that is not zero.
        bytes: u64,
    },
}

/// A damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The items and the time, in milliseconds since the Unix epoch, of the record there, if its header
    /// still tells them.
    pub record: Option<(u32, i64)>,
}

/// Why a file is not taken as a segment.
enum Refused {
    /// It can't be read.
    Unreadable(io::Error),
    /// It is none of this log's.
    Rejected(String),
}

/// The places of one segment, in order.
#[derive(Debug)]
pub struct Walk {
    file: Arc<File>,
    base: u64,
    at: u64,
    end: u64,
    torn: u64,
}

impl Inspection {
    /// The version of the format that is read.
    pub const VERSION: u16 = segment::VERSION;

    /// Looks at the directory `path`. `content` is what its log must hold, as its writer numbers it; None:
    /// what its first segment says.
    ///
    /// # Errors
    /// The directory can't be listed. A file that can't be read is no error.
    pub fn new(path: &Path, content: Option<u32>) -> Result<Inspection, WalError> {
        let disk = Disk::look(path)?;
        let mut files = disk.list().map_err(|source| WalError::open(path, source))?;
        sort::unstable_by(&mut files, Ord::cmp);
        let mut found = Inspection {
            in_use: in_use(&disk),
            disk,
            content,
            segments: Vec::new(),
            cursors: Vec::new(),
            others: Vec::new(),
        };
        let newest = files.iter().rev().find(|(name, _)| segment::parse_name(name).is_some());
        let newest = newest.map(|(name, _)| name.clone());
        for (name, bytes) in files {
            if let Some(base) = segment::parse_name(&name) {
                let may_be_written = newest.as_ref() == Some(&name) && found.may_be_in_use();
                found.add_segment(name, base, bytes, may_be_written);
            } else if name.ends_with(cursor::SUFFIX) {
                let slots = found.slots(&name).map_err(|error| error.kind());
                if !matches!(slots, Err(io::ErrorKind::NotFound)) {
                    found.cursors.push(Cursor { name, bytes, slots });
                }
            } else if name != LOCK {
                let what = found.other(&name, bytes);
                found.others.push(Other { name, bytes, what });
            }
        }
        Ok(found)
    }

    /// Whether another process has the log open, or may have.
    pub fn may_be_in_use(&self) -> bool {
        self.in_use != Some(false)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.bytes);
        let cursors = self.cursors.iter().map(|cursor| cursor.bytes);
        segments.chain(cursors).chain(self.others.iter().map(|other| other.bytes)).sum()
    }

    /// The places of a segment of this directory, from its first record on. None if its file has gone
    /// since. Where the newest one of a log in use ends in an incomplete record it is looked at twice.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn walk(&self, segment: &SegmentFile) -> io::Result<Option<Walk>> {
        let file = match self.open(&segment.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        // It may have grown since, or lost its zeros.
        let len = file.len()?;
        let is_newest = self.segments.last().is_some_and(|newest| newest.base == segment.base);
        let (end, torn) = if is_newest {
            let tail = |len| end_of_records(&View { file: &file, base: segment.base, end: len });
            let (mut end, mut garbage) = tail(len)?;
            if garbage > end && self.may_be_in_use() {
                std::thread::sleep(MOMENT);
                (end, garbage) = tail(file.len()?)?;
            }
            (end, garbage - end)
        } else {
            (segment.cut.unwrap_or(len).min(len), 0)
        };
        Ok(Some(Walk { file, base: segment.base, at: HEADER as u64, end, torn }))
    }

    /// The time of the newest record whose time is known, in milliseconds since the Unix epoch, as the headers
    /// of the newest segment with such a record say it.
    pub fn newest_ms(&self) -> Option<i64> {
        self.segments.iter().rev().find_map(|segment| {
            let mut walk = self.walk(segment).ok()??;
            let (mut newest, mut payload) = (None, Vec::new());
            while let Ok(Some(place)) = walk.next(&mut payload) {
                if let Place::Record(record) = place {
                    newest = newest.max(record.time());
                }
            }
            newest
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<File>> {
        File::open(self.path().join(name)).map(Arc::new)
    }

    fn add_segment(&mut self, name: String, base: u64, mut bytes: u64, may_be_written: bool) {
        let mut checked = self.check(&name, base, bytes);
        if checked.is_err() && may_be_written {
            // It may have been made at this moment.
            std::thread::sleep(MOMENT);
            bytes = self.open(&name).and_then(|file| file.len()).unwrap_or(bytes);
            checked = self.check(&name, base, bytes);
        }
        let what = match checked {
            Ok(()) => None,
            // Gone since it was listed, as the segments of a log in use do.
            Err(Refused::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => return,
            Err(Refused::Unreadable(error)) => Some(OtherKind::Unreadable(error.to_string())),
            Err(Refused::Rejected(why)) => Some(OtherKind::Rejected(why)),
        };
        if let Some(what) = what {
            self.others.push(Other { name, bytes, what });
            return;
        }
        let mut cut = None;
        if let Some(before) = self.segments.last()
            && before.base + before.bytes > base
        {
            // As recovery decides: the zeros that a newest segment grows by, or two logs in one place.
            let (base_before, end) = (before.base, before.bytes);
            let end_of =
                |file: Arc<File>| end_of_records(&View { file: &file, base: base_before, end });
            match self.open(&before.name).and_then(end_of) {
                Ok((end, _)) if before.base + end > base => {
                    let why = "it overlaps the segment before it".to_owned();
                    self.others.push(Other { name, bytes, what: OtherKind::Rejected(why) });
                    return;
                }
                Ok((end, _)) => cut = Some(end),
                // Whoever walks it is told.
                Err(_) => {}
            }
        }
        if let (Some(before), Some(_)) = (self.segments.last_mut(), cut) {
            before.cut = cut;
        }
        self.segments.push(SegmentFile { name, base, bytes, cut: None });
    }

    /// Checks a segment's header; the first good one says what the log holds.
    fn check(&mut self, name: &str, base: u64, bytes: u64) -> Result<(), Refused> {
        let content = self.check_file(name, base, bytes)?;
        match self.content {
            Some(expected) if expected != content => Err(Refused::Rejected(format!(
                "it belongs to another log: its content is {content}, not {expected}"
            ))),
            _ => {
                self.content = Some(content);
                Ok(())
            }
        }
    }

    fn check_file(&self, name: &str, base: u64, bytes: u64) -> Result<u32, Refused> {
        let rejected = |why: &str| Refused::Rejected(why.to_owned());
        if bytes > MAX_SEGMENT {
            return Err(rejected("it is larger than a segment gets"));
        }
        let mut header = [0; HEADER];
        match self.open(name).and_then(|file| file.read_exact_at(0, &mut header)) {
            Ok(true) => {}
            Ok(false) => return Err(rejected("it is shorter than a segment's header")),
            Err(error) => return Err(Refused::Unreadable(error)),
        }
        let content = segment::content(&header);
        segment::check(&header, base, content).map_err(rejected)?;
        Ok(content)
    }

    fn other(&self, name: &str, bytes: u64) -> OtherKind {
        let base = name.ends_with(ASIDE).then(|| segment::parse_name(name.get(..20)?)).flatten();
        let Some(base) = base else { return OtherKind::Foreign };
        OtherKind::Aside(match self.check_file(name, base, bytes) {
            Ok(_) => None,
            Err(Refused::Unreadable(error)) => Some(format!("it can't be read: {error}")),
            Err(Refused::Rejected(why)) => Some(why),
        })
    }

    fn slots(&self, name: &str) -> io::Result<[Slot; 2]> {
        let file = self.open(name)?;
        let slots = read_slots(&file)?;
        if slots.contains(&Slot::Damaged) && self.may_be_in_use() {
            std::thread::sleep(MOMENT);
            return read_slots(&file);
        }
        Ok(slots)
    }
}

fn in_use(disk: &Disk) -> Option<bool> {
    match File::open(disk.path().join(LOCK)) {
        Ok(_) => Some(disk.is_taken()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

fn read_slots(file: &Arc<File>) -> io::Result<[Slot; 2]> {
    let mut slots = [Slot::Empty; 2];
    for (index, slot) in slots.iter_mut().enumerate() {
        let mut bytes = [0; cursor::USED];
        // A file that ends before has been made and not written yet.
        let offset = (index * cursor::SLOT) as u64;
        let there = file.read_exact_at(offset, &mut bytes)?;
        *slot = match cursor::parse(&bytes) {
            Some((generation, position)) => Slot::Written { generation, position },
            None if bytes == [0; cursor::USED] && (there || file.len()? <= offset) => Slot::Empty,
            None => Slot::Damaged,
        };
    }
    Ok(slots)
}

impl Cursor {
    /// The position that counts; None if none was ever written, or none is left.
    pub fn position(&self) -> Option<u64> {
        let slots = self.slots.as_ref().ok()?.iter();
        let written = slots.filter_map(|slot| match slot {
            Slot::Written { generation, position } => Some((*generation, *position)),
            Slot::Empty | Slot::Damaged => None,
        });
        written.max().map(|(_, position)| position)
    }

    /// Where a slot begins in the file, in bytes.
    pub fn offset(slot: usize) -> u64 {
        (slot * cursor::SLOT) as u64
    }

    /// Bytes that a cursor file has; what is behind them is not the log's.
    pub const BYTES: u64 = cursor::FILE;
}

impl Walk {
    /// The next place; `payload` is the record's if it is a record, and else empty.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn next(&mut self, payload: &mut Vec<u8>) -> io::Result<Option<Place>> {
        let at = self.at;
        if at >= self.end {
            payload.clear();
            let bytes = std::mem::take(&mut self.torn);
            return Ok((bytes > 0).then_some(Place::Torn { offset: self.end, bytes }));
        }
        let view = View { file: &self.file, base: self.base, end: self.end };
        let (record, next) = match view.read(at, payload)? {
            Found::Good(header) => {
                self.at += header.record_bytes();
                return Ok(Some(Place::Record(Record {
                    kind: header.kind,
                    items: header.items,
                    time_ms: header.time_ms,
                    position: self.base + at,
                    next: self.base + self.at,
                    segment: self.base,
                    fresh: at == HEADER as u64,
                })));
            }
            Found::BadPayload(header) => {
                (Some((header.items, header.time_ms)), at + header.record_bytes())
            }
            Found::None => match view.search(at + 1, payload)? {
                Some(next) => (None, next),
                None => {
                    let last = view.last_nonzero(at)?;
                    self.at = self.end;
                    if last == at {
                        return self.next(payload);
                    }
                    (None, self.end)
                }
            },
        };
        payload.clear();
        self.at = next;
        Ok(Some(Place::Damage(Damage { offset: at, bytes: next - at, record })))
    }

    /// The position behind the last record.
    pub fn end(&self) -> u64 {
        self.base + self.end
    }
}
