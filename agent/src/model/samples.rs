//! The samples of one collection, as the collectors write them: an arena that is reused round after
//! round, so that a steady round allocates nothing.
//!
//! A series' key is its metric name followed by its labels in the order of their names, each part
//! closed by 0xFF, a byte that UTF-8 never contains: equal keys are equal series, and the key can be
//! hashed and compared without being decoded.

use std::str;

use super::{Desc, Kind, Shape};

/// The bits of the value that says that a series is gone: a NaN of its own, which Prometheus and Mimir know
/// (prometheus/model/value `StaleNaN`; remote write 1.0, "Stale markers").
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Closes each part of a series' key.
const END: u8 = 0xff;

/// The most labels of one sample that a collector may give. Mimir's own limit is 30, with the name.
const MAX_LABELS: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct FamilyRow {
    name: Span,
    help: Span,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    family: u32,
    suffix: Suffix,
    section: u16,
    key: Span,
    value: f64,
}

/// Which of a histogram's series a sample belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suffix {
    /// The family's own name: counters, gauges, untyped.
    None,
    /// `_bucket`, with a label `le`.
    Bucket,
    /// `_sum`.
    Sum,
    /// `_count`.
    Count,
}

impl Suffix {
    /// What is appended to the family's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Suffix::None => "",
            Suffix::Bucket => "_bucket",
            Suffix::Sum => "_sum",
            Suffix::Count => "_count",
        }
    }
}

/// The samples of one collection, at most `limit` of them.
#[derive(Debug)]
pub struct Samples {
    /// Names and help texts of the families. A string, so that reading them back checks nothing.
    words: String,
    keys: Vec<u8>,
    families: Vec<FamilyRow>,
    rows: Vec<Row>,
    limit: usize,
    /// Of the limit, what is kept free for samples that come last.
    held: usize,
    refused: u64,
    /// Of the samples that come.
    section: u16,
    begun: Sections,
    /// What they pass before they count.
    shape: Option<Box<dyn Shape>>,
    /// Those that come are the agent's own, see [`Shape`].
    own: bool,
}

/// The first section that has a round of its own: the host's parts have those below, each scraped target
/// one from here on.
pub const FIRST_TARGET: u16 = 256;

/// A set of sections' numbers: any of those below [`FIRST_TARGET`], and at most one of those from there on,
/// which never share a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    host: [u32; FIRST_TARGET as usize / 32],
    target: Option<u16>,
}

impl Sections {
    /// Adds a section; a second target's takes the place of the first's.
    pub fn insert(&mut self, section: u16) {
        match self.host.get_mut(usize::from(section / 32)) {
            Some(word) => *word |= 1 << (section % 32),
            None => self.target = Some(section),
        }
    }

    /// Whether the section is in the set.
    pub fn contains(&self, section: u16) -> bool {
        match self.host.get(usize::from(section / 32)) {
            Some(word) => word >> (section % 32) & 1 == 1,
            None => self.target == Some(section),
        }
    }

    /// Adds all of the other set.
    pub fn extend(&mut self, other: Sections) {
        self.host.iter_mut().zip(other.host).for_each(|(word, other)| *word |= other);
        self.target = other.target.or(self.target);
    }

    /// Whether it is of a target's round.
    pub fn is_target(&self) -> bool {
        self.target.is_some()
    }
}

/// One sample as a reader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The family's name, without a histogram's suffix.
    pub family: &'a str,
    /// The family's help text.
    pub help: &'a str,
    /// The family's type.
    pub kind: Kind,
    /// The histogram's suffix.
    pub suffix: Suffix,
    /// The series' key; see the module's documentation.
    pub key: &'a [u8],
    /// Which part of the agent gave it; see [`Samples::begin`].
    pub section: u16,
    /// The value.
    pub value: f64,
}

/// A family that is open for samples.
#[derive(Debug)]
pub struct Family<'a> {
    samples: &'a mut Samples,
    index: u32,
}

impl Samples {
    /// An empty round that takes at most `limit` samples; what comes beyond is counted, not kept.
    pub fn with_limit(limit: usize) -> Samples {
        Samples {
            words: String::new(),
            keys: Vec::new(),
            families: Vec::new(),
            rows: Vec::new(),
            limit,
            held: 0,
            refused: 0,
            section: 0,
            begun: Sections::default(),
            shape: None,
            own: false,
        }
    }

    /// The same, with something that every sample passes before the limit is asked: what it lets go takes no
    /// place.
    #[must_use]
    pub fn shaped(self, shape: Option<Box<dyn Shape>>) -> Samples {
        Samples { shape, ..self }
    }

    /// Says that the samples up to the next [`begin`](Samples::begin) are those that the agent adds by itself,
    /// see [`Shape`].
    pub fn begin_own(&mut self) {
        self.own = true;
    }

    /// Bytes that it has allocated.
    pub fn memory(&self) -> usize {
        self.words.capacity()
            + self.keys.capacity()
            + self.families.capacity() * size_of::<FamilyRow>()
            + self.rows.capacity() * size_of::<Row>()
    }

