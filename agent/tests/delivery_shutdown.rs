//! The end of an agent: whatever its servers do, it is over within `agent.shutdown_timeout` and a little, with
//! code 0; what was not delivered is on the disk, and arrives once after the next start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::http::Request;
use support::ledger::{by_round, ledger};
use support::strict_loki::Loki;
use support::strict_mimir::Mimir;
use support::{Agent, Gate, Port, Server, Volume, Wire};

const LONG: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(1);
/// For what the end takes beside the timeout, in a debug build on a busy machine.
const MORE: Duration = Duration::from_secs(2);
/// Where all is to be delivered in time.
const AMPLE: Duration = Duration::from_secs(20);

/// An agent with a Mimir, a Loki and a log file.
struct Case {
    agent: Agent,
    mimir: Server<Mimir>,
    loki: Server<Loki>,
    gates: Option<[Gate; 2]>,
    lines: u64,
    /// `agent.shutdown_timeout`.
    timeout: Duration,
}

impl Case {
    fn new() -> Case {
        let (mimir, loki) = (Server::with(Mimir::default()), Server::with(Loki::default()));
        mimir.tolerate_aborts();
        loki.tolerate_aborts();
        let gates = Some([Gate::before(mimir.address()), Gate::before(loki.address())]);
        let case = Case { agent: Agent::new(""), mimir, loki, gates, lines: 0, timeout: TIMEOUT };
        case.configure("http", "");
        case
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.gates.as_ref().unwrap().each_ref().map(Gate::address)
    }

    fn configure(&self, scheme: &str, loki: &str) {
        self.configure_for(self.addresses(), scheme, loki);
    }

    fn configure_for(&self, [a, b]: [SocketAddr; 2], scheme: &str, loki: &str) {
        let timeout = self.timeout.as_secs();
        let at_once = "backoff = { min = \"50ms\", max = \"60s\" }";
        self.agent.configure(&format!(
            "instance = \"box\"\ninterval = \"1s\"\nshutdown_timeout = \"{timeout}s\"\n\
             [probes]\ndefault = \"off\"\n[metrics.collectors]\nonly = [\"time\", \"loadavg\"]\n\
             [[mimir]]\nurl = \"{scheme}://{a}/api/v1/push\"\nsend_interval = \"0s\"\n{at_once}\n\
             [[loki]]\nurl = \"{scheme}://{b}/loki/api/v1/push\"\nbatch_wait = \"0s\"\n{at_once}\n{loki}\n\
             [[logs.file]]\npaths = [{:?}]\nlabels = {{ job = \"test\" }}\n",
            self.agent.path("app.log").display().to_string()
        ));
    }

    fn play(&self, wire: Wire) {
        for gate in self.gates.iter().flatten() {
            gate.play(move || Some(wire));
        }
    }

    fn write(&mut self, lines: u64) {
        let path = self.agent.path("app.log");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        let new = self.lines..self.lines + lines;
        let text: String = new.map(|line| format!("line {line} {}\n", "x".repeat(80))).collect();
        file.write_all(text.as_bytes()).unwrap();
        self.lines += lines;
    }

    /// Waits until each endpoint has something that it can't get rid of.
    fn stuck(&mut self) {
        self.agent.wait("something waits", LONG, |agent| {
            let status = agent.status();
            let endpoints = status["endpoints"].as_array().unwrap();
            endpoints.iter().all(|endpoint| endpoint["lag_seconds"].as_f64() > Some(0.2))
        });
    }

    /// Ends it, and holds the time against the promise.
    fn stop(&mut self) {
        self.agent.signal(Signal::TERM);
        self.ends();
    }

    fn ends(&mut self) {
        let (status, took) = self.agent.ended();
        assert_eq!(status.code(), Some(0), "{}", self.agent.log());
        assert!(took < self.timeout + MORE, "{took:?}; its log:\n{}", self.agent.log());
    }

    /// Starts it with all well, and looks at what arrives.
    fn arrives_once(self) {
        self.arrives(0);
    }

