//! The collectors `systemd` and `logind` over a real dbus-daemon: what they ask, what they tell, byte by
//! byte and as a real node_exporter tells it on the same bus, and what becomes of a round when the bus, the
//! service or an answer is not as it should be.
//!
//! It needs `dbus-daemon` and `prometheus-node-exporter` (Debian's package, version 1.5.0); `cargo xtask
//! setup` installs both.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/dbus/mod.rs"]
mod dbus;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dbus::machine::{self, LOGIND, SYSTEMD};
use dbus::message::{Message, Value, text};
use dbus::{Daemon, Fake, Rule, SOCKET};
use mote::collector::{Options, Outcome, Set};
use mote::encode::write_text;
use mote::host::{Host, Roots};
use mote::model::Samples;

/// How long a round may take, whatever the other side does, and some for a busy machine.
const ROUND: Duration = Duration::from_millis(3_000 + 700);

/// Descriptors are the whole process's, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A root, and collectors that look below it.
struct Agent {
    set: Set,
    host: Host,
    root: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// What a round gave.
struct Round {
    text: String,
    outcomes: Vec<Outcome>,
    took: Duration,
}

impl Agent {
    fn new(collectors: &[&str]) -> Agent {
        Agent::with(collectors, &Options::default())
    }

    fn with(collectors: &[&str], options: &Options) -> Agent {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = tempfile::tempdir().unwrap();
        let roots = Roots { root: root.path().into(), ..Roots::default() };
        let set = Set::new(|entry| collectors.contains(&entry.name), options);
        assert_eq!(set.status().len(), collectors.len());
        Agent { set, host: Host::new(roots), root, _turn: turn }
    }

    fn root(&self) -> &Path {
        self.root.path()
    }

    #[track_caller]
    fn round(&mut self) -> Round {
        let round = self.round_that_takes();
        let took = round.took;
        assert!(took < ROUND * u32::try_from(self.set.status().len()).unwrap(), "{took:?}");
        round
    }

    /// One whose time the caller looks at.
    fn round_that_takes(&mut self) -> Round {
        let began = Instant::now();
        let mut samples = Samples::with_limit(60_000);
        self.set.collect(&mut self.host, &mut samples);
        let took = began.elapsed();
        let mut text = Vec::new();
        write_text(&samples, &mut text).unwrap();
        let text = lines(&String::from_utf8(text).unwrap(), &["node_scrape_"]);
        let outcomes = self.set.status().map(|status| status.outcome.clone()).collect();
        Round { text, outcomes, took }
    }

    /// A round in which all is well, and its text.
    #[track_caller]
    fn good(&mut self) -> String {
        let round = self.round();
        assert!(round.outcomes.iter().all(|outcome| *outcome == Outcome::Good), "{round:?}");
        round.text
    }
}

impl Round {
    /// That it failed, and why, in these words.
    #[track_caller]
    fn failed(&self, words: &str) -> &Round {
        let failed =
            |outcome: &Outcome| matches!(outcome, Outcome::Failed(why) if why.contains(words));
        assert!(self.outcomes.iter().all(failed), "{words:?} expected: {self:?}");
        self
    }

    #[track_caller]
    fn no_data(&self) -> &Round {
        let none = |outcome: &Outcome| matches!(outcome, Outcome::NoData(_));
        assert!(self.outcomes.iter().all(none) && self.text.is_empty(), "{self:?}");
        self
    }
}

impl std::fmt::Debug for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} after {:?}\n{}", self.outcomes, self.took, self.text)
    }
}

fn lines(text: &str, without: &[&str]) -> String {
    let wanted = |line: &&str| !without.iter().any(|name| line.contains(name));
    text.lines().filter(wanted).fold(String::new(), |text, line| text + line + "\n")
}

/// Sockets that this process has.
fn sockets() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Everything that is off by default.
fn all() -> Options {
    let mut options = Options::default();
    options.systemd.enable_restarts_metrics = true;
    options.systemd.enable_start_time_metrics = true;
    options.systemd.enable_task_metrics = true;
    options
}

