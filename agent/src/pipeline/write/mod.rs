//! Rounds into requests of remote write 2.0 or 1.0, and which of them a server understands. It must not
//! know which part of a batch is whose turn, nor the WAL.
//!
//! Of 2.0 a server has to prove that it knows it, by the headers that say what it has written. One that
//! answers 415, or a first request by any other refusal of the request (400 is what the specification
//! expects of those that came before it), or by a 2xx without the headers, which is a receiver of 1.0 that
//! has found an empty request, is sent the same samples by 1.0, and all others for an hour; then 2.0 is
//! tried again, for servers are upgraded.

mod families;
mod own;
mod starts;

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Histograms, Protocol, WriteOptions};
use crate::encode::{Full, MAX_BYTES, Meta, Point, RemoteWrite, RemoteWrite2, Round, Table};
use crate::endpoint::{Content, Written};

use families::Families;
pub(super) use families::Newest;
use own::SERIES;
pub(super) use own::View;
use starts::{Since, Start, Starts};

/// For so long a server is not asked again whether it takes 2.0.
const FALL_BACK: Duration = Duration::from_secs(3_600);

/// A request takes nothing more from here on, so that what belongs together is not cut by the bound.
/// Memory of a request that is kept for the next one: that of a round.
const KEPT: usize = 128 << 10;

const NEARLY_FULL: usize = MAX_BYTES / 2;

/// What is known of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// 1.0, as it was configured.
    One,
    /// 2.0, and whether the server has shown that it understands.
    Two { is_proven: bool },
    /// 1.0, until another try.
    OneUntil(Instant),
}

/// The rounds of a part with their starts.
#[derive(Clone, Copy)]
struct Rounds<'a> {
    rounds: &'a [Round],
    starts: &'a [Start],
}

impl<'a> Rounds<'a> {
    fn iter(self) -> impl Iterator<Item = (&'a Round, Start)> + Clone {
        self.rounds.iter().zip(self.starts.iter().copied())
    }
}

/// Requests of one endpoint.
pub(super) struct Writer {
    /// Parts of the batch have gone by another version.
    is_mixed: bool,
    histograms: Histograms,
    speaks: Speaks,
    /// Whether it was told already that the server does not take 2.0.
    is_told: bool,
    url: String,
    one: RemoteWrite,
    two: RemoteWrite2,
    /// Samples of the WAL that the request has; a native histogram stands for several.
    items: u64,
    families: Families,
    /// The family whose metadata was written last.
    family: String,
    starts: Starts,
    /// Of each round of the batch.
    start: Vec<Start>,
}

impl Writer {
    pub(super) fn new(options: WriteOptions, url: String, newest: Newest) -> Writer {
        let speaks = match options.protocol {
            Protocol::V1 => Speaks::One,
            Protocol::V2 => Speaks::Two { is_proven: false },
        };
        Writer {
            histograms: options.histograms,
            speaks,
            is_told: false,
            url,
            one: RemoteWrite::new(),
            two: RemoteWrite2::new(),
            items: 0,
            families: Families::new(newest, options.metadata_every),
            is_mixed: false,
            family: String::new(),
            starts: Starts::default(),
            start: Vec::new(),
        }
    }

    /// How histograms go: as classic series to the end of a batch of which parts have gone by 1.0, since a cut may be
    /// within one.
    fn histograms(&self) -> Histograms {
        if self.is_mixed { Histograms::Classic } else { self.histograms }
    }

    fn is_two(&self) -> bool {
        matches!(self.speaks, Speaks::Two { .. })
    }

    pub(super) fn content(&self) -> Content {
        if self.is_two() { Content::RemoteWrite2 } else { Content::RemoteWrite1 }
    }

