//! `cargo xtask run`: from a checkout to a running agent.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::context::{Context, is_root};
use crate::setup::Purpose;
use crate::{Result, build, process, setup};

/// Builds the agent and becomes it: the signals, the terminal and the exit code are the agent's.
///
/// # Errors
/// Something is missing, the build failed, or the agent can't be started.
pub(crate) fn run(context: &Context, mut args: Vec<OsString>) -> Result<ExitCode> {
    if args.first().is_some_and(|arg| arg == "--") {
        args.remove(0);
    }
    setup::prepare(context, Purpose::Run)?;
    let mut mote = Command::new(build::agent(context)?);
    mote.arg("run").args(&args);
    if !is_root() {
        context.say(
            "you are not root: everything but the probes works (they need root or CAP_BPF, \
             CAP_PERFMON and CAP_DAC_READ_SEARCH)",
        );
    }
    if !args.iter().any(|arg| arg == "--once") {
        let unless = if args.is_empty() { "" } else { ", unless your arguments say otherwise" };
        context.say(&format!("status page: http://127.0.0.1:9911/{unless}; Ctrl-C ends the agent"));
    }
    context.say(&format!("starting `{}`", process::describe(&mote)));
    Err(format!("`{}` could not be started: {}", process::describe(&mote), mote.exec()))
}
