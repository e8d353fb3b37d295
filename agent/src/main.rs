//! The binary `mote`: arguments and exit code.

use std::io::Write;
use std::process::ExitCode;

use mote::collector::{Options, Set};
use mote::encode::text::write_text;
use mote::host::{Host, Roots};
use mote::model::Samples;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments != ["run", "--once", "--stdout"] {
        return ExitCode::from(2);
    }
    let mut host = Host::new(Roots::default());
    let mut samples = Samples::with_limit(10_000);
    Set::new(|entry| entry.default, &Options::default()).collect(&mut host, &mut samples);
    let mut out = std::io::stdout().lock();
    match write_text(&samples, &mut out).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
