//! Block I/O past the page cache: requests that succeed, and reads of a sector that can't be read.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use crate::checks::{Outcome, Snapshot, World, event};
use crate::{Result, guest};

const FAMILY: &str = "mote_block_io_duration_seconds";
const BLOCK: usize = 4096;
const WRITES: u64 = 40;
const READS: u64 = 60;
const FLUSHES: u64 = 3;

/// Where the faulty disks can't be read: their second MiB, as the harness has set it.
pub(super) const BAD_OFFSET: u64 = 1 << 20;

/// O_DIRECT wants memory that is aligned like the device's blocks.
#[repr(align(4096))]
pub(super) struct Aligned(pub(super) [u8; BLOCK]);

/// Opens a disk past the page cache.
pub(super) fn open(disk: &str) -> Result<File> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let path = guest::node(disk);
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(direct);
    options.open(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Requests of good disks, counted exactly as /proc/diskstats counts them. Flushes apart: the kernel
/// counts an empty one as a write too, although no write is issued (block/blk-flush.c).
pub(crate) fn requests(world: &mut World<'_>) -> Result<Outcome> {
    let names = ["good", "nvme"];
    let disks: Vec<String> =
        names.iter().filter_map(|name| guest::disk(world.plan, name)).collect();
    if disks.is_empty() {
        return Err("this machine has no disk to write to".to_owned());
    }
    let mut compared = Vec::new();
    for disk in &disks {
        let fail = |error: std::io::Error| format!("{disk}: {error}");
        let file = open(disk)?;
        let mut block = Aligned([7; BLOCK]);
        for at in 0..WRITES {
            file.write_all_at(&block.0, at * BLOCK as u64).map_err(fail)?;
        }
        for at in 0..READS {
            file.read_exact_at(&mut block.0, at * BLOCK as u64).map_err(fail)?;
        }
    }
    let (start, moved) = world.step()?;
    let traced = world.mode("block") == Some("tracepoint");
    if !traced && !moved.page.has(&format!("{FAMILY}_count"), &[]) {
        return Ok(Outcome::Skip("no latencies in this mode".to_owned()));
    }
    for disk in &disks {
        compared.push(compare(&start, &moved, disk, "read", READS)?);
        compared.push(compare(&start, &moved, disk, "write", WRITES)?);
    }
    for disk in &disks {
        let file = open(disk)?;
        for _ in 0..FLUSHES {
            file.sync_all().map_err(|error| format!("{disk}: {error}"))?;
        }
    }
    let (_, flushed) = world.step()?;
    for disk in &disks {
        let labels = [("device", disk.as_str()), ("operation", "write")];
        let name = format!("{FAMILY}_count");
        if traced && flushed.page.sum(&name, &labels) != moved.page.sum(&name, &labels) {
            return Err(format!("{disk}: a flush was counted as a write"));
        }
        // A disk without a cache of its own is sent none.
        compared.push(compare(&moved, &flushed, disk, "flush", 0)?);
    }
    Ok(Outcome::Good(compared.join(", ")))
}

/// Compares counts and times of one operation, of which there must have been `least`.
fn compare(
    before: &Snapshot,
    after: &Snapshot,
    disk: &str,
    operation: &str,
    least: u64,
) -> Result<String> {
    let labels = [("device", disk), ("operation", operation)];
    let difference = |suffix: &str| {
        let name = format!("{FAMILY}{suffix}");
        after.page.sum(&name, &labels) - before.page.sum(&name, &labels)
    };
    let (count, seconds) = (difference("_count"), difference("_sum"));
    let of = |snapshot: &Snapshot| {
        let requests = snapshot.kernel.requests(disk, operation);
        requests.ok_or_else(|| format!("diskstats has no {operation} of {disk}"))
    };
    let (was, is) = (of(before)?, of(after)?);
    let (expected, ms) = (is.count - was.count, is.ms - was.ms);
    if expected < least {
        return Err(format!("{disk}: diskstats has only {expected} requests to {operation}"));
    }
    if count != expected as f64 {
        return Err(format!(
            "{disk}: {count} requests to {operation}, diskstats has {expected}; {}",
            after.page.show(&format!("{FAMILY}_count"))
        ));
    }
    // The kernel takes its times at other places, between which an emulated processor may pause at
    // will: this finds wrong units and wrong pairs, no more.
    let kernels = ms as f64 / 1000.0;
    if ms > 0 && !(seconds > 0.0 && seconds <= 10.0 * kernels + 0.1 && seconds >= kernels / 100.0) {
        return Err(format!("{disk}: {count} {operation} in {seconds} s, diskstats has {ms} ms"));
    }
    Ok(format!("{disk} {operation} {count} in {seconds:.4} s ({ms} ms)"))
}

/// Reads of a sector that the disk can't read.
pub(crate) fn errors(world: &mut World<'_>) -> Result<Outcome> {
    let Some(disk) = guest::disk(world.plan, "bad") else {
        return Ok(Outcome::Skip("this machine has no faulty disk".to_owned()));
    };
    let failed = fail_reads(&disk, 5)?;
    let (before, after) = world.step()?;
    let labels = [("device", disk.as_str()), ("operation", "read")];
    let name = "mote_block_io_errors_total";
    let counted = after.page.sum(name, &labels) - before.page.sum(name, &labels);
    // Without programs the errors are in the kernel's log alone, which not everyone may read.
    if world.mode("block") == Some("proc") && !world.has_log() && counted == 0.0 {
        return Ok(Outcome::Skip("neither programs nor the kernel's log".to_owned()));
    }
    if counted != failed as f64 {
        return Err(format!("{failed} reads of {disk} failed, but {}", after.page.show(name)));
    }
    let event = event("io_error", |event| event.contains(&disk))?;
    Ok(Outcome::Good(format!("{counted} failed reads of {disk}; {event}")))
}

/// Reads where the disk can't be read, and returns how often that failed.
pub(super) fn fail_reads(disk: &str, times: u64) -> Result<u64> {
    let file = open(disk)?;
    let mut block = Aligned([0; BLOCK]);
    for _ in 0..times {
        if file.read_exact_at(&mut block.0, BAD_OFFSET).is_ok() {
            return Err(format!("{disk} could be read at {BAD_OFFSET}"));
        }
    }
    Ok(times)
}
