//! A log on the played disk beside a book of what was promised: what was appended, what is on the disk
//! for good, how far each reader is. It acts as the pipeline does: after a failure it opens the log
//! again before the next call. It knows the log by its public calls only; what a call or an option is
//! named stands here once, for all tests that use it.

use std::fmt;
use std::sync::LazyLock;

use super::power_cut::Dice;
use super::sim::{BLOCK, Files, Sim};
use super::{
    AppendError, Encoded, OnFull, Options, Payload, ReaderId, Record, SyncJob, Wal, WalError,
    segment,
};

/// Bytes of a segment with the options of [`options`].
pub(super) const SEGMENT: u64 = 8 << 10;

/// Bytes of the readers' cursor files.
const CURSORS: u64 = 2 * 1024;

/// The readers, by the index that the book has for them.
pub(super) const READERS: [&str; 2] = ["a", "b"];

/// A bound of so many segments and a bit.
pub(super) fn options(segments: u64, on_full: OnFull) -> Options {
    let max_bytes = segments * SEGMENT + 8_000 + Options::MAX_CURSORS * 1_024;
    Options { segment_bytes: SEGMENT, ..Options::new(max_bytes, on_full, 1) }
}

/// The most bytes of a payload that these options take for sure.
pub(super) fn largest(options: &Options) -> usize {
    options.max_bytes as usize / 4 - 64
}

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dice = Dice(1);
    (0..200_000).map(|_| dice.roll(256) as u8).collect()
});

/// A payload that says its number and whether it is its segment's first; the rest follows from those.
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) len: usize,
}

impl Numbered {
    const SMALLEST: usize = 9;

    fn bytes(&self, fresh: bool, out: &mut Vec<u8>) {
        out.push(u8::from(fresh));
        out.extend_from_slice(&self.number.to_le_bytes());
        let from = (self.number % 997) as usize;
        out.extend_from_slice(&PATTERN[from..from + self.len.max(Self::SMALLEST) - Self::SMALLEST]);
    }

    fn items(&self) -> u32 {
        (self.number % 5) as u32 + 1
    }

    fn kind(&self) -> u8 {
        (self.number % 3) as u8 + 1
    }
}

impl Payload for Numbered {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        self.bytes(fresh, out);
        Encoded { items: self.items(), time_ms: self.number as i64 }
    }
}

/// A record as it was appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) number: u64,
    pub(super) len: usize,
    pub(super) record: Record,
}

impl Written {
    /// Panics unless this was read.
    #[track_caller]
    pub(super) fn check(&self, record: &Record, payload: &[u8]) {
        assert_eq!(&self.record, record, "{self:?} was written there");
        let mut bytes = Vec::with_capacity(self.len);
        Numbered { number: self.number, len: self.len }.bytes(record.fresh, &mut bytes);
        assert!(bytes == payload, "the payload at {} is not what was written", record.position);
    }
}

/// What is known of a reader.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader {
    /// The cursor that is on the disk for good.
    pub(super) floor: u64,
    /// The cursor.
    pub(super) cursor: u64,
}

/// What is promised at one time, in positions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// All below is on the disk for good.
    pub(super) synced: u64,
    /// All below is gone.
    pub(super) oldest: u64,
    pub(super) readers: [Reader; 2],
}

/// What was appended and is promised.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// In the order of their positions.
    pub(super) records: Vec<Written>,
    pub(super) marks: Marks,
    next_number: u64,
    /// Number and length of appends that failed, since the start.
    failed: Vec<(u64, usize)>,
}

impl Book {
    /// The index of the first record at `position` or later.
    pub(super) fn index(&self, position: u64) -> usize {
        self.records.partition_point(|written| written.record.position < position)
    }

    /// Enters the last record that a start has found, if its append had failed. What a failed write has
    /// left goes when the log is opened again; until that is done, a power cut may leave it whole. It
    /// must not stand where something was promised.
    fn admit(&mut self, record: &Record, payload: &[u8], synced: u64) {
        let number = payload[1..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if let Some(&(number, len)) = self.failed.iter().find(|failed| Some(failed.0) == number) {
            assert!(record.position >= synced, "a failed append has replaced what was synced");
            let written = Written { number, len, record: *record };
            written.check(record, payload);
            self.records.truncate(self.index(record.position));
            self.records.push(written);
        }
        self.failed.clear();
    }
}

/// Says what was played if a check fails in its scope.
pub(super) struct Scene<T: fmt::Debug>(pub(super) T);

impl<T: fmt::Debug> Drop for Scene<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {:?}", self.0);
        }
    }
}

