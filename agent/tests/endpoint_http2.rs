//! HTTP/2: with a real nginx, and with servers that break off, refuse, stall and flood.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mote::encode::RemoteWrite;
use mote::endpoint::{Client, Content, GetOutcome, MinVersion, Options, Outcome, TlsOptions, Url};
use support::certificates::Ca;
use support::http2::{
    CONTINUATION, DATA, END_HEADERS, Frame, HEADERS, PING, SETTINGS, STATUS_200, STATUS_500,
};
use support::{Http2Server, Nginx, StrictMimir};

const PUSH: &str = "/api/v1/push";

fn options(ca: &Ca, url: &str) -> Options {
    let tls = TlsOptions { ca_file: Some(ca.file()), ..TlsOptions::default() };
    let timeout = Duration::from_secs(10);
    Options { tls, timeout, ..Options::new(Url::parse(url).unwrap()) }
}

fn client(ca: &Ca, url: &str) -> Client {
    Client::new(options(ca, url)).unwrap()
}

async fn post(client: &mut Client, time: i64) -> Outcome {
    let mut request = RemoteWrite::new();
    request.series([("__name__", "up")].into_iter(), [(time, 1.0)].into_iter()).unwrap();
    client.post(Content::RemoteWrite1, request.finish()).await
}

/// Why it is to be tried again, and whether the link may be too slow.
fn retry(outcome: Outcome) -> (String, bool) {
    match outcome {
        Outcome::Retry { code: None, after: None, why, slow } => (why, slow),
        other => panic!("{other:?}"),
    }
}

fn offering(ca: &Ca) -> rustls::ServerConfig {
    ca.server_offering(&["127.0.0.1"], &["h2", "http/1.1"])
}

#[tokio::test]
async fn a_real_server_that_offers_it_is_spoken_to_over_one_connection() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let nginx = Nginx::new(&ca, mimir.address(), "");
    let mut client = client(&ca, &nginx.url(PUSH));
    for time in 1..=20 {
        assert_eq!(post(&mut client, time).await, Outcome::accepted(200));
    }
    assert_eq!((client.connections(), mimir.samples("up", &[]).len()), (1, 20));
    assert_eq!(nginx.requests(), ["HTTP/2.0 TLSv1.3 200"; 20]);
    // Requests after the first cost less than what HTTP/1.1 says each time.
    client.take_sent_bytes();
    post(&mut client, 21).await;
    let two = client.take_sent_bytes();
    let mut one = Client::new(Options { http2: false, ..options(&ca, &nginx.url(PUSH)) }).unwrap();
    post(&mut one, 22).await;
    one.take_sent_bytes();
    post(&mut one, 23).await;
    let one_bytes = one.take_sent_bytes();
    println!("bytes of a small push: HTTP/2 {two}, HTTP/1.1 {one_bytes}");
    assert!(two < one_bytes, "{two} {one_bytes}");
    assert_eq!(nginx.requests().last().unwrap(), "HTTP/1.1 TLSv1.3 200");
}

#[tokio::test]
async fn a_request_larger_than_every_window_arrives_whole() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let nginx = Nginx::new(&ca, mimir.address(), "");
    let mut client = client(&ca, &nginx.url(PUSH));
    let mut request = RemoteWrite::new();
    for index in 0..40_000u64 {
        let name = format!("metric_{}", index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        request
            .series([("__name__", name.as_str())].into_iter(), [(1, index as f64)].into_iter())
            .unwrap();
    }
    let body = request.finish().to_vec();
    assert!(body.len() > 512 << 10, "{}", body.len());
    for _ in 0..2 {
        let outcome = client.post(Content::RemoteWrite1, &body).await;
        assert_eq!(outcome, Outcome::accepted(200));
    }
    mimir.with_service(|stored| assert_eq!((stored.samples, stored.repeats), (40_000, 40_000)));
    assert_eq!(client.connections(), 1);
}

