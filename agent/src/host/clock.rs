//! Time as a part that can be exchanged, so that tests don't sleep and the wall clock may be wrong.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall-clock time. Intervals and timeouts are tokio's, whose clock tests can pause and advance.
pub trait Clock {
    /// Nanoseconds since the Unix epoch; negative before 1970.
    fn now_ns(&self) -> i64;

    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64 {
        self.now_ns().div_euclid(1_000_000)
    }
}

/// The kernel's CLOCK_REALTIME.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => nanos(since),
            Err(before) => -nanos(before.duration()),
        }
    }
}

/// A clock that a test sets.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Rc<Cell<i64>>);

impl ManualClock {
    /// A clock that shows this time, in nanoseconds since the Unix epoch.
    pub fn at(now_ns: i64) -> ManualClock {
        ManualClock(Rc::new(Cell::new(now_ns)))
    }

    /// Sets the time, also backwards.
    pub fn set(&self, now_ns: i64) {
        self.0.set(now_ns);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.0.get()
    }
}
