//! A hash that is the same in every version of the agent and on every machine: FNV-1a with 64 bits.
//! It is no defence against those who choose what is hashed; its users bound what a collision costs.

use crate::model::Labels;

#[derive(Clone, Copy, Debug)]
pub(super) struct Fnv(u64);

impl Fnv {
    pub(super) fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a text and where it ends.
    pub(super) fn text(mut self, text: &str) -> Fnv {
        // 0xff is in no UTF-8.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self
    }

    pub(super) fn finish(self) -> u64 {
        self.0
    }
}

pub(super) fn of_labels(labels: &Labels) -> u64 {
    labels.iter().fold(Fnv::new(), |hash, (name, value)| hash.text(name).text(value)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_older_positions_were_stored_with() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "")]).unwrap();
        assert_eq!(of_labels(&Labels::new()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(of_labels(&labels), 0x7ed3_3b7b_fb9c_8993);
    }
}
