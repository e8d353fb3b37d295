//! The collectors that are on, run one after the other: each is timed, and one that fails is counted,
//! logged when it begins to fail and when it recovers, and never stops another. One that rests between its
//! runs is asked in the first round of each of its intervals, so that all that rest as long run together.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CollectError, Collector, Entry, Options, TABLE};
use crate::host::Host;
use crate::model::{Desc, Samples, Sections};

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
    /// Samples of its last run.
    pub series: usize,
    /// Samples that the limit has refused since the start.
    pub refused: u64,
    /// How long it rests between two runs; zero: not at all.
    pub every: Duration,
    /// It was passed over in the newest round, for lack of memory.
    pub passed_over: bool,
}

/// The section of the table's first collector; the others' follow, so that a collector keeps its own
/// when others are switched on or off. See [`Samples::begin`].
const FIRST_SECTION: u16 = 1;
const _: () = assert!(TABLE.len() < 250, "others have their sections above, below FIRST_TARGET");

/// A collector whose last run took longer is passed over when memory is short, as are those that rest.
const SLOW: Duration = Duration::from_millis(10);

struct Member {
    name: &'static str,
    section: u16,
    collector: Box<dyn Collector>,
    duration: Duration,
    /// That of the run before.
    before: Duration,
    outcome: Outcome,
    /// Whether it ran in the present collection.
    ran: bool,
    every: Duration,
    /// Which of its intervals it has run in.
    interval: Option<i64>,
    /// The round of its last run was not kept.
    lost: bool,
    /// It was due in the newest round, and passed over.
    passed_over: bool,
    series: usize,
    refused: u64,
    /// What was not there, as `outcome` tells it: the path and the error's number.
    absent: Option<(Arc<Path>, Option<i32>)>,
}

/// The collectors that are on.
pub struct Set {
    members: Vec<Member>,
    /// The sections of those that are off: they begin in each round and have nothing, so that what a reload
    /// switches off is gone.
    off: Sections,
}

impl Set {
    /// Builds the collectors of [`TABLE`] that are on.
    pub fn new(enabled: impl Fn(&Entry) -> bool, options: &Options) -> Set {
        Set::from_table(TABLE, enabled, options)
    }

    fn from_table(table: &[Entry], enabled: impl Fn(&Entry) -> bool, options: &Options) -> Set {
        let mut set = Set { members: Vec::new(), off: Sections::default() };
        for (entry, section) in table.iter().zip(FIRST_SECTION..) {
            if !enabled(entry) {
                set.off.insert(section);
                continue;
            }
            set.members.push(Member {
                name: entry.name,
                section,
                collector: (entry.new)(options),
                duration: Duration::ZERO,
                before: Duration::ZERO,
                outcome: Outcome::Pending,
                ran: false,
                every: options.every(entry),
                interval: None,
                lost: false,
                passed_over: false,
                series: 0,
                refused: 0,
                absent: None,
            });
        }
        set
    }

    /// Runs every collector and writes its samples, then how long each took and whether it succeeded.
    pub fn collect(&mut self, host: &mut Host, out: &mut Samples) {
        self.collect_if(|_| true, host, out);
    }

    /// As [`collect`](Set::collect), but those that rest run only once in each of their intervals, which
    /// begin at the multiples of its length; `now_ms` is a time in milliseconds that may go back.
    /// Where memory is `short`, slow ones and those that rest are passed over, and stay due.
    pub fn collect_due(&mut self, now_ms: i64, short: bool, host: &mut Host, out: &mut Samples) {
        let due = |member: &mut Member| {
            member.passed_over = short && member.is_slow() && member.would_be_due(now_ms);
            if member.passed_over {
                member.collector.give_back();
            }
            !member.passed_over && member.is_due(now_ms)
        };
        self.collect_if(due, host, out);
    }

    fn collect_if(
        &mut self,
        due: impl Fn(&mut Member) -> bool,
        host: &mut Host,
        out: &mut Samples,
    ) {
        for member in &mut self.members {
            member.ran = due(member);
        }
        // How collectors fared is what tells that one of them was refused its samples.
        out.hold(2 * self.members.iter().filter(|member| member.ran).count());
        out.begin_all(self.off);
        for member in &mut self.members {
            if member.ran {
                out.begin(member.section);
                member.run(host, out);
            }
        }
        out.hold(0);
        let duration = |member: &Member| member.duration.as_secs_f64();
        let success = |member: &Member| f64::from(u8::from(member.outcome == Outcome::Good));
        self.write(&NODE_DURATION, duration, out);
        self.write(&NODE_SUCCESS, success, out);
    }

