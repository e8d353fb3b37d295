//! Recovery: what opening a log does with what it finds. The cases are in the module documentation.

use std::io;

use crate::sort;

use super::cursor::{self, CursorFile};
use super::options::MAX_SEGMENT;
use super::record::{Found, HEADER as RECORD_HEADER, Header, ReadAt, SYNCED_BEFORE, View};
use super::segment::{self, HEADER, Segment};
use super::storage::{LOCK, Storage, StorageFile};
use super::{Options, Reader, Wal, WalError};

/// What a foreign file's name gets.
pub(super) const ASIDE: &str = ".aside";

/// A cursor file that can be written, and the position that was found.
type OpenCursor<F> = (Option<CursorFile<F>>, Option<u64>);

/// The most files that are set aside; then the oldest go.
const MAX_ASIDE: usize = 16;

impl<S: Storage> Wal<S> {
    /// Fills an empty log from its storage. A broken log changes nothing there.
    pub(super) fn recover(&mut self, readers: &[&str]) -> Result<(), WalError> {
        let mut files = self.storage.list().map_err(|e| WalError::open(self.storage.path(), e))?;
        sort::unstable_by(&mut files, Ord::cmp);
        // The others first, so that a name that is taken is known.
        let mut cursors = Vec::new();
        for (name, len) in files.iter().filter(|(name, _)| segment::parse_name(name).is_none()) {
            if readers.iter().any(|reader| cursor::name(reader) == *name) {
                continue;
            }
            if name.ends_with(cursor::SUFFIX) {
                cursors.push((name.as_str(), *len));
                continue;
            }
            if name.ends_with(ASIDE)
                && name.get(..20).is_some_and(|start| segment::parse_name(start).is_some())
            {
                self.aside.push_back((name.clone(), *len));
            }
            self.other_bytes += if name == LOCK { 0 } else { *len };
        }
        for (name, len) in &files {
            if let Some(base) = segment::parse_name(name) {
                self.recover_segment(name, base, *len)?;
            }
        }
        self.cut_torn_tail()?;
        self.remove_empty_newest()?;
        self.next_base = self.segments.back().map_or(0, Segment::end);
        // Room for the cursor files before they are made.
        if !self.broken
            && let Err(super::AppendError::Failed(error)) = self.make_room(0)
        {
            return Err(error);
        }
        self.open_readers(readers)?;
        self.retire(&cursors)?;
        if self.broken {
            return Ok(());
        }
        // Appends begin a new segment, so nothing of this is written to again.
        self.synced = self.next_base;
        self.storage.sync_directory().map_err(|e| WalError::sync(self.storage.path(), e))?;
        self.synced_changes = self.changes;
        self.freed = 0;
        Ok(())
    }

    fn recover_segment(&mut self, name: &str, base: u64, len: u64) -> Result<(), WalError> {
        let may_be_empty = (HEADER as u64..MAX_SEGMENT).contains(&len) && !self.broken;
        if may_be_empty && self.is_empty(name, base, len) {
            log::info!(
                "{} holds nothing, a start that came to nothing: removed",
                self.storage.path().join(name).display()
            );
            self.stats.torn_bytes += len;
            return self.remove(name);
        }
        if len > MAX_SEGMENT {
            return self.set_aside(name, len, "it is larger than a segment gets");
        }
        let first = match self.check_segment(name, base) {
            Ok(Ok(first)) => first,
            Ok(Err(why)) => return self.set_aside(name, len, why),
            Err(error) => return self.set_aside(name, len, &format!("reading it: {error}")),
        };
        if let Some(before) = self.segments.back().copied()
            && before.end() > base
        {
            // The zeros that a newest segment grows by, or else two logs in one directory.
            let end = self.end_of_records(&before)?.0;
            if before.base + end > base {
                return self.set_aside(name, len, "it overlaps the segment before it");
            }
            if let Some(before) = self.segments.back_mut() {
                before.len = end;
            }
        }
        let first_ms = first.and_then(|header| header.time());
        self.segments.push_back(Segment { first_ms, ..Segment::new(base, len) });
        Ok(())
    }

    /// Whether a file has zeros alone: what it grows by is written before its first record.
    fn is_empty(&self, name: &str, base: u64, len: u64) -> bool {
        let zeros = self.storage.open(name).and_then(|file| {
            let header = View { file: &file, base, end: HEADER as u64 }.last_nonzero(0)?;
            if header > 0 {
                Ok(header)
            } else {
                View { file: &file, base, end: len }.last_nonzero(0)
            }
        });
        matches!(zeros, Ok(0))
    }

