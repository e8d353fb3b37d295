//! The collectors that are on, run one after the other: each is timed, and one that fails is counted,
//! logged when it begins to fail and when it recovers, and never stops another.

use std::time::{Duration, Instant};

use super::{CollectError, Collector, Entry, Options, TABLE};
use crate::host::Host;
use crate::model::{Desc, Samples};

const NODE_DURATION: Desc = Desc::gauge(
    "node_scrape_collector_duration_seconds",
    "node_exporter: Duration of a collector scrape.",
);
const NODE_SUCCESS: Desc =
    Desc::gauge("node_scrape_collector_success", "node_exporter: Whether a collector succeeded.");
/// How a collector's last run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It has not run yet.
    #[default]
    Pending,
    /// All samples were read.
    Good,
    /// This host has no such thing; the text says what was not there.
    NoData(String),
    /// It failed; samples that were read before the fault are kept. The text says why.
    Failed(String),
}

/// What the status page shows of a collector.
#[derive(Clone, Copy, Debug)]
pub struct Status<'a> {
    /// The collector's name.
    pub name: &'static str,
    /// How long its last run took.
    pub duration: Duration,
    /// How its last run went.
    pub outcome: &'a Outcome,
}

struct Member {
    name: &'static str,
    collector: Box<dyn Collector>,
    duration: Duration,
    outcome: Outcome,
    /// Whether it ran in the present collection.
    ran: bool,
}

/// The collectors that are on.
pub struct Set {
    members: Vec<Member>,
}

impl Set {
    /// Builds the collectors of [`TABLE`] that are on.
    pub fn new(enabled: impl Fn(&Entry) -> bool, options: &Options) -> Set {
        Set::from_table(TABLE, enabled, options)
    }

    fn from_table(table: &[Entry], enabled: impl Fn(&Entry) -> bool, options: &Options) -> Set {
        let members = table.iter().filter(|entry| enabled(entry)).map(|entry| Member {
            name: entry.name,
            collector: (entry.new)(options),
            duration: Duration::ZERO,
            outcome: Outcome::Pending,
            ran: false,
        });
        Set { members: members.collect() }
    }

    /// Runs every collector and writes its samples, then how long each took and whether it succeeded.
    pub fn collect(&mut self, host: &mut Host, out: &mut Samples) {
        self.collect_if(|_| true, host, out);
    }

    /// Runs the collectors that are due; the others write nothing.
    pub fn collect_if(&mut self, due: impl Fn(&str) -> bool, host: &mut Host, out: &mut Samples) {
        for member in &mut self.members {
            member.ran = due(member.name);
            if member.ran {
                member.run(host, out);
            }
        }
        let duration = |member: &Member| member.duration.as_secs_f64();
        let success = |member: &Member| f64::from(u8::from(member.outcome == Outcome::Good));
        self.write(&NODE_DURATION, duration, out);
        self.write(&NODE_SUCCESS, success, out);
    }

    /// How each collector's last run went, in the order of [`TABLE`].
    pub fn status(&self) -> impl ExactSizeIterator<Item = Status<'_>> {
        self.members.iter().map(|member| Status {
            name: member.name,
            duration: member.duration,
            outcome: &member.outcome,
        })
    }

    fn write(&self, desc: &Desc, value: impl Fn(&Member) -> f64, out: &mut Samples) {
        let mut family = out.family(desc);
        for member in self.members.iter().filter(|member| member.ran) {
            family.add(&[("collector", member.name)], value(member));
        }
    }
}

impl Member {
    fn run(&mut self, host: &mut Host, out: &mut Samples) {
        let start = Instant::now();
        let result = self.collector.collect(host, out);
        self.duration = start.elapsed();
        let failed = matches!(self.outcome, Outcome::Failed(_));
        self.outcome = match result {
            Ok(()) => Outcome::Good,
            Err(error @ CollectError::NoData(_)) => Outcome::NoData(error.to_string()),
            Err(error) => {
                if !failed {
                    log::warn!("collector {}: {error}", self.name);
                }
                Outcome::Failed(error.to_string())
            }
        };
        if failed && !matches!(self.outcome, Outcome::Failed(_)) {
            log::info!("collector {}: works again", self.name);
        }
    }
}
