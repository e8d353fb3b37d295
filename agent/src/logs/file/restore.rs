//! Finding again what an earlier run followed, and what rotation made of a log unseen: files that it
//! renamed twice, and the copies that copytruncate leaves. It must not read lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::time::Instant;

use super::chain::{Chain, Save};
use super::follow::{Follow, OpenError, Place, Resumed};
use super::kin::{self, Kin};
use super::position::{HEAD, MAX_RECORDS, Record};
use super::scan::Sight;
use super::source::FileSource;

/// How often to look for a file that may be renamed while it is looked for.
const FIND_ATTEMPTS: usize = 3;

impl FileSource {
    /// Finds again what an earlier run followed. The paths whose logs were rotated meanwhile.
    pub(super) fn restore(&mut self, sight: &Sight, now: Instant) -> BTreeSet<Rc<str>> {
        let mut rotated = BTreeSet::new();
        let mut stored = std::mem::take(&mut self.stored);
        stored.retain(|path, _| self.section(path).is_some());
        let mut elsewhere = self.moved(&stored, sight);
        for (path, records) in stored {
            let Some(section) = self.section(&path) else { continue };
            let path: Rc<str> = Rc::from(path);
            let home = self.root.home(Path::new(&*path));
            if self.chains.contains_key(path.as_ref()) {
                // A file arrived there from another path meanwhile.
                continue;
            }
            if is_out_of_reach(&home, now) {
                // Its position waits: without it, all would be read once more.
                self.stored.insert(path.to_string(), records);
                continue;
            }
            let mut chain = Box::new(Chain::new(self.prefix, &path, &self.sections[section]));
            let here = sight.at.get(&path).map(|(identity, _)| identity.inode);
            let mut is_rotated =
                records.last().is_none_or(|last| Some(last.identity.inode) != here);
            for record in records {
                chain.settle(record.modified_ns);
                match self.find_again(&home, &record, &mut elsewhere, now) {
                    Some((file, true)) => {
                        if record.is_blank() {
                            // Nothing but its time tells the copy of what was never read.
                            chain.rotated(record.modified_ns);
                            chain.born_ns = record.modified_ns;
                            is_rotated = true;
                        }
                        self.own(&path, &mut chain, file);
                    }
                    Some((file, false)) => {
                        is_rotated = true;
                        self.replaced(&path, &home, &mut chain, &record, None, now);
                        self.own(&path, &mut chain, file);
                    }
                    None => {
                        is_rotated = true;
                        self.gone(&path, &home, &mut chain, &record, now);
                    }
                }
            }
            if is_rotated {
                rotated.insert(path.clone());
            }
            chain.settle_all();
            self.chains.insert(path.clone(), chain);
            self.enqueue(&path);
        }
        rotated
    }

    /// The file of a record is nowhere: a copy may have what was in it, as copytruncate leaves one.
    fn gone(
        &mut self,
        path: &Rc<str>,
        home: &Path,
        chain: &mut Chain,
        record: &Record,
        now: Instant,
    ) {
        chain.save(Save::Now);
        if let Some(copy) = self.find_copy(home, record, now) {
            self.counters.truncations += 1;
            chain.rotated(record.modified_ns);
            return self.put_copy(path, chain, record, Some(copy), None, now);
        }
        self.counters.lost_files += 1;
        let lost = record.seen.saturating_sub(record.offset);
        self.counters.lost_bytes += lost;
        log::warn!(
            "log file {path}: the file that was read up to byte {} is gone, with at least {lost} bytes \
             more",
            record.offset
        );
        chain.rotated(record.modified_ns);
    }

    fn own(&mut self, path: &Rc<str>, chain: &mut Chain, mut file: Follow) {
        file.watch = self.watcher.watch_file(file.file(), path, &self.root);
        self.owners.insert(file.identity, path.clone());
        chain.files.push_back(file);
    }

    /// The file of a record, and whether it goes on there: else it has other contents.
    fn find_again(
        &mut self,
        home: &Path,
        record: &Record,
        elsewhere: &mut HashMap<u64, Vec<PathBuf>>,
        now: Instant,
    ) -> Option<(Follow, bool)> {
        let inode = record.identity.inode;
        for attempt in 0..FIND_ATTEMPTS {
            if attempt > 0 {
                // Renamed since we looked, perhaps.
                let mut found = HashMap::new();
                find(home.parent()?, &BTreeSet::from([inode]), &mut found);
                elsewhere.extend(found);
            }
            if let Some((file, resumed)) = self.resume(home, record, false, now) {
                return Some((file, resumed == Resumed::Same));
            }
            for candidate in elsewhere.get(&inode).into_iter().flatten() {
                if candidate.parent() != home.parent() {
                    continue;
                }
                // Where only the inode tells, the name has to say the rest.
                match self.resume(candidate, record, candidate != home, now) {
                    Some((file, Resumed::Same))
                        if !record.is_blank() || starts_like(candidate, home) =>
                    {
                        return Some((file, true));
                    }
                    Some((file, Resumed::Cut)) if kin::is_kin(home, candidate) => {
                        return Some((file, false));
                    }
                    _ => {}
                }
            }
        }
        None
    }

