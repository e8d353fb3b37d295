//! Runs a binary on the processor it is for, emulated by QEMU where that is not this machine's: the tests
//! of `agent/tests/portable.rs`, with strict servers on this machine. System calls go to this machine's
//! kernel, so that BPF (which QEMU passes to no kernel) and page sizes are `cargo xtask kernel-test`'s.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::static_build::Target;
use crate::temp::TempDir;
use crate::{Result, apt, process};

const TESTS: &str = "portable";

/// What a binary runs on.
pub(super) struct Machine {
    pub(super) target: Target,
    /// QEMU and its options; empty for this machine itself.
    runner: Vec<String>,
}

impl Machine {
    /// Finds what is needed, or installs it.
    ///
    /// # Errors
    /// QEMU is missing and could not be installed.
    pub(super) fn get(context: &Context, target: Target) -> Result<Machine> {
        let Some((program, options)) = qemu(target, std::env::consts::ARCH) else {
            return Ok(Machine { target, runner: Vec::new() });
        };
        if process::find(program).is_none() && apt::can_install() {
            apt::install(context, &["qemu-user-static"])?;
        }
        let path = process::find(program).ok_or_else(|| {
            format!(
                "{program} is missing: {} runs on it. Install it with \
                 `apt-get install -y --no-install-recommends qemu-user-static`, or your \
                 distribution's QEMU for user programs, static",
                target.triple()
            )
        })?;
        let words = [path.display().to_string()];
        let runner = words.into_iter().chain(options.iter().map(|&word| word.to_owned())).collect();
        Ok(Machine { target, runner })
    }

    /// Runs the tests with this binary.
    ///
    /// # Errors
    /// A test failed.
    pub(super) fn test(&self, context: &Context, binary: &Path) -> Result<()> {
        let folder = TempDir::new("emulated")?;
        let agent = self.script(&folder, binary)?;
        let on =
            if self.runner.is_empty() { "this machine".to_owned() } else { self.runner.join(" ") };
        let mut cargo = context.cargo();
        cargo.args(["test", "--package", "agent", "--test", TESTS]);
        // One after the other: an emulated agent that has to share the machine is late.
        cargo.args(["--", "--nocapture", "--test-threads=1"]);
        cargo.env("MOTE_TEST_AGENT", agent).env("MOTE_TEST_ARCH", arch(self.target));
        let what = format!("testing {} on {on}", self.target.triple());
        context.step(&what, || process::run(&mut cargo))
    }

    /// A program that is the agent on that processor.
    fn script(&self, folder: &TempDir, binary: &Path) -> Result<PathBuf> {
        let path = folder.path().join("mote");
        let words = self.runner.iter().map(String::as_str);
        let binary = binary.display().to_string();
        let words: Vec<String> = words.chain([binary.as_str()]).map(quoted).collect();
        let text = format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "));
        let fail = |error| format!("{}: {error}", path.display());
        fs::write(&path, text).map_err(fail)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(fail)?;
        Ok(path)
    }
}

/// For the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// QEMU's program for this target and its options, unless a machine of this architecture runs it itself.
fn qemu(target: Target, host: &str) -> Option<(&'static str, &'static [&'static str])> {
    match target {
        Target::X86_64 if host == "x86_64" => None,
        Target::Aarch64 if host == "aarch64" => None,
        Target::X86_64 => Some(("qemu-x86_64-static", &[])),
        Target::Aarch64 => Some(("qemu-aarch64-static", &["-cpu", "cortex-a53"])),
        // Also on an ARM: instructions that the oldest one has not are to be found.
        Target::Armv7 => Some(("qemu-arm-static", &["-cpu", "cortex-a7"])),
        Target::Armv6 => Some(("qemu-arm-static", &["-cpu", "arm1176"])),
    }
}

/// Rust's name of the architecture.
fn arch(target: Target) -> &'static str {
    match target {
        Target::X86_64 => "x86_64",
        Target::Aarch64 => "aarch64",
        Target::Armv7 | Target::Armv6 => "arm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_binary_gets_the_processor_that_it_is_for() {
        assert_eq!(qemu(Target::X86_64, "x86_64"), None);
        assert_eq!(
            qemu(Target::Armv6, "x86_64"),
            Some(("qemu-arm-static", &["-cpu", "arm1176"][..]))
        );
        assert!(qemu(Target::Armv6, "arm").is_some() && qemu(Target::Aarch64, "aarch64").is_none());
    }

    #[test]
    fn arguments_pass_through_the_script_as_they_are() {
        let folder = TempDir::new("emulated-test").unwrap();
        let runner = vec!["/usr/bin/env".to_owned(), "WORD=it's".to_owned()];
        let machine = Machine { target: Target::Armv7, runner };
        let script = machine.script(&folder, Path::new("/usr/bin/printf")).unwrap();
        let output =
            std::process::Command::new(script).args(["<%s>", "a b", "$x'"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "<a b><$x'>");
    }
}
