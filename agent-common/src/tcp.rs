//! TCP: what the programs on `tcp:*` and `sock:*` keep in their maps, and the rules that both sides must
//! agree on, so that they can be tested without a kernel.

use crate::plain::plain;

plain!(TcpStart, TcpEnd, TcpCpu, TcpPeer, TcpRetransmits);

/// How a connection is addressed on the wire: an IPv6 socket may speak IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

/// How many families there are.
pub const FAMILIES: usize = 2;

impl Family {
    /// All, in the order of their numbers.
    pub const ALL: [Family; FAMILIES] = [Family::V4, Family::V6];

    /// The family of an address, in network byte order as tracepoints have it in `daddr_v6`: an IPv4
    /// address is mapped there (`::ffff:a.b.c.d`; TP_STORE_V4MAPPED in include/trace/events/tcp.h), also
    /// by kernels without IPv6.
    #[inline(always)]
    pub const fn of(address: &[u32; 4]) -> Family {
        const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        if address[0] == 0 && address[1] == 0 && address[2] == MAPPED {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// The value of the label `family`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }
}

/// How an attempt to connect has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Connected.
    Ok = 0,
    /// The other side has answered that nobody listens.
    Refused = 1,
    /// No answer.
    Timeout = 2,
    /// The network has answered that there is no way, or none that is allowed.
    Unreachable = 3,
    /// The program has given up before there was an answer.
    Aborted = 4,
    /// On this host, such as for want of a free port; or it is not known why.
    Failed = 5,
}

/// How many outcomes there are.
pub const OUTCOMES: usize = 6;

impl Outcome {
    /// All, in the order of their numbers.
    pub const ALL: [Outcome; OUTCOMES] = [
        Outcome::Ok,
        Outcome::Refused,
        Outcome::Timeout,
        Outcome::Unreachable,
        Outcome::Aborted,
        Outcome::Failed,
    ];

    /// The outcome that a socket's error says, a positive number as in errno.h: what ICMP's messages
    /// become (icmp_err_convert in net/ipv4/icmp.c, icmpv6_err_convert), a timeout (tcp_write_err), or
    /// another program that ends the connection (tcp_abort).
    #[inline(always)]
    pub const fn of_error(error: u32) -> Outcome {
        match error {
            // ECONNREFUSED
            111 => Outcome::Refused,
            // ETIMEDOUT
            110 => Outcome::Timeout,
            // EACCES, ENONET, EPROTO, ENOPROTOOPT, EOPNOTSUPP, ENETDOWN, ENETUNREACH, EHOSTDOWN,
            // EHOSTUNREACH
            13 | 64 | 71 | 92 | 95 | 100 | 101 | 112 | 113 => Outcome::Unreachable,
            // ECONNABORTED, ECONNRESET
            103 | 104 => Outcome::Aborted,
            _ => Outcome::Failed,
        }
    }

    /// The value of the label `result`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::Timeout => "timeout",
            Outcome::Unreachable => "unreachable",
            Outcome::Aborted => "aborted",
            Outcome::Failed => "failed",
        }
    }
}

/// An attempt to connect that has no outcome yet. The key is the address of its `struct sock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct TcpStart {
    /// When it began, in nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Whether the other side has reset it: 0 or 1.
    pub reset: u64,
}

/// One of the two things that are known of an attempt's end: that it is over, or what its error was. They
/// come one right after the other on one CPU, in either order; see agent-ebpf/src/tcp.rs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct TcpEnd {
    /// When it came, in nanoseconds of CLOCK_MONOTONIC; 0 for none.
    pub at_ns: u64,
    /// [`ports`] of the connection.
    pub ports: u32,
    /// That it is over: a [`Family`]. Its error: the number, positive as in errno.h.
    pub detail: u32,
}

/// An end waits no longer than this for its other half, in nanoseconds.
pub const END_NS: u64 = 1_000_000_000;

impl TcpEnd {
    /// None.
    pub const NONE: TcpEnd = TcpEnd { at_ns: 0, ports: 0, detail: 0 };

    /// Whether what came now with these ports is the other half.
    #[inline(always)]
    pub const fn fits(&self, now_ns: u64, ports: u32) -> bool {
        self.at_ns != 0 && self.ports == ports && !self.is_alone(now_ns)
    }

    /// Whether there is one for which no other half will come.
    #[inline(always)]
    pub const fn is_alone(&self, now_ns: u64) -> bool {
        self.at_ns != 0 && now_ns.wrapping_sub(self.at_ns) >= END_NS
    }
}

/// Both ports of a connection in one number.
#[inline(always)]
pub const fn ports(local: u16, remote: u16) -> u32 {
    (remote as u32) << 16 | local as u32
}

