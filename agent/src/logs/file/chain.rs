//! A chain: the files of one path, oldest first, and the stream that their lines make. Reading a
//! chain means finishing what the older file has before the newer one is touched. It must not know
//! how files are found.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::follow::{Follow, Place, Sink, Step};
use super::format::{Entry, Format, PLAIN, Stream};
use super::position;
use super::source::Section;
use super::{Counters, Limits};
use crate::logs::SOURCE;
use crate::logs::text::Converter;
use crate::model::{Block, Labels, StreamId};

/// A clock that is behind the last entry by more was set back: the entry gets its time all the same.
const SET_BACK_NS: i64 = 10_000_000_000;

/// A record's time that is behind the last entry's by no more is the same time once more.
const REPEATED_NS: i64 = 1_000;

/// The metadata of a line that is not in its file's format; its value is the format.
const MALFORMED: &str = "malformed";
/// What it takes of a block, about.
const MALFORMED_COST: usize = 16;

/// When a position is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Save {
    /// It has not changed.
    No,
    /// A file was found: with room to spare.
    Later,
    /// With what was read.
    Now,
}

/// The files of one path.
pub(super) struct Chain {
    /// The position's key.
    pub(super) key: String,
    pub(super) labels: Labels,
    pub(super) max_line: usize,
    format: &'static dyn Format,
    /// Files stay although nothing leads to them, as long as nothing else is at the path.
    pub(super) pinned: bool,
    /// The path is given up: files are finished at their ends, wherever they are.
    pub(super) retired: bool,
    /// It has been said that something is malformed.
    told: bool,
    /// Only the last may be the one that is at the path.
    pub(super) files: VecDeque<Follow>,
    last_ns: [i64; Stream::COUNT],
    pub(super) save: Save,
    pub(super) queued: bool,
}

impl Chain {
    pub(super) fn new(prefix: &str, path: &str, section: &Section) -> Chain {
        let mut labels = section.labels.clone();
        if section.named {
            labels.set("filename", path);
            labels.set(SOURCE, "file");
        }
        Chain {
            key: format!("{prefix}{path}"),
            labels,
            max_line: section.max_line.max(16),
            format: section.format,
            pinned: section.pinned,
            retired: false,
            told: false,
            files: VecDeque::new(),
            last_ns: [i64::MIN; Stream::COUNT],
            save: Save::No,
            queued: false,
        }
    }

    /// Lines are read as a section says from now on.
    pub(super) fn apply(&mut self, section: &Section) {
        let with = Chain::new("", "", section);
        (self.labels, self.max_line, self.format) = (with.labels, with.max_line, with.format);
        (self.pinned, self.retired) = (with.pinned, false);
    }

    /// Asks for the position to be written at this time or earlier.
    pub(super) fn save(&mut self, when: Save) {
        self.save = self.save.max(when);
    }

    /// Writes the position.
    pub(super) fn write_position(&mut self, block: &mut Block, buffer: &mut Vec<u8>) {
        if self.files.is_empty() {
            buffer.clear();
        } else {
            position::encode(self.files.iter().map(Follow::record), buffer);
        }
        block.set_position(&self.key, buffer);
        self.save = Save::No;
    }

