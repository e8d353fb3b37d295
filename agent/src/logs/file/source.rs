//! The source: waits, and reads what is ready, one chain after the other. What is where is the
//! matter of `scan`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::time::Instant;

use super::chain::{Chain, Finish, Save};
use super::follow::{Follow, Place};
use super::pattern::PatternError;
use super::position::{self, Identity, Record};
use super::root::Root;
use super::section::Section;
use super::wake::Trouble;
use super::writer::Pen;
use super::{Counters, KEY_PREFIX, Limits, Options, StartAt};
use crate::host::Clock;
use crate::host::alarm::early;
use crate::logs::text::Converter;
use crate::logs::watch::{Wake, Watcher};
use crate::logs::{Progress, Source, Waiting};
use crate::model::Block;

/// Descriptors that are left to the rest of the agent, which needs some 40.
const DESCRIPTORS_KEPT: usize = 128;

/// Follows log files. See the [module](super).
pub struct FileSource {
    /// What the keys of its positions begin with.
    pub(super) prefix: &'static str,
    pub(super) sections: Vec<Section>,
    pub(super) limits: Limits,
    pub(super) root: Root,
    pub(super) clock: Rc<dyn Clock>,
    pub(super) watcher: Watcher,
    /// Boxed: half of the map's places are empty.
    pub(super) chains: HashMap<Rc<str>, Box<Chain>>,
    /// Which chain follows a file; exactly the files of all chains.
    pub(super) owners: HashMap<Identity, Rc<str>>,
    /// Where the last scan saw files.
    pub(super) places: HashMap<Identity, Rc<str>>,
    /// What links of matching names lead to, as the host's paths.
    pub(super) targets: BTreeSet<PathBuf>,
    /// New names that rotation may have made.
    pub(super) newcomers: BTreeSet<PathBuf>,
    /// Logs beside which a new file has nothing in it yet.
    pub(super) undecided: BTreeSet<Rc<str>>,
    /// A scan was made.
    pub(super) looked: bool,
    /// Chains that may have something to read.
    pub(super) queue: VecDeque<Rc<str>>,
    /// Positions of an earlier run that no scan has looked at yet.
    pub(super) stored: BTreeMap<String, Vec<Record>>,
    /// What is wrong with a path, to say it once.
    pub(super) troubles: HashMap<String, Trouble>,
    pub(super) skipped: usize,
    pub(super) counters: Counters,
    pub(super) scan_due: bool,
    /// Chains have positions to be written when there is room.
    pub(super) unsaved: bool,
    pub(super) next_rescan: Instant,
    /// What is to be read is asked for by the time alone: no company is waited for.
    pub(super) is_routine: bool,
    pub(super) next_poll: Instant,
    converter: Converter,
    scratch: Vec<u8>,
    pub(super) buffer: Vec<u8>,
    position: Vec<u8>,
    pub(super) wakes: Vec<Wake>,
}

impl FileSource {
    /// A source for these sections. Of `positions`, those whose keys start with [`KEY_PREFIX`]
    /// count, and of them those that a pattern still matches; a malformed one is warned of and
    /// ignored.
    ///
    /// # Errors
    /// A pattern that [`check_path`](super::check_path) or [`check_exclude`](super::check_exclude)
    /// refuses.
    pub fn new(
        options: &[Options],
        positions: &BTreeMap<String, Vec<u8>>,
        clock: Rc<dyn Clock>,
    ) -> Result<FileSource, PatternError> {
        FileSource::with_limits(options, positions, clock, Limits::default())
    }

