//! Looks up what runtimes know of containers, from a thread of its own, because their files may lie on a
//! disk that is gone and their sockets may never answer.
//!
//! A round sends its questions, waits a moment for the answers, which usually come in it, and takes what
//! has come by then; later ones are taken by the next rounds. While an earlier question is open a round
//! does not wait at all. The thread begins with the first question, and sleeps without waking between
//! them. After a socket that did not answer, none is asked for a while. It must not know metrics.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::api::{self, Endpoint};
use super::recognise::Runtime;
use super::runtime::{self, Facts};

/// Questions that are open at the same time.
const MAX_OPEN: usize = 256;

/// Of one file; Podman's has all containers.
const MAX_FILE: u64 = 4 << 20;

/// How long sockets are left alone when one did not answer.
const REST: Duration = Duration::from_secs(30);

/// Resolving the name of a host takes more than a page of it.
const STACK: usize = 256 << 10;

/// A container that somebody wants to know more of.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// 64 hexadecimal digits.
    pub(super) id: String,
    pub(super) runtime: Runtime,
    /// Whose own Podman or Docker it is of.
    pub(super) user: Option<u32>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Somebody knows it.
    Facts(Facts),
    /// Nobody does, and never will.
    Nothing,
    /// Whoever might know it does not answer now.
    Later,
}

/// To the thread, and from it.
type Channels = (Sender<Question>, Receiver<(String, Found)>);

/// Asks, and collects answers.
pub(super) struct Lookup {
    /// The host's root.
    root: PathBuf,
    docker: Option<Endpoint>,
    patience: Duration,
    thread: Option<Channels>,
    open: usize,
    /// Asked in this round, which may wait for them.
    fresh: bool,
}

impl Lookup {
    pub(super) fn new(docker: Option<Endpoint>, patience: Duration) -> Lookup {
        Lookup { root: PathBuf::new(), docker, patience, thread: None, open: 0, fresh: true }
    }

    /// Begins a round on a host with this root.
    pub(super) fn begin(&mut self, root: &Path) {
        if self.root != root {
            self.root = root.to_owned();
            self.thread = None;
            self.open = 0;
        }
        self.fresh = self.open == 0;
    }

    /// Asks; false if too many questions are open, or there is no thread to ask with.
    pub(super) fn ask(&mut self, question: Question) -> bool {
        if self.open >= MAX_OPEN {
            return false;
        }
        if self.thread.is_none() {
            self.thread = start(self.root.clone(), self.docker.clone()).ok();
        }
        let sent =
            self.thread.as_ref().is_some_and(|(questions, _)| questions.send(question).is_ok());
        if sent {
            self.open += 1;
        } else {
            self.thread = None;
            self.open = 0;
        }
        sent
    }

    /// Takes the answers that have come, or come soon.
    pub(super) fn answers(&mut self, mut take: impl FnMut(&str, Found)) {
        if self.open == 0 {
            return;
        }
        let deadline = Instant::now() + if self.fresh { self.patience } else { Duration::ZERO };
        while self.open > 0
            && let Some((_, answers)) = &self.thread
        {
            let left = deadline.saturating_duration_since(Instant::now());
            match answers.recv_timeout(left) {
                Ok((id, found)) => {
                    self.open -= 1;
                    take(&id, found);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.thread = None;
                    self.open = 0;
                }
            }
        }
    }
}

fn start(root: PathBuf, docker: Option<Endpoint>) -> io::Result<Channels> {
    let (questions, asked) = mpsc::channel::<Question>();
    let (answer, answers) = mpsc::channel();
    let mut asker = Asker { root, docker, rests_until: None };
    // It ends when the collector is gone, or after its last question if that one hangs.
    thread::Builder::new().name("mote-lookup".into()).stack_size(STACK).spawn(move || {
        for question in asked {
            let found = asker.find(&question);
            if answer.send((question.id, found)).is_err() {
                return;
            }
        }
    })?;
    Ok((questions, answers))
}

struct Asker {
    root: PathBuf,
    docker: Option<Endpoint>,
    rests_until: Option<Instant>,
}

