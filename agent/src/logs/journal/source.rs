//! The journal as a source of entries: waits for what journald writes and puts it into blocks.
//!
//! **Start.** A stored position always wins, however old; what journald has removed since is counted
//! (`lost_entries`). Without one it begins [`Options::max_age`] ago.
//!
//! **Entries.** The first `MESSAGE` is the line, with its line breaks; an entry without one is passed over
//! and counted, as Alloy does (`without_message`). What is not UTF-8 becomes U+FFFD. One that says
//! `CONTAINER_PARTIAL_MESSAGE=true` goes on in the next entry of its stream, unless a container ended there.
//!
//! **Timestamps** are `__REALTIME_TIMESTAMP`, when journald got the entry, in the journal's order. They
//! rise: an entry that is not later than the one before it gets a nanosecond more than that, since Loki
//! drops a line that repeats another's text and time. Where the clock was set back by more than
//! [`BELIEVED`], the journal's time is believed: Loki takes it up to an hour behind its stream's newest
//! entry. The last timestamp is in the position, so that an entry that is sent again after a crash has the
//! same one.
//!
//! **Waiting.** journald calls ftruncate after it has written through its mapping, at most four times a
//! second, for inotify's sake; one watch on the directory tells. Directories that are not there yet are waited
//! for where they would appear, and looked for once a minute as long as there is no journal (a mount tells
//! nobody), and every ten minutes otherwise.
//!
//! **What can't be read** (a card's EIO) is tried again after 1 s, 2 s, and so on up to a minute, eight times;
//! until then nothing behind it is read, so that the position doesn't pass it.
//!
//! It must not know the format of the files, which the rest of this module reads.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::place::{Found, Place};
use super::position::{KEY, Position};
use super::streams::Streams;
use super::{
    Counts, Cursor, Entry, FieldSet, Id, Journal, Limits, Matches, Next, Start, Units, labels,
    units,
};
use crate::host::alarm::early;
use crate::host::{Clock, Roots};
use crate::logs::file::Root;
use crate::logs::text::Converter;
use crate::logs::watch::{Wake, Watcher};
use crate::logs::{Progress, SOURCE, Source, Waiting};
use crate::model::{Block, Labels};

/// A clock that was set back by more than this is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// How long one read may take, whether it finds anything or not.
const TURN: Duration = Duration::from_millis(10);

/// Entries between two looks at the time.
const LOOK: u32 = 32;

/// How long to wait when something can't be read: at first, each time twice as long, and at most.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Entries that may be passed over until the position is written with nothing else, and how long after
/// the last one it may be. Until then a restart passes over them again.
const PASSED: u64 = 50_000;
const PASSED_TIME: Duration = Duration::from_secs(3600);

/// How often to look where the kernel refuses to watch.
const POLL: Duration = Duration::from_secs(5);
/// The same while there is no journal.
const ABSENT: Duration = Duration::from_secs(60);
/// The same where all is well: something may have been mounted.
const RESCAN: Duration = Duration::from_secs(600);

/// Bytes of one value of structured metadata; Loki takes 64 KiB for all of an entry.
const MAX_METADATA: usize = 2048;

/// Memory that the entry keeps while nothing is read.
const KEEP: usize = 4 << 10;

/// `[logs.journal]`
#[derive(Clone, Debug)]
pub struct Options {
    /// The labels of every stream.
    pub labels: Labels,
    /// The longest line, in bytes; at least 16 are taken.
    pub max_line: usize,
    /// How far back the first start reads; zero: what comes from now on.
    pub max_age: Duration,
    /// Which entries.
    pub matches: Matches,
    /// Of which units.
    pub units: Units,
    /// Where; none: this machine's.
    pub directories: Vec<PathBuf>,
    /// Further labels: name and field. One of [`LABELS`](super::LABELS) is replaced.
    pub labels_from: Vec<(String, String)>,
    /// Structured metadata: name and field.
    pub metadata_from: Vec<(String, String)>,
}

