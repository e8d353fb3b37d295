//! The network under a running agent: names that are gone, answers that never come, addresses of one kind only,
//! no route. The agent has its own /etc/hosts and /etc/resolv.conf in a mount namespace, or a network of its own;
//! this machine's stay as they are. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::http::Request;
use support::ledger::{Kept, by_round, ledger};
use support::nameserver::{Nameserver, Says};
use support::strict_loki::Loki;
use support::strict_mimir::Mimir;
use support::{Agent, Gate, Server, Wire};

const LONG: Duration = Duration::from_secs(60);
/// Long enough for an answer on a busy machine, and shorter than a resolver's patience.
const PATIENT: &str = "20s";
const SHORT: &str = "700ms";
/// Mounts what the first argument has over the system's files, and becomes the rest.
const OWN_NAMES: &str = "set -e; mount --bind \"$0/hosts\" /etc/hosts; \
    mount --bind \"$0/resolv.conf\" /etc/resolv.conf; exec \"$@\"";

/// An agent, its servers and what it is to deliver.
struct Case {
    agent: Agent,
    mimir: Server<Mimir>,
    loki: Server<Loki>,
    lines: u64,
    /// Those that the WAL may have no more.
    rounds: BTreeMap<i64, u32>,
}

impl Case {
    fn new(mimir: Server<Mimir>, loki: Server<Loki>) -> Case {
        mimir.tolerate_aborts();
        loki.tolerate_aborts();
        Case { agent: Agent::new(""), mimir, loki, lines: 0, rounds: BTreeMap::new() }
    }

    /// Delivers to these hosts and ports, whose answers may take so long.
    fn configure(&self, mimir: &str, loki: &str, timeout: &str) {
        let rest =
            format!("timeout = {timeout:?}\nbackoff = {{ min = \"50ms\", max = \"200ms\" }}");
        self.agent.configure(&format!(
            "instance = \"box\"\ninterval = \"1s\"\n[probes]\ndefault = \"off\"\n\
             [metrics.collectors]\nonly = [\"time\", \"loadavg\"]\n\
             [[mimir]]\nurl = \"http://{mimir}/api/v1/push\"\nsend_interval = \"0s\"\n{rest}\n\
             [[loki]]\nurl = \"http://{loki}/loki/api/v1/push\"\nbatch_wait = \"0s\"\n{rest}\n\
             [[logs.file]]\npaths = [{:?}]\nlabels = {{ job = \"test\" }}\n",
            self.agent.path("app.log").display().to_string()
        ));
    }

    /// Has it take a new configuration, while it can deliver nothing: a reload clears away what was delivered,
    /// and what is under way then comes again.
    fn reload(&mut self, reloads: usize) {
        self.rounds.extend(self.agent.rounds());
        self.agent.signal(Signal::HUP);
        self.agent.wait("a reload", LONG, |agent| {
            agent.log().matches("the status page is at").count() == 1 + reloads
        });
    }

