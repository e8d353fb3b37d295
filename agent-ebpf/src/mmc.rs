//! SD and eMMC cards: `mmc:mmc_request_done` (mmc_request_done and mmc_cqe_request_done in
//! drivers/mmc/core/core.c) comes for each request, and again for each time that one is tried. What went
//! well costs the reading of five numbers.

use agent_common::ABSENT;
use agent_common::event::Kind;
use agent_common::mmc::{HOST, MmcErrorKey, MmcEvent, failure};
use aya_ebpf::Global;
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::TracePointContext;

use crate::errors;
use crate::event::{emit, header};
use crate::fields::{field, text};
use crate::say::say;

#[unsafe(no_mangle)]
static MMC_NAME: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static MMC_OPCODE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static MMC_SBC_ERR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static MMC_CMD_ERR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static MMC_DATA_ERR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static MMC_STOP_ERR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static MMC_BYTES: Global<u32> = Global::new(ABSENT);

/// Failed requests: a few hosts, each with some errors.
#[map]
static MMC_ERRORS: PerCpuHashMap<MmcErrorKey, u64> = PerCpuHashMap::with_max_entries(32, 0);

#[tracepoint]
fn mmc_request_done(ctx: TracePointContext) -> u32 {
    let Some(opcode) = field(&ctx, &MMC_OPCODE) else { return 0 };
    let Some(sbc) = field(&ctx, &MMC_SBC_ERR) else { return 0 };
    let Some(cmd) = field(&ctx, &MMC_CMD_ERR) else { return 0 };
    let Some(data) = field(&ctx, &MMC_DATA_ERR) else { return 0 };
    let Some(stop) = field(&ctx, &MMC_STOP_ERR) else { return 0 };
    let Some((part, error)) = failure(opcode, sbc, cmd, data, stop) else { return 0 };
    let mut key = MmcErrorKey { host: [0; HOST], error, padding: 0 };
    text(&ctx, &MMC_NAME, &mut key.host);
    errors::count(&MMC_ERRORS, &key, Kind::Mmc);
    let header = header(Kind::Mmc);
    let bytes = field::<u32>(&ctx, &MMC_BYTES).unwrap_or(0) as u64;
    say!(&ctx, "mmc_request_done: opcode {} part {} error {}", opcode, part as u32, error);
    let event = MmcEvent { header, key, opcode, part: part as u32, bytes };
    emit(&ctx, Kind::Mmc, &header, &event);
    0
}
