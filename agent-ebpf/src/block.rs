//! Block I/O: latency from the moment a request goes to its driver to the moment all of it is done, by
//! device and operation (include/trace/events/block.h, block/blk-mq.c).
//!
//! - `block_rq_issue` (blk_mq_start_request) notes the time. A requeued request is issued again under
//!   the same key, so the last issue counts and nothing is counted twice.
//! - `block_rq_complete` (blk_update_request) comes for each part of a request that is done. A part
//!   moves the entry on to the sector where the rest begins; only the last part is an observation.
//!   That is one observation a request, as /proc/diskstats counts.
//! - A write with a preflush or FUA on a device without FUA passes through block/blk-flush.c, which
//!   ends it a second time with no bytes; and an empty flush ends without ever having been issued, for
//!   which a flush request of the queue's own went to the driver (`FF`). Completions without bytes,
//!   flushes apart, are therefore no completions of a device.
//! - A flush request has no sector: 0 in the issue, all ones in the completion. So have passthrough
//!   commands, which no one counts: no sectors in the issue, and all ones in the completion.
//!
//! Programs of perf's tracepoints don't nest on a CPU (trace_call_bpf): a completion that interrupts
//! another such program is missed, and the kernel counts it in the program's `recursion_misses`.

use agent_common::ABSENT;
use agent_common::block::{
    BlockCounters, BlockErrorEvent, BlockErrorKey, BlockHistogram, BlockKey, BlockStart,
    BlockStartKey, Operation, failed_operation, is_fault, operation,
};
use agent_common::event::Kind;
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::{HashMap, PerCpuArray, PerCpuHashMap};
use aya_ebpf::programs::TracePointContext;

use crate::errors;
use crate::event::{emit, header};
use crate::fields::field;

#[unsafe(no_mangle)]
static BLOCK_ISSUE_DEV: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ISSUE_SECTOR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ISSUE_NR_SECTOR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ISSUE_RWBS: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_COMPLETE_DEV: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_COMPLETE_SECTOR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_COMPLETE_NR_SECTOR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_COMPLETE_RWBS: Global<u32> = Global::new(ABSENT);
/// Present only where there is no `block_rq_error`.
#[unsafe(no_mangle)]
static BLOCK_COMPLETE_ERROR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ERROR_DEV: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ERROR_SECTOR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ERROR_NR_SECTOR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ERROR_RWBS: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static BLOCK_ERROR_ERROR: Global<u32> = Global::new(ABSENT);

/// Requests that drivers have; the agent sizes it, counts them, and takes out what is there so long that
/// its completion must have been missed.
#[map]
static BLOCK_STARTS: HashMap<BlockStartKey, BlockStart> = HashMap::with_max_entries(1024, 0);

/// Failed requests: some devices, each with some operations and errors.
#[map]
static BLOCK_ERRORS: PerCpuHashMap<BlockErrorKey, u64> = PerCpuHashMap::with_max_entries(64, 0);

/// 16 devices with all four operations. Not LRU: a histogram that vanished would be a counter reset.
#[map]
static BLOCK_LATENCY: PerCpuHashMap<BlockKey, BlockHistogram> =
    PerCpuHashMap::with_max_entries(64, 0);

#[map]
static BLOCK_COUNTERS: PerCpuArray<BlockCounters> = PerCpuArray::with_max_entries(1, 0);

/// In read-only data, because 240 zero bytes on the stack of 512 would be a call of memset.
static EMPTY: BlockHistogram = BlockHistogram::ZERO;

/// The fields that both tracepoints have.
struct Request {
    key: BlockStartKey,
    operation: Operation,
    sectors: u32,
}

#[tracepoint]
fn block_rq_issue(ctx: TracePointContext) -> u32 {
    let request = read(
        &ctx,
        &BLOCK_ISSUE_DEV,
        &BLOCK_ISSUE_SECTOR,
        &BLOCK_ISSUE_NR_SECTOR,
        &BLOCK_ISSUE_RWBS,
    );
    if let Some(request) = request {
        issued(&request);
    }
    0
}

#[tracepoint]
fn block_rq_complete(ctx: TracePointContext) -> u32 {
    let request = read(
        &ctx,
        &BLOCK_COMPLETE_DEV,
        &BLOCK_COMPLETE_SECTOR,
        &BLOCK_COMPLETE_NR_SECTOR,
        &BLOCK_COMPLETE_RWBS,
    );
    if let Some(request) = request {
        if let Some(error) = field(&ctx, &BLOCK_COMPLETE_ERROR) {
            failed(&ctx, &request.key, request.sectors, error);
        }
        completed(request);
    }
    0
}

