//! node_exporter's `dmi`, from /sys/class/dmi/id (drivers/firmware/dmi-id.c): what the firmware says of
//! board, case and BIOS. It is read once, as it does not change while the system runs.
//!
//! Serial numbers are for root alone; what can't be read or isn't there has no label.

use std::io;

use super::parse::{Span, Texts, text};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const INFO: Desc = Desc::gauge(
    "node_dmi_info",
    "A metric with a constant '1' value labeled by bios_date, bios_release, bios_vendor, \
     bios_version, board_asset_tag, board_name, board_serial, board_vendor, board_version, \
     chassis_asset_tag, chassis_serial, chassis_vendor, chassis_version, product_family, \
     product_name, product_serial, product_sku, product_uuid, product_version, system_vendor if \
     provided by DMI.",
);

const DIRECTORY: &str = "class/dmi/id";

/// Labels, and the files that they are read from.
const FIELDS: [(&str, &str); 20] = [
    ("bios_date", "bios_date"),
    ("bios_release", "bios_release"),
    ("bios_vendor", "bios_vendor"),
    ("bios_version", "bios_version"),
    ("board_asset_tag", "board_asset_tag"),
    ("board_name", "board_name"),
    ("board_serial", "board_serial"),
    ("board_vendor", "board_vendor"),
    ("board_version", "board_version"),
    ("chassis_asset_tag", "chassis_asset_tag"),
    ("chassis_serial", "chassis_serial"),
    ("chassis_vendor", "chassis_vendor"),
    ("chassis_version", "chassis_version"),
    ("product_family", "product_family"),
    ("product_name", "product_name"),
    ("product_serial", "product_serial"),
    ("product_sku", "product_sku"),
    ("product_uuid", "product_uuid"),
    ("product_version", "product_version"),
    ("system_vendor", "sys_vendor"),
];

/// What the firmware says of the machine.
#[derive(Default)]
pub(super) struct Dmi {
    values: Texts,
    /// Empty until something has been read.
    labels: Vec<(&'static str, Span)>,
}

impl Collector for Dmi {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        if self.labels.is_empty() {
            self.read(host)?;
        }
        let mut labels: heapless::Vec<(&str, &str), { FIELDS.len() }> = heapless::Vec::new();
        for &(label, span) in &self.labels {
            // There are no more than there are fields.
            let _ = labels.push((label, self.values.get(span)));
        }
        out.family(&INFO).add(&labels, 1.0);
        Ok(())
    }
}

impl Dmi {
    fn read(&mut self, host: &mut Host) -> Result<(), CollectError> {
        host.list(Root::Sys, DIRECTORY, &mut Names::new())?;
        for (label, file) in FIELDS {
            if let Some(bytes) = host.find(Root::Sys, format_args!("{DIRECTORY}/{file}")) {
                let span = self.values.keep(text(bytes).trim());
                self.labels.push((label, span));
            }
        }
        if self.labels.is_empty() {
            let _ = host.path(Root::Sys, DIRECTORY);
            return Err(host.error(io::Error::from(io::ErrorKind::NotFound)).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn what_is_not_utf_8_or_not_there_costs_itself() {
        let tree = Tree::new(&[("sys/class/dmi/id/sys_vendor", "  Acme, Inc. \n")]);
        tree.write("sys/class/dmi/id/board_name", b"X\xff1\n");
        tree.write("sys/class/dmi/id/modalias", b"dmi:bvn\n");
        let mut dmi = Dmi::default();
        let (text, result) = tree.collect(&mut dmi);
        assert_eq!(
            text,
            ["node_dmi_info{board_name=\"X\u{fffd}1\",system_vendor=\"Acme, Inc.\"} 1"]
        );
        assert!(result.is_ok());
        tree.write("sys/class/dmi/id/board_name", b"other\n");
        assert_eq!(tree.collect(&mut dmi).0, text);
    }

    #[test]
    fn a_board_without_dmi_has_no_data() {
        let (text, result) = Tree::new(&[]).collect(&mut Dmi::default());
        assert!(text.is_empty() && matches!(result, Err(CollectError::NoData(_))));
        let (text, result) =
            Tree::new(&[("sys/class/dmi/id/uevent", "")]).collect(&mut Dmi::default());
        assert!(text.is_empty() && matches!(result, Err(CollectError::NoData(_))));
    }
}
