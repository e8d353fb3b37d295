//! Builds what the commands start: the BPF object and the agent.

use std::path::PathBuf;
use std::process::Stdio;

use crate::context::Context;
use crate::{Result, ebpf, process};

/// Builds the BPF object if that is possible here, and the agent in release mode. With `MOTE_BINARY`
/// set, nothing is built and that binary is taken. Returns the binary.
///
/// # Errors
/// The agent could not be built.
pub(crate) fn agent(context: &Context) -> Result<PathBuf> {
    if let Some(binary) = given(context)? {
        return Ok(binary);
    }
    if let Err(why) = bpf_object(context) {
        context.say(&format!(
            "the BPF object could not be built: unless one was built before, this agent will have no \
             probes; everything else works. Why: {why}"
        ));
    }
    context.step("building the agent (release; the first time takes minutes)", || {
        cargo_build(context, &["--release"])
    })
}

/// Builds the agent as tests have it, for what neither its speed nor its probes matter to. `MOTE_BINARY`
/// goes before it, as for [`agent`].
///
/// # Errors
/// The agent could not be built.
pub(crate) fn agent_for_tests(context: &Context) -> Result<PathBuf> {
    match given(context)? {
        Some(binary) => Ok(binary),
        None => context.step("building the agent", || cargo_build(context, &[])),
    }
}

/// The agent that the environment names.
fn given(context: &Context) -> Result<Option<PathBuf>> {
    let Some(binary) = std::env::var_os("MOTE_BINARY").map(PathBuf::from) else { return Ok(None) };
    if !process::is_executable(&binary) {
        return Err(format!("MOTE_BINARY is {}, which is no program", binary.display()));
    }
    context.say(&format!("MOTE_BINARY: {}; nothing is built", binary.display()));
    Ok(Some(binary))
}

fn cargo_build(context: &Context, profile: &[&str]) -> Result<PathBuf> {
    let mut cargo = context.cargo();
    cargo.args(["build", "--package", "agent", "--bin", "mote"]).args(profile);
    cargo.arg("--message-format=json-render-diagnostics");
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("`{}`: {error}", process::describe(&cargo)))?;
    if !output.status.success() {
        return Err(format!("`{}`: {}", process::describe(&cargo), output.status));
    }
    executable(&output.stdout).ok_or_else(|| "cargo did not say where it put mote".to_owned())
}

/// Where cargo says that it put the agent: below a folder of the target's, if one is configured.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = messages.split(|&byte| byte == b'\n');
    let mut paths = messages.filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        let is_mote = message.get("target")?.get("name")?.as_str()? == "mote";
        let path = message.get("executable")?.as_str()?;
        is_mote.then(|| PathBuf::from(path))
    });
    paths.next_back()
}

/// Builds the BPF object, which the next build of the agent embeds.
///
/// # Errors
/// It could not be built, with what to do about it.
pub(crate) fn bpf_object(context: &Context) -> Result<PathBuf> {
    context.step("building the BPF object", || ebpf::build(&context.root, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_where_cargo_says_and_not_where_it_usually_is() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"build-script-build"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"mote"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"mote"},"executable":"/t/armv7/release/mote"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(messages), Some("/t/armv7/release/mote".into()));
        assert_eq!(executable(b"not JSON\n"), None);
    }
}
