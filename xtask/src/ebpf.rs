//! `cargo xtask build-ebpf`: compiles agent-ebpf to `target/bpf/mote.o`, and for kernels before 5.8 to
//! `target/bpf/mote-perf.o`, which the agent's build script embeds. `--debug` adds `target/bpf/mote-debug.o`.
//! It must not know what the programs do.
//!
//! Two things are needed, and each is looked for in a stated order. **A rustc that can compile for
//! `bpfel-unknown-none`**: (1) a nightly with its library's sources, (2) a rustc whose sysroot has a
//! compiled `core` for the target, as Debian's package libstd-rust-web-dev-bpf brings, (3) any rustc
//! with its library's sources, (4) Debian's packages, fetched and unpacked below `target/`, which needs
//! no root and leaves nothing behind elsewhere. **Something that lowers its LLVM bitcode**: the `llc`
//! of the sysroot, an `llc` of the same LLVM major, or bpf-linker.
//!
//! With `llc` the linker is this very program: rustc hands a BPF "linker" one bitcode file, so all
//! that is left to do is to keep it ([`linker`]). Routes 2 and 4 with `llc` are the ones that have been
//! run; 1, 3 and bpf-linker follow their documentation.

mod calls;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Set for rustc, and so for the linker that it starts: where the bitcode is to be put.
const LINKER_OUTPUT: &str = "MOTE_XTASK_BITCODE";

const TARGET: &str = "bpfel-unknown-none";

/// The objects and the features of agent-ebpf that each is built with.
const OBJECTS: [(&str, &str); 2] = [("mote.o", ""), ("mote-perf.o", "perf-buffer")];

/// The object whose programs say what they see, which the agent embeds with its feature `bpf-log`.
const DEBUG_OBJECT: (&str, &str) = ("mote-debug.o", "debug-log");

/// aya-log's pieces of a message have lengths that are known only where all of its functions have become
/// one, and a copy of unknown length would be a call of memcpy, which there is none of in the kernel.
const DEBUG_FLAGS: &str =
    "\x1f-Cllvm-args=-inline-threshold=100000 -inline-cold-callsite-threshold=100000";

/// What route 4 fetches; the version of the last two is that of the first's LLVM.
const PACKAGES: [&str; 4] =
    ["rustc-web", "libstd-rust-web-dev", "libstd-rust-web-dev-bpf", "libstd-rust-web-*"];

const ROUTES: &str = "\
the BPF programs need a Rust compiler for bpfel-unknown-none and an llc of its LLVM. Any of these:
  rustup toolchain install nightly -c rust-src,llvm-tools
  Debian, as root: apt-get update; then run this command again (it fetches what it needs itself)
  an llc-N or bpf-linker in PATH, with N the LLVM major that `rustc -vV` shows, and a rustc with rust-src
Without them `cargo build` still gives an agent; its probes say that they are not there.";

/// A rustc and how it comes by `core` for the target.
struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    sysroot: PathBuf,
    host: String,
    llvm_major: String,
    build_std: bool,
    nightly: bool,
    /// Where the dynamic linker finds LLVM, for what was unpacked and not installed.
    library_path: Option<OsString>,
}

enum Lowering {
    Llc(PathBuf),
    BpfLinker,
}