/// What one CPU has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct TcpCpu {
    /// Segments that were sent again, by [`Family`].
    pub retransmits: [u64; FAMILIES],
    /// Resets that were sent, by [`Family`]. Before 6.10 only those that a connection has sent, and not
    /// the answers to segments of no connection (tcp_v4_send_reset in net/ipv4/tcp_ipv4.c).
    pub resets_sent: [u64; FAMILIES],
    /// Resets of connections that were received, by [`Family`].
    pub resets_received: [u64; FAMILIES],
    /// Ended attempts to connect, at [`connects_index`].
    pub connects: [u64; FAMILIES * OUTCOMES],
    /// Ends of which no beginning is known. They are counted, without their duration.
    pub unmatched: u64,
    /// Beginnings that found no room in the map of attempts.
    pub starts_lost: u64,
    /// The last attempt that is over without a known error: it is in `connects` only once the next one
    /// comes, or its error does. Those that are [alone](TcpEnd::is_alone) are [`Outcome::Aborted`].
    pub over: TcpEnd,
    /// The last error that came before the attempt was over.
    pub error: TcpEnd,
}

impl TcpCpu {
    /// Nothing.
    pub const ZERO: TcpCpu = TcpCpu {
        retransmits: [0; FAMILIES],
        resets_sent: [0; FAMILIES],
        resets_received: [0; FAMILIES],
        connects: [0; FAMILIES * OUTCOMES],
        unmatched: 0,
        starts_lost: 0,
        over: TcpEnd::NONE,
        error: TcpEnd::NONE,
    };
}

/// The place of a count in [`TcpCpu::connects`].
#[inline(always)]
pub const fn connects_index(family: Family, outcome: Outcome) -> usize {
    family as usize * OUTCOMES + outcome as usize
}

/// Where segments are sent again to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct TcpPeer {
    /// The remote address in network byte order; see [`Family::of`].
    pub address: [u32; 4],
    /// The remote port.
    pub port: u32,
    /// Always 0.
    pub padding: u32,
}

/// Segments that were sent again to a [`TcpPeer`]. All CPUs share it, and what two of them count at the
/// very same time may be counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct TcpRetransmits {
    /// When the counting began, in nanoseconds of CLOCK_MONOTONIC.
    pub since_ns: u64,
    /// How many since then.
    pub count: u64,
}

/// After this time the counting of a peer's retransmits begins anew, in nanoseconds.
pub const PEER_NS: u64 = 300_000_000_000;

const _: () = {
    assert!(size_of::<TcpStart>() == 16);
    assert!(size_of::<TcpEnd>() == 16);
    assert!(size_of::<TcpCpu>() == 8 * (3 * FAMILIES + FAMILIES * OUTCOMES + 2) + 32);
    assert!(size_of::<TcpPeer>() == 24);
    assert!(size_of::<TcpRetransmits>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn address(bytes: [u8; 16]) -> [u32; 4] {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }

    #[test]
    fn a_mapped_address_is_ipv4_and_nothing_else_is() {
        let mut mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1];
        assert_eq!(Family::of(&address(mapped)), Family::V4);
        for at in 0..12 {
            mapped[at] ^= 1;
            assert_eq!(Family::of(&address(mapped)), Family::V6, "{mapped:?}");
            mapped[at] ^= 1;
        }
        assert_eq!(Family::of(&[0; 4]), Family::V6);
    }

    #[test]
    fn families_and_outcomes_are_in_the_order_of_their_numbers() {
        assert!(Family::ALL.iter().zip(0..).all(|(family, number)| *family as u32 == number));
        assert!(Outcome::ALL.iter().zip(0..).all(|(outcome, number)| *outcome as u32 == number));
        let mut seen = [false; FAMILIES * OUTCOMES];
        for family in Family::ALL {
            for outcome in Outcome::ALL {
                let seen = &mut seen[connects_index(family, outcome)];
                assert!(!core::mem::replace(seen, true));
            }
        }
    }

    #[test]
    fn an_end_fits_its_other_half_only_and_not_for_ever() {
        let end = TcpEnd { at_ns: 5, ports: ports(1, 2), detail: 0 };
        assert!(end.fits(5, ports(1, 2)) && end.fits(4 + END_NS, ports(1, 2)));
        assert!(!end.fits(5, ports(2, 1)));
        assert!(!end.fits(5 + END_NS, ports(1, 2)));
        assert!(end.is_alone(5 + END_NS) && !end.is_alone(4 + END_NS));
        assert!(!TcpEnd::NONE.fits(0, 0) && !TcpEnd::NONE.is_alone(u64::MAX));
    }
}
