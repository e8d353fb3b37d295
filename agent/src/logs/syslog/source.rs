//! The source: sockets of all sections, connections, and entries in the order in which messages came. Connections are
//! read when entries are asked for and at no other time, so that a full WAL stops their senders.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tz::TimeZone;

use super::drops::drops;
use super::entry::Writer;
use super::frames::{Frame, Framer};
use super::inbox::{Inbox, Losses, Sender};
use super::receive::{Datagrams, receive, sender};
use super::{Listen, Options, Sockets};
use crate::host::alarm::sleep_until;
use crate::host::{Clock, Host, Root, Roots, hostname};
use crate::logs::{Progress, Source, Waiting};
use crate::model::Block;

/// What a message may have around its text without being cut.
const HEADER: usize = 1 << 10;
/// Bytes that are read from a connection before the next one has its turn.
const TURN: usize = 8 << 10;
/// Turns of one reading: what makes no entries must not hold anybody up.
const TURNS: usize = 256;
/// Bytes of unfinished messages that all connections together may hold.
const HELD: usize = 256 << 10;
/// How often what could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// After a connection could not be taken.
const PAUSE: Duration = Duration::from_secs(1);
/// The kernel is asked for its drops at most so often.
const DROPS: Duration = Duration::from_secs(1);

struct Section {
    options: Options,
    /// What messages call its socket, once it is bound.
    id: Option<u16>,
    listener: Option<TcpListener>,
    receiver: Option<JoinHandle<()>>,
    /// Of a UDP socket.
    inode: Option<u64>,
    /// When to try again what could not be bound.
    retry: Option<Instant>,
}

impl Drop for Section {
    fn drop(&mut self) {
        if let Some(receiver) = &self.receiver {
            receiver.abort();
        }
    }
}

struct Connection {
    stream: TcpStream,
    framer: Framer,
    sender: Sender,
    /// When something came last.
    last: Instant,
    ended: bool,
}

/// Syslog as a source.
pub struct SyslogSource {
    sections: Vec<Section>,
    connections: Vec<Connection>,
    inbox: Rc<Inbox>,
    /// What the inbox had counted when this was built.
    before: Losses,
    writer: Writer,
    clock: Rc<dyn Clock>,
    sockets: Sockets,
    roots: Roots,
    refused: u64,
    errors: u64,
    /// Messages of sockets that a reload has closed.
    orphans: u64,
    /// Which connection is read first.
    turn: usize,
    /// Whether datagrams were read before connections.
    inbox_first: bool,
    /// No connections are taken before.
    accept_after: Option<Instant>,
    /// Drops of the kernel at the beginning, and when it was asked last and what it said.
    dropped: (u64, Cell<Option<Instant>>, Cell<u64>),
}

impl SyslogSource {
    /// Binds what the sections name, or says why it can't, and tries again from time to time. Needs a tokio
    /// runtime and a `LocalSet`.
    pub fn new(
        sections: &[Options],
        roots: &Roots,
        clock: Rc<dyn Clock>,
        sockets: &Sockets,
    ) -> SyslogSource {
        let section = |options: &Options| Section {
            options: options.clone(),
            id: None,
            listener: None,
            receiver: None,
            inode: None,
            retry: None,
        };
        let mut source = SyslogSource {
            sections: sections.iter().take(usize::from(u16::MAX)).map(section).collect(),
            connections: Vec::new(),
            inbox: Rc::clone(&sockets.inbox),
            before: sockets.inbox.losses(),
            writer: Writer::new(hostname(), zone(roots), clock.now_ns()),
            clock,
            sockets: sockets.clone(),
            roots: roots.clone(),
            refused: 0,
            orphans: 0,
            errors: 0,
            turn: 0,
            inbox_first: false,
            accept_after: None,
            dropped: Default::default(),
        };
        for index in 0..source.sections.len() {
            source.open(index, false);
        }
        source.dropped.0 = drops(&source.inodes());
        source.dropped.2.set(source.dropped.0);
        source
    }

