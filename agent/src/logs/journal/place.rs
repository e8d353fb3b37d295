//! Where the journal's files are, and which directories tell when that changes. It must not know what
//! is in the files.
//!
//! journald writes to `/run/log/journal/ID` until it is told to flush, then to `/var/log/journal/ID`,
//! if that or its parent exists; ID is the machine's, from `/etc/machine-id`. Either may be missing,
//! and may come at any time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Beyond so many directories the rest is left out; real machines have two.
const MAX_DIRECTORIES: usize = 64;

/// What to read.
#[derive(Clone, Debug)]
pub enum Place {
    /// The journal of the machine whose root is mounted here.
    Machine(PathBuf),
    /// The files in these directories and in those below them that are named after a machine.
    Directories(Vec<PathBuf>),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Directories that hold journal files, or may.
    pub(super) journals: BTreeSet<PathBuf>,
    /// Directories in which one of them, or the machine's id, may appear.
    pub(super) parents: BTreeSet<PathBuf>,
    /// Other machines' directories that are there while this machine's are not.
    pub(super) foreign: Option<PathBuf>,
    /// A directory that may not be listed, and why.
    pub(super) refused: Option<(PathBuf, String)>,
}

impl Place {
    /// Looks.
    pub(super) fn look(&self) -> Found {
        let mut found = Found::default();
        match self {
            Place::Machine(root) => found.machine(root),
            Place::Directories(given) => {
                for directory in given {
                    if found.journal(directory) {
                        found.machines(directory);
                    }
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
            for base in &bases {
                self.parents.extend(nearest(&base.join("x")));
                self.machines(base);
            }
            return;
        };
        for base in &bases {
            self.journal(&base.join(&id));
        }
        if self.journals.is_empty() {
            self.foreign = bases.iter().find_map(|base| machines(base).next());
        }
    }

    /// Takes a directory if it is there, else what would show that it comes.
    fn journal(&mut self, directory: &Path) -> bool {
        match fs::read_dir(directory) {
            Ok(_) if self.journals.len() < MAX_DIRECTORIES => {
                self.journals.insert(directory.to_owned());
                true
            }
            Ok(_) => false,
            Err(error) => {
                use std::io::ErrorKind::{NotADirectory, NotFound};
                if !matches!(error.kind(), NotFound | NotADirectory) {
                    self.refused = Some((directory.to_owned(), error.to_string()));
                }
                self.parents.extend(nearest(directory));
                false
            }
        }
    }

    fn machines(&mut self, base: &Path) {
        for directory in machines(base) {
            self.journal(&directory);
        }
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

    fn below(root: &Path, paths: &BTreeSet<PathBuf>) -> Vec<String> {
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        paths.iter().map(relative).collect()
    }

    #[test]
    fn only_this_machines_directories_are_read() {
        let var = format!("var/log/journal/{ID}");
        let run = format!("run/log/journal/{ID}");
        let other = format!("var/log/journal/{OTHER}");
        let root = root(&[&var, &run, &other], Some(&format!("{ID}\n")));
        let found = Place::Machine(root.path().to_owned()).look();
        assert_eq!(below(root.path(), &found.journals), [run, var]);
        assert!(found.parents.is_empty() && found.foreign.is_none());
    }

    #[test]
    fn what_is_not_there_is_waited_for_where_it_would_appear() {
        let run = format!("run/log/journal/{ID}");
        let root = root(&["var/log", &run], Some(ID));
        let found = Place::Machine(root.path().to_owned()).look();
        assert_eq!(below(root.path(), &found.journals), [run]);
        assert_eq!(below(root.path(), &found.parents), ["var/log"]);
    }

    #[test]
    fn without_a_machine_id_all_machines_are_this_one() {
        let other = format!("var/log/journal/{OTHER}");
        let root = root(&[&other, "var/log/journal/remote", "run"], None);
        let place = Place::Machine(root.path().to_owned());
        let found = place.look();
        assert_eq!(below(root.path(), &found.journals), [other]);
        assert_eq!(below(root.path(), &found.parents), ["etc", "run", "var/log/journal"]);
        fs::write(root.path().join("etc/machine-id"), "uninitialized\n").unwrap();
        assert_eq!(place.look(), found);
    }

    #[test]
    fn another_machines_journal_is_named_and_not_read() {
        let other = format!("var/log/journal/{OTHER}");
        let root = root(&[&other], Some(ID));
        let found = Place::Machine(root.path().to_owned()).look();
        assert!(found.journals.is_empty());
        assert_eq!(found.foreign, Some(root.path().join(other)));
    }

    #[test]
    fn given_directories_are_read_with_the_machines_below_them() {
        let root = root(&[&format!("j/{ID}"), "j/remote"], None);
        let given = vec![root.path().join("j"), root.path().join("later/j")];
        let found = Place::Directories(given).look();
        assert_eq!(below(root.path(), &found.journals), ["j".to_owned(), format!("j/{ID}")]);
        assert_eq!(below(root.path(), &found.parents), [""]);
    }
}
