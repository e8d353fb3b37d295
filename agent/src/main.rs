//! The binary `mote`: arguments and exit code.

fn main() {}
