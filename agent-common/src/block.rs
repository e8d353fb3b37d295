//! Block I/O: what the programs on `block:block_rq_issue` and `block:block_rq_complete` keep in their
//! maps. It holds the rule that both sides must agree on, how `rwbs` names an operation, so that it can be
//! tested without a kernel.

use crate::event::Header;
use crate::histogram::{Histogram, SLOTS};
use crate::plain::plain;

plain!(BlockKey, BlockHistogram, BlockErrorKey, BlockCounters);

/// What a request asks of the device; the groups of /proc/diskstats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// Data from the device.
    Read = 1,
    /// Data to the device, and zeroes that the device writes by itself.
    Write = 2,
    /// Blocks that are no longer used; secure erase too.
    Discard = 3,
    /// Write the cache back to the medium.
    Flush = 4,
}

impl Operation {
    /// The operation of a map's key.
    pub const fn from_u32(number: u32) -> Option<Operation> {
        match number {
            1 => Some(Operation::Read),
            2 => Some(Operation::Write),
            3 => Some(Operation::Discard),
            4 => Some(Operation::Flush),
            _ => None,
        }
    }

    /// The value of the label `operation`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Discard => "discard",
            Operation::Flush => "flush",
        }
    }
}

/// The operation that a tracepoint's `rwbs` names (blk_fill_rwbs in kernel/trace/blktrace.c): an `F`
/// in front for a request with a preflush, then one letter for the operation, then flags.
///
/// `N` is what has no letter: WRITE_ZEROES on kernels that don't write `WZ` yet, zone commands, and
/// passthrough commands, which have no sectors. The first is a write; the others, like all zone
/// management (`ZR`, `ZF`, `ZO`, `ZC`), belong to none of the four.
#[inline(always)]
pub const fn operation(rwbs: [u8; 4], sectors: u32) -> Option<Operation> {
    let (letter, next) = if rwbs[0] == b'F' { (rwbs[1], rwbs[2]) } else { (rwbs[0], rwbs[1]) };
    match letter {
        b'R' => Some(Operation::Read),
        b'W' => Some(Operation::Write),
        b'D' => Some(Operation::Discard),
        b'Z' if next == b'A' => Some(Operation::Write),
        b'N' if sectors > 0 => Some(Operation::Write),
        // "FF", and a flush without the preflush flag: "F" and what follows it.
        b'N' | b'Z' => None,
        _ if rwbs[0] == b'F' => Some(Operation::Flush),
        _ => None,
    }
}

/// The number of the operation that `block_rq_error` says has failed; 0 for one that is none of the four.
///
/// A flush of the device's cache that fails is told as an error of the write that asked for it, which then
/// has no sectors, and its own request is not told at all, as it has no data (blk_flush_complete_seq in
/// block/blk-flush.c, blk_update_request in block/blk-mq.c).
#[inline(always)]
pub const fn failed_operation(rwbs: [u8; 4], sectors: u32) -> u32 {
    match operation(rwbs, sectors) {
        Some(Operation::Write) if sectors == 0 => Operation::Flush as u32,
        Some(operation) => operation as u32,
        None => 0,
    }
}

/// Whether a failed request's error is one of the device or of what is between: not `EAGAIN` of a
/// request that must not wait, and not `EOPNOTSUPP` of an operation that the device does not have.
#[inline(always)]
pub const fn is_fault(error: u32) -> bool {
    const EAGAIN: u32 = 11;
    const EOPNOTSUPP: u32 = 95;
    error != 0 && error != EAGAIN && error != EOPNOTSUPP
}

/// A request that the driver has. Two requests of one kind that start at one sector of one device at
/// the same time can't be told apart: the tracepoints carry nothing that would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockStart {
    /// When it was issued, in nanoseconds of CLOCK_MONOTONIC; 0 for none.
    pub at_ns: u64,
    /// The first sector that is not completed yet; 0 for a flush.
    pub sector: u64,
    /// The kernel's dev_t: major << 20 | minor.
    pub device: u32,
    /// An [`Operation`].
    pub operation: u32,
    /// Sectors of 512 bytes that are not completed yet; 0 for a flush.
    pub sectors: u32,
    /// Sectors that were completed before: parts of a request may be.
    pub done: u32,
}

impl BlockStart {
    /// No request.
    pub const NONE: BlockStart =
        BlockStart { at_ns: 0, sector: 0, device: 0, operation: 0, sectors: 0, done: 0 };

