//! The cases of remote write 2.0 in the official test suite for senders (prometheus/compliance,
//! remotewrite/sender), as facts: pages are scraped by the agent with `protocol = "2.0"`, and a strict receiver
//! decodes each byte of what comes. Those of 1.0 are in `sender_compliance.rs`.
//!
//! | case | here |
//! |---|---|
//! | POST, `Content-Type` with its `proto`, `Content-Encoding`, version 2.0.0, `User-Agent`, snappy's block format | passes; the receiver checks each request |
//! | reserved headers can't be set by configuration | `endpoint_headers.rs` |
//! | symbols: the empty string first, each once, each used; references in range and in pairs | passes; the receiver checks each request |
//! | labels sorted, none twice, with `__name__`; unicode, empty values, colons in names | passes |
//! | sample values (special floats, precision), sample timestamps | passes |
//! | explicit timestamps of a page | differs: a scrape's samples have the scrape's time, what pages say is passed over and counted |
//! | start timestamps of counters and histograms, of `_created` | not supported: a record of the WAL has no place for it; `_created` is sent as a series, and a scraped series says no start, not a wrong one. The agent's own have theirs (`remote_write2.rs`) |
//! | samples or histograms in a series, never both, never none; all of a family in one request | passes |
//! | many series in a request, symbols shared, at most 10,000 series; many labels, mixed types | passes: at most `max_samples_per_send` |
//! | metadata: TYPE of counter, gauge, histogram, summary; HELP, also with unicode | passes. HELP comes with the first request of a family, and then every `metadata_interval` |
//! | metadata: UNIT | as far as the family's name ends with it, which OpenMetrics demands; a `# UNIT` line is passed over |
//! | staleness | passes |
//! | exemplars (values, labels, timestamps) | not supported: the WAL has no place for them; samples that have one arrive without it |
//! | native histograms of targets (structure, spans, schema, count, sum), NHCB | not supported: targets tell them in protobuf only, which is neither asked for nor read; asked for text, they tell classic ones, which arrive. Those of the agent's own probes are in `remote_write2.rs` |
//! | retry on 500, 502, 503, 504, and on 429 after `Retry-After`; backoff between tries | passes; with every third 500, 502 or 504 in a row the samples come in smaller requests |
//! | no retry on 400, 413, 422 | differs: a refused request is cut, so that what a server takes of it alone is not lost. It is cut by the WAL's table of series, so that a half may have all that there is in it, and be the same request once more |
//! | no retry on 401, 404 | differs: they say that the configuration is wrong, so nothing is dropped, and it is tried again slowly (`delivery_faults.rs`) |
//! | 200, 204, bodies of good answers, `…-Written` headers, partial writes, none of these headers with 4xx | passes |
//! | the server's words in the log as they came; large bodies of errors | passes |
//! | 415: 1.0 from then on, with its headers; none at 2xx | passes. A 2xx without any `…-Written` header is a receiver of 1.0, as the specification has it |
//! | connection refused, timeout, closed, garbage, DNS, TLS, strange codes | `endpoint_answers.rs`, `delivery_faults.rs`, `delivery_network.rs`, `endpoint_tls.rs` |
//! | the cases of 1.0 (versions, labels inline, no starts, no native histograms) | `sender_compliance.rs` |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
#![allow(dead_code, reason = "each test file uses a part of the support")]

mod support;

use std::time::Duration;

use support::message::Request;
use support::strict_mimir::Labels;
use support::strict_receiver::{Plays, Sample, StrictReceiver, sizes};
use support::{Agent, Fault, Page, Pages};

const LONG: Duration = Duration::from_secs(120);
const STALE: u64 = 0x7ff0_0000_0000_0002;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Types, as their numbers in 2.0.
const COUNTER: u64 = 1;
const GAUGE: u64 = 2;
const HISTOGRAM: u64 = 3;
const SUMMARY: u64 = 5;

fn agent(receiver: &StrictReceiver, jobs: &[(&str, &Pages)]) -> Agent {
    let scrape = |(job, pages): &(&str, &Pages)| {
        format!("[[scrape]]\njob = {job:?}\ntargets = [{:?}]\n", pages.target())
    };
    let scrapes: String = jobs.iter().map(scrape).collect();
    Agent::new(&format!(
        "interval = \"1s\"\n[probes]\ndefault = \"off\"\n\
         [metrics]\ncollectors = {{ only = [\"loadavg\"] }}\n\
         [[mimir]]\nurl = {:?}\nprotocol = \"2.0\"\nsend_interval = \"0s\"\n\
         backoff = {{ min = \"50ms\", max = \"1s\" }}\n{scrapes}",
        receiver.url()
    ))
}

