//! `mote version`.

use lexopt::prelude::*;

use super::{Failure, print};

pub(super) fn command(mut parser: lexopt::Parser) -> Result<(), Failure> {
    let mut json = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => json = true,
            Short('h') | Long("help") => {
                return print("Prints the version.\n\nUsage: mote version [--json]\n");
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let probes = crate::probe::has_object();
    let arch = std::env::consts::ARCH;
    if json {
        let value = serde_json::json!({ "version": version, "arch": arch, "probes": probes });
        return print(&format!("{value}\n"));
    }
    let probes = if probes { "with probes" } else { "without probes" };
    print(&format!("mote {version} ({arch}, {probes})\n"))
}
