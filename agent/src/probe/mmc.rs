//! The probe `mmc`: requests to SD and eMMC cards that fail. Each try is counted, so a card whose errors
//! the kernel still makes good shows before it loses data. The program is agent-ebpf/src/mmc.rs, and which
//! failures count says agent-common/src/mmc.rs.

use agent_common::event::Kind;
use agent_common::mmc::{HOST, MmcErrorKey, Part};
use aya::maps::MapError;

use super::errors::{Attached, Devices, Family, LOST_MAP};
use super::fallback::Fallback;
use super::record::{Record, until_nul};
use super::spec::{Shape, Sized, Spec, Tracepoint, needed};
use super::{Moment, Probe, Round, errno};
use crate::host::Host;
use crate::model::{Desc, Event};

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "mmc",
    about: "requests to SD and eMMC cards that fail",
    tracepoints: &[Tracepoint {
        family: "mmc",
        event: "mmc_request_done",
        optional: false,
        fields: &[
            needed("name", "MMC_NAME", Shape::Text),
            needed("cmd_opcode", "MMC_OPCODE", Shape::Number(4)),
            needed("sbc_err", "MMC_SBC_ERR", Shape::Number(4)),
            needed("cmd_err", "MMC_CMD_ERR", Shape::Number(4)),
            needed("data_err", "MMC_DATA_ERR", Shape::Number(4)),
            needed("stop_err", "MMC_STOP_ERR", Shape::Number(4)),
            needed("bytes_xfered", "MMC_BYTES", Shape::Number(4)),
        ],
    }],
    maps: &["MMC_ERRORS", LOST_MAP],
    sized: &[Sized { map: "MMC_ERRORS", base: 32, each_device: 0, most: 32, mask: None }],
    events: &[Kind::Mmc],
    start: |report| Ok(Box::new(Mmc(Attached::new(SPEC.name, FAMILY, report)?))),
    fallback: Fallback::Kmsg,
};

pub(super) const ERRORS: Desc = Desc::counter(
    "mote_mmc_errors_total",
    "Requests to a card that have failed, each try counted, by the error's number.",
);
const FAMILY: Family<2> = Family { desc: &ERRORS, labels: ["error", "host"], kind: Kind::Mmc };

/// The attached probe. Dropped, it detaches.
struct Mmc(Attached<MmcErrorKey, 2>);

impl Probe for Mmc {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        self.0.collect(round.out, Cards(round.host))
    }

    fn event(&mut self, moment: &mut Moment<'_>, event: Record<'_>) -> Option<Event> {
        describe(moment.at_ns, event)
    }
}

/// What the keys mean on this host.
struct Cards<'a>(&'a Host);

impl Devices<MmcErrorKey, 2> for Cards<'_> {
    fn name(&mut self, key: &MmcErrorKey) -> [String; 2] {
        [errno::name(key.error), until_nul(&key.host)]
    }

    fn is_gone(&mut self, key: &MmcErrorKey) -> bool {
        !self.0.roots().sys.join("class/mmc_host").join(until_nul(&key.host)).exists()
    }
}

fn describe(at_ns: i64, mut event: Record<'_>) -> Option<Event> {
    let host = event.text::<HOST>()?;
    let (error, _padding) = (event.u32()?, event.u32()?);
    let (opcode, part, bytes) = (event.u32()?, event.u32()?, event.u64()?);
    let part = Part::from_u32(part)?.as_str();
    let error = errno::name(error);
    let command = match opcode {
        0 => "a queued transfer".to_owned(),
        opcode => format!("CMD{opcode}"),
    };
    let message = format!("{command} to the card in {host}: {part} failed with {error}");
    Some(
        Event::new("mmc_error", at_ns, message)
            .with("host", host)
            .with("opcode", opcode.to_string())
            .with("part", part)
            .with("error", error)
            .with("bytes", bytes.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(part: u32) -> Vec<u8> {
        let mut bytes = b"mmc1\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        for number in [84, 0, 18, part] {
            bytes.extend(u32::to_ne_bytes(number));
        }
        bytes.extend(512u64.to_ne_bytes());
        bytes
    }

    #[test]
    fn an_event_says_what_failed_where() {
        let event = describe(7, Record::new(&bytes(3))).unwrap();
        assert_eq!(
            event.line(),
            "msg=\"CMD18 to the card in mmc1: data failed with EILSEQ\" host=mmc1 opcode=18 \
             part=data error=EILSEQ bytes=512"
        );
    }

    #[test]
    fn an_event_that_is_cut_or_of_no_known_part_is_none() {
        let whole = bytes(3);
        for len in 0..whole.len() {
            assert_eq!(describe(7, Record::new(&whole[..len])), None, "{len}");
        }
        assert_eq!(describe(7, Record::new(&bytes(5))), None);
    }
}
