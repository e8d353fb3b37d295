//! `cargo xtask test`: every check and every test that the project has.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::context::{Context, is_root};
use crate::setup::Purpose;
use crate::{Result, build, process, setup, tidy};

/// Runs the checks and the tests; with arguments only the tests, and those go to `cargo test`.
/// The checks that fail don't keep the tests from running. Cargo's own summary comes last.
///
/// # Errors
/// Something could not even be started.
pub(crate) fn test(context: &Context, args: &[OsString]) -> Result<ExitCode> {
    let prepared = setup::prepare(context, Purpose::Test)?;
    for missing in &prepared.missing {
        context.say(&format!("tests that need it will fail: {missing}"));
    }
    if let Err(why) = build::bpf_object(context) {
        context.say(&format!("the tests of the probes will fail, for want of the object: {why}"));
    }
    if !is_root() {
        context.say(
            "you are not root: the tests that load BPF programs or mount file systems will fail",
        );
    }
    let failed = if args.is_empty() { checks(context) } else { Vec::new() };

    let mut cargo = context.cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(args);
    prepared.export(context, &mut cargo);
    context.say(&format!("`{}`", process::describe(&cargo)));
    let status = process::status(&mut cargo)?;
    if !failed.is_empty() {
        context.say(&format!("failed before the tests, see above: {}", failed.join(", ")));
        return Ok(ExitCode::FAILURE);
    }
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => Err(format!("cargo test was ended from outside ({status})")),
    }
}

/// Runs all checks and returns the names of those that failed.
fn checks(context: &Context) -> Vec<&'static str> {
    let cargo = |args: &[&str], environment: &[(&str, &str)]| {
        let mut cargo = context.cargo();
        cargo.args(args).envs(environment.iter().copied());
        process::run(&mut cargo)
    };
    type Check<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);
    let checks: [Check<'_>; 5] = [
        (
            "formatting",
            Box::new(|| {
                cargo(&["fmt", "--all", "--check"], &[])?;
                let apart = "agent-ebpf/Cargo.toml";
                if !context.root.join(apart).exists() {
                    return Ok(());
                }
                cargo(&["fmt", "--manifest-path", apart, "--check"], &[])
            }),
        ),
        ("house rules (tidy)", Box::new(|| tidy::check(context))),
        (
            "clippy",
            Box::new(|| {
                cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
            }),
        ),
        (
            // No test run has this feature, which needs an object of its own: it is kept compiling.
            "clippy, with the feature bpf-log",
            Box::new(|| {
                let what = ["clippy", "--package", "agent", "--lib", "--test", "bpf_log"];
                let how = ["--features", "bpf-log", "--", "-D", "warnings"];
                cargo(&[&what[..], &how[..]].concat(), &[])
            }),
        ),
        (
            "documentation (rustdoc)",
            Box::new(|| {
                cargo(&["doc", "--no-deps", "--workspace"], &[("RUSTDOCFLAGS", "-Dwarnings")])
            }),
        ),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(message) = context.step(name, check) {
            eprintln!("{message}");
            failed.push(name);
        }
    }
    failed
}
