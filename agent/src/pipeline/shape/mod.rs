//! What one endpoint makes of labels: external ones where there is no such label, then its relabel rules. The
//! WALs know nothing of it, so two endpoints get what each wants of the same rounds and blocks.
//!
//! Results are computed once: for a series while the table of its segment stays, for a stream while it is
//! among those that were seen last.

mod series;
mod streams;

use super::TOO_LARGE;
use super::losses::Dropped;
use crate::relabel::Counts;

pub(super) use series::SeriesShape;
pub(super) use streams::StreamShape;

/// Counts what rules let go: nothing to report, the configuration wants it so.
pub(super) fn count(dropped: &Dropped, signal: &'static str, counts: Counts) {
    let reasons = [
        ("relabel", counts.dropped),
        ("relabel_duplicate", counts.duplicates),
        ("relabel_invalid", counts.nameless),
    ];
    for (reason, items) in reasons.into_iter().filter(|(_, items)| *items > 0) {
        dropped.add_wanted(signal, reason, items);
    }
    dropped.add(signal, TOO_LARGE, counts.too_large);
}
