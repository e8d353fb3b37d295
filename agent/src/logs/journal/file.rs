//! One journal file: where reading stands in it, and how to get from there to the next entry or to
//! one that a search finds. It costs a row in a table; its descriptor can be closed and opened again
//! at any time. It must not know other files.

use std::fs::{File as Descriptor, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Problem;
use super::format::{self, Bytes, HEADER, Header};
use super::order::Key;
use super::pages::{self, Pages};

/// What tells a file from all others while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The next entry of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) key: Key,
    pub(super) at: u64,
    pub(super) size: u64,
}

/// A journal file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    /// Journald's volatile journal, below /run.
    pub(super) volatile: bool,
    pub(super) header: Header,
    /// What its pages are found by; another one whenever they may be stale.
    pub(super) tag: u32,
    /// What its data objects are found by; never another one.
    pub(super) number: u32,
    pub(super) head: Option<Head>,
    /// Nothing will come any more.
    pub(super) done: bool,
    /// Its directory doesn't list it any more.
    pub(super) gone: bool,
    /// Something damaged in it has been told.
    pub(super) told: bool,
    /// It was waited for in vain: what can't be read of it is damage.
    pub(super) given_up: bool,
    /// Nothing more could be read of it; the next scan finds it anew.
    pub(super) lame: bool,
    /// Places in it that could not be read.
    pub(super) bad: u32,
    pub(super) descriptor: Option<Descriptor>,
    /// When it was used last, to close the one that was used longest ago.
    pub(super) used: u32,
    place: Place,
    /// The last number that was read in it.
    seqnum: u64,
}

/// Where the next entry's offset stands.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The entry array, 0 before the first is known.
    array: u64,
    /// The index in the file of the array's first item.
    first: u64,
    items: u64,
    index: u64,
}

/// What walking forwards met.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Entries and arrays that are damaged.
    pub(super) damaged: u64,
    /// The first of them.
    pub(super) first: Option<Problem>,
    /// The bound of work was reached; walk on.
    pub(super) unfinished: bool,
}

impl Walked {
    fn add(&mut self, problem: Problem) {
        self.damaged += 1;
        self.first.get_or_insert(problem);
    }
}

/// Damaged entries that one walk passes over.
const WALK: u32 = 16_384;
/// Places that can't be read, of a file that is read on all the same: each may take seconds.
const MAX_BAD: u32 = 16;
/// Arrays of one file: each has twice the room of the one before it.
const MAX_ARRAYS: usize = 4_096;

/// Boots of one file whose entries are looked for one by one; of those before them, all together.
const MAX_BOOTS: usize = 64;

/// Opens a path that should be a journal file; `None` if it is no regular file.
pub(super) fn open(path: &Path) -> Result<Option<(Descriptor, Identity)>, Problem> {
    let mut options = OpenOptions::new();
    // A FIFO of that name must not be waited for.
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let descriptor = options.open(path).map_err(|error| Problem::Io("open it", error))?;
    let metadata = descriptor.metadata().map_err(|error| Problem::Io("look at it", error))?;
    let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
    Ok(metadata.is_file().then_some((descriptor, identity)))
}

/// The header as it is now.
pub(super) fn read_header(descriptor: &Descriptor) -> Result<Option<Header>, Problem> {
    let mut bytes = [0; HEADER];
    let read = pages::read_at(descriptor, &mut bytes, 0);
    let len = read.map_err(|error| Problem::Io("read", error))?;
    Header::parse(bytes.get(..len).unwrap_or_default())
}

impl File {
    /// A file at its beginning.
    pub(super) fn new(
        path: PathBuf,
        volatile: bool,
        (descriptor, identity): (Descriptor, Identity),
        header: Header,
        (tag, number): (u32, u32),
    ) -> File {
        File {
            path,
            identity,
            volatile,
            header,
            tag,
            number,
            head: None,
            done: false,
            gone: false,
            told: false,
            given_up: false,
            lame: false,
            bad: 0,
            descriptor: Some(descriptor),
            used: 0,
            place: Place::default(),
            seqnum: 0,
        }
    }

