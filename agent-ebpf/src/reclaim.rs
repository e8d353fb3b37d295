//! Memory reclaim: how long threads are held up because they have to free memory themselves before they
//! get any (include/trace/events/vmscan.h). None of the tracepoints' fields is needed: both ends run in
//! the thread that is held up, which does nothing else between them (PF_MEMALLOC keeps reclaim from
//! starting reclaim).

use agent_common::reclaim::{ReclaimStalls, Scope};
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::TracePointContext;

/// When the threads that reclaim have begun, in nanoseconds of CLOCK_MONOTONIC, by thread. A thread that
/// begins again takes its old entry's place.
#[map]
static RECLAIM_STARTS: HashMap<u32, u64> = HashMap::with_max_entries(256, 0);

/// By [`Scope`].
#[map]
static RECLAIM_STALLS: PerCpuArray<ReclaimStalls> =
    PerCpuArray::with_max_entries(Scope::ALL.len() as u32, 0);

#[tracepoint]
fn mm_vmscan_direct_reclaim_begin(_: TracePointContext) -> u32 {
    begin(Scope::Host)
}

#[tracepoint]
fn mm_vmscan_direct_reclaim_end(_: TracePointContext) -> u32 {
    end(Scope::Host)
}

#[tracepoint]
fn mm_vmscan_memcg_reclaim_begin(_: TracePointContext) -> u32 {
    begin(Scope::Cgroup)
}

#[tracepoint]
fn mm_vmscan_memcg_reclaim_end(_: TracePointContext) -> u32 {
    end(Scope::Cgroup)
}

#[inline(always)]
fn begin(scope: Scope) -> u32 {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if RECLAIM_STARTS.insert(thread(), now_ns, BPF_ANY as u64).is_err() {
        count(scope, |stalls| stalls.starts_lost += 1);
    }
    0
}

#[inline(always)]
fn end(scope: Scope) -> u32 {
    let thread = thread();
    // SAFETY: an entry is removed by the thread that it is about, which is this one, or by the agent when
    // it is old.
    let start_ns = unsafe { RECLAIM_STARTS.get(thread) }.copied();
    let Some(start_ns) = start_ns else {
        count(scope, |stalls| stalls.unmatched += 1);
        return 0;
    };
    // Nothing to be done about a failure: the agent has taken it out meanwhile.
    let _ = RECLAIM_STARTS.remove(thread);
    // SAFETY: the helper has no preconditions.
    let stall_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(start_ns);
    count(scope, |stalls| stalls.durations.observe(stall_ns));
    0
}

/// The thread's ID in the initial namespace.
#[inline(always)]
fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

#[inline(always)]
fn count(scope: Scope, add: impl FnOnce(&mut ReclaimStalls)) {
    if let Some(stalls) = RECLAIM_STALLS.get_ptr_mut(scope as u32) {
        // SAFETY: the value is this CPU's own, and programs of this kind don't nest on a CPU.
        add(unsafe { &mut *stalls });
    }
}
