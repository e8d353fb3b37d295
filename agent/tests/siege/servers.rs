//! Attacks by servers: backends that refuse and hang, targets with too much to say.

use super::{Attack, Field};
use crate::support::{Fault, Page, Pages};

/// A Mimir that nobody listens for, and a Loki that never answers.
pub(crate) struct Down;

impl Attack for Down {
    fn name(&self) -> &'static str {
        "both backends down"
    }

    fn begin(&mut self, field: &mut Field) {
        field.mimir.stop();
        field.loki.play(|| Some(Fault::never()));
    }

    fn end(&mut self, field: &mut Field) {
        field.mimir.start();
        field.loki.rest();
        // Ends what hangs.
        field.loki.stop();
        field.loki.start();
    }
}

/// A target with 500,000 series, and one whose page has no end.
pub(crate) struct Targets {
    large: Pages,
    endless: Pages,
    bounds: Bounds,
}

/// What bounds a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounds {
    Default,
    /// The user has set all of them as high as they go.
    Highest,
}

impl Targets {
    pub(crate) fn new(bounds: Bounds) -> Targets {
        let mut text = String::with_capacity(32 << 20);
        for number in 0..500_000 {
            text.push_str(&format!("large_metric{{number=\"{number}\",of=\"500000\"}} {number}\n"));
        }
        let kind = "text/plain; version=0.0.4";
        let (large, endless) = (Pages::new(Page::Text(kind, text)), Pages::new(Page::Endless));
        Targets { large, endless, bounds }
    }
}

impl Attack for Targets {
    fn name(&self) -> &'static str {
        match self.bounds {
            Bounds::Default => "targets",
            Bounds::Highest => "targets and the highest bounds",
        }
    }

    fn tables(&self) -> String {
        let (most, bounds) = match self.bounds {
            Bounds::Default => ("", ""),
            Bounds::Highest => (
                "[metrics]\nmax_series = 60000\n",
                "sample_limit = 60000\nbody_size_limit = \"64MiB\"\n",
            ),
        };
        let targets = [("large", &self.large), ("endless", &self.endless)];
        let table = |(job, pages): (&str, &Pages)| {
            format!(
                "[[scrape]]\njob = \"{job}\"\ntargets = [{:?}]\ninterval = \"6s\"\ntimeout = \"2s\"\n{bounds}",
                pages.target()
            )
        };
        format!("{most}{}", targets.map(table).concat())
    }

    fn has_arrived(&self, field: &Field) -> bool {
        ["large", "endless"]
            .iter()
            .all(|job| !field.mimir.samples("up", &[("job", job)]).is_empty())
    }

    fn check(&self, field: &Field) {
        for (job, pages) in [("large", &self.large), ("endless", &self.endless)] {
            assert!(!pages.requests().is_empty(), "{job} was not scraped");
            let up = field.mimir.samples("up", &[("job", job)]);
            assert!(!up.is_empty() && up.iter().all(|(_, value)| *value == 0.0), "{job}: {up:?}");
        }
    }
}