    /// Tells whether the newest round was kept. What rests and ran in one that was not runs again after the
    /// next one that is: no sooner, as what rests may be a disk.
    pub fn kept(&mut self, kept: bool) {
        for member in &mut self.members {
            if !kept {
                member.lost |= member.ran;
            } else if std::mem::take(&mut member.lost) && !member.ran {
                member.interval = None;
            }
        }
    }

    /// How each collector's last run went, in the order of [`TABLE`].
    pub fn status(&self) -> impl ExactSizeIterator<Item = Status<'_>> {
        self.members.iter().map(|member| Status {
            name: member.name,
            duration: member.duration,
            outcome: &member.outcome,
            series: member.series,
            refused: member.refused,
            every: member.every,
            passed_over: member.passed_over,
        })
    }

    fn write(&self, desc: &Desc, value: impl Fn(&Member) -> f64, out: &mut Samples) {
        for member in &self.members {
            if member.ran {
                out.begin(member.section);
                out.family(desc).add(&[("collector", member.name)], value(member));
            }
        }
    }
}

impl Member {
    /// Of two runs one may have been slow for reasons that are not its own.
    fn is_slow(&self) -> bool {
        !self.every.is_zero() || self.duration.min(self.before) > SLOW
    }

    fn interval_of(&self, now_ms: i64) -> Option<i64> {
        let every = i64::try_from(self.every.as_millis()).ok().filter(|every| *every > 0)?;
        Some(now_ms.div_euclid(every))
    }

    fn would_be_due(&self, now_ms: i64) -> bool {
        self.interval_of(now_ms).is_none_or(|interval| self.interval != Some(interval))
    }

    fn is_due(&mut self, now_ms: i64) -> bool {
        let is_due = self.would_be_due(now_ms);
        self.interval = self.interval_of(now_ms);
        is_due
    }

