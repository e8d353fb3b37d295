//! TCP from /proc/net/snmp (snmp_seq_show_tcp_udp in net/ipv4/proc.c): counts of both address families
//! together, of the network namespace of whoever reads. On 32-bit kernels they wrap at 2^32.
//!
//! How many attempts to connect have succeeded can't be told: of those that were started (`ActiveOpens`)
//! some still wait for an answer, some were given up by their program, which no counter tells, and the
//! failures (`AttemptFails`) are those of incoming connections too. So of `mote_tcp_connects_total` there
//! is `failed` alone, without a reason.

use super::{ProcError, fields, lines, unsigned};
use crate::host::Host;
use crate::model::{Family, Samples};
use crate::probe::tcp::{CONNECTS, RESETS, RETRANSMITS};

const FILE: &str = "net/snmp";
const BOTH: (&str, &str) = ("family", "any");

/// The probe `tcp` without BPF.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpStats;

impl TcpStats {
    /// Reads the file and writes what was sent again, resets sent, and connections that failed.
    ///
    /// # Errors
    /// The file can't be read, or has no counters of TCP's.
    pub fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), ProcError> {
        let bytes = host.proc(FILE)?;
        let mut of_tcp = lines(bytes).filter(|line| line.starts_with(b"Tcp:"));
        let names = of_tcp.next().unwrap_or_default();
        let values = of_tcp.next().unwrap_or_default();
        let value = |wanted: &[u8]| {
            let mut pairs = fields(names).zip(fields(values));
            let value = pairs.find(|(name, _)| *name == wanted).map(|(_, value)| unsigned(value));
            value.flatten().map(|value| value as f64)
        };
        let mut error = None;
        let mut add = |family: &mut Family<'_>, name: &[u8], label: Option<(&str, &str)>| match (
            value(name),
            label,
        ) {
            (Some(value), Some(label)) => _ = family.add(&[BOTH, label], value),
            (Some(value), None) => _ = family.add(&[BOTH], value),
            (None, _) => _ = error.get_or_insert_with(|| ProcError::malformed(FILE, values)),
        };
        add(&mut out.family(&RETRANSMITS), b"RetransSegs", None);
        add(&mut out.family(&RESETS), b"OutRsts", Some(("direction", "sent")));
        let mut connects = out.family(&CONNECTS);
        add(&mut connects, b"AttemptFails", Some(("result", "failed")));
        error.map_or(Ok(()), Err)
    }
}
