//! The cases of the official test suite for remote write senders (prometheus/compliance, remotewrite/sender),
//! as facts: a page is scraped by the agent, which sends to a strict receiver, and what arrives is judged.
//!
//! | case | here |
//! |---|---|
//! | Counter, Gauge, Histogram, Summary | passes |
//! | Up, InvalidDown (`up` of a good and of a broken target) | passes |
//! | JobLabel, InstanceLabel, HonorLabels (`exported_…`) | passes |
//! | SortedLabels, EmptyLabels, RepeatedLabels and NameLabel (the scrape fails) | passes |
//! | Ordering, Timestamp (within the test's time, rising for each series) | passes. The suite wants them to rise over all samples of a request too: a request of several scrapes has them by series, as the specification's "samples within a series" |
//! | Staleness | passes |
//! | Headers (method, encoding, type, version, user agent), snappy's block format | passes; the receiver checks each request |
//! | Retries500 | passes |
//! | Retries400 (what was refused is not sent again) | differs: a refused request is never sent again as it was; it is cut, and what of it a server takes alone is not lost. What is refused alone is dropped and counted (`end_to_end.rs`) |
//! | retries on 502, 503, 429 with Retry-After, none on other 4xx, backoff | `endpoint_answers.rs`, `loki_pace.rs`; 401 and 404 differ: they say that the configuration is wrong, and are tried again slowly |
//! | unicode in values, colons in names, special floats, high precision, mixed families, many series, long names, empty page, future and zero timestamps | passes; a page's timestamps are not used |
//! | values of 10 KB | differs: the scrape fails and says why, since Mimir refuses them; `label_value_length_limit` allows them |
//! | exemplars, native histograms of targets | not supported, see `sender_compliance2.rs` |
//! | all of 2.0 | `sender_compliance2.rs` |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
#![allow(dead_code, reason = "each test file uses a part of the support")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::{Agent, Fault, Page, Pages, StrictMimir};

const LONG: Duration = Duration::from_secs(60);
const STALE: u64 = 0x7ff0_0000_0000_0002;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// An agent that scrapes each page as a job of its own.
fn agent(mimir: &StrictMimir, jobs: &[(&str, &Pages)]) -> Agent {
    let scrape = |(job, pages): &(&str, &Pages)| {
        format!("[[scrape]]\njob = {job:?}\ntargets = [{:?}]\n", pages.target())
    };
    let scrapes: String = jobs.iter().map(scrape).collect();
    Agent::new(&format!(
        "interval = \"1s\"\n[probes]\ndefault = \"off\"\n\
         [metrics]\ncollectors = {{ only = [\"loadavg\"] }}\n\
         [[mimir]]\nurl = {:?}\nsend_interval = \"0s\"\nbackoff = {{ min = \"50ms\", max = \"1s\" }}\n{scrapes}",
        mimir.url()
    ))
}