    /// Forgets the samples and keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.keys.clear();
        self.families.clear();
        self.rows.clear();
        self.held = 0;
        self.refused = 0;
        self.section = 0;
        self.begun = Sections::default();
        self.own = false;
    }

    /// Says that a part of the agent, known by a number, has been asked: the samples up to the next call
    /// are its own, and a series of its that is not among them is gone. Parts that are asked less often
    /// than others don't begin in the rounds between. A part may begin several times.
    pub fn begin(&mut self, section: u16) {
        self.section = section;
        self.own = false;
        self.begun.insert(section);
    }

    /// Says of these parts that they have been asked and have nothing more than what is there.
    pub fn begin_all(&mut self, sections: Sections) {
        self.begun.extend(sections);
    }

    /// Keeps room for so many samples free, or with 0 gives it to those that come from now on: what is known
    /// last need not be what the limit refuses first.
    pub fn hold(&mut self, samples: usize) {
        self.held = samples;
    }

    /// The sections that have been begun.
    pub fn begun(&self) -> Sections {
        self.begun
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many samples the limit has refused since the last [`clear`](Samples::clear).
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Opens a family whose name is known at compile time.
    pub fn family(&mut self, desc: &Desc) -> Family<'_> {
        self.family_named(desc.name, desc.help, desc.kind)
    }

    /// Opens a family whose name comes from the kernel, such as `node_vmstat_pgfault`.
    pub fn family_named(&mut self, name: &str, help: &str, kind: Kind) -> Family<'_> {
        let same_as_last = self.families.last().is_some_and(|last| self.word(last.name) == name);
        if !same_as_last {
            let name = self.store(name);
            let help = self.store(help);
            self.families.push(FamilyRow { name, help, kind });
        }
        let index = (self.families.len() - 1) as u32;
        Family { samples: self, index }
    }

    /// One sample without labels.
    pub fn value(&mut self, desc: &Desc, value: f64) {
        self.family(desc).add(&[], value);
    }

    /// The help text of a family, if it is there; `hint` is where it was found, beside which the next one
    /// that is asked for is likely to be.
    pub fn help(&self, family: &str, hint: &mut usize) -> Option<&str> {
        let from = (*hint).min(self.families.len());
        let (before, after) = self.families.split_at_checked(from)?;
        let all = after.iter().chain(before).enumerate();
        let (at, row) = all.into_iter().find(|(_, row)| self.word(row.name) == family)?;
        *hint = (from + at) % self.families.len();
        Some(self.word(row.help))
    }

    /// The samples in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = Sample<'_>> {
        self.rows.iter().map(|row| {
            let family = self.families[row.family as usize];
            Sample {
                family: self.word(family.name),
                help: self.word(family.help),
                kind: family.kind,
                suffix: row.suffix,
                key: self.keys.get(row.key.range()).unwrap_or_default(),
                section: row.section,
                value: row.value,
            }
        })
    }

    fn store(&mut self, word: &str) -> Span {
        let start = self.words.len() as u32;
        self.words.push_str(word);
        Span { start, end: self.words.len() as u32 }
    }

    fn word(&self, span: Span) -> &str {
        // Only `store` makes these spans; the fallback keeps the reader free of panics.
        self.words.get(span.range()).unwrap_or_default()
    }

    fn push(
        &mut self,
        family: u32,
        suffix: Suffix,
        labels: &[(&str, &str)],
        le: Option<&str>,
        value: f64,
    ) {
        let full = self.rows.len() + self.held >= self.limit;
        if full && self.shape.is_none() {
            self.refused += 1;
            return;
        }
        if labels.len() + usize::from(le.is_some()) > MAX_LABELS {
            self.refused += 1;
            return;
        }
        let start = self.keys.len() as u32;
        let name = self.families[family as usize].name;
        let word = self.words.get(name.range()).unwrap_or_default();
        self.keys.extend_from_slice(word.as_bytes());
        self.keys.extend_from_slice(suffix.as_str().as_bytes());
        self.keys.push(END);
        // By name; Prometheus refuses a series whose labels are not in this order.
        if le.is_none() && labels.is_sorted_by_key(|(name, _)| *name) {
            labels.iter().for_each(|label| put(&mut self.keys, label));
        } else {
            let mut sorted: heapless::Vec<(&str, &str), MAX_LABELS> = heapless::Vec::new();
            // There is room, as asked above.
            sorted.extend(labels.iter().copied().chain(le.map(|le| ("le", le))));
            sorted.sort_unstable_by_key(|(name, _)| *name);
            sorted.iter().for_each(|label| put(&mut self.keys, label));
        }
        if let Some(shape) = &mut self.shape {
            let kept = shape.shape(&mut self.keys, start as usize, self.own);
            if !kept || full {
                self.refused += u64::from(kept);
                self.keys.truncate(start as usize);
                return;
            }
        }
        let key = Span { start, end: self.keys.len() as u32 };
        self.rows.push(Row { family, suffix, section: self.section, key, value });
    }
}

