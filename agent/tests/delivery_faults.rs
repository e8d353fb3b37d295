//! Every fault of docs/delivery.md under a running agent, for metrics and for logs. One agent has an endpoint for
//! each row of the table, and all faults last at the same time: no endpoint waits for another. While they last,
//! each has the outcome that the table states, and shows it; once they are over, all that was collected has
//! arrived or is counted as dropped, and no request repeats what another one held but the one after it whose
//! answer the fault has taken away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::certificates::Ca;
use support::http::Request;
use support::ledger::{Kept, ledger};
use support::{Agent, Fault, Gate, Server, Wire, strict_loki, strict_mimir};

const LONG: Duration = Duration::from_secs(60);
/// The configured bounds of pauses.
const MIN: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_millis(400);
/// The timeout of those who are to wait for a server in vain, and of all others.
const SHORT: Duration = Duration::from_millis(400);
const PATIENT: Duration = Duration::from_secs(20);

/// What the agent is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// The server has it, whatever follows the status.
    Accepted,
    /// The same again, after pauses of at least this.
    Retried(Duration),
    /// As retried, and not once before the fault is over.
    Waits,
    /// The same again, at the longest pause.
    Misconfigured,
    /// Dropped, and counted by the code.
    Refused,
}
use Policy::{Accepted, Misconfigured, Refused, Retried, Waits};

/// What goes wrong.
#[derive(Clone, Debug)]
enum Trouble {
    /// The server answers so.
    Answer(Fault),
    /// The way to it is so.
    Way(Wire),
    /// Another server is at its address.
    Other(Impostor),
    /// Nobody listens.
    Nobody,
}

/// Who answers at the address instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Impostor {
    Expired,
    NotYetValid,
    WrongName,
    UnknownCa,
    WantsCertificate,
    NoTls,
    Tls,
}

struct Row {
    name: &'static str,
    trouble: Trouble,
    policy: Policy,
    /// The code that requests are counted under, if the server's answer has one.
    code: &'static str,
    /// What the status page says of it.
    says: &'static str,
    timeout: Duration,
}

fn answer(name: &'static str, code: u16, policy: Policy, says: &'static str) -> Row {
    let trouble = Trouble::Answer(Fault::status(code).body("the server's words"));
    Row { name, trouble, policy, code: name.split(' ').next().unwrap(), says, timeout: PATIENT }
}

fn retry_after(name: &'static str, code: u16, policy: Policy, after: &str) -> Row {
    let fault = Fault::status(code)
        .header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .header("Retry-After", after);
    Row {
        trouble: Trouble::Answer(fault),
        ..answer(name, code, policy, name.split(' ').next().unwrap())
    }
}

fn played(name: &'static str, fault: Fault, policy: Policy, says: &'static str) -> Row {
    Row { trouble: Trouble::Answer(fault), ..silent(name, policy, says) }
}

fn way(name: &'static str, wire: Wire, says: &'static str) -> Row {
    Row { trouble: Trouble::Way(wire), ..silent(name, Retried(MIN), says) }
}

fn other(name: &'static str, impostor: Impostor, says: &'static str) -> Row {
    Row { trouble: Trouble::Other(impostor), ..silent(name, Retried(MIN), says) }
}

fn silent(name: &'static str, policy: Policy, says: &'static str) -> Row {
    Row { name, trouble: Trouble::Nobody, policy, code: "error", says, timeout: PATIENT }
}

fn impatient(row: Row) -> Row {
    Row { timeout: SHORT, ..row }
}

