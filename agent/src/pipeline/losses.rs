//! What was given up: counts by signal and reason, and a report of each stretch of it, which goes to
//! Loki as an entry of its own once nothing more is added to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::log::Log;
use crate::host::Clock;
use crate::model::Event;
use crate::wal::LossReason;

/// A stretch has ended when nothing was added to it for this long.
const QUIET: Duration = Duration::from_secs(120);

/// A stretch that goes on is reported this often.
const LONGEST: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct Count {
    total: u64,
    stretch: Option<Stretch>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    items: u64,
    /// The times of the oldest and the newest item, in milliseconds since the Unix epoch.
    from_ms: i64,
    to_ms: i64,
    began: Instant,
    last: Instant,
}

/// A stretch that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LossReport {
    pub(super) signal: &'static str,
    pub(super) reason: String,
    pub(super) items: u64,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

/// What was given up, by signal and reason.
pub(super) struct Dropped {
    clock: Rc<dyn Clock>,
    counts: RefCell<BTreeMap<(&'static str, String), Count>>,
}

impl Dropped {
    pub(super) fn new(clock: Rc<dyn Clock>) -> Dropped {
        Dropped { clock, counts: RefCell::default() }
    }

    /// Counts `items` that are of now, and returns how many there are of this signal and reason.
    pub(super) fn add(&self, signal: &'static str, reason: &str, items: u64) -> u64 {
        let now_ms = self.clock.now_ms();
        self.add_of(signal, reason, items, now_ms, now_ms)
    }

    /// Counts `items` that are from `from_ms` to `to_ms`.
    pub(super) fn add_of(
        &self,
        signal: &'static str,
        reason: &str,
        items: u64,
        from_ms: i64,
        to_ms: i64,
    ) -> u64 {
        if items == 0 {
            return 0;
        }
        let now = Instant::now();
        let mut counts = self.counts.borrow_mut();
        let count =
            counts.entry((signal, reason.to_owned())).or_insert(Count { total: 0, stretch: None });
        count.total += items;
        let fresh = Stretch { items: 0, from_ms, to_ms, began: now, last: now };
        let stretch = count.stretch.get_or_insert(fresh);
        stretch.items += items;
        stretch.from_ms = stretch.from_ms.min(from_ms);
        stretch.to_ms = stretch.to_ms.max(to_ms);
        stretch.last = now;
        count.total
    }

    /// Counts `items` that the configuration wants gone: there is nothing to report of them.
    pub(super) fn add_wanted(&self, signal: &'static str, reason: &str, items: u64) {
        let mut counts = self.counts.borrow_mut();
        let fresh = Count { total: 0, stretch: None };
        counts.entry((signal, reason.to_owned())).or_insert(fresh).total += items;
    }

    /// Counts what a WAL has given up by itself.
    pub(super) fn take_from(&self, log: &Log) {
        for loss in log.take_losses() {
            let reason = match loss.reason {
                LossReason::Full => "wal_evicted",
                LossReason::MinFree => "disk_full",
                LossReason::Expired => "wal_expired",
                LossReason::NoDisk => "wal_failed",
                LossReason::Damaged => super::DAMAGED,
            };
            if loss.from_ms > loss.to_ms {
                // Nobody knows of when: of this boot, most likely.
                self.add(log.name(), reason, loss.items);
            } else {
                self.add_of(log.name(), reason, loss.items, loss.from_ms, loss.to_ms);
            }
        }
    }

    /// The clock was set by `step_ms`, and was wrong before: times that it has shown are shifted.
    pub(super) fn shift(&self, shown_ms: RangeInclusive<i64>, step_ms: i64) {
        for count in self.counts.borrow_mut().values_mut() {
            let Some(stretch) = &mut count.stretch else { continue };
            for time in [&mut stretch.from_ms, &mut stretch.to_ms] {
                if shown_ms.contains(time) {
                    *time = time.saturating_add(step_ms);
                }
            }
            let (from, to) = (stretch.from_ms, stretch.to_ms);
            (stretch.from_ms, stretch.to_ms) = (from.min(to), from.max(to));
        }
    }

