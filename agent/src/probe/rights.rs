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
/// agent that somebody takes over can load nothing into the kernel. Before 5.19 reading a map takes
/// CAP_BPF, and before 5.8 CAP_SYS_ADMIN, where the kernel is closed to unprivileged BPF (bpf_sys_bpf in
/// kernel/bpf/syscall.c): `can_read` tries it without, and as little as possible is kept. With
/// `keep_admin`, somebody else needs CAP_SYS_ADMIN.
///
/// # Errors
/// Not all are gone: what is kept and why.
pub(super) fn give_up(keep_admin: bool, mut can_read: impl FnMut() -> bool) -> Result<(), String> {
    let wanted = if keep_admin { CapabilitySet::SYS_ADMIN } else { CapabilitySet::empty() };
    let failed = |what: &str, error: Errno| format!("{what}: {error}; they are kept");
    let before = capabilities(None).map_err(|e| failed("asking for capabilities", e))?;
    if !before.permitted.intersects(FOR_LOADING) {
        return Ok(());
    }
    // What reading may take, from nothing to all.
    for (keep, name) in [
        (CapabilitySet::empty(), ""),
        (CapabilitySet::BPF, "CAP_BPF is kept: this kernel wants it for reading the probes' maps"),
        (
            CapabilitySet::SYS_ADMIN,
            "CAP_SYS_ADMIN is kept: this kernel wants it for reading the probes' maps",
        ),
    ] {
        if !before.permitted.contains(keep) {
            continue;
        }
        let given = FOR_LOADING.difference(keep | wanted);
        let effective = before.effective.difference(given);
        set_capabilities(None, CapabilitySets { effective, ..before })
            .map_err(|e| failed("giving up capabilities", e))?;
        if can_read() {
            drop_for_good(before, given).map_err(|e| failed("giving up capabilities", e))?;
            return if keep.is_empty() { Ok(()) } else { Err(name.to_owned()) };
        }
        // Permitted they still are, so this does not fail.
        let _ = set_capabilities(None, before);
    }
    Err("the probes' maps can't be read with fewer capabilities: all are kept".to_owned())
}

fn drop_for_good(before: CapabilitySets, given: CapabilitySet) -> Result<(), Errno> {
    // The bounding set first, while there is the right to do so: root would get them back from it with
    // the next program that it starts.
    for capability in (before.permitted & given).iter() {
        match remove_capability_from_bounding_set(capability) {
            // Without CAP_SETPCAP, as a service of a user of its own.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: before.effective.difference(given),
            permitted: before.permitted.difference(given),
            inheritable: before.inheritable.difference(given),
        },
    )
}
