//! The kernel probes: load the BPF object, attach its programs to tracepoints, read their maps once a
//! round. It must not know the WAL, the configuration file or where samples go.
//!
//! A probe is a row of `SPECS`, a file here that reads its maps, and a file of agent-ebpf. Loading is
//! done by a child (`launch` starts it, `loader` is it) that passes on nothing but descriptors: aya
//! reads all of the kernel's type information where there is any, memory that an allocator would never
//! give back, and the child can mount tracefs for itself where nobody has.
//!
//! What can't work is off, with a reason; nothing here ends the agent.

mod block;
mod channel;
pub mod format;
pub mod kmsg;
mod launch;
mod loader;
mod object;
mod perf;
pub mod proc;
mod spec;
mod tracefs;

use std::fmt;

use self::spec::Spec;
use crate::host::Host;
use crate::model::Samples;

pub use launch::Loader;
pub use loader::{LOADER_ARGUMENT, loader_main};

/// Every probe. Its place here is its number between the loader and the agent.
static SPECS: &[&Spec] = &[&block::SPEC];

/// Whether this binary was built with its BPF programs.
pub fn has_object() -> bool {
    object::OBJECT.is_some()
}

/// What the user wants of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where it works.
    #[default]
    Auto,
    /// It must work; see [`Probes::required`].
    On,
    /// Never.
    Off,
}

/// What the user may set of the probes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Latencies of block I/O.
    pub block: Mode,
    /// How the programs get into the kernel.
    pub loader: Loader,
}

/// The source that a probe uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// BPF programs on the kernel's tracepoints.
    Tracepoint,
    /// None.
    Off,
}

impl Source {
    /// The value of the label `mode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Tracepoint => "tracepoint",
            Source::Off => "off",
        }
    }
}

/// How a probe is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// The probe's name.
    pub name: &'static str,
    /// What the user wants.
    pub wanted: Mode,
    /// What it uses.
    pub source: Source,
    /// Why it is off, and what to do about it; empty while it runs.
    pub reason: String,
}

/// A probe that has to work does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeError {
    /// The probe's name.
    pub name: &'static str,
    /// Why it is off.
    pub reason: String,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the probe {} is \"on\" and can't work: {}", self.name, self.reason)
    }
}

impl std::error::Error for ProbeError {}

/// The probes of a running agent. Dropped, they detach from the kernel.
pub struct Probes {
    status: Vec<ProbeStatus>,
    block: Option<block::Block>,
}

impl Probes {
    /// Starts the probes that are not off, which takes as long as the loader's child does: some tens
    /// of milliseconds, at most [`Loader::timeout`] and a second.
    pub fn start(options: &Options, host: &Host) -> Probes {
        let mut probes = Probes { status: Vec::new(), block: None };
        let mut names = String::new();
        for spec in SPECS {
            let wanted = options.mode(spec.name);
            let mut reason = String::new();
            if wanted == Mode::Off {
                reason.push_str("switched off");
            } else {
                let comma = if names.is_empty() { "" } else { "," };
                names.extend([comma, spec.name]);
            }
            let source = Source::Off;
            probes.status.push(ProbeStatus { name: spec.name, wanted, source, reason });
        }
        if !names.is_empty() {
            probes.load(options, host, &names);
        }
        for status in &probes.status {
            match status.source {
                Source::Tracepoint => log::info!("probe {}: attached", status.name),
                Source::Off => log::info!("probe {}: off: {}", status.name, status.reason),
            }
        }
        probes
    }

    fn load(&mut self, options: &Options, host: &Host, names: &str) {
        let (reports, fault) = match launch::forbidden() {
            Some(reason) => (Vec::new(), Some(reason)),
            None => launch::run(&options.loader, &host.roots().sys, names),
        };
        for mut report in reports {
            let Some(status) = self.status.get_mut(usize::from(report.probe)) else { continue };
            status.reason = std::mem::take(&mut report.reason);
            if !report.attached {
                continue;
            }
            // One arm for each row of SPECS.
            let started = match status.name {
                "block" => block::Block::new(report).map(|block| self.block = Some(block)),
                _ => continue,
            };
            match started {
                Ok(()) => status.source = Source::Tracepoint,
                Err(reason) => status.reason = reason,
            }
        }
        for status in &mut self.status {
            let silent = status.source == Source::Off && status.reason.is_empty();
            if silent {
                let unsaid = || "the loader ended without a word about it".to_owned();
                status.reason = fault.clone().unwrap_or_else(unsaid);
            }
        }
    }

    /// Whether every probe that has to work does.
    ///
    /// # Errors
    /// The first that does not.
    pub fn required(&self) -> Result<(), ProbeError> {
        let failed =
            |status: &&ProbeStatus| status.wanted == Mode::On && status.source == Source::Off;
        match self.status.iter().find(failed) {
            None => Ok(()),
            Some(status) => Err(ProbeError { name: status.name, reason: status.reason.clone() }),
        }
    }

    /// How each probe is doing.
    pub fn status(&self) -> &[ProbeStatus] {
        &self.status
    }

    /// Writes what the probes have counted since they were started. A probe whose maps can't be read
    /// any more is off from then on.
    pub fn collect(&mut self, host: &mut Host, out: &mut Samples) {
        if let Some(block) = &mut self.block
            && let Err(error) = block.collect(host, out)
        {
            let reason = block::explain(&error);
            log::warn!("probe block: off: {reason}");
            self.block = None;
            for status in self.status.iter_mut().filter(|status| status.name == "block") {
                status.source = Source::Off;
                status.reason.clone_from(&reason);
            }
        }
    }
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Options {
    fn mode(&self, name: &str) -> Mode {
        match name {
            "block" => self.block,
            _ => Mode::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_mode() {
        let options = Options { block: Mode::On, ..Options::default() };
        for (at, spec) in SPECS.iter().enumerate() {
            assert_eq!(options.mode(spec.name), Mode::On, "{}", spec.name);
            assert!(SPECS.iter().skip(at + 1).all(|other| other.name != spec.name));
        }
    }

    #[test]
    fn a_probe_that_is_off_starts_nothing_and_is_no_error() {
        let loader = Loader { executable: "/nonexistent".into(), ..Loader::default() };
        let options = Options { block: Mode::Off, loader };
        let mut host = Host::new(Default::default());
        let mut probes = Probes::start(&options, &host);
        assert_eq!(probes.status()[0].reason, "switched off");
        assert_eq!(probes.required(), Ok(()));
        let mut out = Samples::with_limit(10);
        probes.collect(&mut host, &mut out);
        assert!(out.is_empty());
        assert_eq!(probes.status()[0].source.as_str(), "off");
    }

    #[test]
    fn a_probe_that_has_to_work_and_does_not_is_an_error_that_says_why() {
        let loader = Loader { executable: "/bin/false".into(), ..Loader::default() };
        let options = Options { block: Mode::On, loader };
        let probes = Probes::start(&options, &Host::new(Default::default()));
        let error = probes.required().unwrap_err();
        assert!(error.to_string().starts_with("the probe block is \"on\" and can't work: "));
        assert!(!error.reason.is_empty());
    }
}
