//! Anything in any order: appends, syncs on another thread, reads, acknowledgements, restarts, foreign
//! files, a disk that is full, broken or read-only for a while, and power cuts in the midst of all that.
//! What is read is what the book says; what is promised is kept.

use proptest::prelude::*;

use super::power_cut::Dice;
use super::sim::{Fault, Plan};
use super::trial::{READERS, Scene, Trial, largest, options};
use super::{AppendError, OnFull, segment};

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(usize),
    AppendTooLarge,
    Sync,
    StartSync,
    RunSync,
    EndSync,
    Read {
        reader: usize,
        most: usize,
    },
    /// Up to so many records before the end.
    Acknowledge {
        reader: usize,
        back: usize,
        sync: bool,
    },
    Restart {
        configured: usize,
        foreign: Option<Foreign>,
    },
    Fail {
        fault: Fault,
        count: u64,
        part: u8,
    },
}

/// A file that somebody puts into the directory while the log is closed.
#[derive(Clone, Copy, Debug)]
enum Foreign {
    Notes,
    /// Named as a segment far behind the end, exactly at the end, or within the newest one.
    Far,
    Next,
    Inside,
    /// A copy of a segment under another name.
    Copy,
    Empty,
    Cursor,
    Aside,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        1 => Just(Fault::NoSpace),
        1 => Just(Fault::Io),
        1 => Just(Fault::ReadOnly),
        3 => Just(Fault::Sync),
    ];
    let foreign = prop_oneof![
        Just(Foreign::Notes),
        Just(Foreign::Far),
        Just(Foreign::Next),
        Just(Foreign::Inside),
        Just(Foreign::Copy),
        Just(Foreign::Empty),
        Just(Foreign::Cursor),
        Just(Foreign::Aside),
    ];
    prop_oneof![
        20 => prop_oneof![3 => 1..600usize, 2 => 1..9_000usize].prop_map(Step::Append),
        1 => Just(Step::AppendTooLarge),
        4 => Just(Step::Sync),
        3 => Just(Step::StartSync),
        3 => Just(Step::RunSync),
        3 => Just(Step::EndSync),
        2 => (0..2usize, 1..9usize).prop_map(|(reader, most)| Step::Read { reader, most }),
        6 => (0..2usize, 0..30usize, any::<bool>())
            .prop_map(|(reader, back, sync)| Step::Acknowledge { reader, back, sync }),
        2 => (1..=2usize, proptest::option::of(foreign))
            .prop_map(|(configured, foreign)| Step::Restart { configured, foreign }),
        2 => (fault, 1..7u64, 0..3u8)
            .prop_map(|(fault, count, part)| Step::Fail { fault, count, part }),
    ]
}

/// Steps, and for some of them dice for a power cut in their midst.
fn steps() -> impl Strategy<Value = Vec<(Step, Option<u64>)>> {
    let cut = proptest::option::weighted(0.05, any::<u64>());
    proptest::collection::vec((step(), cut), 1..120)
}

struct Model {
    trial: Trial,
    /// Notes of somebody's are in the directory, and must stay.
    notes: bool,
    /// Foreign files take room.
    foreign: bool,
}

impl Model {
    fn play(&mut self, step: Step, cut: Option<u64>) {
        let Some(seed) = cut else { return self.step(step) };
        let before = self.trial.book.marks;
        self.trial.disk.watch();
        self.step(step);
        let mut moments = self.trial.disk.take_moments();
        moments.push(self.trial.disk.moment());
        let mut dice = Dice(seed);
        let moment = &moments[dice.roll(moments.len() as u64) as usize];
        let choice = moment.random(&mut dice);
        let _scene = Scene((moment.operation, &choice));
        self.notes = moment.names.contains_key("notes.txt");
        let (options, configured, book) =
            (self.trial.options, self.trial.configured, self.trial.book.clone());
        self.trial =
            Trial::power_on(moment.files(&choice), options, configured, &before, &book, false);
    }

