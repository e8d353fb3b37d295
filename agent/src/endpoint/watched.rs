//! Whether files are other ones than when they were read last: by device, inode, size and times. It must not
//! know what they hold.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What a file is told from its successor by. A symbolic link is followed, so that a link that leads elsewhere is
/// a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Of its inode: rights, too.
    changed: (i64, i64),
}

#[derive(Debug)]
pub(super) struct Watched {
    /// A file that can't be looked at has no stamp.
    files: Vec<(PathBuf, Option<Stamp>)>,
}

impl Watched {
    /// To be made before the files are read: what is written after that is a change.
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Watched {
        let file = |path: PathBuf| {
            let stamp = stamp(&path);
            (path, stamp)
        };
        Watched { files: paths.into_iter().map(file).collect() }
    }

    /// Whether one has changed since the last call. To be asked before they are read, as well.
    pub(super) fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, have) in &mut self.files {
            let now = stamp(path);
            changed |= now != *have;
            *have = now;
        }
        changed
    }
}

fn stamp(path: &std::path::Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let link = dir.path().join("link");
        std::fs::write(&path, "one").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut watched = Watched::new([link.clone(), dir.path().join("missing")]);
        let mut once = |what: &str| {
            assert!(watched.changed(), "{what}");
            assert!(!watched.changed(), "{what}");
        };
        std::fs::write(&path, "longer").unwrap();
        once("its size");
        std::fs::write(&other, "longer").unwrap();
        std::fs::rename(&other, &path).unwrap();
        once("its inode");
        std::fs::write(&other, "longer").unwrap();
        std::fs::remove_file(&link).unwrap();
        once("gone");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        once("the link's target");
        std::fs::write(dir.path().join("missing"), "").unwrap();
        once("come");
    }
}
