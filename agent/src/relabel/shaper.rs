//! Rules for the samples of rounds, before they count against a limit and before they are written.
//!
//! Rules see a series as it will be sent: its name, its own labels and those that all series get. What they
//! have made of a key is remembered, so that a series that was in one of the last rounds costs a comparison
//! in the next one, no memory and no expression.
//!
//! What all series get is written once for all of them, and a series can't be without it then. So labels
//! that rules may take from one series and not from another are given to each series as its own
//! ([`Shaper::for_all`] has the others).

use std::cell::RefCell;
use std::rc::Rc;

use super::keys::Keys;
use super::rules::{Rules, Verdict};
use super::set::LabelSet;
use super::{NAME, is_metric_name};
use crate::model::{Labels, Shape};

/// Closes each part of a key, see `model::Samples`.
const END: u8 = 0xff;

/// A result that is no key's number.
const UNKNOWN: u32 = u32::MAX;
const DROPPED: u32 = u32::MAX - 1;
const NAMELESS: u32 = u32::MAX - 2;
const TOO_LARGE: u32 = u32::MAX - 3;

/// Keys of series that were not there for so many rounds may be forgotten.
const LONG: u32 = 64;
/// So many are kept in any case.
const FEW: usize = 512;

/// What became of samples since they were last asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rules let them go.
    pub dropped: u64,
    /// Their series became one that another sample of the round has.
    pub duplicates: u64,
    /// Rules left them without a name, or with one that is no metric's.
    pub nameless: u64,
    /// Their labels passed a bound of [`LabelSet`].
    pub too_large: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// The number of the key that it becomes, or one of the words above.
    result: u32,
    /// The last round that had it before the rules, and the last that had it after them.
    came: u32,
    went: u32,
    /// The key that came after it the last time.
    next: u32,
}

impl Row {
    const NEW: Row = Row { result: UNKNOWN, came: 0, went: 0, next: UNKNOWN };
}

/// Rules, and what they have made of the series of the last rounds.
#[derive(Debug)]
pub struct Shaper {
    rules: Rules,
    /// What all series get, and what of it is written once.
    common: Labels,
    for_all: Labels,
    /// Keys before and after the rules.
    keys: Keys,
    rows: Vec<Row>,
    round: u32,
    last: u32,
    /// So many keys make it look for those that are gone.
    look: usize,
    set: LabelSet,
    result: Vec<u8>,
    counts: Counts,
    /// Two series that became one, until somebody asks; told once.
    twin: Option<String>,
    told: bool,
}

impl Shaper {
    /// Rules for series that all get these labels unless they have them themselves.
    pub fn new(rules: Rules, common: Labels) -> Shaper {
        let mut for_all = common.clone();
        for_all.retain(|name, _| !rules.may_remove(name) && !rules.always_remove(name));
        Shaper {
            rules,
            common,
            for_all,
            keys: Keys::default(),
            rows: Vec::new(),
            round: 1,
            last: UNKNOWN,
            look: FEW,
            set: LabelSet::new(),
            result: Vec::new(),
            counts: Counts::default(),
            twin: None,
            told: false,
        }
    }

    /// The labels that every series still gets, unless it has them itself: what the round is written with.
    pub fn for_all(&self) -> &Labels {
        &self.for_all
    }

    /// Begins a round: no series may come twice from here on.
    pub fn begin(&mut self) {
        self.last = UNKNOWN;
        self.round = self.round.wrapping_add(1);
        if self.keys.len() >= self.look || self.round == 0 {
            let round = self.round;
            let recent = |row: &&Row| round.wrapping_sub(row.came.max(row.went)) <= LONG;
            let live = self.rows.iter().filter(recent).count();
            if self.round == 0 || self.keys.len() > 2 * live + FEW / 2 {
                self.keys.clear();
                self.rows = Vec::new();
                self.round = self.round.max(1);
            }
            self.look = 2 * live + FEW;
        }
    }

    /// What became of samples since the last call, and the first time an example of series that became one.
    pub fn take_counts(&mut self) -> (Counts, Option<String>) {
        (std::mem::take(&mut self.counts), self.twin.take())
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.keys.memory() + self.rows.capacity() * size_of::<Row>() + self.result.capacity()
    }

