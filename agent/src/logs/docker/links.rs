//! The connections of all containers that are read by the API: made when they are due, read in turns. Who the
//! containers are is told from outside.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::api::{self, Daemon};
use super::discover::Reports;
use super::follow::{Counters, End, Follow, Link, Stream, Turn, Work};
use super::options::{Limits, Options};
use crate::host::{Clock, Endpoint};
use crate::logs::Progress;
use crate::logs::text::Converter;
use crate::model::Block;

/// What is read of a connection in one turn.
const TURN: usize = 16 << 10;

/// What one call of `read` reads at most, skipped messages included.
const BUDGET: usize = 512 << 10;

/// What all connections together take ahead while entries gather: about a block.
const AHEAD: usize = 64 << 10;

/// Memory that the unfinished messages of all containers may hold: each may be as long as a line.
const HELD: usize = 1 << 20;

/// Connections that are made at the same time.
const MAX_CONNECTING: usize = 8;

/// A daemon.
pub(super) struct Host {
    pub(super) daemon: Daemon,
    /// Never over.
    pub(super) discovery: Pin<Box<dyn Future<Output = ()>>>,
    /// In positions.
    pub(super) hash: u32,
    pub(super) listed: bool,
}

/// Why waiting is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    Reports,
    Data,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Something to read.
    Data,
    /// As much as one block takes.
    Full,
    /// Nothing: all goes on but reading.
    Never,
}

/// All connections.
pub(super) struct Links {
    pub(super) options: Rc<Options>,
    pub(super) limits: Limits,
    pub(super) clock: Rc<dyn Clock>,
    pub(super) hosts: Vec<Host>,
    pub(super) reports: Reports,
    pub(super) follows: Vec<Follow>,
    /// Whose turn it is.
    pub(super) next: usize,
    /// Keys of positions that are to be forgotten.
    pub(super) forget: Vec<String>,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) counters: Counters,
    pub(super) converter: Converter,
    pub(super) told_full: bool,
}

impl Links {
    /// The container with this id.
    pub(super) fn find(&mut self, id: &str) -> Option<&mut Follow> {
        self.follows.iter_mut().find(|follow| follow.id == id)
    }

    /// Lets everything go on that needs no block.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, until: Until) -> Poll<Wake> {
        for host in &mut self.hosts {
            // It does not end.
            let _ = host.discovery.as_mut().poll(context);
        }
        if !self.reports.borrow().is_empty() {
            return Poll::Ready(Wake::Reports);
        }
        let now = Instant::now();
        while self.connect(now, context) {}
        let ready = match until {
            Until::Data => {
                !self.forget.is_empty() || self.streams().any(|stream| stream.is_ready(context))
            }
            Until::Full => self.take_ahead(context),
            Until::Never => false,
        };
        if ready {
            return Poll::Ready(Wake::Data);
        }
        if until == Until::Data {
            // Else a turn would tell, which there is none of where nothing can be read.
            let open = self.follows.iter_mut().filter(|f| matches!(f.link, Link::Open(_)));
            open.for_each(|follow| follow.quiet = true);
        }
        self.poll_timer(now, context)
    }

    fn streams(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.follows.iter_mut().filter_map(|follow| match &mut follow.link {
            Link::Open(stream) => Some(&mut **stream),
            Link::Off | Link::Wait(_) | Link::Connecting(_) => None,
        })
    }

    /// Takes what sockets have into memory, each an equal part of what is left. Whether there is enough of it.
    fn take_ahead(&mut self, context: &mut Context<'_>) -> bool {
        let (mut held, mut count) = (0, 0);
        for stream in self.streams() {
            (held, count) = (held + stream.ahead(), count + 1);
        }
        for stream in self.streams() {
            let most = (AHEAD.saturating_sub(held) / 2).max(AHEAD / (2 * count.max(1)));
            let before = stream.ahead();
            stream.take_ahead(context, most.min(AHEAD.saturating_sub(held)));
            held += stream.ahead() - before;
        }
        held >= AHEAD / 2
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
                let is_here = matches!(host.daemon.endpoint, Endpoint::Unix(_));
                follow.ask(socket, follow.mark.live_from(self.clock.now_ns(), is_here));
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

    /// A container is no more: its daemon tells what is left of its log, then ends it.
    pub(super) fn removed(&mut self, id: &str) {
        let Some(index) = self.follows.iter().position(|follow| follow.id == id) else { return };
        let Some(follow) = self.follows.get_mut(index) else { return };
        follow.gone = true;
        follow.running = false;
        if !matches!(follow.link, Link::Open(_) | Link::Connecting(_)) {
            self.forget(index);
        }
    }

    /// A list of a daemon's has ended: what was no more when the last one did, the daemon does not end. What
    /// nobody has read meanwhile it may have ended.
    pub(super) fn forget_gone(&mut self, host: usize) {
        while let Some(index) = self
            .follows
            .iter()
            .position(|follow| follow.gone_for_long && follow.quiet && follow.host == host)
        {
            self.counters.errors += 1;
            if let Some(follow) = self.follows.get(index) {
                log::debug!("logs of container {}: they don't end, though it is gone", follow.name);
            }
            self.forget(index);
        }
        for follow in self.follows.iter_mut().filter(|follow| follow.host == host) {
            follow.gone_for_long = follow.gone && std::mem::take(&mut follow.quiet);
        }
    }

    /// A container is no more, and no more is read of it.
    pub(super) fn forget(&mut self, index: usize) {
        let follow = self.follows.swap_remove(index);
        if follow.mark.taken > 0 {
            self.forget.push(follow.key);
        }
    }

    /// Where unfinished messages take too much, the longest is cut.
    fn bound_held(&mut self) {
        while self.streams().map(|stream| stream.held()).sum::<usize>() > HELD {
            let Some(longest) = self.streams().max_by_key(|stream| stream.held()) else { return };
            let before = longest.held();
            longest.shorten();
            if longest.held() >= before {
                return;
            }
        }
    }

    /// Reads what is there into the block.
    pub(super) fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
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
            if matches!(turn, Turn::Read(_)) {
                self.bound_held();
            }
            let Some(follow) = self.follows.get_mut(index) else { break };
            follow.quiet = matches!(turn, Turn::Quiet);
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
