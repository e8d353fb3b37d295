//! What disks say of their health, which QEMU makes up: the collectors `smart` and `mmc`, in a run of the
//! agent of their own.

use crate::checks::Outcome;
use crate::plan::{Confine, Plan};
use crate::{Result, agent, guest};

const CONFIGURATION: &str = "\
[agent]\nstate_dir = \"/run/health\"\n\n[metrics.collectors]\nonly = [\"smart\", \"mmc\"]\n\n\
[metrics.smart]\nnvme = \"sys_admin\"\n\n[probes]\ndefault = \"off\"\n";

/// Compares what the agent says of each disk that has health with what QEMU gives it.
///
/// # Errors
/// The agent does not run, or says something else.
pub(crate) fn disks(plan: &Plan) -> Result<Outcome> {
    let text = agent::once(plan, CONFIGURATION)?;
    let mut seen = Vec::new();
    // The disk's name in the plan, the rights it takes, and what must be said of it.
    #[rustfmt::skip]
    type Expected = (&'static str, bool, &'static [(&'static str, &'static str)]);
    let expected: [Expected; 3] = [
        (
            "nvme",
            plan.confine == Confine::Nothing,
            &[
                (
                    "node_smart_info",
                    "model=\"QEMU NVMe Ctrl\",protocol=\"nvme\",serial=\"nvme\"} 1",
                ),
                ("node_smart_healthy", "} 1"),
                // 323 K
                ("node_smart_temperature_celsius", "} 50"),
                ("node_smart_percentage_used_ratio", "} 0"),
            ],
        ),
        (
            "ata",
            plan.confine != Confine::All,
            &[
                ("node_smart_info", "model=\"QEMU HARDDISK\",protocol=\"ata\",serial=\"ata\"} 1"),
                ("node_smart_device_standby", "} 0"),
                ("node_smart_healthy", "} 1"),
                ("node_smart_temperature_celsius", "} 31"),
                ("node_smart_power_on_seconds_total", "} 3600"),
                ("node_smart_attribute_threshold{attribute_id=\"5\"", "} 36"),
            ],
        ),
        ("card", true, &[("node_mmc_info", "type=\"SD\"} 1")]),
    ];
    for (name, allowed, families) in expected {
        let Some(disk) = guest::disk(plan, name) else { continue };
        let device = format!("device=\"{disk}\"");
        let of_disk = |family: &str| {
            let mut lines = text.lines();
            lines.find(|line| line.starts_with(family) && line.contains(&device))
        };
        if !allowed {
            if let Some(line) = of_disk("node_smart_") {
                return Err(format!("without the right to ask {disk}: {line}"));
            }
            seen.push(format!("{name}: not allowed"));
            continue;
        }
        for (family, end) in families {
            match of_disk(family) {
                Some(line) if line.ends_with(end) => {}
                Some(line) => return Err(format!("{line}, which should end in {end}")),
                None => return Err(format!("there is no {family} of {disk}, {name}")),
            }
        }
        seen.push(format!("{name}: {disk}"));
    }
    if seen.is_empty() {
        return Ok(Outcome::Skip("this machine has no disk with health".to_owned()));
    }
    Ok(Outcome::Good(seen.join(", ")))
}
