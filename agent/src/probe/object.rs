//! The BPF objects that agent/build.rs found, as part of this binary.

use super::Transport;

/// The objects, aligned as their reader wants them: the one for kernels with ring buffers, which with the
/// feature `bpf-log` is the one for debugging, and the one for older kernels. None in a binary that was built without them.
static OBJECTS: [Option<&[u8]>; 2] = include!(concat!(env!("OUT_DIR"), "/bpf_objects.rs"));

/// The object whose events go this way.
pub(super) fn object(transport: Transport) -> Option<&'static [u8]> {
    let [ring, perf] = OBJECTS;
    match transport {
        Transport::Ring => ring,
        Transport::Perf => perf,
    }
}

/// What to tell the user of a binary without the objects.
pub(super) const MISSING: &str = if cfg!(feature = "bpf-log") {
    "this binary was built with the feature bpf-log and without its BPF programs; \
     `cargo xtask build-ebpf --debug` builds them, and the next `cargo build` embeds them"
} else {
    "this binary was built without its BPF programs; \
     `cargo xtask build-ebpf` builds them, and the next `cargo build` embeds them"
};
