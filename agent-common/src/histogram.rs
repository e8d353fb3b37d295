//! Histograms of latencies: the rule which slot a latency falls into, on which both sides must agree, so
//! that it can be tested without a kernel.

use crate::plain::plain;

/// Slots of a histogram. Slot `k` counts latencies in (2^(k-1) µs, 2^k µs], so that its upper bound is
/// inclusive as Prometheus' `le` is; slot 0 everything up to 1 µs, the last one all that is longer.
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
        if let Some(count) = self.slots.get_mut(slot(latency_ns)) {
            *count += 1;
        }
        self.sum_ns += latency_ns;
    }
}

/// The slot of a latency: the bits of (ns - 1) / 1000, by one comparison and without a division, which
/// 32-bit kernels would have to emulate.
///
/// For b = bits(n), the quotient q = n / 1000 has b - 9 bits if n ≥ 1000 * 2^(b-10) and b - 10 if not:
/// q has k bits exactly when 1000 * 2^(k-1) ≤ n < 1000 * 2^k, and 2^(b-1) ≤ n < 2^b lies between
/// 1000 * 2^(b-11) and 1000 * 2^(b-9).
#[inline(always)]
pub const fn slot(latency_ns: u64) -> usize {
    let n = latency_ns.saturating_sub(1);
    // BPF has no instruction for it. LLVM's substitute has no branches either, of which the verifier
    // would follow each path together with all that comes after.
    let bits = u64::BITS - n.leading_zeros();
    if bits < 10 {
        return 0;
    }
    let short = bits - 10;
    let slot = if n >= 1000 << short { short + 1 } else { short };
    if slot < SLOTS as u32 { slot as usize } else { SLOTS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_the_bits_of_the_whole_microseconds_above_the_bound_below() {
        let by_division = |ns: u64| {
            let us = ns.saturating_sub(1) / 1000;
            ((u64::BITS - us.leading_zeros()) as usize).min(SLOTS - 1)
        };
        let around = (0..64).flat_map(|bit| {
            [1u64 << bit, 1000u64.saturating_mul(1 << bit)]
                .into_iter()
                .flat_map(|n| (0..5).map(move |d| n.saturating_add(d).saturating_sub(2)))
        });
        for ns in around.chain(0..100_000).chain([u64::MAX, u64::MAX - 1]) {
            assert_eq!(slot(ns), by_division(ns), "{ns}");
        }
    }

    #[test]
    fn the_upper_bound_of_a_slot_is_inclusive() {
        for k in 0..SLOTS - 1 {
            let bound = 1000 << k;
            assert_eq!((slot(bound), slot(bound + 1)), (k, k + 1));
        }
    }
}
