//! What the kernel says in its log about OOM kills, failing disks, broken file systems, heat and a weak
//! supply, where no tracepoint tells it. It must not read the log itself, nor know the WAL, the
//! configuration or where events go.
//!
//! [`Recognizer::look`] takes one record after the other and gives a [`Finding`] for those that say such
//! a thing. Only the kernel is believed: what user space writes into the log has another facility, and
//! what a user may choose, such as a process' name of 15 bytes, is too short to be one of these messages
//! where it begins another.
//!
//! # Counts and events
//! Every message of its kind raises the counter of [`Notice::family`] by [`Finding::count`]. A message
//! makes an event too, [`Finding::event`], unless the same counter has had one within a minute; how
//! many came in between stands in the next one, as `repeated`. So each new device, operation and error
//! is told at once, and a disk that fails a thousand times an hour makes sixty events. An OOM kill always
//! is one. Where a failure takes several lines, its file says which of them counts.
//!
//! The kernel writes some messages at most ten times in 5 s: counts from here are lower bounds.
//!
//! # Cost
//! A message that nothing here wants costs a look at its first letter and, in its first 64 bytes, a
//! search for a comma: 30 to 90 ns, measured on a busy x86 machine, and 1 to 1.5 µs if it begins as one
//! that is wanted does, such as `EXT4-fs`. Only a finding allocates, and what is said of a victim before
//! it is named; what is remembered between messages has fixed bounds.

mod ata;
mod block;
mod filesystem;
mod hardware;
mod incident;
mod mmc;
mod notice;
mod oom;
mod scan;
mod scsi;

pub use notice::{
    AtaError, FilesystemError, IoError, MmcError, Notice, NoticeLabels, OomKill, ScsiError,
    ThermalTrip, Undervoltage,
};

use crate::host::kmsg::Record;
use crate::model::Event;

/// A record that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it says.
    pub notice: Notice,
    /// How many times: more than once only for messages that the kernel has left out.
    pub count: u64,
    /// None if it makes no event; otherwise how many of the same made none since the last one.
    pub repeated: Option<u64>,
}

impl Finding {
    /// The event, if it makes one: `unix_ns` is the record's time.
    pub fn event(&self, unix_ns: i64) -> Option<Event> {
        let repeated = self.repeated?;
        let event = self.notice.event(unix_ns);
        Some(if repeated > 0 { event.with("repeated", repeated.to_string()) } else { event })
    }
}

/// Recognises messages; remembers what belongs together.
#[derive(Debug, Default)]
pub struct Recognizer {
    oom: oom::Oom,
    scsi: scsi::Scsi,
    incidents: incident::Incidents,
}

impl Recognizer {
    /// One that has seen nothing.
    pub fn new() -> Recognizer {
        Recognizer::default()
    }

    /// What a record says; records come in the order of their numbers.
    pub fn look(&mut self, record: &Record<'_>) -> Option<Finding> {
        if record.facility != 0 {
            return None;
        }
        if record.fragment {
            self.oom.more(record);
        }
        let (notice, count) = self.recognize(record)?;
        if let Notice::AtaError(AtaError { error: ata::LINK_DOWN, port, .. }) = &notice
            && !self.incidents.is_open(port, record.usec)
        {
            return None;
        }
        let repeated = self.incidents.fold(&notice, record.usec);
        Some(Finding { notice, count, repeated })
    }

    /// The cgroup of a process that is being killed, where the kernel has said it: before it tells of the
    /// kill itself.
    pub fn cgroup_of(&self, pid: u32, comm: &str) -> Option<String> {
        self.oom.cgroup_of(pid, comm)
    }

    fn recognize(&mut self, record: &Record<'_>) -> Option<(Notice, u64)> {
        let text = record.text;
        let found = match text.as_bytes().first()? {
            b'K' | b'M' | b'O' | b'T' | b'o' => self.oom.look(record),
            b'A' | b'B' | b'E' | b'F' | b'J' | b'S' | b'X' => filesystem::look(text, record.level),
            b'm' => mmc::look(text).or_else(|| hardware::thermal(text)),
            b's' => self.scsi.look(text, record.usec).or_else(|| mmc::look(text)),
            b'a' => ata::look(text),
            b'C' | b't' => hardware::thermal(text),
            b'U' | b'V' | b'h' | b'r' => hardware::undervoltage(text),
            b'e' => filesystem::look(text, record.level),
            _ => None,
        };
        match found {
            Some(notice) => Some((notice, 1)),
            None => block::look(text),
        }
    }
}

#[cfg(test)]
mod tests;
