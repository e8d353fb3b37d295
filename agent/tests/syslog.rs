//! Syslog from real senders (util-linux' logger, syslog() of the C library through it, busybox, rsyslog) and from hand-made ones,
//! through the agent to a strict Loki. Needs util-linux, busybox and rsyslog.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Agent, Port, StrictLoki};

const LONG: Duration = Duration::from_secs(60);

/// Of UDP: a socket that holds it would have its messages.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The WAL compresses: what fills it has to be random. 1,000 bytes each time.
fn noise() -> impl FnMut() -> String {
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:08x}", state >> 32)
    };
    move || (0..125).map(|_| random()).collect()
}

struct Setup {
    loki: StrictLoki,
    agent: Agent,
    udp: u16,
    tcp: u16,
    _held: Port,
}

impl Setup {
    /// An agent that listens in all ways. `more` are further keys of `[[logs.syslog]]` over TCP, and tables.
    fn new(more: &str) -> Setup {
        let loki = StrictLoki::new();
        let agent = Agent::new("");
        let held = Port::new();
        let setup = Setup { loki, agent, udp: free_port(), tcp: held.number(), _held: held };
        setup.configure(more);
        setup
    }

    fn configure(&self, more: &str) {
        self.agent.configure(&format!(
            "instance = \"box\"\ninterval = \"5s\"\n\
             [[loki]]\nurl = {url:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
             [[logs.syslog]]\nlisten = \"udp://127.0.0.1:{udp}\"\nlabels = {{ way = \"udp\" }}\n\
             [[logs.syslog]]\nlisten = \"unix://{socket}\"\nlabels = {{ way = \"unix\" }}\n\
             [[logs.syslog]]\nlisten = \"tcp://127.0.0.1:{tcp}\"\nlabels = {{ way = \"tcp\" }}\n{more}",
            url = self.loki.url(),
            udp = self.udp,
            tcp = self.tcp,
            socket = self.socket(),
        ));
    }

    fn socket(&self) -> String {
        self.agent.path("log-socket").display().to_string()
    }

    fn logger(&self, arguments: &[&str]) {
        let mut command = Command::new("logger");
        command.args(arguments);
        run(&mut command);
    }

    fn count(&self, name: &str) -> u64 {
        let status = self.agent.status();
        let sources = status["sources"].as_array().unwrap();
        let source = sources.iter().find(|source| source["name"] == "syslog").unwrap();
        source["counts"][name].as_u64().unwrap()
    }

    fn await_lines(&mut self, labels: &[(&str, &str)], count: usize) -> Vec<String> {
        let loki = &self.loki;
        let what = format!("{count} lines of {labels:?}");
        self.agent.wait(&what, LONG, |_| loki.lines(labels).len() >= count);
        self.loki.lines(labels)
    }

