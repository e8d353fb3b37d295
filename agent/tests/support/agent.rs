//! The agent itself: the real binary with a configuration, a state directory and a port of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::port::Port;

/// A running or stopped agent. What it started is ended with it.
pub struct Agent {
    dir: tempfile::TempDir,
    port: Port,
    child: Option<Child>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Agent {
    /// An agent that is not started yet. `config` is put behind the keys that give it a place of its
    /// own; it may open with further keys of `[agent]`.
    pub fn new(config: &str) -> Agent {
        let agent = Agent {
            dir: tempfile::tempdir().unwrap(),
            port: Port::new(),
            child: None,
            environment: Vec::new(),
        };
        agent.configure(config);
        agent
    }

    /// Writes the configuration anew.
    pub fn configure(&self, config: &str) {
        let state = self.path("state");
        let text = format!(
            "http.listen = \"127.0.0.1:{}\"\n[agent]\nstate_dir = {:?}\n{config}",
            self.port.number(),
            state.display().to_string()
        );
        fs::write(self.path("mote.toml"), text).unwrap();
    }

    /// A path in the agent's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A variable of its environment from the next start on.
    pub fn set_environment(&mut self, name: &'static str, value: PathBuf) {
        self.environment.retain(|(have, _)| *have != name);
        self.environment.push((name, value));
    }

    /// Makes directories in its own one, and says where that is.
    pub fn dir_of(&self, names: &[&str]) -> String {
        for name in names {
            fs::create_dir_all(self.path(name)).unwrap();
        }
        self.dir.path().display().to_string()
    }

    /// The command `mote SUBCOMMAND --config …`.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = program();
        command.arg(subcommand).arg("--config").arg(self.path("mote.toml"));
        let config = std::fs::read_to_string(self.path("mote.toml")).unwrap_or_default();
        if subcommand == "run" && !config.contains("[clock]") {
            // On a machine that has just booted everything would be held.
            command.args(["--set", "clock.wait=0s"]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it and waits until its first round is collected.
    pub fn start(&mut self) {
        self.spawn();
        self.wait("ready", Duration::from_secs(30), Agent::is_ready);
    }

    /// Whether its first round is collected.
    pub fn is_ready(&self) -> bool {
        self.get("/-/ready").is_some_and(|(code, _)| code == 200)
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the agent runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child =
            self.command("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap());
    }

    /// Starts it by a command before it, which becomes it.
    pub fn spawn_by(&mut self, program: &str, arguments: &[&str]) {
        assert!(self.child.is_none(), "the agent runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let agent = self.command("run");
        let child = Command::new(program)
            .args(arguments)
            .arg(agent.get_program())
            .args(agent.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Starts it as an ordinary user, who owns its directory and is in no group.
    pub fn spawn_as(&mut self, user: u32) {
        assert!(self.child.is_none(), "the agent runs already");
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            chown(entry.unwrap().path(), Some(user), Some(user)).unwrap();
        }
        chown(self.dir.path(), Some(user), Some(user)).unwrap();
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let agent = self.command("run");
        let child = Command::new("setpriv")
            .args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()])
            .arg(agent.get_program())
            .args(agent.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("`cargo xtask setup` gets setpriv"));
    }

    /// Waits for a condition.
    pub fn wait(&mut self, what: &str, limit: Duration, mut until: impl FnMut(&Agent) -> bool) {
        let end = Instant::now() + limit;
        while !until(self) {
            let exited = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            if exited.is_some() || Instant::now() > end {
                panic!("{what}: not within {limit:?} (exit: {exited:?}); its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; how it ended, and how long that took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for the end of one that was told to; how it ended, and how long that took.
    pub fn ended(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let mut child = self.child.take().unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            if start.elapsed() > Duration::from_secs(60) {
                let _ = child.kill();
                panic!("the agent does not stop; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether its process has not ended by itself.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Whether it was started and not ended.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the agent runs"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The status report.
    pub fn status(&self) -> Value {
        let (code, body) = self.get("/api/v1/status").expect("an answer of the agent");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// As [`status`](Agent::status), if there is an agent that answers.
    pub fn try_status(&self) -> Option<Value> {
        let (_, body) = self.get("/api/v1/status")?;
        serde_json::from_str(&body).ok()
    }

    pub fn get(&self, target: &str) -> Option<(u16, String)> {
        self.request("GET", target)
    }

    pub fn request(&self, method: &str, target: &str) -> Option<(u16, String)> {
        request(self.port.number(), method, target)
    }

    /// The port of its status page.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The timestamps of the rounds in the metrics WAL, with the samples of each.
    pub fn rounds(&self) -> Vec<(i64, u32)> {
        use mote::wal::{Disk, OnFull, Options, Wal};
        let disk = Disk::look(&self.path("state/wal/metrics")).unwrap();
        let options = Options::new(1 << 30, OnFull::DropOldest, 1);
        let mut wal = Wal::open_to_read(disk, options, &[]).unwrap();
        let (mut at, mut payload, mut rounds) = (0, Vec::new(), Vec::new());
        while let Some(record) = wal.scan(at, &mut payload).unwrap() {
            rounds.push((record.time_ms, record.items));
            at = record.next;
        }
        rounds
    }
}

/// The agent's binary: the one that was built with the test, or what `MOTE_TEST_AGENT` names, such as a
/// script that runs the one for another machine on an emulated processor.
pub fn program() -> Command {
    let own = || env!("CARGO_BIN_EXE_mote").into();
    Command::new(std::env::var_os("MOTE_TEST_AGENT").unwrap_or_else(own))
}

/// An answer of the agent whose status page is at this port.
pub fn request(port: u16, method: &str, target: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "{method} {target} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
