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
        for (file, text) in files {
            tree.write(file, text.as_bytes());
        }
        tree
    }

    pub(super) fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
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
        let mut samples = Samples::with_limit(10_000);
        let result = collector.collect(&mut self.host(), &mut samples);
        let line = |sample: crate::model::Sample<'_>| {
            let labels: Vec<_> =
                sample.labels().map(|(name, value)| format!("{name}={value:?}")).collect();
            let open =
                if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            format!("{}{open} {}", sample.name(), sample.value)
        };
        (samples.iter().map(line).collect(), result)
    }
}
