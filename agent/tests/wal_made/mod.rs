//! WALs made by the library, and what `mote wal` says of them: with --json, each line is checked against
//! the fields that the command's help documents.

#![allow(missing_docs, unreachable_pub, reason = "part of one test program")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use mote::encode::{ROUND, RoundEncoder, encode_block};
use mote::model::{Block, Desc, Labels, Samples};
use mote::wal::{Disk, Encoded, OnFull, Options, Payload, Record, Wal};
use serde_json::Value;

/// A round whose set of series grows, so that a later one can't do without an earlier one.
pub struct Round<'a>(pub &'a mut RoundEncoder, pub i64);

impl Payload for Round<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        const A: Desc = Desc::gauge("a", "");
        let mut samples = Samples::with_limit(10_000);
        for x in 0..=(self.1 % 1_000) {
            samples.family(&A).add(&[("x", &x.to_string())], x as f64);
        }
        let items = self.0.encode(&[&samples], fresh, out);
        Encoded { items, time_ms: self.1 }
    }
}

/// Entries at 0, 1, … ns with a label and metadata that hold control characters.
pub struct Lines<'a>(pub &'a [&'a str]);

impl Payload for Lines<'_> {
    fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let mut block = Block::new();
        let labels = Labels::from_pairs([("job", "j\u{9b}2J")]).unwrap();
        let stream = block.stream(&labels).unwrap();
        for (at, line) in self.0.iter().enumerate() {
            block.push_with(stream, at as i64, line, [("m\u{1b}", "v")]);
        }
        Encoded { items: encode_block(&block, [].into_iter(), out), time_ms: 7 }
    }
}

/// A payload of these bytes, said to have so many items.
pub struct Bytes<'a>(pub &'a [u8], pub u32);

impl Payload for Bytes<'_> {
    fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> Encoded {
        out.extend_from_slice(self.0);
        Encoded { items: self.1, time_ms: 1_000_000 }
    }
}

pub fn open(dir: &Path, content: u32) -> Wal<Disk> {
    let options = Options::new(32 << 20, OnFull::DropOldest, content);
    // A command that another test starts at this moment has this process' files until it is executed, and
    // with them the lock of a log that was just closed.
    for _ in 0..500 {
        match Wal::open(Disk::new(dir).unwrap(), options, &["a"]) {
            Err(error) if error.source.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.unwrap(),
        }
    }
    panic!("{} stays locked", dir.display())
}

/// A metrics WAL with a segment for each range of times, and its records.
pub fn metrics(dir: &Path, ranges: &[std::ops::Range<i64>]) -> Vec<Record> {
    let mut records = Vec::new();
    for range in ranges {
        let mut wal = open(dir, 1);
        let mut encoder = RoundEncoder::new(Labels::new());
        for time in range.clone() {
            records.push(wal.append(ROUND, &mut Round(&mut encoder, time)).unwrap());
        }
    }
    while Disk::look(dir).unwrap().is_taken() {
        std::thread::sleep(Duration::from_millis(10));
    }
    records
}

pub fn name(record: &Record) -> String {
    format!("{:016x}.wal", record.segment)
}

pub fn offset(record: &Record) -> u64 {
    record.position - record.segment
}

pub fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

pub fn wal(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mote")).arg("wal").args(arguments).arg(dir).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What the command says, which exits with `code`.
#[track_caller]
pub fn said(arguments: &[&str], dir: &Path, code: i32) -> String {
    let output = wal(arguments, dir);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{out}{}", text(&output.stderr));
    out
}

/// The objects of a command with --json: each line is one, with the fields that its help names.
#[track_caller]
pub fn objects(arguments: &[&str], dir: &Path, code: i32) -> Vec<Value> {
    let documented = fields(arguments[0]);
    let out = said(&[arguments, &["--json"]].concat(), dir, code);
    let objects: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for object in &objects {
        let kind = object["type"].as_str().unwrap();
        let have: BTreeSet<String> =
            object.as_object().unwrap().keys().filter(|key| *key != "type").cloned().collect();
        assert_eq!(Some(&have), documented.get(kind), "{kind}: {object}");
    }
    objects
}

/// The fields of each type of object, as the command's help documents them.
fn fields(command: &str) -> BTreeMap<String, BTreeSet<String>> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_mote")).args(["wal", command, "--help"]).output().unwrap();
    let help = text(&output.stdout);
    let (_, table) = help.split_once("--json prints").unwrap();
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut kind = String::new();
    for line in table.lines().skip(1).filter(|line| line.starts_with("  ")) {
        let mut rest = line.trim();
        if !line.starts_with("     ") {
            let (name, after) = rest.split_once(' ').unwrap();
            (kind, rest) = (name.to_owned(), after.trim());
        }
        // What stands in parentheses or behind a colon explains.
        let mut plain = String::new();
        let mut depth = 0;
        for c in rest.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            match c {
                ':' if depth == 0 => break,
                ')' => {}
                c if depth == 0 => plain.push(c),
                _ => {}
            }
        }
        let names = plain.split(',').map(str::trim).filter(|name| !name.is_empty());
        fields.entry(kind.clone()).or_default().extend(names.map(str::to_owned));
        // All that is written of a WAL's own lines names it.
        if command == "ls" && kind != "wal" {
            fields.get_mut(&kind).unwrap().insert("wal".into());
        }
    }
    fields
}

pub fn of_type<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["type"] == kind).collect()
}

/// Every file below a directory with its bytes and times, and the directories' own times.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    let modified = fs::metadata(dir).unwrap().modified().unwrap();
    all.insert(dir.to_owned(), (Vec::new(), modified));
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        } else {
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            all.insert(path.clone(), (fs::read(&path).unwrap(), modified));
        }
    }
    all
}
