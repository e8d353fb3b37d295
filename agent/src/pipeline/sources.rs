//! From the log readers to the logs WAL: entries and the positions that cover them in one record. One task
//! reads all sources in turn, each second if they have something to say, into one block, which is written every
//! few seconds: what they say meanwhile costs the card one sync, and compresses better.

mod begin;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use self::begin::Unwritten;
pub(super) use self::begin::{Kept, build, recover_positions};
use super::clock::Now;
use super::log::Log;
use super::report::rows;
use super::send::{GATHER, at_most, of_host};
use super::state::State;
use super::{Phase, TOO_LARGE};
use crate::config::Config;
use crate::encode::{BLOCK, Positions, apply, encode_block};
use crate::host::alarm;
use crate::logs::stage::Stages;
use crate::logs::{Progress, Source, Waiting};
use crate::memory::{Lease, Part, Pressure};
use crate::model::Block;
use crate::status::StagesReport;
use crate::wal::{AppendError, Encoded, Payload};

/// Bytes of a block at least; and while the disk takes nothing, since `wal.memory` is small.
const LEAST_BLOCK: usize = 32 << 10;

/// Bytes of a block at most: an eighth of the smallest WAL (with a line beside it, a record is at most a quarter), and
/// fewer entries, at [`Block::ENTRY_COST`] each, than a block that is read back may have streams.
const MOST_BLOCK: usize = 128 << 10;

/// Bytes of lines in one block, as [`Block::size`] counts them, where this is the limit of memory, which a board's
/// profile sets: 128 KiB of 16 MiB. Small enough for any WAL, large enough that its overhead is none.
fn block_bytes(memory_limit: u64) -> usize {
    (memory_limit / 128).clamp(LEAST_BLOCK as u64, MOST_BLOCK as u64) as usize
}

/// How old what was read may get before it is written, at most. A process that dies meanwhile loses nothing that its
/// source still has then: sources are read again from the last position that was written. What a source has
/// nowhere else does not wait ([`Source::is_last_copy`]).
const WRITE: Duration = Duration::from_secs(5);

/// How long what was read waits for more. Loki gets entries no later for it: what is as old is sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patience {
    /// After a silence: a moment of the host's own ([`of_host`]).
    first: Duration,
    /// Where lines never stop, which is at other times on each host.
    steady: Duration,
}

impl Patience {
    /// Where endpoints wait so long for company (`batch_wait`).
    fn of(waits: impl Iterator<Item = Duration>, part: u32) -> Patience {
        let wait = waits.min().unwrap_or(WRITE).min(WRITE);
        Patience { first: of_host(wait, part), steady: at_most(wait) }
    }
}

/// How often a full WAL is tried again when nobody says that it has room.
const LOOK: Duration = Duration::from_secs(60);

/// How often it is looked whether there is memory to read with: nobody says so.
const SHORT: Duration = Duration::from_secs(1);

/// What reading takes at a time, beside what sources hold already: a block and its record, a line, and what it
/// is decoded or decompressed from.
fn room(block_bytes: usize, max_line: usize) -> u64 {
    2 * (block_bytes as u64 + max_line as u64)
}

/// A block on its way into the WAL.
pub(super) struct BlockPayload<'a> {
    pub(super) block: &'a Block,
    /// How far every source has been read before this block.
    pub(super) positions: &'a Positions,
    pub(super) now: Now,
}

impl Payload for BlockPayload<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let time_ms = self.now.ms;
        self.now.put(out);
        let changed = self.block.positions();
        if !fresh {
            let items = encode_block(self.block, changed.map(|p| (p.key, p.position)), out);
            return Encoded { items, time_ms };
        }
        let mut all = self.positions.clone();
        for position in changed {
            apply(&mut all, position.key, position.position);
        }
        let all = all.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
        Encoded { items: encode_block(self.block, all, out), time_ms }
    }
}

