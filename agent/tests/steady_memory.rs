//! A round that finds what the round before it found allocates nothing, on every fixture whose sources are
//! all there, and on this machine.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
// A global allocator can't be written without `unsafe`.
#![allow(unsafe_code)]

mod fixtures;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mote::collector::{Options, Outcome, Set, TABLE};
use mote::host::{Host, Roots};
use mote::model::Samples;

/// The system's allocator, with a count of what all threads asked of it.
struct Tally;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` with the caller's own arguments.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, and so from System, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: as `dealloc`; `new_size` is the caller's and keeps System's contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Tally = Tally;

/// Enough for what happens every few dozen calls, such as a channel's next block.
const ROUNDS: usize = 48;
/// In which buffers grow, and files of processes are seen for the first time.
const WARM: usize = 4;

#[test]
fn a_steady_round_allocates_nothing() {
    // A folder with a short name, because paths of 256 bytes and more are copied to the heap for the system
    // call; those of a real /sys are shorter.
    let copies = fixtures::TREES.map(|tree| (tree, fixtures::Copy::of(tree)));
    // `textfile` reads files again that were changed just now.
    std::thread::sleep(Duration::from_secs(4));
    let mut steady = 0;
    for (tree, copy) in &copies {
        steady += check(tree, &fixtures::options(), || fixtures::host(copy.path()));
    }
    steady += check("live", &Options::default(), || Host::new(Roots::default()));
    assert!(steady > 100, "only {steady} collectors ran");
}

/// Each collector alone, so that one that allocates is named. Gives how many had all of their samples.
fn check(tree: &str, options: &Options, host: impl Fn() -> Host) -> usize {
    let mut good = 0;
    for entry in TABLE {
        let mut host = host();
        let mut set = Set::new(|other| other.name == entry.name, options);
        let mut out = Samples::with_limit(60_000);
        let mut calls = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            out.clear();
            let before = CALLS.load(Ordering::SeqCst);
            set.collect(&mut host, &mut out);
            calls.push(CALLS.load(Ordering::SeqCst) - before);
        }
        // What is missing or fails may allocate to say so.
        if !set.status().all(|status| *status.outcome == Outcome::Good) {
            continue;
        }
        good += 1;
        // Containers whose runtime does not answer are asked for again, at longer and longer intervals.
        // A running machine's lists may grow.
        let allowed = if entry.name == "containers" || tree == "live" { ROUNDS / 8 } else { 0 };
        let busy = calls.iter().skip(WARM).filter(|calls| **calls > 0).count();
        assert!(busy <= allowed, "{tree}: {} allocates in steady rounds: {calls:?}", entry.name);
    }
    good
}
