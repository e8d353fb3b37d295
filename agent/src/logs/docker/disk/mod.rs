//! Containers' logs from the files in which their engines keep them: no engine is asked, and what was
//! written while the agent did not run is read afterwards.
//!
//! | format | file | who writes it |
//! |---|---|---|
//! | [`JSON_FILE`] | `/var/lib/docker/containers/<id>/<id>-json.log` | Docker, driver `json-file` |
//! | [`LOCAL`] | `/var/lib/docker/containers/<id>/local-logs/container.log` | Docker, driver `local` |
//! | [`CRI`] | `…/userdata/ctr.log`, `/var/log/pods/…` | Podman's `k8s-file`, containerd, CRI-O |
//!
//! **Rotation.** dockerd renames the file to `….1` (or with `max-file=1` removes it, or truncates it in
//! older versions), then creates it anew; with `compress` it writes `….1.gz` and removes `….1`. The
//! agent has the file open and reads it to its end whatever becomes of its name. Lost, and counted in
//! `lost_files`, is what was compressed or removed while the agent did not run.
//!
//! **Lines** that are no records are kept as they are, with the structured metadata
//! `malformed="docker"` and without the label `stream`; of the binary format the damaged bytes are
//! counted as lost, up to where a record begins again.
//!
//! The module knows files and formats. It must not know an engine's API, nor where labels come from.

mod cri;
mod json_file;
mod local;
use super::{PART, time};

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

pub use cri::CRI;
pub use json_file::JSON_FILE;
pub use local::LOCAL;

use crate::host::Clock;
use crate::logs::file::{Counters, Format, Limits, PathOptions, Paths};
use crate::logs::{Progress, SOURCE, Source, Waiting};
use crate::model::{Block, Labels};

/// What every key of a position starts with; the path follows.
pub const KEY_PREFIX: &str = "docker:file:";

/// The source's name.
const NAME: &str = "docker";

/// One container's log.
#[derive(Clone, Debug)]
pub struct Container {
    /// The container's full id.
    pub id: String,
    /// The log file, as the host sees it.
    pub path: String,
    /// What is in it.
    pub format: &'static dyn Format,
    /// The labels of its streams; `stream` is added.
    pub labels: Labels,
    /// The longest line, in bytes.
    pub max_line: usize,
}

/// Why a log is not read from disk.
#[derive(Debug)]
pub enum DiskError {
    /// There is no such file, as where the engine is on another machine or in another mount namespace.
    Absent,
    /// The agent may not read it: /var/lib/docker is root's.
    Refused,
    /// Something else.
    Io(io::Error),
    /// The path is no absolute path of a file's.
    Path(String),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::Absent => f.write_str("no such file"),
            DiskError::Refused => f.write_str(
                "permission denied: reading containers' logs from disk takes root or CAP_DAC_READ_SEARCH",
            ),
            DiskError::Io(error) => error.fmt(f),
            DiskError::Path(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for DiskError {}

/// Where dockerd has the log of a container's with the driver `local`, of which its API tells no path;
/// `root` is its data root, /var/lib/docker.
pub fn local_path(root: &str, id: &str) -> String {
    format!("{}/containers/{id}/local-logs/container.log", root.trim_end_matches('/'))
}

/// The limits for containers. Engines close a file before they rename it, so that what was rotated is
/// finished at once, and a new process does not look for what has been read to its end.
pub fn limits() -> Limits {
    Limits { quiet: Duration::from_secs(1), ..Limits::default() }
}

/// Reads the logs of containers that come and go. See the [module](self).
pub struct DiskContainers {
    paths: Paths,
    /// The path of each container that has been added.
    known: HashMap<String, String>,
}

impl DiskContainers {
    /// Reads nothing yet; the limits are usually [`limits`]. Positions whose keys start with
    /// [`KEY_PREFIX`] wait for their containers.
    pub fn new(
        positions: &BTreeMap<String, Vec<u8>>,
        clock: Rc<dyn Clock>,
        limits: Limits,
    ) -> DiskContainers {
        let paths = Paths::new(KEY_PREFIX, positions, clock, limits);
        DiskContainers { paths, known: HashMap::new() }
    }

    /// Paths are those of a host whose root is mounted there.
    pub fn with_root(self, root: &Path) -> DiskContainers {
        DiskContainers { paths: self.paths.with_root(root), ..self }
    }

    /// Whether a log can be read. An empty one can.
    ///
    /// # Errors
    /// Why not; nothing of it is logged.
    pub fn check(&self, path: &str) -> Result<(), DiskError> {
        let path = self.paths.real(path);
        // A pipe in its place must not be waited for: it is only looked at.
        let is_file = std::fs::metadata(&path).map(|metadata| metadata.is_file());
        let opened = is_file.and_then(|is_file| match is_file {
            true => std::fs::File::open(&path).map(|_| ()),
            false => Err(io::Error::other("not a regular file")),
        });
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => DiskError::Absent,
            io::ErrorKind::PermissionDenied => DiskError::Refused,
            _ => DiskError::Io(error),
        })
    }

