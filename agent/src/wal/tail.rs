//! Recovery: what opening a log does with what it finds. The cases are in the module documentation.

use super::cursor::{self, CursorFile};
use super::segment::{self, HEADER, Segment};
use super::storage::{Storage, StorageFile};
use super::{Reader, Wal, WalError, record};

/// Files of the log that are neither segments nor cursors.
const LOCK: &str = "LOCK";

/// What a foreign file's name gets.
const ASIDE: &str = ".aside";

impl<S: Storage> Wal<S> {
    /// Fills an empty log from its storage.
    pub(super) fn recover(&mut self, readers: &[&str]) -> Result<(), WalError> {
        let mut files = self.storage.list().map_err(|e| WalError::open(self.storage.path(), e))?;
        files.sort();
        // The others first, so that a name that is taken is known.
        for (name, len) in files.iter().filter(|(name, _)| segment::parse_name(name).is_none()) {
            self.recover_other(name, *len, readers)?;
        }
        for (name, len) in &files {
            if let Some(base) = segment::parse_name(name) {
                self.recover_segment(name, base, *len)?;
            }
        }
        self.cut_torn_tail()?;
        self.remove_empty_newest()?;
        self.next_base = self.segments.back().map_or(0, Segment::end);
        self.open_readers(readers)?;
        // Appends begin a new segment, so nothing of this is written to again.
        self.synced = self.next_base;
        self.storage.sync_directory().map_err(|e| WalError::sync(self.storage.path(), e))
    }

    fn recover_segment(&mut self, name: &str, base: u64, len: u64) -> Result<(), WalError> {
        if len < HEADER as u64 {
            // A power cut just after it was created.
            self.stats.torn_bytes += len;
            return self.remove(name);
        }
        let overlaps = self.segments.back().is_some_and(|before| before.end() > base);
        match self.check_segment(name, base)? {
            Ok(()) if !overlaps => {
                self.segments.push_back(Segment::new(base, len));
                Ok(())
            }
            Ok(()) => self.set_aside(name, len, "it overlaps the segment before it"),
            Err(why) => self.set_aside(name, len, why),
        }
    }

    fn check_segment(&self, name: &str, base: u64) -> Result<Result<(), &'static str>, WalError> {
        let error = |e| WalError::read(self.storage.path(), name, e);
        let file = self.storage.open(name).map_err(error)?;
        let mut header = [0; HEADER];
        if !file.read_exact_at(0, &mut header).map_err(error)? {
            return Ok(Err("it is shorter than a segment's header"));
        }
        Ok(segment::check(&header, base, self.options.content))
    }

    fn set_aside(&mut self, name: &str, len: u64, why: &str) -> Result<(), WalError> {
        let mut to = format!("{name}{ASIDE}");
        let mut number = 1;
        while self.aside.iter().any(|(taken, _)| *taken == to) {
            to = format!("{name}.{number}{ASIDE}");
            number += 1;
        }
        log::warn!(
            "{} is no segment of this WAL ({why}): set aside as {to} until its room is needed",
            self.storage.path().join(name).display()
        );
        self.storage
            .rename(name, &to)
            .map_err(|e| WalError::set_aside(self.storage.path(), name, e))?;
        self.stats.set_aside += 1;
        self.other_bytes += len;
        self.aside.push_back((to, len));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), WalError> {
        self.storage.remove(name).map_err(|e| WalError::remove(self.storage.path(), name, e))
    }

    fn recover_other(&mut self, name: &str, len: u64, readers: &[&str]) -> Result<(), WalError> {
        if name == LOCK || readers.iter().any(|reader| cursor::name(reader) == name) {
            return Ok(());
        }
        if name.ends_with(".cursor") {
            log::info!(
                "{} belongs to an endpoint that is not configured any more: removed",
                self.storage.path().join(name).display()
            );
            return self.remove(name);
        }
        if name.ends_with(ASIDE) && name.get(..20).is_some_and(|s| segment::parse_name(s).is_some())
        {
            self.aside.push_back((name.to_owned(), len));
        }
        self.other_bytes += len;
        Ok(())
    }

    /// Walks the newest segment and cuts it where its records end.
    fn cut_torn_tail(&mut self) -> Result<(), WalError> {
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        let name = segment::name(last.base);
        let error = |e| WalError::read(self.storage.path(), &name, e);
        let mut file = self.storage.open(&name).map_err(error)?;
        let mut at = HEADER as u64;
        let mut payload = Vec::new();
        while let Some((_, next)) = record::read_at(&file, last, at, &mut payload).map_err(error)? {
            at = next;
        }
        if at < last.len {
            log::warn!(
                "the WAL segment {} ends in an incomplete record: {} bytes are cut off",
                self.storage.path().join(&name).display(),
                last.len - at
            );
            self.stats.torn_bytes += last.len - at;
            file.truncate(at).map_err(|e| WalError::truncate(self.storage.path(), &name, e))?;
            *last = Segment::new(last.base, at);
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
            self.remove(&segment::name(last.base))?;
            self.segments.pop_back();
        }
        Ok(())
    }

    fn open_readers(&mut self, readers: &[&str]) -> Result<(), WalError> {
        let first = self.segments.front().map_or(0, |s| s.base);
        for &name in readers {
            let (file, position) = CursorFile::open(&self.storage, name)
                .map_err(|e| WalError::read(self.storage.path(), &cursor::name(name), e))?;
            let cursor = position.unwrap_or(first).max(first);
            self.next_base = self.next_base.max(cursor);
            self.other_bytes += cursor::FILE;
            self.readers.push(Reader { name: name.to_owned(), cursor, file, open: None });
        }
        Ok(())
    }
}
