//! From a WAL to an endpoint: one request in flight, the cursor moved by answers alone.
//!
//! | answer | what happens |
//! |---|---|
//! | accepted | the cursor moves past what was sent |
//! | retry (5xx, 429, no connection, timeout) | the same bytes again, after a growing pause or Retry-After |
//! | misconfigured (401, 403, 404, 405, 407, 415, 3xx) | the same bytes again, at the longest pause: nothing is dropped for a wrong password |
//! | refused (any other 4xx) | round by round; what is refused alone is dropped, counted by code, logged with the server's words; of entries only those that Loki says it has not taken |
//!
//! Prometheus refuses a batch that it has stored already and whose answer got lost, except for the newest
//! round of it, and keeps nothing of a batch that it refuses. A batch that was formed anew after a crash
//! may hold such rounds beside new ones, so a refused batch is always sent again round by round. A refusal
//! of what may have been stored before is counted as `http_400_repeat`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use std::cell::RefCell;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Phase;
use super::log::Log;
use super::losses::Dropped;
use super::pace::Pace;
use crate::endpoint::{Backoff, Client, Content, Outcome};
use crate::host::Clock;
use crate::wal::{ReaderId, WalError};

/// The longest that the same complaint of a server is logged once.
const REPEAT_LOG: Duration = Duration::from_secs(600);

/// What was gathered from the WAL for the next requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gathered {
    /// Samples or entries.
    pub(super) items: u64,
    /// The position after the last record: what to acknowledge.
    pub(super) until: u64,
    /// Whether nothing more may join.
    pub(super) full: bool,
    /// When the oldest of it was collected, in milliseconds since the Unix epoch.
    pub(super) oldest_ms: i64,
}

/// A request as it is sent, and again if need be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) body: &'a [u8],
    /// Samples or entries.
    pub(super) items: u64,
    /// Bytes before compression, which servers' limits are of.
    pub(super) bytes: u64,
}

/// What differs between metrics and logs.
pub(super) trait Signal {
    /// What the requests are, for their headers.
    const CONTENT: Content;

    /// Reads on from `gathered.until` until the batch is full or the WAL ends.
    ///
    /// # Errors
    /// The WAL can't be read.
    fn gather(
        &mut self,
        log: &Log,
        reader: ReaderId,
        gathered: &mut Gathered,
    ) -> Result<(), WalError>;

    /// Encodes the next request of what was gathered. None if there is no more, and the batch is forgotten
    /// then. `now_ms` is the earlier of the server's clock and this one's, in milliseconds since the Unix
    /// epoch, where both are known: what is too old by that is so whichever is wrong.
    fn next_request(&mut self, now_ms: Option<i64>) -> Option<Request<'_>>;

    /// Takes the last request back, which the server refused with these words, to be sent in another way.
    /// False if there is none, and it stays sent.
    fn split(&mut self, why: &str) -> bool;

    /// Nothing waits to be sent: memory that only a backlog takes is given back.
    fn rest(&mut self) {}

    /// How many items of the last request the server has not taken, by what it said when it refused it;
    /// `items` are all of them.
    fn refused(&self, _said: &str, items: u64) -> u64 {
        items
    }
}

/// What an endpoint has been through, for the status page and the metrics.
#[derive(Debug, Default)]
pub(super) struct EndpointState {
    /// The label `endpoint`: the URL, with the tenant behind it.
    pub(super) name: String,
    /// The URL, which holds no secret.
    pub(super) url: String,
    /// `metrics` or `logs`.
    pub(super) signal: &'static str,
    /// Samples or entries that the server has acknowledged.
    pub(super) sent: u64,
    /// Requests by the code of their answer; `error` where there was none.
    pub(super) requests: BTreeMap<String, u64>,
    /// When the oldest thing that waits was collected; None if nothing waits.
    pub(super) oldest_ms: Option<i64>,
    /// The last answer that was not good; None since the last good one.
    pub(super) trouble: Option<String>,
}

