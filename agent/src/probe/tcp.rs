//! The probe `tcp`: segments that are sent again, resets, and how long connecting takes and how it ends.
//! The programs are agent-ebpf/src/tcp.rs; `tcp_burst` tells of bursts of retransmits.

use std::os::fd::OwnedFd;
use std::time::Duration;

use agent_common::histogram::Histogram;
use agent_common::tcp::{
    FAMILIES, Family, Outcome, TcpCpu, TcpPeer, TcpRetransmits, TcpStart, connects_index,
};
use aya::maps::MapError;

use super::channel::Report;
use super::fallback::Fallback;
use super::maps::{self, PerCpu, Table};
use super::perf::Attachment;
use super::spec::{Needed, Shape, Sized, Spec, Tracepoint, needed, optional};
use super::sweep::{self, Sweeper};
use super::tcp_burst::{self, Bursts};
use super::{LOST, Probe, Round, UNMATCHED, histogram, nested};
use crate::model::{Desc, Samples};

/// An address of the other side, also where it is an IPv4 address.
const fn address(global: &'static str) -> Needed {
    needed("daddr_v6", global, Shape::Array(16))
}

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "tcp",
    about: "TCP retransmits, resets, and duration and outcome of connects",
    // The error before the state, so that no attempt ends between the two without its error.
    tracepoints: &[
        // Since 5.15.
        Tracepoint {
            family: "sock",
            event: "inet_sk_error_report",
            optional: true,
            fields: &[
                needed("error", "TCP_ERROR_ERROR", Shape::Number(4)),
                needed("sport", "TCP_ERROR_SPORT", Shape::Number(2)),
                needed("dport", "TCP_ERROR_DPORT", Shape::Number(2)),
                needed("protocol", "TCP_ERROR_PROTOCOL", Shape::Number(2)),
            ],
        },
        Tracepoint {
            family: "tcp",
            event: "tcp_receive_reset",
            optional: true,
            fields: &[
                needed("skaddr", "TCP_RECEIVED_SKADDR", Shape::Word),
                address("TCP_RECEIVED_DADDR"),
            ],
        },
        Tracepoint {
            family: "sock",
            event: "inet_sock_set_state",
            optional: false,
            fields: &[
                needed("skaddr", "TCP_STATE_SKADDR", Shape::Word),
                needed("oldstate", "TCP_STATE_OLD", Shape::Number(4)),
                needed("newstate", "TCP_STATE_NEW", Shape::Number(4)),
                needed("sport", "TCP_STATE_SPORT", Shape::Number(2)),
                needed("dport", "TCP_STATE_DPORT", Shape::Number(2)),
                needed("protocol", "TCP_STATE_PROTOCOL", Shape::Number(2)),
                address("TCP_STATE_DADDR"),
            ],
        },
        Tracepoint {
            family: "tcp",
            event: "tcp_send_reset",
            optional: true,
            fields: &[
                optional("daddr_v6", "TCP_SENT_DADDR", Shape::Array(16)),
                // A struct sockaddr_in6 since 6.10; before, four bytes of an IPv4 address.
                optional("daddr", "TCP_SENT_SOCKADDR", Shape::Array(28)),
            ],
        },
        Tracepoint {
            family: "tcp",
            event: "tcp_retransmit_skb",
            optional: false,
            fields: &[
                needed("dport", "TCP_RETRANSMIT_DPORT", Shape::Number(2)),
                address("TCP_RETRANSMIT_DADDR"),
                optional("err", "TCP_RETRANSMIT_ERR", Shape::Number(4)),
            ],
        },
        Tracepoint {
            family: "tcp",
            event: "tcp_retransmit_synack",
            optional: true,
            fields: &[
                needed("dport", "TCP_SYNACK_DPORT", Shape::Number(2)),
                address("TCP_SYNACK_DADDR"),
            ],
        },
    ],
    maps: &["TCP_CPU", "TCP_CONNECT", "TCP_STARTS", "TCP_PEERS"],
    sized: &[
        // As many as a client of many peers has open at once; 72 bytes each.
        Sized { map: "TCP_STARTS", base: 1024, each_device: 0, most: 1024, mask: None },
        Sized { map: "TCP_PEERS", base: 256, each_device: 0, most: 256, mask: None },
    ],
    events: &[],
    start: |report| Ok(Box::new(Tcp::new(report)?)),
    fallback: Fallback::Snmp,
};

