//! A day of rounds takes no more memory than its first hour: from the samples through the encoder and a WAL
//! on disk to requests, each of which a strict receiver's decoder takes apart; with series that come and go
//! under names that were never there before, with a backend and without one.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
// A global allocator can't be written without `unsafe`.
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mote::encode::{ROUND, RemoteWrite, Round, RoundDecoder, RoundEncoder};
use mote::model::{Kind, Labels, Samples};
use mote::wal::{Disk, Encoded, OnFull, Options, Payload, ReaderId, Wal};
use support::strict_mimir::decode;

/// The system's allocator, with a count of what this thread asked of it.
struct Tally;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that it has not given back.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    let _ending = CALLS.try_with(|calls| calls.set(calls.get() + usize::from(more > 0)));
    let _ending = LIVE.try_with(|live| live.set(live.get() + more as isize - less as isize));
}

// SAFETY: every call goes to `System` with the caller's own arguments.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the pointer came from `alloc` above, and so from System, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        // SAFETY: as `dealloc`; `new_size` is the caller's and keeps System's contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Tally = Tally;

const INTERVAL_MS: i64 = 60_000;
const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;
const LASTING: usize = 300;
/// At a time; each stays for so many rounds.
const PASSING: i64 = 5;
const STAY: i64 = 10;
/// Small, so that many segments of the WAL come and go in a day.
const MAX_BYTES: u64 = 256 << 10;
/// Passing series that go in a day; each gets a last sample that says so.
const GONE: u64 = 720;
/// How far the hours of a day may lie apart: the table of series holds those that are gone until it is begun anew,
/// with a full record. Without that the day's passing series would take 130 KiB in the encoder alone.
const BOUND: isize = 64 << 10;

struct Made<'a> {
    time_ms: i64,
    samples: &'a Samples,
    encoder: &'a mut RoundEncoder,
}

impl Payload for Made<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let items = self.encoder.encode(&[self.samples], fresh, out);
        Encoded { items, time_ms: self.time_ms }
    }
}

/// Every part that a round passes, with what it keeps for the next one.
struct Way {
    samples: Samples,
    encoder: RoundEncoder,
    wal: Wal<Disk>,
    reader: ReaderId,
    decoder: RoundDecoder,
    round: Round,
    request: RemoteWrite,
    payload: Vec<u8>,
    at: u64,
    sent: u64,
    _dir: tempfile::TempDir,
}

impl Way {
    fn new() -> Way {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(MAX_BYTES, OnFull::DropOldest, 1);
        let wal = Wal::open(Disk::new(dir.path()).unwrap(), options, &["endpoint"]).unwrap();
        let labels = Labels::from_pairs([("instance", "box"), ("job", "day")]).unwrap();
        Way {
            samples: Samples::with_limit(1_000),
            encoder: RoundEncoder::new(labels),
            reader: wal.reader("endpoint").unwrap(),
            wal,
            decoder: RoundDecoder::new(),
            round: Round::default(),
            request: RemoteWrite::new(),
            payload: Vec::new(),
            at: 0,
            sent: 0,
            _dir: dir,
        }
    }

    fn append(&mut self, number: i64) {
        make(&mut self.samples, number);
        let (samples, encoder) = (&self.samples, &mut self.encoder);
        let mut made = Made { time_ms: number * INTERVAL_MS, samples, encoder };
        self.wal.append(ROUND, &mut made).unwrap();
    }

    /// As a sender that is never behind.
    fn send(&mut self) {
        while let Some(record) = self.wal.read(self.reader, self.at, &mut self.payload).unwrap() {
            self.decoder.decode(&self.payload, record.time_ms, &mut self.round).unwrap();
            self.request.clear();
            for (index, series) in self.decoder.table().iter().enumerate() {
                let Some(value) = self.round.value(index) else { continue };
                let sample = std::iter::once((record.time_ms, value));
                self.request.series(series.labels(), sample).unwrap();
            }
            self.sent += self.request.samples() as u64;
            self.request.finish();
            self.at = record.next;
            self.wal.acknowledge(self.reader, record.next, false).unwrap();
        }
    }
}

fn make(out: &mut Samples, number: i64) {
    out.clear();
    // A section that was asked: what it does not have any more is gone.
    out.begin(1);
    let mut family = out.family_named("lasting_total", "It counts.", Kind::Counter);
    for index in 0..LASTING {
        // Steps that no model foresees, so that the WAL fills.
        let step = (number * (index as i64 + 3)).wrapping_mul(2_654_435_761) >> 16 & 0xffff;
        let value = number * 100_000 + step;
        family.add(&[("device", &format!("d{index}"))], value as f64);
    }
    let mut family = out.family_named("passing", "It comes and goes.", Kind::Gauge);
    for slot in 0..PASSING {
        let id = format!("{:032x}-{slot}", (number + 2 * slot) / STAY);
        family.add(&[("id", &id)], number as f64);
    }
}

/// What is held after each hour, and the allocations in it.
fn day(way: &mut Way, mut each: impl FnMut(&mut Way, i64)) -> Vec<(isize, usize)> {
    let mut hours = Vec::with_capacity(24);
    let before = LIVE.get();
    let mut calls = CALLS.get();
    for number in 1..=DAY {
        way.append(number);
        each(way, number);
        if number % HOUR == 0 {
            hours.push((LIVE.get() - before, CALLS.get() - calls));
            calls = CALLS.get();
        }
    }
    hours
}

fn is_steady(hours: &[(isize, usize)]) {
    let (first, last) = (hours.first().unwrap(), hours.last().unwrap());
    assert!(last.0 - first.0 <= BOUND, "more and more is held: {hours:?}");
    // Not the first hour's: in it every buffer grows.
    let second = hours.get(1).unwrap();
    assert!(last.1 <= second.1 + second.1 / 4, "more and more is allocated: {hours:?}");
}

#[test]
fn a_day_of_rounds_holds_no_more_than_its_first_hour() {
    let mut way = Way::new();
    let mut seen = 0;
    let hours = day(&mut way, |way, number| {
        way.send();
        // What the receiver takes for it is given back at once; looked at once an hour.
        if number % HOUR == 1 {
            let calls = CALLS.get();
            let decoded = decode(way.request.finish()).unwrap();
            assert_eq!(decoded.len(), LASTING + PASSING as usize);
            seen += decoded.len();
            drop(decoded);
            CALLS.set(calls);
        }
    });
    assert_eq!(seen, 24 * (LASTING + PASSING as usize));
    assert_eq!(way.sent, DAY as u64 * (LASTING as u64 + PASSING as u64) + GONE);
    is_steady(&hours);
}

#[test]
fn a_day_without_a_backend_holds_no_more_than_its_first_hour() {
    let mut way = Way::new();
    let hours = day(&mut way, |_, _| ());
    is_steady(&hours);
    let calls = CALLS.get();
    way.send();
    let all = DAY as u64 * (LASTING as u64 + PASSING as u64) + GONE;
    assert!(way.sent > all / 100 && way.sent < all, "{} of {all}: the WAL was not full", way.sent);
    assert!(CALLS.get() > calls);
}
