//! Which containers a daemon has: a list, and events from then on. The events are asked for first, so that
//! nothing comes between the two; the list is asked for again now and then and after each interruption,
//! because events may be lost (Docker drops them for whoever reads slowly) and a proxy may refuse them.
//!
//! One future a daemon, which lives as long as the source. It must not know what becomes of what it reports.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::api::{self, Answer, ApiError, Daemon};
use super::options::{Limits, Options};
use super::said::{self, Container, Event};
use crate::host::alarm::sleep_about;

/// How many times as long as any part of it a whole list may take.
const LONGEST_LIST: u32 = 12;

/// What has become known.
#[derive(Debug)]
pub(super) enum Report {
    /// A container that is new, was started, or is called otherwise; and whether root says so.
    Found(Box<Container>, bool),
    /// Whether a known one may write.
    Running(String, bool),
    /// A known one that does not run now may have done since the last list.
    Ran(String),
    /// It is no more.
    Removed(String),
    /// All that the daemon has have been told.
    Listed,
}

/// Where reports go, with the number of the daemon.
pub(super) type Reports = Rc<RefCell<VecDeque<(usize, Report)>>>;

/// Finds out.
pub(super) struct Discovery {
    pub(super) daemon: Daemon,
    pub(super) number: usize,
    pub(super) options: Rc<Options>,
    pub(super) limits: Limits,
    pub(super) reports: Reports,
    known: HashMap<String, Known>,
    trouble: Trouble,
    events_trouble: Trouble,
    inspect_trouble: Trouble,
    too_many: bool,
    /// When the last list began that came to its end.
    listed: Option<Instant>,
    /// Of a container that an event told of nothing else is known.
    list_again: bool,
}

#[derive(Debug)]
struct Known {
    /// As the list has it: who is called otherwise is asked again.
    name: String,
    /// As the list had it.
    ended_s: Option<u64>,
    seen: bool,
}

impl Known {
    /// Whether a run may have ended since the last list; one did so long ago. The daemon tells whole seconds, and
    /// by a clock that may be set and goes on in a suspended machine.
    fn ran(&self, ended_s: u64, since: Duration) -> bool {
        ended_s <= since.as_secs().saturating_add(1)
            || self.ended_s.is_none_or(|before| ended_s < before)
    }
}

impl Discovery {
    pub(super) fn new(
        daemon: Daemon,
        number: usize,
        options: Rc<Options>,
        limits: Limits,
        reports: Reports,
    ) -> Discovery {
        Discovery {
            daemon,
            number,
            options,
            limits,
            reports,
            known: HashMap::new(),
            trouble: Trouble::default(),
            events_trouble: Trouble::default(),
            inspect_trouble: Trouble::default(),
            too_many: false,
            listed: None,
            list_again: false,
        }
    }