pub(super) const RETRANSMITS: Desc =
    Desc::counter("mote_tcp_retransmits_total", "TCP segments that were sent again.");
pub(super) const CONNECTS: Desc = Desc::counter(
    "mote_tcp_connects_total",
    "Attempts of this host to connect that are over, by how they ended.",
);
const DURATION: Desc = Desc::histogram(
    "mote_tcp_connect_duration_seconds",
    "Time from the first segment of an attempt to connect to the connection.",
);
pub(super) const RESETS: Desc =
    Desc::counter("mote_tcp_resets_total", "TCP resets sent and received.");

/// Longer than any attempt to connect: with the kernel's defaults it is 131 s.
const FORGOTTEN: Duration = Duration::from_secs(1_800);

/// The attached probe. Dropped, it detaches.
struct Tcp {
    cpus: PerCpu<TcpCpu>,
    durations: PerCpu<Histogram>,
    starts: Table<u64, TcpStart>,
    peers: Table<TcpPeer, TcpRetransmits>,
    programs: Vec<OwnedFd>,
    _events: Attachment,
    total: TcpCpu,
    connected: [Histogram; FAMILIES],
    bursts: Bursts,
    sweeper: Sweeper,
    text: String,
}

impl Tcp {
    fn new(report: Report) -> Result<Tcp, String> {
        let [cpus, durations, starts, peers] = maps::all(report.maps)?;
        Ok(Tcp {
            cpus: maps::per_cpu(cpus)?,
            durations: maps::per_cpu(durations)?,
            starts: maps::table(starts)?,
            peers: maps::lru_table(peers)?,
            programs: report.programs,
            _events: report.events,
            total: TcpCpu::ZERO,
            connected: [Histogram::ZERO; FAMILIES],
            bursts: Bursts::new(sweep::now_ns()),
            sweeper: Sweeper::default(),
            text: String::new(),
        })
    }

    fn read(&mut self, now_ns: u64) -> Result<(), MapError> {
        let mut sum = TcpCpu::ZERO;
        maps::sum(&self.cpus, 0, |cpu| add(&mut sum, &cpu, now_ns))?;
        advance(&mut self.total, &sum);
        for (family, total) in Family::ALL.into_iter().zip(&mut self.connected) {
            let mut now = Histogram::ZERO;
            maps::sum(&self.durations, family as u32, |cpu| histogram::add(&mut now, &cpu))?;
            histogram::advance(total, &now);
        }
        Ok(())
    }

    fn write(&self, out: &mut Samples) {
        for (family, count) in Family::ALL.into_iter().zip(self.total.retransmits) {
            out.family(&RETRANSMITS).add(&[("family", family.as_str())], count as f64);
        }
        for family in Family::ALL {
            for outcome in Outcome::ALL {
                let labels = [("family", family.as_str()), ("result", outcome.as_str())];
                let count = self.total.connects.get(connects_index(family, outcome));
                out.family(&CONNECTS).add(&labels, count.copied().unwrap_or(0) as f64);
            }
        }
        for (family, total) in Family::ALL.into_iter().zip(&self.connected) {
            histogram::write(out, &DURATION, &[("family", family.as_str())], total);
        }
        for (direction, counts) in
            [("sent", self.total.resets_sent), ("received", self.total.resets_received)]
        {
            for (family, count) in Family::ALL.into_iter().zip(counts) {
                let labels = [("direction", direction), ("family", family.as_str())];
                out.family(&RESETS).add(&labels, count as f64);
            }
        }
    }
}

