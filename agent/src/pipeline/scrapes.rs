//! Scraped targets: each at its own moment of its interval, each scrape a record of the metrics WAL between
//! the host's rounds.
//!
//! A scrape's timestamp is its beginning, or just behind the newest record if there is one since then, so
//! that timestamps in the WAL rise; if the clock was set meanwhile, its end. Its record is synced with the host's next round, or by itself if that
//! would leave it for more than half of its interval.
//!
//! Two scrapes run at once, and beside them four of targets that were slow or failed the last time, so that
//! those cost nobody else; a connection is closed with its scrape. Between scrapes nothing is in memory but
//! what `mote status` shows, and help texts.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::log::Log;
use super::rounds::{append, until_next};
use super::state::State;
use super::{Phase, RunError};
use crate::config::{Config, Scrape};
use crate::encode::RoundEncoder;
use crate::endpoint::{Client, GetOutcome};
use crate::host::alarm;
use crate::memory::{Part, Pressure};
use crate::model::{FIRST_TARGET, Samples};
use crate::scrape::{ACCEPT, Counts, Page, REPORTED, Report, ScrapeError, Target};
use crate::status::TargetReport;

/// Scrapes at once, of targets that are quick and of others.
const QUICK: usize = 2;
const SLOW: usize = 4;

/// A scrape that takes longer makes its target a slow one.
const IS_SLOW: Duration = Duration::from_secs(1);

/// What is said where memory is short.
const SHORT: &str =
    "agent.memory_limit leaves no room for it; `mote status` shows what holds the memory";

/// What a piece of a page takes in memory of its bytes at most: the shortest lines make samples of several times
/// their length.
const GROWTH: u64 = 8;

/// Bytes of memory for a sample of a page, with its labels.
const SAMPLE: u64 = 160;

/// A page of which nothing is known yet has so many samples.
const SMALL: u64 = 500;

/// A buffer of so many samples is kept for the next scrape.
const KEPT: usize = 4_000;
const KEPT_BYTES: usize = 1 << 20;

/// What the scrapes share.
pub(super) struct Shared {
    state: Rc<State>,
    log: Rc<Log>,
    encoder: Rc<RefCell<RoundEncoder>>,
    max_series: usize,
    quick: Semaphore,
    slow: Semaphore,
    spare: RefCell<Option<Samples>>,
}

/// Sections of targets by what makes a target another one; a reload keeps them.
pub(super) type Sections = Vec<(String, u16)>;

/// One target.
pub(super) struct Scraped {
    shared: Rc<Shared>,
    target: Target,
    client: Client,
    interval: Duration,
    /// How much later than the multiples of the interval it is scraped.
    offset_ns: i64,
    section: u16,
    phase: watch::Receiver<Phase>,
    report: Rc<RefCell<TargetReport>>,
    is_slow: bool,
    /// Whether the last scrape failed.
    failed: bool,
    /// Samples of the last page that was read to its end.
    page: u64,
    /// Whether it was told that the page gives timestamps.
    told: bool,
}

/// The targets of a configuration, with those of the one before that are gone.
pub(super) struct Plan {
    targets: Vec<(Target, Client, Duration, u16, String)>,
    ended: Vec<u16>,
    sections: Sections,
}

/// Gives each target its section: the one that it had, or one that nobody has.
pub(super) fn plan(config: &Config, before: &Sections) -> Result<Plan, RunError> {
    let identity = |scrape: &Scrape| {
        let url = &scrape.connection.url;
        format!("{url} {} {}", url.query().unwrap_or_default(), scrape.target.labels)
    };
    let names: Vec<String> = config.scrape.iter().map(identity).collect();
    let mut plan = Plan { targets: Vec::new(), ended: Vec::new(), sections: Vec::new() };
    for (name, section) in before {
        if !names.contains(name) {
            plan.ended.push(*section);
        }
    }
    let mut next = FIRST_TARGET;
    for (scrape, name) in config.scrape.iter().zip(names) {
        let has = before.iter().find(|(known, _)| *known == name).map(|(_, section)| *section);
        let section = has.unwrap_or_else(|| {
            while before.iter().any(|(_, taken)| *taken == next) {
                next = next.saturating_add(1);
            }
            next = next.saturating_add(1);
            next - 1
        });
        let client = Client::new(scrape.connection.clone())
            .map_err(|error| RunError::Changed(format!("{}: {error}", scrape.connection.url)))?;
        plan.sections.push((name.clone(), section));
        plan.targets.push((scrape.target.clone(), client, scrape.interval, section, name));
    }
    Ok(plan)
}

