//! The thermal throttle counters (arch/x86: drivers/thermal/intel/therm_throt.c) and the isolated CPUs
//! of /sys/devices/system/cpu. Which files there are is looked up once and again when a CPU has come or
//! gone; boards without such counters then cost nothing a round.

use super::CollectError;
use super::parse::{FirstError, decimal, malformed, number, unsigned};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};
use crate::sort;

const CORE_THROTTLES: Desc = Desc::counter(
    "node_cpu_core_throttles_total",
    "Number of times this CPU core has been throttled.",
);
const PACKAGE_THROTTLES: Desc = Desc::counter(
    "node_cpu_package_throttles_total",
    "Number of times this CPU package has been throttled.",
);
const ISOLATED: Desc = Desc::gauge(
    "node_cpu_isolated",
    "Whether each core is isolated, information from /sys/devices/system/cpu/isolated.",
);

/// More than any kernel is built for (NR_CPUS).
const CPUS_MAX: u64 = 65_536;

struct Counter {
    package: u64,
    /// None for the package's own counter.
    core: Option<u64>,
    /// Below the root of /sys.
    path: String,
}

/// The counters and isolated CPUs of this host.
pub(super) struct Topology {
    counters: Vec<Counter>,
    isolated: Vec<u64>,
}

impl Topology {
    /// Looks up what this host has.
    pub(super) fn read(host: &mut Host) -> Result<Topology, CollectError> {
        let mut names = Names::new();
        match host.list(Root::Sys, "devices/system/cpu", &mut names) {
            Err(error) if !error.is_absent() => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let mut counters: Vec<Counter> = Vec::new();
        for cpu in names.iter().filter(|name| is_cpu(name)) {
            let directory = format!("devices/system/cpu/{cpu}");
            let mut id = |file| {
                let path = format_args!("{directory}/topology/{file}");
                number(host, Root::Sys, path, &mut FirstError::default())
            };
            let (package, core) = (id("physical_package_id"), id("core_id"));
            let (Some(package), Some(core)) = (package, core) else { continue };
            // The CPUs of a core share its counter, and the cores of a package that of the package.
            for (core, file) in [(Some(core), "core"), (None, "package")] {
                let path = format!("{directory}/thermal_throttle/{file}_throttle_count");
                let known = counters.iter().any(|c| c.package == package && c.core == core);
                let mut there = || host.find(Root::Sys, &path).is_some();
                if !known && there() {
                    counters.push(Counter { package, core, path });
                }
            }
        }
        Ok(Topology { counters, isolated: isolated(host)? })
    }

    /// Reads the counters.
    pub(super) fn write(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        for (cores, desc) in [(true, CORE_THROTTLES), (false, PACKAGE_THROTTLES)] {
            let mut family = out.family(&desc);
            for counter in self.counters.iter().filter(|c| c.core.is_some() == cores) {
                // A CPU that goes off takes its files with it; the next round looks them up again.
                let path = format_args!("{}", counter.path);
                let Some(value) = number(host, Root::Sys, path, &mut errors) else { continue };
                let package = decimal(counter.package);
                match counter.core {
                    Some(core) => {
                        let labels = [("package", package.as_str()), ("core", &decimal(core))];
                        family.add(&labels, value as f64)
                    }
                    None => family.add(&[("package", &package)], value as f64),
                };
            }
        }
        let mut family = out.family(&ISOLATED);
        for &cpu in &self.isolated {
            family.add(&[("cpu", &decimal(cpu))], 1.0);
        }
        errors.result()
    }
}

/// Whether it is the directory of a CPU, such as `cpu0`.
pub(super) fn is_cpu(name: &str) -> bool {
    name.strip_prefix("cpu").is_some_and(|number| unsigned(number.as_bytes()).is_some())
}

/// The CPUs that the scheduler leaves alone (`isolcpus=`), from a list such as `1,3-5`.
fn isolated(host: &mut Host) -> Result<Vec<u64>, CollectError> {
    match host.sys("devices/system/cpu/isolated") {
        Ok(bytes) => cpu_list(bytes.trim_ascii())
            .map_err(|token| malformed("sys/devices/system/cpu/isolated", token, "a list of CPUs")),
        Err(_) => Ok(Vec::new()),
    }
}

/// A list of the kernel's (lib/bitmap.c); the error is the malformed part.
fn cpu_list(list: &[u8]) -> Result<Vec<u64>, &[u8]> {
    let mut cpus = Vec::new();
    for part in list.split(|&byte| byte == b',').filter(|part| !part.is_empty()) {
        let mut ends = part.splitn(2, |&byte| byte == b'-').map(unsigned);
        let first = ends.next().flatten().ok_or(part)?;
        let last = ends.next().unwrap_or(Some(first)).ok_or(part)?;
        // The kernel names no CPU twice, so there are never more than there may be CPUs.
        let room = CPUS_MAX - cpus.len() as u64;
        if first > last || last >= CPUS_MAX || last - first >= room {
            return Err(part);
        }
        cpus.extend(first..=last);
    }
    sort::unstable_by_key(&mut cpus, |cpu| *cpu);
    cpus.dedup();
    Ok(cpus)
}

/// Whether the CPU is in a list of the kernel's. What is malformed in the list is passed over.
pub(super) fn in_cpu_list(list: &[u8], cpu: &[u8]) -> bool {
    let Some(cpu) = unsigned(cpu) else { return false };
    list.split(|&byte| byte == b',').any(|part| {
        let mut ends = part.splitn(2, |&byte| byte == b'-').map(unsigned);
        let first = ends.next().flatten();
        let last = ends.next().unwrap_or(first);
        first.zip(last).is_some_and(|(first, last)| (first..=last).contains(&cpu))
    })
}

#[cfg(test)]
mod tests {
    use super::{cpu_list, in_cpu_list};

    #[test]
    fn cpus_in_lists_and_in_garbage() {
        assert!(in_cpu_list(b"1,3-5", b"4") && in_cpu_list(b"x,2,", b"2"));
        for list in ["", "1", "5-3", "-4", "4-", "14"] {
            assert!(!in_cpu_list(list.as_bytes(), b"4"), "{list}");
        }
        assert!(!in_cpu_list(b"1", b"") && !in_cpu_list(b"1", b"x"));
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list(b""), Ok(vec![]));
        assert_eq!(cpu_list(b"3"), Ok(vec![3]));
        assert_eq!(cpu_list(b"1,3-5,4"), Ok(vec![1, 3, 4, 5]));
        for bad in [&b"x"[..], b"1-", b"-1", b"5-3", b"0-18446744073709551615", b"1-2-3"] {
            assert_eq!(cpu_list(bad), Err(bad));
        }
        assert_eq!(cpu_list(b"0-65535").map(|cpus| cpus.len()), Ok(65_536));
        assert_eq!(cpu_list(b"0-65535,7"), Err(&b"7"[..]));
        assert_eq!(cpu_list(&b"0-65535,".repeat(99)), Err(&b"0-65535"[..]));
    }
}