    /// Binds a section's socket.
    fn open(&mut self, index: usize, again: bool) {
        let Some(section) = self.sections.get_mut(index) else { return };
        let listen = &section.options.listen;
        let opened = self.sockets.open(listen, &self.roots).and_then(|(id, descriptor)| {
            section.id = Some(id);
            let inode = rustix::fs::fstat(&descriptor).ok().map(|stat| stat.st_ino);
            section.inode = inode.filter(|_| matches!(listen, Listen::Udp(_)));
            let started = match datagrams(listen, descriptor) {
                Ok(Ok(socket)) => {
                    let allow = section.options.allow.clone();
                    let (inbox, clock) = (Rc::clone(&self.inbox), Rc::clone(&self.clock));
                    let task = receive(socket, id, allow, inbox, clock);
                    section.receiver = Some(tokio::task::spawn_local(task));
                    Ok(())
                }
                Ok(Err(listener)) => TcpListener::from_std(listener)
                    .map(|listener| section.listener = Some(listener)),
                Err(error) => Err(error),
            };
            started.map_err(|error| format!("listening on {listen}: {error}"))
        });
        match opened {
            Ok(()) => {
                section.retry = None;
                log::info!("syslog is received on {listen}");
            }
            Err(problem) => {
                section.retry = Some(Instant::now() + RETRY);
                if !again {
                    self.errors += 1;
                    log::warn!("{problem}; it is tried again every {} s", RETRY.as_secs());
                }
            }
        }
    }

    fn inodes(&self) -> Vec<u64> {
        self.sections.iter().filter_map(|section| section.inode).collect()
    }

    /// When something is due that nobody sends.
    fn due(&self) -> Option<Instant> {
        let idle = self.connections.iter().map(|connection| self.expires(connection));
        let retries = self.sections.iter().filter_map(|section| section.retry);
        idle.chain(retries).chain(self.accept_after).min()
    }

    fn expires(&self, connection: &Connection) -> Instant {
        let section = section_of(&self.sections, connection.sender);
        connection.last + section.map_or(Duration::ZERO, |section| section.options.idle_timeout)
    }