impl Options {
    /// Whether messages of the kernel's, some or all, are among what is wanted.
    pub fn may_want_kernel(&self) -> bool {
        // They are of no unit.
        self.units.is_empty()
            && self.matches.may_accept(|term| {
                let of = |name: &str| term.starts_with(name.as_bytes());
                matches!(
                    term,
                    b"_TRANSPORT=kernel" | b"SYSLOG_FACILITY=0" | b"SYSLOG_IDENTIFIER=kernel"
                ) || KERNEL_FIELDS.iter().any(|name| of(name))
            })
    }
}

/// Fields of the kernel's messages that may have any value.
const KERNEL_FIELDS: [&str; 8] = [
    "PRIORITY=",
    "MESSAGE=",
    "_BOOT_ID=",
    "_MACHINE_ID=",
    "_HOSTNAME=",
    "_RUNTIME_SCOPE=",
    "_KERNEL_",
    "_UDEV_",
];

/// Follows the journal.
pub struct JournalSource {
    place: Place,
    /// The kernel's file with the id of the boot that is running.
    boot: PathBuf,
    units: Units,
    /// Which of the four labels stay.
    kept: [bool; 4],
    labels_from: Vec<String>,
    metadata_from: Vec<(String, String)>,
    max_line: usize,
    fields: FieldSet,
    matches: Matches,
    /// Where a journal without a position begins.
    start: Start,
    found: Found,
    journal: Journal,
    /// What journals before this one counted.
    before: Counts,
    entry: Entry,
    streams: Streams,
    converter: Converter,
    watcher: Watcher,
    wakes: Vec<Wake>,
    /// There may be something to read.
    unread: bool,
    /// Files or directories have come or gone.
    changed: bool,
    next_look: Instant,
    /// Not before, as something can't be read; and how long the next wait is.
    again: Option<Instant>,
    pause: Duration,
    /// The timestamp that was given out last.
    last_ns: i64,
    /// Entries passed over since the position was written, and when that was. None: never.
    passed: u64,
    written: Option<Instant>,
    trouble: Option<String>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    lines: u64,
    bytes: u64,
    errors: u64,
    without_message: u64,
    other_units: u64,
    invalid_utf8: u64,
    truncated_lines: u64,
    clock_set_back: u64,
}

impl JournalSource {
    /// A source that goes on behind the stored position, if there is one. A malformed one is warned of and
    /// ignored.
    pub fn new(
        options: &Options,
        roots: &Roots,
        positions: &BTreeMap<String, Vec<u8>>,
        clock: &dyn Clock,
    ) -> JournalSource {
        let stored = positions.get(KEY).and_then(|bytes| match Position::from_bytes(bytes) {
            Ok(position) => Some(position),
            Err(error) => {
                log::warn!("the journal's position is ignored: {error}");
                None
            }
        });
        let now = Instant::now();
        let written = stored.is_some().then_some(now);
        let (start, last_ns) = match stored {
            Some(Position { cursor, last_ns }) => (Start::After(cursor), last_ns),
            None if options.max_age.is_zero() => (Start::Tail, i64::MIN),
            None => (Start::Since(since(clock.now_ns(), options.max_age)), i64::MIN),
        };
        let place = match options.directories.as_slice() {
            [] => Place::Machine(roots.root.clone()),
            given => Place::Directories(given.to_vec()),
        };
        let kept = super::LABELS.map(|own| options.labels_from.iter().all(|(name, _)| name != own));
        let names = super::LABELS.iter().zip(kept).filter(|(_, kept)| *kept);
        let names = names.map(|(name, _)| (*name).to_owned());
        let names = names.chain(options.labels_from.iter().map(|(name, _)| name.clone()));
        let mut base = options.labels.clone();
        base.set(SOURCE, "journal");
        let max_line = options.max_line.max(16);
        let fields = fields(options, max_line);
        let matches = options.matches.clone();
        JournalSource {
            streams: Streams::new(base, names.collect()),
            units: options.units.clone(),
            kept,
            labels_from: options.labels_from.iter().map(|(_, field)| field.clone()).collect(),
            metadata_from: options.metadata_from.clone(),
            max_line,
            journal: Journal::new(Vec::new(), fields.clone(), matches.clone(), limits()),
            fields,
            matches,
            start,
            place,
            boot: roots.proc.join("sys/kernel/random/boot_id"),
            found: Found::default(),
            before: Counts::default(),
            entry: Entry::new(),
            converter: Converter::default(),
            watcher: Watcher::new("the journal's directories", true),
            wakes: Vec::new(),
            unread: true,
            // The first read looks what there is.
            changed: true,
            next_look: now,
            again: None,
            pause: AGAIN[0],
            last_ns,
            passed: 0,
            written,
            trouble: None,
            counters: Counters::default(),
        }
    }