    /// When a file is to be finished, unless it grows.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        self.files.iter().filter_map(|file| self.due(file, limits)).min()
    }

    fn due(&self, file: &Follow, limits: &Limits) -> Option<Instant> {
        match file.place {
            _ if self.retired => Some(file.grew),
            Place::Rotated { replaced: false, .. } if self.pinned => None,
            _ => due(file, limits),
        }
    }

    /// Reads on by at most one buffer a file, each file only after the one before it has no more.
    pub(super) fn turn(&mut self, pen: &mut Pen<'_>, now: Instant) -> std::io::Result<Step> {
        let Chain { files, labels, max_line, format, last_ns, .. } = self;
        let Pen { block, limit, counters, converter, scratch, buffer, now_ns } = pen;
        let mut sink = Writer {
            block,
            limit: *limit,
            counters,
            converter,
            scratch,
            labels,
            max_line: *max_line,
            format: *format,
            streams: [None; Stream::COUNT],
            now_ns: *now_ns,
            last_ns,
            malformed: 0,
        };
        let mut total = Step { end: true, ..Step::default() };
        let result = read_on(files, buffer, now, &mut sink, &mut total, &mut self.save);
        sink.counters.bytes += total.consumed;
        let malformed = sink.malformed;
        self.tell(malformed);
        result.map(|()| total)
    }

    /// Takes out a file that is due, or one too many, and has been read to its end, with its last
    /// line.
    pub(super) fn finish(
        &mut self,
        pen: &mut Pen<'_>,
        now: Instant,
        limits: &Limits,
    ) -> std::io::Result<Finish> {
        // Rotated so fast that quiet never comes: the oldest have had their time.
        let is_crowded = self.files.len() > position::MAX_RECORDS / 2;
        let is_due = |file: &Follow| {
            self.due(file, limits).is_some_and(|due| due <= now)
                || (is_crowded && file.place != Place::Current)
        };
        let Some(index) = self.files.iter().position(is_due) else {
            return Ok(Finish::None);
        };
        let Chain { files, labels, max_line, format, last_ns, .. } = self;
        let Pen { block, limit, counters, converter, scratch, buffer, now_ns } = pen;
        let mut sink = Writer {
            block,
            limit: *limit,
            counters,
            converter,
            scratch,
            labels,
            max_line: *max_line,
            format: *format,
            streams: [None; Stream::COUNT],
            now_ns: *now_ns,
            last_ns,
            malformed: 0,
        };
        let Some(file) = files.get_mut(index) else { return Ok(Finish::None) };
        let step = file.finish(buffer, &mut sink)?;
        if step.full {
            return Ok(Finish::Full);
        }
        if !step.end {
            file.grew = now;
            return Ok(Finish::Grown);
        }
        sink.counters.bytes += step.consumed;
        let malformed = sink.malformed;
        let file = files.remove(index);
        self.save = Save::Now;
        self.tell(malformed);
        Ok(file.map_or(Finish::None, |file| Finish::Done(Box::new(file))))
    }

    fn tell(&mut self, malformed: u64) {
        if malformed > 0 && !std::mem::replace(&mut self.told, true) {
            log::warn!(
                "{}: not all of it is in the format {:?}: such lines are kept as they are, with \
                 the metadata malformed; this is told once, mote_log_source_total counts",
                self.key,
                self.format.name(),
            );
        }
    }
}

/// A turn: a buffer of each file, but none of a newer one while an older one has more. `total` is what
/// was done, also before an error.
fn read_on(
    files: &mut VecDeque<Follow>,
    buffer: &mut [u8],
    now: Instant,
    sink: &mut impl Sink,
    total: &mut Step,
    save: &mut Save,
) -> std::io::Result<()> {
    // What comes to a newer file from here on may be later than what comes to an older one that has
    // just been read to its end.
    let mut goals: [u64; position::MAX_RECORDS] = [u64::MAX; position::MAX_RECORDS];
    for (file, goal) in files.iter().zip(&mut goals).skip(1).rev() {
        *goal = file.size()?;
    }
    for (file, goal) in files.iter_mut().zip(goals) {
        let offset = file.record().offset;
        let step = file.step(buffer, goal, now, sink);
        if step.is_err() || file.record().offset != offset {
            *save = Save::Now;
        }
        let step = step?;
        total.consumed += step.consumed;
        total.full = step.full;
        total.end = step.end;
        if step.full || !step.end {
            break;
        }
    }
    // A position without its file's lines would be a lie only the other way round.
    if total.consumed > 0 {
        *save = Save::Now;
    }
    Ok(())
}

/// What came of finishing.
pub(super) enum Finish {
    /// No file is due.
    None,
    /// There was no room for the file's last line.
    Full,
    /// More came to the file since it was read to its end.
    Grown,
    Done(Box<Follow>),
}

