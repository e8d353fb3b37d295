//! The times of records as a reader of a WAL gives them to a server: those of held records, and what the server has
//! already. It must not know rounds or entries.

use std::rc::Rc;

use super::clock::Time;
use crate::clock::Stamp;
use crate::model::Block;
use crate::wal::{Record, UNTIMED};

/// How far ahead of their own clocks servers take samples (Mimir's `creation_grace_period`, Prometheus's
/// `maxAheadTime`).
const AHEAD_MS: i64 = 600_000;

/// What nobody has confirmed holds nothing back that is older by more: then it was wrong itself.
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// The times of one reader.
#[derive(Default)]
pub(super) struct Times {
    /// None where nothing is held.
    time: Option<Rc<Time>>,
    signal: &'static str,
    /// The server's clock or this one, whichever is earlier, at the last request.
    now_ms: Option<i64>,
    /// The newest time that the server has.
    has_ms: Option<i64>,
    /// The newest time that it may have: what was sent by an earlier process, or to a server without a clock.
    may_have_ms: Option<i64>,
}

/// The time of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// In milliseconds since the Unix epoch.
    pub(super) ms: i64,
    /// Of a held record: its stamp, the time that it was given, its boot's true offset.
    held: Option<(Stamp, i64, i64)>,
}

impl Told {
    /// Gives entries, from the `first` on, their real times.
    pub(super) fn retime(&self, block: &mut Block, first: usize) {
        if let Some((stamp, told_ms, true_ms)) = self.held {
            block.retime(first, |at_ns| stamp.real_ns(at_ns, told_ms, true_ms));
        }
    }
}

/// Takes off what stands before the payload of a held record. Whatever is wrong with it, decoding says so.
pub(super) fn strip(record: &Record, payload: &mut Vec<u8>) -> Option<Stamp> {
    if record.kind & UNTIMED == 0 { None } else { Stamp::take(payload) }
}

impl Times {
    /// The times of a reader of `signal`, which may have sent what is of `sent_ms`.
    pub(super) fn new(time: &Rc<Time>, signal: &'static str, sent_ms: Option<i64>) -> Times {
        Times { time: Some(Rc::clone(time)), signal, may_have_ms: sent_ms, ..Times::default() }
    }

    /// The time of a record that was read, with the payload as any other's. None if it can't be known yet: for the reader,
    /// the WAL ends here.
    pub(super) fn of(&self, record: &Record, payload: &mut Vec<u8>) -> Option<Told> {
        let plain = Told { ms: record.time_ms, held: None };
        let Some((time, stamp)) = self.time.as_ref().zip(strip(record, payload)) else {
            return Some(plain);
        };
        let Some(boot) = time.boot(&stamp.boot) else {
            time.place(&stamp.boot);
            return None;
        };
        let ms = stamp.real_ms(record.time_ms, boot.true_ms);
        Some(Told { ms, held: Some((stamp, record.time_ms, boot.true_ms)) })
    }

    /// Counts a record that is sent, if its time is estimated.
    pub(super) fn sends(&self, told: &Told, items: u64) {
        if let (Some(time), Some((stamp, ..))) = (&self.time, told.held)
            && time.boot(&stamp.boot).is_some_and(|boot| boot.estimated)
        {
            time.count_estimated(self.signal, items);
        }
    }

    /// Whether the server has what is as new, and would refuse this.
    pub(super) fn is_behind(&self, ms: i64) -> bool {
        // What is further ahead than servers take was refused, whoever sent it.
        let own_ms = || self.time.as_ref().and_then(|time| time.vouched_ms());
        let latest = self.now_ms.or_else(own_ms).map(|now| now.saturating_add(AHEAD_MS));
        let may_have = self
            .may_have_ms
            .filter(|have| have.saturating_sub(ms) < DAY_MS)
            .filter(|have| latest.is_none_or(|latest| *have <= latest));
        self.has_ms.max(may_have).is_some_and(|have| ms <= have)
    }

    /// A request is made, at this time by the earlier of both clocks.
    pub(super) fn asks(&mut self, now_ms: Option<i64>) {
        self.now_ms = now_ms;
    }

    /// The server has taken samples up to this time.
    pub(super) fn accepted(&mut self, newest_ms: i64) {
        match self.now_ms {
            // A server that has said yes to what is years ahead has not kept it, or does not mind what comes
            // after it.
            Some(now) => {
                self.has_ms = self.has_ms.max(Some(newest_ms.min(now.saturating_add(AHEAD_MS))));
            }
            None => self.may_have_ms = self.may_have_ms.max(Some(newest_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_is_not_sent_again_and_what_it_can_not_have_holds_nothing_back() {
        let now = 100 * DAY_MS;
        let mut times = Times::default();
        assert!(!times.is_behind(i64::MIN));
        times.asks(Some(now));
        times.accepted(now - 5);
        assert!(times.is_behind(now - 5) && times.is_behind(0) && !times.is_behind(now - 4));
        // Twenty years ahead, and the server has said yes.
        times.accepted(now + 20 * 365 * DAY_MS);
        assert!(times.is_behind(now + AHEAD_MS) && !times.is_behind(now + AHEAD_MS + 1));
        // Without a server's clock: a day.
        let mut times = Times { may_have_ms: Some(now), ..Times::default() };
        assert!(times.is_behind(now) && times.is_behind(now - DAY_MS + 1));
        assert!(!times.is_behind(now - DAY_MS) && !times.is_behind(now + 1));
        times.asks(None);
        times.accepted(now + 9);
        assert!(times.is_behind(now + 9));
    }
}
