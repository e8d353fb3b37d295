//! What the user may set of the probes, and what is to be said of each.

use std::fmt;

use super::{Loader, SPECS};
use crate::host::kmsg::Position;

/// What the user wants of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where it works.
    #[default]
    Auto,
    /// It must work; see [`Probes::required`](super::Probes::required).
    On,
    /// Never.
    Off,
}

/// What the user may set of the probes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For the probes that are not named.
    pub default: Mode,
    /// By name.
    pub named: Vec<(&'static str, Mode)>,
    /// Up to where the kernel's log was read by the last run of the agent.
    pub position: Option<Position>,
    /// How the programs get into the kernel.
    pub loader: Loader,
}

impl Options {
    /// One probe that must work, and no other.
    pub fn only(name: &'static str) -> Options {
        Options { default: Mode::Off, named: vec![(name, Mode::On)], ..Options::default() }
    }

    /// Whether any probe is not off.
    pub fn any(&self) -> bool {
        SPECS.iter().any(|spec| self.mode(spec.name) != Mode::Off)
    }

    pub(super) fn mode(&self, name: &str) -> Mode {
        self.named.iter().find(|(named, _)| *named == name).map_or(self.default, |(_, mode)| *mode)
    }
}

/// The source that a probe uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// BPF programs on the kernel's tracepoints.
    Tracepoint,
    /// The kernel's messages in /dev/kmsg.
    Kmsg,
    /// Files of /proc.
    Proc,
    /// None.
    Off,
}

impl Source {
    /// The value of the label `mode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Tracepoint => "tracepoint",
            Source::Kmsg => "kmsg",
            Source::Proc => "proc",
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
    /// Why it uses no better source, and what to do about it, or what it has to do without; empty where
    /// there is nothing to say.
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