    /// As [`Case::arrives_once`], of which so many items may come again.
    fn arrives(mut self, again: u64) {
        for gate in self.gates.iter().flatten() {
            gate.rest();
        }
        let before: BTreeMap<i64, u32> = self.agent.rounds().into_iter().collect();
        assert!(!before.is_empty());
        let ends = [self.mimir.connections(), self.loki.connections()];
        self.agent.start();
        let lines = self.lines;
        self.loki.wait("all lines", LONG, |loki| loki.lines >= lines);
        let newest = *before.keys().next_back().unwrap();
        self.mimir.wait("all rounds", LONG, |mimir| {
            mimir.series.values().any(|samples| samples.last().is_some_and(|(at, _)| *at > newest))
        });
        let dropped = self.agent.status()["dropped"].clone();
        assert_eq!(dropped, serde_json::json!([]));
        assert!(self.agent.terminate().0.success());
        let gates = self.gates.as_ref().unwrap();
        let faulty = |request: &Request| gates.iter().any(|gate| gate.broke(request));
        let metrics = ledger::<Mimir>("Mimir", &self.mimir.requests(), faulty, &ends[..1]);
        let have = by_round(&metrics.stored);
        for (time, items) in before {
            assert_eq!(have.get(&time), Some(&items), "the round at {time}");
        }
        let logs = ledger::<Loki>("Loki", &self.loki.requests(), faulty, &ends[1..]);
        assert_eq!(
            logs.stored.into_iter().collect::<Vec<_>>(),
            (0..lines).map(Ok).collect::<Vec<_>>()
        );
        // No request was under way that was answered: nothing else came again.
        assert!(metrics.again + logs.again <= again, "{} and {}", metrics.again, logs.again);
    }
}

#[test]
fn servers_that_are_well_have_everything_at_the_end() {
    let mut case = Case::new();
    case.timeout = AMPLE;
    case.configure("http", "");
    case.agent.start();
    case.write(50);
    let lines = case.lines;
    case.loki.wait("lines", LONG, |loki| loki.lines >= lines);
    // Not even read yet.
    case.write(50);
    case.stop();
    let lines = case.lines;
    assert_eq!(case.loki.with_service(|loki| loki.lines), lines);
    let rounds: u64 = case.agent.rounds().iter().map(|(_, samples)| u64::from(*samples)).sum();
    assert_eq!(case.mimir.with_service(|mimir| mimir.samples), rounds);
    case.arrives_once();
}

fn stops_by(wire: Wire, scheme: &str) {
    let mut case = Case::new();
    case.configure(scheme, "");
    case.play(wire);
    case.agent.start();
    case.write(50);
    case.stuck();
    case.write(50);
    case.stop();
    case.configure("http", "");
    case.arrives_once();
}

#[test]
fn servers_that_refuse_connections_hold_up_nothing() {
    stops_by(Wire::Reset, "http");
}

#[test]
fn servers_that_never_answer_hold_up_nothing() {
    stops_by(Wire::Silent, "http");
}

#[test]
fn servers_that_never_read_hold_up_nothing() {
    stops_by(Wire::Deaf, "http");
}

#[test]
fn a_tls_handshake_that_stalls_holds_up_nothing() {
    stops_by(Wire::Silent, "https");
}

/// A port at which nobody listens refuses by the kernel's own words.
#[test]
fn a_port_where_nobody_listens_holds_up_nothing() {
    let mut case = Case::new();
    let ports = [Port::new(), Port::new()];
    let addresses = ports.each_ref().map(Port::address);
    case.configure_for(addresses, "http", "");
    case.agent.start();
    case.write(50);
    case.stuck();
    case.stop();
    case.gates = Some(reopened(addresses, &case));
    case.arrives_once();
}

fn reopened(addresses: [SocketAddr; 2], case: &Case) -> [Gate; 2] {
    let [a, b] = addresses.map(|address| address.to_string());
    [Gate::at(&a, case.mimir.address()), Gate::at(&b, case.loki.address())]
}

/// A listener whose queue is full: the kernel drops what else comes, as a firewall does.
fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
        assert!(queued.len() < 16, "the kernel queues connections where it should queue none");
    }
    (listener, queued)
}

