//! SD and eMMC cards: what the program on `mmc:mmc_request_done` counts and hands over, and the rule which
//! failures are none of the card.

use crate::event::Header;
use crate::plain::plain;

plain!(MmcErrorKey);

/// Bytes of a host's name ("mmc0") with its NUL.
pub const HOST: usize = 16;

/// The part of a request that has failed, in the order in which a request's parts go to the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    /// CMD23 before a transfer, which says how many blocks come.
    BlockCount = 1,
    /// The command.
    Command = 2,
    /// Its data.
    Data = 3,
    /// CMD12, which ends a transfer.
    Stop = 4,
}

impl Part {
    /// The part of an event.
    pub const fn from_u32(number: u32) -> Option<Part> {
        match number {
            1 => Some(Part::BlockCount),
            2 => Some(Part::Command),
            3 => Some(Part::Data),
            4 => Some(Part::Stop),
            _ => None,
        }
    }

    /// What it is called in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Part::BlockCount => "block_count",
            Part::Command => "command",
            Part::Data => "data",
            Part::Stop => "stop",
        }
    }
}

/// The first part of a request that has failed, and its error as a positive number; None for a request
/// that went well, and for one that is expected to fail. The errors are 0 or negative.
///
/// A card is looked for by commands that only a card of the right kind answers, in mmc_rescan_try_freq of
/// drivers/mmc/core/core.c and what it calls, once a second on hosts that poll an empty slot:
/// GO_IDLE_STATE (0), SEND_OP_COND (1), SDIO's IO_SEND_OP_COND (5) and IO_RW_DIRECT (52, by which an SDIO
/// card is reset and its sleep is tried), SD's SEND_IF_COND (8), APP_CMD (55) and SD_APP_OP_COND (41).
/// That they fail says only what is not there. An eMMC has another 8, SEND_EXT_CSD, which the number
/// doesn't tell apart; but that one has data, so an error of an 8's data counts.
///
/// 0 is also what the tracepoint says of a transfer through a command queue, which has no command of its
/// own: errors of its data count.
///
/// Tuning (19 and 21; mmc_send_tuning in mmc_ops.c) tries clock phases of which some must fail, and so
/// does the test of an eMMC's bus width (19 and 14; mmc_bus_test): neither command nor data count.
#[inline(always)]
pub const fn failure(opcode: u32, sbc: i32, cmd: i32, data: i32, stop: i32) -> Option<(Part, u32)> {
    if matches!(opcode, 14 | 19 | 21) {
        return None;
    }
    let looked_for = matches!(opcode, 0 | 1 | 5 | 8 | 41 | 52 | 55);
    if sbc != 0 {
        Some((Part::BlockCount, sbc.wrapping_neg() as u32))
    } else if cmd != 0 {
        if looked_for { None } else { Some((Part::Command, cmd.wrapping_neg() as u32)) }
    } else if data != 0 {
        Some((Part::Data, data.wrapping_neg() as u32))
    } else if stop != 0 {
        Some((Part::Stop, stop.wrapping_neg() as u32))
    } else {
        None
    }
}

/// What failed requests are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct MmcErrorKey {
    /// The host's name, closed with NUL and filled with it.
    pub host: [u8; HOST],
    /// The error's number, positive as in errno.h.
    pub error: u32,
    /// Always 0.
    pub padding: u32,
}

/// A request that has failed. Each try is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct MmcEvent {
    /// The kind is [`Kind::Mmc`](crate::event::Kind::Mmc).
    pub header: Header,
    /// Where and with what it failed.
    pub key: MmcErrorKey,
    /// The number of the request's command; 0 in a command queue.
    pub opcode: u32,
    /// The [`Part`] that failed first.
    pub part: u32,
    /// Bytes that were moved all the same.
    pub bytes: u64,
}

const _: () = {
    assert!(size_of::<MmcErrorKey>() == 24);
    assert!(size_of::<MmcEvent>() == 56);
};

#[cfg(test)]
mod tests {
    use super::*;

    const ETIMEDOUT: i32 = -110;
    const EILSEQ: i32 = -84;

    #[test]
    fn an_empty_slot_is_no_error() {
        for opcode in [0, 1, 5, 8, 41, 52, 55] {
            assert_eq!(failure(opcode, 0, ETIMEDOUT, 0, 0), None, "{opcode}");
        }
        for opcode in [14, 19, 21] {
            assert_eq!(failure(opcode, 0, EILSEQ, EILSEQ, 0), None, "{opcode}");
        }
    }

    #[test]
    fn the_first_part_that_failed_is_named_and_a_request_counts_once() {
        assert_eq!(failure(18, 0, 0, 0, 0), None);
        assert_eq!(failure(18, EILSEQ, ETIMEDOUT, EILSEQ, 0), Some((Part::BlockCount, 84)));
        assert_eq!(failure(18, 0, ETIMEDOUT, EILSEQ, EILSEQ), Some((Part::Command, 110)));
        assert_eq!(failure(25, 0, 0, EILSEQ, ETIMEDOUT), Some((Part::Data, 84)));
        assert_eq!(failure(25, 0, 0, 0, ETIMEDOUT), Some((Part::Stop, 110)));
        // A command queue's transfer, and an eMMC's EXT_CSD.
        assert_eq!(failure(0, 0, 0, EILSEQ, 0), Some((Part::Data, 84)));
        assert_eq!(failure(8, 0, 0, EILSEQ, 0), Some((Part::Data, 84)));
    }

    #[test]
    fn parts_survive_their_numbers() {
        let parts = (0..10).filter_map(|n| Part::from_u32(n).map(|part| (n, part as u32)));
        assert!(parts.clone().all(|(n, part)| n == part));
        assert_eq!(parts.count(), 4);
    }
}
