//! One container's log as the API gives it: a connection that is opened, read a piece at a time, and opened
//! again where it broke. What has been taken is a [`Mark`]; nothing that was read is held back but the start of
//! a message whose end has not come, which is read again from the daemon if need be.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::api::{ApiError, Socket};
use super::discover::Trouble;
use super::frames::{Frames, Message, Output};
use super::labels::of_output;
use super::position::{Mark, Resume};
use super::{PART, said};
use crate::host::http::{self, Body, Head, Piece};
use crate::logs::text::Converter;
use crate::model::{Block, Labels, StreamId};

/// What an answer may say that is no log.
const MAX_FAILURE: usize = 512;

/// A connection that is being made.
pub(super) type Connecting = Pin<Box<dyn Future<Output = Result<Socket, ApiError>>>>;

/// The connection.
pub(super) enum Link {
    /// There is none, and nothing to have one for.
    Off,
    /// There will be one.
    Wait(Instant),
    /// It is being made.
    Connecting(Connecting),
    /// It is there.
    Open(Box<Stream>),
}

/// An answer to a request for a log.
pub(super) struct Stream {
    labels: [Labels; 2],
    socket: Socket,
    head: Option<Head>,
    body: Option<Body>,
    /// The head as far as it has come, or the text of a failure.
    bytes: Vec<u8>,
    frames: Frames,
    resume: Resume,
    began: Instant,
    /// Taken from the socket while entries gather, and not looked at.
    ahead: Vec<u8>,
    /// It has ended, or failed: the next read tells how.
    over: bool,
}

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// As the daemon wanted: the container has ended, or all of its log was told.
    Clean,
    /// In the middle.
    Cut(String),
    /// It was no log.
    Refused(u16, String),
}

/// What a turn came to.
pub(super) enum Turn {
    /// There is nothing to read.
    Quiet,
    /// So many bytes were read.
    Read(usize),
    /// The stream is over.
    Ended(End),
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries made.
    pub lines: u64,
    /// Bytes of text, before anything was cut.
    pub bytes: u64,
    /// Lines that were cut at `max_line`.
    pub truncated_lines: u64,
    /// Lines in which something was replaced by U+FFFD.
    pub invalid_utf8: u64,
    /// Bytes of text that could not be told from what had been read, and were passed over.
    pub lost_bytes: u64,
    /// Answers that were no log, that had no end, and errors that a daemon told in one.
    pub errors: u64,
    /// Connections that broke.
    pub reconnects: u64,
    /// Containers that had to wait because as many as may be were followed.
    pub waiting: u64,
}

/// What a turn works with.
pub(super) struct Work<'a> {
    pub(super) block: &'a mut Block,
    pub(super) converter: &'a mut Converter,
    pub(super) counters: &'a mut Counters,
    pub(super) max_line: usize,
    pub(super) now_ns: i64,
}

/// Timestamps of one stream: each entry has one of its own, since Loki drops what repeats time and text, and
/// Podman tells seconds only.
#[derive(Clone, Copy, Debug, Default)]
struct Stamp {
    told: i64,
    given: i64,
}

impl Stamp {
    fn next(&mut self, told: i64) -> i64 {
        // Also behind the time that the last of many with one time was given.
        let taken = (self.told..=self.given).contains(&told);
        let given = if taken { self.given.saturating_add(1) } else { told };
        *self = Stamp { told, given };
        given
    }
}

/// A container that is followed.
pub(super) struct Follow {
    pub(super) id: String,
    /// Of the position.
    pub(super) key: String,
    pub(super) name: String,
    /// The number of its daemon.
    pub(super) host: usize,
    pub(super) driver: String,
    /// Without `stream`: of thousands only those that are read need both.
    labels: Labels,
    pub(super) running: bool,
    pub(super) mark: Mark,
    pub(super) link: Link,
    /// From when on a message can't be older than the last request for the log.
    live_ns: i64,
    /// It has ended, and all of its log was read.
    pub(super) complete: bool,
    /// It may have run since the log was asked for the last time: the answer may lack that run.
    again: bool,
    /// Nobody can read its log until it is started anew.
    unreadable: bool,
    /// It is no more: what is left of its log is read, if it can be.
    pub(super) gone: bool,
    /// It was no more when the last list began, and nothing of it was left to be read then.
    pub(super) gone_for_long: bool,
    /// When it was looked at for the last time, since the last list, there was nothing to read.
    pub(super) quiet: bool,
    /// It has been counted as waiting.
    pub(super) waits: bool,
    pause: Duration,
    stamps: [Stamp; 2],
    trouble: Trouble,
}

