//! Waits of seconds and more that cost one wake-up, or none: all of them share one timer of the kernel's, and
//! what need not be exact goes along with what is. It must not know who waits for what.
//!
//! tokio's own timers are kept in a wheel of six levels: one that is a minute away is moved down twice before
//! it is due, and for each move the thread wakes up (tokio 1.54, `runtime/time/wheel`). They are for what is
//! over soon or is given up, as a timeout. Where no [`Alarm`] is installed, as in tests with a clock of their own, the
//! waits here are tokio's, too, and end as early as they may.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Waits at once that the timer is for; more of them take tokio's. A host has some ten, and one for each
/// scraped target.
const PLACES: usize = 64;

thread_local! {
    static INSTALLED: RefCell<Option<Rc<Alarm>>> = const { RefCell::new(None) };
}

/// The timer of a thread and who waits for it.
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    waits: RefCell<Waits>,
    /// For when the timer is set.
    set: Cell<Option<Instant>>,
}

/// Who waits.
type Waits = heapless::Vec<Wait, PLACES>;

struct Wait {
    id: u32,
    /// When it may end, and when it has to.
    from: Instant,
    until: Instant,
    /// None once it was woken.
    waker: Option<Waker>,
}

impl Alarm {
    /// Makes the timer of this thread, for as long as what is returned lives. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// The kernel's, which has no more descriptors.
    pub fn install() -> io::Result<Installed> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = register(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        let alarm = Rc::new(Alarm { timer, waits: RefCell::default(), set: Cell::default() });
        INSTALLED.set(Some(Rc::clone(&alarm)));
        Ok(Installed(alarm))
    }

    /// Takes a place, or says that there is none.
    fn enter(&self, from: Instant, until: Instant) -> Option<u32> {
        let mut waits = self.waits.borrow_mut();
        // One that no other has; they are few.
        let id = (0..=PLACES as u32).find(|id| waits.iter().all(|wait| wait.id != *id))?;
        waits.push(Wait { id, from, until, waker: None }).ok()?;
        Some(id)
    }

    /// Sets the timer to the earliest moment by which somebody has to be woken.
    fn arm(&self) {
        let waits = self.waits.borrow();
        let next = waits.iter().filter(|wait| wait.waker.is_some()).map(|wait| wait.until).min();
        if self.set.replace(next) == next {
            return;
        }
        let left = next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1))
        });
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: left };
        // It fails for what is no timer and what is no time.
        let _ = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once);
    }

    /// Wakes all whose time has come.
    fn wake(&self) {
        let now = Instant::now();
        let mut waits = self.waits.borrow_mut();
        let due = waits.iter_mut().filter(|wait| wait.from <= now);
        due.filter_map(|wait| wait.waker.take()).for_each(Waker::wake);
    }

    fn poll_timer(&self, context: &mut Context<'_>) {
        while let Poll::Ready(Ok(mut guard)) = self.timer.poll_read_ready(context) {
            guard.clear_ready();
            let mut times = [0; 8];
            let _ = rustix::io::read(self.timer.get_ref(), &mut times);
            self.set.set(None);
            self.wake();
            self.arm();
        }
    }
}

/// An alarm that is there until this is dropped.
pub struct Installed(Rc<Alarm>);

impl Installed {
    /// Runs what waits by it.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        poll_fn(|context| {
            self.0.poll_timer(context);
            future.as_mut().poll(context)
        })
        .await
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        INSTALLED.set(None);
    }
}

/// A place among those who wait, given back when it is dropped.
struct Place {
    alarm: Rc<Alarm>,
    id: u32,
}

impl Place {
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut waits = self.alarm.waits.borrow_mut();
        let Some(wait) = waits.iter_mut().find(|wait| wait.id == self.id) else {
            return Poll::Ready(());
        };
        if wait.from <= Instant::now() {
            return Poll::Ready(());
        }
        match &mut wait.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        drop(waits);
        self.alarm.arm();
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.alarm.waits.borrow_mut().retain(|wait| wait.id != self.id);
        self.alarm.arm();
    }
}

/// Waits until then.
pub async fn sleep_until(then: Instant) {
    sleep_between(then, then).await;
}

