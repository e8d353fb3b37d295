//! What the next start may find when the power goes: the states that a moment of the played disk can
//! end in. It must not know what the bytes mean.
//!
//! Kept of each file's unsynced changes is, whatever happens to the other files: a prefix, whose next
//! write is torn somewhere; or any subset of their sectors, with zeros where the length has come without
//! the data; of the directory's changes a prefix. Sectors are whole there: a torn one is only played
//! as the last that was being written.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::sim::{Change, Content, Entry, Files, Inode};

const SECTOR: usize = 512;

/// Numbers that look random and are the same each time.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// What was being done when the power went: the last change in the list of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    File(usize),
    Directory,
    Nothing,
}

/// A disk between two operations, or with the last one under way.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) operation: u64,
    pub(super) inodes: Vec<Inode>,
    /// The durable directory.
    pub(super) names: BTreeMap<String, usize>,
    pub(super) entries: Vec<Entry>,
    pub(super) last: Last,
}

/// What is left of a file's unsynced changes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// So many changes, and so many bytes of the one after them.
    Prefix(usize, usize),
    /// A subset of the sectors by dice, and whether the length has come without them.
    Sectors(u64, bool),
    /// The length without any data.
    Zeros,
}

/// What is left of everything. Files that have nothing unsynced are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    files: BTreeMap<usize, Kept>,
    entries: usize,
}

impl Moment {
    /// The state in which everything written has survived: a killed process.
    #[cfg(test)]
    pub(super) fn all(&self) -> Choice {
        self.choice(self.entries.len(), |count| Kept::Prefix(count, 0))
    }

    /// The state in which nothing unsynced has survived.
    pub(super) fn nothing(&self) -> Choice {
        self.choice(0, |_| Kept::Prefix(0, 0))
    }

    /// A state by dice.
    pub(super) fn random(&self, dice: &mut Dice) -> Choice {
        let entries = dice.roll(self.entries.len() as u64 + 1) as usize;
        let mut choice = self.choice(entries, |count| Kept::Prefix(count, 0));
        for (&inode, kept) in &mut choice.files {
            let pending = &self.inodes[inode].pending;
            *kept = match dice.roll(10) {
                0 => Kept::Zeros,
                1 => Kept::Prefix(pending.len(), 0),
                2..6 => {
                    let whole = dice.roll(pending.len() as u64) as usize;
                    let torn = match &pending[whole] {
                        Change::Write { bytes, .. } => dice.roll(bytes.len() as u64 + 1) as usize,
                        Change::Truncate(_) => 0,
                    };
                    Kept::Prefix(whole, torn)
                }
                _ => Kept::Sectors(dice.roll(u64::MAX), dice.roll(2) == 0),
            };
        }
        choice
    }

    /// Every state of a few kinds, and `random` more by dice; each once.
    pub(super) fn choices(&self, random: usize, dice: &mut Dice) -> Vec<Choice> {
        let all = self.all();
        let nothing = self.nothing();
        let mut choices = vec![all.clone()];
        let mut add = |choice: Choice| {
            if !choices.contains(&choice) {
                choices.push(choice);
            }
        };
        add(nothing.clone());
        for entries in 0..=self.entries.len() {
            add(Choice { entries, ..all.clone() });
            add(Choice { entries, ..nothing.clone() });
        }
        if let Last::File(inode) = self.last
            && let Some(Change::Write { offset, bytes }) = self.inodes[inode].pending.last()
            && all.files.contains_key(&inode)
        {
            let whole = self.inodes[inode].pending.len() - 1;
            let first = SECTOR - offset % SECTOR;
            let last = bytes.len() - ((offset + bytes.len()) % SECTOR).min(bytes.len());
            let between = first + SECTOR * dice.roll((bytes.len() / SECTOR) as u64 + 1) as usize;
            for len in [0, 1, bytes.len() / 2, bytes.len() - 1, first, last, between] {
                if len < bytes.len() {
                    for mut choice in [all.clone(), nothing.clone()] {
                        choice.files.insert(inode, Kept::Prefix(whole, len));
                        add(choice);
                    }
                }
            }
        }
        add(self.choice(self.entries.len(), |_| Kept::Zeros));
        for _ in 0..random {
            add(self.random(dice));
        }
        choices
    }

    fn choice(&self, entries: usize, kept: impl Fn(usize) -> Kept) -> Choice {
        let mut names = self.names.clone();
        let mut files = BTreeMap::new();
        let mut add = |names: &BTreeMap<String, usize>| {
            for &inode in names.values() {
                match self.inodes[inode].pending.len() {
                    0 => {}
                    count => {
                        files.insert(inode, kept(count));
                    }
                }
            }
        };
        add(&names);
        for entry in &self.entries {
            entry.apply(&mut names);
        }
        add(&names);
        Choice { files, entries }
    }

    /// The files of that state.
    pub(super) fn files(&self, choice: &Choice) -> Files {
        let mut names = self.names.clone();
        for entry in &self.entries[..choice.entries] {
            entry.apply(&mut names);
        }
        names
            .into_iter()
            .map(|(name, inode)| (name, self.content(inode, choice.files.get(&inode))))
            .collect()
    }

    fn content(&self, inode: usize, kept: Option<&Kept>) -> Content {
        let Inode { durable, shown, pending, lost } = &self.inodes[inode];
        match kept {
            None | Some(Kept::Prefix(0, 0)) => Rc::clone(durable),
            Some(Kept::Prefix(count, 0)) if *count == pending.len() && !lost => Rc::clone(shown),
            Some(Kept::Prefix(count, torn)) => {
                let mut content = Vec::clone(durable);
                for change in &pending[..*count] {
                    change.apply(&mut content, usize::MAX);
                }
                if let Some(next) = pending.get(*count) {
                    next.apply(&mut content, *torn);
                }
                Rc::new(content)
            }
            Some(Kept::Zeros) => {
                let mut content = Vec::clone(durable);
                content.resize(shown.len(), 0);
                Rc::new(content)
            }
            Some(Kept::Sectors(seed, length)) => {
                let mut content = Vec::clone(durable);
                keep_sectors(&mut content, pending, &mut Dice(*seed));
                if *length {
                    content.resize(shown.len(), 0);
                }
                Rc::new(content)
            }
        }
    }
}

/// Makes each change to each sector or not.
fn keep_sectors(content: &mut Vec<u8>, pending: &[Change], dice: &mut Dice) {
    for change in pending {
        let Change::Write { offset, bytes } = change else {
            change.apply(content, usize::MAX);
            continue;
        };
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
            if dice.roll(2) == 0 {
                let piece = Change::Write { offset: offset + at, bytes: bytes[at..end].into() };
                piece.apply(content, usize::MAX);
            }
            at = end;
        }
    }
}
