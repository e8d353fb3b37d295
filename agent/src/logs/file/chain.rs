//! A chain: the files of one path, oldest first, and the stream that their lines make. Reading a
//! chain means finishing what the older file has before the newer one is touched. It must not know
//! how files are found.

use std::collections::VecDeque;
use std::rc::Rc;

use tokio::time::Instant;

use super::Limits;
use super::follow::{Follow, Place, Sink, Step};
use super::format::{Format, Stream};
use super::position::{self, Head, Identity};
use super::section::Section;
use super::writer::{Pen, Writer};
use crate::model::{Block, Labels};

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
    /// Where in it the label `filename` begins, if there is one.
    name_at: Option<usize>,
    /// Of the section.
    pub(super) labels: Rc<Labels>,
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
    /// A copy of the last file, which may be about to be truncated.
    pub(super) copy: Option<Box<Follow>>,
    /// When the newest of the files that were renamed away had last been written to. `i64::MAX`: nothing
    /// was renamed yet.
    rotated_ns: i64,
    /// The same at the last look at what rotation made, or, of an earlier run, when anything of the chain
    /// had last been written to as it was read: what rotation made later has not been seen.
    settled_ns: i64,
    /// Of contents that were cut off last, how they began.
    pub(super) cut: Head,
    /// Not 0: what rotation made is unseen only if it was made later.
    pub(super) born_ns: i64,
    /// Files that were finished last, which are not read again.
    pub(super) done: VecDeque<Identity>,
    last_ns: [i64; Stream::COUNT],
    pub(super) save: Save,
    pub(super) queued: bool,
}

impl Chain {
    pub(super) fn new(prefix: &str, path: &str, section: &Section) -> Chain {
        Chain {
            key: format!("{prefix}{path}"),
            name_at: section.named.then_some(prefix.len()),
            labels: section.labels.clone(),
            max_line: section.max_line.max(16),
            format: section.format,
            pinned: section.pinned,
            retired: false,
            told: false,
            // One is all that most ever have.
            files: VecDeque::with_capacity(1),
            copy: None,
            rotated_ns: i64::MAX,
            settled_ns: 0,
            cut: Head::default(),
            born_ns: 0,
            done: VecDeque::new(),
            last_ns: [i64::MIN; Stream::COUNT],
            save: Save::No,
            queued: false,
        }
    }

    /// The file at the path.
    pub(super) fn current(&self) -> Option<&Follow> {
        self.files.back().filter(|file| file.place == Place::Current)
    }

    /// Puts a file before the one at the path, and before those that were written later.
    pub(super) fn push_rotated(&mut self, mut file: Follow, now: Instant) {
        let modified_ns = file.modified_ns();
        self.rotated(modified_ns);
        file.place = Place::Rotated { since: now, replaced: true };
        let mut at = self.files.len() - usize::from(self.current().is_some());
        while let Some(before) = at.checked_sub(1)
            && self.files.get(before).is_some_and(|other| other.modified_ns() > modified_ns)
        {
            at = before;
        }
        self.files.insert(at, file);
        self.save(Save::Now);
    }

    /// A file that had last been written to then was renamed away, or its contents were.
    pub(super) fn rotated(&mut self, modified_ns: i64) {
        let known = self.rotated_ns != i64::MAX;
        if modified_ns > 0 && (!known || modified_ns > self.rotated_ns) {
            self.rotated_ns = modified_ns;
        }
        if !known {
            self.settle(modified_ns);
        }
    }

    /// What rotation has made until then is known.
    pub(super) fn settle(&mut self, modified_ns: i64) {
        self.settled_ns = self.settled_ns.max(modified_ns);
    }

    /// What rotation has made until now is known.
    pub(super) fn settle_all(&mut self) {
        if self.rotated_ns != i64::MAX {
            self.settle(self.rotated_ns);
        }
    }

    /// Whether what rotation made, and what had last been written to then, has not been seen yet. `before`: the
    /// same of the last one before it that is known: where the clock's grain is too coarse, the names tell.
    pub(super) fn is_unseen(&self, modified_ns: i64, before: i64) -> bool {
        self.rotated_ns != i64::MAX
            && (modified_ns > self.settled_ns
                || (modified_ns == self.settled_ns && modified_ns == before))
    }

    /// Remembers a file that is not read again.
    pub(super) fn is_done(&mut self, identity: Identity) {
        self.done.push_back(identity);
        if self.done.len() > 8 {
            self.done.pop_front();
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
        let name = self.name_at.and_then(|at| self.key.get(at..));
        let Chain { files, labels, max_line, format, last_ns, .. } = self;
        let Pen { block, limit, counters, converter, scratch, buffer, now_ns } = pen;
        let mut sink = Writer {
            block,
            limit: *limit,
            counters,
            converter,
            name,
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
        let name = self.name_at.and_then(|at| self.key.get(at..));
        let Chain { files, labels, max_line, format, last_ns, .. } = self;
        let Pen { block, limit, counters, converter, scratch, buffer, now_ns } = pen;
        let mut sink = Writer {
            block,
            limit: *limit,
            counters,
            converter,
            name,
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
        // Behind a bad sector.
        sink.counters.lost_bytes += file.size()?.saturating_sub(file.record().offset);
        let malformed = sink.malformed;
        let file = files.remove(index);
        self.save = Save::Now;
        self.tell(malformed);
        Ok(file.map_or(Finish::None, |file| Finish::Done(Box::new(file))))
    }

    /// Takes out a file that can't be read and had its time, so that newer ones need not wait for it.
    pub(super) fn give_up(&mut self, now: Instant, limits: &Limits) -> Option<Follow> {
        let index = self.files.iter().position(Follow::is_unreadable)?;
        let Place::Rotated { since, .. } = self.files.get(index)?.place else { return None };
        let is_waited_for = index + 1 < self.files.len();
        if !is_waited_for || now < since + limits.quiet {
            return None;
        }
        self.save = Save::Now;
        self.files.remove(index)
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
        total.cut = step.cut;
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

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::logs::file::Counters;
    use crate::logs::text::Converter;

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
            crate::logs::file::PLAIN
        }

        fn damaged(&mut self, _: u64) {
            panic!("nothing is damaged here");
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
        assert_eq!(step, Step { consumed: 4, end: true, ..Step::default() });
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
            assert_eq!(step, Step::default(), "{late:?}");
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
