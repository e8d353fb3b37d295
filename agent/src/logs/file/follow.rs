//! One open file: which it is, how far it has been read, and the lines that come next. It notices
//! truncation and replacement of the contents. It must not know how files are found or that there
//! are others.
//!
//! Lines are cut from one buffer that all files share and that holds the longest line allowed; a
//! line without its end stays in the file until the end comes, so a file costs no memory of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use tokio::time::Instant;

use super::format::{Format, Frame};
use super::position::{HEAD, Head, Identity, Record};
use super::times::{file_born_ns, modified_ns};

/// How far back a line's beginning is looked for.
const SKIP_AT_MOST: u64 = 4 << 20;

/// Where a followed file is, as the last scan saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the path that it is followed for.
    Current,
    /// Elsewhere, or nowhere, since then.
    Rotated {
        since: Instant,
        /// Its end is near: the path holds another file, or no name leads to this one, or it has
        /// arrived at another path that is followed.
        replaced: bool,
    },
}

/// Why a file is not followed.
#[derive(Debug)]
pub(super) enum OpenError {
    Io(io::Error),
    /// A pipe, a socket, a device.
    NotRegular,
    /// gzip, xz, zstd or bzip2 by its first bytes: a rotated set's older files.
    Compressed,
    /// By its byte order mark.
    Utf16,
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Io(error) => error.fmt(f),
            OpenError::NotRegular => f.write_str("not a regular file, ignored"),
            OpenError::Compressed => f.write_str("compressed, ignored"),
            OpenError::Utf16 => f.write_str(
                "text in UTF-16, ignored: only UTF-8 is read, let its program write that",
            ),
        }
    }
}

/// What takes lines.
pub(super) trait Sink {
    /// Takes a record, a line without its line break, of which at least `max_line` bytes are given if
    /// there are more. False: full, nothing was taken.
    fn line(&mut self, line: &[u8]) -> bool;
    /// The longest record wanted, in bytes.
    fn max_line(&self) -> usize;
    /// How records stand in the file.
    fn format(&self) -> &'static dyn Format;
    /// So many bytes are no record and are passed over.
    fn damaged(&mut self, bytes: u64);
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes of the file that are done with.
    pub(super) consumed: u64,
    /// There is no complete line left before the goal.
    pub(super) end: bool,
    /// The sink is full.
    pub(super) full: bool,
    /// The contents were cut off or replaced: [`Follow::restart`] comes next.
    pub(super) cut: bool,
}

/// What a position has to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resumed {
    /// It goes on there.
    Same,
    /// It is the file, with other contents, which are read from the start.
    Cut,
    /// It is of another file.
    Other,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Follow {
    file: File,
    pub(super) identity: Identity,
    offset: u64,
    skipping: bool,
    head: Head,
    /// The bytes before the offset.
    tail: Head,
    /// The largest size that was seen since the contents began.
    seen: u64,
    /// When it had last been written to as it was read.
    modified_ns: i64,
    /// When it last grew.
    pub(super) grew: Instant,
    pub(super) place: Place,
    pub(super) watch: Option<i32>,
}