fn due(file: &Follow, limits: &Limits) -> Option<Instant> {
    match file.place {
        Place::Current => None,
        Place::Rotated { since, replaced } => {
            let wait = if replaced { limits.quiet } else { limits.orphaned };
            Some(file.grew.max(since) + wait)
        }
    }
}

/// What all chains write with.
pub(super) struct Pen<'a> {
    pub(super) block: &'a mut Block,
    pub(super) limit: usize,
    pub(super) counters: &'a mut Counters,
    pub(super) converter: &'a mut Converter,
    /// What formats unescape into.
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) buffer: &'a mut [u8],
    pub(super) now_ns: i64,
}

struct Writer<'a> {
    block: &'a mut Block,
    limit: usize,
    counters: &'a mut Counters,
    converter: &'a mut Converter,
    scratch: &'a mut Vec<u8>,
    labels: &'a Labels,
    max_line: usize,
    format: &'static dyn Format,
    streams: [Option<StreamId>; Stream::COUNT],
    now_ns: i64,
    last_ns: &'a mut [i64; Stream::COUNT],
    malformed: u64,
}

impl Writer<'_> {
    /// Whether there is no room for so much more. A block that is empty takes any line, or a small
    /// limit would stop everything.
    fn is_full(&self, bytes: usize) -> bool {
        let have = self.block.size();
        have > 0 && have + bytes > self.limit
    }

    fn stream(&mut self, stream: Stream) -> Option<StreamId> {
        let at = self.streams.get_mut(stream as usize)?;
        if at.is_none() {
            *at = match stream.label() {
                None => self.block.stream(self.labels),
                Some(value) => {
                    let mut labels = self.labels.clone();
                    labels.set(Stream::LABEL, value);
                    self.block.stream(&labels)
                }
            };
        }
        *at
    }

    /// A time of reading rises; the time of a record is taken as it is, but for the same one again:
    /// Loki drops a line that repeats another's text and time.
    fn time(&mut self, stream: Stream, record_ns: Option<i64>) -> i64 {
        let Some(last) = self.last_ns.get_mut(stream as usize) else { return self.now_ns };
        let (time, slack) = match record_ns {
            Some(time) => (time, REPEATED_NS),
            None => (self.now_ns, SET_BACK_NS),
        };
        let is_new = time > *last || last.saturating_sub(time) > slack;
        *last = if is_new { time } else { last.saturating_add(1) };
        *last
    }

    /// Adds what cannot be read as a record, as it is. False: no room in the block for its stream.
    fn raw(&mut self, record: &[u8]) -> bool {
        let Some(stream) = self.stream(Stream::None) else { return false };
        let time = self.time(Stream::None, None);
        let text = self.converter.text(record, self.max_line);
        self.block.push_with(stream, time, text.text, [(MALFORMED, self.format.name())]);
        self.counters.lines += 1;
        self.counters.truncated_lines += u64::from(text.truncated);
        self.counters.invalid_utf8 += u64::from(text.replaced);
        true
    }

    fn malformed(&mut self, record: &[u8], good: Option<usize>) -> bool {
        // Both parts or none.
        let bytes = record.len().min(2 * self.max_line) + 2 * (Block::ENTRY_COST + MALFORMED_COST);
        if self.is_full(bytes) {
            return false;
        }
        let (bad, rest) = record.split_at_checked(good.unwrap_or(record.len())).unwrap_or_default();
        if bad.iter().any(|&byte| byte != 0) && !self.raw(bad) {
            return false;
        }
        self.malformed += 1;
        self.counters.malformed += 1;
        if !rest.is_empty() {
            let mut scratch = std::mem::take(self.scratch);
            match self.format.decode(rest, self.max_line, &mut scratch) {
                Some(entry) => self.entry(&entry, true),
                None => self.raw(rest),
            };
            *self.scratch = scratch;
        }
        true
    }

    fn entry(&mut self, entry: &Entry<'_>, forced: bool) -> bool {
        let bytes = entry.text.len().min(self.max_line) + Block::ENTRY_COST;
        if !forced && self.is_full(bytes) {
            return false;
        }
        let Some(stream) = self.stream(entry.stream) else { return false };
        let time = self.time(entry.stream, entry.time_ns);
        let text = self.converter.text(entry.text, self.max_line);
        self.block.push(stream, time, text.text);
        if entry.partial {
            self.block.set_partial();
        }
        self.counters.lines += 1;
        self.counters.truncated_lines += u64::from(text.truncated || entry.cut);
        self.counters.invalid_utf8 += u64::from(text.replaced || entry.replaced);
        true
    }
}

