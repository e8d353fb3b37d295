//! Probes that a test has started: their samples and events.

use std::path::Path;
use std::process::Command;

use mote::host::{Host, Roots};
use mote::model::{Event, Samples};
use mote::probe::{Loader, Options, Probes};

/// A sample: name, labels and value.
pub type Row = (String, Vec<(String, String)>, f64);

pub struct Probed {
    pub probes: Probes,
    pub host: Host,
    /// All events since the start.
    pub events: Vec<Event>,
}

impl Probed {
    /// One probe; a failure says what to do, such as `cargo xtask build-ebpf`.
    pub fn start(name: &'static str, roots: Roots) -> Probed {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test attaches BPF programs: run it as root"
        );
        let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
        let host = Host::new(roots);
        let probes = Probes::start(&Options { loader, ..Options::only(name) }, &host);
        if let Err(error) = probes.required() {
            panic!("{error}");
        }
        Probed { probes, host, events: Vec::new() }
    }

    /// A round; and what has happened.
    pub fn round(&mut self) -> Vec<Row> {
        while self.probes.receive(&mut self.host, 0) {
            self.take();
        }
        let mut out = Samples::with_limit(10_000);
        self.probes.collect(&mut self.host, 0, &mut out);
        self.take();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        out.iter()
            .map(|sample| {
                (sample.name().into(), sample.labels().map(owned).collect(), sample.value)
            })
            .collect()
    }

    fn take(&mut self) {
        while let Some(waiting) = self.probes.next_event() {
            self.events.push(waiting.event);
        }
        assert_eq!(self.probes.take_dropped(), 0);
    }

    /// The sum of a family's samples that have these labels.
    pub fn sum(&mut self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.round()
            .iter()
            .filter(|(name, _, _)| name == family)
            .filter(|(_, have, _)| {
                labels.iter().all(|(name, value)| have.iter().any(|(n, v)| n == name && v == value))
            })
            .map(|(_, _, value)| value)
            .sum()
    }

    /// The events with this detail.
    pub fn with(&self, field: &str, value: &str) -> Vec<&Event> {
        let events = self.events.iter();
        events.filter(|event| detail(event, field) == Some(value)).collect()
    }
}

/// A detail of an event.
pub fn detail<'a>(event: &'a Event, field: &str) -> Option<&'a str> {
    event.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str())
}

/// Tracefs, mounted where only a test looks.
pub struct Tracefs(tempfile::TempDir);

impl Tracefs {
    pub fn new() -> Tracefs {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tracefs", "nodev"]).arg(dir.path()).status().unwrap();
        assert!(mounted.success(), "mounting tracefs");
        Tracefs(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
