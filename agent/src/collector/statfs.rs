//! Asks mounts how full they are, through an [`asker::Asker`], because a dead mount (NFS without its
//! server, a card that has gone) blocks the caller for as long as it likes. It must not know metrics.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::asker::{self, Patience};

/// What a mount says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Bytes of a block, `f_bsize`.
    pub block_size: u64,
    /// Blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Blocks that are free to ordinary users.
    pub available: u64,
    /// File nodes.
    pub files: u64,
    /// Free file nodes.
    pub files_free: u64,
}

/// The system call, or what a test puts in its place.
#[derive(Clone)]
pub struct Statfs(Arc<Ask>);

type Ask = dyn Fn(&Path) -> io::Result<Usage> + Send + Sync;

impl Statfs {
    /// Asks with a function; it may block.
    pub fn new(ask: impl Fn(&Path) -> io::Result<Usage> + Send + Sync + 'static) -> Statfs {
        Statfs(Arc::new(ask))
    }
}

impl Default for Statfs {
    fn default() -> Statfs {
        Statfs::new(kernel)
    }
}

impl fmt::Debug for Statfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Statfs")
    }
}

fn kernel(path: &Path) -> io::Result<Usage> {
    let stat = rustix::fs::statfs(path)?;
    Ok(Usage {
        // Signed on most architectures, 32 bits wide on some; never negative.
        block_size: stat.f_bsize as u64,
        blocks: stat.f_blocks,
        free: stat.f_bfree,
        available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
    })
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The mount said no.
    Refused(io::Error),
    /// It has not answered yet.
    Stuck,
    /// Too many others have not answered yet.
    Full,
    /// There is no thread to ask with.
    NoThread(io::Error),
}

/// What travels to the thread and back.
type Question = (PathBuf, io::Result<Usage>);

/// Asks mounts one after the other.
pub(super) struct Asker {
    inner: asker::Asker<Question>,
    statfs: Statfs,
    /// The buffer that travels.
    path: PathBuf,
}

impl Asker {
    pub(super) fn new(statfs: Statfs, timeout: Duration) -> Asker {
        let asked = statfs.clone();
        let call = move |(path, usage): &mut Question| *usage = (asked.0)(path);
        let inner = asker::Asker::new("mote-statfs", Arc::new(call), timeout);
        Asker { inner, statfs, path: PathBuf::new() }
    }

    /// Begins a collection. Late answers are old; their mounts are asked again.
    pub(super) fn begin(&mut self) -> Patience {
        self.inner.begin(drop)
    }

    /// How many mounts have not answered yet.
    pub(super) fn stuck(&self) -> usize {
        self.inner.stuck()
    }

    /// Asks a mount that answers at once, without the thread.
    pub(super) fn ask_here(&mut self, path: &[u8]) -> Result<Usage, Unanswered> {
        self.path.clear();
        self.path.push(OsStr::from_bytes(path));
        (self.statfs.0)(&self.path).map_err(Unanswered::Refused)
    }

