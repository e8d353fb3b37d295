//! An attack by mounts: up to 5,120 of them, real ones, in a mount namespace of the agent's own.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Attack, Field, quoted};

pub(crate) struct Mounts {
    /// A /proc in which the agent's own mounts are those of the host.
    proc: tempfile::TempDir,
    point: tempfile::TempDir,
    doublings: usize,
}

impl Mounts {
    /// Five, doubled so often, at most ten times.
    pub(crate) fn new(doublings: usize) -> Mounts {
        let proc = tempfile::tempdir().unwrap();
        for entry in fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            symlink(format!("/proc/{name}"), proc.path().join(name)).unwrap();
        }
        symlink("/proc/self", proc.path().join("1")).unwrap();
        Mounts { proc, point: tempfile::tempdir().unwrap(), doublings }
    }
}

impl Attack for Mounts {
    fn name(&self) -> &'static str {
        "mounts"
    }

    fn host(&self) -> String {
        format!("proc = {}\n", quoted(self.proc.path()))
    }

    /// Each bind takes all that is below along.
    fn before(&self) -> String {
        format!(
            "d={}\nmount -t tmpfs -o size=1M siege $d\n\
             for i in 1 2 3 4; do mkdir $d/$i; mount -t tmpfs -o size=1M siege $d/$i; done\n\
             for i in {}; do mkdir $d/$i; mount --rbind $d $d/$i; done\n",
            quoted(self.point.path()),
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"][..self.doublings].join(" "),
        )
    }

    fn check(&self, field: &Field) {
        let mounts = field.mimir.find("node_filesystem_device_error", &[]);
        assert!(mounts.len() > 5 << (self.doublings - 1), "{} mounts are told", mounts.len());
    }
}