impl Plan {
    /// The targets, ready to be scraped; what of the last configuration is gone is said to be gone.
    pub(super) fn begin(
        self,
        shared: Rc<Shared>,
        phase: &watch::Receiver<Phase>,
        sections: &mut Sections,
    ) -> Vec<Scraped> {
        *sections = self.sections;
        let mut samples = Samples::with_limit(0);
        for section in self.ended {
            // Once more behind it, because what the newest record says to be gone may be stated again in a
            // new table.
            for _ in 0..2 {
                samples.clear();
                samples.begin(section);
                shared.append(&samples, Duration::ZERO, 0);
            }
        }
        let scraped =
            |(target, client, interval, section, name): (Target, Client, _, _, String)| {
                let report = Rc::new(RefCell::new(TargetReport {
                    job: target.labels.get("job").unwrap_or_default().to_owned(),
                    instance: target.labels.get("instance").unwrap_or_default().to_owned(),
                    url: client.options().url.to_string(),
                    state: "pending".to_owned(),
                    ..TargetReport::default()
                }));
                shared.state.targets.borrow_mut().push(Rc::clone(&report));
                Scraped {
                    offset_ns: offset_ns(shared.state.phase, &name, interval),
                    shared: Rc::clone(&shared),
                    target,
                    client,
                    interval,
                    section,
                    phase: phase.clone(),
                    report,
                    is_slow: false,
                    failed: false,
                    page: 0,
                    told: false,
                }
            };
        self.targets.into_iter().map(scraped).collect()
    }
}

/// A target's moment: another one on each host, and for each target.
fn offset_ns(host: u32, name: &str, interval: Duration) -> i64 {
    let mark = crc32c::crc32c_append(host, name.as_bytes());
    i64::try_from((interval.as_nanos() * u128::from(mark)) >> 32).unwrap_or(0)
}

/// When a scrape that took so long is said to have been. A clock that went back is for each endpoint's sender.
fn stamp(now_ms: i64, took: Duration, newest_ms: Option<i64>) -> i64 {
    /// Records of one moment follow each other by a millisecond; this is far more than there can be.
    const CROWD_MS: i64 = 1_000;
    let began = now_ms.saturating_sub(i64::try_from(took.as_millis()).unwrap_or(0));
    match newest_ms {
        Some(newest) if newest.saturating_sub(now_ms) < CROWD_MS => {
            began.max(newest.saturating_add(1))
        }
        _ => began,
    }
}

impl Shared {
    pub(super) fn new(
        state: Rc<State>,
        log: Rc<Log>,
        encoder: Rc<RefCell<RoundEncoder>>,
        max_series: u32,
    ) -> Shared {
        Shared {
            state,
            log,
            encoder,
            max_series: max_series as usize,
            quick: Semaphore::new(QUICK),
            slow: Semaphore::new(SLOW),
            spare: RefCell::default(),
        }
    }

    /// Writes the record of a scrape that took so long, before which the clock had been set so often.
    fn append(&self, samples: &Samples, took: Duration, steps: u64) {
        let state = &self.state;
        let newest = state.newest.get().map(|(newest, _)| newest);
        let now = state.time.look();
        // Of a clock that was set meanwhile its beginning is not known, and what was written since may be later.
        let took = if state.time.steps() == steps { took } else { Duration::ZERO };
        let now = now.at(stamp(now.ms, took, newest));
        if append(state, &self.log, &self.encoder, &[samples], now) {
            state.newest.set(Some((now.ms, true)));
        }
    }

    /// How many samples a target may have, beside those of the host and of other targets.
    fn room(&self, own: &Rc<RefCell<TargetReport>>) -> usize {
        let others = self.state.targets.borrow();
        let others = others.iter().filter(|other| !Rc::ptr_eq(other, own));
        let taken: u64 = others.map(|other| other.borrow().series).sum();
        let host = self.state.samples.borrow().len();
        let taken = usize::try_from(taken).unwrap_or(usize::MAX).saturating_add(host + REPORTED);
        self.max_series.saturating_sub(taken)
    }
}

