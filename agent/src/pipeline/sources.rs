//! From the log readers to the logs WAL: entries and the positions that cover them in one record. One task
//! reads all sources in turn into one block, so that what they say within a second costs the card one sync.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::clock::Now;
use super::held;
use super::log::Log;
use super::state::State;
use super::{Phase, RunError, TOO_LARGE};
use crate::config::Config;
use crate::encode::{BLOCK, Positions, apply, decode_positions, encode_block};
use crate::logs::docker::DockerSource;
use crate::logs::file::FileSource;
use crate::logs::journal::JournalSource;
use crate::logs::kernel::KernelSource;
use crate::logs::stage::Stages;
use crate::logs::syslog::{Sockets, SyslogSource};
use crate::logs::{Progress, Source, Waiting};
use crate::model::Block;
use crate::status::StagesReport;
use crate::wal::{AppendError, Encoded, Payload, WalError};

/// Bytes of lines in one block: small enough for any WAL, large enough that its overhead is none.
const BLOCK_BYTES: usize = 64 << 10;

/// How long entries gather in their sources after the first one is seen, so that a chatty program does not
/// cost an fsync a line. They are as safe there as in the WAL, but
/// for what only the agent's memory has, which a source says of itself.
const GATHER: Duration = Duration::from_secs(1);

/// How often a full WAL is tried again when nobody says that it has room.
const LOOK: Duration = Duration::from_secs(60);

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

/// The positions that the WAL holds: the newest segment that has a readable first record has all.
pub(super) fn recover_positions(log: &Log) -> Result<Positions, WalError> {
    let segments: Vec<u64> = log.with(|wal| wal.segments().collect()).unwrap_or_default();
    let mut positions = Positions::new();
    let mut payload = Vec::new();
    for (index, &base) in segments.iter().enumerate() {
        let mut at = base;
        let mut complete = false;
        // From this segment on to the end: newer ones that begin unreadable add what they can.
        while let Some(Ok(Some(record))) = log.with(|wal| wal.scan(at, &mut payload)) {
            if record.fresh {
                positions.clear();
                complete = true;
            }
            held::strip(&record, &mut payload);
            if let Err(error) = decode_positions(&payload, &mut positions) {
                log::warn!("the logs WAL's record at {}: {error}", record.position);
            }
            at = record.next;
        }
        if complete || index + 1 == segments.len() {
            break;
        }
    }
    Ok(positions)
}

/// The sources that the configuration asks for.
///
/// # Errors
/// What the configuration has checked before went wrong now.
pub(super) fn build(
    config: &Config,
    state: &State,
    sockets: &Sockets,
) -> Result<Vec<Box<dyn Source>>, RunError> {
    let positions = state.positions.borrow();
    let changed = |error: &dyn std::fmt::Display| RunError::Changed(error.to_string());
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if !config.logs.files.is_empty() {
        let source = FileSource::new(&config.logs.files, &positions, Rc::clone(&state.clock));
        sources.push(Box::new(source.map_err(|error| changed(&error))?));
    }
    if let Some(options) = &config.logs.journal {
        let clock = state.clock.as_ref();
        sources.push(Box::new(JournalSource::new(options, &config.host, &positions, clock)));
    }
    if let Some(kernel) = &config.logs.kernel {
        let clock = Rc::clone(&state.clock);
        let source = KernelSource::new(kernel, &positions, clock, &config.host);
        sources.push(Box::new(source));
    }
    if !config.logs.syslog.is_empty() {
        let clock = Rc::clone(&state.clock);
        let source = SyslogSource::new(&config.logs.syslog, &config.host, clock, sockets);
        sources.push(Box::new(source));
    }
    if let Some(options) = &config.logs.docker {
        let (options, clock) = (options.clone(), Rc::clone(&state.clock));
        sources.push(Box::new(DockerSource::new(options, &positions, clock, &config.host)));
    }
    Ok(sources)
}

/// What stays of the sources over a reload.
#[derive(Default)]
pub(super) struct Kept {
    /// How far they had read: what the disk has not taken must not be read again.
    pub(super) positions: Positions,
    /// What still receives meanwhile.
    pub(super) sockets: Sockets,
}

