//! The clock as the tasks of the pipeline share it: what records are stamped with, whether they are held, and what
//! readers give held records for times. The rules are those of [`crate::clock`].
//!
//! A look is taken for each round and each block; nothing wakes up for it. What a look finds out is on the disk
//! before a reader uses it ([`Time::keep`]).

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};

use super::Phase;
use super::log::Log;
use super::losses::Dropped;
use crate::clock::{Belief, Book, Boot, Doubt, Look, Stamp, Unknown, estimate};
use crate::config::Config;
use crate::host::{BootId, Clock, Roots, boot_id, system_clock};
use crate::status::ClockReport;
use crate::wal::UNTIMED;

/// The book's name in the state directory.
const BOOK: &str = "clock";

/// systemd-timesyncd touches it whenever it has set the clock (systemd-timesyncd.service(8)).
const MARKER: &str = "run/systemd/timesync/synchronized";

/// How long the disk may take to write the book before it is gone on without.
const PATIENCE: Duration = Duration::from_secs(30);

/// A book that could not be written is written again at a look so long after that.
const AGAIN_MS: i64 = 60_000;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// A server's clock that differs by more is told of. Its answer is exact to a second and the time it took.
const WITNESS_MS: i64 = 120_000;

/// The clock.
pub(super) struct Time {
    clock: Rc<dyn Clock>,
    marker: PathBuf,
    path: PathBuf,
    belief: RefCell<Belief>,
    /// What readers use: it is on the disk, or can't be brought there.
    book: RefCell<Book>,
    /// What is on its way into the book.
    found: RefCell<Vec<Boot>>,
    changed: Notify,
    /// Whoever writes the book holds it, also when nobody waits for that any more.
    saving: Arc<Mutex<()>>,
    /// When the book could not be written, by the time since the boot.
    unsaved_ms: Cell<Option<i64>>,
    /// The last time, that is.
    failed: Cell<bool>,
    /// It is time to write it again.
    again: Cell<bool>,
    /// Something was held, or is in the WAL: without that, a book that can't be written is no loss.
    matters: Cell<bool>,
    /// Those of the running pipeline, which alone keeps them open.
    logs: RefCell<Vec<Weak<Log>>>,
    dropped: Rc<Dropped>,
    /// Samples and entries that were given estimated times.
    estimated: Cell<[u64; 2]>,
    /// By how much the clock of a server was ahead at its last answer.
    server_ahead_ms: Cell<Option<i64>>,
}

/// A moment by the wall clock, and whether what is of it is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Milliseconds since the Unix epoch.
    pub(super) ms: i64,
    stamp: Option<Stamp>,
}

impl Now {
    /// The same clock at another moment.
    pub(super) fn at(self, ms: i64) -> Now {
        Now { ms, ..self }
    }

    /// The kind of a record of this moment.
    pub(super) fn kind(&self, kind: u8) -> u8 {
        if self.stamp.is_some() { kind | UNTIMED } else { kind }
    }

    /// Writes what stands before the payload of a record of this moment.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        if let Some(stamp) = &self.stamp {
            stamp.put(out);
        }
    }
}

impl Time {
    /// The kernel's clock, believed whatever it says: for rounds that go nowhere.
    pub(super) fn believed() -> Time {
        let belief = Belief::new(None, 0, None);
        let dropped = Rc::new(Dropped::new(system_clock()));
        Time::with(system_clock(), belief, &Roots::default(), PathBuf::new(), dropped)
    }

    /// The kernel's clock of this boot, with what the book says. `newest_ms` is the newest time in the WAL that was
    /// believed.
    pub(super) fn new(config: &Config, newest_ms: Option<i64>, dropped: Rc<Dropped>) -> Time {
        let boot = boot_id(&config.host.proc);
        if boot.is_none() {
            log::warn!(
                "{} says no boot's id: the clock is believed whatever it says",
                config.host.proc.join("sys/kernel/random/boot_id").display()
            );
        }
        let path = config.agent.state_dir.join(BOOK);
        let belief = Belief::new(boot, wait_ms(config), newest_ms);
        Time::load(system_clock(), belief, &config.host, path, dropped)
    }

    fn load(
        clock: Rc<dyn Clock>,
        mut belief: Belief,
        roots: &Roots,
        path: PathBuf,
        dropped: Rc<Dropped>,
    ) -> Time {
        let book = Book::load(&path).unwrap_or_else(|error| {
            log::error!(
                "reading {}: {error}; records that earlier boots held, if there are any, get estimated times",
                path.display()
            );
            Book::default()
        });
        if belief.boot().and_then(|boot| book.get(&boot)).is_some() {
            belief.remember();
        }
        let time = Time::with(clock, belief, roots, path, dropped);
        time.book.replace(book);
        time
    }

