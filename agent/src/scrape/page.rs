//! A target's page on its way into samples. It must not know where the bytes come from.

use std::cell::RefCell;

use super::texts::{MAX_TEXT, Texts};
use super::{Limits, ScrapeError, Target};
use crate::exposition::{self, Dialect, Escaped, Event, Stream, Type};
use crate::model::{Kind, Samples};
use crate::relabel::{LabelSet, NAME, Verdict, is_metric_name};

/// Prometheus' NaN that is a value (`model/value`); the one for staleness can't be written as text.
pub(super) const NAN: u64 = 0x7ff8_0000_0000_0001;

/// The most labels of a sample, whatever its limits say.
const MOST: usize = super::MAX_LABELS as usize;

/// The most characters of a token that an error repeats.
const MAX_TOKEN: usize = 80;

/// What a page had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples.
    pub scraped: u64,
    /// Of them, those that rules have left.
    pub kept: u64,
    /// Timestamps that were passed over.
    pub timestamps: u64,
}

/// Reads one page.
#[derive(Debug)]
pub struct Page<'a> {
    stream: Option<Stream>,
    work: Work<'a>,
    failed: Option<ScrapeError>,
}

/// A HELP line, its text cut.
#[derive(Debug)]
struct Help {
    name: String,
    text: String,
}

impl Help {
    fn new(name: &str, text: Option<Escaped<'_>>) -> Help {
        let mut help = Help { name: name.to_owned(), text: String::new() };
        for char in text.iter().flat_map(Escaped::chars) {
            if help.text.len() + char.len_utf8() > MAX_TEXT {
                break;
            }
            help.text.push(char);
        }
        help
    }
}

/// What a sample of the page goes through.
#[derive(Debug)]
struct Work<'a> {
    target: &'a Target,
    samples: &'a mut Samples,
    /// The most samples, which may be less than the target's own limit: its key, and how many.
    most: (&'static str, usize),
    /// The newest TYPE line.
    family: String,
    kind: Kind,
    /// The newest HELP line, until a sample says what its family is called.
    help: Option<Help>,
    texts: Option<&'a RefCell<Texts>>,
    counts: Counts,
    set: LabelSet,
    scratch: String,
    /// A limit of samples was passed: the rest is counted, not kept.
    over: Option<ScrapeError>,
}

impl<'a> Page<'a> {
    /// A page of which nothing has come. Its samples go to `samples`, which have begun the target's section;
    /// at most `room`, where that is less than the target's own limit: what `metrics.max_series` leaves.
    pub fn new(target: &'a Target, room: usize, samples: &'a mut Samples) -> Page<'a> {
        let own = target.limits.samples as usize;
        let most = if room < own { ("metrics.max_series", room) } else { ("sample_limit", own) };
        let work = Work {
            target,
            samples,
            most,
            family: String::new(),
            kind: Kind::Untyped,
            help: None,
            texts: None,
            counts: Counts::default(),
            set: LabelSet::new(),
            scratch: String::new(),
            over: None,
        };
        Page { stream: None, work, failed: None }
    }

    /// The same, which says what its families' help texts are.
    pub fn telling(mut self, texts: &'a RefCell<Texts>) -> Page<'a> {
        self.work.texts = Some(texts);
        self
    }

    /// Bytes that its samples have allocated.
    pub fn memory(&self) -> usize {
        self.work.samples.memory()
    }

    /// Takes a piece of the page; `content_type` is that of the answer. False if no more is wanted.
    pub fn feed(&mut self, content_type: &str, piece: &[u8]) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => match dialect(content_type) {
                Ok(dialect) => self.stream.insert(Stream::new(dialect)),
                Err(error) => {
                    self.failed = Some(error);
                    return false;
                }
            },
        };
        let work = &mut self.work;
        let number = stream.line();
        let fed = stream.feed(piece, &mut |event| work.event(event));
        self.failed = fed.err().map(|error| located(error, stream.line().max(number)));
        self.failed.is_none()
    }

    /// The page has ended.
    ///
    /// # Errors
    /// What was wrong with it, with what it had up to there; nothing of its samples is of use then.
    pub fn finish(mut self) -> Result<Counts, (ScrapeError, Counts)> {
        if self.failed.is_none()
            && let Some(stream) = &mut self.stream
        {
            let work = &mut self.work;
            let ended = stream.finish(&mut |event| work.event(event));
            self.failed = ended.err().map(|error| located(error, stream.line()));
        }
        let counts = self.work.counts;
        match self.failed.or(self.work.over) {
            Some(error) => Err((error, counts)),
            None => Ok(counts),
        }
    }
}

/// An error with the line that it is of.
fn located(error: ScrapeError, number: u32) -> ScrapeError {
    match error {
        ScrapeError::Page(error) if error.line == 0 => {
            ScrapeError::Page(exposition::Error { line: number, ..error })
        }
        ScrapeError::Limit { key, most, token, .. } => {
            ScrapeError::Limit { key, most, line: number, token }
        }
        other => other,
    }
}

/// How a page is read, by its `Content-Type`; many targets say nothing, or no more than text.
fn dialect(content_type: &str) -> Result<Dialect, ScrapeError> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let is = |known: &str| kind.eq_ignore_ascii_case(known);
    if is("application/openmetrics-text") {
        return Ok(Dialect::OpenMetrics);
    }
    if is("application/vnd.google.protobuf") || is("text/html") {
        return Err(ScrapeError::Format(kind.chars().take(MAX_TOKEN).collect()));
    }
    Ok(Dialect::Scrape)
}

