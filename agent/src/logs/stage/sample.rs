//! Sampling: a share of the entries stays, chosen without regard to what they say.

use super::{Action, Verdict, Work};

/// What share of the entries stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// From 0 to 1.
    pub keep: f64,
    /// The reason under which those that go are counted.
    pub reason: Option<String>,
}

/// Chooses by a generator with a fixed seed (SplitMix64), not every n-th entry: a program that writes two
/// lines in turn would always lose the same one. The same entries give the same choice in every run.
pub(super) struct Sample {
    share: Share,
    state: u64,
}

impl Sample {
    pub(super) fn new(share: &Share) -> Sample {
        Sample { share: share.clone(), state: 0 }
    }
}

impl Action for Sample {
    fn apply(&mut self, _entry: &mut Work, _now_ns: i64) -> Verdict {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        if number < self.share.keep { Verdict::Keep } else { Verdict::Drop }
    }

    fn reason(&self) -> &str {
        self.share.reason.as_deref().unwrap_or("sample")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(keep: f64) -> Vec<bool> {
        let mut sample = Sample::new(&Share { keep, reason: None });
        (0..10_000).map(|_| sample.apply(&mut Work::default(), 0) == Verdict::Keep).collect()
    }

    #[test]
    fn the_share_is_what_was_asked_for() {
        let count = |keep: f64| kept(keep).iter().filter(|kept| **kept).count();
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        assert!((900..1_100).contains(&count(0.1)), "{}", count(0.1));
        assert!((7_300..7_700).contains(&count(0.75)), "{}", count(0.75));
        assert_eq!(kept(0.5), kept(0.5));
    }

    #[test]
    fn of_two_lines_in_turn_both_are_seen() {
        let kept = kept(0.5);
        let even = kept.iter().step_by(2).filter(|kept| **kept).count();
        assert!((2_300..2_700).contains(&even), "{even}");
    }
}
