//! What a service manager sees of the agent: a strict fake that takes each datagram apart, a real systemd that
//! starts, watches, reloads and stops it, and systemd's own opinion of the unit. The real one needs root,
//! `unshare` and Debian's package `systemd`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::Agent;

/// Rounds are frequent, and nothing else takes time.
const QUICK: &str = "interval = \"200ms\"\n[metrics.collectors]\nonly = [\"loadavg\"]\n[probes]\ndefault = \"off\"\n";

/// A datagram, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    state: Option<&'static str>,
    status: Option<String>,
    watchdog: bool,
    extend: Option<u64>,
}

/// A service manager that accepts nothing but what sd_notify(3) has and an agent in this state may say.
struct Manager {
    socket: UnixDatagram,
    last: Option<&'static str>,
    status: Option<String>,
}

impl Manager {
    fn new(socket: UnixDatagram) -> Manager {
        Manager { socket, last: None, status: None }
    }

    fn at(path: &Path) -> Manager {
        Manager::new(UnixDatagram::bind(path).unwrap())
    }

    /// The next datagram, if one comes in time.
    fn next(&mut self, limit: Duration) -> Option<Told> {
        let mut buffer = [0; 2_000];
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let length = self.socket.recv(&mut buffer).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        assert!(text.ends_with('\n') && text.len() < 1_500, "{text:?}");
        let mut told = Told::default();
        let (mut names, mut monotonic) = (Vec::new(), None);
        for line in text.lines() {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{text:?}"));
            assert!(!names.contains(&name), "twice: {text:?}");
            names.push(name);
            match (name, value) {
                ("READY", "1") => told.state = Some("READY"),
                ("RELOADING", "1") => told.state = Some("RELOADING"),
                ("STOPPING", "1") => told.state = Some("STOPPING"),
                ("WATCHDOG", "1") => told.watchdog = true,
                ("STATUS", line) => told.status = Some(line.to_owned()),
                ("MONOTONIC_USEC", usec) => monotonic = Some(usec.parse::<i64>().unwrap()),
                ("EXTEND_TIMEOUT_USEC", usec) => told.extend = Some(usec.parse().unwrap()),
                _ => panic!("{text:?}"),
            }
        }
        assert!(!names.is_empty());
        assert_eq!(told.state == Some("RELOADING"), monotonic.is_some(), "{text:?}");
        if let Some(usec) = monotonic {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let age = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000 - usec;
            assert!((0..60_000_000).contains(&age), "{age}");
        }
        if let Some(status) = &told.status {
            assert!(!status.is_empty() && self.status.as_ref() != Some(status), "again: {text:?}");
            self.status = Some(status.clone());
        }
        if let Some(state) = told.state {
            let may_follow = match self.last {
                None | Some("RELOADING") => &["READY", "STOPPING"][..],
                Some("READY") => &["RELOADING", "STOPPING"],
                _ => &[],
            };
            assert!(may_follow.contains(&state), "{state} after {:?}", self.last);
            self.last = Some(state);
        }
        Some(told)
    }

    /// Datagrams until one has this state.
    fn until(&mut self, state: &str) -> Told {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let told = self.next(Duration::from_secs(60)).unwrap_or_else(|| panic!("no {state}"));
            if told.state == Some(state) {
                return told;
            }
        }
        panic!("no {state}");
    }
}

