//! The programs' histograms as Prometheus has them.

use agent_common::histogram::{Histogram, SLOTS};

use crate::model::{Desc, LATENCY_BOUNDS, Samples};

/// The slot of the first bucket, up to 2^-16 s, some 15 µs, below which neither a disk nor a network
/// answers. The last bound is 64 s, and what is longer is in `+Inf`: each slot from the first one on has
/// its bucket, so that a native histogram can be made of them.
const FIRST: usize = 4;

const _: () = assert!(FIRST + LATENCY_BOUNDS.len() == SLOTS - 1);

/// Adds what one CPU has counted.
pub(super) fn add(total: &mut Histogram, cpu: &Histogram) {
    for (sum, slot) in total.slots.iter_mut().zip(&cpu.slots) {
        *sum += slot;
    }
    total.sum_ns += cpu.sum_ns;
}

/// Whether a number has moved on by so much that it may be torn: a 32-bit kernel may be read between the
/// halves of a number, at the moment when the lower one overflows, and it is then too large by 2^32, or
/// too small by as much.
pub(super) fn jumps(old: u64, now: u64) -> bool {
    now.saturating_sub(old) >= 1 << 32
}

/// Whether a number of it [`jumps`].
pub(super) fn any_jumps(total: &Histogram, now: &Histogram) -> bool {
    jumps(total.sum_ns, now.sum_ns)
        || total.slots.iter().zip(&now.slots).any(|(old, new)| jumps(*old, *new))
}

/// Keeps the smaller one of each number and what was read `again` later: what was too large is gone then.
pub(super) fn keep_smaller(now: &mut Histogram, again: &Histogram) {
    for (first, second) in now.slots.iter_mut().zip(&again.slots) {
        *first = (*first).min(*second);
    }
    now.sum_ns = now.sum_ns.min(again.sum_ns);
}

/// Moves a total on to what was read now. What would go backwards, because a 32-bit kernel was read
/// between the halves of a number, is kept as it was until the next round. What is too large for the same
/// reason would be kept until the truth has caught up: the caller whose numbers pass 2^32 often, which is
/// block I/O, reads again what [`jumps`].
pub(super) fn advance(total: &mut Histogram, now: &Histogram) {
    for (old, new) in total.slots.iter_mut().zip(&now.slots) {
        *old = (*old).max(*new);
    }
    total.sum_ns = total.sum_ns.max(now.sum_ns);
}

/// Writes a histogram, unless it is empty.
pub(super) fn write(out: &mut Samples, desc: &Desc, labels: &[(&str, &str)], total: &Histogram) {
    let count = total.slots.iter().sum();
    if count == 0 {
        return;
    }
    let buckets = buckets(&total.slots);
    let sum = total.sum_ns as f64 / 1e9;
    out.family(desc).histogram(labels, LATENCY_BOUNDS.into_iter().zip(buckets), sum, count);
}

/// The cumulative counts at [`LATENCY_BOUNDS`].
fn buckets(slots: &[u64; SLOTS]) -> [u64; LATENCY_BOUNDS.len()] {
    let mut below: u64 = slots.iter().take(FIRST).sum();
    let mut buckets = [0; LATENCY_BOUNDS.len()];
    for (bucket, slot) in buckets.iter_mut().zip(slots.iter().skip(FIRST)) {
        below += slot;
        *bucket = below;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shorter_is_in_the_first_bucket_and_what_is_longer_only_in_the_count() {
        let mut slots = [0; SLOTS];
        (slots[0], slots[4], slots[5], slots[25], slots[26], slots[27]) = (1, 2, 4, 8, 16, 32);
        let buckets = buckets(&slots);
        assert_eq!((buckets[0], buckets[1], buckets[21], buckets[22]), (3, 7, 15, 31));
        assert_eq!(slots.iter().sum::<u64>(), 63);
    }

    #[test]
    fn a_total_never_goes_backwards() {
        let mut total = Histogram { sum_ns: 9, ..Histogram::ZERO };
        total.slots[3] = 5;
        advance(&mut total, &Histogram::ZERO);
        assert_eq!((total.slots[3], total.sum_ns), (5, 9));
    }

    #[test]
    fn what_was_read_between_two_halves_is_found_and_the_second_reading_counts() {
        let total = Histogram { sum_ns: (1 << 32) - 5, ..Histogram::ZERO };
        // The upper half after the lower one has overflowed, the lower one before.
        let torn = Histogram { sum_ns: (2 << 32) - 5, ..Histogram::ZERO };
        let again = Histogram { sum_ns: (1 << 32) + 7, ..Histogram::ZERO };
        assert!(any_jumps(&total, &torn) && !any_jumps(&total, &again));
        assert!(!any_jumps(&torn, &total));
        let mut now = torn;
        keep_smaller(&mut now, &again);
        assert_eq!(now, again);
        let mut slots = Histogram::ZERO;
        slots.slots[5] = 1 << 32;
        assert!(any_jumps(&Histogram::ZERO, &slots));
        keep_smaller(&mut slots, &Histogram::ZERO);
        assert_eq!(slots, Histogram::ZERO);
    }
}
