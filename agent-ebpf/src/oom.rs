//! OOM kills: `oom:mark_victim` (mark_oom_victim in mm/oom_kill.c) comes once for each process that the
//! kernel has chosen, in the context of the one that asked for memory, before the victim is gone.

use agent_common::ABSENT;
use agent_common::event::Kind;
use agent_common::oom::{COMM, OomCounters, OomEvent, UNKNOWN};
use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TracePointContext;

use crate::event::{emit, header};
use crate::fields::{field, text, word};
use crate::say::say;

#[unsafe(no_mangle)]
static OOM_PID: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_COMM: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_TOTAL_VM: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_ANON_RSS: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_FILE_RSS: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_SHMEM_RSS: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_UID: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_PGTABLES: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static OOM_SCORE_ADJ: Global<u32> = Global::new(ABSENT);

#[map]
static OOM_COUNTERS: PerCpuArray<OomCounters> = PerCpuArray::with_max_entries(1, 0);

#[tracepoint]
fn mark_victim(ctx: TracePointContext) -> u32 {
    if let Some(counters) = OOM_COUNTERS.get_ptr_mut(0) {
        // SAFETY: the value is this CPU's own, and programs of this kind don't nest on a CPU.
        unsafe { (*counters).victims += 1 };
    }
    let mut event = OomEvent {
        header: header(Kind::Oom),
        total_vm_kb: word(&ctx, &OOM_TOTAL_VM).unwrap_or(UNKNOWN),
        anon_rss_kb: word(&ctx, &OOM_ANON_RSS).unwrap_or(UNKNOWN),
        file_rss_kb: word(&ctx, &OOM_FILE_RSS).unwrap_or(UNKNOWN),
        shmem_rss_kb: word(&ctx, &OOM_SHMEM_RSS).unwrap_or(UNKNOWN),
        pgtables_kb: word(&ctx, &OOM_PGTABLES).unwrap_or(UNKNOWN),
        pid: field(&ctx, &OOM_PID).unwrap_or(0),
        uid: field(&ctx, &OOM_UID).unwrap_or(u32::MAX),
        trigger_pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        oom_score_adj: field::<i16>(&ctx, &OOM_SCORE_ADJ).map_or(i32::MIN, i32::from),
        comm: [0; COMM],
        trigger: bpf_get_current_comm().unwrap_or([0; COMM]),
    };
    text(&ctx, &OOM_COMM, &mut event.comm);
    say!(
        &ctx,
        "mark_victim: pid {} uid {} anon_rss_kb {} trigger_pid {}",
        event.pid,
        event.uid,
        event.anon_rss_kb,
        event.trigger_pid
    );
    let header = event.header;
    emit(&ctx, Kind::Oom, &header, &event);
    0
}
