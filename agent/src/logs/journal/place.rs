//! Where the journal's files are, and which directories tell when that changes. It must not know what
//! is in the files.
//!
//! journald writes to `/run/log/journal/ID` until it is told to flush, then to `/var/log/journal/ID`,
//! if that or its parent exists; ID is the machine's, from `/etc/machine-id`. Either may be missing,
//! and may come at any time.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Directory;

/// What to read.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The journal of the machine whose root is mounted here.
    Machine(PathBuf),
    /// These directories and those below them that are named after machines.
    Directories(Vec<PathBuf>),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Directories that hold journal files, or will.
    pub(super) journals: Vec<Directory>,
    /// How many of them are there.
    pub(super) present: usize,
    /// Directories in which one of them, or the machine's id, may appear.
    pub(super) parents: BTreeSet<PathBuf>,
    /// What keeps a journal from being read that may be there.
    pub(super) trouble: Option<String>,
}

impl Place {
    /// Looks.
    pub(super) fn look(&self) -> Found {
        let mut found = Found::default();
        match self {
            Place::Machine(root) => found.machine(root),
            Place::Directories(given) => {
                for path in given {
                    found.add(path.clone(), true);
                }
            }
        }
        found
    }
}

impl Found {
    fn machine(&mut self, root: &Path) {
        let bases = [root.join("var/log/journal"), root.join("run/log/journal")];
        let id_file = root.join("etc/machine-id");
        let id = fs::read(&id_file).ok().and_then(|bytes| machine_id(&bytes));
        let Some(id) = id else {
            // A container with the journal mounted and nothing else, or a machine's very first start.
            self.parents.extend(nearest(&id_file));
            for base in bases {
                self.add(base, true);
            }
            return;
        };
        for base in &bases {
            self.add(base.join(&id), false);
        }
        if let Some(other) = bases.iter().find_map(|base| machines(base).next())
            && self.present == 0
            && self.trouble.is_none()
        {
            self.trouble = Some(format!(
                "{} is another machine's: {} says {id}; in a container, host.root must lead to the host's root",
                other.display(),
                id_file.display()
            ));
        }
    }

    fn add(&mut self, path: PathBuf, subdirectories: bool) {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        match fs::read_dir(&path) {
            Ok(_) => self.present += 1,
            Err(error) => {
                self.parents.extend(nearest(&path));
                if !matches!(error.kind(), NotFound | NotADirectory) {
                    let hint = match error.kind() {
                        PermissionDenied => "; the agent's user needs the group systemd-journal",
                        _ => "",
                    };
                    self.trouble = Some(format!("listing {}: {error}{hint}", path.display()));
                }
            }
        }
        self.journals.push(Directory { path, subdirectories });
    }
}

/// Directories that are named after machines.
fn machines(base: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries
        .filter(|entry| machine_id(entry.file_name().as_encoded_bytes()).is_some())
        .map(|entry| entry.path())
}

/// The nearest directory above that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|above| above.is_dir()).map(Path::to_owned)
}

/// 32 hexadecimal digits and perhaps the end of a line.
fn machine_id(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end();
    (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffffffffffffffffffffffffffffffff";

    fn root(directories: &[&str], id: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        for directory in directories {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        if let Some(id) = id {
            fs::write(root.path().join("etc/machine-id"), id).unwrap();
        }
        root
    }

    fn journals(root: &Path, found: &Found) -> Vec<(String, bool)> {
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        found.journals.iter().map(|d| (relative(&d.path), d.subdirectories)).collect()
    }

    fn parents(root: &Path, found: &Found) -> Vec<String> {
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        found.parents.iter().map(relative).collect()
    }

    #[test]
    fn only_this_machines_directories_are_read() {
        let var = format!("var/log/journal/{ID}");
        let run = format!("run/log/journal/{ID}");
        let other = format!("var/log/journal/{OTHER}");
        let root = root(&[&var, &run, &other], Some(&format!("{ID}\n")));
        let found = Place::Machine(root.path().to_owned()).look();
        assert_eq!(journals(root.path(), &found), [(var, false), (run, false)]);
        assert!(found.present == 2 && found.parents.is_empty() && found.trouble.is_none());
    }

    #[test]
    fn what_is_not_there_is_waited_for_where_it_would_appear() {
        let run = format!("run/log/journal/{ID}");
        let root = root(&["var/log", &run], Some(ID));
        let found = Place::Machine(root.path().to_owned()).look();
        assert_eq!((found.present, found.trouble.as_ref()), (1, None));
        assert_eq!(parents(root.path(), &found), ["var/log"]);
    }

    #[test]
    fn without_a_machine_id_all_machines_are_this_one() {
        let other = format!("var/log/journal/{OTHER}");
        let root = root(&[&other, "run"], None);
        let place = Place::Machine(root.path().to_owned());
        let found = place.look();
        let bases = ["var/log/journal", "run/log/journal"].map(|base| (base.to_owned(), true));
        assert_eq!(journals(root.path(), &found), bases);
        assert_eq!(parents(root.path(), &found), ["etc", "run"]);
        fs::write(root.path().join("etc/machine-id"), "uninitialized\n").unwrap();
        assert_eq!(place.look(), found);
    }

    #[test]
    fn another_machines_journal_is_named_and_not_read() {
        let other = format!("var/log/journal/{OTHER}");
        let root = root(&[&other], Some(ID));
        let found = Place::Machine(root.path().to_owned()).look();
        assert_eq!(found.present, 0);
        let trouble = found.trouble.unwrap();
        assert!(trouble.contains(&other) && trouble.contains("host.root"), "{trouble}");
    }

    #[test]
    fn given_directories_need_not_be_there() {
        let root = root(&["j"], None);
        let given = vec![root.path().join("j"), root.path().join("later/j")];
        let found = Place::Directories(given).look();
        assert_eq!((found.journals.len(), found.present), (2, 1));
        assert_eq!(parents(root.path(), &found), [""]);
    }
}