impl Follow {
    /// Opens a file, which is read from its start.
    pub(super) fn open(path: &Path, now: Instant) -> Result<Follow, OpenError> {
        // Opening a pipe would wake its writer, and a device may do anything.
        if !std::fs::metadata(path)?.is_file() {
            return Err(OpenError::NotRegular);
        }
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let flags = i32::try_from(flags).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(OpenError::NotRegular);
        }
        let mut follow = Follow {
            file,
            identity: Identity { device: metadata.dev(), inode: metadata.ino() },
            offset: 0,
            skipping: false,
            head: Head::default(),
            tail: Head::default(),
            seen: metadata.len(),
            modified_ns: modified_ns(&metadata),
            grew: now,
            place: Place::Current,
            watch: None,
        };
        let mut first = [0; HEAD];
        let first = follow.first(&mut first)?;
        if let Some(error) = no_log(first) {
            return Err(error);
        }
        follow.head = Head::of(first);
        Ok(follow)
    }

    /// Continues where a position says, if it is of this file. A device number may be another after a
    /// boot; a file whose beginning is known is recognised all the same. Other contents in a file that is
    /// younger than what was read are another file's, which has got the inode (ext4 gives it away at
    /// once). `elsewhere`: the file was found under another name.
    pub(super) fn resume(&mut self, record: &Record, elsewhere: bool) -> io::Result<Resumed> {
        let mut first = [0; HEAD];
        let first = self.first(&mut first)?;
        let same_device = self.identity.device == record.identity.device;
        if self.identity.inode != record.identity.inode || (!same_device && record.head.is_empty())
        {
            return Ok(Resumed::Other);
        }
        let hole = !elsewhere && is_hole(first, record.head);
        if record.offset <= self.seen
            && (hole || (record.head.matches(first) && self.has_tail(record)?))
        {
            self.go_on(record);
            return Ok(Resumed::Same);
        }
        let born_ns = file_born_ns(&self.file).unwrap_or_default();
        let is_younger = record.modified_ns > 0 && born_ns > record.modified_ns;
        Ok(if is_younger { Resumed::Other } else { Resumed::Cut })
    }

    /// Continues where a position of another file says, if this one is a copy of what that was.
    pub(super) fn resume_copy(&mut self, record: &Record) -> io::Result<bool> {
        let mut first = [0; HEAD];
        let first = self.first(&mut first)?;
        self.seen = self.size()?;
        let is_copy = self.seen >= record.offset
            && self.identity != record.identity
            && record.head.matches(first)
            && self.has_tail(record)?;
        if is_copy {
            self.go_on(record);
        }
        Ok(is_copy)
    }

    /// Whether it is a copy of another file as far as the shorter of the two goes, or of what is known
    /// of that one if its contents are gone.
    pub(super) fn is_copy_of(&self, other: &Follow) -> io::Result<bool> {
        let (mut own, mut its) = ([0; HEAD], [0; HEAD]);
        let first = self.first(&mut own)?;
        if !other.head.is_empty() && other.size()? < other.offset {
            return Ok(other.head.matches(first));
        }
        let same = |at: u64, own: &mut [u8], its: &mut [u8]| {
            let got = fill(&self.file, own, at)?;
            let len = fill(&other.file, its, at)?.min(got);
            Ok::<_, io::Error>(len > 0 && own.get(..len) == its.get(..len))
        };
        let end = self.size()?.min(other.size()?);
        Ok(same(0, &mut own, &mut its)?
            && same(end.saturating_sub(HEAD as u64), &mut own, &mut its)?)
    }

    /// Whether it begins as another file is known to have begun.
    pub(super) fn has_head_of(&self, other: &Follow) -> io::Result<bool> {
        Ok(!other.head.is_empty() && self.begins_with(other.head)?)
    }

    /// Whether it is longer than another file, whose contents are what they were: no copy of it, however it
    /// begins.
    pub(super) fn goes_beyond(&self, other: &Follow) -> io::Result<bool> {
        let mut first = [0; HEAD];
        let is_same = other.head.matches(other.first(&mut first)?);
        let size = other.size()?;
        Ok(is_same && size >= other.offset && self.size()? > size)
    }

    /// Takes all that there is as read.
    pub(super) fn skip_all(&mut self) {
        self.seen = self.size().unwrap_or(self.seen);
        self.offset = self.seen;
    }

    /// Goes on behind the last line break there is, as if all before had been read.
    pub(super) fn skip_lines(&mut self) -> io::Result<()> {
        let mut end = self.seen;
        let mut buffer = [0; 4096];
        while end > 0 {
            let from = end.saturating_sub(buffer.len() as u64);
            let len = usize::try_from(end - from).unwrap_or(buffer.len());
            let part = buffer.get_mut(..len).unwrap_or_default();
            let got = fill(&self.file, part, from)?;
            if let Some(at) = memchr::memrchr(b'\n', part.get(..got).unwrap_or_default()) {
                self.offset = from + at as u64 + 1;
                return Ok(());
            }
            end = from;
            if self.seen - end > SKIP_AT_MOST {
                // Inside an endless line: what comes next is its rest.
                self.offset = self.seen;
                self.skipping = true;
                return Ok(());
            }
        }
        Ok(())
    }

    fn go_on(&mut self, record: &Record) {
        self.offset = record.offset;
        self.skipping = record.skipping;
        self.tail = record.tail;
    }

    /// Whether what stands before a position's offset is what stood there.
    fn has_tail(&self, record: &Record) -> io::Result<bool> {
        let mut buffer = [0; HEAD];
        let buffer = buffer.get_mut(..record.tail.len()).unwrap_or_default();
        let at = record.offset.saturating_sub(buffer.len() as u64);
        let got = fill(&self.file, buffer, at)?;
        Ok(got == record.tail.len() && record.tail.matches(buffer))
    }

    /// What a position says of this file.
    pub(super) fn record(&self) -> Record {
        Record {
            identity: self.identity,
            offset: self.offset,
            seen: self.seen,
            modified_ns: self.modified_ns,
            head: self.head,
            tail: self.tail,
            skipping: self.skipping,
        }
    }

    /// Notes its size.
    pub(super) fn measure(&mut self, now: Instant) {
        if let Ok(size) = self.size()
            && size > self.seen
        {
            (self.seen, self.grew) = (size, now);
        }
    }

    /// How much of it is known and has not been read.
    pub(super) fn unread(&self) -> u64 {
        self.seen.saturating_sub(self.offset)
    }

    /// When it was last written to, as far as is known.
    pub(super) fn modified_ns(&self) -> i64 {
        self.file.metadata().map_or(self.modified_ns, |metadata| modified_ns(&metadata))
    }

    /// Whether its contents were cut off or replaced.
    pub(super) fn is_cut(&mut self) -> bool {
        self.size().is_ok_and(|size| size < self.offset)
            || self.has_same_head().is_ok_and(|same| !same)
    }

    /// Whether it begins so.
    pub(super) fn begins_with(&self, head: Head) -> io::Result<bool> {
        let mut first = [0; HEAD];
        Ok(head.matches(self.first(&mut first)?))
    }

    /// The size now.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether no name leads to the file.
    pub(super) fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Whether what comes next can't be read: a bad sector, a disk that was pulled out.
    pub(super) fn is_unreadable(&self) -> bool {
        fill(&self.file, &mut [0], self.offset).is_err()
    }

    /// From now on nothing can be read.
    #[cfg(test)]
    pub(super) fn break_down(&mut self) {
        use std::os::fd::AsRawFd;
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        self.file = OpenOptions::new().append(true).open(own).unwrap();
    }

    /// The descriptor, for a watch.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the sink lines out of at most one buffer, none of which ends beyond `goal`.
    pub(super) fn step(
        &mut self,
        buffer: &mut [u8],
        goal: u64,
        now: Instant,
        sink: &mut impl Sink,
    ) -> io::Result<Step> {
        let metadata = self.file.metadata()?;
        let size = metadata.len();
        if size < self.offset {
            return Ok(Step { cut: true, ..Step::default() });
        }
        let room = usize::try_from(goal.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let want = buffer.len().min(room);
        let buffer = buffer.get_mut(..want).unwrap_or_default();
        let got = fill(&self.file, buffer, self.offset)?;
        let data = buffer.get(..got).unwrap_or_default();
        let reached = self.offset + data.len() as u64;
        if data.is_empty() {
            // Written to, and as long as it was: cut off and grown again, perhaps.
            let modified_ns = modified_ns(&metadata);
            if modified_ns != self.modified_ns && size == self.offset && !self.has_same_head()? {
                return Ok(Step { cut: true, ..Step::default() });
            }
            self.modified_ns = modified_ns;
            return Ok(Step { end: true, ..Step::default() });
        }
        // After the read: if the beginning still is what it was, so is what was read.
        if !self.has_same_head()? {
            return Ok(Step { cut: true, ..Step::default() });
        }
        self.modified_ns = modified_ns(&metadata);
        if reached.max(size) > self.seen {
            self.seen = reached.max(size);
            self.grew = now;
        }
        let (consumed, full) = self.lines(data, sink);
        self.advance(data, consumed);
        let end = got < buffer.len() || reached >= goal;
        Ok(Step { consumed, end: end && !full, full, cut: false })
    }

    /// Gives the sink what stands after the last line break; the file is done. Not at its end, and
    /// nothing taken, if it has grown by more than that since it was read.
    pub(super) fn finish(&mut self, buffer: &mut [u8], sink: &mut impl Sink) -> io::Result<Step> {
        let got = fill(&self.file, buffer, self.offset)?;
        let is_more = got == buffer.len();
        let rest = buffer.get(..got).unwrap_or_default();
        if let Some(frame) = sink.format().frame(rest, false) {
            if is_more || matches!(frame, Frame::Record { .. }) {
                return Ok(Step::default());
            }
            let (consumed, full) = records(rest, true, sink);
            self.advance(rest, consumed);
            return Ok(Step { consumed, end: !full, full, cut: false });
        }
        if is_more || memchr::memchr(b'\n', rest).is_some() {
            return Ok(Step::default());
        }
        let full = !self.skipping && !rest.is_empty() && !sink.line(rest);
        let consumed = if full { 0 } else { rest.len() as u64 };
        self.advance(rest, consumed);
        Ok(Step { consumed, end: !full, full, cut: false })
    }

    fn advance(&mut self, data: &[u8], consumed: u64) {
        self.offset += consumed;
        let done = usize::try_from(consumed).ok().and_then(|consumed| data.get(..consumed));
        if let Some(done) = done.filter(|done| !done.is_empty()) {
            self.tail = Head::of_end(done);
        }
    }

    fn lines(&mut self, data: &[u8], sink: &mut impl Sink) -> (u64, bool) {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let format = sink.format();
        if format.frame(data, false).is_some() {
            return records(data, false, sink);
        }
        let mut rest = if self.skipping { data } else { format.start(data) };
        if self.offset == 0 {
            rest = rest.strip_prefix(BYTE_ORDER_MARK).unwrap_or(rest);
        }
        let done = |rest: &[u8]| (data.len() - rest.len()) as u64;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            if self.skipping {
                self.skipping = false;
            } else if !sink.line(line.strip_suffix(b"\r").unwrap_or(line)) {
                return (done(rest), true);
            }
            rest = format.start(after.get(1..).unwrap_or_default());
        }
        if self.skipping {
            return (data.len() as u64, false);
        }
        // One more byte may be the \r of a line that just fits.
        if rest.len() > sink.max_line() + 1 {
            if !sink.line(rest) {
                return (done(rest), true);
            }
            self.skipping = true;
            return (data.len() as u64, false);
        }
        (done(rest), false)
    }

    /// From the start again: what was there is gone.
    pub(super) fn restart(&mut self, now: Instant) {
        // Later than the copy was made that has what is gone.
        self.modified_ns = self.modified_ns();
        self.offset = 0;
        self.seen = 0;
        self.skipping = false;
        self.tail = Head::default();
        self.head = Head::default();
        // These contents may be cut off as well before they are read: what tells their copy is known now.
        self.learn(now);
    }

    /// Notes how the contents begin, as far as that is not known yet, and how much there is of them.
    pub(super) fn learn(&mut self, now: Instant) {
        if self.has_same_head().unwrap_or_default() {
            self.measure(now);
        }
    }

    fn has_same_head(&mut self) -> io::Result<bool> {
        let known = self.head;
        let mut first = [0; HEAD];
        let first = self.first(&mut first)?;
        if let Some(error) = no_log(first).filter(|_| known.is_empty()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
        }
        let same = known.matches(first) || is_hole(first, known);
        if same && first.len() >= known.len() {
            self.head = Head::of(first);
        }
        Ok(same)
    }

    fn first<'a>(&self, buffer: &'a mut [u8; HEAD]) -> io::Result<&'a [u8]> {
        let got = fill(&self.file, buffer, 0)?;
        Ok(buffer.get(..got).unwrap_or_default())
    }
}

