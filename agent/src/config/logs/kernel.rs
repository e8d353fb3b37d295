//! `[logs.kernel]`: the kernel's log.

use super::Common;
use crate::config::error::ConfigError;
use crate::config::reader::Reader;
use crate::logs::journal;
use crate::logs::kernel::{Options, When};
use crate::logs::severity::LEVELS;

pub(super) fn kernel(
    t: &Reader<'_>,
    common: &Common,
    journal: Option<&journal::Options>,
) -> Result<Option<Options>, ConfigError> {
    let t = t.section("kernel")?;
    let when = t.choice(
        "when",
        "no-journal",
        &[("no-journal", When::NoJournal), ("always", When::Always)],
        "the section itself switches the kernel's log (/dev/kmsg) on; \"no-journal\": unless this host has a journal that the agent may read and `[logs.journal]` takes the kernel's messages from it (not where its `units` or `matches` leave them out), as is seen at each start and reload; \"always\"",
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
    let journal = journal.filter(|journal| journal.may_want_kernel());
    let journal = journal.map(|journal| journal.directories.clone());
    Ok(present.then_some(Options { when, journal, min_level, labels, max_line }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn a_journal_counts_only_if_it_lets_the_kernel_s_messages_through() {
        let counts = |journal: &str| {
            let text = format!("[logs.kernel]\n{journal}");
            let config = crate::config::parse(&text, Path::new("mote.toml"), &[]).unwrap();
            config.logs.kernel.unwrap().journal.is_some()
        };
        assert!(!counts(""));
        for all in [
            "",
            "matches = ['_TRANSPORT=kernel']",
            "matches = ['_SYSTEMD_UNIT=a.service', '+', '_TRANSPORT=kernel', 'PRIORITY=3']",
            "matches = ['PRIORITY=3']",
            "matches = ['_TRANSPORT=syslog', '_TRANSPORT=kernel']",
        ] {
            assert!(counts(&format!("[logs.journal]\n{all}")), "{all}");
        }
        for none in [
            "units = ['ssh']",
            "units = ['*']",
            "matches = ['_SYSTEMD_UNIT=ssh.service']",
            "matches = ['_TRANSPORT=kernel', '_SYSTEMD_UNIT=a.service', '+', '_TRANSPORT=syslog']",
        ] {
            assert!(!counts(&format!("[logs.journal]\n{none}")), "{none}");
        }
    }
}