    /// Begins to read the directories that were found.
    fn open(&mut self, found: &Found) {
        let start = self.journal.cursor().map_or_else(|| self.start.clone(), Start::After);
        self.before = self.total();
        let (fields, matches) = (self.fields.clone(), self.matches.clone());
        self.journal = Journal::new(found.journals.clone(), fields, matches, limits());
        self.journal.set_boot(boot(&self.boot));
        self.journal.seek(start);
        self.take(found);
    }

    /// Has what was found watched, and read.
    fn take(&mut self, found: &Found) {
        let written: BTreeSet<PathBuf> = self.journal.directories().map(Path::to_owned).collect();
        let wanted = found.parents.union(&written).cloned().collect();
        self.watcher.watch_written(&wanted, &written, &Root::default());
        if found.trouble != self.trouble {
            match &found.trouble {
                Some(trouble) => log::warn!("no journal is read: {trouble}"),
                None => log::info!("the journal is read again"),
            }
            self.trouble.clone_from(&found.trouble);
        }
        self.found.clone_from(found);
        self.unread = true;
    }

    /// Looks what is there, and has it watched before it is read.
    fn refresh(&mut self) {
        self.changed = false;
        self.watcher.retry();
        // What comes between a look and its watch shows at the next look.
        for _ in 0..3 {
            let found = self.place.look();
            if found.journals == self.found.journals {
                self.journal.rescan();
                self.take(&found);
            } else {
                self.open(&found);
            }
            if self.place.look() == found {
                break;
            }
        }
        self.journal.rescan();
        self.next_look = Instant::now() + early(self.interval());
    }

    fn interval(&self) -> Duration {
        match (self.watcher.is_degraded(), self.found.present) {
            (true, _) => POLL,
            (false, 0) => ABSENT,
            (false, _) => RESCAN,
        }
    }

    /// Acts on what the kernel told.
    fn look(&mut self) {
        let mut wakes = std::mem::take(&mut self.wakes);
        self.watcher.look(&mut wakes);
        for wake in wakes.drain(..) {
            match wake {
                Wake::Inside(path) => self.unread |= is_journal(&path),
                // A name in a journal's directory, or one that leads there.
                Wake::Name(path, _) => {
                    self.changed |= is_journal(&path) || self.is_awaited(&path);
                }
                Wake::Written(_) | Wake::Moved(_) | Wake::Directory | Wake::Overflow => {
                    self.changed = true;
                }
            }
        }
        self.wakes = wakes;
        let now = Instant::now();
        self.changed |= now >= self.next_look;
        if self.again.is_some_and(|again| now >= again) {
            (self.again, self.unread) = (None, true);
        }
    }

