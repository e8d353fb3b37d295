//! For the tests beside the collectors: a host of a few files, and its samples line by line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use super::{CollectError, Collector};
use crate::host::{Host, Roots};
use crate::model::Samples;

/// Files below the folders `proc`, `sys` and `root`, removed at the end.
pub(super) struct Tree(tempfile::TempDir);

impl Tree {
    pub(super) fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        write(tree.path(), files);
        tree
    }

    pub(super) fn write(&self, file: &str, bytes: &[u8]) {
        write_one(self.path(), file, bytes);
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn host(&self) -> Host {
        let below = |root| self.0.path().join(root);
        Host::new(Roots { proc: below("proc"), sys: below("sys"), root: below("root") })
    }

    /// One collection; the labels' values are in quotes as Rust writes them.
    pub(super) fn collect(
        &self,
        collector: &mut dyn Collector,
    ) -> (Vec<String>, Result<(), CollectError>) {
        lines(collector, &mut self.host())
    }
}

fn lines(
    collector: &mut dyn Collector,
    host: &mut Host,
) -> (Vec<String>, Result<(), CollectError>) {
    let mut samples = Samples::with_limit(10_000);
    let result = collector.collect(host, &mut samples);
    let line = |sample: crate::model::Sample<'_>| {
        let labels: Vec<_> =
            sample.labels().map(|(name, value)| format!("{name}={value:?}")).collect();
        let open =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        format!("{}{open} {}", sample.name(), sample.value)
    };
    (samples.iter().map(line).collect(), result)
}

/// What a collector makes of a made-up /sys, as one text.
pub(super) fn collect(
    collector: &mut dyn Collector,
    sys: &Path,
) -> (String, Result<(), CollectError>) {
    let missing = sys.join("nowhere");
    let roots = Roots { proc: missing.clone(), sys: sys.into(), root: missing };
    let (lines, result) = lines(collector, &mut Host::new(roots));
    (lines.iter().flat_map(|line| [line, "\n"]).collect(), result)
}

/// Writes files below a directory, with their folders.
pub(super) fn write(folder: &Path, files: &[(&str, &str)]) {
    files.iter().for_each(|(name, text)| write_one(folder, name, text.as_bytes()));
}

fn write_one(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
