//! What peers, the host and missing rights can do to the log sources of the whole agent: its memory, its
//! wake-ups, and what it says. Needs root, setpriv and systemd's journald.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mote::host::{Endpoint, ManualClock, Roots};
use mote::logs::Source as _;
use mote::logs::docker::{DockerSource, Limits, Options, Read};
use mote::model::Block;
use serde_json::json;
use support::{Agent, Dockerd, Journald, Port, StrictLoki};

const LONG: Duration = Duration::from_secs(60);

fn agent(loki: &StrictLoki, more: &str) -> Agent {
    Agent::new(&format!(
        "instance = \"box\"\ninterval = \"5s\"\n\
         [metrics]\ncollectors = {{ only = [\"loadavg\"] }}\n[probes]\ndefault = \"off\"\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\n{more}",
        loki.url()
    ))
}

fn docker(daemon: &Dockerd) -> String {
    format!("[logs.docker]\nhost = {:?}\nread = \"api\"\nmax_age = \"off\"\n", daemon.host())
}

/// Of /proc/PID/status, in KiB.
fn peak_kib(agent: &Agent, name: &str) -> u64 {
    let status = format!("/proc/{}/status", agent.pid().as_raw_nonzero());
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Waits, and gives the most of a value of /proc/PID/status.
fn most(agent: &Agent, wait: Duration, until: impl Fn() -> bool) -> u64 {
    let (end, mut most) = (Instant::now() + wait, 0);
    while Instant::now() < end && !until() {
        most = most.max(peak_kib(agent, "RssAnon"));
        std::thread::sleep(Duration::from_millis(10));
    }
    most
}

/// Of UDP: a socket that holds it would have its messages.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn lines_without_end_in_two_hundred_terminals_cost_bounded_memory() {
    let loki = StrictLoki::new();
    let daemon = Dockerd::new();
    let mut agent = agent(&loki, &docker(&daemon));
    agent.start();
    let before = most(&agent, Duration::from_secs(2), || false);
    let ids: Vec<String> =
        (0..200).map(|n| daemon.run_as(&format!("c{n}"), |c| c.tty = true)).collect();
    for id in &ids {
        daemon.write(id, 1, &"x".repeat(90_000));
    }
    let written = || daemon.state().written >= 200 * 90_000;
    let during = most(&agent, LONG, written).max(most(&agent, Duration::from_secs(3), || false));
    println!("{before} KiB, then {during} KiB");
    assert!(written());
    assert!(during < before + 4_500, "{before} KiB, then {during} KiB");
    // Each is a line when it ends.
    for id in &ids {
        daemon.write(id, 1, "end\n");
        daemon.die(id);
    }
    let lines = |n: usize| loki.lines(&[("container", format!("c{n}").as_str())]).len();
    agent.wait("all lines", LONG, |_| (0..200).all(|n| lines(n) > 0));
    assert!(agent.terminate().0.success());
}

#[test]
fn thousands_of_labels_on_many_containers_cost_bounded_memory() {
    let loki = StrictLoki::new();
    let daemon = Dockerd::new();
    let mut labels = serde_json::Map::new();
    for n in 0..1_000 {
        labels.insert(format!("com.example.a-rather-long-key-{n}"), json!("x".repeat(60)));
    }
    labels.insert("com.docker.compose.project".to_owned(), json!("shop"));
    let mut agent = agent(&loki, &docker(&daemon));
    agent.start();
    let before = most(&agent, Duration::from_secs(2), || false);
    for n in 0..100 {
        daemon.run_as(&format!("c{n}"), |c| {
            (c.labels, c.running) = (json!(labels), false);
        });
    }
    let last = daemon.run("last");
    agent.kill();
    agent.start();
    daemon.lines(&last, 1, 0..1);
    let arrived = || !loki.lines(&[("container", "last")]).is_empty();
    let during = most(&agent, LONG, arrived);
    println!("{before} KiB, then {during} KiB");
    assert!(arrived());
    assert!(during < before + 4_000, "{before} KiB, then {during} KiB");
    assert!(agent.terminate().0.success());
}

