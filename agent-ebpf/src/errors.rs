//! Counting errors by key, in a table of a bounded size for each family. What finds no room there is
//! counted as well: `ERRORS_LOST`.

use agent_common::event::{KINDS, Kind};
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, PerCpuHashMap};

/// Errors that found no room in their table, by kind.
#[map]
static ERRORS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(KINDS as u32, 0);

/// Counts an error of this kind in its table.
#[inline(always)]
pub(crate) fn count<K>(errors: &PerCpuHashMap<K, u64>, key: &K, kind: Kind) {
    let counted = match errors.get_ptr_mut(key) {
        Some(counted) => Some(counted),
        None => {
            // Another CPU may have been first, so only what is found afterwards counts.
            let _ = errors.insert(key, 0, BPF_NOEXIST as u64);
            errors.get_ptr_mut(key)
        }
    };
    let Some(counted) = counted.or_else(|| ERRORS_LOST.get_ptr_mut(kind as u32)) else { return };
    // SAFETY: the value is this CPU's own, and programs of this kind don't nest on a CPU.
    unsafe { *counted += 1 };
}
