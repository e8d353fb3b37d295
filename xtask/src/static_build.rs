//! The agent as a static binary for another machine: x86_64 by the host's own C library, the others
//! with musl and zig as C compiler and linker. It must not know what the binary is for.
//!
//! Rust's library for a target comes from where it can be had, in this order: (1) the toolchain that
//! runs already has it, (2) `rustup target add` gets it, (3) it is built from the sources of Debian's
//! rustc-web, unpacked below `target/tools`. zig and cargo-zigbuild come from PyPI into a virtual
//! environment of Python, also there. None of it needs root.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::context::{Context, is_root};
use crate::{Result, ebpf, process};

/// The pinned tools; other versions may do, these did.
const ZIG: [&str; 2] = ["ziglang==0.17.0", "cargo-zigbuild==0.24.0"];

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
    fn triple(self) -> &'static str {
        match self {
            Target::X86_64 if cfg!(all(target_arch = "x86_64", target_env = "gnu")) => {
                "x86_64-unknown-linux-gnu"
            }
            Target::X86_64 => "x86_64-unknown-linux-musl",
            Target::Aarch64 => "aarch64-unknown-linux-musl",
            Target::Armv7 => "armv7-unknown-linux-musleabihf",
            Target::Armv6 => "arm-unknown-linux-musleabihf",
        }
    }
}

/// All that is needed to build for a target.
pub(crate) struct Toolchain {
    triple: &'static str,
    zig: Option<Zig>,
}

/// The folder of the tools, and a compiler whose library has to be built too.
struct Zig {
    tools: PathBuf,
    compiler: Option<PathBuf>,
}

impl Toolchain {
    /// Finds it, or fetches what is missing.
    ///
    /// # Errors
    /// Something is missing and could not be got.
    pub(crate) fn get(context: &Context, target: Target) -> Result<Toolchain> {
        let triple = target.triple();
        if triple.ends_with("-gnu") {
            return Ok(Toolchain { triple, zig: None });
        }
        let tools = context.target.join("tools/zig");
        zig(context, &tools)?;
        let compiler =
            if has_library(triple) { None } else { Some(compiler_with_sources(context)?) };
        Ok(Toolchain { triple, zig: Some(Zig { tools, compiler }) })
    }

    /// Builds the binaries of these packages and returns the folder that they are in. In release mode
    /// they are as users get them; otherwise they have debug assertions and overflow checks, take a
    /// fraction of the time, and have no line numbers, which would be most of their size.
    ///
    /// # Errors
    /// The compiler failed.
    pub(crate) fn build(
        &self,
        context: &Context,
        packages: &[&str],
        release: bool,
    ) -> Result<PathBuf> {
        let triple = self.triple;
        let folder = match self.zig {
            None => context.target.clone(),
            Some(_) => context.target.join("static"),
        };
        let mut command = match &self.zig {
            None => {
                let mut cargo = context.cargo();
                cargo.arg("build").env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
                cargo
            }
            Some(zig) => zig.command(context)?,
        };
        command.env("CARGO_TARGET_DIR", &folder).args(["--bins", "--target", triple]);
        for package in packages {
            command.args(["--package", package]);
        }
        if release {
            command.arg("--release");
        } else {
            command.env("CARGO_PROFILE_DEV_DEBUG", "false");
            command.env("CARGO_PROFILE_DEV_STRIP", "debuginfo");
        }
        let what = format!("building {} for {triple}, static", packages.join(" and "));
        context.step(&what, || process::run(&mut command))?;
        Ok(folder.join(triple).join(if release { "release" } else { "debug" }))
    }
}

impl Zig {
    /// `cargo zigbuild`, but for target and packages.
    fn command(&self, context: &Context) -> Result<Command> {
        let bin = self.tools.join("bin");
        let mut command = Command::new(bin.join("cargo-zigbuild"));
        command.arg("zigbuild").current_dir(&context.root);
        // zig itself is `python -m ziglang` of the virtual environment.
        let path = env::var_os("PATH").unwrap_or_default();
        let path = [bin].into_iter().chain(env::split_paths(&path));
        command.env("PATH", env::join_paths(path).map_err(|error| format!("PATH: {error}"))?);
        for name in ["CARGO_ZIGBUILD_CACHE_DIR", "ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"] {
            command.env(name, self.tools.join("cache"));
        }
        // zig brings musl's start files itself.
        command.env("RUSTFLAGS", "-Clink-self-contained=no");
        if let Some(compiler) = &self.compiler {
            command.env("RUSTC", compiler.join("usr/bin/rustc")).env("RUSTC_BOOTSTRAP", "1");
            command.env("LD_LIBRARY_PATH", library_path(compiler)).env_remove("RUSTUP_TOOLCHAIN");
            command.arg("-Zbuild-std=std,panic_abort");
        }
        Ok(command)
    }
}

/// Makes the virtual environment, once.
fn zig(context: &Context, tools: &Path) -> Result<()> {
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(tools.join("bin").join(program));
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works("cargo-zigbuild", &["--version"]) && works("python", &["-m", "ziglang", "version"]) {
        return Ok(());
    }
    context.step(&format!("fetching {} from PyPI", ZIG.join(" and ")), || {
        process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(tools)).map_err(
            |error| format!("{error}\nzig needs Python with venv (Debian: python3-venv)"),
        )?;
        process::run(Command::new(tools.join("bin/pip")).args(["install", "--quiet"]).args(ZIG))
    })
}

/// Whether the toolchain that runs has Rust's library for the target, or could be given it.
fn has_library(triple: &str) -> bool {
    let here = || {
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
        let sysroot = String::from_utf8(sysroot.stdout).ok()?;
        let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(triple).join("lib");
        Some(folder.is_dir())
    };
    if here() == Some(true) {
        return true;
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", triple]).stderr(Stdio::null()).env("RUSTUP_MAX_RETRIES", "0");
    add.status().is_ok_and(|status| status.success()) && here() == Some(true)
}

/// Debian's rustc with its library's sources, in a folder of its own: the one that build-ebpf unpacks,
/// as links, and the sources beside it.
fn compiler_with_sources(context: &Context) -> Result<PathBuf> {
    let folder = context.target.join("tools/static-rust");
    if folder.join("usr/lib/rustlib/src/rust/library/std/src/lib.rs").is_file() {
        return Ok(folder);
    }
    context.step("fetching a compiler whose library can be built for other machines", || {
        let compiler = ebpf::debian_compiler(&context.root)?;
        let partial = context.target.join("tools/static-rust.partial");
        let _ = fs::remove_dir_all(&partial);
        process::run(Command::new("cp").arg("-al").arg(&compiler).arg(&partial))?;
        let debs = partial.join("debs");
        fs::create_dir(&debs).map_err(|error| format!("{}: {error}", debs.display()))?;
        let mut download = Command::new("apt-get");
        if is_root() {
            // apt's own user can't write into the target directory; apt would warn.
            download.args(["-o", "APT::Sandbox::User=root"]);
        }
        process::run(download.args(["-q", "download", "rust-web-src"]).current_dir(&debs))?;
        for deb in fs::read_dir(&debs).map_err(|error| error.to_string())?.flatten() {
            process::run(Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(&partial))?;
        }
        fs::rename(&partial, &folder).map_err(|error| format!("{}: {error}", folder.display()))
    })?;
    Ok(folder)
}

fn library_path(unpacked: &Path) -> OsString {
    let base = unpacked.join("usr/lib");
    let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
    env::join_paths([base.join(multiarch), base]).unwrap_or_default()
}
