//! A real journald with a journal of its own: in a mount namespace with its own /run, /var/log, machine
//! id and configuration, fed through its sockets and read with journalctl.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = "/lib/systemd/systemd-journald";
/// The machine's id.
pub const ID: &str = "0123456789abcdef0123456789abcdef";

/// A journald and the root directory under which its journal appears.
pub struct Journald {
    root: tempfile::TempDir,
    child: Option<Child>,
    socket: Option<UnixDatagram>,
}

impl Journald {
    /// One that keeps its journal on disk.
    pub fn persistent(settings: &str) -> Journald {
        let journald = Journald::stopped();
        journald.set("persistent", settings);
        // What systemd-journal-flush.service leaves behind; without it all goes to /run at first.
        fs::create_dir_all(journald.root().join("run/systemd/journal")).unwrap();
        fs::write(journald.root().join("run/systemd/journal/flushed"), "").unwrap();
        journald.started()
    }

    /// One that keeps it in /run until it is told to [`flush`](Journald::flush).
    pub fn volatile(settings: &str) -> Journald {
        let journald = Journald::stopped();
        journald.set("auto", settings);
        journald.started()
    }

    /// A machine whose journald was never started: it has no journal.
    pub fn stopped() -> Journald {
        assert!(
            Path::new(PROGRAM).exists(),
            "no systemd-journald: install the package systemd, which `cargo xtask setup` gets"
        );
        let root = tempfile::tempdir().unwrap();
        for directory in ["etc", "run", "var/log"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("etc/machine-id"), format!("{ID}\n")).unwrap();
        Journald { root, child: None, socket: None }
    }

    /// Writes its configuration.
    pub fn set(&self, storage: &str, settings: &str) {
        let text = format!(
            "[Journal]\nStorage={storage}\nReadKMsg=no\nAudit=\nRateLimitIntervalSec=0\n\
             ForwardToSyslog=no\nForwardToKMsg=no\nForwardToWall=no\n{settings}\n"
        );
        fs::write(self.root().join("etc/journald.conf"), text).unwrap();
    }

    fn started(mut self) -> Journald {
        self.start();
        self
    }

    /// Starts it and waits until it takes messages.
    pub fn start(&mut self) {
        const SCRIPT: &str = "set -e; mount --bind \"$0/run\" /run; mount --bind \"$0/var/log\" /var/log; \
            mount --bind \"$0/etc/machine-id\" /etc/machine-id; \
            mount --bind \"$0/etc/journald.conf\" /etc/systemd/journald.conf; exec \"$1\"";
        assert!(self.child.is_none());
        let socket = self.root().join("run/systemd/journal/socket");
        let _ = fs::remove_file(&socket);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let log = fs::File::create(self.root().join("journald.log")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", SCRIPT])
            .arg(self.root())
            .arg(PROGRAM)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        self.wait("journald's socket", || socket.exists());
        let own = UnixDatagram::unbound().unwrap();
        self.wait("a connection to journald", || own.connect(&socket).is_ok());
        self.socket = Some(own);
    }

    /// Ends it as a shutdown would.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            let _ = child.wait();
        }
        self.socket = None;
    }

    /// Where the machine's root is, for `host.root`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where the journal on disk is.
    pub fn directory(&self) -> PathBuf {
        self.root().join("var/log/journal").join(ID)
    }

    /// Where the journal in /run is.
    pub fn volatile_directory(&self) -> PathBuf {
        self.root().join("run/log/journal").join(ID)
    }

    /// Sends an entry by journald's own protocol.
    pub fn send(&self, fields: &[(&str, &[u8])]) {
        let mut datagram = Vec::new();
        for (name, value) in fields {
            datagram.extend_from_slice(name.as_bytes());
            if value.contains(&b'\n') {
                datagram.push(b'\n');
                datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                datagram.push(b'=');
            }
            datagram.extend_from_slice(value);
            datagram.push(b'\n');
        }
        self.socket.as_ref().expect("journald runs").send(&datagram).unwrap();
    }

    /// Sends messages of one program.
    pub fn say(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let message = format!("line {number}");
            self.send(&[
                ("MESSAGE", message.as_bytes()),
                ("PRIORITY", b"6"),
                ("SYSLOG_IDENTIFIER", b"test"),
            ]);
        }
    }

    /// Sends a message as syslog(3) does.
    pub fn syslog(&self, text: &str) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(text.as_bytes(), self.root().join("run/systemd/journal/dev-log")).unwrap();
    }

    /// Has it begin new files.
    pub fn rotate(&self) {
        self.signal_and_wait(Signal::USR2, "rotated");
    }

    /// Has it move what is in /run to the disk.
    pub fn flush(&self) {
        fs::create_dir_all(self.root().join("var/log/journal")).unwrap();
        self.signal_and_wait(Signal::USR1, "flushed");
    }

    fn signal_and_wait(&self, signal: Signal, mark: &str) {
        let mark = self.root().join("run/systemd/journal").join(mark);
        let before = fs::metadata(&mark).and_then(|m| m.modified()).ok();
        // Marks have the time of the kernel's last tick.
        std::thread::sleep(Duration::from_millis(10));
        kill_process(Pid::from_child(self.child.as_ref().expect("journald runs")), signal).unwrap();
        self.wait("journald's answer to a signal", || {
            fs::metadata(&mark).and_then(|m| m.modified()).ok().is_some_and(|m| Some(m) != before)
        });
    }

    /// Removes archived files, the oldest first, as `journalctl --vacuum-files` does.
    pub fn remove_oldest(&self, count: usize) {
        let mut archived: Vec<PathBuf> = fs::read_dir(self.directory())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains('@'))
            .collect();
        // Their names end in the number and the time of their first entry.
        archived.sort_by_key(|path| path.to_string_lossy().rsplit('@').next().map(str::to_owned));
        assert!(archived.len() >= count, "{archived:?}");
        archived.iter().take(count).for_each(|path| fs::remove_file(path).unwrap());
    }

    /// All entries as journalctl tells them, oldest first.
    pub fn entries(&self, arguments: &[&str]) -> Vec<Value> {
        let mut command = Command::new("journalctl");
        command.args(["--output=json", "--no-pager", "--all", "--quiet"]);
        for directory in [self.volatile_directory(), self.directory()] {
            let journals = fs::read_dir(&directory).into_iter().flatten().flatten();
            if journals.count() > 0 {
                command.arg(format!("--file={}/*.journal", directory.display()));
            }
        }
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// The messages of one program as journalctl tells them.
    pub fn messages(&self, identifier: &str) -> Vec<String> {
        let wanted = format!("SYSLOG_IDENTIFIER={identifier}");
        self.entries(&[&wanted]).iter().map(message).collect()
    }

    /// Waits until the program's messages are so many.
    pub fn await_messages(&self, identifier: &str, count: usize) {
        self.wait("messages in the journal", || self.messages(identifier).len() >= count);
    }

    fn wait(&self, what: &str, mut until: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !until() {
            let log = || fs::read_to_string(self.root().join("journald.log")).unwrap_or_default();
            assert!(Instant::now() < end, "{what}: not within 30 s; journald said:\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an entry of journalctl's JSON says; text that is no UTF-8 stands there as numbers.
pub fn message(entry: &Value) -> String {
    match &entry["MESSAGE"] {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().map(|b| b.as_u64().unwrap() as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        other => panic!("{other} is no message"),
    }
}