/// Builds the objects, with `debug` also the one for debugging, says on stderr what it does, and returns
/// their folder.
///
/// # Errors
/// A sentence for the user: what is missing, or what the compiler said.
pub(crate) fn build(root: &Path, debug: bool) -> Result<PathBuf, String> {
    let tools = root.join("target/tools/bpf");
    let (toolchain, lowering) = match find(&tools) {
        Some(found) => found,
        None => {
            fetch(&tools)?;
            find(&tools).ok_or_else(|| format!("what was fetched is not enough.\n{ROUTES}"))?
        }
    };
    step(&format!(
        "compiling agent-ebpf with {}{}",
        toolchain.rustc.display(),
        if toolchain.build_std { ", building core" } else { "" }
    ));
    for (name, features) in OBJECTS.into_iter().chain(debug.then_some(DEBUG_OBJECT)) {
        // A folder for each, or cargo would compile both anew each time.
        let work = root.join("target/ebpf-build").join(name.trim_end_matches(".o"));
        let bitcode = work.join("mote.bc");
        fs::create_dir_all(&work).map_err(|e| format!("creating {}: {e}", work.display()))?;
        compile(root, &work, &toolchain, &lowering, features, &bitcode)?;

        let lowered = work.join("mote.o");
        match &lowering {
            Lowering::Llc(llc) => lower(llc, &toolchain, &bitcode, &lowered)?,
            Lowering::BpfLinker => {
                let built = work.join(TARGET).join("release/mote");
                let copied = fs::copy(&built, &lowered);
                copied.map_err(|e| format!("copying {}: {e}", built.display()))?;
            }
        }
        publish(root, &lowered, name)?;
    }
    Ok(root.join("target/bpf"))
}

/// When rustc starts this program as its linker: keeps the bitcode, and says with which code to exit.
/// None in every other case. To be asked before any argument is looked at.
pub(crate) fn linker() -> Option<ExitCode> {
    let output = env::var_os(LINKER_OUTPUT)?;
    Some(match keep_bitcode(Path::new(&output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn keep_bitcode(output: &Path) -> Result<(), String> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let mut inputs = Vec::new();
    for argument in &arguments {
        if let Ok(bytes) = fs::read(argument)
            && bytes.starts_with(b"BC\xc0\xde")
        {
            inputs.push(bytes);
        }
    }
    let [bitcode] = inputs.as_slice() else {
        return Err(format!("{} bitcode files instead of one: {arguments:?}", inputs.len()));
    };
    fs::write(output, bitcode).map_err(|e| format!("writing {}: {e}", output.display()))?;
    // rustc expects its output to be there.
    if let Some(at) = arguments.iter().position(|argument| argument == "-o")
        && let Some(out) = arguments.get(at + 1)
    {
        fs::write(out, bitcode)
            .map_err(|e| format!("writing {}: {e}", Path::new(out).display()))?;
    }
    Ok(())
}

/// The first toolchain in the order of the module's documentation that some lowering goes with.
fn find(tools: &Path) -> Option<(Toolchain, Lowering)> {
    let unpacked = tools.join("root");
    let mut candidates = nightlies();
    candidates.extend(
        [PathBuf::from("rustc"), PathBuf::from("/usr/bin/rustc")]
            .into_iter()
            .filter_map(|rustc| inspect(&rustc, None)),
    );
    let libraries = library_path(&unpacked);
    candidates.extend(inspect(&unpacked.join("usr/bin/rustc"), Some(libraries)));

    let has_core = |toolchain: &Toolchain| {
        let folder = toolchain.sysroot.join("lib/rustlib").join(TARGET).join("lib");
        fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libcore-") && name.ends_with(".rlib")
            })
        })
    };
    let has_sources =
        |t: &Toolchain| t.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file();
    let ranked = candidates.into_iter().filter_map(|mut toolchain| {
        let (core, sources) = (has_core(&toolchain), has_sources(&toolchain));
        let rank = match (toolchain.nightly && sources, core, sources) {
            (true, _, _) => 1,
            (_, true, _) => 2,
            (_, _, true) => 3,
            _ => return None,
        };
        toolchain.build_std = rank != 2;
        Some((rank, toolchain))
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().find_map(|(_, toolchain)| {
        let lowering = find_lowering(&toolchain, &unpacked)?;
        Some((toolchain, lowering))
    })
}

/// The nightlies that rustup has installed.
fn nightlies() -> Vec<Toolchain> {
    let Ok(list) = Command::new("rustup").args(["toolchain", "list"]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .filter_map(|name| {
            let which = ["which", "--toolchain", name, "rustc"];
            let which = Command::new("rustup").args(which).output().ok()?;
            inspect(Path::new(String::from_utf8_lossy(&which.stdout).trim()), None)
        })
        .collect()
}

/// Asks a rustc what it is; None if there is none.
fn inspect(rustc: &Path, library_path: Option<OsString>) -> Option<Toolchain> {
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(rustc);
        command.args(arguments);
        if let Some(path) = &library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        let output = command.output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let about = ask(&["-vV"])?;
    let value =
        |key: &str| about.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
    let release = value("release")?;
    // A rustup toolchain has a cargo of its own; Debian's has none, and this run's will do.
    let own = sysroot.join("bin/cargo");
    let cargo = if own.is_file() {
        own
    } else {
        env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
    };
    Some(Toolchain {
        rustc: rustc.to_owned(),
        cargo,
        host: value("host")?.to_owned(),
        llvm_major: value("LLVM version")?.split('.').next()?.to_owned(),
        build_std: false,
        nightly: release.contains("nightly") || release.contains("-dev"),
        sysroot,
        library_path,
    })
}

fn find_lowering(toolchain: &Toolchain, unpacked: &Path) -> Option<Lowering> {
    let major = &toolchain.llvm_major;
    let versioned = format!("llc-{major}");
    let llcs = [
        toolchain.sysroot.join("lib/rustlib").join(&toolchain.host).join("bin/llc"),
        PathBuf::from(&versioned),
        unpacked.join("usr/bin").join(&versioned),
    ];
    let runs = |program: &Path| {
        let mut command = Command::new(program);
        // Only what was unpacked needs it, and for that it is always the same folder.
        if program.starts_with(unpacked) {
            command.env("LD_LIBRARY_PATH", library_path(unpacked));
        }
        command.arg("--version").output().is_ok_and(|output| output.status.success())
    };
    if let Some(llc) = llcs.into_iter().find(|llc| runs(llc)) {
        return Some(Lowering::Llc(llc));
    }
    runs(Path::new("bpf-linker")).then_some(Lowering::BpfLinker)
}

fn library_path(unpacked: &Path) -> OsString {
    let mut folders = vec![unpacked.join("usr/lib")];
    // Debian's multiarch folder, such as usr/lib/x86_64-linux-gnu.
    if let Ok(entries) = fs::read_dir(unpacked.join("usr/lib")) {
        folders.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().contains("-linux-gnu")),
        );
    }
    folders.sort();
    env::join_paths(folders).unwrap_or_default()
}