/// The log, its disk and its book.
pub(super) struct Trial {
    pub(super) disk: Sim,
    pub(super) options: Options,
    /// How many of [`READERS`] are configured.
    pub(super) configured: usize,
    pub(super) book: Book,
    wal: Option<Wal<Sim>>,
    /// A sync under way, and what came of it.
    job: Option<(SyncJob<Sim>, Option<std::io::Result<()>>)>,
    /// Where a log that is opened again must go on at the earliest.
    end: u64,
    /// Appends that dropped unread records.
    pub(super) evictions: usize,
}

impl Trial {
    /// A log in an empty directory.
    pub(super) fn new(options: Options) -> Trial {
        let mut trial = Trial::unopened(Files::new(), options, READERS.len());
        trial.reopen(READERS.len()).unwrap();
        trial
    }

    fn unopened(files: Files, options: Options, configured: usize) -> Trial {
        Trial {
            disk: Sim::new(files, options.max_bytes),
            options,
            configured,
            book: Book::default(),
            wal: None,
            job: None,
            end: 0,
            evictions: 0,
        }
    }

    /// Starts on what a power cut has left, and checks it: `before` was promised when the power went,
    /// `after` is what the call that was under way would have led to. With `watch` the disk keeps the
    /// moments of the recovery.
    pub(super) fn power_on(
        files: Files,
        options: Options,
        configured: usize,
        before: &Marks,
        after: &Book,
        watch: bool,
    ) -> Trial {
        let mut trial = Trial::unopened(files, options, configured);
        let found = trial.disk.bytes();
        if watch {
            trial.disk.watch();
        }
        trial.book = after.clone();
        trial.open().expect("no state of the disk stops the start");
        let wal = trial.wal.as_ref().unwrap();
        check_bytes(wal, &trial.disk);
        // What was over the bound is the judge's; that it stays so, and grows, is not.
        assert!(
            trial.disk.bytes() <= found.max(options.max_bytes),
            "over the bound after the start"
        );
        let oldest = first(wal);
        // Cursor files that the cut has left short or taken are made whole first.
        let found = found + CURSORS.max(Options::MAX_CURSORS * 1_024);
        let mut allowed = after.marks.oldest;
        if options.on_full == OnFull::DropOldest && found > options.max_bytes {
            allowed = allowed.max(oldest);
        }
        let mut admitted = None;
        if !after.failed.is_empty()
            && let Some((record, payload)) = trial.scan()
        {
            trial.book.admit(&record, &payload, before.synced);
            admitted = Some(trial.book.clone());
        }
        let after = admitted.as_ref().unwrap_or(after);
        let lists = trial.check_reads(before, after, allowed);
        let last = lists.iter().filter_map(|list| list.last()).max().copied();
        let end = match last {
            Some(last) => last + 1,
            None => trial.scan().map_or(0, |(last, _)| trial.book.index(last.next)),
        };
        for (list, cursor) in lists.iter().zip(trial.cursors()) {
            match list.last() {
                Some(found) => assert_eq!(Some(*found), last, "readers see different ends"),
                None => assert!(end == 0 || trial.book.records[end - 1].record.next <= cursor),
            }
        }
        trial.book.records.truncate(end);
        trial.book.marks.synced = trial.wal.as_ref().unwrap().synced();
        trial.book.marks.oldest = oldest;
        for (index, cursor) in trial.cursors().into_iter().enumerate() {
            let clamped = cursor > after.marks.readers[index].cursor;
            let floor = if clamped { before.readers[index].floor } else { cursor };
            trial.book.marks.readers[index] = Reader { floor, cursor };
        }
        trial
    }

    /// The log, opened again if it has failed.
    pub(super) fn wal(&mut self) -> Option<&mut Wal<Sim>> {
        if self.wal.as_ref().is_none_or(Wal::is_broken) {
            let _ = self.reopen(self.configured);
        }
        self.wal.as_mut()
    }

