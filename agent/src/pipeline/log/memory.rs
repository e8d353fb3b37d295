//! What a log in memory counts, as counts of one on a disk.

use crate::wal::{Loss, LossReason, Stats};

/// The counts of a log in memory, which writes nothing to a disk.
pub(super) fn of_memory(stats: Stats) -> Stats {
    Stats { written_bytes: 0, syncs: 0, ..stats }
}

/// What the memory had no room for would have had room on the disk.
pub(super) fn of_memory_losses(losses: Vec<Loss>) -> Vec<Loss> {
    let of_disk = |loss: Loss| match loss.reason {
        LossReason::Full => Loss { reason: LossReason::NoDisk, ..loss },
        _ => loss,
    };
    losses.into_iter().map(of_disk).collect()
}
