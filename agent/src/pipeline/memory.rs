//! What the tasks share of the memory's budget: looked at anew with each round, and told when it gets short.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{rows, set};
use crate::memory::{Budget, Outside, Pressure, Seen, let_go_of_code, live_bytes, trim};
use crate::status::{MemoryReport, PartReport};

/// After a burst of so many bytes freed memory is given back to the system.
const BURST: u64 = 1 << 20;

/// With this look the start is over: two rounds were made, and endpoints have been connected to.
const STARTED: u32 = 4;
/// How often what is seldom run is let go of: after the start soon again, since what runs once in the first minutes
/// (the second request, the first full block) has come back with its neighbours, and then each time twice as late.
const SOON: Duration = Duration::from_secs(30);
const SELDOM: Duration = Duration::from_secs(3_600);

/// The budget, and what the system has to say.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) budget: Rc<Budget>,
    outside: RefCell<Option<Outside>>,
    seen: Cell<Seen>,
    looked: Cell<Instant>,
    /// The highest that was told since there was enough.
    told: Cell<Pressure>,
    looks: Cell<u32>,
    /// When code is let go of next, and after how long again.
    let_go: Cell<(Instant, Duration)>,
}

/// What the system says is looked at again when somebody is about to grow and it is older than this.
const FRESH: Duration = Duration::from_secs(10);

impl Memory {
    /// So many live bytes, or what a cgroup leaves.
    pub(super) fn new(limit: u64) -> Rc<Memory> {
        let memory = Memory {
            budget: Rc::new(Budget::new(limit)),
            outside: RefCell::new(Outside::find()),
            seen: Cell::default(),
            looked: Cell::new(Instant::now()),
            told: Cell::default(),
            looks: Cell::default(),
            let_go: Cell::new((Instant::now(), SOON)),
        };
        memory.look();
        Rc::new(memory)
    }

    /// How short memory is, for whoever is about to grow.
    pub(super) fn pressure(&self) -> Pressure {
        if self.looked.get().elapsed() >= FRESH {
            self.look();
        }
        self.budget.pressure()
    }

    /// Gives back what is freed, and looks at the cgroups. With each round, and when somebody asks.
    pub(super) fn look(&self) {
        self.looked.set(Instant::now());
        // First: a cgroup counts what the allocator keeps as what is taken.
        if self.budget.burst() >= BURST || self.budget.pressure() >= Pressure::Caches {
            trim();
        }
        if let Some(outside) = &mut *self.outside.borrow_mut() {
            let seen = outside.look(live_bytes() as u64);
            self.budget.bound(seen.room, seen.pressure);
            self.seen.set(seen);
        }
        let looks = self.looks.get().saturating_add(1);
        self.looks.set(looks);
        let (now, (due, pause)) = (Instant::now(), self.let_go.get());
        if looks >= STARTED && now >= due {
            self.let_go.set((now + pause, (pause * 2).min(SELDOM)));
            let_go_of_code();
        }
        if looks == STARTED {
            trim();
        }
        self.tell(self.budget.pressure());
    }

    /// When memory is short for a round, and when it is not any more.
    fn tell(&self, pressure: Pressure) {
        let before = self.told.get();
        self.told.set(if pressure == Pressure::None { pressure } else { pressure.max(before) });
        let (live, limit) = (live_bytes() >> 10, self.budget.limit() >> 10);
        if pressure > before && pressure > Pressure::Caches {
            let by = match limit << 10 < self.budget.configured() {
                true => {
                    "what the cgroup's limit leaves (MemoryMax or MemoryHigh of the service, or a container's)"
                }
                false => "agent.memory_limit",
            };
            let waits = self.seen.get().waits.unwrap_or(0.0);
            let name = pressure.name();
            log::warn!(
                "memory is short: {live} KiB live of {limit} KiB by {by}, {waits} % of the time waiting for memory; giving \
                 back: {name}. `mote status` shows what holds it"
            );
        } else if pressure == Pressure::None && before > Pressure::Caches {
            log::info!("memory is no longer short: {live} KiB live of {limit} KiB");
        }
    }

    /// Adds what the budget knows.
    pub(super) fn report(&self, report: &mut MemoryReport) {
        let (budget, seen) = (&self.budget, self.seen.get());
        let pressure = budget.pressure();
        report.limit_bytes = budget.limit();
        report.configured_bytes = budget.configured();
        report.cgroup_bytes = seen.limit.map(|limit| [limit, seen.held]);
        report.waits = seen.waits;
        report.pressure.0 = pressure.steps();
        set(&mut report.pressure.1, pressure.name());
        rows(&mut report.steps, budget.begun(), |row, (step, count)| {
            set(&mut row.0, step.name());
            row.1 = count;
        });
        rows(&mut report.parts, budget.uses(), |row: &mut PartReport, one| {
            set(&mut row.name, one.part.name());
            row.live_bytes = one.live;
            row.reserved_bytes = one.part.takes_leases().then_some(one.reserved);
        });
    }
}