#[test]
fn each_state_is_told_once_and_in_order_by_path_and_by_abstract_name() {
    for by_name in [false, true] {
        let mut agent = Agent::new(QUICK);
        let (mut manager, place) = if by_name {
            let name = format!("mote-test-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let socket = UnixDatagram::bind_addr(&address).unwrap();
            (Manager::new(socket), PathBuf::from(format!("@{name}")))
        } else {
            let path = agent.path("notify");
            (Manager::at(&path), path)
        };
        agent.set_environment("NOTIFY_SOCKET", place);
        agent.spawn();
        let first = manager.next(Duration::from_secs(60)).unwrap();
        assert_eq!(first.status.as_deref(), Some("opening the WALs"));
        let ready = manager.until("READY");
        assert_eq!(ready.status.as_deref(), Some("collecting the first round"));
        let line = manager.next(Duration::from_secs(60)).unwrap().status.unwrap();
        assert!(line.contains("no endpoint") && line.contains("no memory pressure"), "{line}");
        // Five rounds a second, and nothing new.
        assert_eq!(manager.next(Duration::from_secs(2)), None);

        agent.signal(Signal::HUP);
        manager.until("RELOADING");
        manager.until("READY");
        manager.next(Duration::from_secs(60)).unwrap();

        agent.configure("interval = \"soon\"\n");
        agent.signal(Signal::HUP);
        manager.until("RELOADING");
        let still = manager.until("READY").status.unwrap();
        assert!(still.starts_with("not reloaded: ") && still.contains("agent.interval"), "{still}");
        manager.next(Duration::from_secs(60)).unwrap();

        agent.signal(Signal::TERM);
        // agent.shutdown_timeout and what closing takes.
        assert_eq!(manager.until("STOPPING").extend, Some(25_000_000));
        assert!(agent.ended().0.success());
        assert_eq!(manager.next(Duration::from_millis(100)), None);
        assert!(!agent.log().contains("telling the service manager"), "{}", agent.log());
    }
}

#[test]
fn a_service_manager_that_is_not_there_does_no_harm() {
    let mut agent = Agent::new(QUICK);
    agent.set_environment("NOTIFY_SOCKET", agent.path("notify"));
    agent.set_environment("WATCHDOG_USEC", "1000000".into());
    agent.start();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(agent.log().matches("telling the service manager").count(), 1, "{}", agent.log());
    // It comes, and is told all that it has missed.
    let mut manager = Manager::at(&agent.path("notify"));
    assert_eq!(manager.until("READY").state, Some("READY"));
    assert!(manager.next(Duration::from_secs(5)).unwrap().watchdog);
    let (status, _) = agent.terminate();
    assert!(status.success());
    assert_eq!(agent.log().matches("is told again").count(), 1, "{}", agent.log());
}

#[test]
fn only_a_thread_that_hangs_is_silent() {
    const WATCHDOG: Duration = Duration::from_secs(4);
    // A server that never answers, and hardly a round: neither is a hang.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = server.local_addr().unwrap();
    let mut agent = Agent::new(&format!(
        "interval = \"1h\"\n[metrics.collectors]\nonly = [\"loadavg\"]\n[probes]\ndefault = \"off\"\n[[mimir]]\nurl = \"http://{url}/\"\n"
    ));
    let mut manager = Manager::at(&agent.path("notify"));
    agent.set_environment("NOTIFY_SOCKET", agent.path("notify"));
    agent.set_environment("WATCHDOG_USEC", WATCHDOG.as_micros().to_string().into());
    agent.spawn();
    manager.until("READY");
    let mut beats = 0;
    let began = Instant::now();
    while began.elapsed() < 3 * WATCHDOG {
        beats += u32::from(manager.next(WATCHDOG).expect("a sign of life in time").watchdog);
    }
    assert!((5..=8).contains(&beats), "{beats}");
    agent.signal(Signal::STOP);
    while manager.next(Duration::from_millis(100)).is_some() {}
    assert_eq!(manager.next(WATCHDOG), None);
    agent.signal(Signal::CONT);
    assert!(manager.next(WATCHDOG).unwrap().watchdog);
    // The watchdog of another process is none of its business.
    agent.kill();
    agent.set_environment("WATCHDOG_PID", "1".into());
    manager.last = None;
    manager.status = None;
    agent.spawn();
    assert!(!manager.until("READY").watchdog);
    while let Some(told) = manager.next(WATCHDOG) {
        assert!(!told.watchdog, "{told:?}");
    }
}

#[test]
fn a_dead_mount_holds_up_a_round_and_not_the_sign_of_life() {
    const WATCHDOG: Duration = Duration::from_secs(5);
    let mut agent = Agent::new(
        "interval = \"1s\"\n[metrics]\ncollectors.only = [\"filesystem\"]\nfilesystem.mount_timeout = \"2s\"\n[probes]\ndefault = \"off\"\n",
    );
    let dead = agent.dir_of(&["dead"]) + "/dead";
    let mut manager = Manager::at(&agent.path("notify"));
    // A file system of which nobody answers for: its server is the agent, which does not know.
    let options = "fd=9,rootmode=40000,user_id=0,group_id=0";
    let script =
        format!("exec 9<>/dev/fuse && mount -i -t fuse -o {options} none {dead} && exec \"$@\"");
    let place = format!("NOTIFY_SOCKET={}", agent.path("notify").display());
    let watchdog = format!("WATCHDOG_USEC={}", WATCHDOG.as_micros());
    // It asks the mounts of the first process, which it is.
    let alone = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let before = [&alone[..], &["sh", "-c", &script, "sh", "env", &place, &watchdog]].concat();
    agent.spawn_by("unshare", &before);
    manager.until("READY");
    let began = Instant::now();
    while began.elapsed() < 3 * WATCHDOG {
        manager.next(WATCHDOG).unwrap_or_else(|| panic!("silence: {}", agent.log()));
    }
    let (_, text) = agent.get("/metrics?collect=node").unwrap();
    let hangs = |line: &str| {
        line.starts_with("node_filesystem_device_error{")
            && line.contains(&dead)
            && line.ends_with(" 1")
    };
    assert!(text.lines().any(hangs), "{text}");
}

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/mote.service");

/// The unit with this agent in the place of the installed one.
fn unit(directory: &Path) -> PathBuf {
    let text = fs::read_to_string(UNIT).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/mote run\n"));
    let path = directory.join("mote.service");
    fs::write(&path, text.replace("/usr/bin/mote", env!("CARGO_BIN_EXE_mote"))).unwrap();
    path
}

fn analyze(arguments: &[&str], unit: &Path) -> (Output, String) {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).arg(unit).env("SYSTEMD_COLORS", "0").output();
    let output = output.expect("systemd-analyze: `cargo xtask setup` gets it");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8(text).unwrap())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let (output, text) = analyze(&["verify", "--man=no"], &unit(dir.path()));
    assert!(output.status.success(), "{text}");
    let ours: Vec<_> = text.lines().filter(|line| line.contains("mote.service")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    // A drop-in of each board, too.
    let boards = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards")).unwrap();
    for board in boards {
        let path = board.unwrap().path();
        let name = path.file_stem().unwrap();
        let mote = Command::new(env!("CARGO_BIN_EXE_mote"));
        let output = { mote }.args(["boards", "unit"]).arg(name).output().unwrap();
        assert!(output.status.success());
        let dropped = dir.path().join("mote.service.d");
        fs::create_dir_all(&dropped).unwrap();
        fs::write(dropped.join("board.conf"), &output.stdout).unwrap();
        let (output, text) = analyze(&["verify", "--man=no"], &dir.path().join("mote.service"));
        assert!(output.status.success() && !text.contains("board.conf"), "{name:?} {text}");
    }
}

