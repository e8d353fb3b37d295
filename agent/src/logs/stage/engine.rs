//! The engine: takes each entry of a block through the stages that its stream matches.
//!
//! Selectors are evaluated once for each stream of a block; only entries whose labels a stage has changed
//! are looked at again. A block in which nothing is to be done stays where it is, and only its streams lose
//! their internal labels.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::guard::{Guard, StreamLimits, Target, is_stored};
use super::hash::{Fnv, of_labels};
use super::held::{Group, KEY_PREFIX, MAX_GROUPS};
use super::multiline::{Groups, Join, Joined};
use super::{Action, Options, Selector, Step, Verdict, Work};
use crate::model::{Block, EntryRef, Labels, StreamId};

/// What the stages work with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// In order.
    pub stages: Vec<Options>,
    /// How many of them are not from `[[logs.stage]]`; they are the first.
    pub first: usize,
    /// The longest line that is joined of parts, in bytes.
    pub max_line: usize,
    /// The most bytes of what waits for more lines.
    pub max_held: usize,
    /// The most streams that are active at a time.
    pub max_streams: usize,
    /// What Loki takes of labels and metadata.
    pub limits: StreamLimits,
    /// Labels that every stream has: the agent's own and `instance`.
    pub common: Labels,
}

/// What the stages have met since they were built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams that are active now.
    pub streams: u64,
    /// Groups of lines that wait for more now.
    pub held: u64,
    /// Entries that went to the overflow's stream.
    pub overflow: u64,
    /// Entries with labels or metadata that were cut or moved to stay within Loki's bounds.
    pub trimmed: u64,
    /// Lines that were cut when their parts were joined.
    pub truncated: u64,
}

struct Stage {
    selector: Selector,
    kind: Kind,
}

enum Kind {
    /// The action, and the index of its reason.
    Act(Box<dyn Action>, usize),
    /// The joiner, and what it does as a number.
    Join(Join, u64),
}

/// What is known of a stream of the block.
struct Plan {
    /// Its stages, in order: a range of `matched`.
    stages: (usize, usize),
    hash: u64,
    /// It may have a part of a line that is held.
    parts: bool,
    out: Option<Out>,
    /// A copy of its labels that the working entry does not have at the moment.
    labels: Option<Labels>,
}

/// Where entries go.
struct Out {
    target: Target,
    stream: StreamId,
}

/// Where the entries of the last streams went that stages have made.
struct Recent {
    hash: u64,
    labels: Labels,
    out: Out,
}

/// The most of them.
const MAX_RECENT: usize = 16;

/// All stages and what they hold. The first joins the parts of lines.
pub struct Stages {
    stages: Vec<Stage>,
    reasons: Vec<(String, u64)>,
    groups: Groups,
    max_held: usize,
    guard: Guard,
    counts: Counts,
    plans: Vec<Plan>,
    matched: Vec<u16>,
    recent: Vec<Recent>,
    work: Work,
    /// The stream whose labels the working entry has.
    loaded: Option<StreamId>,
    output: Block,
    position: Vec<u8>,
    built: Instant,
}

impl Stages {
    /// Stages that go on with what the last ones held, by the stored positions.
    pub fn new(setup: &Setup, positions: &BTreeMap<String, Vec<u8>>, now: Instant) -> Stages {
        let mut stages = Vec::with_capacity(setup.stages.len() + 1);
        let mut reasons: Vec<(String, u64)> = Vec::new();
        let mut identities = Vec::new();
        let mut join = |join: Join, selector: Selector| {
            let mut identity = join.identity(selector.as_str());
            while identities.contains(&identity) {
                identity = Fnv::new().text(&identity.to_string()).finish();
            }
            identities.push(identity);
            Stage { selector, kind: Kind::Join(join, identity) }
        };
        stages.push(join(Join::Parts(setup.max_line), Selector::default()));
        for options in &setup.stages {
            let selector = options.selector.clone();
            let action = match &options.step {
                Step::Multiline(lines) => {
                    stages.push(join(Join::Lines(lines.clone()), selector));
                    continue;
                }
                step => step.action(),
            };
            let Some(action) = action else { continue };
            let known = reasons.iter().position(|(reason, _)| reason == action.reason());
            let reason = known.unwrap_or_else(|| {
                reasons.push((action.reason().to_owned(), 0));
                reasons.len() - 1
            });
            stages.push(Stage { selector, kind: Kind::Act(action, reason) });
        }
        let mut stages = Stages {
            stages,
            reasons,
            groups: Groups::default(),
            max_held: setup.max_held,
            guard: Guard::new(setup.max_streams, setup.limits, setup.common.clone()),
            counts: Counts::default(),
            plans: Vec::new(),
            matched: Vec::new(),
            recent: Vec::new(),
            work: Work::default(),
            loaded: None,
            output: Block::new(),
            position: Vec::new(),
            built: now,
        };
        stages.restore(positions, now);
        stages
    }

