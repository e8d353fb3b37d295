//! node_exporter's `watchdog` (since its version 1.6.0), from the attributes in /sys/class/watchdog
//! (drivers/watchdog/watchdog_dev.c). A watchdog has those that its driver can answer.

use super::parse::{FirstError, number, text};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const DIRECTORY: &str = "class/watchdog";

const NUMBERS: [(&str, Desc); 7] = [
    (
        "bootstatus",
        Desc::gauge(
            "node_watchdog_bootstatus",
            "Value of /sys/class/watchdog/<watchdog>/bootstatus",
        ),
    ),
    (
        "fw_version",
        Desc::gauge(
            "node_watchdog_fw_version",
            "Value of /sys/class/watchdog/<watchdog>/fw_version",
        ),
    ),
    (
        "nowayout",
        Desc::gauge("node_watchdog_nowayout", "Value of /sys/class/watchdog/<watchdog>/nowayout"),
    ),
    (
        "timeleft",
        Desc::gauge(
            "node_watchdog_timeleft_seconds",
            "Value of /sys/class/watchdog/<watchdog>/timeleft",
        ),
    ),
    (
        "timeout",
        Desc::gauge(
            "node_watchdog_timeout_seconds",
            "Value of /sys/class/watchdog/<watchdog>/timeout",
        ),
    ),
    (
        "pretimeout",
        Desc::gauge(
            "node_watchdog_pretimeout_seconds",
            "Value of /sys/class/watchdog/<watchdog>/pretimeout",
        ),
    ),
    (
        "access_cs0",
        Desc::gauge(
            "node_watchdog_access_cs0",
            "Value of /sys/class/watchdog/<watchdog>/access_cs0",
        ),
    ),
];

const INFO: Desc = Desc::gauge("node_watchdog_info", "Info of /sys/class/watchdog/<watchdog>");
const INFO_LABELS: [&str; 5] = ["options", "identity", "state", "status", "pretimeout_governor"];

/// The watchdogs that reset the machine when nobody feeds them.
#[derive(Default)]
pub(super) struct Watchdog {
    names: Names,
    values: [String; INFO_LABELS.len()],
}

impl Collector for Watchdog {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, DIRECTORY, &mut self.names)?;
        for (file, desc) in &NUMBERS {
            let mut family = out.family(desc);
            for name in self.names.iter() {
                let path = format_args!("{DIRECTORY}/{name}/{file}");
                if let Some(value) = number(host, Root::Sys, path, &mut errors) {
                    family.add(&[("name", name)], value as f64);
                }
            }
        }
        let mut family = out.family(&INFO);
        for name in self.names.iter() {
            for (file, value) in INFO_LABELS.iter().zip(&mut self.values) {
                value.clear();
                let found = host.find(Root::Sys, format_args!("{DIRECTORY}/{name}/{file}"));
                value.push_str(text(found.unwrap_or_default()).trim());
            }
            let [options, identity, state, status, governor] = &self.values;
            let labels = [
                ("name", name),
                ("options", options),
                ("identity", identity),
                ("state", state),
                ("status", status),
                ("pretimeout_governor", governor),
            ];
            family.add(&labels, 1.0);
        }
        errors.result()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn a_malformed_attribute_costs_itself() {
        let tree = Tree::new(&[
            ("sys/class/watchdog/watchdog0/timeout", "soon\n"),
            ("sys/class/watchdog/watchdog0/identity", "One\n"),
            ("sys/class/watchdog/watchdog1/timeout", "60\n"),
        ]);
        let (text, result) = tree.collect(&mut Watchdog::default());
        let rest = "options=\"\",pretimeout_governor=\"\",state=\"\",status=\"\"} 1";
        assert_eq!(
            text,
            [
                "node_watchdog_timeout_seconds{name=\"watchdog1\"} 60".to_owned(),
                format!("node_watchdog_info{{identity=\"One\",name=\"watchdog0\",{rest}"),
                format!("node_watchdog_info{{identity=\"\",name=\"watchdog1\",{rest}"),
            ]
        );
        let error = result.unwrap_err().to_string();
        assert!(error.contains("sys/class/watchdog/watchdog0/timeout") && error.contains("soon"));
    }
}
