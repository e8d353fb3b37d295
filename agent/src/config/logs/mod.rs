//! `[logs]`: what is common to all log readers; a file for each of its sections.

mod docker;
mod file;

use super::error::ConfigError;
use super::reader::Reader;
use super::{Agent, Logs, Wal, units};
use crate::model::Labels;

/// What every log reader gets.
pub(super) struct Common {
    /// The longest line, in bytes.
    pub(super) max_line: usize,
    /// The agent's labels and `instance`.
    agent: Labels,
}

impl Common {
    /// A section's own labels and, where it has no others, those that every stream has.
    pub(super) fn labels(&self, mut own: Labels) -> Labels {
        for (name, value) in self.agent.iter() {
            own.set_default(name, value);
        }
        own
    }
}

pub(super) fn logs(top: &Reader<'_>, agent: &Agent, wal: &Wal) -> Result<Logs, ConfigError> {
    let t = top.section("logs")?;
    let max_line = t.size(
        "max_line",
        64 << 10,
        1 << 10..=1 << 20,
        "a longer line is cut here; the rest of it is not kept, and counted",
    )?;
    let mut labels = agent.labels.clone();
    labels.set_default("instance", agent.instance.clone());
    let common = Common { max_line: max_line as usize, agent: labels };
    let files = file::files(&t, &common)?;
    let docker = docker::docker(&t, &common, false)?;
    let logs = Logs { files, docker };
    // A block is at most a line longer than it should be, and a record at most a quarter of its WAL.
    if logs.any() && max_line > wal.logs_max_bytes / 8 {
        return Err(ConfigError::new(
            t.place(),
            format!(
                "logs.max_line ({}) is more than an eighth of wal.logs.max_bytes ({})",
                units::show_size(max_line),
                units::show_size(wal.logs_max_bytes)
            ),
            "a line has to fit into a record of the WAL: shorten max_line or give the WAL more",
        ));
    }
    t.finish()?;
    Ok(logs)
}
