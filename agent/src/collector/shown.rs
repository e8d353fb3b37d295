//! What a collector makes of a made-up /sys, as lines, for the tests beside collectors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::{CollectError, Collector};
use crate::host::{Host, Roots};
use crate::model::Samples;

/// The samples in the order of their writing, and how the collection ended.
pub(super) fn collect(
    collector: &mut dyn Collector,
    sys: &Path,
) -> (String, Result<(), CollectError>) {
    let missing = sys.join("nowhere");
    let roots = Roots { proc: missing.clone(), sys: sys.into(), root: missing };
    let mut samples = Samples::with_limit(1_000);
    let result = collector.collect(&mut Host::new(roots), &mut samples);
    let mut text = String::new();
    for sample in samples.iter() {
        let labels: Vec<_> =
            sample.labels().map(|(name, value)| format!("{name}={value:?}")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(text, "{}{labels} {}", sample.name(), sample.value).unwrap();
    }
    (text, result)
}

/// Writes files below a directory, with their folders.
pub(super) fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
