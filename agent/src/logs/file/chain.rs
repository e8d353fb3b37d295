//! A chain: the files of one path, oldest first, and the stream that their lines make. Reading a
//! chain means finishing what the older file has before the newer one is touched. It must not know
//! how files are found.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::follow::{Follow, Place, Sink, Step};
use super::position;
use super::{Counters, KEY_PREFIX, Limits};
use crate::logs::SOURCE;
use crate::logs::text::Converter;
use crate::model::{Block, Labels, StreamId};

/// A clock that is behind the last entry by more was set back: the entry gets its time all the same.
const SET_BACK_NS: i64 = 10_000_000_000;

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
    /// Only the last may be the one that is at the path.
    pub(super) files: VecDeque<Follow>,
    last_ns: i64,
    pub(super) save: Save,
    pub(super) queued: bool,
}

impl Chain {
    pub(super) fn new(path: &str, labels: &Labels, max_line: usize) -> Chain {
        let mut labels = labels.clone();
        labels.set("filename", path);
        labels.set(SOURCE, "file");
        Chain {
            key: format!("{KEY_PREFIX}{path}"),
            labels,
            max_line: max_line.max(16),
            files: VecDeque::new(),
            last_ns: i64::MIN,
            save: Save::No,
            queued: false,
        }
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
        self.files.iter().filter_map(|file| due(file, limits)).min()
    }

    /// Reads on by at most one buffer a file, each file only after the one before it has no more.
    pub(super) fn turn(&mut self, pen: &mut Pen<'_>, now: Instant) -> std::io::Result<Step> {
        let Chain { files, labels, max_line, last_ns, .. } = self;
        let Pen { block, limit, counters, converter, buffer, now_ns } = pen;
        let mut sink = Writer {
            block,
            limit: *limit,
            counters,
            converter,
            labels,
            max_line: *max_line,
            stream: None,
            now_ns: *now_ns,
            last_ns,
        };
        let mut total = Step { end: true, ..Step::default() };
        let result = read_on(files, buffer, now, &mut sink, &mut total, &mut self.save);
        sink.counters.bytes += total.consumed;
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
        let Chain { files, labels, max_line, last_ns, .. } = self;
        // Rotated so fast that quiet never comes: the oldest have had their time.
        let is_crowded = files.len() > position::MAX_RECORDS / 2;
        let is_due = |file: &Follow| {
            due(file, limits).is_some_and(|due| due <= now)
                || (is_crowded && file.place != Place::Current)
        };
        let Some(index) = files.iter().position(is_due) else {
            return Ok(Finish::None);
        };
        let Pen { block, limit, counters, converter, buffer, now_ns } = pen;
        let mut sink = Writer {
            block,
            limit: *limit,
            counters,
            converter,
            labels,
            max_line: *max_line,
            stream: None,
            now_ns: *now_ns,
            last_ns,
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
        self.save = Save::Now;
        Ok(files.remove(index).map_or(Finish::None, |file| Finish::Done(Box::new(file))))
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
    pub(super) buffer: &'a mut [u8],
    pub(super) now_ns: i64,
}

struct Writer<'a> {
    block: &'a mut Block,
    limit: usize,
    counters: &'a mut Counters,
    converter: &'a mut Converter,
    labels: &'a Labels,
    max_line: usize,
    stream: Option<StreamId>,
    now_ns: i64,
    last_ns: &'a mut i64,
}

impl Sink for Writer<'_> {
    fn line(&mut self, line: &[u8]) -> bool {
        let text = self.converter.text(line, self.max_line);
        // A block that is empty takes any line, or a small limit would stop everything.
        let size = self.block.size();
        if size > 0 && size + text.text.len() + Block::ENTRY_COST > self.limit {
            return false;
        }
        let Some(stream) = self.stream.or_else(|| self.block.stream(self.labels)) else {
            return false;
        };
        self.stream = Some(stream);
        let last = *self.last_ns;
        let now = self.now_ns;
        let time =
            if now > last || last.saturating_sub(now) > SET_BACK_NS { now } else { last + 1 };
        *self.last_ns = time;
        self.block.push(stream, time, text.text);
        self.counters.lines += 1;
        self.counters.truncated_lines += u64::from(text.truncated);
        self.counters.invalid_utf8 += u64::from(text.replaced);
        true
    }

    fn max_line(&self) -> usize {
        self.max_line
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
        let mut chain = Chain::new("/old", &Labels::new(), MAX_LINE);
        let mut file = open(&path);
        file.place = Place::Rotated { since: Instant::now(), replaced: true };
        chain.files.push_back(file);
        let (mut block, mut counters) = (Block::new(), Counters::default());
        let mut pen = Pen {
            block: &mut block,
            limit: 1 << 20,
            counters: &mut counters,
            converter: &mut Converter::default(),
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