/// Whether a variable sets how cargo builds the agent, in which the BPF programs have no part.
fn is_of_the_outer_build(name: &OsStr) -> bool {
    let prefixes = ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_"];
    name == "CARGO_INCREMENTAL"
        || name.to_str().is_some_and(|name| prefixes.iter().any(|set| name.starts_with(set)))
}

/// The profile of agent-ebpf/Cargo.toml once more: the user's cargo configuration goes before a
/// manifest, and the environment before both.
const PROFILE: [(&str, &str); 7] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false"),
];

fn compile(
    root: &Path,
    work: &Path,
    toolchain: &Toolchain,
    lowering: &Lowering,
    features: &str,
    bitcode: &Path,
) -> Result<(), String> {
    let mut command = Command::new(&toolchain.cargo);
    command
        .current_dir(root.join("agent-ebpf"))
        .args(["build", "--release", "--locked", "--features", features])
        .args(["--target", TARGET, "--target-dir"])
        .arg(work)
        .env("RUSTC", &toolchain.rustc)
        // What rustup and the outer cargo set for themselves is not for this toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_the_outer_build(name)) {
        command.env_remove(name);
    }
    command.envs(PROFILE);
    let flags = if features == DEBUG_OBJECT.1 { DEBUG_FLAGS } else { "" };
    if toolchain.build_std {
        command.arg("-Zbuild-std=core");
    }
    if !toolchain.nightly {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    if let Some(path) = &toolchain.library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    match lowering {
        Lowering::Llc(_) => {
            let own = env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
            command
                .env("CARGO_ENCODED_RUSTFLAGS", format!("-Clinker={}{flags}", own.display()))
                .env(LINKER_OUTPUT, bitcode);
            // Cargo starts no linker when nothing has changed: without the bitcode, all must be new.
            if !bitcode.is_file() {
                let _ = fs::remove_dir_all(work.join(TARGET));
            }
        }
        Lowering::BpfLinker => {
            command.env("CARGO_ENCODED_RUSTFLAGS", format!("-Clinker=bpf-linker{flags}"));
        }
    }
    run(&mut command, "compiling the BPF programs")?;
    match lowering {
        Lowering::Llc(_) if !bitcode.is_file() => Err(format!(
            "the compiler left no bitcode; delete {} and run this again",
            work.display()
        )),
        _ => Ok(()),
    }
}

