//! Histograms of latencies: the rule which slot a latency falls into, on which both sides must agree, so
//! that it can be tested without a kernel.

use crate::plain::plain;

/// Slots of a histogram. Slot `k` counts latencies in (2^(k-21) s, 2^(k-20) s], so that its upper bound is
/// inclusive as Prometheus' `le` is, and a power of two of a second as a native histogram's are; slot 0
/// everything up to 2^-20 s (some 0.95 µs), the last one all that is longer than 64 s.
pub const SLOTS: usize = 28;

/// The latencies that one CPU has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Histogram {
    /// Counts by latency; see [`SLOTS`].
    pub slots: [u64; SLOTS],
    /// The sum of the latencies in nanoseconds.
    pub sum_ns: u64,
}

plain!(Histogram);

const _: () = assert!(size_of::<Histogram>() == 8 * SLOTS + 8);

impl Histogram {
    /// None.
    pub const ZERO: Histogram = Histogram { slots: [0; SLOTS], sum_ns: 0 };

    /// Counts a latency in nanoseconds.
    #[inline(always)]
    pub fn observe(&mut self, latency_ns: u64) {
        // The compiler would leave out the comparison, since it knows that this is a slot; the verifier has
        // to see it.
        let slot = core::hint::black_box(slot(latency_ns));
        if let Some(count) = self.slots.get_mut(slot) {
            *count += 1;
        }
        self.sum_ns += latency_ns;
    }
}

/// A second in nanoseconds, moved up until its highest bit is that of a u64.
const SECOND: u64 = 1_000_000_000 << 34;

/// The slot of a latency, by one comparison and without a division, which 32-bit kernels would have to
/// emulate: n ≤ 2^e s for the first time at e = bits(n) - 30, if n, moved up until its highest bit is that
/// of a u64, is not above a second that was moved up so, and else at the e after it.
#[inline(always)]
pub const fn slot(latency_ns: u64) -> usize {
    // BPF has no instruction for it. LLVM's substitute has no branches either, of which the verifier
    // would follow each path together with all that comes after.
    let zeros = latency_ns.leading_zeros();
    // Slots begin with e = -20, at 10 bits.
    if zeros > u64::BITS - 10 {
        return 0;
    }
    let above = latency_ns << zeros > SECOND;
    let slot = u64::BITS - zeros - 10 + above as u32;
    if slot < SLOTS as u32 { slot as usize } else { SLOTS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exactly: n ns ≤ 2^(k-20) s as whole numbers.
    fn is_within(ns: u64, k: usize) -> bool {
        u128::from(ns) << 20 <= 1_000_000_000u128 << k
    }

    #[test]
    fn a_slot_is_the_first_whose_bound_is_not_exceeded() {
        let by_search = |ns: u64| (0..SLOTS - 1).find(|k| is_within(ns, *k)).unwrap_or(SLOTS - 1);
        let around = (0..64).flat_map(|bit| {
            [1u64 << bit, (1_000_000_000u128 << bit >> 20) as u64]
                .into_iter()
                .flat_map(|n| (0..5).map(move |d| n.saturating_add(d).saturating_sub(2)))
        });
        for ns in around.chain(0..100_000).chain([u64::MAX, u64::MAX - 1]) {
            assert_eq!(slot(ns), by_search(ns), "{ns}");
        }
    }

    #[test]
    fn the_upper_bound_of_a_slot_is_inclusive() {
        for k in 11..SLOTS - 1 {
            // Bounds of whole nanoseconds: from 2^-9 s on.
            let bound = (1_000_000_000u64 << k) >> 20;
            assert_eq!((slot(bound), slot(bound + 1)), (k, k + 1));
        }
    }
}