    fn run(&mut self, host: &mut Host, out: &mut Samples) {
        host.look_anew();
        let start = Instant::now();
        let (before, refused) = (out.len(), out.refused());
        let result = self.collector.collect(host, out);
        self.before = std::mem::replace(&mut self.duration, start.elapsed());
        self.series = out.len() - before;
        self.refused += out.refused() - refused;
        let failed = matches!(self.outcome, Outcome::Failed(_));
        if let Err(CollectError::NoData(error)) = &result {
            let same = |(path, number): &(Arc<Path>, Option<i32>)| {
                Arc::ptr_eq(path, &error.path) && *number == error.source.raw_os_error()
            };
            // The same as in the round before, and told already.
            if matches!(self.outcome, Outcome::NoData(_)) && self.absent.as_ref().is_some_and(same)
            {
                return;
            }
            self.absent = Some((Arc::clone(&error.path), error.source.raw_os_error()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    const DESC: Desc = Desc::gauge("runs", "");

    struct Counting(u32);

    impl Collector for Counting {
        fn collect(&mut self, _: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
            self.0 += 1;
            out.family(&DESC).add(&[("a", "1")], f64::from(self.0)).add(&[("a", "2")], 0.0);
            Ok(())
        }
    }

    struct Absent;

    impl Collector for Absent {
        fn collect(&mut self, host: &mut Host, _: &mut Samples) -> Result<(), CollectError> {
            host.proc("not/there")?;
            Ok(())
        }
    }

    fn counting(_: &Options) -> Box<dyn Collector> {
        Box::new(Counting(0))
    }

    static SOME: &[Entry] = &[
        Entry::on("each", counting),
        Entry::on("slow", counting).every(240),
        Entry::on("set", counting).every(240),
        Entry::off("absent", |_| Box::new(Absent)),
    ];

    fn set() -> Set {
        let intervals = vec![("set", Duration::from_secs(60))];
        Set::from_table(SOME, |_| true, &Options { intervals, ..Options::default() })
    }

    #[test]
    fn collectors_that_rest_run_once_in_each_interval_whatever_the_clock_does() {
        let (mut set, mut host) = (set(), Host::new(Roots::default()));
        let mut runs = Vec::new();
        for now_ms in [250_000, 265_000, 479_999, 480_000, 481_000, 100, 200] {
            let mut out = Samples::with_limit(100);
            set.collect_due(now_ms, false, &mut host, &mut out);
            runs.push(set.members.iter().map(|member| member.ran).collect::<Vec<_>>());
            let rows = out.iter().filter(|sample| sample.family == "runs").count();
            let asked = |section| usize::from(out.begun().contains(section)) * 2;
            assert_eq!(rows, asked(1) + asked(2) + asked(3), "at {now_ms}");
        }
        let ran = |member: usize| runs.iter().map(|runs| runs[member]).collect::<Vec<_>>();
        assert_eq!(ran(0), [true; 7]);
        assert_eq!(ran(1), [true, false, false, true, false, true, false]);
        assert_eq!(ran(2), [true, false, true, true, false, true, false]);
    }

    #[test]
    fn those_that_are_passed_over_for_lack_of_memory_stay_due() {
        let (mut set, mut host) = (set(), Host::new(Roots::default()));
        set.members[3].duration = SLOW * 2;
        set.members[3].before = SLOW * 2;
        set.members[0].duration = SLOW * 2;
        let mut ran = Vec::new();
        for (now_ms, short) in [(1, true), (2, true), (3, false), (4, true)] {
            set.collect_due(now_ms, short, &mut host, &mut Samples::with_limit(100));
            ran.push(set.members.iter().map(|member| member.ran).collect::<Vec<_>>());
            // The last time they are not due.
            let over = short && now_ms < 4;
            assert_eq!(
                set.status().map(|s| s.passed_over).collect::<Vec<_>>(),
                [false, over, over, over]
            );
        }
        let quick = [true, false, false, false];
        assert_eq!(ran, [quick, quick, [true; 4], [true, false, false, true]]);
    }

    #[test]
    fn those_that_ran_in_a_round_that_was_dropped_run_again_after_the_next_kept_one() {
        let mut host = Host::new(Roots::default());
        let mut set = Set::from_table(SOME, |entry| entry.name == "slow", &Options::default());
        let rounds =
            [(1, true), (240_000, false), (240_001, false), (240_002, true), (240_003, true)];
        let mut ran = Vec::new();
        for (now_ms, kept) in rounds.into_iter().chain([
            (240_004, true),
            (480_000, false),
            (720_000, true),
            (720_001, true),
        ]) {
            set.collect_due(now_ms, false, &mut host, &mut Samples::with_limit(100));
            set.kept(kept);
            ran.push(set.members[0].ran);
        }
        assert_eq!(ran, [true, true, false, false, true, false, true, true, false]);
    }

    #[test]
    fn those_that_are_off_begin_and_the_others_keep_their_sections() {
        let mut host = Host::new(Roots::default());
        let mut set = Set::from_table(SOME, |entry| entry.name == "slow", &Options::default());
        for (now_ms, asked) in [(1, [true, true, true, true]), (2, [true, false, true, true])] {
            let mut out = Samples::with_limit(100);
            set.collect_due(now_ms, false, &mut host, &mut out);
            assert_eq!([1, 2, 3, 4].map(|section| out.begun().contains(section)), asked);
            assert!(out.iter().all(|sample| sample.section == 2));
        }
    }

    #[test]
    fn what_the_limit_refuses_is_the_later_collectors() {
        let (mut set, mut host) = (set(), Host::new(Roots::default()));
        for round in 1..=2 {
            let mut out = Samples::with_limit(3 + 8);
            set.collect(&mut host, &mut out);
            let fared = out.iter().filter(|sample| sample.family.starts_with("node_scrape_"));
            assert_eq!(fared.count(), 8, "duration and success are not what is refused");
            let refused: Vec<_> = set.status().map(|status| status.refused).collect();
            assert_eq!(refused, [0, round, 2 * round, 0]);
            assert_eq!(set.status().map(|s| s.series).collect::<Vec<_>>(), [2, 1, 0, 0]);
        }
    }

    #[test]
    fn what_is_absent_is_told_once() {
        let (mut set, mut host) = (set(), Host::new(Roots::default()));
        let told = |set: &Set| match &set.members[3].outcome {
            Outcome::NoData(text) => text.as_ptr(),
            other => panic!("{other:?}"),
        };
        set.collect(&mut host, &mut Samples::with_limit(9));
        let first = told(&set);
        set.collect(&mut host, &mut Samples::with_limit(9));
        assert_eq!(told(&set), first);
    }
}
