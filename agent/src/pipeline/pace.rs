//! When the next request to an endpoint may go: within a bound in bytes a second, and while a backlog drains
//! so that a fleet that does the same does not flatten the server. It must not know what is sent.
//!
//! **The bound** (`max_rate`). A request goes as long as nothing is owed, and its bytes are owed from then on;
//! what is owed shrinks by the rate. So a request may be larger than what a second allows, and after a silence
//! a second's worth goes at once. Each 429 halves the rate, down to [`SLOWEST`], and each accepted request
//! raises it by a sixteenth, up to the bound.
//!
//! **The drain.** While more waits than what is live, there is a pause before each request, drawn evenly
//! between half of its mean and one and a half times it. The mean is the longest of
//! - what the agent has learned: it begins with [`FIRST`], at the start and after each answer that is no
//!   answer to the data (none, 408, 429, 5xx, a wrong configuration), where it also doubles, up to
//!   [`LONGEST`]; each answer that is one makes it shorter by an eighth;
//! - what the server's answer took, [`SHARE`] times, and more where that is slow: with a quarter of a second that an
//!   answer takes it is twice as much. So no agent fills more than a fifth of the time with requests, and a server
//!   that gets slow is left alone by all agents together. At most [`LONGEST_FOR_SLOW`].
//!
//! Live data has no pause: its time is the host's own moment in the interval. Where manners would keep an
//! agent from ever catching up, over a link on which a request takes long whatever the server does, the second
//! part is halved every [`LOOK`] in which the age of what waits has not shrunk by half of that time.
//!
//! All numbers were chosen by the simulation of 10,000 agents in `benches/src/bin/fleet.rs`.

use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint::Random;

/// What a server that keeps saying 429 is still sent, in bytes a second.
const SLOWEST: u64 = 16 << 10;

/// The mean pause with which a drain begins.
const FIRST: Duration = Duration::from_secs(5);
/// The longest mean pause that bad answers lead to; the backoff comes on top.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest mean pause for a slow server.
const LONGEST_FOR_SLOW: Duration = Duration::from_secs(30);
/// How many times the time of an answer is paused.
const SHARE: f64 = 4.0;
/// The time of an answer with which the pause is twice that.
const SLOW: f64 = 0.25;
/// How long a drain is watched before it is judged.
const LOOK: Duration = Duration::from_secs(300);

/// The pace of one endpoint.
#[derive(Debug)]
pub struct Pace {
    bound: Option<Bound>,
    first: Duration,
    longest: Duration,
    pause: Duration,
    /// What the pause for the answer's time is multiplied with, because the drain gets nowhere.
    haste: f64,
    /// Since when the drain is watched, and how old what waits was then.
    watched: Option<(Instant, Duration)>,
    /// Before this nothing goes, for the sake of the server.
    not_before: Option<Instant>,
    random: Random,
}

impl Pace {
    /// A pace of at most so many bytes a second before compression; None for no bound.
    pub fn new(max_rate: Option<u64>) -> Pace {
        Pace::of(max_rate, Random::new())
    }

    /// As [`new`](Pace::new), with the same pauses for the same seed.
    pub fn with_seed(max_rate: Option<u64>, seed: u64) -> Pace {
        Pace::of(max_rate, Random::with_seed(seed))
    }

    fn of(max_rate: Option<u64>, random: Random) -> Pace {
        Pace {
            bound: max_rate.map(Bound::new),
            first: FIRST,
            longest: LONGEST,
            pause: FIRST,
            haste: 1.0,
            watched: None,
            not_before: None,
            random,
        }
    }

    /// As the user wants the backoff: a drain begins with five times its `min`, and after bad answers pauses
    /// for a fifth of its `max` at most. The defaults of both give [`FIRST`] and [`LONGEST`].
    #[must_use]
    pub fn beside(mut self, min: Duration, max: Duration) -> Pace {
        self.first = min.saturating_mul(5).min(LONGEST);
        self.longest = (max / 5).clamp(self.first, LONGEST);
        self.pause = self.first;
        self
    }