    /// Gives signal, reason and count of each, one after the other.
    pub(super) fn each(
        &self,
        take: impl FnOnce(&mut dyn Iterator<Item = (&'static str, &str, u64)>),
    ) {
        let counts = self.counts.borrow();
        take(&mut counts.iter().map(|((signal, reason), c)| (*signal, reason.as_str(), c.total)));
    }

    /// Signal, reason and count of each.
    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<(&'static str, String, u64)> {
        let counts = self.counts.borrow();
        counts.iter().map(|((signal, reason), c)| (*signal, reason.clone(), c.total)).collect()
    }

    /// The stretches that are over, or all of them.
    pub(super) fn over(&self, all: bool) -> Vec<LossReport> {
        let is_over =
            |s: &Stretch| all || s.last.elapsed() >= QUIET || s.began.elapsed() >= LONGEST;
        let report = |((signal, reason), count): (&(&'static str, String), &Count)| {
            let stretch = count.stretch.filter(is_over)?;
            Some(LossReport {
                signal,
                reason: reason.clone(),
                items: stretch.items,
                from_ms: stretch.from_ms,
                to_ms: stretch.to_ms,
            })
        };
        self.counts.borrow().iter().filter_map(report).collect()
    }

    /// Takes the reported items out of their stretches.
    pub(super) fn reported(&self, reports: &[LossReport]) {
        let mut counts = self.counts.borrow_mut();
        for report in reports {
            if let Some(count) = counts.get_mut(&(report.signal, report.reason.clone())) {
                count.stretch = count.stretch.filter(|s| s.items > report.items);
                if let Some(stretch) = &mut count.stretch {
                    stretch.items -= report.items;
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.counts.borrow().values().map(|count| count.total).sum()
    }
}

impl LossReport {
    /// What happened, for people: "2,114 samples from 02:10 to 03:45 were dropped: ...", in UTC.
    pub(super) fn message(&self) -> String {
        let what = match (self.signal, self.items) {
            ("metrics", 1) => "sample",
            ("metrics", _) => "samples",
            (_, 1) => "entry",
            _ => "entries",
        };
        let (from, to) = (time(self.from_ms), time(self.to_ms));
        // The day of the end is said only where it is another one.
        let to = if from.get(..10) == to.get(..10) { to.get(11..).unwrap_or(&to) } else { &to };
        let was = if self.items == 1 { "was" } else { "were" };
        format!(
            "{} {what} from {from} to {to} UTC {was} dropped: {}",
            thousands(self.items),
            self.why()
        )
    }

    fn why(&self) -> String {
        match self.reason.as_str() {
            "wal_evicted" => "WAL full".to_owned(),
            "wal_full" => "WAL full, and nothing in it may go".to_owned(),
            "wal_failed" => "the disk takes nothing, and the memory for that is full".to_owned(),
            "wal_expired" => "older than wal.max_age".to_owned(),
            "disk_full" => "the file system has less than wal.min_free left".to_owned(),
            "wal_damaged" => "damaged on the disk".to_owned(),
            "clock_backwards" => {
                "older than what the server has, since the clock was set back".to_owned()
            }
            "max_series" => "more series than metrics.max_series".to_owned(),
            "too_large" => "too large".to_owned(),
            "event_rate" => "too many events of one kind, which the metrics count".to_owned(),
            "too_old" => "older than Loki takes them (loki.max_entry_age)".to_owned(),
            "too_far_behind" => {
                "further behind its stream than Loki takes it (loki.max_behind)".to_owned()
            }
            "not_written" => {
                "not written, by what the server said when it accepted the request".to_owned()
            }
            "relabel_invalid" => "without a name or a label after relabelling".to_owned(),
            "line_too_long" => "longer than Loki takes them (loki.max_line)".to_owned(),
            "events_full" => "no room for the probes' events".to_owned(),
            other => match other.strip_prefix("http_") {
                Some(code) => {
                    let code = code.trim_end_matches("_repeat");
                    format!("refused by the server with HTTP {code}")
                }
                None => other.to_owned(),
            },
        }
    }

    /// The report as an event of now.
    pub(super) fn event(&self, now_ns: i64) -> Event {
        Event::new("dropped", now_ns, self.message())
            .with("signal", self.signal)
            .with("reason", self.reason.clone())
            .with("count", self.items.to_string())
            .with("from", rfc3339(self.from_ms))
            .with("to", rfc3339(self.to_ms))
    }
}

pub(super) fn rfc3339(ms: i64) -> String {
    let ms = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    // The last second that four digits of a year can say.
    let time = UNIX_EPOCH + ms.min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_seconds(time).to_string()
}

fn time(ms: i64) -> String {
    let whole = rfc3339(ms);
    whole.get(..16).unwrap_or(&whole).replace('T', " ")
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ManualClock;

    const HOUR_MS: i64 = 3_600_000;

    fn report(items: u64, from_ms: i64, to_ms: i64) -> LossReport {
        LossReport { signal: "metrics", reason: "wal_evicted".into(), items, from_ms, to_ms }
    }

    #[test]
    fn message_says_what_and_when_and_why() {
        let day = 1_763_683_200_000; // 2025-11-21 00:00 UTC
        let from = day + 2 * HOUR_MS + 600_000;
        assert_eq!(
            report(2_114, from, from + 95 * 60_000).message(),
            "2,114 samples from 2025-11-21 02:10 to 03:45 UTC were dropped: WAL full"
        );
        assert_eq!(
            report(1, from, from + 24 * HOUR_MS).message(),
            "1 sample from 2025-11-21 02:10 to 2025-11-22 02:10 UTC was dropped: WAL full"
        );
        assert!(report(1, i64::MIN, i64::MAX).message().contains("1970-01-01"));
    }

    #[tokio::test(start_paused = true)]
    async fn stretch_is_reported_once_when_it_is_over() {
        let clock = ManualClock::at(0);
        let dropped = Dropped::new(Rc::new(clock.clone()));
        dropped.add_of("metrics", "wal_evicted", 2_000, 5_000, 9_000);
        assert_eq!(dropped.over(false), []);
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(dropped.add_of("metrics", "wal_evicted", 114, 1_000, 6_000), 2_114);
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(dropped.over(false), []);
        tokio::time::advance(QUIET / 2).await;
        let over = dropped.over(false);
        assert_eq!(over, [report(2_114, 1_000, 9_000)]);
        // Something is added between the look and the writing.
        dropped.add_of("metrics", "wal_evicted", 3, 1_000, 9_500);
        dropped.reported(&over);
        assert_eq!(dropped.over(true), [report(3, 1_000, 9_500)]);
        dropped.reported(&dropped.over(true));
        assert_eq!(dropped.over(true), []);
        // What a stage drops is no loss.
        dropped.add_wanted("logs", "healthchecks", 1);
        dropped.add_wanted("logs", "healthchecks", 2);
        assert_eq!(dropped.over(true), []);
        assert_eq!(dropped.total(), 2_120);
    }

    #[tokio::test(start_paused = true)]
    async fn stretch_without_an_end_is_reported_every_hour() {
        let dropped = Dropped::new(Rc::new(ManualClock::at(0)));
        for _ in 0..61 {
            dropped.add("logs", "wal_failed", 1);
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(dropped.over(false).len(), 1);
    }

    #[test]
    fn event_has_its_details() {
        assert!(report(7, 0, 60_000).event(5).line().ends_with(
            "signal=metrics reason=wal_evicted count=7 from=1970-01-01T00:00:00Z to=1970-01-01T00:01:00Z"
        ));
    }
}