#[test]
fn the_unit_gives_no_more_rights_than_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = unit(dir.path());
    // Tenths: what is left out is said in the unit, with why.
    let (output, text) = analyze(&["security", "--offline=true", "--threshold=35"], &path);
    assert!(output.status.success(), "{text}");
}

/// What the unit says of a key.
fn setting(key: &str) -> String {
    let text = fs::read_to_string(UNIT).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let [value] = lines.collect::<Vec<_>>()[..] else { panic!("{key}") };
    value.to_owned()
}

#[test]
fn the_unit_has_the_generic_boards_limits() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_mote")).args(["boards", "unit", "generic"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    for key in ["MemoryHigh", "MemoryMax"] {
        assert!(text.contains(&format!("\n{key}={}\n", setting(key))), "{text}");
    }
}

/// A systemd that has a machine of its own, as far as processes, mounts and groups go: the first process there.
struct Systemd {
    child: Child,
    pid: u32,
}

impl Systemd {
    /// With the real unit, of which drop-ins have what differs; the agent's configuration is `config`.
    fn start(root: &Path, drop_in: &str, config: &str) -> Systemd {
        let units = root.join("units");
        fs::create_dir_all(units.join("mote.service.d")).unwrap();
        for target in ["default", "sysinit", "basic", "shutdown", "network-online", "local-fs"] {
            let text = "[Unit]\nDefaultDependencies=no\n";
            fs::write(units.join(format!("{target}.target")), text).unwrap();
        }
        fs::copy(UNIT, units.join("mote.service")).unwrap();
        fs::write(units.join("mote.service.d/test.conf"), drop_in).unwrap();
        fs::write(root.join("mote.toml"), config).unwrap();
        let script = root.join("boot.sh");
        fs::write(&script, BOOT).unwrap();
        let log = fs::File::create(root.join("systemd.log")).unwrap();
        let child = Command::new("unshare")
            .args([
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--ipc",
                "--uts",
                "--cgroup",
                "sh",
            ])
            .arg(script)
            .args([root, Path::new(env!("CARGO_BIN_EXE_mote"))])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("unshare: `cargo xtask setup` gets it");
        let mut systemd = Systemd { child, pid: 0 };
        let end = Instant::now() + Duration::from_secs(30);
        while !systemd.systemctl(&["is-active", "default.target"]).0 {
            let log = || fs::read_to_string(root.join("systemd.log")).unwrap();
            assert!(Instant::now() < end, "systemd does not start: {}", log());
            thread::sleep(Duration::from_millis(50));
            let unshare = systemd.child.id();
            let children = format!("/proc/{unshare}/task/{unshare}/children");
            let first = fs::read_to_string(children).unwrap_or_default();
            systemd.pid = first.split(' ').next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        }
        systemd
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-p", "-m", "--wd=/", program]);
        command
    }

