//! The budget: who may take how much, and how short memory is.

use std::cell::Cell;
use std::rc::Rc;

use super::counting::live_bytes;

/// Who holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What no other part is: the configuration, the runtime, the wiring.
    Other,
    /// The collectors and the samples of the newest round.
    Collectors,
    /// The probes' maps and events.
    Probes,
    /// The encoder of rounds and the metrics WAL.
    Rounds,
    /// Scraped targets.
    Scrapes,
    /// The log sources, the stages and the logs WAL.
    Logs,
    /// Senders of metrics.
    Metrics,
    /// Senders of log entries.
    Entries,
    /// The status page and the agent's own report.
    Status,
}

/// How many parts there are.
pub const PARTS: usize = 9;

const ALL: [Part; PARTS] = [
    Part::Other,
    Part::Collectors,
    Part::Probes,
    Part::Rounds,
    Part::Scrapes,
    Part::Logs,
    Part::Metrics,
    Part::Entries,
    Part::Status,
];

impl Part {
    /// Its name in metrics and on the status page.
    pub fn name(self) -> &'static str {
        match self {
            Part::Other => "other",
            Part::Collectors => "collectors",
            Part::Probes => "probes",
            Part::Rounds => "rounds",
            Part::Scrapes => "scrapes",
            Part::Logs => "logs",
            Part::Metrics => "metrics_senders",
            Part::Entries => "logs_senders",
            Part::Status => "status",
        }
    }

    /// Whether it grows by leases.
    pub fn takes_leases(self) -> bool {
        use Part::{Entries, Logs, Metrics, Rounds, Scrapes};
        matches!(self, Metrics | Entries | Logs | Scrapes | Rounds)
    }

    /// From which step on it is given nothing more. What live metrics need is never refused.
    fn is_refused_from(self) -> Option<Pressure> {
        match self {
            Part::Metrics | Part::Entries => Some(Pressure::Batches),
            Part::Logs => Some(Pressure::Logs),
            Part::Scrapes => Some(Pressure::Scrapes),
            Part::Other | Part::Collectors | Part::Probes | Part::Rounds | Part::Status => None,
        }
    }
}

/// How short memory is: which steps of giving back are in force. Each has those before it in force as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough.
    #[default]
    None,
    /// Caches are given back.
    Caches,
    /// Batches and requests are small.
    Batches,
    /// Log sources are read no further.
    Logs,
    /// Targets are not scraped.
    Scrapes,
    /// Slow collectors are passed over.
    Collectors,
}

const STEPS: [Pressure; 5] =
    [Pressure::Caches, Pressure::Batches, Pressure::Logs, Pressure::Scrapes, Pressure::Collectors];

/// By how many percent of the limit a step ends below where it began.
const SLACK: u64 = 5;

impl Pressure {
    /// Its name on the status page.
    pub fn name(self) -> &'static str {
        match self {
            Pressure::None => "none",
            Pressure::Caches => "caches",
            Pressure::Batches => "batches",
            Pressure::Logs => "logs",
            Pressure::Scrapes => "scrapes",
            Pressure::Collectors => "collectors",
        }
    }

    /// The number of steps in force, as `mote_memory_pressure` has it.
    pub fn steps(self) -> u8 {
        self as u8
    }

    /// From which share of the limit on it is in force, in percent.
    fn begins(self) -> u64 {
        match self {
            Pressure::None => 0,
            Pressure::Caches => 70,
            Pressure::Batches => 80,
            Pressure::Logs => 85,
            Pressure::Scrapes => 90,
            Pressure::Collectors => 95,
        }
    }

    /// The pressure of a share of the limit, if it was `before`.
    fn of(share: u64, before: Pressure) -> Pressure {
        let is_in_force = |step: &&Pressure| {
            let slack = if **step <= before { SLACK } else { 0 };
            share + slack >= step.begins()
        };
        STEPS.iter().rfind(is_in_force).copied().unwrap_or_default()
    }
}

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartUse {
    /// Which.
    pub part: Part,
    /// Live bytes that were allocated while it ran, less those that it has freed: what it frees for others, and
    /// others for it, makes it inexact, even below zero.
    pub live: i64,
    /// Bytes that it may take, or has taken, by leases.
    pub reserved: u64,
}

/// The memory of the process. There is one, and it lives on the runtime's thread.
#[derive(Debug)]
pub struct Budget {
    measure: fn() -> u64,
    /// What the user has set.
    limit: Cell<u64>,
    /// What the system leaves for live bytes, if that is less.
    cap: Cell<u64>,
    /// What the system's own measures of shortage have put in force.
    outside: Cell<Pressure>,
    inside: Cell<Pressure>,
    /// Both, as it was last asked for.
    last: Cell<Pressure>,
    /// How often each step began.
    begun: [Cell<u64>; STEPS.len()],
    live: [Cell<i64>; PARTS],
    reserved: [Cell<u64>; PARTS],
    /// What a part had live when the first of its leases was taken: what has come to it since is theirs.
    base: [Cell<i64>; PARTS],
    /// Who runs, and what was live when it began to.
    running: Cell<(Part, u64)>,
    /// The most live bytes that were seen since [`burst`](Budget::burst) was last asked.
    high: Cell<u64>,
}