/// Everything that a sender works with.
pub(super) struct Sender<S> {
    pub(super) log: Rc<Log>,
    pub(super) reader: ReaderId,
    pub(super) signal: S,
    pub(super) client: Client,
    pub(super) backoff: Backoff,
    pub(super) slowest: Duration,
    /// How fast it is sent to, where that is bounded.
    pub(super) pace: Pace,
    pub(super) wait: Duration,
    /// How long from one record to the next at most, where that is known.
    pub(super) interval: Option<Duration>,
    pub(super) state: Rc<RefCell<EndpointState>>,
    pub(super) dropped: Rc<Dropped>,
    pub(super) clock: Rc<dyn Clock>,
    pub(super) phase: watch::Receiver<Phase>,
}

/// Why a sender has stopped sending its batch.
enum Sent {
    All,
    /// The agent shuts down, and the server does not take it now.
    GivenUp,
}

impl<S: Signal> Sender<S> {
    /// Sends until the agent drains and the WAL is empty, or the server can't be reached while it does.
    pub(super) async fn run(mut self) {
        let cursor = self.log.cursor(self.reader);
        let mut gathered = Gathered { until: cursor, ..Gathered::default() };
        let mut complaints = Complaints::default();
        let mut waiting = None;
        // The last process may have sent what this one sends first.
        let mut repeat = true;
        loop {
            let log = Rc::clone(&self.log);
            // Made before the WAL is read, so that no record slips in between.
            let appended = log.appended();
            if !gathered.full
                && let Err(error) = self.signal.gather(&log, self.reader, &mut gathered)
            {
                complaints.log(&error.to_string(), || log::error!("{error}"));
            }
            log.hold(self.reader, if gathered.items > 0 { gathered.until } else { 0 });
            self.state.borrow_mut().oldest_ms = (gathered.items > 0).then_some(gathered.oldest_ms);
            if gathered.items == 0 && gathered.until > log.cursor(self.reader) {
                // Records without items: positions of sources, which no server has to see.
                log.acknowledge(self.reader, gathered.until).await;
            }
            let patience = self.patience(&gathered, &mut waiting);
            if gathered.items == 0 && !gathered.full {
                self.signal.rest();
            }
            if !gathered.full && !self.draining() && patience.is_none_or(|left| !left.is_zero()) {
                tokio::select! {
                    () = appended => {}
                    () = sleep_some(patience) => {}
                    _ = self.phase.changed() => {}
                }
                continue;
            }
            if gathered.items == 0 && !gathered.full {
                // Draining, and nothing is left.
                return;
            }
            if let Sent::GivenUp = self.send(&mut complaints, gathered.oldest_ms, repeat).await {
                return;
            }
            log.acknowledge(self.reader, gathered.until).await;
            gathered = Gathered { until: gathered.until, ..Gathered::default() };
            waiting = None;
            repeat = false;
        }
    }

    fn draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// How long the batch may still wait for company; None if it is empty. `since` is when the waiting
    /// began.
    fn patience(&self, gathered: &Gathered, since: &mut Option<Instant>) -> Option<Duration> {
        if gathered.items == 0 {
            *since = None;
            return None;
        }
        let age = self.clock.now_ms().saturating_sub(gathered.oldest_ms);
        let waited = since.get_or_insert_with(Instant::now).elapsed();
        Some(left(self.wait, self.interval, age, waited))
    }

