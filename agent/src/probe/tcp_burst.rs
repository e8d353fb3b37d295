//! Bursts of TCP retransmits: when one is worth an event, and which peers it is about. The map of peers is
//! looked at for an event only.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use agent_common::tcp::{PEER_NS, TcpPeer, TcpRetransmits};
use aya::maps::MapError;

use super::maps::{Table, Value};
use crate::model::Event;
use crate::sort;

/// Retransmits a minute that make a burst, of all connections together. Links in order have some a minute,
/// because a wireless hop or a full queue loses a segment; from more than one each second on, transfers
/// visibly stall.
const A_MINUTE: f64 = 100.0;

/// The fewest, so that a short round needs more than one lost window.
const FEWEST: u64 = 25;

/// From one event to the next at least: what goes on is in the counters.
const PAUSE: Duration = Duration::from_secs(300);

/// How many peers an event names.
const TOP: usize = 5;

/// More steps than the map has entries: what changes meanwhile may lead back to the beginning.
const MAX_STEPS: usize = 1024;

/// Watches the count of retransmits.
#[derive(Debug)]
pub(super) struct Bursts {
    seen_ns: u64,
    seen: u64,
    told_ns: Option<u64>,
}

/// More retransmits than usual.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Burst {
    count: u64,
    during: Duration,
}

impl Bursts {
    /// Nothing counted yet; times are of CLOCK_MONOTONIC.
    pub(super) fn new(now_ns: u64) -> Bursts {
        Bursts { seen_ns: now_ns, seen: 0, told_ns: None }
    }

    /// Whether those since the last look are a burst, and one that is to be told.
    pub(super) fn look(&mut self, now_ns: u64, total: u64) -> Option<Burst> {
        let count = total.saturating_sub(self.seen);
        let during = Duration::from_nanos(now_ns.saturating_sub(self.seen_ns));
        (self.seen, self.seen_ns) = (total, now_ns);
        let many = (during.as_secs_f64() / 60.0 * A_MINUTE).max(FEWEST as f64);
        let pause = PAUSE.as_nanos() as u64;
        let told = self.told_ns.is_some_and(|told| now_ns.saturating_sub(told) < pause);
        if (count as f64) < many || told {
            return None;
        }
        self.told_ns = Some(now_ns);
        Some(Burst { count, during })
    }
}

/// The peers with the most retransmits, the worst first. Empties the map.
pub(super) fn take_peers(
    map: &mut Table<TcpPeer, TcpRetransmits>,
    now_ns: u64,
) -> Result<Vec<(SocketAddr, u64)>, MapError> {
    // What gives way meanwhile is none.
    let all: Vec<_> = map.iter().take(MAX_STEPS).flatten().collect();
    let mut peers: Vec<(SocketAddr, u64)> = Vec::new();
    for (Value(peer), Value(retransmits)) in all {
        let address = socket_address(&peer);
        // What began long ago is of another burst; the same peer is met twice where the map has changed.
        let recent = now_ns.saturating_sub(retransmits.since_ns) < PEER_NS;
        if recent && !peers.iter().any(|(known, _)| *known == address) {
            peers.push((address, retransmits.count));
        }
        match map.remove(&Value(peer)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    sort::unstable_by(&mut peers, |a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    peers.truncate(TOP);
    Ok(peers)
}

/// The event; `at_ns` is in nanoseconds since the Unix epoch. The peers' counts go back further than the
/// burst's, by at most five minutes.
pub(super) fn event(at_ns: i64, burst: &Burst, peers: &[(SocketAddr, u64)]) -> Event {
    let seconds = burst.during.as_secs_f64().round();
    let mut message = format!("{} TCP segments were sent again in {seconds} s", burst.count);
    if let Some((worst, _)) = peers.first() {
        message.push_str(&format!(", most of them to {worst}"));
    }
    let event = Event::new("tcp_retransmits", at_ns, message)
        .with("count", burst.count.to_string())
        .with("seconds", seconds.to_string());
    if peers.is_empty() {
        return event;
    }
    let list: Vec<_> = peers.iter().map(|(peer, count)| format!("{peer}={count}")).collect();
    event.with("peers", list.join(","))
}

fn socket_address(peer: &TcpPeer) -> SocketAddr {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(peer.address) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let address = Ipv6Addr::from(bytes).to_canonical();
    SocketAddr::new(address, u16::try_from(peer.port).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_a_hundred_a_minute_and_never_fewer_than_it_takes() {
        for (seconds, count, burst) in
            [(60, 99, false), (60, 100, true), (1, 24, false), (1, 25, true), (300, 499, false)]
        {
            let mut bursts = Bursts::new(5);
            let found = bursts.look(5 + seconds * SECOND, count);
            let during = Duration::from_secs(seconds);
            assert_eq!(found, burst.then_some(Burst { count, during }), "{count} in {seconds} s");
        }
    }

    #[test]
    fn only_those_since_the_last_look_count() {
        let mut bursts = Bursts::new(0);
        for round in 1..100 {
            assert_eq!(bursts.look(round * 60 * SECOND, round * 50), None);
        }
    }

    #[test]
    fn a_burst_that_goes_on_is_told_every_five_minutes() {
        let mut bursts = Bursts::new(0);
        let minutes = 1..=20;
        let told: Vec<u64> = minutes
            .filter(|minute| bursts.look(minute * 60 * SECOND, minute * 10_000).is_some())
            .collect();
        assert_eq!(told, [1, 6, 11, 16]);
    }

    #[test]
    fn an_event_names_the_peers_as_people_write_them() {
        let peer = |bytes: [u8; 16], port| TcpPeer {
            address: std::array::from_fn(|at| {
                u32::from_ne_bytes(std::array::from_fn(|byte| bytes[at * 4 + byte]))
            }),
            port,
            padding: 0,
        };
        let v4 = socket_address(&peer([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 7], 443));
        let v6 =
            socket_address(&peer([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 22));
        let burst = Burst { count: 120, during: Duration::from_millis(59_990) };
        let event = event(9, &burst, &[(v4, 100), (v6, 20)]);
        assert_eq!(
            event.line(),
            "msg=\"120 TCP segments were sent again in 60 s, most of them to 192.0.2.7:443\" \
             count=120 seconds=60 peers=\"192.0.2.7:443=100,[2001:db8::1]:22=20\""
        );
    }

    #[test]
    fn an_event_without_a_peer_has_no_list() {
        let event = event(9, &Burst { count: 30, during: Duration::from_secs(1) }, &[]);
        assert_eq!(
            event.line(),
            "msg=\"30 TCP segments were sent again in 1 s\" count=30 seconds=1"
        );
    }
}
