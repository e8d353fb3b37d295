//! How many processes a group and the groups below it have, from their lists (cgroup.procs).

use rustix::fs::{CWD, Mode, OFlags, openat, stat};

use crate::host::{Host, Names, Root};

/// A container in which systemd runs has some thirty groups; of one with more, the number is not given.
const MAX_GROUPS: usize = 128;

/// As deep as containers in containers go.
const MAX_DEPTH: usize = 6;

/// Counts processes, with buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Processes {
    path: String,
    names: Vec<Names>,
    groups: usize,
}

impl Processes {
    /// Counts the processes at this path and below; none where it can't be known.
    pub(super) fn count(&mut self, host: &mut Host, tree: &str, path: &str) -> Option<u64> {
        self.path.clear();
        self.path.push_str(path);
        self.groups = 0;
        self.below(host, tree, 0)
    }

    fn below(&mut self, host: &mut Host, tree: &str, depth: usize) -> Option<u64> {
        self.groups += 1;
        if self.groups > MAX_GROUPS || depth > MAX_DEPTH {
            return None;
        }
        let folder = host.path(Root::Sys, format_args!("{tree}{}", self.path));
        // A folder has a link for each folder in it; see `walk`.
        let is_parted = stat(folder).ok()?.st_nlink != 2;
        let mut count = lines(host, tree, &self.path)?;
        if !is_parted {
            return Some(count);
        }
        if self.names.len() <= depth {
            self.names.resize_with(depth + 1, Names::new);
        }
        // Away from `self` while the levels below use it.
        let mut names = self.names.get_mut(depth).map(std::mem::take).unwrap_or_default();
        let listed = host.list(Root::Sys, format_args!("{tree}{}", self.path), &mut names);
        let mut complete = listed.is_ok();
        for name in names.iter().filter(|name| may_be_group(name)) {
            let length = self.path.len();
            self.path.push('/');
            self.path.push_str(name);
            let is_group = host.path(Root::Sys, format_args!("{tree}{}/cgroup.procs", self.path));
            if stat(is_group).is_ok() {
                match self.below(host, tree, depth + 1) {
                    Some(more) => count += more,
                    None => complete = false,
                }
            }
            self.path.truncate(length);
        }
        if let Some(place) = self.names.get_mut(depth) {
            *place = names;
        }
        complete.then_some(count)
    }
}

/// Whether this may be a group, and is none of the files that every group has.
fn may_be_group(name: &str) -> bool {
    const CONTROLLERS: [&str; 16] = [
        "cgroup.", "cpu.", "cpuacct.", "cpuset.", "memory.", "io.", "blkio.", "pids.", "hugetlb.",
        "rdma.", "misc.", "devices.", "freezer.", "net_", "irq.", "dmem.",
    ];
    !CONTROLLERS.iter().any(|controller| name.starts_with(controller))
        && !matches!(name, "tasks" | "notify_on_release" | "release_agent")
}

/// The lines of a list, which the kernel may hand out page by page. A group of threads has none to read
/// (EOPNOTSUPP).
fn lines(host: &mut Host, tree: &str, path: &str) -> Option<u64> {
    let list = host.path(Root::Sys, format_args!("{tree}{path}/cgroup.procs"));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(CWD, list, flags, Mode::empty()).ok()?;
    let mut chunk = [0; 4 << 10];
    let mut count = 0;
    // A million processes would take more; there are no more than 4 million.
    for _ in 0..8_192 {
        let length = match rustix::io::read(&file, &mut chunk) {
            Ok(0) => return Some(count),
            Ok(length) => length,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        };
        let read = chunk.get(..length).unwrap_or_default();
        count += read.iter().filter(|&&byte| byte == b'\n').count() as u64;
    }
    None
}
