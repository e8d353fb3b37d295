//! The source: daemons are asked which containers they have, connections are made and read in turns.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::api::{self, Daemon};
use super::discover::{Discovery, Report, Reports};
use super::follow::{Counters, End, Follow, Link, Turn, Work};
use super::labels::labels;
use super::options::{Limits, Options};
use super::position::Mark;
use super::said::Container;
use super::{KEY_PREFIX, NAME};
use crate::host::{Clock, Roots};
use crate::logs::text::Converter;
use crate::logs::{Progress, Source, Waiting};
use crate::model::Block;

/// What is read of a connection in one turn.
const TURN: usize = 16 << 10;

/// What one call of `read` reads at most, skipped messages included.
const BUDGET: usize = 512 << 10;

/// Connections that are made at the same time.
const MAX_CONNECTING: usize = 8;

/// A daemon.
struct Host {
    daemon: Daemon,
    /// Never over.
    discovery: Pin<Box<dyn Future<Output = ()>>>,
    /// In positions.
    hash: u32,
    listed: bool,
}

/// A position of an earlier run whose container has not been told yet.
struct Stored {
    mark: Mark,
    /// It exists, though it is not followed.
    exists: bool,
}

/// Follows containers. See the [module](super).
pub struct DockerSource {
    options: Options,
    limits: Limits,
    clock: Rc<dyn Clock>,
    hosts: Vec<Host>,
    reports: Reports,
    follows: Vec<Follow>,
    /// Whose turn it is.
    next: usize,
    stored: BTreeMap<String, Stored>,
    /// Keys of positions that are to be forgotten.
    forget: Vec<String>,
    timer: Option<Pin<Box<Sleep>>>,
    counters: Counters,
    converter: Converter,
    told_journald: bool,
    told_full: bool,
}

/// Why waiting is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    Reports,
    Data,
}

impl DockerSource {
    /// A source for these options. Of `positions`, those whose keys start with [`KEY_PREFIX`] count; a
    /// malformed one is warned of and ignored.
    pub fn new(
        options: Options,
        positions: &BTreeMap<String, Vec<u8>>,
        clock: Rc<dyn Clock>,
        roots: &Roots,
    ) -> DockerSource {
        DockerSource::with_limits(options, positions, clock, roots, Limits::default())
    }

