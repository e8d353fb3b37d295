//! The project's own commands, one module each: `cargo xtask help` lists them. It must not know how
//! the agent works inside: it builds it, starts it, and looks at it from outside like any user.

mod apt;
mod build;
mod context;
mod demo;
mod dist;
mod ebpf;
mod exposition;
mod footprint;
mod fuzz;
mod http;
mod kernel;
mod page;
mod parity;
mod process;
mod procfs;
mod run;
mod setup;
mod size;
mod soak;
mod static_build;
mod temp;
mod test;
mod tidy;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use context::Context;
use lexopt::ValueExt as _;

/// What the commands return: plain sentences that say what was attempted and what to do.
type Result<T> = std::result::Result<T, String>;

const HELP: &str = "\
Mote's own commands. The first two are all that is needed to try it and to change it.

    cargo xtask run [-- ARGS]      build the agent and start it; ARGS go to `mote run`
    cargo xtask test [FILTER]      every check and every test; with FILTER only the tests that match
                                   (all arguments go to `cargo test --workspace`)
    cargo xtask demo [--once]      the agent beside a real Prometheus, until Ctrl-C; with --once only
                                   until a query for the host's CPU has an answer

    cargo xtask setup [run|test]   install what the two commands need (they do it themselves)
    cargo xtask build-ebpf [--debug]
                                   build the BPF object; the next build of the agent embeds it; with
                                   --debug also the one of the agent's feature `bpf-log`, whose programs
                                   say what they see
    cargo xtask footprint [--seconds N] [--update]
                                   what the agent costs beside its peers, all doing the same work at
                                   once: node_exporter with Prometheus' agent mode and with vmagent,
                                   rsyslog; --update takes longer and writes the table into README.md
    cargo xtask parity FILE [-- ARGS]
                                   what a node_exporter's page (- is standard input) and this agent, with
                                   the same collectors on this machine, don't have in common: families,
                                   series, gauges; fails if it is series. ARGS go to `mote run`
    cargo xtask fuzz [TARGET] [--seconds N]
                                   look for input that breaks a parser, in every target or in one;
                                   needs a nightly compiler and cargo-fuzz
    cargo xtask soak [--minutes N] [--seed S]
                                   random faults, kills and full WALs at 100 times the normal speed, with
                                   exact accounts at the end
    cargo xtask kernel-test [--quick] [--only NAME]... [--list]
                [--allow-absent [--rehearse]] [--release] [--update]
                                   boot Debian's kernels in virtual machines, cause what the probes
                                   watch, and compare; --quick takes the two that fit CI, --only those
                                   of these names; --allow-absent lets pass what this agent does not
                                   know, and --rehearse causes it all the same; --release tests the
                                   binary as users get it, --update writes the table into README.md
    cargo xtask dist [--target TRIPLE]... [--test] [--debug]
                                   static binaries as users get them, checked, into target/dist; without
                                   --target for this machine; --test runs them, emulated if need be;
                                   --debug makes no release but quickly one with debug assertions
    cargo xtask size [--target TRIPLE]...
                                   what a static binary is made of: sections, crates, the whole beside
                                   its target
    cargo xtask tidy               check the house rules
    cargo xtask help               this text

Environment:
    MOTE_PROMETHEUS, MOTE_NODE_EXPORTER, MOTE_VMAGENT
                                          the binaries to use instead of those that are found
    MOTE_BINARY                           an agent to start instead of building one
    MOTE_STATIC_WITH                      cross or zig: what builds static binaries
";

