//! From a WAL to an endpoint: one request in flight, the cursor moved by answers alone.
//!
//! | answer | what happens |
//! |---|---|
//! | accepted | the cursor moves past what was sent |
//! | retry (5xx, 408, 429, no connection, timeout) | the same items again, after a growing random pause or Retry-After, for ever; in smaller requests if there was a connection and no answer over it, and with every third 500, 502 or 504 in a row, which some servers and proxies say to what is too large |
//! | misconfigured (401, 403, 404, 405, 407, 411, 421, 426, 431, 3xx, and 415 where no other protocol is left) | the same bytes again, at the longest pause: nothing is dropped for a wrong password |
//! | too far in the future (400), and this machine's clock is ahead of the server's | the same items again, at the longest pause: nothing is dropped for a wrong clock |
//! | too large (413, or words that say so) | in smaller requests, down to one item |
//! | refused (any other 4xx) | in parts, by the signal's rules, until what is refused is alone; that is dropped, counted by code, and logged with the server's words once a minute at most |
//!
//! Prometheus refuses a batch that it has stored already and whose answer got lost, except for the newest
//! round of it, and keeps nothing of a batch that it refuses. A batch that was formed anew after a crash
//! may hold such rounds beside new ones, so a refused batch is always sent again round by round. A refusal
//! of what may have been stored before is counted as `http_400_repeat`.

use std::rc::Rc;
use std::time::Duration;

use std::cell::RefCell;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Phase;
use super::ahead;
use super::clock::Time;
use super::complaints::Complaints;
use super::egress::{Egress, Share};
use super::endpoint_state::EndpointState;
use super::log::Log;
use super::losses::Dropped;
use super::memory::Memory;
use super::pace::Pace;
use super::refusal;
use super::size::Size;
use crate::endpoint::{Backoff, Client, Content, Outcome, Written};
use crate::host::{Clock, alarm};
use crate::memory::{Lease, Part, Pressure};
use crate::wal::{ReaderId, WalError};

/// After so many 500, 502 or 504 in a row the request gets smaller: gRPC servers answer 500 to what is too large,
/// proxies the others to what takes too long.
const SERVER_ERRORS: u32 = 3;

/// No request is larger while memory is short, in bytes before compression, and no batch, in memory.
const LEAST: u64 = 64 << 10;

/// How long entries have gathered in their sources before they are read.
pub(super) const GATHER: Duration = Duration::from_secs(1);

/// After so many 429 in a row, too, or 400 that say the same: what is more than a server's burst at once is never taken.
const TOO_MANY: u32 = 8;

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

/// What the next request has to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes before compression. One item goes whatever it has.
    pub(super) bytes: u64,
    /// The earlier of the server's clock and this one's, in milliseconds since the Unix epoch, where both
    /// are known and believed: what is too old by that is so whichever is wrong.
    pub(super) now_ms: Option<i64>,
    /// The server's clock alone.
    pub(super) server_ms: Option<i64>,
}

impl Bounds {
    /// None.
    #[cfg(test)]
    pub(super) const NONE: Bounds = Bounds { bytes: u64::MAX, now_ms: None, server_ms: None };
}

/// A 4xx that is about the request and nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal<'a> {
    /// The status code.
    pub(super) code: u16,
    /// One line with the code and the server's words.
    pub(super) why: &'a str,
    /// What it said in full.
    pub(super) said: &'a str,
    /// What it says that it has written.
    pub(super) written: Written,
    /// All items of the request.
    pub(super) items: u64,
}

/// What becomes of a request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is over. So many of its items the server has not taken; they are dropped.
    Done {
        /// Samples or entries.
        lost: u64,
    },
    /// Its items come with the next requests, in another way.
    Again,
}

/// What differs between metrics and logs.
pub(super) trait Signal {
    /// What the next request is, for its headers.
    fn content(&self) -> Content;

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
    /// then.
    fn next_request(&mut self, bounds: Bounds) -> Option<Request<'_>>;

    /// The server has answered the last request by a 2xx.
    fn accepted(&mut self, _written: Written, _items: u64) -> Verdict {
        Verdict::Done { lost: 0 }
    }