#[tokio::test]
async fn a_real_server_that_refuses_a_body_before_it_is_sent_is_understood() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let nginx = Nginx::new(&ca, mimir.address(), "client_max_body_size 1k;");
    let mut client = client(&ca, &nginx.url(PUSH));
    let outcome = client.post(Content::RemoteWrite1, &vec![7; 4 << 20]).await;
    assert!(matches!(&outcome, Outcome::Refused { code: 413, .. }), "{outcome:?}");
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
}

#[tokio::test]
async fn a_real_server_is_told_how_long_a_body_is() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let nginx =
        Nginx::new(&ca, mimir.address(), "if ($http_content_length = \"\") { return 411; }");
    assert_eq!(post(&mut client(&ca, &nginx.url(PUSH)), 1).await, Outcome::accepted(200));
    assert_eq!(nginx.requests(), ["HTTP/2.0 TLSv1.3 200"]);
}

#[tokio::test]
async fn a_real_server_that_ends_its_connections_is_met_with_new_ones() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let nginx = Nginx::new(&ca, mimir.address(), "keepalive_requests 3; keepalive_timeout 1s;");
    let mut client = client(&ca, &nginx.url(PUSH));
    for time in 1..=9 {
        assert_eq!(post(&mut client, time).await, Outcome::accepted(200));
    }
    assert!((3..=5).contains(&client.connections()), "{}", client.connections());
    let before = client.connections();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(post(&mut client, 10).await, Outcome::accepted(200));
    assert_eq!(client.connections(), before + 1, "the idle connection was closed");
    let times: Vec<_> = mimir.samples("up", &[]).iter().map(|sample| sample.0).collect();
    assert_eq!(times, (1..=10).collect::<Vec<_>>());
    assert_eq!(mimir.repeats(), 0);
}

#[tokio::test]
async fn a_real_server_sees_the_tls_that_is_asked_for() {
    let (ca, mimir) = (Ca::new(), StrictMimir::new());
    let old = Nginx::new(&ca, mimir.address(), "ssl_protocols TLSv1.2;");
    let url = old.url(PUSH);
    assert_eq!(post(&mut client(&ca, &url), 1).await, Outcome::accepted(200));
    assert_eq!(old.requests(), ["HTTP/2.0 TLSv1.2 200"]);
    let mut newer = options(&ca, &url);
    newer.tls.min_version = MinVersion::Tls13;
    let (why, slow) = retry(post(&mut Client::new(newer).unwrap(), 2).await);
    assert!(why.contains("TLS with 127.0.0.1: ") && !slow, "{why}");
    // A client certificate, which it wants and checks itself.
    let wants = format!("ssl_verify_client on; ssl_client_certificate {};", ca.file().display());
    let strict = Nginx::new(&ca, mimir.address(), &wants);
    let without = post(&mut client(&ca, &strict.url(PUSH)), 2).await;
    assert!(matches!(&without, Outcome::Refused { code: 400, .. }), "{without:?}");
    let mut with = options(&ca, &strict.url(PUSH));
    let (cert_file, key_file) = ca.client();
    (with.tls.cert_file, with.tls.key_file) = (Some(cert_file), Some(key_file));
    assert_eq!(post(&mut Client::new(with).unwrap(), 2).await, Outcome::accepted(200));
    let mut misnamed = options(&ca, &strict.url(PUSH));
    misnamed.tls.server_name = Some("mimir.lan".into());
    let (why, _) = retry(post(&mut Client::new(misnamed).unwrap(), 3).await);
    assert!(why.contains("certificate is for another name"), "{why}");
}

