//! Help texts and units of families, and when a server is told them. It must not know requests.
//!
//! Mimir forgets metadata that it has not seen for ten minutes (`-ingester.metadata-retain-period`), and
//! Grafana shows none then; a Prometheus that is pushed to keeps them. So they are sent again every eight
//! minutes, and more often would be for nothing: the texts are larger than a round. They ride along with
//! samples of their families, never in a request of their own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Samples;
use crate::scrape::Texts;

/// Base units that names end with (OpenMetrics 1.0, "Units and Base Units").
const UNITS: [&str; 10] = [
    "amperes", "bytes", "celsius", "grams", "hertz", "joules", "meters", "ratio", "seconds",
    "volts",
];

/// Who has the texts: the newest round, and of targets' families what was kept of their pages.
pub(crate) struct Newest {
    pub(crate) rounds: [Rc<RefCell<Samples>>; 2],
    pub(crate) texts: Rc<RefCell<Texts>>,
}

/// What is told of families, and when.
pub(super) struct Families {
    newest: Newest,
    /// Where the last family was found, by which the next one is likely to be.
    hint: [usize; 2],
    every: Option<Duration>,
    /// When each family was told, by the hash of its name: records of targets and of collectors that rest have
    /// turns of their own.
    told: HashMap<u64, Instant>,
    /// Those that the batch tells.
    tells: Vec<u64>,
    hasher: RandomState,
}

impl Families {
    pub(super) fn new(newest: Newest, every: Option<Duration>) -> Families {
        if every.is_some() {
            newest.texts.borrow_mut().want();
        }
        Families {
            newest,
            hint: [0; 2],
            every,
            told: HashMap::new(),
            tells: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.tells.clear();
    }

    /// A batch has been sent.
    pub(super) fn end(&mut self) {
        let Some(every) = self.every.filter(|_| !self.tells.is_empty()) else { return };
        let now = Instant::now();
        // What is older is due whether it is known or not, so that this is bounded by what is told in that time.
        self.told.retain(|_, told| now.duration_since(*told) < every);
        self.told.extend(self.tells.drain(..).map(|family| (family, now)));
    }

    /// The server has forgotten what it was told, or another protocol is spoken.
    pub(super) fn again(&mut self) {
        self.told.clear();
        self.tells.clear();
    }

    /// Whether a family is to be told.
    pub(super) fn is_due(&self, family: &str) -> bool {
        let told = self.told.get(&self.hasher.hash_one(family));
        self.every.is_some_and(|every| told.is_none_or(|told| told.elapsed() >= every))
    }

    /// Gives `then` the family's help and unit, both empty if they are not to be told.
    pub(super) fn with<T>(&mut self, family: &str, then: impl FnOnce(&str, &str) -> T) -> T {
        if !self.is_due(family) {
            return then("", "");
        }
        let hash = self.hasher.hash_one(family);
        if self.tells.last() != Some(&hash) {
            self.tells.push(hash);
        }
        for (samples, hint) in self.newest.rounds.iter().zip(&mut self.hint) {
            let samples = samples.borrow();
            if let Some(help) = samples.help(family, hint) {
                return then(help, unit(family));
            }
        }
        let texts = self.newest.texts.borrow();
        then(texts.get(family), unit(family))
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
        let rounds = [(); 2].map(|()| Rc::new(RefCell::new(Samples::with_limit(9))));
        rounds[0].borrow_mut().value(&A, 1.0);
        rounds[1].borrow_mut().value(&B, 1.0);
        let newest = Newest { rounds, texts: Rc::default() };
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
        // One that comes later has a turn of its own.
        assert!(families.is_due("a_bytes"));
        assert_eq!(families.with("b", |help, _| help.to_owned()), "B.");
        families.end();
        families.begin();
        assert!(!families.is_due("b") && families.is_due("a_bytes"));
        families.again();
        assert!(families.is_due("b"));
        let mut never = Families::new(families.newest, None);
        never.begin();
        never.again();
        assert!(!never.is_due("b"));
    }
}
