//! What the fuzz targets do with their bytes: plain functions, one for each target, which panic when a
//! parser panics or breaks a promise. `targets/` hands them to libFuzzer on a nightly compiler;
//! `agent/tests/fuzz_replay.rs` includes this file and replays seeds, crashers and mutations on stable.
//!
//! They must not know who calls them, nor keep anything from one call to the next that changes a result.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    missing_docs,
    reason = "a target reports what it finds by panicking, and a test includes the crate as a module"
)]

mod bytes;
mod clock;
mod collectors;
mod containers;
mod dbus;
mod docker;
mod encode;
mod endpoint;
mod exposition;
mod extract;
#[path = "../../tests/fixtures/mod.rs"]
mod fixtures;
mod journal;
mod kmsg;
mod logs;
mod mailbox;
mod netlink;
mod push;
mod relabel;
mod runtime;
mod scrape;
mod smart;
mod stages;
mod status;
mod syslog;
mod text;
mod wal;

pub use clock::clock;
pub use collectors::collectors;
pub use containers::{cri_file, json_file, local_log};
pub use dbus::dbus;
pub use docker::docker_frames;
pub use encode::{blocks, rounds, samples};
pub use endpoint::{answer, connect, egress, no_proxy, url};
pub use exposition::exposition;
pub use extract::{logfmt, stage_json, stage_replace, stage_timestamp};
pub use journal::journal;
pub use kmsg::{kmsg, probe_proc};
pub use logs::{log_file, log_position};
pub use mailbox::mailbox;
pub use netlink::netlink;
pub use push::{loki, remote_write, remote_write2};
pub use relabel::relabel;
pub use runtime::runtime;
pub use scrape::scrape;
pub use smart::smart;
pub use stages::stages;
pub use status::status;
pub use syslog::syslog;
pub use text::{config, mounts, tracepoint_format};
pub use wal::{wal_cursor, wal_segment};

/// An entry function.
pub type Target = fn(&[u8]);

/// Every target under the name of its binary and of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("answer", answer),
    ("blocks", blocks),
    ("collectors", collectors),
    ("config", config),
    ("clock", clock),
    ("connect", connect),
    ("cri_file", cri_file),
    ("dbus", dbus),
    ("docker_frames", docker_frames),
    ("egress", egress),
    ("exposition", exposition),
    ("journal", journal),
    ("kmsg", kmsg),
    ("json_file", json_file),
    ("local_log", local_log),
    ("log_file", log_file),
    ("log_position", log_position),
    ("logfmt", logfmt),
    ("loki", loki),
    ("netlink", netlink),
    ("mailbox", mailbox),
    ("no_proxy", no_proxy),
    ("probe_proc", probe_proc),
    ("mounts", mounts),
    ("relabel", relabel),
    ("remote_write", remote_write),
    ("remote_write2", remote_write2),
    ("rounds", rounds),
    ("runtime", runtime),
    ("samples", samples),
    ("scrape", scrape),
    ("smart", smart),
    ("stage_json", stage_json),
    ("stage_replace", stage_replace),
    ("stage_timestamp", stage_timestamp),
    ("stages", stages),
    ("status", status),
    ("syslog", syslog),
    ("tracepoint_format", tracepoint_format),
    ("url", url),
    ("wal_cursor", wal_cursor),
    ("wal_segment", wal_segment),
];
