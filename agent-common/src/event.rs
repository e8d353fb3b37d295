//! Events: what the programs hand over one by one, because it is rare and its details matter. Each
//! begins with a [`Header`] that says which it is, and has a fixed size.

use crate::plain::plain;

plain!(Ration);

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The kernel is about to kill a process for want of memory: [`oom::OomEvent`](crate::oom::OomEvent).
    Oom = 0,
    /// A request to a disk has failed: [`block::BlockErrorEvent`](crate::block::BlockErrorEvent).
    BlockError = 1,
    /// A command or its data to a card has failed: [`mmc::MmcEvent`](crate::mmc::MmcEvent).
    Mmc = 2,
    /// A SCSI command has failed or timed out: [`scsi::ScsiEvent`](crate::scsi::ScsiEvent).
    Scsi = 3,
    /// A file system has met an error:
    /// [`filesystem::FilesystemEvent`](crate::filesystem::FilesystemEvent).
    Filesystem = 4,
    /// A thermal zone has passed a trip point: [`thermal::ThermalEvent`](crate::thermal::ThermalEvent).
    Thermal = 5,
}

/// How many kinds there are.
pub const KINDS: usize = 6;

impl Kind {
    /// The kind of a header.
    pub const fn from_u32(number: u32) -> Option<Kind> {
        match number {
            0 => Some(Kind::Oom),
            1 => Some(Kind::BlockError),
            2 => Some(Kind::Mmc),
            3 => Some(Kind::Scsi),
            4 => Some(Kind::Filesystem),
            5 => Some(Kind::Thermal),
            _ => None,
        }
    }
}

/// The beginning of every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Header {
    /// When it happened, in nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// A [`Kind`].
    pub kind: u32,
    /// Always 0.
    pub padding: u32,
}

/// How one CPU rations the events of one kind, so that a disk that fails with every request wakes
/// nobody 100,000 times a second. The counts in the other maps are of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Ration {
    /// When the current window began, in nanoseconds of CLOCK_MONOTONIC.
    pub since_ns: u64,
    /// Events handed over in this window.
    pub sent: u64,
    /// Events since the start that came when the window had no more.
    pub withheld: u64,
    /// Events since the start for which the buffer had no room.
    pub lost: u64,
}

/// Length of a window in nanoseconds.
pub const WINDOW_NS: u64 = 1_000_000_000;

/// Events of one kind that one CPU may hand over in a window. OOM kills are not rationed.
pub const WINDOW_EVENTS: u64 = 16;

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Ration>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_their_numbers_and_are_all_counted() {
        let numbers = (0..100).filter_map(|n| Kind::from_u32(n).map(|kind| (n, kind as u32)));
        assert!(numbers.clone().all(|(n, kind)| n == kind && (n as usize) < KINDS));
        assert_eq!(numbers.count(), KINDS);
    }
}
