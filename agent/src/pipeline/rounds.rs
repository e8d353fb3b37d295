//! From collectors and probes to the metrics WAL: one round at each multiple of the interval and a part of
//! it that is the host's own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::log::Log;
use super::state::State;
use super::{Phase, TOO_LARGE};
use crate::encode::{ROUND, RoundEncoder};
use crate::model::Samples;
use crate::wal::{AppendError, Encoded, Payload};

/// A round on its way into the WAL.
struct RoundPayload<'a> {
    timestamp_ms: i64,
    samples: &'a [&'a Samples],
    encoder: &'a mut RoundEncoder,
}

impl Payload for RoundPayload<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let items = self.encoder.encode(self.samples, fresh, out);
        Encoded { items, time_ms: self.timestamp_ms }
    }
}

/// Collects rounds until the agent drains.
pub(super) struct Rounds {
    pub(super) state: Rc<State>,
    pub(super) log: Rc<Log>,
    /// Shared with the pipeline of the next configuration, which has to know which series were there.
    pub(super) encoder: Rc<RefCell<RoundEncoder>>,
    pub(super) interval: Duration,
    pub(super) phase: watch::Receiver<Phase>,
    /// The timestamp of the newest round in the WAL.
    pub(super) last_ms: Option<i64>,
    /// Whether the clock is before it.
    pub(super) behind: bool,
}

/// Servers take no sample that is this far ahead (Mimir and Prometheus: 10 minutes). If the newest round
/// is, its time was wrong, or else the clock is so wrong now that nothing of it can be used either way.
pub(super) const AHEAD_MS: i64 = 24 * 3_600 * 1_000;

impl Rounds {
    /// The first round at once, the others at multiples of the interval, later by the host's offset.
    pub(super) async fn run(mut self) {
        loop {
            self.round().await;
            self.state.write_events(false).await;
            self.state.report_losses(false).await;
            let wait =
                until_next(self.state.clock.now_ns() - self.state.offset_ns(), self.interval);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.phase.changed() => {}
            }
            if *self.phase.borrow() == Phase::Draining {
                return;
            }
        }
    }

    /// One round.
    pub(super) async fn round(&mut self) {
        let timestamp_ms = self.state.behind_scrapes(self.state.clock.now_ms());
        let state = Rc::clone(&self.state);
        state.collect();
        let (items, refused) = {
            let (host, own) = (state.samples.borrow(), state.own.borrow());
            ((host.len() + own.len()) as u64, host.refused() + own.refused())
        };
        state.dropped.add("metrics", "max_series", refused);
        let back = self.last_ms.map_or(-1, |last| last.saturating_sub(timestamp_ms));
        if (0..AHEAD_MS).contains(&back) {
            // Servers refuse what is older than what they have; the clock will pass it again.
            state.dropped.add("metrics", "clock_backwards", items);
            state.collectors.borrow_mut().kept(false);
            if !std::mem::replace(&mut self.behind, true) {
                log::warn!(
                    "the clock went back by {:.1} s: rounds are dropped until it has caught up",
                    back as f64 / 1000.0
                );
            }
            return;
        }
        if back >= AHEAD_MS {
            log::warn!(
                "the newest round in the WAL is {:.1} days ahead of the clock, which is taken to be right now",
                back as f64 / 86_400_000.0
            );
        }
        self.behind = false;
        let appended = {
            let (host, own) = (state.samples.borrow(), state.own.borrow());
            append(&state, &self.log, &self.encoder, &[&host, &own], timestamp_ms)
        };
        state.collectors.borrow_mut().kept(appended);
        if appended {
            self.last_ms = Some(timestamp_ms);
            state.newest.set(Some((timestamp_ms, false)));
            self.log.settle().await;
        }
    }
}

