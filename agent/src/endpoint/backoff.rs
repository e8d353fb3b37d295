//! How long to wait before a request is tried again: exponential with a cap, and drawn at random over
//! the whole range, so that a thousand agents don't return to a mended server in step. It must not know
//! what failed.
//!
//! So a mended server is tried again at most `max` after it was mended (unless it asked for more by
//! Retry-After, which is believed up to an hour), and a fleet whose pauses have all grown to `max` comes
//! back evenly over that time: `benches --bin fleet` shows it.

use std::fmt;
use std::time::Duration;

use super::random::Random;

/// The waits between tries of one endpoint.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
    random: Random,
}

/// Bounds that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffError {
    /// `min` is zero: a dead server would be tried without pause.
    Zero,
    /// `max` is less than `min`.
    Order,
}

impl fmt::Display for BackoffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackoffError::Zero => "backoff.min has to be more than zero",
            BackoffError::Order => "backoff.max has to be at least backoff.min",
        })
    }
}

impl std::error::Error for BackoffError {}

impl Backoff {
    /// Waits between these bounds, with a seed from the system.
    ///
    /// # Errors
    /// `min` is zero, or more than `max`.
    pub fn new(min: Duration, max: Duration) -> Result<Backoff, BackoffError> {
        Backoff::of(min, max, Random::new())
    }

    /// As [`new`](Backoff::new), with the same waits for the same seed.
    ///
    /// # Errors
    /// As [`new`](Backoff::new).
    pub fn with_seed(min: Duration, max: Duration, seed: u64) -> Result<Backoff, BackoffError> {
        Backoff::of(min, max, Random::with_seed(seed))
    }

    fn of(min: Duration, max: Duration, random: Random) -> Result<Backoff, BackoffError> {
        if min.is_zero() {
            return Err(BackoffError::Zero);
        }
        if max < min {
            return Err(BackoffError::Order);
        }
        Ok(Backoff { min, max, tries: 0, random })
    }

    /// The wait before the next try: after the n-th failure in a row drawn evenly between `min` and the
    /// lesser of `max` and `min`·2ⁿ. What the server asked for (Retry-After) is a lower bound, above
    /// which up to `min` is drawn.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        self.tries = self.tries.saturating_add(1);
        let factor = 1u32.checked_shl(self.tries).unwrap_or(u32::MAX);
        let ceiling = self.min.saturating_mul(factor).min(self.max);
        let drawn = self.min + self.random.up_to(ceiling.saturating_sub(self.min));
        match asked {
            Some(asked) if asked > drawn => asked.saturating_add(self.random.up_to(self.min)),
            _ => drawn,
        }
    }

    /// The server answered well: the next failure is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Failures since the last [`reset`](Backoff::reset).
    pub fn failures(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff(seed: u64) -> Backoff {
        Backoff::with_seed(SECOND, SECOND * 60, seed).unwrap()
    }

    #[test]
    fn each_wait_is_within_its_bounds_and_all_of_them_are_used() {
        for n in 1..=40u32 {
            let ceiling = SECOND.saturating_mul(1u32.checked_shl(n).unwrap_or(u32::MAX));
            let ceiling = ceiling.min(SECOND * 60);
            let mut quarters = [0u32; 4];
            for seed in 0..400 {
                let mut backoff = backoff(seed);
                let wait = (0..n).map(|_| backoff.next(None)).last().unwrap();
                assert!(wait >= SECOND && wait <= ceiling, "{n}: {wait:?}");
                let share = (wait - SECOND).as_secs_f64() / (ceiling - SECOND).as_secs_f64();
                quarters[((share * 4.0) as usize).min(3)] += 1;
                assert_eq!(backoff.failures(), n);
            }
            // 100 are expected in each; 55 is five standard deviations off.
            assert!(quarters.iter().all(|&q| (55..=145).contains(&q)), "{n}: {quarters:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_two_agents_differ() {
        let waits = |mut b: Backoff| (0..9).map(|_| b.next(None)).collect::<Vec<_>>();
        assert_eq!(waits(backoff(7)), waits(backoff(7)));
        let of_system = || waits(Backoff::new(SECOND, SECOND * 60).unwrap());
        assert_ne!(of_system(), of_system());
    }

    #[test]
    fn a_good_answer_starts_it_over() {
        let mut backoff = backoff(1);
        for _ in 0..1000 {
            backoff.next(None);
        }
        backoff.reset();
        assert!(backoff.next(None) <= SECOND * 2);
    }

    #[test]
    fn what_the_server_asks_for_is_the_least() {
        let hour = SECOND * 3600;
        for seed in 0..100 {
            let wait = backoff(seed).next(Some(hour));
            assert!(wait >= hour && wait <= hour + SECOND, "{wait:?}");
            assert_eq!(backoff(seed).next(Some(Duration::ZERO)), backoff(seed).next(None));
        }
        assert_eq!(backoff(1).next(Some(Duration::MAX)), Duration::MAX);
    }

    #[test]
    fn bounds_that_make_no_sense_are_refused() {
        let of = |min, max| Backoff::with_seed(min, max, 0).map(|_| ());
        assert_eq!(of(Duration::ZERO, SECOND), Err(BackoffError::Zero));
        assert_eq!(of(SECOND * 2, SECOND), Err(BackoffError::Order));
        let mut fixed = Backoff::with_seed(SECOND, SECOND, 3).unwrap();
        assert_eq!((fixed.next(None), fixed.next(None)), (SECOND, SECOND));
    }
}
