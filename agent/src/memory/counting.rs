//! The system's allocator with a count of live bytes.

// A global allocator can't be written without `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most that [`LIVE`] was.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Calls that have taken memory, up to where the number begins anew.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator; the binary installs it with `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

/// Bytes that are allocated and not freed, as the program asked for them: without the allocator's own
/// overhead and without what C libraries allocate. Zero where [`Counting`] is not installed.
pub fn live_bytes() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// The most that [`live_bytes`] has been since the start.
pub fn peak_bytes() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// How often memory was taken since the start. What moves counts as well; of 2^32 calls a 32-bit machine begins
/// again at zero.
pub fn allocations() -> usize {
    CALLS.load(Ordering::Relaxed)
}

fn add(bytes: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

fn sub(bytes: usize) {
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call goes to `System` with the caller's own arguments, and the counter is no part of
// what the caller gets.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is System's.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            add(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            add(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, and so from System, with this layout.
        unsafe { System.dealloc(pointer, layout) };
        sub(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as `dealloc`; `new_size` is the caller's and keeps System's contract.
        let new = unsafe { System.realloc(pointer, layout, new_size) };
        if !new.is_null() {
            // In this order the difference is never counted as the sum of both.
            sub(layout.size());
            add(new_size);
        }
        new
    }
}
