//! `mote run`.

use super::{Failure, logger, options};
use crate::{memory, pipeline};

const USAGE: &str = "\
Collects and ships until SIGTERM or SIGINT. SIGHUP reads the configuration again.

Usage: mote run [--config FILE] [--set KEY=VALUE]... [--once [--stdout]]

  -c, --config FILE   the configuration; else $MOTE_CONFIG, else /etc/mote/mote.toml if it is there,
                      else the built-in default: collectors, probes, a WAL on disk, no endpoint
      --set KEY=VALUE overrides a key of it, such as agent.interval=15s; may be given more than once
      --once          collect one round, deliver what the shutdown's time allows, and end
      --stdout        with --once: print the round in the Prometheus text format and write nothing else
";

pub(super) fn command(parser: lexopt::Parser) -> Result<(), Failure> {
    let (mut once, mut stdout) = (false, false);
    let source = options(parser, USAGE, |name| {
        once |= name == "once";
        stdout |= name == "stdout";
        matches!(name, "once" | "stdout")
    })?;
    let Some(source) = source else { return Ok(()) };
    if stdout && !once {
        return Err(Failure::Usage("--stdout goes with --once".into()));
    }
    memory::keep_little();
    let config = source.load()?;
    logger::start(config.agent.log_level);
    let result = if stdout {
        pipeline::once_to_stdout(&config)
    } else {
        pipeline::run(config, &source, once)
    };
    result.map_err(|error| Failure::Host(error.to_string()))
}
