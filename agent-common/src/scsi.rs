//! SCSI disks, which are those on SATA and USB too: what the programs on `scsi:*` count and hand over, and
//! the rule which results are errors of a device.

use crate::event::Header;
use crate::plain::plain;

plain!(ScsiErrorKey);

/// The sense key of a kernel whose tracepoint does not say it (before 6.12).
pub const NO_SENSE_KEY: u32 = u32::MAX;

/// An error as one number: what kind it is in the upper bits, and the kernel's own number in the lowest
/// eight.
pub mod code {
    /// The command was not done in time.
    pub const TIMEOUT: u32 = 0x100;
    /// The driver has refused the command.
    pub const DISPATCH: u32 = 0x200;
    /// A host byte, `DID_*` of include/scsi/scsi_status.h.
    pub const HOST: u32 = 0x300;
    /// A status byte, `SAM_STAT_*` there.
    pub const STATUS: u32 = 0x400;
    /// A sense key of include/scsi/scsi_proto.h.
    pub const SENSE: u32 = 0x500;
    /// The bits of the kind.
    pub const KIND: u32 = 0xff00;
}

const TEST_UNIT_READY: u32 = 0x00;
const INQUIRY: u32 = 0x12;
const REPORT_LUNS: u32 = 0xa0;
const ATA_12: u32 = 0xa1;
const ATA_16: u32 = 0x85;

/// Bits of these numbers.
const fn set(numbers: &[u32]) -> u32 {
    let mut bits = 0;
    let mut at = 0;
    while at < numbers.len() {
        bits |= 1 << numbers[at];
        at += 1;
    }
    bits
}

/// `DID_OK`; and `DID_REQUEUE` and `DID_IMM_RETRY`, by which a driver only wants the command again later.
const FINE_HOST_BYTES: u32 = set(&[0x00, 0x0c, 0x0d]);
/// `DID_NO_CONNECT` and `DID_BAD_TARGET`.
const NOBODY_THERE: u32 = set(&[0x01, 0x04]);
/// `MEDIUM_ERROR`, `HARDWARE_ERROR`, `DATA_PROTECT` (an SSD that has worn out, too) and
/// `ABORTED_COMMAND`.
const SENSE_KEYS_OF_FAULTS: u32 = set(&[0x03, 0x04, 0x07, 0x0b]);

/// Whether the command moves data from or to the medium: READ, WRITE, VERIFY and WRITE AND VERIFY of all
/// lengths (include/scsi/scsi_proto.h).
#[inline(always)]
const fn moves_data(opcode: u32) -> bool {
    matches!(
        opcode,
        0x08 | 0x0a
            | 0x28
            | 0x2a
            | 0x2e
            | 0x2f
            | 0x88
            | 0x8a
            | 0x8e
            | 0x8f
            | 0xa8
            | 0xaa
            | 0xae
            | 0xaf
            | 0x7f
    )
}

/// The error that the result of a command that is done speaks of; None if it is none of the device. The
/// result has the status in its lowest byte and the host byte in its third; the fourth is gone since 5.14
/// and said the same before.
///
/// The kernel asks devices all the time what fails by design, and this must not alarm:
/// - Nobody there (`did_no_connect`, `did_bad_target`) is the answer to an INQUIRY, a REPORT LUNS or a
///   TEST UNIT READY that looks for devices; to other commands it is a disk that is gone.
/// - Busy, full and reserved devices get the command again, or belong to another host.
/// - Of sense keys, only those of faults count. Unit attention comes after a reset or a new medium, not
///   ready is an empty drive that is polled or a disk that spins up, recovered is no failure, and an
///   illegal request is how a device says what it does not know. What such a result costs in the end is
///   an error of the block layer's, which the probe `block` has.
/// - An ATA command passed through (smartctl, hdparm) that the disk does not know is an aborted command,
///   so none of these counts.
/// - Without a sense key all of that is one, a check condition: then only commands that move data count,
///   which nobody sends to ask a question.
#[inline(always)]
pub const fn error(result: u32, opcode: u32, sense_key: u32) -> Option<u32> {
    const CHECK_CONDITION: u32 = 0x02;
    const TASK_ABORTED: u32 = 0x40;
    let (status, host) = (result & 0xff, (result >> 16) & 0xff);
    if host > 0x1f || FINE_HOST_BYTES >> host & 1 == 0 {
        let looks = matches!(opcode, TEST_UNIT_READY | INQUIRY | REPORT_LUNS);
        let nobody = host <= 0x1f && NOBODY_THERE >> host & 1 != 0;
        return if looks && nobody { None } else { Some(code::HOST | host) };
    }
    match status {
        TASK_ABORTED => Some(code::STATUS | TASK_ABORTED),
        CHECK_CONDITION if opcode == ATA_12 || opcode == ATA_16 => None,
        CHECK_CONDITION if sense_key == NO_SENSE_KEY => {
            if moves_data(opcode) {
                Some(code::STATUS | CHECK_CONDITION)
            } else {
                None
            }
        }
        CHECK_CONDITION if sense_key <= 0x0f && SENSE_KEYS_OF_FAULTS >> sense_key & 1 != 0 => {
            Some(code::SENSE | sense_key)
        }
        _ => None,
    }
}

