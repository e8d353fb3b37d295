//! The system's allocator with a count of calls and bytes, and of what is held, of all threads. A program
//! installs it with `#[global_allocator]`; without that the counts stay zero.

// A global allocator can't be written without `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator.
#[derive(Debug)]
pub struct Tally;

/// What was allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Calls that asked for memory: alloc, alloc_zeroed, and realloc, which may move.
    pub calls: usize,
    /// Bytes that they asked for; of a realloc the whole new size.
    pub bytes: usize,
}

/// What `work` allocates, in whatever thread.
pub fn allocated(work: impl FnOnce()) -> Allocated {
    let before = (CALLS.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst));
    work();
    Allocated {
        calls: CALLS.load(Ordering::SeqCst).wrapping_sub(before.0),
        bytes: BYTES.load(Ordering::SeqCst).wrapping_sub(before.1),
    }
}

/// The most bytes that are held at once during `work`, beyond what is held before it.
pub fn peak(work: impl FnOnce()) -> usize {
    let before = live();
    PEAK.store(before, Ordering::SeqCst);
    work();
    PEAK.load(Ordering::SeqCst).saturating_sub(before)
}

/// Bytes that are held now.
pub fn live() -> usize {
    LIVE.load(Ordering::SeqCst)
}

fn count(bytes: usize, freed: usize) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    BYTES.fetch_add(bytes, Ordering::SeqCst);
    let live = LIVE.fetch_add(bytes.wrapping_sub(freed), Ordering::SeqCst);
    PEAK.fetch_max(live.wrapping_add(bytes).wrapping_sub(freed), Ordering::SeqCst);
}

// SAFETY: every call goes to `System` with the caller's own arguments, and the counters are no part of
// what the caller gets.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the pointer came from `alloc` above, and so from System, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        // SAFETY: as `dealloc`; `new_size` is the caller's and keeps System's contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
