//! Random numbers for pauses: enough to take agents out of step, and nothing else. Never for secrets.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// With a seed from the system.
    pub fn new() -> Random {
        // RandomState takes its keys from getrandom(2).
        Random::with_seed(RandomState::new().hash_one(0u8))
    }

    /// With the same numbers for the same seed.
    pub fn with_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from zero to this, both included, in steps of a microsecond.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let span = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        // The upper half of a 128-bit product maps the number onto the span without a bias that matters.
        let micros = (u128::from(self.next_u64()) * (u128::from(span) + 1)) >> 64;
        Duration::from_micros(micros as u64)
    }

    /// Evenly from half of this to one and a half times it, so that it is this on average.
    pub fn around(&mut self, mean: Duration) -> Duration {
        (mean / 2).saturating_add(self.up_to(mean))
    }
}

impl Default for Random {
    fn default() -> Random {
        Random::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_lie_around_their_mean() {
        let mut random = Random::with_seed(7);
        let mean = Duration::from_secs(10);
        let mut sum = Duration::ZERO;
        for _ in 0..1_000 {
            let drawn = random.around(mean);
            assert!(drawn >= mean / 2 && drawn <= mean * 3 / 2, "{drawn:?}");
            sum += drawn;
        }
        assert!((sum.as_secs_f64() / 1_000.0 - 10.0).abs() < 0.5, "{sum:?}");
        assert_eq!(random.around(Duration::ZERO), Duration::ZERO);
        assert!(random.around(Duration::MAX) > Duration::from_secs(1 << 40));
    }
}