/// Whether what a driver returned when it was given a command is more than that it has no room at the
/// moment (`SCSI_MLQUEUE_*` of include/scsi/scsi.h, on which the command is queued again).
#[inline(always)]
pub const fn is_refusal(returned: u32) -> bool {
    returned != 0 && !(returned >= 0x1055 && returned <= 0x1058)
}

/// What errors are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ScsiErrorKey {
    /// The SCSI host's number.
    pub host: u32,
    /// The channel on it.
    pub channel: u32,
    /// The target.
    pub id: u32,
    /// The lowest 32 bits of the logical unit.
    pub lun: u32,
    /// The error; see [`code`].
    pub error: u32,
    /// Always 0.
    pub padding: u32,
}

/// A command that has failed. Each try is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ScsiEvent {
    /// The kind is [`Kind::Scsi`](crate::event::Kind::Scsi).
    pub header: Header,
    /// Where and with what it failed.
    pub key: ScsiErrorKey,
    /// The command's first byte.
    pub opcode: u32,
    /// Its result; of a refused one, what the driver returned.
    pub result: u32,
}

const _: () = {
    assert!(size_of::<ScsiErrorKey>() == 24);
    assert!(size_of::<ScsiEvent>() == 48);
};

#[cfg(test)]
mod tests {
    use super::*;

    const READ_10: u32 = 0x28;

    #[test]
    fn questions_that_are_answered_with_no_are_no_errors() {
        for opcode in [TEST_UNIT_READY, INQUIRY, REPORT_LUNS] {
            for host in [0x01, 0x04] {
                assert_eq!(error(host << 16, opcode, NO_SENSE_KEY), None, "{opcode} {host}");
            }
            assert_eq!(error(0x02, opcode, NO_SENSE_KEY), None);
        }
        // No sense, recovered, not ready, illegal request, unit attention, blank, completed.
        for key in [0, 1, 2, 5, 6, 8, 0xe, 0xf] {
            assert_eq!(error(0x0800_0002, READ_10, key), None, "{key}");
        }
        for opcode in [ATA_12, ATA_16] {
            assert_eq!(error(0x02, opcode, 0x0b), None);
            assert_eq!(error(0x02, opcode, NO_SENSE_KEY), None);
        }
        // Condition met, busy, reserved, queue full; to be queued again.
        for result in [0x04, 0x08, 0x18, 0x28, 0x000d_0000, 0x000c_0000] {
            assert_eq!(error(result, READ_10, 0), None, "{result:#x}");
        }
    }

    #[test]
    fn errors_of_the_device_and_of_the_way_there_count() {
        for (result, opcode, key, expected) in [
            (0x0001_0000, READ_10, 0, code::HOST | 1),
            (0x0007_0000, INQUIRY, 0, code::HOST | 7),
            (0x0003_0002, READ_10, 3, code::HOST | 3),
            (0x00ff_0000, READ_10, 0, code::HOST | 0xff),
            (0x0800_0002, READ_10, 3, code::SENSE | 3),
            (0x0000_0002, 0x35, 4, code::SENSE | 4),
            (0x0000_0002, 0x2a, 7, code::SENSE | 7),
            (0x0000_0002, READ_10, 0x0b, code::SENSE | 0x0b),
            (0x0000_0002, READ_10, NO_SENSE_KEY, code::STATUS | 2),
            (0x0000_0040, READ_10, 0, code::STATUS | 0x40),
        ] {
            assert_eq!(error(result, opcode, key), Some(expected), "{result:#x} {opcode:#x}");
        }
    }

    #[test]
    fn a_driver_without_room_refuses_nothing() {
        for busy in [0, 0x1055, 0x1056, 0x1057, 0x1058] {
            assert!(!is_refusal(busy));
        }
        assert!(is_refusal(0x2003) && is_refusal(0x1054) && is_refusal(u32::MAX));
    }
}
