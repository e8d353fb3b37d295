//! node_exporter's `rapl`, from /sys/class/powercap (drivers/powercap/powercap_sys.c, intel_rapl_common.c):
//! the energy that packages, cores and memory have used.
//!
//! Since Linux 5.10 only root, or who may read all files (CAP_DAC_READ_SEARCH), can read the counters; for
//! others there is no data. The label `path` is the host's own, `/sys/…`, wherever the agent has it mounted:
//! node_exporter names its mount point instead. A zone without a counter, of another kind of power capping, is
//! left out; there it ends the collection.

use super::parse::{FirstError, malformed, named, text, unsigned};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Kind, Samples};
use crate::sort;

const CLASS: &str = "class/powercap";

/// A zone as its series are labelled; sorted by metric.
struct Zone {
    metric: String,
    help: String,
    index: String,
    /// The directory, below [`CLASS`].
    directory: String,
    path: String,
}

/// The energy of each zone.
#[derive(Default)]
pub(super) struct Rapl {
    names: Names,
    /// Of which the zones are.
    known: Names,
    zones: Vec<Zone>,
}

impl Collector for Rapl {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, CLASS, &mut self.names)?;
        if !self.names.iter().eq(self.known.iter()) {
            self.zones = zones(host, &self.names);
            std::mem::swap(&mut self.names, &mut self.known);
        }
        let mut denied = None;
        for zone in &self.zones {
            let path = format_args!("{CLASS}/{}/energy_uj", zone.directory);
            let bytes = match host.sys(path) {
                Ok(bytes) => bytes,
                Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                    denied = Some(error);
                    continue;
                }
                Err(error) => {
                    if !error.is_absent() {
                        errors.note(error.into());
                    }
                    continue;
                }
            };
            let Some(energy) = unsigned(bytes.trim_ascii()) else {
                errors.note(malformed(&named(Root::Sys, path), bytes, "a number"));
                continue;
            };
            let labels = [("index", zone.index.as_str()), ("path", &zone.path)];
            out.family_named(&zone.metric, &zone.help, Kind::Counter)
                .add(&labels, energy as f64 / 1_000_000.0);
        }
        match denied {
            Some(error) if errors.is_empty() => Err(CollectError::NoData(error)),
            _ => errors.result(),
        }
    }
}

/// The zones of these directories. Control types such as `intel-rapl` have no name.
fn zones(host: &mut Host, directories: &Names) -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    // How often each name was met, counted from the highest index that it had.
    let mut used: Vec<(String, i64)> = Vec::new();
    for directory in directories.iter() {
        let Some(name) = host.find(Root::Sys, format_args!("{CLASS}/{directory}/name")) else {
            continue;
        };
        let name = text(name.trim_ascii()).into_owned();
        if host.find(Root::Sys, format_args!("{CLASS}/{directory}/max_energy_range_uj")).is_none() {
            continue;
        }
        let (name, index) = match numbered(&name) {
            Some((base, index)) => (base.to_owned(), index),
            None => {
                let next = used.iter().find(|(known, _)| *known == name).map_or(0, |(_, n)| *n);
                (name, next)
            }
        };
        let next = index.saturating_add(1);
        match used.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count = next,
            None => used.push((name.clone(), next)),
        }
        zones.push(Zone {
            metric: format!("node_rapl_{}", sanitized(&format!("{name}_joules_total"))),
            help: format!("Current RAPL {name} value in joules"),
            index: index.to_string(),
            directory: directory.to_owned(),
            path: format!("/sys/{CLASS}/{directory}"),
        });
    }
    sort::stable_by(&mut zones, |a, b| a.metric.cmp(&b.metric));
    zones
}

/// The parts of a name such as `package-0`; none for `dram` and `package-0-die-1`.
fn numbered(name: &str) -> Option<(&str, i64)> {
    let (base, index) = name.split_once('-')?;
    Some((base, index.parse().ok()?))
}

/// A name with each run of what no metric's name may have, and the underscores around it, made one
/// underscore.
fn sanitized(name: &str) -> String {
    let mut clean = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        clean.push_str(rest.get(..at).unwrap_or_default().trim_end_matches('_'));
        clean.push('_');
        let behind = rest.get(at..).unwrap_or_default();
        rest = behind.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::testing;

    #[test]
    fn names_of_zones() {
        assert_eq!(numbered("package-0"), Some(("package", 0)));
        assert_eq!(numbered("package-0-die-1"), None);
        assert_eq!(numbered("dram"), None);
        assert_eq!(sanitized("package-1-die-0_joules_total"), "package_1_die_0_joules_total");
        assert_eq!(sanitized("a_- é_b"), "a_b");
        assert_eq!(sanitized("--"), "_");
    }

    #[test]
    fn a_malformed_counter_costs_itself_and_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let files = [
            ("intel-rapl/enabled", "1\n"),
            ("intel-rapl:0/name", "package-0\n"),
            ("intel-rapl:0/max_energy_range_uj", "262143328850\n"),
            ("intel-rapl:0/energy_uj", "1.5\n"),
            ("intel-rapl:0:0/name", "dram\n"),
            ("intel-rapl:0:0/max_energy_range_uj", "1\n"),
            ("intel-rapl:0:0/energy_uj", "2500000"),
            ("dtpm/name", "dtpm\n"),
            ("dtpm/max_power_range_uw", "1\n"),
        ];
        testing::write(&sys.path().join(CLASS), &files);
        let mut rapl = Rapl::default();
        let (text, result) = testing::collect(&mut rapl, sys.path());
        let dram = "node_rapl_dram_joules_total{index=\"0\",\
                    path=\"/sys/class/powercap/intel-rapl:0:0\"} 2.5\n";
        assert_eq!(text, dram);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("sys/class/powercap/intel-rapl:0/energy_uj: \"1.5"), "{error}");
        // A zone that comes is noticed.
        let files = [
            ("intel-rapl:0/energy_uj", "1000000\n"),
            ("intel-rapl:1/name", "dram\n"),
            ("intel-rapl:1/max_energy_range_uj", "1\n"),
            ("intel-rapl:1/energy_uj", "0\n"),
        ];
        testing::write(&sys.path().join(CLASS), &files);
        let (text, result) = testing::collect(&mut rapl, sys.path());
        result.unwrap();
        assert!(text.starts_with(dram) && text.lines().count() == 3, "{text}");
        assert!(
            text.contains("{index=\"1\",path=\"/sys/class/powercap/intel-rapl:1\"} 0"),
            "{text}"
        );
    }
}
