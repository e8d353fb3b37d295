//! Where tracefs is; in the loader's child, which has a mount namespace of its own, it is mounted when
//! it is nowhere. Nothing of this is seen by the rest of the system.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives this process a mount namespace of its own, in which nothing that is mounted reaches another.
pub(super) fn unshare_mounts() -> Result<(), rustix::io::Errno> {
    #[expect(unsafe_code, reason = "unshare of the descriptor table would be unsafe")]
    // SAFETY: the flags don't hold FILES, the one that takes descriptors away from other threads.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Covers /sys/kernel/btf: aya reads the kernel's type information whenever it is there, which costs
/// 15 to 20 MiB for a moment, and these programs don't need it. What fails here costs only that memory.
pub(super) fn hide_btf() {
    let _ = mount("nodev", "/sys/kernel/btf", "tmpfs", MountFlags::RDONLY, None);
}

/// The folder with `events/`, mounted if need be and if `may_mount`.
///
/// # Errors
/// A sentence that says what the user can do.
pub(super) fn find(sys: &Path, may_mount: bool) -> Result<PathBuf, String> {
    let places = [sys.join("kernel/tracing"), sys.join("kernel/debug/tracing")];
    for place in &places {
        match fs::read_dir(place.join("events")) {
            Ok(_) => return Ok(place.clone()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(format!(
                    "tracefs at {} can't be read: run the agent as root, or give it \
                     CAP_DAC_READ_SEARCH",
                    place.display()
                ));
            }
            Err(_) => {}
        }
    }
    let [place, _] = places;
    if !place.is_dir() {
        return Err(format!(
            "this kernel has no tracefs: there is no {} (CONFIG_TRACING)",
            place.display()
        ));
    }
    let by_hand = format!("mount it: mount -t tracefs nodev {}", place.display());
    if !may_mount {
        return Err(format!(
            "tracefs isn't mounted and mounting it needs CAP_SYS_ADMIN; {by_hand}"
        ));
    }
    mount("nodev", &place, "tracefs", MountFlags::NOSUID | MountFlags::NOEXEC, None).map_err(
        |error| match error {
            // It is there already, and shows nothing.
            Errno::BUSY => format!(
                "tracefs at {} has no events: the kernel is locked down (lockdown=confidentiality; see \
                 {}), or was built without them",
                place.display(),
                sys.join("kernel/security/lockdown").display()
            ),
            error => format!("mounting tracefs: {error}; {by_hand}"),
        },
    )?;
    match fs::read_dir(place.join("events")) {
        Ok(_) => Ok(place),
        Err(error) => Err(format!("{}: {error}", place.join("events").display())),
    }
}
