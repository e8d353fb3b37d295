//! Embeds the BPF objects: `mote.o` and `mote-perf.o` of `$MOTE_BPF_OBJECTS`, or of `target/bpf` of the
//! workspace, where `cargo xtask build-ebpf` puts them. Without them the agent is built all the same,
//! and its probes use other sources. An empty `$MOTE_BPF_OBJECTS` leaves the objects out. With the feature
//! `bpf-log` it is `mote-debug.o` in place of `mote.o`. And it says how a release is linked.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The object for kernels with ring buffers, and the one for older kernels.
const OBJECTS: [&str; 2] = ["mote.o", "mote-perf.o"];

/// With the feature `bpf-log`: the programs of the first say what they see.
const DEBUG_OBJECTS: [&str; 2] = ["mote-debug.o", "mote-perf.o"];

fn main() {
    let debug = env::var_os("CARGO_FEATURE_BPF_LOG").is_some();
    let objects = if debug { DEBUG_OBJECTS } else { OBJECTS };
    let folder = match env::var_os("MOTE_BPF_OBJECTS") {
        Some(path) if path.is_empty() => None,
        Some(path) => {
            let path = PathBuf::from(path);
            if let Some(missing) = objects.iter().find(|name| !path.join(name).is_file()) {
                eprintln!("MOTE_BPF_OBJECTS: {} has no {missing}", path.display());
                std::process::exit(1);
            }
            println!("cargo::rerun-if-changed={}", path.display());
            Some(path)
        }
        None => built(&objects),
    };
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MOTE_BPF_OBJECTS");

    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut source = String::from("[");
    for name in objects {
        let Some(folder) = &folder else {
            source.push_str("None, ");
            continue;
        };
        if let Err(error) = fs::copy(folder.join(name), out.join(name)) {
            eprintln!("copying {}: {error}", folder.join(name).display());
            std::process::exit(1);
        }
        source.push_str(&format!(
            "Some(aya::include_bytes_aligned!(concat!(env!(\"OUT_DIR\"), \"/{name}\"))), "
        ));
    }
    source.push(']');
    if let Err(error) = fs::write(out.join("bpf_objects.rs"), source) {
        eprintln!("writing to {}: {error}", out.display());
        std::process::exit(1);
    }
    link();
}

/// How a release is linked: what runs all the time in one place, and without tables for unwinding, which only a debugger
/// would read. Other profiles unwind.
fn link() {
    println!("cargo::rerun-if-changed=release.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    let Some(manifest) = env::var_os("CARGO_MANIFEST_DIR") else { return };
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // One script: of several, zig takes the last.
    let script = Path::new(&manifest).join("release.ld");
    println!("cargo::rustc-link-arg-bin=mote=-Wl,-T,{}", script.display());
    // Relocations in a bit each in place of 24 bytes. A dynamic program needs glibc 2.36 for it, a static one brings
    // its own.
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let is_static = features.split(',').any(|one| one == "crt-static");
    if is_static && is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bin=mote=-Wl,-z,pack-relative-relocs");
    }
}

/// The workspace's objects, if they are there. The folder is watched and not the files: cargo takes an
/// absent file for a changed one and would build the agent anew each time.
fn built(objects: &[&str]) -> Option<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")?;
    let folder = Path::new(&manifest).parent()?.join("target/bpf");
    if fs::create_dir_all(&folder).is_ok() {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    objects.iter().all(|name| folder.join(name).is_file()).then_some(folder)
}