    fn with(
        clock: Rc<dyn Clock>,
        belief: Belief,
        roots: &Roots,
        path: PathBuf,
        dropped: Rc<Dropped>,
    ) -> Time {
        Time {
            clock,
            marker: roots.root.join(MARKER),
            path,
            belief: RefCell::new(belief),
            book: RefCell::default(),
            found: RefCell::default(),
            changed: Notify::new(),
            saving: Arc::default(),
            unsaved_ms: Cell::default(),
            failed: Cell::default(),
            again: Cell::default(),
            matters: Cell::default(),
            logs: RefCell::default(),
            dropped,
            estimated: Cell::default(),
            server_ahead_ms: Cell::default(),
        }
    }

    /// Whether it goes on with another configuration.
    pub(super) fn fits(&self, config: &Config) -> bool {
        self.path == config.agent.state_dir.join(BOOK)
            && self.marker == config.host.root.join(MARKER)
    }

    /// The configuration and the WALs of a pipeline.
    pub(super) fn begin(&self, config: &Config, logs: &[&Rc<Log>]) {
        self.belief.borrow_mut().set_wait(wait_ms(config));
        self.logs.replace(logs.iter().map(|log| Rc::downgrade(log)).collect());
        self.look();
        if wait_ms(config) > 0 && self.nobody_can_vouch() {
            log::warn!(
                "adjtimex(2) is forbidden here, and {} is not there: nothing can vouch for the clock, and it is believed {} s after the boot (clock.wait); allow the call where the agent is started",
                self.marker.display(),
                wait_ms(config) / 1000
            );
        }
        let belief = self.belief.borrow();
        if belief.reason().is_none() {
            log::warn!(
                "the clock is not synchronised: what is collected is held in the WAL until it is, or until {} s after the boot (clock.wait)",
                wait_ms(config) / 1000
            );
        }
    }

    /// Whether neither the kernel nor timesyncd says anything of the clock.
    fn nobody_can_vouch(&self) -> bool {
        self.clock.discipline().forbidden && !self.marker.exists()
    }

    /// How often the clock was set, as far as looks have seen it.
    pub(super) fn steps(&self) -> u64 {
        self.belief.borrow().steps().into_iter().sum()
    }

    /// Looks at the clock, for a record of this moment.
    pub(super) fn look(&self) -> Now {
        let discipline = self.clock.discipline();
        let vouched = discipline.synchronised || self.marker.exists();
        // After that: a clock that is set in between must not be believed as it was before.
        let (wall_ms, boot_ms) = self.clock.both_ms();
        let tick_ppm = discipline.tick_ppm;
        let mut belief = self.belief.borrow_mut();
        let was = belief.offset_ms();
        let is_held = belief.reason().is_none();
        let seen = belief.look(Look { wall_ms, boot_ms, vouched, tick_ppm });
        if let Some(step_ms) = seen.step_ms {
            let (way, by) = if step_ms > 0 { ("forward", step_ms) } else { ("back", -step_ms) };
            log::warn!("the clock was set {way} by {:.1} s", by as f64 / 1000.0);
            if is_held {
                // From what it showed at the boot on.
                let until = was.saturating_add(boot_ms).saturating_add(1_000);
                self.dropped.shift(was..=until, step_ms);
            }
        }
        match seen.doubt {
            Some(Doubt::BeforeRelease) => log::error!(
                "nothing has synchronised the clock, and it is before the release of this program: what is collected stays in the WAL, up to its bound, until the clock is set"
            ),
            Some(Doubt::BeforeNewest(newest)) => log::error!(
                "nothing has synchronised the clock, and it is {:.0} s behind what is in the WAL: what is collected stays there, up to its bound, until the clock has passed it or is synchronised",
                newest.saturating_sub(wall_ms) as f64 / 1000.0
            ),
            None => {}
        }
        if let Some(reason) = seen.begins
            && let Some(id) = belief.boot()
        {
            log::info!("the clock is believed: {reason}");
            let boot = Boot { id, true_ms: belief.offset_ms(), estimated: false };
            self.found.borrow_mut().push(boot);
            self.changed.notify_one();
        }
        if self.unsaved_ms.get().is_some_and(|at| boot_ms.saturating_sub(at) > AGAIN_MS) {
            self.unsaved_ms.set(None);
            self.again.set(true);
            self.changed.notify_one();
        }
        let stamp = belief.stamp();
        self.matters.set(self.matters.get() || stamp.is_some());
        Now { ms: wall_ms, stamp }
    }

