//! Help texts and units of families, and when a server is told them. It must not know requests.
//!
//! Mimir forgets metadata that it has not seen for ten minutes (`-ingester.metadata-retain-period`), and
//! Grafana shows none then; a Prometheus that is pushed to keeps them. So they are sent again every eight
//! minutes, and more often would be for nothing: the texts are larger than a round. They ride along with
//! samples of their families, never in a request of their own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Samples;

/// Base units that names end with (OpenMetrics 1.0, "Units and Base Units").
const UNITS: [&str; 10] = [
    "amperes", "bytes", "celsius", "grams", "hertz", "joules", "meters", "ratio", "seconds",
    "volts",
];

/// The newest round, which has the texts.
pub(crate) type Newest = [Rc<RefCell<Samples>>; 2];

/// What is told of families, and when.
pub(super) struct Families {
    newest: Newest,
    /// Where the last family was found, by which the next one is likely to be.
    hint: [usize; 2],
    every: Option<Duration>,
    told: Option<Instant>,
    /// Whether the batch tells them.
    pub(super) tells: bool,
}

impl Families {
    pub(super) fn new(newest: Newest, every: Option<Duration>) -> Families {
        Families { newest, hint: [0; 2], every, told: None, tells: false }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self) {
        let is_due = |every: Duration| self.told.is_none_or(|told| told.elapsed() >= every);
        self.tells = self.every.is_some_and(is_due);
    }

    /// A batch has been sent.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.tells) {
            self.told = Some(Instant::now());
        }
    }

    /// The server has forgotten what it was told, or another protocol is spoken.
    pub(super) fn again(&mut self) {
        self.told = None;
        self.tells = self.every.is_some();
    }

    /// Gives `then` the family's help and unit, both empty if they are not to be told.
    pub(super) fn with<T>(&mut self, family: &str, then: impl FnOnce(&str, &str) -> T) -> T {
        if !self.tells {
            return then("", "");
        }
        for (samples, hint) in self.newest.iter().zip(&mut self.hint) {
            let samples = samples.borrow();
            if let Some(help) = samples.help(family, hint) {
                return then(help, unit(family));
            }
        }
        then("", unit(family))
    }
}

/// The unit that a family's name ends with, before the `_total` of a counter; nothing if it is none of
/// OpenMetrics' base units.
fn unit(family: &str) -> &str {
    let name = family.strip_suffix("_total").unwrap_or(family);
    let last = name.rsplit_once('_').map_or("", |(_, last)| last);
    if UNITS.contains(&last) { last } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Desc;

    #[test]
    fn units_are_those_that_names_end_with() {
        assert_eq!(unit("node_cpu_seconds_total"), "seconds");
        assert_eq!(unit("node_filesystem_size_bytes"), "bytes");
        assert_eq!(unit("mote_block_io_duration_seconds"), "seconds");
        for none in ["node_load1", "seconds", "node_forks_total", "a_pages", "a_total_total", ""] {
            assert_eq!(unit(none), "", "{none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn texts_are_told_at_first_and_again_before_they_are_forgotten() {
        const A: Desc = Desc::gauge("a_bytes", "A.");
        const B: Desc = Desc::gauge("b", "B.");
        let newest = [(); 2].map(|()| Rc::new(RefCell::new(Samples::with_limit(9))));
        newest[0].borrow_mut().value(&A, 1.0);
        newest[1].borrow_mut().value(&B, 1.0);
        let eight = Duration::from_secs(480);
        let mut families = Families::new(newest, Some(eight));
        let texts = |families: &mut Families| {
            ["b", "a_bytes", "c"].map(|family| families.with(family, |h, u| format!("{h}{u}")))
        };
        families.begin();
        assert_eq!(texts(&mut families), ["B.", "A.bytes", ""]);
        families.end();
        tokio::time::advance(eight - Duration::from_secs(1)).await;
        families.begin();
        assert_eq!(texts(&mut families), ["", "", ""]);
        families.end();
        tokio::time::advance(Duration::from_secs(1)).await;
        families.begin();
        assert!(families.tells);
        families.end();
        families.begin();
        assert!(!families.tells);
        families.again();
        assert!(families.tells);
        let mut never = Families::new(families.newest, None);
        never.begin();
        never.again();
        assert!(!never.tells);
    }
}
