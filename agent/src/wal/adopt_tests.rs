//! A log in memory that goes on while the played disk fails and is moved to it when it works, in the
//! order in which the pipeline does it, with anything in between: a reader that goes on from where it
//! was meets each record once and in order, but for those that were dropped and counted; what was moved
//! is on the disk for good; both bounds hold.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::power_cut::{Choice, Dice, Moment};
use super::sim::{Fault, Files, Plan, Sim};
use super::trial::{Numbered, READERS, Scene, Written, options};
use super::{AppendError, Memory, OnFull, Options, ReaderId, Wal};

/// The bound of what is kept in memory: less than the disk takes, and more.
const MEMORY: [u64; 2] = [40 << 10, 64 << 10];

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(usize),
    Sync,
    Read {
        reader: usize,
        most: usize,
    },
    /// Up to so many records before the last one that was read.
    Acknowledge {
        reader: usize,
        back: usize,
        sync: bool,
    },
    /// The reader has in memory what it has read and not acknowledged, or has it no more.
    Hold {
        reader: usize,
        holds: bool,
    },
    Fail(Fault, u64, u8),
    Mend,
    /// A start of the process, while nothing is in memory alone.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::NoSpace),
        Just(Fault::Io),
        Just(Fault::ReadOnly),
        Just(Fault::Sync)
    ];
    let count = prop_oneof![3 => 1..7u64, 1 => 7..60u64];
    prop_oneof![
        24 => prop_oneof![2 => 1..600usize, 3 => 1..9_000usize].prop_map(Step::Append),
        4 => Just(Step::Sync),
        4 => (0..2usize, 1..20usize).prop_map(|(reader, most)| Step::Read { reader, most }),
        5 => (0..2usize, 0..6usize, any::<bool>())
            .prop_map(|(reader, back, sync)| Step::Acknowledge { reader, back, sync }),
        2 => (0..2usize, any::<bool>()).prop_map(|(reader, holds)| Step::Hold { reader, holds }),
        4 => (fault, count, 0..3u8).prop_map(|(fault, count, part)| Step::Fail(fault, count, part)),
        6 => Just(Step::Mend),
        1 => Just(Step::Restart),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(Step, Option<u64>)>> {
    let cut = proptest::option::weighted(0.1, any::<u64>());
    proptest::collection::vec((step(), cut), 1..120)
}

/// What a power cut must not change.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    synced: u64,
    /// The cursors that are on the disk for good.
    floors: [u64; 2],
}

struct Pair {
    disk: Sim,
    options: Options,
    memory: u64,
    wal: Wal<Sim>,
    buffer: Option<Wal<Memory>>,
    /// All that was taken, in the order of the positions.
    written: Vec<Written>,
    next_number: u64,
    /// Number and length of appends that failed on the disk: until it is opened again they may be there.
    failed: Vec<(u64, usize)>,
    promise: Promise,
    acknowledged: [u64; 2],
    held: [u64; 2],
    /// Where each reader reads on.
    at: [u64; 2],
    /// Segments in which something is.
    live: BTreeSet<u64>,
    /// Items that were dropped, as they were counted by logs that are no more, and as they must be.
    counted_before: u64,
    dropped: u64,
    adopted: usize,
}

impl Pair {
    fn new(on_full: OnFull, memory: u64) -> Pair {
        let options = options(3, on_full);
        let disk = Sim::new(Files::new(), options.max_bytes);
        disk.watch();
        let wal = Wal::open(disk.clone(), options, &READERS).unwrap();
        Pair {
            disk,
            options,
            memory,
            wal,
            buffer: None,
            written: Vec::new(),
            next_number: 0,
            failed: Vec::new(),
            promise: Promise::default(),
            acknowledged: [0; 2],
            held: [0; 2],
            at: [0; 2],
            live: BTreeSet::new(),
            counted_before: 0,
            dropped: 0,
            adopted: 0,
        }
    }

    fn begin_buffer(&mut self) {
        let bounded =
            Options { max_bytes: self.memory, segment_bytes: self.memory / 8, ..self.options };
        let mut buffer = Wal::open(Memory::default(), bounded, &READERS).unwrap();
        buffer.begin_at(self.wal.end());
        self.buffer = Some(buffer);
    }