    /// What is spoken, for the status page.
    pub(super) fn protocol(&self) -> &'static str {
        match self.speaks {
            Speaks::One => "remote write 1.0",
            Speaks::Two { .. } => "remote write 2.0",
            Speaks::OneUntil(_) => "remote write 1.0, because the server does not take 2.0",
        }
    }

    /// The series' table is begun anew.
    pub(super) fn table_begins(&mut self) {
        self.starts.forget_table();
    }

    /// A round joins the batch, as its number `index`.
    pub(super) fn round(&mut self, index: usize, table: &Table, round: &Round) {
        self.start.truncate(index);
        let start = if self.is_two() { self.starts.of(table, round) } else { Start::default() };
        self.start.push(start);
    }

    /// The first request of a batch is made.
    pub(super) fn batch_begins(&mut self) {
        if let Speaks::OneUntil(until) = self.speaks
            && Instant::now() >= until
        {
            self.speaks = Speaks::Two { is_proven: false };
            self.families.again();
        }
        self.families.begin();
    }

    pub(super) fn batch_ends(&mut self) {
        self.families.end();
        self.is_mixed = false;
    }

    /// An empty request.
    pub(super) fn clear(&mut self) {
        self.one.clear();
        self.two.clear();
        self.family.clear();
        self.items = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Gives back the memory of large requests.
    pub(super) fn rest(&mut self) {
        if self.one.memory() > KEPT {
            self.one = self.one.anew();
        }
        if self.two.memory() > KEPT {
            self.two = RemoteWrite2::new();
        }
    }

    /// Bytes before compression.
    pub(super) fn len(&self) -> usize {
        if self.is_two() { self.two.len() } else { self.one.len() }
    }

    pub(super) fn is_nearly_full(&self) -> bool {
        self.len() >= NEARLY_FULL
    }

    /// Samples of the WAL.
    pub(super) fn items(&self) -> u64 {
        self.items
    }

    /// Samples and histograms as the server counts them.
    pub(super) fn on_wire(&self) -> u64 {
        let two = self.two.samples() + self.two.histograms();
        if self.is_two() { two as u64 } else { self.one.samples() as u64 }
    }

    pub(super) fn finish(&mut self) -> &[u8] {
        if self.is_two() { self.two.finish() } else { self.one.finish() }
    }

    /// From which series of a part on it is this part's: a histogram is its whole where it begins.
    pub(super) fn begin_of(&self, view: View<'_>, at: usize) -> usize {
        let whole = self.is_two() && self.histograms() == Histograms::Native;
        if whole { own::goes_on(view, at).unwrap_or(at) } else { at }
    }

    /// These rounds of the batch, with the starts that belong to them.
    fn rounds<'a>(
        starts: &'a [Start],
        rounds: &'a [Round],
        range: std::ops::Range<usize>,
    ) -> Rounds<'a> {
        Rounds {
            rounds: rounds.get(range.clone()).unwrap_or_default(),
            starts: starts.get(range).unwrap_or_default(),
        }
    }

    /// Adds the samples of a series, or of the histogram that it begins; returns how many series that were.
    ///
    /// # Errors
    /// There is no room for them in the request.
    pub(super) fn add(
        &mut self,
        view: View<'_>,
        at: usize,
        all: &[Round],
        range: std::ops::Range<usize>,
    ) -> Result<usize, Full> {
        let start = std::mem::take(&mut self.start);
        let rounds = Writer::rounds(&start, all, range);
        let added = if self.is_two() {
            self.add_two(view, at, rounds)
        } else {
            self.add_one(view, at, rounds.rounds).map(|()| 1)
        };
        self.start = start;
        added
    }

    fn add_one(&mut self, view: View<'_>, at: usize, rounds: &[Round]) -> Result<(), Full> {
        let (Some(series), Some(labels)) = (view.get(at), view.labels(at)) else { return Ok(()) };
        let samples =
            rounds.iter().filter_map(|round| Some((round.timestamp_ms, round.value(at)?)));
        if samples.clone().next().is_none() {
            return Ok(());
        }
        let before = self.one.samples();
        self.one.series(labels, samples)?;
        self.items += (self.one.samples() - before) as u64;
        let family = series.kind.family(view.name(at));
        if self.family != family && self.families.is_due(family) {
            self.family.clear();
            self.family.push_str(family);
            let one = &mut self.one;
            // Where there is no room for it, it comes with the next request of these families.
            let _ = self
                .families
                .with(family, |help, unit| one.metadata(series.kind, family, help, unit));
        }
        Ok(())
    }

    fn add_two(&mut self, view: View<'_>, at: usize, rounds: Rounds<'_>) -> Result<usize, Full> {
        let Some(series) = view.get(at) else { return Ok(1) };
        let is_native = self.histograms() != Histograms::Classic && own::begins(view, at);
        if !is_native {
            self.add_series(view, at, rounds, |_| true)?;
            return Ok(1);
        }
        let natives =
            rounds.iter().filter_map(|(round, start)| own::native(round, at, start.process_ms));
        let count = natives.clone().count() as u64;
        if count > 0 {
            let two = &mut self.two;
            let family = series.kind.family(view.name(at));
            self.families.with(family, |help, unit| {
                let meta = Meta { kind: series.kind, help, unit };
                two.histogram(view.native(at), meta, natives)
            })?;
        }
        if self.histograms() == Histograms::Both {
            self.add_series(view, at, rounds, |_| true)?;
            return Ok(1);
        }
        self.items += count * SERIES as u64;
        if count < rounds.rounds.len() as u64 {
            for part in at..at + SERIES {
                self.add_series(view, part, rounds, |round| own::native(round, at, 0).is_none())?;
            }
        }
        Ok(SERIES)
    }

    fn add_series(
        &mut self,
        view: View<'_>,
        at: usize,
        rounds: Rounds<'_>,
        is_wanted: impl Fn(&Round) -> bool + Copy,
    ) -> Result<(), Full> {
        let (Some(series), Some(labels)) = (view.get(at), view.labels(at)) else { return Ok(()) };
        let since = Since::of(&series);
        let samples = rounds.iter().filter(move |(round, _)| is_wanted(round)).filter_map(
            move |(round, start)| {
                let timestamp_ms = round.timestamp_ms;
                let value = round.value(at)?;
                Some(Point { timestamp_ms, value, start_ms: since.at(start, timestamp_ms) })
            },
        );
        if samples.clone().next().is_none() {
            return Ok(());
        }
        let before = self.two.samples();
        let two = &mut self.two;
        let family = series.kind.family(view.name(at));
        self.families.with(family, |help, unit| {
            let meta = Meta { kind: series.kind, help, unit };
            two.series(labels, meta, samples)
        })?;
        self.items += (self.two.samples() - before) as u64;
        Ok(())
    }

    /// The server has accepted the request. How many samples of the WAL it has not written; None if it has
    /// not understood the request, which is to come again by 1.0.
    pub(super) fn accepted(&mut self, written: Written) -> Option<u64> {
        if !self.is_two() {
            return Some(0);
        }
        if written == Written::default() {
            self.fall_back("a 2xx did not say what was written");
            return None;
        }
        self.is_proven();
        Some(self.lost(written))
    }

    /// The server has refused the request and may have written a part of it. How many samples of the WAL
    /// it has not written, if it says so.
    pub(super) fn written(&mut self, written: Written) -> Option<u64> {
        // Where nothing was written, cutting repeats nothing; and Mimir says so of each request that it refuses
        // before it looks at samples (pkg/distributor/push.go), as one that it can't read.
        let count = written.samples.unwrap_or(0).saturating_add(written.histograms.unwrap_or(0));
        if !self.is_two() || count == 0 {
            return None;
        }
        self.is_proven();
        Some(self.lost(written))
    }

    fn is_proven(&mut self) {
        self.speaks = Speaks::Two { is_proven: true };
        if std::mem::take(&mut self.is_told) {
            log::info!("{}: the server takes remote write 2.0 now", self.url);
        }
    }

    fn lost(&self, written: Written) -> u64 {
        let missing =
            |sent: usize, written: Option<u64>| (sent as u64).saturating_sub(written.unwrap_or(0));
        let histograms = missing(self.two.histograms(), written.histograms);
        // Beside classic series a native histogram stands for none.
        let each = if self.histograms() == Histograms::Native { SERIES as u64 } else { 0 };
        missing(self.two.samples(), written.samples)
            .saturating_add(histograms.saturating_mul(each))
            .min(self.items)
    }

    /// Whether the refused request may have been refused for its protocol, which the server has not shown to
    /// understand: then 1.0 is spoken from now on.
    pub(super) fn refused(&mut self, why: &str) -> bool {
        if self.speaks != (Speaks::Two { is_proven: false }) {
            return false;
        }
        self.fall_back(why);
        true
    }

    /// The server has said that it does not take this protocol. Whether another one is spoken from now on.
    pub(super) fn unsupported(&mut self, why: &str) -> bool {
        if let Speaks::OneUntil(_) = self.speaks {
            // It takes neither, or was somebody else before: the other one is tried after the caller's pause.
            self.speaks = Speaks::Two { is_proven: false };
            self.is_mixed = true;
            self.families.again();
            return false;
        }
        if !self.is_two() {
            return false;
        }
        self.fall_back(why);
        true
    }

    fn fall_back(&mut self, why: &str) {
        self.speaks = Speaks::OneUntil(Instant::now() + FALL_BACK);
        self.is_mixed = true;
        self.families.again();
        if !std::mem::replace(&mut self.is_told, true) {
            log::warn!(
                "{}: the server does not take remote write 2.0 ({why}); 1.0 is sent, and 2.0 tried again every hour",
                self.url
            );
        }
    }
}

#[cfg(test)]
mod tests;
