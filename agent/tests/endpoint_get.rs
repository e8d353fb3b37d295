//! GET: bodies in pieces, what is refused of them, and what was written to the wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use mote::endpoint::{Auth, Client, GetOutcome, Options, Secret, Url};

/// Answers each connection's first request with these bytes, and says what the requests were. Connections
/// are kept open until the client closes.
struct Target {
    url: String,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Target {
    fn new(answers: &[&str]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                while !request.ends_with(b"\r\n\r\n") {
                    let read = stream.read(&mut chunk).unwrap();
                    if read == 0 {
                        (stream, _) = listener.accept().unwrap();
                    }
                    request.extend_from_slice(&chunk[..read]);
                }
                requests.push(String::from_utf8(request).unwrap());
                let _ = stream.write_all(answer.as_bytes());
                if answer.ends_with("(close)") {
                    drop(stream);
                    (stream, _) = listener.accept().unwrap();
                }
            }
            let _ = stream.read(&mut [0; 1]);
            requests
        });
        Target { url, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        self.client_for(Duration::from_secs(20))
    }

    fn client_for(&self, timeout: Duration) -> Client {
        let url = Url::parse(&self.url).unwrap();
        Client::new(Options { timeout, ..Options::new(url) }).unwrap()
    }

    fn requests(&mut self) -> Vec<String> {
        self.thread.take().unwrap().join().unwrap()
    }
}

async fn get(client: &mut Client, max_bytes: u64) -> (GetOutcome, String, String) {
    let (mut content_type, mut body) = (String::new(), String::new());
    let outcome = client
        .get("text/plain;version=0.0.4", &[("X-Extra", "1")], max_bytes, &mut |of, piece| {
            assert!(!piece.is_empty());
            of.clone_into(&mut content_type);
            body.push_str(std::str::from_utf8(piece).unwrap());
            true
        })
        .await;
    (outcome, content_type, body)
}

fn whole(content_type: &str, bytes: u64) -> GetOutcome {
    GetOutcome::Whole { code: 200, content_type: content_type.into(), bytes }
}

/// Why it failed, after an answer with this code.
fn failed(outcome: GetOutcome, code: Option<u16>) -> String {
    match outcome {
        GetOutcome::Failed { code: got, why } if got == code => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_body_arrives_with_its_type_and_the_connection_is_kept() {
    let mut target = Target::new(&[
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 5\r\n\r\nup 1\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nup \r\n2\r\n1\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]);
    let mut client = target.client();
    let (outcome, content_type, body) = get(&mut client, 5).await;
    assert_eq!(outcome, whole("text/plain; version=0.0.4", 5));
    assert_eq!((content_type.as_str(), body.as_str()), ("text/plain; version=0.0.4", "up 1\n"));
    let (outcome, _, body) = get(&mut client, 5).await;
    assert_eq!((outcome, body.as_str()), (whole("", 5), "up 1\n"));
    assert_eq!(get(&mut client, 5).await.0, whole("", 0));
    assert_eq!(client.connections(), 1);
    drop(client);
    let requests = target.requests();
    assert!(requests[0].starts_with("GET /metrics HTTP/1.1\r\n"), "{}", requests[0]);
    let lower = requests[0].to_ascii_lowercase();
    for header in ["accept: text/plain;version=0.0.4", "accept-encoding: identity", "x-extra: 1"] {
        assert!(lower.contains(&format!("\r\n{header}\r\n")), "{lower}");
    }
    assert!(!lower.contains("content-length"), "{lower}");
}

#[tokio::test]
async fn a_body_that_is_longer_than_allowed_is_given_up() {
    let mut target = Target::new(&["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nup 12\n"]);
    let mut client = target.client();
    let GetOutcome::TooLong { why } = get(&mut client, 5).await.0 else { panic!() };
    assert!(why.ends_with("was answered 200 OK, and its body is longer than 5 bytes"), "{why}");
    // The connection went with it.
    assert_eq!(target.requests().len(), 1);
}

#[tokio::test]
async fn a_sink_that_has_enough_ends_it() {
    let mut target = Target::new(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n"]);
    let mut client = target.client();
    let outcome = client.get("", &[], 100, &mut |_, _| false).await;
    assert_eq!(outcome, GetOutcome::Stopped);
    assert!(!target.requests()[0].to_ascii_lowercase().contains("accept: "));
}

#[tokio::test]
async fn bodies_that_break_off_or_never_end_are_failures() {
    let target = Target::new(&[
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nup 1\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nup",
    ]);
    let mut client = target.client_for(Duration::from_secs(3));
    let why = failed(get(&mut client, 100).await.0, Some(200));
    assert!(why.contains("broke off"), "{why}");
    let why = failed(get(&mut client, 100).await.0, Some(200));
    assert!(why.contains("has not ended within 3 s"), "{why}");
    let why = failed(get(&mut client, 100).await.0, None);
    assert!(why.contains("not HTTP"), "{why}");
}

#[tokio::test]
async fn what_is_no_page_of_metrics_reaches_no_sink() {
    let target = Target::new(&[
        "HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno\r\npage",
        "HTTP/1.1 302 Found\r\nLocation: http://h/m?key=hunter2\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x00",
    ]);
    let mut client = target.client();
    let (outcome, _, body) = get(&mut client, 100).await;
    assert!(body.is_empty());
    let why = failed(outcome, Some(404));
    assert!(
        why.starts_with(&format!("GET {} was answered 404 Not Found: no", target.url)),
        "{why}"
    );
    let why = failed(get(&mut client, 100).await.0, Some(302));
    assert!(why.contains("redirects to http://h/m;"), "{why}");
    let (outcome, _, body) = get(&mut client, 100).await;
    assert!(body.is_empty());
    assert!(failed(outcome, Some(200)).contains("Content-Encoding \"gzip\""));
}

#[tokio::test]
async fn answers_before_the_answer_are_bounded() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let few = format!("{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup", early.repeat(3));
    let target = Target::new(&[&few, &early.repeat(20_000)]);
    let mut client = target.client();
    assert_eq!(get(&mut client, 100).await.0, whole("", 2));
    let why = failed(get(&mut client, 100).await.0, None);
    assert!(why.contains("more than any answer has"), "{why}");
}

#[tokio::test]
async fn bytes_on_the_wire_are_counted_once() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup";
    let mut target = Target::new(&[answer, answer]);
    let url = Url::parse(&target.url).unwrap();
    let auth = Auth::Bearer(Secret::value("token"));
    let mut client = Client::new(Options { auth, ..Options::new(url) }).unwrap();
    assert_eq!(client.take_sent_bytes(), 0);
    get(&mut client, 100).await;
    get(&mut client, 100).await;
    let sent = client.take_sent_bytes();
    assert_eq!(client.take_sent_bytes(), 0);
    drop(client);
    let requests = target.requests();
    assert_eq!(sent, requests.iter().map(|request| request.len() as u64).sum::<u64>());
    assert!(requests[1].contains("Bearer token"), "{}", requests[1]);
}
