//! The BPF object that agent/build.rs found, as part of this binary.

/// The object, aligned as its reader wants it; None in a binary that was built without one.
pub(super) static OBJECT: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/bpf_object.rs"));

/// What to tell the user of a binary without the object.
pub(super) const MISSING: &str = "this binary was built without its BPF programs; \
     `cargo xtask build-ebpf` builds them, and the next `cargo build` embeds them";
