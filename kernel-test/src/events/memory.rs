//! More memory than there is, so that whoever wants some must first free it: direct reclaim.

use std::fs::File;
use std::io::Read as _;

use crate::checks::{Outcome, World};
use crate::{Result, guest};

/// Fills the page cache and takes memory from it. The kernel's own account is the sum of `allocstall_*`
/// in /proc/vmstat; kswapd may free it all in time, and then there is nothing to compare.
pub(crate) fn reclaim(world: &mut World<'_>) -> Result<Outcome> {
    let Some(disk) = guest::disk(world.plan, "large") else {
        return Ok(Outcome::Skip("this machine has no large disk".to_owned()));
    };
    let path = guest::node(&disk);
    let mut file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).map_err(|error| format!("{disk}: {error}"))? > 0 {}
    let (before, after) = world.step()?;
    let stalls = after.kernel.vmstat("allocstall") - before.kernel.vmstat("allocstall");
    if stalls == 0 {
        return Ok(Outcome::Skip("no process had to free memory itself".to_owned()));
    }
    // What had to be freed for a cgroup is not in allocstall.
    let name = "mote_memory_reclaim_stall_seconds_count";
    let labels = [("scope", "host")];
    let counted = after.page.sum(name, &labels) - before.page.sum(name, &labels);
    // One stall may be counted again when the kernel tries anew (do_try_to_free_pages in mm/vmscan.c).
    if counted > stalls as f64 || counted < 0.8 * stalls as f64 {
        return Err(format!("allocstall {stalls}, but {}", after.page.show(name)));
    }
    Ok(Outcome::Good(format!("{counted}, allocstall {stalls}")))
}
