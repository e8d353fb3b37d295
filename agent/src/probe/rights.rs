//! The rights that the probes need to be loaded and attached, and giving them up after that. Rights are a
//! thread's: this has to happen before there is another thread.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities,
};

/// What loading and attaching take: CAP_BPF and CAP_PERFMON since 5.8, before that CAP_SYS_ADMIN.
const FOR_LOADING: CapabilitySet =
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::BPF).union(CapabilitySet::PERFMON);

/// What this process would have to be allowed, if it is not.
pub(super) fn lacking() -> Option<String> {
    let may = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(error) => return Some(format!("asking for this process' capabilities: {error}")),
    };
    let enough = may.contains(CapabilitySet::SYS_ADMIN)
        || may.contains(CapabilitySet::BPF | CapabilitySet::PERFMON);
    (!enough).then(|| {
        "it needs root, or the capabilities CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH \
         (before Linux 5.8 CAP_SYS_ADMIN)"
            .to_owned()
    })
}

/// Gives up what only loading and attaching need, for this process and all that it starts, so that an
/// agent that somebody takes over can load nothing into the kernel. Before 5.19 reading a map takes the
/// same rights where the kernel is closed to unprivileged BPF (bpf_sys_bpf in kernel/bpf/syscall.c):
/// `can_read` tries it without them, and if it fails they stay. True if they are gone.
pub(super) fn give_up(can_read: impl FnOnce() -> bool) -> bool {
    let Ok(before) = capabilities(None) else { return false };
    let given = before.permitted & FOR_LOADING;
    if given.is_empty() {
        return true;
    }
    let without = CapabilitySets { effective: before.effective.difference(FOR_LOADING), ..before };
    if set_capabilities(None, without).is_err() {
        return false;
    }
    if !can_read() {
        // Permitted they still are, so this does not fail.
        let _ = set_capabilities(None, before);
        return false;
    }
    // The bounding set first, while there is the right to do so: root would get them back from it with
    // the next program that it starts.
    for capability in given.iter() {
        match remove_capability_from_bounding_set(capability) {
            // Without CAP_SETPCAP, as a service of a user of its own.
            Ok(()) | Err(Errno::PERM) => {}
            Err(_) => return false,
        }
    }
    let left = CapabilitySets {
        effective: without.effective,
        permitted: before.permitted.difference(FOR_LOADING),
        inheritable: before.inheritable.difference(FOR_LOADING),
    };
    set_capabilities(None, left).is_ok()
}