    fn restore(&mut self, positions: &BTreeMap<String, Vec<u8>>, now: Instant) {
        for (key, bytes) in positions.iter().filter(|(key, _)| key.starts_with(KEY_PREFIX)) {
            let Some(mut group) = Group::decode(key, bytes, now) else {
                log::warn!(
                    "the logs WAL's position {key} is unreadable: lines that waited for more are lost"
                );
                self.groups.gone.push(key.clone());
                continue;
            };
            let stage = self.stage_of(group.identity).and_then(|at| self.stages.get(at));
            if let Some(Stage { kind: Kind::Join(join, _), .. }) = stage {
                group.until = now + join.wait();
            }
            self.groups.restore(group);
        }
    }

    /// When what is held has to go: [`run`](Stages::run) is to be called then, with an empty block if there
    /// is no other.
    pub fn due(&self) -> Option<Instant> {
        let unreadable = self.groups.gone.iter().map(|_| self.built);
        self.groups.list.iter().map(|group| group.until).chain(unreadable).min()
    }

    /// Takes a block through the stages: afterwards it has what is to be stored. What it covers and what is
    /// held meanwhile stands in its positions.
    pub fn run(&mut self, block: &mut Block, now_ns: i64, now: Instant) {
        self.guard.sweep(now_ns);
        self.plan(block);
        if !self.stays(block, now_ns, now) {
            let mut output = std::mem::take(&mut self.output);
            output.clear();
            for entry in block.entries() {
                self.entry(entry, block, &mut output, now_ns, now);
            }
            self.expire(&mut output, now_ns, now);
            for position in block.positions() {
                output.set_position(position.key, position.position);
            }
            self.positions(&mut output);
            std::mem::swap(block, &mut output);
            output.clear();
            self.output = output;
        }
        self.plans.clear();
        self.matched.clear();
        self.recent.clear();
        self.loaded = None;
    }

    /// Gives back the memory that only blocks need; call it when there is nothing more to be read now.
    pub fn rest(&mut self) {
        self.output = Block::new();
        self.work = Work::default();
        self.position = Vec::new();
        for stage in &mut self.stages {
            if let Kind::Act(action, _) = &mut stage.kind {
                action.rest();
            }
        }
    }

    /// Finds the stages of each stream.
    fn plan(&mut self, block: &Block) {
        for labels in block.streams() {
            let first = self.matched.len();
            for (at, stage) in self.stages.iter().enumerate().skip(1) {
                if stage.selector.matches(labels) {
                    self.matched.push(at as u16);
                }
            }
            let hash = match (self.groups.list.is_empty(), first == self.matched.len()) {
                (true, true) => 0,
                _ => of_labels(labels),
            };
            let parts = self.groups.list.iter().any(|group| group.hash == hash);
            let stages = (first, self.matched.len());
            self.plans.push(Plan { stages, hash, parts, out: None, labels: None });
        }
    }

    /// Treats a block in which nothing is to be done but to its streams. False if it is another one.
    fn stays(&mut self, block: &mut Block, now_ns: i64, now: Instant) -> bool {
        if !self.matched.is_empty()
            || self.plans.iter().any(|plan| plan.parts)
            || self.due().is_some_and(|due| due <= now)
            || block.entries().any(|entry| entry.partial || !fits(entry, self.guard.limits()))
        {
            return false;
        }
        if !block.streams().iter().all(|labels| self.guard.is_plain(labels, now_ns)) {
            return false;
        }
        block.retain_labels(is_stored);
        true
    }

    fn stage_of(&self, identity: u64) -> Option<usize> {
        self.stages
            .iter()
            .position(|stage| matches!(stage.kind, Kind::Join(_, have) if have == identity))
    }

    fn entry(
        &mut self,
        entry: EntryRef<'_>,
        block: &Block,
        output: &mut Block,
        now_ns: i64,
        now: Instant,
    ) {
        let at = usize::from(entry.stream.0);
        let (Some(labels), Some(plan)) = (block.streams().get(at), self.plans.get_mut(at)) else {
            return;
        };
        let joins = entry.partial || plan.parts;
        if entry.partial && !plan.parts {
            plan.parts = true;
            plan.hash = of_labels(labels);
        }
        if !joins && plan.stages.0 == plan.stages.1 {
            let pairs = entry.metadata.iter();
            let Some(out) = out_of(&mut plan.out, &mut self.guard, labels, output, now_ns) else {
                return;
            };
            let limits = self.guard.limits();
            push(out, entry.timestamp_ns, entry.line, pairs, limits, output, &mut self.counts);
            return;
        }
        self.load(entry.stream, labels, block);
        self.work.timestamp_ns = entry.timestamp_ns;
        self.work.line.clear();
        self.work.line.push_str(entry.line);
        self.work.metadata.clear();
        for (name, value) in entry.metadata.iter() {
            self.work.metadata.set(name, value);
        }
        let from = if joins { 0 } else { 1 };
        if self.pass(from, entry.partial, Some(at), now_ns, now) {
            self.emit(Some(at), output, now_ns);
        }
        while self.groups.list.len() > MAX_GROUPS || self.groups.bytes > self.max_held {
            let Some(oldest) = self.groups.oldest() else { break };
            self.give_out(oldest, output, now_ns, now);
        }
    }

