//! Through real proxies, and through some that are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mote::encode::RemoteWrite;
use mote::endpoint::{
    Client, Content, Options, Outcome, ProxyOptions, ProxyUrl, Secret, TlsOptions, Url,
};
use rustls::{ServerConnection, StreamOwned};
use support::certificates::Ca;
use support::{Agent, Fault, Nginx, Port, Proxy, StrictMimir};

fn options(url: &str, proxy: &str) -> Options {
    let proxy = ProxyOptions { url: Some(ProxyUrl::parse(proxy).unwrap()), ..Default::default() };
    let timeout = Duration::from_secs(10);
    Options { proxy, timeout, ..Options::new(Url::parse(url).unwrap()) }
}

fn trusting(ca: &Ca, url: &str, proxy: &str) -> Options {
    let tls = TlsOptions { ca_file: Some(ca.file()), ..TlsOptions::default() };
    Options { tls, ..options(url, proxy) }
}

async fn post(client: &mut Client, time: i64) -> Outcome {
    let mut request = RemoteWrite::new();
    request.series([("__name__", "up")].into_iter(), [(time, 1.0)].into_iter()).unwrap();
    client.post(Content::RemoteWrite1, request.finish()).await
}

async fn once(options: Options) -> Outcome {
    post(&mut Client::new(options).unwrap(), 1).await
}

fn misconfigured(outcome: Outcome, code: Option<u16>) -> String {
    match outcome {
        Outcome::Misconfigured { code: got, why } if got == code => why,
        other => panic!("{other:?}"),
    }
}

fn retry(outcome: Outcome) -> String {
    match outcome {
        Outcome::Retry { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_real_proxy_passes_on_plain_requests() {
    let (mimir, proxy) = (StrictMimir::new(), Proxy::http(""));
    let mut client =
        Client::new(options(&mimir.url(), &format!("http://{}", proxy.address))).unwrap();
    for time in 1..=3 {
        // As a server that is told `Connection: close`, which a proxy of this kind says to it.
        mimir.script(Fault::slow(Duration::ZERO).then_close());
        assert_eq!(post(&mut client, time).await, Outcome::accepted(200));
    }
    assert_eq!(mimir.samples("up", &[]).len(), 3);
    assert!(proxy.log().contains("POST http://127.0.0.1:"), "{}", proxy.log());
    // What the server says is the server's.
    mimir.script(Fault::status(429).header("Retry-After", "7"));
    let outcome = post(&mut client, 4).await;
    assert!(
        matches!(&outcome, Outcome::Retry { code: Some(429), after: Some(_), .. }),
        "{outcome:?}"
    );
    let excepted = ProxyOptions {
        no_proxy: "127.0.0.0/8".into(),
        ..options(&mimir.url(), "http://127.0.0.1:1").proxy
    };
    let direct = Options { proxy: excepted, ..options(&mimir.url(), "http://127.0.0.1:1") };
    assert_eq!(post(&mut Client::new(direct).unwrap(), 5).await, Outcome::accepted(200));
}

#[tokio::test]
async fn a_proxy_that_repeats_its_credentials_does_not_get_them_into_the_log() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let answer = format!("HTTP/1.1 400 No\r\nContent-Length: {}\r\n\r\n", head.len());
        stream.write_all(answer.as_bytes()).unwrap();
        stream.write_all(&head).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        String::from_utf8(head).unwrap()
    });
    let mut client =
        Client::new(options("http://h/push", &format!("http://me:hunter2@{at}"))).unwrap();
    let Outcome::Refused { why, said, .. } = post(&mut client, 1).await else { panic!() };
    drop(client);
    // me:hunter2
    let encoded = "bWU6aHVudGVyMg==";
    assert!(echo.join().unwrap().contains(encoded));
    assert!(said.contains("proxy-authorization: Basic (redacted)"), "{said}");
    assert!(!format!("{why}{said}").contains(encoded), "{why}");
}

