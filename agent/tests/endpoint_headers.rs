//! Who the client says it is: headers, tenants, credentials, and that no message shows them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::path::PathBuf;

use mote::encode::{LokiPush, Meta, Point, PushEntry, RemoteWrite, RemoteWrite2};
use mote::endpoint::{Auth, Client, Content, Options, OptionsError, Outcome, Secret, Url, Written};
use mote::model::Kind;
use support::http::Request;
use support::strict_receiver::{Plays, StrictReceiver};
use support::{Fault, StrictLoki, StrictMimir};

fn body() -> Vec<u8> {
    let mut request = RemoteWrite::new();
    request.series([("__name__", "up")].into_iter(), [(1, 1.0)].into_iter()).unwrap();
    request.finish().to_vec()
}

fn options(mimir: &StrictMimir) -> Options {
    Options::new(Url::parse(&mimir.url()).unwrap())
}

async fn post(client: &mut Client) -> Outcome {
    client.post(Content::RemoteWrite1, &body()).await
}

fn sorted(request: &Request) -> Vec<(String, String)> {
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    let mut headers: Vec<_> = request.headers.iter().map(lower).collect();
    headers.sort();
    headers
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[tokio::test]
async fn remote_write_sends_exactly_these_headers() {
    let mimir = StrictMimir::new();
    let mut client = Client::new(Options {
        tenant: Some("home".into()),
        auth: Auth::Basic { username: "u".into(), password: Secret::value("hunter22") },
        headers: pairs(&[("X-Extra", "a value"), ("X-Key", "hunter33")]),
        ..options(&mimir)
    })
    .unwrap();
    assert_eq!(post(&mut client).await, Outcome::accepted(200));
    let length = body().len().to_string();
    let host = mimir.address().to_string();
    assert_eq!(
        sorted(&mimir.requests()[0]),
        pairs(&[
            ("authorization", "Basic dTpodW50ZXIyMg=="),
            ("content-encoding", "snappy"),
            ("content-length", &length),
            ("content-type", "application/x-protobuf"),
            ("host", &host),
            ("user-agent", concat!("mote/", env!("CARGO_PKG_VERSION"))),
            ("x-extra", "a value"),
            ("x-key", "hunter33"),
            ("x-prometheus-remote-write-version", "0.1.0"),
            ("x-scope-orgid", "home"),
        ])
    );
}

#[tokio::test]
async fn remote_write_2_0_sends_exactly_these_headers() {
    let receiver = StrictReceiver::new(Plays::Two);
    let mut client = Client::new(Options::new(Url::parse(&receiver.url()).unwrap())).unwrap();
    let mut request = RemoteWrite2::new();
    let meta = Meta { kind: Kind::Gauge, help: "", unit: "" };
    let sample = Point { timestamp_ms: 5, value: 1.0, start_ms: 0 };
    request.series([("__name__", "up")].into_iter(), meta, std::iter::once(sample)).unwrap();
    let body = request.finish();
    let written = Written { samples: Some(1), histograms: Some(0), exemplars: Some(0) };
    let outcome = client.post(Content::RemoteWrite2, body).await;
    assert_eq!(outcome, Outcome::Accepted { code: 200, written });
    let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    assert_eq!(
        sorted(&receiver.requests()[0]),
        pairs(&[
            ("content-encoding", "snappy"),
            ("content-length", &body.len().to_string()),
            ("content-type", two),
            ("host", &receiver.address().to_string()),
            ("user-agent", concat!("mote/", env!("CARGO_PKG_VERSION"))),
            ("x-prometheus-remote-write-version", "2.0.0"),
        ])
    );
}

#[tokio::test]
async fn loki_gets_exactly_these_headers() {
    let loki = StrictLoki::new();
    let url = Url::parse(&loki.url()).unwrap();
    let auth = Auth::Bearer(Secret::value("token"));
    let mut client = Client::new(Options { auth, ..Options::new(url) }).unwrap();
    let mut push = LokiPush::new();
    let entry = PushEntry { timestamp_ns: 1, line: "x", metadata: mote::model::Pairs::default() };
    push.stream("{job=\"a\"}", std::iter::once(entry)).unwrap();
    let outcome = client.post(Content::LokiPush, push.finish()).await;
    assert_eq!(outcome, Outcome::accepted(204));
    let length = push.finish().len().to_string();
    let host = loki.address().to_string();
    assert_eq!(
        sorted(&loki.requests()[0]),
        pairs(&[
            ("authorization", "Bearer token"),
            ("content-encoding", "snappy"),
            ("content-length", &length),
            ("content-type", "application/x-protobuf"),
            ("host", &host),
            ("user-agent", concat!("mote/", env!("CARGO_PKG_VERSION"))),
        ])
    );
}

fn token_file(contents: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, contents).unwrap();
    (dir, path)
}

