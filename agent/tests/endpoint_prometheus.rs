//! Remote write to a real Prometheus, and what it then knows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::time::{Duration, SystemTime};

use mote::encode::RemoteWrite;
use mote::endpoint::{Client, Content, Options, Outcome, Url};
use support::Prometheus;

fn now_ms() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

const LABELS: [(&str, &str); 4] =
    [("__name__", "mote_test"), ("empty", ""), ("host", "a\"b\\c ü"), ("job", "test")];

#[tokio::test]
async fn samples_come_back_as_they_were_sent_over_a_restart() {
    let mut prometheus = Prometheus::new();
    let url = Url::parse(&prometheus.url()).unwrap();
    let timeout = Duration::from_secs(10);
    let mut client = Client::new(Options { timeout, ..Options::new(url) }).unwrap();
    let start = now_ms() - 60_000;
    let samples: Vec<(i64, f64)> =
        (0..10).map(|at| (start + at * 1000 + 7, 0.1 + at as f64 * 1e9)).collect();
    let mut request = RemoteWrite::new();
    request.series(LABELS.into_iter(), samples.iter().copied()).unwrap();
    let special = [(start, -0.0), (start + 1, f64::INFINITY), (start + 2, f64::NAN)];
    request.series([("__name__", "special")].into_iter(), special.into_iter()).unwrap();
    let outcome = client.post(Content::RemoteWrite1, request.finish()).await;
    assert_eq!(outcome, Outcome::accepted(204));

    let check = |prometheus: &Prometheus, expected: &[(i64, f64)]| {
        let series = prometheus.query("mote_test[1h]");
        assert_eq!(series.len(), 1, "{series:?}");
        let labels: Vec<_> = series[0].labels.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        assert_eq!(labels, [LABELS[0], LABELS[2], LABELS[3]]);
        let times: Vec<_> = expected.iter().map(|(time, _)| *time).collect();
        assert_eq!(series[0].times_ms(), times);
        let values = series[0].samples.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        assert_eq!(values, expected.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    };
    check(&prometheus, &samples);
    let special = prometheus.query("special[1h]");
    let special: Vec<_> = special[0].samples.iter().map(|(_, value)| *value).collect();
    assert_eq!(special[0].to_bits(), (-0.0f64).to_bits());
    assert!(special[1] == f64::INFINITY && special[2].is_nan(), "{special:?}");
    let at = (start + 9007) as f64 / 1000.0;
    assert_eq!(prometheus.query_at("mote_test", at)[0].samples[0].1, samples[9].1);
    let range = prometheus.query_range("mote_test", at - 5.0, at, 1.0);
    assert_eq!(range[0].samples.len(), 6);

    // The same again, as after a lost answer.
    let again = client.post(Content::RemoteWrite1, request.finish()).await;
    println!("an exact repeat of ten rounds: {again:?}");
    check(&prometheus, &samples);

    prometheus.stop();
    let mut next = RemoteWrite::new();
    let newest = (start + 30_000, 42.0);
    next.series(LABELS.into_iter(), [newest].into_iter()).unwrap();
    let dead = client.post(Content::RemoteWrite1, next.finish()).await;
    assert!(matches!(dead, Outcome::Retry { code: None, .. }), "{dead:?}");
    prometheus.start();
    let outcome = client.post(Content::RemoteWrite1, next.finish()).await;
    assert_eq!(outcome, Outcome::accepted(204));
    let mut all = samples.clone();
    all.push(newest);
    check(&prometheus, &all);

    prometheus.kill();
    prometheus.start();
    check(&prometheus, &all);
}

#[tokio::test]
async fn what_it_refuses_comes_with_its_words() {
    let prometheus = Prometheus::new();
    let client = |path: &str| {
        let url = Url::parse(&prometheus.url().replace("/api/v1/write", path)).unwrap();
        Client::new(Options::new(url)).unwrap()
    };
    let now = now_ms();
    let body = |time: i64, value: f64| {
        let mut request = RemoteWrite::new();
        request.series(LABELS.into_iter(), [(time, value)].into_iter()).unwrap();
        request.finish().to_vec()
    };
    let mut right = client("/api/v1/write");
    let outcome = right.post(Content::RemoteWrite1, &body(now, 1.0)).await;
    assert_eq!(outcome, Outcome::accepted(204));
    let outcome = right.post(Content::RemoteWrite1, &body(now, 1.0)).await;
    assert_eq!(outcome, Outcome::accepted(204), "an exact repeat of the newest sample");
    let outcome = right.post(Content::RemoteWrite1, &body(now - 1000, 1.0)).await;
    let Outcome::Refused { code: 400, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("out of order"), "{why}");
    let outcome = right.post(Content::RemoteWrite1, &body(now, 2.0)).await;
    let Outcome::Refused { code: 400, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("duplicate"), "{why}");
    let outcome = client("/nowhere").post(Content::RemoteWrite1, &body(now, 1.0)).await;
    let Outcome::Misconfigured { code: Some(code), why } = outcome else { panic!("{outcome:?}") };
    assert!([404, 405].contains(&code) && why.contains("/api/v1/write"), "{why}");
    assert_eq!(right.connections(), 1);
}