    /// Whether a file's name matters to where the journal is.
    fn is_awaited(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| name == "machine-id")
            || self.found.journals.iter().any(|directory| {
                directory.path.starts_with(path)
                    || (directory.subdirectories && path.parent() == Some(&directory.path))
            })
    }

    async fn wait(&mut self) {
        loop {
            self.look();
            if self.changed && !self.unread {
                self.refresh();
                self.unread = self.found.present > 0;
            }
            if self.unread {
                return;
            }
            let next = self.again.map_or(self.next_look, |again| again.min(self.next_look));
            let until = self.again.unwrap_or(next + self.interval() / 2);
            self.watcher.wait(next, until, false, &mut self.wakes).await;
        }
    }

    fn fill(&mut self, block: &mut Block, limit: usize) -> (Progress, bool) {
        let end = std::time::Instant::now() + TURN;
        let (mut pushed, mut seen) = (false, 0u32);
        if self.again.is_some() {
            self.unread = false;
            return (Progress::Idle, pushed);
        }
        loop {
            if block.size() >= limit && !block.is_empty() {
                return (Progress::More, pushed);
            }
            let busy = match self.journal.next(&mut self.entry) {
                Ok(Next::Entry) => {
                    if self.pause > AGAIN[0] {
                        log::info!("the journal is read on");
                        self.pause = AGAIN[0];
                    }
                    if self.push(block) {
                        pushed = true;
                    } else {
                        self.passed += 1;
                    }
                    false
                }
                Ok(Next::Busy) => true,
                Ok(Next::Idle) => {
                    self.unread = false;
                    self.pause = AGAIN[0];
                    return (Progress::Idle, pushed);
                }
                Ok(Next::Later) => {
                    self.unread = false;
                    self.again = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(AGAIN[1]);
                    return (Progress::Idle, pushed);
                }
                Err(error) => {
                    self.counters.errors += 1;
                    log::warn!("{error}");
                    true
                }
            };
            seen = seen.wrapping_add(1);
            if (busy || seen.is_multiple_of(LOOK)) && std::time::Instant::now() >= end {
                return (Progress::More, pushed);
            }
        }
    }

    /// Puts the entry into the block; false if it is not for it.
    fn push(&mut self, block: &mut Block) -> bool {
        let entry = &self.entry;
        let get = |name: &str| entry.get(name);
        if !self.units.wants(get) {
            self.counters.other_units += 1;
            return false;
        }
        let Some(message) = get("MESSAGE") else {
            self.counters.without_message += 1;
            return false;
        };
        let own = labels::values(get);
        let own = own.into_iter().zip(self.kept).filter(|(_, kept)| *kept).map(|(value, _)| value);
        let more = self.labels_from.iter().map(|field| get(field));
        let Some(stream) = self.streams.id(block, own.chain(more)) else {
            // 65,535 streams in 64 KiB: can't be.
            self.counters.errors += 1;
            return false;
        };
        let bytes = message.len();
        let line = self.converter.text(message, self.max_line);
        self.counters.truncated_lines += u64::from(line.truncated);
        self.counters.invalid_utf8 += u64::from(line.replaced);
        let time_ns = i64::try_from(entry.realtime_us()).unwrap_or(i64::MAX).saturating_mul(1000);
        let (timestamp_ns, set_back) = rising(time_ns, self.last_ns);
        self.counters.clock_set_back += u64::from(set_back);
        self.last_ns = timestamp_ns;
        let metadata = self.metadata_from.iter().filter_map(|(name, field)| {
            let value = get(field).filter(|value| !value.is_empty())?;
            Some((name.as_str(), labels::text(value, MAX_METADATA)))
        });
        block.push_with::<&str, Cow<'_, str>>(stream, timestamp_ns, line.text, metadata);
        if labels::is_part(get, bytes >= labels::PART || bytes > self.max_line) {
            block.set_partial();
        }
        self.counters.lines += 1;
        self.counters.bytes += bytes as u64;
        true
    }

    /// Writes how far the journal has been read, with entries, and seldom without.
    fn save(&mut self, block: &mut Block, pushed: bool, unmatched: u64) {
        self.passed += unmatched;
        let now = Instant::now();
        let due = self
            .written
            .is_none_or(|at| self.passed >= PASSED || (self.passed > 0 && now >= at + PASSED_TIME));
        if !pushed && !due {
            return;
        }
        let Some(cursor) = self.journal.cursor() else { return };
        self.write(block, cursor);
        self.written = Some(now);
        self.passed = 0;
    }

    fn write(&self, block: &mut Block, cursor: Cursor) {
        block.set_position(KEY, &Position { last_ns: self.last_ns, cursor }.to_bytes());
    }

    /// What all journals counted.
    fn total(&self) -> Counts {
        let (a, b) = (self.before, self.journal.counts());
        Counts {
            entries: a.entries + b.entries,
            unmatched: a.unmatched + b.unmatched,
            repeated: a.repeated + b.repeated,
            lost_entries: a.lost_entries + b.lost_entries,
            damaged_objects: a.damaged_objects + b.damaged_objects,
            unreadable_files: a.unreadable_files + b.unreadable_files,
            files_left_out: b.files_left_out,
            cut_values: a.cut_values + b.cut_values,
        }
    }
}