    /// Reads a container's log from where an earlier run was, else from its start. A container that
    /// has been added gets other labels so, from its next line on.
    ///
    /// # Errors
    /// It can't be read, see [`check`](DiskContainers::check). Then it is not added, and a position of an earlier run is kept.
    pub fn add(&mut self, container: &Container) -> Result<(), DiskError> {
        let Container { id, path, format, labels, max_line } = container;
        if self.known.get(id) != Some(path) {
            self.check(path)?;
        }
        let mut labels = labels.clone();
        labels.set_default(SOURCE, NAME);
        let options =
            PathOptions { path: path.clone(), labels, max_line: *max_line, format: *format };
        self.paths.add(&options).map_err(|error| DiskError::Path(error.to_string()))?;
        if let Some(old) = self.known.insert(id.clone(), path.clone()).filter(|old| old != path) {
            self.paths.remove(&old);
        }
        Ok(())
    }

    /// The container is gone: what is left in its file, deleted or not, is read, then its position is
    /// forgotten.
    pub fn remove(&mut self, id: &str) {
        if let Some(path) = self.known.remove(id) {
            self.paths.remove(&path);
        }
    }

    /// Forgets what an earlier run knew of a log that has not been added and is read by the API from now on.
    pub fn abandon(&mut self, path: &str) {
        self.paths.abandon(path);
    }

    /// Forgets what earlier runs knew of containers that are no more: once after the start, when all
    /// that exist are known, those that can't be read at the moment too. How many were forgotten.
    pub fn forget_others(&mut self, exists: impl Fn(&str) -> bool) -> usize {
        self.paths.forget_others(|path| path.split('/').any(&exists))
    }

    /// Whether a container has been added.
    pub fn follows(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// Whether something of a log has been read, now or by an earlier run: to go on elsewhere would
    /// bring lines twice.
    pub fn knows(&self, path: &str) -> bool {
        self.paths.knows(path)
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        self.paths.counters()
    }
}

impl Source for DiskContainers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ready(&mut self) -> Waiting<'_> {
        self.paths.ready()
    }

    fn gather(&mut self, until: Instant) -> Waiting<'_> {
        self.paths.gather(until)
    }

    fn read(&mut self, block: &mut Block, limit_bytes: usize) -> Progress {
        self.paths.read(block, limit_bytes)
    }

    fn hold(&mut self) -> Waiting<'_> {
        self.paths.hold()
    }

    fn counts(&self, out: &mut dyn FnMut(&'static str, u64)) {
        self.paths.counts(out);
    }
}

/// Without the zeros at the start, which a writer leaves whose file somebody truncated, or a crash.
fn without_nul(data: &[u8]) -> &[u8] {
    let len = data.iter().take_while(|&&byte| byte == 0).count();
    data.get(len..).unwrap_or_default()
}
