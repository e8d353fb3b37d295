//! A repeatable source of chances. A test that rolls prints its seed, so that a failure can be had again.

use std::time::Duration;

/// xorshift; never 0.
pub struct Dice(u64);

impl Dice {
    /// From `MOTE_SEED`, or else from this seed, which it prints either way.
    pub fn new(seed: u64) -> Dice {
        let given = std::env::var("MOTE_SEED").ok();
        let seed = given.map_or(seed, |text| text.parse().expect("MOTE_SEED is a number"));
        println!("seed {seed} (MOTE_SEED sets another one)");
        Dice(seed.max(1))
    }

    /// Another one, whose rolls are its own.
    pub fn fork(&mut self) -> Dice {
        Dice((self.roll(u64::MAX)).max(1))
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// Between these two, the second excluded.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1_000 + self.roll((to - from) * 1_000))
    }
}
