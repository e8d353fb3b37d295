//! Scraped targets in a running agent: each as a Prometheus would have it, and each at nobody else's cost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
#![allow(dead_code, reason = "each test file uses a part of the support")]

mod support;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use rustix::process::Signal;
use support::{Agent, Page, Pages, Port, Prometheus, StrictMimir, agent::request};

const LONG: Duration = Duration::from_secs(60);
const STALE: u64 = 0x7ff0_0000_0000_0002;

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

/// The values of a job's series, markers as such.
fn values(mimir: &StrictMimir, name: &str, job: &str) -> Vec<Option<f64>> {
    let samples = mimir.samples(name, &[("job", job)]);
    samples.iter().map(|(_, value)| (value.to_bits() != STALE).then_some(*value)).collect()
}

#[test]
fn bad_targets_cost_only_themselves() {
    let mimir = StrictMimir::new();
    let good = Pages::text("a 1\n");
    let port = Port::new();
    let nobody = port.address().to_string();
    let html = "<html>login</html>".to_owned();
    let bad = [
        ("endless", Page::Endless),
        ("endless_line", Page::EndlessLine),
        ("silent1", Page::Silent),
        ("silent2", Page::Silent),
        ("silent3", Page::Silent),
        ("silent4", Page::Silent),
        ("silent5", Page::Silent),
        ("trickle", Page::Trickle),
        ("garbage", Page::Bytes(vec![0xff; 1_000])),
        ("short", Page::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\na 1\n".to_vec())),
        ("status", Page::Status(500)),
        ("html", Page::Text("text/html", html)),
        ("malformed", Page::Text("text/plain", "a 1\nb\n".to_owned())),
        ("huge", Page::Text("text/plain", "a 1\n".repeat(100_000))),
        ("many", Page::Made(|_| (0..1_000).map(|n| format!("a{{n=\"{n}\"}} 1\n")).collect())),
    ]
    .map(|(job, page)| (job, Pages::new(page)));
    let limits = "body_size_limit = \"128KiB\"\nsample_limit = 500";
    // Who says something in the end has the time for it on a busy machine.
    let time = |job: &str| match job.starts_with("silent") || job == "trickle" {
        true => "timeout = \"900ms\"",
        false => "interval = \"5s\"",
    };
    let mut more = scrape("good", &good.target(), "");
    more += &scrape("nobody", &nobody, time("nobody"));
    for (job, pages) in &bad {
        more += &scrape(job, &pages.target(), &format!("{limits}\n{}", time(job)));
    }
    let mut agent = Agent::new(&config(&mimir.url(), &more));
    agent.start();
    agent.wait("all targets", LONG * 2, |_| {
        values(&mimir, "up", "good").len() >= 15
            && bad.iter().all(|(job, _)| values(&mimir, "up", job).len() >= 2)
    });
    let ups = mimir.samples("up", &[("job", "good")]);
    // What bad targets cost it they would cost it each time; a machine that stops for a second does so once,
    // and what has failed is scraped beside those that fail for one time.
    let failed = ups.iter().filter(|(_, up)| *up != 1.0).count();
    let gaps = ups.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let late = gaps.filter(|gap| *gap >= 2_900).count();
    assert!(failed <= 1 && late <= 2, "a good target: {failed} failed, {late} late: {ups:?}");
    for job in bad.iter().map(|(job, _)| *job).chain(["nobody"]) {
        let ups = values(&mimir, "up", job);
        assert!(ups.iter().all(|up| *up == Some(0.0)), "{job}: {ups:?}");
        assert!(mimir.find("a", &[("job", job)]).is_empty(), "{job} has samples");
    }
    let status = agent.status();
    let targets = status["targets"].as_array().unwrap();
    let error = |job: &str| {
        let target = targets.iter().find(|target| target["job"] == job).unwrap();
        target["error"].as_str().unwrap_or_default().to_owned()
    };
    for (job, says) in [
        ("endless_line", "64 KiB"),
        ("silent1", "0.9 s"),
        ("trickle", "0.9 s"),
        ("status", "500"),
        ("html", "metrics_path"),
        ("malformed", "line 2"),
        ("huge", "body_size_limit"),
        ("many", "sample_limit = 500"),
        ("nobody", "refused"),
    ] {
        assert!(error(job).contains(says), "{job}: {}", error(job));
    }
    let live = status["memory"]["live_bytes"].as_u64().unwrap();
    assert!(live < 6 << 20, "{live} bytes live");
    // Told once, not with each scrape.
    let told = agent.log().matches("scraping malformed").count();
    assert_eq!(told, 1, "{}", agent.log());
    let (_, text) = agent.get("/metrics").unwrap();
    assert!(text.contains("mote_scrapes_total{result=\"failed\",scrape_job=\"html\"}"), "{text}");
    agent.terminate();
    mimir.tolerate_aborts();
}

#[test]
fn series_that_go_are_marked_and_a_dead_target_takes_its_own_along() {
    let mimir = StrictMimir::new();
    let (one, other) = (Pages::text("a 1\nb 2\n"), Pages::text("a 3\n"));
    let more = scrape("one", &one.target(), "") + &scrape("other", &other.target(), "");
    let mut agent = Agent::new(&config(&mimir.url(), &more));
    agent.start();
    let last = |name: &str, job: &str| values(&mimir, name, job).last().copied();
    agent.wait("both", LONG, |_| {
        last("b", "one") == Some(Some(2.0)) && last("a", "other") == Some(Some(3.0))
    });
    one.set_text("a 1\n");
    agent.wait("b to go", LONG, |_| last("b", "one") == Some(None));
    assert_eq!(last("a", "one"), Some(Some(1.0)));
    one.set(Page::Status(503));
    agent.wait("a to go", LONG, |_| {
        last("a", "one") == Some(None) && last("up", "one") == Some(Some(0.0))
    });
    // Once for each time.
    let markers = |name: &str| values(&mimir, name, "one").iter().filter(|v| v.is_none()).count();
    one.set_text("a 5\nb 6\n");
    agent.wait("both again", LONG, |_| {
        last("a", "one") == Some(Some(5.0)) && last("b", "one") == Some(Some(6.0))
    });
    assert_eq!((markers("a"), markers("b")), (1, 1));
    assert!(values(&mimir, "a", "other").iter().all(|value| *value == Some(3.0)));
    assert!(mimir.find("node_load1", &[]).iter().all(|(_, s)| s.iter().all(|(_, v)| !v.is_nan())));
    agent.terminate();
    mimir.tolerate_aborts();
}

#[test]
fn a_reload_ends_the_targets_that_it_removes_and_no_others() {
    let mimir = StrictMimir::new();
    let (stays, goes) = (Pages::text("a 1\n"), Pages::text("a 2\n"));
    let first = scrape("goes", &goes.target(), "") + &scrape("stays", &stays.target(), "");
    let mut agent = Agent::new(&config(&mimir.url(), &first));
    agent.start();
    let last = |name: &str, job: &str| values(&mimir, name, job).last().copied();
    agent.wait("both", LONG, |_| {
        last("a", "goes") == Some(Some(2.0)) && last("a", "stays") == Some(Some(1.0))
    });
    let second = scrape("stays", &stays.target(), "") + &scrape("comes", &goes.target(), "");
    agent.configure(&config(&mimir.url(), &second));
    agent.signal(Signal::HUP);
    agent.wait("the first to go and the new one to come", LONG, |_| {
        last("a", "goes") == Some(None)
            && last("up", "goes") == Some(None)
            && last("a", "comes") == Some(Some(2.0))
    });
    // A kill leaves no gap in the order of anything, and marks nothing.
    agent.kill();
    let before = values(&mimir, "a", "stays").len();
    agent.start();
    agent.wait("more", LONG, |_| values(&mimir, "a", "stays").len() > before + 2);
    assert!(values(&mimir, "a", "stays").iter().all(|value| *value == Some(1.0)));
    agent.terminate();
    mimir.tolerate_aborts();
}

#[test]
fn hundreds_of_targets_each_have_their_series_in_order() {
    let mimir = StrictMimir::new();
    let pages = Pages::new(Page::Made(|number| format!("number {number}\n")));
    let jobs: Vec<String> = (0..300).map(|n| format!("j{n}")).collect();
    let more: String =
        jobs.iter().map(|job| scrape(job, &pages.target(), "interval = \"3s\"")).collect();
    let mut agent = Agent::new(&config(&mimir.url(), &more));
    agent.start();
    let scrapes = |job: &str| {
        let mut samples = mimir.samples("number", &[("job", job)]);
        samples.retain(|(_, value)| value.to_bits() != STALE);
        samples
    };
    agent.wait("three scrapes of each", LONG * 2, |_| {
        jobs.iter().all(|job| scrapes(job).len() >= 3)
    });
    for job in &jobs {
        let (values, ups) = (values(&mimir, "number", job), values(&mimir, "up", job));
        // A busy machine may not have had a page in time.
        let marked = ups.contains(&Some(0.0));
        assert!(marked || values.iter().all(Option::is_some), "{job}: {values:?}");
        assert!(values.iter().flatten().is_sorted(), "{job}: {values:?}");
    }
    // At moments of their own: of 300 in 3 s, no second has more than half. The first ones wait for each other.
    let mut seconds: BTreeMap<i64, u32> = BTreeMap::new();
    for job in &jobs {
        let third = scrapes(job)[2].0;
        *seconds.entry(third.rem_euclid(3_000) / 1_000).or_default() += 1;
    }
    assert!(seconds.values().all(|count| *count < 170), "{seconds:?}");
    agent.terminate();
    mimir.tolerate_aborts();
}

#[test]
fn max_series_bounds_all_targets_together() {
    /// The targets that are asked for the first time at once, so that neither has taken the room before.
    static BOTH: Barrier = Barrier::new(2);
    let page = |number| {
        if number == 0 {
            BOTH.wait();
        }
        (0..100).map(|n| format!("a{{n=\"{n}\"}} 1\n")).collect()
    };
    let mimir = StrictMimir::new();
    let (one, other) = (Pages::new(Page::Made(page)), Pages::new(Page::Made(page)));
    let more = scrape("one", &one.target(), "") + &scrape("other", &other.target(), "");
    let text = config(&mimir.url(), &more).replace("[metrics]\n", "[metrics]\nmax_series = 150\n");
    let mut agent = Agent::new(&text);
    agent.start();
    let ups = |job: &str| values(&mimir, "up", job);
    agent.wait("both", LONG, |_| ups("one").len() >= 3 && ups("other").len() >= 3);
    // One of them has the room, from its first scrape on, and the other is told why not.
    let (one, other) = (ups("one"), ups("other"));
    let all = |ups: &[Option<f64>], up: f64| ups.iter().all(|have| *have == Some(up));
    assert!(
        all(&one, 1.0) && all(&other, 0.0) || all(&one, 0.0) && all(&other, 1.0),
        "{one:?} {other:?}"
    );
    assert!(agent.log().contains("metrics.max_series"), "{}", agent.log());
    agent.terminate();
    mimir.tolerate_aborts();
}

#[test]
fn once_scrapes_each_target_once() {
    let mimir = StrictMimir::new();
    let pages = Pages::text("a 1\n");
    let more = scrape("one", &pages.target(), "interval = \"1h\"");
    let agent = Agent::new(&config(&mimir.url(), &more));
    let status = agent.command("run").arg("--once").stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    assert_eq!(values(&mimir, "a", "one"), [Some(1.0)]);
    assert_eq!(pages.requests().len(), 1);
    let head = pages.requests()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /metrics http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\naccept: text/plain;version=0.0.4"), "{head}");
    assert!(head.contains("\r\nx-prometheus-scrape-timeout-seconds: 10\r\n"), "{head}");
}

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The page of a real node_exporter.
fn node_exporter() -> String {
    let held = Port::new();
    let port = held.number();
    let child = Command::new("prometheus-node-exporter")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`cargo xtask setup` gets prometheus-node-exporter");
    let _exporter = Exporter(child);
    for _ in 0..300 {
        if let Some((200, page)) = request(port, "GET", "/metrics") {
            return page;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("node_exporter has no page");
}

/// What is written for the eye of a parser.
const ODD: &str = "# HELP odd A \\d help \\n text\n# TYPE odd untyped\nodd{a=\"\\\\ \\n \\\" \\d ü\",b=\"\"} 1e3\n\
                   odd{a=\"2\",} -Inf 1700000000000\nodd{le=\"x\"}\t+Inf\nodd:rule   0.1\n\
                   odd{job=\"mine\",instance=\"me\",exported_job=\"too\"} 5\nodd_nan NaN\n\
                   odd_twice 1\nodd_twice 2\n# comment\n\n# TYPE odd_last gauge\nodd_last -0";

#[test]
fn everything_is_as_a_prometheus_that_scrapes_the_same_page_has_it() {
    let of_itself = Prometheus::new();
    let own_page = request(of_itself.port(), "GET", "/metrics").unwrap().1;
    drop(of_itself);
    let pages = [node_exporter(), own_page, ODD.to_owned()].map(|page| Pages::text(&page));
    let targets: Vec<String> = pages.iter().map(Pages::target).collect();
    let honor = Pages::text("odd{job=\"mine\",instance=\"\"} 5\n");
    let prometheus = Prometheus::with_config(&format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n\
         - job_name: p\n  honor_timestamps: false\n  static_configs:\n  - targets: {targets:?}\n    labels: {{who: p}}\n\
         - job_name: h\n  honor_labels: true\n  static_configs:\n  - targets: [{:?}]\n    labels: {{who: p}}\n",
        honor.target()
    ));
    let more = format!(
        "[[scrape]]\njob = \"p\"\ntargets = {targets:?}\nlabels = {{ who = \"m\" }}\nlabel_value_length_limit = 65536\n\
         [[scrape]]\njob = \"h\"\ntargets = [{:?}]\nhonor_labels = true\nlabels = {{ who = \"m\" }}\n",
        honor.target()
    );
    let text =
        config(&prometheus.url(), &more).replace("[metrics]\n", "[metrics]\nmax_series = 20000\n");
    let mut agent = Agent::new(&text);
    agent.start();
    let count = |query: &str| prometheus.query(query).first().map_or(0.0, |s| s.samples[0].1);
    agent.wait("all targets of both", LONG, |_| {
        count("sum(up{who=\"p\"})") == 4.0 && count("sum(up{who=\"m\"})") == 4.0
    });
    // Once nothing is new any more.
    agent.wait("later scrapes", LONG, |_| {
        count("max(scrape_series_added{who=\"p\"})") == 0.0
            && count("max(scrape_series_added{who=\"m\"})") == 0.0
    });
    let all = |who: &str| -> BTreeMap<BTreeMap<String, String>, String> {
        let series = prometheus.query(&format!("{{who={who:?}}}"));
        let one = |mut series: support::prometheus::Series| {
            series.labels.remove("who");
            let value = series.samples[0].1;
            let name = series.labels["__name__"].clone();
            let value = if name == "scrape_duration_seconds" {
                "some".into()
            } else {
                format!("{value:?}")
            };
            (series.labels, value)
        };
        series.into_iter().map(one).collect()
    };
    let (theirs, mut ours) = (all("p"), all("m"));
    // What is empty on a page that is honoured keeps the target's label away, and gets the agent's as what
    // has no such label.
    for labels in ours.keys().cloned().collect::<Vec<_>>() {
        if labels.get("job").is_some_and(|job| job == "mine") {
            let value = ours.remove(&labels).unwrap();
            let mut without = labels;
            assert!(without.remove("instance").is_some());
            ours.insert(without, value);
        }
    }
    assert!(theirs.len() > 800, "{}", theirs.len());
    let differ: Vec<_> = theirs
        .iter()
        .filter(|(labels, value)| ours.get(*labels) != Some(value))
        .map(|(labels, value)| format!("{labels:?}: {value}, and {:?} here", ours.get(labels)))
        .collect();
    let more: Vec<_> = ours.keys().filter(|labels| !theirs.contains_key(*labels)).collect();
    assert!(differ.is_empty() && more.is_empty(), "{}\nonly here: {more:?}", differ.join("\n"));
    println!("{} series of {} targets are the same", theirs.len(), targets.len() + 1);
    agent.terminate();
}
