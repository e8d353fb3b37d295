//! The machine as the agent sees it: where /proc, /sys and / are, and one buffer through which their
//! files are read. It must not know what the files mean.

pub mod alarm;
pub(crate) mod btrfs;
mod clock;
pub mod dbus;
mod endpoint;
pub mod ethtool;
mod files;
pub mod http;
mod identity;
pub mod ioctl;
pub mod kmsg;
pub mod mailbox;
mod memory_cgroup;
mod names;
pub mod netlink;
mod notify;
pub(crate) mod text;
mod timex;

use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use clock::{BootId, Clock, Discipline, ManualClock, SystemClock, boot_id, system_clock};
pub use endpoint::Endpoint;
use files::{Kept, Near};
pub use identity::{hostname, phase};
pub use kmsg::Kmsg;
pub use memory_cgroup::memory_cgroup_is_off;
pub use names::Names;
pub use notify::Notify;
pub use timex::Timex;

/// The most paths of errors that are remembered.
const MAX_FAILED: usize = 128;

/// Bytes that the read buffer keeps from one round to the next. It grows for a larger file, up to 4 MiB, and
/// gives the rest back with the round.
pub(crate) fn read_buffer() -> usize {
    64 << 10
}

/// Where the host is mounted; other than the defaults in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`
    pub proc: PathBuf,
    /// `/sys`
    pub sys: PathBuf,
    /// `/`
    pub root: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { proc: "/proc".into(), sys: "/sys".into(), root: "/".into() }
    }
}

/// The roots, a reused read buffer and files that stay open.
#[derive(Debug)]
pub struct Host {
    roots: Roots,
    buffer: Vec<u8>,
    path: OsString,
    /// Whether `roots.proc` is the kernel's, and its files may stay open.
    keeps: bool,
    kept: Kept,
    near: Near,
    /// Paths of earlier errors, so that what is absent round after round costs no memory each time.
    failed: Vec<Arc<Path>>,
    /// Which of them gives way next.
    oldest: usize,
}

/// Below which root a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// [`Roots::proc`]
    Proc,
    /// [`Roots::sys`]
    Sys,
    /// [`Roots::root`]
    Root,
}

/// A file that could not be read.
#[derive(Debug)]
pub struct ReadError {
    /// The whole path, root included.
    pub path: Arc<Path>,
    /// What the system said.
    pub source: io::Error,
}

impl ReadError {
    /// Whether the file simply is not there: no such file, directory, device or process.
    pub fn is_absent(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound};
        matches!(self.source.kind(), NotFound | NotADirectory)
            || matches!(
                self.source.raw_os_error(),
                Some(libc_errno::ENODEV | libc_errno::ENXIO | libc_errno::EOPNOTSUPP)
            )
    }
}