/// Gives the sink records that are no lines: how many bytes are done with, and whether it is full.
/// `last`: nothing follows these bytes.
fn records(data: &[u8], last: bool, sink: &mut impl Sink) -> (u64, bool) {
    let format = sink.format();
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match format.frame(rest, last) {
            Some(Frame::Record { body, len }) => {
                if !sink.line(rest.get(body).unwrap_or_default()) {
                    return (done as u64, true);
                }
                done += len.max(1);
            }
            Some(Frame::Damaged { len }) => {
                sink.damaged(len as u64);
                done += len.max(1);
            }
            Some(Frame::Wait) | None => break,
        }
    }
    (done.min(data.len()) as u64, false)
}

/// A writer without O_APPEND goes on at its old offset after a truncation: zeros up to there, and
/// then what comes next. Reading goes on too.
fn is_hole(first: &[u8], known: Head) -> bool {
    !known.is_empty()
        && first.get(..known.len()).is_some_and(|start| start.iter().all(|&byte| byte == 0))
}

/// What contents that begin so are, if not a log.
fn no_log(first: &[u8]) -> Option<OpenError> {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh"];
    const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
    let is_any = |magic: &[&[u8]]| magic.iter().any(|magic| first.starts_with(magic));
    if is_any(&MAGIC) {
        return Some(OpenError::Compressed);
    }
    is_any(&UTF_16).then_some(OpenError::Utf16)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + got as u64) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A full buffer's worth may stand before a bad sector: take what came.
            Err(_) if got > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