    fn open(&mut self) -> Result<(), WalError> {
        let mut wal = Wal::open(self.disk.clone(), self.options, &READERS[..self.configured])?;
        if let Some(broken) = &self.wal {
            wal.resume(broken)?;
            for (index, reader) in self.book.marks.readers[..self.configured].iter_mut().enumerate()
            {
                let id = ReaderId(index);
                // The cursors of a broken log are taken over for good.
                if matches!(wal.share_cursor(id), Ok(Some(_))) {
                    reader.floor = reader.floor.max(broken.cursor(id).min(wal.cursor(id)));
                }
            }
        }
        wal.begin_at(self.end);
        self.wal = Some(wal);
        Ok(())
    }

    /// Closes the log and opens it with so many readers. Nothing is lost by that.
    pub(super) fn reopen(&mut self, configured: usize) -> Result<(), WalError> {
        if self.wal.as_ref().is_some_and(Wal::is_broken) && configured != self.configured {
            // Readers change with a restart, and what a broken log has saved would go with it.
            self.open()?;
        }
        for gone in configured..self.configured {
            // Its cursor may go, and it begins anywhere before where it was when it comes back.
            self.book.marks.readers[gone].floor = 0;
        }
        self.configured = configured;
        self.end = self.end.max(self.wal.as_ref().map_or(0, Wal::end));
        // One that has ended well is gone when its successor can't be opened; a broken one stays.
        let ended = self.wal.take_if(|wal| !wal.is_broken());
        if let Err(error) = self.open() {
            if ended.is_some() {
                let readers = &READERS[..configured];
                self.wal = Wal::open_to_read(self.disk.clone(), self.options, readers).ok();
                self.update();
            }
            return Err(error);
        }
        for (index, cursor) in self.cursors().into_iter().enumerate() {
            let first = self.wal.as_ref().map_or(0, first);
            let known = self.book.marks.readers[index].cursor.max(first);
            let skipped = self.book.index(known)..self.book.index(cursor);
            assert!(skipped.is_empty(), "{} skips {skipped:?}", READERS[index]);
            self.book.marks.readers[index].cursor = cursor;
        }
        self.update();
        Ok(())
    }

    /// Appends the next record. None if it was not appended.
    pub(super) fn append(&mut self, len: usize) -> Option<Result<Record, AppendError>> {
        let number = self.book.next_number;
        self.book.next_number += 1;
        let mut payload = Numbered { number, len: len.max(Numbered::SMALLEST) };
        let len = payload.len;
        let kind = payload.kind();
        self.wal()?;
        let (sizes, cursor) = (self.disk.files(), self.min_cursor());
        let wal = self.wal()?;
        let (first_before, end, dropped) = (first(wal), wal.end(), wal.stats().evicted_items);
        let result = wal.append(kind, &mut payload);
        let (first_after, dropped) = (first(wal), wal.stats().evicted_items - dropped);
        if let Ok(record) = result {
            assert!(record.position >= end && record.next > record.position, "{record:?}");
            assert_eq!((record.kind, record.items), (kind, payload.items()));
            let past = self.cursors().into_iter().all(|cursor| cursor <= record.position);
            assert!(past, "{record:?} comes before what a reader has seen");
        }
        if first_after > first_before {
            let gone = self.book.index(first_before)..self.book.index(first_after);
            let unread = unread(&self.book.records[gone], cursor);
            assert_eq!(dropped, unread, "dropped items are miscounted");
            if unread > 0 {
                self.evictions += 1;
                self.check_need(&sizes, result.is_ok());
            }
        } else {
            assert_eq!(dropped, 0);
        }
        match result {
            Ok(record) => self.book.records.push(Written { number, len, record }),
            Err(AppendError::Failed(_)) => self.book.failed.push((number, len)),
            Err(_) => {}
        }
        self.update();
        Some(result)
    }

