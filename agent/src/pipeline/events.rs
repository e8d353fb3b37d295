//! From the probes to the logs WAL: events as entries of the stream `job="mote/events"`, an OOM kill
//! synced at once. What has no room waits with the probes, within their bound.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Phase;
use super::log::Log;
use super::sources::BlockPayload;
use super::state::State;
use crate::encode::{BLOCK, apply};
use crate::host::kmsg::Position;
use crate::model::{Block, Event};
use crate::probe::Waiting;
use crate::wal::AppendError;

/// The pause after something was taken of what the programs hand over, which ration it themselves, and of
/// the kernel's log: one that is written all the time, for a firewall's rule say, must not wake the agent
/// for each line.
pub(super) const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::ZERO];

/// How often what waits is taken at the end: more than there is room for.
const MAX_TURNS: u32 = 1_024;

/// How far the kernel's log was read is written without an event so often at most: a card that fails must
/// not be written to by its own messages.
const ALONE: Duration = Duration::from_secs(600);

/// The key of the position in the kernel's log.
pub(super) const KMSG: &str = "kmsg";

/// Entries of one block.
const BATCH: usize = 64;

/// What is written to the disk before anything else happens: the machine may not see the next second.
const URGENT: &str = "oom_kill";

/// Events of one kind that are reported one by one, and how long until there may be one more. The counts
/// are of all.
const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(10);

/// How many events of each kind may still be reported.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    kinds: RefCell<Vec<(&'static str, u32, Instant)>>,
}

impl Limiter {
    /// Whether one more of this kind may be reported now.
    fn allow(&self, kind: &'static str) -> bool {
        let now = Instant::now();
        let mut kinds = self.kinds.borrow_mut();
        let at = kinds.iter().position(|(have, ..)| *have == kind).unwrap_or(kinds.len());
        if at == kinds.len() {
            kinds.push((kind, BURST, now));
        }
        let Some((_, left, since)) = kinds.get_mut(at) else { return true };
        let periods = now.duration_since(*since).as_secs() / REFILL.as_secs();
        let periods = u32::try_from(periods).unwrap_or(BURST).min(BURST);
        *since += REFILL * periods;
        *left = left.saturating_add(periods).min(BURST);
        if *left == BURST {
            *since = now;
        }
        let allowed = *left > 0;
        *left = left.saturating_sub(1);
        allowed
    }
}

/// Waits for what a descriptor of the probes says, until the agent drains.
pub(super) struct Events {
    pub(super) state: Rc<State>,
    pub(super) descriptor: OwnedFd,
    pub(super) pause: Duration,
    pub(super) phase: watch::Receiver<Phase>,
}

impl Events {
    pub(super) async fn run(mut self) {
        let descriptor = match register(self.descriptor) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                log::warn!("waiting for the probes' events: {error}; they come with each round");
                return;
            }
        };
        while *self.phase.borrow() == Phase::Running {
            tokio::select! {
                readable = descriptor.readable() => {
                    let Ok(mut guard) = readable else { return };
                    let more = self.state.receive_events();
                    if !more {
                        guard.clear_ready();
                    }
                    drop(guard);
                    self.state.write_events(false).await;
                    if more {
                        continue;
                    }
                }
                _ = self.phase.changed() => continue,
            }
            if self.pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                _ = self.phase.changed() => {}
            }
        }
    }
}

#[allow(unsafe_code)]
fn register(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the AsyncFd, which never hands it out; nothing replaces or
    // closes it while it is registered.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(Into::into)
}

impl State {
    /// Takes what the programs have handed over; true if there may be more.
    fn receive_events(&self) -> bool {
        let now_ns = self.clock.now_ns();
        self.probes.borrow_mut().receive(&mut self.host.borrow_mut(), now_ns)
    }

    /// Takes everything that was handed over.
    pub(super) fn receive_all_events(&self) {
        let _ = (0..MAX_TURNS).all(|_| self.receive_events());
    }

    /// Writes the events that wait: to the agent's log, and to the logs WAL where there is one and it has
    /// room. How far the kernel's log was read goes along, or alone now and then and at the `end`.
    pub(super) async fn write_events(&self, end: bool) {
        let dropped = self.probes.borrow_mut().take_dropped();
        self.dropped.add("logs", "events_full", dropped);
        loop {
            let batch = self.next_batch();
            if batch.is_empty() && !(end || self.positioned.get().elapsed() >= ALONE) {
                return;
            }
            let position = self.probes.borrow_mut().take_position();
            let position = position.or_else(|| batch.iter().rev().find_map(|found| found.position));
            if batch.is_empty() && position.is_none() {
                return;
            }
            self.positioned.set(Instant::now());
            let Some(logs) = &self.logs else { continue };
            let urgent = batch.iter().any(|found| found.event.kind == URGENT);
            match self.append_events(logs, batch.iter().map(|found| &found.event), position) {
                Ok(()) if urgent => {
                    // A failure is logged and counted there.
                    let _ = logs.sync().await;
                    logs.settle().await;
                }
                Ok(()) => logs.settle().await,
                Err(error @ (AppendError::Full { .. } | AppendError::NoSpace { .. })) => {
                    log::debug!("events wait: {error}");
                    self.probes.borrow_mut().put_back(batch, position);
                    return;
                }
                Err(error) => {
                    log::error!("{} events are not kept: {error}", batch.len());
                    self.dropped.add("logs", "wal_failed", batch.len() as u64);
                }
            }
        }
    }

    /// The next events that may be reported.
    fn next_batch(&self) -> Vec<Waiting> {
        let mut probes = self.probes.borrow_mut();
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Some(found) = probes.next_event() else { break };
            // One that comes back was allowed, and told, before.
            if found.told || self.limiter.allow(found.event.kind) {
                if !found.told {
                    log::warn!("{}", found.event.message);
                }
                batch.push(found);
            } else {
                self.dropped.add("logs", "event_rate", 1);
            }
        }
        batch
    }

    /// Appends events as entries, with how far the kernel's log was read if that goes along.
    pub(super) fn append_events<'e>(
        &self,
        logs: &Log,
        events: impl IntoIterator<Item = &'e Event>,
        position: Option<Position>,
    ) -> Result<(), AppendError> {
        let mut block = Block::new();
        for event in events {
            // A block has room for far more streams than there are kinds of events.
            event.write(&self.agent_labels, &mut block);
        }
        let position = position.map(Position::to_bytes);
        if let Some(position) = &position {
            block.set_position(KMSG, position);
        }
        let positions = self.positions.borrow();
        let now = self.time.look();
        let mut payload = BlockPayload { block: &block, positions: &positions, now };
        logs.append(now.kind(BLOCK), &mut payload)?;
        drop(positions);
        if let Some(position) = &position {
            apply(&mut self.positions.borrow_mut(), KMSG, position);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_kind_is_limited_and_another_is_not() {
        let limiter = Limiter::default();
        let allowed = |kind| (0..1_000).filter(|_| limiter.allow(kind)).count() as u32;
        assert_eq!(allowed("io_error"), BURST);
        assert_eq!(allowed("oom_kill"), BURST);
        tokio::time::advance(REFILL * 3 + REFILL / 2).await;
        assert_eq!(allowed("io_error"), 3);
        tokio::time::advance(REFILL / 2).await;
        assert_eq!(allowed("io_error"), 1);
        tokio::time::advance(Duration::from_secs(1_000_000_000)).await;
        assert_eq!(allowed("io_error"), BURST);
    }
}
