//! Errors below and above the block layer: an SD card, a SCSI disk, a file system.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;

use rustix::mount::{MountFlags, UnmountFlags};

use super::block::fail_reads;
use crate::checks::{Outcome, World, event};
use crate::{Result, guest};

/// Reads that the SCSI disk answers with a medium error.
pub(crate) fn scsi(world: &mut World<'_>) -> Result<Outcome> {
    let Some(disk) = guest::disk(world.plan, "scsi") else {
        return Ok(Outcome::Skip("this machine has no faulty SCSI disk".to_owned()));
    };
    let failed = fail_reads(&disk, 2)?;
    let (before, after) = world.step()?;
    let name = "mote_scsi_errors_total";
    let counted = after.page.sum(name, &[]) - before.page.sum(name, &[]);
    // The layer may try again by itself before it gives up.
    if counted < failed as f64 {
        return Err(format!("{failed} reads of {disk} failed, but {}", after.page.show(name)));
    }
    let event = event("scsi_error", |_| true)?;
    Ok(Outcome::Good(format!("{counted} errors, {failed} failed reads of {disk}; {event}")))
}

/// A command that no card knows, and that none answers.
pub(crate) fn card(world: &mut World<'_>) -> Result<Outcome> {
    const TIMES: u32 = 2;
    let Some(disk) = guest::disk(world.plan, "card") else {
        return Ok(Outcome::Skip("this machine has no card".to_owned()));
    };
    let path = guest::node(&disk);
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    for _ in 0..TIMES {
        if unknown_command(&file).is_ok() {
            return Ok(Outcome::Skip("this card answers a command that does not exist".to_owned()));
        }
    }
    let (before, after) = world.step()?;
    let name = "mote_mmc_errors_total";
    let counted = after.page.sum(name, &[]) - before.page.sum(name, &[]);
    if counted < f64::from(TIMES) {
        return Err(format!("{TIMES} commands failed, but {}", after.page.show(name)));
    }
    let event = event("mmc_error", |_| true)?;
    Ok(Outcome::Good(format!("{counted} errors, {TIMES} failed commands; {event}")))
}

/// struct mmc_ioc_cmd of linux/mmc/ioctl.h.
#[repr(C, align(8))]
#[derive(Default)]
struct Command {
    write_flag: i32,
    is_acmd: i32,
    opcode: u32,
    arg: u32,
    response: [u32; 4],
    flags: u32,
    blksz: u32,
    blocks: u32,
    postsleep_min_us: u32,
    postsleep_max_us: u32,
    data_timeout_ns: u32,
    cmd_timeout_ms: u32,
    pad: u32,
    data_ptr: u64,
}

/// Sends the reserved command 60 and expects an answer of kind R1.
fn unknown_command(card: &File) -> std::io::Result<()> {
    const R1: u32 = 1 << 0 | 1 << 2 | 1 << 4;
    // _IOWR(MMC_BLOCK_MAJOR, 0, struct mmc_ioc_cmd)
    const MMC_IOC_CMD: u32 = 3 << 30 | (size_of::<Command>() as u32) << 16 | 179 << 8;
    const { assert!(size_of::<Command>() == 72) };
    let mut command = Command { opcode: 60, flags: R1, ..Command::default() };
    #[expect(unsafe_code, reason = "no wrapper of this ioctl exists")]
    // SAFETY: the kernel reads and writes the one structure, whose size is part of the request, and
    // follows no pointer, because the command has no blocks.
    let result = unsafe { libc::ioctl(card.as_raw_fd(), MMC_IOC_CMD as _, &raw mut command) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// An error that ext4 is told to have (its attribute trigger_fs_error).
pub(crate) fn filesystem(world: &mut World<'_>) -> Result<Outcome> {
    const PLACE: &str = "/run/ext4";
    let Some(disk) = guest::disk(world.plan, "ext4") else {
        return Ok(Outcome::Skip("this machine has no disk with ext4".to_owned()));
    };
    fs::create_dir_all(PLACE).map_err(|error| format!("{PLACE}: {error}"))?;
    let mounted =
        rustix::mount::mount(guest::node(&disk), PLACE, "ext4", MountFlags::empty(), None);
    if let Err(error) = mounted {
        return Ok(Outcome::Skip(format!("ext4 can't be mounted: {error}")));
    }
    let trigger = format!("/sys/fs/ext4/{disk}/trigger_fs_error");
    fs::write(&trigger, "1").map_err(|error| format!("{trigger}: {error}"))?;
    let (before, after) = world.step()?;
    let counters = format!("/sys/fs/ext4/{disk}/errors_count");
    let expected = fs::read_to_string(&counters).map_err(|error| format!("{counters}: {error}"))?;
    rustix::mount::unmount(PLACE, UnmountFlags::empty())
        .map_err(|error| format!("unmounting {PLACE}: {error}"))?;
    let name = "mote_filesystem_errors_total";
    let counted = after.page.sum(name, &[]) - before.page.sum(name, &[]);
    if counted < 1.0 || expected.trim() == "0" {
        return Err(format!(
            "ext4 has errors_count {}; {}",
            expected.trim(),
            after.page.show(name)
        ));
    }
    let event = event("filesystem_error", |event| event.contains(&disk))?;
    Ok(Outcome::Good(format!("{counted}, errors_count {}; {event}", expected.trim())))
}
