//! Freed memory back to the system. glibc keeps what lies below its heap's end; musl gives back by itself.

/// From here on an allocation is a mapping of its own, which goes back when it is freed; musl does so from 128 KiB
/// on. glibc, left alone, takes the largest freed one for the measure: up to 32 MiB.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 64 << 10;

/// How much may be free at the heap's end before that goes back.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 64 << 10;

/// By how much more than is needed the heap grows.
#[cfg(target_env = "gnu")]
const AHEAD: libc::c_int = 16 << 10;

/// To be called before anything large is allocated: the allocator keeps little, and threads share one heap.
#[cfg(target_env = "gnu")]
pub fn keep_little() {
    let settings = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MAPPED),
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_TOP_PAD, AHEAD),
    ];
    for (which, value) in settings {
        // SAFETY: mallopt takes two numbers and takes the allocator's own locks (mallopt(3): MT-unsafe only beside
        // the first allocation, which was before `main`). One that it refuses changes nothing.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(which, value);
        }
    }
}

/// Nothing: the allocator keeps little.
#[cfg(not(target_env = "gnu"))]
pub fn keep_little() {}

/// Gives what is freed and still the process's back to the system, as far as the allocator can. It takes some
/// tens of microseconds for each megabyte.
#[cfg(target_env = "gnu")]
pub fn trim() {
    // SAFETY: malloc_trim takes a number, has no other precondition, and takes the allocator's own locks
    // (malloc_trim(3): MT-safe).
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Nothing: the allocator gives back by itself.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}
