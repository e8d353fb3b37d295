//! How large the requests to one endpoint are: as large as the link takes them well within the timeout. It
//! must not know what is sent.

use std::time::Duration;

/// No request is cut smaller than this, in bytes before compression.
const SMALLEST: u64 = 1 << 10;

/// The size of the next request, in bytes before compression.
#[derive(Debug)]
pub(super) struct Size {
    max: u64,
    bytes: u64,
}

impl Size {
    /// Requests of at most so many bytes.
    pub(super) fn new(max: u64) -> Size {
        let max = max.max(SMALLEST);
        Size { max, bytes: max }
    }

    /// How large the next request may be.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A request of so many bytes was answered after this time.
    pub(super) fn answered(&mut self, bytes: u64, _took: Duration) {
        if bytes >= self.bytes / 2 {
            self.bytes = self.bytes.saturating_add(self.bytes / 4).min(self.max);
        }
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
}