fn main() -> ExitCode {
    // `build-ebpf` lets rustc start this very program as its linker.
    if let Some(code) = ebpf::linker() {
        return code;
    }
    match dispatch(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}\n\n{HELP}");
            ExitCode::from(2)
        }
        Err(Failure::Command(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Why nothing, or not everything, was done.
enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// The command did not succeed.
    Command(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::Command(message)
    }
}

fn dispatch(mut args: Vec<OsString>) -> std::result::Result<ExitCode, Failure> {
    let command = if args.is_empty() { OsString::from("help") } else { args.remove(0) };
    let Some(command) = command.to_str() else {
        return Err(Failure::Usage(format!("there is no command {}", command.display())));
    };
    let before_dashes = args.iter().take_while(|arg| *arg != "--");
    if matches!(command, "help" | "--help" | "-h")
        || before_dashes.into_iter().any(|arg| arg == "--help" || arg == "-h")
    {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    match command {
        "run" => Ok(run::run(&Context::new()?, args)?),
        "test" => Ok(test::test(&Context::new()?, &args)?),
        "demo" => {
            let once = flags(command, args, |_, _| Ok(false))?.contains(&"once".to_owned());
            Ok(demo::demo(&Context::new()?, once)?)
        }
        "setup" => {
            let purpose = match args.first().and_then(|arg| arg.to_str()) {
                None if args.is_empty() => setup::Purpose::Test,
                Some("test") if args.len() == 1 => setup::Purpose::Test,
                Some("run") if args.len() == 1 => setup::Purpose::Run,
                _ => return Err(Failure::Usage("setup takes `run` or `test`".to_owned())),
            };
            setup::setup(&Context::new()?, purpose)?;
            Ok(ExitCode::SUCCESS)
        }
        "build-ebpf" => {
            let debug = flags(command, args, |_, _| Ok(false))?.contains(&"debug".to_owned());
            let context = Context::new()?;
            let build = || ebpf::build(&context.root, debug);
            let object = context.step("building the BPF object", build)?;
            println!("{}", object.display());
            Ok(ExitCode::SUCCESS)
        }
        "footprint" => {
            let mut seconds = None;
            let given = flags(command, args, |name, parser| {
                if name != "seconds" {
                    return Ok(false);
                }
                seconds = parser.value()?.parse_with(|text| match text.parse() {
                    Ok(number) if number >= footprint::MINIMUM_SECONDS => Ok(Some(number)),
                    _ => Err(format!("a number of at least {}", footprint::MINIMUM_SECONDS)),
                })?;
                Ok(true)
            })?;
            let update = given.contains(&"update".to_owned());
            Ok(footprint::footprint(&Context::new()?, seconds, update)?)
        }
        "fuzz" => {
            let target = match args.first().and_then(|arg| arg.to_str()) {
                Some(name) if !name.starts_with('-') => Some(name.to_owned()),
                _ => None,
            };
            args.drain(..usize::from(target.is_some()));
            let mut seconds = fuzz::DEFAULT_SECONDS;
            flags(command, args, |name, parser| {
                if name != "seconds" {
                    return Ok(false);
                }
                seconds = parser.value()?.parse_with(|text| match text.parse() {
                    Ok(number) if number > 0 => Ok(number),
                    _ => Err("a number of at least 1"),
                })?;
                Ok(true)
            })?;
            Ok(fuzz::fuzz(&Context::new()?, target.as_deref(), seconds)?)
        }
        "soak" => {
            let (mut minutes, mut seed) = (soak::DEFAULT_MINUTES, None);
            flags(command, args, |name, parser| {
                match name {
                    "minutes" => {
                        minutes = parser.value()?.parse_with(|text| match text.parse() {
                            Ok(number) if number > 0 => Ok(number),
                            _ => Err("a number of at least 1"),
                        })?;
                    }
                    "seed" => seed = Some(parser.value()?.parse()?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(soak::soak(&Context::new()?, minutes, seed)?)
        }
        "parity" => {
            let file = args.first().filter(|file| *file == "-" || !is_option(file)).cloned();
            let file = file.ok_or_else(|| {
                Failure::Usage("parity takes the file with a node_exporter's page".to_owned())
            })?;
            let more = match args.get(1) {
                None => &[],
                Some(dashes) if dashes == "--" => args.get(2..).unwrap_or_default(),
                Some(_) => {
                    let message = "parity: what goes to `mote run` stands behind `--`";
                    return Err(Failure::Usage(message.to_owned()));
                }
            };
            Ok(parity::parity(&Context::new()?, &file, more)?)
        }
        "kernel-test" => {
            let mut options = kernel::Options::default();
            let given = flags(command, args, |name, parser| {
                if name != "only" {
                    return Ok(false);
                }
                // More than one name may follow.
                let names = parser.values()?;
                for name in names {
                    options.only.push(name.string()?);
                }
                Ok(true)
            })?;
            let has = |name: &str| given.iter().any(|given| given == name);
            options.list = has("list");
            options.quick = has("quick");
            options.allow_absent = has("allow-absent");
            options.rehearse = has("rehearse");
            options.release = has("release");
            options.update = has("update");
            Ok(kernel::kernel_test(&Context::new()?, &options)?)
        }
        "dist" | "size" => {
            let mut targets = Vec::new();
            let given = flags(command, args, |name, parser| {
                if name != "target" {
                    return Ok(false);
                }
                targets.push(parser.value()?.parse_with(static_build::Target::of)?);
                Ok(true)
            })?;
            if command == "size" {
                return Ok(size::size(&Context::new()?, &targets)?);
            }
            let has = |name: &str| given.iter().any(|given| given == name);
            let options = dist::Options { targets, test: has("test"), debug: has("debug") };
            Ok(dist::dist(&Context::new()?, &options)?)
        }
        "tidy" => {
            flags(command, args, |_, _| Ok(false))?;
            Ok(tidy::tidy(&Context::new()?)?)
        }
        other => Err(Failure::Usage(format!("there is no command `{other}`"))),
    }
}

fn is_option(arg: &OsStr) -> bool {
    arg.as_encoded_bytes().starts_with(b"-")
}

/// The names of the flags that were given. `option` takes those that have a value. What each command
/// accepts stands in one place.
fn flags(
    command: &str,
    args: Vec<OsString>,
    mut option: impl FnMut(&str, &mut lexopt::Parser) -> std::result::Result<bool, lexopt::Error>,
) -> std::result::Result<Vec<String>, Failure> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut given = Vec::new();
    let usage = |error: lexopt::Error| Failure::Usage(format!("{command}: {error}"));
    while let Some(arg) = parser.next().map_err(usage)? {
        let lexopt::Arg::Long(name) = arg else { return Err(usage(arg.unexpected())) };
        let name = name.to_owned();
        match (command, name.as_str()) {
            ("demo", "once")
            | ("footprint", "update")
            | ("build-ebpf", "debug")
            | ("dist", "test" | "debug") => given.push(name),
            (
                "kernel-test",
                "list" | "quick" | "allow-absent" | "rehearse" | "release" | "update",
            ) => {
                given.push(name);
            }
            _ if option(&name, &mut parser).map_err(usage)? => {}
            _ => return Err(usage(lexopt::Arg::Long(&name).unexpected())),
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(args: &[&str]) -> String {
        match dispatch(args.iter().map(OsString::from).collect()) {
            Err(Failure::Usage(message)) => message,
            Err(Failure::Command(message)) => panic!("not a usage error: {message}"),
            Ok(_) => panic!("{args:?} was accepted"),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_starts() {
        assert!(usage(&["dmeo"]).contains("`dmeo`"));
        assert!(usage(&["demo", "--update"]).contains("--update"));
        assert!(usage(&["build-ebpf", "--once"]).contains("--once"));
        assert!(usage(&["footprint", "--seconds", "1"]).contains("at least"));
        assert!(usage(&["footprint", "--seconds"]).contains("--seconds"));
        assert!(usage(&["fuzz", "url", "--seconds", "0"]).contains("at least"));
        assert!(usage(&["fuzz", "url", "wal"]).contains("wal"));
        assert!(usage(&["setup", "everything"]).contains("`test`"));
        assert!(usage(&["kernel-test", "--only"]).contains("--only"));
        assert!(usage(&["kernel-test", "--once"]).contains("--once"));
        assert!(usage(&["parity"]).contains("page"));
        assert!(usage(&["parity", "--page"]).contains("page"));
        assert!(usage(&["parity", "page", "--set"]).contains("`--`"));
        assert!(usage(&["dist", "--target", "vax"]).contains("\"vax\""));
        assert!(usage(&["dist", "--target"]).contains("--target"));
        assert!(usage(&["size", "--test"]).contains("--test"));
        assert!(usage(&["tidy", "now"]).contains("now"));
    }
}