impl Scraped {
    /// Scrapes until the agent drains. A scrape under way is given up then.
    pub(super) async fn run(mut self) {
        let mut phase = self.phase.clone();
        loop {
            let now_ns = self.shared.state.clock.now_ns();
            let wait = until_next(now_ns.saturating_sub(self.offset_ns), self.interval);
            tokio::select! {
                () = alarm::sleep(wait) => {}
                _ = phase.changed() => {}
            }
            if *phase.borrow() != Phase::Running {
                return;
            }
            tokio::select! {
                () = self.scrape() => {}
                _ = phase.changed() => return,
            }
        }
    }

    /// One scrape.
    pub(super) async fn scrape(&mut self) {
        let shared = Rc::clone(&self.shared);
        let (is_slow, lane) =
            (self.is_slow, if self.is_slow { &shared.slow } else { &shared.quick });
        // It is never closed.
        let mut permit = lane.acquire().await.ok();
        let (began, steps) = (Instant::now(), shared.state.time.steps());
        let spare = shared.spare.take();
        let mut samples =
            spare.unwrap_or_else(|| Samples::with_limit(shared.max_series + REPORTED));
        samples.clear();
        samples.begin(self.section);
        let room = shared.room(&self.report);
        let (counts, why) = {
            let mut fetch = pin!(self.fetch(room, &mut samples));
            match tokio::time::timeout(IS_SLOW, fetch.as_mut()).await {
                Ok(got) => got,
                Err(_) => {
                    if !is_slow {
                        // What is not quick this time goes on beside the others: a machine that is gone would hold
                        // up all scrapes by each of its targets.
                        permit.take();
                    }
                    fetch.await
                }
            }
        };
        drop(permit);
        let took = began.elapsed();
        let mut report = Report {
            up: why.is_none(),
            seconds: took.as_secs_f64(),
            scraped: counts.scraped,
            kept: counts.kept,
            added: shared.encoder.borrow().added(&samples, self.failed),
        };
        let is_large = samples.len() > KEPT || samples.memory() > KEPT_BYTES;
        if why.is_none() {
            self.page = samples.len() as u64;
        }
        if why.is_some() {
            samples.clear();
            samples.begin(self.section);
            report.added = 0;
        }
        report.write(&self.target, &mut samples);
        shared.append(&samples, took, steps);
        self.failed = why.is_some();
        self.is_slow = self.failed || took > IS_SLOW;
        self.tell(why, &report, counts, samples.len());
        if !is_large && !self.failed && shared.state.memory.pressure() < Pressure::Caches {
            shared.spare.replace(Some(samples));
        }
        let most = self.interval.min(shared.state.interval) / 2;
        shared.log.settle_within(most).await;
    }

    /// The most that a page may take.
    fn most(&self) -> u64 {
        (self.shared.max_series as u64).saturating_mul(SAMPLE)
    }

    /// The page, and why it is of no use if it is not.
    async fn fetch(&mut self, room: usize, samples: &mut Samples) -> (Counts, Option<String>) {
        let limits = self.target.limits;
        let timeout = self.client.options().timeout.as_secs_f64().to_string();
        let headers = [("x-prometheus-scrape-timeout-seconds", timeout.as_str())];
        let url = self.client.options().url.clone();
        let memory = &self.shared.state.memory;
        let is_short = || memory.pressure() >= Pressure::Scrapes;
        // A quarter more than the last page took.
        let wants = (self.page.max(SMALL) * SAMPLE / 4 * 5).min(self.most());
        let lease = memory.budget.take(Part::Scrapes, wants).filter(|_| !is_short());
        let Some(mut lease) = lease else {
            return (Counts::default(), Some(format!("{url}: not asked: {SHORT}")));
        };
        let texts = &self.shared.state.texts;
        // Of a buffer that is used again.
        let held = samples.memory() as u64;
        let mut page = Page::new(&self.target, room, samples);
        if memory.pressure() < Pressure::Caches {
            page = page.telling(texts);
        } else {
            texts.borrow_mut().clear();
        }
        let mut ended = false;
        let mut sink = |kind: &str, piece: &[u8]| {
            // Its buffers may double with each piece.
            let most = (2 * page.memory() as u64).saturating_sub(held);
            let most = most + piece.len() as u64 * GROWTH;
            let more = most.saturating_sub(lease.bytes());
            ended = is_short() || (more > 0 && !lease.grow(more));
            !ended && page.feed(kind, piece)
        };
        let got = self.client.get(ACCEPT, &headers, limits.body, &mut sink).await;
        self.client.close();
        if ended {
            return (Counts::default(), Some(format!("{url}: not read to its end: {SHORT}")));
        }
        let mut finished = page.finish();
        // Pages that are read at once have each begun with the whole room.
        let room = self.shared.room(&self.report) as u64;
        if let Ok(counts) = finished
            && counts.kept > room
        {
            let key = "metrics.max_series";
            let error = ScrapeError::Limit { key, most: room, line: 0, token: String::new() };
            finished = Err((error, counts));
        }
        match (got, finished) {
            (GetOutcome::Whole { .. }, Ok(counts)) => (counts, None),
            (GetOutcome::Whole { .. } | GetOutcome::Stopped, Err((error, counts))) => {
                if let ScrapeError::Limit { key: "metrics.max_series", most, .. } = error {
                    let over = counts.kept.saturating_sub(most);
                    self.shared.state.dropped.add("metrics", "max_series", over);
                }
                (counts, Some(format!("{url}: {error}")))
            }
            (GetOutcome::TooLong { why }, _) => {
                (Counts::default(), Some(format!("{why} (body_size_limit)")))
            }
            (GetOutcome::Failed { why, .. }, _) => (Counts::default(), Some(why)),
            (GetOutcome::Stopped, Ok(_)) => {
                (Counts::default(), Some(format!("{url}: the page was not read to its end")))
            }
        }
    }