    /// Asks one mount, of a file system of this type.
    pub(super) fn ask(
        &mut self,
        path: &[u8],
        fs_type: &str,
        patience: Patience,
    ) -> Result<Usage, Unanswered> {
        let buffer = &mut self.path;
        let answer = self.inner.ask(path, fs_type, patience, || {
            let mut request = std::mem::take(buffer);
            request.clear();
            request.push(OsStr::from_bytes(path));
            (request, Ok(Usage::default()))
        });
        match answer {
            Ok((request, usage)) => {
                self.path = request;
                usage.map_err(Unanswered::Refused)
            }
            Err(asker::Unanswered::Stuck) => Err(Unanswered::Stuck),
            Err(asker::Unanswered::Full) => Err(Unanswered::Full),
            Err(asker::Unanswered::NoThread(error)) => Err(Unanswered::NoThread(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{self, Sender};
    use std::thread;
    use std::time::Instant;

    use super::super::asker::{MAX_STUCK, MAX_STUCK_A_KIND};
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    /// Paths below /dead block until the returned sender is dropped.
    fn dying() -> (Statfs, Sender<()>, Arc<Mutex<Vec<PathBuf>>>) {
        let (revive, dead) = mpsc::channel::<()>();
        let dead = Mutex::new(dead);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let statfs = Statfs::new(move |path| {
            log.lock().unwrap().push(path.to_owned());
            if path.starts_with("/dead") {
                // Disconnected once the test drops its end.
                let _ = dead.lock().unwrap().recv();
            }
            if path.starts_with("/refuses") {
                return Err(io::Error::from_raw_os_error(13));
            }
            Ok(Usage { blocks: 7, ..Usage::default() })
        });
        (statfs, revive, asked)
    }

    #[test]
    fn a_dead_mount_is_asked_once_and_the_others_go_on() {
        let (statfs, revive, asked) = dying();
        let mut asker = Asker::new(statfs, SHORT);
        let patience = asker.begin();
        assert!(matches!(asker.ask(b"/dead", "ext4", patience), Err(Unanswered::Stuck)));
        assert_eq!(asker.ask(b"/", "ext4", patience).unwrap().blocks, 7);
        assert!(matches!(asker.ask(b"/refuses", "ext4", patience), Err(Unanswered::Refused(_))));
        let patience = asker.begin();
        assert!(matches!(asker.ask(b"/dead", "ext4", patience), Err(Unanswered::Stuck)));
        assert_eq!(asker.stuck(), 1);
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(*asked.lock().unwrap(), paths(&["/dead", "/", "/refuses"]));

        drop(revive);
        // Each begin looks once; the call returns within the time of a context switch.
        let deadline = Instant::now() + LONG;
        while asker.stuck() > 0 {
            assert!(Instant::now() < deadline, "the mount came back and was not noticed");
            asker.begin();
            thread::yield_now();
        }
        let patience = asker.begin();
        assert_eq!(asker.ask(b"/dead", "ext4", patience).unwrap().blocks, 7);
    }

    #[test]
    fn threads_that_hang_are_bounded() {
        let (statfs, _revive, asked) = dying();
        let mut asker = Asker::new(statfs, Duration::ZERO);
        let mut ask = |fs_type: &str, path: &str| {
            let patience = asker.begin();
            asker.ask(path.as_bytes(), fs_type, patience)
        };
        for (fs_type, mount) in ["nfs4", "cifs", "9p", "ceph"]
            .into_iter()
            .flat_map(|fs_type| (0..MAX_STUCK_A_KIND).map(move |mount| (fs_type, mount)))
        {
            assert!(ask("ext4", "/").is_ok(), "hidden by dead mounts of another type");
            let dead = ask(fs_type, &format!("/dead/{fs_type}/{mount}"));
            assert!(matches!(dead, Err(Unanswered::Stuck)));
            if mount + 1 == MAX_STUCK_A_KIND {
                assert!(matches!(ask(fs_type, "/dead/more"), Err(Unanswered::Full)));
            }
        }
        assert!(matches!(ask("ext4", "/"), Err(Unanswered::Full)));
        assert!(matches!(ask("nfs4", "/dead/nfs4/0"), Err(Unanswered::Stuck)));
        assert_eq!(asker.stuck(), MAX_STUCK);
        let dead = asked.lock().unwrap().iter().filter(|path| path.starts_with("/dead")).count();
        assert!(dead <= MAX_STUCK);
    }

    #[test]
    fn all_dead_mounts_share_one_timeout() {
        let (statfs, _revive, _) = dying();
        let mut asker = Asker::new(statfs, Duration::from_millis(300));
        let patience = asker.begin();
        let start = Instant::now();
        for path in [&b"/dead/1"[..], b"/dead/2", b"/dead/3"] {
            assert!(matches!(asker.ask(path, "ext4", patience), Err(Unanswered::Stuck)));
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(300) + 2 * Duration::from_millis(100), "{took:?}");
        // Three whole timeouts would be 900 ms.
        assert!(took < Duration::from_millis(850), "{took:?}");
    }

    #[test]
    fn the_kernel_answers_for_the_root() {
        let mut asker = Asker::new(Statfs::default(), LONG);
        let patience = asker.begin();
        let usage = asker.ask(b"/", "ext4", patience).unwrap();
        assert!(usage.block_size > 0 && usage.blocks > 0 && usage.free >= usage.available);
        assert!(matches!(
            asker.ask(b"/no/such/mount", "ext4", patience),
            Err(Unanswered::Refused(_))
        ));
    }
}
