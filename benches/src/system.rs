//! What processes ask of the kernel, as it counts it itself: times that they were taken off a CPU or gave
//! it up, and reads.

use std::fs;
use std::io;

use crate::Result;

/// Since a process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Context switches, voluntary or not, of all its threads.
    pub switches: u64,
    /// read(2), pread(2) and what else reads.
    pub reads: u64,
}

/// This process', threads that have ended included.
///
/// # Errors
/// The kernel's.
pub fn own() -> Result<Counts> {
    let usage = usage()?;
    let switches = u64::try_from(usage.ru_nvcsw)? + u64::try_from(usage.ru_nivcsw)?;
    Ok(Counts { switches, reads: reads("self")? })
}

/// Another process'; of its threads, those that there are.
///
/// # Errors
/// There is no such process.
pub fn of(pid: u32) -> Result<Counts> {
    let mut switches = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(Counts { switches, reads: reads(&pid.to_string())? })
}

impl Counts {
    /// What has come since then.
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            switches: self.switches.saturating_sub(before.switches),
            reads: self.reads.saturating_sub(before.reads),
        }
    }

    /// The sum of both.
    pub fn plus(self, other: Counts) -> Counts {
        Counts { switches: self.switches + other.switches, reads: self.reads + other.reads }
    }
}

fn reads(process: &str) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{process}/io"))?;
    field(&io, "syscr:").ok_or_else(|| format!("/proc/{process}/io has no syscr").into())
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[expect(unsafe_code, reason = "std has no getrusage")]
fn usage() -> Result<libc::rusage> {
    // SAFETY: a rusage is numbers alone, for which zeros are good.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one rusage to the pointer, which is to a rusage of ours.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_counts_the_same_from_both_sides() {
        let one = super::own().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        let two = super::of(std::process::id()).unwrap();
        assert!(two.reads > one.reads && two.switches > 0, "{one:?} {two:?}");
        assert!(super::own().unwrap().since(one).switches > 0);
        assert!(super::of(u32::MAX).is_err());
    }
}