#[tokio::test]
async fn a_real_proxy_tunnels_tls_and_http2() {
    let (ca, mimir, proxy) = (Ca::new(), StrictMimir::new(), Proxy::http(""));
    let nginx = Nginx::new(&ca, mimir.address(), "");
    let url = nginx.url("/api/v1/push");
    let mut client =
        Client::new(trusting(&ca, &url, &format!("http://{}", proxy.address))).unwrap();
    for time in 1..=3 {
        assert_eq!(post(&mut client, time).await, Outcome::accepted(200));
    }
    assert_eq!((client.connections(), mimir.samples("up", &[]).len()), (1, 3));
    assert_eq!(nginx.requests(), ["HTTP/2.0 TLSv1.3 200"; 3]);
    assert!(proxy.log().contains("CONNECT 127.0.0.1:"), "{}", proxy.log());
}

#[tokio::test]
async fn a_real_proxy_wants_its_password_and_no_message_shows_it() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let secure = StrictMimir::with_tls(ca.server(&["127.0.0.1"]));
    let proxy = Proxy::http("BasicAuth user hunter2hunter2");
    let at = proxy.address;
    for url in [mimir.url(), secure.url()] {
        // A plain request gets the proxy's answer, a tunnel none.
        let code = url.starts_with("http:").then_some(407);
        let none = once(trusting(&ca, &url, &format!("http://{at}"))).await;
        // tinyproxy answers a request without credentials with 407 as well.
        let why = misconfigured(none, code);
        assert!(
            why.contains(&format!("through the proxy http://{at}")) && why.contains("407"),
            "{why}"
        );
        assert!(why.contains("proxy_password_file"), "{why}");
        let good = once(trusting(&ca, &url, &format!("http://user:hunter2hunter2@{at}"))).await;
        assert_eq!(good, Outcome::accepted(200));
        let wrong = trusting(&ca, &url, &format!("http://user:hunter3hunter3@{at}"));
        let shown = format!("{wrong:?}");
        let why = once(wrong).await.why().unwrap_or_default().to_owned();
        assert!(!format!("{why}{shown}").contains("hunter"), "{why} {shown}");
    }
    // From a file, which changes.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let mut from_file = trusting(&ca, &secure.url(), &format!("http://user@{at}"));
    from_file.proxy.password = Some(Secret::file(&file));
    let mut client = Client::new(from_file).unwrap();
    let outcome = post(&mut client, 2).await;
    assert!(!matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    std::fs::write(&file, "hunter2hunter2\n").unwrap();
    assert_eq!(post(&mut client, 2).await, Outcome::accepted(200));
    mimir.take_violations();
}

#[tokio::test]
async fn what_a_real_proxy_can_not_or_may_not_reach_is_told_as_its_own() {
    let port = Port::new();
    let dead = port.address();
    let proxy = Proxy::http("ConnectPort 563");
    let at = format!("http://{}", proxy.address);
    let why = misconfigured(once(options(&format!("https://{dead}/"), &at)).await, None);
    assert!(why.contains("the proxy: CONNECT was answered 403") && why.contains("forbid"), "{why}");
    let outcome = once(options(&format!("http://{dead}/"), &at)).await;
    let why = retry(outcome);
    assert!(why.contains(&format!("through the proxy {at} was answered 5")), "{why}");
    let open = Proxy::http("");
    let at = format!("http://{}", open.address);
    let why = retry(once(options(&format!("https://{dead}/"), &at)).await);
    assert!(why.contains("the proxy: CONNECT was answered 5"), "{why}");
    // No proxy at all.
    let why = retry(once(options("https://mimir.invalid/", &format!("http://{dead}"))).await);
    assert!(why.contains("the proxy: connecting to"), "{why}");
}

#[tokio::test]
async fn a_real_socks_proxy_tunnels_with_and_without_a_password() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let secure = StrictMimir::with_tls(ca.server(&["localhost"]));
    let by_name = secure.url().replace("127.0.0.1", "localhost");
    let (open, closed) = (Proxy::socks(&[]), Proxy::socks(&["-u", "user", "-P", "hunter2"]));
    for (proxy, user) in [(&open, ""), (&open, "u:p@"), (&closed, "user:hunter2@")] {
        for url in [mimir.url(), by_name.clone()] {
            let at = format!("socks5h://{user}{}", proxy.address);
            assert_eq!(once(trusting(&ca, &url, &at)).await, Outcome::accepted(200), "{at} {url}");
        }
    }
    let none = once(options(&mimir.url(), &format!("socks5://{}", closed.address))).await;
    assert!(misconfigured(none, None).contains("it takes no way to say who we are"));
    let wrong =
        once(options(&mimir.url(), &format!("socks5://user:hunter3@{}", closed.address))).await;
    let why = misconfigured(wrong, None);
    assert!(why.contains("it refuses user or password") && !why.contains("hunter"), "{why}");
    let port = Port::new();
    let dead = port.address();
    let why = retry(
        once(options(&format!("http://{dead}/"), &format!("socks5://{}", open.address))).await,
    );
    assert!(why.contains("the proxy: it answered 5 (connection refused)"), "{why}");
}

