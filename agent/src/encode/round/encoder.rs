//! Writes rounds. It must not know where the records go.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::coder::Writer;
use super::keys::{Keys, Life};
use super::model::{Model, Values};
use super::table::{MAX_SERIES, MAX_TEXT};
use super::{
    DIFFERENCE, FULL, FULL_EVERY, KEY, KEY_EVERY, PACKED, SCHEMA, SPARSE, VERSION, packed, schema,
};
use crate::model::{Kind, Labels, STALE, Sample, Samples, Sections};

/// Another one in each process, so that no record of one is taken for the next one of another.
fn first_counter() -> u16 {
    // Tests pin the bytes.
    if cfg!(test) { 0 } else { RandomState::new().build_hasher().finish() as u16 }
}

/// Writes rounds. It remembers the table of the current segment.
#[derive(Debug)]
pub struct RoundEncoder {
    external: Labels,
    keys: Keys,
    model: Model,
    values: Values,
    /// Counts all records, so that those of a table that was begun anew are not taken for the old one's.
    counter: u16,
    /// Whether there is a full record that others may refer to.
    started: bool,
    /// Records until a key record is due, and until a full one is.
    until_key: u32,
    until_full: u32,
    /// Series of the newest full record, and the checksum by which it is known.
    base: usize,
    base_check: u32,
    /// Series that go on, those that had no sample in the newest round among them.
    live: usize,
    /// A record was encoded and could not be written: the next one starts anew.
    forget: bool,
    /// Of a table that is begun anew, the series that go on and have no sample in its first round.
    carried: Carried,
}

/// Series with their keys in one arena: a target's round that begins a segment carries all of the host's.
#[derive(Debug, Default)]
struct Carried {
    keys: Vec<u8>,
    /// Where each key ends.
    rows: Vec<(u32, Kind, u16)>,
}

impl RoundEncoder {
    /// An encoder that gives every series these labels, unless the series has them itself.
    pub fn new(external: Labels) -> RoundEncoder {
        RoundEncoder {
            external,
            keys: Keys::default(),
            model: Model::new(),
            values: Values::default(),
            counter: first_counter(),
            started: false,
            until_key: 0,
            until_full: 0,
            base: 0,
            base_check: 0,
            live: 0,
            forget: false,
            carried: Carried::default(),
        }
    }

    /// The labels that every series gets.
    pub fn external(&self) -> &Labels {
        &self.external
    }

