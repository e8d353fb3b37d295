//! The power goes at every operation of a long run, and again at every operation of the recovery; what
//! the next start finds keeps each promise of the book.

use super::OnFull;
use super::power_cut::{Dice, Moment};
use super::trial::{Book, Marks, SEGMENT, Scene, Trial, largest, options};

/// How a run is played.
#[derive(Clone, Copy, Debug)]
struct Script {
    on_full: OnFull,
    /// The bound.
    segments: u64,
    appends: usize,
    /// A sync comes after so many appends.
    sync_every: usize,
    seed: u64,
}

/// The states that were started from.
struct Judge {
    points: u64,
    /// States by dice for each operation.
    random: usize,
    /// Every so many states, the recovery is watched and cut as well.
    again_every: u64,
    /// The most bytes over the bound that a state had.
    over: u64,
    /// Every so many states, the log goes on and is started once more.
    go_on_every: u64,
    dice: Dice,
}

impl Judge {
    /// Starts from every state that the moments can end in.
    fn judge(
        &mut self,
        moments: &[Moment],
        trial: &Trial,
        before: &Marks,
        after: &Book,
        again: bool,
    ) {
        for moment in moments {
            let random = if again { self.random } else { 1 };
            for choice in moment.choices(random, &mut self.dice) {
                let _scene = Scene((moment.operation, moment.last, &choice, before));
                let watch = again && self.points.is_multiple_of(self.again_every);
                self.points += 1;
                let files = moment.files(&choice);
                let bytes: u64 = files.values().map(|content| content.len() as u64).sum();
                self.over = self.over.max(bytes.saturating_sub(trial.options.max_bytes));
                let (options, configured) = (trial.options, trial.configured);
                let mut next = Trial::power_on(files, options, configured, before, after, watch);
                if watch {
                    let book = next.book.clone();
                    self.judge(&next.disk.take_moments(), trial, before, &book, false);
                }
                if self.points.is_multiple_of(self.go_on_every) {
                    self.go_on(&mut next);
                }
            }
        }
    }

    /// After a start the log takes records, which come after all others and survive the next cut.
    fn go_on(&mut self, trial: &mut Trial) {
        for len in [40, 1_500] {
            self.step(trial, false, |trial| {
                trial.append(len);
            });
        }
        self.step(trial, false, |trial| trial.sync().unwrap());
        let moment = trial.disk.moment();
        let files = moment.files(&moment.nothing());
        let (options, configured) = (trial.options, trial.configured);
        Trial::power_on(files, options, configured, &trial.book.marks, &trial.book, false);
    }

    /// Plays a step and cuts the power at each of its operations.
    fn step(&mut self, trial: &mut Trial, again: bool, step: impl FnOnce(&mut Trial)) {
        let before = trial.book.marks;
        step(trial);
        let moments = trial.disk.take_moments();
        let book = trial.book.clone();
        self.judge(&moments, trial, &before, &book, again);
    }
}

/// What a run has to have met, or its cuts prove little.
#[derive(Debug, Default)]
struct Met {
    rolls: usize,
    refusals: usize,
}

fn play(script: Script) -> u64 {
    let _scene = Scene(script);
    let started = std::time::Instant::now();
    let mut trial = Trial::new(options(script.segments, script.on_full));
    trial.disk.watch();
    let dice = Dice(script.seed ^ 0x5eed);
    let mut judge =
        Judge { points: 0, random: RANDOM, again_every: 67, over: 0, go_on_every: 5, dice };
    let mut dice = Dice(script.seed);
    let mut met = Met::default();
    for round in 1..=script.appends {
        let len = match dice.roll(10) {
            0 => dice.roll(SEGMENT / 4),
            1..4 => dice.roll(SEGMENT / 8),
            _ => dice.roll(SEGMENT / 16),
        };
        let len = (len as usize).min(largest(&trial.options));
        judge.step(&mut trial, true, |trial| match trial.append(len).unwrap() {
            Ok(record) => met.rolls += usize::from(record.fresh),
            Err(_) => {
                // Full: the readers make room.
                met.refusals += 1;
                let end = trial.book.records.len();
                trial.acknowledge(0, end - 10, true);
                trial.acknowledge(1, end - 20, true);
            }
        });
        if round % script.sync_every == 0 {
            judge.step(&mut trial, true, |trial| trial.sync().unwrap());
        } else if round % (script.sync_every + 1) == 0 {
            // A sync during which something is appended, perhaps to the next segment.
            judge.step(&mut trial, true, Trial::start_sync);
            judge.step(&mut trial, true, |trial| drop(trial.append(700)));
            judge.step(&mut trial, true, Trial::run_sync);
            judge.step(&mut trial, true, |trial| trial.end_sync().unwrap());
        }
        let last = trial.book.records.len() - 1;
        if round % 3 == 0 {
            let upto = last.saturating_sub(dice.roll(6) as usize);
            let sync = dice.roll(3) > 0;
            judge.step(&mut trial, true, |trial| trial.acknowledge(0, upto, sync));
        }
        if round % 40 == 0 && script.on_full == OnFull::Refuse || round % 130 == 0 {
            let upto = last.saturating_sub(dice.roll(60) as usize);
            let sync = dice.roll(2) > 0;
            judge.step(&mut trial, true, |trial| trial.acknowledge(1, upto, sync));
        }
        let fifth = script.appends / 5;
        if round % fifth == 0 {
            let configured = [2, 2, 2, 1, 2, 2][round / fifth];
            judge.step(&mut trial, true, |trial| trial.reopen(configured).unwrap());
        }
        if round % 50 == 0 {
            trial.check();
        }
    }
    trial.check();
    println!(
        "{script:?}: {} operations, {} crash points, {met:?}, {} evictions, a start found at most {} bytes more \
         than the bound, {:?}",
        trial.disk.operations(),
        judge.points,
        trial.evictions,
        judge.over,
        started.elapsed()
    );
    assert!(met.rolls > 8, "{met:?}");
    match script.on_full {
        OnFull::DropOldest => assert!(trial.evictions > 3),
        OnFull::Refuse => assert!(met.refusals > 0, "{met:?}"),
    }
    assert_eq!(judge.over, 0, "the bound holds for what a power cut leaves, too");
    judge.points
}

/// States by dice for each operation, beside those of a kind.
const RANDOM: usize = 3;

/// What each run has to reach, so that they come to more than 20,000 together.
const LEAST: u64 = 7_000;

#[test]
fn power_cut_at_every_operation_while_each_record_is_synced() {
    let on_full = OnFull::DropOldest;
    let points = play(Script { on_full, segments: 3, appends: 300, sync_every: 1, seed: 1 });
    assert!(points > LEAST, "{points}");
}

#[test]
fn power_cut_at_every_operation_while_every_seventh_record_is_synced() {
    let on_full = OnFull::DropOldest;
    let points = play(Script { on_full, segments: 3, appends: 300, sync_every: 7, seed: 2 });
    assert!(points > LEAST, "{points}");
}

#[test]
fn power_cut_at_every_operation_of_a_refusing_log() {
    let on_full = OnFull::Refuse;
    let points = play(Script { on_full, segments: 3, appends: 300, sync_every: 3, seed: 3 });
    assert!(points > LEAST, "{points}");
}