#[tokio::test]
async fn a_page_is_fetched_in_pieces() {
    let ca = Ca::new();
    let server = Http2Server::new(offering(&ca), |_, frames| {
        let (stream, _) = frames.request()?;
        frames.send(HEADERS, END_HEADERS, stream, STATUS_200)?;
        frames.send(DATA, 0, stream, b"up ")?;
        frames.send(DATA, 1, stream, b"1\n")?;
        let (stream, _) = frames.request()?;
        frames.send(HEADERS, END_HEADERS, stream, STATUS_200)?;
        // More than the client allows, without end.
        let frame = Frame { kind: DATA, flags: 0, stream, payload: vec![b'#'; 1000] };
        frames.pour(1000, &frame);
        frames.read_out();
        None
    });
    let mut client = client(&ca, &server.url());
    let mut body = Vec::new();
    let outcome = client
        .get("text/plain", &[], 100, &mut |_, piece| {
            body.extend_from_slice(piece);
            true
        })
        .await;
    assert_eq!(outcome, GetOutcome::Whole { code: 200, content_type: String::new(), bytes: 5 });
    assert_eq!(body, b"up 1\n");
    let outcome = client.get("text/plain", &[], 5_000, &mut |_, _| true).await;
    assert!(matches!(outcome, GetOutcome::TooLong { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_stream_that_was_refused_goes_once_more_over_a_new_connection() {
    const REFUSED_STREAM: u32 = 7;
    let ca = Ca::new();
    let server = Http2Server::new(offering(&ca), |number, frames| {
        let (stream, _) = frames.request()?;
        match number {
            // Refused on a new connection, and on the next one; then all is well.
            0 | 2 | 3 => frames.reset(stream, REFUSED_STREAM)?,
            _ => frames.answer(stream, STATUS_200)?,
        }
        if number == 1 {
            let (stream, _) = frames.request()?;
            frames.reset(stream, REFUSED_STREAM)?;
        }
        frames.read_out();
        None
    });
    let mut client = client(&ca, &server.url());
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    assert_eq!(server.connections(), 2);
    // Refused on the old connection, on a new one and on one more: then it is a failure.
    let (why, slow) = retry(post(&mut client, 2).await);
    assert!(why.contains("gave up the HTTP/2 stream") && !slow, "{why}");
    assert_eq!(server.connections(), 4);
    assert_eq!(post(&mut client, 2).await, Outcome::accepted(200));
}

#[tokio::test]
async fn a_goaway_before_the_request_was_looked_at_costs_nothing() {
    let ca = Ca::new();
    let server = Http2Server::new(offering(&ca), |number, frames| {
        let (stream, _) = frames.request()?;
        if number == 0 {
            frames.answer(stream, STATUS_200)?;
            let (stream, _) = frames.request()?;
            // The last that was looked at is the one before.
            frames.go_away(stream - 2, 0)?;
            return None;
        }
        frames.answer(stream, STATUS_200)?;
        // Announces its end after the answer, and is gone when the next request comes.
        frames.go_away(stream, 0)
    });
    let mut client = client(&ca, &server.url());
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    assert_eq!(post(&mut client, 2).await, Outcome::accepted(200));
    assert_eq!(client.connections(), 2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(post(&mut client, 3).await, Outcome::accepted(200));
    assert_eq!(client.connections(), 3);
}

#[tokio::test]
async fn a_server_that_had_the_request_and_went_is_a_failure() {
    const INTERNAL_ERROR: u32 = 2;
    let ca = Ca::new();
    let server = Http2Server::new(offering(&ca), |number, frames| {
        let (stream, _) = frames.request()?;
        match number {
            0 => frames.go_away(stream, 0)?,
            1 => frames.reset(stream, INTERNAL_ERROR)?,
            2 => {}
            _ => return frames.answer(stream, STATUS_500),
        }
        None
    });
    let mut client = client(&ca, &server.url());
    let (why, slow) = retry(post(&mut client, 1).await);
    assert!(slow, "{why}");
    let (why, _) = retry(post(&mut client, 1).await);
    assert!(why.contains("gave up the HTTP/2 stream"), "{why}");
    let (why, slow) = retry(post(&mut client, 1).await);
    assert!(slow, "{why}");
    assert_eq!(server.connections(), 3, "nothing was sent twice");
    assert_eq!(post(&mut client, 1).await.code(), Some(500));
}

#[tokio::test]
async fn a_server_that_wants_the_older_version_gets_it() {
    const HTTP_1_1_REQUIRED: u32 = 13;
    let ca = Ca::new();
    let server = Http2Server::new(offering(&ca), |_, frames| {
        let (stream, _) = frames.request()?;
        frames.reset(stream, HTTP_1_1_REQUIRED)?;
        frames.read_out();
        None
    });
    let mut client = client(&ca, &server.url());
    // The second connection offers HTTP/1.1 alone; this server speaks none.
    retry(post(&mut client, 1).await);
    assert_eq!((server.connections(), client.connections()), (2, 2));
    // One that offers nothing newer, or nothing at all, is spoken to in HTTP/1.1.
    for protocols in [&["http/1.1"][..], &[]] {
        let plain = StrictMimir::with_tls(ca.server_offering(&["127.0.0.1"], protocols));
        let mut client = self::client(&ca, &plain.url());
        assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_in_time() {
    let ca = Ca::new();
    // It takes the request and says nothing; or it lets no byte of the body through.
    for window in [None, Some(0u32)] {
        let server = Http2Server::new(offering(&ca), move |_, frames| {
            if let Some(window) = window {
                let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
                frames.send(SETTINGS, 0, 0, &setting)?;
            }
            frames.read_out();
            None
        });
        let timeout = Duration::from_millis(400);
        let mut client = Client::new(Options { timeout, ..options(&ca, &server.url()) }).unwrap();
        let start = Instant::now();
        let (why, slow) = retry(post(&mut client, 1).await);
        assert!(why.contains("no answer within 0.4 s") && slow, "{why}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn floods_are_bounded() {
    let ca = Ca::new();
    let frames = |stream| {
        let frame = |kind, flags, stream, payload| Frame { kind, flags, stream, payload };
        // A header that is never indexed, with a name and a value of 100 bytes.
        let header = [&[0x10, 100][..], &[b'x'; 100], &[100], &[b'y'; 100]].concat();
        [
            ("settings", frame(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 9].repeat(2000))),
            ("pings", frame(PING, 0, 0, vec![0; 8])),
            ("unknown frames", frame(0xee, 0, 0, vec![0; 16_000])),
            ("continuations", frame(CONTINUATION, 0, stream, header.repeat(50))),
            ("empty continuations", frame(CONTINUATION, 0, stream, Vec::new())),
            ("early hints", frame(HEADERS, END_HEADERS, stream, b"\x08\x03103".to_vec())),
            ("empty data", frame(DATA, 0, stream, Vec::new())),
        ]
    };
    for index in 0..frames(0).len() {
        let poured = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&poured);
        let server = Http2Server::new(offering(&ca), move |_, connection| {
            let (stream, _) = connection.request()?;
            let (_, frame) = &frames(stream)[index];
            match frame.kind {
                CONTINUATION => connection.send(HEADERS, 0, stream, STATUS_200)?,
                DATA => connection.send(HEADERS, END_HEADERS, stream, STATUS_200)?,
                _ => {}
            }
            let size = 9 + frame.payload.len();
            let went = connection.pour((32 << 20) / size, frame);
            count.store(went * size, Ordering::SeqCst);
            None
        });
        let name = frames(0)[index].0;
        let start = Instant::now();
        let outcome = post(&mut client(&ca, &server.url()), 1).await;
        match outcome {
            // Only a body without end has an answer before it.
            Outcome::Accepted { code: 200, .. } if name == "empty data" => {}
            Outcome::Retry { code: None, slow: false, why, .. } => println!("{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(8), "{name}: {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
        // What the sockets' own buffers hold.
        let poured = poured.load(Ordering::SeqCst);
        assert!(poured < 12 << 20, "{name}: {poured}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_told() {
    let ca = Ca::new();
    for (kind, payload) in [(DATA, vec![1, 2, 3]), (HEADERS, vec![0xff; 20]), (SETTINGS, vec![1])] {
        let server = Http2Server::new(offering(&ca), move |_, frames| {
            let (stream, _) = frames.request()?;
            frames.send(kind, END_HEADERS, stream, &payload)?;
            frames.read_out();
            None
        });
        let (why, slow) = retry(post(&mut client(&ca, &server.url()), 1).await);
        assert!(why.contains("not HTTP/2 as it has to be") && !slow, "{kind}: {why}");
    }
}