    /// Opens what may be the file of a record.
    fn resume(
        &mut self,
        candidate: &Path,
        record: &Record,
        elsewhere: bool,
        now: Instant,
    ) -> Option<(Follow, Resumed)> {
        let is_inode = |data: std::fs::Metadata| data.ino() == record.identity.inode;
        if !std::fs::metadata(candidate).is_ok_and(is_inode) {
            return None;
        }
        let mut file = Follow::open(candidate, now).ok()?;
        if self.owners.contains_key(&file.identity) {
            return None;
        }
        let resumed = file.resume(record, elsewhere).ok()?;
        (resumed != Resumed::Other).then_some((file, resumed))
    }

    /// Where the inodes are that stored positions name and that are not where the position says, as
    /// far as they are in the same directory.
    fn moved(
        &self,
        stored: &BTreeMap<String, Vec<Record>>,
        sight: &Sight,
    ) -> HashMap<u64, Vec<PathBuf>> {
        let mut wanted = BTreeSet::new();
        let mut directories = BTreeSet::new();
        for (path, records) in stored {
            let here = sight.at.get(path.as_str()).map(|(identity, _)| identity.inode);
            for record in records.iter().filter(|record| Some(record.identity.inode) != here) {
                wanted.insert(record.identity.inode);
                directories.extend(self.root.home(Path::new(path)).parent().map(Path::to_owned));
            }
        }
        let mut found = HashMap::new();
        for directory in directories {
            find(&directory, &wanted, &mut found);
        }
        found
    }

    /// If the contents of a file of a chain that is not in the map were cut off or replaced, goes on with the
    /// new ones. Whether there was such a file.
    pub(super) fn cut(&mut self, path: &Rc<str>, chain: &mut Chain, now: Instant) -> bool {
        let Some(index) = chain.files.iter_mut().position(Follow::is_cut) else { return false };
        let Some(file) = chain.files.get_mut(index) else { return false };
        let record = file.record();
        file.restart(now);
        let home = self.root.home(Path::new(&**path));
        let at = Some(index);
        self.replaced(path, &home, chain, &record, at, now);
        chain.save(Save::Now);
        true
    }

    /// What a record says was in a file is gone from it: a copy may have the rest, and takes its place
    /// in the chain before the file.
    fn replaced(
        &mut self,
        path: &Rc<str>,
        home: &Path,
        chain: &mut Chain,
        record: &Record,
        at: Option<usize>,
        now: Instant,
    ) {
        self.counters.truncations += 1;
        if record.offset > 0 {
            chain.cut = record.head;
        }
        chain.rotated(record.modified_ns);
        let mut held = chain.copy.take().map(|copy| *copy);
        let is_held =
            held.as_mut().is_some_and(|copy| copy.resume_copy(record).unwrap_or_default());
        let copy = if is_held { held.take() } else { self.find_copy(home, record, now) };
        self.put_copy(path, chain, record, copy, at, now);
        if let Some(other) = held {
            self.release(path, chain, other);
        }
    }

    fn put_copy(
        &mut self,
        path: &Rc<str>,
        chain: &mut Chain,
        record: &Record,
        copy: Option<Follow>,
        at: Option<usize>,
        now: Instant,
    ) {
        let unread = record.seen.saturating_sub(record.offset);
        let Some(mut copy) = copy else {
            self.counters.lost_bytes += unread;
            return;
        };
        self.counters.lost_bytes += unread.saturating_sub(copy.unread());
        chain.rotated(copy.modified_ns());
        if copy.unread() == 0 && !self.places.contains_key(&copy.identity) {
            chain.is_done(copy.identity);
            self.drop_file(copy);
            return;
        }
        copy.place = Place::Rotated { since: now, replaced: true };
        if copy.watch.is_none() {
            copy.watch = self.watcher.watch_file(copy.file(), path, &self.root);
        }
        self.owners.insert(copy.identity, path.clone());
        chain.files.insert(at.unwrap_or(chain.files.len()), copy);
    }

    /// A copy of what a record says was in a log, beside it; the newest. Where little was read, a copy from
    /// before may begin alike: it has to be younger.
    fn find_copy(&self, home: &Path, record: &Record, now: Instant) -> Option<Follow> {
        if record.head.is_empty() {
            return None;
        }
        let may_be = |kin: &Kin| match record.offset {
            0 => kin.modified_ns > record.modified_ns,
            offset if offset <= HEAD as u64 => {
                kin.size >= offset && kin.modified_ns >= record.modified_ns
            }
            offset => kin.size >= offset,
        };
        kin::of(home).into_iter().rev().filter(may_be).find_map(|kin| {
            let mut file = Follow::open(&kin.path, now).ok()?;
            let is_free = !self.owners.contains_key(&file.identity);
            (is_free && file.resume_copy(record).ok()?).then_some(file)
        })
    }

