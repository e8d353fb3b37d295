//! A journald of the test's own: the machine's, with its own /run and /var/log/journal; or another
//! system's, whose root `MOTE_JOURNALD_ROOT` names.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::{self, Permissions};
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, UCred, sendmsg};
use rustix::process::{Gid, Uid, getpid};

/// It runs until it is dropped. Root and `unshare` are needed.
pub(crate) struct Journald {
    child: Child,
    root: PathBuf,
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Journald {
    /// Keeps its files below `root`, in `run/log/journal` and `var/log/journal`.
    pub(crate) fn start(root: &Path, configuration: &str) -> Journald {
        fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
        let folder = root.join("run/systemd/journald.conf.d");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.join("var/log/journal")).unwrap();
        let text = "[Journal]\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=no\n";
        fs::write(folder.join("test.conf"), format!("{text}{configuration}\n")).unwrap();
        let run = root.join("run/systemd/journal");
        fs::create_dir_all(&run).unwrap();
        let _ = fs::remove_file(run.join("socket"));
        if configuration.contains("persistent") {
            // Else it waits for the flush that a boot brings.
            fs::write(run.join("flushed"), "").unwrap();
        }
        let script = "if [ \"$1\" ]; then \
                          for name in dev proc sys; do mount --rbind /$name \"$1/$name\"; done; \
                      fi; \
                      mkdir -p \"$1/run\" \"$1/var/log/journal\" && \
                      mount --bind \"$0/run\" \"$1/run\" && \
                      mount --bind \"$0/var/log/journal\" \"$1/var/log/journal\" && \
                      exec chroot \"$1/\" /lib/systemd/systemd-journald";
        let system = std::env::var_os("MOTE_JOURNALD_ROOT").unwrap_or_default();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .args([root.as_os_str(), &system])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let journald = Journald { child, root: root.to_owned() };
        let began = Instant::now();
        while UnixDatagram::unbound().unwrap().connect(journald.socket()).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "journald does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        journald
    }

    /// Where programs send their entries.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("run/systemd/journal/socket")
    }

    /// What a service's standard output is connected to.
    pub(crate) fn stream(&self, identifier: &str) -> UnixStream {
        let socket = self.root.join("run/systemd/journal/stdout");
        let mut stream = UnixStream::connect(socket).unwrap();
        // Its unit, the priority, and whether priorities stand before lines and where else they go.
        stream.write_all(format!("{identifier}\n\n6\n0\n0\n0\n0\n").as_bytes()).unwrap();
        stream
    }

    /// SIGUSR1 has it flush the volatile journal, SIGUSR2 rotate.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The directories of this machine, whether they are there yet or not.
    pub(crate) fn directories(&self) -> [PathBuf; 2] {
        let id = fs::read_to_string("/etc/machine-id").unwrap();
        ["run/log/journal", "var/log/journal"].map(|path| self.root.join(path).join(id.trim()))
    }
}

/// One entry in journald's own protocol.
pub(crate) fn send(socket: &UnixDatagram, number: usize, user: &str) {
    let text = format!("MESSAGE=line {number}\nNUMBER={number}\nTEST={user}\nPRIORITY=6\n");
    socket.send(text.as_bytes()).unwrap();
}

/// The same as another user would send it. Root's word about who it is counts for the kernel.
pub(crate) fn send_as(socket: &UnixDatagram, number: usize, user: u32) {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    let message = SendAncillaryMessage::ScmCredentials(UCred { pid: getpid(), uid, gid });
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(message));
    let text = format!("MESSAGE=line {number}\nNUMBER={number}\nPRIORITY=6\n");
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg(socket, &text, &mut ancillary, SendFlags::empty()).unwrap();
}