impl Probe for Tcp {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        // Before the maps are read: what is alone now stays alone.
        let now_ns = sweep::now_ns();
        self.read(now_ns)?;
        self.write(round.out);
        if let Some(burst) = self.bursts.look(now_ns, self.total.retransmits.iter().sum()) {
            let peers = tcp_burst::take_peers(&mut self.peers, now_ns)?;
            round.events.push(tcp_burst::event(round.now_ns, &burst, &peers));
        }
        self.sweeper.sweep(&mut self.starts, self.total.starts_lost, |start| {
            now_ns.saturating_sub(start.at_ns) > FORGOTTEN.as_nanos() as u64
        })?;
        let nested = nested(&self.programs, &mut self.text);
        round.out.family(&UNMATCHED).add(&[("probe", SPEC.name)], self.total.unmatched as f64);
        for (reason, count) in [
            ("starts_full", self.total.starts_lost),
            ("forgotten", self.sweeper.forgotten),
            ("nested", nested),
        ] {
            let labels = [("probe", SPEC.name), ("reason", reason)];
            round.out.family(&LOST).add(&labels, count as f64);
        }
        Ok(())
    }
}

/// Adds what one CPU has counted, and its attempt for which no error has come.
fn add(sum: &mut TcpCpu, cpu: &TcpCpu, now_ns: u64) {
    each(sum, cpu, |sum, cpu| *sum += cpu);
    if cpu.over.is_alone(now_ns) {
        let family = if cpu.over.detail == 0 { Family::V4 } else { Family::V6 };
        if let Some(count) = sum.connects.get_mut(connects_index(family, Outcome::Aborted)) {
            *count += 1;
        }
    }
}

/// Moves a total on to what was read now; see [`histogram::advance`].
fn advance(total: &mut TcpCpu, now: &TcpCpu) {
    each(total, now, |total, now| *total = (*total).max(now));
}

/// Each count of the one with that of the other.
fn each(one: &mut TcpCpu, other: &TcpCpu, with: impl Fn(&mut u64, u64)) {
    let all = |one: &mut [u64], other: &[u64]| {
        for (one, other) in one.iter_mut().zip(other) {
            with(one, *other);
        }
    };
    all(&mut one.retransmits, &other.retransmits);
    all(&mut one.resets_sent, &other.resets_sent);
    all(&mut one.resets_received, &other.resets_received);
    all(&mut one.connects, &other.connects);
    with(&mut one.unmatched, other.unmatched);
    with(&mut one.starts_lost, other.starts_lost);
}

#[cfg(test)]
mod tests {
    use agent_common::tcp::{END_NS, TcpEnd};

    use super::*;

    const ABORTED_V6: usize = connects_index(Family::V6, Outcome::Aborted);

    #[test]
    fn an_attempt_is_aborted_once_no_error_can_come_and_is_so_once() {
        let mut cpu = TcpCpu::ZERO;
        cpu.over = TcpEnd { at_ns: 10, ports: 1, detail: Family::V6 as u32 };
        let aborted = |cpu: &TcpCpu, now_ns| {
            let mut sum = TcpCpu::ZERO;
            add(&mut sum, cpu, now_ns);
            sum.connects[ABORTED_V6]
        };
        assert_eq!(aborted(&cpu, 9 + END_NS), 0);
        assert_eq!(aborted(&cpu, 10 + END_NS), 1);
        // The program counts it when the next one comes.
        cpu.connects[ABORTED_V6] = 1;
        cpu.over.at_ns = 20 + END_NS;
        assert_eq!(aborted(&cpu, 30 + END_NS), 1);
    }

    #[test]
    fn cpus_are_added_and_a_total_never_goes_backwards() {
        let mut cpu = TcpCpu::ZERO;
        each(&mut cpu, &TcpCpu::ZERO, |count, _| *count = 2);
        let mut sum = cpu;
        add(&mut sum, &cpu, 0);
        each(&mut sum, &cpu, |sum, cpu| assert_eq!((*sum, cpu), (4, 2)));
        let mut total = sum;
        advance(&mut total, &cpu);
        assert_eq!(total, sum);
    }
}