    fn append(&mut self, len: usize) {
        let mut payload = Numbered { number: self.next_number, len: len.max(9) };
        let (number, len) = (payload.number, payload.len);
        self.next_number += 1;
        let result = match self.append_to_disk(&mut payload) {
            Some(result) => result,
            None => {
                let buffer = self.buffer.as_mut().unwrap();
                let result = buffer.append(1, &mut payload);
                buffer.sync().unwrap();
                result
            }
        };
        match result {
            Ok(record) => {
                let last = self.written.last().map_or(0, |last| last.record.next);
                assert!(record.position >= last, "{record:?} comes before {last}");
                self.written.push(Written { number, len, record });
            }
            Err(AppendError::Full { .. }) => assert_eq!(self.options.on_full, OnFull::Refuse),
            Err(error) => panic!("{error}"),
        }
    }

    /// None if the disk does not take it, but memory may.
    fn append_to_disk(
        &mut self,
        payload: &mut Numbered,
    ) -> Option<Result<super::Record, AppendError>> {
        if self.buffer.is_some() {
            return None;
        }
        match self.wal.append(1, payload) {
            Err(AppendError::Failed(_)) => self.failed.push((payload.number, payload.len)),
            Err(AppendError::Broken) => {}
            other => return Some(other),
        }
        self.begin_buffer();
        None
    }

    fn mend(&mut self) -> Result<(), AppendError> {
        if self.wal.is_broken() {
            let opened = Wal::open(self.disk.clone(), self.options, &READERS);
            let mut wal = opened.map_err(AppendError::Failed)?;
            wal.resume(&self.wal).map_err(AppendError::Failed)?;
            self.counted_before += self.wal.stats().evicted_items;
            self.wal = wal;
        }
        if let Some(buffer) = &mut self.buffer {
            self.wal.adopt(buffer)?;
            self.counted_before += buffer.stats().evicted_items;
            self.buffer = None;
            self.adopted += 1;
            assert!(self.wal.is_synced());
        } else {
            return Ok(());
        }
        for (reader, floor) in self.promise.floors.iter_mut().enumerate() {
            if let Ok(Some(_)) = self.wal.share_cursor(ReaderId(reader)) {
                *floor = self.wal.cursor(ReaderId(reader));
            }
        }
        Ok(())
    }

    fn restart(&mut self) {
        if self.wal.is_broken() || self.buffer.is_some() {
            return;
        }
        self.counted_before += self.wal.stats().evicted_items;
        match Wal::open(self.disk.clone(), self.options, &READERS) {
            Ok(wal) => self.wal = wal,
            Err(_) => {
                self.wal = Wal::open_to_read(self.disk.clone(), self.options, &READERS).unwrap();
                self.begin_buffer();
            }
        }
        for (reader, name) in READERS.iter().enumerate() {
            let cursor = self.wal.cursor(ReaderId(reader));
            assert!(cursor >= self.promise.floors[reader], "{name} repeats");
            self.no_skip(self.acknowledged[reader], cursor, &self.written);
            self.acknowledged[reader] = cursor;
            self.at[reader] = cursor;
            self.held[reader] = 0;
        }
    }

    /// Nothing that is there lies between the two positions.
    #[track_caller]
    fn no_skip(&self, from: u64, to: u64, among: &[Written]) {
        let skipped = among.iter().find(|w| {
            let place = w.record.position;
            place >= from && place < to && self.live.contains(&w.record.segment)
        });
        assert!(skipped.is_none(), "{skipped:?} is skipped, from {from} to {to}");
    }

    fn read(&mut self, reader: usize, most: usize) {
        let (id, mut payload) = (ReaderId(reader), Vec::new());
        for _ in 0..most {
            let at = self.at[reader];
            let mut found = self.wal.read(id, at, &mut payload).unwrap();
            if let (None, Some(buffer)) = (&found, &mut self.buffer) {
                found = buffer.read(id, at, &mut payload).unwrap();
            }
            let Some(record) = found else { return self.no_skip(at, u64::MAX, &self.written) };
            assert!(record.position >= at);
            let known = self.written.iter().find(|w| w.record.position == record.position);
            known.unwrap_or_else(|| panic!("nobody wrote {record:?}")).check(&record, &payload);
            self.no_skip(at, record.position, &self.written);
            self.at[reader] = record.next;
        }
    }

