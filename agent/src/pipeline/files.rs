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
use crate::wal::{AppendError, Payload, WalError};

/// Bytes of lines in one block: small enough for any WAL, large enough that its overhead is none.
const BLOCK_BYTES: usize = 64 << 10;

/// How long lines gather in their file after the first one is seen, so that a chatty program does not
/// cost an fsync a line. They are as safe there as in the WAL.
const GATHER: Duration = Duration::from_secs(1);

/// How long to wait before a failed WAL is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often a full WAL lets the source look for new and renamed files: what it holds open is not lost
/// when it is rotated away meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// A block on its way into the WAL.
struct BlockPayload<'a> {
    block: &'a Block,
    positions: &'a Positions,
    /// How many of its entries the record took.
    entries: u32,
}

impl Payload for BlockPayload<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> u32 {
        let changed = self.block.positions();
        if !fresh {
            self.entries = encode_block(self.block, changed.map(|p| (p.key, p.position)), out);
            return self.entries;
        }
        let mut all = self.positions.clone();
        for position in changed {
            apply(&mut all, position.key, position.position);
        }
        let all = all.iter().map(|(key, position)| (key.as_str(), position.as_slice()));
        self.entries = encode_block(self.block, all, out);
        self.entries
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
    pub(super) positions: Positions,
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

    /// Writes a block, for as long as it takes. False if the agent drains and the WAL does not take it:
    /// the lines stay in their files, and the positions where they were.
    async fn write(&mut self, block: &Block) -> bool {
        let mut written = None;
        let mut payload =
            BlockPayload { block, positions: &self.positions, entries: block.len() as u32 };
        loop {
            let log = Rc::clone(&self.log);
            let freed = log.freed();
            let result = log.write(BLOCK, &mut payload, &mut written).await;
            let full = matches!(result, Err(AppendError::Full { .. }));
            if full && !self.state.sources.borrow().paused {
                log::warn!(
                    "the logs WAL is full: log files are read no further until Loki takes entries"
                );
            }
            self.state.sources.borrow_mut().paused = full;
            match result {
                Ok(()) => {
                    // A source's own bound is far below the record's, so this is nothing.
                    let left_out = block.len() as u64 - u64::from(payload.entries);
                    self.state.dropped.add("logs", TOO_LARGE, left_out);
                    break;
                }
                Err(AppendError::TooLarge { .. }) => {
                    self.state.dropped.add("logs", TOO_LARGE, block.len() as u64);
                    break;
                }
                Err(_) => {}
            }
            if *self.phase.borrow() == Phase::Draining {
                return false;
            }
            tokio::select! {
                () = freed, if full => {}
                () = tokio::time::sleep(if full { LOOK } else { RETRY }) => self.source.scan(),
                _ = self.phase.changed() => {}
            }
        }
        for position in block.positions() {
            apply(&mut self.positions, position.key, position.position);
        }
        true
    }
}