/// A label at the end of a key.
fn put(keys: &mut Vec<u8>, (name, value): &(&str, &str)) {
    keys.reserve(name.len() + value.len() + 2);
    keys.extend_from_slice(name.as_bytes());
    keys.push(END);
    keys.extend_from_slice(value.as_bytes());
    keys.push(END);
}

impl Family<'_> {
    /// Adds a sample. Labels may come in any order; an empty value is kept, as node_exporter does.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.samples.push(self.index, Suffix::None, labels, None, value);
        self
    }

    /// Adds a sample of a family that is a histogram or a summary, as it came from outside.
    pub fn add_part(&mut self, suffix: Suffix, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.samples.push(self.index, suffix, labels, None, value);
        self
    }

    /// Adds a histogram: for each bucket its upper bound as the label `le` shows it and the count of
    /// observations up to it, in rising order and without `+Inf`, which `count` stands for.
    pub fn histogram<'a>(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (&'a str, u64)>,
        sum: f64,
        count: u64,
    ) -> &mut Self {
        for (le, cumulative) in buckets {
            self.samples.push(self.index, Suffix::Bucket, labels, Some(le), cumulative as f64);
        }
        self.samples.push(self.index, Suffix::Bucket, labels, Some("+Inf"), count as f64);
        self.samples.push(self.index, Suffix::Sum, labels, None, sum);
        self.samples.push(self.index, Suffix::Count, labels, None, count as f64);
        self
    }
}

impl<'a> Sample<'a> {
    /// The series' metric name, with a histogram's suffix.
    pub fn name(&self) -> &'a str {
        key_name(self.key)
    }

    /// The labels in the order of their names.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        key_labels(self.key)
    }
}

fn key_parts(key: &[u8]) -> impl Iterator<Item = &str> {
    key.split(|&byte| byte == END).map(|part| str::from_utf8(part).unwrap_or_default())
}

fn key_name(key: &[u8]) -> &str {
    key_parts(key).next().unwrap_or_default()
}

fn key_labels(key: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut parts = key_parts(key).skip(1);
    // The key ends with END, so the split's last part is empty and has no partner.
    std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Desc = Desc::counter("cpu_total", "CPU.");

    #[test]
    fn labels_come_back_sorted_and_equal_series_have_equal_keys() {
        let mut samples = Samples::with_limit(10);
        samples.family(&CPU).add(&[("mode", "idle"), ("cpu", "0")], 1.0);
        samples.family(&CPU).add(&[("cpu", "0"), ("mode", "idle")], 2.0);
        let all: Vec<_> = samples.iter().collect();
        assert_eq!(all[0].key, all[1].key);
        assert_eq!(all[0].name(), "cpu_total");
        assert_eq!(all[0].labels().collect::<Vec<_>>(), [("cpu", "0"), ("mode", "idle")]);
    }

    #[test]
    fn a_label_may_be_empty_and_a_sample_may_have_none() {
        let mut samples = Samples::with_limit(10);
        samples.family(&CPU).add(&[("a", ""), ("b", "")], 1.0).add(&[], 2.0);
        let all: Vec<_> = samples.iter().collect();
        assert_eq!(all[0].labels().collect::<Vec<_>>(), [("a", ""), ("b", "")]);
        assert_eq!(all[1].labels().count(), 0);
    }

    #[test]
    fn a_set_of_sections_has_all_of_the_host_and_one_target() {
        let mut set = Sections::default();
        [0, 31, 32, 255].into_iter().for_each(|section| set.insert(section));
        assert!(!set.is_target());
        let mut other = Sections::default();
        other.insert(300);
        other.insert(7);
        set.extend(other);
        let has: Vec<u16> = (0..1_000).filter(|&section| set.contains(section)).collect();
        assert_eq!((has, set.is_target()), (vec![0, 7, 31, 32, 255, 300], true));
    }

    #[test]
    fn the_limit_refuses_and_counts() {
        let mut samples = Samples::with_limit(1);
        samples.family(&CPU).add(&[], 1.0).add(&[("x", "1")], 2.0);
        assert_eq!((samples.len(), samples.refused()), (1, 1));
        samples.clear();
        assert_eq!((samples.len(), samples.refused()), (0, 0));
    }

    #[test]
    fn a_histogram_writes_buckets_inf_sum_and_count() {
        const H: Desc = Desc::histogram("d_seconds", "D.");
        let mut samples = Samples::with_limit(10);
        samples.family(&H).histogram(&[("device", "sda")], [("0.1", 1), ("1", 3)], 2.5, 4);
        let got: Vec<_> = samples
            .iter()
            .map(|s| (s.name().to_owned(), s.labels().last().unwrap().1.to_owned(), s.value))
            .collect();
        assert_eq!(
            got,
            [
                ("d_seconds_bucket".into(), "0.1".into(), 1.0),
                ("d_seconds_bucket".into(), "1".into(), 3.0),
                ("d_seconds_bucket".into(), "+Inf".into(), 4.0),
                ("d_seconds_sum".into(), "sda".into(), 2.5),
                ("d_seconds_count".to_owned(), "sda".to_owned(), 4.0),
            ]
        );
    }
}
