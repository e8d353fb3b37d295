//! The source: takes what daemons tell of their containers, and has each one's log read by the API or from
//! disk. A container stays with the way by which it was begun, since only that way's position says where to
//! go on; when the disk may not be read any more, the API goes on behind the last timestamp that was read
//! there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::poll_fn;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::time::Instant;

use super::discover::{Discovery, Report, Reports};
use super::disk::{self, DiskContainers, DiskError};
use super::follow::{Counters, Follow};
use super::labels::{ID, labels};
use super::links::{Host, Links, Until, Wake};
use super::options::{Limits, Options, Read};
use super::place::place;
use super::position::Mark;
use super::said::Container;
use super::{KEY_PREFIX, NAME};
use crate::host::{Clock, Endpoint, Roots};
use crate::logs::text::Converter;
use crate::logs::{Progress, Source, Waiting};
use crate::model::Block;

/// A position of an earlier run whose container has not been told yet, or is not wanted.
struct Stored {
    mark: Mark,
    exists: bool,
}

/// Follows containers. See the [module](super).
pub struct DockerSource {
    options: Rc<Options>,
    root: PathBuf,
    links: Links,
    disk: DiskContainers,
    /// Containers that are read from disk: where the API would go on.
    on_disk: HashMap<String, Mark>,
    stored: BTreeMap<String, Stored>,
    /// All containers that there are.
    exist: HashSet<String>,
    forgot_others: bool,
    told_journald: bool,
    told_disk: bool,
}

