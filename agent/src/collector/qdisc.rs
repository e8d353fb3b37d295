//! node_exporter's `qdisc`, from rtnetlink (net/sched/sch_api.c): what the queueing discipline at the root of
//! each device has sent, dropped and still has. Off unless asked for.

use rustix::net::netdevice::index_to_name_inlined;

use super::parse::{Span, Texts, text};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::host::netlink::{Netlink, attributes, u32_at, u64_at};
use crate::model::{Desc, Samples};
use crate::sort;

const STATISTICS: [Desc; 7] = [
    Desc::counter("node_qdisc_bytes_total", "Number of bytes sent."),
    Desc::counter("node_qdisc_packets_total", "Number of packets sent."),
    Desc::counter("node_qdisc_drops_total", "Number of packets dropped."),
    Desc::counter(
        "node_qdisc_requeues_total",
        "Number of packets dequeued, not transmitted, and requeued.",
    ),
    Desc::counter("node_qdisc_overlimits_total", "Number of overlimit packets."),
    Desc::gauge(
        "node_qdisc_current_queue_length",
        "Number of packets currently in queue to be sent.",
    ),
    Desc::gauge("node_qdisc_backlog", "Number of bytes currently in queue to be sent."),
];

const RTM_GETQDISC: u16 = 38;
/// `struct tcmsg`: family and padding, the device's index, handle, parent, info.
const TCMSG: usize = 20;
const TC_H_ROOT: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;

#[derive(Debug)]
struct Qdisc {
    index: u32,
    kind: Span,
    device: Span,
    values: [u64; STATISTICS.len()],
}

/// Statistics of the disciplines at the root.
pub(super) struct Qdiscs {
    netlink: Netlink,
    qdiscs: Vec<Qdisc>,
    texts: Texts,
}

impl Qdiscs {
    pub(super) fn new() -> Qdiscs {
        Qdiscs { netlink: Netlink::route(), qdiscs: Vec::new(), texts: Texts::default() }
    }
}

impl Collector for Qdiscs {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        host.is_live("net/dev")?;
        let Qdiscs { netlink, qdiscs, texts } = self;
        qdiscs.clear();
        texts.clear();
        let result = netlink.dump(RTM_GETQDISC, &[0; TCMSG], |_, body| {
            qdiscs.extend(parse(body, texts));
        });
        result.map_err(|source| {
            let attempt = "asking netlink for queueing disciplines".to_owned();
            CollectError::System { attempt, source }
        })?;
        if let Some(socket) = netlink.socket() {
            // A device that is gone by now has no name, and is left out.
            qdiscs.retain_mut(|qdisc| {
                let name = index_to_name_inlined(socket, qdisc.index);
                name.map(|name| qdisc.device = texts.keep(name.as_str())).is_ok()
            });
        }
        // A name that another device has taken over would be there twice.
        sort::unstable_by_key(qdiscs, |qdisc| qdisc.index);
        qdiscs.dedup_by(|b, a| texts.get(a.device) == texts.get(b.device));
        for (index, desc) in STATISTICS.iter().enumerate() {
            let mut family = out.family(desc);
            for qdisc in &*qdiscs {
                let value = qdisc.values.get(index).copied().unwrap_or_default();
                let labels = [("device", texts.get(qdisc.device)), ("kind", texts.get(qdisc.kind))];
                family.add(&labels, value as f64);
            }
        }
        Ok(())
    }
}

/// The discipline of one message, if it is at a root.
fn parse(body: &[u8], texts: &mut Texts) -> Option<Qdisc> {
    let index = u32_at(body, 4)?;
    // Devices without a queue have theirs at no parent in some kernels.
    if !matches!(u32_at(body, 12)?, 0 | TC_H_ROOT) {
        return None;
    }
    let mut kind = None;
    let (mut basic, mut queue) = (None, None);
    for (attribute, value) in attributes(body.get(TCMSG..)?) {
        match attribute {
            TCA_KIND => kind = Some(value.split(|&byte| byte == 0).next().unwrap_or_default()),
            TCA_STATS2 => {
                for (attribute, value) in attributes(value) {
                    match attribute {
                        TCA_STATS_BASIC => basic = Some((u64_at(value, 0)?, u32_at(value, 8)?)),
                        // Length, backlog, drops, requeues, overlimits.
                        TCA_STATS_QUEUE => {
                            let at = |place| u32_at(value, place).map(u64::from);
                            queue = Some([at(8)?, at(12)?, at(16)?, at(0)?, at(4)?]);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let (bytes, packets) = basic.unwrap_or_default();
    let [drops, requeues, overlimits, length, backlog] = queue.unwrap_or_default();
    let values = [bytes, packets.into(), drops, requeues, overlimits, length, backlog];
    let kind = texts.keep(&text(kind?));
    Some(Qdisc { index, kind, device: Span::default(), values })
}

/// What the fuzz target calls.
pub(super) fn fuzz(body: &[u8]) {
    parse(body, &mut Texts::default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(parent: u32) -> Vec<u8> {
        let words =
            |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        let basic = [&7_000_000_000u64.to_ne_bytes()[..], &words(&[6])].concat();
        let queue = words(&[1, 2, 3, 4, 5]);
        let stats = [attribute(1, &basic), attribute(3, &queue)].concat();
        [words(&[0, 2, 0, parent, 0]), attribute(1, b"fq_codel\0"), attribute(7, &stats)].concat()
    }

    #[test]
    fn only_roots_count() {
        let mut texts = Texts::default();
        let qdisc = parse(&message(u32::MAX), &mut texts).unwrap();
        assert_eq!((qdisc.index, texts.get(qdisc.kind)), (2, "fq_codel"));
        assert_eq!(qdisc.values, [7_000_000_000, 6, 3, 4, 5, 1, 2]);
        assert!(parse(&message(0), &mut texts).is_some());
        assert!(parse(&message(0xffff_fff1), &mut texts).is_none());
        assert!(parse(&message(0x10000), &mut texts).is_none());
    }

    #[test]
    fn a_message_cut_anywhere_is_no_panic() {
        let whole = message(u32::MAX);
        for length in 0..whole.len() {
            if let Some(qdisc) = parse(&whole[..length], &mut Texts::default()) {
                assert!(length > TCMSG && qdisc.index == 2);
            }
        }
    }
}