    /// Appends a round to `out`; with `fresh`, the table starts anew. Returns how many samples it has:
    /// a series that comes twice in one round is kept once, with its first value; and one that is gone,
    /// because its section has [begun](Samples::begin) and does not have it any more, gets one
    /// [`STALE`] sample, as a Prometheus would give it.
    ///
    /// Each record refers to the one that was encoded before it. If that is not written after all,
    /// [`forget`](RoundEncoder::forget) it, or encode the round again with `fresh`.
    pub fn encode(&mut self, samples: &[&Samples], fresh: bool, out: &mut Vec<u8>) -> u32 {
        let key = self.until_key == 0;
        let mut begun = Sections::default();
        samples.iter().for_each(|samples| begun.extend(samples.begun()));
        // Series that are gone cost memory, and those that are new are restated in each key record.
        let gone = self.keys.len() > 2 * self.live + 256;
        let grown = key && self.keys.len() - self.base > self.live / 2 + 64;
        let more: usize = samples.iter().map(|samples| samples.len()).sum();
        let large = (self.keys.len() + more > MAX_SERIES
            && self.keys.len() + self.unknown(samples) > MAX_SERIES)
            || self.keys.bytes() > MAX_TEXT / 2;
        if fresh || self.forget || gone || grown || large || self.until_full == 0 {
            self.start_anew(samples, fresh || self.forget);
        }
        let kind = match (self.started, key) {
            (false, _) => FULL,
            (true, true) => KEY,
            (true, false) => DIFFERENCE,
        };
        let known = self.keys.len();
        let count = self.take(samples, begun);
        if kind != DIFFERENCE {
            self.model.reset();
            self.until_key = KEY_EVERY;
        }
        if kind == FULL {
            self.until_full = FULL_EVERY;
        }
        // Those of targets come in between: what damage costs is bounded in the host's rounds.
        let counts = u32::from(!begun.is_target());
        self.until_key = self.until_key.saturating_sub(counts);
        self.until_full = self.until_full.saturating_sub(counts);
        let sparse = !self.model.is_as_before(&self.values);
        let stated = if kind == DIFFERENCE { known } else { self.base };
        let has_schema = kind == FULL || stated < self.keys.len();

        let start = out.len();
        let mut flags = kind;
        flags |= if sparse { SPARSE } else { 0 };
        flags |= if has_schema { SCHEMA } else { 0 };
        out.extend_from_slice(&[VERSION, flags]);
        out.extend_from_slice(&self.counter.to_le_bytes());
        if kind == KEY {
            out.extend_from_slice(&(self.base as u32).to_le_bytes());
            out.extend_from_slice(&self.base_check.to_le_bytes());
        }
        if has_schema && self.put_schema(kind == FULL, stated, out) {
            out[start + 1] |= PACKED;
        }
        if kind == FULL {
            (self.started, self.base) = (true, self.keys.len());
            self.base_check = self.identity();
        }
        self.counter = self.counter.wrapping_add(1);
        let mut writer = Writer::new(out);
        // A writer's stream has no end to be past.
        let _ = self.model.round(&mut writer, sparse, &mut self.values);
        writer.finish();
        count
    }

    /// After a record that was encoded and could not be written: the next one starts a table anew. What
    /// that record said to be gone, the next one says again.
    pub fn forget(&mut self) {
        self.forget = true;
    }

    /// Forgets the table, but for the series that go on and that this round does not have; with `again`,
    /// also those that the record before said to be gone, because it may not have been written.
    fn start_anew(&mut self, samples: &[&Samples], again: bool) {
        self.values.reset(self.keys.len());
        let mut likely = 0;
        for sample in samples.iter().flat_map(|samples| samples.iter()) {
            let Some(series) = self.find(&sample, likely) else { continue };
            likely = series + 1;
            self.values.set(series, 0);
        }
        for (series, named) in self.keys.from(0).enumerate() {
            let Some((section, life)) = self.keys.life(series) else { break };
            let goes_on = life == Life::Alive || (again && life == Life::Ending);
            if goes_on && !self.values.has(series) {
                self.carried.keys.extend_from_slice(named.key);
                let end = self.carried.keys.len() as u32;
                self.carried.rows.push((end, named.kind, section));
            }
        }
        self.keys.clear(self.live);
        self.model.reset();
        self.model.shrink(self.live);
        self.values.shrink(self.live);
        (self.started, self.base, self.forget) = (false, 0, false);
        (self.until_key, self.until_full) = (0, 0);
    }

    /// The checksum of a table that begins with this record.
    fn identity(&self) -> u32 {
        let mut external = Vec::new();
        schema::put_external(&self.external, &mut external);
        let mut check = crc32c::crc32c(&self.counter.to_le_bytes());
        check = crc32c::crc32c_append(check, &external);
        for named in self.keys.from(0) {
            schema::identity(named, |piece| check = crc32c::crc32c_append(check, piece));
        }
        check
    }

    /// How many of the samples are of series that are not there at the moment; with `gone_too`, of series
    /// that were never in the table, so that those count as known that a failure has ended.
    pub fn added(&self, samples: &Samples, gone_too: bool) -> u64 {
        let (mut added, mut likely) = (0, 0);
        for sample in samples.iter() {
            let series = self.find(&sample, likely);
            likely = series.map_or(likely, |series| series + 1);
            let life = series.and_then(|series| self.keys.life(series)).map(|(_, life)| life);
            let known = life == Some(Life::Alive) || (gone_too && life.is_some());
            added += u64::from(!known);
        }
        added
    }

