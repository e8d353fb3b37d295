//! SCSI disks (include/trace/events/scsi.h). `scsi_dispatch_cmd_done` comes for every command, so what
//! went well costs it one number.

use agent_common::ABSENT;
use agent_common::event::Kind;
use agent_common::scsi::{NO_SENSE_KEY, ScsiErrorKey, ScsiEvent, code, error, is_refusal};
use aya_ebpf::Global;
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::TracePointContext;

use crate::errors;
use crate::event::{emit, header};
use crate::fields::field;
use crate::say::say;

#[unsafe(no_mangle)]
static SCSI_DONE_HOST: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_DONE_CHANNEL: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_DONE_ID: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_DONE_LUN: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_DONE_RESULT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_DONE_OPCODE: Global<u32> = Global::new(ABSENT);
/// Since 6.12.
#[unsafe(no_mangle)]
static SCSI_DONE_SENSE_KEY: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_TIMEOUT_HOST: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_TIMEOUT_CHANNEL: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_TIMEOUT_ID: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_TIMEOUT_LUN: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_TIMEOUT_RESULT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_TIMEOUT_OPCODE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_ERROR_HOST: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_ERROR_CHANNEL: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_ERROR_ID: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_ERROR_LUN: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_ERROR_RTN: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SCSI_ERROR_OPCODE: Global<u32> = Global::new(ABSENT);

/// Failed commands: some devices, each with some errors.
#[map]
static SCSI_ERRORS: PerCpuHashMap<ScsiErrorKey, u64> = PerCpuHashMap::with_max_entries(64, 0);

#[tracepoint]
fn scsi_dispatch_cmd_done(ctx: TracePointContext) -> u32 {
    let Some(result) = field::<u32>(&ctx, &SCSI_DONE_RESULT) else { return 0 };
    if result == 0 {
        return 0;
    }
    let Some(opcode) = field::<u32>(&ctx, &SCSI_DONE_OPCODE) else { return 0 };
    let sense_key = field::<u8>(&ctx, &SCSI_DONE_SENSE_KEY).map_or(NO_SENSE_KEY, u32::from);
    let Some(error) = error(result, opcode, sense_key) else { return 0 };
    let device =
        device(&ctx, &SCSI_DONE_HOST, &SCSI_DONE_CHANNEL, &SCSI_DONE_ID, &SCSI_DONE_LUN, error);
    if let Some(key) = device {
        failed(&ctx, key, opcode, result);
    }
    0
}

#[tracepoint]
fn scsi_dispatch_cmd_timeout(ctx: TracePointContext) -> u32 {
    let device = device(
        &ctx,
        &SCSI_TIMEOUT_HOST,
        &SCSI_TIMEOUT_CHANNEL,
        &SCSI_TIMEOUT_ID,
        &SCSI_TIMEOUT_LUN,
        code::TIMEOUT,
    );
    let Some(key) = device else { return 0 };
    let Some(opcode) = field(&ctx, &SCSI_TIMEOUT_OPCODE) else { return 0 };
    let Some(result) = field(&ctx, &SCSI_TIMEOUT_RESULT) else { return 0 };
    failed(&ctx, key, opcode, result);
    0
}

#[tracepoint]
fn scsi_dispatch_cmd_error(ctx: TracePointContext) -> u32 {
    let Some(returned) = field::<u32>(&ctx, &SCSI_ERROR_RTN) else { return 0 };
    if !is_refusal(returned) {
        return 0;
    }
    let device = device(
        &ctx,
        &SCSI_ERROR_HOST,
        &SCSI_ERROR_CHANNEL,
        &SCSI_ERROR_ID,
        &SCSI_ERROR_LUN,
        code::DISPATCH,
    );
    let Some(key) = device else { return 0 };
    let Some(opcode) = field(&ctx, &SCSI_ERROR_OPCODE) else { return 0 };
    failed(&ctx, key, opcode, returned);
    0
}

#[inline(always)]
fn device(
    ctx: &TracePointContext,
    host: &Global<u32>,
    channel: &Global<u32>,
    id: &Global<u32>,
    lun: &Global<u32>,
    error: u32,
) -> Option<ScsiErrorKey> {
    Some(ScsiErrorKey {
        host: field(ctx, host)?,
        channel: field(ctx, channel)?,
        id: field(ctx, id)?,
        lun: field(ctx, lun)?,
        error,
        padding: 0,
    })
}

#[inline(always)]
fn failed(ctx: &TracePointContext, key: ScsiErrorKey, opcode: u32, result: u32) {
    errors::count(&SCSI_ERRORS, &key, Kind::Scsi);
    say!(
        ctx,
        "scsi: host {} id {} lun {} opcode {} result {:x} error {}",
        key.host,
        key.id,
        key.lun,
        opcode,
        result,
        key.error
    );
    let header = header(Kind::Scsi);
    emit(ctx, Kind::Scsi, &header, &ScsiEvent { header, key, opcode, result });
}
