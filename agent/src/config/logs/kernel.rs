//! `[logs.kernel]`: the kernel's log.

use super::Common;
use crate::config::error::ConfigError;
use crate::config::reader::Reader;
use crate::logs::kernel::{Options, When};
use crate::logs::severity::LEVELS;

pub(super) fn kernel(
    t: &Reader<'_>,
    common: &Common,
    journal_is_read: bool,
) -> Result<Option<Options>, ConfigError> {
    let t = t.section("kernel")?;
    let when = t.choice(
        "when",
        "no-journal",
        &[("no-journal", When::NoJournal), ("always", When::Always)],
        "the section itself switches the kernel's log (/dev/kmsg) on; \"no-journal\": unless this host has a journal and `[logs.journal]` reads it, which has the kernel's messages too, as is seen at each start and reload; \"always\"",
    )?;
    let levels: Vec<(&str, u8)> = LEVELS.into_iter().zip(0..).collect();
    let min_level = t.choice(
        "min_level",
        "debug",
        &levels,
        "the least important level that is taken: \"emerg\", \"alert\", \"crit\", \"error\", \"warning\", \"notice\", \"info\" or \"debug\"",
    )?;
    let own = t.labels(
        "labels",
        "labels of these streams, beside `transport`, `level`, `syslog_identifier`, `instance` and those of `[agent]`",
    )?;
    let present = t.is_present();
    t.finish()?;
    let (labels, max_line) = (common.labels(own), common.max_line);
    Ok(present.then_some(Options { when, journal_is_read, min_level, labels, max_line }))
}
