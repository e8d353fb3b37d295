//! The collectors over the fixture trees, in which one file is foreign. Which files there are and who reads
//! them is found (`tests/fixtures/foreign.rs`).

use std::cell::RefCell;
use std::hash::{Hash as _, Hasher as _};

use mote::collector::{Outcome, Set, TABLE};
use mote::encode::{Round, RoundDecoder, RoundEncoder, write_text};
use mote::model::{Labels, Samples};

use super::fixtures::TREES;
use super::fixtures::foreign::{Foreign, Trial, outcome};

/// A file that no tree has, because its golden text would not be that of other machines' zones: a seed.
const LOCALTIME: &[u8] = include_bytes!("../seeds/collectors/localtime");

thread_local! {
    static TRIALS: RefCell<Vec<Trial>> = RefCell::new({
        let (_, zone) = split(LOCALTIME).expect("a seed");
        TREES.iter().map(|name| Trial::new(name, &[("root/etc/localtime", zone)])).collect()
    });
}

/// The name of a file, and what follows.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((&data[..end], &data[end + 1..]))
}

/// `[name of a file, such as pi5/proc/stat]\n[its bytes]`. A name that is none chooses a file by its hash,
/// and what follows is changes of what stands in it, of three bytes each: the place, and the byte, of which
/// 0xff cuts the file there. Collected twice, then with the good file again.
pub fn collectors(data: &[u8]) {
    let Some((name, bytes)) = split(data) else { return };
    TRIALS.with_borrow_mut(|trials| {
        let (trial, file, exact) = choose(trials, name);
        let bytes = if exact { bytes.to_vec() } else { changed(&trial.files[file].good, bytes) };
        let rows = &trial.files[file].readers | &trial.files[file].listers;
        let mut sets: Vec<(usize, Set)> =
            rows.into_iter().map(|row| (row, trial.set(row))).collect();
        trial.replace(&trial.files[file], &Foreign::Bytes(bytes));
        sets.iter_mut().for_each(|(_, set)| collect(set, trial));
        sets.iter_mut().for_each(|(_, set)| collect(set, trial));
        trial.restore(&trial.files[file]);
        for (row, set) in &mut sets {
            collect(set, trial);
            let (name, file) = (TABLE[*row].name, &trial.files[file].name);
            let good = &trial.good[*row].outcome;
            assert_eq!(outcome(set), *good, "{file} is good again, and {name} is not");
        }
    });
}

/// A file, and whether the name is its.
fn choose<'a>(trials: &'a mut [Trial], name: &[u8]) -> (&'a mut Trial, usize, bool) {
    let named = |trial: &Trial, file: &str| {
        name.strip_prefix(trial.name.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"))
            == Some(file.as_bytes())
    };
    let find = |trial: &Trial| trial.files.iter().position(|file| named(trial, &file.name));
    let exact = (0..trials.len()).find_map(|tree| Some((tree, find(&trials[tree])?)));
    let (tree, file) = exact.unwrap_or_else(|| {
        // Of std's hashers this one has no secret: the same in every run.
        let mut hasher = std::hash::DefaultHasher::new();
        name.hash(&mut hasher);
        let tree = hasher.finish() as usize % trials.len();
        (tree, (hasher.finish() >> 8) as usize % trials[tree].files.len())
    });
    (&mut trials[tree], file, exact.is_some())
}

fn changed(good: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for change in changes.chunks_exact(3) {
        let &[high, low, byte] = change else { continue };
        let at = usize::from(u16::from_be_bytes([high, low])) % (bytes.len() + 1);
        match bytes.get_mut(at) {
            _ if byte == 0xff => bytes.truncate(at),
            Some(there) => *there = byte,
            None => bytes.push(byte),
        }
    }
    bytes
}

fn collect(set: &mut Set, trial: &mut Trial) {
    let mut samples = Samples::with_limit(10_000);
    set.collect(&mut trial.host, &mut samples);
    // It looks at the length of what an error says.
    let _: Outcome = outcome(set);
    for sample in samples.iter() {
        let name = sample.name();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_name));
        assert!(sample.labels().is_sorted_by(|a, b| a.0 < b.0), "{name}");
    }
    let mut text = Vec::new();
    write_text(&samples, &mut text).expect("writing to memory");
    assert!(std::str::from_utf8(&text).is_ok());
    let mut record = Vec::new();
    RoundEncoder::new(Labels::new()).encode(&[&samples], true, &mut record);
    RoundDecoder::new().decode(&record, 1, &mut Round::default()).expect("what was encoded");
}
