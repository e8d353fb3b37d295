//! Since when a group is there: the time of its folder or of its list of processes, whichever is older, as
//! cAdvisor takes it.
//!
//! The kernel keeps such a time from when somebody first looks (`kernfs_init_inode`), or from when systemd
//! notes something at the group; and may forget it when nobody does. It is therefore looked at in each round,
//! and the oldest counts for as long as the folder is the same one.

use rustix::fs::{Stat, stat};

use crate::host::{Host, Root};

/// The age of one group.
#[derive(Debug, Default)]
pub(super) struct Age {
    inode: u64,
    /// Seconds since 1970.
    since: Option<f64>,
}

#[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
impl Age {
    /// Looks at the group at this path, and gives since when it is there.
    pub(super) fn since(&mut self, host: &mut Host, tree: &str, path: &str) -> Option<f64> {
        let folder = stat(host.path(Root::Sys, format_args!("{tree}{path}"))).ok()?;
        let list = stat(host.path(Root::Sys, format_args!("{tree}{path}/cgroup.procs"))).ok()?;
        let now = modified(&folder).min(modified(&list));
        if self.inode != folder.st_ino as u64 {
            *self = Age { inode: folder.st_ino as u64, since: None };
        }
        let since = self.since.map_or(now, |before| before.min(now));
        self.since = Some(since);
        self.since
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
fn modified(stat: &Stat) -> f64 {
    // Whole, as cAdvisor gives it.
    stat.st_mtime as i64 as f64
}

#[cfg(test)]
mod tests {
    use std::fs::{File, remove_dir_all};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::host::Roots;

    #[test]
    fn the_oldest_time_of_a_folder_counts_until_it_is_another_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tree/x");
        let make = |seconds| {
            std::fs::create_dir_all(&folder).unwrap();
            let list = File::create(folder.join("cgroup.procs")).unwrap();
            list.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        let mut host = Host::new(Roots { sys: root.path().into(), ..Roots::default() });
        let mut age = Age::default();
        assert_eq!(age.since(&mut host, "tree", "/x"), None);
        make(1_000);
        assert_eq!(age.since(&mut host, "tree", "/x"), Some(1_000.0));
        make(2_000);
        assert_eq!(age.since(&mut host, "tree", "/x"), Some(1_000.0), "it was forgotten");
        // So that the new folder can't get the old one's number.
        std::fs::rename(&folder, root.path().join("tree/old")).unwrap();
        make(3_000);
        assert_eq!(age.since(&mut host, "tree", "/x"), Some(3_000.0), "it is another one");
        remove_dir_all(&folder).unwrap();
        assert_eq!(age.since(&mut host, "tree", "/x"), None);
    }
}
