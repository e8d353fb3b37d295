//! Where the hierarchies of control groups are, below /sys/fs/cgroup: one tree (cgroup v2), or a folder for
//! each v1 controller or pair of them (`cpu,cpuacct`), beside which a hybrid system has `unified`, a v2
//! tree without controllers that still has the times of stalls.
//!
//! The mount table is not asked: folders have the same names everywhere, and below `host.sys` its paths
//! would be another system's.

use crate::collector::CollectError;
use crate::host::{Host, Names, Root};

/// Where systemd, and everybody else since, mounts them.
const ROOT: &str = "fs/cgroup";

/// The folders of the controllers, below the root of /sys; none where the host has it not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether one v2 tree has all.
    pub(super) is_v2: bool,
    /// The tree in which groups are looked for.
    pub(super) tree: String,
    /// v2: the whole; hybrid: the tree without controllers.
    pub(super) unified: Option<String>,
    /// `cpu`
    pub(super) cpu: Option<String>,
    /// `cpuacct`; v1 only.
    pub(super) cpuacct: Option<String>,
    /// `memory`; switched off on the command line of Raspberry Pi OS.
    pub(super) memory: Option<String>,
    /// `io`; v1's `blkio`.
    pub(super) io: Option<String>,
    /// `pids`
    pub(super) pids: Option<String>,
}

impl Layout {
    /// Looks for them.
    ///
    /// # Errors
    /// There is no /sys/fs/cgroup, or nothing in it.
    pub(super) fn find(host: &mut Host) -> Result<Layout, CollectError> {
        if let Some(bytes) = host.find(Root::Sys, format_args!("{ROOT}/cgroup.controllers")) {
            let has = |name: &[u8]| {
                bytes.split(u8::is_ascii_whitespace).any(|word| word == name).then(|| ROOT.into())
            };
            return Ok(Layout {
                is_v2: true,
                tree: ROOT.into(),
                unified: Some(ROOT.into()),
                cpu: has(b"cpu"),
                cpuacct: None,
                memory: has(b"memory"),
                io: has(b"io"),
                pids: has(b"pids"),
            });
        }
        let mut names = Names::new();
        host.list(Root::Sys, ROOT, &mut names)?;
        let folder = |controller: &str| {
            // Of `cpu` and `cpu,cpuacct`, of which one is a link to the other, the first by name will do.
            let mut all = names.iter();
            let found = all.find(|name| name.split(',').any(|word| word == controller))?;
            Some(format!("{ROOT}/{found}"))
        };
        let layout = Layout {
            is_v2: false,
            tree: String::new(),
            unified: folder("unified"),
            cpu: folder("cpu"),
            cpuacct: folder("cpuacct"),
            memory: folder("memory"),
            io: folder("blkio"),
            pids: folder("pids"),
        };
        // systemd's own tree has every unit; without systemd, every runtime makes groups in the others.
        let trees = [
            &folder("systemd"),
            &layout.memory,
            &layout.cpuacct,
            &layout.pids,
            &layout.io,
            &layout.unified,
        ];
        let tree = trees.into_iter().flatten().next().cloned();
        match tree {
            Some(tree) => Ok(Layout { tree, ..layout }),
            None => {
                let none = std::io::ErrorKind::NotFound.into();
                host.path(Root::Sys, ROOT);
                Err(host.error(none).into())
            }
        }
    }
}
