//! `mote status`.

use super::{Failure, options, print};
use crate::status::{fetch, render};

const USAGE: &str = "\
Says what a running agent is doing: collectors, probes, WALs, endpoints, memory.

Usage: mote status [--json] [--config FILE] [--set KEY=VALUE]...

The agent is asked at the http.listen of the configuration.
";

pub(super) fn command(parser: lexopt::Parser) -> Result<(), Failure> {
    let mut json = false;
    let source = options(parser, USAGE, |name| {
        json |= name == "json";
        name == "json"
    })?;
    let Some(source) = source else { return Ok(()) };
    let Some(address) = source.load()?.http else {
        return Err(Failure::Host(
            "http.listen is empty: this agent has no status page to ask".into(),
        ));
    };
    let report = fetch(address).map_err(|error| Failure::Host(error.to_string()))?;
    if json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::Host(error.to_string()))?;
        print(&format!("{text}\n"))
    } else {
        print(&render(&report))
    }
}