/// The series of a job with this name.
fn of(receiver: &StrictReceiver, job: &str, name: &str) -> Vec<(Labels, Vec<Sample>)> {
    let mut found = receiver.samples(name);
    found.retain(|(labels, _)| labels.iter().any(|(n, v)| n == "job" && v == job));
    found
}

fn version(request: &Request) -> &str {
    request.header("x-prometheus-remote-write-version").unwrap()
}

/// A page that counts its scrapes, and the agent that has got some of it to the receiver.
fn counting(receiver: &StrictReceiver) -> (Pages, Agent) {
    let pages = Pages::new(Page::Made(|n| format!("# TYPE now gauge\nnow {n}\nother {n}\n")));
    let mut agent = agent(receiver, &[("j", &pages)]);
    agent.start();
    (pages, agent)
}

/// Waits until so many more scrapes have come.
fn more(agent: &mut Agent, receiver: &StrictReceiver, count: usize) {
    let have = || of(receiver, "j", "now").first().map_or(0, |(_, samples)| samples.len());
    let before = have();
    agent.wait("more scrapes", LONG, |_| have() >= before + count);
}

/// Each scrape of the counting page has come, once, but for those that failed on a machine that is busy.
fn nothing_is_missing(receiver: &StrictReceiver) {
    let (_, up) = of(receiver, "j", "up").pop().unwrap();
    let (_, now) = of(receiver, "j", "now").pop().unwrap();
    let (_, other) = of(receiver, "j", "other").pop().unwrap();
    assert_eq!(now, other);
    let good: Vec<_> = up.iter().enumerate().filter(|(_, sample)| sample.2 == 1.0).collect();
    let expected: Vec<_> = good.iter().map(|(n, sample)| (sample.0, *n as f64)).collect();
    let values = now.iter().filter(|sample| sample.2.to_bits() != STALE);
    assert_eq!(values.map(|sample| (sample.0, sample.2)).collect::<Vec<_>>(), expected);
}

/// Samples that were given up.
fn dropped(agent: &Agent) -> Vec<(String, u64)> {
    let status = agent.status();
    let metrics = status["dropped"].as_array().unwrap().iter().filter(|d| d["signal"] == "metrics");
    let one = |d: &serde_json::Value| {
        (d["reason"].as_str().unwrap().into(), d["count"].as_u64().unwrap())
    };
    metrics.map(one).collect()
}