    /// As [`new`](FileSource::new), with other limits than the default ones.
    ///
    /// # Errors
    /// As [`new`](FileSource::new).
    pub fn with_limits(
        options: &[Options],
        positions: &BTreeMap<String, Vec<u8>>,
        clock: Rc<dyn Clock>,
        limits: Limits,
    ) -> Result<FileSource, PatternError> {
        let mut sections = options.iter().map(Section::new).collect::<Result<Vec<_>, _>>()?;
        let stored = stored(KEY_PREFIX, positions);
        for path in stored.keys() {
            let first = sections.iter_mut().find(|s| s.patterns.matches(Path::new(path)));
            // Not its first start: what it has no position of came later.
            first.into_iter().for_each(|section| section.start_at = StartAt::Beginning);
        }
        let mut source = FileSource::build(KEY_PREFIX, sections, stored, clock, limits);
        source.root = Root::new(options.first().map_or(Path::new("/"), |options| &options.root));
        Ok(source)
    }

    pub(super) fn build(
        prefix: &'static str,
        sections: Vec<Section>,
        stored: BTreeMap<String, Vec<Record>>,
        clock: Rc<dyn Clock>,
        limits: Limits,
    ) -> FileSource {
        let longest = sections.iter().map(Section::buffer).max().unwrap_or_default();
        let now = Instant::now();
        let limits = Limits { max_files: limits.max_files.min(descriptors()), ..limits };
        FileSource {
            prefix,
            sections,
            limits,
            root: Root::new(Path::new("/")),
            clock,
            watcher: Watcher::new("log files", limits.watch),
            chains: HashMap::new(),
            owners: HashMap::new(),
            places: HashMap::new(),
            targets: BTreeSet::new(),
            newcomers: BTreeSet::new(),
            undecided: BTreeSet::new(),
            looked: false,
            queue: VecDeque::new(),
            stored,
            troubles: HashMap::new(),
            skipped: 0,
            counters: Counters::default(),
            scan_due: true,
            unsaved: false,
            next_rescan: now,
            is_routine: false,
            next_poll: now,
            converter: Converter::default(),
            scratch: Vec::new(),
            buffer: vec![0; limits.buffer.max(longest)],
            position: Vec::new(),
            wakes: Vec::new(),
        }
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many files are followed.
    pub fn followed(&self) -> usize {
        self.owners.len()
    }

    /// How many files match and are not followed because [`Limits::max_files`] are.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Waits until there may be something to read. Dropping the future loses nothing. Needs a tokio
    /// runtime with I/O and time.
    pub async fn ready(&mut self) {
        loop {
            self.look();
            let now = Instant::now();
            self.act_on_time(now);
            if self.scan_due || self.unsaved || !self.queue.is_empty() {
                return;
            }
            let (from, until) = self.deadline();
            self.watcher.wait(from, until, false, &mut self.wakes).await;
        }
    }

    /// Lets lines gather until `end`, and opens what is renamed or created meanwhile: a file that is
    /// rotated twice before the next read is held, and so not lost.
    pub async fn gather(&mut self, end: Instant) {
        loop {
            self.look();
            if self.scan_due {
                self.scan();
            }
            if self.is_routine || Instant::now() >= end {
                return;
            }
            self.watcher.wait(end, end, true, &mut self.wakes).await;
        }
    }

    /// Reads complete lines of all files into `block`, and with them the positions after them, until
    /// everything has been read or the block has `limit_bytes`: of text, 48 for each entry and 128
    /// for each position. An empty block takes at least one line.
    ///
    /// Errors of single files are logged once, counted, and don't stop the others.
    pub fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        self.look();
        let now = Instant::now();
        self.act_on_time(now);
        // It is made now.
        self.is_routine = false;
        if self.scan_due {
            self.scan();
        }
        let mut full = false;
        // Bytes that make no entries (the rest of an overlong line) cost time all the same.
        let mut budget = (limit_bytes as u64).max(self.buffer.len() as u64).saturating_mul(4);
        let mut polled = false;
        while !full {
            let Some(path) = self.queue.pop_front() else {
                // Where no event tells, nothing is left only if the files say so.
                if polled || !self.watcher.is_degraded() {
                    break;
                }
                polled = true;
                self.poll(now);
                self.scan();
                continue;
            };
            let Some(mut chain) = self.chains.remove(&path) else { continue };
            chain.queued = false;
            let turn = self.turn(&path, &mut chain, block, limit_bytes, now, &mut budget);
            full = turn == Turn::Full || budget == 0;
            self.chains.insert(path.clone(), chain);
            if turn == Turn::Cut {
                // Before anything newer is read: rotation may have made more.
                self.look();
                if self.scan_due {
                    self.scan();
                }
                // Contents that change all the time cost time as well, and make no entries.
                budget = budget.saturating_sub(self.buffer.len() as u64);
                full = budget == 0;
            }
            if turn != Turn::Done {
                self.enqueue(&path);
            }
        }
        self.write_positions(block, limit_bytes);
        if self.queue.is_empty() && !self.unsaved { Progress::Idle } else { Progress::More }
    }