    /// Goes on for ever.
    pub(super) async fn run(mut self) {
        let (shortest, longest) = self.limits.pause;
        let mut pause = shortest;
        loop {
            let began = Instant::now();
            let ended = self.session().await;
            let at = self.daemon.endpoint.to_string();
            match ended {
                // A proxy ends what is silent for some minutes, a daemon that is restarted everything.
                Ok(()) => log::debug!("containers of {at}: the events have ended"),
                Err(ApiError::Absent) => log::debug!("containers of {at}: nobody is there"),
                Err(error) => self.trouble.begin(&error.to_string(), |error| {
                    log::warn!(
                        "containers of {at} can't be listed: {error}; tried again at least every {longest:?}{}",
                        hint(error)
                    );
                }),
            }
            if began.elapsed() > longest {
                pause = shortest;
            }
            sleep_about(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// From a connection to its end.
    async fn session(&mut self) -> Result<(), ApiError> {
        let mut events = match self.daemon.answer(api::EVENTS).await {
            Ok(events) => {
                self.events_trouble.end();
                Some(events)
            }
            // Then there is no list either.
            Err(error @ (ApiError::Absent | ApiError::Unreachable(_))) => return Err(error),
            Err(error) => {
                let (at, poll) = (&self.daemon.endpoint, self.limits.poll);
                self.events_trouble.begin(&error.to_string(), |error| {
                    log::warn!(
                        "containers of {at}: no events ({error}): new ones are looked for every {poll:?}; let the proxy allow GET /events"
                    );
                });
                None
            }
        };
        loop {
            self.list().await?;
            if self.trouble.end() {
                log::info!("containers of {} are listed again", self.daemon.endpoint);
            }
            let Some(events) = &mut events else {
                sleep_about(self.limits.poll).await;
                // Also to ask for events again, as often as for a list after an interruption.
                if self.events_trouble.since.elapsed() > self.limits.relist {
                    self.events_trouble.since = Instant::now();
                    return Ok(());
                }
                continue;
            };
            let mut relist = pin!(sleep_about(self.limits.relist));
            loop {
                let event = tokio::select! {
                    biased;
                    event = events.next(said::event) => event,
                    () = &mut relist => break,
                };
                match event? {
                    None => return Ok(()),
                    Some(None) => {}
                    Some(Some(event)) => self.event(event).await?,
                }
                if std::mem::take(&mut self.list_again) {
                    break;
                }
            }
        }
    }

    async fn event(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Changed(id) => self.inspect(&id, None).await,
            Event::Stopped(id) => {
                self.report(Report::Running(id, false));
                Ok(())
            }
            Event::Removed(id) => {
                self.known.remove(&id);
                self.report(Report::Removed(id));
                Ok(())
            }
        }
    }

    async fn list(&mut self) -> Result<(), ApiError> {
        let began = Instant::now();
        let mut answer = self.daemon.answer(api::LIST).await?;
        self.known.values_mut().for_each(|known| known.seen = false);
        let roots = answer.is_roots();
        let most = self.limits.max_known;
        let (mut renamed, mut new, mut more) = (Vec::new(), Vec::new(), 0);
        let end = Instant::now() + self.limits.timeout * LONGEST_LIST;
        while let Some(container) = self.item(&mut answer, end).await? {
            let Some(container) = container else { continue };
            match self.known.get_mut(&container.id) {
                Some(known) if known.name == container.name => {
                    known.seen = true;
                    let since = self.listed.map_or(Duration::MAX, |listed| listed.elapsed());
                    let ran = container.ended_s.is_some_and(|ended| known.ran(ended, since));
                    known.ended_s = container.ended_s;
                    let (id, running) = (container.id, container.running);
                    if ran && !running {
                        self.report(Report::Ran(id.clone()));
                    }
                    self.report(Report::Running(id, running));
                }
                Some(known) => {
                    if !std::mem::replace(&mut known.seen, true) {
                        renamed.push(container);
                    }
                }
                None if new.len() < most => new.push(container),
                None => more += 1,
            }
        }
        self.listed = Some(began);
        // Those that are no more make room first. A description that was passed over may be a known one's.
        if answer.too_long() == 0 {
            let gone: Vec<String> =
                self.known.extract_if(|_, known| !known.seen).map(|(id, _)| id).collect();
            gone.into_iter().for_each(|id| self.report(Report::Removed(id)));
        }
        let room = most.saturating_sub(self.known.len());
        more += new.len().saturating_sub(room);
        new.truncate(room);
        let complete = more == 0 && answer.too_long() == 0;
        if !complete && !self.too_many {
            log::warn!(
                "containers of {}: {more} are left out since there are more than {most}, and {} that are described in more than 256 KiB",
                self.daemon.endpoint,
                answer.too_long()
            );
        }
        self.too_many = !complete;
        drop(answer);
        for container in renamed.into_iter().chain(new) {
            let id = container.id.clone();
            self.inspect(&id, Some((container, roots))).await?;
        }
        if complete {
            self.report(Report::Listed);
        }
        Ok(())
    }

    async fn item(
        &self,
        answer: &mut Answer,
        end: Instant,
    ) -> Result<Option<Option<Container>>, ApiError> {
        let end = end.min(Instant::now() + self.limits.timeout);
        let item = timeout_at(end, answer.next(|json| self.needed(said::listed(json)))).await;
        item.unwrap_or_else(|_| Err(ApiError::Io(std::io::ErrorKind::TimedOut.into())))
    }

    /// Without the labels that nobody asks for: there may be thousands, of thousands of containers.
    fn needed(&self, container: Option<Container>) -> Option<Container> {
        let mut container = container?;
        container.labels.retain(|key, _| self.options.needs_label(key));
        Some(container)
    }

    /// Asks for one container. What the list says of it has to do where that is refused.
    async fn inspect(
        &mut self,
        id: &str,
        listed: Option<(Container, bool)>,
    ) -> Result<(), ApiError> {
        if self.known.len() >= self.limits.max_known && !self.known.contains_key(id) {
            // The next list says so.
            return Ok(());
        }
        let ended_s = listed.as_ref().and_then(|(container, _)| container.ended_s);
        let asked = async {
            let mut answer = self.daemon.answer(&api::inspect(id)).await?;
            let read = |json: &[u8]| self.needed(said::inspected(json));
            let container = timeout(self.limits.timeout, answer.next(read)).await;
            let container = container
                .unwrap_or_else(|_| Err(ApiError::Io(std::io::ErrorKind::TimedOut.into())))?;
            // A prefix or a name would do for the API.
            let container = container.flatten().filter(|container| container.id == id);
            Ok::<_, ApiError>(container.map(|container| (container, answer.is_roots())))
        };
        let found = match asked.await {
            Ok(found) => {
                self.inspect_trouble.end();
                found.or(listed)
            }
            Err(ApiError::Status(404, _)) => return Ok(()),
            Err(error @ (ApiError::Absent | ApiError::Unreachable(_))) => return Err(error),
            Err(error) => {
                let at = &self.daemon.endpoint;
                self.inspect_trouble.begin(&error.to_string(), |error| {
                    log::warn!(
                        "containers of {at}: asking for one of them: {error}; what the list says has to do"
                    );
                });
                if listed.is_none() {
                    self.known.remove(id);
                    self.list_again = true;
                }
                listed
            }
        };
        if let Some((container, roots)) = found {
            let known = Known { name: container.name.clone(), ended_s, seen: true };
            self.known.insert(container.id.clone(), known);
            self.report(Report::Found(Box::new(container), roots));
        }
        Ok(())
    }

    fn report(&self, report: Report) {
        self.reports.borrow_mut().push_back((self.number, report));
    }
}

/// What the user can do.
fn hint(error: &str) -> &'static str {
    if error.contains("ermission denied") {
        ". Let the agent be a member of the socket's group"
    } else if error.starts_with("status 403") {
        ". Let the proxy allow GET /containers/"
    } else {
        ""
    }
}

/// Something that is told when it begins, and when another thing begins in its place.
#[derive(Debug)]
pub(super) struct Trouble {
    text: Option<String>,
    since: Instant,
}

impl Default for Trouble {
    fn default() -> Trouble {
        Trouble { text: None, since: Instant::now() }
    }
}

impl Trouble {
    /// It is there.
    pub(super) fn begin(&mut self, text: &str, tell: impl FnOnce(&str)) {
        if self.text.as_deref() != Some(text) {
            tell(text);
            self.text = Some(text.to_owned());
            self.since = Instant::now();
        }
    }

    /// It is over; whether it was there.
    pub(super) fn end(&mut self) -> bool {
        self.text.take().is_some()
    }
}