impl Asker {
    fn find(&mut self, question: &Question) -> Found {
        let id = question.id.as_str();
        if let Some(facts) = self.files(question) {
            return Found::Facts(facts);
        }
        let user = question.user.map(|user| format!("run/user/{user}"));
        let sockets: Vec<Endpoint> = match question.runtime {
            Runtime::Named => return Found::Nothing,
            Runtime::Podman => {
                let base = user.as_deref().unwrap_or("run");
                vec![Endpoint::Unix(self.root.join(base).join("podman/podman.sock"))]
            }
            Runtime::Docker | Runtime::Other => match (&self.docker, user) {
                (None, _) => return Found::Nothing,
                (Some(_), Some(user)) => {
                    vec![Endpoint::Unix(self.root.join(user).join("docker.sock"))]
                }
                (Some(Endpoint::Unix(path)), None) => self.sockets(path),
                (Some(tcp), None) => vec![tcp.clone()],
            },
        };
        self.sockets_say(&sockets, id)
    }

    /// Where the host's socket may be. /var/run is a link to /run, which from the host's root leads to the
    /// container's own; who runs the agent in one may also mount the socket where it always is.
    fn sockets(&self, path: &Path) -> Vec<Endpoint> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let mut paths = vec![self.root.join(below)];
        if let Ok(rest) = below.strip_prefix("var/run") {
            paths.insert(0, self.root.join("run").join(rest));
        }
        if self.root != Path::new("/") {
            paths.push(path.to_owned());
        }
        paths.into_iter().map(Endpoint::Unix).collect()
    }

    fn sockets_say(&mut self, sockets: &[Endpoint], id: &str) -> Found {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return Found::Later;
        }
        self.rests_until = None;
        for socket in sockets {
            match api::ask(socket, id) {
                Ok((200, body)) => match runtime::docker(&body, id) {
                    Some(facts) => return Found::Facts(facts),
                    None => break,
                },
                Ok((404, _)) => return Found::Nothing,
                Ok(_) => break,
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    log::debug!("names of containers: {socket:?}: {error}");
                    break;
                }
            }
        }
        self.rests_until = Some(Instant::now() + REST);
        Found::Later
    }

    fn files(&self, question: &Question) -> Option<Facts> {
        let id = question.id.as_str();
        let docker = || {
            ["var/lib/docker", "var/snap/docker/common/var-lib-docker"].iter().find_map(|base| {
                runtime::docker(&self.read(&format!("{base}/containers/{id}/config.v2.json"))?, id)
            })
        };
        match question.runtime {
            Runtime::Named => None,
            Runtime::Docker => docker(),
            Runtime::Podman => {
                let base = match question.user {
                    None => "var/lib".to_owned(),
                    Some(user) => format!("{}/.local/share", self.home(user)?),
                };
                ["overlay", "vfs", "btrfs", "zfs"].iter().find_map(|driver| {
                    let path =
                        format!("{base}/containers/storage/{driver}-containers/containers.json");
                    runtime::podman(&self.read(&path)?, id)
                })
            }
            Runtime::Other => {
                const SPECS: [&str; 5] = [
                    "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
                    "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
                    "run/containerd/io.containerd.runtime.v2.task/default/ID/config.json",
                    "run/containers/storage/overlay-containers/ID/userdata/config.json",
                    "var/lib/containers/storage/overlay-containers/ID/userdata/config.json",
                ];
                let spec = |path: &&str| runtime::oci(&self.read(&path.replace("ID", id))?);
                SPECS.iter().find_map(spec).or_else(docker)
            }
        }
    }

    /// A user's home, below the root.
    fn home(&self, user: u32) -> Option<String> {
        let bytes = self.read("etc/passwd")?;
        let text = String::from_utf8_lossy(&bytes);
        let mut homes = text.lines().filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let id: u32 = fields.next()?.parse().ok()?;
            Some((id, fields.nth(2)?.trim_start_matches('/').to_owned()))
        });
        homes.find(|(id, _)| *id == user).map(|(_, home)| home)
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut options = File::options();
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
        // A pipe in the place of a file must not hold the thread up.
        let file =
            options.read(true).custom_flags(nonblock as i32).open(self.root.join(path)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= MAX_FILE).then_some(bytes)
    }
}

/// Whether there is no such socket.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
