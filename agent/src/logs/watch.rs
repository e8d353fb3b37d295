//! Waiting for files without asking them: an inotify instance with a watch on each followed file
//! (which stays with the file when it is renamed), and one with a watch on each directory where files
//! may appear. A busy file beside the followed ones thus wakes nobody, nor does a followed one while
//! only names matter. Of a directory whose files are all read, as those of a journal are, it may tell each
//! write instead. It must not know patterns or how files are read.
//!
//! Where the kernel refuses (no inotify, `fs.inotify.max_user_watches` or `max_user_instances`
//! reached) it says so once in the log and [`is_degraded`](Watcher::is_degraded); the source polls
//! then.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::file::Root;
use crate::host::alarm::sleep_between;

/// How many reads of the queue one look takes, so that a storm can't hold it.
const MAX_READS: usize = 16;

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::logs) enum Wake {
    /// A followed file was written to, or shortened.
    Written(Rc<str>),
    /// A followed file got another name, or lost one.
    Moved(Rc<str>),
    /// Something has this name now, or no longer; true if it is a directory.
    Name(PathBuf, bool),
    /// A file of a directory whose writes are watched was written to.
    Inside(PathBuf),
    /// A watched directory is gone or has moved.
    Directory,
    /// The kernel's queue was full: anything may have happened.
    Overflow,
}

struct FileWatch {
    path: Rc<str>,
    /// A `Written` has been handed out and not yet been acted on.
    told: bool,
}

/// The watches.
pub(in crate::logs) struct Watcher {
    /// Whose files they are, as messages say it.
    what: &'static str,
    wanted: bool,
    queues: Option<Queues>,
    files: HashMap<i32, FileWatch>,
    directories: HashMap<i32, Vec<PathBuf>>,
    unwatched_directories: bool,
    unwatched_files: bool,
    warned: bool,
}

impl Watcher {
    /// Without `watch` it is degraded for good, and quietly.
    pub(in crate::logs) fn new(what: &'static str, watch: bool) -> Watcher {
        let mut watcher = Watcher {
            what,
            wanted: watch,
            queues: None,
            files: HashMap::new(),
            directories: HashMap::new(),
            unwatched_directories: false,
            unwatched_files: false,
            warned: false,
        };
        watcher.start();
        watcher
    }

    fn start(&mut self) {
        if self.wanted && self.queues.is_none() {
            match Queue::new().and_then(|files| Ok(Queues { files, names: Queue::new()? })) {
                Ok(queues) => self.queues = Some(queues),
                Err(error) => self.warn("starting inotify", error),
            }
        }
    }

    /// Whether files or directories go without a watch.
    pub(in crate::logs) fn is_degraded(&self) -> bool {
        self.queues.is_none() || self.unwatched_directories || self.unwatched_files
    }

    /// Tries again what the kernel refused: directories and every file without a watch are about to
    /// be given to it once more.
    pub(in crate::logs) fn retry(&mut self) {
        self.start();
        self.unwatched_files = false;
    }

    /// Watches an open file, under the name of the path that it is followed for.
    pub(in crate::logs) fn watch_file(
        &mut self,
        file: &impl AsRawFd,
        path: &Rc<str>,
        root: &Root,
    ) -> Option<i32> {
        const MASK: WatchFlags = WatchFlags::MODIFY
            .union(WatchFlags::ATTRIB)
            .union(WatchFlags::MOVE_SELF)
            .union(WatchFlags::DELETE_SELF);
        let inotify = &self.queues.as_ref()?.files.inotify;
        // The path may lead to another file by now; the descriptor can't, where /proc is mounted.
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let added = match inotify::add_watch(inotify, own.as_str(), MASK) {
            Err(Errno::NOENT) => inotify::add_watch(inotify, root.real(Path::new(&**path)), MASK),
            other => other,
        };
        match added {
            Ok(wd) => {
                self.files.insert(wd, FileWatch { path: path.clone(), told: false });
                Some(wd)
            }
            Err(error) => {
                self.unwatched_files = true;
                self.warn(path, error);
                None
            }
        }
    }

