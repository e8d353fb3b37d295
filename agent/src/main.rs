//! The binary `mote`: arguments and exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mote::memory::Counting = mote::memory::Counting;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == mote::probe::LOADER_ARGUMENT) {
        return mote::probe::loader_main(arguments.skip(1));
    }
    mote::cli::main(arguments)
}