impl DockerSource {
    /// A source for these options. Of `positions`, those whose keys start with [`KEY_PREFIX`] or
    /// [`disk::KEY_PREFIX`] count; a malformed one is warned of and ignored.
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
        let options = Rc::new(options);
        let reports = Reports::default();
        let host = |(number, endpoint): (usize, &Endpoint)| {
            let daemon = super::api::Daemon {
                endpoint: endpoint.clone(),
                root: roots.root.clone(),
                timeout: limits.timeout,
            };
            let hash = hash_of(endpoint);
            let (asked, options, reports) =
                (daemon.clone(), Rc::clone(&options), Rc::clone(&reports));
            let discovery = Discovery::new(asked, number, options, limits, reports).run();
            Host { daemon, discovery: Box::pin(discovery), hash, listed: false }
        };
        let of_disk = crate::logs::file::Limits {
            max_files: limits.max_containers,
            buffer: limits.buffer,
            ..disk::limits()
        };
        DockerSource {
            root: roots.root.clone(),
            disk: DiskContainers::new(positions, Rc::clone(&clock), of_disk),
            on_disk: HashMap::new(),
            stored: stored(positions),
            exist: HashSet::new(),
            forgot_others: false,
            told_journald: false,
            told_disk: false,
            links: Links {
                hosts: options.hosts.iter().enumerate().map(host).collect(),
                options: Rc::clone(&options),
                limits,
                clock,
                reports,
                follows: Vec::new(),
                next: 0,
                forget: Vec::new(),
                timer: None,
                counters: Counters::default(),
                converter: Converter::default(),
                told_full: false,
            },
            options,
        }
    }

    /// What was done by the API so far.
    pub fn counters(&self) -> &Counters {
        &self.links.counters
    }

    /// How many containers are read: by the API, and from disk.
    pub fn followed(&self) -> (usize, usize) {
        let follows = &self.links.follows;
        (follows.iter().filter(|follow| !follow.complete).count(), self.on_disk.len())
    }

    /// Takes what the daemons have told.
    fn apply(&mut self) {
        loop {
            let Some((host, report)) = self.links.reports.borrow_mut().pop_front() else { return };
            match report {
                Report::Found(container, roots) => self.found(host, *container, roots),
                Report::Running(id, running) => {
                    if let Some(follow) = self.links.find(&id) {
                        follow.set_running(running);
                    }
                }
                Report::Ran(id) => {
                    if let Some(follow) = self.links.find(&id) {
                        follow.ran();
                    }
                }
                Report::Removed(id) => self.removed(&id),
                Report::Listed => self.listed(host),
            }
        }
    }

    fn found(&mut self, host: usize, container: Container, roots: bool) {
        self.exist.insert(container.id.clone());
        if let Some(stored) = self.stored.get_mut(&container.id) {
            stored.exists = true;
        }
        let known = self.links.follows.iter().position(|follow| follow.id == container.id);
        if !self.options.wants(&container) || self.is_elsewhere(&container) {
            if let Some(index) = known {
                // It was wanted under another name. Its position stays until it is removed.
                let Follow { id, mark, .. } = self.links.follows.swap_remove(index);
                self.stored.insert(id, Stored { mark, exists: true });
            } else if let Some(mark) = self.on_disk.remove(&container.id) {
                // What its file has now was written under the old name; behind that the API goes on, should it be
                // wanted again.
                self.disk.remove(&container.id);
                self.stored.insert(container.id, Stored { mark, exists: true });
            }
            return;
        }
        let labels = labels(&self.options, &container);
        if let Some(follow) = known.and_then(|index| self.links.follows.get_mut(index)) {
            follow.describe(container, &labels);
            return;
        }
        let stored = self.stored.get(&container.id).map(|stored| stored.mark);
        let hash = self.links.hosts.get(host).map_or(0, |host| host.hash);
        let mark = Mark { host: hash, ..stored.unwrap_or_default() };
        if let Some((path, format)) = place(&self.options, &self.root, &container, roots) {
            // What the API has begun it goes on with.
            if stored.is_none()
                || self.disk.knows(&path)
                || self.on_disk.contains_key(&container.id)
            {
                let id = container.id.clone();
                let max_line = self.options.max_line;
                let log = disk::Container { id, path, format, labels: labels.clone(), max_line };
                match self.disk.add(&log) {
                    Ok(()) => {
                        self.stored.remove(&log.id);
                        self.on_disk.entry(log.id).or_insert(mark);
                        return;
                    }
                    Err(error) => self.disk_refused(&container, &log.path, &error),
                }
                self.disk.abandon(&log.path);
            }
        }
        self.stored.remove(&container.id);
        let key = format!("{KEY_PREFIX}{}", container.id);
        let mut follow = Follow::new(key, host, mark);
        follow.describe(container, &labels);
        self.links.follows.push(follow);
    }

    /// Says once why the API is taken, where that is not what a machine without rights would expect.
    fn disk_refused(&mut self, container: &Container, path: &str, error: &DiskError) {
        let name = &container.name;
        if self.options.read == Read::Disk {
            log::warn!("log of container {name}: {path}: {error}; it is read by the API");
        } else if !std::mem::replace(&mut self.told_disk, true) {
            log::info!(
                "logs of containers are read by the API, since {path} (container {name}) can't be read: {error}"
            );
        }
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
        self.exist.remove(id);
        let key = || format!("{KEY_PREFIX}{id}");
        if self.stored.remove(id).is_some() {
            self.links.forget.push(key());
        }
        if let Some(mark) = self.on_disk.remove(id) {
            self.disk.remove(id);
            if mark.taken > 0 {
                self.links.forget.push(key());
            }
        }
        self.links.removed(id);
    }

    /// All containers of a daemon are known: what is not among them is no more.
    fn listed(&mut self, number: usize) {
        if let Some(host) = self.links.hosts.get_mut(number) {
            host.listed = true;
        }
        let hosts = &self.links.hosts;
        let all = hosts.iter().all(|host| host.listed);
        // Of a daemon that is not configured any more, all have to be known.
        let is_listed = |hash: u32| match hosts.iter().find(|host| host.hash == hash) {
            Some(host) => host.listed,
            None => all,
        };
        let gone =
            self.stored.extract_if(.., |_, stored| !stored.exists && is_listed(stored.mark.host));
        self.links.forget.extend(gone.map(|(id, _)| format!("{KEY_PREFIX}{id}")));
        if all && !std::mem::replace(&mut self.forgot_others, true) {
            let exist = &self.exist;
            self.disk.forget_others(|part| exist.contains(part));
        }
        self.links.forget_gone(number);
    }

    /// Reads from disk, and notes how far the API would be with that.
    fn read_disk(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        let before = block.len();
        let progress = self.disk.read(block, limit_bytes);
        let mut changed: Vec<String> = Vec::new();
        for entry in block.entries().skip(before) {
            let labels = block.streams().get(usize::from(entry.stream.0));
            let Some(id) = labels.and_then(|labels| labels.get(ID)) else { continue };
            let Some(mark) = mark_of(&mut self.on_disk, &mut self.stored, id) else { continue };
            mark.take(entry.timestamp_ns, 0);
            if changed.last().is_none_or(|last| last != id) && !changed.iter().any(|c| c == id) {
                changed.push(id.to_owned());
            }
        }
        for id in changed {
            if let Some(mark) = mark_of(&mut self.on_disk, &mut self.stored, &id) {
                block.set_position(&format!("{KEY_PREFIX}{id}"), &mark.encode());
            }
        }
        progress
    }
}