    fn acknowledge(&mut self, reader: usize, back: usize, sync: bool) {
        let read = self.written.partition_point(|w| w.record.next <= self.at[reader]);
        let Some(last) = read.checked_sub(1 + back) else { return };
        let position = self.written[last].record.next;
        if position <= self.acknowledged[reader] {
            return;
        }
        self.acknowledged[reader] = position;
        let id = ReaderId(reader);
        if let Some(buffer) = &mut self.buffer {
            buffer.acknowledge(id, position, false).unwrap();
        }
        let done = self.wal.acknowledge(id, position, sync);
        if done.is_ok() && sync && matches!(self.wal.share_cursor(id), Ok(Some(_))) {
            self.promise.floors[reader] = position.min(self.wal.end());
        }
    }

    /// After every step: what is gone was read by all, or is counted as dropped.
    fn settle(&mut self) {
        let bases = |segments: &mut dyn Iterator<Item = u64>| segments.collect::<BTreeSet<_>>();
        let mut live = bases(&mut self.wal.segments());
        if let Some(buffer) = &self.buffer {
            assert!(buffer.bytes() <= self.memory, "{} bytes in memory", buffer.bytes());
            live.append(&mut bases(&mut buffer.segments()));
        }
        let kept = |reader: usize| self.acknowledged[reader].max(self.held[reader]);
        let read = kept(0).min(kept(1));
        let known = |w: &&Written| self.live.contains(&w.record.segment);
        let unread = |w: &&Written| w.record.position >= read && !live.contains(&w.record.segment);
        // A segment that came and went in one step has nothing to lose.
        let dropped = self.written.iter().filter(known).filter(unread);
        self.dropped += dropped.map(|w| u64::from(w.record.items)).sum::<u64>();
        self.live = live;
        let counted = self.counted_before
            + self.wal.stats().evicted_items
            + self.buffer.as_ref().map_or(0, |buffer| buffer.stats().evicted_items);
        assert_eq!(counted, self.dropped, "dropped items are miscounted");
        assert!(counted == 0 || self.options.on_full == OnFull::DropOldest);
        assert_eq!(self.wal.stats().damaged_items + self.wal.stats().damaged_bytes, 0);
        self.promise.synced = self.promise.synced.max(self.wal.synced());
    }

    /// The next start after a power cut has all of `promise` that is there now.
    fn cut(&self, moment: &Moment, choice: &Choice, promise: &Promise) {
        let _scene = Scene((moment.operation, choice));
        let disk = Sim::new(moment.files(choice), self.options.max_bytes);
        let found = disk.bytes() + Options::MAX_CURSORS * 1_024;
        let mut wal = Wal::open(disk.clone(), self.options, &READERS).unwrap();
        assert!(disk.bytes() <= self.options.max_bytes);
        let may_drop = self.options.on_full == OnFull::DropOldest && found > self.options.max_bytes;
        let oldest = if may_drop { wal.segments().last().unwrap_or(0) } else { 0 };
        for reader in 0..2 {
            let id = ReaderId(reader);
            let (cursor, mut payload) = (wal.cursor(id), Vec::new());
            let (mut at, mut last_number) = (cursor, None);
            let promised = self.written.partition_point(|w| w.record.next <= promise.synced);
            let promised = &self.written[..promised];
            self.no_skip(self.acknowledged[reader].max(oldest), cursor, promised);
            while let Some(record) = wal.read(id, at, &mut payload).unwrap() {
                let known = self.written.iter().find(|w| w.record.position == record.position);
                let known = known.copied().filter(|w| w.record == record);
                let left = || self.left_by_failure(&record, &payload, promise.synced);
                let known = known.or_else(left).unwrap_or_else(|| panic!("no such {record:?}"));
                known.check(&record, &payload);
                assert!(record.next > promise.floors[reader], "{record:?} is sent again");
                assert!(last_number < Some(known.number), "{record:?} is out of order");
                last_number = Some(known.number);
                self.no_skip(at.max(oldest), record.position, &self.written);
                at = record.next;
            }
            self.no_skip(at.max(oldest), u64::MAX, promised);
        }
    }

    /// What a failed write has left whole, and nobody has cut off yet.
    fn left_by_failure(
        &self,
        record: &super::Record,
        payload: &[u8],
        synced: u64,
    ) -> Option<Written> {
        let number = u64::from_le_bytes(*payload.get(1..)?.first_chunk()?);
        let (number, len) = *self.failed.iter().find(|failed| failed.0 == number)?;
        (record.position >= synced).then_some(Written { number, len, record: *record })
    }

    fn cut_now(&self) {
        let moment = self.disk.moment();
        self.cut(&moment, &moment.nothing(), &self.promise);
    }

