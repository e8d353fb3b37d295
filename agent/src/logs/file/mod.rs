//! Log files: follows every file that a glob matches, through rotation and truncation, and turns its
//! lines into entries.
//!
//! **Use.** It is a [`Source`](crate::logs::Source): [`FileSource::ready`] waits until there may be
//! something to read, [`FileSource::read`] puts lines and the positions that cover them into a block.
//! Whoever stores the block stores both or neither; a source built with the stored positions goes on
//! exactly there. While nothing may be read (a full WAL) or lines gather, what happens to names wakes
//! it, so that a file that is rotated away is held open; what is written wakes nobody.
//!
//! **Paths** are the host's, below [`Options::root`]; so are the links in them, and the label
//! `filename`. A link is followed to its log, and the log's rotation is seen where that is (as in
//! Kubernetes' /var/log/containers).
//!
//! **Identity.** A file is its device and inode, and, since inodes are used again, its first bytes;
//! its name is where it was found. A path's *chain* is the file that is there now and those before it
//! that were renamed away and are not finished: read oldest first, so that lines stay in the order in
//! which one writer wrote them. A renamed file is finished when it stands at its end and was quiet
//! for [`Limits::quiet`] while its path held another file (or nothing led to it), or for
//! [`Limits::orphaned`] otherwise. If it has arrived at a path that is matched as well (`app.log.1`),
//! that path takes it over with its offset, else it is closed.
//!
//! What was not seen as it happened, since the agent was stopped or rotation was quicker than a look, is
//! made up for in the log's directory:
//! - the file of a position, by inode, first bytes and the bytes before its offset; a file with other
//!   contents that is younger than what was read is another one, which got the inode;
//! - a file that was renamed before anybody had read it, by its name (the log's own with a number or a
//!   date, see `kin`) and by having been written to later than what was known to be rotated at the last
//!   look: read whole, in the order of the times of writing;
//! - a copy (copytruncate) by its first bytes and those before the offset: what it has more is read
//!   from it, before what came after the truncation, also if its log is gone. Of contents that were gone
//!   before they were read the first bytes tell, and that the copy is younger. A copy is held open from
//!   when it appears, since it may be compressed at once; one that is matched too is not read twice. What
//!   is matched and longer than the log is none: the log was renamed, and the new one begins alike.
//!
//! A file that is gone, or was compressed meanwhile, is counted (`lost_files`), and what of it was seen
//! and not read (`lost_bytes`). One that is there and can't be opened keeps its position until it can. A
//! file that can't be read any further once it was rotated away is given up after [`Limits::quiet`],
//! and counted likewise.
//!
//! **Truncation** shows as a size below the offset, or, if the file has grown to it again, as other
//! first bytes: it is read from the start, after what a copy has of what was before. What was between
//! the offset and the last size seen and is in no copy is counted as lost: what was written between
//! copy and truncation is nowhere. Not noticed while running: contents of at least the same size with
//! the same 256 first bytes. A writer without O_APPEND, which leaves a hole of zeros, is read on where
//! it was.
//!
//! **Lines** end in `\n`, a `\r` before it is not part of them, NUL bytes and empty lines are (as in
//! Promtail and Alloy). A last line without its end waits for it, or for the file to be finished. A
//! longer line than [`Options::max_line`] is cut on a character's boundary, its rest is passed over
//! as it streams by. What is not UTF-8 becomes U+FFFD; a byte order mark of UTF-8 is left out.
//! Files that begin as gzip, xz, zstd, bzip2 or UTF-16 are not logs, nor is anything but a regular file.
//!
//! **Timestamps** are the time of reading, rising by at least 1 ns within a stream: Loki drops a line
//! that repeats another's text and time.
//!
//! **Not covered**: files that came and went while nobody looked, or that were copied and truncated
//! before anybody had looked; rotation into another directory while the agent was stopped; a matched
//! copy whose original was truncated while the agent was stopped and after it had read on (it comes
//! twice); text in UTF-16, which is refused with a message.
//!
//! The module must not know the WAL, and reads the file system only, no configuration.

mod chain;
mod follow;
mod format;
mod kin;
mod paths;
mod pattern;
mod position;
mod restore;
mod root;
mod scan;
mod section;
mod source;
mod times;
mod wake;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Labels;

pub use format::{Entry, Format, Frame, PLAIN, Stream};
pub use paths::{PathOptions, Paths};
pub use pattern::{PatternError, check_exclude, check_path};
pub(in crate::logs) use root::Root;
pub use source::FileSource;

/// What every key of a position starts with; the path follows.
pub const KEY_PREFIX: &str = "file:";

/// One section of the configuration. A file that several sections match belongs to the first.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute glob patterns, see [`check_path`].
    pub paths: Vec<String>,
    /// Patterns of files to leave out, see [`check_exclude`].
    pub exclude: Vec<String>,
    /// The labels of every stream; `filename` is added and wins.
    pub labels: Labels,
    /// The longest line, in bytes; at least 16 are taken.
    pub max_line: usize,
    /// Where in files that the first look finds, and that no position names, reading begins.
    pub start_at: StartAt,
    /// Files that have not been written to for so long are not opened.
    pub ignore_older: Option<Duration>,
    /// Where the host's root is mounted; paths are the host's. The same in all sections.
    pub root: PathBuf,
    /// How lines stand in the files: [`PLAIN`], or what a container engine makes of them.
    pub format: &'static dyn Format,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            paths: Vec::new(),
            exclude: Vec::new(),
            labels: Labels::new(),
            max_line: 64 << 10,
            start_at: StartAt::Beginning,
            ignore_older: None,
            root: PathBuf::from("/"),
            format: PLAIN,
        }
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With the first line.
    #[default]
    Beginning,
    /// Behind the last complete line.
    End,
}

/// The bounds and times that hardly anybody needs to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many files are followed (and open) at once; fewer where the process may have few descriptors.
    pub max_files: usize,
    /// Whether to have the kernel watch; without it everything is polled.
    pub watch: bool,
    /// How often to look for what no event tells: files on network file systems, lost events.
    pub rescan: Duration,
    /// The same where the kernel refuses to watch.
    pub poll: Duration,
    /// How long a file that was rotated away must not have grown to be finished.
    pub quiet: Duration,
    /// The same for a file whose path is empty: its writer may not have noticed yet.
    pub orphaned: Duration,
    /// Bytes of the buffer that all files are read through, or more if a line may be longer.
    pub buffer: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_files: 1000,
            watch: true,
            rescan: Duration::from_secs(60),
            poll: Duration::from_secs(5),
            quiet: Duration::from_secs(10),
            orphaned: Duration::from_secs(3600),
            buffer: 64 << 10,
        }
    }
}

/// What a source has done since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries made.
    pub lines: u64,
    /// Bytes of files that are done with, line breaks and skipped parts included.
    pub bytes: u64,
    /// Lines that were cut at `max_line`.
    pub truncated_lines: u64,
    /// Lines in which something was replaced by U+FFFD.
    pub invalid_utf8: u64,
    /// Files whose contents were cut off or replaced.
    pub truncations: u64,
    /// Files that were renamed or removed, or whose path leads to another file.
    pub rotations: u64,
    /// Bytes that were seen to be there and were gone before they were read.
    pub lost_bytes: u64,
    /// Files that a stored position names and that are nowhere to be found.
    pub lost_files: u64,
    /// Openings and reads that failed.
    pub errors: u64,
    /// Lines that are not in their file's format, and damaged places between records.
    pub malformed: u64,
}