    /// The number of a key; the one that came next the last time is looked at first.
    fn number(&mut self, key: &[u8]) -> Option<usize> {
        let last = self.last as usize;
        let likely = self.rows.get(last).map(|row| row.next as usize);
        let number = match likely.filter(|likely| self.keys.get(*likely) == Some(key)) {
            Some(number) => number,
            None => {
                let number = self.keys.add(key)?;
                self.rows.resize(self.keys.len(), Row::NEW);
                if let Some(row) = self.rows.get_mut(last) {
                    row.next = number as u32;
                }
                number
            }
        };
        self.last = number as u32;
        Some(number)
    }

    /// What rules make of a key, which is in `result` then if it stays.
    fn apply(&mut self, key: &[u8], rules: bool) -> u32 {
        let mut parts = key.split(|&byte| byte == END);
        let mut part = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
        self.set.clear();
        self.set.add(NAME, part().unwrap_or_default());
        while let (Some(name), Some(value)) = (part(), part()) {
            self.set.add(name, value);
        }
        for (name, value) in self.common.iter() {
            self.set.add(name, value);
        }
        self.set.sort();
        if rules {
            match self.rules.apply(&mut self.set) {
                Verdict::Keep => self.set.sort(),
                Verdict::Drop => return DROPPED,
                Verdict::TooLarge => return TOO_LARGE,
            }
        }
        let name = self.set.get(NAME);
        if rules && !is_metric_name(name) {
            return NAMELESS;
        }
        self.result.clear();
        self.result.extend_from_slice(name.as_bytes());
        self.result.push(END);
        for (name, value) in self.set.iter() {
            if name != NAME && self.for_all.get(name) != Some(value) {
                self.result.extend_from_slice(name.as_bytes());
                self.result.push(END);
                self.result.extend_from_slice(value.as_bytes());
                self.result.push(END);
            }
        }
        UNKNOWN
    }

    /// As [`Shape::shape`] does it, for a sample of the user's.
    fn judge(&mut self, keys: &mut Vec<u8>, start: usize) -> bool {
        let key = keys.get(start..).unwrap_or_default();
        let number = self.number(key);
        let row = number.and_then(|number| self.rows.get(number).copied()).unwrap_or(Row::NEW);
        let mut result = row.result;
        if result == UNKNOWN {
            result = self.apply(key, true);
            if result == UNKNOWN {
                let became = std::mem::take(&mut self.result);
                let same = number.filter(|_| became == key);
                let found = same.or_else(|| self.keys.add(&became));
                self.rows.resize(self.keys.len(), Row::NEW);
                self.result = became;
                result = found.map_or(UNKNOWN, |number| number as u32);
            }
        }
        if let Some(row) = number.and_then(|number| self.rows.get_mut(number)) {
            (row.result, row.came) = (result, self.round);
        }
        match result {
            DROPPED => self.counts.dropped += 1,
            NAMELESS => self.counts.nameless += 1,
            TOO_LARGE => self.counts.too_large += 1,
            // Nothing could be remembered: far too many series.
            UNKNOWN => {
                keys.truncate(start);
                keys.extend_from_slice(&self.result);
                return true;
            }
            became => {
                if let Some(row) = self.rows.get_mut(became as usize) {
                    if row.went == self.round {
                        self.counts.duplicates += 1;
                        if !std::mem::replace(&mut self.told, true) {
                            self.twin = self.keys.get(became as usize).map(show);
                        }
                        return false;
                    }
                    row.went = self.round;
                }
                if number != Some(became as usize)
                    && let Some(key) = self.keys.get(became as usize)
                {
                    keys.truncate(start);
                    keys.extend_from_slice(key);
                }
                return true;
            }
        }
        false
    }
}

/// A key as people write a series.
fn show(key: &[u8]) -> String {
    let mut parts = key.split(|&byte| byte == END).map(|part| String::from_utf8_lossy(part));
    let mut text = parts.next().unwrap_or_default().into_owned();
    let mut open = '{';
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        text.push(open);
        text.push_str(&format!("{name}={value:?}"));
        open = ',';
    }
    if open == ',' {
        text.push('}');
    }
    text
}

/// Several rounds of samples may pass the same rules.
impl Shape for Rc<RefCell<Shaper>> {
    fn shape(&mut self, keys: &mut Vec<u8>, start: usize, own: bool) -> bool {
        // Nobody keeps it borrowed while samples come.
        let Ok(mut shaper) = self.try_borrow_mut() else { return true };
        if !own {
            return shaper.judge(keys, start);
        }
        shaper.apply(keys.get(start..).unwrap_or_default(), false);
        keys.truncate(start);
        keys.extend_from_slice(&shaper.result);
        true
    }
}
