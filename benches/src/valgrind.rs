//! Instructions in user space, as callgrind counts them, and system calls, as valgrind tells each. A program
//! starts itself under valgrind twice, with few and with many repetitions of its work: the difference is
//! the work alone, without start, warm-up and end.

use std::process::{Command, Stdio};

use crate::Result;

/// Repetitions of the shorter run, in which every buffer grows to its size.
const FEW: u64 = 20;
/// Repetitions more of the longer run.
const MORE: u64 = 200;

/// What stands in a table for want of valgrind.
pub const MISSING: &str = "not measured: valgrind is not installed (apt-get install valgrind)";

/// How a number came to be.
pub const HOW: &str = "valgrind --tool=callgrind, user space: (220 repetitions - 20) / 200";

/// How a number of system calls came to be.
pub const HOW_CALLS: &str = "valgrind --trace-syscalls=yes: (25 repetitions - 5) / 20";

/// Whether there is a valgrind.
pub fn is_there() -> bool {
    let mut command = Command::new("valgrind");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Instructions of one repetition of what this program does when it is started with `arguments` and,
/// after them, a number of repetitions.
///
/// # Errors
/// The program failed under valgrind, or valgrind said nothing that can be read.
pub fn instructions(arguments: &[&str]) -> Result<u64> {
    instructions_of(arguments, FEW, MORE)
}

/// As [`instructions`], of work that is too long for so many repetitions: the mean of `more`, after `few`.
///
/// # Errors
/// As [`instructions`].
pub fn instructions_of(arguments: &[&str], few: u64, more: u64) -> Result<u64> {
    let short = count(arguments, few)?;
    let long = count(arguments, few + more)?;
    Ok(long.saturating_sub(short) / more.max(1))
}

/// System calls of one repetition, as [`instructions`].
///
/// # Errors
/// The program failed under valgrind.
pub fn system_calls(arguments: &[&str]) -> Result<f64> {
    const FEW: u64 = 5;
    const MORE: u64 = 20;
    let count = |repetitions| -> Result<usize> {
        let said = valgrind(&["--tool=none", "--trace-syscalls=yes"], arguments, repetitions)?;
        Ok(said.matches("SYSCALL[").count())
    };
    let (few, many) = (count(FEW)?, count(FEW + MORE)?);
    Ok(many.saturating_sub(few) as f64 / MORE as f64)
}

/// What valgrind says.
fn valgrind(tool: &[&str], arguments: &[&str], repetitions: u64) -> Result<String> {
    let output = Command::new("valgrind")
        .args(tool)
        .arg(std::env::current_exe()?)
        .args(arguments)
        .arg(repetitions.to_string())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{arguments:?} under valgrind: {}\n{said}", output.status).into());
    }
    Ok(said)
}

fn count(arguments: &[&str], repetitions: u64) -> Result<u64> {
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let said = valgrind(&tool, arguments, repetitions)?;
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, number)| number.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind did not say what it collected:\n{said}").into())
}