impl Sink for Writer<'_> {
    fn line(&mut self, record: &[u8]) -> bool {
        let mut scratch = std::mem::take(self.scratch);
        let taken = match self.format.decode(record, self.max_line, &mut scratch) {
            Some(entry) => Some(self.entry(&entry, false)),
            None => None,
        };
        *self.scratch = scratch;
        taken.unwrap_or_else(|| self.malformed(record, self.format.again(record)))
    }

    fn max_line(&self) -> usize {
        self.format.max_record(self.max_line)
    }

    fn format(&self) -> &'static dyn Format {
        self.format
    }

    fn damaged(&mut self, bytes: u64) {
        self.malformed += 1;
        self.counters.malformed += 1;
        self.counters.lost_bytes += bytes;
    }

    fn truncated(&mut self, lost: u64) {
        self.counters.truncations += 1;
        self.counters.lost_bytes += lost;
    }
}

/// For files that are opened where no line can be written yet.
impl Sink for Counters {
    fn line(&mut self, _: &[u8]) -> bool {
        false
    }

    fn max_line(&self) -> usize {
        0
    }

    fn format(&self) -> &'static dyn Format {
        PLAIN
    }

    fn damaged(&mut self, _: u64) {}

    fn truncated(&mut self, lost: u64) {
        self.truncations += 1;
        self.lost_bytes += lost;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::path::Path;

    use super::*;

    const MAX_LINE: usize = 100;

    /// Takes lines, and lets the writer go on after the one that is named.
    struct Race<F: FnMut()> {
        after: &'static str,
        write: F,
        lines: Vec<String>,
    }

    impl<F: FnMut()> Sink for Race<F> {
        fn line(&mut self, line: &[u8]) -> bool {
            self.lines.push(String::from_utf8(line.to_vec()).unwrap());
            if line == self.after.as_bytes() {
                (self.write)();
            }
            true
        }

        fn max_line(&self) -> usize {
            MAX_LINE
        }

        fn format(&self) -> &'static dyn Format {
            PLAIN
        }

        fn damaged(&mut self, _: u64) {
            panic!("nothing is damaged here");
        }

        fn truncated(&mut self, _: u64) {
            panic!("nothing is truncated here");
        }
    }

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn open(path: &Path) -> Follow {
        File::create(path).unwrap();
        Follow::open(path, Instant::now()).unwrap()
    }

    #[test]
    fn what_comes_to_a_newer_file_while_an_older_one_is_read_waits_for_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["old", "middle", "new"].map(|name| dir.path().join(name));
        let [old, middle, new] = &paths;
        let mut files: VecDeque<Follow> = paths.iter().map(|path| open(path)).collect();
        append(old, "1\n");
        append(new, "4\n");
        // The older files have been read to their ends, and the writer changes from one to the other.
        let write = || {
            append(old, "2\n");
            append(middle, "3\n");
            append(new, "5\n6\n");
        };
        let mut race = Race { after: "1", write, lines: Vec::new() };
        let mut buffer = [0; 4096];
        let mut turn = |race: &mut _, files: &mut _| {
            let mut total = Step::default();
            let mut save = Save::No;
            read_on(files, &mut buffer, Instant::now(), race, &mut total, &mut save).unwrap();
            assert_eq!(save == Save::Now, total.consumed > 0);
            total
        };
        // What was in the newest before is older than what came to the others after: one writer wrote
        // 4 before it went back, or there are two.
        let step = turn(&mut race, &mut files);
        assert_eq!(race.lines, ["1", "4"]);
        assert_eq!(step, Step { consumed: 4, end: true, full: false });
        turn(&mut race, &mut files);
        assert_eq!(race.lines, ["1", "4", "2", "3", "5", "6"]);
        assert_eq!(turn(&mut race, &mut files).consumed, 0);
    }

    #[test]
    fn a_newer_file_waits_while_an_older_one_has_more_than_a_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["old", "new"].map(|name| dir.path().join(name));
        let mut files: VecDeque<Follow> = paths.iter().map(|path| open(path)).collect();
        let line = "x".repeat(MAX_LINE / 2);
        append(&paths[0], &format!("{line}\n").repeat(5));
        append(&paths[1], "newer\n");
        let mut sink = Race { after: "", write: || {}, lines: Vec::new() };
        let mut buffer = [0; MAX_LINE + 2];
        let now = Instant::now();
        for _ in 0..10 {
            let (mut total, mut save) = (Step::default(), Save::No);
            read_on(&mut files, &mut buffer, now, &mut sink, &mut total, &mut save).unwrap();
        }
        assert_eq!(sink.lines, [&line, &line, &line, &line, &line, "newer"]);
    }

    #[test]
    fn what_comes_between_the_last_read_and_the_end_of_a_file_is_no_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old");
        let mut file = open(&path);
        append(&path, "1\n");
        let mut buffer = [0; MAX_LINE + 2];
        let mut sink = Race { after: "", write: || {}, lines: Vec::new() };
        let now = Instant::now();
        for late in ["2\n3", "4\n", &"5".repeat(3 * MAX_LINE)] {
            while file.step(&mut buffer, u64::MAX, now, &mut sink).unwrap().consumed > 0 {}
            append(&path, late);
            let lines = sink.lines.len();
            let step = file.finish(&mut buffer, &mut sink).unwrap();
            assert_eq!(step, Step { consumed: 0, end: false, full: false }, "{late:?}");
            assert_eq!(sink.lines.len(), lines, "{late:?}");
        }
        while file.step(&mut buffer, u64::MAX, now, &mut sink).unwrap().consumed > 0 {}
        assert!(file.finish(&mut buffer, &mut sink).unwrap().end);
        let longest = &"5".repeat(MAX_LINE);
        assert_eq!(sink.lines[..3], ["1", "2", "34"]);
        assert!(sink.lines[3].starts_with(longest), "{}", sink.lines[3]);
        assert_eq!(sink.lines.len(), 4);
    }

    #[test]
    fn a_file_that_grew_just_before_its_end_is_read_on_and_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old");
        let mut chain =
            Chain::new("file:", "/old", &Section { max_line: MAX_LINE, ..Section::bare() });
        let mut file = open(&path);
        file.place = Place::Rotated { since: Instant::now(), replaced: true };
        chain.files.push_back(file);
        let (mut block, mut counters) = (Block::new(), Counters::default());
        let mut pen = Pen {
            block: &mut block,
            limit: 1 << 20,
            counters: &mut counters,
            converter: &mut Converter::default(),
            scratch: &mut Vec::new(),
            buffer: &mut [0; 4096],
            now_ns: 0,
        };
        let limits = Limits::default();
        let late = Instant::now() + 2 * limits.quiet;
        assert_eq!(chain.turn(&mut pen, late).unwrap().consumed, 0);
        append(&path, "1\n2\n");
        assert!(matches!(chain.finish(&mut pen, late, &limits).unwrap(), Finish::Grown));
        // What it does not see by then is no reason to try again without end.
        assert!(matches!(chain.finish(&mut pen, late, &limits).unwrap(), Finish::None));
        assert_eq!(chain.turn(&mut pen, late).unwrap().consumed, 4);
        let late = late + limits.quiet;
        assert!(matches!(chain.finish(&mut pen, late, &limits).unwrap(), Finish::Done(_)));
        assert_eq!(block.entries().map(|entry| entry.line).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((counters.lines, counters.bytes), (2, 4));
    }
}
