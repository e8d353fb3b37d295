//! node_exporter's `textfile`: the samples of the files `*.prom` in the user's directories, as version 1.5.0
//! takes them. The directories lie below the host's root, and are named without it.
//!
//! - A file that can't be read or is malformed gives nothing at all, and costs no other file anything.
//! - A family has the type and the help text of the first file that has it; what later files say
//!   otherwise about it costs their samples of it. Without a HELP line the text is made up, and differs
//!   from any that is written. Of a series that comes twice, the first counts.
//! - Series of a family in one file get the labels of the others, empty.
//! - Timestamps of the writer's are an error.
//!
//! Files are read again when one of them has changed, all of them, and the samples are kept in between:
//! [`MAX_SAMPLES`] of them at most, of [`MAX_FILES`] files of at most 4 MiB.
//!
//! Differences: an error of any file is the collector's error too (`node_scrape_collector_success`); a
//! directory or pipe named `x.prom` is one, which 1.5.0 passes over and newer versions tell; a bucket
//! without `le`, and a sample of a histogram or summary that is no part of it, is malformed.

mod directories;
mod families;
mod parts;
mod store;

use std::time::{SystemTime, UNIX_EPOCH};

use super::parse::FirstError;
use super::{CollectError, Collector, TextfileOptions};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};
use directories::{Directories, Files, Stamp};
use families::Reading;
use store::Store;

const MTIME: Desc =
    Desc::gauge("node_textfile_mtime_seconds", "Unixtime mtime of textfiles successfully read.");
const SCRAPE_ERROR: Desc = Desc::gauge(
    "node_textfile_scrape_error",
    "1 if there was an error opening or reading a file, 0 otherwise",
);

/// The most samples of all files, that is as many as `metrics.max_series` can be.
const MAX_SAMPLES: usize = 60_000;
/// The most files.
const MAX_FILES: usize = 1_000;

/// A file that was changed as little as this before it was read may change again without its times saying
/// so (FAT keeps every second second).
const COARSEST_CLOCK: i64 = 2;

/// What was wrong with the files when they were read.
#[derive(Debug)]
struct Failure {
    /// The file and its line.
    place: String,
    token: String,
    expected: &'static str,
}

/// Samples that users write.
pub(super) struct Textfile {
    directories: Directories,
    /// As they are in this round.
    found: Files,
    /// As they were when they were read.
    read: Files,
    /// Whether what was read may have changed unseen.
    again: bool,
    store: Store,
    failure: Option<Failure>,
}

impl Textfile {
    pub(super) fn new(options: &TextfileOptions) -> Textfile {
        Textfile {
            directories: Directories::new(&options.directories),
            found: Files::default(),
            read: Files::default(),
            again: true,
            store: Store::default(),
            failure: None,
        }
    }
}

impl Collector for Textfile {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.found.clear();
        self.directories.find(host, &mut self.found, &mut errors);
        if self.again || self.found != self.read {
            std::mem::swap(&mut self.found, &mut self.read);
            self.read_all(host, &mut errors);
        }
        if let Some(failure) = &self.failure {
            let place = &failure.place;
            errors.note(CollectError::parse(place, &failure.token, failure.expected));
        }
        self.store.write(out);
        let mut family = out.family(&MTIME);
        for (path, file) in self.read.iter().filter(|(_, file)| file.good) {
            if let Some(stamp) = file.stamp {
                family.add(&[("file", path)], stamp.modified as f64);
            }
        }
        let bad = self.read.iter().any(|(_, file)| !file.good) || self.directories.failed();
        out.value(&SCRAPE_ERROR, f64::from(u8::from(bad)));
        errors.result()
    }
}

impl Textfile {
    fn read_all(&mut self, host: &mut Host, errors: &mut FirstError) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let settled =
            |stamp: Stamp| stamp.changed.max(stamp.modified) + COARSEST_CLOCK < now as i64;
        self.again = false;
        self.failure = None;
        let mut reading = Reading::default();
        for index in 0..self.read.len() {
            let Some((path, file)) = self.read.get_mut(index) else { break };
            file.good = false;
            let stamp = match file.stamp {
                Some(stamp) if stamp.regular => stamp,
                Some(_) => {
                    let source = std::io::Error::other("it is no regular file");
                    errors
                        .note(CollectError::System { attempt: format!("reading {path}"), source });
                    self.again = true;
                    continue;
                }
                // Its error has been told.
                None => {
                    self.again = true;
                    continue;
                }
            };
            self.again |= !settled(stamp);
            match host.root(path) {
                Ok(bytes) => match reading.add(path, bytes) {
                    Ok(()) => file.good = true,
                    Err(failure) => drop(self.failure.get_or_insert(failure)),
                },
                Err(error) => {
                    self.again = true;
                    errors.note(CollectError::Read(error));
                }
            }
        }
        let failure = reading.finish(&mut self.store);
        self.failure = self.failure.take().or(failure);
    }
}

/// A path that begins with a slash, below the host's root.
const ROOT: Root = Root::Root;

#[cfg(test)]
mod tests;
