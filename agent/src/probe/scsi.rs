//! The probe `scsi`: commands to SCSI, SATA and USB disks that fail, time out or are refused by their
//! driver. The programs are agent-ebpf/src/scsi.rs, and which results are errors says
//! agent-common/src/scsi.rs.

use agent_common::event::Kind;
use agent_common::scsi::{ScsiErrorKey, code};
use aya::maps::MapError;

use super::errors::{Attached, Devices, Family, LOST_MAP};
use super::fallback::Fallback;
use super::record::Record;
use super::spec::{Shape, Sized, Spec, Tracepoint, needed, optional};
use super::{Moment, Probe, Round};
use crate::host::Host;
use crate::model::{Desc, Event};

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "scsi",
    about: "commands to SCSI, SATA and USB disks that fail or time out",
    tracepoints: &[
        Tracepoint {
            family: "scsi",
            event: "scsi_dispatch_cmd_done",
            optional: false,
            fields: &[
                needed("host_no", "SCSI_DONE_HOST", Shape::Number(4)),
                needed("channel", "SCSI_DONE_CHANNEL", Shape::Number(4)),
                needed("id", "SCSI_DONE_ID", Shape::Number(4)),
                needed("lun", "SCSI_DONE_LUN", Shape::Number(4)),
                needed("result", "SCSI_DONE_RESULT", Shape::Number(4)),
                needed("opcode", "SCSI_DONE_OPCODE", Shape::Number(4)),
                // Since 6.12.
                optional("sense_key", "SCSI_DONE_SENSE_KEY", Shape::Number(1)),
            ],
        },
        Tracepoint {
            family: "scsi",
            event: "scsi_dispatch_cmd_timeout",
            optional: false,
            fields: &[
                needed("host_no", "SCSI_TIMEOUT_HOST", Shape::Number(4)),
                needed("channel", "SCSI_TIMEOUT_CHANNEL", Shape::Number(4)),
                needed("id", "SCSI_TIMEOUT_ID", Shape::Number(4)),
                needed("lun", "SCSI_TIMEOUT_LUN", Shape::Number(4)),
                needed("result", "SCSI_TIMEOUT_RESULT", Shape::Number(4)),
                needed("opcode", "SCSI_TIMEOUT_OPCODE", Shape::Number(4)),
            ],
        },
        Tracepoint {
            family: "scsi",
            event: "scsi_dispatch_cmd_error",
            optional: false,
            fields: &[
                needed("host_no", "SCSI_ERROR_HOST", Shape::Number(4)),
                needed("channel", "SCSI_ERROR_CHANNEL", Shape::Number(4)),
                needed("id", "SCSI_ERROR_ID", Shape::Number(4)),
                needed("lun", "SCSI_ERROR_LUN", Shape::Number(4)),
                needed("rtn", "SCSI_ERROR_RTN", Shape::Number(4)),
                needed("opcode", "SCSI_ERROR_OPCODE", Shape::Number(4)),
            ],
        },
    ],
    maps: &["SCSI_ERRORS", LOST_MAP],
    sized: &[Sized { map: "SCSI_ERRORS", base: 32, each_device: 4, most: 1024, mask: None }],
    events: &[Kind::Scsi],
    start: |report| Ok(Box::new(Scsi(Attached::new(SPEC.name, FAMILY, report)?))),
    fallback: Fallback::Kmsg,
};

pub(super) const ERRORS: Desc = Desc::counter(
    "mote_scsi_errors_total",
    "Commands to a SCSI device that have failed, each try counted, by what went wrong.",
);
const FAMILY: Family<2> = Family { desc: &ERRORS, labels: ["device", "error"], kind: Kind::Scsi };

/// The attached probe. Dropped, it detaches.
struct Scsi(Attached<ScsiErrorKey, 2>);

impl Probe for Scsi {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        self.0.collect(round.out, Disks(round.host))
    }

    fn event(&mut self, moment: &mut Moment<'_>, event: Record<'_>) -> Option<Event> {
        describe(moment.host, moment.at_ns, event)
    }
}

/// What the keys mean on this host.
struct Disks<'a>(&'a Host);

impl Devices<ScsiErrorKey, 2> for Disks<'_> {
    fn name(&mut self, key: &ScsiErrorKey) -> [String; 2] {
        [device(self.0, key), error_name(key.error)]
    }

    fn is_gone(&mut self, key: &ScsiErrorKey) -> bool {
        !self.0.roots().sys.join("bus/scsi/devices").join(address(key)).exists()
    }
}

/// The name of the block device; of another device, and of one that is gone, `H:C:T:L`, as sysfs and the
/// kernel's messages call it.
fn device(host: &Host, key: &ScsiErrorKey) -> String {
    let address = address(key);
    let blocks = host.roots().sys.join("bus/scsi/devices").join(&address).join("block");
    // A device has one block device at most.
    let block = std::fs::read_dir(blocks).ok().and_then(|mut entries| entries.next()?.ok());
    block.and_then(|entry| entry.file_name().into_string().ok()).unwrap_or(address)
}

fn address(key: &ScsiErrorKey) -> String {
    format!("{}:{}:{}:{}", key.host, key.channel, key.id, key.lun)
}

