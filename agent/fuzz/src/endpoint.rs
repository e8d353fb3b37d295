//! What servers and their users say: URLs, and answers to requests.

use std::time::{Duration, SystemTime};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use mote::endpoint::{MAX_RETRY_AFTER, Outcome, ProxyUrl, Url, judge, words};

use super::bytes::Input;

/// A URL, of a server and of a proxy; its own notation of host and port reads back as the same.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match ProxyUrl::parse(&text) {
        Ok(proxy) => {
            let again = ProxyUrl::parse(&proxy.to_string()).expect("its own notation");
            assert_eq!((again.kind(), again.to_string()), (proxy.kind(), proxy.to_string()));
            assert!(again.user().is_none(), "a user is not shown");
        }
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.column), "{text:?}"),
    }
    match Url::parse(&text) {
        Ok(url) => {
            let scheme = if url.is_tls() { "https" } else { "http" };
            let again = Url::parse(&format!("{scheme}://{}/", url.authority()));
            let again = again.expect("its own host and port");
            assert_eq!((again.host(), again.port()), (url.host(), url.port()));
            let shown = url.to_string();
            match shown.split_once('?') {
                Some((_, query)) => assert_eq!(query, "…", "a query may hold a key"),
                None => assert_eq!(Url::parse(&shown).as_ref(), Ok(&url)),
            }
            assert!(!shown.contains(char::is_control));
        }
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.column), "{text:?}: {error}");
        }
    }
}

/// `[code u16] [a header each: 0 Retry-After, 1 Date, 2 Location, and its value]* [0xff] [body]`.
pub fn answer(data: &[u8]) {
    const NAMES: [HeaderName; 3] =
        [hyper::header::RETRY_AFTER, hyper::header::DATE, hyper::header::LOCATION];
    let mut input = Input(data);
    let code = input.u16();
    let mut headers = HeaderMap::new();
    while !input.is_empty() {
        let Some(name) = NAMES.get(usize::from(input.u8())) else { break };
        // What hyper would not take from a server, nobody has to judge.
        if let Ok(value) = HeaderValue::from_bytes(input.short()) {
            headers.insert(name, value);
        }
    }
    one_line(&words(input.0));
    let said = String::from_utf8_lossy(input.0);
    let words = words(said.as_bytes());
    one_line(&words);
    assert!(words.chars().count() <= 512);
    for now in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 31)] {
        let outcome = judge("POST http://h/", code, &headers, &said, now);
        assert_eq!(outcome.code(), Some(code));
        assert_eq!(matches!(outcome, Outcome::Accepted { .. }), (200..300).contains(&code));
        if let Outcome::Retry { after: Some(after), .. } = outcome {
            assert!(after <= MAX_RETRY_AFTER);
        }
        if let Some(why) = outcome.why() {
            one_line(why);
            assert!(why.contains(&words) && why.len() < 8 << 10, "{why}");
        }
    }
}

fn one_line(text: &str) {
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
}