#[test]
fn what_pages_say_arrives_by_2_0() {
    let receiver = StrictReceiver::new(Plays::Two);
    let many: String = (0..3_000).map(|n| format!("many{{l=\"v{n}\"}} 1\n")).collect();
    let open = |text: &str| Page::Text(OPEN_METRICS, format!("{text}# EOF\n"));
    let plain = |text: &str| Page::Text("text/plain; version=0.0.4", text.to_owned());
    let pages: Vec<(&str, Pages)> = [
        (
            "samples",
            open(
                "# TYPE test_counter counter\ntest_counter_total 101.13\ntest_counter_created 1700000000\n\
                 # TYPE test_histogram histogram\ntest_histogram_count 100\ntest_histogram_sum 250.0\n\
                 test_histogram_bucket{le=\"+Inf\"} 100\ntest_histogram_created 1700000000\n\
                 # TYPE test_gauge_with_ts gauge\ntest_gauge_with_ts 2 1700000000.5\n",
            ),
        ),
        (
            "labels",
            open("test{foo=\"bar\",baz=\"qux\"} 1\nother{foo=\"bar\",empty=\"\"} 3\nhttp:a:b 0.5\nwords{emoji=\"🚀\",chinese=\"测试\"} 42\n"),
        ),
        (
            "floats",
            plain("f{t=\"nan\"} NaN\nf{t=\"inf\"} +Inf\nf{t=\"ninf\"} -Inf\nf{t=\"zero\"} 0\nf{t=\"p\"} 3.141592653589793\nf{t=\"n\"} -123.45\n"),
        ),
        (
            "metadata",
            open(
                "# HELP http_requests_total Total HTTP requests\n# TYPE http_requests_total counter\nhttp_requests_total 100\n\
                 # HELP memory_usage_bytes Current memory usage\n# TYPE memory_usage_bytes gauge\n# UNIT memory_usage_bytes bytes\nmemory_usage_bytes 1048576\n\
                 # TYPE request_duration_seconds histogram\nrequest_duration_seconds_bucket{le=\"+Inf\"} 100\nrequest_duration_seconds_sum 50.0\nrequest_duration_seconds_count 100\n\
                 # TYPE rpc_duration_seconds summary\n# HELP rpc_duration_seconds 🚀 测试 yolo/d\nrpc_duration_seconds{quantile=\"0.5\"} 0.05\nrpc_duration_seconds_sum 100.0\nrpc_duration_seconds_count 1000\n",
            ),
        ),
        (
            "exemplars",
            open(
                "# TYPE e counter\ne_total 1000 # {trace_id=\"abc123\",span_id=\"def456\"} 999 1234567890.123\n\
                 # TYPE d histogram\nd_bucket{le=\"0.1\"} 50 # {trace_id=\"x\"} 0.05\nd_bucket{le=\"+Inf\"} 100\nd_sum 10.5\nd_count 100\n",
            ),
        ),
        ("many", plain(&many)),
        ("nothing", open("")),
        ("protobuf", Page::Text("application/vnd.google.protobuf; encoding=delimited", "x".into())),
    ]
    .into_iter()
    .map(|(job, page)| (job, Pages::new(page)))
    .collect();
    let jobs: Vec<_> = pages.iter().map(|(job, pages)| (*job, pages)).collect();
    let mut agent = agent(&receiver, &jobs);
    agent.start();
    agent.wait("two scrapes of each", LONG, |_| {
        let good = |job, sample: &&Sample| sample.2 == 1.0 || job == "protobuf";
        let scrapes = |job| -> usize {
            let up = of(&receiver, job, "up");
            up.iter().map(|(_, all)| all.iter().filter(|sample| good(job, sample)).count()).sum()
        };
        jobs.iter().all(|(job, _)| scrapes(job) >= 2)
    });
    agent.terminate();
    // The only series with this name and these labels beside `instance` and `job`.
    let one = |job: &str, name: &str, labels: &[(&str, &str)]| {
        let instance = jobs.iter().find(|(known, _)| *known == job).unwrap().1.target();
        let mut all = vec![("__name__", name), ("instance", &instance), ("job", job)];
        all.extend(labels);
        all.sort_unstable();
        let mut found = of(&receiver, job, name);
        found.retain(|(have, _)| {
            have.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(all.iter().copied())
        });
        assert_eq!(found.len(), 1, "{job}: {name}{labels:?}");
        found.pop().unwrap()
    };
    let value = |job: &str, name: &str, labels: &[(&str, &str)]| {
        let (_, samples) = one(job, name, labels);
        // Nothing is known of when a target's counters began.
        assert!(samples.iter().all(|(_, start, _)| *start == 0), "{samples:?}");
        // On a machine that is busy a scrape may fail.
        samples.iter().rfind(|sample| sample.2.to_bits() != STALE).unwrap().2
    };

    assert_eq!(value("samples", "test_counter_total", &[]), 101.13);
    assert_eq!(value("samples", "test_counter_created", &[]), 1_700_000_000.0);
    assert_eq!(value("samples", "test_histogram_count", &[]), 100.0);
    assert_eq!(value("samples", "test_histogram_bucket", &[("le", "+Inf")]), 100.0);
    let (_, timed) = one("samples", "test_gauge_with_ts", &[]);
    let (_, untimed) = one("samples", "test_histogram_sum", &[]);
    assert_eq!((timed[0].0, timed[0].2), (untimed[0].0, 2.0), "the time of the scrape");

    assert_eq!(value("labels", "test", &[("baz", "qux"), ("foo", "bar")]), 1.0);
    assert_eq!(value("labels", "other", &[("foo", "bar")]), 3.0);
    assert_eq!(value("labels", "http:a:b", &[]), 0.5);
    assert_eq!(value("labels", "words", &[("chinese", "测试"), ("emoji", "🚀")]), 42.0);

    let float = |t| value("floats", "f", &[("t", t)]);
    assert_eq!(float("nan").to_bits(), 0x7ff8_0000_0000_0001, "a value, and no marker");
    assert_eq!((float("inf"), float("ninf")), (f64::INFINITY, f64::NEG_INFINITY));
    assert_eq!((float("zero"), float("p"), float("n")), (0.0, std::f64::consts::PI, -123.45));

    for (name, labels, kind, help, unit) in [
        ("http_requests_total", &[][..], COUNTER, "Total HTTP requests", ""),
        ("memory_usage_bytes", &[], GAUGE, "Current memory usage", "bytes"),
        ("request_duration_seconds_bucket", &[("le", "+Inf")], HISTOGRAM, "", "seconds"),
        ("request_duration_seconds_sum", &[], HISTOGRAM, "", "seconds"),
        ("rpc_duration_seconds", &[("quantile", "0.5")], SUMMARY, "🚀 测试 yolo/d", "seconds"),
        ("rpc_duration_seconds_count", &[], SUMMARY, "🚀 测试 yolo/d", "seconds"),
    ] {
        let (labels, _) = one("metadata", name, labels);
        let told = receiver.with_service(|receiver| receiver.metadata[&labels].clone());
        assert_eq!(told, (kind, help.to_owned(), unit.to_owned()), "{name}");
    }

    assert_eq!(value("exemplars", "e_total", &[]), 1000.0);
    assert_eq!(value("exemplars", "d_bucket", &[("le", "0.1")]), 50.0);
    for n in [0, 1_500, 2_999] {
        assert_eq!(value("many", "many", &[("l", &format!("v{n}"))]), 1.0);
    }
    for (job, _) in &jobs {
        let is_up = one(job, "up", &[]).1.iter().any(|sample| sample.2 == 1.0);
        assert_eq!(is_up, *job != "protobuf", "up of {job}");
    }
    assert_eq!(value("nothing", "scrape_samples_scraped", &[]), 0.0);

    let requests = receiver.requests();
    assert!(requests.iter().all(|request| request.method == "POST" && version(request) == "2.0.0"));
    let sizes: Vec<_> = requests.iter().map(|request| sizes(&request.body).unwrap()).collect();
    let (_, largest) = sizes.iter().max_by_key(|(_, series)| *series).unwrap();
    assert!((1_000..=2_000).contains(largest), "{largest} series in a request");
    // Of those series one value is new, and names and the other values are shared.
    for (symbols, series) in sizes.iter().filter(|(_, series)| *series >= 1_000) {
        assert!(*symbols < series + 100, "{symbols} symbols for {series} series");
    }
    receiver.tolerate_aborts();
    receiver.assert_clean();
}

