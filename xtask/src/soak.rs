//! `cargo xtask soak`: agent/tests/delivery_soak.rs for longer than a test run has time for. It knows that test's
//! name and the two variables that it reads, and nothing of what it does.

use std::process::{Command, ExitCode};

use crate::Result;
use crate::context::Context;

/// How long it runs unless told otherwise.
pub(crate) const DEFAULT_MINUTES: u32 = 10;

/// Runs it, with these chances or the test's own.
///
/// # Errors
/// It can't be started.
pub(crate) fn soak(context: &Context, minutes: u32, seed: Option<u64>) -> Result<ExitCode> {
    let mut command = Command::new("cargo");
    command
        .current_dir(&context.root)
        .args(["test", "-p", "agent", "--test", "delivery_soak", "--", "--nocapture"])
        .env("MOTE_SOAK_SECONDS", (u64::from(minutes) * 60).to_string());
    if let Some(seed) = seed {
        command.env("MOTE_SEED", seed.to_string());
    }
    let status = command.status().map_err(|error| format!("cargo can't be started: {error}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
