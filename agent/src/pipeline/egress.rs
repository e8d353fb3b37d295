//! The bytes that all endpoints are sent, and the bound of a day on them (`egress.daily`), for metered links.
//! Nothing is dropped by it: what has to wait stays in the WAL. It must not know what is sent.
//!
//! **The order.** Live metrics go as long as anything is left. Live logs, and events with them, go as long as
//! there is more left than the metrics need until midnight; a backlog goes as long as there is more left than
//! live metrics and live logs need until then. What they need is their mean of an hour, from the agent's own
//! counts of the last day or two, times the hours that are left; nothing until it has been watched for ten minutes. When nothing is left all wait
//! until midnight UTC, and up to [`SPREAD`] longer, so that a fleet does not come at once. As rounds go in
//! order, live ones wait behind a backlog of metrics: it moves on by what they leave of what they need.
//!
//! **The day** is that of the agent's clock, in UTC. The counts of the last [`DAYS`] days are kept: a clock that
//! goes back to one of them goes on with its count, and one that shows a day before all of them goes on with
//! the count in use. So no step of a clock gives a day's bytes twice.
//!
//! **The file** `egress` in the state directory keeps the counts over restarts:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `MOTEEGR1` |
//! | 4 × 16 | day (i64, days since the Unix epoch; the one in use first) and its bytes (u64) |
//! | 2 × 16 | live metrics, live logs: bytes (u64) and milliseconds (u64) in which they were sent |
//! | 4 | CRC-32C of all before |
//!
//! All little-endian. It is written, as a new file that takes the place of the old one, when more was sent
//! than it says, and then says a [`CHUNK`]th of the bound more than that: at most about 64 times a day, and at
//! the end, when it is exact. After a power cut at most that part of the bound is lost unused. It is never
//! sent twice, but for what goes while a write is under way, or fails. A file that can't be
//! read counts as the part of the bound that is the part of the day gone by.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::endpoint::Random;

const MAGIC: [u8; 8] = *b"MOTEEGR1";
/// How many days are remembered.
const DAYS: usize = 4;
const LEN: usize = 8 + DAYS * 16 + 2 * 16 + 4;
/// The file says this part of the bound more than was sent.
const CHUNK: u64 = 64;
/// The least that it says more.
const MIN_CHUNK: u64 = 4 << 10;
/// How long after midnight those that wait for it go at the latest.
const SPREAD: Duration = Duration::from_secs(300);
/// How long who waits for others sleeps at most.
const LOOK: Duration = Duration::from_secs(600);

/// How long a stop or a reload waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;
/// What is known of the needs of less than this is not used.
const KNOWN_MS: u64 = 600_000;

/// Of a write that runs on another thread.
const IDLE: u8 = 0;
const WRITING: u8 = 1;
const FAILED: u8 = 2;

/// Whose bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    LiveMetrics,
    LiveLogs,
    /// More waits than what is live, of either.
    Backlog,
}

impl Share {
    /// Of a signal, `metrics` or `logs`.
    pub(super) fn of(signal: &str, backlog: bool) -> Share {
        match (backlog, signal) {
            (true, _) => Share::Backlog,
            (false, "metrics") => Share::LiveMetrics,
            (false, _) => Share::LiveLogs,
        }
    }
}

/// Why something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nothing is left of the day's bytes.
    Spent,
    /// What is left is needed by what goes before it.
    Reserved,
}