    /// When the next request may go.
    pub fn next_at(&mut self, now: Instant) -> Instant {
        let bound = self.bound.as_ref().and_then(|bound| bound.free_at);
        bound.into_iter().chain(self.not_before).fold(now, Instant::max)
    }

    /// A request of so many bytes before compression goes now.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        self.not_before = None;
        if let Some(bound) = &mut self.bound {
            bound.sent(bytes, now);
        }
    }

    /// What came of it, after how long, and whether more waits than what is live.
    pub fn answered(&mut self, code: Option<u16>, took: Duration, backlog: bool, now: Instant) {
        // What refuses the data has looked at it: it works.
        let works =
            matches!(code, Some(200..=299 | 400 | 402 | 406 | 409..=414 | 416..=428 | 430..=499));
        if works {
            self.pause = self.pause.saturating_sub(self.pause / 8 + Duration::from_millis(1));
        } else {
            self.pause = self.pause.saturating_mul(2).clamp(self.first, self.longest);
            self.watched = None;
        }
        match (&mut self.bound, code) {
            (Some(bound), Some(429)) => bound.refused(),
            (Some(bound), Some(200..=299)) => bound.accepted(),
            _ => {}
        }
        self.not_before = None;
        if !backlog {
            (self.watched, self.haste) = (None, 1.0);
        } else if works {
            let seconds = took.as_secs_f64();
            let for_slow = SHARE * seconds * (1.0 + seconds / SLOW);
            let for_slow = for_slow.min(LONGEST_FOR_SLOW.as_secs_f64()) * self.haste;
            let mean = self.pause.max(Duration::from_secs_f64(for_slow));
            self.not_before = now.checked_add(self.random.around(mean));
        }
    }

    /// How old what waits is, after an accepted request of a drain.
    pub fn lag(&mut self, age: Duration, now: Instant) {
        let Some((since, before)) = self.watched else {
            self.watched = Some((now, age));
            return;
        };
        let watched = now.saturating_duration_since(since);
        if watched < LOOK {
            return;
        }
        if before.saturating_sub(age) < watched / 2 {
            self.haste /= 2.0;
        } else if before.saturating_sub(age) > watched {
            self.haste = (self.haste * 2.0).min(1.0);
        }
        self.watched = Some((now, age));
    }
}

/// Bytes a second.
#[derive(Debug)]
struct Bound {
    /// Bytes a second that are allowed at most.
    most: u64,
    /// Bytes a second that the server takes, as far as is known.
    rate: u64,
    /// When nothing is owed any more, if it were for the current rate.
    free_at: Option<Instant>,
}

impl Bound {
    fn new(most: u64) -> Bound {
        Bound { most: most.max(1), rate: most.max(1), free_at: None }
    }

    fn sent(&mut self, bytes: u64, now: Instant) {
        let owed = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        // A second of silence is worth a second's bytes, not more.
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        self.free_at = Some(self.free_at.unwrap_or(earliest).max(earliest) + owed);
    }

    /// The server said that this was too much.
    fn refused(&mut self) {
        self.rate = (self.rate / 2).max(SLOWEST.min(self.most));
    }