    /// As [`new`](DockerSource::new), with other limits than the default ones.
    pub fn with_limits(
        options: Options,
        positions: &BTreeMap<String, Vec<u8>>,
        clock: Rc<dyn Clock>,
        roots: &Roots,
        limits: Limits,
    ) -> DockerSource {
        let reports = Reports::default();
        let host = |(number, endpoint): (usize, &crate::host::Endpoint)| {
            let (endpoint, root) = (endpoint.clone(), roots.root.clone());
            let hash = crc32c::crc32c(endpoint.to_string().as_bytes());
            let daemon = Daemon { endpoint, root, timeout: limits.timeout };
            let discovery =
                Discovery::new(daemon.clone(), number, limits, Rc::clone(&reports)).run();
            Host { daemon, discovery: Box::pin(discovery), hash, listed: false }
        };
        DockerSource {
            hosts: options.hosts.iter().enumerate().map(host).collect(),
            options,
            limits,
            clock,
            reports,
            follows: Vec::new(),
            next: 0,
            stored: stored(positions),
            forget: Vec::new(),
            timer: None,
            counters: Counters::default(),
            converter: Converter::default(),
            told_journald: false,
            told_full: false,
        }
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many containers are known and not finished.
    pub fn followed(&self) -> usize {
        self.follows.iter().filter(|follow| !follow.complete).count()
    }

    /// Does what is to be done until there may be something to read; with `data` unset, for ever.
    async fn wait(&mut self, data: bool) {
        loop {
            self.apply();
            if poll_fn(|context| self.poll(context, data)).await == Wake::Data {
                return;
            }
        }
    }

    /// Lets everything go on that needs no block.
    fn poll(&mut self, context: &mut Context<'_>, data: bool) -> Poll<Wake> {
        for host in &mut self.hosts {
            // It does not end.
            let _ = host.discovery.as_mut().poll(context);
        }
        if !self.reports.borrow().is_empty() {
            return Poll::Ready(Wake::Reports);
        }
        let now = Instant::now();
        while self.connect(now, context) {}
        if data {
            let ready = self.follows.iter().any(|follow| match &follow.link {
                Link::Open(stream) => stream.socket.poll_read(context).is_ready(),
                Link::Off | Link::Wait(_) | Link::Connecting(_) => false,
            });
            if ready || !self.forget.is_empty() {
                return Poll::Ready(Wake::Data);
            }
        }
        self.poll_timer(now, context)
    }

    /// Makes the connections that are due, as many as may be. Whether one was, or failed: then there may be
    /// room for another.
    fn connect(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        let count = |of: fn(&Link) -> bool| self.follows.iter().filter(|f| of(&f.link)).count();
        let mut connecting = count(|link| matches!(link, Link::Connecting(_)));
        let mut used = connecting + count(|link| matches!(link, Link::Open(_)));
        let since = self.options.max_age.map(|age| {
            let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            self.clock.now_ns().div_euclid(1_000_000_000).saturating_sub(age).max(1)
        });
        let pauses = self.limits.pause;
        let mut made = false;
        for follow in &mut self.follows {
            if let Link::Wait(at) = follow.link
                && at <= now
            {
                if used >= self.limits.max_containers {
                    if !std::mem::replace(&mut follow.waits, true) {
                        self.counters.waiting += 1;
                    }
                    if !std::mem::replace(&mut self.told_full, true) {
                        log::warn!(
                            "logs of container {} and maybe others are not read for now: {used} are followed, and no more may be",
                            follow.name
                        );
                    }
                    continue;
                }
                if connecting >= MAX_CONNECTING {
                    continue;
                }
                let Some(host) = self.hosts.get(follow.host) else { continue };
                let since = match follow.mark.taken {
                    0 => since,
                    _ => follow.mark.since(self.clock.now_ns()),
                };
                let path = api::logs(&follow.id, follow.running, since);
                let daemon = host.daemon.clone();
                let socket = Box::pin(async move { daemon.ask(&path).await });
                follow.link = Link::Connecting(socket);
                (connecting, used) = (connecting + 1, used + 1);
            }
            if let Link::Connecting(socket) = &mut follow.link
                && let Poll::Ready(socket) = socket.as_mut().poll(context)
            {
                connecting = connecting.saturating_sub(1);
                made = true;
                match socket {
                    Ok(socket) => follow.connected(socket, self.options.max_line),
                    Err(error) => {
                        follow.ended(&End::Cut(error.to_string()), pauses, &mut self.counters);
                    }
                }
            }
        }
        while let Some(index) =
            self.follows.iter().position(|f| f.gone && matches!(f.link, Link::Wait(_)))
        {
            self.forget(index);
        }
        made
    }

    /// Ends where a connection is due; `Wake::Reports` has all of it looked at again.
    fn poll_timer(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<Wake> {
        let due = self.follows.iter().filter_map(|follow| match follow.link {
            // What is due already waits for another connection to end, not for time.
            Link::Wait(at) if at > now => Some(at),
            Link::Off | Link::Wait(_) | Link::Connecting(_) | Link::Open(_) => None,
        });
        let Some(due) = due.min() else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(context).map(|()| Wake::Reports)
    }

    /// Takes what the daemons have told.
    fn apply(&mut self) {
        loop {
            let Some((host, report)) = self.reports.borrow_mut().pop_front() else { return };
            match report {
                Report::Found(container, roots) => self.found(host, *container, roots),
                Report::Running(id, running) => {
                    if let Some(follow) = self.follow(&id) {
                        follow.set_running(running);
                    }
                }
                Report::Removed(id) => self.removed(&id),
                Report::Listed => self.listed(host),
            }
        }
    }

    fn follow(&mut self, id: &str) -> Option<&mut Follow> {
        self.follows.iter_mut().find(|follow| follow.id == id)
    }

    fn found(&mut self, host: usize, container: Container, _roots: bool) {
        if let Some(stored) = self.stored.get_mut(&container.id) {
            stored.exists = true;
        }
        let known = self.follows.iter().position(|follow| follow.id == container.id);
        if !self.options.wants(&container) || self.is_elsewhere(&container) {
            if let Some(index) = known {
                // It was wanted under another name. Its position stays until it is removed.
                let Follow { id, mark, .. } = self.follows.swap_remove(index);
                self.stored.insert(id, Stored { mark, exists: true });
            }
            return;
        }
        let labels = labels(&self.options, &container);
        if let Some(follow) = known.and_then(|index| self.follows.get_mut(index)) {
            follow.describe(container, &labels);
            return;
        }
        let mark = self.stored.remove(&container.id).map(|stored| stored.mark).unwrap_or_default();
        let hash = self.hosts.get(host).map_or(0, |host| host.hash);
        let key = format!("{KEY_PREFIX}{}", container.id);
        let mut follow = Follow::new(key, host, Mark { host: hash, ..mark });
        follow.describe(container, &labels);
        self.follows.push(follow);
    }

    /// Whether the container's log is not the daemon's, but the journal's, or nobody's.
    fn is_elsewhere(&mut self, container: &Container) -> bool {
        match container.driver.as_str() {
            "none" => {
                log::info!("container {} keeps no log (log driver \"none\")", container.name);
                true
            }
            "journald" if !self.options.journald => {
                if !std::mem::replace(&mut self.told_journald, true) {
                    log::info!(
                        "container {} and maybe others log to the journal, which [logs.journal] reads",
                        container.name
                    );
                }
                true
            }
            _ => false,
        }
    }

    fn removed(&mut self, id: &str) {
        if self.stored.remove(id).is_some() {
            self.forget.push(format!("{KEY_PREFIX}{id}"));
        }
        let Some(index) = self.follows.iter().position(|follow| follow.id == id) else { return };
        let Some(follow) = self.follows.get_mut(index) else { return };
        follow.gone = true;
        follow.running = false;
        // The daemon tells what is left, then ends it.
        if !matches!(follow.link, Link::Open(_) | Link::Connecting(_)) {
            self.forget(index);
        }
    }

    fn forget(&mut self, index: usize) {
        let follow = self.follows.swap_remove(index);
        if follow.mark.taken > 0 {
            self.forget.push(follow.key);
        }
    }

    /// All containers of a daemon are known: what is not among them is no more.
    fn listed(&mut self, host: usize) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.listed = true;
        }
        let hosts = &self.hosts;
        // Of a daemon that is not configured any more, all have to be known.
        let is_listed = |hash: u32| match hosts.iter().find(|host| host.hash == hash) {
            Some(host) => host.listed,
            None => hosts.iter().all(|host| host.listed),
        };
        let gone =
            self.stored.extract_if(.., |_, stored| !stored.exists && is_listed(stored.mark.host));
        self.forget.extend(gone.map(|(id, _)| format!("{KEY_PREFIX}{id}")));
        // A daemon that does not end the log of what is no more.
        while let Some(index) = self.follows.iter().position(|f| f.gone_for_long && f.host == host)
        {
            self.forget(index);
        }
        self.follows.iter_mut().for_each(|follow| follow.gone_for_long = follow.gone);
    }