#[test]
fn storms_of_connections_datagrams_and_messages_without_end_cost_bounded_memory() {
    let loki = StrictLoki::new();
    let held = Port::new();
    let (udp, tcp) = (free_port(), held.number());
    let mut agent = agent(
        &loki,
        &format!(
            "[[logs.syslog]]\nlisten = \"udp://127.0.0.1:{udp}\"\n\
             [[logs.syslog]]\nlisten = \"tcp://127.0.0.1:{tcp}\"\nmax_connections = 200\n"
        ),
    );
    agent.start();
    let before = most(&agent, Duration::from_secs(2), || false);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", udp)).unwrap();
    let mut connections = Vec::new();
    let mut during = 0;
    for n in 0..600 {
        let mut stream = TcpStream::connect(("127.0.0.1", tcp)).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let start = if n % 2 == 0 { "999999999 <14>" } else { "<14>endless: " };
        // Those beyond the 200 are closed.
        let _ = stream.write_all(start.as_bytes());
        let _ = stream.write_all(&[b'x'; 70_000]);
        connections.push(stream);
        for _ in 0..170 {
            let _ = socket.send(format!("<14>storm: {n}").as_bytes());
        }
        during = during.max(peak_kib(&agent, "RssAnon"));
    }
    during = during.max(most(&agent, Duration::from_secs(5), || false));
    println!("{before} KiB, then {during} KiB");
    assert!(during < before + 4_000, "{before} KiB, then {during} KiB");
    // It still hears.
    agent.wait("a line after the storm", LONG, |_| {
        let _ = socket.send(b"<14>after: storm");
        std::thread::sleep(Duration::from_millis(200));
        !loki.lines(&[("syslog_identifier", "after")]).is_empty()
    });
    assert!(agent.terminate().0.success());
}

/// Voluntary context switches of all its threads.
fn switches(agent: &Agent) -> u64 {
    let tasks = format!("/proc/{}/task", agent.pid().as_raw_nonzero());
    let of = |task: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().unwrap())
    };
    fs::read_dir(tasks).unwrap().map(|task| of(task.unwrap())).sum()
}

#[test]
fn sources_in_which_nothing_happens_wake_nobody() {
    let loki = StrictLoki::new();
    let daemon = Dockerd::new();
    for n in 0..10 {
        daemon.run(&format!("quiet{n}"));
    }
    let empty = tempfile::tempdir().unwrap();
    let file = format!("[[logs.file]]\npaths = [\"{}/*.log\"]\n", empty.path().display());
    let held = Port::new();
    let sources = format!(
        "{}[[logs.syslog]]\nlisten = \"udp://127.0.0.1:{}\"\n\
         [[logs.syslog]]\nlisten = \"tcp://127.0.0.1:{}\"\n",
        docker(&daemon),
        free_port(),
        held.number()
    );
    let mut without = agent(&loki, &file);
    let mut with = agent(&loki, &format!("{file}{sources}"));
    without.start();
    with.start();
    std::thread::sleep(Duration::from_secs(5));
    let before = (with.log(), switches(&without), switches(&with));
    std::thread::sleep(Duration::from_secs(30));
    let (few, more) = (switches(&without) - before.1, switches(&with) - before.2);
    println!("in 30 s {few} without, {more} with");
    assert_eq!(daemon.state().open_logs, 10);
    assert!(more <= few + 10, "{few} without, {more} with");
    assert!(with.terminate().0.success() && without.terminate().0.success());
}

