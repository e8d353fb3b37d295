//! Every bit of a small log is flipped in turn, every byte zeroed, every file cut at every length: the
//! start is never refused, nothing is read that was not written, and no more is lost than the module's
//! documentation says.

use std::ops::Range;
use std::rc::Rc;

use super::sim::{Files, Sim};
use super::trial::{Numbered, READERS, Scene, Trial, Written, options};
use super::{OnFull, Options, Record, Wal};

/// Whether damage to a record takes the records after it in its segment along.
const REST_GOES: bool = false;

/// What may happen beside the loss of records.
#[derive(Clone, Copy)]
struct Losing {
    /// A cursor may be lost in both slots.
    both_slots: bool,
    /// What is missing leaves a trace, and must be counted.
    noticed: bool,
}

impl Losing {
    const NOTHING: Losing = Losing { both_slots: false, noticed: true };
}

/// A log of three segments with four records each, and what each reader has to read: first what its
/// cursor says, then what the one before it said.
struct Small {
    files: Files,
    options: Options,
    records: Vec<Written>,
    starts: [[usize; 2]; 2],
}

impl Small {
    fn new() -> Small {
        let mut trial = Trial::new(options(3, OnFull::DropOldest));
        for index in 0..12 {
            if index % 4 == 0 {
                trial.reopen(READERS.len()).unwrap();
            }
            trial.append(20 + 7 * index).unwrap().unwrap();
            trial.sync().unwrap();
        }
        let starts = [[6, 3], [2, 1]];
        for (reader, [newest, before]) in starts.into_iter().enumerate() {
            trial.acknowledge(reader, before - 1, true);
            trial.acknowledge(reader, newest - 1, true);
        }
        trial.check();
        let files = trial.disk.files();
        assert_eq!(files.keys().filter(|name| name.ends_with(".wal")).count(), 3);
        Small { files, options: trial.options, records: trial.book.records, starts }
    }

    /// The files with one of them changed.
    fn with(&self, name: &str, content: Vec<u8>) -> Files {
        let mut files = self.files.clone();
        files.insert(name.to_owned(), Rc::new(content));
        files
    }

    /// The records of a segment that damage at `offset` of its file may take.
    fn reach(&self, name: &str, offset: usize) -> Range<usize> {
        let of_file = |w: &Written| self.is_in(w, name);
        let Some(first) = self.records.iter().position(of_file) else { return 0..0 };
        let end = first + self.records[first..].iter().filter(|w| of_file(w)).count();
        let place = self.records[first].record.segment + offset as u64;
        if place < self.records[first].record.position {
            return first..end;
        }
        match (first..end).find(|&index| self.records[index].record.next > place) {
            Some(hit) if REST_GOES => hit..end,
            Some(hit) => hit..hit + 1,
            None => end..end,
        }
    }

    fn is_in(&self, written: &Written, segment: &str) -> bool {
        super::segment::name(written.record.segment) == segment
    }

    fn is_newest(&self, segment: &str) -> bool {
        self.reach(segment, 0).end == self.records.len()
    }

    /// Starts on damaged files and checks what is read. `may_go` is what may be missing.
    fn check(&self, files: Files, may_go: &Range<usize>, losing: Losing) {
        let most = self.options.max_bytes;
        let disk = Sim::new(files, most);
        let mut wal = Wal::open(disk.clone(), self.options, &READERS).unwrap();
        for (reader, [newest, before]) in self.starts.into_iter().enumerate() {
            let read = self.read(&mut wal, reader);
            assert!(read.is_sorted_by(|a, b| a < b), "{read:?}");
            let begins = |from: usize| {
                let all = (from..self.records.len()).filter(|i| read.contains(i)).count();
                let gone = (from..self.records.len())
                    .filter(|i| !read.contains(i) && !may_go.contains(i))
                    .count();
                gone == 0 && all == read.len()
            };
            assert!(
                begins(newest) || begins(before) || losing.both_slots && begins(0),
                "{} reads {read:?}; {may_go:?} may be missing",
                READERS[reader]
            );
            let stats = wal.stats();
            if losing.noticed && (newest..self.records.len()).any(|index| !read.contains(&index)) {
                assert!(
                    stats.damaged_bytes + stats.torn_bytes + stats.set_aside > 0,
                    "not counted"
                );
            }
        }
        assert!(wal.bytes() >= disk.bytes());
        self.go_on(wal, &disk);
    }

    /// The log takes another record, and each cursor works.
    fn go_on(&self, mut wal: Wal<Sim>, disk: &Sim) {
        let mut payload = Numbered { number: 100, len: 30 };
        let record = wal.append(1, &mut payload).unwrap();
        for name in READERS {
            let reader = wal.reader(name).unwrap();
            let mut at = wal.cursor(reader);
            let mut last = None;
            while let Some(record) = wal.read(reader, at, &mut Vec::new()).unwrap() {
                at = record.next;
                last = Some(record);
            }
            assert_eq!(last, Some(record), "{name} does not see what is new");
            wal.acknowledge(reader, record.next, true).unwrap();
        }
        drop(wal);
        let wal = Wal::open(disk.clone(), self.options, &READERS).unwrap();
        for name in READERS {
            assert_eq!(wal.cursor(wal.reader(name).unwrap()), record.next);
        }
    }

