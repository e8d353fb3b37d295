//! node_exporter's `ksmd`, from /sys/kernel/mm/ksm (mm/ksm.c): pages that the kernel merges.

use super::parse::{FirstError, number};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const DIRECTORY: &str = "kernel/mm/ksm";

const FILES: [(&str, f64, Desc); 9] = [
    ("full_scans", 1.0, Desc::counter("node_ksmd_full_scans_total", "ksmd 'full_scans' file.")),
    (
        "merge_across_nodes",
        1.0,
        Desc::gauge("node_ksmd_merge_across_nodes", "ksmd 'merge_across_nodes' file."),
    ),
    ("pages_shared", 1.0, Desc::gauge("node_ksmd_pages_shared", "ksmd 'pages_shared' file.")),
    ("pages_sharing", 1.0, Desc::gauge("node_ksmd_pages_sharing", "ksmd 'pages_sharing' file.")),
    ("pages_to_scan", 1.0, Desc::gauge("node_ksmd_pages_to_scan", "ksmd 'pages_to_scan' file.")),
    ("pages_unshared", 1.0, Desc::gauge("node_ksmd_pages_unshared", "ksmd 'pages_unshared' file.")),
    ("pages_volatile", 1.0, Desc::gauge("node_ksmd_pages_volatile", "ksmd 'pages_volatile' file.")),
    ("run", 1.0, Desc::gauge("node_ksmd_run", "ksmd 'run' file.")),
    (
        "sleep_millisecs",
        1_000.0,
        Desc::gauge("node_ksmd_sleep_seconds", "ksmd 'sleep_millisecs' file."),
    ),
];

/// What kernel samepage merging does.
#[derive(Default)]
pub(super) struct Ksmd {
    names: Names,
}

impl Collector for Ksmd {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, DIRECTORY, &mut self.names)?;
        for (file, unit, desc) in &FILES {
            let path = format_args!("{DIRECTORY}/{file}");
            if let Some(value) = number(host, Root::Sys, path, &mut errors) {
                out.value(desc, value as f64 / unit);
            }
        }
        errors.result()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn a_kernel_without_numa_has_fewer_files_and_a_malformed_one_costs_itself() {
        let tree = Tree::new(&[
            ("sys/kernel/mm/ksm/run", "yes\n"),
            ("sys/kernel/mm/ksm/sleep_millisecs", "20\n"),
        ]);
        let (text, result) = tree.collect(&mut Ksmd::default());
        assert_eq!(text, ["node_ksmd_sleep_seconds 0.02"]);
        assert!(result.unwrap_err().to_string().contains("sys/kernel/mm/ksm/run: \"yes"));
    }
}