/// `-mcpu=v1` is the instruction set of the oldest kernels: no 32-bit jumps, no atomic fetches.
fn lower(llc: &Path, toolchain: &Toolchain, bitcode: &Path, object: &Path) -> Result<(), String> {
    let mut command = Command::new(llc);
    command
        .args(["-march=bpfel", "-mcpu=v1", "-O3", "-filetype=obj", "-o"])
        .arg(object)
        .arg(bitcode);
    if let Some(path) = &toolchain.library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    run(&mut command, "lowering the bitcode")?;
    strip(llc, toolchain, object);
    Ok(())
}

/// A compiled `core` brings its debug information along, ten times the programs' size. The `objcopy`
/// that belongs to the `llc` takes it out; without one the object is as good, only larger.
fn strip(llc: &Path, toolchain: &Toolchain, object: &Path) {
    let name = llc.file_name().unwrap_or_default().to_string_lossy();
    let mut command = Command::new(llc.with_file_name(name.replacen("llc", "llvm-objcopy", 1)));
    command.arg("--strip-debug").arg(object);
    if let Some(path) = &toolchain.library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    if !command.status().is_ok_and(|status| status.success()) {
        step("no llvm-objcopy beside llc: the object keeps its debug information");
    }
}

/// Puts the object in its place, untouched if it is the same, so that the agent isn't built again.
fn publish(root: &Path, lowered: &Path, name: &str) -> Result<(), String> {
    const EM_BPF: u16 = 247;
    let bytes = fs::read(lowered).map_err(|e| format!("reading {}: {e}", lowered.display()))?;
    // e_machine of the ELF header is at 18.
    let machine = bytes.get(18..20).map(|two| u16::from_le_bytes([two[0], two[1]]));
    if !bytes.starts_with(b"\x7fELF") || machine != Some(EM_BPF) {
        return Err(format!("{} is not a BPF object", lowered.display()));
    }
    calls::refuse(&bytes).map_err(|error| format!("{name}: {error}"))?;
    let folder = root.join("target/bpf");
    let object = folder.join(name);
    let same = fs::read(&object).is_ok_and(|old| old == bytes);
    if !same {
        // Renamed into place, so that a build that runs meanwhile never embeds half of it.
        let fresh = folder.join(format!(".{name}.new"));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&fresh, &bytes))
            .and_then(|()| fs::rename(&fresh, &object))
            .map_err(|e| format!("writing {}: {e}", object.display()))?;
    }
    step(&format!(
        "{}: {} bytes{}",
        object.display(),
        bytes.len(),
        if same { ", unchanged" } else { "" }
    ));
    Ok(())
}

/// Debian's compiler as route 4 has unpacked it, fetched if it is not there: the root of its tree.
///
/// # Errors
/// It can't be fetched.
pub(crate) fn debian_compiler(root: &Path) -> Result<PathBuf, String> {
    let tools = root.join("target/tools/bpf");
    let unpacked = tools.join("root");
    if inspect(&unpacked.join("usr/bin/rustc"), Some(library_path(&unpacked))).is_none() {
        fetch(&tools)?;
    }
    Ok(unpacked)
}

