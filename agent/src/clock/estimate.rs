//! Where boots that never learned the time are placed. See the [module](super).

use crate::host::BootId;

/// A boot that is over and never learned the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its id.
    pub id: BootId,
    /// The last time since the boot of what is held of it, in milliseconds.
    pub last_ms: i64,
    /// The real time of what is known to have come after it, in milliseconds since the Unix epoch.
    pub bound_ms: i64,
}

/// The true offsets of boots. `followed`: by their numbers, which was right before which in some WAL; boots that share
/// no WAL may have any order.
pub fn estimate(boots: &[Unknown], followed: &[(usize, usize)]) -> Vec<(BootId, i64)> {
    // The last record is a millisecond before the bound: the next one may be at it.
    let place = |boot: &Unknown| {
        (boot.id, boot.bound_ms.saturating_sub(1).saturating_sub(boot.last_ms.max(0)))
    };
    let mut boots = boots.to_vec();
    // A bound passes on to one boot before it at least with each turn.
    for _ in 0..boots.len() {
        for (before, after) in followed {
            let Some((_, begin)) = boots.get(*after).map(place) else { continue };
            if let Some(before) = boots.get_mut(*before) {
                before.bound_ms = before.bound_ms.min(begin);
            }
        }
    }
    boots.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_in_a_row_keep_their_order_and_do_not_overlap() {
        let boot = |number, last_ms, bound_ms| Unknown { id: [number; 16], last_ms, bound_ms };
        let end = 1_000_000;
        let boots = [boot(1, 600, end), boot(2, 50, end), boot(3, 4_000, end)];
        let placed = estimate(&boots, &[(0, 1), (1, 2)]);
        assert_eq!(placed, [([1; 16], 995_347), ([2; 16], 995_948), ([3; 16], 995_999)]);
        // The last record of each is before the beginning of the next.
        for ((_, start), (boot, next)) in
            placed.iter().zip(boots.iter().zip([995_948, 995_999, end]))
        {
            assert!(start + boot.last_ms < next);
        }
        // What is known of the first of them holds for it alone.
        let boots = [boot(1, 600, 500_000), boot(2, 50, end)];
        assert_eq!(estimate(&boots, &[(0, 1)]), [([1; 16], 499_399), ([2; 16], 999_949)]);
        assert_eq!(estimate(&[], &[(3, 4)]), []);
        assert_eq!(estimate(&[boot(1, i64::MAX, i64::MIN)], &[]), [([1; 16], i64::MIN)]);
    }
}
