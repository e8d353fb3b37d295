//! What the kernel's clock discipline says: adjtimex(2) with nothing to set (kernel/time/ntp.c). It must not
//! know what becomes of the numbers.
//!
//! The system call is made directly. C libraries don't agree on `struct timex`: musl 1.2 has 64-bit times in
//! it on 32-bit machines and converts, glibc has both kinds. The kernel's own layout for this number of the
//! system call is one and the same in C's `long`: `struct __kernel_timex` on 64-bit machines,
//! `struct old_timex32` on 32-bit ones (include/uapi/linux/timex.h, include/linux/time32.h). The time of day
//! in it would overflow in 2038 there; it is not used.
#![allow(unsafe_code, reason = "no wrapper exists that is right on 32-bit musl")]

use std::ffi::{c_int, c_long, c_uint};
use std::io;

/// `struct timex` as the kernel fills it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Timex {
    /// What is to be set; 0 reads only and needs no right.
    modes: c_uint,
    /// Nanoseconds with [`Timex::STA_NANO`], else microseconds, as `jitter`.
    pub offset: c_long,
    /// Parts per million, with 16 bits behind the point, as `ppsfreq` and `stabil`.
    pub freq: c_long,
    /// Microseconds, as `esterror`.
    pub maxerror: c_long,
    /// Estimated error.
    pub esterror: c_long,
    /// Bits `STA_*`.
    pub status: c_int,
    /// Time constant of the phase-locked loop.
    pub constant: c_long,
    precision: c_long,
    tolerance: c_long,
    time: [c_long; 2],
    /// Microseconds between clock ticks.
    pub tick: c_long,
    /// Frequency of the pulse per second.
    pub ppsfreq: c_long,
    /// Its jitter.
    pub jitter: c_long,
    /// Its interval, as a power of two of seconds.
    pub shift: c_int,
    /// Its stability.
    pub stabil: c_long,
    /// How often its jitter was beyond the limit.
    pub jitcnt: c_long,
    /// Calibration intervals.
    pub calcnt: c_long,
    /// Calibration errors.
    pub errcnt: c_long,
    /// How often its stability was beyond the limit.
    pub stbcnt: c_long,
    /// Seconds of TAI before UTC.
    pub tai: c_int,
    unused: [c_int; 11],
}

// The kernel's sizes.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Timex>() == 208);
#[cfg(target_pointer_width = "32")]
const _: () = assert!(size_of::<Timex>() == 128);

impl Timex {
    /// The bit of `status` that says that nobody keeps the clock right: set at the start, and again when the
    /// error that nobody corrects may have grown to 16 s, which takes 9 hours.
    pub const STA_UNSYNC: c_int = 0x0040;

    /// The bit of `status` that says nanoseconds.
    pub const STA_NANO: c_int = 0x2000;

    /// Asks the kernel; the number is the clock's state, `TIME_*`.
    ///
    /// # Errors
    /// EPERM where a container's filter forbids the call.
    pub fn read() -> io::Result<(c_int, Timex)> {
        let mut timex = Timex::default();
        // SAFETY: the kernel reads and writes one `struct timex` at the address, which is that of a value
        // of the size and layout asserted above, writable and not shared; every bit pattern is a valid
        // Timex, and the kernel keeps no pointer.
        let state = unsafe { libc::syscall(libc::SYS_adjtimex, &raw mut timex) };
        match c_int::try_from(state) {
            Ok(state) if state >= 0 => Ok((state, timex)),
            Ok(_) | Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_fills_the_fields_where_they_are_expected() {
        let (state, timex) = Timex::read().unwrap();
        assert!((0..=5).contains(&state), "{state}");
        // From 9,000 to 11,000 with any HZ (kernel/time/ntp.c), and in the middle of the struct.
        assert!((9_000..=11_000).contains(&timex.tick), "{timex:?}");
        // 500 parts per million, which no kernel changes.
        assert_eq!(timex.tolerance, 500 << 16);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(now.as_secs().abs_diff(timex.time[0] as u64) < 3, "{timex:?}");
        assert!((0..100).contains(&timex.tai) && timex.unused == [0; 11]);
    }
}
