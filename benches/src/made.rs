//! Rounds that were made up: as many series as are wanted, half of them counters that move and half gauges of
//! which few do, and beside them some that come and go under names that were never there before, as
//! containers and mounts do. The same for the same numbers. It must not know what becomes of them.

use mote::model::{Kind, Samples};

/// Series of a family, as of a machine with so many devices.
const OF_FAMILY: usize = 20;
/// A passing series stays for so many rounds.
const STAY: u64 = 10;
/// How many passing series there are at a time.
const PASSING: u64 = 5;

/// Fills `out` with the round of this number: `series` lasting ones and, with `churn`, five passing ones.
pub fn round(out: &mut Samples, series: usize, number: u64, churn: bool) {
    out.clear();
    // A part that was asked: what it does not have any more is gone.
    out.begin(1);
    let mut name = Text::default();
    let mut device = Text::default();
    for first in (0..series).step_by(OF_FAMILY) {
        let counter = (first / OF_FAMILY).is_multiple_of(2);
        let kind = if counter { Kind::Counter } else { Kind::Gauge };
        name.set(format_args!("made_{}{}", first, if counter { "_total" } else { "_bytes" }));
        let mut family = out.family_named(name.as_str(), "A made-up figure.", kind);
        for index in first..series.min(first + OF_FAMILY) {
            let speed = index as u64 % 13;
            let value = match counter {
                true => (number * speed * speed) as f64,
                false => ((number / (1 + speed * 7)) % 100 * 4096) as f64,
            };
            device.set(format_args!("device{}", index % OF_FAMILY));
            family.add(&[("device", device.as_str()), ("mode", "read")], value);
        }
    }
    if churn {
        let mut family = out.family_named("made_passing", "It comes and goes.", Kind::Gauge);
        for slot in 0..PASSING {
            device.set(format_args!("{:012x}-{slot}", (number + slot * 2) / STAY));
            family.add(&[("id", device.as_str())], number as f64);
        }
    }
}

/// Text in a buffer that is kept, so that making a round allocates nothing.
#[derive(Default)]
struct Text(String);

impl Text {
    fn set(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.clear();
        // Writing into a string can't fail.
        let _ = std::fmt::Write::write_fmt(&mut self.0, text);
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_series_come_and_go_and_the_others_last() {
        let names = |number| {
            let mut out = Samples::with_limit(1000);
            round(&mut out, 90, number, true);
            let keys: Vec<Vec<u8>> = out.iter().map(|sample| sample.key.to_vec()).collect();
            keys
        };
        let (first, later) = (names(1), names(100));
        assert_eq!((first.len(), later.len()), (95, 95));
        let common = first.iter().filter(|key| later.contains(key)).count();
        assert_eq!(common, 90);
    }
}