fn authorizations(mimir: &StrictMimir) -> Vec<String> {
    let requests = mimir.requests();
    requests.iter().map(|request| request.header("authorization").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_token_that_was_changed_is_read_again_after_a_401() {
    let mimir = StrictMimir::new();
    let (_dir, path) = token_file("first\n");
    let auth = Auth::Bearer(Secret::file(&path));
    let mut client = Client::new(Options { auth, ..options(&mimir) }).unwrap();
    assert_eq!(post(&mut client).await, Outcome::accepted(200));
    std::fs::write(&path, "second\r\n").unwrap();
    mimir.script(Fault::status(401));
    assert_eq!(post(&mut client).await, Outcome::accepted(200));
    // Unchanged, it is not sent twice.
    mimir.script(Fault::status(401).body("who are you"));
    let outcome = post(&mut client).await;
    assert!(matches!(outcome, Outcome::Misconfigured { code: Some(401), .. }), "{outcome:?}");
    assert_eq!(
        authorizations(&mimir),
        ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]
    );
    assert_eq!(mimir.connections(), 1);
}

#[tokio::test]
async fn a_token_is_read_again_at_each_connection_and_its_file_may_go() {
    let mimir = StrictMimir::new();
    let (_dir, path) = token_file("first");
    let auth = Auth::Bearer(Secret::file(&path));
    let mut client = Client::new(Options { auth, ..options(&mimir) }).unwrap();
    std::fs::write(&path, "second").unwrap();
    post(&mut client).await;
    client.close();
    std::fs::write(&path, "third").unwrap();
    post(&mut client).await;
    assert_eq!(authorizations(&mimir), ["Bearer second", "Bearer third"]);
    client.close();
    std::fs::remove_file(&path).unwrap();
    // The one that was read stays in use for as long as the server takes it.
    assert_eq!(post(&mut client).await, Outcome::accepted(200));
    mimir.script(Fault::status(401));
    let outcome = post(&mut client).await;
    let Outcome::Misconfigured { code: None, why } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains(&format!("the secret in {}: No such file", path.display())), "{why}");
    std::fs::write(&path, "fourth").unwrap();
    mimir.script(Fault::status(401));
    assert_eq!(post(&mut client).await, Outcome::accepted(200));
    assert_eq!(authorizations(&mimir).last().unwrap(), "Bearer fourth");
}

#[test]
fn an_unreadable_secret_is_an_error_before_anything_is_sent() {
    let url = Url::parse("http://127.0.0.1:1/push").unwrap();
    let password = Secret::file("/nonexistent/password");
    let auth = Auth::Basic { username: "u".into(), password };
    let error = Client::new(Options { auth, ..Options::new(url) }).unwrap_err();
    assert!(matches!(error, OptionsError::Secret(_)));
    assert!(error.to_string().contains("/nonexistent/password"), "{error}");
}

#[tokio::test]
async fn no_message_shows_a_secret_even_if_the_server_repeats_it() {
    let secrets = ["hunter2-password", "hunter2-header", "key=hunter2-query"];
    // base64 of "u:hunter2-password"
    let encoded = "dTpodW50ZXIyLXBhc3N3b3Jk";
    let mimir = StrictMimir::new();
    let url = Url::parse(&format!("{}?key=hunter2-query", mimir.url())).unwrap();
    let options = Options {
        auth: Auth::Basic { username: "u".into(), password: Secret::value("hunter2-password") },
        headers: pairs(&[("X-Key", "hunter2-header")]),
        ..Options::new(url)
    };
    let mut shown = format!("{options:?}");
    let mut client = Client::new(options).unwrap();
    let words = format!("you sent {} and {encoded}", secrets.join(" and "));
    for code in [400, 401, 404, 429, 500] {
        mimir.script(Fault::status(code).body(words.clone()));
        let outcome = post(&mut client).await;
        assert_eq!(outcome.code(), Some(code));
        assert!(outcome.why().unwrap().contains("you sent (redacted) and"), "{outcome:?}");
        shown.push_str(&format!("{outcome:?} {client:?}"));
    }
    mimir.script(Fault::close());
    mimir.script(Fault::close());
    shown.push_str(&format!("{:?}", post(&mut client).await));
    for secret in ["hunter2", encoded] {
        assert!(!shown.contains(secret), "{shown}");
    }
    // The query is part of the target, which this server does not answer at.
    let violations = mimir.take_violations();
    assert!(violations.iter().all(|what| what.starts_with("target ")), "{violations:?}");
}

#[tokio::test]
async fn no_message_shows_a_secret_that_is_cut() {
    for (secret, said) in [
        // More than is kept of an answer, once and twice.
        ("5ecret".repeat(5_000 / 6), "5ecret".repeat(5_000 / 6)),
        ("5ecret".repeat(350), "5ecret".repeat(350).repeat(2)),
    ] {
        let mimir = StrictMimir::new();
        let auth = Auth::Bearer(Secret::value(secret));
        let options = Options { auth, ..Options::new(Url::parse(&mimir.url()).unwrap()) };
        let mut client = Client::new(options).unwrap();
        mimir.script(Fault::status(400).body(format!("you sent {said}")));
        let outcome = post(&mut client).await;
        assert!(!format!("{outcome:?}").contains("5ec"), "{outcome:?}");
        let why = outcome.why().unwrap();
        assert!(why.contains("400 Bad Request: you sent (redacted)"), "{why}");
    }
    // The connection breaks within it.
    let mimir = StrictMimir::new();
    for part in ["hunter2-lon", "hunt", "hu"] {
        let password = Secret::value("hunter2-long-password");
        let auth = Auth::Basic { username: "u".into(), password };
        let options = Options { auth, ..Options::new(Url::parse(&mimir.url()).unwrap()) };
        let head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\n";
        mimir.script(Fault::garbage(format!("{head}bad password: {part}")));
        let outcome = post(&mut Client::new(options).unwrap()).await;
        let why = outcome.why().unwrap();
        assert!(why.contains("bad password:") && !why.contains("hu"), "{why}");
    }
}
