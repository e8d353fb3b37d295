//! Every file of every fixture tree, cut, emptied, altered, full of rubbish, made very large, replaced by a
//! folder, removed: no collector panics, those that don't read it notice nothing, and those that do work
//! again once it is good again. Files and readers are found (`fixtures/foreign.rs`), so that a new
//! collector or file is in it without a line here. Which error names what, `collectors_malformed.rs` tells.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/dice.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used, reason = "the other tests' support")]
mod dice;
mod fixtures;

use dice::Dice;
use fixtures::foreign::{Foreign, Trial, difference, outcome, prints, text};
use mote::collector::{Outcome, Set, TABLE};
use mote::model::Samples;

/// How often files of one tree are foreign, spread over all of them: the time of this test stays about the
/// same, however many files there are.
const TIMES: usize = 800;
/// But so often each file.
const LEAST: usize = 2;
const MOST: usize = 24;
/// Collectors that don't read the file and are looked at with it.
const WITNESSES: usize = 2;
/// More failures than these say nothing new.
const TOLD: usize = 20;

#[test]
fn a_foreign_file_of_pi5_costs_its_readers_alone() {
    costs_its_readers_alone(0);
}

#[test]
fn a_foreign_file_of_pi_zero_costs_its_readers_alone() {
    costs_its_readers_alone(1);
}

#[test]
fn a_foreign_file_of_nas_costs_its_readers_alone() {
    costs_its_readers_alone(2);
}

#[test]
fn a_foreign_file_of_vm_costs_its_readers_alone() {
    costs_its_readers_alone(3);
}

#[test]
fn a_foreign_file_of_container_costs_its_readers_alone() {
    costs_its_readers_alone(4);
}

#[test]
fn every_tree_is_tried() {
    assert_eq!(fixtures::TREES, ["pi5", "pi-zero", "nas", "vm", "container"]);
}

fn costs_its_readers_alone(tree: usize) {
    let mut trial = Trial::new(fixtures::TREES[tree], &[]);
    let mut dice = Dice::new(0x6d6f_7465 + tree as u64);
    let readers: usize = trial.files.iter().map(|file| file.readers.len()).sum();
    assert!(readers > 10, "{}: {readers} readers of {} files", trial.name, trial.files.len());
    let each = (TIMES / trial.files.len()).clamp(LEAST, MOST);
    let mut sets = Sets::new(&mut trial);
    let (mut failures, mut tried) = (Vec::new(), 0);
    for at in 0..trial.files.len() {
        for (what, foreign) in foreign(&trial.files[at].good, each, &mut dice) {
            let witnesses = witnesses(&trial, at, &mut dice);
            let fresh = dice.roll(4) == 0;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                sets.look(&mut trial, at, &foreign, &witnesses, fresh)
            }));
            tried += 1;
            let found = result.unwrap_or_else(|panic| {
                trial.restore(&trial.files[at]);
                sets = Sets::new(&mut trial);
                let text = panic.downcast_ref::<String>().map(String::as_str);
                vec![text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic").to_owned()]
            });
            let name = &trial.files[at].name;
            failures.extend(found.iter().map(|found| format!("{name}, {what}: {found}")));
        }
        if failures.len() > TOLD {
            break;
        }
    }
    let unread = trial.files.iter().filter(|file| file.readers.is_empty());
    println!(
        "{}: {} files, {readers} readers of them, {tried} times foreign; nobody reads {:?}",
        trial.name,
        trial.files.len(),
        unread.map(|file| &file.name).collect::<Vec<_>>()
    );
    assert!(failures.is_empty(), "{}:\n{}", trial.name, failures.join("\n"));
}

/// Collectors that don't read the file, and whose samples hold still.
fn witnesses(trial: &Trial, file: usize, dice: &mut Dice) -> Vec<usize> {
    let file = &trial.files[file];
    let others = (0..TABLE.len()).filter(|row| trial.good[*row].holds_still);
    let others = others.filter(|row| !file.readers.contains(row) && !file.listers.contains(row));
    let mut others: Vec<usize> = others.collect();
    let take = |_| others.swap_remove(dice.roll(others.len() as u64) as usize);
    (0..WITNESSES).map(take).collect()
}

/// A set for each collector: as reader of what is foreign, and as one that does not read it.
struct Sets {
    readers: Vec<Set>,
    others: Vec<Set>,
    samples: Samples,
}

impl Sets {
    fn new(trial: &mut Trial) -> Sets {
        let sets = |trial: &Trial| (0..TABLE.len()).map(|row| trial.set(row)).collect();
        let mut samples = Samples::with_limit(60_000);
        let mut readers: Vec<Set> = sets(trial);
        for set in &mut readers {
            collect(set, trial, &mut samples);
        }
        Sets { readers, others: sets(trial), samples }
    }

