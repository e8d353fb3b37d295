//! Handing events over: through a ring buffer, or in the object for kernels before 5.8 (feature
//! `perf-buffer`) through a perf buffer. Rationed by CPU and kind, and what does not get through is
//! counted.

use agent_common::event::{Header, KINDS, Kind, Ration, WINDOW_EVENTS, WINDOW_NS};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TracePointContext;

/// The agent sizes it. Whoever waits for it is woken when it was empty, and not for every event.
#[cfg(not(feature = "perf-buffer"))]
#[map]
static EVENTS: aya_ebpf::maps::RingBuf = aya_ebpf::maps::RingBuf::with_byte_size(16 << 10, 0);

#[cfg(feature = "perf-buffer")]
#[map]
static EVENTS: aya_ebpf::maps::PerfEventByteArray = aya_ebpf::maps::PerfEventByteArray::new(0);

/// One ration for each kind.
#[map]
static EVENT_RATIONS: PerCpuArray<Ration> = PerCpuArray::with_max_entries(KINDS as u32, 0);

/// The header of an event of now.
#[inline(always)]
pub(crate) fn header(kind: Kind) -> Header {
    // SAFETY: the helper has no preconditions.
    Header { at_ns: unsafe { bpf_ktime_get_ns() }, kind: kind as u32, padding: 0 }
}

/// Hands an event over that begins with `header`.
#[inline(always)]
pub(crate) fn emit<T>(ctx: &TracePointContext, kind: Kind, header: &Header, event: &T) {
    let Some(ration) = EVENT_RATIONS.get_ptr_mut(kind as u32) else { return };
    // SAFETY: the value is this CPU's own, and programs of this kind don't nest on a CPU.
    let ration = unsafe { &mut *ration };
    if !matches!(kind, Kind::Oom) {
        if header.at_ns.wrapping_sub(ration.since_ns) >= WINDOW_NS {
            ration.since_ns = header.at_ns;
            ration.sent = 0;
        }
        if ration.sent >= WINDOW_EVENTS {
            ration.withheld += 1;
            return;
        }
        ration.sent += 1;
    }
    if !output(ctx, event) {
        ration.lost += 1;
    }
}

#[cfg(not(feature = "perf-buffer"))]
#[inline(always)]
fn output<T>(_: &TracePointContext, event: &T) -> bool {
    EVENTS.output::<T>(event, 0).is_ok()
}

#[cfg(feature = "perf-buffer")]
#[inline(always)]
fn output<T>(ctx: &TracePointContext, event: &T) -> bool {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
    use aya_ebpf::helpers::bpf_perf_event_output;
    // SAFETY: the helper reads `size_of::<T>()` bytes from the event. aya's own call drops its answer.
    let error = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            (&raw const EVENTS).cast_mut().cast(),
            BPF_F_CURRENT_CPU,
            core::ptr::from_ref(event).cast_mut().cast(),
            size_of::<T>() as u64,
        )
    };
    error == 0
}
