//! Time as a part that can be exchanged, so that tests don't sleep and the wall clock may be wrong. Which
//! clock is to be believed is the matter of `clock/`.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Timex;

/// Wall-clock time, and the time since the boot. Intervals and timeouts are tokio's, whose clock tests can pause and advance.
pub trait Clock {
    /// Nanoseconds since the Unix epoch; negative before 1970.
    fn now_ns(&self) -> i64;

    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64 {
        self.now_ns().div_euclid(1_000_000)
    }

    /// Milliseconds since the machine was booted, those that it was suspended for among them. Nothing sets
    /// this clock.
    fn boot_ms(&self) -> i64;

    /// Both, as of one moment: wall-clock time and that since the boot, in milliseconds.
    fn both_ms(&self) -> (i64, i64) {
        // The one that can be set is read between two looks at the one that can't: who is interrupted
        // between them looks again.
        let mut before = self.boot_ms();
        for _ in 0..4 {
            let wall = self.now_ms();
            let after = self.boot_ms();
            if after - before <= 2 {
                return (wall, after);
            }
            before = after;
        }
        (self.now_ms(), self.boot_ms())
    }

    /// What the kernel's clock discipline says.
    fn discipline(&self) -> Discipline;
}

/// What adjtimex(2) says of the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discipline {
    /// Somebody keeps it right: there is no STA_UNSYNC. False where the call is forbidden.
    pub synchronised: bool,
    /// The call is forbidden, as containers and service managers may do.
    pub forbidden: bool,
    /// By how much its tick is longer or shorter than nominal, in parts per million: how chrony makes large
    /// errors small without a step.
    pub tick_ppm: i64,
}

/// CLOCK_REALTIME and CLOCK_BOOTTIME of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => nanos(since),
            Err(before) => -nanos(before.duration()),
        }
    }

    fn boot_ms(&self) -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
    }

    #[allow(
        clippy::unnecessary_cast,
        reason = "the types of the fields differ between architectures"
    )]
    fn discipline(&self) -> Discipline {
        match Timex::read() {
            Ok((_, timex)) => Discipline {
                synchronised: timex.status & Timex::STA_UNSYNC == 0,
                forbidden: false,
                tick_ppm: (timex.tick as i64 - NOMINAL_TICK) * 1_000_000 / NOMINAL_TICK,
            },
            Err(error) => Discipline {
                forbidden: error.kind() == std::io::ErrorKind::PermissionDenied,
                ..Discipline::default()
            },
        }
    }
}

/// Microseconds of a tick of USER_HZ, which is 100 on all machines but Alpha.
const NOMINAL_TICK: i64 = 10_000;

/// A clock that a test sets.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    wall_ns: Rc<Cell<i64>>,
    boot_ms: Rc<Cell<i64>>,
    discipline: Rc<Cell<Discipline>>,
}

impl ManualClock {
    /// A clock that shows this time, in nanoseconds since the Unix epoch.
    pub fn at(now_ns: i64) -> ManualClock {
        let clock = ManualClock::default();
        clock.set(now_ns);
        clock
    }

    /// Sets the time, also backwards: a step.
    pub fn set(&self, now_ns: i64) {
        self.wall_ns.set(now_ns);
    }

    /// Sets the time since the boot.
    pub fn set_boot_ms(&self, boot_ms: i64) {
        self.boot_ms.set(boot_ms);
    }

    /// Lets time pass.
    pub fn pass(&self, ms: i64) {
        self.wall_ns.set(self.wall_ns.get() + ms * 1_000_000);
        self.boot_ms.set(self.boot_ms.get() + ms);
    }

    /// Sets what the kernel says of it.
    pub fn set_discipline(&self, discipline: Discipline) {
        self.discipline.set(discipline);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.wall_ns.get()
    }

    fn boot_ms(&self) -> i64 {
        self.boot_ms.get()
    }

    fn discipline(&self) -> Discipline {
        self.discipline.get()
    }
}

/// The kernel's clocks, or a lie about them: what `MOTE_TEST_CLOCK` names is a file of
/// `WALL BOOT SYNCHRONISED`, milliseconds to be added to each clock and 0 or 1. No test can set a machine's clock, and
/// a time namespace has none of its own for the wall. Only debug builds have it.
#[cfg(debug_assertions)]
pub fn system_clock() -> Rc<dyn Clock> {
    match std::env::var_os("MOTE_TEST_CLOCK") {
        Some(path) => Rc::new(LyingClock(path.into())),
        None => Rc::new(SystemClock),
    }
}

/// The kernel's clocks.
#[cfg(not(debug_assertions))]
pub fn system_clock() -> Rc<dyn Clock> {
    Rc::new(SystemClock)
}

#[cfg(debug_assertions)]
struct LyingClock(std::path::PathBuf);

#[cfg(debug_assertions)]
impl LyingClock {
    fn told(&self) -> [i64; 3] {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        std::array::from_fn(|_| numbers.next().unwrap_or(0))
    }
}

#[cfg(debug_assertions)]
impl Clock for LyingClock {
    fn now_ns(&self) -> i64 {
        SystemClock.now_ns().saturating_add(self.told()[0].saturating_mul(1_000_000))
    }

    fn boot_ms(&self) -> i64 {
        SystemClock.boot_ms().saturating_add(self.told()[1])
    }

    fn both_ms(&self) -> (i64, i64) {
        let ([wall, boot, _], (wall_ms, boot_ms)) = (self.told(), SystemClock.both_ms());
        (wall_ms.saturating_add(wall), boot_ms.saturating_add(boot))
    }

    fn discipline(&self) -> Discipline {
        Discipline { synchronised: self.told()[2] == 1, ..Discipline::default() }
    }
}

/// Identifies one run of the kernel.
pub type BootId = [u8; 16];

/// The running kernel's: `/proc/sys/kernel/random/boot_id` (drivers/char/random.c), 32 hexadecimal digits with
/// hyphens between them. None where it does not say.
pub fn boot_id(proc: &Path) -> Option<BootId> {
    parse_boot_id(&std::fs::read(proc.join("sys/kernel/random/boot_id")).ok()?)
}

fn parse_boot_id(text: &[u8]) -> Option<BootId> {
    let digit = |byte: &u8| (*byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits = text.trim_ascii().iter().filter(|byte| **byte != b'-').map(digit);
    let digits = digits.collect::<Option<Vec<u8>>>().filter(|digits| digits.len() == 32)?;
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_boot_has_a_number_and_no_other_text_has() {
        let id = boot_id(Path::new("/proc")).unwrap();
        assert_eq!(boot_id(Path::new("/proc")), Some(id));
        let text = b"5752c0dc-3306-4cae-a50b-e3af7e9247ec\n";
        assert_eq!(parse_boot_id(text).unwrap()[..3], [0x57, 0x52, 0xc0]);
        for bad in [&b""[..], b"5752c0dc", &text[1..], b"5752c0dc-3306-4cae-a50b-e3af7e9247eg"] {
            assert_eq!(parse_boot_id(bad), None);
        }
        assert_eq!(boot_id(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_kernels_clocks_run_together() {
        let (wall, boot) = SystemClock.both_ms();
        std::thread::sleep(Duration::from_millis(30));
        let (later, later_boot) = SystemClock.both_ms();
        assert!(boot > 0 && later_boot - boot >= 30);
        assert!(
            (later - wall).abs_diff(later_boot - boot) <= 3,
            "one rounds down where the other does not"
        );
        assert!(SystemClock.discipline().tick_ppm.abs() <= 100_000);
    }
}