    /// The wall clock, if the last look has found somebody who vouches for it, in milliseconds since the Unix epoch.
    pub(super) fn vouched_ms(&self) -> Option<i64> {
        let is_vouched = self.belief.borrow().last().is_some_and(|look| look.vouched);
        is_vouched.then(|| self.clock.now_ms())
    }

    /// Looks at the clock, for a record with entries of which the oldest is of this time.
    pub(super) fn look_for(&self, oldest_ms: Option<i64>) -> Now {
        let now = self.look();
        let stamp = oldest_ms.and_then(|at_ms| self.belief.borrow().stamp_of(at_ms));
        Now { stamp: now.stamp.or(stamp), ..now }
    }

    /// Whether the last look has not believed the clock.
    pub(super) fn is_held(&self) -> bool {
        self.belief.borrow().reason().is_none()
    }

    /// What is later than this was told by a clock that was wrong, as far as this one can tell.
    pub(super) fn latest_ms(&self) -> i64 {
        if self.is_held() { i64::MAX } else { self.clock.now_ms().saturating_add(DAY_MS) }
    }

    /// How long records are held already.
    pub(super) fn held_ms(&self) -> i64 {
        let belief = self.belief.borrow();
        let began = belief.began_ms().filter(|_| belief.reason().is_none());
        began.map_or(0, |began| self.clock.boot_ms().saturating_sub(began))
    }

    /// Whether it is not known yet when the clock will be right, and may be soon.
    pub(super) fn is_pending(&self) -> bool {
        self.is_held() && self.belief.borrow().doubt().is_none()
    }

    /// A boot's true offset; None as long as readers have to wait for it.
    pub(super) fn boot(&self, id: &BootId) -> Option<Boot> {
        self.matters.set(true);
        self.book.borrow().get(id)
    }

    /// Counts items that were given estimated times.
    pub(super) fn count_estimated(&self, signal: &str, items: u64) {
        let [samples, entries] = self.estimated.get();
        self.estimated.set(match signal {
            "metrics" => [samples + items, entries],
            _ => [samples, entries + items],
        });
    }

    /// Places a boot that is over and never learned the time, and all others like it in the WALs, if that can be done.
    pub(super) fn place(&self, id: &BootId) {
        let (own, offset_ms) = (self.belief.borrow().boot(), self.belief.borrow().offset_ms());
        let is_on_its_way = self.found.borrow().iter().any(|boot| boot.id == *id);
        if is_on_its_way || own == Some(*id) {
            return;
        }
        // A kernel that does not tell one boot from another is believed.
        let own_ms = own.map_or(Some(offset_ms), |own| self.boot(&own).map(|own| own.true_ms));
        let Some(own_ms) = own_ms else { return };
        // This boot began after all that earlier ones have written.
        let mut boots: Vec<Unknown> = Vec::new();
        let mut followed: Vec<(usize, usize)> = Vec::new();
        for log in self.logs.borrow().iter().filter_map(Weak::upgrade) {
            // The boot of the newest record that was seen, if that is one of them.
            let mut at = None;
            log.scan_stamps(|record, stamp| {
                let real = match stamp {
                    None => Some(record.time_ms),
                    Some(stamp) => self
                        .boot(&stamp.boot)
                        .map(|boot| stamp.real_ms(record.time_ms, boot.true_ms)),
                };
                if let Some(real) = real {
                    if let Some(before) = at.and_then(|at: usize| boots.get_mut(at)) {
                        before.bound_ms = before.bound_ms.min(real);
                    }
                    return;
                }
                let Some(stamp) = stamp else { return };
                let last_ms = stamp.boot_ms(record.time_ms);
                let index = boots.iter().position(|boot| boot.id == stamp.boot);
                let index = index.unwrap_or_else(|| {
                    boots.push(Unknown { id: stamp.boot, last_ms, bound_ms: own_ms });
                    boots.len() - 1
                });
                if let Some(boot) = boots.get_mut(index) {
                    boot.last_ms = boot.last_ms.max(last_ms);
                }
                if let Some(before) = at.replace(index).filter(|before| *before != index) {
                    followed.push((before, index));
                }
            });
        }
        for (id, true_ms) in estimate(&boots, &followed) {
            log::warn!(
                "a boot before this one ended before the time was known: its records are placed at the latest time that they can be of, up to {:.0} s after {}",
                boots.iter().find(|boot| boot.id == id).map_or(0, |boot| boot.last_ms) as f64
                    / 1000.0,
                super::losses::rfc3339(true_ms)
            );
            self.found.borrow_mut().push(Boot { id, true_ms, estimated: true });
        }
        self.changed.notify_one();
    }