#[test]
fn a_black_hole_holds_up_nothing() {
    let mut case = Case::new();
    let holes = [black_hole(), black_hole()];
    let addresses = holes.each_ref().map(|(listener, _)| listener.local_addr().unwrap());
    case.configure_for(addresses, "http", "");
    case.agent.start();
    case.write(50);
    case.stuck();
    case.stop();
    drop(holes);
    case.configure("http", "");
    case.arrives_once();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut case = Case::new();
        let text = std::fs::read_to_string(case.agent.path("mote.toml")).unwrap();
        let text = text.replace("shutdown_timeout = \"1s\"", "shutdown_timeout = \"50s\"");
        std::fs::write(case.agent.path("mote.toml"), text).unwrap();
        case.play(Wire::Silent);
        case.agent.start();
        case.write(50);
        case.stuck();
        case.agent.signal(Signal::TERM);
        // Two that come before the first was seen are one.
        case.agent.wait("its end", LONG, |agent| agent.log().contains("stopping: delivering"));
        case.agent.signal(signal);
        case.ends();
        case.arrives_once();
    }
}

#[test]
fn a_signal_in_the_middle_of_a_reload_is_not_lost() {
    for pause in [0, 5, 300, 1_000] {
        let mut case = Case::new();
        case.play(Wire::Silent);
        case.agent.start();
        case.write(20);
        case.stuck();
        case.agent.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(pause));
        let before = Instant::now();
        case.agent.signal(Signal::TERM);
        let (status, _) = case.agent.ended();
        assert_eq!(status.code(), Some(0), "{}", case.agent.log());
        // The reload's second, and that of the end.
        let took = before.elapsed();
        assert!(took < TIMEOUT * 2 + MORE, "{took:?}; its log:\n{}", case.agent.log());
        case.arrives_once();
    }
}

#[test]
fn a_long_pause_is_cut_short_for_one_last_try() {
    let mut case = Case::new();
    case.timeout = AMPLE;
    case.configure("http", "");
    let text = std::fs::read_to_string(case.agent.path("mote.toml")).unwrap();
    // A pause is longer than the end may take.
    let text = text.replace("min = \"50ms\"", "min = \"40s\"");
    std::fs::write(case.agent.path("mote.toml"), text).unwrap();
    case.play(Wire::Close);
    case.agent.start();
    case.write(20);
    case.agent.wait("failures", LONG, |agent| {
        let status = agent.status();
        let endpoints = status["endpoints"].as_array().unwrap();
        endpoints.iter().all(|endpoint| endpoint["requests"]["error"].as_u64() >= Some(1))
    });
    for gate in case.gates.iter().flatten() {
        gate.rest();
    }
    case.write(20);
    case.stop();
    assert_eq!(case.loki.with_service(|loki| loki.lines), 40);
    case.arrives_once();
}

#[test]
fn a_wait_for_the_next_request_holds_up_nothing() {
    let mut case = Case::new();
    case.configure("http", "max_rate = \"1KiB\"\nbatch_bytes = \"1KiB\"");
    case.write(20);
    case.agent.start();
    case.loki.wait("the first lines", LONG, |loki| loki.lines > 0);
    let blocks = |agent: &Agent| {
        let wals = agent.status()["wals"].clone();
        let logs = wals.as_array().unwrap().iter().find(|wal| wal["name"] == "logs").unwrap();
        logs["records"].as_u64().unwrap()
    };
    for _ in 0..10 {
        // A block each, and thereby a request.
        let before = blocks(&case.agent);
        case.write(20);
        case.agent.wait("the block", LONG, |agent| blocks(agent) > before);
    }
    case.stop();
    let lines = case.loki.with_service(|loki| loki.lines);
    assert!(lines < case.lines, "nothing waited");
    case.configure("http", "");
    // A block that went in several requests comes again whole: a cursor is between blocks.
    case.arrives(20);
}

#[test]
fn a_disk_that_takes_nothing_holds_up_nothing() {
    let volume = Volume::new(8);
    let mut case = Case::new();
    let text = std::fs::read_to_string(case.agent.path("mote.toml")).unwrap();
    let own = format!("state_dir = {:?}", case.agent.path("state").display().to_string());
    let other = format!("state_dir = {:?}", volume.path().join("state").display().to_string());
    std::fs::write(case.agent.path("mote.toml"), text.replace(&own, &other)).unwrap();
    case.play(Wire::Silent);
    case.agent.start();
    case.write(20);
    case.stuck();
    volume.fill();
    case.write(20);
    std::thread::sleep(Duration::from_millis(1_500));
    case.stop();
}