    fn play(&mut self, step: Step, cut: Option<u64>) {
        let before = self.promise;
        drop(self.disk.take_moments());
        self.step(step);
        self.settle();
        let mut moments = self.disk.take_moments();
        if matches!(step, Step::Mend) {
            self.cut_now();
        }
        if let Some(seed) = cut {
            let mut dice = Dice(seed);
            moments.push(self.disk.moment());
            for moment in &moments {
                self.cut(moment, &moment.nothing(), &before);
            }
            let moment = &moments[dice.roll(moments.len() as u64) as usize];
            self.cut(moment, &moment.random(&mut dice), &before);
            self.cut_now();
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(len) => self.append(len),
            Step::Sync => drop(self.wal.sync()),
            Step::Read { reader, most } => self.read(reader, most),
            Step::Acknowledge { reader, back, sync } => self.acknowledge(reader, back, sync),
            Step::Hold { reader, holds } => {
                let position = if holds { self.at[reader] } else { 0 };
                self.held[reader] = position;
                self.wal.hold(ReaderId(reader), position);
                if let Some(buffer) = &mut self.buffer {
                    buffer.hold(ReaderId(reader), position);
                }
            }
            Step::Fail(fault, count, part) => {
                let from = self.disk.operations();
                self.disk.plan(Some(Plan { fault, from, count, part }));
            }
            Step::Mend => {
                let healthy = self.disk.fault().is_none();
                match self.mend() {
                    Ok(()) => {}
                    Err(AppendError::Full { .. }) => {
                        assert_eq!(self.options.on_full, OnFull::Refuse);
                    }
                    Err(error) => assert!(!healthy, "{error}"),
                }
            }
            Step::Restart => self.restart(),
        }
    }

    fn finish(mut self) -> usize {
        self.disk.plan(None);
        for turn in 0.. {
            match self.mend() {
                Ok(()) => break,
                // The readers make room.
                Err(AppendError::Full { .. }) if turn < 1 => {
                    self.settle();
                    for reader in 0..2 {
                        self.read(reader, usize::MAX);
                        self.acknowledge(reader, 0, true);
                    }
                }
                Err(error) => panic!("the disk works, and {error}"),
            }
            self.settle();
        }
        self.settle();
        self.cut_now();
        for reader in 0..2 {
            self.read(reader, usize::MAX);
        }
        self.adopted
    }
}

proptest! {
    #[test]
    fn log_in_memory_that_is_moved_to_the_disk_loses_doubles_and_reorders_nothing(
        steps in steps(),
        refuse in any::<bool>(),
        memory in 0..MEMORY.len(),
    ) {
        let on_full = if refuse { OnFull::Refuse } else { OnFull::DropOldest };
        let mut pair = Pair::new(on_full, MEMORY[memory]);
        for (index, (step, cut)) in steps.into_iter().enumerate() {
            let _scene = Scene((index, step, cut));
            pair.play(step, cut);
        }
        pair.finish();
    }
}

#[test]
fn what_memory_drops_takes_no_reader_past_what_is_on_the_disk() {
    let mut pair = Pair::new(OnFull::DropOldest, MEMORY[0]);
    pair.play(Step::Append(500), None);
    pair.play(Step::Sync, None);
    pair.play(Step::Fail(Fault::Io, 1, 0), None);
    for _ in 0..20 {
        pair.play(Step::Append(4_000), None);
    }
    assert!(pair.dropped > 0);
    pair.play(Step::Mend, None);
    assert_eq!(pair.wal.cursor(ReaderId(0)), 0);
    pair.play(Step::Read { reader: 0, most: 1 }, None);
    assert_eq!(pair.at[0], pair.written[0].record.next);
    assert_eq!(pair.finish(), 1);
}

/// Records on the disk, and behind them a log in memory of which one reader has taken a part.
fn broken_pair(on_full: OnFull, memory: u64) -> Pair {
    let mut pair = Pair::new(on_full, memory);
    for len in [700, 3_000, 4_000] {
        pair.play(Step::Append(len), None);
    }
    pair.play(Step::Sync, None);
    pair.play(Step::Append(300), None);
    pair.play(Step::Fail(Fault::Io, 2, 1), None);
    for len in [500, 2_500, 2_500, 8_000, 100, 2_500, 4_000, 2_500] {
        pair.play(Step::Append(len), None);
    }
    pair.play(Step::Read { reader: 0, most: 7 }, None);
    pair.play(Step::Acknowledge { reader: 0, back: 0, sync: false }, None);
    pair.disk.plan(None);
    pair
}

