//! `cargo xtask fuzz`: libFuzzer on the agent's parsers, one target after the other. What it finds lies
//! in agent/fuzz/artifacts; the finding belongs into agent/fuzz/seeds, where the tests replay it.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::context::Context;
use crate::{Result, process};

/// How long each target runs unless told otherwise.
pub(crate) const DEFAULT_SECONDS: u32 = 60;

/// An input is a file, a record or an answer; what a bound of the agent's lets through is smaller.
const MAX_INPUT: u32 = 16 << 10;
/// The most that an input of [`MAX_INPUT`] may have allocated at once, and all together, in MiB.
const MAX_ALLOCATION: u32 = 32;
const MAX_MEMORY: u32 = 1024;
/// Seconds for one input.
const TIMEOUT: u32 = 10;

/// Runs one target, or all of them.
///
/// # Errors
/// No nightly compiler, no cargo-fuzz, no such target.
pub(crate) fn fuzz(context: &Context, target: Option<&str>, seconds: u32) -> Result<ExitCode> {
    let folder = context.root.join("agent/fuzz");
    let known = targets(&folder)?;
    let chosen: Vec<&String> = match target {
        None => known.iter().collect(),
        Some(name) => match known.iter().find(|known| *known == name) {
            Some(found) => vec![found],
            None => {
                return Err(format!("there is no target {name}; there are: {}", known.join(", ")));
            }
        },
    };
    needs(context)?;
    let mut found = Vec::new();
    for name in chosen {
        let corpus = folder.join("corpus").join(name);
        fs::create_dir_all(&corpus)
            .map_err(|error| format!("{} can't be created: {error}", corpus.display()))?;
        let result = context
            .step(&format!("fuzzing {name} for {seconds} s"), || run(context, name, seconds));
        if let Err(message) = result {
            eprintln!("{message}");
            found.push(name.as_str());
        }
    }
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    context.say(&format!(
        "findings in: {}. The inputs are in agent/fuzz/artifacts; once mended, put them into \
         agent/fuzz/seeds/TARGET, under a name that says what they are",
        found.join(", ")
    ));
    Ok(ExitCode::FAILURE)
}

fn run(context: &Context, name: &str, seconds: u32) -> Result<()> {
    let mut cargo = nightly(context);
    cargo.args(["fuzz", "run", "--fuzz-dir", "agent/fuzz", name]);
    // What is new goes into the first folder; the seeds are only read.
    cargo.arg(format!("agent/fuzz/corpus/{name}")).arg(format!("agent/fuzz/seeds/{name}"));
    cargo.arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_INPUT}"),
        format!("-malloc_limit_mb={MAX_ALLOCATION}"),
        format!("-rss_limit_mb={MAX_MEMORY}"),
        format!("-timeout={TIMEOUT}"),
        "-print_final_stats=1".to_owned(),
    ]);
    process::run(&mut cargo)
}

/// The names of the targets: each has a file and, by a test of the agent's, a binary.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.join("targets");
    let fail = |error| format!("{} can't be read: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".rs")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn needs(context: &Context) -> Result<()> {
    let answers = |args: &[&str]| {
        let mut cargo = nightly(context);
        cargo.args(args).output().is_ok_and(|output| output.status.success())
    };
    if !answers(&["--version"]) {
        return Err("fuzzing needs a nightly compiler, which rustup installs: `rustup toolchain \
                    install nightly`"
            .to_owned());
    }
    if !answers(&["fuzz", "--version"]) {
        return Err("fuzzing needs cargo-fuzz: `cargo install --locked cargo-fuzz`".to_owned());
    }
    Ok(())
}

/// rustup's cargo, which takes `+nightly`: the one that started us is a toolchain's own.
fn nightly(context: &Context) -> Command {
    let mut command = context.cargo();
    let inherited: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    command = Command::new("cargo");
    command.arg("+nightly").current_dir(&context.root);
    for name in inherited {
        command.env_remove(name);
    }
    // They would win over `+nightly` for the compiler that cargo starts.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fuzz");
        let names = targets(&folder).unwrap();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            let seeds = folder.join("seeds").join(&name);
            assert!(fs::read_dir(&seeds).is_ok_and(|mut seeds| seeds.next().is_some()), "{name}");
        }
    }
}
