//! Stages that read and change entries allocate nothing for an entry once they have seen some like it: not
//! for one that does not match, and not for one that does where it gives no label another value.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
// A global allocator can't be written without `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use mote::logs::stage::{Stages, Step, Work};
use mote::model::{Block, Labels};
use tokio::time::Instant;

/// The system's allocator, with a count of what this thread asked of it.
struct Tally;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that it has not given back.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count() {
    let _ending = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

fn live(more: usize, less: usize) {
    let _ending = LIVE.try_with(|live| live.set(live.get() + more as isize - less as isize));
}

// SAFETY: every call goes to `System` with the caller's own arguments.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        live(layout.size(), 0);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        live(0, layout.size());
        // SAFETY: the pointer came from `alloc` above, and so from System, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        live(new_size, layout.size());
        // SAFETY: as `dealloc`; `new_size` is the caller's and keeps System's contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Tally = Tally;

/// A stage, a line that it is for, and one that it is not for.
const CASES: &[(&str, &str, &str)] = &[
    (r"regex = { expression = '^(?P<a>\w+) (?P<b>\S+)', metadata = ['a', 'b'] }", "GET /", "-"),
    (
        r#"json = { metadata = { a = "a.b", c = "c[1]" }, line = "m" }"#,
        r#"{"a":{"b":"x\ny"},"c":[1,2.5],"m":"line"}"#,
        "no JSON",
    ),
    (r#"logfmt = { metadata = ["a", "b"] }"#, r#"a=1 b="x\ny" c"#, "no pairs"),
    (r#"metadata = { a = "{none}-{s}" }"#, "x", "y"),
    (r#"rename = { none = "other" }"#, "x", "y"),
    (r#"remove = ["none"]"#, "x", "y"),
    (r#"keep_labels = ["s"]"#, "x", "y"),
    (r"replace = { expression = 'password=(\S+)', source = '*' }", "password=x", "x"),
    (r"replace = { expression = '\d+' }", "a 12 b 3", "x"),
    (r#"replace = { preset = "ipv4" }"#, "at 192.0.2.1", "x"),
    (r#"replace = { preset = "ipv6" }"#, "at fe80::1", "12:34:56"),
    (r#"replace = { preset = "email" }"#, "a@b.cd", "a@b"),
    (r#"timestamp = { format = "rfc3164", location = "Europe/Berlin" }"#, "Nov 21 22:00:00 x", "x"),
    (r#"timestamp = { json = "t", format = "rfc3339" }"#, r#"{"t":"2026-11-21T22:00:00Z"}"#, "x"),
    (r#"timestamp = { format = "unix", on_failure = "fudge" }"#, "1795298000", "x"),
    (r#"level = { metadata = "level" }"#, "time=1 level=warn", "nothing of it"),
    (r#"level = { metadata = "level" }"#, r#"{"level":"info"}"#, "an ERROR"),
];

#[test]
fn an_entry_costs_no_memory_of_its_own() {
    for (stage, good, other) in CASES {
        let toml = format!("[[logs.stage]]\n{stage}\n");
        let config = mote::config::parse(&toml, Path::new("mote.toml"), &[]).unwrap();
        let Some(Step::Extract(options)) = config.logs.stages.stages.first().map(|s| &s.step)
        else {
            panic!("{stage}");
        };
        let mut action = options.action();
        let mut work = Work::default();
        work.set_label("s", "stream");
        let mut run = |line: &str, times: usize| {
            let before = CALLS.get();
            for _ in 0..times {
                work.metadata.clear();
                work.line.clear();
                work.line.push_str(line);
                work.timestamp_ns = 1_795_298_400_000_000_000;
                action.apply(&mut work, 1_795_298_400_000_000_000);
            }
            CALLS.get() - before
        };
        // Buffers grow, the line's and the stage's among them, which change places.
        run(good, 8);
        run(other, 8);
        assert_eq!((run(good, 100), run(other, 100)), (0, 0), "{stage}");
    }
}

#[test]
fn what_a_burst_has_made_large_is_given_back() {
    let toml = "[[logs.stage]]\nreplace = { preset = 'ipv4', source = '*' }\n\
                [[logs.stage]]\nlevel = { metadata = 'level' }\n";
    let config = mote::config::parse(toml, Path::new("mote.toml"), &[]).unwrap();
    let mut stages = Stages::new(&config.logs.stages, &Default::default(), Instant::now());
    let run = |stages: &mut Stages| {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
        block.push(stream, 0, &"192.0.2.1 ".repeat(6_000));
        stages.run(&mut block, 0, Instant::now());
        assert!(block.entries().all(|entry| entry.line.starts_with("*** ***")));
    };
    // What is there for as long as the stages are.
    run(&mut stages);
    stages.rest();
    let idle = LIVE.get();
    run(&mut stages);
    let large = LIVE.get() - idle;
    assert!(large > 60_000, "{large} bytes are there to be given back");
    stages.rest();
    assert!(LIVE.get() - idle < 1_000, "{} bytes are kept", LIVE.get() - idle);
}
