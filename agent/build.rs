//! Embeds the BPF object: `$MOTE_BPF_OBJECT`, or `target/bpf/mote.o` of the workspace, where
//! `cargo xtask build-ebpf` puts it. Without one the agent is built all the same, and its probes say
//! that they are not there. An empty `$MOTE_BPF_OBJECT` leaves the object out.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let object = match env::var_os("MOTE_BPF_OBJECT") {
        Some(path) if path.is_empty() => None,
        Some(path) => {
            let path = PathBuf::from(path);
            if !path.is_file() {
                eprintln!("MOTE_BPF_OBJECT: {} is not a file", path.display());
                std::process::exit(1);
            }
            println!("cargo::rerun-if-changed={}", path.display());
            Some(path)
        }
        None => built(),
    };
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MOTE_BPF_OBJECT");

    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let source = match &object {
        Some(path) => {
            let copy = out.join("mote.o");
            if let Err(error) = fs::copy(path, copy) {
                eprintln!("copying {}: {error}", path.display());
                std::process::exit(1);
            }
            "Some(aya::include_bytes_aligned!(concat!(env!(\"OUT_DIR\"), \"/mote.o\")))"
        }
        None => "None",
    };
    if let Err(error) = fs::write(out.join("bpf_object.rs"), source) {
        eprintln!("writing to {}: {error}", out.display());
        std::process::exit(1);
    }
}

/// The workspace's object, if it is there. The folder is watched and not the file: cargo takes an
/// absent file for a changed one and would build the agent anew each time.
fn built() -> Option<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")?;
    let folder = Path::new(&manifest).parent()?.join("target/bpf");
    if fs::create_dir_all(&folder).is_ok() {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let object = folder.join("mote.o");
    object.is_file().then_some(object)
}
