//! When a file was written to and made, in ns since 1970. It must not know what files are for.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// When a file was last written to.
pub(super) fn modified_ns(metadata: &Metadata) -> i64 {
    nanoseconds(metadata.mtime(), metadata.mtime_nsec())
}

/// When the file at a path was made, if the file system knows (`STATX_BTIME` of statx(2); the standard
/// library asks for it with glibc only).
pub(super) fn born_ns(path: &Path) -> Option<i64> {
    born(rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BTIME).ok()?)
}

/// The same of an open file.
pub(super) fn file_born_ns(file: &File) -> Option<i64> {
    born(rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?)
}

fn born(statx: rustix::fs::Statx) -> Option<i64> {
    let is_known = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
    let time = statx.stx_btime;
    is_known.then(|| nanoseconds(time.tv_sec, time.tv_nsec.into()))
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_old_as_the_standard_library_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = File::create(&path).unwrap();
        let metadata = file.metadata().unwrap();
        let since = |time: std::time::SystemTime| {
            i64::try_from(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap()
        };
        assert_eq!(modified_ns(&metadata), since(metadata.modified().unwrap()));
        assert_eq!(born_ns(&path), file_born_ns(&file));
        // With musl the standard library does not know.
        if let Ok(born) = metadata.created() {
            assert_eq!(born_ns(&path), Some(since(born)));
        }
        assert_eq!(born_ns(&dir.path().join("b")), None);
    }
}
