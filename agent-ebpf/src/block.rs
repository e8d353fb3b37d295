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

use agent_common::block::{
    BlockCounters, BlockErrorEvent, BlockErrorKey, BlockHistogram, BlockKey, BlockPlace,
    BlockStart, MAX_AGE_NS, Operation, failed_operation, is_fault, operation, place,
};
use agent_common::event::Kind;
use agent_common::{ABSENT, direct};
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::{Array, PerCpuArray, PerCpuHashMap};
use aya_ebpf::programs::TracePointContext;

use crate::errors;
use crate::event::{emit, header};
use crate::fields::{direct, field};
use crate::say::say;

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

/// Places in the table of requests less one.
#[unsafe(no_mangle)]
static BLOCK_PLACES: Global<u32> = Global::new(0);

/// Requests that drivers have; the agent sizes it.
#[map]
static BLOCK_STARTS: Array<BlockPlace> = Array::with_max_entries(1, 0);

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

/// The fields that all tracepoints have.
struct Request {
    sector: u64,
    device: u32,
    operation: Operation,
    sectors: u32,
}

#[tracepoint]
fn block_rq_issue(ctx: TracePointContext) -> u32 {
    let request = request(
        direct!(&ctx, u32, direct::ISSUE_DEV),
        direct!(&ctx, u64, direct::ISSUE_SECTOR),
        direct!(&ctx, u32, direct::ISSUE_NR_SECTOR),
        [
            direct!(&ctx, u8, direct::ISSUE_RWBS),
            direct!(&ctx, u8, direct::ISSUE_RWBS + 1),
            direct!(&ctx, u8, direct::ISSUE_RWBS + 2),
            0,
        ],
    );
    if let Some(request) = request {
        issued(&request);
    }
    0
}

#[tracepoint]
fn block_rq_complete(ctx: TracePointContext) -> u32 {
    let request = request(
        direct!(&ctx, u32, direct::COMPLETE_DEV),
        direct!(&ctx, u64, direct::COMPLETE_SECTOR),
        direct!(&ctx, u32, direct::COMPLETE_NR_SECTOR),
        [
            direct!(&ctx, u8, direct::COMPLETE_RWBS),
            direct!(&ctx, u8, direct::COMPLETE_RWBS + 1),
            direct!(&ctx, u8, direct::COMPLETE_RWBS + 2),
            0,
        ],
    );
    if let Some(request) = request {
        if let Some(error) = field(&ctx, &BLOCK_COMPLETE_ERROR) {
            let Request { sector, device, operation, sectors } = request;
            failed(&ctx, device, operation as u32, sector, sectors, error);
        }
        completed(&request);
    }
    0
}

#[tracepoint]
fn block_rq_error(ctx: TracePointContext) -> u32 {
    let Some(error) = field::<i32>(&ctx, &BLOCK_ERROR_ERROR) else { return 0 };
    let Some(device) = field::<u32>(&ctx, &BLOCK_ERROR_DEV) else { return 0 };
    let Some(rwbs) = field(&ctx, &BLOCK_ERROR_RWBS) else { return 0 };
    let Some(sectors) = field::<u32>(&ctx, &BLOCK_ERROR_NR_SECTOR) else { return 0 };
    let Some(sector) = field::<u64>(&ctx, &BLOCK_ERROR_SECTOR) else { return 0 };
    let sector = if sector == u64::MAX { 0 } else { sector };
    say!(
        &ctx,
        "block_rq_error: dev {} sector {} nr_sector {} error {}",
        device,
        sector,
        sectors,
        error
    );
    failed(&ctx, device, failed_operation(rwbs, sectors), sector, sectors, error);
    0
}

#[inline(always)]
fn request(device: u32, sector: u64, sectors: u32, rwbs: [u8; 4]) -> Option<Request> {
    let operation = operation(rwbs, sectors)?;
    if matches!(operation, Operation::Flush) {
        return Some(Request { sector: 0, device, operation, sectors: 0 });
    }
    if sectors == 0 || sector == u64::MAX {
        return None;
    }
    Some(Request { sector, device, operation, sectors })
}

/// The place of a request that begins at this sector.
#[inline(always)]
fn place_of(sector: u64, request: &Request) -> Option<&'static mut BlockPlace> {
    let operation = request.operation as u32;
    let place = place(sector, request.device, operation, BLOCK_PLACES.load());
    // SAFETY: plain numbers that other CPUs may write as well, as `BlockPlace` says.
    BLOCK_STARTS.get_ptr_mut(place).map(|place| unsafe { &mut *place })
}

/// Notes a request in its place.
#[inline(always)]
fn note(start: BlockStart, request: &Request) {
    let Some(place) = place_of(start.sector, request) else { return };
    if place.note(start) {
        count(|counters| counters.starts_lost += 1);
    }
}

#[inline(always)]
fn issued(request: &Request) {
    let start = BlockStart {
        // SAFETY: the helper has no preconditions.
        at_ns: unsafe { bpf_ktime_get_ns() },
        sector: request.sector,
        device: request.device,
        operation: request.operation as u32,
        sectors: request.sectors,
        done: 0,
    };
    note(start, request);
}

#[inline(always)]
fn completed(request: &Request) {
    let Some(place) = place_of(request.sector, request) else { return };
    let is = |have: &BlockStart| have.is(request.sector, request.device, request.operation as u32);
    let [first, second, third, fourth] = &mut place.starts;
    let start = if is(first) {
        first
    } else if is(second) {
        second
    } else if is(third) {
        third
    } else if is(fourth) {
        fourth
    } else {
        count(|counters| counters.unmatched += 1);
        return;
    };
    let BlockStart { at_ns, sectors, done, .. } = *start;
    start.at_ns = 0;
    if request.sectors < sectors {
        let rest = BlockStart {
            at_ns,
            sector: request.sector + request.sectors as u64,
            device: request.device,
            operation: request.operation as u32,
            sectors: sectors - request.sectors,
            done: done.wrapping_add(request.sectors),
        };
        note(rest, request);
        return;
    }
    // SAFETY: the helper has no preconditions.
    let latency = unsafe { bpf_ktime_get_ns() }.wrapping_sub(at_ns);
    if latency > MAX_AGE_NS {
        count(|counters| counters.unmatched += 1);
        return;
    }
    let key = BlockKey { device: request.device, operation: request.operation as u32 };
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
fn failed(
    ctx: &TracePointContext,
    device: u32,
    operation: u32,
    sector: u64,
    sectors: u32,
    error: i32,
) {
    let error = error.wrapping_neg() as u32;
    if !is_fault(error) {
        return;
    }
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