impl Follow {
    pub(super) fn new(key: String, host: usize, mark: Mark) -> Follow {
        Follow {
            id: String::new(),
            key,
            name: String::new(),
            host,
            driver: String::new(),
            labels: Labels::new(),
            running: false,
            mark,
            link: Link::Off,
            live_ns: 0,
            complete: false,
            again: false,
            unreadable: false,
            gone: false,
            gone_for_long: false,
            quiet: false,
            waits: false,
            pause: Duration::ZERO,
            stamps: [Stamp::default(); 2],
            trouble: Trouble::default(),
        }
    }

    /// Takes what is known of the container.
    pub(super) fn describe(&mut self, container: said::Container, labels: &Labels) {
        self.labels = labels.clone();
        if let Link::Open(stream) = &mut self.link {
            stream.labels = of_both(labels);
        }
        self.id = container.id;
        self.name = container.name;
        self.driver = container.driver;
        self.unreadable = false;
        self.set_running(container.running);
        self.ran();
    }

    /// It may have run, also if it does not now.
    pub(super) fn ran(&mut self) {
        match self.link {
            Link::Connecting(_) | Link::Open(_) => self.again = true,
            Link::Off if !self.unreadable => {
                self.complete = false;
                self.link = Link::Wait(Instant::now());
            }
            Link::Off | Link::Wait(_) => {}
        }
    }

    /// It may write, or not.
    pub(super) fn set_running(&mut self, running: bool) {
        if self.unreadable {
            return;
        }
        self.complete &= !running;
        if running && !self.running {
            // Whatever was wrong is looked at again.
            self.pause = Duration::ZERO;
            if matches!(self.link, Link::Wait(_)) {
                self.link = Link::Off;
            }
            self.ran();
        }
        self.running = running;
        if !self.complete && matches!(self.link, Link::Off) {
            self.link = Link::Wait(Instant::now());
        }
    }

    /// Asks for the log.
    pub(super) fn ask(&mut self, answer: Connecting, live_ns: i64) {
        self.link = Link::Connecting(answer);
        self.live_ns = live_ns;
        self.again = false;
    }

    /// A connection was made, or not.
    pub(super) fn connected(&mut self, socket: Socket, max_line: usize) {
        self.stamps = [Stamp::default(); 2];
        self.link = Link::Open(Box::new(Stream {
            labels: of_both(&self.labels),
            socket,
            head: None,
            body: None,
            bytes: Vec::new(),
            frames: Frames::new(max_line),
            resume: Resume::new(self.mark, self.live_ns),
            began: Instant::now(),
            ahead: Vec::new(),
            over: false,
        }));
    }

    /// There is no connection any more; another one is made after a while, if there is need.
    pub(super) fn ended(
        &mut self,
        end: &End,
        pauses: (Duration, Duration),
        counters: &mut Counters,
    ) {
        let (shortest, longest) = pauses;
        let (mut done, mut lived) = (false, false);
        if let Link::Open(stream) = &self.link {
            lived = stream.began.elapsed() >= longest;
            done = matches!(end, End::Clean) && !self.running && !self.again;
        }
        match end {
            End::Clean => {}
            End::Cut(reason) => {
                counters.reconnects += 1;
                log::debug!("logs of container {}: {reason}", self.name);
            }
            End::Refused(404, _) => done = !self.running && !self.again,
            End::Refused(code, said) => {
                counters.errors += 1;
                let (name, driver) = (&self.name, &self.driver);
                self.trouble.begin(&format!("status {code}: {said}"), |error| {
                    log::warn!(
                        "logs of container {name} (log driver {driver:?}) can't be read: {error}{}",
                        hint(*code, said)
                    );
                });
                self.unreadable = is_unreadable(said);
                done = self.unreadable;
            }
        }
        self.pause =
            if lived || self.pause.is_zero() { shortest } else { (self.pause * 2).min(longest) };
        self.complete = done;
        self.link = if done { Link::Off } else { Link::Wait(Instant::now() + self.pause) };
    }

