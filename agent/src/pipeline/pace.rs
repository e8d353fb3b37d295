//! How fast an endpoint is sent to: a bound in bytes a second, so that a backlog neither fills the link nor
//! runs into the server's own limit, and the lower speed that a server's 429 asks for. It must not know what
//! is sent.
//!
//! A request goes as long as nothing is owed, and its bytes are owed from then on; what is owed shrinks by the
//! rate. So a request may be larger than what a second allows, and after a silence a second's worth goes at
//! once. Each 429 halves the rate, down to [`SLOWEST`], and each accepted request raises it by a sixteenth, up
//! to the bound.

use std::time::Duration;

use tokio::time::Instant;

/// What a server that keeps saying 429 is still sent, in bytes a second.
const SLOWEST: u64 = 16 << 10;

/// The pace of one endpoint.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second that are allowed at most.
    bound: u64,
    /// Bytes a second that the server takes, as far as is known.
    rate: u64,
    /// When nothing is owed any more, if it were for the current rate.
    free_at: Option<Instant>,
}

impl Pace {
    /// A pace of at most so many bytes a second; None for no bound.
    pub(super) fn new(bound: Option<u64>) -> Pace {
        let bound = bound.unwrap_or(u64::MAX).max(1);
        Pace { bound, rate: bound, free_at: None }
    }

    /// When the next request may go.
    pub(super) fn next_at(&mut self, now: Instant) -> Instant {
        self.free_at.unwrap_or(now).max(now)
    }

    /// A request of so many bytes goes now.
    pub(super) fn sent(&mut self, bytes: u64, now: Instant) {
        let owed = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        // A second of silence is worth a second's bytes, not more.
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        self.free_at = Some(self.free_at.unwrap_or(earliest).max(earliest) + owed);
    }

    /// The request was answered with this code, or with none, after this time; `backlog` says whether more
    /// waits than what is live.
    pub(super) fn answered(
        &mut self,
        code: Option<u16>,
        _took: Duration,
        _backlog: bool,
        _now: Instant,
    ) {
        match code {
            Some(429) if self.bound < u64::MAX => {
                self.rate = (self.rate / 2).max(SLOWEST.min(self.bound));
            }
            Some(200..300) => {
                self.rate = self.rate.saturating_add(self.rate / 16 + 1).min(self.bound);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes to send so many requests of so many bytes.
    fn time(pace: &mut Pace, requests: u32, bytes: u64, from: Instant) -> Duration {
        let mut now = from;
        for _ in 0..requests {
            now = pace.next_at(now);
            pace.sent(bytes, now);
        }
        pace.next_at(now) - from
    }

    #[test]
    fn backlog_goes_at_the_rate_whatever_its_requests_are() {
        let start = Instant::now();
        for (requests, bytes) in [(1_000, 1_000), (10, 100_000), (2, 500_000)] {
            let mut pace = Pace::new(Some(100_000));
            // A megabyte, of which a second's worth goes at once.
            let took = time(&mut pace, requests, bytes, start).as_secs_f64();
            assert!((took - 9.0).abs() < 0.01, "{requests} of {bytes}: {took}");
        }
    }

    #[test]
    fn silence_is_worth_a_second_and_not_more() {
        let mut pace = Pace::new(Some(100_000));
        let start = Instant::now();
        time(&mut pace, 5, 100_000, start);
        let later = start + Duration::from_secs(3_600);
        let took = time(&mut pace, 3, 100_000, later).as_secs_f64();
        assert!((took - 2.0).abs() < 0.01, "{took}");
    }

    #[test]
    fn server_that_says_too_much_is_sent_less_and_then_more_again() {
        let mut pace = Pace::new(Some(1 << 20));
        let answered = |pace: &mut Pace, code, times| {
            (0..times).for_each(|_| {
                pace.answered(Some(code), Duration::ZERO, false, Instant::now());
            });
        };
        answered(&mut pace, 429, 1);
        assert_eq!(pace.rate, 512 << 10);
        answered(&mut pace, 429, 100);
        assert_eq!(pace.rate, SLOWEST);
        answered(&mut pace, 204, 100);
        assert_eq!(pace.rate, 1 << 20);
        // A bound below the slowest is kept.
        let mut slow = Pace::new(Some(1_000));
        answered(&mut slow, 429, 1);
        assert_eq!(slow.rate, 1_000);
    }
}