    /// Takes a connection, or closes it.
    fn take(&mut self, index: usize, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let Some(section) = self.sections.get(index) else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if self.errors == 0 {
                    log::warn!("taking a connection on {}: {error}", section.options.listen);
                }
                self.errors += 1;
                self.accept_after = Some(Instant::now() + PAUSE);
                return;
            }
        };
        let options = &section.options;
        let of_section = |have: &&Connection| Some(have.sender.socket) == section.id;
        let full = self.connections.iter().filter(of_section).count() >= options.max_connections;
        let id = section.id.unwrap_or_default();
        match sender(id, Some(peer.ip()), &options.allow) {
            Some(sender) if !full => self.connections.push(Connection {
                stream,
                framer: Framer::new(options.max_line + HEADER),
                sender,
                last: Instant::now(),
                ended: false,
            }),
            _ => self.refused += 1,
        }
    }

    /// Waits for messages, and takes connections meanwhile.
    async fn wait(&mut self) {
        loop {
            let now = Instant::now();
            if self.connections.iter().any(|connection| self.expires(connection) <= now) {
                return;
            }
            self.accept_after = self.accept_after.filter(|after| *after > now);
            for index in 0..self.sections.len() {
                let retry = self.sections.get(index).and_then(|section| section.retry);
                if retry.is_some_and(|retry| retry <= now) {
                    self.open(index, true);
                }
            }
            let due = self.due();
            let accepts = self.accept_after.is_none();
            let (index, accepted) = tokio::select! {
                () = self.inbox.filled() => return,
                () = readable(&self.connections) => return,
                accepted = accept(&self.sections), if accepts => accepted,
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => continue,
            };
            self.take(index, accepted);
        }
    }

    /// Entries of the datagrams; true if the block is full.
    fn read_inbox(&mut self, block: &mut Block, limit: usize) -> bool {
        let SyslogSource { sections, writer, inbox, orphans, .. } = self;
        while block.size() < limit || block.is_empty() {
            let taken = inbox.take(|message| {
                let section = section_of(sections, message.sender);
                let Some(section) = section else {
                    *orphans += 1;
                    return;
                };
                let (options, time) = (&section.options, message.received_ns);
                writer.write(block, options, message.bytes, time, message.sender, message.cut);
            });
            if !taken {
                return false;
            }
        }
        !inbox.is_empty()
    }

    /// Entries of the connections, a turn for each; true if there may be more.
    fn read_connections(&mut self, block: &mut Block, limit: usize) -> bool {
        if self.connections.is_empty() {
            return false;
        }
        let mut buffer = vec![0; TURN];
        let mut turns = 0;
        loop {
            let mut came = false;
            for _ in 0..self.connections.len() {
                if turns >= TURNS || block.size() >= limit {
                    return true;
                }
                turns += 1;
                self.turn = (self.turn + 1) % self.connections.len();
                came |= self.read_one(self.turn, &mut buffer, block);
            }
            self.connections.retain(|connection| !connection.ended);
            if !came {
                return false;
            }
        }
    }

    /// Reads from a connection; true if something came.
    fn read_one(&mut self, index: usize, buffer: &mut [u8], block: &mut Block) -> bool {
        let SyslogSource { sections, connections, writer, clock, errors, .. } = self;
        let Some(connection) = connections.get_mut(index).filter(|have| !have.ended) else {
            return false;
        };
        let Some(section) = section_of(sections, connection.sender) else {
            return false;
        };
        let sender = connection.sender;
        let now = clock.now_ns();
        let mut out = |frame: Frame<'_>| {
            writer.write(block, &section.options, frame.bytes, now, sender, frame.cut);
        };
        match connection.stream.try_read(buffer) {
            Ok(0) => {}
            Ok(length) => {
                connection.last = Instant::now();
                connection.framer.feed(buffer.get(..length).unwrap_or_default(), &mut out);
                self.bound_held(block);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => {
                *errors += u64::from(error.kind() != io::ErrorKind::ConnectionReset);
            }
        }
        connection.framer.finish(&mut out);
        connection.ended = true;
        true
    }

    /// Where unfinished messages take too much, the longest is given out as it is.
    fn bound_held(&mut self, block: &mut Block) {
        let held = |connections: &[Connection]| -> usize {
            connections.iter().map(|connection| connection.framer.held()).sum()
        };
        while held(&self.connections) > HELD {
            let SyslogSource { sections, connections, writer, clock, .. } = self;
            let longest = connections.iter_mut().max_by_key(|have| have.framer.held());
            let Some(connection) = longest else { return };
            let sender = connection.sender;
            let Some(section) = section_of(sections, sender) else { return };
            let now = clock.now_ns();
            let before = connection.framer.held();
            connection.framer.give_up(&mut |frame| {
                writer.write(block, &section.options, frame.bytes, now, sender, true);
            });
            if connection.framer.held() == before {
                return;
            }
        }
    }

    /// Closes connections that have said nothing for long. What they had begun is given out.
    fn close_idle(&mut self, block: &mut Block) {
        let now = Instant::now();
        let expired = |source: &SyslogSource| {
            source.connections.iter().position(|connection| source.expires(connection) <= now)
        };
        while let Some(index) = expired(self) {
            let mut connection = self.connections.swap_remove(index);
            let Some(section) = section_of(&self.sections, connection.sender) else {
                continue;
            };
            let (options, sender) = (&section.options, connection.sender);
            let (writer, now) = (&mut self.writer, self.clock.now_ns());
            connection.framer.finish(&mut |frame| {
                writer.write(block, options, frame.bytes, now, sender, frame.cut);
            });
        }
    }

    /// What the kernel has dropped since the beginning.
    fn kernel_drops(&self) -> u64 {
        let (before, asked, said) = &self.dropped;
        if asked.get().is_none_or(|asked| asked.elapsed() >= DROPS) {
            asked.set(Some(Instant::now()));
            said.set(drops(&self.inodes()));
        }
        said.get().saturating_sub(*before)
    }
}

