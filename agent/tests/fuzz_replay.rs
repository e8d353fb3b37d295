//! The fuzz targets on a stable compiler: every seed and every crasher of the past, and thousands of
//! mutations of each, the same ones in every run. `cargo xtask fuzz` looks for new ones.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

/// For each target, after its seeds. The mutations of slow ones end here, so that all of them together
/// stay below 20 seconds in a debug build on a small machine.
const TIME: Duration = Duration::from_millis(800);
/// The collectors read and write files, and are many.
const TIME_OF_COLLECTORS: Duration = Duration::from_millis(5_000);
/// For each seed.
const MUTATIONS: usize = 3_000;

#[test]
fn seeds_crashers_and_mutations_of_them_find_nothing() {
    let mut failures = Vec::new();
    let mut all = 0;
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds in agent/fuzz/seeds/{name}");
        let time = if *name == "collectors" { TIME_OF_COLLECTORS } else { TIME };
        let mut runs = 0;
        for (path, bytes) in &seeds {
            check(target, bytes, &format!("{}", path.display()), &mut failures);
            runs += 1;
        }
        let began = Instant::now();
        'mutations: for round in 0..MUTATIONS as u64 {
            for (index, (path, bytes)) in seeds.iter().enumerate() {
                if began.elapsed() > time || !failures.is_empty() {
                    break 'mutations;
                }
                let other = &seeds[(index + round as usize) % seeds.len()].1;
                let mutant = mutate(bytes, other, round << 16 | index as u64);
                check(target, &mutant, &format!("{}, mutated", path.display()), &mut failures);
                runs += 1;
            }
        }
        println!("{name}: {runs} inputs in {} ms", began.elapsed().as_millis());
        all += runs;
    }
    println!("{all} inputs");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_targets_are_those_that_cargo_builds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let built: Vec<_> = manifest.lines().filter(|line| line.starts_with("name = ")).collect();
    // The package's own name is one of them.
    assert_eq!(built.len(), TARGETS.len() + 1, "{built:?}");
    // Two names in one table are no manifest at all.
    let tables = manifest.lines().filter(|line| *line == "[[bin]]").count();
    assert_eq!(tables, TARGETS.len());
    for (name, _) in TARGETS {
        assert!(built.contains(&format!("name = \"{name}\"").as_str()), "{name}");
        let door = fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
        assert!(door.contains(&format!("mote_fuzz::{name}(data)")), "{name}");
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn check(target: &Target, bytes: &[u8], what: &str, failures: &mut Vec<String>) {
    let result = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        failures.push(format!("{what}: {text}\n  input: \"{}\"", bytes.escape_ascii()));
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(bytes: &[u8], other: &[u8], seed: u64) -> Vec<u8> {
    const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\n\r \t:-+.,/\"\\=[]{}%#09aZ";
    let mut numbers = Numbers(seed);
    let mut mutant = bytes.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(mutant.len() + 1);
        let len = numbers.below(9).min(mutant.len() - at);
        match numbers.below(7) {
            0 if at < mutant.len() => mutant[at] ^= 1 << numbers.below(8),
            1 if at < mutant.len() => mutant[at] = BYTES[numbers.below(BYTES.len())],
            2 => mutant.insert(at, BYTES[numbers.below(BYTES.len())]),
            3 => drop(mutant.drain(at..at + len)),
            4 => {
                let copy = mutant[at..at + len].to_vec();
                mutant.splice(at..at, copy);
            }
            5 => mutant.truncate(at),
            6 => {
                let from = numbers.below(other.len() + 1);
                let to = from + numbers.below(other.len() - from + 1);
                mutant.splice(at..at + len, other[from..to].iter().copied());
            }
            _ => {}
        }
    }
    mutant
}
