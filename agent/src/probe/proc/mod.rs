//! What /proc says of what the probes measure, where neither BPF nor a tracepoint does: averages instead
//! of distributions, counts instead of events. It must not know the other sources, nor which is in use.
//!
//! Each source reads one file through [`Host`](crate::host::Host)'s buffer and writes the probe's own
//! names, so that a dashboard needs to know one set. A steady round allocates nothing. A file that is
//! not there is [`ProcError::Read`] with `is_absent`.

mod block;
mod devices;
mod oom;
mod tcp;

use std::fmt;

use crate::host::ReadError;
use crate::host::text::{fields, lines, unsigned};

pub use block::BlockStats;
pub use oom::OomCount;
pub use tcp::TcpStats;

/// Why a file gave nothing, or not all. What was read before is written.
#[derive(Debug)]
pub enum ProcError {
    /// It could not be read.
    Read(ReadError),
    /// It does not look as the kernel writes it.
    Malformed {
        /// Which file, relative to the root of /proc.
        file: &'static str,
        /// The offending line, cut at 80 characters.
        line: String,
    },
}

impl ProcError {
    fn malformed(file: &'static str, line: &[u8]) -> ProcError {
        let line = String::from_utf8_lossy(line).chars().take(80).collect();
        ProcError::Malformed { file, line }
    }
}

impl From<ReadError> for ProcError {
    fn from(error: ReadError) -> ProcError {
        ProcError::Read(error)
    }
}

impl fmt::Display for ProcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcError::Read(error) => write!(f, "{error}"),
            ProcError::Malformed { file, line } => write!(f, "parsing {file}: {line:?}"),
        }
    }
}

impl std::error::Error for ProcError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProcError::Read(error) => Some(error),
            ProcError::Malformed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
