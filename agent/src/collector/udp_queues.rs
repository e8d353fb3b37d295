//! node_exporter's `udp_queues`, from /proc/net/udp and /proc/net/udp6 (net/ipv4/udp.c, net/ipv6/udp.c):
//! the bytes that wait in the queues of all UDP sockets.

use super::parse::{FirstError, fields, hex, lines, malformed, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const QUEUES: Desc = Desc::gauge(
    "node_udp_queues",
    "Number of allocated memory in the kernel for UDP datagrams in bytes.",
);

/// Number, addresses, state, and `tx_queue:rx_queue`.
const COLUMN: usize = 4;

/// Queued bytes by direction and IP version.
pub(super) struct UdpQueues;

impl Collector for UdpQueues {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut found = false;
        for (path, file, ip) in
            [("net/udp", "proc/net/udp", "v4"), ("net/udp6", "proc/net/udp6", "v6")]
        {
            match host.proc_short(path) {
                Ok(bytes) => {
                    found = true;
                    let Some((tx, rx)) = sums(file, bytes, &mut errors) else { continue };
                    out.family(&QUEUES)
                        .add(&[("queue", "tx"), ("ip", ip)], tx as f64)
                        .add(&[("queue", "rx"), ("ip", ip)], rx as f64);
                }
                // A kernel without IPv6 has one file only.
                Err(error) if found && error.is_absent() => {}
                Err(error) => errors.note(error.into()),
            }
        }
        errors.result()
    }
}

fn sums(file: &'static str, bytes: &[u8], errors: &mut FirstError) -> Option<(u64, u64)> {
    let mut sums = (0u64, 0u64);
    let mut lines = lines(whole(file, bytes, errors));
    let heading = lines.next().unwrap_or_default();
    if fields(heading).next() != Some(b"sl") {
        errors.note(malformed(file, heading, "a line of headings"));
        return None;
    }
    for line in lines {
        let queues = fields(line).nth(COLUMN).and_then(|field| {
            let at = field.iter().position(|&byte| byte == b':')?;
            let (tx, rx) = field.split_at_checked(at)?;
            Some((hex(tx)?, hex(rx.get(1..)?)?))
        });
        match queues {
            Some((tx, rx)) => {
                sums = (sums.0.saturating_add(tx), sums.1.saturating_add(rx));
            }
            None => errors.note(malformed(file, line, "tx_queue:rx_queue in the fifth column")),
        }
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<(u64, u64)>, Option<String>) {
        let mut errors = FirstError::default();
        let sums = sums("proc/net/udp", text.as_bytes(), &mut errors);
        (sums, errors.result().err().map(|error| error.to_string()))
    }

    #[test]
    fn a_malformed_socket_costs_itself() {
        let heading = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n";
        let good = "  64: 0100007F:0035 00000000:0000 07 00000010:000000FF 00:00000000 00000000\n";
        assert_eq!(read(heading), (Some((0, 0)), None));
        assert_eq!(read(&format!("{heading}{good}{good}")), (Some((32, 510)), None));
        for bad in
            ["1:", "1: 0:0 0:0 07", "1: 0:0 0:0 07 10", "1: 0:0 0:0 07 :", "1: 0:0 0:0 07 x:1"]
        {
            let (sums, error) = read(&format!("{heading}{bad}\n{good}"));
            assert_eq!(sums, Some((16, 255)), "{bad}");
            assert!(error.unwrap().contains(bad), "{bad}");
        }
        let huge = "1: 0:0 0:0 07 FFFFFFFFFFFFFFFF:FFFFFFFFFFFFFFFF\n";
        assert_eq!(read(&format!("{heading}{huge}{good}")).0, Some((u64::MAX, u64::MAX)));
        assert_eq!(read(good).0, None);
    }
}