impl Reason {
    /// For the status page.
    pub(super) fn text(self) -> &'static str {
        match self {
            Reason::Spent => {
                "egress.daily is used up: everything waits in the WAL until midnight UTC"
            }
            Reason::Reserved => {
                "what is left of egress.daily is kept for live data that goes first; the rest waits in the WAL"
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Day {
    number: i64,
    bytes: u64,
}

/// What one kind of live data takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Need {
    bytes: u64,
    ms: u64,
}

impl Need {
    fn add(&mut self, bytes: u64, ms: u64) {
        (self.bytes, self.ms) = (self.bytes.saturating_add(bytes), self.ms.saturating_add(ms));
        if self.ms > 48 * HOUR_MS {
            // So that what was long ago counts less.
            (self.bytes, self.ms) = (self.bytes / 2, self.ms / 2);
        }
    }

    /// In so many milliseconds.
    fn within(&self, ms: u64) -> u64 {
        if self.ms < KNOWN_MS {
            return 0;
        }
        let bytes = u128::from(self.bytes) * u128::from(ms) / u128::from(self.ms);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// What the file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Book {
    /// The one in use first.
    days: [Day; DAYS],
    metrics: Need,
    logs: Need,
}

impl Book {
    /// The count that this day goes on with becomes the first.
    fn turn_to(&mut self, number: i64) {
        let used = |day: &&Day| day.number > 0;
        if self.days[0].number == number || number <= 0 {
            return;
        }
        if let Some(at) = self.days.iter().position(|day| day.number == number) {
            self.days[..=at].rotate_right(1);
        } else if self.days.iter().filter(used).any(|day| day.number < number)
            || !self.days.iter().any(|day| used(&day))
        {
            self.days.rotate_right(1);
            self.days[0] = Day { number, bytes: 0 };
        }
        // Else the clock shows a day before all that are known: it is wrong.
    }

    fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let days = self.days.iter().flat_map(|day| [day.number as u64, day.bytes]);
        let needs = [self.metrics, self.logs].into_iter().flat_map(|need| [need.bytes, need.ms]);
        let numbers = std::iter::once(u64::from_le_bytes(MAGIC)).chain(days).chain(needs);
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        if let Some((all, check)) = bytes.split_last_chunk_mut::<4>() {
            *check = crc32c::crc32c(all).to_le_bytes();
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Book> {
        let (all, check) = bytes.split_last_chunk::<4>()?;
        if bytes.len() != LEN
            || crc32c::crc32c(all) != u32::from_le_bytes(*check)
            || !all.starts_with(&MAGIC)
        {
            return None;
        }
        let mut numbers = all
            .chunks_exact(8)
            .skip(1)
            .filter_map(|chunk| Some(u64::from_le_bytes(chunk.try_into().ok()?)));
        let mut book = Book::default();
        for day in &mut book.days {
            *day = Day { number: numbers.next()? as i64, bytes: numbers.next()? };
        }
        for need in [&mut book.metrics, &mut book.logs] {
            *need = Need { bytes: numbers.next()?, ms: numbers.next()? };
        }
        Some(book)
    }
}

/// The bytes of all endpoints.
#[derive(Debug)]
pub(super) struct Egress {
    /// The most of a day.
    daily: Option<u64>,
    path: PathBuf,
    book: RefCell<Book>,
    /// What the file says of the day in use.
    written: Cell<Day>,
    /// When live metrics and live logs were last sent.
    last: Cell<[Option<Instant>; 2]>,
    /// How long after midnight who waits for it goes.
    spread: Duration,
    write: Arc<AtomicU8>,
    running: RefCell<Option<JoinHandle<()>>>,
    writes: Cell<u32>,
    told: Cell<bool>,
}

impl Egress {
    /// The counts that the last run has left in the state directory. `daily`: the most bytes of a day, or
    /// None for no bound; then nothing is kept.
    pub(super) fn open(state_dir: &Path, daily: Option<u64>, now_ms: i64) -> Egress {
        let path = state_dir.join("egress");
        let mut book = Book::default();
        if let Some(daily) = daily {
            book = match fs::read(&path) {
                Ok(bytes) => Book::from_bytes(&bytes).unwrap_or_else(|| {
                    log::warn!(
                        "{} is damaged: the part of egress.daily counts as used that is the part of the day gone by",
                        path.display()
                    );
                    guessed(daily, now_ms)
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Book::default(),
                Err(error) => {
                    log::warn!(
                        "reading {}: {error}; the part of egress.daily counts as used that is the part of the day gone by",
                        path.display()
                    );
                    guessed(daily, now_ms)
                }
            };
        }
        Egress::of(book, path, daily, now_ms)
    }

    fn of(mut book: Book, path: PathBuf, daily: Option<u64>, now_ms: i64) -> Egress {
        book.turn_to(day(now_ms));
        Egress {
            daily,
            path,
            written: Cell::new(book.days[0]),
            book: RefCell::new(book),
            last: Cell::default(),
            spread: Random::new().up_to(SPREAD),
            write: Arc::new(AtomicU8::new(IDLE)),
            running: RefCell::default(),
            writes: Cell::new(0),
            told: Cell::new(false),
        }
    }

    /// Why this has to wait now and how long at least, if it has to.
    pub(super) fn wait(&self, share: Share, now_ms: i64) -> Option<(Reason, Duration)> {
        let daily = self.daily?;
        let mut book = self.book.borrow_mut();
        book.turn_to(day(now_ms));
        let left = daily.saturating_sub(book.days[0].bytes);
        let until_ms = u64::try_from(DAY_MS - now_ms.rem_euclid(DAY_MS)).unwrap_or(0);
        let midnight = Duration::from_millis(until_ms).saturating_add(self.spread);
        if left == 0 {
            // A day of a clock that is right then may begin earlier.
            return Some((Reason::Spent, midnight.min(LOOK * 6)));
        }
        let needed = match share {
            Share::LiveMetrics => 0,
            Share::LiveLogs => book.metrics.within(until_ms),
            Share::Backlog => {
                book.metrics.within(until_ms).saturating_add(book.logs.within(until_ms))
            }
        };
        (left <= needed).then(|| (Reason::Reserved, midnight.min(LOOK)))
    }

    /// So many bytes were sent.
    pub(super) fn spent(&self, share: Share, bytes: u64, now_ms: i64) {
        let Some(daily) = self.daily.filter(|_| bytes > 0) else { return };
        let mut book = self.book.borrow_mut();
        book.turn_to(day(now_ms));
        book.days[0].bytes = book.days[0].bytes.saturating_add(bytes);
        let mut last = self.last.get();
        let (need, last_sent) = match share {
            Share::LiveMetrics => (Some(&mut book.metrics), last.first_mut()),
            Share::LiveLogs => (Some(&mut book.logs), last.last_mut()),
            Share::Backlog => (None, None),
        };
        if let (Some(need), Some(last_sent)) = (need, last_sent) {
            // What can't be sent for hours does not need less for it.
            let since = last_sent.map_or(Duration::ZERO, |last| last.elapsed());
            let ms = u64::try_from(since.as_millis()).unwrap_or(HOUR_MS).min(HOUR_MS);
            // The first one stands for a time that is not known.
            need.add(if last_sent.is_some() { bytes } else { 0 }, ms);
            *last_sent = Some(Instant::now());
        }
        self.last.set(last);
        let (now, said) = (book.days[0], self.written.get());
        if said.number != now.number || said.bytes < now.bytes {
            let chunk = (daily / CHUNK).max(MIN_CHUNK);
            let mut ahead = *book;
            ahead.days[0].bytes = now.bytes.saturating_add(chunk).min(daily.max(now.bytes));
            drop(book);
            self.begin_write(ahead);
        }
    }

    /// Writes the exact count, if the disk does that in [`PATIENCE`]. Called once, when nothing is sent any more.
    pub(super) async fn close(&self) {
        let book = *self.book.borrow();
        if self.daily.is_none() || book.days[0].number <= 0 {
            return;
        }
        let (path, running) = (self.path.clone(), self.running.take());
        let all = async {
            if let Some(running) = running {
                // Two writers of one file would tear it.
                let _ = running.await;
            }
            tokio::task::spawn_blocking(move || write(&path, &book.to_bytes())).await
        };
        let failed = match tokio::time::timeout(PATIENCE, all).await {
            Ok(Ok(written)) => written.err().map(|error| error.to_string()),
            Ok(Err(_)) => None,
            Err(_) => Some(format!("the disk does not finish in {} s", PATIENCE.as_secs())),
        };
        if let Some(error) = failed {
            log::warn!(
                "writing {}: {error}; egress.daily goes on from what it says",
                self.path.display()
            );
        }
    }

    /// The bound, and what was sent of it today.
    pub(super) fn day(&self, now_ms: i64) -> Option<(u64, u64)> {
        let mut book = self.book.borrow_mut();
        book.turn_to(day(now_ms));
        Some((self.daily?, book.days[0].bytes))
    }

    /// One write at a time, on a thread of tokio's: a tired card must not hang the agent.
    fn begin_write(&self, book: Book) {
        match self.write.load(Ordering::Relaxed) {
            WRITING => return,
            FAILED if !self.told.replace(true) => log::warn!(
                "{} can't be written: after a restart egress.daily counts from what it says",
                self.path.display()
            ),
            IDLE => self.told.set(false),
            _ => {}
        }
        self.written.set(book.days[0]);
        self.writes.set(self.writes.get().saturating_add(1));
        let (path, bytes, state) = (self.path.clone(), book.to_bytes(), Arc::clone(&self.write));
        let work = move || {
            let result = if write(&path, &bytes).is_ok() { IDLE } else { FAILED };
            state.store(result, Ordering::Relaxed);
        };
        self.write.store(WRITING, Ordering::Relaxed);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(self.running.replace(Some(runtime.spawn_blocking(work)))),
            Err(_) => work(),
        }
    }
}

/// What a file of these bytes is written as again, and whether live metrics wait before and after so many bytes of
/// them. For the fuzz targets.
#[doc(hidden)]
pub fn egress_of(bytes: &[u8], daily: u64, now_ms: i64, sent: u64) -> Option<(Vec<u8>, [bool; 2])> {
    let book = Book::from_bytes(bytes)?;
    // A file that can't be made.
    let egress = Egress::of(book, PathBuf::new(), Some(daily), now_ms);
    let waits = || {
        let all = [Share::LiveMetrics, Share::LiveLogs, Share::Backlog];
        all.map(|share| egress.wait(share, now_ms).is_some())[0]
    };
    let before = waits();
    for share in [Share::LiveMetrics, Share::LiveLogs, Share::Backlog] {
        egress.spent(share, sent, now_ms);
        egress.spent(share, sent, now_ms.saturating_add(DAY_MS / 2));
    }
    egress.spent(Share::LiveMetrics, sent, now_ms);
    Some((book.to_bytes().to_vec(), [before, waits()]))
}

fn day(now_ms: i64) -> i64 {
    now_ms.div_euclid(DAY_MS)
}

/// Of a file that can't be read.
fn guessed(daily: u64, now_ms: i64) -> Book {
    let gone = u128::from(daily) * now_ms.rem_euclid(DAY_MS) as u128 / DAY_MS as u128;
    let mut book = Book::default();
    book.days[0] = Day { number: day(now_ms), bytes: u64::try_from(gone).unwrap_or(daily) };
    book
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