    /// The server took it.
    fn accepted(&mut self) {
        self.rate = self.rate.saturating_add(self.rate / 16 + 1).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GOOD: Option<u16> = Some(200);

    /// How long it takes to send so many live requests of so many bytes.
    fn time(pace: &mut Pace, requests: u32, bytes: u64, from: Instant) -> Duration {
        let mut now = from;
        for _ in 0..requests {
            now = pace.next_at(now);
            pace.sent(bytes, now);
            pace.answered(GOOD, Duration::ZERO, false, now);
        }
        pace.next_at(now) - from
    }

    /// How long it takes to drain so many requests, each answered after `took`.
    fn drain(pace: &mut Pace, requests: u32, took: Duration, from: Instant) -> Duration {
        let mut now = from;
        for _ in 0..requests {
            now = pace.next_at(now);
            pace.sent(1, now);
            now += took;
            pace.answered(GOOD, took, true, now);
        }
        now - from
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
        let mut bound = Bound::new(1 << 20);
        bound.refused();
        assert_eq!(bound.rate, 512 << 10);
        (0..100).for_each(|_| bound.refused());
        assert_eq!(bound.rate, SLOWEST);
        (0..100).for_each(|_| bound.accepted());
        assert_eq!(bound.rate, 1 << 20);
        // A bound below the slowest is kept.
        let mut slow = Bound::new(1_000);
        slow.refused();
        assert_eq!(slow.rate, 1_000);
    }

    #[test]
    fn live_data_never_waits_and_a_week_drains_in_minutes() {
        let start = Instant::now();
        let mut pace = Pace::with_seed(None, 1);
        assert_eq!(time(&mut pace, 1_000, 1 << 20, start), Duration::ZERO);
        // A week of rounds each minute, two in a request, on a server that answers in 20 ms.
        let mut pace = Pace::with_seed(None, 1);
        let took = drain(&mut pace, 5_040, Duration::from_millis(20), start);
        assert!(took > SECOND * 60 && took < SECOND * 720, "{took:?}");
        // The first pauses are those of a fleet that comes back at once.
        let mut pace = Pace::with_seed(None, 1);
        let took = drain(&mut pace, 3, Duration::from_millis(20), start);
        assert!(took > SECOND * 4 && took < SECOND * 15, "{took:?}");
    }

    #[test]
    fn slow_server_is_left_alone_and_a_failing_one_more_so() {
        let start = Instant::now();
        for (millis, least) in [(10, 4.0), (100, 5.6), (1_000, 20.0), (2_000, 15.0)] {
            let took = Duration::from_millis(millis);
            let mut pace = Pace::with_seed(None, 2);
            let later = start + drain(&mut pace, 100, took, start);
            let spent = took.as_secs_f64() * 200.0;
            let pauses = drain(&mut pace, 200, took, later).as_secs_f64() - spent;
            assert!(pauses > spent * least * 0.9, "{millis} ms: {pauses} of {spent}");
            assert!(pauses < spent * least * 1.3, "{millis} ms: {pauses} of {spent}");
        }
        for code in [None, Some(408), Some(429), Some(503), Some(401), Some(301)] {
            let mut pace = Pace::with_seed(None, 3);
            drain(&mut pace, 100, Duration::ZERO, start);
            assert_eq!(pace.pause, Duration::ZERO);
            pace.answered(code, SECOND, true, start);
            assert_eq!(pace.pause, FIRST, "{code:?}");
            // The backoff is what waits for the next try.
            assert_eq!(pace.next_at(start), start);
            (0..20).for_each(|_| pace.answered(code, SECOND, true, start));
            assert_eq!(pace.pause, LONGEST, "{code:?}");
        }
    }

    #[test]
    fn manners_never_keep_an_agent_from_catching_up() {
        // Each request takes 15 s whatever the server does, and holds a minute's data.
        let (took, minute) = (SECOND * 15, SECOND * 60);
        let mut pace = Pace::with_seed(None, 4);
        let start = Instant::now();
        let mut now = start;
        let mut age = SECOND * 3_600 * 3;
        while age > minute {
            assert!(now - start < SECOND * 3_600 * 12, "still {age:?} old");
            let before = now;
            now = pace.next_at(now);
            // Another agent's on the same line.
            pace.sent(1, now);
            now += took * 3;
            age = (age + (now - before)).saturating_sub(minute);
            pace.answered(GOOD, took, true, now);
            pace.lag(age, now);
        }
    }

    #[test]
    fn short_backoffs_have_short_drains() {
        let (min, max) = (Duration::from_millis(10), SECOND);
        let mut pace = Pace::with_seed(None, 5).beside(min, max);
        (0..9).for_each(|_| pace.answered(Some(503), SECOND, true, Instant::now()));
        assert!(drain(&mut pace, 20, Duration::ZERO, Instant::now()) < 2 * SECOND);
        let pace = Pace::new(None).beside(SECOND, 300 * SECOND);
        assert_eq!((pace.first, pace.longest), (FIRST, LONGEST));
        let pace = Pace::new(None).beside(SECOND * 86_400, SECOND * 86_400);
        assert_eq!((pace.first, pace.longest), (LONGEST, LONGEST));
    }
}