    /// Brings into the book what was found out, and wakes the readers, until the agent drains.
    pub(super) async fn keep(self: Rc<Time>, mut phase: watch::Receiver<Phase>) {
        loop {
            if self.is_finding() || self.again.get() {
                self.save().await;
                continue;
            }
            if *phase.borrow() != Phase::Running {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// Whether something is on its way into the book: readers may know more times then.
    pub(super) fn is_finding(&self) -> bool {
        !self.found.borrow().is_empty()
    }

    /// Writes the book with what was found, and wakes the readers.
    pub(super) async fn save(&self) {
        self.again.set(false);
        let written = async {
            // Two writers of one file would tear it.
            let alone = Arc::clone(&self.saving).lock_owned().await;
            let (path, book) = (self.path.clone(), self.book_with(&self.found.borrow()));
            let work = move || {
                let _alone = alone;
                book.save(&path)
            };
            tokio::task::spawn_blocking(work).await
        };
        let found = self.found.borrow().clone();
        let failed = match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(result)) => result.err().map(|error| error.to_string()),
            Ok(Err(_)) => None,
            Err(_) => Some(format!("the disk does not finish in {} s", PATIENCE.as_secs())),
        };
        let failed_before = self.failed.replace(failed.is_some());
        self.unsaved_ms.set(failed.is_some().then(|| self.clock.boot_ms()));
        match failed {
            Some(error) if !failed_before && self.matters.get() => log::error!(
                "writing {}: {error}; should the machine reboot before what is held is sent, its times are estimated; it is tried again",
                self.path.display()
            ),
            None if failed_before => log::info!("{} is written again", self.path.display()),
            _ => {}
        }
        let book = self.book_with(&found);
        self.book.replace(book);
        self.found.borrow_mut().retain(|boot| !found.contains(boot));
        for log in self.logs.borrow().iter().filter_map(Weak::upgrade) {
            log.wake();
        }
    }

    /// The book with these boots.
    fn book_with(&self, found: &[Boot]) -> Book {
        let mut book = self.book.borrow().clone();
        let running = self.belief.borrow().boot();
        found.iter().for_each(|boot| book.add(*boot, running.as_ref()));
        book
    }

    /// What a server's clock said now; whether it differed so far is the server's own.
    pub(super) fn server_says(&self, name: &str, was: &mut bool, server_ms: i64) {
        let ahead = server_ms.saturating_sub(self.clock.now_ms());
        self.server_ahead_ms.set(Some(ahead));
        let differs = ahead.saturating_abs() > WITNESS_MS && !self.is_held();
        if differs == std::mem::replace(was, differs) {
            return;
        }
        let by = ahead.saturating_abs() as f64 / 1000.0;
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        if differs {
            log::warn!("{name}: the server's clock is {by:.0} s {way} this one, which is believed");
        } else {
            log::info!("{name}: the server's clock agrees with this one again");
        }
    }

    /// For the status.
    pub(super) fn fill(&self, report: &mut ClockReport) {
        let belief = self.belief.borrow();
        let [steps_forward, steps_backward] = belief.steps();
        let [estimated_samples, estimated_entries] = self.estimated.get();
        let mut why = std::mem::take(&mut report.why);
        why.clear();
        // Writing to a string does not fail.
        let _ = match (belief.reason(), belief.doubt()) {
            (Some(reason), _) => write!(why, "{reason}"),
            (None, None) => why.write_str("nothing has synchronised it"),
            (None, Some(Doubt::BeforeRelease)) => {
                why.write_str("it is before the release of this program")
            }
            (None, Some(Doubt::BeforeNewest(_))) => {
                why.write_str("it is behind what is in the WAL, and nothing has synchronised it")
            }
        };
        *report = ClockReport {
            synchronised: belief.last().is_some_and(|look| look.vouched),
            held: belief.reason().is_none(),
            why,
            held_seconds: self.held_ms() as f64 / 1000.0,
            steps_forward,
            steps_backward,
            estimated_samples,
            estimated_entries,
            server_ahead_seconds: self.server_ahead_ms.get().map(|ms| ms as f64 / 1000.0),
        };
    }

    #[cfg(test)]
    pub(super) fn report(&self) -> ClockReport {
        let mut report = ClockReport::default();
        self.fill(&mut report);
        report
    }
}

fn wait_ms(config: &Config) -> i64 {
    i64::try_from(config.clock_wait.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