    /// Nobody writes to it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.header.archived || self.path.as_os_str().as_encoded_bytes().ends_with(b"~")
    }

    /// Opens it again; `false` if its path leads elsewhere by now.
    pub(super) fn ensure_open(&mut self) -> Result<bool, Problem> {
        if self.descriptor.is_some() {
            return Ok(true);
        }
        let (descriptor, identity) = match open(&self.path) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(false),
            Err(Problem::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(problem) => return Err(problem),
        };
        let header = read_header(&descriptor)?;
        if identity != self.identity
            || header.is_none_or(|header| header.file_id != self.header.file_id)
        {
            return Ok(false);
        }
        self.descriptor = Some(descriptor);
        Ok(true)
    }

    /// Reads the header anew. It must be open.
    pub(super) fn refresh(&mut self, pages: &mut Pages) -> Result<(), Problem> {
        let Some(descriptor) = &self.descriptor else { return Ok(()) };
        let Some(header) = read_header(descriptor)? else {
            return Err(Problem::BadHeader("it is empty"));
        };
        if header.file_id != self.header.file_id || header.compact != self.header.compact {
            return Err(Problem::BadHeader("it has become another file's"));
        }
        if header.n_entries != self.header.n_entries || header.archived != self.header.archived {
            self.tag = pages.tag();
        }
        self.header = header;
        Ok(())
    }

    /// Its bytes; `None` if it is closed.
    pub(super) fn bytes<'a>(&'a self, pages: &'a mut Pages) -> Option<Bytes<'a>> {
        let file = self.descriptor.as_ref()?;
        Some(Bytes { file, pages, tag: self.tag })
    }

    /// Goes past the entry that `head` is.
    pub(super) fn advance(&mut self) {
        if let Some(head) = self.head.take() {
            self.seqnum = head.key.seqnum;
            self.place.index += 1;
        }
    }

    /// Finds the next entry, if `head` is none and there is one. An input error leaves it where it is.
    pub(super) fn walk(&mut self, pages: &mut Pages) -> Result<Walked, Problem> {
        let mut walked = Walked::default();
        if self.head.is_some() || self.done {
            return Ok(walked);
        }
        for _ in 0..WALK {
            if self.place.index >= self.header.n_entries {
                self.done = self.is_closed();
                return Ok(walked);
            }
            if self.place.array == 0 || self.place.index - self.place.first >= self.place.items {
                match self.next_array(pages) {
                    Ok(true) => continue,
                    Ok(false) => {
                        self.done = self.is_closed();
                        return Ok(walked);
                    }
                    Err(Problem::Io(what, error)) => return Err(Problem::Io(what, error)),
                    Err(_) if self.is_last_being_written() => {
                        self.tag = pages.tag();
                        return Ok(walked);
                    }
                    Err(problem) => {
                        walked.add(problem);
                        self.done = true;
                        return Ok(walked);
                    }
                }
            }
            match self.look(pages, self.place) {
                Ok(head) if head.key.seqnum > self.seqnum => {
                    self.head = Some(head);
                    return Ok(walked);
                }
                Ok(head) => walked.add(Problem::Damaged("number of an entry", head.at)),
                Err(problem @ Problem::Io(..)) => {
                    if !self.given_up || self.bad >= MAX_BAD {
                        return Err(problem);
                    }
                    self.bad += 1;
                    walked.add(problem);
                }
                Err(_) if self.is_last_being_written() => {
                    self.tag = pages.tag();
                    return Ok(walked);
                }
                Err(problem) => {
                    let cut = matches!(problem, Problem::Damaged("entry array", _));
                    walked.add(problem);
                    if cut {
                        // The array goes on beyond the file's end: so does all the rest of it.
                        self.place.index = self.place.first.saturating_add(self.place.items);
                        continue;
                    }
                }
            }
            self.place.index += 1;
        }
        walked.unfinished = true;
        Ok(walked)
    }

    /// The count can be seen before the entry is, or the array that it begins.
    fn is_last_being_written(&self) -> bool {
        !self.is_closed() && self.place.index + 1 == self.header.n_entries
    }

    fn look(&self, pages: &mut Pages, place: Place) -> Result<Head, Problem> {
        let header = &self.header;
        let Some(mut bytes) = self.bytes(pages) else {
            return Err(Problem::Io("read", io::ErrorKind::NotConnected.into()));
        };
        let number = place.index - place.first;
        let at = format::array_item(&mut bytes, header, place.array, number)?;
        let (key, size) = format::entry(&mut bytes, header, at)?;
        if !header.fits(key.seqnum, place.index) {
            return Err(Problem::Damaged("number of an entry", at));
        }
        Ok(Head { key, at, size })
    }

    /// Goes on to the next array; `false` if there is none.
    fn next_array(&mut self, pages: &mut Pages) -> Result<bool, Problem> {
        let header = self.header;
        let Some(mut bytes) = self.bytes(pages) else { return Ok(false) };
        let next = if self.place.array == 0 {
            header.entry_array
        } else {
            format::array(&mut bytes, &header, self.place.array)?.next
        };
        if next == 0 {
            return Ok(false);
        }
        let array = format::array(&mut bytes, &header, next)?;
        let first = self.place.first.saturating_add(self.place.items);
        self.place.array = next;
        self.place.first = first;
        self.place.items = array.items;
        Ok(true)
    }

    /// Enters the file at the first entry for which `before` does not hold. The entries are bisected;
    /// with `steps` those of each boot on their own, since a clock can begin a boot before the last
    /// one's end; a boot whose last entry is `new` is entered at its first.
    pub(super) fn enter(
        &mut self,
        pages: &mut Pages,
        steps: bool,
        before: &dyn Fn(&Key) -> bool,
        new: &dyn Fn(&Key) -> bool,
    ) -> Result<(), Problem> {
        let arrays = self.arrays(pages)?;
        let known = arrays.last().map_or(0, |last| last.first.saturating_add(last.items));
        let end = known.min(self.header.n_entries);
        let mut index = end;
        let mut stop = end;
        for _ in 0..if steps { MAX_BOOTS } else { 0 } {
            let Some(last) = self.last_below(pages, &arrays, stop)? else { break };
            let other = |key: &Key| key.boot_id != last.boot_id;
            let start = self.bisect(pages, &arrays, 0, stop, &other)?;
            let found = match new(&last) {
                true => start,
                false => self.bisect(pages, &arrays, start, stop, before)?,
            };
            index = if found < stop { found } else { index };
            if start >= stop {
                break;
            }
            stop = start;
        }
        let found = self.bisect(pages, &arrays, 0, stop, before)?;
        index = if found < stop { found } else { index };
        self.go(&arrays, index);
        Ok(())
    }

    /// The newest entry; the place is after it.
    pub(super) fn enter_at_end(&mut self, pages: &mut Pages) -> Result<Option<Key>, Problem> {
        let arrays = self.arrays(pages)?;
        let known = arrays.last().map_or(0, |last| last.first.saturating_add(last.items));
        let end = known.min(self.header.n_entries);
        let key = self.last_below(pages, &arrays, end)?;
        self.go(&arrays, end);
        self.seqnum = key.map_or(0, |key| key.seqnum);
        Ok(key)
    }

    /// The last good entry below an index.
    fn last_below(
        &self,
        pages: &mut Pages,
        arrays: &[Place],
        end: u64,
    ) -> Result<Option<Key>, Problem> {
        for index in (end.saturating_sub(u64::from(WALK))..end).rev() {
            match self.look(pages, place(arrays, index)) {
                Ok(head) => return Ok(Some(head.key)),
                Err(Problem::Io(what, error)) => return Err(Problem::Io(what, error)),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// The last good entry before the place that was entered.
    pub(super) fn skipped(&self, pages: &mut Pages) -> Result<Option<Key>, Problem> {
        let arrays = self.arrays(pages)?;
        self.last_below(pages, &arrays, self.place.index)
    }

    fn go(&mut self, arrays: &[Place], index: u64) {
        self.place = place(arrays, index);
        (self.head, self.done, self.seqnum) = (None, false, 0);
    }

    /// All arrays, up to the first that is damaged.
    fn arrays(&self, pages: &mut Pages) -> Result<Vec<Place>, Problem> {
        let mut arrays = Vec::new();
        let header = self.header;
        let Some(mut bytes) = self.bytes(pages) else { return Ok(arrays) };
        let (mut at, mut first) = (header.entry_array, 0u64);
        while at != 0 && arrays.len() < MAX_ARRAYS && first < header.n_entries {
            let array = match format::array(&mut bytes, &header, at) {
                Ok(array) => array,
                Err(Problem::Io(what, error)) => return Err(Problem::Io(what, error)),
                Err(_) => break,
            };
            arrays.push(Place { array: at, first, items: array.items, index: first });
            first = first.saturating_add(array.items);
            at = array.next;
        }
        Ok(arrays)
    }

    fn bisect(
        &self,
        pages: &mut Pages,
        arrays: &[Place],
        mut low: u64,
        mut high: u64,
        before: &dyn Fn(&Key) -> bool,
    ) -> Result<u64, Problem> {
        while low < high {
            let middle = low + (high - low) / 2;
            if self.is_before(pages, arrays, middle, high, before)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Whether the entry is before; if it is damaged, whether the next good one below `end` is. Of a
    /// long damaged stretch, or one at the end, none is.
    fn is_before(
        &self,
        pages: &mut Pages,
        arrays: &[Place],
        index: u64,
        end: u64,
        before: &dyn Fn(&Key) -> bool,
    ) -> Result<bool, Problem> {
        for index in index..end.min(index.saturating_add(u64::from(WALK))) {
            match self.look(pages, place(arrays, index)) {
                Ok(head) => return Ok(before(&head.key)),
                Err(Problem::Io(what, error)) => return Err(Problem::Io(what, error)),
                Err(_) => {}
            }
        }
        Ok(false)
    }
}

/// The place of the entry with this index.
fn place(arrays: &[Place], index: u64) -> Place {
    let at = arrays.partition_point(|array| array.first <= index);
    let array = at.checked_sub(1).and_then(|at| arrays.get(at)).copied().unwrap_or_default();
    Place { index, ..array }
}