/// Waits for so long.
pub async fn sleep(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

/// Waits for so long, or up to a quarter of it less or more: with the first wake-up in that time, or, if
/// there is none, at its end.
pub async fn sleep_about(time: Duration) {
    let now = Instant::now();
    sleep_between(now + early(time), now + late(time)).await;
}

/// How early and how late something may be that is to come about once in that time.
pub fn early(time: Duration) -> Duration {
    time - time / 4
}

/// See [`early`].
pub fn late(time: Duration) -> Duration {
    time + time / 4
}

/// Waits until there is a wake-up after `from`, and not longer than `until`.
pub async fn sleep_between(from: Instant, until: Instant) {
    let alarm = INSTALLED.with_borrow(Clone::clone);
    let place = alarm.and_then(|alarm| {
        let id = alarm.enter(from, until)?;
        Some(Place { alarm, id })
    });
    match place {
        Some(place) => poll_fn(|context| place.poll(context)).await,
        None => tokio::time::sleep_until(from).await,
    }
}

#[allow(unsafe_code)]
fn register(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the AsyncFd, which never hands it out; nothing replaces or
    // closes it while it is registered.
    unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn with_alarm<F: Future>(test: impl FnOnce(Rc<Alarm>) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let installed = Alarm::install().unwrap();
        runtime.block_on(installed.run(test(Rc::clone(&installed.0))))
    }

    #[test]
    fn a_wait_ends_when_it_is_due_and_not_before() {
        with_alarm(|alarm| async move {
            let began = Instant::now();
            let (mut order, first) = (Vec::new(), Instant::now() + 60 * MS);
            let later = async { sleep(120 * MS).await };
            tokio::join!(later, async {
                sleep_until(first).await;
                order.push(began.elapsed());
            });
            assert!(order[0] >= 60 * MS && began.elapsed() >= 120 * MS, "{order:?}");
            assert!(began.elapsed() < Duration::from_secs(20));
            // What is over at once takes no time, and what is over leaves nothing behind.
            sleep(Duration::ZERO).await;
            sleep_until(began).await;
            assert!(alarm.waits.borrow().is_empty() && alarm.set.get().is_none());
        });
    }

    #[test]
    fn what_need_not_be_exact_goes_along_with_what_is() {
        with_alarm(|alarm| async move {
            let now = Instant::now();
            let hour = Duration::from_secs(3_600);
            let lax = sleep_between(now + 30 * MS, now + hour);
            let strict = sleep(50 * MS);
            let set = async {
                tokio::task::yield_now().await;
                alarm.set.get()
            };
            let ((), (), set) = tokio::join!(lax, strict, set);
            assert!(set.unwrap() < now + hour && now.elapsed() < hour);
            // And alone it is woken when it has to be.
            let now = Instant::now();
            sleep_between(now, now + hour).await;
            sleep_between(now + MS, now + 40 * MS).await;
            assert!(now.elapsed() >= 40 * MS);
        });
    }

    #[test]
    fn a_wait_that_is_given_up_wakes_nobody() {
        with_alarm(|alarm| async move {
            let hour = Duration::from_secs(3_600);
            let given_up = tokio::time::timeout(20 * MS, sleep(hour)).await;
            assert!(given_up.is_err());
            assert!(alarm.waits.borrow().is_empty() && alarm.set.get().is_none());
        });
    }

    #[test]
    fn waits_without_a_place_take_tokios_timers() {
        with_alarm(|alarm| async move {
            let mut all = tokio::task::JoinSet::new();
            let local = tokio::task::LocalSet::new();
            let began = Instant::now();
            local
                .run_until(async {
                    for _ in 0..PLACES + 1 {
                        all.spawn_local(sleep_until(began + 50 * MS));
                    }
                    while alarm.waits.borrow().len() < PLACES {
                        tokio::task::yield_now().await;
                    }
                    while all.join_next().await.is_some() {}
                })
                .await;
            assert!(began.elapsed() >= 50 * MS && alarm.waits.borrow().is_empty());
        });
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_alarm_a_clock_of_a_tests_own_is_kept_to() {
        let began = Instant::now();
        sleep_about(Duration::from_secs(60)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(45));
    }
}