struct Exporter {
    child: Child,
    address: String,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Exporter {
    fn start(bus: &Daemon, flags: &[&str]) -> Exporter {
        let path = std::env::var("MOTE_NODE_EXPORTER");
        let path = path.unwrap_or_else(|_| "prometheus-node-exporter".into());
        let mut child = Command::new(&path)
            .args(["--web.listen-address=127.0.0.1:0", "--collector.disable-defaults"])
            .args(["--web.disable-exporter-metrics", "--collector.systemd", "--collector.logind"])
            // Debian's default leaves out targets as well.
            .arg("--collector.systemd.unit-exclude=.+\\.(automount|device|mount|scope|slice)")
            .args(flags)
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{path}: {error}; `cargo xtask setup` installs it"));
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "node_exporter ended");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().to_owned();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Exporter { child, address }
    }

    /// What it tells, and whether each collector succeeded.
    fn scrape(&self) -> (String, Vec<String>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
        let success = |line: &&str| line.starts_with("node_scrape_collector_success{");
        let success = body.lines().filter(success).map(str::to_owned).collect();
        (lines(body, &["node_scrape_", "promhttp_", "node_exporter_"]), success)
    }
}

/// New in later versions of node_exporter than 1.5.0.
const NEWER: &[&str] = &["node_systemd_virtualization_info"];

#[track_caller]
fn same(theirs: &str, ours: &str) {
    let ours = if NEWER.iter().any(|name| theirs.contains(name)) {
        ours.to_owned()
    } else {
        lines(ours, NEWER)
    };
    let (theirs, ours): (BTreeSet<_>, BTreeSet<_>) =
        (theirs.lines().collect(), ours.lines().collect());
    let only_theirs: Vec<_> = theirs.difference(&ours).collect();
    let only_ours: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        only_theirs.is_empty() && only_ours.is_empty(),
        "only node_exporter: {only_theirs:#?}\nonly mote: {only_ours:#?}"
    );
}

