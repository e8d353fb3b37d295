//! node_exporter's `nvme`, from /sys/class/nvme (drivers/nvme/host/sysfs.c). A controller of which an
//! attribute can't be read is going away, and left out.

use super::parse::{FirstError, Span, malformed, text};
use super::rows::{Rows, Shape};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const SHAPES: [Shape; 1] = [(
    Desc::gauge(
        "node_nvme_info",
        "Non-numeric data from /sys/class/nvme/<device>, value is always 1.",
    ),
    &["device", "firmware_revision", "model", "serial", "state"],
)];

/// In the order of the labels behind `device`.
const FILES: [&str; 4] = ["firmware_rev", "model", "serial", "state"];

/// Identity and state of the NVMe controllers.
#[derive(Default)]
pub(super) struct Nvme {
    names: Names,
    rows: Rows,
}

impl Collector for Nvme {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, "class/nvme", &mut self.names)?;
        self.rows.clear();
        'devices: for name in self.names.iter() {
            let mut labels = [self.rows.keep(name); FILES.len() + 1];
            for (file, label) in FILES.iter().zip(labels.iter_mut().skip(1)) {
                let path = format_args!("class/nvme/{name}/{file}");
                let Some(bytes) = host.find(Root::Sys, path) else { continue 'devices };
                *label = keep_line(&mut self.rows, bytes, name, &mut errors);
            }
            self.rows.add(0, &labels, 1.0);
        }
        self.rows.write(&SHAPES, out);
        errors.result()
    }
}

/// A model and a serial number are ASCII, padded with spaces.
fn keep_line(rows: &mut Rows, bytes: &[u8], name: &str, errors: &mut FirstError) -> Span {
    let bytes = bytes.trim_ascii();
    if bytes.contains(&b'\n') {
        errors.note(malformed(&format!("sys/class/nvme/{name}"), bytes, "one line"));
    }
    rows.keep(&text(bytes))
}
