//! The encoders against servers that decode every byte by another way, and those servers themselves:
//! each violation they are there to find, they find.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use mote::encode::{LokiPush, PushEntry, RemoteWrite};
use mote::endpoint::{Client, Content, Options, Outcome, Url};
use mote::model::{Labels, Metadata, Pairs};
use support::strict_loki::selector;
use support::{Fault, StrictLoki, StrictMimir};

fn client(url: &str) -> Client {
    Client::new(Options::new(Url::parse(url).unwrap())).unwrap()
}

#[tokio::test]
async fn series_arrive_with_their_labels_and_values_bit_for_bit() {
    let mimir = StrictMimir::new();
    let mut request = RemoteWrite::new();
    let labels = Labels::from_pairs([
        ("__name__", "node_cpu_seconds_total"),
        ("cpu", "0"),
        ("mode", "idle"),
        ("quote", "a\"b\\c\nü"),
        ("empty", ""),
    ])
    .unwrap();
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let samples = [(-1, -0.0), (0, 0.0), (1_700_000_000_000, f64::INFINITY), (i64::MAX, stale)];
    request.series(labels.iter(), samples.into_iter()).unwrap();
    request.series([("__name__", "up")].into_iter(), [(1, 1.0)].into_iter()).unwrap();
    let outcome = client(&mimir.url()).post(Content::RemoteWrite1, request.finish()).await;
    assert_eq!(outcome, Outcome::accepted(200));
    let got = mimir.samples("node_cpu_seconds_total", &[("quote", "a\"b\\c\nü")]);
    let bits = |samples: &[(i64, f64)]| {
        samples.iter().map(|(time, value)| (*time, value.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(bits(&got), bits(&samples));
    let (series, _) = mimir.find("node_cpu_seconds_total", &[]).remove(0);
    assert_eq!(series.len(), 4, "a label without a value is not sent: {series:?}");
    assert_eq!(mimir.samples("up", &[]), [(1, 1.0)]);
}

#[tokio::test]
async fn lines_arrive_with_their_labels_and_metadata() {
    let loki = StrictLoki::new();
    let labels =
        Labels::from_pairs([("job", "a \"b\" \\ \n\t\u{1}\u{7f}ü"), ("instance", "host")]).unwrap();
    let metadata = Metadata::from_iter([("pid", "1"), ("k", "")]);
    let entries = [
        PushEntry { timestamp_ns: -1_500_000_000, line: "before 1970", metadata: Pairs::default() },
        PushEntry { timestamp_ns: 0, line: "", metadata: metadata.pairs() },
        PushEntry {
            timestamp_ns: 1_700_000_000_123_456_789,
            line: "ü\0\n",
            metadata: Pairs::default(),
        },
        PushEntry {
            timestamp_ns: 1_700_000_000_123_456_789,
            line: "same time",
            metadata: Pairs::default(),
        },
    ];
    let mut push = LokiPush::new();
    push.stream(&labels.to_string(), entries.into_iter()).unwrap();
    push.stream("{job=\"other\"}", entries[..1].iter().copied()).unwrap();
    let outcome = client(&loki.url()).post(Content::LokiPush, push.finish()).await;
    assert_eq!(outcome, Outcome::accepted(204));
    let got = loki.entries(&[("instance", "host"), ("job", labels.get("job").unwrap())]);
    assert_eq!(got.len(), entries.len());
    for (got, sent) in got.iter().zip(&entries) {
        assert_eq!(got.timestamp_ns, i128::from(sent.timestamp_ns));
        assert_eq!(got.line, sent.line);
        assert!(
            got.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(sent.metadata.iter())
        );
    }
    assert_eq!(loki.lines(&[("job", "other")]), ["before 1970"]);
    // The same push again: nothing is doubled.
    let again = client(&loki.url()).post(Content::LokiPush, push.finish()).await;
    assert_eq!(again, Outcome::accepted(204));
    loki.with_service(|stored| assert_eq!((stored.lines, stored.repeats), (5, 5)));
}

#[test]
fn selectors_are_read_as_loki_reads_them() {
    let good = selector(r#"{a="1", b_2="\"\\\n\u00fc\x41"}"#).unwrap();
    let pairs: Vec<_> = good.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("a", "1"), ("b_2", "\"\\\nüA")]);
    for bad in [
        "",
        "{}",
        "{",
        "a=\"1\"",
        "{a=1}",
        "{a=\"1\"",
        "{a=\"1}",
        "{a=\"1\",}",
        "{a=\"1\"b=\"2\"}",
        "{a=\"1\", a=\"2\"}",
        "{1a=\"1\"}",
        "{a.b=\"1\"}",
        "{a=\"\\q\"}",
        "{a=\"\n\"}",
        "{a=\"1\"} ",
        "{a=\"\\u12\"}",
    ] {
        assert!(selector(bad).is_err(), "{bad}");
    }
}

/// Sends raw bytes, and what the server then says of them.
fn violations_of(
    bytes: &[u8],
    take: impl Fn() -> Vec<String>,
    address: std::net::SocketAddr,
) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    take().join("; ")
}

fn push(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nUser-Agent: t\r\nContent-Type: application/x-protobuf\r\n\
         Content-Encoding: snappy\r\n{headers}\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

const VERSION: &str = "X-Prometheus-Remote-Write-Version: 0.1.0\r\n";

#[test]
fn the_server_finds_requests_that_are_not_http() {
    let mimir = StrictMimir::new();
    let of = |bytes: &[u8]| violations_of(bytes, || mimir.take_violations(), mimir.address());
    let good = snap::raw::Encoder::new()
        .compress_vec(b"\x0a\x17\x0a\x0e\x0a\x08__name__\x12\x02up\x12\x05\x10\x80\x80\x80\x01")
        .unwrap();
    let length = good.len();
    let with = |headers: &str| push("/api/v1/push", &format!("{VERSION}{headers}"), &good);
    assert_eq!(of(&with(&format!("Content-Length: {length}\r\n"))), "");
    assert_eq!(mimir.samples("up", &[]), [(0x20_0000, 0.0)]);
    assert!(of(&with(&format!("Content-Length: {}\r\n", length + 1))).contains("within its body"));
    assert!(of(&with(&format!("Content-Length: {}\r\n", length - 1))).contains("after the body"));
    assert!(of(&with("Content-Length: x\r\n")).contains("Content-Length"));
    assert!(of(&with("Content-Length: +1\r\n")).contains("Content-Length"));
    assert!(of(&with("")).contains("Content-Length None"));
    assert!(of(&with("Content-Length: 1\r\nContent-Length: 1\r\n")).contains("stands twice"));
    let both = format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n");
    assert!(of(&with(&both)).contains("and Transfer-Encoding"));
    assert!(of(b"POST /api/v1/push HTTP/1.0\r\n\r\n").contains("request line"));
    assert!(of(b"POST  /api/v1/push HTTP/1.1\r\n\r\n").contains("request line"));
    assert!(of(b"POST /api/v1/push HTTP/1.1\n\n").contains("without CR"));
    assert!(of(b"POST /api/v1/push HTTP/1.1\r\nHost: h\r\n x: y\r\n\r\n").contains("header name"));
    assert!(of(b"POST /api/v1/push HTTP/1.1\r\nA: b\r\n\r\n").contains("no Host"));
    assert!(of(b"POST /api/v1/push HTTP/1.1\r\nHost: h").contains("within its head"));
    let chunked = |body: &[u8]| {
        push("/api/v1/push", &format!("{VERSION}Transfer-Encoding: chunked\r\n"), body)
    };
    let mut whole = format!("{length:x}\r\n").into_bytes();
    whole.extend_from_slice(&good);
    whole.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(of(&chunked(&whole)), "");
    assert_eq!(mimir.repeats(), 1);
    assert!(of(&chunked(b"2\r\nabc\r\n0\r\n\r\n")).contains("after a chunk"));
    assert!(of(&chunked(b"zz\r\n")).contains("chunk size"));
    let get = of(b"GET /api/v1/push HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert!(get.contains("method GET"), "{get}");
    let path = of(&push("/push", "Content-Length: 0\r\n", b""));
    assert!(path.contains("target /push"), "{path}");
    let version = of(&push("/api/v1/push", &format!("Content-Length: {length}\r\n"), &good));
    assert!(version.contains("x-prometheus-remote-write-version: None"), "{version}");
}

/// A nested field of a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    assert!(content.len() < 128);
    bytes.extend_from_slice(content);
    bytes
}

fn label(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

fn sample(time: u8) -> Vec<u8> {
    field(2, &[0x10, time])
}

#[test]
fn the_mimir_finds_what_a_sender_must_not_send() {
    let mimir = StrictMimir::new();
    let of = |raw: &[u8]| {
        let body = snap::raw::Encoder::new().compress_vec(raw).unwrap();
        let headers = format!("{VERSION}Content-Length: {}\r\n", body.len());
        let bytes = push("/api/v1/push", &headers, &body);
        violations_of(&bytes, || mimir.take_violations(), mimir.address())
    };
    let series = |parts: &[Vec<u8>]| field(1, &parts.concat());
    let up = || label("__name__", "up");
    assert_eq!(of(&series(&[up(), sample(5), sample(6)])), "");
    let cases: [(&str, Vec<u8>); 16] = [
        ("without series", Vec::new()),
        ("no samples", series(&[up()])),
        ("no valid __name__", series(&[label("a", "b"), sample(1)])),
        ("no valid __name__", series(&[label("__name__", "1x"), sample(1)])),
        ("not in order", series(&[label("a", "b"), up(), sample(1)])),
        ("stands twice", series(&[up(), up(), sample(1)])),
        ("is not a label name", series(&[up(), label("a-b", "c"), sample(1)])),
        ("is empty", series(&[up(), label("a", ""), sample(1)])),
        ("not after its predecessor", series(&[up(), sample(9), sample(9)])),
        ("not after its predecessor", series(&[up(), sample(9), sample(8)])),
        (
            "not after its predecessor",
            [series(&[up(), sample(9)]), series(&[up(), sample(8)])].concat(),
        ),
        ("field 2 is unknown", field(2, b"")),
        ("field 4 is unknown", series(&[up(), sample(1), field(4, b"")])),
        ("announced", vec![0x0a, 0x05, 0x00]),
        ("longer than it has to be", vec![0x0a, 0x80, 0x00]),
        ("not UTF-8", series(&[field(1, &field(1, b"\xff")), sample(1)])),
    ];
    for (expected, raw) in cases {
        let found = of(&raw);
        assert!(found.contains(expected), "{expected}: {found:?}");
    }
    assert!(of(&series(&[up(), sample(4)])).contains("4 after 6"));
    let other_value = field(2, &[9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 5]);
    assert!(of(&series(&[up(), other_value])).contains("at the same time"));
    assert_eq!(of(&series(&[up(), sample(5), sample(6), sample(7)])), "");
    mimir.with_service(|stored| assert_eq!((stored.samples, stored.repeats), (3, 2)));
    let broken = push("/api/v1/push", &format!("{VERSION}Content-Length: 3\r\n"), b"\xff\xff\xff");
    let broken = violations_of(&broken, || mimir.take_violations(), mimir.address());
    assert!(broken.contains("snappy"), "{broken}");
}

#[test]
fn the_loki_finds_what_a_sender_must_not_send() {
    let loki = StrictLoki::new();
    let of = |raw: &[u8]| {
        let body = snap::raw::Encoder::new().compress_vec(raw).unwrap();
        let headers = format!("Content-Length: {}\r\n", body.len());
        let bytes = push("/loki/api/v1/push", &headers, &body);
        violations_of(&bytes, || loki.take_violations(), loki.address())
    };
    let stream = |parts: &[Vec<u8>]| field(1, &parts.concat());
    let labels = || field(1, b"{a=\"b\"}");
    let entry = |time: u8, line: &[u8]| field(2, &[field(1, &[8, time]), field(2, line)].concat());
    assert_eq!(of(&stream(&[labels(), entry(5, b"x"), entry(5, b"y")])), "");
    let cases: [(&str, Vec<u8>); 9] = [
        ("without streams", Vec::new()),
        ("no entries", stream(&[labels()])),
        ("no '{'", stream(&[entry(1, b"x")])),
        ("without a timestamp", stream(&[labels(), field(2, &field(2, b"x"))])),
        (
            "nanoseconds",
            stream(&[labels(), field(2, &field(1, &[16, 0xff, 0xff, 0xff, 0xff, 0x0f]))]),
        ),
        ("field 3 is unknown", stream(&[labels(), entry(6, b"x"), vec![0x18, 1]])),
        ("not UTF-8", stream(&[labels(), entry(6, b"\xff")])),
        (
            "without a name",
            stream(&[labels(), field(2, &[field(1, &[8, 6]), field(3, b"")].concat())]),
        ),
        ("comes after a newer one", stream(&[labels(), entry(4, b"x")])),
    ];
    for (expected, raw) in cases {
        let found = of(&raw);
        assert!(found.contains(expected), "{expected}: {found:?}");
    }
    loki.with_service(|stored| assert_eq!((stored.lines, stored.repeats), (2, 0)));
}

#[test]
#[should_panic(expected = "violations")]
fn a_violation_that_nobody_looks_at_fails_the_test() {
    let mimir = StrictMimir::new();
    violations_of(b"nonsense\r\n\r\n", Vec::new, mimir.address());
}

#[test]
fn scripts_are_followed_step_by_step() {
    let mimir = StrictMimir::new();
    mimir.script(Fault::status(503).header("Retry-After", "1").body("later"));
    let body = snap::raw::Encoder::new()
        .compress_vec(&field(1, &[label("__name__", "up"), sample(1)].concat()))
        .unwrap();
    let bytes =
        push("/api/v1/push", &format!("{VERSION}Content-Length: {}\r\n", body.len()), &body);
    let answer = || {
        let mut stream = TcpStream::connect(mimir.address()).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let later = "HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\nlater";
    assert_eq!(answer(), later);
    assert_eq!(mimir.with_service(|stored| stored.samples), 0);
    assert_eq!(answer(), "HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(mimir.with_service(|stored| stored.samples), 1);
}