    /// What was dropped of these files was needed as room.
    fn check_need(&self, files: &Files, appended: bool) {
        assert_eq!(self.options.on_full, OnFull::DropOldest, "a refusing log has dropped");
        let left = self.disk.files();
        let gone = |name: &String| name.ends_with(".wal") && !left.contains_key(name);
        // Foreign files may have been set aside meanwhile, a segment's copy among them.
        let is_segment = |name: &str, content: &[u8]| {
            let base = segment::parse_name(name);
            let (header, _) = content.split_first_chunk().unzip();
            base.zip(header).is_some_and(|(base, header)| segment::check(header, base, 1).is_ok())
        };
        let last = files.iter().rfind(|(name, content)| gone(name) && is_segment(name, content));
        let last = last.unwrap();
        let bytes = self.wal.as_ref().map_or(0, Wal::bytes);
        // Room for cursor files is kept, files grow by blocks, and the one that is closed is cut after.
        let kept = Options::MAX_CURSORS * 1_024 + 2 * BLOCK;
        let needed = bytes + kept + last.1.len() as u64 > self.options.max_bytes;
        assert!(
            needed || !appended,
            "{} ({} bytes) was dropped without need, {bytes} bytes are left",
            last.0,
            last.1.len()
        );
    }

    /// Syncs everything appended.
    pub(super) fn sync(&mut self) -> Result<(), WalError> {
        self.start_sync();
        self.run_sync();
        self.end_sync()
    }

    /// Begins a sync unless one is under way, and runs it.
    pub(super) fn start_sync(&mut self) {
        if self.job.is_none()
            && let Some(wal) = self.wal()
        {
            let job = wal.start_sync().unwrap();
            self.job = job.map(|job| (job, None));
        }
    }

    /// Runs the sync that has begun, as its thread does.
    pub(super) fn run_sync(&mut self) {
        if let Some((job, result @ None)) = &mut self.job {
            *result = Some(job.run());
        }
    }

    /// Whether nothing is known that could stop the next call.
    pub(super) fn is_healthy(&self) -> bool {
        self.disk.fault().is_none() && !matches!(self.job, Some((_, Some(Err(_)))))
    }

    /// Ends the sync that is under way; one that did not run comes to nothing.
    pub(super) fn end_sync(&mut self) -> Result<(), WalError> {
        let (Some((job, Some(result))), Some(wal)) = (self.job.take(), self.wal.as_mut()) else {
            return Ok(());
        };
        let result = wal.end_sync(&job, result);
        self.update();
        result
    }

    /// Acknowledges for a reader up to the record of this index (its end); with `sync` for good.
    pub(super) fn acknowledge(&mut self, reader: usize, index: usize, sync: bool) {
        self.wal();
        let Some(position) = self.book.records.get(index).map(|written| written.record.next) else {
            return;
        };
        if reader >= self.configured || position <= self.book.marks.readers[reader].cursor {
            return;
        }
        let dropped = self.dropped_items();
        let Some(wal) = &mut self.wal else { return };
        let id = wal.reader(READERS[reader]).unwrap();
        let done = wal.acknowledge(id, position, sync);
        // A segment that goes takes the cursor along to the next one.
        let cursor = wal.cursor(id);
        assert!(cursor >= position && self.book.index(cursor) == index + 1, "{cursor}");
        self.book.marks.readers[reader].cursor = position;
        // The cursors of a broken log, and those whose file can't be opened, move in memory alone: what
        // they have passed may come again after a restart.
        let has_file = matches!(wal.share_cursor(id), Ok(Some(_)));
        if done.is_ok() && sync && has_file {
            self.book.marks.readers[reader].floor = position;
        }
        assert_eq!(self.dropped_items(), dropped, "an acknowledgement has dropped");
        self.update();
    }

    fn dropped_items(&self) -> u64 {
        self.wal.as_ref().map_or(0, |wal| wal.stats().evicted_items)
    }

    /// After every call: bytes are counted right, and what the log promises goes into the book.
    fn update(&mut self) {
        let Some(wal) = &self.wal else { return };
        let marks = &mut self.book.marks;
        marks.synced = marks.synced.max(wal.synced());
        marks.oldest = marks.oldest.max(first(wal));
        for (index, name) in READERS[..self.configured].iter().enumerate() {
            marks.readers[index].cursor = wal.cursor(wal.reader(name).unwrap());
        }
        let newest = self.book.records.iter().rfind(|w| w.record.next <= self.book.marks.synced);
        let stays = newest.is_none_or(|w| w.record.segment >= first(wal));
        assert!(stays, "the newest segment with a synced record is gone");
        if !wal.is_broken() {
            check_bytes(wal, &self.disk);
        }
    }