/// What is known of one source.
#[derive(Debug, Default)]
pub(super) struct SourceCounts {
    pub(super) name: &'static str,
    pub(super) counts: Vec<(&'static str, u64)>,
}

/// Reads the sources until the agent drains.
pub(super) struct Sources {
    pub(super) state: Rc<State>,
    pub(super) log: Rc<Log>,
    pub(super) sources: Vec<Box<dyn Source>>,
    pub(super) stages: Stages,
    /// How many of them are not from `[[logs.stage]]`.
    pub(super) first_stages: usize,
    /// Bytes of a block.
    pub(super) block_bytes: usize,
    /// Bytes that reading takes at a time.
    pub(super) room: u64,
    /// How long what was read waits for more before it is written.
    patience: Patience,
    pub(super) phase: watch::Receiver<Phase>,
    /// Entries in what is to be written that are nowhere else.
    last_copies: u64,
    unwritten: Rc<RefCell<Option<Unwritten>>>,
}

impl Sources {
    pub(super) fn new(
        config: &Config,
        state: Rc<State>,
        log: Rc<Log>,
        (sources, stages): (Vec<Box<dyn Source>>, Stages),
        kept: &Kept,
        phase: watch::Receiver<Phase>,
    ) -> Sources {
        let (first_stages, max_line) = (config.logs.stages.first, config.logs.stages.max_line);
        let block_bytes = block_bytes(config.agent.memory_limit);
        let room = room(block_bytes, max_line);
        let patience = Patience::of(config.loki.iter().map(|loki| loki.wait), state.phase);
        Sources {
            state,
            log,
            sources,
            stages,
            first_stages,
            block_bytes,
            room,
            patience,
            phase,
            last_copies: 0,
            unwritten: Rc::clone(&kept.unwritten),
        }
    }

    /// Whether there is anything to do: what the last run held is given out also when nothing is read any more.
    pub(super) fn are_needed(&self) -> bool {
        !self.sources.is_empty() || self.stages.due().is_some() || self.unwritten.borrow().is_some()
    }

    pub(super) async fn run(mut self) {
        // What one turn reads, and what is to be written.
        let (mut turn, mut block) = (Block::new(), Block::new());
        let mut lease = None;
        let mut write_at = None;
        let mut first = 0;
        let mut busy = 0_u32;
        let mut last = false;
        let unwritten = self.unwritten.take();
        if let Some(Unwritten { mut blocks, last_copies }) = unwritten {
            self.last_copies = last_copies;
            while let Some(block) = blocks.first() {
                if !self.write(block).await {
                    return self.leave(blocks);
                }
                blocks.remove(0);
            }
            self.last_copies = 0;
        }
        loop {
            if !block.is_empty() && self.is_short() {
                if !self.write(&block).await {
                    return self.leave(vec![block]);
                }
                (block, lease, write_at) = (Block::new(), None, None);
                self.last_copies = 0;
            }
            if lease.is_none() {
                lease = self.memory(&mut turn).await;
            }
            let draining = *self.phase.borrow() != Phase::Running;
            let most = match self.log.mend_due() {
                Some(_) => LEAST_BLOCK,
                None => self.block_bytes,
            };
            let room = most.saturating_sub(block.size()).max(1);
            let (more, in_haste, last_copies) = self.read(first, &mut turn, room);
            self.last_copies += last_copies;
            // Whoever has much to say must not keep the others waiting.
            first += 1;
            self.stages.run(&mut turn, self.state.clock.now_ns(), Instant::now());
            let in_haste = in_haste && turn.entries().next().is_some();
            let quiet = turn.is_empty();
            busy = if quiet { 0 } else { busy.saturating_add(1) };
            let fits = block.append(&mut turn);
            let now = Instant::now();
            let mut written = false;
            if block.is_empty() {
                write_at = None;
            } else {
                let Patience { first, steady } = self.patience;
                let patience = if busy > 1 { steady } else { first };
                let due = *write_at.get_or_insert(now + patience);
                if more || in_haste || draining || !fits || due <= now || block.size() >= most {
                    if !self.write(&block).await {
                        return self.leave(vec![block, turn]);
                    }
                    block.clear();
                    block.append(&mut turn);
                    self.last_copies = if fits { 0 } else { last_copies };
                    (lease, write_at, written) = (None, None, true);
                }
            }
            // A source that passes over much, or a WAL that is synced later, gives nothing to wait for.
            tokio::task::yield_now().await;
            if block.is_empty() {
                // What is counted as read, or as dropped by a stage, will not be read again.
                let dropped = &self.state.dropped;
                self.stages.take_dropped(&mut |reason, count| {
                    dropped.add_wanted("logs", reason, count);
                });
                self.count();
            }
            if more {
                // What must not wait for the end of it: connections that are made, and new containers.
                self.look().await;
            }
            if more || !block.is_empty() && write_at.is_none() {
                continue;
            }
            if draining {
                // What sockets gave while the disk wrote is nowhere else.
                if quiet && !written || last {
                    return;
                }
                last = true;
                continue;
            }
            if block.is_empty() {
                // What a burst has made large is not kept until the next one.
                (turn, block) = (Block::new(), Block::new());
                self.stages.rest();
                lease = None;
            }
            let since = Instant::now();
            self.wait(write_at, busy > 1).await;
            if since.elapsed() > 2 * GATHER && write_at.is_none() {
                // Nobody has said anything for so long.
                busy = 0;
            }
        }
    }