impl Source for DockerSource {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ready(&mut self) -> Waiting<'_> {
        Box::pin(async move {
            loop {
                self.apply();
                let DockerSource { links, disk, .. } = self;
                tokio::select! {
                    wake = poll_fn(|context| links.poll(context, Until::Data)) => {
                        if wake == Wake::Data {
                            return;
                        }
                    }
                    () = disk.ready() => return,
                }
            }
        })
    }

    fn gather(&mut self, until: Instant) -> Waiting<'_> {
        Box::pin(async move {
            loop {
                self.apply();
                let DockerSource { links, disk, .. } = self;
                // New containers are connected to meanwhile: they may not live as long.
                tokio::select! {
                    wake = poll_fn(|context| links.poll(context, Until::Full)) => {
                        if wake == Wake::Data {
                            return;
                        }
                    }
                    () = disk.gather(until) => return,
                }
            }
        })
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        self.apply();
        for key in self.links.forget.drain(..) {
            block.set_position(&key, &[]);
        }
        // The first has the block to itself only if the other has nothing.
        let room = limit_bytes.saturating_sub(block.size());
        let one = self.read_disk(block, limit_bytes.saturating_sub(room / 2));
        let other = self.links.read(block, limit_bytes);
        if one == Progress::More && other == Progress::Idle {
            return self.read_disk(block, limit_bytes);
        }
        if one == Progress::More { one } else { other }
    }

    fn hold(&mut self) -> Waiting<'_> {
        Box::pin(async move {
            loop {
                self.apply();
                let DockerSource { links, disk, .. } = self;
                tokio::select! {
                    _ = poll_fn(|context| links.poll(context, Until::Never)) => {}
                    () = disk.hold() => {}
                }
            }
        })
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        let (api, disk) = (&self.links.counters, self.disk.counters());
        out("lines", api.lines + disk.lines);
        out("bytes", api.bytes + disk.bytes);
        out("truncated_lines", api.truncated_lines + disk.truncated_lines);
        out("invalid_utf8", api.invalid_utf8 + disk.invalid_utf8);
        out("rotations", disk.rotations);
        out("lost_bytes", api.lost_bytes + disk.lost_bytes);
        out("lost_files", disk.lost_files);
        out("errors", api.errors + disk.errors);
        out("reconnects", api.reconnects);
        out("waiting_containers", api.waiting);
    }
}

/// How far a container has been read whose file is read, or only what that had when the container got a name
/// that is not wanted.
fn mark_of<'a>(
    on_disk: &'a mut HashMap<String, Mark>,
    stored: &'a mut BTreeMap<String, Stored>,
    id: &str,
) -> Option<&'a mut Mark> {
    on_disk.get_mut(id).or_else(|| stored.get_mut(id).map(|stored| &mut stored.mark))
}

fn hash_of(endpoint: &Endpoint) -> u32 {
    crc32c::crc32c(endpoint.to_string().as_bytes())
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
