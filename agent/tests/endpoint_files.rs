//! Files that change while a client uses them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::Mutex;
use std::time::Duration;

use mote::encode::RemoteWrite;
use mote::endpoint::{Auth, Client, Content, Options, Outcome, Secret, TlsOptions, Url};
use support::StrictMimir;
use support::certificates::Ca;

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        SAID.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// Takes what was logged of an endpoint.
fn said(url: &str) -> Vec<String> {
    let mut all = SAID.lock().unwrap();
    let (of, rest) = all.drain(..).partition(|line| line.contains(url));
    *all = rest;
    of
}

fn options(url: &str) -> Options {
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Info);
    Options { timeout: Duration::from_secs(10), ..Options::new(Url::parse(url).unwrap()) }
}

async fn post(client: &mut Client, time: i64) -> Outcome {
    let mut request = RemoteWrite::new();
    request.series([("__name__", "up")].into_iter(), [(time, 1.0)].into_iter()).unwrap();
    client.post(Content::RemoteWrite1, request.finish()).await
}

/// Time goes by between two requests.
async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_changed_token_is_used_on_a_connection_that_stays() {
    let mimir = StrictMimir::new();
    let dir = tempfile::tempdir().unwrap();
    let (name, token) = (dir.path().join("name"), dir.path().join("token"));
    std::fs::write(&name, "u\n").unwrap();
    std::fs::write(&token, "first\n").unwrap();
    let auth = Auth::Basic { username: Secret::file(&name), password: Secret::file(&token) };
    let mut client = Client::new(Options { auth, ..options(&mimir.url()) }).unwrap();
    let mut used = async |time| {
        assert_eq!(post(&mut client, time).await, Outcome::accepted(200));
        mimir.requests().last().unwrap().header("authorization").unwrap().to_owned()
    };
    assert_eq!(used(1).await, "Basic dTpmaXJzdA==");
    std::fs::write(&token, "other\n").unwrap();
    assert_eq!(used(2).await, "Basic dTpmaXJzdA==", "not yet looked at");
    later(61).await;
    assert_eq!(used(3).await, "Basic dTpvdGhlcg==");
    // Broken, the old one stays, and that is said once.
    std::fs::write(&token, "").unwrap();
    for time in 4..7 {
        later(61).await;
        assert_eq!(used(time).await, "Basic dTpvdGhlcg==");
    }
    let lines = said(&mimir.url());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("WARN") && lines[0].contains("it is empty"), "{lines:?}");
    assert!(lines[0].ends_with("what was read before stays in use"), "{lines:?}");
    std::fs::write(&token, "first\n").unwrap();
    std::fs::write(&name, "v\n").unwrap();
    later(61).await;
    assert_eq!(used(7).await, "Basic djpmaXJzdA==");
    assert!(said(&mimir.url())[0].contains("good again"));
    assert_eq!(mimir.connections(), 1);
}

#[tokio::test]
async fn changed_certificates_are_used_by_a_new_connection_and_broken_ones_are_not() {
    let (old, new) = (Ca::new(), Ca::new());
    let mimir = StrictMimir::with_tls(old.server_with_client_auth(&["127.0.0.1"]));
    let (cert, key) = old.client();
    let tls = TlsOptions {
        ca_file: Some(old.file()),
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        ..TlsOptions::default()
    };
    let mut client = Client::new(Options { tls, ..options(&mimir.url()) }).unwrap();
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    // A renewed certificate and its key, seen when it is time.
    old.client();
    assert_eq!(post(&mut client, 2).await, Outcome::accepted(200));
    assert_eq!(client.connections(), 1);
    later(61).await;
    assert_eq!(post(&mut client, 3).await, Outcome::accepted(200));
    assert_eq!(client.connections(), 2);
    // Half written: the old pair stays, on a new connection, too.
    let whole = std::fs::read(&key).unwrap();
    std::fs::write(&key, &whole[..20]).unwrap();
    for time in 4..6 {
        later(61).await;
        client.close();
        assert_eq!(post(&mut client, time).await, Outcome::accepted(200));
    }
    let lines = said(&mimir.url());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("tls.key_file") && lines[0].contains("stays in use"), "{lines:?}");
    // Mended, and a CA that does not know the server: from now on it is refused.
    std::fs::write(&key, &whole).unwrap();
    std::fs::copy(new.file(), old.file()).unwrap();
    later(61).await;
    let outcome = post(&mut client, 6).await;
    assert!(outcome.why().unwrap().contains("none of the CAs in tls.ca_file"), "{outcome:?}");
}