    fn step(&mut self, step: Step) {
        let trial = &mut self.trial;
        match step {
            Step::Append(len) => self.append(len),
            Step::AppendTooLarge => {
                let len = largest(&trial.options) + 200;
                self.append(len);
            }
            Step::Sync => {
                let healthy = trial.is_healthy();
                let result = trial.sync();
                assert!(result.is_ok() || !healthy || trial.disk.fault().is_some());
            }
            Step::StartSync => trial.start_sync(),
            Step::RunSync => trial.run_sync(),
            Step::EndSync => drop(trial.end_sync()),
            Step::Read { reader, most } => {
                if reader < trial.configured && trial.wal().is_some() {
                    let read = trial.read(reader, most);
                    assert!(read.windows(2).all(|w| w[0] + 1 == w[1]), "a gap: {read:?}");
                }
            }
            Step::Acknowledge { reader, back, sync } => {
                if let Some(index) = trial.book.records.len().checked_sub(1 + back) {
                    trial.acknowledge(reader, index, sync);
                }
            }
            Step::Restart { configured, foreign } => {
                trial.run_sync();
                let _ = trial.end_sync();
                if let Some(foreign) = foreign {
                    self.put(foreign);
                }
                let healthy = self.trial.is_healthy();
                let result = self.trial.reopen(configured);
                assert!(result.is_ok() || !healthy, "{result:?}");
            }
            Step::Fail { fault, count, part } => {
                let from = trial.disk.operations();
                trial.disk.plan(Some(Plan { fault, from, count, part }));
            }
        }
    }

    fn append(&mut self, len: usize) {
        let trial = &mut self.trial;
        let healthy = trial.is_healthy();
        match trial.append(len) {
            None => assert!(!healthy, "the log did not open again"),
            Some(Ok(_)) => {}
            Some(Err(AppendError::TooLarge { .. })) => assert!(len > largest(&trial.options)),
            Some(Err(AppendError::Full { .. })) => {
                assert!(trial.options.on_full == OnFull::Refuse || self.foreign, "full too early");
            }
            Some(Err(error)) => assert!(!healthy, "{error}"),
        }
    }

    fn put(&mut self, foreign: Foreign) {
        let disk = &self.trial.disk;
        let files = disk.files();
        let newest = files.iter().rfind(|(name, _)| segment::parse_name(name).is_some());
        let end = self.trial.book.records.last().map_or(0, |written| written.record.next);
        let garbage = vec![0x5a; 100];
        let (name, bytes) = match foreign {
            Foreign::Notes => ("notes.txt".to_owned(), b"mine".to_vec()),
            Foreign::Far => (segment::name(end + (1 << 40)), garbage),
            Foreign::Next => (segment::name(end), garbage),
            Foreign::Inside => (segment::name(end.saturating_sub(3)), garbage),
            Foreign::Copy => {
                let Some((_, content)) = newest else { return };
                (segment::name(end + 77), content[..content.len().min(500)].to_vec())
            }
            Foreign::Empty => (segment::name(end + 5), Vec::new()),
            Foreign::Cursor => ("gone.cursor".to_owned(), vec![1; 1_024]),
            Foreign::Aside => (segment::name(7) + ".aside", garbage),
        };
        self.foreign = true;
        let put = disk.put(&name, bytes);
        self.notes |= put && matches!(foreign, Foreign::Notes);
    }

    fn finish(mut self) {
        self.trial.disk.plan(None);
        let _ = self.trial.end_sync();
        self.trial.check();
        let configured = self.trial.configured;
        self.trial.reopen(configured).unwrap();
        self.trial.check();
        let notes = self.trial.disk.files().get("notes.txt").map(|content| Vec::clone(content));
        assert_eq!(notes, self.notes.then(|| b"mine".to_vec()), "somebody's file has changed");
    }
}

proptest! {
    #[test]
    fn whatever_happens_what_was_promised_is_kept(steps in steps(), refuse in any::<bool>()) {
        let on_full = if refuse { OnFull::Refuse } else { OnFull::DropOldest };
        let trial = Trial::new(options(3, on_full));
        let mut model = Model { trial, notes: false, foreign: false };
        for (index, (step, cut)) in steps.into_iter().enumerate() {
            let _scene = Scene((index, step, cut));
            model.play(step, cut);
        }
        model.finish();
    }
}

#[test]
fn readers_are_two() {
    assert_eq!(READERS.len(), 2, "steps choose among so many");
}
