//! What the client makes of answers, and of servers that answer badly or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use mote::encode::RemoteWrite;
use mote::endpoint::{Client, Content, Options, Outcome, Url};
use support::{Fault, Port, StrictMimir};

fn body(time: i64) -> Vec<u8> {
    let mut request = RemoteWrite::new();
    request.series([("__name__", "up")].into_iter(), [(time, 1.0)].into_iter()).unwrap();
    request.finish().to_vec()
}

fn options(mimir: &StrictMimir) -> Options {
    Options::new(Url::parse(&mimir.url()).unwrap())
}

fn client(mimir: &StrictMimir) -> Client {
    Client::new(options(mimir)).unwrap()
}

fn impatient(mimir: &StrictMimir) -> Client {
    Client::new(Options { timeout: Duration::from_millis(300), ..options(mimir) }).unwrap()
}

async fn post(client: &mut Client, time: i64) -> Outcome {
    client.post(Content::RemoteWrite1, &body(time)).await
}

async fn answer_to(fault: Fault) -> Outcome {
    let mimir = StrictMimir::new();
    mimir.script(fault);
    let outcome = post(&mut client(&mimir), 1).await;
    assert_eq!(mimir.script_left(), 0);
    assert_eq!(mimir.with_service(|stored| stored.samples), 0);
    outcome
}

