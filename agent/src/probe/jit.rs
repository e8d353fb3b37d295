//! Loading a program that the kernel's JIT can't compile: with the JIT switched off for a moment, the
//! interpreter runs it. Kernels of 32-bit ARM give up on some programs (do_misc_fixups, and arch/arm/net).

use std::fs;

use aya::programs::ProgramError;

use super::loader::errno;

/// The kernel's own ENOTSUPP, which reaches user space where a JIT has given up.
pub(super) const ENOTSUPP: i32 = 524;

/// The switch; this process' own /proc, because it is the running kernel's.
const SWITCH: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Loads a program, a second time with the JIT off if that may help. The switch is put back.
pub(super) fn load(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let error = match load() {
        Err(error) if errno(&error) == Some(ENOTSUPP) => error,
        other => return other,
    };
    let before = fs::read_to_string(SWITCH).unwrap_or_default();
    if before.trim() == "0" || fs::write(SWITCH, "0").is_err() {
        return Err(error);
    }
    let again = load();
    // What can't be put back was not written either.
    let _ = fs::write(SWITCH, before.trim());
    again
}