    /// Reads a chain that has been taken out of the map.
    fn turn(
        &mut self,
        path: &Rc<str>,
        chain: &mut Chain,
        block: &mut Block,
        limit: usize,
        now: Instant,
        budget: &mut u64,
    ) -> Turn {
        for file in &chain.files {
            self.watcher.heard(file.watch);
        }
        let mut pen = Pen {
            block,
            limit,
            counters: &mut self.counters,
            converter: &mut self.converter,
            scratch: &mut self.scratch,
            buffer: &mut self.buffer,
            now_ns: self.clock.now_ns(),
        };
        let mut finished = Vec::new();
        let result = (|| -> std::io::Result<Turn> {
            let step = chain.turn(&mut pen, now)?;
            *budget = budget.saturating_sub(step.consumed);
            if step.cut {
                return Ok(Turn::Cut);
            }
            if step.full {
                return Ok(Turn::Full);
            }
            if step.consumed > 0 || !step.end {
                return Ok(Turn::Again);
            }
            loop {
                match chain.finish(&mut pen, now, &self.limits)? {
                    Finish::None => return Ok(Turn::Done),
                    Finish::Full => return Ok(Turn::Full),
                    Finish::Grown => return Ok(Turn::Again),
                    Finish::Done(file) => finished.push(*file),
                }
            }
        })();
        for file in finished {
            chain.is_done(file.identity);
            // There is room for one that was left out.
            self.scan_due |= self.skipped > 0;
            self.hand_over(path, file);
        }
        match result {
            Ok(Turn::Cut) => {
                self.cut(path, chain, now);
                Turn::Cut
            }
            Ok(turn) => {
                self.recovered(path);
                turn
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // Only the newest can turn out to be no log: the others have been read before.
                if let Some(file) = chain.files.pop_back() {
                    self.trouble(path, &error.to_string(), Some(file.identity));
                    self.drop_file(file);
                    chain.save(Save::Now);
                }
                Turn::Done
            }
            Err(error) => {
                self.counters.errors += 1;
                self.trouble(path, &error.to_string(), None);
                if let Some(file) = chain.give_up(now, &self.limits) {
                    let lost = file.size().unwrap_or_default().saturating_sub(file.record().offset);
                    self.counters.lost_files += 1;
                    self.counters.lost_bytes += lost;
                    log::warn!(
                        "log file {path}: {lost} bytes of a file that was rotated away can't be read, \
                         newer ones are read on"
                    );
                    chain.is_done(file.identity);
                    self.drop_file(file);
                    return Turn::Again;
                }
                // Not before the next time that something happens.
                chain.files.iter_mut().for_each(|file| file.grew = now);
                Turn::Done
            }
        }
    }

    /// A finished file goes on under the path where it is now, if that is followed too.
    fn hand_over(&mut self, from: &Rc<str>, mut file: Follow) {
        let to = self.places.get(&file.identity).filter(|to| *to != from).cloned();
        let Some(to) = to.filter(|to| self.identity_at(to) == Some(file.identity)) else {
            return self.drop_file(file);
        };
        let Some(section) = self.section(&to) else { return self.drop_file(file) };
        file.place = Place::Current;
        self.watcher.rename(file.watch, &to);
        self.owners.insert(file.identity, to.clone());
        let section = &self.sections[section];
        let chain = self
            .chains
            .entry(to.clone())
            .or_insert_with(|| Box::new(Chain::new(self.prefix, &to, section)));
        chain.files.push_back(file);
        chain.save(Save::Now);
        self.enqueue(&to);
    }

