//! The kernel's log, /dev/kmsg, as a source: for hosts without a journal, whose dmesg is all there is.
//!
//! **Where there is a journal** that the agent reads, that has the kernel's messages already, and this source rests
//! ([`When::NoJournal`]), unless the agent may not read it, or leaves the kernel's messages out. That is decided when the source is built, at the agent's start and at each reload: a journal
//! that appears later makes messages arrive twice until then.
//!
//! **Position**: the boot's id and the number of the next record, so nothing is read twice while a boot lasts, and a
//! boot that is new is read from its first record. A first start reads all that the ring has. What the kernel has
//! overwritten unread is counted, `lost_entries`. Records below the level that is wanted are passed over, and come
//! again after a restart only if the level was changed by it.
//!
//! **Times**: records carry the time since boot, without the time that the machine slept. An entry's is that much
//! after the boot as the clock says it now, so it is as wrong as the clock is while it is read: a board without a
//! clock of its own stamps what it says before its time is set with the time that it believed. Times rise within a
//! boot; where they would repeat or go back by less than ten seconds, a nanosecond is added to the last one.
//!
//! **Labels** are those of the journal's kernel messages: `transport="kernel"`, `level`,
//! `syslog_identifier="kernel"`. What user space writes into /dev/kmsg has its own facility; as in the journal its
//! `tag[pid]:` becomes `syslog_identifier` and the metadata `pid`, and `facility` is metadata. Devices are metadata:
//! `kernel_subsystem`, `kernel_device` (`+usb:1-1`, `b8:0`, `c4:64`, `n2`, as the journal's `_KERNEL_DEVICE`).
//!
//! **Lines**: a record is an entry, its escapes resolved, its own line breaks kept. The kernel's fragments of lines
//! (`printk` with KERN_CONT that was interrupted) are entries too, as dmesg and the journal have them: their flags do
//! not say reliably what they continue.
//!
//! It must not know what messages mean; the probes do.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::syslog::tag;
use super::text::Converter;
use super::{Progress, SOURCE, Source, Waiting, severity};
use crate::host::alarm::sleep_between;
use crate::host::kmsg::{Moment, Position, Start, Verbatim};
use crate::host::{Clock, Host, Kmsg, ReadError, Root, Roots};
use crate::model::{Block, Labels};

/// The key of the position.
pub const KEY: &str = "kernel";

/// Sets of labels that are kept made; user space may invent tags.
const MAX_STREAMS: usize = 64;
/// Records of one reading: what makes no entries must not hold anybody up.
const RECORDS: usize = 4096;
/// How long after a failure the log is opened again.
const RETRY: Duration = Duration::from_secs(60);
/// A time that is earlier than the last one by less is moved behind it; by more, the clock was set.
const STEP_NS: i64 = 10_000_000_000;

/// Whether the kernel's log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// If no journal that has its messages is read.
    NoJournal,
    /// In any case.
    Always,
}

/// `[logs.kernel]`
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether it is read.
    pub when: When,
    /// The directories in which the agent looks for a journal and takes the kernel's messages from it, none for
    /// those of this host; None: it does not.
    pub journal: Option<Vec<PathBuf>>,
    /// The least important level: 0 (emergency) to 7 (debug).
    pub min_level: u8,
    /// The labels of every stream; the source's own win.
    pub labels: Labels,
    /// The longest line, in bytes.
    pub max_line: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    lines: u64,
    bytes: u64,
    truncated_lines: u64,
    invalid_utf8: u64,
    errors: u64,
    /// Of logs that are closed.
    lost: u64,
}

/// The kernel's log as a source.
pub struct KernelSource {
    options: Options,
    roots: Roots,
    clock: Rc<dyn Clock>,
    log: Option<AsyncFd<Kmsg>>,
    /// Where reading goes on, if the log is opened again.
    position: Option<Position>,
    /// There may be records: the log was not yet read to its end.
    pending: bool,
    /// When a log that failed is opened again.
    retry: Option<Instant>,
    failing: bool,
    /// By facility, level and tag.
    streams: HashMap<Box<[u8]>, Labels>,
    key: Vec<u8>,
    texts: [Converter; 5],
    last_ns: i64,
    counters: Counters,
}

