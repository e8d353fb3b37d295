//! How large the requests to one endpoint are: as large as the link takes them well within the timeout. It
//! must not know what is sent.
//!
//! It begins with the largest. After a request that was not answered in time the next ones have half of its
//! bytes, down to [`SMALLEST`]; after one that took more than a third of the timeout they have what would take
//! a sixth. Those that take less than a twelfth let them grow again. So with the default timeout of 30 s a
//! request takes 2.5 to 10 s on a link that is too slow for more.
//!
//! A server that answers 500 may be out of order, or mean that the request is too large, as gRPC servers do. So
//! the size that is taken instead is kept to for a while: for two answers the first time, and four times as
//! many each time that a larger request has failed again where smaller ones had been taken.

use std::time::Duration;

/// No request is cut smaller than this, in bytes before compression.
const SMALLEST: u64 = 1 << 10;

/// Requests that take longer than this part of the timeout get smaller, so that they take half of that.
const LONG: u32 = 3;
/// Requests that take less than this part of the timeout get twice as large, if they had the size.
const SHORT: u32 = 12;
/// As [`SHORT`]: four times as large.
const VERY_SHORT: u32 = 48;

/// For how many answers a size is kept to, at first and at most.
const FEW: u32 = 2;
const MANY: u32 = 2_048;

/// The size of the next request, in bytes before compression.
#[derive(Debug)]
pub(super) struct Size {
    max: u64,
    bytes: u64,
    timeout: Duration,
    ceiling: Option<Ceiling>,
}

/// What a server has taken that answers 500 to more.
#[derive(Debug)]
struct Ceiling {
    bytes: u64,
    /// Requests of the size that were answered well since, and how many it takes until a larger one is tried.
    good: u32,
    wait: u32,
    /// Whether it was raised since.
    is_raised: bool,
}

impl Size {
    /// Requests of at most so many bytes.
    pub(super) fn new(max: u64) -> Size {
        let max = max.max(SMALLEST);
        Size { max, bytes: max, timeout: Duration::from_secs(30), ceiling: None }
    }

    /// Requests that have to be answered within this time.
    pub(super) fn within(self, timeout: Duration) -> Size {
        Size { timeout, ..self }
    }

    /// How large the next request may be.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A request of so many bytes was answered after this time.
    pub(super) fn answered(&mut self, bytes: u64, took: Duration) {
        if took > self.timeout / LONG {
            let share = (self.timeout / (2 * LONG)).as_secs_f64() / took.as_secs_f64();
            self.bytes = self.bytes.min((bytes as f64 * share) as u64).max(SMALLEST);
        } else if took < self.timeout / SHORT && bytes >= self.bytes / 2 {
            // A trickle says nothing about large ones.
            let factor = if took < self.timeout / VERY_SHORT { 4 } else { 2 };
            self.bytes = self.bytes.saturating_mul(factor).min(self.max);
        }
        let Some(ceiling) = &mut self.ceiling else { return };
        if bytes >= ceiling.bytes / 2 {
            ceiling.good += 1;
            if ceiling.good >= ceiling.wait {
                ceiling.bytes = ceiling.bytes.saturating_mul(2);
                ceiling.good = 0;
                ceiling.is_raised = true;
            }
        }
        self.bytes = self.bytes.min(ceiling.bytes);
        if ceiling.bytes >= self.max {
            self.ceiling = None;
        }
    }

    /// A request of so many bytes was answered 500 again and again. Whether the next ones are smaller.
    pub(super) fn failed(&mut self, bytes: u64) -> bool {
        let smaller = self.unanswered(bytes);
        let wait = match &self.ceiling {
            None => FEW,
            // Smaller ones were taken in between.
            Some(old) if old.good > 0 || old.is_raised => (old.wait * 4).min(MANY),
            Some(old) => old.wait,
        };
        self.ceiling = Some(Ceiling { bytes: self.bytes, good: 0, wait, is_raised: false });
        smaller
    }

    /// A request of so many bytes was not answered in time. Whether the next ones are smaller, so that it is
    /// worth cutting this one anew.
    pub(super) fn unanswered(&mut self, bytes: u64) -> bool {
        let before = self.bytes;
        self.bytes = (bytes.min(self.bytes) / 2).max(SMALLEST);
        self.bytes < before
    }

    /// A request of so many bytes was too large for the server, and always will be. Whether the next ones are
    /// smaller.
    pub(super) fn too_large(&mut self, bytes: u64) -> bool {
        let smaller = self.unanswered(bytes);
        self.max = self.bytes;
        smaller
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_get_smaller_until_they_are_answered_and_then_larger_again() {
        let mut size = Size::new(1 << 20);
        assert!(size.unanswered(1 << 20));
        assert_eq!(size.bytes(), 512 << 10);
        // What was smaller anyway says more.
        assert!(size.unanswered(100 << 10));
        assert_eq!(size.bytes(), 50 << 10);
        while size.unanswered(size.bytes()) {}
        assert_eq!(size.bytes(), SMALLEST);
        assert!(!size.unanswered(2_000), "there is nothing to cut");
        // A trickle says nothing about large ones.
        size.answered(10, Duration::ZERO);
        assert_eq!(size.bytes(), SMALLEST);
        (0..100).for_each(|_| size.answered(size.bytes(), Duration::ZERO));
        assert_eq!(size.bytes(), 1 << 20);
        // What the server never takes is not tried again.
        assert!(size.too_large(800 << 10));
        (0..100).for_each(|_| size.answered(size.bytes(), Duration::ZERO));
        assert_eq!(size.bytes(), 400 << 10);
    }

    #[test]
    fn a_server_that_answers_500_to_large_requests_is_seldom_tried_with_them() {
        let (mut size, mut refused) = (Size::new(4 << 20), 0);
        for _ in 0..20_000 {
            if size.bytes() > 3_000 {
                refused += 1;
                size.failed(size.bytes());
            } else {
                size.answered(size.bytes(), Duration::ZERO);
            }
        }
        assert!((11..60).contains(&refused), "{refused}");
        // One that was out of order is soon sent large ones again.
        let mut size = Size::new(4 << 20);
        while size.failed(size.bytes()) {}
        assert_eq!(size.bytes(), SMALLEST);
        let mut sent = 0;
        while size.bytes() < 4 << 20 {
            size.answered(size.bytes(), Duration::ZERO);
            sent += 1;
        }
        assert!(sent <= 30, "{sent}");
    }

    #[test]
    fn requests_of_any_link_come_to_take_well_below_the_timeout() {
        let timeout = Duration::from_secs(30);
        // Bytes a second before compression, from a modem to a loopback.
        for link in [300, 1 << 10, 10 << 10, 100 << 10, 1 << 30] {
            let mut size = Size::new(16 << 20).within(timeout);
            let (mut sent, mut lost) = (0, 0);
            while sent < 40 {
                let took = Duration::from_secs_f64(0.05 + size.bytes() as f64 / link as f64);
                if took >= timeout {
                    lost += 1;
                    assert!(size.unanswered(size.bytes()), "{link}");
                } else {
                    size.answered(size.bytes(), took);
                    sent += 1;
                    assert!(sent < 3 || took <= timeout / LONG, "{link}: {took:?}");
                }
            }
            assert!(lost <= 12, "{link}: {lost} in vain");
            let took = size.bytes() as f64 / link as f64;
            assert!(size.bytes() == 16 << 20 || took > 2.4, "{link}: {took} s");
        }
    }
}