fn table() -> Vec<Row> {
    let retried = Retried(MIN);
    let body = |head: &str| Fault::garbage(format!("HTTP/1.1 {head}")).accepting();
    vec![
        played("200 and close", Fault::status(200).accepting().then_close(), Accepted, ""),
        played("204 and close", Fault::status(204).accepting().then_close(), Accepted, ""),
        played(
            "200 with too long a Content-Length",
            body("200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            Accepted,
            "",
        ),
        played(
            "200 with too short a Content-Length",
            body("200 OK\r\nContent-Length: 1\r\n\r\nabcdefgh"),
            Accepted,
            "",
        ),
        played(
            "200 with a body that never ends",
            Fault::endless_body(200).accepting(),
            Accepted,
            "",
        ),
        played("200 and no body", Fault::close_after_head(200).accepting(), Accepted, ""),
        answer("301", 301, Misconfigured, "redirects"),
        answer("307", 307, Misconfigured, "redirects"),
        answer("308", 308, Misconfigured, "redirects"),
        answer("400", 400, Refused, "the server's words"),
        answer("401", 401, Misconfigured, "check basic_auth"),
        answer("403", 403, Misconfigured, "forbids"),
        answer("404", 404, Misconfigured, "check the path"),
        answer("405", 405, Misconfigured, "check the path"),
        answer("407", 407, Misconfigured, "proxy"),
        answer("408", 408, retried, "408"),
        answer("409", 409, Refused, "the server's words"),
        answer("410", 410, Refused, "the server's words"),
        answer("411", 411, Misconfigured, "the server's words"),
        answer("413", 413, Refused, "the server's words"),
        answer("415", 415, Misconfigured, "protocol"),
        answer("422", 422, Refused, "the server's words"),
        answer("421", 421, Misconfigured, "tls.server_name"),
        answer("426", 426, Misconfigured, "the server's words"),
        answer("429", 429, retried, "the server's words"),
        answer("431", 431, Misconfigured, "the server's words"),
        retry_after("429 with seconds", 429, Retried(Duration::from_secs(1)), "1"),
        retry_after(
            "429 with a date",
            429,
            Retried(Duration::from_secs(2)),
            "Sun, 06 Nov 1994 08:49:39 GMT",
        ),
        retry_after("429 with no time at all", 429, retried, "soon"),
        retry_after("429 with an absurd time", 429, Waits, "99999999999999999999"),
        answer("500", 500, retried, "the server's words"),
        answer("502", 502, retried, "the server's words"),
        retry_after("503 with seconds", 503, Retried(Duration::from_secs(1)), "1"),
        answer("504", 504, retried, "the server's words"),
        answer("599", 599, retried, "the server's words"),
        Row { code: "600", ..answer("600, no code at all", 600, retried, "600") },
        Row {
            trouble: Trouble::Answer(
                Fault::status(503).header("Connection", "close").body("in the middle").early(),
            ),
            ..answer("503 before the body is read", 503, retried, "in the middle")
        },
        silent("nobody listens", retried, "is the server running"),
        way("closed at once", Wire::Close, ""),
        way("reset at once", Wire::Reset, ""),
        way("reset in the head", Wire::ResetRequest(20), ""),
        way("reset in the body", Wire::ResetRequest(300), ""),
        way("closed in the body", Wire::CloseRequest(300), ""),
        way("reset in the answer", Wire::ResetAnswer(5), ""),
        way("closed in the answer's status", Wire::CloseAnswer(9), ""),
        way("half-closed at once", Wire::HalfClosed, ""),
        way("half-closed instead of an answer", Wire::HalfClosedAnswer, ""),
        played("stored, and no answer", Fault::accept_then_lose_answer(), retried, ""),
        played("garbage", Fault::garbage("SSH-2.0-OpenSSH_9.2p1\r\n"), retried, ""),
        played("garbage for what is stored", Fault::garbage(vec![0; 99]).accepting(), retried, ""),
        played("a head that never ends", Fault::endless_head().accepting(), retried, ""),
        impatient(way("never accepts to talk", Wire::Deaf, "within 0.4 s")),
        impatient(way("never answers", Wire::Silent, "no answer within 0.4 s")),
        impatient(way("slow to accept", Wire::Late(2 * SHORT), "no answer within 0.4 s")),
        impatient(way("slow head", Wire::SlowAnswer(MAX / 8), "no answer within 0.4 s")),
        impatient(played("slow answer", Fault::slow_answer(2 * SHORT), retried, "within 0.4 s")),
        other("TLS expired", Impostor::Expired, "renew it"),
        other("TLS not yet valid", Impostor::NotYetValid, "clock"),
        other("TLS for another name", Impostor::WrongName, "another name"),
        other("TLS of an unknown CA", Impostor::UnknownCa, "none of the CAs"),
        other("TLS wants a certificate", Impostor::WantsCertificate, ""),
        other("TLS to a port without", Impostor::NoTls, "is the URL's scheme http?"),
        other("no TLS to a port with", Impostor::Tls, ""),
    ]
}

/// A row at work: its server, the way to it, and who else may be at its address.
struct Stand<S: Kept> {
    row: Row,
    server: Server<S>,
    gate: Gate,
    impostor: Option<Server<S>>,
    config: String,
}

impl<S: Kept> Stand<S> {
    fn new(row: Row, ca: &Ca) -> Stand<S> {
        use Impostor::{Expired, NoTls, NotYetValid, Tls, UnknownCa, WantsCertificate, WrongName};
        let names = &["127.0.0.1"];
        let secure = |config| Server::with_tls(S::default(), config);
        let impostor = match row.trouble {
            Trouble::Other(Expired) => Some(secure(ca.server_of_years(names, 2001, 2002))),
            Trouble::Other(NotYetValid) => Some(secure(ca.server_of_years(names, 2601, 2602))),
            Trouble::Other(WrongName) => Some(secure(ca.server(&["mimir.lan"]))),
            Trouble::Other(UnknownCa) => Some(secure(Ca::new().server(names))),
            Trouble::Other(WantsCertificate) => Some(secure(ca.server_with_client_auth(names))),
            Trouble::Other(NoTls) => Some(Server::with(S::default())),
            Trouble::Other(Tls) => Some(secure(ca.server(names))),
            _ => None,
        };
        let tls = matches!(row.trouble, Trouble::Other(other) if other != Tls);
        let server = if tls { secure(ca.server(names)) } else { Server::with(S::default()) };
        // A fault may cut a request off.
        server.tolerate_aborts();
        let gate = Gate::before(server.address());
        match (&row.trouble, &impostor) {
            (Trouble::Answer(fault), _) => {
                let fault = fault.clone();
                server.play(move || Some(fault.clone()));
            }
            (Trouble::Way(wire), _) => {
                let wire = *wire;
                gate.play(move || Some(wire));
            }
            (Trouble::Other(_), Some(impostor)) => {
                let address = impostor.address();
                gate.play(move || Some(Wire::To(address)));
            }
            _ => {}
        }
        server.bad_way(!matches!(row.trouble, Trouble::Answer(_) | Trouble::Nobody));
        let mut stand = Stand { row, server, gate, impostor, config: String::new() };
        let (scheme, trust) = match tls {
            true => ("https", format!("tls.ca_file = {:?}\n", ca.file().display().to_string())),
            false => ("http", String::new()),
        };
        let timeout = stand.row.timeout.as_millis();
        stand.config = format!(
            "[[{}]]\nurl = \"{scheme}://{}{}\"\n{trust}timeout = \"{timeout}ms\"\n{}\n\
             backoff = {{ min = \"{}ms\", max = \"{}ms\" }}\n",
            S::TABLE,
            stand.gate.address(),
            S::PATH,
            S::AT_ONCE,
            MIN.as_millis(),
            MAX.as_millis(),
        );
        if matches!(stand.row.trouble, Trouble::Nobody) {
            stand.server.stop();
            // Its own port, for a refusal that the agent itself gets.
            stand.config = stand
                .config
                .replace(&stand.gate.address().to_string(), &stand.server.address().to_string());
        }
        stand
    }

    /// When the fault was met, once for each try.
    fn tries(&self) -> Vec<Instant> {
        match self.row.trouble {
            Trouble::Answer(_) => {
                let requests = self.server.requests();
                requests.iter().filter(|r| r.faulty).map(|request| request.at).collect()
            }
            _ => self.gate.played(),
        }
    }

    fn of<'a>(&self, status: &'a Value) -> &'a Value {
        let ports = [self.gate.address().port(), self.server.address().port()];
        let endpoints = status["endpoints"].as_array().unwrap();
        let mine = |endpoint: &&Value| {
            let url = endpoint["url"].as_str().unwrap();
            ports.iter().any(|port| url.contains(&format!(":{port}/")))
        };
        endpoints.iter().find(mine).unwrap_or_else(|| panic!("{}: no endpoint", self.row.name))
    }

    /// Whether the fault has been met as often as it has to be, and is shown.
    fn is_shown(&self, status: &Value) -> bool {
        let endpoint = self.of(status);
        let trouble = endpoint["trouble"].as_str();
        let codes = &endpoint["requests"];
        let tries = codes[self.row.code].as_u64().unwrap_or(0);
        match self.row.policy {
            Accepted => endpoint["sent"].as_u64() > Some(0) && trouble.is_none(),
            Waits => tries == 1 && trouble.is_some(),
            Refused => tries >= 2 && trouble.is_some_and(|text| text.contains(self.row.says)),
            _ => tries >= 3 && trouble.is_some_and(|text| text.contains(self.row.says)),
        }
    }

    /// The end of the fault.
    fn release(&mut self) {
        self.server.rest();
        self.gate.rest();
        if matches!(self.row.trouble, Trouble::Nobody) {
            self.server.start();
        }
    }

    /// Holds the pauses between the tries against the policy.
    fn check_pauses(&self) {
        let tries = self.tries();
        let least = match self.row.policy {
            Retried(least) => least,
            Misconfigured => MAX,
            _ => return,
        };
        for two in tries.windows(2) {
            let pause = two[1] - two[0];
            assert!(pause >= least, "{}: tried again after {pause:?}", self.row.name);
        }
    }

    /// Holds the counts of requests against what the server and the way have seen.
    /// `before` is how many of them were good before the status was asked.
    fn check_counts(&self, status: &Value, before: u64) {
        let (row, endpoint) = (&self.row, self.of(status));
        let name = row.name;
        assert_eq!(endpoint["trouble"], Value::Null, "{name}: the trouble is over");
        let requests: BTreeMap<String, u64> =
            serde_json::from_value(endpoint["requests"].clone()).unwrap();
        let good = |code: &&String| code.starts_with('2');
        let bad: Vec<_> = requests.iter().filter(|(code, _)| !good(code)).collect();
        let played = match row.trouble {
            Trouble::Answer(_) => self.server.played() as u64,
            _ => self.gate.played().len() as u64,
        };
        match row.policy {
            Accepted => assert!(bad.is_empty(), "{name}: {bad:?}"),
            _ => {
                assert!(bad.len() == 1 && bad[0].0 == row.code, "{name}: {bad:?}");
                let count = *bad[0].1;
                let exact = row.timeout == PATIENT && !matches!(row.trouble, Trouble::Nobody);
                // A machine that is busy may make more than the fault of what has little time.
                assert!(count == played || !exact && count >= played, "{name}: {count}, {played}");
            }
        }
        // Each good answer is one request that the server has answered well.
        let own: u64 = requests.iter().filter(|(code, _)| good(code)).map(|(_, n)| n).sum();
        if row.timeout == PATIENT {
            let after = match row.trouble {
                Trouble::Answer(_) | Trouble::Nobody => self.well(),
                // The first good ones may have come while the last connection that broke was still there.
                _ => self.server.answered().iter().flatten().count() as u64,
            };
            assert!((before..=after).contains(&own), "{name}: {own} good, {before} to {after}");
        }
    }

    /// How many requests the server has answered well.
    fn well(&self) -> u64 {
        let answered = self.server.answered();
        let requests = self.server.requests();
        let well = |(request, at): &(&Request, Option<Instant>)| match self.row.policy {
            Accepted => true,
            _ => !request.faulty && at.is_some(),
        };
        requests.iter().zip(answered).filter(well).count() as u64
    }

    /// Whatever is stored came once, but for what the answer was lost of.
    fn check_repeats(&self) {
        let row = &self.row;
        // A request with little time may have been given up on a busy machine.
        let faulty = |request: &Request| match row.policy {
            Accepted => false,
            _ => request.faulty || self.gate.broke(request) || row.timeout == SHORT,
        };
        let ledger = ledger::<S>(row.name, &self.server.requests(), faulty, &[]);
        let stored = self.server.with_service(|service| service.counts());
        assert_eq!((ledger.stored.len() as u64, ledger.again), stored, "{}", row.name);
        self.server.assert_clean();
    }
}