    fn read(&self, wal: &mut Wal<Sim>, reader: usize) -> Vec<usize> {
        let reader = wal.reader(READERS[reader]).unwrap();
        let (mut at, mut payload, mut read) = (wal.cursor(reader), Vec::new(), Vec::new());
        while let Some(record) = wal.read(reader, at, &mut payload).unwrap() {
            let found = self.records.iter().position(|w| w.record.position == record.position);
            let index = found.unwrap_or_else(|| panic!("nobody wrote {record:?}"));
            let Written { record: written, .. } = &self.records[index];
            // A segment of which the first record was lost begins with another one.
            assert_eq!(*written, Record { fresh: written.fresh, ..record });
            self.records[index].check(written, &payload);
            read.push(index);
            at = record.next;
        }
        read
    }

    fn each_byte(&self, mut damage: impl FnMut(&str, usize, &[u8])) {
        for (name, content) in &self.files {
            for offset in 0..content.len() {
                damage(name, offset, content);
            }
        }
    }
}

#[test]
fn every_flipped_bit_costs_no_more_than_is_said() {
    let small = Small::new();
    let mut flips = 0;
    small.each_byte(|name, offset, content| {
        for bit in 0..8 {
            let mut content = content.to_vec();
            content[offset] ^= 1 << bit;
            let _scene = Scene((name, offset, bit));
            small.check(small.with(name, content), &small.reach(name, offset), Losing::NOTHING);
            flips += 1;
        }
    });
    println!("{flips} flips");
    assert!(flips > 20_000);
}

#[test]
fn every_zeroed_byte_costs_no_more_than_is_said() {
    let small = Small::new();
    small.each_byte(|name, offset, content| {
        if content[offset] != 0 {
            let mut content = content.to_vec();
            content[offset] = 0;
            let _scene = Scene((name, offset));
            small.check(small.with(name, content), &small.reach(name, offset), Losing::NOTHING);
        }
    });
}

#[test]
fn every_zeroed_or_overwritten_sector_costs_no_more_than_it_held() {
    let small = Small::new();
    small.each_byte(|name, offset, content| {
        if offset % 512 == 0 {
            for filling in [0, 0xff, 0x4d] {
                let end = (offset + 512).min(content.len());
                let mut content = content.to_vec();
                content[offset..end].fill(filling);
                let _scene = Scene((name, offset, filling));
                let (first, last) = (small.reach(name, offset), small.reach(name, end - 1));
                small.check(
                    small.with(name, content),
                    &(first.start..last.end.max(first.end)),
                    Losing::NOTHING,
                );
            }
        }
    });
}

#[test]
fn a_file_cut_at_any_length_loses_what_was_cut_off_alone() {
    let small = Small::new();
    small.each_byte(|name, len, content| {
        let _scene = Scene((name, len));
        let reach = small.reach(name, len);
        let end = small.reach(name, 0).end;
        // A cut between two records leaves a segment that looks whole, and one before a reader's
        // cursor is not looked at by it.
        let torn = |w: &Written| {
            let place = w.record.segment + len as u64;
            small.is_in(w, name) && w.record.position < place && place < w.record.next
        };
        let noticed = small.records[small.starts[0][0]..].iter().any(torn);
        let losing = Losing { both_slots: true, noticed };
        small.check(small.with(name, content[..len].to_vec()), &(reach.start..end), losing);
    });
}

/// Starts with each file of which `which` is true longer than it was.
fn lengthen(which: impl Fn(&Small, &str) -> bool) {
    let small = Small::new();
    let mut longer = 0;
    for (name, content) in small.files.iter().filter(|(name, _)| which(&small, name)) {
        for filling in [0, 0xff, 0x4d] {
            for more in [1, 23, 24, 511, 4_096] {
                let _scene = Scene((name, filling, more));
                let mut content = Vec::clone(content);
                content.resize(content.len() + more, filling);
                small.check(small.with(name, content), &(0..0), Losing::NOTHING);
                longer += 1;
            }
        }
        // A block of the log itself, in the wrong place.
        let _scene = Scene((name, "itself"));
        small.check(small.with(name, content.repeat(2)), &(0..0), Losing::NOTHING);
    }
    assert!(longer > 0);
}

#[test]
fn bytes_behind_the_end_of_the_newest_segment_or_a_cursor_cost_nothing() {
    lengthen(|small, name| name.ends_with(".cursor") || small.is_newest(name));
}

#[test]
fn bytes_behind_the_end_of_an_older_segment_do_not_take_the_next_one_along() {
    lengthen(|small, name| name.ends_with(".wal") && !small.is_newest(name));
}

#[test]
fn missing_files_cost_what_they_held() {
    let small = Small::new();
    for name in small.files.keys() {
        let _scene = Scene(name);
        let mut files = small.files.clone();
        files.remove(name);
        let disk = Sim::new(files, small.options.max_bytes);
        let mut wal = Wal::open(disk, small.options, &READERS).unwrap();
        let gone = small.reach(name, 0);
        for (reader, [newest, _]) in small.starts.into_iter().enumerate() {
            let from = if name.starts_with(READERS[reader]) { 0 } else { newest };
            let left: Vec<_> = (from..12).filter(|index| !gone.contains(index)).collect();
            assert_eq!(small.read(&mut wal, reader), left);
        }
    }
}