    /// Lets sources do what they do while they wait, without waiting.
    async fn look(&mut self) {
        let mut ready = pin!(any(&mut self.sources, |source| source.ready()));
        poll_fn(|context| {
            let _ = ready.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Leaves what could not be written to the next pipeline.
    fn leave(self, blocks: Vec<Block>) {
        let last_copies = self.last_copies;
        self.unwritten.replace(Some(Unwritten { blocks, last_copies }));
    }

    /// Waits until there is something to do: to read, to write what was read, or to give out what stages hold. Who
    /// has had something to say twice in a row is taken to go on, and is given time first: it is ready then, and has
    /// not woken the agent for that.
    async fn wait(&mut self, write_at: Option<Instant>, busy: bool) {
        let due = write_at.into_iter().chain(self.stages.due()).min();
        let Sources { sources, phase, .. } = self;
        let until = || {
            let until = Instant::now() + GATHER;
            write_at.map_or(until, |write| until.min(write))
        };
        let read = async {
            if busy {
                any(sources, |source| source.gather(until())).await;
                any(sources, |source| source.ready()).await;
            } else {
                any(sources, |source| source.ready()).await;
                any(sources, |source| source.gather(until())).await;
            }
        };
        tokio::select! {
            () = read => {}
            () = sleep_until(due) => {}
            _ = phase.changed() => {}
        }
    }

    fn is_short(&self) -> bool {
        self.state.memory.pressure() >= Pressure::Logs
    }

    /// Waits while memory is too short to read with: lines stay where they are, and sources look after what would be
    /// lost there. None if the agent drains: what is nowhere else is read all the same.
    async fn memory(&mut self, turn: &mut Block) -> Option<Lease> {
        let memory = Rc::clone(&self.state.memory);
        let budget = &memory.budget;
        loop {
            let is_short = self.is_short();
            let least = room(self.block_bytes, 0);
            let mut lease = budget.take_some(Part::Logs, self.room, least);
            if lease.is_none() && !is_short {
                // What others are promised and have not taken is no reason to stand still.
                lease = Some(budget.reserve(Part::Logs, least));
            }
            if lease.is_some() || *self.phase.borrow() != Phase::Running {
                if self.state.short.replace(false) {
                    log::info!("log sources are read again");
                }
                return lease;
            }
            if !self.state.short.replace(true) {
                log::warn!(
                    "memory is short (agent.memory_limit): log sources are read no further until parts have given back"
                );
                *turn = Block::new();
                self.stages.rest();
            }
            let Sources { sources, phase, .. } = self;
            tokio::select! {
                () = tokio::time::sleep(SHORT) => {}
                () = any(sources, |source| source.hold()) => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// Reads all sources in turn, the `first`th first, up to so many bytes. Whether there is more, whether what was
    /// read may not wait, and how many entries are nowhere else.
    fn read(&mut self, first: usize, turn: &mut Block, bytes: usize) -> (bool, bool, u64) {
        let count = self.sources.len();
        let (mut more, mut is_last_copy, mut last_copies) = (false, false, 0);
        for at in 0..count {
            if turn.size() >= bytes {
                return (true, is_last_copy, last_copies);
            }
            let Some(source) = self.sources.get_mut((first + at) % count) else { break };
            let before = turn.len();
            more |= source.read(turn, bytes) == Progress::More;
            let got = turn.len().saturating_sub(before);
            is_last_copy |= source.is_last_copy() && got > 0;
            if source.has_no_position() {
                last_copies += got as u64;
            }
        }
        (more, is_last_copy, last_copies)
    }

    /// Tells the state what the sources have counted.
    pub(super) fn count(&self) {
        let all = &mut *self.state.sources.borrow_mut();
        rows(all, self.sources.iter(), |row: &mut SourceCounts, source| {
            row.name = source.name();
            row.counts.clear();
            source.counts(&mut |name, count| row.counts.push((name, count)));
        });
        let counts = self.stages.counts();
        // As the configuration counts its tables.
        let own = |(at, count): (usize, u64)| (at.saturating_sub(self.first_stages) as u64, count);
        let stages = &mut *self.state.stages.borrow_mut();
        let mut misses = stages.take().map(|before| before.misses).unwrap_or_default();
        misses.clear();
        misses.extend(self.stages.misses().map(own));
        *stages = Some(StagesReport {
            streams: counts.streams,
            held: counts.held,
            overflow: counts.overflow,
            trimmed: counts.trimmed,
            truncated: counts.truncated,
            misses,
        });
    }

    /// Writes a block, for as long as it takes. False if the agent drains and the WAL has no room: the
    /// positions stay where they were.
    async fn write(&mut self, block: &Block) -> bool {
        loop {
            let log = Rc::clone(&self.log);
            let freed = log.freed();
            let result = self.append(block);
            let full =
                matches!(result, Err(AppendError::Full { .. } | AppendError::NoSpace { .. }));
            if let Err(error) = &result
                && full
                && !self.state.paused.get()
            {
                log::warn!("{error}: log sources are read no further until Loki takes entries");
            }
            self.state.paused.set(full);
            match result {
                Ok(()) => {
                    log.settle().await;
                    return true;
                }
                Err(AppendError::TooLarge { .. }) => {
                    self.state.dropped.add("logs", TOO_LARGE, block.len() as u64);
                    self.apply(block);
                    return true;
                }
                Err(_) => {}
            }
            if *self.phase.borrow() != Phase::Running {
                return false;
            }
            let Sources { sources, phase, .. } = self;
            tokio::select! {
                () = freed => {}
                () = alarm::sleep_about(LOOK) => {}
                () = any(sources, |source| source.hold()) => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// Appends a block. What it covers is known before anything else can be appended.
    fn append(&self, block: &Block) -> Result<(), AppendError> {
        let positions = self.state.positions.borrow();
        let oldest_ns = block.entries().map(|entry| entry.timestamp_ns).min();
        let now = self.state.time.look_for(oldest_ns.map(|ns| ns.div_euclid(1_000_000)));
        let mut payload = BlockPayload { block, positions: &positions, now };
        let record = self.log.append(now.kind(BLOCK), &mut payload)?;
        // A source's own bound is far below the record's, so this is nothing.
        let left_out = (block.len() as u64).saturating_sub(u64::from(record.items));
        self.state.dropped.add("logs", TOO_LARGE, left_out);
        drop(positions);
        self.apply(block);
        Ok(())
    }

    fn apply(&self, block: &Block) {
        let mut positions = self.state.positions.borrow_mut();
        for position in block.positions() {
            apply(&mut positions, position.key, position.position);
        }
    }
}

/// Waits until then, or for ever.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => alarm::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Waits until something is over for one of the sources. Each is asked each time, whoever was the first.
async fn any(
    sources: &mut [Box<dyn Source>],
    wait: impl for<'a> Fn(&'a mut dyn Source) -> Waiting<'a>,
) {
    let mut waiting: Vec<Waiting<'_>> = Vec::with_capacity(sources.len());
    for source in sources {
        waiting.push(wait(source.as_mut()));
    }
    poll_fn(|context| {
        let mut over = false;
        for one in &mut waiting {
            over |= one.as_mut().poll(context).is_ready();
        }
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_large_as_memory_allows() {
        let kib = |limit: u64| block_bytes(limit << 20) >> 10;
        assert_eq!([0, 4, 8, 16, 64, 1 << 20].map(kib), [32, 32, 64, 128, 128, 128]);
    }

    #[test]
    fn what_was_read_waits_for_as_long_as_it_would_wait_for_company() {
        let of = |waits: &[u64], part| {
            let waits = waits.iter().map(|wait| Duration::from_secs(*wait));
            let Patience { first, steady } = Patience::of(waits, part);
            (first.as_millis(), steady.as_millis())
        };
        assert_eq!([0, u32::MAX].map(|part| of(&[], part)), [(2_500, 4_000), (3_999, 4_000)]);
        assert_eq!(of(&[30, 5], 0), (2_500, 4_000));
        assert_eq!(of(&[30, 60], 1 << 31), (3_250, 4_000));
        assert_eq!(of(&[30, 4], 0), (2_000, 3_000));
        assert_eq!([of(&[0], 7), of(&[1], u32::MAX)], [(0, 0); 2]);
    }
}
