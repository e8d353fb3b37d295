//! Where boots that never learned the time are placed. See the [module](super).

use crate::host::BootId;

/// The true offsets of boots that followed each other and never learned the time, by the last time since the boot, in
/// ms, of what is held of each, oldest first. All of it was before `bound_ms`, in real time. The newest first.
pub fn estimate(boots: &[(BootId, i64)], bound_ms: i64) -> Vec<(BootId, i64)> {
    let mut bound = bound_ms;
    let place = |(boot, last_ms): &(BootId, i64)| {
        // The last record is a millisecond before the bound: the next one may be at it.
        let offset = bound.saturating_sub(1).saturating_sub((*last_ms).max(0));
        bound = offset;
        (*boot, offset)
    };
    boots.iter().rev().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_in_a_row_keep_their_order_and_do_not_overlap() {
        let boots = [([1; 16], 600), ([2; 16], 50), ([3; 16], 4_000)];
        let placed = estimate(&boots, 1_000_000);
        assert_eq!(placed, [([3; 16], 995_999), ([2; 16], 995_948), ([1; 16], 995_347)]);
        // The last record of each is before the beginning of the next.
        assert!(995_999 + 4_000 < 1_000_000 && 995_948 + 50 < 995_999 && 995_347 + 600 < 995_948);
        assert_eq!(estimate(&[], 5), []);
        assert_eq!(estimate(&[([1; 16], i64::MAX)], i64::MIN), [([1; 16], i64::MIN)]);
    }
}