    /// Hands a file's watch to another path.
    pub(in crate::logs) fn rename(&mut self, wd: Option<i32>, path: &Rc<str>) {
        if let Some(watch) = wd.and_then(|wd| self.files.get_mut(&wd)) {
            watch.path = path.clone();
        }
    }

    /// Ends the watch of a file.
    pub(in crate::logs) fn forget(&mut self, wd: Option<i32>) {
        if let (Some(wd), Some(queues)) = (wd, &self.queues)
            && self.files.remove(&wd).is_some()
        {
            // Fails only if the kernel has dropped the watch by itself.
            let _ = inotify::remove_watch(&queues.files.inotify, wd);
        }
    }

    /// Watches exactly these directories of the host, for names.
    pub(in crate::logs) fn watch_directories(&mut self, wanted: &BTreeSet<PathBuf>, root: &Root) {
        self.watch_written(wanted, &BTreeSet::new(), root);
    }

    /// Watches exactly these directories of the host for names, and of them those in `written` for
    /// writes too.
    pub(in crate::logs) fn watch_written(
        &mut self,
        wanted: &BTreeSet<PathBuf>,
        written: &BTreeSet<PathBuf>,
        root: &Root,
    ) {
        const MASK: WatchFlags = WatchFlags::CREATE
            .union(WatchFlags::MOVED_FROM)
            .union(WatchFlags::MOVED_TO)
            .union(WatchFlags::DELETE)
            .union(WatchFlags::DELETE_SELF)
            .union(WatchFlags::MOVE_SELF)
            .union(WatchFlags::ONLYDIR);
        let Some(inotify) = self.queues.as_ref().map(|queues| queues.names.inotify.clone()) else {
            return;
        };
        let mut now: HashMap<i32, Vec<PathBuf>> = HashMap::new();
        let mut refused = None;
        for path in wanted {
            // Adding a watch that stands gives its number again.
            let more = match written.contains(path) {
                true => WatchFlags::MODIFY,
                false => WatchFlags::empty(),
            };
            match inotify::add_watch(&inotify, root.real(path), MASK | more) {
                Ok(wd) => now.entry(wd).or_default().push(path.clone()),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(error) => refused = Some((path, error)),
            }
        }
        for wd in self.directories.keys().filter(|wd| !now.contains_key(wd)) {
            let _ = inotify::remove_watch(&inotify, *wd);
        }
        self.directories = now;
        self.unwatched_directories = refused.is_some();
        if let Some((path, error)) = refused {
            self.warn(&path.to_string_lossy(), error);
        }
    }

    fn warn(&mut self, what: &str, error: Errno) {
        if !std::mem::replace(&mut self.warned, true) {
            let hint = match error {
                Errno::NOSPC => " (fs.inotify.max_user_watches is reached)",
                Errno::MFILE => " (fs.inotify.max_user_instances is reached)",
                _ => "",
            };
            log::warn!(
                "{} are polled, the kernel does not watch them: {what}: {error}{hint}",
                self.what
            );
        }
    }

    /// Adds to `out` what happened since the last look, without waiting.
    pub(in crate::logs) fn look(&mut self, out: &mut Vec<Wake>) {
        let Some(queues) = &self.queues else { return };
        let (mut names, mut files) = (Vec::new(), Vec::new());
        read(&queues.names.inotify, &mut names);
        read(&queues.files.inotify, &mut files);
        self.events(names, files, out);
    }

    /// Waits until something happened, which is added to `out`, or until there is a wake-up after `from`, and not
    /// longer than `until`. With `only_names` what happens to the followed files wakes nobody. Dropping the future loses nothing.
    pub(in crate::logs) async fn wait(
        &mut self,
        from: Instant,
        until: Instant,
        only_names: bool,
        out: &mut Vec<Wake>,
    ) {
        let Some(queues) = &mut self.queues else {
            return sleep_between(from, until).await;
        };
        let registered =
            queues.names.registered().and_then(|names| Ok((names, queues.files.registered()?)));
        let (names, files) = match registered {
            Ok(registered) => registered,
            Err(error) => {
                log::warn!("{} are polled: registering inotify: {error}", self.what);
                (self.queues, self.wanted) = (None, false);
                return sleep_between(from, until).await;
            }
        };
        let (ready, is_name) = tokio::select! {
            biased;
            ready = names.readable() => (ready, true),
            ready = files.readable(), if !only_names => (ready, false),
            () = sleep_between(from, until) => return,
        };
        // Else the runtime is shutting down.
        let Ok(mut guard) = ready else { return };
        // No await from here on: what is read is acted on.
        let mut events = Vec::new();
        if read(guard.get_inner(), &mut events) {
            guard.clear_ready();
        }
        drop(guard);
        if is_name {
            self.events(events, Vec::new(), out);
        } else {
            self.events(Vec::new(), events, out);
        }
    }

