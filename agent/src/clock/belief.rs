//! Whether the wall clock is believed, and its steps, look by look. The rules are the [module](super)'s.

use std::fmt;

use super::Stamp;
use crate::host::BootId;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// No version of this agent is older: 2026-11-01, in milliseconds since the Unix epoch.
const RELEASED_MS: i64 = 1_793_491_200_000;

/// A change that is smaller is no step: readings of two clocks are not of the same moment.
const STEP_MS: i64 = 500;

/// How fast the kernel makes an error smaller without a step: 500 parts per million (kernel/time/ntp.c).
const SLEW_PPM: i64 = 500;

/// What was seen of the clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// Milliseconds since the boot.
    pub boot_ms: i64,
    /// Somebody vouches for the wall clock.
    pub vouched: bool,
    /// By how much the kernel's tick is longer or shorter than nominal.
    pub tick_ppm: i64,
}

impl Look {
    fn offset_ms(&self) -> i64 {
        self.wall_ms.saturating_sub(self.boot_ms)
    }
}

/// Why the clock is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is vouched for.
    Vouched,
    /// It was believed earlier in this boot.
    Remembered,
    /// Nothing has vouched for it in the time that the configuration says.
    Waited,
    /// The configuration says so, or the kernel does not tell one boot from another.
    Off,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Vouched => "it is synchronised",
            Reason::Remembered => "it was believed earlier in this boot",
            Reason::Waited => "nothing has synchronised it within clock.wait",
            Reason::Off => "clock.wait is 0",
        })
    }
}

/// Why the clock is not believed although the wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is before the release of this program.
    BeforeRelease,
    /// It is before this time, which is in the WAL and was believed, in milliseconds since the Unix epoch.
    BeforeNewest(i64),
}

/// What a look has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// By how much the clock was set since the look before, in milliseconds.
    pub step_ms: Option<i64>,
    /// It is believed from this look on.
    pub begins: Option<Reason>,
    /// From this look on it is certain that the clock is wrong.
    pub doubt: Option<Doubt>,
}

/// The state of the clock in this boot.
#[derive(Clone, Debug)]
pub struct Belief {
    boot: Option<BootId>,
    wait_ms: i64,
    newest_ms: Option<i64>,
    reason: Option<Reason>,
    doubt: Option<Doubt>,
    last: Option<Look>,
    /// The time since the boot at the first look.
    began_ms: Option<i64>,
    /// As a [`Stamp`] has them.
    before_ms: i64,
    from_ms: i64,
    to_ms: i64,
    /// The same of the step with which, or before which, the clock began to be believed.
    ended: Option<[i64; 3]>,
    forward: u64,
    backward: u64,
}

impl Belief {
    /// A clock of this boot that nothing is known of. `wait_ms`: how long after the boot it is believed anyway;
    /// 0: always. `newest_ms`: the newest time in the WAL that was believed.
    pub fn new(boot: Option<BootId>, wait_ms: i64, newest_ms: Option<i64>) -> Belief {
        Belief {
            boot,
            wait_ms,
            newest_ms,
            reason: None,
            doubt: None,
            last: None,
            began_ms: None,
            before_ms: 0,
            from_ms: 0,
            to_ms: 0,
            ended: None,
            forward: 0,
            backward: 0,
        }
    }

    /// It was believed earlier in this boot.
    pub fn remember(&mut self) {
        self.reason.get_or_insert(Reason::Remembered);
    }

    /// Another configuration.
    pub fn set_wait(&mut self, wait_ms: i64) {
        self.wait_ms = wait_ms;
    }

    /// Looks.
    pub fn look(&mut self, look: Look) -> Seen {
        let mut seen = Seen { step_ms: self.step(&look), ..Seen::default() };
        self.last = Some(look);
        self.began_ms.get_or_insert(look.boot_ms);
        if self.reason.is_none() {
            let (reason, doubt) = self.judge(&look);
            if doubt.map(|doubt| std::mem::discriminant(&doubt))
                != self.doubt.map(|doubt| std::mem::discriminant(&doubt))
            {
                seen.doubt = doubt;
            }
            (self.reason, self.doubt) = (reason, doubt);
            seen.begins = reason;
            if reason.is_some() && self.to_ms > 0 {
                self.ended = Some([self.before_ms, self.from_ms, self.to_ms]);
            }
        }
        seen
    }

    fn judge(&self, look: &Look) -> (Option<Reason>, Option<Doubt>) {
        if self.boot.is_none() || self.wait_ms == 0 {
            return (Some(Reason::Off), None);
        }
        if look.vouched && look.wall_ms >= RELEASED_MS {
            return (Some(Reason::Vouched), None);
        }
        if look.boot_ms < self.wait_ms {
            return (None, None);
        }
        let newest = self.newest_ms.filter(|newest| {
            let ahead = newest.saturating_sub(look.wall_ms);
            (0..DAY_MS).contains(&ahead)
        });
        match newest {
            _ if look.wall_ms < RELEASED_MS => (None, Some(Doubt::BeforeRelease)),
            Some(newest) => (None, Some(Doubt::BeforeNewest(newest))),
            None => (Some(Reason::Waited), None),
        }
    }

