//! What this boot is to do, as the harness has written it: a line each, a key and its value.
//!
//! - `module PATH`: insert it; in the order of the lines.
//! - `sysctl NAME VALUE`: write it below /proc/sys.
//! - `tracefs mount` or `tracefs leave`.
//! - `confine none`, `confine bpf` (the agent without the capabilities that BPF needs) or
//!   `confine all` (without any).
//! - `bpf works` or `bpf fails`: whether the probes are to be on tracepoints, or to fall back.
//! - `knows NAME`: a metric that this agent's binary has.
//! - `rehearse yes`: cause also what this agent does not know.
//! - `disk NAME BYTES`: a disk of the machine's, recognised by its size.

use std::fs;

use crate::Result;

/// The plan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Modules to insert, in this order.
    pub(crate) modules: Vec<String>,
    /// Names (with dots) and values.
    pub(crate) sysctls: Vec<(String, String)>,
    /// Whether tracefs is mounted before the agent starts.
    pub(crate) tracefs: bool,
    /// What the agent may not do.
    pub(crate) confine: Confine,
    /// Whether BPF programs can be loaded by the agent.
    pub(crate) bpf: bool,
    /// Whether to cause also what the agent does not know.
    pub(crate) rehearse: bool,
    /// Families of metrics that the agent knows.
    pub(crate) knows: Vec<String>,
    /// Names and sizes in bytes.
    pub(crate) disks: Vec<(String, u64)>,
}

/// Which capabilities the agent is started without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Confine {
    /// It has all.
    #[default]
    Nothing,
    /// It lacks those with which BPF programs can be loaded.
    Bpf,
    /// It has none.
    All,
}

impl Plan {
    /// Reads the plan.
    ///
    /// # Errors
    /// The file can't be read, or a line makes no sense.
    pub(crate) fn read(path: &str) -> Result<Plan> {
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        Plan::parse(&text)
    }

    fn parse(text: &str) -> Result<Plan> {
        let mut plan = Plan { tracefs: true, bpf: true, ..Plan::default() };
        for line in text.lines() {
            let bad = || format!("the plan has a line {line:?}");
            let (key, value) = line.split_once(' ').ok_or_else(bad)?;
            match (key, value) {
                ("module", path) => plan.modules.push(path.to_owned()),
                ("sysctl", setting) => {
                    let (name, value) = setting.split_once(' ').ok_or_else(bad)?;
                    plan.sysctls.push((name.to_owned(), value.to_owned()));
                }
                ("tracefs", "mount") => plan.tracefs = true,
                ("tracefs", "leave") => plan.tracefs = false,
                ("confine", "none") => plan.confine = Confine::Nothing,
                ("confine", "bpf") => plan.confine = Confine::Bpf,
                ("confine", "all") => plan.confine = Confine::All,
                ("bpf", "works") => plan.bpf = true,
                ("bpf", "fails") => plan.bpf = false,
                ("rehearse", "yes") => plan.rehearse = true,
                ("knows", name) => plan.knows.push(name.to_owned()),
                ("disk", disk) => {
                    let (name, bytes) = disk.split_once(' ').ok_or_else(bad)?;
                    plan.disks.push((name.to_owned(), bytes.parse().map_err(|_| bad())?));
                }
                _ => return Err(bad()),
            }
        }
        Ok(plan)
    }

    /// Whether the agent's binary has this family of metrics.
    pub(crate) fn knows(&self, family: &str) -> bool {
        self.knows.iter().any(|known| known == family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_it_says_and_no_line_is_passed_over() {
        let plan = Plan::parse(
            "module /modules/a.ko\nsysctl net.core.bpf_jit_enable 1\ntracefs leave\nconfine bpf\n\
             bpf fails\nknows mote_x_total\ndisk good 1048576\n",
        )
        .expect("good");
        assert_eq!(plan.modules, ["/modules/a.ko"]);
        assert_eq!(plan.sysctls, [("net.core.bpf_jit_enable".to_owned(), "1".to_owned())]);
        assert!(!plan.tracefs && !plan.bpf && plan.knows("mote_x_total"));
        assert_eq!(plan.confine, Confine::Bpf);
        assert_eq!(plan.disks, [("good".to_owned(), 1 << 20)]);
        for bad in ["module", "colour red", "disk good", "disk good big", "tracefs maybe", ""] {
            assert!(Plan::parse(&format!("bpf works\n{bad}\n")).is_err(), "{bad:?} was taken");
        }
    }
}
