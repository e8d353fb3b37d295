//! TLS against a private CA that the test makes: what is trusted, and what is said when it is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::time::Duration;

use mote::encode::RemoteWrite;
use mote::endpoint::{
    Client, Content, MinVersion, Options, OptionsError, Outcome, TlsError, TlsOptions, Url,
};
use support::certificates::Ca;
use support::{Fault, StrictMimir};

fn options(mimir: &StrictMimir, tls: TlsOptions) -> Options {
    Options {
        tls,
        timeout: Duration::from_secs(10),
        ..Options::new(Url::parse(&mimir.url()).unwrap())
    }
}

fn trusting(ca: &Ca) -> TlsOptions {
    TlsOptions { ca_file: Some(ca.file()), ..TlsOptions::default() }
}

async fn post(client: &mut Client, time: i64) -> Outcome {
    let mut request = RemoteWrite::new();
    request.series([("__name__", "up")].into_iter(), [(time, 1.0)].into_iter()).unwrap();
    client.post(Content::RemoteWrite1, request.finish()).await
}

/// What the client says of a server whose handshake must fail.
async fn refusal(mimir: &StrictMimir, tls: TlsOptions) -> String {
    let outcome = post(&mut Client::new(options(mimir, tls)).unwrap(), 1).await;
    assert!(mimir.requests().is_empty(), "nothing is sent to a server that is not trusted");
    match outcome {
        Outcome::Retry { code: None, after: None, why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_right_ca_is_trusted_and_the_connection_kept() {
    let ca = Ca::new();
    let mimir = StrictMimir::with_tls(ca.server(&["127.0.0.1"]));
    let mut client = Client::new(options(&mimir, trusting(&ca))).unwrap();
    for time in 1..=5 {
        assert_eq!(post(&mut client, time).await, Outcome::accepted(200));
    }
    assert_eq!(mimir.connections(), 1);
    mimir.script(Fault::close());
    assert_eq!(post(&mut client, 6).await, Outcome::accepted(200));
    assert_eq!((mimir.connections(), mimir.samples("up", &[]).len()), (2, 6));
}

#[tokio::test]
async fn a_large_request_arrives_whole() {
    let ca = Ca::new();
    let mimir = StrictMimir::with_tls(ca.server(&["127.0.0.1"]));
    let mut client = Client::new(options(&mimir, trusting(&ca))).unwrap();
    let mut request = RemoteWrite::new();
    for index in 0..20_000u64 {
        let name = format!("metric_{}", index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        request
            .series([("__name__", name.as_str())].into_iter(), [(1, index as f64)].into_iter())
            .unwrap();
    }
    let outcome = client.post(Content::RemoteWrite1, request.finish()).await;
    assert_eq!(outcome, Outcome::accepted(200));
    assert_eq!(mimir.with_service(|stored| stored.samples), 20_000);
}

#[tokio::test]
async fn an_unknown_ca_is_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mimir = StrictMimir::with_tls(ca.server(&["127.0.0.1"]));
    let why = refusal(&mimir, trusting(&other)).await;
    assert!(why.contains("UnknownIssuer"), "{why}");
    assert!(why.contains("none of the CAs in tls.ca_file"), "{why}");
    let (old, new) = (Ca::named("home"), Ca::named("home"));
    let mimir = StrictMimir::with_tls(new.server(&["127.0.0.1"]));
    let why = refusal(&mimir, trusting(&old)).await;
    assert!(why.contains("was the CA made anew?"), "{why}");
}

#[tokio::test]
async fn the_systems_cas_do_not_know_a_private_one() {
    let ca = Ca::new();
    let mimir = StrictMimir::with_tls(ca.server(&["127.0.0.1"]));
    let mut client = Client::new(options(&mimir, TlsOptions::default())).unwrap();
    let outcome = post(&mut client, 1).await;
    // Without the package ca-certificates there is none at all, which has a message of its own.
    match &outcome {
        Outcome::Retry { code: None, why, .. } => assert!(why.contains("set tls.ca_file"), "{why}"),
        Outcome::Misconfigured { code: None, why } => {
            assert!(why.contains("no CA certificates"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(mimir.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_that_name_is_expected() {
    let ca = Ca::new();
    let mimir = StrictMimir::with_tls(ca.server(&["mimir.lan"]));
    let why = refusal(&mimir, trusting(&ca)).await;
    assert!(why.contains("certificate is for another name"), "{why}");
    assert!(why.contains("tls.server_name"), "{why}");
    let tls = TlsOptions { server_name: Some("mimir.lan".into()), ..trusting(&ca) };
    let mut client = Client::new(options(&mimir, tls)).unwrap();
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    let tls = TlsOptions { server_name: Some("loki.lan".into()), ..trusting(&ca) };
    let outcome = post(&mut Client::new(options(&mimir, tls)).unwrap(), 2).await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
}

#[tokio::test]
async fn whoever_wants_no_verification_gets_none() {
    let ca = Ca::new();
    let mimir = StrictMimir::with_tls(ca.server(&["mimir.lan"]));
    let tls = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
    let mut client = Client::new(options(&mimir, tls)).unwrap();
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_wants_one() {
    let ca = Ca::new();
    let mimir = StrictMimir::with_tls(ca.server_with_client_auth(&["127.0.0.1"]));
    let (cert_file, key_file) = ca.client();
    let tls = TlsOptions {
        cert_file: Some(cert_file.clone()),
        key_file: Some(key_file),
        ..trusting(&ca)
    };
    let mut client = Client::new(options(&mimir, tls)).unwrap();
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    let without = post(&mut Client::new(options(&mimir, trusting(&ca))).unwrap(), 2).await;
    assert!(matches!(without, Outcome::Retry { code: None, .. }), "{without:?}");
    let tls = TlsOptions { cert_file: Some(cert_file), ..trusting(&ca) };
    let error = Client::new(options(&mimir, tls)).unwrap_err();
    assert!(matches!(error, OptionsError::Tls(TlsError::Pair)), "{error}");
}

#[tokio::test]
async fn a_server_older_than_wanted_is_refused() {
    let ca = Ca::new();
    let mimir = StrictMimir::with_tls(ca.server_tls12(&["127.0.0.1"]));
    let mut client = Client::new(options(&mimir, trusting(&ca))).unwrap();
    assert_eq!(post(&mut client, 1).await, Outcome::accepted(200));
    let tls = TlsOptions { min_version: MinVersion::Tls13, ..trusting(&ca) };
    let outcome = post(&mut Client::new(options(&mimir, tls)).unwrap(), 2).await;
    let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("TLS with 127.0.0.1: "), "{why}");
}

#[tokio::test]
async fn the_wrong_scheme_is_told_in_both_directions() {
    let ca = Ca::new();
    let plain = StrictMimir::new();
    let url = Url::parse(&plain.url().replace("http:", "https:")).unwrap();
    let tls_to_plain = Options { tls: trusting(&ca), ..Options::new(url) };
    let outcome = post(&mut Client::new(tls_to_plain).unwrap(), 1).await;
    let Outcome::Retry { code: None, why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("is the URL's scheme http?"), "{why}");
    plain.take_violations();

    let secure = StrictMimir::with_tls(ca.server(&["127.0.0.1"]));
    let url = Url::parse(&secure.url().replace("https:", "http:")).unwrap();
    let outcome = post(&mut Client::new(Options::new(url)).unwrap(), 1).await;
    assert!(matches!(outcome, Outcome::Retry { code: None, .. }), "{outcome:?}");
    secure.take_violations();
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let ca = Ca::new();
    let url = || Url::parse("https://127.0.0.1:1/push").unwrap();
    let error = |tls| Client::new(Options { tls, ..Options::new(url()) }).unwrap_err().to_string();
    let missing = TlsOptions { ca_file: Some("/nonexistent/ca".into()), ..TlsOptions::default() };
    assert!(error(missing).contains("tls.ca_file /nonexistent/ca: No such file"));
    let (cert_file, key_file) = ca.client();
    let key_as_ca = TlsOptions { ca_file: Some(key_file), ..TlsOptions::default() };
    assert!(error(key_as_ca).contains("it holds no certificate"));
    let cert_as_key = TlsOptions {
        cert_file: Some(cert_file.clone()),
        key_file: Some(cert_file),
        ..trusting(&ca)
    };
    assert!(error(cert_as_key).contains("it holds no private key"));
    let garbage = ca.dir().join("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n")
        .unwrap();
    let garbage = TlsOptions { ca_file: Some(garbage), ..TlsOptions::default() };
    assert!(error(garbage).contains("not a PEM file"));
    let name = TlsOptions { server_name: Some("a b".into()), ..TlsOptions::default() };
    assert!(error(name).contains("tls.server_name \"a b\""));
}