/// Samples or entries that were dropped by this reason, and its like for what the server may have had before.
fn dropped(status: &Value, signal: &str, reason: &str) -> u64 {
    let all = status["dropped"].as_array().unwrap();
    let of = |dropped: &&Value| {
        let text = dropped["reason"].as_str().unwrap();
        dropped["signal"] == signal && text.strip_suffix("_repeat").unwrap_or(text) == reason
    };
    all.iter().filter(of).map(|dropped| dropped["count"].as_u64().unwrap()).sum()
}

/// Runs the table for one signal. `collected` is how many samples or entries there are by other testimony,
/// once the agent has ended; `go` causes something to be delivered.
fn run<S: Kept>(
    signal: &str,
    config: &str,
    go: impl Fn(&Agent),
    collected: impl Fn(&Agent) -> u64,
) {
    let ca = Ca::new();
    let mut stands: Vec<Stand<S>> = table().into_iter().map(|row| Stand::new(row, &ca)).collect();
    let mut agent = Agent::new("");
    let mut text = format!(
        "instance = \"box\"\ninterval = \"3s\"\nshutdown_timeout = \"20s\"\n{}",
        config.replace("{dir}", &agent.path("").display().to_string())
    );
    text.extend(stands.iter().map(|stand| stand.config.as_str()));
    agent.configure(&text);
    agent.start();
    let missing = |stands: &[Stand<S>], shown: &dyn Fn(&Stand<S>) -> bool| -> Vec<&'static str> {
        stands.iter().filter(|stand| !shown(stand)).map(|stand| stand.row.name).collect()
    };
    let end = Instant::now() + LONG;
    loop {
        go(&agent);
        let status = agent.status();
        let missing = missing(&stands, &|stand| stand.is_shown(&status));
        if missing.is_empty() {
            break;
        }
        let of: Vec<_> = stands.iter().filter(|s| missing.contains(&s.row.name)).collect();
        let of: Vec<_> = of.iter().map(|stand| stand.of(&status)).collect();
        assert!(Instant::now() < end, "not shown: {missing:?}\n{of:#?}\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    stands.iter_mut().for_each(Stand::release);
    agent.wait("the faults have ended", LONG, |_| stands.iter().all(|s| s.gate.live() == 0));
    stands.iter().for_each(|stand| stand.server.bad_way(false));
    // What comes now comes at once.
    go(&agent);
    let behind = |agent: &Agent| {
        let status = agent.status();
        missing(&stands, &|stand| {
            let lag = stand.of(&status)["lag_seconds"].as_f64().unwrap();
            stand.row.policy == Waits || lag < 3.5 && stand.of(&status)["trouble"].is_null()
        })
    };
    let end = Instant::now() + LONG;
    while !behind(&agent).is_empty() {
        assert!(Instant::now() < end, "behind: {:?}\n{}", behind(&agent), agent.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let before: Vec<u64> = stands.iter().map(Stand::well).collect();
    let status = agent.status();
    for (stand, before) in stands.iter().zip(before) {
        if stand.row.policy != Waits {
            stand.check_pauses();
            stand.check_counts(&status, before);
        }
    }
    // Whoever was told to wait for an hour is asked once more at the end.
    let (exit, took) = agent.terminate();
    assert!(exit.success() && took < Duration::from_secs(20), "{exit:?} after {took:?}");
    let all = collected(&agent);
    for stand in &stands {
        let row = &stand.row;
        let (stored, _) = stand.server.with_service(S::counts);
        let lost = match row.policy {
            Refused => dropped(&status, signal, &format!("http_{}", row.code)),
            _ => 0,
        };
        assert_eq!(stored + lost, all, "{}: {stored} stored, {lost} dropped", row.name);
        assert!(lost > 0 || row.policy != Refused, "{}: nothing was refused", row.name);
        stand.check_repeats();
        assert!(stand.impostor.as_ref().is_none_or(|other| other.requests().is_empty()));
        stand.impostor.iter().for_each(|other| drop(other.take_violations()));
    }
    let reasons: BTreeSet<_> = table().iter().map(|row| format!("http_{}", row.code)).collect();
    for dropped in status["dropped"].as_array().unwrap() {
        let reason = dropped["reason"].as_str().unwrap();
        let reason = reason.strip_suffix("_repeat").unwrap_or(reason);
        assert!(reasons.contains(reason), "{dropped}");
    }
    println!("{} rows, {all} {signal} collected", stands.len());
}

#[test]
fn metrics_under_every_fault_arrive_once_or_are_counted() {
    let config = "log = { level = \"warn\" }\n[probes]\ndefault = \"off\"\n\
                  [metrics.collectors]\nonly = [\"time\", \"loadavg\"]\n";
    run::<strict_mimir::Mimir>(
        "metrics",
        config,
        |_| {},
        |agent| agent.rounds().iter().map(|(_, samples)| u64::from(*samples)).sum(),
    );
}

#[test]
fn logs_under_every_fault_arrive_once_or_are_counted() {
    let config = "log = { level = \"warn\" }\n[probes]\ndefault = \"off\"\n[metrics.collectors]\nonly = []\n\
                  [[logs.file]]\npaths = [\"{dir}app.log\"]\nlabels = { job = \"test\" }\n";
    let count = std::cell::Cell::new(0u64);
    run::<strict_loki::Loki>(
        "logs",
        config,
        |agent| {
            let path = agent.path("app.log");
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            writeln!(file, "line {}", count.get()).unwrap();
            count.set(count.get() + 1);
        },
        |_| count.get(),
    );
}

/// Nobody there for a while, and then a server that takes small requests only.
/// `collected` is what may have arrived at the end, when the newest may stay on the disk.
fn run_small<S: Kept>(code: u16, config: &str, collected: impl Fn(&Agent) -> Vec<u64>) {
    let mut server = Server::with(S::default());
    server.limit(700, code);
    server.stop();
    let mut agent = Agent::new("");
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"200ms\"\nshutdown_timeout = \"20s\"\n{}[[{}]]\nurl = {:?}\n{}\n\
         backoff = {{ min = \"20ms\", max = \"100ms\" }}\n",
        config.replace("{dir}", &agent.path("").display().to_string()),
        S::TABLE,
        server.url(),
        S::AT_ONCE
    ));
    std::fs::write(
        agent.path("app.log"),
        (0..200).map(|n| format!("line {n} {}\n", n * n)).collect::<String>(),
    )
    .unwrap();
    agent.start();
    std::thread::sleep(Duration::from_secs(2));
    server.start();
    agent.wait("all is delivered", LONG, |agent| {
        let endpoint = agent.status()["endpoints"][0].clone();
        endpoint["sent"].as_u64() > Some(0) && endpoint["lag_seconds"].as_f64() < Some(0.5)
    });
    let status = agent.status();
    assert_eq!(status["dropped"], serde_json::json!([]), "{code}");
    assert!(agent.terminate().0.success());
    let requests = server.requests();
    let refused = requests.iter().filter(|request| !request.stored).count();
    assert!((1..=60).contains(&refused), "{code}: {refused} of {} requests", requests.len());
    let ledger = ledger::<S>("small", &requests, |_| false, &[]);
    assert_eq!(ledger.again, 0, "{code}");
    let (stored, all) = (ledger.stored.len() as u64, collected(&agent));
    // Requests are parts of rounds, too.
    let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    assert!((least..=most).contains(&&stored), "{code}: {stored} of {all:?}");
}

#[test]
fn a_server_that_takes_small_requests_only_gets_everything_in_small_requests() {
    let metrics =
        "[probes]\ndefault = \"off\"\n[metrics.collectors]\nonly = [\"time\", \"loadavg\"]\n";
    let logs = format!(
        "{metrics}[[logs.file]]\npaths = [\"{{dir}}app.log\"]\nlabels = {{ job = \"test\" }}\n"
    );
    for code in [413, 500] {
        run_small::<strict_mimir::Mimir>(code, metrics, |agent| {
            let rounds: Vec<u64> = agent.rounds().iter().map(|(_, n)| u64::from(*n)).collect();
            (0..4).map(|stay| rounds[..rounds.len() - stay].iter().sum()).collect()
        });
        run_small::<strict_loki::Loki>(code, &logs, |_| vec![200]);
    }
}