#[test]
fn without_rights_each_source_says_so_once_and_the_others_go_on() {
    let loki = StrictLoki::new();
    let daemon = Dockerd::new();
    daemon.run("app");
    let files = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(files.path(), mode).unwrap();
    let path = files.path().join("a.log");
    fs::write(&path, "first\n").unwrap();
    let mut agent = agent(
        &loki,
        &format!(
            "[[logs.file]]\npaths = [{path:?}]\n\
             [[logs.syslog]]\nlisten = \"udp://127.0.0.1:514\"\n\
             [logs.kernel]\nwhen = \"always\"\n{}",
            docker(&daemon)
        ),
    );
    agent.spawn_as(65_534);
    agent.wait("ready", LONG, Agent::is_ready);
    // Several attempts.
    std::thread::sleep(Duration::from_secs(5));
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"second\n").unwrap();
    agent.wait("lines", LONG, |_| {
        loki.lines(&[("filename", &path.display().to_string())]).len() == 2
    });
    let log = agent.log();
    println!("{log}");
    let once = |part: &str| assert_eq!(log.matches(part).count(), 1, "{part}: {log}");
    once("docker.sock");
    once("Let the agent be a member of the socket's group");
    once("127.0.0.1:514");
    once("takes root or CAP_NET_BIND_SERVICE");
    let restricted = fs::read_to_string("/proc/sys/kernel/dmesg_restrict").unwrap();
    if restricted.trim() == "1" {
        once("the kernel's log is not read");
        once("CAP_SYSLOG");
    }
    assert!(agent.terminate().0.success());
}

#[test]
fn a_line_of_the_kernel_s_comes_once_with_a_journal_and_without() {
    for (with_journal, journal) in [(true, ""), (true, "units = [\"ssh\"]"), (false, "")] {
        let loki = StrictLoki::new();
        let mut machine = Journald::stopped();
        if with_journal {
            machine.set("auto", "ReadKMsg=yes");
            machine.start();
        }
        let dev = machine.root().join("dev");
        fs::create_dir(&dev).unwrap();
        let kmsg = rustix::fs::FileType::CharacterDevice;
        let number = rustix::fs::makedev(1, 11);
        rustix::fs::mknodat(rustix::fs::CWD, dev.join("kmsg"), kmsg, 0o600.into(), number).unwrap();
        let mut agent = agent(
            &loki,
            &format!(
                "[host]\nroot = {:?}\n[logs.kernel]\n[logs.journal]\n{journal}\n",
                machine.root()
            ),
        );
        agent.start();
        let name = format!("mote-once-{}-{with_journal}-{}", std::process::id(), journal.len());
        for n in 0..3 {
            let mut kernel = fs::File::options().write(true).open("/dev/kmsg").unwrap();
            kernel.write_all(format!("<14>{name}: {n}\n").as_bytes()).unwrap();
        }
        let lines = || loki.lines(&[("syslog_identifier", &name)]);
        agent.wait("the lines", LONG, |_| lines().len() >= 3);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(lines(), ["0", "1", "2"], "{with_journal} {journal:?}");
        let rests = agent.log().contains("/dev/kmsg is not read");
        assert_eq!(rests, with_journal && journal.is_empty());
        assert!(agent.terminate().0.success());
    }
}

#[tokio::test]
async fn a_head_that_trickles_in_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut written = 0;
        // Each byte comes well before the timeout.
        while std::io::Write::write_all(&mut stream, b"H").is_ok() && written < 100 {
            written += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        tell.send(written).unwrap();
    });
    let hosts = vec![Endpoint::parse(&format!("unix://{}", path.display())).unwrap()];
    let options = Options { hosts, read: Read::Api, ..Options::default() };
    let limits = Limits { timeout: Duration::from_millis(300), ..Limits::default() };
    let clock = Rc::new(ManualClock::at(0));
    let mut source =
        DockerSource::with_limits(options, &BTreeMap::new(), clock, &Roots::default(), limits);
    let written = loop {
        source.read(&mut Block::new(), 1 << 16);
        let _ = tokio::time::timeout(Duration::from_millis(50), source.ready()).await;
        if let Ok(written) = told.try_recv() {
            break written;
        }
    };
    assert!(written < 50, "{written}");
}