    /// Reads what is there into the block, at most a buffer full.
    pub(super) fn turn(&mut self, buffer: &mut [u8], work: &mut Work<'_>) -> Turn {
        let Link::Open(stream) = &mut self.link else { return Turn::Quiet };
        let [out, err] = &stream.labels;
        let (Some(out), Some(err)) = (work.block.stream(out), work.block.stream(err)) else {
            return Turn::Quiet;
        };
        let ahead = stream.ahead.len().min(buffer.len());
        let read = if ahead > 0 {
            buffer.iter_mut().zip(stream.ahead.drain(..ahead)).for_each(|(to, from)| *to = from);
            Ok(ahead)
        } else {
            stream.ahead = Vec::new();
            stream.socket.try_read(buffer)
        };
        let count = match read {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Turn::Quiet,
            Err(error) => return Turn::Ended(End::Cut(error.to_string())),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let mut into = Into {
            work,
            streams: [out, err],
            mark: &mut self.mark,
            stamps: &mut self.stamps,
            is_docker: false,
            short_id: self.id.get(..12).unwrap_or(&self.id),
        };
        let end = match stream.take(bytes, &mut into) {
            Ok(false) if count > 0 => None,
            Ok(false) => Some(stream.end_of_connection(&mut into)),
            Ok(true) => Some(stream.end(&mut into)),
            Err(reason) => Some(End::Cut(reason)),
        };
        if stream.is_log() && self.trouble.end() {
            log::info!("logs of container {} are read again", self.name);
        }
        match end {
            Some(end) => Turn::Ended(end),
            None => Turn::Read(count),
        }
    }
}

/// The labels of stdout and of stderr.
fn of_both(labels: &Labels) -> [Labels; 2] {
    [Output::Stdout, Output::Stderr].map(|output| of_output(labels, output))
}

/// A driver without a way to read, or none at all.
fn is_unreadable(said: &str) -> bool {
    said.contains("does not support reading")
}

/// What the user can do.
fn hint(code: u16, said: &str) -> &'static str {
    if is_unreadable(said) {
        "; let it use the driver \"local\" or \"json-file\", or the daemon keep a cache of logs"
    } else if code == 403 {
        "; let the proxy allow GET /containers/"
    } else {
        ""
    }
}

impl Stream {
    /// Whether there is something to read.
    pub(super) fn is_ready(&self, context: &mut Context<'_>) -> bool {
        !self.ahead.is_empty() || self.socket.poll_read(context).is_ready()
    }

    /// What memory an unfinished message holds.
    pub(super) fn held(&self) -> usize {
        self.frames.held()
    }

    /// Keeps only the beginning of the unfinished message.
    pub(super) fn shorten(&mut self) {
        self.frames.shorten();
    }