    fn write(&mut self) {
        let path = self.agent.path("app.log");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "line {}", self.lines).unwrap();
        self.lines += 1;
    }

    /// Waits until both endpoints say this, and goes on to have something to deliver.
    fn says(&mut self, what: &str) {
        self.write();
        self.agent.wait(what, LONG, |agent| {
            // The page is away for a moment at a reload.
            let Some(status) = agent.try_status() else { return false };
            let endpoints = status["endpoints"].as_array().unwrap();
            let says = |trouble: &str| trouble.contains(what);
            endpoints.iter().all(|endpoint| endpoint["trouble"].as_str().is_some_and(says))
        });
    }

    /// Waits until all is there.
    fn well(&mut self) {
        self.write();
        let lines = self.lines;
        self.loki.wait("all lines", LONG, |loki| loki.lines >= lines);
        self.agent.wait("the trouble is over", LONG, |agent| {
            let status = agent.status();
            let endpoints = status["endpoints"].as_array().unwrap();
            endpoints.iter().all(|endpoint| {
                endpoint["trouble"].is_null() && endpoint["lag_seconds"].as_f64() < Some(1.5)
            })
        });
    }

    /// The end: all that was collected is there, in order, and nothing came twice.
    fn all_arrived(mut self, faulty: impl Fn(&Request) -> bool) {
        let status = self.agent.status();
        assert_eq!(status["dropped"], serde_json::json!([]));
        assert!(self.agent.terminate().0.success());
        let metrics = ledger::<Mimir>("Mimir", &self.mimir.requests(), &faulty, &[]);
        self.rounds.extend(self.agent.rounds());
        let rounds: Vec<_> = self.rounds.into_iter().collect();
        // A round that is written while the senders end stays in the WAL.
        let have: Vec<_> = by_round(&metrics.stored).into_iter().collect();
        assert!(have == rounds || have[..] == rounds[..rounds.len() - 1], "{have:?} of {rounds:?}");
        let logs = ledger::<Loki>("Loki", &self.loki.requests(), &faulty, &[]);
        let lines: Vec<_> = (0..self.lines).map(Ok).collect();
        assert_eq!(logs.stored.into_iter().collect::<Vec<_>>(), lines);
        assert_eq!((metrics.again, logs.again), (0, 0));
    }
}

fn gate_at<S: Kept>(server: &Server<S>, address: &str) -> Gate {
    Gate::at(address, server.address())
}

