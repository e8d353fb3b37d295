//! OOM kills: what the program on `oom:mark_victim` hands over.

use crate::event::Header;
use crate::plain::plain;

plain!(OomCounters);

/// Bytes of a process' name with its NUL (TASK_COMM_LEN of include/linux/sched.h).
pub const COMM: usize = 16;

/// A number that this kernel's tracepoint does not have.
pub const UNKNOWN: u64 = u64::MAX;

/// A process that is about to be killed. The figures in KiB are those of its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct OomEvent {
    /// The kind is [`Kind::Oom`](crate::event::Kind::Oom).
    pub header: Header,
    /// Mapped; [`UNKNOWN`] before 6.9, as the other figures, unless it was ported back.
    pub total_vm_kb: u64,
    /// Resident and anonymous.
    pub anon_rss_kb: u64,
    /// Resident and of files.
    pub file_rss_kb: u64,
    /// Resident and shared.
    pub shmem_rss_kb: u64,
    /// Page tables.
    pub pgtables_kb: u64,
    /// The victim's process ID in the initial namespace.
    pub pid: u32,
    /// The victim's user; `u32::MAX` where the tracepoint does not say it.
    pub uid: u32,
    /// The process that asked for memory when there was none, in the initial namespace.
    pub trigger_pid: u32,
    /// The victim's badness adjustment; `i32::MIN` where the tracepoint does not say it.
    pub oom_score_adj: i32,
    /// The victim's name, closed with NUL; empty where the tracepoint does not say it.
    pub comm: [u8; COMM],
    /// The name of the process that asked for memory.
    pub trigger: [u8; COMM],
}

/// What one CPU has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct OomCounters {
    /// Processes that were marked as victims.
    pub victims: u64,
}

const _: () = {
    assert!(size_of::<OomEvent>() == 104);
    assert!(size_of::<OomCounters>() == 8);
};
