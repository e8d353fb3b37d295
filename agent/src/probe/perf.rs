//! A perf event on a tracepoint, with a BPF program behind it. The program runs, on every CPU, for as
//! long as any process holds the event's descriptor (include/uapi/linux/perf_event.h, perf_event_open(2)).
//!
//! aya can attach too, but doesn't give out the descriptor that keeps the program attached; and this
//! way is the same on every kernel from 4.7 on, with and without BPF links.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;

const TYPE_TRACEPOINT: u32 = 2;
const FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const ANY_PROCESS: c_int = -1;
const NO_GROUP: c_int = -1;
/// _IO('$', 0), _IO('$', 1) and _IOW('$', 8, __u32).
const IOC_ENABLE: u32 = 0x2400;
const IOC_DISABLE: u32 = 0x2401;
const IOC_SET_BPF: u32 = 0x4004_2408;

/// An event on one CPU is enough for the program to run on all, but that CPU must be online.
const MAX_CPU: c_int = 64;

/// `struct perf_event_attr` in its first size, PERF_ATTR_SIZE_VER0.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

const _: () = assert!(size_of::<Attributes>() == 64);

/// A thread that closes an event runs nothing but system calls.
const STACK: usize = 64 << 10;

/// The events of a probe. Dropped, they are switched off at once, so that its programs don't run any more,
/// and closed by threads of their own: the kernel waits for two grace periods of RCU with each, one for the
/// program (perf_event_detach_bpf_prog) and one for the tracepoint (perf_trace_event_unreg), some 70 ms
/// here. Only the first kind of wait can be shared, as the other is under a lock for all events.
#[derive(Debug, Default)]
pub(super) struct Attachment(Vec<OwnedFd>);

impl Attachment {
    pub(super) fn new(events: Vec<OwnedFd>) -> Attachment {
        Attachment(events)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        for event in &self.0 {
            // What fails ends with the descriptor, a little later.
            let _ = ioctl(event, IOC_DISABLE, 0);
        }
        for event in self.0.drain(..) {
            let thread = thread::Builder::new().name("mote-detach".to_owned()).stack_size(STACK);
            // Without a thread it is closed here.
            let _ = thread.spawn(move || drop(event));
        }
    }
}

/// Attaches a program to the tracepoint with this ID.
pub(super) fn attach(tracepoint: u32, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let event = (0..MAX_CPU)
        .map(|cpu| open(tracepoint, cpu))
        .find(|opened| !matches!(opened, Err(e) if e.raw_os_error() == Some(libc::ENODEV)))
        .unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::ENODEV)))?;
    ioctl(&event, IOC_SET_BPF, program.as_raw_fd())?;
    ioctl(&event, IOC_ENABLE, 0)?;
    Ok(event)
}

#[expect(unsafe_code, reason = "neither std nor rustix has perf_event_open")]
fn open(tracepoint: u32, cpu: c_int) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: u64::from(tracepoint),
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `size` bytes from the pointer, which are all of `attributes`, and keeps
    // none of it; the other arguments are numbers.
    let fd: c_long = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            ANY_PROCESS,
            cpu,
            NO_GROUP,
            FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that the call gave to no one else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

#[expect(unsafe_code, reason = "these requests have no wrapper")]
fn ioctl(event: &OwnedFd, request: u32, argument: c_int) -> io::Result<()> {
    // SAFETY: the requests take a number or nothing and touch no memory of this process.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
