//! Which series of a table are one of the agent's own histograms, and what it was in a round. It must not
//! know requests.
//!
//! The WAL has a histogram as a Prometheus has a classic one: 26 series in a row, of cumulative buckets, a
//! sum and a count. Where the bounds are exactly [`LATENCY_BOUNDS`] and the family is Mote's, nothing has to
//! be guessed to make a native histogram of them.

use crate::encode::{NativeHistogram, Round, Series, Table};
use crate::model::{Kind, LATENCY_BOUNDS, STALE};

/// Each bound, `+Inf`, sum, count.
pub(super) const SERIES: usize = BUCKETS + 2;
const BUCKETS: usize = LATENCY_BOUNDS.len() + 1;

/// Whole numbers up to here are exact in a float.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The name of the family of a histogram's or a summary's series; of others, their own.
pub(super) fn family(kind: Kind, name: &str) -> &str {
    let suffixes = match kind {
        Kind::Histogram => &["_bucket", "_sum", "_count"][..],
        Kind::Summary => &["_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// Labels without name and bound.
fn others<'a>(series: &Series<'a>) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    series.labels().filter(|(name, _)| !matches!(*name, "__name__" | "le"))
}

/// The labels of the native histogram that has this first series.
pub(super) fn labels<'a>(
    series: &Series<'a>,
) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
    series.labels().filter_map(|(name, value)| match name {
        "le" => None,
        "__name__" => Some((name, family(Kind::Histogram, value))),
        _ => Some((name, value)),
    })
}

/// Whether a whole histogram of the agent's own begins with this series.
pub(super) fn begins(table: &Table, at: usize) -> bool {
    let Some(first) = table.get(at).filter(|first| first.kind == Kind::Histogram) else {
        return false;
    };
    let Some(family) = first.name().strip_suffix("_bucket") else { return false };
    if !family.starts_with("mote_") {
        return false;
    }
    let of = |series: usize, suffix: &str, bound: Option<&str>| {
        table.get(series).is_some_and(|series| {
            let le = series.labels().find(|(name, _)| *name == "le").map(|(_, value)| value);
            series.kind == Kind::Histogram
                && le == bound
                && series.name().strip_prefix(family) == Some(suffix)
                && others(&series).eq(others(&first))
        })
    };
    let bounds = LATENCY_BOUNDS.into_iter().chain(["+Inf"]);
    bounds.enumerate().all(|(n, bound)| of(at + n, "_bucket", Some(bound)))
        && of(at + BUCKETS, "_sum", None)
        && of(at + BUCKETS + 1, "_count", None)
}

/// The end of the histogram that goes on with this series; None if none does.
pub(super) fn goes_on(table: &Table, at: usize) -> Option<usize> {
    let first = at.saturating_sub(SERIES - 1);
    (first..at).find(|start| begins(table, *start)).map(|start| start + SERIES)
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