    /// Whether it is the request that this part belongs to.
    #[inline(always)]
    pub const fn is(&self, sector: u64, device: u32, operation: u32) -> bool {
        // The sector first, because it is what differs.
        self.sector == sector
            && self.at_ns != 0
            && self.device == device
            && self.operation == operation
    }
}

/// No request takes as long as this, in nanoseconds: drivers give up after 30 s as a rule, and try a few
/// times. What seems older is an entry whose completion was missed, and its sector's next request.
pub const MAX_AGE_NS: u64 = 3_600_000_000_000;

/// Requests that may be looked for in one place.
pub const WAYS: usize = 4;

/// A place in the table of requests, which is a plain array: an entry costs no lock and no search. Where
/// all of a place is taken the oldest gives way. Two CPUs that write to one place at the same moment may
/// lose one of the two, whose completion is counted as one without a beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockPlace {
    /// Its requests.
    pub starts: [BlockStart; WAYS],
}

impl BlockPlace {
    /// Notes a request: over an earlier entry of the same one, wherever that is, or its completion might
    /// find the wrong one; else where there is room, or over the oldest. Says whether that was lost.
    #[inline(always)]
    pub const fn note(&mut self, start: BlockStart) -> bool {
        let [first, second, third, fourth] = &mut self.starts;
        let BlockStart { sector, device, operation, .. } = start;
        if first.is(sector, device, operation) {
            *first = start;
        } else if second.is(sector, device, operation) {
            *second = start;
        } else if third.is(sector, device, operation) {
            *third = start;
        } else if fourth.is(sector, device, operation) {
            *fourth = start;
        } else {
            // No entry is older than 0, which is none.
            let left = if first.at_ns <= second.at_ns { first } else { second };
            let right = if third.at_ns <= fourth.at_ns { third } else { fourth };
            let oldest = if left.at_ns <= right.at_ns { left } else { right };
            let lost = oldest.at_ns != 0;
            *oldest = start;
            return lost;
        }
        false
    }
}

/// The place of a request in a table of `mask + 1` places, a power of two.
#[inline(always)]
pub const fn place(sector: u64, device: u32, operation: u32, mask: u32) -> u32 {
    // Fibonacci hashing: neighbours in sectors are spread, and the upper bits are the good ones.
    let mixed = (sector as u32) ^ (device << 7) ^ (operation << 3);
    ((mixed as u64).wrapping_mul(0x9e37_79b1) >> 32) as u32 & mask
}

/// What a histogram is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockKey {
    /// The kernel's dev_t: major << 20 | minor.
    pub device: u32,
    /// An [`Operation`].
    pub operation: u32,
}

/// The requests that one CPU has seen complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockHistogram {
    /// Their latencies.
    pub latency: Histogram,
    /// Their bytes.
    pub bytes: u64,
}

impl BlockHistogram {
    /// No request.
    pub const ZERO: BlockHistogram = BlockHistogram { latency: Histogram::ZERO, bytes: 0 };
}

/// What failed requests are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockErrorKey {
    /// The kernel's dev_t: major << 20 | minor.
    pub device: u32,
    /// An [`Operation`]; 0 for one that is none of the four.
    pub operation: u32,
    /// The error's number, positive as in errno.h.
    pub error: u32,
    /// Always 0.
    pub padding: u32,
}

/// A request that has failed, or the part of it that has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockErrorEvent {
    /// The kind is [`Kind::BlockError`](crate::event::Kind::BlockError).
    pub header: Header,
    /// Where it failed.
    pub key: BlockErrorKey,
    /// The first sector.
    pub sector: u64,
    /// How many sectors of 512 bytes.
    pub sectors: u64,
}

/// What one CPU could not measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockCounters {
    /// Completions of which no issue is known: issued before the probe was attached, pushed out of
    /// the table, one of two that can't be told apart, or none that is younger than [`MAX_AGE_NS`].
    pub unmatched: u64,
    /// Issues that had to take another request's place in the table.
    pub starts_lost: u64,
    /// Completions that found no room in the map of histograms.
    pub histograms_lost: u64,
}

