//! The joiner: lines of one stream that belong together become one entry.
//!
//! Two kinds of stages join. The first stage of all joins the parts of lines that a source has marked as
//! partial, without anything between them; a multi-line stage joins lines by what they begin with,
//! separated by line breaks. The first line gives the timestamp and the structured metadata.
//!
//! The state of a stream in a stage is one group or none. Of the entry that comes and the one that is
//! held one is kept and at most one goes on, so that the order within a stream stays.

use std::time::Duration;

use tokio::time::Instant;

use super::Work;
use super::hash::{Fnv, of_labels};
use super::held::Group;
use super::pattern::Pattern;

/// How long a part of a line waits for the next; programs that split lines write the parts at once.
const PART_WAIT: Duration = Duration::from_secs(5);

/// What lines belong together, and the bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// How to tell.
    pub mark: Mark,
    /// The most lines of an entry.
    pub max_lines: u32,
    /// The most bytes of an entry of several lines.
    pub max_bytes: usize,
    /// How long a line waits for the next, from its reading on.
    pub max_wait: Duration,
}

/// How to tell a first line from others.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// First lines match.
    Start(Pattern),
    /// First lines don't match.
    Continues(Pattern),
}

/// What a joining stage joins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Join {
    /// Parts of lines, up to so many bytes; the rest is cut off.
    Parts(usize),
    /// Lines.
    Lines(Lines),
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// What is in the working entry now goes on: itself, or the one that was held.
    Pass,
    /// It is held, alone or as a part of another.
    Held,
}

/// The groups of all stages.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) list: Vec<Group>,
    /// Bytes of all, as [`Group::bytes`] counts them.
    pub(super) bytes: usize,
    /// Keys of positions whose groups are gone.
    pub(super) gone: Vec<String>,
    order: u64,
    /// Joined lines that were cut.
    pub(super) cut: u64,
}

impl Join {
    /// What the stage does, as a number that stays the same as long as it does the same.
    pub(super) fn identity(&self, selector: &str) -> u64 {
        match self {
            // Whatever the bound: what is held is joined by the next run.
            Join::Parts(_) => Fnv::new().text("parts").finish(),
            Join::Lines(lines) => {
                let (kind, pattern) = match &lines.mark {
                    Mark::Start(pattern) => ("start", pattern),
                    Mark::Continues(pattern) => ("continues", pattern),
                };
                Fnv::new().text("lines").text(selector).text(kind).text(pattern.as_str()).finish()
            }
        }
    }

    pub(super) fn wait(&self) -> Duration {
        match self {
            Join::Parts(_) => PART_WAIT,
            Join::Lines(lines) => lines.max_wait,
        }
    }
}

impl Groups {
    /// A group that a position has brought.
    pub(super) fn restore(&mut self, group: Group) {
        self.order = self.order.max(group.order.saturating_add(1));
        self.bytes += group.bytes();
        self.list.push(group);
    }

    /// The group of a stage and a stream.
    pub(super) fn find(&self, identity: u64, work: &Work, hash: u64) -> Option<usize> {
        self.list.iter().position(|group| {
            group.hash == hash && group.identity == identity && group.work.labels() == work.labels()
        })
    }

    /// The group that was begun first.
    pub(super) fn oldest(&self) -> Option<usize> {
        let all = self.list.iter().enumerate();
        all.min_by_key(|(_, group)| group.order).map(|(at, _)| at)
    }

    /// Ends a group.
    pub(super) fn take(&mut self, at: usize) -> Option<Group> {
        if at >= self.list.len() {
            return None;
        }
        let mut group = self.list.swap_remove(at);
        self.bytes = self.bytes.saturating_sub(group.bytes());
        self.gone.extend(group.stored.take());
        Some(group)
    }

    fn next_order(&mut self) -> u64 {
        self.order = self.order.saturating_add(1);
        self.order
    }

    fn begin(&mut self, identity: u64, hash: u64, work: &mut Work, until: Instant) {
        let order = self.next_order();
        let work = std::mem::take(work);
        let group = Group {
            identity,
            hash,
            order,
            work,
            lines: 1,
            cut: false,
            until,
            changed: true,
            stored: None,
        };
        self.bytes += group.bytes();
        self.list.push(group);
    }

    /// Exchanges the held entry for the one that comes, which begins a new group.
    fn exchange(&mut self, at: usize, work: &mut Work, until: Instant) {
        let order = self.next_order();
        let Some(group) = self.list.get_mut(at) else { return };
        let before = group.bytes();
        group.work.exchange(work);
        (group.order, group.lines, group.cut) = (order, 1, false);
        (group.until, group.changed) = (until, true);
        self.bytes = self.bytes.saturating_sub(before) + group.bytes();
    }

    /// Treats one entry; `hash` is that of its labels.
    pub(super) fn join(
        &mut self,
        join: &Join,
        identity: u64,
        work: &mut Work,
        hash: Option<u64>,
        partial: bool,
        now: Instant,
    ) -> Joined {
        let hash = hash.unwrap_or_else(|| of_labels(work.labels()));
        let at = self.find(identity, work, hash);
        let until = now + join.wait();
        match join {
            Join::Parts(max) => self.part(*max, identity, hash, at, work, partial, until),
            Join::Lines(lines) => self.line(lines, identity, hash, at, work, until),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one of two halves of `join`")]
    fn part(
        &mut self,
        max: usize,
        identity: u64,
        hash: u64,
        at: Option<usize>,
        work: &mut Work,
        partial: bool,
        until: Instant,
    ) -> Joined {
        let Some(at) = at else {
            if !partial {
                return Joined::Pass;
            }
            self.begin(identity, hash, work, until);
            return Joined::Held;
        };
        let Some(group) = self.list.get_mut(at) else { return Joined::Pass };
        let room = max.saturating_sub(group.work.line.len());
        let fits = if group.cut { 0 } else { work.line.floor_char_boundary(room) };
        let added = work.line.get(..fits).unwrap_or_default();
        if added.len() < work.line.len() && !group.cut {
            group.cut = true;
            self.cut += 1;
        }
        group.work.line.push_str(added);
        group.lines = group.lines.saturating_add(1);
        (group.until, group.changed) = (until, true);
        self.bytes += added.len();
        if partial {
            return Joined::Held;
        }
        if let Some(group) = self.take(at) {
            *work = group.work;
        }
        Joined::Pass
    }

    fn line(
        &mut self,
        lines: &Lines,
        identity: u64,
        hash: u64,
        at: Option<usize>,
        work: &mut Work,
        until: Instant,
    ) -> Joined {
        let is_first = match &lines.mark {
            Mark::Start(pattern) => pattern.is_match(&work.line),
            Mark::Continues(pattern) => !pattern.is_match(&work.line),
        };
        let Some(at) = at else {
            if !is_first {
                return Joined::Pass;
            }
            self.begin(identity, hash, work, until);
            return Joined::Held;
        };
        let Some(group) = self.list.get_mut(at) else { return Joined::Pass };
        let bytes = group.work.line.len().saturating_add(1 + work.line.len());
        if is_first || group.lines >= lines.max_lines || bytes > lines.max_bytes {
            self.exchange(at, work, until);
            return Joined::Pass;
        }
        group.work.line.push('\n');
        group.work.line.push_str(&work.line);
        group.lines += 1;
        (group.until, group.changed) = (until, true);
        self.bytes += 1 + work.line.len();
        Joined::Held
    }
}
