//! A process that needs more memory than its cgroup may have, and is killed for it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::checks::{Outcome, World, event};

/// The argument that makes this program that process.
pub(crate) const EAT: &str = "eat";

const UNIT: &str = "eater.service";
const CGROUP: &str = "/sys/fs/cgroup/eater.service";
const LIMIT: usize = 96 << 20;

/// Kills three, one after the other.
pub(crate) fn kill(world: &mut World<'_>) -> Result<Outcome> {
    const TIMES: u32 = 3;
    fs::create_dir_all(CGROUP).map_err(|error| format!("{CGROUP}: {error}"))?;
    fs::write(format!("{CGROUP}/memory.max"), LIMIT.to_string())
        .map_err(|error| format!("{CGROUP}: {error}"))?;
    let had = kills()?;
    let mut pids = Vec::new();
    for _ in 0..TIMES {
        let mut child =
            Command::new("/init").arg(EAT).spawn().map_err(|error| format!("{EAT}: {error}"))?;
        pids.push(child.id());
        let status = child.wait().map_err(|error| format!("{EAT}: {error}"))?;
        if status.success() {
            return Err("a process got more memory than its cgroup has".to_owned());
        }
        // Far enough apart for a source that is looked at only now and then.
        std::thread::sleep(Duration::from_millis(200));
    }
    let (before, after) = world.step()?;
    let expected = kills()? - had;
    if expected != u64::from(TIMES) {
        return Err(format!("{TIMES} processes were to be killed, memory.events has {expected}"));
    }
    let name = "mote_oom_kills_total";
    let counted = after.page.sum(name, &[]) - before.page.sum(name, &[]);
    if counted != expected as f64 {
        return Err(format!("memory.events has {expected}, but {}", after.page.show(name)));
    }
    let mode = world.mode("oom").unwrap_or_default();
    let mut last = String::new();
    for pid in &pids {
        // The counters of /proc name nobody.
        let number = if mode == "proc" { String::new() } else { format!(" pid={pid} ") };
        last = event("oom_kill", |event| event.contains(&number))?;
    }
    Ok(Outcome::Good(format!("{counted}, memory.events {expected}; {last}")))
}

/// Whether the kills of [`kill`] were counted for the cgroup that they happened in.
pub(crate) fn unit(world: &mut World<'_>) -> Result<Outcome> {
    let (_, now) = world.step()?;
    let name = "mote_oom_kills_total";
    if now.page.sum(name, &[]) == 0.0 {
        return Err("there was no kill to be counted".to_owned());
    }
    if now.page.sum(name, &[("unit", UNIT)]) != now.page.sum(name, &[]) {
        return Err(format!("all were of {UNIT}, but {}", now.page.show(name)));
    }
    Ok(Outcome::Good(now.page.show(name)))
}

/// What the cgroup itself counts.
fn kills() -> Result<u64> {
    let path = format!("{CGROUP}/memory.events");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.ok_or_else(|| format!("{path} has no oom_kill"))
}

/// Joins the cgroup and takes memory until it is killed.
///
/// # Errors
/// It was not killed.
pub(crate) fn eat() -> Result<()> {
    fs::write(format!("{CGROUP}/cgroup.procs"), "0").map_err(|error| error.to_string())?;
    let mut eaten = Vec::new();
    for _ in 0..LIMIT >> 19 {
        eaten.push(vec![1u8; 1 << 20]);
    }
    std::hint::black_box(&eaten);
    // Success tells the parent that nothing has killed it.
    Ok(())
}
