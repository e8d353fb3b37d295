//! `mote check`.

use super::{Failure, options, print};

const USAGE: &str = "\
Says whether a configuration is valid, and what in it is unsafe. Exit code 2 and the place of the fault if it is not.

Usage: mote check [--config FILE] [--set KEY=VALUE]...
";

pub(super) fn command(parser: lexopt::Parser) -> Result<(), Failure> {
    let Some(source) = options(parser, USAGE, |_| false)? else { return Ok(()) };
    for warning in source.load()?.warnings() {
        print(&format!("warning: {warning}\n"))?;
    }
    match source.file() {
        Some(path) => print(&format!("{}: good\n", path.display())),
        None => print("there is no configuration file: the built-in default is good\n"),
    }
}