    fn await_count(&mut self, name: &str, count: u64) {
        let end = Instant::now() + LONG;
        while self.count(name) < count {
            assert!(Instant::now() < end, "{name}: {} of {count}", self.count(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}: `cargo xtask setup` gets what tests need")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_real_sender_is_understood() {
    let mut setup = Setup::new("");
    setup.agent.start();
    let (udp, tcp) = (setup.udp.to_string(), setup.tcp.to_string());
    let (udp, tcp, socket) = (udp.as_str(), tcp.as_str(), setup.socket());
    let server = ["-n", "127.0.0.1", "-P"];
    let sent = |way: &[&str], text: &str| {
        let always = ["-t", "prog", "-p", "daemon.err", "--id=4711"];
        let arguments: Vec<&str> = always.iter().chain(way).copied().chain(["--", text]).collect();
        setup.logger(&arguments);
    };
    sent(&[&server[..], &[udp, "--udp", "--rfc3164"]].concat(), "udp of 3164");
    sent(&[&server[..], &[udp, "--udp", "--rfc5424"]].concat(), "udp of 5424 ü");
    sent(&[&server[..], &[tcp, "--tcp", "--rfc3164"]].concat(), "tcp of 3164");
    sent(
        &[&server[..], &[tcp, "--tcp", "--rfc5424", "--octet-count"]].concat(),
        "tcp of 5424, counted",
    );
    sent(
        &[&server[..], &[udp, "--udp", "--msgid", "M1", "--sd-id", "a@1", "--sd-param", "k=\"v\""]]
            .concat(),
        "structured",
    );
    sent(&["--socket", &socket], "as syslog() writes");
    let all = [
        ("syslog_identifier", "prog"),
        ("level", "error"),
        ("facility", "daemon"),
        ("transport", "syslog"),
    ];
    let lines = setup.await_lines(&all, 6);
    for text in [
        "udp of 3164",
        "udp of 5424 ü",
        "tcp of 3164",
        "tcp of 5424, counted",
        "structured",
        "as syslog() writes",
    ] {
        assert_eq!(lines.iter().filter(|line| *line == text).count(), 1, "{text}: {lines:?}");
    }
    let entries = setup.loki.entries(&all);
    let metadata = |text: &str, name: &str| {
        let entry = entries.iter().find(|entry| entry.line == text).unwrap();
        entry.metadata.iter().find(|(have, _)| have == name).map(|(_, value)| value.clone())
    };
    assert_eq!(metadata("udp of 3164", "pid").as_deref(), Some("4711"));
    assert_eq!(metadata("as syslog() writes", "pid").as_deref(), Some("4711"));
    assert_eq!(metadata("structured", "msgid").as_deref(), Some("M1"));
    assert_eq!(metadata("structured", "sd_a_1_k").as_deref(), Some("v"));
    // This host's own name is not repeated.
    assert_eq!(metadata("udp of 3164", "hostname"), None);
    assert!(setup.loki.entries(&[("host", "box")]).is_empty());
    assert_eq!(setup.count("malformed") + setup.count("lost_entries") + setup.count("refused"), 0);
    assert!(setup.agent.terminate().0.success());
    assert!(!fs::exists(setup.socket()).unwrap(), "the socket's file stays");
    setup.loki.assert_clean();
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn rsyslog_forwards_with_counted_octets_and_without_and_each_line_comes_once_and_in_order() {
    let mut setup = Setup::new("");
    setup.agent.start();
    let input = setup.agent.path("rsyslog-input");
    let config = setup.agent.path("rsyslog.conf");
    let action = |framing: &str| {
        format!(
            "action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" protocol=\"tcp\" TCP_Framing=\"{framing}\" \
             template=\"RSYSLOG_{}\")\n",
            setup.tcp,
            if framing == "traditional" { "ForwardFormat" } else { "SyslogProtocol23Format" },
        )
    };
    let text = format!(
        "global(workDirectory={dir:?})\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket={input:?} RateLimit.Interval=\"0\")\n{}{}",
        action("octet-counted"),
        action("traditional"),
        dir = setup.agent.path("").display().to_string(),
        input = input.display().to_string(),
    );
    fs::write(&config, text).unwrap();
    let rsyslog = Command::new("rsyslogd")
        .args(["-n", "-iNONE", "-f"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rsyslogd: `cargo xtask setup` gets it");
    let _rsyslog = Running(rsyslog);
    let lines: Vec<String> = (0..2_000).map(|n| format!("line {n}")).collect();
    let end = Instant::now() + LONG;
    while !input.exists() {
        assert!(Instant::now() < end, "rsyslogd does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let client = UnixDatagram::unbound().unwrap();
    for line in &lines {
        client.send_to(format!("<30>Nov 21 08:00:01 app[7]: {line}").as_bytes(), &input).unwrap();
    }
    let labels =
        [("syslog_identifier", "app"), ("way", "tcp"), ("facility", "daemon"), ("level", "info")];
    let came = setup.await_lines(&labels, 4_000);
    assert_eq!(came.len(), 4_000);
    // Both connections in their own order, each line from each.
    let mut next = [0, 0];
    for line in &came {
        // RSYSLOG_SyslogProtocol23Format sends the space behind the tag with the text.
        let line = line.strip_prefix(' ').unwrap_or(line);
        let which = next.iter().position(|next| lines.get(*next).is_some_and(|have| have == line));
        let which = which.unwrap_or_else(|| panic!("{line:?} after {next:?}"));
        next[which] += 1;
    }
    assert_eq!(next, [2_000, 2_000]);
    assert!(setup.agent.terminate().0.success());
    setup.loki.assert_clean();
}

#[test]
fn programs_that_know_dev_log_alone_are_heard_and_what_busybox_forwards() {
    let mut setup = Setup::new("");
    setup.agent.start();
    // In a /dev of their own, the agent's socket is /dev/log.
    let script = "mount -t tmpfs none /dev && touch /dev/log && mount --bind \"$0\" /dev/log &&
        busybox logger -t bb -p local3.crit from busybox &&
        logger -t util -p local3.crit from util-linux &&
        python3 -c 'import syslog; syslog.openlog(\"glibc\", syslog.LOG_PID, syslog.LOG_LOCAL3); syslog.syslog(syslog.LOG_CRIT, \"from glibc\")' ||
        logger -t glibc -p local3.crit from glibc";
    run(Command::new("unshare").args(["-m", "sh", "-ec", script, &setup.socket()]));
    let labels = [("facility", "local3"), ("level", "crit"), ("way", "unix")];
    let mut lines = setup.await_lines(&labels, 3);
    lines.sort();
    assert_eq!(lines, ["from busybox", "from glibc", "from util-linux"]);
    for tag in ["bb", "util", "glibc"] {
        assert_eq!(setup.loki.lines(&[("syslog_identifier", tag)]).len(), 1, "{tag}");
    }
    // Its syslogd sends on as here (sysklogd/syslogd.c, -R), with the host or without.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(("127.0.0.1", setup.udp)).unwrap();
    udp.send(b"<13>Nov 21 08:00:01 nas root: from busybox\n").unwrap();
    udp.send(b"<13>Nov 21 08:00:01 root: from an old one").unwrap();
    let mut lines = setup.await_lines(&[("syslog_identifier", "root"), ("way", "udp")], 2);
    lines.sort();
    assert_eq!(lines, ["from an old one", "from busybox"]);
    let entries = setup.loki.entries(&[("syslog_identifier", "root")]);
    let named = entries.iter().find(|entry| entry.line == "from busybox").unwrap();
    assert_eq!(named.metadata, [("hostname".to_owned(), "nas".to_owned())]);
    assert!(setup.agent.terminate().0.success());
}

#[test]
fn what_is_nowhere_else_does_not_wait_for_more() {
    let mut setup = Setup::new("");
    setup.loki.stop();
    let path = setup.agent.path("mote.toml");
    let text =
        fs::read_to_string(&path).unwrap().replace("batch_wait = \"100ms\"", "batch_wait = \"1m\"");
    fs::write(&path, text).unwrap();
    setup.agent.start();
    setup.agent.wait("ready", LONG, Agent::is_ready);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(("127.0.0.1", setup.udp)).unwrap();
    // Others wait for 2.5 s at least. A busy machine may be late now and then.
    let mut sent = 0;
    let in_time = (0..5).any(|_| {
        let began = Instant::now();
        udp.send(format!("<13>Nov 21 08:00:01 nas last: line {sent}").as_bytes()).unwrap();
        sent += 1;
        while setup.count("lines") < sent {
            assert!(began.elapsed() < LONG, "not read");
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed() < Duration::from_millis(2_400)
    });
    assert!(in_time, "it waits for more");
    setup.agent.kill();
    setup.configure("");
    setup.loki.start();
    setup.agent.start();
    let labels = [("syslog_identifier", "last"), ("way", "udp")];
    let lines = setup.await_lines(&labels, sent as usize);
    assert_eq!(lines, (0..sent).map(|at| format!("line {at}")).collect::<Vec<_>>());
    assert!(setup.agent.terminate().0.success());
}

#[test]
fn a_reload_loses_no_datagram_and_closes_what_is_not_wanted() {
    let mut setup = Setup::new("");
    setup.agent.start();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(("127.0.0.1", setup.udp)).unwrap();
    let unix = UnixDatagram::unbound().unwrap();
    unix.connect(setup.socket()).unwrap();
    let reloads = |agent: &Agent| agent.log().matches("reloading the configuration").count();
    for n in 0..300 {
        if n == 100 || n == 200 {
            // Two that come before the first was seen are one.
            setup.agent.wait("the one before", LONG, |agent| reloads(agent) == n / 100 - 1);
            setup.agent.signal(Signal::HUP);
        }
        // A connected socket hears of a port that is closed.
        udp.send(format!("<14>app: line {n}").as_bytes()).unwrap();
        unix.send(format!("<14>app: line {n}").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let expected: Vec<String> = (0..300).map(|n| format!("line {n}")).collect();
    for way in ["udp", "unix"] {
        assert_eq!(setup.await_lines(&[("way", way)], 300), expected, "{way}");
    }
    setup.agent.wait("the second", LONG, |agent| reloads(agent) >= 2);
    assert_eq!(reloads(&setup.agent), 2, "{}", setup.agent.log());

    let config = fs::read_to_string(setup.agent.path("mote.toml")).unwrap();
    let end = config.find("[[logs.syslog]]").unwrap();
    fs::write(setup.agent.path("mote.toml"), &config[..end]).unwrap();
    setup.agent.signal(Signal::HUP);
    let socket = setup.socket();
    setup.agent.wait("the sockets are closed", LONG, |_| !fs::exists(&socket).unwrap());
    UdpSocket::bind(("127.0.0.1", setup.udp)).unwrap();
    TcpListener::bind(("127.0.0.1", setup.tcp)).unwrap();
    assert!(setup.agent.terminate().0.success());
    setup.loki.assert_clean();
}

#[test]
fn a_full_wal_stops_tcp_senders_and_no_program_hangs_in_syslog() {
    let mut setup = Setup::new("[wal.logs]\nmax_bytes = \"1MiB\"\n");
    setup.loki.stop();
    setup.agent.start();
    let count = 4_000u32;
    let tcp = TcpStream::connect(("127.0.0.1", setup.tcp)).unwrap();
    let writer = std::thread::spawn({
        let mut tcp = tcp.try_clone().unwrap();
        move || {
            let mut filler = noise();
            for n in 0..count {
                tcp.write_all(format!("<14>tcp: line {n} {}\n", filler()).as_bytes()).unwrap();
            }
        }
    });
    setup.agent.wait("the WAL is full", LONG, |agent| agent.log().contains("read no further"));
    let unix = UnixDatagram::unbound().unwrap();
    unix.connect(setup.socket()).unwrap();
    let began = Instant::now();
    for n in 0..2_000 {
        unix.send(format!("<14>app: line {n}").as_bytes()).unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    setup.loki.start();
    let lines = setup.await_lines(&[("way", "tcp")], count as usize);
    writer.join().unwrap();
    for (n, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("line {n} ")), "{n}: {}", &line[..20]);
    }
    // What had no room is counted, and what had came in order.
    setup.agent.wait("all is read", LONG, |_| true);
    let kept = setup.loki.lines(&[("way", "unix")]).len() as u64;
    let lost = setup.count("lost_entries");
    assert!(kept + lost <= 2_000 && kept > 100, "{kept} {lost}");
    setup.await_count("lines", u64::from(count) + 2_000 - lost);
    drop(tcp);
    assert!(setup.agent.terminate().0.success());
}

/// Connections are made while other sources have more than can be read.
#[test]
fn nobody_waits_for_the_end_of_a_long_file() {
    let mut setup = Setup::new("");
    let mut filler = noise();
    let text: String = (0..80_000).map(|n| format!("line {n} {}\n", filler())).collect();
    fs::write(setup.agent.path("long.log"), &text).unwrap();
    let path = setup.agent.path("long.log").display().to_string();
    setup.configure(&format!(
        "[[logs.file]]\npaths = [{path:?}]\n[wal.logs]\nmax_bytes = \"256MiB\"\n"
    ));
    setup.agent.start();
    let mut tcp = TcpStream::connect(("127.0.0.1", setup.tcp)).unwrap();
    tcp.write_all(b"<14>tcp: now\n").unwrap();
    setup.await_count("lines", 1);
    let status = setup.agent.status();
    let sources = status["sources"].as_array().unwrap();
    let files = sources.iter().find(|source| source["name"] == "file").unwrap();
    let read = files["counts"]["bytes"].as_u64().unwrap();
    assert!(read < text.len() as u64, "{read}");
    assert!(setup.agent.terminate().0.success());
}

/// What was taken from a socket is nowhere else.
#[test]
fn a_reload_while_the_wal_is_full_loses_nothing() {
    let mut setup = Setup::new("[wal.logs]\nmax_bytes = \"1MiB\"\n");
    setup.loki.stop();
    setup.agent.start();
    let unix = UnixDatagram::unbound().unwrap();
    unix.connect(setup.socket()).unwrap();
    let mut random = noise();
    let mut sent = 0;
    let mut send = |count: usize| {
        for _ in 0..count {
            unix.send(format!("<14>app: line {sent} {}", random()).as_bytes()).unwrap();
            sent += 1;
        }
        // The agent takes them; a datagram must not be dropped for want of room.
        std::thread::sleep(Duration::from_millis(20));
    };
    let began = Instant::now();
    while !setup.agent.log().contains("read no further") {
        assert!(began.elapsed() < LONG);
        send(5);
    }
    for reload in 1..=3 {
        send(20);
        setup.agent.signal(Signal::HUP);
        setup.agent.wait("it is reloaded", LONG, |agent| {
            agent.log().matches("reloading the configuration").count() == reload
        });
    }
    send(20);
    assert_eq!(setup.count("lost_entries"), 0);
    setup.loki.start();
    let lines = setup.await_lines(&[("way", "unix")], sent);
    assert_eq!(lines.len(), sent);
    for (n, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("line {n} ")), "{n}: {}", &line[..20]);
    }
    assert!(setup.agent.terminate().0.success());
    setup.loki.assert_clean();
}

#[test]
fn a_kill_loses_at_most_what_was_gathering_and_repeats_nothing() {
    let mut setup = Setup::new("");
    setup.loki.tolerate_aborts();
    let mut sent = Vec::new();
    for round in 0..4 {
        setup.agent.start();
        let mut tcp = TcpStream::connect(("127.0.0.1", setup.tcp)).unwrap();
        let lines: Vec<String> = (0..200).map(|n| format!("line {round} {n}")).collect();
        for line in &lines {
            writeln!(tcp, "<14>app: {line}").unwrap();
        }
        setup.await_count("lines", 200);
        // Counted when they are in the WAL. What comes now may be lost.
        writeln!(tcp, "<14>late: {round}").unwrap();
        sent.extend(lines);
        setup.agent.kill();
    }
    setup.agent.start();
    assert_eq!(setup.await_lines(&[("syslog_identifier", "app")], 800), sent);
    assert!(setup.agent.terminate().0.success());
    // A socket's file that a kill has left is no obstacle.
    assert!(!setup.agent.log().contains("not taken over"), "{}", setup.agent.log());
    setup.loki.assert_clean();
}

#[test]
fn connections_are_bounded_closed_when_idle_and_half_lines_cost_no_memory() {
    let mut setup = Setup::new("max_connections = 3\nidle_timeout = \"2s\"\n");
    setup.agent.start();
    let tcp = setup.tcp;
    let connect = || TcpStream::connect(("127.0.0.1", tcp)).unwrap();
    let began = Instant::now();
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
    for (n, connection) in held.iter_mut().enumerate() {
        write!(connection, "<14>half: a line without an end {n}").unwrap();
    }
    let closed = |connection: &mut TcpStream| {
        connection.set_read_timeout(Some(LONG)).unwrap();
        matches!(connection.read(&mut [0; 9]), Ok(0) | Err(_))
    };
    assert!(closed(&mut connect()), "a fourth connection is taken");
    for connection in &mut held {
        assert!(closed(connection));
    }
    assert!(
        began.elapsed() > Duration::from_millis(1_900) && began.elapsed() < Duration::from_secs(20)
    );
    assert_eq!(setup.await_lines(&[("syslog_identifier", "half")], 3).len(), 3);
    setup.await_count("refused", 1);
    // There is room again, and a line that is too long is cut and counted.
    let mut long = connect();
    long.write_all(&[&b"<14>long: "[..], &[b'y'; 300_000], b"\n<14>long: next\n"].concat())
        .unwrap();
    let lines = setup.await_lines(&[("syslog_identifier", "long")], 2);
    assert_eq!(lines[0].len(), 64 << 10);
    assert_eq!(lines[1], "next");
    setup.await_count("truncated_lines", 1);
    assert!(setup.agent.terminate().0.success());
}

#[test]
fn of_a_storm_each_datagram_comes_in_order_or_is_counted() {
    let mut setup = Setup::new("");
    setup.agent.start();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(("127.0.0.1", setup.udp)).unwrap();
    let count = 50_000u64;
    for n in 0..count {
        udp.send(format!("<14>storm: {n}").as_bytes()).unwrap();
    }
    let labels = [("syslog_identifier", "storm")];
    let end = Instant::now() + LONG;
    for after in 1.. {
        // A later message has the kernel asked again for what it dropped.
        udp.send(b"<14>after: storm").unwrap();
        std::thread::sleep(Duration::from_millis(1_500));
        let kept = setup.loki.lines(&labels).len() as u64;
        let lost = setup.count("lost_entries");
        assert!(kept + lost <= count + after, "{kept} {lost}");
        // Those may be lost too, while it lasts.
        if kept + lost >= count {
            println!("{kept} of {count} kept");
            break;
        }
        assert!(Instant::now() < end, "{kept} kept, {lost} counted");
    }
    let numbers: Vec<u64> =
        setup.loki.lines(&labels).iter().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 1_000 && numbers.is_sorted_by(|a, b| a < b));
    assert!(setup.agent.terminate().0.success());
    setup.loki.assert_clean();
}
