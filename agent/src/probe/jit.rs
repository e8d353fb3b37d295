//! Loading a program that the kernel's JIT can't compile: with the JIT switched off for a moment, the
//! interpreter runs it. Kernels of 32-bit ARM give up on some programs (do_misc_fixups, and arch/arm/net).
//! The loader's child does that; who started it sees to it that the switch is put back if the child can't.

use std::fs;
use std::path::Path;

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

/// The switch as it was before a loader was started.
pub(super) struct Before<'p> {
    path: &'p Path,
    value: Option<String>,
}

impl Before<'static> {
    pub(super) fn remember() -> Before<'static> {
        Before::remember_at(Path::new(SWITCH))
    }
}

impl<'p> Before<'p> {
    pub(super) fn remember_at(path: &'p Path) -> Before<'p> {
        Before { path, value: fs::read_to_string(path).ok() }
    }

    /// Puts back what a loader that did not end well may have left switched off. Anything but a 0 is not
    /// the loader's, and stays.
    pub(super) fn put_back(&self) {
        let Some(before) = self.value.as_deref().map(str::trim) else { return };
        let now = fs::read_to_string(self.path).unwrap_or_default();
        if now.trim() != "0" || before == "0" {
            return;
        }
        match fs::write(self.path, before) {
            Ok(()) => log::warn!("the BPF JIT was left off by the loader: it is at {before} again"),
            Err(error) => {
                log::warn!("the BPF JIT was left off: {}: {error}", self.path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_loader_has_left_off_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switch");
        for (before, left, after) in
            [("1\n", "0\n", "1"), ("2\n", "0", "2"), ("0\n", "0\n", "0"), ("1\n", "2\n", "2")]
        {
            fs::write(&path, before).unwrap();
            let remembered = Before::remember_at(&path);
            fs::write(&path, left).unwrap();
            remembered.put_back();
            assert_eq!(fs::read_to_string(&path).unwrap().trim(), after, "{before:?} {left:?}");
        }
        // A kernel without a JIT.
        fs::remove_file(&path).unwrap();
        Before::remember_at(&path).put_back();
        assert!(!path.exists());
    }
}
