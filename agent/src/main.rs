//! The binary `mote`: arguments and exit code.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == mote::probe::LOADER_ARGUMENT) {
        return mote::probe::loader_main(arguments);
    }
    ExitCode::SUCCESS
}
