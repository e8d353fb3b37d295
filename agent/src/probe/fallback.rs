//! What a probe uses where its programs can't run: the kernel's log, or counts and averages of /proc.

use aya::maps::MapError;

use super::oom::Kills;
use super::proc::{BlockStats, OomCount, ProcError, TcpStats};
use super::{Probe, Round, Source};

/// The next best source of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// None.
    None,
    /// What the kernel's log says.
    Kmsg,
    /// /proc/diskstats, and the log for errors.
    Diskstats,
    /// /proc/net/snmp.
    Snmp,
    /// The log, and /proc/vmstat for what it does not say.
    OomKill,
}

impl Fallback {
    /// The source and what reads it, beside the kernel's log; None where this host has it not.
    pub(super) fn start(self, has_log: bool) -> Option<(Source, Option<Box<dyn Probe>>)> {
        match self {
            Fallback::None => None,
            Fallback::Kmsg => has_log.then_some((Source::Kmsg, None)),
            Fallback::Diskstats => Some((Source::Proc, Some(Box::new(Diskstats::default())))),
            Fallback::Snmp => Some((Source::Proc, Some(Box::new(Snmp::default())))),
            Fallback::OomKill if has_log => Some((Source::Kmsg, None)),
            Fallback::OomKill => Some((Source::Proc, Some(Box::new(Vmstat::default())))),
        }
    }
}

/// Says once what is wrong with a file; what could be read of it is written.
#[derive(Default)]
struct Once(bool);

impl Once {
    fn say(&mut self, result: Result<(), ProcError>) {
        match result {
            Ok(()) => self.0 = false,
            Err(error) if !std::mem::replace(&mut self.0, true) => log::warn!("{error}"),
            Err(_) => {}
        }
    }
}

#[derive(Default)]
struct Diskstats {
    stats: BlockStats,
    once: Once,
}

impl Probe for Diskstats {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        let result = self.stats.collect(round.host, round.out);
        self.once.say(result);
        Ok(())
    }
}

#[derive(Default)]
struct Snmp {
    stats: TcpStats,
    once: Once,
}

impl Probe for Snmp {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        let result = self.stats.collect(round.host, round.out);
        self.once.say(result);
        Ok(())
    }
}

/// OOM kills without the kernel's log: how many, and not whom.
#[derive(Default)]
struct Vmstat {
    count: OomCount,
    kills: Kills,
    once: Once,
}

impl Probe for Vmstat {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        match self.count.look(round.host) {
            Ok(Some(kills)) => {
                if kills > 0 {
                    self.kills.add("unknown", kills);
                }
                self.kills.write(round.out);
            }
            Ok(None) => {}
            Err(error) => self.once.say(Err(error)),
        }
        Ok(())
    }
}