impl Work<'_> {
    fn event(&mut self, event: Event<'_>) -> Result<(), ScrapeError> {
        match event {
            Event::Help { name, text } => {
                self.help = self.texts.map(|_| Help::new(name, text));
                Ok(())
            }
            Event::Type { name, kind } => {
                name.clone_into(&mut self.family);
                self.kind = match kind {
                    Some(Type::Counter) => Kind::Counter,
                    Some(Type::Gauge) => Kind::Gauge,
                    Some(Type::Histogram) => Kind::Histogram,
                    Some(Type::Summary) => Kind::Summary,
                    Some(Type::Untyped) | None => Kind::Untyped,
                };
                Ok(())
            }
            Event::Sample { name, labels, value, timestamp } => {
                self.counts.scraped += 1;
                self.counts.timestamps += u64::from(timestamp.is_some());
                self.set.clear();
                self.set.add(NAME, name);
                self.labels(labels);
                self.sample(name, value)
            }
        }
    }

    /// The sample's labels with the target's, as `mutateSampleLabels` of Prometheus' scrape package has them.
    fn labels(&mut self, own: exposition::Labels<'_>) {
        let target = &self.target.labels;
        for (name, value) in own.iter() {
            if self.target.honor_labels || target.get(name).is_none() {
                self.scratch.clear();
                value.push_to(&mut self.scratch);
                self.set.add(name, &self.scratch);
            }
        }
        for (name, value) in target.iter() {
            // An empty label of the page's is one that it has, and keeps the target's away.
            let keeps = self.target.honor_labels && own.get(name).is_some();
            if !keeps {
                self.set.add(name, value);
            }
        }
        if self.target.honor_labels {
            return;
        }
        for (name, value) in own.iter() {
            if target.get(name).is_none() || value.is_empty() {
                continue;
            }
            let mut exported = format!("exported_{name}");
            while !self.set.get(&exported).is_empty() {
                exported.insert_str(0, "exported_");
            }
            self.scratch.clear();
            value.push_to(&mut self.scratch);
            self.set.add(&exported, &self.scratch);
        }
    }

    fn sample(&mut self, written: &str, value: f64) -> Result<(), ScrapeError> {
        let kind = self.kind_of(written);
        let Target { relabel, then, common, .. } = self.target;
        for (rules, common) in [(relabel, None), (then, Some(common))] {
            if rules.is_empty() {
                continue;
            }
            for (name, value) in common.into_iter().flat_map(|common| common.iter()) {
                self.set.add(name, value);
            }
            self.set.sort();
            match rules.apply(&mut self.set) {
                Verdict::Keep => {}
                Verdict::Drop => return Ok(()),
                Verdict::TooLarge => return Err(limit("relabel", 256 << 10, written)),
            }
        }
        if self.set.is_overfull() {
            return Err(limit(
                "label_value_length_limit",
                self.target.limits.value.into(),
                written,
            ));
        }
        let name = self.set.get(NAME);
        if !is_metric_name(name) {
            let token = name.chars().take(MAX_TOKEN).collect();
            let expected = "the name of a metric, behind the relabel rules,";
            return Err(exposition::Error { line: 0, token, expected }.into());
        }
        self.check(&self.target.limits)?;
        self.counts.kept += 1;
        let (key, most) = self.most;
        if self.samples.len() >= most {
            self.over.get_or_insert_with(|| ScrapeError::Limit {
                key,
                most: most as u64,
                line: 0,
                token: String::new(),
            });
            return Ok(());
        }
        if let Some((help, texts)) = self.help.take().zip(self.texts) {
            let is_of = help.name == written || (help.name == self.family && kind != Kind::Untyped);
            if is_of {
                texts.borrow_mut().note(kind.family(name), &help.text);
            }
        }
        let labels = self.set.iter().filter(|(name, _)| *name != NAME && !name.starts_with("__"));
        let labels: heapless::Vec<(&str, &str), MOST> = labels.take(MOST).collect();
        let value = if value.is_nan() { f64::from_bits(NAN) } else { value };
        self.samples.family_named(name, "", kind).add(&labels, value);
        Ok(())
    }

    /// The type of the family that a name belongs to, if its TYPE line is the newest.
    fn kind_of(&self, name: &str) -> Kind {
        let Some(suffix) = name.strip_prefix(self.family.as_str()) else { return Kind::Untyped };
        match (self.kind, suffix) {
            (kind, "")
            | (kind @ Kind::Histogram, "_bucket" | "_sum" | "_count")
            | (kind @ Kind::Summary, "_sum" | "_count")
            | (kind @ Kind::Counter, "_total")
            | (kind @ Kind::Gauge, "_info") => kind,
            _ => Kind::Untyped,
        }
    }

    fn check(&self, limits: &Limits) -> Result<(), ScrapeError> {
        if self.set.len() > limits.labels as usize {
            return Err(limit("label_limit", limits.labels.into(), self.set.get(NAME)));
        }
        for (name, value) in self.set.iter() {
            if name.len() > limits.name as usize {
                return Err(limit("label_name_length_limit", limits.name.into(), name));
            }
            if value.len() > limits.value as usize {
                return Err(limit("label_value_length_limit", limits.value.into(), name));
            }
        }
        Ok(())
    }
}

/// An error whose line is known to the caller.
fn limit(key: &'static str, most: u64, token: &str) -> ScrapeError {
    ScrapeError::Limit { key, most, line: 0, token: token.chars().take(MAX_TOKEN).collect() }
}