    /// A copy whose original was not truncated: all of it has been read there.
    pub(super) fn release(&mut self, path: &Rc<str>, chain: &mut Chain, mut copy: Follow) {
        if self.places.contains_key(&copy.identity) {
            copy.skip_all();
            copy.watch = self.watcher.watch_file(copy.file(), path, &self.root);
            chain.push_rotated(copy, Instant::now());
        } else {
            chain.is_done(copy.identity);
            self.drop_file(copy);
        }
    }

    /// Looks for files that rotation made of a log and that nobody has seen under its name: what was
    /// renamed twice is read before what is there now, a copy of what is there is kept.
    pub(super) fn relatives(&mut self, path: &Rc<str>, now: Instant) {
        let Some(mut chain) = self.chains.remove(path) else { return };
        // What was cut off is looked for before what nobody has read: it may be one and the same.
        for _ in 0..chain.files.len() {
            if !self.cut(path, &mut chain, now) {
                break;
            }
        }
        let mut before_ns = 0;
        let home = self.root.home(Path::new(&**path));
        for kin in kin::of(&home) {
            if chain.files.iter().any(|file| file.identity == kin.identity) {
                before_ns = kin.modified_ns;
            }
            let is_known = self.owners.contains_key(&kin.identity)
                || chain.done.contains(&kin.identity)
                || chain.files.len() >= MAX_RECORDS * 3 / 4
                || self.owners.len() >= self.limits.max_files;
            if is_known {
                continue;
            }
            let Ok(file) = Follow::open(&kin.path, now) else { continue };
            match self.role(&chain, &file, &kin, before_ns) {
                Role::Copy => self.keep_copy(path, &mut chain, file, now),
                Role::Unseen => {
                    self.counters.rotations += 1;
                    let mut file = file;
                    file.watch = self.watcher.watch_file(file.file(), path, &self.root);
                    self.owners.insert(file.identity, path.clone());
                    chain.push_rotated(file, now);
                    before_ns = kin.modified_ns;
                }
                Role::Unknown => {
                    // A copy that is being made, of contents that may be gone at the next look.
                    if let Some(file) = chain.files.back_mut() {
                        file.learn(now);
                    }
                    self.undecided.insert(path.clone());
                }
                Role::Other => {}
            }
        }
        chain.born_ns = 0;
        self.chains.insert(path.clone(), chain);
        self.enqueue(path);
    }

    fn role(&self, chain: &Chain, file: &Follow, kin: &Kin, before_ns: i64) -> Role {
        let current = chain.current();
        if current.is_some_and(|current| file.is_copy_of(current).unwrap_or_default()) {
            return Role::Copy;
        }
        let is_new = chain.is_unseen(kin.modified_ns, before_ns);
        if self.places.contains_key(&kin.identity) || !is_new {
            return Role::Other;
        }
        if kin.size == 0 {
            return Role::Unknown;
        }
        // A copy of what was read before its contents were cut off.
        let was_read = !chain.cut.is_empty() && file.begins_with(chain.cut).unwrap_or_default();
        // Cut off just now, or grown again since.
        if current.is_some_and(|current| file.has_head_of(current).unwrap_or_default()) {
            return Role::Copy;
        }
        let too_old = chain.born_ns > 0 && kin.born_ns().is_none_or(|born| born <= chain.born_ns);
        if was_read || too_old { Role::Other } else { Role::Unseen }
    }

    /// Keeps hold of a copy until its original is truncated.
    pub(super) fn keep_copy(
        &mut self,
        path: &Rc<str>,
        chain: &mut Chain,
        copy: Follow,
        now: Instant,
    ) {
        self.owners.insert(copy.identity, path.clone());
        if let Some(before) = chain.copy.replace(Box::new(copy)) {
            self.release(path, chain, *before);
        }
        if chain.files.back_mut().is_some_and(Follow::is_cut) {
            self.cut(path, chain, now);
        }
    }
}

/// What a file beside a log is to it.
enum Role {
    /// A copy of what is at its path.
    Copy,
    /// It was at its path, and nobody has read it.
    Unseen,
    /// Too short to say.
    Unknown,
    Other,
}

/// Whether something is there that can't be opened, for want of rights or descriptors, say.
fn is_out_of_reach(home: &Path, now: Instant) -> bool {
    let Err(OpenError::Io(error)) = Follow::open(home, now) else { return false };
    !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Adds where in a directory these inodes are.
fn find(directory: &Path, wanted: &BTreeSet<u64>, found: &mut HashMap<u64, Vec<PathBuf>>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| wanted.contains(&entry.ino())) {
        found.entry(entry.ino()).or_default().push(entry.path());
    }
}

/// Whether a file's name begins with another's.
fn starts_like(candidate: &Path, path: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec());
    name(candidate).zip(name(path)).is_some_and(|(candidate, own)| candidate.starts_with(&own))
}
