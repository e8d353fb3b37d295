//! File systems. `ext4:ext4_error` comes for each structure on the disk that ext4 finds to be wrong
//! (__ext4_error and its kin in fs/ext4/super.c), `filemap:filemap_set_wb_err` for each piece of written
//! data that did not get to its place (__filemap_set_wb_err in mm/filemap.c): the program that wrote it
//! has gone on and learns of it only if it calls fsync.

use agent_common::ABSENT;
use agent_common::event::Kind;
use agent_common::filesystem::{EXT4, FilesystemErrorKey, FilesystemEvent, error};
use aya_ebpf::Global;
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::TracePointContext;

use crate::errors;
use crate::event::{emit, header};
use crate::fields::{field, word};
use crate::say::say;

#[unsafe(no_mangle)]
static EXT4_ERROR_DEV: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static EXT4_ERROR_LINE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static WB_ERR_INODE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static WB_ERR_DEV: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static WB_ERR_ERRSEQ: Global<u32> = Global::new(ABSENT);

/// Errors: some file systems, each with one or two.
#[map]
static FILESYSTEM_ERRORS: PerCpuHashMap<FilesystemErrorKey, u64> =
    PerCpuHashMap::with_max_entries(64, 0);

#[tracepoint]
fn ext4_error(ctx: TracePointContext) -> u32 {
    let Some(device) = field(&ctx, &EXT4_ERROR_DEV) else { return 0 };
    let line = field(&ctx, &EXT4_ERROR_LINE).unwrap_or(0);
    failed(&ctx, FilesystemErrorKey { device, error: EXT4 }, 0, line);
    0
}

#[tracepoint]
fn filemap_set_wb_err(ctx: TracePointContext) -> u32 {
    let Some(device) = field(&ctx, &WB_ERR_DEV) else { return 0 };
    let Some(errseq) = field(&ctx, &WB_ERR_ERRSEQ) else { return 0 };
    let error = error(errseq);
    if error != 0 {
        let inode = word(&ctx, &WB_ERR_INODE).unwrap_or(0);
        failed(&ctx, FilesystemErrorKey { device, error }, inode, 0);
    }
    0
}

#[inline(always)]
fn failed(ctx: &TracePointContext, key: FilesystemErrorKey, inode: u64, line: u32) {
    errors::count(&FILESYSTEM_ERRORS, &key, Kind::Filesystem);
    let header = header(Kind::Filesystem);
    say!(ctx, "filesystem: dev {} error {} inode {} line {}", key.device, key.error, inode, line);
    let event = FilesystemEvent { header, key, inode, line, padding: 0 };
    emit(ctx, Kind::Filesystem, &header, &event);
}