#[test]
fn a_name_that_is_gone_or_never_answered_comes_back() {
    let nameserver = Nameserver::at("127.53.0.53");
    let mut case = Case::new(Server::with(Mimir::default()), Server::with(Loki::default()));
    let gates = [gate_at(&case.mimir, "127.0.0.1:0"), gate_at(&case.loki, "127.0.0.1:0")];
    let ports = gates.each_ref().map(|gate| gate.address().port());
    // The same ports of the other kind of address.
    let v6 = ports.map(|port| format!("[::1]:{port}"));
    let v6 = [gate_at(&case.mimir, &v6[0]), gate_at(&case.loki, &v6[1])];
    let [a, b] = ports.map(|port| format!("backend.test:{port}"));
    case.configure(&a, &b, PATIENT);
    fs::write(case.agent.path("hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(case.agent.path("resolv.conf"), nameserver.resolv_conf()).unwrap();
    let directory = case.agent.path("").display().to_string();
    case.agent.spawn_by("unshare", &["--mount", "sh", "-c", OWN_NAMES, &directory]);
    case.agent.wait("ready", LONG, Agent::is_ready);

    // Connections end after each answer, so that the name is asked for again.
    let each_anew = |case: &Case| {
        case.mimir.play(|| Some(support::Fault::slow(Duration::ZERO).then_close()));
        case.loki.play(|| Some(support::Fault::slow(Duration::ZERO).then_close()));
    };
    each_anew(&case);
    case.says("looking up backend.test: ");
    nameserver.say(Says::V4);
    case.well();
    nameserver.say(Says::Failed);
    case.says("looking up backend.test: ");
    nameserver.say(Says::V6);
    case.well();
    nameserver.say(Says::Nothing);
    // Shorter than a resolver's second, while no request is under way that could come too late.
    case.says("looking up backend.test: ");
    case.configure(&a, &b, SHORT);
    case.reload(1);
    case.says("looking up the host's name: no answer within 0.7 s");
    let (began, asked) = (Instant::now(), nameserver.asked());
    std::thread::sleep(Duration::from_millis(1_500));
    // Two names at a time, each asked for A and AAAA once in a resolver's second, whatever the tries are.
    let (asked, seconds) = (nameserver.asked() - asked, began.elapsed().as_secs() as usize);
    assert!(asked <= 2 * 2 * (seconds + 2), "{asked} questions in {seconds} s");
    case.configure(&a, &b, PATIENT);
    case.reload(2);
    nameserver.say(Says::V4);
    case.well();
    // /etc/hosts comes first.
    nameserver.say(Says::Gone);
    fs::write(case.agent.path("hosts"), "::1 backend.test\n").unwrap();
    case.well();
    fs::write(case.agent.path("hosts"), "127.0.0.1 localhost\n").unwrap();
    case.says("looking up backend.test: ");
    nameserver.say(Says::V6);
    case.well();
    drop((gates, v6));
    // What closes after its answer is no fault of delivery.
    case.all_arrived(|_| false);
}

#[test]
fn servers_with_ipv6_only_are_reached_by_address_and_by_name() {
    for host in ["[::1]", "localhost"] {
        let mut case = Case::new(Server::with(Mimir::default()), Server::with(Loki::default()));
        let gates = [gate_at(&case.mimir, "[::1]:0"), gate_at(&case.loki, "[::1]:0")];
        let [a, b] = gates.each_ref().map(|gate| format!("{host}:{}", gate.address().port()));
        case.configure(&a, &b, PATIENT);
        gates.iter().for_each(|gate| gate.play(|| Some(Wire::Reset)));
        fs::write(case.agent.path("hosts"), "127.0.0.1 localhost\n::1 localhost\n").unwrap();
        fs::write(case.agent.path("resolv.conf"), "").unwrap();
        let directory = case.agent.path("").display().to_string();
        case.agent.spawn_by("unshare", &["--mount", "sh", "-c", OWN_NAMES, &directory]);
        case.agent.wait("ready", LONG, Agent::is_ready);
        case.says("POST http://");
        gates.iter().for_each(Gate::rest);
        case.well();
        case.all_arrived(|request| gates.iter().any(|gate| gate.broke(request)));
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("ip: install iproute2").success(), "ip {arguments}");
}

/// Starts this very test once more, in a network namespace with nothing but its own loopback.
fn has_own_network(name: &str) -> bool {
    if std::env::var_os("MOTE_OWN_NETWORK").is_some() {
        ip("link set lo up");
        return true;
    }
    let output = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("MOTE_OWN_NETWORK", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

#[test]
fn an_address_without_a_route_is_reached_once_there_is_one() {
    if !has_own_network("an_address_without_a_route_is_reached_once_there_is_one") {
        return;
    }
    let mut case = Case::new(Server::with(Mimir::default()), Server::with(Loki::default()));
    let gates = [gate_at(&case.mimir, "0.0.0.0:0"), gate_at(&case.loki, "0.0.0.0:0")];
    let at = |gate: &Gate| SocketAddr::from(([10, 99, 0, 1], gate.address().port())).to_string();
    case.configure(&at(&gates[0]), &at(&gates[1]), SHORT);
    case.agent.start();
    case.says("Network is unreachable");
    ip("route add unreachable 10.99.0.1");
    case.says("No route to host");
    ip("route add 10.99.0.0/24 dev lo");
    ip("route del unreachable 10.99.0.1");
    ip("addr add 10.99.0.1/32 dev lo");
    case.well();
    // The address goes with the connection, and comes back.
    gates.iter().for_each(|gate| gate.play(|| Some(Wire::Close)));
    ip("addr del 10.99.0.1/32 dev lo");
    ip("route flush dev lo");
    case.write();
    std::thread::sleep(Duration::from_millis(1_500));
    gates.iter().for_each(Gate::rest);
    ip("addr add 10.99.0.1/32 dev lo");
    case.well();
    let faulty = |_: &Request| true;
    // An answer may have been under way when the address went.
    let status = case.agent.status();
    assert_eq!(status["dropped"], serde_json::json!([]));
    assert!(case.agent.terminate().0.success());
    let logs = ledger::<Loki>("Loki", &case.loki.requests(), faulty, &[]);
    assert_eq!(logs.stored.len() as u64, case.lines);
    drop(gates);
}