    /// How much was taken ahead.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Takes what is there from the socket, at most so much: a daemon that writes each message by itself fills
    /// the kernel's buffer, which counts a page for some bytes, with some hundred of them.
    pub(super) fn take_ahead(&mut self, context: &mut Context<'_>, most: usize) {
        let mut chunk = [0; 4 << 10];
        let mut room = most;
        while room > 0 && !self.over && self.socket.poll_read(context).is_ready() {
            let chunk = chunk.get_mut(..room.min(4 << 10)).unwrap_or_default();
            match self.socket.try_read(chunk) {
                Ok(count) if count > 0 => {
                    self.ahead.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    room = room.saturating_sub(count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => self.over = true,
            }
        }
    }

    fn is_log(&self) -> bool {
        self.head.is_some_and(|head| head.status == 200)
    }

    /// Takes bytes of the answer; true at its end.
    fn take(&mut self, bytes: &[u8], into: &mut Into<'_, '_>) -> Result<bool, String> {
        if self.head.is_some() {
            return self.take_body(bytes, into);
        }
        self.bytes.extend_from_slice(bytes);
        let Some((head, length)) = http::head(&self.bytes)? else { return Ok(false) };
        self.head = Some(head);
        self.body = Some(Body::new(head.framing));
        let bytes = std::mem::take(&mut self.bytes);
        self.take_body(bytes.get(length..).unwrap_or_default(), into)
    }

    fn take_body(&mut self, mut bytes: &[u8], into: &mut Into<'_, '_>) -> Result<bool, String> {
        let (Some(head), Some(body)) = (self.head, &mut self.body) else { return Ok(false) };
        into.is_docker = head.is_docker;
        loop {
            match body.next(&mut bytes)? {
                Piece::Data { bytes, begins } if head.status == 200 => {
                    let resume = &mut self.resume;
                    let mut out = |message: Message<'_>| into.message(resume, message);
                    self.frames.feed(bytes, begins, &mut out).map_err(|e| e.to_string())?;
                }
                Piece::Data { bytes, .. } => {
                    let room = MAX_FAILURE.saturating_sub(self.bytes.len());
                    self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
                }
                Piece::More => return Ok(false),
                Piece::End => return Ok(true),
            }
        }
    }

    fn end(&mut self, into: &mut Into<'_, '_>) -> End {
        match self.head {
            Some(Head { status: 200, .. }) => {
                let resume = &mut self.resume;
                self.frames.finish(&mut |message| into.message(resume, message));
                resume.end();
                into.work.counters.lost_bytes += resume.take_lost();
                End::Clean
            }
            Some(head) => End::Refused(head.status, said::failure(&self.bytes)),
            None => End::Cut("the connection ended without an answer".to_owned()),
        }
    }

    fn end_of_connection(&mut self, into: &mut Into<'_, '_>) -> End {
        let fine = self.body.as_ref().is_some_and(Body::may_end_here);
        let refused = self.head.is_some_and(|head| head.status != 200);
        if fine || refused {
            return self.end(into);
        }
        End::Cut("the connection ended in the middle".to_owned())
    }
}

/// Where messages become entries.
struct Into<'a, 'b> {
    work: &'a mut Work<'b>,
    streams: [StreamId; 2],
    mark: &'a mut Mark,
    stamps: &'a mut [Stamp; 2],
    is_docker: bool,
    short_id: &'a str,
}

impl Into<'_, '_> {
    fn message(&mut self, resume: &mut Resume, message: Message<'_>) {
        let Message { output, timestamp_ns, text, partial, cut } = message;
        let place = match output {
            Output::Stdout => 0,
            Output::Stderr => 1,
            Output::Daemon => return self.complaint(text),
        };
        if timestamp_ns.is_none() && text.starts_with(b"Error grabbing logs: ") {
            return self.complaint(text);
        }
        let (Some(stamp), Some(&stream)) = (self.stamps.get_mut(place), self.streams.get(place))
        else {
            return;
        };
        // Every message has one, unless something between us and the daemon takes them apart.
        let told = timestamp_ns.unwrap_or(match stamp.told {
            0 => self.work.now_ns,
            last => last,
        });
        let given = stamp.next(told);
        // Not of the time that was told: lines may be the same, and their times.
        let hash = crc32c::crc32c_append(crc32c::crc32c(&given.to_le_bytes()), text);
        let hash = crc32c::crc32c_append(hash, &[place as u8]);
        let is_new = resume.is_new(told, hash, text.len() as u64, self.work.now_ns);
        self.work.counters.lost_bytes += resume.take_lost();
        if !is_new {
            return;
        }
        self.mark.take(told, hash);
        let Work { block, converter, counters, max_line, .. } = self.work;
        let line = converter.text(text, *max_line);
        counters.lines += 1;
        counters.bytes += text.len() as u64;
        counters.truncated_lines += u64::from(line.truncated || cut);
        counters.invalid_utf8 += u64::from(line.replaced);
        block.push(stream, given, line.text);
        // What was cut had more text than is here.
        if partial && (!self.is_docker || cut || text.len() >= PART) {
            block.set_partial();
        }
    }

    fn complaint(&mut self, text: &[u8]) {
        self.work.counters.errors += 1;
        log::debug!("container {}: {}", self.short_id, said::failure(text));
    }
}