#[test]
fn each_operation_of_a_move_to_the_disk_fails() {
    let (mut runs, mut midway) = (0, 0);
    for on_full in [OnFull::DropOldest, OnFull::Refuse] {
        let mut whole = broken_pair(on_full, MEMORY[0]);
        let first = whole.disk.operations();
        whole.play(Step::Mend, None);
        let operations = whole.disk.operations() - first;
        assert!(whole.buffer.is_none() && operations > 15, "{operations} operations");
        for nth in 0..operations {
            for fault in [Fault::NoSpace, Fault::Io, Fault::ReadOnly, Fault::Sync] {
                for (count, part) in [(1, 0), (2, 1), (4, 2), (20, 1)] {
                    let from = first + nth;
                    let plan = Plan { fault, from, count, part };
                    let _scene = Scene(plan);
                    let mut pair = broken_pair(on_full, MEMORY[0]);
                    let segments = |pair: &Pair| pair.buffer.as_ref().map(|b| b.segments().count());
                    let before = segments(&pair);
                    pair.disk.plan(Some(plan));
                    let _ = pair.mend();
                    pair.settle();
                    midway += u32::from(segments(&pair).is_some_and(|left| Some(left) != before));
                    pair.cut_now();
                    pair.play(Step::Append(50), Some(nth));
                    pair.play(Step::Read { reader: 1, most: 3 }, None);
                    for _ in 0..3 {
                        let healthy = pair.disk.fault().is_none();
                        let mended = pair.mend();
                        assert!(mended.is_ok() || !healthy, "{mended:?}");
                        pair.settle();
                        pair.cut_now();
                    }
                    pair.play(Step::Append(60), None);
                    pair.finish();
                    runs += 1;
                }
            }
        }
    }
    assert!(runs > 400 && midway > 50, "{runs} runs, {midway} of them were stopped midway");
}

#[test]
fn what_was_acknowledged_in_memory_is_not_counted_when_it_goes_from_the_disk() {
    let mut pair = Pair::new(OnFull::DropOldest, MEMORY[1]);
    pair.play(Step::Fail(Fault::Io, 1, 0), None);
    pair.play(Step::Append(3_000), None);
    for _ in 0..12 {
        pair.play(Step::Append(3_500), None);
    }
    for reader in 0..2 {
        // A part of its segment.
        pair.play(Step::Read { reader, most: 1 }, None);
        pair.play(Step::Acknowledge { reader, back: 0, sync: false }, None);
    }
    assert_eq!(pair.dropped, 0);
    // Memory has more than the disk takes.
    pair.play(Step::Mend, None);
    assert!(pair.dropped > 0);
    pair.finish();
}

#[test]
fn what_was_acknowledged_in_memory_makes_room_for_the_rest_of_a_move() {
    let mut pair = Pair::new(OnFull::Refuse, MEMORY[1]);
    pair.play(Step::Fail(Fault::Io, 1, 0), None);
    for _ in 0..14 {
        pair.play(Step::Append(3_400), None);
    }
    pair.play(Step::Read { reader: 0, most: 14 }, None);
    pair.play(Step::Acknowledge { reader: 0, back: 0, sync: false }, None);
    // The other reader holds all of it back, and it is more than the disk takes.
    assert!(matches!(pair.mend(), Err(AppendError::Full { .. })));
    pair.settle();
    pair.play(Step::Read { reader: 1, most: 14 }, None);
    pair.play(Step::Acknowledge { reader: 1, back: 0, sync: false }, None);
    pair.mend().unwrap();
    pair.finish();
}

#[test]
fn hole_that_a_power_cut_leaves_in_a_moved_segment_ends_it() {
    let mut pair = Pair::new(OnFull::Refuse, MEMORY[0]);
    pair.play(Step::Fail(Fault::Io, 1, 0), None);
    for _ in 0..6 {
        pair.play(Step::Append(700), None);
    }
    let before = pair.promise;
    drop(pair.disk.take_moments());
    pair.mend().unwrap();
    pair.settle();
    let mut dice = Dice(1);
    for moment in pair.disk.take_moments() {
        for _ in 0..300 {
            pair.cut(&moment, &moment.random(&mut dice), &before);
        }
    }
}