impl Source for JournalSource {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn ready(&mut self) -> Waiting<'_> {
        Box::pin(self.wait())
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        self.look();
        if self.changed {
            self.refresh();
        }
        self.streams.next_block();
        let before = self.journal.counts().unmatched;
        let (progress, pushed) = self.fill(block, limit_bytes);
        let unmatched = self.journal.counts().unmatched.saturating_sub(before);
        self.save(block, pushed, unmatched);
        if progress == Progress::Idle {
            self.journal.idle();
            self.entry.shrink(KEEP);
        }
        progress
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        let Counters { lines, bytes, errors, .. } = self.counters;
        let journal = self.total();
        out("lines", lines);
        out("bytes", bytes);
        out("errors", errors);
        out("lost_entries", journal.lost_entries);
        out("truncated_lines", self.counters.truncated_lines);
        out("invalid_utf8", self.counters.invalid_utf8);
        out("without_message", self.counters.without_message);
        out("unmatched", journal.unmatched + self.counters.other_units);
        out("repeated", journal.repeated);
        out("clock_set_back", self.counters.clock_set_back);
        out("damaged_objects", journal.damaged_objects);
        out("unreadable_files", journal.unreadable_files);
        out("files_left_out", journal.files_left_out);
    }
}

/// The timestamp of an entry of this time after one with that timestamp, and whether the clock was set
/// back in between.
fn rising(time_ns: i64, last_ns: i64) -> (i64, bool) {
    if time_ns > last_ns {
        return (time_ns, false);
    }
    let back = last_ns.saturating_sub(time_ns);
    if u128::from(back.unsigned_abs()) > BELIEVED.as_nanos() {
        return (time_ns, true);
    }
    (last_ns.saturating_add(1), false)
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`
fn boot(path: &Path) -> Option<Id> {
    let text = std::fs::read_to_string(path).ok()?.trim().replace('-', "");
    (text.len() == 32).then(|| u128::from_str_radix(&text, 16).ok().map(u128::to_be_bytes))?
}

/// So long before this time, in microseconds since 1970.
fn since(now_ns: i64, age: Duration) -> u64 {
    let now = u64::try_from(now_ns).unwrap_or(0) / 1000;
    now.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}

fn limits() -> Limits {
    Limits { passed_over: 512, ..Limits::default() }
}

/// The fields that are needed, with a byte more of what is cut, so that the cut shows.
fn fields(options: &Options, max_line: usize) -> FieldSet {
    let mut set = FieldSet::new().with("MESSAGE", max_line + 1);
    for (field, most) in labels::NEEDED {
        set = set.with(field, most);
    }
    for (_, field) in &options.labels_from {
        set = set.with(field, labels::MAX_VALUE);
    }
    for (_, field) in &options.metadata_from {
        set = set.with(field, MAX_METADATA + 4);
    }
    if !options.units.is_empty() {
        for field in units::FIELDS {
            set = set.with(field, 256);
        }
    }
    set
}

fn is_journal(path: &Path) -> bool {
    let extension = path.extension().map(std::ffi::OsStr::as_encoded_bytes);
    matches!(extension, Some(b"journal" | b"journal~"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_rise_until_the_clock_is_set_back_for_real() {
        assert_eq!(rising(5, i64::MIN), (5, false));
        assert_eq!(rising(5, 4), (5, false));
        assert_eq!(rising(5, 5), (6, false));
        assert_eq!(rising(5, 1_000_000_005), (1_000_000_006, false));
        assert_eq!(rising(5, 1_000_000_006), (5, true));
        assert_eq!(rising(i64::MAX, i64::MAX), (i64::MAX, false));
    }

    #[test]
    fn the_first_start_is_not_before_1970() {
        assert_eq!(since(3_000_000, Duration::from_micros(1)), 2_999);
        assert_eq!(since(3_000_000, Duration::from_secs(1)), 0);
        assert_eq!(since(-1, Duration::ZERO), 0);
    }
}