impl Budget {
    /// A budget of so many live bytes.
    pub fn new(limit: u64) -> Budget {
        Budget::measuring(limit, || live_bytes() as u64)
    }

    /// As [`new`](Budget::new), with another count of live bytes.
    pub fn measuring(limit: u64, measure: fn() -> u64) -> Budget {
        let budget = Budget {
            measure,
            limit: Cell::new(limit),
            cap: Cell::new(u64::MAX),
            outside: Cell::default(),
            inside: Cell::default(),
            last: Cell::default(),
            begun: Default::default(),
            live: Default::default(),
            reserved: Default::default(),
            base: Default::default(),
            running: Cell::new((Part::Other, 0)),
            high: Cell::new(0),
        };
        // What is live already is nobody's in particular.
        budget.run(Part::Other);
        budget
    }

    /// The limit in force: the user's, or what the system leaves.
    pub fn limit(&self) -> u64 {
        self.limit.get().min(self.cap.get())
    }

    /// The user's limit.
    pub fn configured(&self) -> u64 {
        self.limit.get()
    }

    /// Sets the user's limit, as a reload does.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.set(bytes);
    }

    /// Takes over what was seen of the system: how many live bytes it leaves, and how short memory is by its own
    /// measure.
    pub fn bound(&self, live_bytes: Option<u64>, pressure: Pressure) {
        self.cap.set(live_bytes.unwrap_or(u64::MAX));
        self.outside.set(pressure);
    }

    /// Live bytes, and what leases still allow to be taken.
    fn promised(&self) -> u64 {
        self.settle();
        let open = |part: Part| {
            let at = part as usize;
            let taken = self.live[at].get().saturating_sub(self.base[at].get());
            self.reserved[at].get().saturating_sub(u64::try_from(taken).unwrap_or(0))
        };
        ALL.into_iter().fold((self.measure)(), |sum, part| sum.saturating_add(open(part)))
    }

    /// How short memory is at this moment. It costs a few instructions.
    pub fn pressure(&self) -> Pressure {
        let live = (self.measure)();
        self.high.set(self.high.get().max(live));
        let share = share(live, self.limit());
        let before = self.inside.get();
        let inside = Pressure::of(share, before);
        self.inside.set(inside);
        let now = inside.max(self.outside.get());
        let last = self.last.replace(now);
        for (step, begun) in STEPS.into_iter().zip(&self.begun) {
            if last < step && step <= now {
                begun.set(begun.get() + 1);
            }
        }
        now
    }

    /// How often each step has begun.
    pub fn begun(&self) -> impl Iterator<Item = (Pressure, u64)> + '_ {
        STEPS.into_iter().zip(self.begun.iter().map(Cell::get))
    }

    /// Room for a part to grow by so many bytes; none if it has to do with less. Asked before the memory is
    /// taken, and held for as long as it may be.
    pub fn take(self: &Rc<Budget>, part: Part, bytes: u64) -> Option<Lease> {
        self.has_room(part, bytes).then(|| self.reserve(part, bytes))
    }

    /// Room for so many bytes, or for the half, the quarter and so on down to `least`; none if there is not even
    /// that.
    pub fn take_some(self: &Rc<Budget>, part: Part, bytes: u64, least: u64) -> Option<Lease> {
        let mut bytes = bytes.max(least);
        loop {
            if let Some(lease) = self.take(part, bytes) {
                return Some(lease);
            }
            bytes = Some(bytes / 2).filter(|half| *half >= least)?;
        }
    }

    /// The same for what can't be done without: it is counted, and others get less.
    pub fn reserve(self: &Rc<Budget>, part: Part, bytes: u64) -> Lease {
        let mut lease = Lease { budget: Rc::clone(self), part, bytes: 0 };
        lease.add(bytes);
        lease
    }

    /// Begins the count of parts anew: what is live is nobody's in particular. For when all parts are made anew.
    pub fn count_anew(&self) {
        self.settle();
        self.live.iter().for_each(|live| live.set(0));
        let live = i64::try_from((self.measure)()).unwrap_or(i64::MAX);
        self.live[Part::Other as usize].set(live);
    }

    fn has_room(&self, part: Part, bytes: u64) -> bool {
        let Some(refused) = part.is_refused_from() else { return true };
        let after = share(self.promised().saturating_add(bytes), self.limit());
        after < refused.begins() && self.pressure() < refused
    }

    /// What each part holds.
    pub fn uses(&self) -> impl Iterator<Item = PartUse> + '_ {
        self.settle();
        let of = |part: Part| PartUse {
            part,
            live: self.live[part as usize].get(),
            reserved: self.reserved[part as usize].get(),
        };
        ALL.into_iter().map(of)
    }

    /// From now until the scope ends, what is allocated and freed is this part's.
    pub fn scope(&self, part: Part) -> Scope<'_> {
        Scope { budget: self, before: self.run(part) }
    }

    fn run(&self, part: Part) -> Part {
        self.settle();
        let (before, mark) = self.running.get();
        self.running.set((part, mark));
        before
    }

    /// Counts what was allocated since the last time to whoever ran.
    fn settle(&self) {
        let (running, mark) = self.running.get();
        let now = (self.measure)();
        let grown =
            i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(mark).unwrap_or(i64::MAX);
        let live = &self.live[running as usize];
        live.set(live.get().saturating_add(grown));
        self.running.set((running, now));
        self.high.set(self.high.get().max(now));
    }

    /// How many bytes more were live than are now, at some moment since this was last asked.
    pub fn burst(&self) -> u64 {
        self.settle();
        let now = (self.measure)();
        self.high.replace(now).saturating_sub(now)
    }
}

