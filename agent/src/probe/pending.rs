//! Events between the probes and the pipeline.

use std::collections::VecDeque;

use crate::host::kmsg::Position;
use crate::model::Event;

/// The most events that wait until the pipeline takes them; then the oldest go, counted.
pub(super) const MAX_PENDING: usize = 256;

/// An event that waits for the pipeline.
#[derive(Debug)]
pub struct Waiting {
    /// What has happened.
    pub event: Event,
    /// Whether it was [put back](super::Probes::put_back).
    pub told: bool,
    /// Up to where the kernel's log was read when it was found there.
    pub position: Option<Position>,
}

/// Events that wait for the pipeline.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) events: VecDeque<Waiting>,
    pub(super) dropped: u64,
}

impl Pending {
    pub(super) fn push(&mut self, event: Event) {
        self.push_waiting(Waiting { event, told: false, position: None });
    }

    pub(super) fn push_waiting(&mut self, waiting: Waiting) {
        if self.events.len() >= MAX_PENDING {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_nobody_takes_are_bounded_and_counted() {
        let mut pending = Pending::default();
        for at in 0..MAX_PENDING as i64 + 3 {
            pending.push(Event::new("io_error", at, ""));
        }
        assert_eq!((pending.events.len(), pending.dropped), (MAX_PENDING, 3));
        assert_eq!(pending.events[0].event.timestamp_ns, 3);
    }
}
