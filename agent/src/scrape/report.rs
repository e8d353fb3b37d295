//! What is said of each scrape beside what it found: the names and meanings are Prometheus' own ("Automatically
//! generated labels and time series" in its documentation).

use super::Target;
use crate::model::{Desc, Samples};

const UP: Desc = Desc::gauge("up", "Whether the target answered with a page that could be read.");
const DURATION: Desc = Desc::gauge("scrape_duration_seconds", "Duration of the scrape in seconds.");
const SCRAPED: Desc = Desc::gauge("scrape_samples_scraped", "Samples that the target exposed.");
const KEPT: Desc = Desc::gauge(
    "scrape_samples_post_metric_relabeling",
    "Samples that were left after metric relabeling was applied.",
);
const ADDED: Desc =
    Desc::gauge("scrape_series_added", "Approximate number of new series in this scrape.");

/// How many samples that is.
pub const REPORTED: usize = 5;

/// A scrape's end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Whether all went well.
    pub up: bool,
    /// What it took.
    pub seconds: f64,
    /// Samples of the page.
    pub scraped: u64,
    /// Of them, those that rules have left.
    pub kept: u64,
    /// Of those, how many series were not there before.
    pub added: u64,
}

impl Report {
    /// Adds it to the samples of the scrape, with the target's labels.
    pub fn write(&self, target: &Target, out: &mut Samples) {
        let missing = target.common.iter().filter(|(name, _)| target.labels.get(name).is_none());
        let labels = target.labels.iter().chain(missing);
        let labels: heapless::Vec<(&str, &str), 32> = labels.take(32).collect();
        let up = f64::from(u8::from(self.up));
        for (desc, value) in [
            (&UP, up),
            (&DURATION, self.seconds),
            (&SCRAPED, self.scraped as f64),
            (&KEPT, self.kept as f64),
            (&ADDED, self.added as f64),
        ] {
            out.family(desc).add(&labels, value);
        }
    }
}