#[test]
fn what_a_page_says_arrives() {
    let mimir = StrictMimir::new();
    let long_name = format!("metric_{}", "very_long_name_".repeat(50));
    let long = "x".repeat(10_000);
    let many: String = (0..200).map(|n| format!("load_{n}{{l=\"v{n}\"}} {n}\n")).collect();
    let pages: Vec<(&str, Pages)> = [
        ("counter", Page::Made(|n| format!("# TYPE c counter\nc{{x=\"y\"}} {n}\n"))),
        ("gauge", text("# HELP g A gauge\n# TYPE g gauge\ng{a=\"b\"} -42.5\n")),
        (
            "histogram",
            text(
                "# TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 4\nh_sum 2.5\nh_count 4\n",
            ),
        ),
        (
            "summary",
            text("# TYPE s summary\ns{quantile=\"0.5\"} 0.05\ns{quantile=\"0.99\"} NaN\ns_sum 5\ns_count 10\n"),
        ),
        ("sorted", text("test{b=\"2\",a=\"1\"} 1.0\n")),
        ("empty", text("test{a=\"\"} 1.0\n")),
        ("repeated", text("test{a=\"1\",a=\"1\"} 1.0\n")),
        ("nameless", text("{label=\"value\"} 1.0\n")),
        ("conflict", text("test{job=\"original\",instance=\"foo\"} 1.0\n")),
        ("unicode", text("test{emoji=\"🚀\",chinese=\"测试\",vietnamese=\"tôi yêu việt nam\"} 42\n")),
        ("colons", text("http:request:duration:seconds 0.5\n")),
        (
            "floats",
            text("f{t=\"nan\"} NaN\nf{t=\"inf\"} +Inf\nf{t=\"ninf\"} -Inf\nf{t=\"zero\"} 0\nf{t=\"p\"} 3.141592653589793\nf{t=\"n\"} -123.45\n"),
        ),
        ("times", text("zero 1 0\nfuture 2 4102444800000\n")),
        ("nothing", text("# No metrics\n")),
        ("no_stale", text("test StaleNaN\n")),
        ("many", text(&many)),
        ("long", text(&format!("{long_name} 42\ntest{{large=\"{}\"}} 42\n", &long[..2_000]))),
        ("too_long", text(&format!("test{{large=\"{long}\"}} 42\n"))),
        ("invalid", Page::Status(404)),
    ]
    .into_iter()
    .map(|(job, page)| (job, Pages::new(page)))
    .collect();
    let jobs: Vec<_> = pages.iter().map(|(job, pages)| (*job, pages)).collect();
    let began = now_ms();
    let mut agent = agent(&mimir, &jobs);
    agent.start();
    agent.wait("three scrapes of each", LONG * 2, |_| {
        jobs.iter().all(|(job, _)| mimir.samples("up", &[("job", job)]).len() >= 3)
    });
    agent.terminate();
    let ended = now_ms();
    let instance = |job: &str| jobs.iter().find(|(name, _)| *name == job).unwrap().1.target();
    // The value of a series with just these labels, and job and instance.
    let value = |job: &str, name: &str, labels: &[(&str, &str)]| {
        let instance = instance(job);
        let mut all = vec![("__name__", name), ("instance", &instance), ("job", job)];
        all.extend(labels);
        all.sort_unstable();
        let found = mimir.find(name, &[("job", job)]);
        let found: Vec<_> = found
            .into_iter()
            .filter(|(have, _)| {
                have.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(all.iter().copied())
            })
            .collect();
        assert_eq!(found.len(), 1, "{job}: {name}{labels:?}");
        let samples = &found[0].1;
        // Timestamp: within the test, rising.
        assert!(samples.iter().all(|(time, _)| (began..=ended).contains(time)), "{samples:?}");
        assert!(samples.windows(2).all(|two| two[0].0 < two[1].0), "{samples:?}");
        samples.last().unwrap().1
    };
    let found = |job: &str, name: &str| mimir.find(name, &[("job", job)]).len();

    // Ordering: what counts up comes in its order.
    let counts = mimir.samples("c", &[("job", "counter"), ("x", "y")]);
    assert!(counts.len() >= 3 && counts.windows(2).all(|two| two[0].1 < two[1].1), "{counts:?}");
    assert_eq!(value("gauge", "g", &[("a", "b")]), -42.5);
    for (le, count) in [("0.1", 1.0), ("1", 3.0), ("+Inf", 4.0)] {
        assert_eq!(value("histogram", "h_bucket", &[("le", le)]), count);
    }
    assert_eq!((value("histogram", "h_sum", &[]), value("histogram", "h_count", &[])), (2.5, 4.0));
    assert_eq!(value("summary", "s", &[("quantile", "0.5")]), 0.05);
    assert!(value("summary", "s", &[("quantile", "0.99")]).is_nan());
    assert_eq!((value("summary", "s_sum", &[]), value("summary", "s_count", &[])), (5.0, 10.0));
    assert_eq!(value("sorted", "test", &[("a", "1"), ("b", "2")]), 1.0);
    assert_eq!(value("empty", "test", &[]), 1.0);
    let exported = [("exported_instance", "foo"), ("exported_job", "original")];
    assert_eq!(value("conflict", "test", &exported), 1.0);
    let words = [("chinese", "测试"), ("emoji", "🚀"), ("vietnamese", "tôi yêu việt nam")];
    assert_eq!(value("unicode", "test", &words), 42.0);
    assert_eq!(value("colons", "http:request:duration:seconds", &[]), 0.5);
    let float = |t| value("floats", "f", &[("t", t)]);
    // A NaN that is a value, and no marker.
    assert_eq!(float("nan").to_bits(), 0x7ff8_0000_0000_0001);
    assert_eq!((float("inf"), float("ninf")), (f64::INFINITY, f64::NEG_INFINITY));
    assert_eq!((float("zero"), float("p"), float("n")), (0.0, std::f64::consts::PI, -123.45));
    assert_eq!((value("times", "zero", &[]), value("times", "future", &[])), (1.0, 2.0));
    for n in 0..200 {
        let label = format!("v{n}");
        assert_eq!(value("many", &format!("load_{n}"), &[("l", &label)]), f64::from(n));
    }
    assert_eq!(value("long", &long_name, &[]), 42.0);
    assert_eq!(value("long", "test", &[("large", &long[..2_000])]), 42.0);
    for (job, _) in &jobs {
        let broken = ["repeated", "nameless", "no_stale", "too_long", "invalid"].contains(job);
        assert_eq!(value(job, "up", &[]), if broken { 0.0 } else { 1.0 }, "up of {job}");
        if broken {
            assert_eq!(found(job, "test"), 0, "{job}");
            assert_eq!(value(job, "scrape_samples_post_metric_relabeling", &[]), 0.0, "{job}");
        }
    }
    assert_eq!(value("nothing", "scrape_samples_scraped", &[]), 0.0);
    // Many series in one request.
    let requests = mimir.requests();
    let largest = requests.iter().filter_map(|r| support::strict_mimir::decode(&r.body).ok());
    assert!(largest.map(|series| series.len()).max().unwrap() > 100);
    mimir.tolerate_aborts();
}

