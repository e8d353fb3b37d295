//! node_exporter's `tcpstat`, from netlink's socket monitoring (net/ipv4/inet_diag.c): how many TCP sockets
//! are in each state, and the bytes in their queues. Off unless asked for: the kernel names each socket.

use super::{CollectError, Collector};
use crate::host::Host;
use crate::host::netlink::{Netlink, u32_at};
use crate::model::{Desc, Samples};

const STATES: Desc = Desc::gauge("node_tcp_connection_states", "Number of connection states.");

/// By the kernel's numbers (include/net/tcp_states.h), from 1 up.
const NAMES: [&str; 11] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// SOCK_DIAG_BY_FAMILY
const BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`
const REQUEST: usize = 56;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Where the queues stand in `struct inet_diag_msg`; its second byte is the state.
const RECEIVE_QUEUE: usize = 56;
const SEND_QUEUE: usize = 60;

/// Sockets by state.
pub(super) struct Tcpstat {
    netlink: Netlink,
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    states: [u64; NAMES.len()],
    unknown: u64,
    received: u64,
    sent: u64,
}

impl Tcpstat {
    pub(super) fn new() -> Tcpstat {
        Tcpstat { netlink: Netlink::sock_diag() }
    }
}

impl Collector for Tcpstat {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        host.is_live("net/tcp")?;
        let mut counts = Counts::default();
        for family in [AF_INET, AF_INET6] {
            let mut request = [0; REQUEST];
            // Family, protocol, extensions, padding, and a bit for each state.
            if let Some(start) = request.first_chunk_mut::<8>() {
                *start = [family, IPPROTO_TCP, 0, 0, 0xff, 0xff, 0xff, 0xff];
            }
            let result = self.netlink.dump(BY_FAMILY, &request, |_, body| counts.add(body));
            result.map_err(|source| {
                let attempt = "asking netlink for TCP sockets".to_owned();
                CollectError::System { attempt, source }
            })?;
        }
        counts.write(out);
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, body: &[u8]) {
        let Some(&state) = body.get(1) else { return };
        let (Some(received), Some(sent)) = (u32_at(body, RECEIVE_QUEUE), u32_at(body, SEND_QUEUE))
        else {
            return;
        };
        let state = usize::from(state).checked_sub(1);
        let count = state.and_then(|state| self.states.get_mut(state));
        *count.unwrap_or(&mut self.unknown) += 1;
        self.received += u64::from(received);
        self.sent += u64::from(sent);
    }

    /// States without a socket are left out, and so are the queues where there is no socket.
    fn write(&self, out: &mut Samples) {
        let mut family = out.family(&STATES);
        let states = NAMES.iter().zip(self.states).chain([(&"unknown", self.unknown)]);
        let mut all = 0;
        for (name, count) in states.filter(|(_, count)| *count > 0) {
            family.add(&[("state", name)], count as f64);
            all += count;
        }
        if all > 0 {
            family.add(&[("state", "rx_queued_bytes")], self.received as f64);
            family.add(&[("state", "tx_queued_bytes")], self.sent as f64);
        }
    }
}

/// What the fuzz target calls.
pub(super) fn fuzz(body: &[u8], out: &mut Samples) {
    let mut counts = Counts::default();
    counts.add(body);
    counts.write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_unknown_states_are_counted_and_cut_messages_are_not() {
        let mut message = [0; 72];
        message[RECEIVE_QUEUE..RECEIVE_QUEUE + 4].copy_from_slice(&5u32.to_ne_bytes());
        message[SEND_QUEUE..SEND_QUEUE + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let mut counts = Counts::default();
        for state in [1, 10, 11, 0, 12, 255] {
            message[1] = state;
            counts.add(&message);
        }
        for length in 0..SEND_QUEUE + 4 {
            counts.add(&message[..length]);
        }
        let mut states = [0; NAMES.len()];
        (states[0], states[9], states[10]) = (1, 1, 1);
        let (received, sent) = (30, 6 * u64::from(u32::MAX));
        assert_eq!(counts, Counts { states, unknown: 3, received, sent });
        let mut out = Samples::with_limit(100);
        counts.write(&mut out);
        assert_eq!(out.len(), 6);
    }
}
