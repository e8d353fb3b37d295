//! The command line: one file a command. Exit codes: 0 good, 1 something is wrong on this host, 2 bad
//! usage or configuration.

mod boards;
mod check;
mod logger;
mod run;
mod status;
mod version;
mod wal;

use std::ffi::OsString;
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::config::{ConfigError, Source};

const USAGE: &str = "\
Mote collects what this host does and ships it to your own Mimir and Loki.

Usage: mote COMMAND [OPTIONS]

Commands:
  run       collect and ship until SIGTERM; SIGHUP reads the configuration again
  check     say whether a configuration is valid
  status    say what a running agent is doing
  wal       look into a WAL directory, also of a stopped agent: ls, show, verify
  boards    the hardware profiles, and which one this host matches: show, unit
  version   print the version

`mote COMMAND --help` says more.
";

/// What a command ended with.
enum Failure {
    /// Bad usage or configuration: exit code 2.
    Usage(String),
    /// Something is wrong on this host: exit code 1.
    Host(String),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::Usage(format!("{error}; mote --help lists what there is"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// Runs the command line `arguments`, without the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match command(lexopt::Parser::from_args(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("mote: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Host(message)) => {
            eprintln!("mote: {message}");
            ExitCode::from(1)
        }
    }
}

fn command(mut parser: lexopt::Parser) -> Result<(), Failure> {
    match parser.next()? {
        None => Err(Failure::Usage(format!("no command\n\n{USAGE}"))),
        Some(Short('h') | Long("help")) => print(USAGE),
        Some(Short('V') | Long("version")) => version::command(parser),
        Some(Value(name)) => match name.to_str() {
            Some("run") => run::command(parser),
            Some("check") => check::command(parser),
            Some("status") => status::command(parser),
            Some("wal") => wal::command(parser),
            Some("boards") => boards::command(parser),
            Some("version") => version::command(parser),
            Some("help") => print(USAGE),
            _ => Err(Failure::Usage(format!(
                "there is no command {:?}\n\n{USAGE}",
                name.to_string_lossy()
            ))),
        },
        Some(other) => Err(other.unexpected().into()),
    }
}

/// Prints to standard output; a closed pipe is no error.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

/// Reads the options that `run`, `check` and `status` share; `other` takes the rest and says whether it
/// knew them. None if `--help` was asked for and `usage` was printed.
fn options(
    mut parser: lexopt::Parser,
    usage: &str,
    mut other: impl FnMut(&str) -> bool,
) -> Result<Option<Source>, Failure> {
    let mut source = Source::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                print(usage)?;
                return Ok(None);
            }
            Short('c') | Long("config") => source.path = Some(parser.value()?.into()),
            Long("set") => source.sets.push(parser.value()?.string()?),
            Long(name) if other(name) => {}
            argument => return Err(argument.unexpected().into()),
        }
    }
    Ok(Some(source))
}
