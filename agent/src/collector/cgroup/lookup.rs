//! Looks up what runtimes know of containers, through an [`Asker`], because their files may lie on a disk
//! that is gone and their sockets may never answer.
//!
//! A round's questions go out in batches, one for each runtime and user, so that what a user's own runtime
//! does holds up nobody else's names. The round waits a moment for the answers, which usually come in it;
//! later ones are given out when a later round begins, and until then that runtime is asked nothing more.
//! After a socket that did not answer, it is left alone for a while. It must not know metrics.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::api;
use super::recognise::Runtime;
use super::runtime::{self, Facts};
use crate::collector::asker::Asker;
use crate::host::Endpoint;

/// Questions of one batch, so that its answers come by the next round.
const MAX_BATCH: usize = 64;

/// Of one file; Podman's has all containers.
const MAX_FILE: u64 = 4 << 20;

/// How long a runtime's sockets are left alone when one did not answer.
const REST: Duration = Duration::from_secs(30);

/// Runtimes and users of which is remembered that they are left alone; beyond, those who began to rest
/// first are asked again.
const MAX_RESTING: usize = 64;

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

/// Who is asked: Podman or not, and whose.
type Kind = (bool, Option<u32>);

impl Question {
    fn kind(&self) -> Kind {
        (self.runtime == Runtime::Podman, self.user)
    }
}

/// Questions of one kind, which come back with their answers.
struct Batch {
    kind: Kind,
    root: PathBuf,
    questions: Vec<(Question, Found)>,
}

/// Asks, and collects answers.
pub(super) struct Lookup {
    asker: Asker<Batch>,
    patience: Duration,
    /// What this round wants to know.
    batches: Vec<Batch>,
}

impl Lookup {
    pub(super) fn new(docker: Option<Endpoint>, patience: Duration) -> Lookup {
        let resting = Mutex::default();
        let call = Arc::new(move |batch: &mut Batch| batch.find(docker.as_ref(), &resting));
        let asker = Asker::with_stack("mote-lookup", call, patience, STACK);
        Lookup { asker, patience, batches: Vec::new() }
    }

    /// Notes a question for this round.
    pub(super) fn want(&mut self, root: &Path, question: Question) {
        let kind = question.kind();
        let index = self.batches.iter().position(|batch| batch.kind == kind);
        let index = index.unwrap_or_else(|| {
            self.batches.push(Batch { kind, root: root.to_owned(), questions: Vec::new() });
            self.batches.len() - 1
        });
        if let Some(batch) = self.batches.get_mut(index)
            && batch.questions.len() < MAX_BATCH
        {
            batch.questions.push((question, Found::Later));
        }
    }

    /// Asks what this round wants to know, and gives out the answers that have come or come soon. Who gets
    /// none may want it again in any round.
    pub(super) fn ask(&mut self, mut take: impl FnMut(&str, Found)) {
        let mut give = |batch: Batch| {
            batch.questions.into_iter().for_each(|(question, found)| take(&question.id, found));
        };
        let patience = self.asker.begin(&mut give);
        let deadline = Instant::now() + self.patience;
        for batch in self.batches.drain(..) {
            let key = format!("{:?}", batch.kind);
            // However many users have a runtime that hangs, the system's own are asked.
            let whose = if batch.kind.1.is_some() { "users" } else { "system" };
            match self.asker.ask(key.as_bytes(), whose, patience, || batch) {
                Ok(batch) => give(batch),
                Err(why) => log::debug!("names of containers: {why:?}"),
            }
            // The others are asked in the next round.
            if Instant::now() > deadline {
                break;
            }
        }
    }
}

/// Who is left alone, and until when.
type Resting = Mutex<Vec<(Kind, Instant)>>;

impl Batch {
    fn find(&mut self, docker: Option<&Endpoint>, resting: &Resting) {
        let finder = Finder { root: &self.root, docker, resting };
        for (question, found) in &mut self.questions {
            *found = finder.find(question);
        }
    }
}

struct Finder<'a> {
    /// The host's root.
    root: &'a Path,
    docker: Option<&'a Endpoint>,
    resting: &'a Resting,
}

impl Finder<'_> {
    fn find(&self, question: &Question) -> Found {
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
            Runtime::Docker | Runtime::Other => match (self.docker, user) {
                (None, _) => return Found::Nothing,
                (Some(_), Some(user)) => {
                    vec![Endpoint::Unix(self.root.join(user).join("docker.sock"))]
                }
                (Some(endpoint), None) => endpoint.candidates(self.root),
            },
        };
        self.sockets_say(&sockets, question)
    }

    fn sockets_say(&self, sockets: &[Endpoint], question: &Question) -> Found {
        if self.rests(question.kind()) {
            return Found::Later;
        }
        let id = question.id.as_str();
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
        self.rest(question.kind());
        Found::Later
    }

    fn rests(&self, kind: Kind) -> bool {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.iter().any(|(other, until)| *other == kind && Instant::now() < *until)
    }

    fn rest(&self, kind: Kind) {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        resting.retain(|(other, until)| *other != kind && now < *until);
        if resting.len() >= MAX_RESTING {
            resting.remove(0);
        }
        resting.push((kind, now + REST));
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

    /// Reads a file. Of another kind than a regular one it is not even opened, because a user may put a link
    /// there, and a device does what it does when somebody opens it: a watchdog begins to run.
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let place = OFlags::PATH | OFlags::CLOEXEC;
        let place = openat(CWD, self.root.join(path), place, Mode::empty()).ok()?;
        let kind = FileType::from_raw_mode(fstat(&place).ok()?.st_mode);
        if kind != FileType::RegularFile {
            return None;
        }
        let same = format!("/proc/self/fd/{}", place.as_raw_fd());
        let mut bytes = Vec::new();
        File::open(same).ok()?.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= MAX_FILE).then_some(bytes)
    }
}

/// Whether there is no such socket.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