    fn events(&mut self, names: Vec<Raw>, files: Vec<Raw>, out: &mut Vec<Wake>) {
        for event in names {
            self.name(event, out);
        }
        for event in files {
            self.file(event, out);
        }
    }

    fn file(&mut self, event: Raw, out: &mut Vec<Wake>) {
        let Raw { wd, flags, .. } = event;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            out.push(Wake::Overflow);
        } else if let Some(watch) = self.files.get_mut(&wd) {
            if flags.intersects(ReadFlags::MODIFY) {
                if !std::mem::replace(&mut watch.told, true) {
                    out.push(Wake::Written(watch.path.clone()));
                }
            } else {
                out.push(Wake::Moved(watch.path.clone()));
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.files.remove(&wd);
                self.unwatched_files = true;
            }
        }
    }

    fn name(&mut self, event: Raw, out: &mut Vec<Wake>) {
        let Raw { wd, flags, name } = event;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            out.push(Wake::Overflow);
        } else if let Some(paths) = self.directories.get(&wd) {
            match name {
                Some(name) if flags.contains(ReadFlags::MODIFY) => {
                    out.extend(paths.iter().map(|p| Wake::Inside(p.join(&name))));
                }
                Some(name) => {
                    let directory = flags.contains(ReadFlags::ISDIR);
                    out.extend(paths.iter().map(|p| Wake::Name(p.join(&name), directory)));
                }
                None => out.push(Wake::Directory),
            }
        }
    }

    /// The `Written` wakes have been acted on: tell of the next write.
    pub(in crate::logs) fn heard(&mut self, wd: Option<i32>) {
        if let Some(watch) = wd.and_then(|wd| self.files.get_mut(&wd)) {
            watch.told = false;
        }
    }
}

struct Queues {
    files: Queue,
    names: Queue,
}

struct Queue {
    inotify: Rc<OwnedFd>,
    registered: Option<AsyncFd<Rc<OwnedFd>>>,
}

impl Queue {
    fn new() -> Result<Queue, Errno> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Queue { inotify: Rc::new(inotify), registered: None })
    }

    fn registered(&mut self) -> std::io::Result<&AsyncFd<Rc<OwnedFd>>> {
        let registered = match self.registered.take() {
            Some(registered) => registered,
            None => register(self.inotify.clone())?,
        };
        Ok(self.registered.insert(registered))
    }
}

struct Raw {
    wd: i32,
    flags: ReadFlags,
    name: Option<PathBuf>,
}

/// Reads the queue; true if it is empty now.
fn read(inotify: &OwnedFd, out: &mut Vec<Raw>) -> bool {
    for _ in 0..MAX_READS {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let (wd, flags) = (event.wd(), event.events());
                    let name = event.file_name();
                    // A busy file's events come in rows; one says it all.
                    if name.is_none()
                        && out.last().is_some_and(|l: &Raw| l.wd == wd && l.flags == flags)
                    {
                        continue;
                    }
                    let name = name.map(|n| Path::new(OsStr::from_bytes(n.to_bytes())).to_owned());
                    out.push(Raw { wd, flags, name });
                }
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
    }
    false
}

#[allow(unsafe_code)]
fn register(inotify: Rc<OwnedFd>) -> std::io::Result<AsyncFd<Rc<OwnedFd>>> {
    // SAFETY: the descriptor is owned by the Rc inside the AsyncFd, which never hands it out and is
    // dropped before it; nothing replaces or closes it while it is registered.
    unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }.map_err(Into::into)
}
