//! What can go wrong in a collector.

use std::fmt;

use crate::host::ReadError;

/// Why a collector has no samples, or not all of them.
#[derive(Debug)]
pub enum CollectError {
    /// This host has no such thing; quiet.
    NoData(ReadError),
    /// The source is there and can't be read.
    Read(ReadError),
    /// The source reads, and does not look as it should.
    Parse {
        /// Which file, relative to its root, such as `proc/loadavg`.
        file: String,
        /// The offending token or line.
        token: String,
        /// What stands there in a well-formed file.
        expected: &'static str,
    },
    /// A system call other than reading failed.
    System {
        /// What was attempted, on what.
        attempt: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl CollectError {
    /// A parse error; the token is cut at 80 characters.
    pub fn parse(file: &str, token: &str, expected: &'static str) -> CollectError {
        CollectError::Parse {
            file: file.to_owned(),
            token: token.chars().take(80).collect(),
            expected,
        }
    }
}

impl From<ReadError> for CollectError {
    fn from(error: ReadError) -> CollectError {
        if error.is_absent() { CollectError::NoData(error) } else { CollectError::Read(error) }
    }
}

impl fmt::Display for CollectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CollectError::NoData(error) => write!(f, "no data on this host: {error}"),
            CollectError::Read(error) => write!(f, "{error}"),
            CollectError::Parse { file, token, expected } => {
                write!(f, "parsing {file}: {token:?} where {expected} should stand")
            }
            CollectError::System { attempt, source } => write!(f, "{attempt}: {source}"),
        }
    }
}

impl std::error::Error for CollectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CollectError::NoData(error) | CollectError::Read(error) => Some(error),
            CollectError::Parse { .. } => None,
            CollectError::System { source, .. } => Some(source),
        }
    }
}
