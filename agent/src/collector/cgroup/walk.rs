//! Finds groups: one listing of each folder that may have some, in the order of names, without memory for
//! each. It must not know what is done with them.

use rustix::fs::stat;

use crate::host::{Host, Names, ReadError, Root};

/// How many levels of groups are followed. Kubernetes has 4, a user's own Podman 6.
const MAX_DEPTH: usize = 10;

/// How many folders are listed in one walk: those of a few hundred pods.
const MAX_LISTINGS: usize = 2_048;

/// Names of more than this are not kept for the next walk.
const MAX_KEPT: usize = 1_024;

/// What to do with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, or what was to be done is done.
    Pass,
    /// List it.
    Enter,
    /// List it if it has groups of its own.
    EnterIfParted,
}

/// The buffers of a walk.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The group where the walk is, with a slash before each name; empty is the tree's root.
    path: String,
    /// The names in each folder from the root to there.
    names: Vec<Names>,
    listings: usize,
}

impl Walk {
    /// Walks the tree; `visit` gets the path of the group above and a name in it, which may be that of a
    /// file.
    ///
    /// # Errors
    /// The tree's root can't be listed. What is below may have gone meanwhile.
    pub(super) fn walk(
        &mut self,
        host: &mut Host,
        tree: &str,
        visit: &mut dyn FnMut(&str, &str) -> Step,
    ) -> Result<(), ReadError> {
        self.path.clear();
        self.listings = 0;
        self.enter(host, tree, 0, visit)
    }

    fn enter(
        &mut self,
        host: &mut Host,
        tree: &str,
        depth: usize,
        visit: &mut dyn FnMut(&str, &str) -> Step,
    ) -> Result<(), ReadError> {
        if depth >= MAX_DEPTH || self.listings >= MAX_LISTINGS {
            return Ok(());
        }
        self.listings += 1;
        if self.names.len() <= depth {
            self.names.resize_with(depth + 1, Names::new);
        }
        // Away from `self` while the levels below use it.
        let mut names = self.names.get_mut(depth).map(std::mem::take).unwrap_or_default();
        let listed = host.list(Root::Sys, format_args!("{tree}{}", self.path), &mut names);
        if listed.is_ok() {
            for name in names.iter() {
                let step = visit(&self.path, name);
                if step == Step::Pass {
                    continue;
                }
                let length = self.path.len();
                self.path.push('/');
                self.path.push_str(name);
                if step == Step::Enter || is_parted(host, tree, &self.path) {
                    // Not a folder, or gone.
                    let _ = self.enter(host, tree, depth + 1, visit);
                }
                self.path.truncate(length);
            }
        }
        if names.len() <= MAX_KEPT
            && let Some(place) = self.names.get_mut(depth)
        {
            *place = names;
        }
        listed
    }
}

/// Whether a group has groups of its own: kernfs counts a link for each (`kernfs_refresh_inode`). A file
/// system that counts none has 1.
fn is_parted(host: &mut Host, tree: &str, path: &str) -> bool {
    stat(host.path(Root::Sys, format_args!("{tree}{path}"))).is_ok_and(|stat| stat.st_nlink != 2)
}
