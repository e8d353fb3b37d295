//! Memory reclaim: what the programs on `vmscan:mm_vmscan_direct_reclaim_begin` and its kin keep in their
//! maps.

use crate::histogram::{Histogram, SLOTS};
use crate::plain::plain;

plain!(ReclaimStalls);

/// For whose limit a thread reclaims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// The host has no free memory (try_to_free_pages in mm/vmscan.c).
    Host = 0,
    /// A cgroup is at its limit (try_to_free_mem_cgroup_pages).
    Cgroup = 1,
}

impl Scope {
    /// All, in the order of their numbers.
    pub const ALL: [Scope; 2] = [Scope::Host, Scope::Cgroup];

    /// The value of the label `scope`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Host => "host",
            Scope::Cgroup => "cgroup",
        }
    }
}

/// What one CPU has seen of the stalls of a [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ReclaimStalls {
    /// How long they lasted.
    pub durations: Histogram,
    /// Ends of which no beginning is known.
    pub unmatched: u64,
    /// Beginnings that found no room in the map of threads.
    pub starts_lost: u64,
}

impl ReclaimStalls {
    /// No stall.
    pub const ZERO: ReclaimStalls =
        ReclaimStalls { durations: Histogram::ZERO, unmatched: 0, starts_lost: 0 };
}

const _: () = assert!(size_of::<ReclaimStalls>() == 8 * SLOTS + 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_in_the_order_of_their_numbers() {
        assert!(Scope::ALL.iter().zip(0..).all(|(scope, number)| *scope as u32 == number));
    }
}