    /// The server has refused the last request.
    fn refused(&mut self, refusal: &Refusal<'_>) -> Verdict;

    /// The server does not know the protocol of the last request (415). True if it is sent another one from
    /// now on: the items come again.
    fn unsupported(&mut self, _why: &str) -> bool {
        false
    }

    /// Takes the last request back: its items come again with the next requests, by other bounds.
    fn again(&mut self);

    /// What is spoken to the server, where there is a choice; for the status page.
    fn protocol(&self) -> &'static str {
        ""
    }

    /// Nothing waits to be sent: memory that only a backlog takes is given back.
    fn rest(&mut self) {}

    /// Whose memory it is.
    const PART: Part;

    /// The most bytes of memory that a batch and its request take, but for one large record.
    fn wants(&self) -> u64;

    /// How many bytes of memory the next batch may take; one record goes whatever it takes.
    fn room(&mut self, bytes: u64);

    /// Bytes of memory that the batch takes, its requests to come included.
    fn holds(&self) -> u64;
}

/// Everything that a sender works with.
pub(super) struct Sender<S> {
    pub(super) log: Rc<Log>,
    pub(super) reader: ReaderId,
    pub(super) signal: S,
    pub(super) client: Client,
    pub(super) backoff: Backoff,
    pub(super) slowest: Duration,
    /// How fast it is sent to.
    pub(super) pace: Pace,
    /// How large its requests are.
    pub(super) size: Size,
    /// What all endpoints together are sent.
    pub(super) egress: Rc<Egress>,
    pub(super) wait: Duration,
    /// How long from one record to the next at most, where that is known.
    pub(super) interval: Option<Duration>,
    /// The host's own part of each interval, in parts of 2^32.
    pub(super) part: u32,
    pub(super) state: Rc<RefCell<EndpointState>>,
    pub(super) dropped: Rc<Dropped>,
    pub(super) clock: Rc<dyn Clock>,
    pub(super) time: Rc<Time>,
    pub(super) memory: Rc<Memory>,
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
        let mut lease = None;
        loop {
            if lease.is_none() {
                lease = self.memory.budget.take_some(S::PART, self.signal.wants(), LEAST);
                self.signal.room(lease.as_ref().map_or(LEAST, Lease::bytes));
            }
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
                lease = None;
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
                // Draining, and nothing is left, unless a boot's time that was just found out opens more, or those
                // who fill the WAL have not ended.
                if self.time.is_finding() {
                    self.time.save().await;
                } else if *self.phase.borrow() == Phase::Drained {
                    return;
                } else {
                    tokio::select! {
                        () = appended => {}
                        _ = self.phase.changed() => {}
                    }
                }
                continue;
            }
            if let Some(lease) = &mut lease {
                lease.keep(self.signal.holds());
            }
            if let Sent::GivenUp = self.send(&mut complaints, &gathered, repeat).await {
                return;
            }
            log.acknowledge(self.reader, gathered.until).await;
            gathered = Gathered { until: gathered.until, ..Gathered::default() };
            waiting = None;
            repeat = false;
            lease = None;
            if self.memory.pressure() >= Pressure::Caches {
                self.signal.rest();
            }
        }
    }

    fn draining(&self) -> bool {
        *self.phase.borrow() != Phase::Running
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
        let wait = match self.interval {
            Some(_) => self.wait,
            None => of_host(self.wait, self.part),
        };
        Some(left(wait, self.interval, age, waited))
    }

    async fn send(
        &mut self,
        complaints: &mut Complaints,
        gathered: &Gathered,
        mut repeat: bool,
    ) -> Sent {
        loop {
            let server_ms = self.client.server_ms();
            let own_ms = (!self.time.is_held()).then(|| self.clock.now_ms());
            let now_ms = server_ms.map(|server| own_ms.map_or(server, |own| server.min(own)));
            let most = match self.memory.pressure() >= Pressure::Batches {
                true => LEAST,
                false => u64::MAX,
            };
            let bounds = Bounds { bytes: self.size.bytes().min(most), now_ms, server_ms };
            let content = self.signal.content();
            self.state.borrow_mut().protocol = self.signal.protocol();
            let Some(Request { body, items, bytes }) = self.signal.next_request(bounds) else {
                return Sent::All;
            };
            let state = &self.state;
            let (mut server_errors, mut too_many) = (0, 0);
            loop {
                let is_backlog = || gathered.full && self.log.end() > gathered.until;
                let share = Share::of(state.borrow().signal, is_backlog());
                while let Some((reason, wait)) = self.egress.wait(share, self.clock.now_ms()) {
                    if state.borrow_mut().waits.replace(reason.text()).is_none() {
                        log::info!("{}: {}", state.borrow().name, reason.text());
                    }
                    if pause_until_due(&mut self.phase, wait).await {
                        return Sent::GivenUp;
                    }
                }
                state.borrow_mut().waits = None;
                // At the end, too: how long that may take is bounded by whoever ends it.
                alarm::sleep_until(self.pace.next_at(Instant::now())).await;
                let began = Instant::now();
                self.pace.sent(bytes, began);
                let outcome = self.client.post(content, body).await;
                let (now, code) = (Instant::now(), outcome.code());
                repeat |= self.client.was_resent();
                spend(&mut self.client, &self.egress, state, share, self.clock.now_ms());
                let backlog = is_backlog();
                self.pace.answered(code, now - began, backlog, now);
                if backlog {
                    let age_ms = self.clock.now_ms().saturating_sub(gathered.oldest_ms);
                    let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
                    self.pace.lag(age, now);
                }
                if let Some(server_ms) = self.client.server_ms().filter(|_| code.is_some()) {
                    let EndpointState { name, clock_differs, .. } = &mut *state.borrow_mut();
                    self.time.server_says(name, clock_differs, server_ms);
                }
                state.borrow_mut().answers.count(code);
                let pause = match outcome {
                    Outcome::Accepted { written, .. } => {
                        self.size.answered(bytes, now - began);
                        self.backoff.reset();
                        let Verdict::Done { lost } = self.signal.accepted(written, items) else {
                            break;
                        };
                        let lost = lost.min(items);
                        let mut state = state.borrow_mut();
                        state.sent += items - lost;
                        if state.trouble.take().is_some() {
                            complaints.over(|| log::info!("{}: delivery works again", state.name));
                        }
                        if lost > 0 {
                            let code = code.unwrap_or_default();
                            let why = format!(
                                "{lost} of {items} {} were not written, says the server, which answered {code}",
                                state.items()
                            );
                            complaints.loss(&why, || log::error!("{}: {why}", state.name));
                            let now_ms = self.clock.now_ms();
                            let (signal, from) = (state.signal, gathered.oldest_ms);
                            self.dropped.add_of(signal, "not_written", lost, from, now_ms);
                            state.trouble = Some(why);
                        }
                        break;
                    }
                    Outcome::Refused { code, said, .. }
                        if refusal::is_too_large(code, &said)
                            && items > 1
                            && self.size.too_large(bytes) =>
                    {
                        self.backoff.reset();
                        self.signal.again();
                        break;
                    }
                    Outcome::Refused { code, why, said, written } => {
                        self.backoff.reset();
                        let (server_ms, own_ms) = (self.client.server_ms(), self.clock.now_ms());
                        if let Some(clock) = ahead::complaint(&said, server_ms, own_ms) {
                            note(state, complaints, format!("{clock}: {why}"), self.slowest);
                            self.signal.again();
                            if pause_until_due(&mut self.phase, self.slowest).await {
                                return Sent::GivenUp;
                            }
                            break;
                        }
                        let refusal = Refusal { code, why: &why, said: &said, written, items };
                        let Verdict::Done { lost } = self.signal.refused(&refusal) else { break };
                        let lost = lost.min(items);
                        let mut state = state.borrow_mut();
                        state.sent += items - lost;
                        complaints.loss(&why, || {
                            let (name, items_are) = (&state.name, state.items());
                            log::error!(
                                "{name}: {lost} of {items} {items_are} refused and dropped: {why}"
                            );
                        });
                        let suffix = if repeat { "_repeat" } else { "" };
                        let reason = format!("http_{code}{suffix}");
                        let now_ms = self.clock.now_ms();
                        let (signal, from) = (state.signal, gathered.oldest_ms);
                        self.dropped.add_of(signal, &reason, lost, from, now_ms);
                        state.trouble = Some(why);
                        break;
                    }
                    Outcome::Retry { code, after, why, slow } => {
                        // Without an answer, or with one of somebody before it, the server may have it or not.
                        repeat |= code != Some(429);
                        server_errors += u32::from(matches!(code, Some(500 | 502 | 504)));
                        let pause = self.backoff.next(after);
                        note(state, complaints, why, pause);
                        // Loki says 400, too, to what is more than a stream's rate.
                        too_many += u32::from(matches!(code, Some(400 | 429)));
                        let is_large =
                            slow || server_errors >= SERVER_ERRORS || too_many >= TOO_MANY;
                        let smaller = match code {
                            Some(400 | 429 | 500) if is_large && items > 1 => {
                                self.size.failed(bytes)
                            }
                            _ => is_large && items > 1 && self.size.unanswered(bytes),
                        };
                        if smaller {
                            self.signal.again();
                            if pause_until_due(&mut self.phase, pause).await {
                                return Sent::GivenUp;
                            }
                            break;
                        }
                        pause
                    }
                    Outcome::Misconfigured { code: Some(415), why } => {
                        if !self.signal.unsupported(&why) {
                            note(state, complaints, why, self.slowest);
                            self.signal.again();
                            if pause_until_due(&mut self.phase, self.slowest).await {
                                return Sent::GivenUp;
                            }
                        }
                        break;
                    }
                    Outcome::Misconfigured { why, .. } => {
                        note(state, complaints, why, self.slowest);
                        self.slowest
                    }
                };
                if pause_until_due(&mut self.phase, pause).await {
                    return Sent::GivenUp;
                }
            }
        }
    }
}

