//! Scraped targets that want to know who asks, and prove who they are: behind a real nginx, and with a token that
//! changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
#![allow(dead_code, reason = "each test file uses a part of the support")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use support::certificates::Ca;
use support::{Agent, Nginx, Pages, StrictMimir};

const LONG: Duration = Duration::from_secs(60);

fn config(mimir: &str, more: &str) -> String {
    format!(
        "interval = \"1s\"\n[probes]\ndefault = \"off\"\n\
         [metrics]\ncollectors = {{ only = [\"loadavg\"] }}\n\
         [[mimir]]\nurl = {mimir:?}\nsend_interval = \"0s\"\n{more}"
    )
}

fn scrape(job: &str, target: &str, more: &str) -> String {
    format!("[[scrape]]\njob = {job:?}\ntargets = [{target:?}]\n{more}\n")
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// What the last scrape of a job has said: `up`, and the status page's error.
fn state(agent: &Agent, job: &str) -> (bool, String) {
    let status = agent.status();
    let targets = status["targets"].as_array().unwrap();
    let target = targets.iter().find(|target| target["job"] == job).unwrap();
    (target["state"] == "up", target["error"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn certificates_and_passwords_are_those_of_each_target() {
    let (ca, mimir, page) = (Ca::new(), StrictMimir::new(), Pages::text("a 1\n"));
    let other = Ca::named("another");
    let upstream = page.target().parse().unwrap();
    let plain = Nginx::new(&ca, upstream, "");
    let client_ca =
        format!("ssl_client_certificate {}; ssl_verify_client on;", ca.file().display());
    let mutual = Nginx::new(&ca, upstream, &client_ca);
    // me:hunter2
    let wants = "if ($http_authorization != \"Basic bWU6aHVudGVyMg==\") { return 401; }";
    let locked = Nginx::new(&ca, upstream, wants);
    let (cert, key) = ca.client();
    let [plain, mutual, locked] = [&plain, &mutual, &locked].map(|nginx| nginx.url("/metrics"));
    let mut agent = Agent::new("");
    let password = agent.path("password");
    secret(&password, "hunter2\n");
    let tls = format!("ca_file = {:?}", ca.file());
    let wrong_ca = format!("ca_file = {:?}", other.file());
    let shows = format!("{tls}, cert_file = {cert:?}, key_file = {key:?}");
    let user = |password: &str| {
        format!("tls = {{ {tls} }}\nbasic_auth = {{ username = \"me\", {password} }}")
    };
    let jobs = [
        ("trusted", &plain, format!("tls = {{ {tls} }}"), ""),
        ("unknown", &plain, String::new(), "set tls.ca_file"),
        ("another", &plain, format!("tls = {{ {wrong_ca} }}"), "none of the CAs in tls.ca_file"),
        ("named", &plain, format!("tls = {{ {tls}, server_name = \"nas\" }}"), "nas"),
        ("mutual", &mutual, format!("tls = {{ {shows} }}"), ""),
        ("nobody", &mutual, format!("tls = {{ {tls} }}"), "400"),
        ("password", &locked, user("password = \"hunter2\""), ""),
        ("file", &locked, user(&format!("password_file = {password:?}")), ""),
        ("wrong", &locked, user("password = \"hunter3\""), "401"),
        ("without", &locked, format!("tls = {{ {tls} }}"), "401"),
    ];
    let more: String = jobs.iter().map(|(job, url, more, _)| scrape(job, url, more)).collect();
    agent.configure(&config(&mimir.url(), &more));
    agent.start();
    agent.wait("all targets twice", LONG, |_| {
        let scrapes = |job: &str| mimir.samples("up", &[("job", job)]).len();
        jobs.iter().all(|(job, ..)| scrapes(job) >= 2)
    });
    for (job, _, _, says) in &jobs {
        let (is_up, error) = state(&agent, job);
        assert_eq!(is_up, says.is_empty(), "{job}: {error}");
        assert!(error.contains(says), "{job}: {error}");
        assert_eq!(mimir.find("a", &[("job", job)]).is_empty(), !is_up, "{job}");
    }
    let shown = format!("{}{}", agent.log(), agent.status());
    for secret in ["hunter2", "hunter3", "bWU6aHVudGVy"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    agent.terminate();
    mimir.tolerate_aborts();
}

#[test]
fn a_token_is_read_again_when_its_file_changes_and_kept_when_that_goes() {
    let (mimir, page) = (StrictMimir::new(), Pages::text("a 1\n"));
    let mut agent = Agent::new("");
    let token = agent.path("token");
    secret(&token, "first\n");
    let more = scrape("token", &page.target(), &format!("bearer_token_file = {token:?}"));
    agent.configure(&config(&mimir.url(), &more));
    agent.start();
    let says = |token: &str| {
        let header = format!("authorization: bearer {token}\r\n");
        page.requests().last().is_some_and(|head| head.to_ascii_lowercase().contains(&header))
    };
    agent.wait("the first token", LONG, |_| says("first"));
    let beside = agent.path("token.new");
    secret(&beside, "second");
    fs::rename(&beside, &token).unwrap();
    agent.wait("the second token", LONG, |_| says("second"));
    fs::remove_file(&token).unwrap();
    let asked = page.requests().len();
    agent.wait("more scrapes", LONG, |_| page.requests().len() > asked + 2);
    assert!(says("second"));
    assert_eq!(state(&agent, "token"), (true, String::new()));
    assert_eq!(agent.log().matches("what was read before stays in use").count(), 1);
    secret(&token, "third");
    agent.wait("the third token", LONG, |_| says("third"));
    agent.terminate();
    mimir.tolerate_aborts();
    let shown = agent.log();
    assert!(!["first", "second", "third"].iter().any(|token| shown.contains(token)), "{shown}");
}