impl KernelSource {
    /// Opens the log behind the stored position, or says why it can't. Needs a tokio runtime.
    pub fn new(
        options: &Options,
        positions: &BTreeMap<String, Vec<u8>>,
        clock: Rc<dyn Clock>,
        roots: &Roots,
    ) -> KernelSource {
        let mut source = KernelSource {
            options: options.clone(),
            roots: roots.clone(),
            clock,
            log: None,
            position: positions.get(KEY).and_then(|bytes| Position::from_bytes(bytes)),
            pending: false,
            retry: None,
            failing: false,
            streams: HashMap::new(),
            key: Vec::new(),
            texts: Default::default(),
            last_ns: i64::MIN,
            counters: Counters::default(),
        };
        let journal = options.journal.as_ref().filter(|_| options.when == When::NoJournal);
        if journal.is_some_and(|directories| has_journal(roots, directories)) {
            log::info!(
                "the journal has the kernel's messages, so /dev/kmsg is not read (logs.kernel.when = \"always\" does)"
            );
        } else {
            source.open();
        }
        source
    }

    fn open(&mut self) {
        let mut host = Host::new(self.roots.clone());
        let start = self.position.map_or(Start::Oldest, Start::After);
        let opened = Kmsg::open(&mut host, start).and_then(|kmsg| {
            register(kmsg).map_err(|source| ReadError {
                path: self.roots.root.join("dev/kmsg").into(),
                source,
            })
        });
        match opened {
            Ok(log) => {
                if std::mem::take(&mut self.failing) {
                    log::info!("the kernel's log is read again");
                }
                (self.log, self.pending, self.retry) = (Some(log), true, None);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Says once why the log is not read.
    fn fail(&mut self, error: &ReadError) {
        self.counters.errors += 1;
        self.retry = Some(Instant::now() + RETRY);
        if std::mem::replace(&mut self.failing, true) {
            return;
        }
        if error.is_absent() {
            // Containers have none.
            log::info!("there is no kernel's log to read: {error}");
            return;
        }
        let denied = matches!(error.source.kind(), io::ErrorKind::PermissionDenied);
        let hint = if denied { " (run the agent as root, or give it CAP_SYSLOG)" } else { "" };
        log::warn!("the kernel's log is not read: {error}{hint}");
    }

    async fn wait(&mut self) {
        loop {
            if self.pending {
                return;
            }
            if let Some(log) = &self.log {
                match log.readable().await {
                    // Cleared before reading, so that what comes during it is told again.
                    Ok(mut guard) => guard.clear_ready(),
                    // The runtime is shutting down.
                    Err(_) => return std::future::pending().await,
                }
                self.pending = true;
            } else if let Some(retry) = self.retry {
                sleep_between(retry, retry + RETRY / 4).await;
                self.open();
            } else {
                return std::future::pending().await;
            }
        }
    }

    /// Takes records until the block is full, or up to the end.
    fn take(&mut self, block: &mut Block, limit: usize) -> io::Result<Progress> {
        let KernelSource { options, log, streams, key, texts, last_ns, counters, .. } = self;
        let Some(log) = log else { return Ok(Progress::Idle) };
        // Until it is known that there is no more.
        self.pending = true;
        let moment = Moment::now(self.clock.as_ref());
        let mut written = false;
        for _ in 0..RECORDS {
            if block.size() >= limit && !block.is_empty() {
                break;
            }
            let Some(record) = log.get_mut().read_verbatim()? else {
                self.pending = false;
                break;
            };
            if record.level > options.min_level {
                continue;
            }
            let time = moment.unix_ns(record.usec);
            let behind = last_ns.saturating_sub(time);
            let near = (0..STEP_NS).contains(&behind);
            *last_ns = if near { last_ns.saturating_add(1) } else { time };
            let entry = Entry::of(&record);
            let labels = labels(options, &record, &entry, streams, key, &mut texts[0]);
            let Some(stream) = block.stream(labels) else { break };
            let [line, pid, subsystem, device, _] = texts;
            let line = line.text(entry.text, options.max_line);
            counters.lines += 1;
            counters.bytes += record.text.len() as u64;
            counters.truncated_lines += u64::from(line.truncated);
            counters.invalid_utf8 += u64::from(line.replaced);
            let facility = severity::facility(record.facility).filter(|_| record.facility != 0);
            let pairs = [
                ("facility", facility.unwrap_or_default()),
                ("pid", pid.text(entry.pid, 64).text),
                ("kernel_subsystem", subsystem.text(record.subsystem, 256).text),
                ("kernel_device", device.text(record.device, 256).text),
            ];
            let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
            block.push_with(stream, *last_ns, line.text, pairs);
            written = true;
        }
        // Without an entry there is nothing that must not come again.
        if written {
            block.set_position(KEY, &log.get_ref().position().to_bytes());
        }
        Ok(if self.pending { Progress::More } else { Progress::Idle })
    }
}

impl Source for KernelSource {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn ready(&mut self) -> Waiting<'_> {
        Box::pin(self.wait())
    }

    /// The kernel's ring does not survive a power cut, before which it may have said the most.
    fn is_last_copy(&self) -> bool {
        true
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        let error = match self.take(block, limit_bytes) {
            Ok(progress) => return progress,
            Err(error) => error,
        };
        // Read on from behind what was read, after a while.
        if let Some(log) = self.log.take() {
            let kmsg = log.into_inner();
            self.counters.lost += kmsg.lost();
            self.position = Some(kmsg.position());
            block.set_position(KEY, &kmsg.position().to_bytes());
        }
        self.pending = false;
        let path = self.roots.root.join("dev/kmsg").into();
        self.fail(&ReadError { path, source: error });
        Progress::Idle
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        let c = &self.counters;
        let lost = c.lost + self.log.as_ref().map_or(0, |log| log.get_ref().lost());
        out("lines", c.lines);
        out("bytes", c.bytes);
        out("truncated_lines", c.truncated_lines);
        out("invalid_utf8", c.invalid_utf8);
        out("lost_entries", lost);
        out("errors", c.errors);
    }
}

/// What of a record's text is its text.
struct Entry<'a> {
    tag: &'a [u8],
    pid: &'a [u8],
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn of(record: &Verbatim<'a>) -> Entry<'a> {
        let whole = Entry { tag: b"kernel", pid: b"", text: record.text };
        if record.facility == 0 {
            return whole;
        }
        match tag(record.text) {
            Some((tag, pid, text)) => Entry { tag, pid, text },
            None => Entry { tag: b"", ..whole },
        }
    }
}

fn labels<'a>(
    options: &Options,
    record: &Verbatim<'_>,
    entry: &Entry<'_>,
    streams: &'a mut HashMap<Box<[u8]>, Labels>,
    key: &mut Vec<u8>,
    text: &mut Converter,
) -> &'a Labels {
    key.clear();
    key.push(record.level);
    key.extend_from_slice(entry.tag);
    if !streams.contains_key(key.as_slice()) {
        if streams.len() >= MAX_STREAMS {
            streams.clear();
        }
        let mut labels = options.labels.clone();
        labels.set(SOURCE, "kernel");
        labels.set("transport", "kernel");
        labels.set("level", severity::level(record.level));
        if !entry.tag.is_empty() {
            labels.set("syslog_identifier", text.text(entry.tag, 256).text);
        }
        streams.insert(key.as_slice().into(), labels);
    }
    streams.entry(key.as_slice().into()).or_default()
}

