//! The files beside a log that rotation makes of it: what their names look like, in which order they
//! were written, and what is in a directory. It must not know chains or positions.
//!
//! A rotated name is the log's own with a number, a date or a time at its end, or before its last
//! extension (`app.log.1`, `app.log-20260301`, `app.log.2026-03-01T10:00:00.123`, `app-20260301.log`,
//! `app.1.log`), or with `old`. Anything else, `app.log.err` say, is another log.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sort;

use super::position::Identity;
use super::times::{self, modified_ns};

/// How many files of one log are looked at.
const MAX_KIN: usize = 1024;

/// A file beside a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kin {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) size: u64,
    pub(super) modified_ns: i64,
    age: Age,
}

/// What a rotated name says of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Age {
    /// `.1` is newer than `.2`.
    Number(u32),
    /// A date, or nothing: what sorts later is newer.
    Text(OsString),
}

impl Age {
    fn of(stamp: &[u8]) -> Age {
        let number = std::str::from_utf8(stamp).ok().filter(|text| text.len() < 6);
        match number.and_then(|text| text.parse().ok()) {
            Some(number) => Age::Number(number),
            None => Age::Text(std::ffi::OsStr::from_bytes(stamp).to_owned()),
        }
    }
}

impl Kin {
    /// A file of a directory, if its name is a rotated one of `base`.
    pub(super) fn of(path: PathBuf, base: &[u8]) -> Option<Kin> {
        let age = Age::of(stamp(base, path.file_name()?.as_bytes())?);
        let metadata = std::fs::metadata(&path).ok().filter(|metadata| metadata.is_file())?;
        let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
        let (size, modified_ns) = (metadata.len(), modified_ns(&metadata));
        Some(Kin { path, identity, size, modified_ns, age })
    }

    /// When it was made, if the file system knows.
    pub(super) fn born_ns(&self) -> Option<i64> {
        times::born_ns(&self.path)
    }

    /// Which was written earlier; by name where the clock's grain is too coarse.
    pub(super) fn order(&self, other: &Kin) -> Ordering {
        self.modified_ns.cmp(&other.modified_ns).then_with(|| match (&self.age, &other.age) {
            (Age::Number(own), Age::Number(other)) => other.cmp(own),
            (Age::Text(own), Age::Text(other)) => own.cmp(other),
            _ => Ordering::Equal,
        })
    }
}

/// The rotated files of a log, the oldest first.
pub(super) fn of(log: &Path) -> Vec<Kin> {
    let (Some(directory), Some(base)) = (log.parent(), log.file_name()) else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_kin = |name: &std::ffi::OsStr| stamp(base.as_bytes(), name.as_bytes()).is_some();
    let names = entries.flatten().map(|entry| entry.file_name()).filter(|name| is_kin(name));
    let kin = |name| Kin::of(directory.join(name), base.as_bytes());
    let mut found: Vec<Kin> = names.filter_map(kin).take(MAX_KIN).collect();
    sort::stable_by(&mut found, Kin::order);
    found
}

/// Whether a file may be what rotation made of a log.
pub(super) fn is_kin(log: &Path, path: &Path) -> bool {
    let names = log.file_name().zip(path.file_name());
    log.parent() == path.parent()
        && names.is_some_and(|(base, name)| stamp(base.as_bytes(), name.as_bytes()).is_some())
}

/// Whether a name may be a rotated one of something.
pub(super) fn is_stamped(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.as_bytes()).unwrap_or_default();
    let marks = name.iter().enumerate().skip(1).filter(|(_, byte)| b".-_".contains(byte));
    let dot = name.iter().rposition(|&byte| byte == b'.').unwrap_or(name.len());
    marks.map(|(at, _)| at).any(|at| {
        name.get(at..).and_then(after_mark).is_some()
            || name.get(at..dot).and_then(after_mark).is_some()
    })
}

/// What makes a name a rotated one of `base`: `1` of `app.log.1`.
fn stamp<'a>(base: &[u8], name: &'a [u8]) -> Option<&'a [u8]> {
    if let Some(stamp) = name.strip_prefix(base).and_then(after_mark) {
        return Some(stamp);
    }
    let dot = base.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0)?;
    let (stem, extension) = base.split_at(dot);
    let suffix = name.strip_prefix(stem)?.strip_suffix(extension)?;
    // `node-2.log` is the second node's.
    after_mark(suffix).filter(|stamp| suffix.starts_with(b".") || stamp.len() >= 6)
}

fn after_mark(suffix: &[u8]) -> Option<&[u8]> {
    let (mark, stamp) = suffix.split_first()?;
    let is_stamp = |byte: &u8| byte.is_ascii_digit() || b"-_.:+TZ".contains(byte);
    let is_date = stamp.first().is_some_and(u8::is_ascii_digit) && stamp.iter().all(is_stamp);
    (b".-_".contains(mark) && (is_date || stamp == b"old")).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_are_told_from_other_logs() {
        let is = |base: &str, name: &str| stamp(base.as_bytes(), name.as_bytes()).is_some();
        for name in [
            "app.log.1",
            "app.log.0012",
            "app.log-20260301",
            "app.log.2026-03-01T10:00:00.5Z",
            "app-20260301.log",
            "app.1.log",
            "app.log.old",
        ] {
            assert!(is("app.log", name), "{name}");
            assert!(is_stamped(Path::new(name)), "{name}");
        }
        for name in [
            "app.log",
            "app.log.err",
            "app.log.",
            "app.log1",
            "app.log.1.gz",
            "app.log.1x",
            "app.2x.log",
            "ap.log.1",
            "app..log",
            "application.1.log",
            "app-2.log",
            "",
        ] {
            assert!(!is("app.log", name), "{name}");
        }
        assert!(is("syslog", "syslog.1") && is("0.log", "0.log.20260301-100000"));
        assert!(!is("0.log", "1.log") && !is(".log", "1.log"));
    }

    #[test]
    fn most_names_are_no_rotated_ones_of_anything() {
        for name in ["app.log", "syslog", ".1", "x", "", "app.log.gz", "a-b.log", "1.log"] {
            assert!(!is_stamped(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn the_oldest_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        for (name, seconds) in
            [("app.log.1", 5), ("app.log.2", 5), ("app.log.10", 5), ("app.log.3", 9), ("other", 1)]
        {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(time).unwrap();
        }
        std::fs::create_dir(dir.path().join("app.log.7")).unwrap();
        let names: Vec<_> =
            of(&log).iter().map(|kin| kin.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["app.log.10", "app.log.2", "app.log.1", "app.log.3"]);
        assert!(is_kin(&log, &dir.path().join("app.log.3")));
        assert!(!is_kin(&log, Path::new("/app.log.3")));
        assert_eq!(of(Path::new("/")), []);
    }
}
