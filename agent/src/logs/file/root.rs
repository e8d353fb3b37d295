//! Where the host's files are for this process: a path of the configuration is the host's, which in a
//! container is mounted elsewhere (`host.root`), and whose links lead to places of the host. It must
//! not know what the paths are of.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As the kernel's own bound.
const MAX_LINKS: usize = 40;

/// The host's root.
#[derive(Clone, Debug, Default)]
pub(in crate::logs) struct Root(Option<PathBuf>);

impl Root {
    pub(in crate::logs) fn new(root: &Path) -> Root {
        Root((root != Path::new("/") && !root.as_os_str().is_empty()).then(|| root.to_owned()))
    }

    /// The path by which this process finds what the host has there. Links are the host's.
    pub(in crate::logs) fn real(&self, path: &Path) -> PathBuf {
        match &self.0 {
            None => path.to_owned(),
            Some(_) => self.mounted(&self.resolve(path).unwrap_or_else(|| path.to_owned())),
        }
    }

    /// Where a link at the end leads to, as the host's path: there the files are that rotation makes of
    /// a log. The end may not exist. None: it is no link.
    pub(in crate::logs) fn target(&self, path: &Path) -> Option<PathBuf> {
        let is_link = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
        let near = match &self.0 {
            None => path.to_owned(),
            Some(_) => self.real(path.parent()?).join(path.file_name()?),
        };
        is_link(&near).then(|| self.resolve(path)).flatten()
    }

    /// As [`real`](Root::real), without a link at the end.
    pub(in crate::logs) fn home(&self, path: &Path) -> PathBuf {
        self.target(path).map_or_else(|| self.real(path), |target| self.mounted(&target))
    }

    fn mounted(&self, path: &Path) -> PathBuf {
        match &self.0 {
            None => path.to_owned(),
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// The host's path without links. None: they lead in circles.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let mut done = PathBuf::from("/");
        let mut links = 0;
        let mut todo: Vec<OsString> = Vec::new();
        push(&mut todo, path);
        while let Some(name) = todo.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(name);
            match std::fs::read_link(self.mounted(&next)) {
                Ok(to) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if to.is_absolute() {
                        done = PathBuf::from("/");
                    }
                    push(&mut todo, &to);
                }
                Err(_) => done = next,
            }
        }
        Some(done)
    }
}

fn push(todo: &mut Vec<OsString>, path: &Path) {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    todo.extend(path.components().rev().filter_map(name));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_to_places_of_the_host() {
        let host = tempfile::tempdir().unwrap();
        let at = |path: &str| host.path().join(path);
        fs::create_dir_all(at("var/log/pods/a")).unwrap();
        fs::create_dir_all(at("var/log/containers")).unwrap();
        symlink("/var/log/pods/a/0.log", at("var/log/containers/x.log")).unwrap();
        symlink("../pods/a/0.log", at("var/log/containers/y.log")).unwrap();
        symlink("../../../../../../var/log", at("var/log/up")).unwrap();
        symlink("/var/log/b", at("var/log/a")).unwrap();
        symlink("/var/log/a", at("var/log/b")).unwrap();
        let root = Root::new(host.path());
        for link in ["/var/log/containers/x.log", "/var/log/up/containers/y.log"] {
            // The end may not be there yet, or no longer.
            assert_eq!(root.real(Path::new(link)), at("var/log/pods/a/0.log"));
            assert_eq!(root.home(Path::new(link)), at("var/log/pods/a/0.log"));
            assert_eq!(root.target(Path::new(link)).unwrap(), Path::new("/var/log/pods/a/0.log"));
        }
        assert_eq!(root.real(Path::new("/var/log/a")), at("var/log/a"));
        let own = Root::new(Path::new("/"));
        assert_eq!(own.real(&at("var/log/up/x")), at("var/log/up/x"));
        assert_eq!(own.home(&at("var/log/containers/y.log")), at("var/log/pods/a/0.log"));
        assert_eq!(own.target(&at("var/log/pods/a/0.log")), None);
    }
}