    pub(super) fn drop_file(&mut self, file: Follow) {
        self.owners.remove(&file.identity);
        self.watcher.forget(file.watch);
    }

    /// What a path leads to, if that is a regular file.
    fn identity_at(&self, path: &str) -> Option<Identity> {
        let metadata = std::fs::metadata(self.root.real(Path::new(path))).ok();
        let metadata = metadata.filter(|metadata| metadata.is_file())?;
        Some(Identity { device: metadata.dev(), inode: metadata.ino() })
    }

    /// The first section that a path belongs to.
    pub(super) fn section(&self, path: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.patterns.matches(Path::new(path)))
    }

    fn write_positions(&mut self, block: &mut Block, limit: usize) {
        self.unsaved = false;
        let mut gone = false;
        for chain in self.chains.values_mut().filter(|chain| chain.save == Save::Now) {
            chain.write_position(block, &mut self.position);
            gone |= chain.files.is_empty();
        }
        for chain in self.chains.values_mut().filter(|chain| chain.save == Save::Later) {
            if block.size() > 0 && block.size() + Block::POSITION_COST > limit {
                self.unsaved = true;
                break;
            }
            chain.write_position(block, &mut self.position);
        }
        if gone {
            self.chains.retain(|_, chain| !chain.files.is_empty() || chain.save != Save::No);
        }
    }

    /// Notes how large the files are: what is cut off before it can be read is counted as lost.
    fn measure(&mut self, now: Instant) {
        for file in self.chains.values_mut().flat_map(|chain| &mut chain.files) {
            file.measure(now);
        }
    }

    /// Puts a chain at the end of the queue, unless it stands there.
    pub(super) fn enqueue(&mut self, path: &Rc<str>) {
        if let Some(chain) = self.chains.get_mut(path)
            && !std::mem::replace(&mut chain.queued, true)
        {
            self.queue.push_back(path.clone());
        }
    }

    pub(super) fn enqueue_where(&mut self, wanted: impl Fn(&Chain) -> bool) {
        for (path, chain) in &mut self.chains {
            if !chain.queued && wanted(chain) {
                chain.queued = true;
                self.queue.push_back(path.clone());
            }
        }
    }
}

impl Source for FileSource {
    fn name(&self) -> &'static str {
        "file"
    }

    fn ready(&mut self) -> Waiting<'_> {
        Box::pin(FileSource::ready(self))
    }

    fn gather(&mut self, until: Instant) -> Waiting<'_> {
        Box::pin(FileSource::gather(self, until))
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        FileSource::read(self, block, limit_bytes)
    }

    fn hold(&mut self) -> Waiting<'_> {
        Box::pin(async {
            loop {
                // This future is made anew all the time; what is due is not put off by that.
                let now = Instant::now();
                if now >= self.next_rescan {
                    self.next_rescan = now + early(self.limits.rescan);
                    self.scan_due = true;
                    self.enqueue_where(|_| true);
                    self.measure(now);
                }
                let mut until = self.next_rescan;
                if self.watcher.is_degraded() {
                    if now >= self.next_poll {
                        self.poll(now);
                        self.measure(now);
                    }
                    until = until.min(self.next_poll);
                }
                // A look that is due ends a gathering, and here it would without end.
                self.is_routine = false;
                FileSource::gather(self, until).await;
            }
        })
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        let c = &self.counters;
        out("lines", c.lines);
        out("bytes", c.bytes);
        out("truncated_lines", c.truncated_lines);
        out("invalid_utf8", c.invalid_utf8);
        out("truncations", c.truncations);
        out("rotations", c.rotations);
        out("lost_bytes", c.lost_bytes);
        out("lost_files", c.lost_files);
        out("malformed", c.malformed);
        out("errors", c.errors);
    }
}

