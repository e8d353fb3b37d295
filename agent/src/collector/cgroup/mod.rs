//! The collectors `containers` and `services`: what control groups say of CPU, memory, I/O, processes and
//! stalls, for each container and each systemd service. node_exporter has neither.
//!
//! [`layout`] finds the hierarchies (cgroup v2, v1, hybrid), [`walk`] the groups, [`recognise`] says which
//! of them are containers, [`usage`] reads one group's files, [`members`] keeps those that are reported,
//! of which the number has a bound, [`lookup`] asks the runtimes for names.
//!
//! A group may vanish at any moment: what is not there is not written, and that is no error.

mod age;
mod api;
mod containers;
mod devices;
mod layout;
mod lookup;
mod members;
mod options;
mod processes;
mod recognise;
mod runtime;
mod services;
mod tables;
mod usage;
mod walk;

#[cfg(test)]
mod tests;

pub(super) use containers::Containers;
pub use options::{ContainersOptions, ServicesOptions};
pub(super) use services::Services;

/// Reads bytes as what each runtime says of the container with this identity; gives every text that would
/// be a label. For the fuzz target.
#[doc(hidden)]
pub fn fuzz_runtime(bytes: &[u8], id: &str) -> Vec<String> {
    runtime::fuzz(bytes, id)
}
