//! Looking where the files are: new ones are opened, renamed ones noticed, and, the first time,
//! the files that stored positions name found again. It must not read lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::time::Instant;

use super::chain::{Chain, Save};
use super::follow::{Follow, OpenError, Place};
use super::pattern::Found;
use super::position::{Identity, MAX_RECORDS, Record};
use super::source::FileSource;

/// How many directories are watched at most; the rest is found by looking.
const MAX_DIRECTORIES: usize = 4096;

/// How often to look for a file that may be renamed while it is looked for.
const FIND_ATTEMPTS: usize = 3;

/// What the patterns lead to now: paths of regular files and their section.
struct Sight {
    at: BTreeMap<Rc<str>, (Identity, usize)>,
    /// Paths with a trouble now.
    bad: BTreeSet<String>,
}

impl FileSource {
    /// Looks for new, renamed and removed files now. [`read`](FileSource::read) does it when it is
    /// due; only who may not read for a long time needs it, so that a file which is rotated away and
    /// removed meanwhile is held open.
    pub fn scan(&mut self) {
        self.scan_due = false;
        let now = Instant::now();
        // Watches first: what appears after them makes an event, what was there before is seen.
        let mut directories = BTreeSet::new();
        for section in &self.sections {
            section.patterns.directories(&mut directories, MAX_DIRECTORIES);
        }
        self.watcher.retry();
        self.watcher.watch_directories(&directories);
        let sight = self.sight();
        self.places = sight.at.iter().map(|(path, (id, _))| (*id, path.clone())).collect();
        if !self.stored.is_empty() {
            self.restore(&sight, now);
        }
        self.place(&sight, now);
        self.adopt_new(&sight, now);
        self.troubles.retain(|path, trouble| {
            sight.bad.contains(path)
                || self.chains.contains_key(path.as_str())
                || sight
                    .at
                    .get(path.as_str())
                    .is_some_and(|(id, _)| trouble.ignored.is_none_or(|ignored| ignored == *id))
        });
    }

    fn sight(&mut self) -> Sight {
        let mut at = BTreeMap::new();
        let mut troubles: Vec<(String, String)> = Vec::new();
        let limit = self.limits.max_files.saturating_mul(16);
        for (index, section) in self.sections.iter().enumerate() {
            for found in section.patterns.expand() {
                let path = match found {
                    Found::Path(path) => path,
                    Found::NotUtf8(path) => {
                        let path = path.to_string_lossy().into_owned();
                        troubles.push((path, "the name is not UTF-8, ignored".to_owned()));
                        continue;
                    }
                    Found::Error(path, error) => {
                        troubles.push((path.to_string_lossy().into_owned(), error.to_string()));
                        continue;
                    }
                };
                if at.contains_key(path.as_str()) || at.len() >= limit {
                    continue;
                }
                match std::fs::metadata(&path) {
                    Ok(data) if data.is_file() => {
                        let identity = Identity { device: data.dev(), inode: data.ino() };
                        at.insert(Rc::from(path), (identity, index));
                    }
                    // `/var/log/*` means its files.
                    Ok(data) if data.is_dir() => {}
                    Ok(_) => troubles.push((path, OpenError::NotRegular.to_string())),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => troubles.push((path, error.to_string())),
                }
            }
        }
        let mut bad = BTreeSet::new();
        for (path, text) in troubles {
            self.trouble(&path, &text, None);
            bad.insert(path);
        }
        Sight { at, bad }
    }

    /// Finds again what an earlier run followed.
    fn restore(&mut self, sight: &Sight, now: Instant) {
        let mut stored = std::mem::take(&mut self.stored);
        stored.retain(|path, _| self.section(path).is_some());
        let mut elsewhere = moved(&stored, sight);
        for (path, records) in stored {
            let Some(section) = self.section(&path) else { continue };
            let path: Rc<str> = Rc::from(path);
            let mut chain = Chain::new(self.prefix, &path, &self.sections[section]);
            for record in records {
                match self.find_again(&path, &record, &mut elsewhere, now) {
                    Some(mut file) => {
                        file.watch = self.watcher.watch_file(file.file(), &path);
                        self.owners.insert(file.identity, path.clone());
                        chain.files.push_back(file);
                    }
                    None => {
                        self.counters.lost_files += 1;
                        log::warn!(
                            "log file {path}: the file that was read up to byte {} is gone",
                            record.offset
                        );
                        chain.save(Save::Now);
                    }
                }
            }
            self.chains.insert(path.clone(), chain);
            self.enqueue(&path);
        }
    }