#[tracepoint]
fn block_rq_error(ctx: TracePointContext) -> u32 {
    let (Some(device), Some(rwbs), Some(sectors), Some(sector), Some(error)) = (
        field(&ctx, &BLOCK_ERROR_DEV),
        field(&ctx, &BLOCK_ERROR_RWBS),
        field::<u32>(&ctx, &BLOCK_ERROR_NR_SECTOR),
        field::<u64>(&ctx, &BLOCK_ERROR_SECTOR),
        field(&ctx, &BLOCK_ERROR_ERROR),
    ) else {
        return 0;
    };
    let sector = if sector == u64::MAX { 0 } else { sector };
    let key = BlockStartKey { sector, device, operation: failed_operation(rwbs, sectors) };
    failed(&ctx, &key, sectors, error);
    0
}

#[inline(always)]
fn read(
    ctx: &TracePointContext,
    dev: &Global<u32>,
    sector: &Global<u32>,
    nr_sector: &Global<u32>,
    rwbs: &Global<u32>,
) -> Option<Request> {
    let sectors: u32 = field(ctx, nr_sector)?;
    let operation = operation(field(ctx, rwbs)?, sectors)?;
    let mut sector: u64 = field(ctx, sector)?;
    if matches!(operation, Operation::Flush) {
        sector = 0;
    } else if sectors == 0 || sector == u64::MAX {
        return None;
    }
    let key = BlockStartKey { sector, device: field(ctx, dev)?, operation: operation as u32 };
    Some(Request { key, operation, sectors })
}

#[inline(always)]
fn issued(request: &Request) {
    let sectors = if matches!(request.operation, Operation::Flush) { 0 } else { request.sectors };
    // SAFETY: the helper has no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let start = BlockStart { at_ns, sectors, done: 0 };
    if BLOCK_STARTS.insert(request.key, start, BPF_ANY as u64).is_err() {
        count(|counters| counters.starts_lost += 1);
    }
}

#[inline(always)]
fn completed(request: Request) {
    // SAFETY: entries are preallocated and may be reused while they are read, but only once they have
    // been removed: by the completion of this request, which is this one, or by the agent, long after.
    let Some(&BlockStart { at_ns, sectors, done }) = (unsafe { BLOCK_STARTS.get(request.key) })
    else {
        count(|counters| counters.unmatched += 1);
        return;
    };
    // Nothing to be done about a failure: the agent has taken it out meanwhile.
    let _ = BLOCK_STARTS.remove(request.key);
    if request.sectors < sectors {
        let mut rest = request.key;
        rest.sector += request.sectors as u64;
        let start = BlockStart {
            at_ns,
            sectors: sectors - request.sectors,
            done: done.wrapping_add(request.sectors),
        };
        if BLOCK_STARTS.insert(rest, start, BPF_ANY as u64).is_err() {
            count(|counters| counters.starts_lost += 1);
        }
        return;
    }
    // SAFETY: the helper has no preconditions.
    let latency = unsafe { bpf_ktime_get_ns() }.wrapping_sub(at_ns);
    let key = BlockKey { device: request.key.device, operation: request.key.operation };
    let histogram = match BLOCK_LATENCY.get_ptr_mut(key) {
        Some(histogram) => histogram,
        None => {
            // Another CPU may have been first, so only what is found afterwards counts.
            let _ = BLOCK_LATENCY.insert(key, &EMPTY, BPF_NOEXIST as u64);
            match BLOCK_LATENCY.get_ptr_mut(key) {
                Some(histogram) => histogram,
                None => {
                    count(|counters| counters.histograms_lost += 1);
                    return;
                }
            }
        }
    };
    // SAFETY: the value is this CPU's own, and programs of this kind don't nest on a CPU.
    let histogram = unsafe { &mut *histogram };
    histogram.latency.observe(latency);
    histogram.bytes += (done as u64 + sectors as u64) << 9;
}

/// Counts a request that has failed and hands it over.
#[inline(always)]
fn failed(ctx: &TracePointContext, request: &BlockStartKey, sectors: u32, error: i32) {
    let error = error.wrapping_neg() as u32;
    if !is_fault(error) {
        return;
    }
    let BlockStartKey { sector, device, operation } = *request;
    let key = BlockErrorKey { device, operation, error, padding: 0 };
    errors::count(&BLOCK_ERRORS, &key, Kind::BlockError);
    let header = header(Kind::BlockError);
    let event = BlockErrorEvent { header, key, sector, sectors: sectors as u64 };
    emit(ctx, Kind::BlockError, &header, &event);
}

#[inline(always)]
fn count(add: impl FnOnce(&mut BlockCounters)) {
    if let Some(counters) = BLOCK_COUNTERS.get_ptr_mut(0) {
        // SAFETY: as in `completed`.
        add(unsafe { &mut *counters });
    }
}