/// In percent.
fn share(bytes: u64, limit: u64) -> u64 {
    bytes.saturating_mul(100) / limit.max(1)
}

/// See [`Budget::scope`].
#[derive(Debug)]
pub struct Scope<'a> {
    budget: &'a Budget,
    before: Part,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.budget.run(self.before);
    }
}

/// Room that a part holds in the budget, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Rc<Budget>,
    part: Part,
    bytes: u64,
}

impl Lease {
    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Room for so much more. False: there is none, and nothing has changed.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let has_room = self.budget.has_room(self.part, bytes);
        if has_room {
            self.add(bytes);
        }
        has_room
    }

    /// Gives so much back.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let reserved = &self.budget.reserved[self.part as usize];
        reserved.set(reserved.get().saturating_sub(bytes));
    }

    /// Gives back what is beyond so much.
    pub fn keep(&mut self, bytes: u64) {
        self.shrink(self.bytes.saturating_sub(bytes));
    }

    fn add(&mut self, bytes: u64) {
        let at = self.part as usize;
        let reserved = &self.budget.reserved[at];
        if reserved.get() == 0 {
            self.budget.settle();
            self.budget.base[at].set(self.budget.live[at].get());
        }
        let bytes = bytes.min(u64::MAX - reserved.get());
        reserved.set(reserved.get() + bytes);
        self.bytes += bytes;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local!(static LIVE: Cell<u64> = const { Cell::new(0) });

    fn budget(limit: u64) -> Rc<Budget> {
        LIVE.set(0);
        Rc::new(Budget::measuring(limit, || LIVE.get()))
    }

    fn uses(budget: &Budget, part: Part) -> (i64, u64) {
        budget.uses().find(|one| one.part == part).map(|one| (one.live, one.reserved)).unwrap()
    }

    #[test]
    fn steps_begin_in_their_order_and_end_a_little_lower() {
        let budget = budget(1_000);
        let mut at = |live: u64| {
            LIVE.set(live);
            budget.pressure()
        };
        use Pressure::{Batches, Caches, Collectors, Logs, None, Scrapes};
        assert_eq!([699, 700, 799, 800].map(&mut at), [None, Caches, Caches, Batches]);
        assert_eq!([850, 900, 949, 950].map(&mut at), [Logs, Scrapes, Scrapes, Collectors]);
        assert_eq!(
            [940, 900, 899, 850, 849].map(&mut at),
            [Collectors, Collectors, Scrapes, Scrapes, Logs]
        );
        assert_eq!(
            [800, 799, 750, 749, 650, 649].map(&mut at),
            [Logs, Batches, Batches, Caches, Caches, None]
        );
        // At once from none to all, and back.
        assert_eq!([u64::MAX, 0].map(&mut at), [Collectors, None]);
        assert_eq!(budget.begun().map(|(_, count)| count).collect::<Vec<_>>(), [2; 5]);
    }

    #[test]
    fn a_step_that_goes_on_has_not_begun_again() {
        let budget = budget(1_000);
        for live in [860, 810, 860, 700] {
            LIVE.set(live);
            budget.pressure();
        }
        let begun: Vec<_> = budget.begun().map(|(_, count)| count).collect();
        assert_eq!(begun, [1, 1, 1, 0, 0], "860 to 810 is within the slack");
    }

    #[test]
    fn a_lease_is_refused_where_its_parts_step_would_begin() {
        let budget = budget(1_000);
        LIVE.set(500);
        assert!(budget.take(Part::Metrics, 300).is_none());
        let batch = budget.take(Part::Metrics, 299).unwrap();
        // What is promised and not yet taken is nobody else's.
        assert!(budget.take(Part::Logs, 51).is_none());
        let line = budget.take(Part::Logs, 50).unwrap();
        assert!(budget.take(Part::Scrapes, 51).is_none());
        assert_eq!(uses(&budget, Part::Metrics), (0, 299));
        // Taken memory counts once.
        {
            let _scope = budget.scope(Part::Metrics);
            LIVE.set(799);
        }
        assert_eq!(uses(&budget, Part::Metrics), (299, 299));
        assert!(budget.take(Part::Scrapes, 51).is_none());
        assert!(budget.take(Part::Scrapes, 50).is_some());
        // Live metrics are refused nothing.
        assert!(
            budget.take(Part::Rounds, 10_000).is_some()
                && budget.take(Part::Collectors, 10_000).is_some()
        );
        drop((batch, line));
        assert_eq!((uses(&budget, Part::Metrics).1, uses(&budget, Part::Logs).1), (0, 0));
    }

    #[test]
    fn a_lease_grows_and_shrinks() {
        let budget = budget(1_000);
        let mut lease = budget.take(Part::Scrapes, 100).unwrap();
        assert!(lease.grow(700) && !lease.grow(100));
        assert_eq!((lease.bytes(), uses(&budget, Part::Scrapes).1), (800, 800));
        lease.shrink(750);
        assert!(lease.grow(100));
        lease.shrink(u64::MAX);
        assert_eq!((lease.bytes(), uses(&budget, Part::Scrapes).1), (0, 0));
        let all = budget.reserve(Part::Rounds, u64::MAX);
        let more = budget.reserve(Part::Rounds, 5);
        assert_eq!((all.bytes(), more.bytes()), (u64::MAX, 0));
        drop(all);
        assert_eq!(uses(&budget, Part::Rounds).1, 0);
    }

    #[test]
    fn a_lease_may_be_a_part_of_what_is_wanted_and_what_a_part_had_before_is_not_of_it() {
        let budget = budget(1_000);
        {
            let _scope = budget.scope(Part::Metrics);
            LIVE.set(500);
        }
        let mut lease = budget.take_some(Part::Metrics, 1_000, 100).unwrap();
        assert_eq!(lease.bytes(), 250);
        assert!(budget.take_some(Part::Entries, 1_000, 100).is_none(), "49 are left");
        lease.keep(100);
        lease.keep(9_999);
        assert_eq!(lease.bytes(), 100);
        assert_eq!(budget.take_some(Part::Entries, 1_000, 100).map(|one| one.bytes()), Some(125));
        assert_eq!(budget.take_some(Part::Entries, 7, 100).map(|one| one.bytes()), Some(100));
        budget.count_anew();
        assert_eq!((uses(&budget, Part::Metrics).0, uses(&budget, Part::Other).0), (0, 500));
    }

    #[test]
    fn scopes_in_scopes_count_to_the_innermost() {
        let budget = budget(1_000);
        {
            let _rounds = budget.scope(Part::Rounds);
            LIVE.set(10);
            {
                let _collectors = budget.scope(Part::Collectors);
                LIVE.set(110);
            }
            LIVE.set(105);
        }
        LIVE.set(106);
        assert_eq!(uses(&budget, Part::Collectors).0, 100);
        assert_eq!(uses(&budget, Part::Rounds).0, 5);
        assert_eq!(uses(&budget, Part::Other).0, 1);
        assert_eq!(budget.uses().map(|one| one.live).sum::<i64>(), 106);
    }

    #[test]
    fn a_burst_is_told_once() {
        let budget = budget(1_000);
        for live in [300, 900, 200] {
            LIVE.set(live);
            budget.pressure();
        }
        assert_eq!((budget.burst(), budget.burst()), (700, 0));
    }

    #[test]
    fn the_system_lowers_the_limit_and_puts_steps_in_force() {
        let budget = budget(1_000);
        LIVE.set(500);
        assert_eq!((budget.limit(), budget.pressure()), (1_000, Pressure::None));
        budget.bound(Some(600), Pressure::None);
        assert_eq!((budget.limit(), budget.pressure()), (600, Pressure::Batches));
        budget.bound(None, Pressure::Logs);
        assert_eq!((budget.limit(), budget.pressure()), (1_000, Pressure::Logs));
        assert!(budget.take(Part::Logs, 1).is_none());
        budget.bound(Some(u64::MAX), Pressure::None);
        assert_eq!((budget.limit(), budget.pressure()), (1_000, Pressure::None));
        budget.set_limit(0);
        assert_eq!(budget.pressure(), Pressure::Collectors);
    }
}
