//! What servers, proxies and their users say: URLs, lists of hosts, answers to requests; and the file of what they
//! were sent.

use std::time::{Duration, SystemTime};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use mote::endpoint::{
    MAX_RETRY_AFTER, Outcome, ProxyUrl, Url, connect_answer, judge, names_directly, words,
};
use mote::pipeline::egress_of;

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
        let outcome = judge(&|| "POST http://h/".to_owned(), code, &headers, &said, now);
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

/// `URL [line break] list [line break] list`: both lists together name what one of them names.
pub fn no_proxy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let Ok(url) = Url::parse(lines.next().unwrap_or_default()) else { return };
    let [one, other] = [(); 2].map(|()| lines.next().unwrap_or_default());
    let names = |list: &str| names_directly(list, url.host(), url.port());
    let either = names(one) || names(other);
    assert_eq!(names(&format!("{one},{other}")), either);
    assert_eq!(names(&format!("{other}, {one}").to_uppercase().to_lowercase()), {
        names(&one.to_uppercase().to_lowercase()) || names(&other.to_uppercase().to_lowercase())
    });
    assert!(names(&format!("{one},*")));
    assert!(names(&url.authority().to_string()), "{url} is not named by itself");
}

/// The head of a proxy's answer to CONNECT: a tunnel is there only after a whole and good one.
pub fn connect(data: &[u8]) {
    match connect_answer(data) {
        Ok(()) => {
            assert!(data.starts_with(b"HTTP/1.") && data.get(9) == Some(&b'2'));
            assert!(data.ends_with(b"\r\n\r\n"));
        }
        Err(why) => {
            one_line(&why);
            assert!(why.len() < 4 << 10, "{why}");
        }
    }
}

/// `[odd: the checksum is set right] [the most of a day u64] [now i64] [sent u64] [file]`.
pub fn egress(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let (daily, now_ms, sent) = (input.u64(), input.u64() as i64, input.u64());
    let mut bytes = input.0.to_vec();
    if flags & 1 != 0
        && let Some(body) = bytes.len().checked_sub(4)
    {
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
    }
    let Some((again, [before, after])) = egress_of(&bytes, daily, now_ms, sent) else { return };
    assert_eq!(again, bytes, "one meaning, one form");
    assert!(after || !before, "what was used up is there again");
    assert!(after || sent < daily, "more than a day's bytes");
}

fn one_line(text: &str) {
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
}