impl Source for SyslogSource {
    fn name(&self) -> &'static str {
        "syslog"
    }

    fn is_last_copy(&self) -> bool {
        true
    }

    fn has_no_position(&self) -> bool {
        true
    }

    fn ready(&mut self) -> Waiting<'_> {
        Box::pin(self.wait())
    }

    fn gather(&mut self, until: Instant) -> Waiting<'_> {
        Box::pin(async move {
            loop {
                // Whoever connects while others talk must not wait for them to stop.
                let accepts = self.accept_after.is_none();
                let (index, accepted) = tokio::select! {
                    () = sleep_until(until) => return,
                    () = self.inbox.crowded() => return,
                    accepted = accept(&self.sections), if accepts => accepted,
                };
                self.take(index, accepted);
            }
        })
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        // Neither has to wait until the other is silent.
        self.inbox_first = !self.inbox_first;
        let more = match self.inbox_first {
            true => {
                self.read_inbox(block, limit_bytes) || self.read_connections(block, limit_bytes)
            }
            false => {
                self.read_connections(block, limit_bytes) || self.read_inbox(block, limit_bytes)
            }
        };
        if more {
            return Progress::More;
        }
        self.close_idle(block);
        Progress::Idle
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        let counters = &self.writer.counters;
        let losses = self.inbox.losses();
        out("lines", counters.lines);
        out("bytes", counters.bytes);
        out("truncated_lines", counters.truncated_lines);
        out("invalid_utf8", counters.invalid_utf8);
        out("malformed", counters.malformed);
        out("dropped_metadata", counters.dropped_metadata);
        out("lost_entries", losses.lost - self.before.lost + self.orphans + self.kernel_drops());
        out("refused", losses.refused - self.before.refused + self.refused);
        out("errors", losses.errors - self.before.errors + self.errors);
    }
}

/// Through whose socket it came.
fn section_of(sections: &[Section], sender: Sender) -> Option<&Section> {
    sections.iter().find(|section| section.id == Some(sender.socket))
}

type Opened = Result<Datagrams, std::net::TcpListener>;

fn datagrams(listen: &Listen, descriptor: OwnedFd) -> io::Result<Opened> {
    match listen {
        Listen::Udp(_) => Datagrams::udp(descriptor).map(Ok),
        Listen::Unix(_) => Datagrams::unix(descriptor).map(Ok),
        Listen::Tcp(_) => Ok(Err(descriptor.into())),
    }
}

/// Ends when a connection has something to read. Dropping it loses nothing.
async fn readable(connections: &[Connection]) {
    poll_fn(|context| {
        let ready = |connection: &Connection| connection.stream.poll_read_ready(context).is_ready();
        if connections.iter().any(ready) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The next connection, and whose it is. Dropping it loses nothing.
async fn accept(sections: &[Section]) -> (usize, io::Result<(TcpStream, SocketAddr)>) {
    poll_fn(|context| {
        for (index, section) in sections.iter().enumerate() {
            let Some(listener) = &section.listener else { continue };
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready((index, accepted));
            }
        }
        Poll::Pending
    })
    .await
}

/// This host's time zone, as /etc/localtime says; UTC without one.
fn zone(roots: &Roots) -> TimeZone {
    let mut host = Host::new(roots.clone());
    let zone =
        host.find(Root::Root, "etc/localtime").and_then(|file| TimeZone::from_tz_data(file).ok());
    zone.unwrap_or_else(TimeZone::utc)
}