    /// Looks at a segment's header, and returns that of its first record if there is a good one.
    fn check_segment(
        &self,
        name: &str,
        base: u64,
    ) -> io::Result<Result<Option<Header>, &'static str>> {
        let file = self.storage.open(name)?;
        let mut header = [0; HEADER];
        if !file.read_exact_at(0, &mut header)? {
            return Ok(Err("it is shorter than a segment's header"));
        }
        if let Err(why) = segment::check(&header, base, self.options.content) {
            return Ok(Err(why));
        }
        let mut first = [0; RECORD_HEADER];
        let is_there = file.read_exact_at(HEADER as u64, &mut first)?;
        let parsed = Header::parse(&first, base + HEADER as u64).filter(|_| is_there);
        Ok(Ok(parsed.map(|(header, _)| header)))
    }

    fn set_aside(&mut self, name: &str, len: u64, why: &str) -> Result<(), WalError> {
        self.stats.set_aside += 1;
        self.other_bytes += len;
        let place = self.storage.path().join(name);
        if self.broken {
            log::warn!("{} is no segment of this WAL ({why})", place.display());
            return Ok(());
        }
        let mut to = format!("{name}{ASIDE}");
        let mut number = 1;
        while self.aside.iter().any(|(taken, _)| *taken == to) {
            to = format!("{name}.{number}{ASIDE}");
            number += 1;
        }
        log::warn!(
            "{} is no segment of this WAL ({why}): set aside as {to} until its room is needed",
            place.display()
        );
        self.storage
            .rename(name, &to)
            .map_err(|e| WalError::set_aside(self.storage.path(), name, e))?;
        self.aside.push_back((to, len));
        while self.aside.len() > MAX_ASIDE {
            if let Err(super::AppendError::Failed(error)) = self.remove_aside() {
                return Err(error);
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), WalError> {
        self.storage.remove(name).map_err(|e| WalError::remove(self.storage.path(), name, e))
    }

    fn end_of_records(&self, segment: &Segment) -> Result<(u64, u64), WalError> {
        let name = segment::name(segment.base);
        let walk = || end_of_records(&segment.view(&self.storage.open(&name)?));
        walk().map_err(|e| WalError::read(self.storage.path(), &name, e))
    }

    /// Walks the newest segment and cuts it where its records end.
    fn cut_torn_tail(&mut self) -> Result<(), WalError> {
        let Some(last) = self.segments.back().copied() else { return Ok(()) };
        let name = segment::name(last.base);
        let (end, garbage) = self.end_of_records(&last)?;
        if garbage > end && !self.broken {
            log::warn!(
                "the WAL segment {} ends in an incomplete record: {} bytes are cut off",
                self.storage.path().join(&name).display(),
                garbage - end
            );
        }
        self.stats.torn_bytes += garbage - end;
        if let Some(last) = self.segments.back_mut() {
            last.len = end;
        }
        if self.broken {
            return Ok(());
        }
        let error = |e| WalError::truncate(self.storage.path(), &name, e);
        let mut file = self.storage.open(&name).map_err(error)?;
        if end < last.size {
            file.truncate(end).map_err(error)?;
        }
        if let Some(last) = self.segments.back_mut() {
            last.size = end;
        }
        // A killed process has left this to the kernel. What the caller appends now may say that the
        // records here exist, and must not survive a power cut that they don't.
        file.sync().map_err(|e| WalError::sync(self.storage.path(), e))
    }

    /// Removes a newest segment in which no record is: a start that came to nothing.
    fn remove_empty_newest(&mut self) -> Result<(), WalError> {
        if let Some(last) = self.segments.back().copied()
            && last.len <= HEADER as u64
        {
            if !self.broken {
                self.remove(&segment::name(last.base))?;
            }
            self.segments.pop_back();
        }
        Ok(())
    }

    fn open_readers(&mut self, readers: &[&str]) -> Result<(), WalError> {
        let first = self.segments.front().map_or(0, |s| s.base);
        for &name in readers {
            let (file, position) = match self.open_cursor(name) {
                Ok((file, position)) => (file, position),
                Err(error) => {
                    log::warn!("{error}: after a crash, what was sent since is sent again");
                    (None, None)
                }
            };
            let cursor = position.unwrap_or(first).max(first);
            self.next_base = self.next_base.max(cursor);
            let name = name.to_owned();
            self.readers.push(Reader { name, cursor, held: 0, file, open: None });
        }
        Ok(())
    }

    /// A reader's cursor file, unless nothing may be written, and the position in it.
    fn open_cursor(&self, reader: &str) -> Result<OpenCursor<S::File>, WalError> {
        let name = cursor::name(reader);
        let error = |e| WalError::read(self.storage.path(), &name, e);
        if self.broken {
            let file = match self.storage.open(&name) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((None, None)),
                other => other.map_err(error)?,
            };
            let newest = cursor::newest(&file).map_err(error)?;
            return Ok((None, newest.map(|(_, position)| position)));
        }
        let (file, position) = CursorFile::open(&self.storage, reader).map_err(error)?;
        Ok((Some(file), position))
    }

    /// Keeps the cursor files of readers that are configured no more, until the log has passed them.
    fn retire(&mut self, cursors: &[(&str, u64)]) -> Result<(), WalError> {
        let first = self.segments.front().map_or(self.next_base, |s| s.base);
        let room = Options::MAX_CURSORS.saturating_sub(self.readers.len() as u64);
        for (name, len) in cursors {
            let position = self.storage.open(name).and_then(|file| cursor::newest(&file));
            let useful = matches!(position, Ok(Some((_, position))) if position > first);
            let kept = useful && self.retired < room && *len <= cursor::FILE;
            if kept || self.broken {
                self.retired += 1;
            } else {
                log::info!(
                    "{} belongs to an endpoint that is not configured any more, and says nothing that is still in the WAL: removed",
                    self.storage.path().join(name).display()
                );
                self.remove(name)?;
            }
        }
        Ok(())
    }
}

/// Where the records of a segment end, and where the bytes behind them that are not zero do. A damaged
/// place with a record behind it that was written when everything before it had been synced is inside;
/// any other may be what a power cut left, and the records end before it.
pub(super) fn end_of_records<F: ReadAt>(view: &View<'_, F>) -> io::Result<(u64, u64)> {
    let (mut at, mut end, mut in_doubt) = (HEADER as u64, HEADER as u64, false);
    let mut payload = Vec::new();
    loop {
        match view.read(at, &mut payload)? {
            Found::Good(header) => {
                in_doubt &= header.flags & SYNCED_BEFORE == 0;
                at += header.record_bytes();
                if !in_doubt {
                    end = at;
                }
                continue;
            }
            Found::BadPayload(header) => at += header.record_bytes(),
            Found::None => match view.search(at + 1, &mut payload)? {
                Some(next) => at = next,
                None => break,
            },
        }
        in_doubt = true;
    }
    Ok((end, view.last_nonzero(end)?))
}
