//! The examples of docs/relabel.md, and what rules cost a round: nothing that was not there before.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
// A global allocator can't be written without `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use mote::config;
use mote::model::{Desc, Labels, Samples};
use mote::relabel::{LabelSet, NAME, Rules, Shaper, Verdict};

/// The system's allocator, with a count of what this thread asked of it.
struct Tally;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    let _ending = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call goes to `System` with the caller's own arguments.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, and so from System, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as `dealloc`; `new_size` is the caller's and keeps System's contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Tally = Tally;

fn rules(toml: &str) -> Rules {
    let config = config::parse(toml, Path::new("mote.toml"), &[]);
    config.unwrap_or_else(|error| panic!("{error}")).metrics.relabel
}

/// `name{a="1", b="2"}` after the rules; None if they drop it.
fn relabel(rules: &Rules, series: &str) -> Option<String> {
    let (name, labels) = series.split_once('{').unwrap();
    let mut set = LabelSet::new();
    set.add(NAME, name);
    for label in labels.strip_suffix('}').unwrap().split(", ") {
        let (name, value) = label.split_once("=\"").unwrap();
        set.add(name, value.strip_suffix('"').unwrap());
    }
    set.sort();
    match rules.apply(&mut set) {
        Verdict::Keep => {
            set.sort();
            let labels = set.iter().filter(|(name, _)| *name != NAME);
            let labels: Vec<_> = labels.map(|(n, v)| format!("{n}={v:?}")).collect();
            Some(format!("{}{{{}}}\n", set.get(NAME), labels.join(", ")))
        }
        Verdict::Drop => None,
        Verdict::TooLarge => panic!("{series}"),
    }
}

#[test]
fn examples_do_what_is_said_of_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs/relabel.md")).unwrap();
    let blocks: Vec<(&str, &str)> =
        text.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap()).collect();
    assert!(blocks.len() >= 3 * 7 && blocks.len().is_multiple_of(3), "{} blocks", blocks.len());
    for example in blocks.chunks(3) {
        let [("toml", toml), ("in", before), ("out", after)] = example else {
            panic!("three blocks each: {example:?}")
        };
        let rules = rules(toml);
        let got: String = before.lines().filter_map(|series| relabel(&rules, series)).collect();
        assert_eq!(got, *after, "{toml}");
    }
    for (action, _) in mote::relabel::Action::ALL {
        let named = format!("action = {action:?}");
        assert!(action == "replace" || text.contains(&named), "{action} has no example");
    }
}

/// Collects a round of some hundred series of which rules change every kind.
fn collect(shaper: &Rc<RefCell<Shaper>>, samples: &mut Samples, labels: &[String]) {
    const A: Desc = Desc::gauge("a", "");
    const B: Desc = Desc::counter("b_total", "");
    shaper.borrow_mut().begin();
    samples.clear();
    for label in labels {
        samples.family(&A).add(&[("x", label), ("y", "1")], 1.0);
        samples.family(&B).add(&[("x", label)], 2.0).add(&[("x", label), ("z", "2")], 3.0);
    }
    samples.begin_own();
    samples.value(&Desc::gauge("up", ""), 1.0);
}

#[test]
fn rounds_of_series_that_were_there_before_allocate_nothing() {
    let rules = rules(
        "[[metrics.relabel]]\nsource_labels = [\"__name__\", \"x\"]\nregex = \"a;1.*\"\naction = \"drop\"\n\
         [[metrics.relabel]]\nsource_labels = [\"x\"]\nregex = \"2(.*)\"\ntarget_label = \"x\"\nreplacement = \"two-$1\"\n\
         [[metrics.relabel]]\naction = \"labeldrop\"\nregex = \"z\"\n",
    );
    let common = Labels::from_pairs([("instance", "box"), ("job", "node")]).unwrap();
    let shaper = Rc::new(RefCell::new(Shaper::new(rules, common)));
    let mut samples = Samples::with_limit(2_000).shaped(Some(Box::new(Rc::clone(&shaper))));
    let labels: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for _ in 0..3 {
        collect(&shaper, &mut samples, &labels);
    }
    shaper.borrow_mut().take_counts();
    // Begins with a 1: 1, 10 to 19, 100 to 199. One of each `b_total` is the other's double.
    let dropped = 1 + 10 + 100;
    assert_eq!(samples.len(), 2 * 300 - dropped + 1);
    let calls = CALLS.with(Cell::get);
    let rounds: u64 = 200;
    for _ in 0..rounds {
        collect(&shaper, &mut samples, &labels);
    }
    assert_eq!(CALLS.with(Cell::get) - calls, 0);
    let (counts, _) = shaper.borrow_mut().take_counts();
    assert_eq!((counts.dropped, counts.duplicates), (rounds * dropped as u64, rounds * 300));
    let memory = shaper.borrow().memory();
    assert!(memory < 1_200 * 100, "{memory} bytes for 900 series");
}