/// The numbers that `std::io::ErrorKind` has no stable name for (asm-generic/errno.h).
mod libc_errno {
    pub(super) const ENXIO: i32 = 6;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EOPNOTSUPP: i32 = 95;
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reading {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Host {
    /// A host with these roots.
    pub fn new(roots: Roots) -> Host {
        let keeps = rustix::fs::statfs(&roots.proc)
            .is_ok_and(|fs| fs.f_type == rustix::fs::PROC_SUPER_MAGIC);
        Host {
            roots,
            buffer: Vec::new(),
            path: OsString::new(),
            keeps,
            kept: Kept::default(),
            near: Near::default(),
            failed: Vec::new(),
            oldest: 0,
        }
    }

    /// The roots.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Reads a file below the root of /proc, such as `net/dev`. The bytes are good until the next
    /// read. The path is text or `format_args!`, which needs no memory of its own.
    ///
    /// # Errors
    /// Whatever opening or reading the file gave, and a file larger than 4 MiB.
    pub fn proc(&mut self, relative: impl Display) -> Result<&[u8], ReadError> {
        self.set_path(Root::Proc, relative);
        self.read(Root::Proc)
    }

    /// As [`proc`](Host::proc), for a file whose lines have at most a kilobyte and cost the kernel much to
    /// find: a read that leaves half a page free has found them all, and is not followed by one that would
    /// search for more in vain (fs/seq_file.c, `seq_read_iter`).
    ///
    /// # Errors
    /// As [`proc`](Host::proc).
    pub fn proc_short(&mut self, relative: impl Display) -> Result<&[u8], ReadError> {
        self.set_path(Root::Proc, relative);
        if !self.keeps {
            return self.read(Root::Proc);
        }
        match self.kept.read(&self.path, &mut self.buffer, true) {
            Ok(()) => Ok(&self.buffer),
            Err(source) => Err(self.error(source)),
        }
    }

    /// Reads a file below the root of /sys, such as `class/net/eth0/mtu`.
    ///
    /// # Errors
    /// As [`proc`](Host::proc).
    pub fn sys(&mut self, relative: impl Display) -> Result<&[u8], ReadError> {
        self.set_path(Root::Sys, relative);
        self.read(Root::Sys)
    }

    /// Reads a file below the root of the file system, such as `run/udev/data/b8:0`.
    ///
    /// # Errors
    /// As [`proc`](Host::proc).
    pub fn root(&mut self, relative: impl Display) -> Result<&[u8], ReadError> {
        self.set_path(Root::Root, relative);
        self.read(Root::Root)
    }

    /// Reads a file that a host may well not have, or not show: its absence costs nothing, and neither it
    /// nor any other failure is told apart.
    pub fn find(&mut self, root: Root, relative: impl Display) -> Option<&[u8]> {
        self.set_path(root, relative);
        self.fill(root).ok()?;
        Some(&self.buffer)
    }

    /// What the last read gave; empty or partial if it failed.
    pub fn last(&self) -> &[u8] {
        &self.buffer
    }

    /// The names in a directory, such as `class/net` below [`Root::Sys`], in the order of their bytes.
    /// Names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// Whatever opening or reading the directory gave; `names` has what was read before it.
    pub fn list(
        &mut self,
        root: Root,
        relative: impl Display,
        names: &mut Names,
    ) -> Result<(), ReadError> {
        self.near.forget();
        self.set_path(root, relative);
        files::read_names(&self.path, &mut self.buffer, names).map_err(|source| self.error(source))
    }

    /// The target of a symbolic link, as it is written.
    ///
    /// # Errors
    /// Whatever reading the link gave.
    pub fn link(&mut self, root: Root, relative: impl Display) -> Result<&[u8], ReadError> {
        self.set_path(root, relative);
        match files::read_link(&self.path, &mut self.buffer) {
            Ok(()) => Ok(&self.buffer),
            Err(source) => Err(self.error(source)),
        }
    }

    /// The whole path of a file, for what is opened in another way, such as a device.
    pub fn path(&mut self, root: Root, relative: impl Display) -> &Path {
        self.set_path(root, relative);
        Path::new(&self.path)
    }

    /// Whether /proc is a kernel's, and not a tree of files: then what the kernel tells by other ways is
    /// about the same machine.
    ///
    /// # Errors
    /// That the file of /proc that tells a part of it is not there.
    pub fn is_live(&mut self, relative: impl Display) -> Result<(), ReadError> {
        if self.keeps {
            return Ok(());
        }
        self.set_path(Root::Proc, relative);
        Err(self.error(io::ErrorKind::NotFound.into()))
    }

    /// An error of something done with the path that was used last.
    pub fn error(&mut self, source: io::Error) -> ReadError {
        let path = Path::new(&self.path);
        if let Some(known) = self.failed.iter().find(|known| known.as_os_str() == path.as_os_str())
        {
            return ReadError { path: Arc::clone(known), source };
        }
        let path: Arc<Path> = path.into();
        // Paths of processes and groups that have ended would otherwise fill it for good.
        let full = self.failed.len() >= MAX_FAILED;
        match self.failed.get_mut(self.oldest).filter(|_| full) {
            Some(oldest) => *oldest = Arc::clone(&path),
            None => self.failed.push(Arc::clone(&path)),
        }
        self.oldest = (self.oldest + 1) % MAX_FAILED;
        ReadError { path, source }
    }

    fn set_path(&mut self, root: Root, relative: impl Display) {
        let root = match root {
            Root::Proc => &self.roots.proc,
            Root::Sys => &self.roots.sys,
            Root::Root => &self.roots.root,
        };
        self.path.clear();
        self.path.push(root);
        // Writing to an OsString can't fail.
        let _ = write!(self.path, "/{relative}");
    }

    fn read(&mut self, root: Root) -> Result<&[u8], ReadError> {
        match self.fill(root) {
            Ok(()) => Ok(&self.buffer),
            Err(source) => Err(self.error(source)),
        }
    }

    fn fill(&mut self, root: Root) -> io::Result<()> {
        let stays = self.keeps && root == Root::Proc && !self.is_of_a_process();
        if stays {
            self.kept.read(&self.path, &mut self.buffer, false)
        } else if root == Root::Sys {
            self.near.read(&self.path, &mut self.buffer)
        } else {
            files::read_once(&self.path, &mut self.buffer, root == Root::Root)
        }
    }

    /// The round is over: what a large file has taken is given back.
    pub(crate) fn rest(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(read_buffer());
    }

    /// Forgets what is known of directories: before a collector is asked.
    pub(crate) fn look_anew(&mut self) {
        self.near.forget();
    }

    /// Whether the path is below the directory of a process.
    fn is_of_a_process(&self) -> bool {
        let root = self.roots.proc.as_os_str().len() + 1;
        self.path.as_bytes().get(root).is_some_and(u8::is_ascii_digit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_files_of_proc_are_read_anew_and_few() {
        let mut host = Host::new(Roots::default());
        let first = host.proc("uptime").unwrap().to_vec();
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_ne!(host.proc("uptime").unwrap(), first);
        assert_eq!(host.kept.len(), 1);
        host.proc(format_args!("{}/stat", std::process::id())).unwrap();
        host.sys("kernel/mm/transparent_hugepage/enabled").ok();
        assert_eq!(host.kept.len(), 1);
        let names = ["stat", "meminfo", "vmstat", "loadavg", "uptime", "net/dev", "net/snmp"];
        names.iter().for_each(|name| assert!(!host.proc(name).unwrap().is_empty()));
        assert_eq!(host.kept.len(), names.len());
    }

    #[test]
    fn a_kept_file_whose_subject_is_gone_is_opened_again() {
        let mut host = Host::new(Roots::default());
        host.proc("loadavg").unwrap();
        // A process that has ended gives the same kind of error as a device that was removed.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let path = host.path(Root::Proc, format_args!("{}/stat", child.id())).to_owned();
        let gone = std::fs::File::open(path).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let loadavg = host.path(Root::Proc, "loadavg").as_os_str().to_owned();
        host.kept.replace(&loadavg, gone.into());
        assert!(host.proc("loadavg").unwrap().contains(&b'/'));
    }

    #[test]
    fn paths_that_come_back_are_remembered_after_many_that_do_not() {
        let mut host = Host::new(Roots::default());
        let mut absent = || host.proc("not/there").unwrap_err().path;
        assert!(Arc::ptr_eq(&absent(), &absent()));
        for n in 0..3 * MAX_FAILED {
            host.sys(format_args!("gone/{n}")).unwrap_err();
        }
        let mut absent = || host.proc("not/there").unwrap_err().path;
        assert!(Arc::ptr_eq(&absent(), &absent()));
        assert_eq!(host.failed.len(), MAX_FAILED);
    }

    #[test]
    fn large_files_come_whole_and_too_large_ones_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host::new(Roots { root: dir.path().into(), ..Roots::default() });
        for size in [0, 1, 4095, 4096, 4097, 100_000, 4 << 20] {
            let bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
            std::fs::write(dir.path().join("file"), &bytes).unwrap();
            assert!(host.root("file").unwrap() == bytes, "{size}");
        }
        std::fs::write(dir.path().join("file"), vec![0; (4 << 20) + 1]).unwrap();
        assert!(host.root("file").unwrap_err().to_string().contains("larger than 4 MiB"));
        assert!(host.buffer.capacity() > 4 << 20);
        host.rest();
        assert_eq!(host.buffer.capacity(), read_buffer());
    }

    #[test]
    fn attributes_of_a_device_that_comes_back_are_the_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host::new(Roots { sys: dir.path().into(), ..Roots::default() });
        let device = dir.path().join("class/net/eth0");
        let make = |value: &str| {
            std::fs::create_dir_all(&device).unwrap();
            for name in ["a", "b", "c", "d", "e"] {
                std::fs::write(device.join(name), format!("{value} {name}")).unwrap();
            }
        };
        let read = |host: &mut Host, name: &str| {
            let bytes = host.sys(format_args!("class/net/eth0/{name}"));
            bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).ok()
        };
        for round in ["old", "new"] {
            make(round);
            host.look_anew();
            for name in ["a", "b", "c", "d", "e"] {
                assert_eq!(read(&mut host, name), Some(format!("{round} {name}")));
            }
            assert!(host.near.is_open() && read(&mut host, "f").is_none());
            std::fs::remove_dir_all(&device).unwrap();
            assert_eq!(read(&mut host, "a"), None);
        }
        host.sys("other").unwrap_err();
        assert!(!host.near.is_open());
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("pipe"), kind, mode, 0).unwrap();
        let mut host = Host::new(Roots { root: dir.path().into(), ..Roots::default() });
        assert!(host.root("pipe").is_err());
    }

    #[test]
    fn names_come_sorted_and_links_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host::new(Roots { sys: dir.path().into(), ..Roots::default() });
        let many: Vec<String> = (0..2_000).map(|n| format!("a-rather-long-name-{n:04}")).collect();
        for name in &many {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut names = Names::new();
        host.list(Root::Sys, "", &mut names).unwrap();
        assert!(names.iter().eq(many.iter().map(String::as_str)));
        assert_eq!(names.get(1_999), Some("a-rather-long-name-1999"));
        assert!(host.list(Root::Sys, "nowhere", &mut names).unwrap_err().is_absent());
        assert!(names.is_empty());
        std::os::unix::fs::symlink("../../devices/x", dir.path().join("link")).unwrap();
        assert_eq!(host.link(Root::Sys, "link").unwrap(), b"../../devices/x");
        assert!(host.find(Root::Sys, "nowhere").is_none());
    }
}
