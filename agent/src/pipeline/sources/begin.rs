//! What reading begins with: the positions that the WAL holds, the sources that the configuration asks for, and what
//! the last pipeline left. It must not read from a source.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::time::Instant;

use super::block_bytes;
use crate::config::Config;
use crate::encode::{Positions, apply, decode_positions};
use crate::logs::Source;
use crate::logs::docker::{self, DockerSource};
use crate::logs::file::{self, FileSource};
use crate::logs::journal::JournalSource;
use crate::logs::kernel::KernelSource;
use crate::logs::stage::Stages;
use crate::logs::syslog::{Sockets, SyslogSource};
use crate::model::Block;
use crate::pipeline::log::Log;
use crate::pipeline::losses::Dropped;
use crate::pipeline::state::State;
use crate::pipeline::{RunError, held};
use crate::wal::WalError;

/// The positions that the WAL holds: the newest segment that has a readable first record has all.
pub(in crate::pipeline) fn recover_positions(log: &Log) -> Result<Positions, WalError> {
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

/// The sources that the configuration asks for, and the stages: they go on after what is about to be written.
///
/// # Errors
/// What the configuration has checked before went wrong now.
pub(in crate::pipeline) fn build(
    config: &Config,
    state: &State,
    kept: &Kept,
) -> Result<(Vec<Box<dyn Source>>, Stages), RunError> {
    let mut positions = state.positions.borrow().clone();
    if let Some(unwritten) = &*kept.unwritten.borrow() {
        for position in unwritten.blocks.iter().flat_map(Block::positions) {
            apply(&mut positions, position.key, position.position);
        }
    }
    let sockets = &kept.sockets;
    // Two of them are a block.
    let buffer = block_bytes(config.agent.memory_limit) / 2;
    let changed = |error: &dyn std::fmt::Display| RunError::Changed(error.to_string());
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if !config.logs.files.is_empty() {
        let limits = file::Limits { buffer, ..file::Limits::default() };
        let clock = Rc::clone(&state.clock);
        let source = FileSource::with_limits(&config.logs.files, &positions, clock, limits);
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
        let limits = docker::Limits { buffer, ..docker::Limits::default() };
        let source = DockerSource::with_limits(options, &positions, clock, &config.host, limits);
        sources.push(Box::new(source));
    }
    let stages = Stages::new(&config.logs.stages, &positions, Instant::now());
    Ok((sources, stages))
}

/// What was read when a full WAL met the end of the pipeline. What sockets gave of it is nowhere else, so that the
/// next pipeline writes it before anything; its positions count for whoever reads on, and are told the WAL with it.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) blocks: Vec<Block>,
    /// Entries that are nowhere else.
    pub(super) last_copies: u64,
}

/// What stays of the sources over a reload.
#[derive(Default)]
pub(in crate::pipeline) struct Kept {
    /// How far they had read: what the disk has not taken must not be read again.
    pub(in crate::pipeline) positions: Positions,
    /// What still receives meanwhile.
    pub(in crate::pipeline) sockets: Sockets,
    pub(super) unwritten: Rc<RefCell<Option<Unwritten>>>,
}

impl Kept {
    /// The agent stops: counts what is lost by that.
    pub(in crate::pipeline) fn stop(&self, dropped: &Dropped) {
        let lost = self.unwritten.take().map_or(0, |unwritten| unwritten.last_copies);
        if lost > 0 {
            log::warn!(
                "{lost} entries that came over sockets are lost, since the WAL has no room for them"
            );
            dropped.add("logs", "wal_full", lost);
        }
    }
}