    fn read_turns(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        let mut buffer = Vec::new();
        let (mut budget, mut quiet) = (BUDGET, 0);
        let now_ns = self.clock.now_ns();
        while quiet < self.follows.len() {
            if (block.size() >= limit_bytes && !block.is_empty()) || budget == 0 {
                return Progress::More;
            }
            let index = self.next % self.follows.len();
            self.next = index + 1;
            let Some(follow) = self.follows.get_mut(index) else { break };
            if !matches!(follow.link, Link::Open(_)) {
                quiet += 1;
                continue;
            }
            // A message takes no more than twice its bytes in a block.
            let room = limit_bytes.saturating_sub(block.size()) / 2;
            buffer.resize(TURN, 0);
            let buffer = buffer.get_mut(..room.clamp(1 << 10, TURN)).unwrap_or_default();
            let before = follow.mark;
            let turn = follow.turn(
                buffer,
                &mut Work {
                    block,
                    converter: &mut self.converter,
                    counters: &mut self.counters,
                    max_line: self.options.max_line,
                    now_ns,
                },
            );
            if follow.mark != before {
                block.set_position(&follow.key, &follow.mark.encode());
            }
            match turn {
                Turn::Quiet => quiet += 1,
                Turn::Read(count) => {
                    budget = budget.saturating_sub(count.max(1 << 10));
                    quiet = 0;
                }
                Turn::Ended(end) => {
                    follow.ended(&end, self.limits.pause, &mut self.counters);
                    if follow.gone {
                        // In a block of its own, or the next: this one has its last lines.
                        self.forget(index);
                    }
                    quiet = 0;
                }
            }
        }
        Progress::Idle
    }
}

impl Source for DockerSource {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ready(&mut self) -> Waiting<'_> {
        Box::pin(self.wait(true))
    }

    fn gather(&mut self, until: Instant) -> Waiting<'_> {
        Box::pin(async move {
            // New containers are connected to meanwhile: they may not live as long.
            let _ = tokio::time::timeout_at(until, self.wait(false)).await;
        })
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        self.apply();
        for key in self.forget.drain(..) {
            block.set_position(&key, &[]);
        }
        self.read_turns(block, limit_bytes)
    }

    fn hold(&mut self) -> Waiting<'_> {
        Box::pin(self.wait(false))
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        let c = &self.counters;
        out("lines", c.lines);
        out("bytes", c.bytes);
        out("truncated_lines", c.truncated_lines);
        out("invalid_utf8", c.invalid_utf8);
        out("errors", c.errors);
        out("reconnects", c.reconnects);
        out("waiting_containers", c.waiting);
    }
}

fn stored(positions: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Stored> {
    let mut all = BTreeMap::new();
    for (key, bytes) in positions {
        let Some(id) = key.strip_prefix(KEY_PREFIX) else { continue };
        match Mark::decode(bytes) {
            Ok(mark) => {
                all.insert(id.to_owned(), Stored { mark, exists: false });
            }
            Err(error) => log::warn!("logs of container {id}: {error}: they are read anew"),
        }
    }
    all
}