#[test]
fn a_series_that_is_gone_is_marked_stale_by_2_0() {
    let receiver = StrictReceiver::new(Plays::Two);
    let pages = Pages::new(Page::Made(|n| if n == 0 { "stale 1\n".into() } else { String::new() }));
    let mut agent = agent(&receiver, &[("j", &pages)]);
    agent.start();
    let bits = || -> Vec<u64> {
        let series = of(&receiver, "j", "stale").pop();
        series.into_iter().flat_map(|(_, all)| all).map(|sample| sample.2.to_bits()).collect()
    };
    agent.wait("the marker", LONG, |_| bits().contains(&STALE));
    agent.terminate();
    assert_eq!(bits(), [1.0f64.to_bits(), STALE], "once");
    receiver.tolerate_aborts();
}

#[test]
fn a_request_that_failed_comes_again_as_it_was_and_not_at_once() {
    for code in [500, 502, 503, 504, 429] {
        let receiver = StrictReceiver::new(Plays::Two);
        // At the third of the others requests get smaller.
        let faults = if matches!(code, 503 | 429) { 3 } else { 2 };
        for _ in 0..faults {
            let fault = Fault::status(code).body("not now");
            receiver.script(if code == 429 { fault.header("Retry-After", "1") } else { fault });
        }
        let (_pages, mut agent) = counting(&receiver);
        more(&mut agent, &receiver, 2);
        agent.terminate();
        let requests = receiver.requests();
        for n in 0..faults {
            assert!(requests[n + 1].body == requests[0].body, "{code}: another request");
            let pause = requests[n + 1].at.duration_since(requests[n].replied.unwrap());
            let least = Duration::from_millis(if code == 429 { 990 } else { 1 });
            assert!(pause >= least, "{code}: again after {pause:?}");
        }
        assert!(requests.iter().all(|request| version(request) == "2.0.0"), "{code}");
        nothing_is_missing(&receiver);
        receiver.tolerate_aborts();
    }
}