/// What a turn of a chain came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is left.
    Done,
    /// There may be more.
    Again,
    /// The contents of a file were gone: other ones, or what a copy has of them, are read next.
    Cut,
    /// The block has no room.
    Full,
}

/// How many of the descriptors that the process may have log files can take. 1,024 is what a shell or
/// an init script gives, as many as the files alone would take; without one for its WAL, its
/// connections and the files of /proc, the agent would stand still.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limit.saturating_sub(DESCRIPTORS_KEPT).max(limit / 2)
}

pub(super) fn stored(
    prefix: &str,
    positions: &BTreeMap<String, Vec<u8>>,
) -> BTreeMap<String, Vec<Record>> {
    let read = |(key, bytes): (&String, &Vec<u8>)| {
        let path = key.strip_prefix(prefix)?;
        match position::decode(bytes) {
            Ok(records) => Some((path.to_owned(), records)),
            Err(error) => {
                log::warn!("log file {path}: its position is ignored: {error}");
                None
            }
        }
    };
    positions.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};

    use super::*;
    use crate::host::ManualClock;

    #[tokio::test(start_paused = true)]
    async fn a_line_of_a_gibibyte_needs_no_more_memory_than_any_other() {
        const MAX: usize = 64 << 10;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut file = File::create(&path).unwrap();
        // Zeros are characters too, and a hole costs the disk nothing.
        file.seek(SeekFrom::Start(1 << 30)).unwrap();
        file.write_all(b"\xff\nnext\n").unwrap();
        let options = Options {
            paths: vec![path.to_str().unwrap().to_owned()],
            max_line: MAX,
            ..Options::default()
        };
        let clock = Rc::new(ManualClock::at(0));
        let mut source = FileSource::new(&[options], &BTreeMap::new(), clock).unwrap();
        let mut lengths = Vec::new();
        let mut block = Block::new();
        loop {
            block.clear();
            let progress = source.read(&mut block, 100_000);
            lengths.extend(block.entries().map(|entry| entry.line.len()));
            assert!(block.text_len() <= 100_000);
            if progress == Progress::Idle {
                break;
            }
        }
        assert_eq!(lengths, [MAX, 4]);
        let memory = source.buffer.capacity() + source.converter.capacity();
        assert!(memory <= MAX + 2, "{memory}");
        let expected =
            Counters { lines: 2, bytes: (1 << 30) + 7, truncated_lines: 1, ..Counters::default() };
        assert_eq!(source.counters, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_file_that_cannot_be_read_does_not_keep_newer_ones_waiting_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "1\n").unwrap();
        let options = Options { paths: vec![path.to_str().unwrap().into()], ..Options::default() };
        let clock = Rc::new(ManualClock::at(0));
        let mut source = FileSource::new(&[options], &BTreeMap::new(), clock).unwrap();
        let mut block = Block::new();
        while source.read(&mut block, 1 << 20) == Progress::More {}
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"never\n").unwrap();
        source.chains.values_mut().flat_map(|chain| &mut chain.files).for_each(Follow::break_down);
        for waited in [0, 5, 15] {
            assert_eq!(source.counters.lost_files, 0, "{waited}");
            tokio::time::advance(std::time::Duration::from_secs(waited)).await;
            if waited == 0 {
                std::fs::rename(&path, dir.path().join("a.log.1")).unwrap();
                std::fs::write(&path, "2\n").unwrap();
            }
            while source.read(&mut block, 1 << 20) == Progress::More {}
        }
        assert_eq!(block.entries().map(|entry| entry.line).collect::<Vec<_>>(), ["1", "2"]);
        let counters = source.counters;
        assert_eq!((counters.lost_files, counters.lost_bytes), (1, 6));
        assert_eq!(source.followed(), 1);
        // A few errors, and no end of looking.
        assert!(counters.errors < 8, "{}", counters.errors);
    }

    #[test]
    fn idle_files_cost_less_than_a_kibibyte_each() {
        let size = size_of::<Chain>() + size_of::<Follow>();
        assert!(size <= 512, "{size}");
    }
}