/// What is known of one source.
#[derive(Debug)]
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
    pub(super) phase: watch::Receiver<Phase>,
}

impl Sources {
    pub(super) async fn run(mut self) {
        let mut block = Block::new();
        let mut first = 0;
        let mut last = false;
        loop {
            let draining = *self.phase.borrow() == Phase::Draining;
            let more = self.read(first, &mut block);
            // Whoever has much to say must not keep the others waiting.
            first += 1;
            self.stages.run(&mut block, self.state.clock.now_ns(), Instant::now());
            let empty = block.is_empty();
            let written = if empty {
                // A source that passes over much gives nothing to wait for.
                tokio::task::yield_now().await;
                true
            } else {
                self.write(&block).await
            };
            block.clear();
            if !written {
                return;
            }
            let dropped = &self.state.dropped;
            self.stages.take_dropped(&mut |reason, count| {
                dropped.add_wanted("logs", reason, count);
            });
            self.count();
            if more {
                continue;
            }
            if draining {
                // What sockets gave while the disk wrote is nowhere else.
                if empty || last {
                    return;
                }
                last = true;
                continue;
            }
            // What a burst has made large is not kept until the next one.
            block = Block::new();
            self.stages.rest();
            let due = self.stages.due();
            let Sources { sources, phase, .. } = &mut self;
            tokio::select! {
                () = sleep_until(due) => {}
                () = any(sources, |source| source.ready()) => {
                    let until = Instant::now() + GATHER;
                    tokio::select! {
                        () = any(sources, |source| source.gather(until)) => {}
                        _ = phase.changed() => {}
                    }
                }
                _ = phase.changed() => {}
            }
        }
    }

    /// Reads all sources in turn, the `first`th first. True if there is more.
    fn read(&mut self, first: usize, block: &mut Block) -> bool {
        let count = self.sources.len();
        let mut more = false;
        for turn in 0..count {
            if block.size() >= BLOCK_BYTES {
                return true;
            }
            let Some(source) = self.sources.get_mut((first + turn) % count) else { break };
            more |= source.read(block, BLOCK_BYTES) == Progress::More;
        }
        more
    }

    /// Tells the state what the sources have counted.
    pub(super) fn count(&self) {
        let mut all = self.state.sources.borrow_mut();
        all.clear();
        for source in &self.sources {
            let mut counts = Vec::new();
            source.counts(&mut |name, count| counts.push((name, count)));
            all.push(SourceCounts { name: source.name(), counts });
        }
        let counts = self.stages.counts();
        // As the configuration counts its tables.
        let own = |(at, count): (usize, u64)| (at.saturating_sub(self.first_stages) as u64, count);
        *self.state.stages.borrow_mut() = Some(StagesReport {
            streams: counts.streams,
            held: counts.held,
            overflow: counts.overflow,
            trimmed: counts.trimmed,
            truncated: counts.truncated,
            misses: self.stages.misses().map(own).collect(),
        });
    }

    /// Writes a block, for as long as it takes. False if the agent drains and the WAL has no room: the
    /// entries stay in their sources, and the positions where they were.
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
            if *self.phase.borrow() == Phase::Draining {
                return false;
            }
            let Sources { sources, phase, .. } = self;
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(LOOK) => {}
                () = any(sources, |source| source.hold()) => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// Appends a block. What it covers is known before anything else can be appended.
    fn append(&self, block: &Block) -> Result<(), AppendError> {
        let positions = self.state.positions.borrow();
        let now = self.state.time.look();
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
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Waits until something is over for one of the sources.
async fn any(
    sources: &mut [Box<dyn Source>],
    wait: impl for<'a> Fn(&'a mut dyn Source) -> Waiting<'a>,
) {
    let mut waiting: Vec<Waiting<'_>> = Vec::with_capacity(sources.len());
    for source in sources {
        waiting.push(wait(source.as_mut()));
    }
    poll_fn(|context| {
        let over = waiting.iter_mut().any(|one| one.as_mut().poll(context).is_ready());
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