/// Route 4: Debian's packages, unpacked below `tools`.
fn fetch(tools: &Path) -> Result<(), String> {
    let has = |program: &str| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    if !has("apt-get") || !has("dpkg-deb") {
        return Err(ROUTES.to_owned());
    }
    let packages = match packages() {
        Some(packages) => packages,
        None => {
            refresh_lists()?;
            packages().ok_or_else(|| {
                format!("this distribution has no package libstd-rust-web-dev-bpf.\n{ROUTES}")
            })?
        }
    };
    step(&format!("fetching {} (about 140 MB, once)", packages.join(", ")));
    let debs = tools.join("debs");
    fs::create_dir_all(&debs).map_err(|e| format!("creating {}: {e}", debs.display()))?;
    run(
        Command::new("apt-get").args(["-q", "download"]).args(&packages).current_dir(&debs),
        "fetching the compiler (if a package was not found: apt-get update, as root)",
    )?;
    let entries = fs::read_dir(&debs).map_err(|e| format!("reading {}: {e}", debs.display()))?;
    // Unpacked beside and renamed, so that an interrupted run doesn't look like a complete one.
    let partial = tools.join("root.partial");
    let _ = fs::remove_dir_all(&partial);
    for deb in entries.flatten().map(|entry| entry.path()) {
        step(&format!("unpacking {}", deb.file_name().unwrap_or_default().to_string_lossy()));
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial), "unpacking")?;
    }
    let unpacked = tools.join("root");
    let _ = fs::remove_dir_all(&unpacked);
    fs::rename(&partial, &unpacked).map_err(|e| format!("renaming {}: {e}", partial.display()))?;
    fs::remove_dir_all(&debs).map_err(|e| format!("removing {}: {e}", debs.display()))
}

/// The packages by the names that they have today, read from what they depend on: Debian's rustc-web
/// moves on with security updates, and its LLVM with it.
fn packages() -> Option<Vec<String>> {
    let depends = |package: &str| {
        let output = Command::new("apt-cache").args(["depends", package]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Some(names.map(str::to_owned).collect::<Vec<_>>())
    };
    let [rustc, dev, bpf, runtime] = PACKAGES;
    let known = Command::new("apt-cache").args(["show", bpf]).output().ok()?;
    if !known.status.success() || known.stdout.is_empty() {
        return None;
    }
    let prefix = runtime.trim_end_matches('*');
    let is_runtime =
        |name: &String| name.strip_prefix(prefix).is_some_and(|v| v.starts_with(char::is_numeric));
    let runtime = depends(dev)?.into_iter().find(is_runtime)?;
    let llvm = depends(&runtime)?.into_iter().find(|name| name.starts_with("libllvm"))?;
    let tools = format!("llvm-{}", llvm.trim_start_matches("libllvm"));
    Some(vec![rustc.into(), dev.into(), bpf.into(), runtime, llvm, tools])
}

fn refresh_lists() -> Result<(), String> {
    let id = Command::new("id").arg("-u").output().map_err(|e| format!("running id: {e}"))?;
    if id.stdout.trim_ascii() != b"0" {
        return Err(format!("apt has no list of its packages; as root: apt-get update.\n{ROUTES}"));
    }
    step("apt-get update");
    run(Command::new("apt-get").args(["-q", "update"]), "apt-get update")
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|e| format!("{what}: starting {}: {e}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { Err(format!("{what}: {status}")) }
}

fn step(line: &str) {
    eprintln!("build-ebpf: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shapes_the_agents_build_does_not_reach_the_programs() {
        for name in [
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_DEBUG",
            "CARGO_BUILD_TARGET",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            "CARGO_INCREMENTAL",
        ] {
            assert!(is_of_the_outer_build(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "PATH"] {
            assert!(!is_of_the_outer_build(OsStr::new(name)), "{name}");
        }
        // The manifest says the same, or a build by hand would give another object.
        let manifest = include_str!("../../agent-ebpf/Cargo.toml");
        let (_, release) = manifest.split_once("[profile.release]").unwrap();
        for line in release.lines().filter(|line| line.contains(" = ")) {
            let (key, value) = line.split_once(" = ").unwrap();
            let key = format!("CARGO_PROFILE_RELEASE_{}", key.replace('-', "_").to_uppercase());
            assert!(PROFILE.contains(&(key.as_str(), value.trim_matches('"'))), "{line}");
        }
    }
}
