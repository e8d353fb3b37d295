//! node_exporter's `loadavg`, from /proc/loadavg (fs/proc/loadavg.c).

use super::parse::{fields, malformed};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const LOADS: [Desc; 3] = [
    Desc::gauge("node_load1", "1m load average."),
    Desc::gauge("node_load5", "5m load average."),
    Desc::gauge("node_load15", "15m load average."),
];

/// The three load averages.
pub(super) struct Loadavg;

impl Collector for Loadavg {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let bytes = host.proc("loadavg")?;
        let mut loads = [0.0; LOADS.len()];
        let mut tokens = fields(bytes);
        for load in &mut loads {
            let token = tokens.next().unwrap_or_default();
            *load = decimal(token)
                .ok_or_else(|| malformed("proc/loadavg", bytes, "three load averages"))?;
        }
        for (desc, load) in LOADS.iter().zip(loads) {
            out.value(desc, load);
        }
        Ok(())
    }
}

/// Digits with or without a point: no sign, exponent or infinity, which the kernel never writes.
fn decimal(token: &[u8]) -> Option<f64> {
    let plain = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let text = std::str::from_utf8(token).ok().filter(|_| token.iter().all(plain))?;
    text.parse().ok()
}
