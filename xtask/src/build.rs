//! Builds what the commands start: the BPF object and the agent.

use std::path::PathBuf;

use crate::context::Context;
use crate::{Result, ebpf, process};

/// Builds the BPF object if that is possible here, and the agent in release mode. With `MOTE_BINARY`
/// set, nothing is built and that binary is taken. Returns the binary.
///
/// # Errors
/// The agent could not be built.
pub(crate) fn agent(context: &Context) -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("MOTE_BINARY").map(PathBuf::from) {
        if !process::is_executable(&binary) {
            return Err(format!("MOTE_BINARY is {}, which is no program", binary.display()));
        }
        context.say(&format!("MOTE_BINARY: {}; nothing is built", binary.display()));
        return Ok(binary);
    }
    if let Err(why) = bpf_object(context) {
        context.say(&format!(
            "the BPF object could not be built: unless one was built before, this agent will have no \
             probes; everything else works. Why: {why}"
        ));
    }
    context.step("building the agent (release; the first time takes minutes)", || {
        let mut cargo = context.cargo();
        cargo.args(["build", "--release", "--package", "agent", "--bin", "mote"]);
        process::run(&mut cargo)
    })?;
    Ok(context.target.join("release/mote"))
}

/// Builds the BPF object, which the next build of the agent embeds.
///
/// # Errors
/// It could not be built, with what to do about it.
pub(crate) fn bpf_object(context: &Context) -> Result<PathBuf> {
    context.step("building the BPF object", || ebpf::build(&context.root))
}