    async fn send(
        &mut self,
        complaints: &mut Complaints,
        oldest_ms: i64,
        mut repeat: bool,
    ) -> Sent {
        loop {
            let now_ms = self.client.server_ms().map(|server| server.min(self.clock.now_ms()));
            let Some(Request { body, items, bytes }) = self.signal.next_request(now_ms) else {
                return Sent::All;
            };
            let state = &self.state;
            loop {
                // At the end, too: how long that may take is bounded by whoever ends it.
                tokio::time::sleep_until(self.pace.next_at(Instant::now())).await;
                let began = Instant::now();
                self.pace.sent(bytes, began);
                let outcome = self.client.post(S::CONTENT, body).await;
                let now = Instant::now();
                self.pace.answered(outcome.code(), now - began, false, now);
                let code = outcome.code().map_or_else(|| "error".to_owned(), |c| c.to_string());
                *state.borrow_mut().requests.entry(code.clone()).or_default() += 1;
                let pause = match outcome {
                    Outcome::Accepted { .. } => {
                        let mut state = state.borrow_mut();
                        state.sent += items;
                        if state.trouble.take().is_some() {
                            log::info!("{}: delivery works again", state.name);
                        }
                        self.backoff.reset();
                        break;
                    }
                    Outcome::Refused { why, said, .. } => {
                        self.backoff.reset();
                        if self.signal.split(&why) {
                            break;
                        }
                        let mut state = state.borrow_mut();
                        let lost = self.signal.refused(&said, items).min(items);
                        state.sent += items - lost;
                        complaints.log(&why, || {
                            log::error!(
                                "{}: {lost} of {items} {} refused and dropped: {why}",
                                state.name,
                                if state.signal == "metrics" { "samples" } else { "entries" }
                            );
                        });
                        let suffix = if repeat { "_repeat" } else { "" };
                        let reason = format!("http_{code}{suffix}");
                        let now_ms = self.clock.now_ms();
                        self.dropped.add_of(state.signal, &reason, lost, oldest_ms, now_ms);
                        state.trouble = Some(why);
                        break;
                    }
                    Outcome::Retry { code, after, why } => {
                        // Without an answer, the server may have it or not.
                        repeat |= code.is_none();
                        let pause = self.backoff.next(after);
                        note(state, complaints, why, pause);
                        pause
                    }
                    Outcome::Misconfigured { why, .. } => {
                        note(state, complaints, why, self.slowest);
                        self.slowest
                    }
                };
                if *self.phase.borrow() == Phase::Draining {
                    return Sent::GivenUp;
                }
                let until = Instant::now() + pause;
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    // A last try, and then the rest stays on disk.
                    _ = self.phase.changed() => {}
                }
            }
        }
    }
}

/// How much of `wait` is left for data that is `age_ms` old by the wall clock, which may have been set
/// back since, and was `waited` for.
fn left(wait: Duration, interval: Option<Duration>, age_ms: i64, waited: Duration) -> Duration {
    let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)).max(waited);
    let left = wait.saturating_sub(age);
    match interval {
        // The next round would come too late: waiting for it would bring nothing.
        Some(interval) if interval >= left => Duration::ZERO,
        _ => left,
    }
}

fn note(state: &RefCell<EndpointState>, complaints: &mut Complaints, why: String, pause: Duration) {
    let mut state = state.borrow_mut();
    complaints.log(&why, || {
        log::warn!("{}: {why}; tried again in {:.1} s", state.name, pause.as_secs_f64());
    });
    state.trouble = Some(why);
}

async fn sleep_some(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Logs the same complaint once in a while only.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<(String, Instant)>,
}

impl Complaints {
    fn log(&mut self, text: &str, write: impl FnOnce()) {
        let now = Instant::now();
        let repeated = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == text && now.duration_since(*at) < REPEAT_LOG);
        if !repeated {
            self.last = Some((text.to_owned(), now));
            write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn batch_goes_when_it_has_waited_whatever_the_clock_says() {
        let of = |age_ms, waited| left(MINUTE * 5, None, age_ms, waited);
        assert_eq!(of(0, Duration::ZERO), MINUTE * 5);
        assert_eq!(of(240_000, Duration::ZERO), MINUTE);
        assert_eq!(of(i64::MAX, Duration::ZERO), Duration::ZERO);
        // Set back by a day: only the waiting counts.
        assert_eq!(of(-86_400_000, MINUTE), MINUTE * 4);
        assert_eq!(of(-86_400_000, MINUTE * 5), Duration::ZERO);
        assert_eq!(left(MINUTE, Some(MINUTE), 0, Duration::ZERO), Duration::ZERO);
        assert_eq!(left(MINUTE * 2, Some(MINUTE), 0, Duration::ZERO), MINUTE * 2);
    }
}