    fn step(&mut self, look: &Look) -> Option<i64> {
        let last = self.last?;
        let (was, is) = (last.offset_ms(), look.offset_ms());
        let moved = is.saturating_sub(was);
        let passed = look.boot_ms.saturating_sub(last.boot_ms).max(0);
        let ppm = SLEW_PPM + look.tick_ppm.abs().max(last.tick_ppm.abs()).min(200_000);
        if moved.saturating_abs() <= STEP_MS + passed.saturating_mul(ppm) / 1_000_000 {
            return None;
        }
        *(if moved > 0 { &mut self.forward } else { &mut self.backward }) += 1;
        (self.before_ms, self.from_ms, self.to_ms) = (was, last.boot_ms, look.boot_ms);
        Some(moved)
    }

    /// Why the clock is believed; None if it is not.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Why it is not, although the wait is over.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt.filter(|_| self.reason.is_none())
    }

    /// The last look.
    pub fn last(&self) -> Option<Look> {
        self.last
    }

    /// The time since the boot at the first look, in milliseconds.
    pub fn began_ms(&self) -> Option<i64> {
        self.began_ms
    }

    /// The boot.
    pub fn boot(&self) -> Option<BootId> {
        self.boot
    }

    /// The offset of the last look: what is the true one when the clock begins to be believed.
    pub fn offset_ms(&self) -> i64 {
        self.last.map_or(0, |last| last.offset_ms())
    }

    /// The stamp of a record of the last look; None if it is not held.
    pub fn stamp(&self) -> Option<Stamp> {
        if self.reason.is_some() {
            return None;
        }
        let offset_ms = self.offset_ms();
        let before_ms = if self.to_ms > 0 { self.before_ms } else { offset_ms };
        let (from_ms, to_ms) = (self.from_ms, self.to_ms);
        Some(Stamp { boot: self.boot?, offset_ms, before_ms, from_ms, to_ms })
    }

    /// The stamp of a record of the last look that has an entry of this time: also once the clock is believed, if the
    /// entry was told before the step that ended the doubt. Such entries wait some seconds for their record, and
    /// much longer where the WAL is full.
    pub fn stamp_of(&self, oldest_ms: i64) -> Option<Stamp> {
        let [before_ms, from_ms, to_ms] = self.ended.filter(|_| self.reason.is_some())?;
        let shown = before_ms..=before_ms.saturating_add(to_ms).saturating_add(1_000);
        let boot = self.boot.filter(|_| shown.contains(&oldest_ms))?;
        Some(Stamp { boot, offset_ms: self.offset_ms(), before_ms, from_ms, to_ms })
    }

    /// How often the clock was set, forward and backward.
    pub fn steps(&self) -> [u64; 2] {
        [self.forward, self.backward]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = RELEASED_MS + 40 * DAY_MS;
    const WAIT: i64 = 600_000;

    fn look(wall_ms: i64, boot_ms: i64) -> Look {
        Look { wall_ms, boot_ms, vouched: false, tick_ppm: 0 }
    }

    fn belief(newest_ms: Option<i64>) -> Belief {
        Belief::new(Some([1; 16]), WAIT, newest_ms)
    }

    #[test]
    fn nothing_is_believed_until_it_is_vouched_for_or_the_wait_is_over() {
        let mut clock = belief(None);
        assert_eq!(clock.look(look(7_000, 2_000)), Seen::default());
        assert_eq!(clock.stamp().unwrap().offset_ms, 5_000);
        let vouched = Look { vouched: true, ..look(NOW, 62_000) };
        let seen = clock.look(vouched);
        assert_eq!((seen.begins, seen.doubt), (Some(Reason::Vouched), None));
        assert_eq!(seen.step_ms, Some(NOW - 62_000 - 5_000));
        assert_eq!((clock.stamp(), clock.offset_ms()), (None, NOW - 62_000));
        // NTP goes away: what was right does not become wrong.
        assert_eq!(clock.look(look(NOW + 60_000, 122_000)), Seen::default());
        assert_eq!(clock.reason(), Some(Reason::Vouched));

        let mut clock = belief(None);
        assert_eq!(clock.look(look(NOW, WAIT - 1)).begins, None);
        assert_eq!(clock.look(look(NOW + 1, WAIT)).begins, Some(Reason::Waited));
        let mut late = belief(None);
        assert_eq!(late.look(look(NOW, 400 * DAY_MS)).begins, Some(Reason::Waited));
        let mut again = belief(None);
        again.remember();
        assert_eq!(again.look(look(0, 0)), Seen::default());
        assert_eq!(again.reason(), Some(Reason::Remembered));
        for (boot, wait) in [(Some([1; 16]), 0), (None, WAIT)] {
            let mut off = Belief::new(boot, wait, None);
            assert_eq!(off.look(look(0, 0)).begins, Some(Reason::Off));
        }
    }

    #[test]
    fn a_clock_that_is_certainly_wrong_is_not_believed_for_having_been_waited_for() {
        let mut clock = belief(Some(NOW));
        let seen = clock.look(look(3_600_000, WAIT));
        assert_eq!((seen.begins, seen.doubt), (None, Some(Doubt::BeforeRelease)));
        assert_eq!(clock.look(look(3_660_000, WAIT + 60_000)), Seen::default(), "told once");
        assert!(clock.stamp().is_some() && clock.doubt().is_some());
        // Set by hand, but not enough.
        let seen = clock.look(look(NOW - DAY_MS + 1, WAIT + 120_000));
        assert_eq!((seen.begins, seen.doubt), (None, Some(Doubt::BeforeNewest(NOW))));
        assert_eq!(clock.look(look(NOW - 1, WAIT + 180_000)).begins, None);
        assert_eq!(clock.look(look(NOW + 1, WAIT + 180_002)).begins, Some(Reason::Waited));
        assert_eq!(clock.doubt(), None);
        // A newest time that lies years ahead was wrong itself, and holds nothing up.
        let mut clock = belief(Some(NOW + 20 * 365 * DAY_MS));
        assert_eq!(clock.look(look(NOW, WAIT)).begins, Some(Reason::Waited));
        // Whoever keeps the clock knows better than a file.
        let mut clock = belief(Some(NOW));
        let vouched = Look { vouched: true, ..look(NOW - 60_000, 1_000) };
        assert_eq!(clock.look(vouched).begins, Some(Reason::Vouched));
    }

    #[test]
    fn steps_are_noticed_and_slewing_and_suspending_are_none() {
        let mut clock = belief(None);
        let mut boot = 1_000;
        let mut wall = NOW;
        let mut steps = |by_wall: i64, by_boot: i64, tick_ppm: i64| {
            (wall, boot) = (wall + by_wall, boot + by_boot);
            let was = clock.offset_ms();
            let step = clock.look(Look { tick_ppm, ..look(wall, boot) }).step_ms;
            assert!(step.is_none_or(|by| by == clock.offset_ms() - was));
            step
        };
        assert_eq!(steps(0, 0, 0), None);
        assert_eq!(steps(60_000, 60_000, 0), None);
        assert_eq!(steps(60_030, 60_000, 0), None);
        // Suspended for a week: both clocks go on.
        assert_eq!(steps(7 * DAY_MS, 7 * DAY_MS, 0), None);
        assert_eq!(steps(60_531, 60_000, 0), Some(531));
        assert_eq!(steps(60_000 - 3_600_000, 60_000, 0), Some(-3_600_000));
        // chrony at 8 %, and what is more than that.
        assert_eq!(steps(65_000, 60_000, 83_333), None);
        assert_eq!(steps(66_000, 60_000, 83_333), Some(6_000));
        assert_eq!(steps(60_000, 60_000, i64::MIN + 1), None);
        assert_eq!(clock.steps(), [2, 1]);
    }

    #[test]
    fn what_was_told_before_the_step_that_ended_the_doubt_is_still_stamped() {
        let mut clock = belief(None);
        clock.look(look(5_000, 1_000));
        clock.look(Look { vouched: true, ..look(NOW, 61_000) });
        assert_eq!(clock.stamp(), None);
        // By the old clock, from the boot to the step.
        let stamp = clock.stamp_of(5_500).unwrap();
        assert_eq!((stamp.before_ms, stamp.offset_ms), (4_000, NOW - 61_000));
        assert_eq!(stamp.real_ns(5_500_000_000, NOW, NOW - 61_000), (NOW - 59_500) * 1_000_000);
        assert_eq!(
            (clock.stamp_of(3_999), clock.stamp_of(66_001), clock.stamp_of(NOW)),
            (None, None, None)
        );
        // A later step of a clock that is believed makes no times of before it wrong.
        clock.look(look(NOW + 10_000, 62_000));
        assert_eq!(clock.stamp_of(5_500).map(|stamp| stamp.before_ms), Some(4_000));
        assert_eq!(clock.stamp_of(NOW - 1), None);
        // One that was right from the first look on has nothing to set right.
        let mut clock = belief(None);
        clock.look(Look { vouched: true, ..look(NOW, 61_000) });
        assert_eq!(clock.stamp_of(NOW - 60_000), None);
    }

    #[test]
    fn a_stamp_has_the_newest_step() {
        let mut clock = belief(None);
        clock.look(look(5_000, 1_000));
        assert_eq!((clock.stamp().unwrap().from_ms, clock.stamp().unwrap().to_ms), (0, 0));
        clock.look(look(NOW, 61_000));
        let stamp = clock.stamp().unwrap();
        assert_eq!((stamp.before_ms, stamp.offset_ms), (4_000, NOW - 61_000));
        assert_eq!((stamp.from_ms, stamp.to_ms), (1_000, 61_000));
        clock.look(look(NOW + 60_000, 121_000));
        assert_eq!(clock.stamp(), Some(stamp));
    }
}