    /// Bytes of memory, with what its vectors have to spare.
    pub fn memory(&self) -> usize {
        size_of::<RoundEncoder>() + self.keys.memory() + self.model.memory() + self.values.memory()
    }

    /// How many of the samples are of series that the table does not have.
    fn unknown(&self, samples: &[&Samples]) -> usize {
        let all = samples.iter().flat_map(|samples| samples.iter());
        all.filter(|sample| self.keys.find(sample.key).is_none()).count()
    }

    /// Sets the round's values by the numbers of their series, which are added if they are new, and
    /// says of those that are gone that they are.
    fn take(&mut self, samples: &[&Samples], begun: Sections) -> u32 {
        self.values.reset(self.keys.len());
        let mut count = 0;
        // Rounds repeat: a sample's series is nearly always the one after the last sample's.
        let mut likely = 0;
        for sample in samples.iter().flat_map(|samples| samples.iter()) {
            let Some(series) = self.series(&sample, likely) else { continue };
            likely = series + 1;
            if series >= self.values.len() {
                self.values.grow(likely);
            }
            if !self.values.has(series) {
                self.values.set(series, sample.value.to_bits());
                self.keys.set_life(series, sample.section, Life::Alive);
                count += 1;
            }
        }
        let carried = std::mem::take(&mut self.carried);
        let mut start = 0;
        for &(end, kind, section) in &carried.rows {
            let key = carried.keys.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            if let Some(series) = self.add(key, kind) {
                self.keys.set_life(series, section, Life::Alive);
            }
        }
        self.values.grow(self.keys.len());
        count + self.end(begun)
    }

    /// Ends the series that the round does not have and whose section has begun; returns how many.
    fn end(&mut self, begun: Sections) -> u32 {
        let mut ended = 0;
        self.live = 0;
        for series in 0..self.keys.len() {
            match self.keys.life(series) {
                Some((_, Life::Alive)) if self.values.has(series) => self.live += 1,
                Some((section, Life::Alive)) if begun.contains(section) => {
                    self.values.set(series, STALE);
                    self.keys.set_life(series, section, Life::Ending);
                    ended += 1;
                }
                Some((_, Life::Alive)) => self.live += 1,
                Some((section, Life::Ending)) => self.keys.set_life(series, section, Life::Gone),
                Some((_, Life::Gone)) | None => {}
            }
        }
        ended
    }

    /// The series of a sample, which is added if the table has not seen it; `likely` is looked at first,
    /// because comparing a key costs a fraction of hashing it. None if there are too many.
    fn series(&mut self, sample: &Sample<'_>, likely: usize) -> Option<usize> {
        self.find(sample, likely).or_else(|| self.add(sample.key, sample.kind))
    }

    #[inline]
    fn find(&self, sample: &Sample<'_>, likely: usize) -> Option<usize> {
        if self.keys.get(likely).is_some_and(|named| named.key == sample.key) {
            return Some(likely);
        }
        self.keys.find(sample.key)
    }

    fn add(&mut self, key: &[u8], kind: Kind) -> Option<usize> {
        let fits = self.keys.len() < MAX_SERIES && self.keys.bytes() + key.len() <= MAX_TEXT;
        fits.then(|| self.keys.add(key, kind))
    }

    /// Appends the series from this one on. Returns whether they are compressed.
    fn put_schema(&self, external: bool, from: usize, out: &mut Vec<u8>) -> bool {
        let mut raw = Vec::new();
        let mut known = Vec::new();
        schema::put_external(&self.external, &mut known);
        if external {
            std::mem::swap(&mut raw, &mut known);
        } else {
            schema::put_series(self.keys.from(0).take(self.base), &mut known);
        }
        schema::put_series(self.keys.from(from), &mut raw);
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let packed = packed::put(&raw, &known, out);
        let len = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        packed
    }
}
