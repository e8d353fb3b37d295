//! Looking where the files are: new ones are opened, renamed ones noticed. It must not read lines.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use std::time::Duration;

use tokio::time::Instant;

use super::StartAt;
use super::chain::{Chain, Save};
use super::follow::{Follow, OpenError, Place};
use super::kin;
use super::pattern::Found;
use super::position::{Identity, MAX_RECORDS};
use super::source::FileSource;
use super::times::modified_ns;

/// How many directories are watched at most; the rest is found by looking.
const MAX_DIRECTORIES: usize = 4096;

/// How long a copy is kept that has been removed while its original is as it was.
const KEEP_COPY: Duration = Duration::from_secs(60);

/// What the patterns lead to now: paths of regular files and their section.
pub(super) struct Sight {
    pub(super) at: BTreeMap<Rc<str>, (Identity, usize)>,
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
            section.patterns.directories(&self.root, &mut directories, MAX_DIRECTORIES);
        }
        let parent = |target: &PathBuf| target.parent().map(Path::to_owned);
        directories.extend(self.targets.iter().filter_map(parent).take(MAX_DIRECTORIES));
        self.watcher.retry();
        self.watcher.watch_directories(&directories, &self.root);
        let sight = self.sight();
        let known = |id, path| self.owners.get(id).filter(|own| *own == path).unwrap_or(path);
        let places = sight.at.iter().map(|(path, (id, _))| (*id, known(id, path).clone()));
        self.places = places.collect();
        let mut rotated = BTreeSet::new();
        if !self.stored.is_empty() {
            rotated = self.restore(&sight, now);
        }
        self.place(&sight, now);
        self.adopt_new(&sight, now);
        self.heirs(&mut rotated);
        for path in rotated {
            self.relatives(&path, now);
        }
        // Beside these nothing new was seen.
        self.chains.values_mut().for_each(|chain| chain.settle_all());
        self.looked = true;
        self.troubles.retain(|path, trouble| {
            sight.bad.contains(path)
                || self.chains.contains_key(path.as_str())
                || sight
                    .at
                    .get(path.as_str())
                    .is_some_and(|(id, _)| trouble.ignored.is_none_or(|ignored| ignored == *id))
        });
    }

    /// Adds the logs of which new names may be rotated ones.
    fn heirs(&mut self, out: &mut BTreeSet<Rc<str>>) {
        out.append(&mut self.undecided);
        let newcomers = std::mem::take(&mut self.newcomers);
        if newcomers.is_empty() {
            return;
        }
        let newcomers: Vec<PathBuf> = newcomers.iter().map(|path| self.root.real(path)).collect();
        for path in self.chains.keys() {
            let home = self.root.home(Path::new(&**path));
            if newcomers.iter().any(|newcomer| kin::is_kin(&home, newcomer)) {
                out.insert(path.clone());
            }
        }
    }

    fn sight(&mut self) -> Sight {
        let mut at = BTreeMap::new();
        let mut troubles: Vec<(String, String)> = Vec::new();
        let mut targets = BTreeSet::new();
        let limit = self.limits.max_files.saturating_mul(16);
        for (index, section) in self.sections.iter().enumerate() {
            section.patterns.expand(&self.root, &mut |found| {
                let path = match found {
                    Found::Path(path) => path,
                    Found::NotUtf8(path) => {
                        let path = path.to_string_lossy().into_owned();
                        troubles.push((path, "the name is not UTF-8, ignored".to_owned()));
                        return;
                    }
                    Found::Error(path, error) => {
                        troubles.push((path.to_string_lossy().into_owned(), error.to_string()));
                        return;
                    }
                };
                if at.contains_key(path.as_str()) || at.len() >= limit {
                    return;
                }
                targets.extend(self.root.target(Path::new(&path)));
                match std::fs::metadata(self.root.real(Path::new(&path))) {
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
            });
        }
        // Where they lead is watched from the next scan on.
        self.scan_due |= !targets.is_subset(&self.targets);
        self.targets = targets;
        let mut bad = BTreeSet::new();
        for (path, text) in troubles {
            self.trouble(&path, &text, None);
            bad.insert(path);
        }
        Sight { at, bad }
    }

    /// Notes which files are where they were.
    fn place(&mut self, sight: &Sight, now: Instant) {
        let (mut stirred, mut copies) = (Vec::new(), Vec::new());
        for (path, chain) in &mut self.chains {
            let here = sight.at.get(path).map(|(identity, _)| *identity);
            let mut rotated_ns = 0;
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
                    file.watch = self.watcher.watch_file(file.file(), path, &self.root);
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
                rotated_ns = rotated_ns.max(file.modified_ns());
            }
            chain.rotated(rotated_ns);
            // Its original will not be truncated any more, or the copy was somebody's own.
            let is_stale = |copy: &Follow| {
                copy.is_unlinked() && now.saturating_duration_since(copy.grew) > KEEP_COPY
            };
            if chain.copy.as_deref().is_some_and(is_stale) || chain.current().is_none() {
                copies.extend(chain.copy.take().map(|copy| (path.clone(), *copy)));
            }
        }
        for (path, copy) in copies {
            if let Some(mut chain) = self.chains.remove(&path) {
                self.release(&path, &mut chain, copy);
                self.chains.insert(path, chain);
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
            // It could not be opened a moment ago: the next scan goes on where its position says.
            let waits = self.stored.contains_key(&**path);
            let full = self.chains.get(path).is_some_and(|c| c.files.len() >= MAX_RECORDS);
            if full || self.owners.len() >= self.limits.max_files {
                skipped += 1;
                continue;
            }
            if self.is_too_old(path, section) {
                continue;
            }
            match Follow::open(&self.root.real(Path::new(&**path)), now) {
                // Another file by now, and one that is followed: the next scan sees it.
                Ok(file) if waits || self.owners.contains_key(&file.identity) => {
                    self.scan_due = true;
                }
                Ok(mut file) => {
                    self.recovered(path);
                    if let Some(of) = self.original(path, &file) {
                        if let Some(mut chain) = self.chains.remove(&of) {
                            self.keep_copy(&of, &mut chain, file, now);
                            self.chains.insert(of, chain);
                        }
                        continue;
                    }
                    if !self.looked && self.sections[section].start_at == StartAt::End {
                        // What fails now fails again when it is read.
                        let _ = file.skip_lines();
                    }
                    file.watch = self.watcher.watch_file(file.file(), path, &self.root);
                    self.owners.insert(file.identity, path.clone());
                    let section = &self.sections[section];
                    let chain = self
                        .chains
                        .entry(path.clone())
                        .or_insert_with(|| Box::new(Chain::new(self.prefix, path, section)));
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

    fn is_too_old(&self, path: &str, section: usize) -> bool {
        let Some(bound) = self.sections[section].ignore_older else { return false };
        let Ok(metadata) = std::fs::metadata(self.root.real(Path::new(path))) else { return false };
        let age = self.clock.now_ns().saturating_sub(modified_ns(&metadata));
        u128::try_from(age).is_ok_and(|age| age > bound.as_nanos())
    }

    /// The path of the log that a file at a matched path is a copy of.
    fn original(&self, path: &Rc<str>, file: &Follow) -> Option<Rc<str>> {
        if !kin::is_stamped(Path::new(&**path)) {
            return None;
        }
        let own = self.root.home(Path::new(&**path));
        let is_original = |of: &str, chain: &Chain| {
            chain.current().is_some_and(|current| {
                kin::is_kin(&self.root.home(Path::new(of)), &own)
                    && file.is_copy_of(current).unwrap_or_default()
                    && !file.goes_beyond(current).unwrap_or_default()
            })
        };
        self.chains.iter().find(|(of, chain)| is_original(of, chain)).map(|(of, _)| of.clone())
    }
}
