//! `mote check`.

use super::{Failure, options, print};

const USAGE: &str = "\
Says whether a configuration is valid, what in it is unsafe, and which board its defaults are of. Exit code 2 and the place of the fault if it is not.

Usage: mote check [--config FILE] [--set KEY=VALUE]...
";

pub(super) fn command(parser: lexopt::Parser) -> Result<(), Failure> {
    let Some(source) = options(parser, USAGE, |_| false)? else { return Ok(()) };
    let config = source.load()?;
    for warning in config.warnings() {
        print(&format!("warning: {warning}\n"))?;
    }
    print(&format!("board: {}\n", config.board.describe()))?;
    match source.file() {
        Some(path) => print(&format!("{}: good\n", path.display())),
        None => print("there is no configuration file: the built-in default is good\n"),
    }
}
