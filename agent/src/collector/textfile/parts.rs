//! The parts of a histogram or summary, put together as Go's client does: bounds in order and as Go writes
//! them, the last of equal ones, `+Inf` from the count if it lacks, counts without a fraction, and zero for
//! a sum or count that is not given.

use super::families::Parsed;
use super::store::{Row, Store};
use crate::exposition::{Type, show};
use crate::model::{Kind, Suffix};
use crate::sort;

/// What a sample is of its family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    /// A sample of its own.
    Plain,
    /// A bucket or quantile whose bound is not known yet.
    Unbound,
    /// A bucket or quantile.
    Bound(f64),
    Sum,
    Count,
}

impl Part {
    pub(super) fn with_bound(self, bound: f64) -> Part {
        if self == Part::Unbound { Part::Bound(bound) } else { self }
    }
}

/// The label that has the bound.
pub(super) fn bound(kind: Type) -> Option<&'static str> {
    match kind {
        Type::Histogram => Some("le"),
        Type::Summary => Some("quantile"),
        Type::Counter | Type::Gauge | Type::Untyped => None,
    }
}

/// Writes the samples of one series, and gives the first one that came twice.
pub(super) fn write<'a>(rows: &'a [Parsed], store: &mut Store) -> Option<&'a Parsed> {
    let first = rows.first()?;
    let described = store.families.get(first.family as usize)?;
    let row = |suffix, value| Row {
        family: first.family,
        suffix,
        labels: first.labels,
        bound: None,
        value,
    };
    if !matches!(described.kind, Kind::Histogram | Kind::Summary) {
        let mut twice = None;
        for (index, other) in rows.iter().enumerate() {
            if index > 0 && same_labels(store, first, other) {
                twice = twice.or(Some(other));
            } else {
                store.rows.push(Row { labels: other.labels, ..row(Suffix::None, other.value) });
            }
        }
        return twice;
    }
    let is_histogram = described.kind == Kind::Histogram;
    let count = |value: f64| if value.is_nan() { 0.0 } else { value as u64 as f64 };
    // A histogram's parts come from one file.
    let own = || rows.iter().filter(|row| row.file == first.file);
    let last = |part| own().rfind(|row| row.part == part).map_or(0.0, |row| row.value);
    let (sum, total) = (last(Part::Sum), count(last(Part::Count)));
    let mut bounds: Vec<(f64, f64)> = Vec::new();
    for row in own() {
        if let Part::Bound(bound) = row.part {
            bounds.push((bound, if is_histogram { count(row.value) } else { row.value }));
        }
    }
    sort::stable_by(&mut bounds, |a, b| a.0.total_cmp(&b.0));
    let infinite = bounds.last().is_some_and(|last| last.0 == f64::INFINITY);
    if is_histogram && !infinite {
        bounds.push((f64::INFINITY, total));
    }
    let suffix = if is_histogram { Suffix::Bucket } else { Suffix::None };
    for (index, &(bound, value)) in bounds.iter().enumerate() {
        if bounds.get(index + 1).is_some_and(|next| next.0 == bound) {
            continue;
        }
        let text = store.keep(|text| text.push_str(&show(bound)));
        store.rows.push(Row { bound: Some(text), ..row(suffix, value) });
    }
    store.rows.push(row(Suffix::Sum, sum));
    store.rows.push(row(Suffix::Count, total));
    rows.iter().find(|row| row.file != first.file)
}

fn same_labels(store: &Store, a: &Parsed, b: &Parsed) -> bool {
    let (a, b) = (store.labels(a.labels), store.labels(b.labels));
    let text = |span| store.get(span);
    a.len() == b.len()
        && a.iter().all(|&(name, value)| {
            b.iter().any(|&(other, given)| text(other) == text(name) && text(given) == text(value))
        })
}