    /// Cursors of the configured readers.
    pub(super) fn cursors(&self) -> Vec<u64> {
        let Some(wal) = &self.wal else { return Vec::new() };
        let cursor = |name: &&str| wal.cursor(wal.reader(name).unwrap());
        READERS[..self.configured].iter().map(cursor).collect()
    }

    fn min_cursor(&self) -> u64 {
        self.cursors().into_iter().min().unwrap_or(0)
    }

    /// Reads from a reader's cursor at most so many records; their indices in the book.
    pub(super) fn read(&mut self, reader: usize, most: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let (mut at, mut payload) = (self.cursors()[reader], Vec::new());
        let Some(wal) = &mut self.wal else { return found };
        let id = wal.reader(READERS[reader]).unwrap();
        while found.len() < most
            && let Some(record) = wal.read(id, at, &mut payload).unwrap()
        {
            let index = self.book.index(record.position);
            let written = self.book.records.get(index);
            written.unwrap_or_else(|| panic!("nobody wrote {record:?}")).check(&record, &payload);
            assert!(record.position >= at);
            at = record.next;
            found.push(index);
        }
        found
    }

    /// The last record that can be read at all.
    fn scan(&mut self) -> Option<(Record, Vec<u8>)> {
        let (mut at, mut payload, mut last) = (0, Vec::new(), None);
        while let Some(record) = self.wal.as_mut()?.scan(at, &mut payload).unwrap() {
            at = record.next;
            last = Some((record, payload.clone()));
        }
        last
    }

    /// Reads all for each reader and checks that nothing promised is missing, nothing is out of order,
    /// and nothing returns. What lies below `oldest` may be missing.
    fn check_reads(&mut self, before: &Marks, after: &Book, oldest: u64) -> Vec<Vec<usize>> {
        let cursors = self.cursors();
        let mut lists = Vec::new();
        for (index, name) in READERS[..self.configured].iter().enumerate() {
            let cursor = after.marks.readers[index].cursor;
            // A segment that goes takes a cursor at its end along to the next one.
            let skipped = after.index(cursor.max(oldest))..after.index(cursors[index]);
            assert!(skipped.is_empty(), "{name} begins after its cursor: {skipped:?}");
            let list = self.read(index, usize::MAX);
            assert!(list.windows(2).all(|w| w[0] + 1 == w[1]), "{name} reads a gap: {list:?}");
            let from = after.index(oldest.max(cursor));
            let to = after.records.partition_point(|w| w.record.next <= before.synced);
            let reached = list.last().map_or(from, |last| last + 1);
            assert!(to <= from || reached >= to, "{name} has lost {reached}..{to}");
            if let Some(&first) = list.first() {
                assert!(first <= from, "{name} begins at {first}, not at {from}");
                let floor = before.readers[index].floor;
                let returned = after.records[first].record.next <= floor;
                assert!(!returned, "{name} sees {first} again, it was acknowledged to {floor}");
            }
            lists.push(list);
        }
        lists
    }

    /// As after a power cut, of a log that is open: every record must be there.
    pub(super) fn check(&mut self) {
        if self.wal().is_none() {
            return;
        }
        let everything = Marks { synced: u64::MAX, ..self.book.marks };
        let book = self.book.clone();
        self.check_reads(&everything, &book, book.marks.oldest);
    }
}

/// Items of the records from `cursor` on.
fn unread(records: &[Written], cursor: u64) -> u64 {
    let unread = records.iter().filter(|written| written.record.position >= cursor);
    unread.map(|written| u64::from(written.record.items)).sum()
}

/// A cursor file that a power cut has left short counts as a whole one, which it soon is.
fn check_bytes(wal: &Wal<Sim>, disk: &Sim) {
    let (counted, found) = (wal.bytes(), disk.bytes());
    let short = counted.saturating_sub(found);
    assert!(counted >= found && short <= CURSORS, "{found} bytes are counted as {counted}");
}

fn first(wal: &Wal<Sim>) -> u64 {
    wal.segments().last().unwrap_or(wal.end())
}
