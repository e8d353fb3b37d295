//! node_exporter's `loadavg`, from /proc/loadavg (fs/proc/loadavg.c).

use procfs::{FromRead, LoadAverage};

use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const LOAD1: Desc = Desc::gauge("node_load1", "1m load average.");
const LOAD5: Desc = Desc::gauge("node_load5", "5m load average.");
const LOAD15: Desc = Desc::gauge("node_load15", "15m load average.");

/// The three load averages.
pub(super) struct Loadavg;

impl Collector for Loadavg {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let bytes = host.proc("loadavg")?;
        let load = LoadAverage::from_read(bytes).map_err(|_| {
            CollectError::parse(
                "proc/loadavg",
                &String::from_utf8_lossy(bytes),
                "three load averages, running/total and a pid",
            )
        })?;
        // procfs parses to f32; 0.07 must not become 0.07000000029802322.
        for (desc, value) in [(LOAD1, load.one), (LOAD5, load.five), (LOAD15, load.fifteen)] {
            out.value(&desc, (f64::from(value) * 100.0).round() / 100.0);
        }
        Ok(())
    }
}
