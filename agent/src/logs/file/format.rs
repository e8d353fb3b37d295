//! How lines stand in a file: the contract between the follower, which knows files and offsets, and a
//! format, which knows bytes. It must not know any format but the plain one.

use std::fmt;
use std::ops::Range;

/// A format of log files. Implementations are constants without state.
pub trait Format: fmt::Debug + Sync {
    /// What it is called in the configuration.
    fn name(&self) -> &'static str;

    /// The longest record that is looked at whole, where a line may have `max_line` bytes; of a longer
    /// one the beginning is decoded.
    fn max_record(&self, max_line: usize) -> usize {
        max_line
    }

    /// What stands around a record of the greatest size.
    fn overhead(&self) -> usize {
        2
    }

    /// For formats of lines: the data without what may stand before a record and is nothing.
    fn start<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data
    }

    /// The first record of bytes that begin where one should begin; None: records are lines. `last`:
    /// nothing will follow the data. There is no waiting for more than `max_record` and `overhead`.
    fn frame(&self, _data: &[u8], _last: bool) -> Option<Frame> {
        None
    }

    /// What a record (a line without its break) says; None if it is malformed. Text that has to be
    /// unescaped goes to the scratch, hardly more than `max_line` bytes of it.
    fn decode<'a>(
        &self,
        record: &'a [u8],
        max_line: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Option<Entry<'a>>;

    /// Where in a malformed record a good one begins: what a writer appends after a crash goes on in
    /// the line that it did not finish.
    fn again(&self, _record: &[u8]) -> Option<usize> {
        None
    }
}

/// The first bytes of what has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A record, and how many bytes are done with it.
    Record {
        /// Where its contents are.
        body: Range<usize>,
        /// With what stands around them.
        len: usize,
    },
    /// So many bytes are no record.
    Damaged {
        /// At least one.
        len: usize,
    },
    /// The record is not there in full.
    Wait,
}

/// Where a program wrote a line to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// The format does not say.
    #[default]
    None,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    pub(super) const COUNT: usize = 3;
    /// The label that tells streams apart, as Promtail's and Alloy's stages `docker` and `cri` have it.
    pub const LABEL: &str = "stream";

    /// The stream of this name.
    pub fn of(name: &[u8]) -> Stream {
        match name {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => Stream::None,
        }
    }

    /// The label's value.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Stream::None => None,
            Stream::Stdout => Some("stdout"),
            Stream::Stderr => Some("stderr"),
        }
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The line without its break, in whatever encoding.
    pub text: &'a [u8],
    /// When it was written; None: when it is read.
    pub time_ns: Option<i64>,
    /// Where to.
    pub stream: Stream,
    /// The line goes on in the next record of its stream.
    pub partial: bool,
    /// The text is not all that the record had.
    pub cut: bool,
    /// What the record escaped is not Unicode and was replaced.
    pub replaced: bool,
}

/// A line is a line.
pub const PLAIN: &dyn Format = &Plain;

#[derive(Debug)]
struct Plain;

impl Format for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn decode<'a>(&self, record: &'a [u8], _: usize, _: &'a mut Vec<u8>) -> Option<Entry<'a>> {
        Some(Entry { text: record, ..Entry::default() })
    }
}
