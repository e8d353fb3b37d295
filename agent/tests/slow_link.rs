//! Links that are slow or paid for by the byte: requests are cut until they fit, and a day's bytes are kept to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Agent, Dice, SlowLink, StrictLoki, StrictMimir};

const LONG: Duration = Duration::from_secs(90);

/// 1 KiB/s and the default timeout of 30 s, six times faster than in life.
const LINK: u32 = 6 << 10;
const TIMES: &str = "timeout = \"5s\"\nbackoff = { min = \"50ms\", max = \"300ms\" }\n";

#[test]
fn round_larger_than_a_link_takes_in_time_arrives_whole() {
    let mimir = StrictMimir::new();
    mimir.tolerate_aborts();
    // A default round is 10 to 20 KiB, and no longer in time.
    let link = SlowLink::new(mimir.address(), 1_500);
    let url = link.url(&mimir.url());
    let mut agent = Agent::new(&format!(
        "interval = \"1h\"\n[probes]\ndefault = \"off\"\n[[mimir]]\nurl = {url:?}\n{TIMES}"
    ));
    agent.start();
    let samples: u64 = agent.rounds().iter().map(|(_, samples)| u64::from(*samples)).sum();
    assert!(samples > 300, "{samples}");
    agent.wait("the round", LONG, |agent| {
        agent.status()["endpoints"][0]["sent"].as_u64() == Some(samples)
    });
    let requests = agent.status()["endpoints"][0]["requests"].clone();
    assert!(requests["error"].as_u64() > Some(0), "it was never too large: {requests}");
    assert!(requests["200"].as_u64() > Some(1), "{requests}");
    assert_eq!(agent.status()["dropped"].as_array().unwrap().len(), 0);
    assert_eq!(mimir.with_service(|mimir| mimir.samples), samples);
    assert_eq!(mimir.samples("up", &[]).len(), 1);
    mimir.assert_clean();
}

#[test]
fn lines_that_fill_a_link_for_many_timeouts_arrive_once_and_in_order() {
    let loki = StrictLoki::new();
    loki.tolerate_aborts();
    let link = SlowLink::new(loki.address(), LINK);
    let mut agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir(&logs).unwrap();
    agent.configure(&format!(
        "interval = \"1h\"\n[[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\n{TIMES}\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
        link.url(&loki.url()),
        logs.display()
    ));
    // Half of it is what nothing compresses: more than ten seconds of the link.
    let mut dice = Dice::new(1);
    let mut file = File::create(logs.join("a.log")).unwrap();
    let mut expected = Vec::new();
    for line in 0..2_000 {
        let noise: String = (0..4).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
        writeln!(file, "{line:04} {noise}").unwrap();
        expected.push(format!("{line:04} {noise}"));
    }
    agent.start();
    agent.wait("all lines", LONG, |_| loki.lines(&[("job", "test")]).len() >= expected.len());
    assert_eq!(loki.lines(&[("job", "test")]), expected);
    let requests = agent.status()["endpoints"][0]["requests"].clone();
    assert!(requests["error"].as_u64() > Some(0), "it was never too large: {requests}");
    assert_eq!(agent.status()["dropped"].as_array().unwrap().len(), 0);
    assert_eq!(loki.repeats(), 0);
    loki.assert_clean();
}

fn metered(mimir: &StrictMimir, daily: &str) -> String {
    format!(
        "interval = \"1s\"\n[egress]\ndaily = {daily:?}\n[probes]\ndefault = \"off\"\n\
         [metrics.collectors]\nonly = [\"loadavg\", \"meminfo\"]\n\
         [[mimir]]\nurl = {:?}\nsend_interval = \"0s\"\n{TIMES}",
        mimir.url()
    )
}

fn waits(agent: &Agent) -> bool {
    agent.status()["endpoints"][0]["waits"].is_string()
}