#[tokio::test]
async fn a_proxy_that_speaks_tls_has_tls_go_through_it() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let outer = Arc::new(ca.server_offering(&["127.0.0.1"], &["h2", "http/1.1"]));
    let inner = Arc::new(ca.server(&["mimir.invalid"]));
    let thread = std::thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(outer).unwrap(), tcp);
        let connect = head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        stream.flush().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(inner).unwrap(), stream);
        let request = head(&mut stream);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        stream.flush().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        (connect, request)
    });
    // Nothing but the proxy knows this name.
    let options = trusting(&ca, "https://mimir.invalid/push", &format!("https://u:p@{at}"));
    assert_eq!(once(options).await, Outcome::accepted(204));
    let (connect, request) = thread.join().unwrap();
    assert!(connect.starts_with("CONNECT mimir.invalid:443 HTTP/1.1\r\n"), "{connect}");
    assert!(connect.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{connect}");
    assert!(request.starts_with("POST /push HTTP/1.1\r\n"), "{request}");
    assert!(!request.to_ascii_lowercase().contains("proxy-authorization"), "{request}");
}

fn head(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_proxy_that_stalls_or_babbles_is_given_up() {
    let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(10_000);
    let cases: [(&str, &[u8], &str); 6] = [
        ("http", b"", "opening a tunnel to the server: no answer within 0.5 s"),
        ("http", b"SSH-2.0-x\r\n\r\n\r\n", "not HTTP"),
        ("http", endless.as_bytes(), "head without end"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\nmore", "something comes behind"),
        ("socks5", b"\x05\x00\x05\x00\x00\x09", "not SOCKS 5"),
        ("socks5", b"HTTP/1.1 400 x\r\n\r\n", "not SOCKS 5"),
    ];
    for (scheme, answer, expected) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let answer = answer.to_vec();
        std::thread::spawn(move || {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            let _ = stream.write_all(&answer);
            while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
        });
        let timeout = Duration::from_millis(500);
        let options = options("https://mimir.invalid/", &format!("{scheme}://{at}"));
        let start = Instant::now();
        let why = retry(once(Options { timeout, ..options }).await);
        assert!(why.contains(expected), "{why}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn the_agent_takes_the_proxy_of_its_environment_and_names_a_bad_one() {
    let proxy = StrictMimir::new();
    let agent = Agent::new("[[mimir]]\nurl = \"http://mimir.invalid/api/v1/push\"\n");
    let run = |name: &str, value: &str, subcommand: &str, more: &[&str]| {
        agent.command(subcommand).args(more).env(name, value).output().unwrap()
    };
    run("http_proxy", &proxy.address().to_string(), "run", &["--once"]);
    let requests = proxy.requests();
    assert_eq!(requests[0].target, "http://mimir.invalid/api/v1/push");
    assert_eq!(requests[0].header("host"), Some("mimir.invalid"));
    // It is no proxy, and says so.
    proxy.take_violations();
    let checked = run("ALL_PROXY", "ftp://u:hunter2@h", "check", &[]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(said.contains("ALL_PROXY") && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_credential_of_systemd_is_found_by_its_variable() {
    let agent = Agent::new(
        "[[mimir]]\nurl = \"http://nas.lan/\"\nbearer_token_file = \"${CREDENTIALS_DIRECTORY}/token\"\n",
    );
    std::fs::write(agent.path("token"), "hunter2\n").unwrap();
    let check = |folder: &std::path::Path| {
        let output = agent.command("check").env("CREDENTIALS_DIRECTORY", folder).output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(both).unwrap())
    };
    let (code, said) = check(agent.path("token").parent().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("warning: http://nas.lan/: the bearer token goes over plain"),
        "{said}"
    );
    assert!(said.ends_with(": good\n") && !said.contains("hunter2"), "{said}");
    let (code, said) = check(std::path::Path::new("/nonexistent"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/nonexistent/token"), "{said}");
}
