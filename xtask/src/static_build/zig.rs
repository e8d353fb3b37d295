//! zig as C compiler and linker for other machines, by cargo-zigbuild; both come from PyPI into a virtual
//! environment of Python below `target/tools`. It must not know what is built.
//!
//! Rust's library for a target comes from where it can be had, in this order: (1) the toolchain that
//! runs already has it, (2) `rustup target add` gets it, (3) it is built from the sources of Debian's
//! rustc-web, unpacked below `target/tools`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::context::{Context, is_root};
use crate::{Result, ebpf, process};

/// The pinned tools; other versions may do, these did.
const TOOLS: [&str; 2] = ["ziglang==0.17.0", "cargo-zigbuild==0.24.0"];

/// The folder of the tools, and a compiler whose library has to be built too.
pub(super) struct Zig {
    tools: PathBuf,
    compiler: Option<PathBuf>,
}

impl Zig {
    /// Finds it, or fetches what is missing.
    ///
    /// # Errors
    /// Something is missing and could not be got.
    pub(super) fn get(context: &Context, triple: &str) -> Result<Zig> {
        let tools = context.target.join("tools/zig");
        fetch(context, &tools)?;
        let compiler =
            if has_library(triple) { None } else { Some(compiler_with_sources(context, triple)?) };
        Ok(Zig { tools, compiler })
    }

    /// `cargo zigbuild`, but for target and packages.
    pub(super) fn command(&self, context: &Context) -> Result<Command> {
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
        let mut flags = "-Clink-self-contained=no".to_owned();
        if let Some(compiler) = &self.compiler {
            command.env("RUSTC", compiler.join("usr/bin/rustc")).env("RUSTC_BOOTSTRAP", "1");
            command.env("LD_LIBRARY_PATH", library_path(compiler)).env_remove("RUSTUP_TOOLCHAIN");
            command.arg("-Zbuild-std=std,panic_abort");
            // The names that agent/release.ld knows; from 1.96 on the compiler gives others by itself.
            flags.push_str(" -Zunstable-options -Csymbol-mangling-version=legacy");
        }
        command.env("RUSTFLAGS", flags);
        Ok(command)
    }
}

/// Makes the virtual environment, once.
fn fetch(context: &Context, tools: &Path) -> Result<()> {
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(tools.join("bin").join(program));
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works("cargo-zigbuild", &["--version"]) && works("python", &["-m", "ziglang", "version"]) {
        return Ok(());
    }
    context.step(&format!("fetching {} from PyPI", TOOLS.join(" and ")), || {
        process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(tools)).map_err(
            |error| format!("{error}\nzig needs Python with venv (Debian: python3-venv)"),
        )?;
        process::run(Command::new(tools.join("bin/pip")).args(["install", "--quiet"]).args(TOOLS))
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
fn compiler_with_sources(context: &Context, triple: &str) -> Result<PathBuf> {
    let folder = context.target.join("tools/static-rust");
    if folder.join("usr/lib/rustlib/src/rust/library/std/src/lib.rs").is_file() {
        return Ok(folder);
    }
    context
        .step("fetching a compiler whose library can be built for other machines", || {
            unpack(context, &folder)
        })
        .map_err(|error| {
            format!(
                "{error}\nThere is no Rust library for {triple}: `rustup target add {triple}` gets it, \
                 or, on Debian as root, `apt-get update` lets this command fetch what it builds one from"
            )
        })?;
    Ok(folder)
}

fn unpack(context: &Context, folder: &Path) -> Result<()> {
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
    fs::rename(&partial, folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn library_path(unpacked: &Path) -> OsString {
    let base = unpacked.join("usr/lib");
    let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
    env::join_paths([base.join(multiarch), base]).unwrap_or_default()
}