/// Writes a round. False: it could not be, and its samples are counted.
pub(super) fn append(
    state: &State,
    log: &Log,
    encoder: &RefCell<RoundEncoder>,
    samples: &[&Samples],
    timestamp_ms: i64,
) -> bool {
    let encoder = &mut *encoder.borrow_mut();
    let written = log.append(ROUND, &mut RoundPayload { timestamp_ms, samples, encoder });
    let Err(error) = written else { return true };
    // What was encoded and not written must not be referred to.
    encoder.forget();
    let reason = match error {
        AppendError::Full { .. } if log.failure().is_some() => "wal_failed",
        AppendError::Full { .. } | AppendError::NoSpace { .. } => "wal_full",
        AppendError::TooLarge { .. } => TOO_LARGE,
        AppendError::Failed(_) | AppendError::Broken => "wal_failed",
    };
    let items = samples.iter().map(|samples| samples.len() as u64).sum();
    state.dropped.add("metrics", reason, items);
    if let AppendError::Full { .. } | AppendError::TooLarge { .. } = error {
        ::log::error!("a round of {items} samples was dropped: {error}");
    }
    false
}

/// How long from `now_ns` until the next multiple of the interval.
pub(super) fn until_next(now_ns: i64, interval: Duration) -> Duration {
    let interval = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX).max(1);
    Duration::from_nanos((interval - now_ns.rem_euclid(interval)).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ManualClock;
    use crate::wal::{OnFull, Options};

    #[test]
    fn rounds_are_aligned_to_the_interval() {
        let ten = Duration::from_secs(10);
        assert_eq!(until_next(3_000_000_000, ten), Duration::from_secs(7));
        assert_eq!(until_next(20_000_000_000, ten), ten);
        assert_eq!(until_next(-1, ten), Duration::from_nanos(1));
    }

    /// Rounds of a running agent begin the host's part of an interval after its multiples.
    #[test]
    fn rounds_begin_at_the_hosts_own_moment() {
        let text = "[probes]\ndefault = \"off\"\n[metrics.collectors]\nonly = [\"loadavg\"]\n";
        let config = crate::config::parse(text, std::path::Path::new("t"), &[]).unwrap();
        let probes = super::super::start_probes(&config, None).unwrap();
        let state = super::super::state(&config, String::new(), probes);
        let clock = ManualClock::at(7 * 60_000_000_000 + 5_000_000_000);
        let state = State { clock: Rc::new(clock), phase: 1 << 30, ..state };
        assert_eq!(state.offset_ns(), 15_000_000_000);
        assert_eq!(
            until_next(state.clock.now_ns() - state.offset_ns(), state.interval),
            Duration::from_secs(10)
        );
    }

    const HOUR_NS: i64 = 3_600_000_000_000;

    #[tokio::test]
    async fn clock_that_goes_back_costs_a_day_of_rounds_at_most() {
        let text = "[probes]\ndefault = \"off\"\n[metrics.collectors]\nonly = [\"loadavg\"]\n";
        let config = crate::config::parse(text, std::path::Path::new("t"), &[]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(1 << 20, OnFull::DropOldest, 1);
        let log = Rc::new(Log::for_test(dir.path(), options, None));
        let clock = ManualClock::at(1_000 * HOUR_NS);
        let probes = super::super::start_probes(&config, None).unwrap();
        let state = super::super::state(&config, String::new(), probes);
        let state = Rc::new(State { clock: Rc::new(clock.clone()), ..state });
        let (_phase, phase) = watch::channel(Phase::Running);
        let mut rounds = Rounds {
            state: Rc::clone(&state),
            log: Rc::clone(&log),
            encoder: Rc::new(RefCell::new(RoundEncoder::new(crate::model::Labels::new()))),
            interval: Duration::from_secs(60),
            phase,
            last_ms: None,
            behind: false,
        };
        // Kept, the same moment again, an hour before it, later, a month before that, after it.
        for (hour, records) in [(1_000, 1), (1_000, 1), (999, 1), (1_001, 2), (281, 3), (282, 4)] {
            clock.set(hour * HOUR_NS);
            rounds.round().await;
            assert_eq!(log.stats().records, records, "at {hour}");
        }
        let per_round = (state.samples.borrow().len() + state.own.borrow().len()) as u64;
        let dropped = state.dropped.total();
        assert!(dropped > 0 && dropped.abs_diff(2 * per_round) <= 4, "{dropped} of {per_round}");
    }
}