/// Whether journald keeps a journal of this host that the agent may read, on disk or in memory: the system's, in a
/// directory with the machine's id, or with any machine's where that is not known.
fn has_journal(roots: &Roots, directories: &[PathBuf]) -> bool {
    let mut host = Host::new(roots.clone());
    let id = host.find(Root::Root, "etc/machine-id").map(<[u8]>::trim_ascii);
    let is_id = |name: &[u8]| name.len() == 32 && name.iter().all(|byte| byte.is_ascii_hexdigit());
    let id = id.filter(|id| is_id(id)).map(OsStr::from_bytes);
    let is_hosts = |directory: &Path| {
        let name = directory.file_name().unwrap_or_default();
        let named = id.map_or_else(|| is_id(name.as_bytes()), |id| id == name);
        named && File::open(directory.join("system.journal")).is_ok()
    };
    let own = ["var/log/journal", "run/log/journal"].map(|directory| roots.root.join(directory));
    let bases = if directories.is_empty() { &own } else { directories };
    bases.iter().any(|base| {
        let mut below = fs::read_dir(base).into_iter().flatten().flatten();
        is_hosts(base) || below.any(|entry| is_hosts(&entry.path()))
    })
}

#[allow(unsafe_code)]
fn register(kmsg: Kmsg) -> io::Result<AsyncFd<Kmsg>> {
    // SAFETY: the log has the same descriptor for as long as it lives, and lives in the AsyncFd.
    unsafe { AsyncFd::register_with_interest(kmsg, Interest::READABLE) }.map_err(Into::into)
}
