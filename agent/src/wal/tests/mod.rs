//! The log on a real file system.

mod bounds;
mod damage;
mod failure;
mod order;

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::faulty::{Faulty, Plan};
use super::segment::HEADER as SEGMENT_HEADER;
use super::*;

/// A directory that goes when the test ends.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let path = std::env::temp_dir().join(format!("mote-wal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "wal"))
            .collect();
        all.sort();
        all
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A payload of a number and padding, which says whether it was the first of its segment.
struct Number(u64, usize);

impl Payload for Number {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        out.push(u8::from(fresh));
        out.extend_from_slice(&self.0.to_le_bytes());
        out.resize(out.len() + self.1, 0x55);
        Encoded { items: 1, time_ms: self.0 as i64 }
    }
}

const SMALL: Options = Options {
    max_bytes: Options::MIN_BYTES,
    on_full: OnFull::DropOldest,
    content: 1,
    segment_bytes: 64 << 10,
    min_free: 0,
    max_age_ms: None,
};

fn open(path: &Path, options: Options) -> Wal<Disk> {
    Wal::open(Disk::new(path).unwrap(), options, &["a"]).unwrap()
}

fn append(wal: &mut Wal<Disk>, numbers: std::ops::Range<u64>, padding: usize) {
    for number in numbers {
        let record = wal.append(1, &mut Number(number, padding)).unwrap();
        assert_eq!(record.items, 1);
        assert!(wal.bytes() <= wal.max_bytes());
    }
}

/// Every number from the reader's cursor on; checks that `fresh` is what the writer was told.
fn read_all(wal: &mut Wal<Disk>) -> Vec<u64> {
    let reader = wal.reader("a").unwrap();
    let (mut at, mut payload, mut all) = (wal.cursor(reader), Vec::new(), Vec::new());
    while let Some(record) = wal.read(reader, at, &mut payload).unwrap() {
        assert_eq!((record.kind & !crate::wal::UNTIMED, record.items), (1, 1));
        assert_eq!(record.time_ms as u64, u64::from_le_bytes(payload[1..9].try_into().unwrap()));
        assert!(record.position >= at && record.next > record.position);
        assert_eq!(payload[0] != 0, record.fresh);
        all.push(u64::from_le_bytes(payload[1..9].try_into().unwrap()));
        at = record.next;
    }
    all
}

fn disk_bytes(path: &Path) -> u64 {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Bytes of a record of `append` with this padding.
fn record_bytes(padding: u64) -> u64 {
    24 + 9 + padding
}

fn open_faulty(path: &Path, plan: &Rc<Plan>) -> Wal<Faulty> {
    let storage = Faulty { disk: Disk::new(path).unwrap(), plan: Rc::clone(plan) };
    Wal::open(storage, SMALL, &["a"]).unwrap()
}