    /// Gives the working entry the labels of a stream. Each stream that needs it has a copy of them, which is
    /// used in turn.
    fn load(&mut self, stream: StreamId, labels: &Labels, block: &Block) {
        let before = self.loaded.replace(stream);
        if before == Some(stream) {
            if self.work.is_relabeled() {
                self.work.set_stream(labels);
            }
            return;
        }
        let plan = self.plans.get_mut(usize::from(stream.0));
        let next = plan.and_then(|plan| plan.labels.take()).unwrap_or_else(|| labels.clone());
        let relabeled = self.work.is_relabeled();
        let mut old = self.work.replace_stream(next);
        let Some(before) = before.map(|stream| usize::from(stream.0)) else { return };
        if let (Some(plan), Some(labels)) =
            (self.plans.get_mut(before), block.streams().get(before))
        {
            if relabeled {
                old.clone_from(labels);
            }
            plan.labels = Some(old);
        }
    }

    /// Takes the working entry through the stages from one on. False if it is gone or held.
    fn pass(
        &mut self,
        from: usize,
        partial: bool,
        plan: Option<usize>,
        now_ns: i64,
        now: Instant,
    ) -> bool {
        let plan = plan.and_then(|at| self.plans.get(at));
        let matched = plan.and_then(|plan| self.matched.get(plan.stages.0..plan.stages.1));
        let mut next = from;
        loop {
            let at = match matched.filter(|_| !self.work.is_relabeled()) {
                _ if next == 0 => Some(0),
                Some(matched) => matched.iter().map(|at| usize::from(*at)).find(|at| *at >= next),
                None => (next..self.stages.len()).find(|at| {
                    let stage = self.stages.get(*at);
                    stage.is_some_and(|stage| stage.selector.matches(self.work.labels()))
                }),
            };
            let Some(stage) = at.and_then(|at| self.stages.get_mut(at)) else { return true };
            next = at.unwrap_or_default() + 1;
            match &mut stage.kind {
                Kind::Act(action, reason) => {
                    if action.apply(&mut self.work, now_ns) == Verdict::Drop {
                        if let Some((_, count)) = self.reasons.get_mut(*reason) {
                            *count += 1;
                        }
                        return false;
                    }
                }
                Kind::Join(join, identity) => {
                    let hash = plan.filter(|_| !self.work.is_relabeled()).map(|plan| plan.hash);
                    let joined =
                        self.groups.join(join, *identity, &mut self.work, hash, partial, now);
                    // What begins a group has been taken away whole.
                    if self.work.labels().is_empty() {
                        self.loaded = None;
                    }
                    if joined == Joined::Held {
                        return false;
                    }
                }
            }
        }
    }

    /// Puts the working entry into the output.
    fn emit(&mut self, plan: Option<usize>, output: &mut Block, now_ns: i64) {
        let plan = plan.filter(|_| !self.work.is_relabeled());
        let labels = self.work.labels();
        let out = match plan.and_then(|at| self.plans.get_mut(at)) {
            Some(plan) => out_of(&mut plan.out, &mut self.guard, labels, output, now_ns),
            None => {
                let hash = of_labels(labels);
                let same = |recent: &Recent| recent.hash == hash && recent.labels == *labels;
                let at = match self.recent.iter().position(same) {
                    Some(at) => at,
                    None => {
                        let target = self.guard.target(labels, now_ns);
                        let Some(stream) = output.stream(&target.labels) else { return };
                        if self.recent.len() == MAX_RECENT {
                            self.recent.remove(0);
                        }
                        let out = Out { target, stream };
                        self.recent.push(Recent { hash, labels: labels.clone(), out });
                        self.recent.len() - 1
                    }
                };
                self.recent.get(at).map(|recent| &recent.out)
            }
        };
        let Some(out) = out else { return };
        let Work { timestamp_ns, line, metadata, .. } = &self.work;
        let limits = self.guard.limits();
        push(out, *timestamp_ns, line, metadata.iter(), limits, output, &mut self.counts);
    }