/// What a host byte is called, by number: `DID_*` of include/scsi/scsi_status.h in small letters.
pub(super) const HOST_BYTES: [&str; 21] = [
    "did_ok",
    "did_no_connect",
    "did_bus_busy",
    "did_time_out",
    "did_bad_target",
    "did_abort",
    "did_parity",
    "did_error",
    "did_reset",
    "did_bad_intr",
    "did_passthrough",
    "did_soft_error",
    "did_imm_retry",
    "did_requeue",
    "did_transport_disrupted",
    "did_transport_failfast",
    "did_target_failure",
    "did_nexus_failure",
    "did_alloc_failure",
    "did_medium_error",
    "did_transport_marginal",
];

/// What an error is called (scsi_status.h, scsi_proto.h), in small letters.
pub(super) fn error_name(error: u32) -> String {
    let number = error & !code::KIND;
    let name = match (error & code::KIND, number) {
        (code::TIMEOUT, _) => "timeout",
        (code::DISPATCH, _) => "dispatch",
        (code::HOST, number) => match HOST_BYTES.get(number as usize) {
            Some(name) => name,
            None => return format!("did_{number:#x}"),
        },
        (code::STATUS, 0x02) => "check_condition",
        (code::STATUS, 0x40) => "task_aborted",
        (code::SENSE, 0x03) => "medium_error",
        (code::SENSE, 0x04) => "hardware_error",
        (code::SENSE, 0x07) => "data_protect",
        (code::SENSE, 0x0b) => "aborted_command",
        _ => return format!("{error:#x}"),
    };
    name.to_owned()
}

/// What a command does, for people; the others are called by their number.
fn command_name(opcode: u32) -> String {
    let name = match opcode {
        0x00 => "test unit ready",
        0x08 | 0x28 | 0x88 | 0xa8 => "read",
        0x0a | 0x2a | 0x8a | 0xaa => "write",
        0x12 => "inquiry",
        0x1b => "start or stop",
        0x35 | 0x91 => "flush",
        0x41 | 0x93 => "write same",
        0x42 => "unmap",
        0x85 | 0xa1 => "ATA command",
        other => return format!("command {other:#04x}"),
    };
    name.to_owned()
}

fn describe(host: &Host, at_ns: i64, mut event: Record<'_>) -> Option<Event> {
    let (number, channel, id, lun) = (event.u32()?, event.u32()?, event.u32()?, event.u32()?);
    let (error, padding) = (event.u32()?, event.u32()?);
    let (opcode, result) = (event.u32()?, event.u32()?);
    let key = ScsiErrorKey { host: number, channel, id, lun, error, padding };
    let (device, address) = (device(host, &key), address(&key));
    let (command, error) = (command_name(opcode), error_name(error));
    let message = format!("{command} on {device}: {error}");
    Some(
        Event::new("scsi_error", at_ns, message)
            .with("device", device)
            .with("address", address)
            .with("opcode", format!("{opcode:#04x}"))
            .with("error", error)
            .with("result", format!("{result:#010x}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    fn bytes(error: u32) -> Vec<u8> {
        [2, 0, 1, 0, error, 0, 0x28, 0x0800_0002].into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn a_device_is_called_by_its_disk_and_by_its_address_where_it_has_none() {
        let sys = tempfile::tempdir().unwrap();
        let roots = Roots { sys: sys.path().into(), ..Roots::default() };
        let host = Host::new(roots);
        let told = |error: u32| describe(&host, 7, Record::new(&bytes(error))).unwrap();
        assert_eq!(told(code::TIMEOUT).message, "read on 2:0:1:0: timeout");
        std::fs::create_dir_all(sys.path().join("bus/scsi/devices/2:0:1:0/block/sdc")).unwrap();
        assert_eq!(
            told(code::SENSE | 3).line(),
            "msg=\"read on sdc: medium_error\" device=sdc address=2:0:1:0 opcode=0x28 \
             error=medium_error result=0x08000002"
        );
    }

    #[test]
    fn an_event_that_is_cut_is_none() {
        let host = Host::new(Roots { sys: "/nonexistent".into(), ..Roots::default() });
        let whole = bytes(code::DISPATCH);
        for len in 0..whole.len() {
            assert_eq!(describe(&host, 7, Record::new(&whole[..len])), None, "{len}");
        }
    }

    #[test]
    fn every_error_that_the_programs_count_has_a_name() {
        use agent_common::scsi::error;
        for key in 0..16 {
            let found = [error(0x02, 0x28, key), error(0x40, 0x28, key)];
            for error in found.into_iter().flatten() {
                assert!(!error_name(error).contains("0x"), "{error:#x}");
            }
        }
        for host in 1..=0x14 {
            let Some(error) = error(host << 16, 0x28, 0) else { continue };
            assert!(!error_name(error).contains("0x"), "{error:#x}");
        }
        assert_eq!(error_name(code::HOST | 1), "did_no_connect");
        assert_eq!(error_name(code::HOST | 0x14), "did_transport_marginal");
        assert_eq!(error_name(code::HOST | 0x77), "did_0x77");
        assert_eq!(error_name(0x1234), "0x1234");
    }
}
