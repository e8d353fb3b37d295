//! Which series of a table are one of the agent's own histograms, and what it was in a round. It must not
//! know requests.
//!
//! The WAL has a histogram as a Prometheus has a classic one: 26 series in a row, of cumulative buckets, a
//! sum and a count. Where the bounds are exactly [`LATENCY_BOUNDS`] and the family is Mote's, nothing has to
//! be guessed to make a native histogram of them.

use crate::encode::{NativeHistogram, Round, Series, Table};
use crate::model::{Kind, LATENCY_BOUNDS, STALE};
use crate::pipeline::shape::SeriesShape;
use crate::relabel::NAME;

/// Each bound, `+Inf`, sum, count.
pub(super) const SERIES: usize = BUCKETS + 2;
const BUCKETS: usize = LATENCY_BOUNDS.len() + 1;

/// Whole numbers up to here are exact in a float.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The series of a table as the endpoint gets them.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) table: &'a Table,
    pub(crate) shape: &'a SeriesShape,
}

impl<'a> View<'a> {
    pub(super) fn get(self, at: usize) -> Option<Series<'a>> {
        self.table.get(at)
    }

    pub(super) fn labels(
        self,
        at: usize,
    ) -> Option<impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a>> {
        Some(self.shape.labels(self.get(at)?, at))
    }

    pub(super) fn label(self, at: usize, name: &str) -> Option<&'a str> {
        self.labels(at)?.find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    pub(super) fn name(self, at: usize) -> &'a str {
        self.label(at, NAME).unwrap_or_default()
    }

    /// Labels without name and bound.
    fn others(self, at: usize) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let labels = self.labels(at).into_iter().flatten();
        labels.filter(|(name, _)| !matches!(*name, NAME | "le"))
    }

    /// The labels of the native histogram that has this first series.
    pub(super) fn native(
        self,
        at: usize,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.labels(at).into_iter().flatten().filter_map(|(name, value)| match name {
            "le" => None,
            NAME => Some((name, Kind::Histogram.family(value))),
            _ => Some((name, value)),
        })
    }
}

/// Whether a whole histogram of the agent's own begins with this series, and the endpoint gets it as one.
pub(super) fn begins(view: View<'_>, at: usize) -> bool {
    let is_own = |series: Series<'_>| {
        series.kind == Kind::Histogram
            && series.name().starts_with("mote_")
            && series.name().ends_with("_bucket")
    };
    if !view.get(at).is_some_and(is_own) {
        return false;
    }
    // Rules may have made something else of it.
    let Some(family) = view.name(at).strip_suffix("_bucket") else { return false };
    let of = |series: usize, suffix: &str, bound: Option<&str>| {
        view.get(series).is_some_and(|series| series.kind == Kind::Histogram)
            && view.label(series, "le") == bound
            && view.name(series).strip_prefix(family) == Some(suffix)
            && view.others(series).eq(view.others(at))
    };
    let bounds = LATENCY_BOUNDS.into_iter().chain(["+Inf"]);
    bounds.enumerate().all(|(n, bound)| of(at + n, "_bucket", Some(bound)))
        && of(at + BUCKETS, "_sum", None)
        && of(at + BUCKETS + 1, "_count", None)
}

/// The end of the histogram that goes on with this series; None if none does.
pub(super) fn goes_on(view: View<'_>, at: usize) -> Option<usize> {
    let first = at.saturating_sub(SERIES - 1);
    (first..at).find(|start| begins(view, *start)).map(|start| start + SERIES)
}

/// What the histogram was in a round. None if the round has not all of it, or what no histogram can be:
/// its series are sent as they are then.
pub(super) fn native(round: &Round, at: usize, start_ms: i64) -> Option<NativeHistogram> {
    let mut gone = 0;
    for series in at..at + SERIES {
        gone += usize::from(round.value(series)?.to_bits() == STALE);
    }
    match gone {
        0 => {}
        SERIES => return Some(NativeHistogram::stale(round.timestamp_ms)),
        _ => return None,
    }
    let (mut zero, mut buckets) = (0, [0; BUCKETS - 1]);
    let mut before = 0;
    for (n, series) in (at..at + BUCKETS).enumerate() {
        let below = whole(round.value(series)?)?;
        let count = below.checked_sub(before)?;
        match n.checked_sub(1) {
            None => zero = count,
            Some(n) => *buckets.get_mut(n)? = count,
        }
        before = below;
    }
    let (sum, count) = (round.value(at + BUCKETS)?, round.value(at + BUCKETS + 1)?);
    let timestamp_ms = round.timestamp_ms;
    (whole(count)? == before).then_some(NativeHistogram {
        timestamp_ms,
        start_ms: if start_ms < timestamp_ms { start_ms } else { 0 },
        sum,
        zero,
        buckets,
    })
}

fn whole(value: f64) -> Option<u64> {
    ((0.0..=MAX_WHOLE).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}
