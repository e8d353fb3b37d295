//! The log readers: sources of entries, each with a position that travels with its entries.
//!
//! A source knows `model`, `host` and `memory`; never the WAL or where entries go. Whoever stores a block
//! stores its entries and its positions or neither, and a source that is built with the stored positions goes
//! on exactly there.
//!
//! **Labels.** A source gets the labels that its section of the configuration and the agent give to every
//! stream, and adds those that it knows. Labels whose names begin with `__` are for the stages to match on, and
//! are removed before the WAL; every stream has [`SOURCE`].

pub mod docker;
pub mod file;
pub mod journal;
pub mod kernel;
pub mod severity;
pub mod stage;
pub mod syslog;
mod text;
mod watch;

use std::pin::Pin;

use tokio::time::Instant;

use crate::model::Block;

/// The internal label with the name of the source.
pub const SOURCE: &str = "__source__";

/// Something that a source waits for. Dropping it loses nothing.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Whether a read left something behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The block is full: write it and read again.
    More,
    /// Everything has been read: wait for [`Source::ready`].
    Idle,
}

/// A log reader. Needs a tokio runtime with I/O and time.
pub trait Source {
    /// What metrics and the status page call it: `file`, `journal`, ….
    fn name(&self) -> &'static str;

    /// Waits until there may be something to read.
    fn ready(&mut self) -> Waiting<'_>;

    /// Lets entries gather until then, or until they have to be read; does what waiting would lose.
    fn gather(&mut self, until: Instant) -> Waiting<'_> {
        Box::pin(crate::host::alarm::sleep_until(until))
    }

    /// Puts entries, and the positions that cover them, into the block, also when it is not known to be
    /// [`ready`](Source::ready), until it has `limit_bytes` as
    /// [`Block::size`] counts them. An empty block takes at least one entry. Never takes long: what does
    /// is left for the next call, by [`Progress::More`].
    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress;

    /// Whether what it has given is nowhere else, or is gone after a power cut: then it is written at once.
    fn is_last_copy(&self) -> bool {
        false
    }

    /// Whether nobody can be asked again for what it has given.
    fn has_no_position(&self) -> bool {
        false
    }

    /// Nothing may be read for now, since the WAL is full: does what waiting would lose, for as long as it
    /// is polled, and does not end.
    fn hold(&mut self) -> Waiting<'_> {
        Box::pin(std::future::pending())
    }

    /// Counts since it was built: `lines`, `bytes`, `errors`, `lost_bytes` and what else it meets.
    fn counts(&self, out: &mut dyn FnMut(&'static str, u64));
}
