//! node_exporter's `edac`, from /sys/devices/system/edac/mc (drivers/edac/edac_mc_sysfs.c): errors of memory
//! with ECC, by controller and by row of chips. Rows are there where the kernel has the older interface
//! (CONFIG_EDAC_LEGACY_SYSFS); a count that is missing leaves the others, where node_exporter gives up.

use super::parse::{FirstError, number};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const CONTROLLERS: &str = "devices/system/edac/mc";

/// A count of a controller's, that of errors which no row is known of, and that of a row.
const COUNTS: [(&str, &str, Desc, Desc); 2] = [
    (
        "ce_count",
        "ce_noinfo_count",
        Desc::counter("node_edac_correctable_errors_total", "Total correctable memory errors."),
        Desc::counter(
            "node_edac_csrow_correctable_errors_total",
            "Total correctable memory errors for this csrow.",
        ),
    ),
    (
        "ue_count",
        "ue_noinfo_count",
        Desc::counter("node_edac_uncorrectable_errors_total", "Total uncorrectable memory errors."),
        Desc::counter(
            "node_edac_csrow_uncorrectable_errors_total",
            "Total uncorrectable memory errors for this csrow.",
        ),
    ),
];

/// Errors of memory.
#[derive(Default)]
pub(super) struct Edac {
    controllers: Names,
    rows: Names,
}

impl Collector for Edac {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, CONTROLLERS, &mut self.controllers)?;
        for (count, unknown, total, by_row) in &COUNTS {
            let mut family = out.family(total);
            for name in self.controllers.iter() {
                let Some(controller) = digits(name, "mc") else { continue };
                let path = format_args!("{CONTROLLERS}/{name}/{count}");
                if let Some(value) = number(host, Root::Sys, path, &mut errors) {
                    family.add(&[("controller", controller)], value as f64);
                }
            }
            let mut family = out.family(by_row);
            for name in self.controllers.iter() {
                let Some(controller) = digits(name, "mc") else { continue };
                let path = format_args!("{CONTROLLERS}/{name}/{unknown}");
                if let Some(value) = number(host, Root::Sys, path, &mut errors) {
                    family.add(&[("controller", controller), ("csrow", "unknown")], value as f64);
                }
                let path = format_args!("{CONTROLLERS}/{name}");
                if host.list(Root::Sys, path, &mut self.rows).is_err() {
                    continue;
                }
                for row_name in self.rows.iter() {
                    let Some(row) = digits(row_name, "csrow") else { continue };
                    let path = format_args!("{CONTROLLERS}/{name}/{row_name}/{count}");
                    if let Some(value) = number(host, Root::Sys, path, &mut errors) {
                        family.add(&[("controller", controller), ("csrow", row)], value as f64);
                    }
                }
            }
        }
        errors.result()
    }
}

/// The digits behind the prefix; there is at least one.
fn digits<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end).filter(|digits| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::testing;

    #[test]
    fn a_malformed_count_costs_itself_and_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let files = [
            ("mc0/ce_count", "7\n"),
            ("mc0/ue_count", "-1\n"),
            ("mc0/csrow3/ce_count", "18446744073709551615\n"),
            ("mc0/csrow3/ue_count", "\n"),
            ("mc0/csrow/ce_count", "1\n"),
            ("mc1/ce_count", "8"),
            ("mcx/ce_count", "9\n"),
            ("power/control", "auto\n"),
        ];
        testing::write(&sys.path().join(CONTROLLERS), &files);
        let (text, result) = testing::collect(&mut Edac::default(), sys.path());
        assert_eq!(
            text,
            "node_edac_correctable_errors_total{controller=\"0\"} 7\n\
             node_edac_correctable_errors_total{controller=\"1\"} 8\n\
             node_edac_csrow_correctable_errors_total{controller=\"0\",csrow=\"3\"} \
             18446744073709552000\n"
        );
        let error = result.unwrap_err().to_string();
        assert!(error.contains("sys/devices/system/edac/mc/mc0/ue_count: \"-1"), "{error}");
    }

    #[test]
    fn a_host_without_controllers_has_no_data() {
        let sys = tempfile::tempdir().unwrap();
        let (_, result) = testing::collect(&mut Edac::default(), sys.path());
        assert!(matches!(result, Err(CollectError::NoData(_))));
    }
}