/// What a request that is given up has sent was sent all the same. It says nothing of what live data needs.
impl<S> Drop for Sender<S> {
    fn drop(&mut self) {
        let now_ms = self.clock.now_ms();
        spend(&mut self.client, &self.egress, &self.state, Share::Backlog, now_ms);
    }
}

/// Counts the bytes that were sent since the last time.
fn spend(
    client: &mut Client,
    egress: &Egress,
    state: &RefCell<EndpointState>,
    share: Share,
    now_ms: i64,
) {
    let bytes = client.take_sent_bytes();
    egress.spent(share, bytes, now_ms);
    state.borrow_mut().bytes += bytes;
}

/// Waits until it is time for another try. True if the agent drains and there is to be none.
async fn pause_until_due(phase: &mut watch::Receiver<Phase>, pause: Duration) -> bool {
    if *phase.borrow() != Phase::Running {
        return true;
    }
    tokio::select! {
        () = alarm::sleep(pause) => {}
        // A last try, and then the rest stays on disk.
        _ = phase.changed() => {}
    }
    false
}

/// How old entries get at most before they are sent, of those that wait for `wait` and have gathered before.
pub(super) fn at_most(wait: Duration) -> Duration {
    wait.saturating_sub(GATHER)
}

/// How old entries get on this host before they are sent: half of `wait` to all that it allows. What happens on all
/// hosts of a fleet at once, such as a cron job, does not reach the server at once.
pub(super) fn of_host(wait: Duration, part: u32) -> Duration {
    let least = at_most(wait).min(wait / 2);
    // Below 2^32 times below 2^64 nanoseconds, and not more than what is above the half.
    let more = ((at_most(wait) - least).as_nanos() * u128::from(part)) >> 32;
    least + Duration::from_nanos(u64::try_from(more).unwrap_or(u64::MAX))
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
        Some(duration) => alarm::sleep(duration).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn entries_of_a_fleet_go_at_moments_of_their_own() {
        let wait = Duration::from_secs(5);
        let mut thirds = [0; 3];
        for host in 0..999_u32 {
            // A cron job that begins on all hosts at once.
            let past_half = of_host(wait, host.wrapping_mul(0x9e37_79b9)).checked_sub(wait / 2);
            thirds[(past_half.unwrap().as_millis() / 500) as usize] += 1;
        }
        assert!(thirds.iter().all(|hosts| (323..=343).contains(hosts)), "{thirds:?}");
        for short in [0, 1_000] {
            assert_eq!(of_host(Duration::from_millis(short), u32::MAX), Duration::ZERO);
        }
        assert_eq!(of_host(Duration::from_millis(1_500), 0), Duration::from_millis(500));
        assert!(of_host(Duration::MAX, u32::MAX) <= Duration::MAX);
    }

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