#[test]
fn what_is_good_of_a_refused_request_comes_again_and_is_stored_once() {
    let receiver = StrictReceiver::new(Plays::Two);
    let (_pages, mut agent) = counting(&receiver);
    more(&mut agent, &receiver, 1);
    for code in [400, 413, 422] {
        receiver.script(Fault::status(code).body("refused"));
        more(&mut agent, &receiver, 2);
    }
    agent.terminate();
    let requests = receiver.requests();
    let refused: Vec<_> = requests.iter().filter(|request| request.faulty).collect();
    assert_eq!(refused.len(), 3);
    for one in refused {
        let again = requests.iter().filter(|request| request.body == one.body).count();
        // Once more where a half has all of it, and no more once it was stored.
        assert!(again <= 2, "{:?}: {again}", one.answer);
    }
    assert!(requests.iter().all(|request| version(request) == "2.0.0"));
    nothing_is_missing(&receiver);
    receiver.tolerate_aborts();
}

#[test]
fn good_answers_of_every_shape_are_believed() {
    let receiver = StrictReceiver::new(Plays::Two);
    let (_pages, mut agent) = counting(&receiver);
    more(&mut agent, &receiver, 1);
    for (code, body) in [(200, "OK"), (204, ""), (200, "{\"status\":\"error\"}"), (202, "later")] {
        let written = Fault::status(code)
            .body(body)
            .header("X-Prometheus-Remote-Write-Samples-Written", "100000")
            .header("X-Prometheus-Remote-Write-Histograms-Written", "0")
            .header("X-Prometheus-Remote-Write-Exemplars-Written", "0");
        receiver.script(written.accepting());
    }
    more(&mut agent, &receiver, 5);
    assert_eq!(receiver.script_left(), 0);
    assert_eq!(dropped(&agent), []);
    agent.terminate();
    assert!(receiver.requests().iter().all(|request| version(request) == "2.0.0"));
    nothing_is_missing(&receiver);
    receiver.tolerate_aborts();
}

#[test]
fn of_a_partial_write_the_rest_is_counted_and_nothing_comes_again() {
    let receiver = StrictReceiver::new(Plays::Two);
    let (_pages, mut agent) = counting(&receiver);
    more(&mut agent, &receiver, 1);
    // All is stored, so that what came again would be seen, and two samples are owned up to.
    let partial = Fault::status(400)
        .body("2 written, the others out of order")
        .header("X-Prometheus-Remote-Write-Samples-Written", "2");
    receiver.script(partial.accepting());
    more(&mut agent, &receiver, 3);
    let dropped = dropped(&agent);
    agent.terminate();
    let requests = receiver.requests();
    let (_, series) = sizes(&requests.iter().find(|r| r.faulty).unwrap().body).unwrap();
    let [(reason, count)] = &dropped[..] else { panic!("{dropped:?}") };
    assert_eq!(reason, "http_400");
    assert!(*count >= series as u64 - 2, "{count} of {series}");
    nothing_is_missing(&receiver);
    receiver.tolerate_aborts();
}

#[test]
fn the_servers_words_are_logged_as_they_came_and_only_so_many() {
    let receiver = StrictReceiver::new(Plays::Two);
    let (_pages, mut agent) = counting(&receiver);
    more(&mut agent, &receiver, 1);
    let words = "Error: Invalid label name '__invalid__'";
    let long = format!("{words}{}", " detailed error information;".repeat(40_000));
    receiver.play(move || Some(Fault::status(400).body(long.clone())));
    agent.wait("the words", LONG, |agent| agent.log().contains(words));
    receiver.rest();
    more(&mut agent, &receiver, 2);
    let log = agent.log();
    assert!(log.lines().all(|line| line.len() < 4_000), "{log}");
    agent.terminate();
    receiver.tolerate_aborts();
}

#[test]
fn after_a_415_all_goes_by_1_0_with_its_headers() {
    let receiver = StrictReceiver::new(Plays::Says415);
    let (_pages, mut agent) = counting(&receiver);
    more(&mut agent, &receiver, 4);
    agent.terminate();
    let requests = receiver.requests();
    let kinds = |request: &Request| {
        (version(request).to_owned(), request.header("content-type").unwrap().to_owned())
    };
    let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    assert_eq!(kinds(&requests[0]), ("2.0.0".into(), two.into()));
    for request in &requests[1..] {
        assert_eq!(kinds(request), ("0.1.0".into(), "application/x-protobuf".into()));
    }
    nothing_is_missing(&receiver);
    receiver.tolerate_aborts();
}