    /// Collects while the file is foreign, and again when it is good; gives what should not be so.
    fn look(
        &mut self,
        trial: &mut Trial,
        at: usize,
        foreign: &Foreign,
        witnesses: &[usize],
        fresh: bool,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let rows: Vec<usize> =
            trial.files[at].readers.union(&trial.files[at].listers).copied().collect();
        let mut started: Vec<Set> = match fresh {
            true => rows.iter().map(|row| trial.set(*row)).collect(),
            false => Vec::new(),
        };
        trial.replace(&trial.files[at], foreign);
        for row in 0..TABLE.len() {
            if witnesses.contains(&row) {
                let now = collect(&mut self.others[row], trial, &mut self.samples);
                found.extend(self.differs(trial, row, &now, "does not read it").err());
            } else if rows.contains(&row) {
                collect(&mut self.readers[row], trial, &mut self.samples);
            }
        }
        for set in &mut started {
            collect(set, trial, &mut self.samples);
        }
        trial.restore(&trial.files[at]);
        for row in &rows {
            let now = collect(&mut self.readers[*row], trial, &mut self.samples);
            let good = &trial.good[*row];
            if now != good.outcome {
                let (name, good) = (TABLE[*row].name, &good.outcome);
                found.push(format!("{name} has the good file again: {now:?}, and not {good:?}"));
            }
            // What is read once is remembered: a name that was foreign then stays so. A new one must not.
            if good.holds_still && prints(&self.samples, &good.moving).1 != good.series {
                self.readers[*row] = trial.set(*row);
                let now = collect(&mut self.readers[*row], trial, &mut self.samples);
                found.extend(self.differs(trial, *row, &now, "begins with good files").err());
            }
        }
        // What was foreign when they began may be remembered: it is read once.
        for (set, row) in started.iter_mut().zip(&rows) {
            let now = collect(set, trial, &mut self.samples);
            if now != trial.good[*row].outcome {
                found.push(format!("{}, which began with it, goes on: {now:?}", TABLE[*row].name));
            }
        }
        found
    }

    /// Whether a collector gives what it gave on the good tree.
    fn differs(&self, trial: &Trial, row: usize, now: &Outcome, who: &str) -> Result<(), String> {
        let (name, good) = (TABLE[row].name, &trial.good[row]);
        if *now != good.outcome {
            return Err(format!("{name} {who}: {now:?}, and not {:?}", good.outcome));
        }
        if !good.holds_still || prints(&self.samples, &good.moving).0 == good.samples {
            return Ok(());
        }
        Err(format!("{name} {who}:\n{}", difference(&good.text, &text(&self.samples))))
    }
}

fn collect(set: &mut Set, trial: &mut Trial, samples: &mut Samples) -> Outcome {
    samples.clear();
    set.collect(&mut trial.host, samples);
    outcome(set)
}

/// What to put in the place of a file, and what to call it. Where there is no time for all that is worth
/// trying, chance takes a part of it.
fn foreign(good: &[u8], count: usize, dice: &mut Dice) -> Vec<(String, Foreign)> {
    let middle = good.len() / 2;
    let with = |at: usize, cut: usize, new: &[u8]| {
        Foreign::Bytes([&good[..at], new, &good[(at + cut).min(good.len())..]].concat())
    };
    let line_end = good.iter().position(|byte| *byte == b'\n').unwrap_or(good.len());
    let mut all = vec![
        ("removed".to_owned(), Foreign::Missing),
        ("replaced by a folder".to_owned(), Foreign::Folder),
        ("emptied".to_owned(), Foreign::Bytes(Vec::new())),
        ("full of 0xff".to_owned(), Foreign::Bytes(vec![0xff; 5_000])),
        ("full of line breaks".to_owned(), Foreign::Bytes(vec![b'\n'; 500])),
        ("with a line of 100 kB".to_owned(), with(line_end, 0, &vec![b'9'; 100_000])),
        ("with a line of 100 kB words".to_owned(), with(middle, 0, &b" x:1".repeat(25_000))),
        ("cut in the middle".to_owned(), Foreign::Bytes(good[..middle].to_vec())),
    ];
    // At least one is of bytes that differ a little.
    while all.len() >= count {
        all.swap_remove(dice.roll(all.len() as u64) as usize);
    }
    const BYTES: &[u8] = b"\0\n \t:-+.,/=\"(){}[]09aZ\x7f\xff";
    const WORDS: &[&[u8]] =
        &[b"18446744073709551616", b"-1", b"1e400", b"NaN", b"../", b"\xc3", b"\n\n", b"0x"];
    while all.len() < count {
        let at = dice.roll(good.len() as u64 + 1) as usize;
        let (byte, word) = (dice.roll(BYTES.len() as u64), dice.roll(WORDS.len() as u64));
        let (byte, word) = (&BYTES[byte as usize..=byte as usize], WORDS[word as usize]);
        all.push(match dice.roll(6) {
            0 | 1 => (format!("cut to {at} bytes"), Foreign::Bytes(good[..at].to_vec())),
            2 | 3 => (format!("with \"{}\" at {at}", byte.escape_ascii()), with(at, 1, byte)),
            4 => (format!("with \"{}\" put in at {at}", word.escape_ascii()), with(at, 0, word)),
            _ => {
                let cut = dice.roll(40) as usize;
                (format!("without {cut} bytes at {at}"), with(at, cut, b""))
            }
        });
    }
    all
}