#[tokio::test]
async fn every_status_code_has_its_outcome() {
    for code in [200, 202, 204, 299] {
        assert_eq!(answer_to(Fault::status(code)).await, Outcome::accepted(code));
    }
    for code in [408, 429, 500, 502, 503, 504, 599, 600] {
        let outcome = answer_to(Fault::status(code)).await;
        assert!(
            matches!(&outcome, Outcome::Retry { code: Some(got), after: None, .. } if *got == code),
            "{outcome:?}"
        );
    }
    for code in [400, 402, 409, 413, 422] {
        let outcome = answer_to(Fault::status(code)).await;
        assert!(
            matches!(&outcome, Outcome::Refused { code: got, .. } if *got == code),
            "{outcome:?}"
        );
    }
    for code in [301, 302, 307, 308, 401, 403, 404, 405, 407, 411, 415, 421, 426, 431] {
        let outcome = answer_to(Fault::status(code)).await;
        assert!(
            matches!(&outcome, Outcome::Misconfigured { code: Some(got), .. } if *got == code),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_carries_the_servers_words_on_one_line() {
    let fault = Fault::status(400).body("out of order\r\nsample \x1b[31mfor up\n");
    let outcome = answer_to(fault).await;
    let why = outcome.why().unwrap();
    assert!(why.starts_with("POST http://127.0.0.1:"), "{why}");
    assert!(
        why.ends_with("/push was answered 400 Bad Request: out of order  sample  [31mfor up"),
        "{why}"
    );
    let long = answer_to(Fault::status(500).body("ö".repeat(5000))).await;
    assert_eq!(long.why().unwrap().matches('ö').count(), 512);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_says_where_to() {
    let fault = Fault::status(308).header("Location", "https://mimir.example/push?key=hunter2");
    let outcome = answer_to(fault).await;
    let why = outcome.why().unwrap();
    assert!(why.contains("redirects to https://mimir.example/push; set url"), "{why}");
}

#[tokio::test]
async fn retry_after_is_honoured_in_both_forms_and_bounded() {
    let after = async |status: u16, pairs: &[(&str, &str)]| {
        let fault = pairs.iter().fold(Fault::status(status), |fault, (n, v)| fault.header(n, v));
        match answer_to(fault).await {
            Outcome::Retry { after, .. } => after.map(|after| after.as_secs()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(after(429, &[("Retry-After", "7")]).await, Some(7));
    assert_eq!(after(503, &[("retry-after", "86400")]).await, Some(3600));
    let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(
        after(429, &[("Retry-After", "Sun, 06 Nov 1994 08:50:07 GMT"), date]).await,
        Some(30)
    );
    assert_eq!(after(429, &[("Retry-After", "soon")]).await, None);
    let soon = std::time::SystemTime::now() + Duration::from_secs(100);
    let soon = httpdate::fmt_http_date(soon);
    let got = after(429, &[("Retry-After", &soon)]).await.unwrap();
    assert!((90..=100).contains(&got), "{got}");
}

#[tokio::test]
async fn nobody_listens() {
    let held = Port::new();
    let port = held.number();
    let url = Url::parse(&format!("http://127.0.0.1:{port}/push?key=hunter2")).unwrap();
    let outcome = post(&mut Client::new(Options::new(url)).unwrap(), 1).await;
    let Outcome::Retry { code: None, after: None, why, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.contains(&format!("POST http://127.0.0.1:{port}/push?…: connecting to")), "{why}");
    assert!(why.contains("Connection refused"), "{why}");
    assert!(why.contains("is the server running"), "{why}");
    assert!(!why.contains("hunter2"), "{why}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    // RFC 6761, section 6.4: never resolves.
    let url = Url::parse("http://mimir.invalid/push").unwrap();
    let outcome = post(&mut Client::new(Options::new(url)).unwrap(), 1).await;
    let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("looking up mimir.invalid"), "{why}");
}

#[tokio::test]
async fn a_name_that_resolves_to_an_address_where_nobody_listens_and_another() {
    let mimir = StrictMimir::new();
    let url = mimir.url().replace("127.0.0.1", "localhost");
    let mut client = Client::new(Options::new(Url::parse(&url).unwrap())).unwrap();
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    let host = mimir.requests()[0].header("host").unwrap().to_owned();
    assert_eq!(host, format!("localhost:{}", mimir.address().port()));
}

#[tokio::test]
async fn a_server_that_never_answers() {
    let mimir = StrictMimir::new();
    mimir.script(Fault::never());
    // Time enough for the one that is answered.
    let timeout = Duration::from_secs(3);
    let mut client = Client::new(Options { timeout, ..options(&mimir) }).unwrap();
    let start = Instant::now();
    let outcome = post(&mut client, 1).await;
    assert!(start.elapsed() >= timeout);
    let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("no answer within 3 s"), "{why}");
    // The connection is given up with it: a late answer can't be taken for the next one's.
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    assert_eq!((mimir.connections(), client.connections()), (2, 2));
}

#[tokio::test]
async fn a_server_that_accepts_no_connection() {
    // A full backlog swallows the next connection's SYN.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _fill: Vec<_> = (0..4)
        .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)))
        .collect();
    let url = Url::parse(&format!("http://{address}/push")).unwrap();
    let options = Options { timeout: Duration::from_millis(300), ..Options::new(url) };
    let outcome = post(&mut Client::new(options).unwrap(), 1).await;
    let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("connecting: no answer within 0.3 s"), "{why}");
}

#[tokio::test]
async fn a_server_that_closes_without_an_answer() {
    let outcome = answer_to(Fault::close()).await;
    let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("connection closed before message completed"), "{why}");
}

#[tokio::test]
async fn a_server_that_closes_after_the_head_has_answered() {
    assert_eq!(answer_to(Fault::close_after_head(204)).await, Outcome::accepted(204));
    assert_eq!(answer_to(Fault::close_after_head(200)).await, Outcome::accepted(200));
    assert_eq!(answer_to(Fault::close_after_head(503)).await.code(), Some(503));
}

#[tokio::test]
async fn a_server_that_speaks_something_else() {
    for garbage in
        ["\0\x01\x02\x03garbage\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 abc\r\n\r\n"]
    {
        let outcome = answer_to(Fault::garbage(garbage)).await;
        let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("is not HTTP"), "{why}");
    }
    let outcome = answer_to(Fault::garbage("")).await;
    assert!(matches!(outcome, Outcome::Retry { code: None, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_costs_the_connection_and_not_the_answer() {
    for body in [
        "Content-Length: 9\r\n\r\nshort",
        "Content-Length: 2\r\n\r\nlonger",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab",
    ] {
        let good = answer_to(Fault::garbage(format!("HTTP/1.1 200 OK\r\n{body}"))).await;
        assert_eq!(good, Outcome::accepted(200), "{body:?}");
        let bad = answer_to(Fault::garbage(format!("HTTP/1.1 503 x\r\n{body}"))).await;
        assert!(matches!(bad, Outcome::Retry { code: Some(503), slow: false, .. }), "{bad:?}");
    }
    // What can't be told is no answer.
    for head in
        ["Content-Length: x", "Content-Length: 1\r\nContent-Length: 2", "Content-Length: -1"]
    {
        let outcome = answer_to(Fault::garbage(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"))).await;
        let Outcome::Retry { code: None, slow, why, .. } = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("is not HTTP") && !slow, "{why}");
    }
}

#[tokio::test]
async fn early_hints_without_end_are_bounded() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let few = format!("{}HTTP/1.1 204 x\r\n\r\n", early.repeat(5));
    assert_eq!(answer_to(Fault::garbage(few)).await, Outcome::accepted(204));
    let outcome = answer_to(Fault::garbage(early.repeat(100_000))).await;
    let Outcome::Retry { code: None, slow, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("more than any answer has") && !slow, "{why}");
}

#[tokio::test]
async fn a_link_that_may_be_too_slow_is_told_from_a_server_that_is_not_there() {
    let slow = |outcome: Outcome| match outcome {
        Outcome::Retry { slow, .. } => slow,
        other => panic!("{other:?}"),
    };
    let mimir = StrictMimir::new();
    mimir.script(Fault::never());
    assert!(slow(post(&mut impatient(&mimir), 1).await), "connected, and no answer in time");
    assert!(slow(answer_to(Fault::close()).await), "it broke while the request was under way");
    assert!(slow(answer_to(Fault::garbage("HTTP/1.1 20")).await), "it broke within the answer");
    assert!(!slow(answer_to(Fault::status(503)).await), "there was an answer");
    let held = Port::new();
    let port = held.number();
    let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
    assert!(!slow(post(&mut Client::new(Options::new(url)).unwrap(), 1).await), "no connection");
}

#[tokio::test]
async fn a_body_without_end_is_read_no_further_than_its_bound() {
    let mimir = StrictMimir::new();
    for code in [200, 400, 500] {
        mimir.script(Fault::endless_body(code));
        let start = Instant::now();
        let outcome = post(&mut client(&mimir), 1).await;
        assert_eq!(outcome.code(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(outcome.why().is_none_or(|why| why.len() < 1000));
    }
    // What the sockets' own buffers hold; 256 MiB is where the server gives up.
    assert!(mimir.poured() < 48 << 20, "{}", mimir.poured());
}

#[tokio::test]
async fn a_head_without_end_is_read_no_further_than_its_bound() {
    let mimir = StrictMimir::new();
    mimir.script(Fault::endless_head());
    let outcome = post(&mut client(&mimir), 1).await;
    let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("longer than 16384 bytes"), "{why}");
    assert!(mimir.poured() < 16 << 20, "{}", mimir.poured());
}

#[tokio::test]
async fn a_long_answer_is_read_and_its_connection_kept() {
    let mimir = StrictMimir::new();
    let mut client = client(&mimir);
    mimir.script(Fault::status(500).body("x".repeat(60 << 10)));
    mimir.script(Fault::status(500).body("x".repeat(70 << 10)));
    for (time, connections) in [(1, 1), (2, 1), (3, 2)] {
        post(&mut client, time).await;
        assert_eq!(mimir.connections(), connections);
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let mimir = StrictMimir::new();
    let mut client = client(&mimir);
    for time in 1..=50 {
        mimir.script(match time % 3 {
            0 => Fault::status(500).body("later"),
            1 => Fault::status(204).accepting(),
            _ => Fault::status(200).body("fine").accepting(),
        });
        post(&mut client, time).await;
    }
    assert_eq!((mimir.connections(), client.connections()), (1, 1));
    assert_eq!(mimir.samples("up", &[]).len(), 34);
    client.close();
    assert_eq!(post(&mut client, 51).await, Outcome::accepted(200));
    assert_eq!(mimir.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_went_stale_is_replaced_at_once() {
    let mimir = StrictMimir::new();
    let mut client = client(&mimir);
    // It says nothing of closing, and closes after its answer.
    mimir.script(Fault::slow(Duration::ZERO).then_close());
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    assert_eq!(post(&mut client, 2).await, Outcome::accepted(200));
    // It closes when it sees the next request on an old connection.
    mimir.script(Fault::close());
    assert_eq!(post(&mut client, 3).await, Outcome::accepted(200));
    // The same on a new connection is a failure.
    client.close();
    mimir.script(Fault::close());
    assert!(matches!(post(&mut client, 4).await, Outcome::Retry { code: None, .. }));
    // And twice in a row is one, too: there is one more try, not many.
    assert_eq!(post(&mut client, 5).await, Outcome::accepted(200));
    mimir.script(Fault::close());
    mimir.script(Fault::close());
    assert!(matches!(post(&mut client, 6).await, Outcome::Retry { code: None, .. }));
    let times: Vec<_> = mimir.samples("up", &[]).iter().map(|sample| sample.0).collect();
    assert_eq!(times, [1, 2, 3, 5]);
    assert_eq!(mimir.repeats(), 0);
}

#[tokio::test]
async fn half_an_answer_on_an_old_connection_is_a_failure() {
    let mimir = StrictMimir::new();
    let mut client = client(&mimir);
    post(&mut client, 1).await;
    mimir.script(Fault::garbage("HTTP/1.1 20"));
    assert!(matches!(post(&mut client, 2).await, Outcome::Retry { code: None, .. }));
    assert_eq!(mimir.connections(), 1);
}

#[tokio::test]
async fn a_backend_that_dies_and_comes_back() {
    let mut mimir = StrictMimir::new();
    let mut client = client(&mimir);
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    mimir.stop();
    for _ in 0..3 {
        assert!(matches!(post(&mut client, 2).await, Outcome::Retry { code: None, .. }));
    }
    mimir.start();
    assert_eq!(post(&mut client, 2).await, Outcome::accepted(200));
    assert_eq!(mimir.samples("up", &[]).len(), 2);
}

#[tokio::test]
async fn an_answer_that_was_lost_makes_a_repeat_and_no_violation() {
    let mimir = StrictMimir::new();
    let mut client = client(&mimir);
    mimir.script(Fault::accept_then_lose_answer());
    assert!(matches!(post(&mut client, 1).await, Outcome::Retry { .. }));
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    assert_eq!((mimir.samples("up", &[]).len(), mimir.repeats()), (1, 1));
}

#[tokio::test]
async fn a_request_larger_than_every_buffer_arrives_whole() {
    let mimir = StrictMimir::new();
    let mut client = client(&mimir);
    let mut request = RemoteWrite::new();
    // Noise that snappy can't shrink.
    let mut noise = 1u64;
    for index in 0..1000 {
        let name = format!("metric_{index}");
        let samples: Vec<_> = (0..200)
            .map(|time| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (time, f64::from_bits(noise >> 2))
            })
            .collect();
        request.series([("__name__", name.as_str())].into_iter(), samples.into_iter()).unwrap();
    }
    let body = request.finish().to_vec();
    assert!(body.len() > 1 << 20, "{}", body.len());
    for _ in 0..2 {
        let outcome = client.post(Content::RemoteWrite1, &body).await;
        assert_eq!(outcome, Outcome::accepted(200));
    }
    mimir.with_service(|stored| assert_eq!((stored.samples, stored.repeats), (200_000, 200_000)));
    assert_eq!(mimir.connections(), 1);
    assert_eq!(mimir.requests()[0].body, body);
}

#[tokio::test]
async fn a_refusal_before_the_body_is_read_is_understood() {
    let mimir = StrictMimir::new();
    mimir.script(Fault::status(413).body("too large").early());
    let outcome = client(&mimir).post(Content::RemoteWrite1, &vec![7; 8 << 20]).await;
    assert!(matches!(&outcome, Outcome::Refused { code: 413, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_request_that_is_given_up_closes_its_connection() {
    let mimir = StrictMimir::new();
    let mut client = client(&mimir);
    post(&mut client, 1).await;
    mimir.script(Fault::never());
    let given_up = tokio::time::timeout(Duration::from_millis(100), post(&mut client, 2)).await;
    assert!(given_up.is_err());
    assert_eq!(post(&mut client, 3).await, Outcome::accepted(200));
    assert_eq!(mimir.connections(), 2);
}