fn text(body: &str) -> Page {
    Page::Text("text/plain; version=0.0.4", body.to_owned())
}

#[test]
fn a_series_that_is_gone_is_marked_stale() {
    let mimir = StrictMimir::new();
    let pages = Pages::new(Page::Made(|n| if n == 0 { "stale 1\n".into() } else { String::new() }));
    let mut agent = agent(&mimir, &[("staleness", &pages)]);
    agent.start();
    let samples = || mimir.samples("stale", &[("job", "staleness")]);
    agent.wait("the marker", LONG, |_| samples().iter().any(|(_, value)| value.to_bits() == STALE));
    agent.terminate();
    let bits: Vec<_> = samples().iter().map(|(_, value)| value.to_bits()).collect();
    assert_eq!(bits, [1.0f64.to_bits(), STALE], "once");
    mimir.tolerate_aborts();
}

#[test]
fn a_500_is_sent_again_as_it_was_and_a_400_is_not() {
    for (code, same) in [(500, true), (503, true), (400, false)] {
        let mimir = StrictMimir::new();
        mimir.script(Fault::status(code));
        let pages = Pages::new(Page::Made(|n| format!("now {n}\n")));
        let mut agent = agent(&mimir, &[("retries", &pages)]);
        agent.start();
        agent.wait("samples", LONG, |_| mimir.samples("now", &[("job", "retries")]).len() >= 2);
        agent.terminate();
        let requests = mimir.requests();
        let again = requests.iter().skip(1).any(|request| request.body == requests[0].body);
        assert_eq!(again, same, "{code}: the same request again");
        mimir.tolerate_aborts();
    }
}
