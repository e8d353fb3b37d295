//! CPU time of processes, user and system together, in the scheduler's nanoseconds: ticks of 10 ms
//! would be too coarse for what is measured here.

use std::io;
use std::time::Duration;

use crate::Result;

/// What this process has used so far, threads that have ended included.
///
/// # Errors
/// The kernel's.
pub fn own() -> Result<Duration> {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// What another process has used so far.
///
/// # Errors
/// There is no such process.
pub fn of(pid: u32) -> Result<Duration> {
    // The clock of a process as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED of all its threads.
    let pid = libc::clockid_t::try_from(pid)?;
    read((!pid << 3) | 2)
}

#[expect(unsafe_code, reason = "std has no clock of other processes")]
fn read(clock: libc::clockid_t) -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to the pointer, which is to a timespec of ours.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_sees_the_same_time_by_both_clocks() {
        let (one, two) = (super::own().unwrap(), super::of(std::process::id()).unwrap());
        assert!(one <= two && !one.is_zero(), "{one:?} {two:?}");
        assert!(super::of(u32::MAX).is_err());
    }
}
