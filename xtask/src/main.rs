//! The project's own commands. `cargo xtask help` lists them.

mod ebpf;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = ebpf::linker() {
        return code;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match std::env::args().nth(1).as_deref() {
        Some("build-ebpf") => match ebpf::build(root) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("build-ebpf: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: cargo xtask build-ebpf");
            ExitCode::from(2)
        }
    }
}