    fn systemctl(&self, arguments: &[&str]) -> (bool, String) {
        if self.pid == 0 {
            return (false, String::new());
        }
        let output = self.inside("systemctl").args(arguments).output().unwrap();
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    fn show(&self, key: &str) -> String {
        self.systemctl(&["show", "mote.service", "--value", "-p", key]).1.trim().to_owned()
    }

    fn shows(&self, keys: [&str; 2]) -> [String; 2] {
        keys.map(|key| self.show(key))
    }

    /// A file as the processes there see it.
    fn read(&self, path: &str) -> String {
        fs::read_to_string(format!("/proc/{}/root{path}", self.pid)).unwrap_or_default()
    }

    /// Writes the agent's configuration anew.
    fn configure(&self, config: &str) {
        fs::write(format!("/proc/{}/root/run/mote.toml", self.pid), config).unwrap();
    }

    fn wait(&self, what: &str, until: impl Fn(&Systemd) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !until(self) {
            let status = || self.systemctl(&["status", "--full", "mote.service"]).1;
            assert!(Instant::now() < end, "{what}: {}\n{}", status(), self.read("/run/mote.log"));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What boots it: $1 is the test's directory, $2 the agent.
const BOOT: &str = "set -e
root=$1 mote=$2
mount --make-rprivate /
mount -t proc proc /proc
for path in /run /var/lib /sys/fs/cgroup; do mount -t tmpfs tmpfs $path; done
mount -t cgroup2 none /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mkdir -p /run/systemd/system
cp -r $root/units/. /run/systemd/system/
cp $mote /run/mote
cp $root/mote.toml /run/mote.toml
chmod 755 /run/mote
for file in passwd group; do grep -v '^mote:' /etc/$file > /run/$file; done
echo 'mote:x:990:990::/var/lib/mote:/usr/sbin/nologin' >> /run/passwd
echo 'mote:x:990:' >> /run/group
for file in passwd group; do mount --bind /run/$file /etc/$file; done
export container=test SYSTEMD_UNIT_PATH=/run/systemd/system SYSTEMD_PROC_CMDLINE=
exec /lib/systemd/systemd --system --unit=default.target --log-target=console --show-status=no
";

#[test]
fn a_real_systemd_starts_watches_reloads_and_stops_the_unit_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    // It is never started, and holds its port.
    let held = Agent::new("");
    let port = held.port();
    // It never answers, so that the end takes as long as it may.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = server.local_addr().unwrap();
    let config = format!(
        "http.listen = \"127.0.0.1:{port}\"\nclock.wait = \"0s\"\n[agent]\ninterval = \"500ms\"\nshutdown_timeout = \"8s\"\n\
         [[mimir]]\nurl = \"http://{url}/\"\nsend_interval = \"1s\"\n"
    );
    // Shorter than the drain; and than what the agent may be silent for.
    let drop_in = "[Service]\nExecStart=\nExecStart=/run/mote run --config /run/mote.toml\nWatchdogSec=5s\n\
                   RestartSec=100ms\nTimeoutStopSec=2s\nStandardError=append:/run/mote.log\n";
    let systemd = Systemd::start(root.path(), drop_in, &config);

    // It comes back when the agent is ready.
    let (started, why) = systemd.systemctl(&["start", "mote.service"]);
    assert!(started, "{why} {}", systemd.read("/run/mote.log"));
    assert_eq!(systemd.shows(["ActiveState", "Type"]), ["active", "notify"]);
    systemd.wait("a line on how it does", |s| s.show("StatusText").contains("a round every 0.5 s"));

    // All rights that it needs, and no others.
    let status = systemd.read(&format!("/proc/{}/status", systemd.show("MainPID")));
    for line in ["Uid:\t990\t990", "Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    let (_, report) = support::agent::request(port, "GET", "/api/v1/status").unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for probe in report["probes"].as_array().unwrap() {
        let by_program = ["block", "tcp", "oom"].iter().any(|name| probe["name"] == *name);
        assert!(!by_program || probe["mode"] == "tracepoint", "{probe}");
    }
    let failed = report["collectors"].as_array().unwrap().iter();
    let failed: Vec<_> = failed.filter(|collector| collector["state"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(!report["board"].as_str().unwrap().is_empty());

    // Longer than WatchdogSec: it lives.
    let pid = systemd.show("MainPID");
    thread::sleep(Duration::from_secs(7));
    assert_eq!(systemd.shows(["MainPID", "NRestarts"]), [pid.as_str(), "0"]);

    let reloads =
        |s: &Systemd| s.read("/run/mote.log").matches("reloading the configuration").count();
    assert!(systemd.systemctl(&["reload", "mote.service"]).0);
    systemd.wait("a reload", |s| {
        reloads(s) == 1
            && s.show("SubState") == "running"
            && s.show("StatusText").contains("a round every")
    });
    systemd.configure("agent.interval = \"soon\"\n");
    assert!(systemd.systemctl(&["reload", "mote.service"]).0);
    systemd.wait("a refusal", |s| s.read("/run/mote.log").contains("not reloaded"));
    systemd.wait("it goes on", |s| s.show("SubState") == "running");
    assert_eq!(systemd.show("MainPID"), pid);
    systemd.configure(&config);

    assert!(systemd.inside("kill").args(["-STOP", &pid]).status().unwrap().success());
    systemd.wait("a restart of what hangs", |s| s.show("NRestarts") == "1");
    systemd.wait("it runs again", |s| s.show("ActiveState") == "active");
    assert_ne!(systemd.show("MainPID"), pid);

    // It asks for the time that its drain takes.
    systemd.wait("something to deliver", |s| s.show("StatusText").contains("a round every"));
    let began = Instant::now();
    let (stopped, why) = systemd.systemctl(&["stop", "mote.service"]);
    assert!(stopped, "{why}");
    assert_eq!(systemd.shows(["ActiveState", "Result"]), ["inactive", "success"]);
    assert!(began.elapsed() > Duration::from_secs(6), "{:?}", began.elapsed());
}