    /// Ends a group: its entry goes on to the stages behind the one that held it, or to all if there is no
    /// such stage any more, so that nothing is stored that a later stage would have edited.
    fn give_out(&mut self, at: usize, output: &mut Block, now_ns: i64, now: Instant) {
        let Some(group) = self.groups.take(at) else { return };
        let from = self.stage_of(group.identity).map_or(1, |at| at + 1);
        self.work = group.work;
        self.loaded = None;
        if self.pass(from, false, None, now_ns, now) {
            // Its labels are what they are, whether a stage of this run has set them or not.
            self.work.mark_relabeled();
            self.emit(None, output, now_ns);
        }
    }

    /// Gives out what has waited long enough, and what no stage of these has begun.
    fn expire(&mut self, output: &mut Block, now_ns: i64, now: Instant) {
        loop {
            let due = self.groups.list.iter().enumerate().filter(|(_, group)| group.until <= now);
            let Some(at) = due.min_by_key(|(_, group)| group.order).map(|(at, _)| at) else {
                return;
            };
            self.give_out(at, output, now_ns, now);
        }
    }

    /// Puts the positions of what is held into the block.
    fn positions(&mut self, output: &mut Block) {
        for key in self.groups.gone.drain(..) {
            output.set_position(&key, &[]);
        }
        for group in self.groups.list.iter_mut().filter(|group| group.changed) {
            let key = group.stored.take().unwrap_or_else(|| group.key());
            group.encode(&mut self.position);
            output.set_position(&key, &self.position);
            group.stored = Some(key);
            group.changed = false;
        }
    }

    /// Puts another action in the place of a stage's, counted from 1.
    #[cfg(test)]
    pub(super) fn replace_action(&mut self, at: usize, action: Box<dyn Action>) {
        if let Some(Stage { kind: Kind::Act(old, _), .. }) = self.stages.get_mut(at) {
            *old = action;
        }
    }

    /// What has been dropped since this was last asked, by reason.
    pub fn take_dropped(&mut self, out: &mut dyn FnMut(&str, u64)) {
        for (reason, count) in self.reasons.iter_mut().filter(|(_, count)| *count > 0) {
            out(reason, std::mem::take(count));
        }
    }

    /// What the stages have met.
    pub fn counts(&self) -> Counts {
        Counts {
            streams: self.guard.active() as u64,
            held: self.groups.list.len() as u64,
            truncated: self.groups.cut,
            ..self.counts
        }
    }

    /// Which stages had entries that are not what they are for, counted from 1 as [`Setup::stages`] has
    /// them, and how many.
    pub fn misses(&self) -> impl Iterator<Item = (usize, u64)> {
        let misses = self.stages.iter().enumerate().map(|(at, stage)| match &stage.kind {
            Kind::Act(action, _) => (at, action.misses()),
            Kind::Join(..) => (at, 0),
        });
        misses.filter(|(_, count)| *count > 0)
    }
}

/// Whether Loki takes the entry's metadata.
fn fits(entry: EntryRef<'_>, limits: StreamLimits) -> bool {
    entry.metadata.is_empty()
        || (entry.metadata.len() <= limits.pairs && entry.metadata.text_len() <= limits.pair_bytes)
}

fn out_of<'a>(
    slot: &'a mut Option<Out>,
    guard: &mut Guard,
    labels: &Labels,
    output: &mut Block,
    now_ns: i64,
) -> Option<&'a Out> {
    if slot.is_none() {
        let target = guard.target(labels, now_ns);
        let stream = output.stream(&target.labels)?;
        *slot = Some(Out { target, stream });
    }
    slot.as_ref()
}

fn push<'a>(
    out: &'a Out,
    timestamp_ns: i64,
    line: &str,
    metadata: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    limits: StreamLimits,
    output: &mut Block,
    counts: &mut Counts,
) {
    counts.overflow += u64::from(out.target.overflow);
    let mut trimmed = out.target.trimmed;
    if out.target.moved.is_empty() && metadata.clone().next().is_none() {
        output.push(out.stream, timestamp_ns, line);
    } else {
        let moved = out.target.moved.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = metadata.clone();
        let moved = moved.filter(move |(name, _)| own.clone().all(|(have, _)| have != *name));
        let (mut pairs, mut bytes) = (0, 0);
        let bounded = metadata.chain(moved).filter(|(name, value)| {
            let bytes_with = bytes + name.len() + value.len();
            let fits = pairs < limits.pairs && bytes_with <= limits.pair_bytes;
            trimmed |= !fits;
            if fits {
                (pairs, bytes) = (pairs + 1, bytes_with);
            }
            fits
        });
        output.push_with(out.stream, timestamp_ns, line, bounded);
    }
    counts.trimmed += u64::from(trimmed);
}
