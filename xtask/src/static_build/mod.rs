//! The agent as a static binary for a machine: which machines there are, and what builds for them. It
//! must not know what the binary is for.
//!
//! Everything is built against musl, by `cross` where it and a container engine work, else by [`zig`] as
//! C compiler and linker; `MOTE_STATIC_WITH` chooses one of the two. A binary that is only to be tested
//! may take the host's own C library ([`Toolchain::for_tests`]). None of it needs root.

mod cross;
mod zig;

use std::env;
use std::path::PathBuf;

use crate::context::Context;
use crate::{Result, process};

/// What can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// 64-bit PCs.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM with ARMv7's instructions and floats in registers.
    Armv7,
    /// The first Raspberry Pi and the Zero.
    Armv6,
}

impl Target {
    /// All of them.
    pub(crate) const ALL: [Target; 4] =
        [Target::X86_64, Target::Aarch64, Target::Armv7, Target::Armv6];

    /// Rust's name of it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Target::X86_64 => "x86_64-unknown-linux-musl",
            Target::Aarch64 => "aarch64-unknown-linux-musl",
            Target::Armv7 => "armv7-unknown-linux-musleabihf",
            Target::Armv6 => "arm-unknown-linux-musleabihf",
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    /// There is none; with those that there are.
    pub(crate) fn of(triple: &str) -> Result<Target> {
        let found = Target::ALL.into_iter().find(|target| target.triple() == triple);
        found.ok_or_else(|| {
            let all = Target::ALL.map(Target::triple).join(", ");
            format!("there are no binaries for {triple:?}; there are for {all}")
        })
    }

    /// This machine's.
    ///
    /// # Errors
    /// It is none of them.
    pub(crate) fn host() -> Result<Target> {
        let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
        let arch = env::consts::ARCH;
        Target::of_machine(arch, &machine).ok_or_else(|| {
            let all = Target::ALL.map(Target::triple).join(", ");
            format!(
                "there are no binaries for this machine ({arch}): name another by --target: {all}"
            )
        })
    }

    /// Of the architecture that programs here are compiled for, and the kernel's name of the machine.
    fn of_machine(arch: &str, machine: &str) -> Option<Target> {
        match arch {
            "x86_64" => Some(Target::X86_64),
            "aarch64" => Some(Target::Aarch64),
            "arm" if machine.starts_with("armv6") => Some(Target::Armv6),
            "arm" => Some(Target::Armv7),
            _ => None,
        }
    }
}

/// What a binary is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With debug assertions and overflow checks, in a fraction of the time, and without line numbers,
    /// which would be most of its size.
    Test,
    /// As users get it.
    Release,
    /// As users get it, but for the table of symbols, which the release has not.
    Symbols,
}

impl Profile {
    /// Cargo's folder of it.
    fn folder(self) -> &'static str {
        match self {
            Profile::Test => "debug",
            Profile::Release | Profile::Symbols => "release",
        }
    }

    /// Cargo's options.
    fn options(self) -> &'static [&'static str] {
        match self {
            Profile::Test => {
                &["--config=profile.dev.debug=false", "--config=profile.dev.strip=\"debuginfo\""]
            }
            Profile::Release => &["--release"],
            // Of this package alone, so that what it is linked from serves both.
            Profile::Symbols => {
                &["--release", "--config=profile.release.package.agent.strip=\"none\""]
            }
        }
    }
}

/// All that is needed to build for a target.
pub(crate) struct Toolchain {
    triple: &'static str,
    by: By,
}

enum By {
    /// The host's own compiler and C library.
    Host,
    Cross,
    Zig(zig::Zig),
}

impl Toolchain {
    /// Finds it, or fetches what is missing.
    ///
    /// # Errors
    /// Something is missing and could not be got.
    pub(crate) fn get(context: &Context, target: Target) -> Result<Toolchain> {
        let triple = target.triple();
        let wanted = env::var("MOTE_STATIC_WITH").unwrap_or_default();
        let by = match wanted.as_str() {
            "zig" => By::Zig(zig::Zig::get(context, triple)?),
            "cross" => {
                cross::works().map_err(|why| {
                    format!("{why}. To get it: {}; or leave MOTE_STATIC_WITH out", cross::ADVICE)
                })?;
                By::Cross
            }
            "" => match cross::works() {
                Ok(()) => By::Cross,
                Err(why) => {
                    context.say(&format!("no cross ({why}); zig serves as well"));
                    By::Zig(zig::Zig::get(context, triple).map_err(|error| {
                        format!("{error}\nOr, with a container engine that runs: {}", cross::ADVICE)
                    })?)
                }
            },
            other => return Err(format!("MOTE_STATIC_WITH is {other:?}, and not cross or zig")),
        };
        Ok(Toolchain { triple, by })
    }

    /// What is there at once for what users don't get: on a PC with glibc that is glibc, for PCs.
    ///
    /// # Errors
    /// As [`Toolchain::get`].
    pub(crate) fn for_tests(context: &Context, target: Target) -> Result<Toolchain> {
        if target == Target::X86_64 && cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            return Ok(Toolchain { triple: "x86_64-unknown-linux-gnu", by: By::Host });
        }
        Toolchain::get(context, target)
    }

    /// Builds the binaries of these packages and returns the folder that they are in.
    ///
    /// # Errors
    /// The compiler failed.
    pub(crate) fn build(
        &self,
        context: &Context,
        packages: &[&str],
        profile: Profile,
    ) -> Result<PathBuf> {
        let triple = self.triple;
        let (mut command, folder, by) = match &self.by {
            By::Host => {
                let mut cargo = context.cargo();
                cargo.arg("build").env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
                (cargo, context.target.clone(), "the host's compiler")
            }
            By::Cross => (cross::command(context), context.target.join("cross"), "cross"),
            By::Zig(zig) => (zig.command(context)?, context.target.join("static"), "zig"),
        };
        command.env("CARGO_TARGET_DIR", &folder).args(["--bins", "--target", triple]);
        for package in packages {
            command.args(["--package", package]);
        }
        command.args(profile.options());
        let what = format!("building {} for {triple}, static, by {by}", packages.join(" and "));
        context.step(&what, || process::run(&mut command))?;
        Ok(folder.join(triple).join(profile.folder()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_gets_binaries_that_it_can_run() {
        let of = Target::of_machine;
        assert_eq!(of("x86_64", "x86_64"), Some(Target::X86_64));
        assert_eq!(of("arm", "armv6l"), Some(Target::Armv6));
        assert_eq!(of("arm", "armv7l"), Some(Target::Armv7));
        // 32-bit programs on a 64-bit kernel.
        assert_eq!(of("arm", "aarch64"), Some(Target::Armv7));
        assert_eq!(of("riscv64", "riscv64"), None);
    }

    #[test]
    fn a_target_that_is_none_is_refused_with_those_that_are() {
        for target in Target::ALL {
            assert_eq!(Target::of(target.triple()), Ok(target));
        }
        let error = Target::of("armv6").unwrap_err();
        assert!(error.contains("\"armv6\"") && error.contains("arm-unknown-linux-musleabihf"));
    }
}