const _: () = {
    assert!(size_of::<BlockStart>() == 32);
    assert!(size_of::<BlockPlace>() == 32 * WAYS);
    assert!(size_of::<BlockKey>() == 8);
    assert!(size_of::<BlockHistogram>() == 8 * SLOTS + 16);
    assert!(size_of::<BlockErrorKey>() == 16);
    assert!(size_of::<BlockErrorEvent>() == 48);
    assert!(size_of::<BlockCounters>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rwbs_names_the_operation() {
        use Operation::{Discard, Flush, Read, Write};
        for (rwbs, sectors, expected) in [
            (*b"R\0\0\0", 8, Some(Read)),
            (*b"RA\0\0", 8, Some(Read)),
            (*b"RSM\0", 8, Some(Read)),
            (*b"W\0\0\0", 8, Some(Write)),
            (*b"WFS\0", 8, Some(Write)),
            (*b"FWS\0", 8, Some(Write)),
            (*b"FWFS", 8, Some(Write)),
            (*b"WZ\0\0", 8, Some(Write)),
            (*b"ZA\0\0", 8, Some(Write)),
            (*b"N\0\0\0", 8, Some(Write)),
            (*b"N\0\0\0", 0, None),
            (*b"FN\0\0", 0, None),
            (*b"D\0\0\0", 8, Some(Discard)),
            (*b"DE\0\0", 8, Some(Discard)),
            (*b"FF\0\0", 0, Some(Flush)),
            (*b"F\0\0\0", 0, Some(Flush)),
            (*b"FS\0\0", 0, Some(Flush)),
            (*b"ZR\0\0", 0, None),
            (*b"ZRA\0", 0, None),
            (*b"\0\0\0\0", 0, None),
            (*b"?!\0\0", 8, None),
        ] {
            assert_eq!(operation(rwbs, sectors), expected, "{rwbs:?} {sectors}");
        }
    }

    #[test]
    fn requests_are_spread_over_the_places() {
        let mask = 255;
        for step in [1, 8, 64, 256, 2_048, 1 << 20] {
            let mut counts = [0; 256];
            for n in 0..1_024u64 {
                counts[place(n * step, 8 << 20, 1, mask) as usize] += 1;
            }
            // Four each if they were spread evenly.
            assert!(counts.iter().all(|count| *count <= 12), "{step}: {counts:?}");
        }
    }

    /// A place with entries of these times and sectors.
    fn place_with(entries: [(u64, u64); WAYS]) -> BlockPlace {
        let start = |(at_ns, sector)| BlockStart { at_ns, sector, device: 1, ..BlockStart::NONE };
        BlockPlace { starts: entries.map(start) }
    }

    fn noted(mut place: BlockPlace, at_ns: u64, sector: u64) -> ([(u64, u64); WAYS], bool) {
        let lost = place.note(BlockStart { at_ns, sector, device: 1, ..BlockStart::NONE });
        (place.starts.map(|start| (start.at_ns, start.sector)), lost)
    }

    #[test]
    fn a_request_that_is_issued_again_leaves_no_older_entry_behind_a_free_one() {
        for at in 0..WAYS {
            let mut entries = [(0, 8); WAYS];
            entries[at] = (5, 8);
            let mut expected = entries;
            expected[at] = (9, 8);
            assert_eq!(noted(place_with(entries), 9, 8), (expected, false));
            // Nor where all is taken.
            let mut entries = [(4, 1), (4, 2), (4, 3), (4, 4)];
            entries[at] = (5, 8);
            let mut expected = entries;
            expected[at] = (9, 8);
            assert_eq!(noted(place_with(entries), 9, 8), (expected, false));
        }
    }

    #[test]
    fn a_new_request_takes_what_is_free_and_else_the_place_of_the_oldest() {
        for at in 0..WAYS {
            let mut entries = [(4, 1), (5, 2), (6, 3), (7, 4)];
            let mut expected = entries;
            (entries[at], expected[at]) = ((0, 8), (9, 8));
            assert_eq!(noted(place_with(entries), 9, 8), (expected, false));
            entries[at] = (1, 5);
            assert_eq!(noted(place_with(entries), 9, 8), (expected, true));
        }
    }

    #[test]
    fn a_failed_write_without_sectors_is_a_failed_flush() {
        use Operation::{Flush, Read, Write};
        for (rwbs, sectors, expected) in [
            (*b"WS\0\0", 0, Flush as u32),
            (*b"FWS\0", 0, Flush as u32),
            (*b"FF\0\0", 0, Flush as u32),
            (*b"WS\0\0", 8, Write as u32),
            (*b"R\0\0\0", 8, Read as u32),
            (*b"ZR\0\0", 0, 0),
            (*b"N\0\0\0", 0, 0),
        ] {
            assert_eq!(failed_operation(rwbs, sectors), expected, "{rwbs:?} {sectors}");
        }
    }

    #[test]
    fn operations_survive_their_numbers() {
        for number in 0..10 {
            if let Some(operation) = Operation::from_u32(number) {
                assert_eq!(operation as u32, number);
            }
        }
    }
}
