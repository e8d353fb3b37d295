//! From collectors and probes to the metrics WAL: one round at each multiple of the interval and a part of
//! it that is the host's own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::clock::Now;
use super::log::Log;
use super::state::State;
use super::{Phase, TOO_LARGE};
use crate::encode::{ROUND, RoundEncoder};
use crate::host::alarm;
use crate::model::Samples;
use crate::wal::{AppendError, Encoded, Payload};

/// A round on its way into the WAL.
struct RoundPayload<'a> {
    now: Now,
    samples: &'a [&'a Samples],
    encoder: &'a mut RoundEncoder,
}

impl Payload for RoundPayload<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        self.now.put(out);
        let items = self.encoder.encode(self.samples, fresh, out);
        Encoded { items, time_ms: self.now.ms }
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
}

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
                () = alarm::sleep(wait) => {}
                _ = self.phase.changed() => {}
            }
            if *self.phase.borrow() != Phase::Running {
                return;
            }
        }
    }

    /// One round. After a step backward rounds are kept all the same: which of them a server can take is for each
    /// endpoint to see, by what it has.
    pub(super) async fn round(&mut self) {
        let now = self.state.time.look();
        let now = now.at(self.state.behind_scrapes(now.ms));
        let state = Rc::clone(&self.state);
        state.memory.look();
        state.collect();
        let refused = state.samples.borrow().refused() + state.own.borrow().refused();
        state.dropped.add("metrics", "max_series", refused);
        let appended = {
            let (host, own) = (state.samples.borrow(), state.own.borrow());
            append(&state, &self.log, &self.encoder, &[&host, &own], now)
        };
        state.collectors.borrow_mut().kept(appended);
        if appended {
            state.newest.set(Some((now.ms, false)));
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
    now: Now,
) -> bool {
    let encoder = &mut *encoder.borrow_mut();
    let written = log.append(now.kind(ROUND), &mut RoundPayload { now, samples, encoder });
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
    use crate::pipeline::memory::Memory;

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
        let state = super::super::state(&config, String::new(), probes, &Memory::new(1 << 30));
        let clock = ManualClock::at(7 * 60_000_000_000 + 5_000_000_000);
        let state = State { clock: Rc::new(clock), phase: 1 << 30, ..state };
        assert_eq!(state.offset_ns(), 15_000_000_000);
        assert_eq!(
            until_next(state.clock.now_ns() - state.offset_ns(), state.interval),
            Duration::from_secs(10)
        );
    }
}