#[test]
fn days_bytes_are_kept_to_over_a_kill_and_nothing_is_lost_by_it() {
    let mimir = StrictMimir::new();
    let mut agent = Agent::new(&metered(&mimir, "64KiB"));
    agent.start();
    agent.wait("the day's bytes are used up", LONG, waits);
    let stored = || mimir.samples("up", &[]).len();
    let before = stored();
    let bodies = || mimir.requests().iter().map(|request| request.body.len() as u64).sum::<u64>();
    // The last request may go over by itself.
    assert!((40 << 10..70 << 10).contains(&bodies()), "{}", bodies());
    let status = agent.status();
    assert_eq!(status["egress"]["daily_bytes"], 64 << 10, "{status}");
    assert!(status["egress"]["today_bytes"].as_u64() >= Some(64 << 10), "{status}");
    assert!(status["endpoints"][0]["trouble"].is_null(), "{status}");
    let (_, page) = agent.get("/metrics").unwrap();
    assert!(page.contains("mote_egress_budget_bytes 65536"), "{page}");
    assert!(page.contains("mote_egress_bytes_total{endpoint="), "{page}");
    // What the file says is not less than what was sent.
    agent.kill();
    agent.start();
    agent.wait("it waits again", LONG, waits);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(stored(), before);
    // At the end it does not wait for midnight.
    let began = Instant::now();
    assert!(agent.terminate().0.success());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    agent.configure(&metered(&mimir, "1GiB"));
    agent.start();
    agent.wait("everything that waited", LONG, |agent| {
        !waits(agent)
            && agent.status()["endpoints"][0]["lag_seconds"].as_f64() < Some(2.0)
            && stored() > before + 2
    });
    agent.signal(Signal::STOP);
    let rounds: Vec<i64> = agent.rounds().iter().map(|(time, _)| *time).collect();
    let up: Vec<i64> = mimir.samples("up", &[]).iter().map(|(time, _)| *time).collect();
    let sent: Vec<i64> = rounds.iter().copied().filter(|time| time <= up.last().unwrap()).collect();
    assert!(up.ends_with(&sent), "{up:?} {sent:?}");
    agent.signal(Signal::CONT);
    assert_eq!(agent.status()["dropped"].as_array().unwrap().len(), 0);
    mimir.assert_clean();
}

#[test]
fn idle_agent_asks_nothing_of_a_link_but_its_rounds() {
    let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
    let mut agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir(&logs).unwrap();
    File::create(logs.join("a.log")).unwrap();
    agent.configure(&format!(
        "interval = \"1s\"\n[probes]\ndefault = \"off\"\n[metrics.collectors]\nonly = [\"loadavg\"]\n\
         [[mimir]]\nurl = {:?}\n[[loki]]\nurl = {:?}\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
        mimir.url(),
        loki.url(),
        logs.display()
    ));
    agent.start();
    std::thread::sleep(Duration::from_secs(6));
    assert!(agent.terminate().0.success());
    // Several rounds share a request within `send_interval`; the end sends what waits.
    let (rounds, requests) = (agent.rounds().len(), mimir.requests().len());
    assert!(rounds >= 6 && (1..=2).contains(&requests), "{requests} for {rounds} rounds");
    assert_eq!(mimir.connections(), 1);
    // Not a request and not a connection for nothing.
    assert_eq!((loki.requests().len(), loki.connections()), (0, 0));
    mimir.assert_clean();
}

/// A server that never answers, and says how many bytes it was sent when no more have come for a second.
fn silent() -> (String, mpsc::Receiver<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/loki/api/v1/push", listener.local_addr().unwrap());
    let (done, read) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let (mut all, mut buffer) = (0, [0; 64 << 10]);
        while let Ok(read) = stream.read(&mut buffer)
            && read > 0
        {
            all += read as u64;
        }
        done.send(all).unwrap();
        // Until the test ends.
        std::thread::park();
        drop(stream);
    });
    (url, read)
}

/// What the file says of today.
fn spent(agent: &Agent) -> u64 {
    let bytes = fs::read(agent.path("state/egress")).unwrap();
    u64::from_le_bytes(bytes[16..24].try_into().unwrap())
}

#[test]
fn bytes_of_a_request_that_is_given_up_are_counted() {
    let (url, read) = silent();
    let mut agent = Agent::new("");
    let logs = agent.path("logs");
    fs::create_dir(&logs).unwrap();
    agent.configure(&format!(
        "interval = \"1h\"\nshutdown_timeout = \"1s\"\n[egress]\ndaily = \"100MiB\"\n\
         [[loki]]\nurl = {url:?}\nbatch_wait = \"1s\"\nbatch_bytes = \"1MiB\"\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"test\" }}\n",
        logs.display()
    ));
    let mut dice = Dice::new(1);
    let mut file = File::create(logs.join("a.log")).unwrap();
    for _ in 0..8_000 {
        let noise: String = (0..16).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
        writeln!(file, "{noise}").unwrap();
    }
    agent.start();
    let read = read.recv_timeout(LONG).unwrap();
    assert!(agent.terminate().0.success());
    assert!(read > 32 << 10, "{read}");
    assert!(spent(&agent) >= read, "{} of {read}", spent(&agent));
}