#[test]
fn the_whole_text_is_as_it_was_and_as_node_exporter_tells_it() {
    let mut agent = Agent::with(&["systemd", "logind"], &all());
    let bus = Daemon::start(agent.root());
    let fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
    let ours = agent.good();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/dbus/machine.txt");
    if std::env::var_os("MOTE_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&golden, &ours).unwrap();
    }
    assert_eq!(ours, fs::read_to_string(&golden).unwrap());
    fake.calls();

    let flags = ["restarts", "start-time", "task"];
    let flags = flags.map(|name| format!("--collector.systemd.enable-{name}-metrics"));
    let exporter = Exporter::start(&bus, &flags.each_ref().map(String::as_str));
    let (theirs, success) = exporter.scrape();
    assert_eq!(
        success,
        ["logind", "systemd"]
            .map(|name| format!("node_scrape_collector_success{{collector=\"{name}\"}} 1"))
    );
    assert!(theirs.lines().count() > 250, "{theirs}");
    same(&theirs, &ours);
    // Not another fake, nor a cached page: it has asked for all of this.
    assert!(fake.calls().iter().any(|call| call.member == "ListSessions"));

    // What changes between two rounds is told by both.
    let key = |path: &str, interface: &str, name: &str| {
        (path.to_owned(), interface.to_owned(), name.to_owned())
    };
    let manager =
        key("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "SystemState");
    fake.state().properties.insert(manager, text("degraded"));
    let ssh =
        key(&machine::unit_path("ssh.service"), "org.freedesktop.systemd1.Service", "NRestarts");
    fake.state().properties.insert(ssh, Value::U32(77));
    let ours = agent.good();
    assert!(ours.contains("\nnode_systemd_system_running 0\n"), "{ours}");
    assert!(
        ours.contains("node_systemd_service_restart_total{name=\"ssh.service\"} 77\n"),
        "{ours}"
    );
    same(&exporter.scrape().0, &ours);
}

/// A call as text: destination, object, what is asked.
fn shown(call: &Message) -> String {
    let what = match call.arguments.as_slice() {
        [interface, name] => format!("{interface} {name}"),
        _ => format!("{}.{}", call.interface, call.member),
    };
    format!("{} {} {what}", call.destination, call.path)
}

#[test]
fn each_question_is_asked_once_and_starts_nobody() {
    let mut agent = Agent::new(&["systemd", "logind"]);
    let _bus = Daemon::start(agent.root());
    let fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
    let first = agent.good();
    let asked = fake.calls();
    for call in &asked {
        // NO_AUTO_START; each caller has a connection and is who it was.
        assert_eq!(call.flags, 2, "{call:?}");
        assert!(call.sender.starts_with(":1."), "{call:?}");
        let get = call.interface == "org.freedesktop.DBus.Properties" && call.signature == "ss";
        assert!(get || call.signature.is_empty(), "{call:?}");
        assert_eq!(get, call.member == "Get");
    }
    let asked: Vec<_> = asked.iter().map(shown).collect();
    let unique: BTreeSet<_> = asked.iter().collect();
    assert_eq!(unique.len(), asked.len(), "{asked:#?}");
    assert_eq!(
        asked[..5],
        [
            "org.freedesktop.systemd1 / org.freedesktop.DBus.Peer.Ping",
            "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager Version",
            "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager Virtualization",
            "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager.ListUnits",
            "org.freedesktop.systemd1 /org/freedesktop/systemd1/unit/ssh_2eservice \
             org.freedesktop.systemd1.Service Type",
        ]
    );
    // 5 and 7 types, 2 timers, 3 of each of 2 sockets; 3 lists and pings, and of 8 sessions one has gone.
    let of = |service: &str| asked.iter().filter(|call| call.starts_with(service)).count();
    assert_eq!(of(SYSTEMD), 5 + 7 + 2 + 6, "{asked:#?}");
    assert_eq!(of(LOGIND), 3 + 7 * 3 + 1, "{asked:#?}");

    // Later rounds go over the same connections and ask no type again but the one that is not told.
    let before = sockets();
    let asked: Vec<_> = (0..3)
        .map(|_| {
            assert_eq!(agent.good(), first);
            let calls = fake.calls();
            let senders: BTreeSet<_> = calls.iter().map(|call| call.sender.clone()).collect();
            assert_eq!(senders.len(), 2);
            let types: Vec<_> =
                calls.iter().map(shown).filter(|call| call.ends_with(" Type")).collect();
            types.into_iter().filter(|call| call.starts_with(SYSTEMD)).collect::<Vec<_>>()
        })
        .collect();
    let no_type =
        format!("{SYSTEMD} {} {SYSTEMD}.Service Type", machine::unit_path("no-type.service"));
    assert_eq!(asked, vec![vec![no_type]; 3]);
    assert_eq!(sockets(), before);
}

#[test]
fn a_service_that_is_not_there_is_no_data_and_not_started() {
    let mut agent = Agent::new(&["systemd", "logind"]);
    agent.round().no_data();
    let services = agent.root().join("services");
    fs::create_dir(&services).unwrap();
    let started = agent.root().join("started");
    for name in [SYSTEMD, LOGIND] {
        let text = format!("[D-BUS Service]\nName={name}\nExec=/bin/touch {}\n", started.display());
        fs::write(services.join(format!("{name}.service")), text).unwrap();
    }
    // Once where nobody could start it, and once where asking would.
    for more in [String::new(), format!("<servicedir>{}</servicedir>", services.display())] {
        let _bus = Daemon::with(agent.root(), &more);
        for _ in 0..3 {
            agent.round().no_data();
        }
        let fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
        agent.good();
        drop(fake);
        agent.round().no_data();
        assert!(!started.exists());
    }
    // And that the services there could have been started.
    let _bus =
        Daemon::with(agent.root(), &format!("<servicedir>{}</servicedir>", services.display()));
    let _asked = dbus::ask_and_start(agent.root(), SYSTEMD);
    let began = Instant::now();
    while !started.exists() && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(started.exists());
}

#[test]
fn a_bus_that_lets_us_ask_nothing_is_a_failure() {
    let mut agent = Agent::new(&["systemd", "logind"]);
    let deny = [(SYSTEMD, "ListUnits"), (LOGIND, "ListSeats")].map(|(service, member)| {
        format!("<deny send_interface=\"{service}.Manager\" send_member=\"{member}\"/>")
    });
    let deny = format!("<policy context=\"mandatory\">{}</policy>", deny.concat());
    let bus = Daemon::with(agent.root(), &deny);
    let fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
    let before = sockets();
    for _ in 0..3 {
        let round = agent.round();
        round.failed("org.freedesktop.DBus.Error.AccessDenied");
        // What came before is kept.
        assert!(round.text.contains("node_systemd_version{"), "{round:?}");
        assert!(!round.text.contains("node_logind_"), "{round:?}");
    }
    assert_eq!(sockets(), before + 2);
    drop((fake, bus));
    let _bus = Daemon::start(agent.root());
    let _fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
    agent.good();
}

#[test]
fn the_daemon_goes_and_comes_back() {
    let mut agent = Agent::new(&["systemd", "logind"]);
    let before = sockets();
    let mut first = None;
    for _ in 0..5 {
        let bus = Daemon::start(agent.root());
        let fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
        let text = agent.good();
        assert_eq!(first.get_or_insert(text.clone()), &text);
        drop((fake, bus));
        // Its socket stays, and nobody listens.
        agent.round().failed("refused");
        fs::remove_file(agent.root().join(SOCKET)).unwrap();
        agent.round().no_data();
    }
    assert_eq!(sockets(), before);
    // Gone and back between two rounds: nobody notices.
    for _ in 0..3 {
        let _bus = Daemon::start(agent.root());
        let _fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
        assert_eq!(Some(agent.good()), first);
    }
}

#[test]
fn a_service_that_hangs_or_is_slow_holds_a_round_for_three_seconds_at_most() {
    let mut agent = Agent::new(&["systemd"]);
    let _bus = Daemon::start(agent.root());
    let _other = Fake::on_bus(agent.root(), &[LOGIND], machine::small());
    let text = {
        let _fake = Fake::on_bus(agent.root(), &[SYSTEMD], machine::small());
        agent.good()
    };
    let before = sockets();
    let slow = Rule::Slow(Duration::from_millis(800));
    let cases = [
        ("Ping", Rule::Silence, 1_000),
        ("Version", Rule::Silence, 1_000),
        ("ListUnits", Rule::Silence, 1_000),
        ("NAccepted", Rule::Silence, 1_000),
        ("SystemState", Rule::Silence, 1_000),
        ("Type", slow, 3_000),
    ];
    for (name, rule, least) in cases {
        let least = Duration::from_millis(least);
        let took = |agent: &mut Agent| {
            // A new one each time: the types are known from before, and asked for of this one alone.
            let fake = Fake::on_bus(agent.root(), &[SYSTEMD], machine::small());
            if name == "Type" {
                agent.set = Set::new(|entry| entry.name == "systemd", &Options::default());
            }
            fake.rule(name, rule.clone());
            let round = agent.round_that_takes();
            round.failed("timed out");
            assert!(round.took >= least, "{name}: {round:?}");
            fake.state().rules.clear();
            // A late answer to an old question is nobody's.
            assert_eq!(agent.good(), text, "{name}");
            round.took
        };
        // A machine that stops for a moment does not do so three times.
        let most = least + ROUND - Duration::from_secs(3);
        assert!((0..3).any(|_| took(&mut agent) < most), "{name} takes more than {most:?}");
    }
    assert_eq!(sockets(), before);
}

#[test]
fn answers_that_are_errors_or_of_another_type_cost_what_they_tell() {
    let mut agent = Agent::with(&["systemd"], &all());
    let bus = Daemon::start(agent.root());
    let fake = Fake::on_bus(agent.root(), &[SYSTEMD, LOGIND], machine::small());
    let whole = agent.good();
    let failed = Rule::Error("org.freedesktop.DBus.Error.Failed");
    let before = sockets();

    // Of one property: this one is missing, as it is with node_exporter.
    let flags = ["restarts", "start-time", "task"];
    let flags = flags.map(|name| format!("--collector.systemd.enable-{name}-metrics"));
    let exporter = Exporter::start(&bus, &flags.each_ref().map(String::as_str));
    for (name, family) in [
        ("Version", "node_systemd_version"),
        ("NRestarts", "node_systemd_service_restart_total"),
        ("ActiveEnterTimestamp", "node_systemd_unit_start_time_seconds"),
        ("TasksCurrent", "node_systemd_unit_tasks_current"),
        ("LastTriggerUSec", "node_systemd_timer_last_trigger_seconds"),
        ("NRefused", "node_systemd_socket_refused_connections_total"),
    ] {
        fake.rule(name, failed.clone());
        let ours = agent.good();
        let (theirs, success) = exporter.scrape();
        assert!(success.iter().any(|line| line.contains("\"systemd\"} 1")), "{success:?}");
        let theirs = systemd_only(&theirs);
        same(&theirs, &ours);
        assert_ne!(ours, whole, "{name} makes no difference to {family}");
        fake.state().rules.clear();
        assert_eq!(agent.good(), whole);
    }
    // Of what the whole rests on: the collector fails, as node_exporter's does.
    for name in ["ListUnits", "SystemState"] {
        fake.rule(name, failed.clone());
        let round = agent.round();
        round.failed("org.freedesktop.DBus.Error.Failed");
        let (theirs, success) = exporter.scrape();
        assert!(success.iter().any(|line| line.contains("\"systemd\"} 0")), "{success:?}");
        same(&systemd_only(&theirs), &round.text);
        fake.state().rules.clear();
        assert_eq!(agent.good(), whole);
    }
    // node_exporter ends by some of these.
    drop(exporter);
    let list = |of: &'static str, values: Vec<Value>| Rule::Values(vec![Value::Array(of, values)]);
    for (name, rule) in [
        ("ListUnits", Rule::Values(Vec::new())),
        ("ListUnits", Rule::Values(vec![text("units")])),
        ("ListUnits", list("s", vec![text("units")])),
        ("ListUnits", list("(so)", Vec::new())),
        ("Version", Rule::Values(vec![text("252")])),
        (
            "Version",
            Rule::Values(vec![Value::Variant(Box::new(Value::Variant(Box::new(Value::U32(1)))))]),
        ),
        ("Type", Rule::Values(vec![Value::Variant(Box::new(Value::Array("s", Vec::new())))])),
        ("Type", Rule::Values(Vec::new())),
    ] {
        agent.set = Set::new(|entry| entry.name == "systemd", &all());
        fake.rule(name, rule.clone());
        agent.round().failed("should stand");
        fake.state().rules.clear();
        assert_eq!(agent.good(), whole, "{name}: {rule:?}");
    }
    // Another simple type is a property that is not there. node_exporter, which does not live to tell, asks
    // a socket without this one for no other.
    fake.rule("NAccepted", Rule::Values(vec![Value::Variant(Box::new(Value::I32(-1)))]));
    assert_eq!(agent.good(), lines(&whole, &["node_systemd_socket_accepted_connections_total"]));
    fake.rule("SystemState", Rule::Values(vec![Value::Variant(Box::new(Value::I32(-1)))]));
    agent.round().failed("SystemState");
    assert_eq!(sockets(), before);
    fake.calls();
}

fn systemd_only(whole: &str) -> String {
    lines(whole, &["node_logind_"])
}

#[test]
fn five_thousand_units_are_told_in_time() {
    let mut agent = Agent::new(&["systemd"]);
    let _bus = Daemon::start(agent.root());
    let fake = Fake::on_bus(agent.root(), &[SYSTEMD], machine::large(5_000));
    // Types may take more rounds than one; each stays within its time and none is asked twice.
    let began = Instant::now();
    let text = loop {
        let round = agent.round();
        if round.outcomes == [Outcome::Good] {
            break round.text;
        }
        round.failed("timed out");
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", round.outcomes);
    };
    let states = text.lines().filter(|line| line.starts_with("node_systemd_unit_state{"));
    assert_eq!(states.clone().count(), 25_000);
    assert!(states.clone().all(|line| line.contains("type=\"simple\"")));
    assert_eq!(states.filter(|line| line.ends_with(" 1")).count(), 5_000);
    assert!(text.contains("node_systemd_units{state=\"active\"} 5000\n"));
    let types = fake
        .calls()
        .iter()
        .filter(|call| call.arguments.last().is_some_and(|a| a == "Type"))
        .count();
    assert!((5_000..5_010).contains(&types), "{types}");
    // And then a round is a handful of questions.
    assert_eq!(agent.good(), text);
    assert_eq!(fake.calls().len(), 5);
}