    /// Says what became of it: to the log when that is another thing than before, and to whoever asks.
    fn tell(&mut self, why: Option<String>, end: &Report, counts: Counts, series: usize) {
        let mut report = self.report.borrow_mut();
        let job = &report.job;
        match (&why, &report.error) {
            (Some(why), None) => ::log::warn!("scraping {job}: {why}"),
            (None, Some(_)) => ::log::info!("scraping {job}: {} works again", report.url),
            _ => {}
        }
        if counts.timestamps > 0 && !std::mem::replace(&mut self.told, true) {
            ::log::info!(
                "scraping {job}: {} gives times for {} samples, which get that of the scrape",
                report.url,
                counts.timestamps
            );
        }
        report.state = if end.up { "up" } else { "down" }.to_owned();
        report.scrapes += 1;
        report.failures += u64::from(!end.up);
        report.duration_seconds = end.seconds;
        report.series = series as u64;
        report.scraped = end.scraped;
        report.timestamps = counts.timestamps;
        report.last_ms = Some(self.shared.state.clock.now_ms());
        report.every_seconds = self.interval.as_secs_f64();
        report.error = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_rise_whatever_was_written_meanwhile() {
        let took = Duration::from_secs(5);
        assert_eq!(stamp(100_000, took, None), 95_000);
        assert_eq!(stamp(100_000, took, Some(90_000)), 95_000);
        assert_eq!(stamp(100_000, took, Some(97_000)), 97_001);
        // Several in one millisecond.
        assert_eq!(stamp(100_000, took, Some(100_002)), 100_003);
        // The clock went back.
        assert_eq!(stamp(100_000, took, Some(101_000)), 95_000);
        assert_eq!(stamp(i64::MIN, Duration::MAX, Some(i64::MAX)), i64::MIN);
    }

    #[test]
    fn targets_keep_their_sections_over_a_reload() {
        let config = |jobs: &[&str]| {
            let one = |job: &&str| format!("[[scrape]]\njob = {job:?}\ntargets = [\"h:1\"]\n");
            let text: String = jobs.iter().map(one).collect();
            crate::config::parse(&text, std::path::Path::new("t"), &[]).unwrap()
        };
        let of =
            |plan: &Plan| plan.sections.iter().map(|(_, section)| *section).collect::<Vec<_>>();
        let first = plan(&config(&["a", "b", "c"]), &Vec::new()).unwrap();
        assert_eq!((of(&first), first.ended.clone()), (vec![256, 257, 258], vec![]));
        let second = plan(&config(&["d", "c", "a"]), &first.sections).unwrap();
        assert_eq!((of(&second), second.ended.clone()), (vec![259, 258, 256], vec![257]));
        let third = plan(&config(&["e", "f"]), &second.sections).unwrap();
        assert_eq!((of(&third), third.ended.clone()), (vec![257, 260], vec![259, 258, 256]));
    }

    #[test]
    fn targets_of_a_host_have_moments_of_their_own() {
        let minute = Duration::from_secs(60);
        let mut tenths = [0; 10];
        for n in 0..1_000 {
            let offset = offset_ns(7, &format!("http://h:{n}/metrics"), minute);
            tenths[(offset / 6_000_000_000) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
        assert_ne!(offset_ns(7, "a", minute), offset_ns(8, "a", minute));
    }
}
