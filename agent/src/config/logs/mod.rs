//! `[logs]`: what is common to all log readers; a file for each of its sections.

mod docker;
mod extract;
mod file;
mod journal;
mod kernel;
mod stage;
mod syslog;

use std::cell::RefCell;
use std::path::PathBuf;

use super::error::ConfigError;
use super::reader::Reader;
use super::{Agent, Logs, Wal, units};
use crate::host::Roots;
use crate::logs::stage::{Lines, Options, Selector, Setup, Step};
use crate::model::Labels;

/// What every log reader gets.
pub(super) struct Common {
    /// The longest line, in bytes.
    pub(super) max_line: usize,
    /// Where the host's root is mounted, with its time zones.
    pub(super) root: PathBuf,
    /// The agent's labels and `instance`.
    agent: Labels,
    /// Stages that sections of sources ask for, before those of `[[logs.stage]]`.
    first_stages: RefCell<Vec<Options>>,
}

impl Common {
    /// A section's own labels and, where it has no others, those that every stream has.
    pub(super) fn labels(&self, mut own: Labels) -> Labels {
        for (name, value) in self.agent.iter() {
            own.set_default(name, value);
        }
        own
    }

    /// A section's labels, with one by which its own first stage knows its streams if it has one.
    fn multiline(&self, mut own: Labels, lines: Option<Lines>) -> Labels {
        if let Some(lines) = lines {
            let mut stages = self.first_stages.borrow_mut();
            own.set(SECTION, stages.len().to_string());
            let mut only = Labels::new();
            only.set(SECTION, stages.len().to_string());
            let selector = Selector::parse(&only.to_string()).unwrap_or_default();
            stages.push(Options { selector, step: Step::Multiline(lines) });
        }
        own
    }
}

/// The internal label of sections whose streams have a first stage of their own.
const SECTION: &str = "__file_section__";

pub(super) fn logs(
    top: &Reader<'_>,
    agent: &Agent,
    host: &Roots,
    wal: &Wal,
) -> Result<Logs, ConfigError> {
    let t = top.section("logs")?;
    let max_line = t.size(
        "max_line",
        64 << 10,
        1 << 10..=1 << 20,
        "a longer line is cut here; the rest of it is not kept, and counted",
    )?;
    let mut labels = agent.labels.clone();
    labels.set_default("instance", agent.instance.clone());
    let max_streams = t.integer(
        "max_streams",
        500,
        1..=10_000,
        "the most streams that are active within an hour; entries of further ones go to one stream with `job=\"mote/overflow\"`, their labels as structured metadata",
    )?;
    let common = Common {
        max_line: max_line as usize,
        agent: labels.clone(),
        root: host.root.clone(),
        first_stages: RefCell::default(),
    };
    let files = file::files(&t, &common)?;
    let journal = journal::journal(&t, &common)?;
    let kernel = kernel::kernel(&t, &common, journal.as_ref())?;
    let syslog = syslog::syslog(&t, &common)?;
    let docker = docker::docker(&t, &common, journal.is_some())?;
    let own = stage::stages(&t, &common)?;
    let mut stages = common.first_stages.into_inner();
    let first = stages.len();
    stages.extend(own);
    // What is held stands in records beside a block and a line.
    let max_held = max_line.max((wal.logs_max_bytes / 16).min(128 << 10)) as usize;
    let setup = Setup {
        stages,
        first,
        max_line: max_line as usize,
        max_held,
        max_streams: max_streams as usize,
        // Set by who knows the endpoints.
        limits: crate::logs::stage::StreamLimits::default(),
        common: labels,
    };
    let logs = Logs { files, docker, journal, kernel, syslog, stages: setup };
    // A block is at most a line longer than it should be and has at most a line that is held, and a record is at
    // most a quarter of its WAL.
    if logs.any() && max_line > wal.logs_max_bytes / 16 {
        return Err(ConfigError::new(
            t.place(),
            format!(
                "logs.max_line ({}) is more than a sixteenth of wal.logs.max_bytes ({})",
                units::show_size(max_line),
                units::show_size(wal.logs_max_bytes)
            ),
            "a line has to fit into a record of the WAL: shorten max_line or give the WAL more",
        ));
    }
    t.finish()?;
    Ok(logs)
}