    fn find_again(
        &mut self,
        path: &str,
        record: &Record,
        elsewhere: &mut HashMap<u64, Vec<PathBuf>>,
        now: Instant,
    ) -> Option<Follow> {
        let (path, inode) = (Path::new(path), record.identity.inode);
        for attempt in 0..FIND_ATTEMPTS {
            if attempt > 0 {
                // Renamed since we looked, perhaps.
                let mut found = HashMap::new();
                find(path.parent()?, &BTreeSet::from([inode]), &mut found);
                elsewhere.extend(found);
            }
            if let Some(file) = self.resume(path, record, false, now) {
                return Some(file);
            }
            for candidate in elsewhere.get(&inode).into_iter().flatten() {
                // Nothing is known of an empty file's beginning but its name: `app.log.1` may be it.
                let is_kin = !record.is_blank() || starts_like(candidate, path);
                if is_kin
                    && candidate.parent() == path.parent()
                    && let Some(file) = self.resume(candidate, record, candidate != path, now)
                {
                    return Some(file);
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
    ) -> Option<Follow> {
        let is_inode = |data: std::fs::Metadata| data.ino() == record.identity.inode;
        if !std::fs::metadata(candidate).is_ok_and(is_inode) {
            return None;
        }
        let mut file = Follow::open(candidate, now).ok()?;
        let is_free = !self.owners.contains_key(&file.identity);
        (is_free && file.resume(record, elsewhere, &mut self.counters).unwrap_or_default())
            .then_some(file)
    }

    /// Notes which files are where they were.
    fn place(&mut self, sight: &Sight, now: Instant) {
        let mut stirred = Vec::new();
        for (path, chain) in &mut self.chains {
            let here = sight.at.get(path).map(|(identity, _)| *identity);
            // A file that has come back to its path is the newest again.
            if let Some(index) = chain.files.iter().position(|f| Some(f.identity) == here)
                && index + 1 < chain.files.len()
                && let Some(file) = chain.files.remove(index)
            {
                chain.files.push_back(file);
                chain.save(Save::Now);
            }
            for file in &mut chain.files {
                if file.watch.is_none() {
                    file.watch = self.watcher.watch_file(file.file(), path);
                    if file.watch.is_some() {
                        // What was written before the watch makes no event.
                        stirred.push(path.clone());
                    }
                }
                if Some(file.identity) == here {
                    file.place = Place::Current;
                    continue;
                }
                let replaced = here.is_some()
                    || self.places.contains_key(&file.identity)
                    || (file.is_unlinked() && !chain.pinned);
                let since = match file.place {
                    Place::Rotated { since, .. } => since,
                    Place::Current => {
                        self.counters.rotations += 1;
                        stirred.push(path.clone());
                        now
                    }
                };
                file.place = Place::Rotated { since, replaced };
            }
        }
        for path in stirred {
            self.enqueue(&path);
        }
    }

    /// Opens what nobody follows yet.
    fn adopt_new(&mut self, sight: &Sight, now: Instant) {
        let mut skipped = 0;
        for (path, &(identity, section)) in &sight.at {
            let ignored = self.troubles.get(&**path).and_then(|trouble| trouble.ignored);
            if self.owners.contains_key(&identity) || ignored == Some(identity) {
                continue;
            }
            let full = self.chains.get(path).is_some_and(|c| c.files.len() >= MAX_RECORDS);
            if full || self.owners.len() >= self.limits.max_files {
                skipped += 1;
                continue;
            }
            match Follow::open(Path::new(&**path), now) {
                // Another file by now, and one that is followed: the next scan sees it.
                Ok(file) if self.owners.contains_key(&file.identity) => self.scan_due = true,
                Ok(mut file) => {
                    self.recovered(path);
                    file.watch = self.watcher.watch_file(file.file(), path);
                    self.owners.insert(file.identity, path.clone());
                    let section = &self.sections[section];
                    let chain = self
                        .chains
                        .entry(path.clone())
                        .or_insert_with(|| Chain::new(self.prefix, path, section));
                    chain.files.push_back(file);
                    chain.save(Save::Later);
                    self.enqueue(path);
                }
                Err(error) => {
                    if let OpenError::Io(source) = &error {
                        if source.kind() == std::io::ErrorKind::NotFound {
                            continue;
                        }
                        self.counters.errors += 1;
                    }
                    let ignored = matches!(error, OpenError::Compressed).then_some(identity);
                    self.trouble(path, &error.to_string(), ignored);
                }
            }
        }
        if (skipped > 0) != (self.skipped > 0) {
            if skipped > 0 {
                let limit = self.limits.max_files;
                log::warn!(
                    "{skipped} log files are not followed: {limit} are already (1000 at most, and \
                     fewer if `ulimit -n` or LimitNOFILE is near that)"
                );
            } else {
                log::info!("all log files are followed again");
            }
        }
        self.skipped = skipped;
    }
}

/// Where the inodes are that stored positions name and that are not where the position says, as far
/// as they are in the same directory.
fn moved(stored: &BTreeMap<String, Vec<Record>>, sight: &Sight) -> HashMap<u64, Vec<PathBuf>> {
    let mut wanted = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for (path, records) in stored {
        let here = sight.at.get(path.as_str()).map(|(identity, _)| identity.inode);
        for record in records.iter().filter(|record| Some(record.identity.inode) != here) {
            wanted.insert(record.identity.inode);
            directories.extend(Path::new(path).parent());
        }
    }
    let mut found = HashMap::new();
    for directory in directories {
        find(directory, &wanted, &mut found);
    }
    found
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
