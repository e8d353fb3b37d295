//! From log files to the logs WAL: lines and the position that covers them in one record.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::log::Log;
use super::state::State;
use super::{Phase, TOO_LARGE};
use crate::encode::{BLOCK, Positions, apply, decode_positions, encode_block};
use crate::logs::file::{FileSource, Progress};
use crate::model::Block;
use crate::wal::{AppendError, Encoded, Payload, WalError};

/// Bytes of lines in one block: small enough for any WAL, large enough that its overhead is none.
const BLOCK_BYTES: usize = 64 << 10;

/// How long lines gather in their file after the first one is seen, so that a chatty program does not
/// cost an fsync a line. They are as safe there as in the WAL.
const GATHER: Duration = Duration::from_secs(1);

/// How often a full WAL lets the source look for new and renamed files: what it holds open is not lost
/// when it is rotated away meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// A block on its way into the WAL.
pub(super) struct BlockPayload<'a> {
    pub(super) block: &'a Block,
    /// How far every source has been read before this block.
    pub(super) positions: &'a Positions,
    pub(super) now_ms: i64,
}

impl Payload for BlockPayload<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let time_ms = self.now_ms;
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

/// Follows the files until the agent drains.
pub(super) struct Files {
    pub(super) state: Rc<State>,
    pub(super) log: Rc<Log>,
    pub(super) source: FileSource,
    pub(super) phase: watch::Receiver<Phase>,
}

impl Files {
    pub(super) async fn run(mut self) {
        let mut block = Block::new();
        loop {
            let draining = *self.phase.borrow() == Phase::Draining;
            let progress = self.source.read(&mut block, BLOCK_BYTES);
            let written = block.is_empty() || self.write(&block).await;
            self.state.sources.borrow_mut().counters = *self.source.counters();
            block.clear();
            if !written {
                return;
            }
            if progress == Progress::More {
                continue;
            }
            if draining {
                return;
            }
            tokio::select! {
                () = self.source.ready() => {
                    tokio::select! {
                        () = self.source.gather(Instant::now() + GATHER) => {}
                        _ = self.phase.changed() => {}
                    }
                }
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Writes a block, for as long as it takes. False if the agent drains and the WAL has no room: the
    /// lines stay in their files, and the positions where they were.
    async fn write(&mut self, block: &Block) -> bool {
        loop {
            let log = Rc::clone(&self.log);
            let freed = log.freed();
            let result = self.append(block);
            let full =
                matches!(result, Err(AppendError::Full { .. } | AppendError::NoSpace { .. }));
            if let Err(error) = &result
                && full
                && !self.state.sources.borrow().paused
            {
                log::warn!("{error}: log files are read no further until Loki takes entries");
            }
            self.state.sources.borrow_mut().paused = full;
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
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(LOOK) => self.source.scan(),
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Appends a block. What it covers is known before anything else can be appended.
    fn append(&self, block: &Block) -> Result<(), AppendError> {
        let positions = self.state.positions.borrow();
        let now_ms = self.state.clock.now_ms();
        let mut payload = BlockPayload { block, positions: &positions, now_ms };
        let record = self.log.append(BLOCK, &mut payload)?;
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
