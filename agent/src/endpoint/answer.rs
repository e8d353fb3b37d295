//! What a server's answer means for the request: away with it, once more, or mend the configuration
//! first. It must not know what the request held, nor who waits.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use hyper::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};

use super::own_words;

/// The most that a server may ask for with Retry-After; more is a fault of the server's or of a clock.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How many bytes of an answer are kept.
pub const MAX_SAID: usize = 4 << 10;

/// How many characters of an answer are kept for messages.
const MAX_WORDS: usize = 512;

/// What a receiver of remote write 2.0 says that it has written, each None where it does not say so
/// (specification 2.0, "Required Written Response Headers"). A receiver of 1.0 says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Samples.
    pub samples: Option<u64>,
    /// Native histograms.
    pub histograms: Option<u64>,
    /// Exemplars.
    pub exemplars: Option<u64>,
}

impl Written {
    fn of(headers: &HeaderMap) -> Written {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        Written {
            samples: number("x-prometheus-remote-write-samples-written"),
            histograms: number("x-prometheus-remote-write-histograms-written"),
            exemplars: number("x-prometheus-remote-write-exemplars-written"),
        }
    }
}

/// What became of a request. Every `why` is one line with the URL (without its query), what was
/// attempted, what came back and what can be done; never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it (2xx): the cursor moves.
    Accepted {
        /// The status code.
        code: u16,
        /// What it says that it has written.
        written: Written,
    },
    /// Not now (5xx, 429, 408, no connection, no answer in time): the same request again, later.
    Retry {
        /// The status code, if there was an answer.
        code: Option<u16>,
        /// How long the server wants to be left alone; at most an hour.
        after: Option<Duration>,
        /// One line for the log.
        why: String,
        /// There was a connection, and no answer over it: the link may be too slow for a request of this
        /// size, or something on the way refuses it.
        slow: bool,
    },
    /// Never (other 4xx): this request is wrong, and stays wrong. The cursor moves; what the request
    /// held is counted as dropped. The server may have stored a part of it.
    Refused {
        /// The status code.
        code: u16,
        /// One line for the log, with the server's words.
        why: String,
        /// What the server said, up to [`MAX_SAID`] bytes of it, for who understands it.
        said: String,
        /// What it says that it has written.
        written: Written,
    },
    /// No request can succeed until somebody mends the configuration here or on the server (3xx, 401,
    /// 403, 404, 405, 407, 411, 415, 421, 426, 431, an unreadable secret, no CA certificates). Nothing is dropped: the same
    /// request again, slowly.
    Misconfigured {
        /// The status code, if there was an answer.
        code: Option<u16>,
        /// One line for the log.
        why: String,
    },
}

impl Outcome {
    /// All is well, and nothing more was said.
    pub fn accepted(code: u16) -> Outcome {
        Outcome::Accepted { code, written: Written::default() }
    }

    /// The status code, if there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Outcome::Accepted { code, .. } | Outcome::Refused { code, .. } => Some(*code),
            Outcome::Retry { code, .. } | Outcome::Misconfigured { code, .. } => *code,
        }
    }

    /// The line for the log; none if all is well.
    pub fn why(&self) -> Option<&str> {
        match self {
            Outcome::Accepted { .. } => None,
            Outcome::Retry { why, .. }
            | Outcome::Refused { why, .. }
            | Outcome::Misconfigured { why, .. } => Some(why),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Accepted,
    Retry,
    Refused,
    Misconfigured,
}

fn class(code: u16) -> Class {
    match code {
        200..=299 => Class::Accepted,
        // 405 is what a web server says to a POST at a page of its own, and 415 what a receiver of another
        // protocol says: the URL is wrong, not the samples, and dropping all of them would not help. So with 411
        // (a server that takes no HTTP/2 without a length), 421 (a name that the server does not serve over
        // this connection: tls.server_name is another than the host), 426 and 431 (headers).
        300..=399 | 401 | 403 | 404 | 405 | 407 | 411 | 415 | 421 | 426 | 431 => {
            Class::Misconfigured
        }
        408 | 429 => Class::Retry,
        400..=499 => Class::Refused,
        // 5xx, and whatever no server should say.
        _ => Class::Retry,
    }
}

/// As [`class`], but where the words say that the code says too little.
fn class_of(code: u16, said: &str) -> Class {
    let says = |words: &str| own_words(said).contains(words);
    match code {
        // gRPC between the parts of a server, which a larger request never passes.
        500 if says("message larger than max") => Class::Refused,
        // Loki answers 400 if the last entry that it refused was not refused for the rate. What it has of the
        // others already it does not take twice.
        400 if says("er stream rate limit exceeded") => Class::Retry,
        code => class(code),
    }
}

/// The meaning of an answer. `attempt` says what was attempted, such as `POST http://…`, where there is something to
/// tell, and `said` is the answer's body.
pub fn judge(
    attempt: &dyn Fn() -> String,
    code: u16,
    headers: &HeaderMap,
    said: &str,
    now: SystemTime,
) -> Outcome {
    let why = || explain(&attempt(), code, headers, &words(said.as_bytes()));
    match class_of(code, said) {
        Class::Accepted => Outcome::Accepted { code, written: Written::of(headers) },
        Class::Retry => Outcome::Retry {
            code: Some(code),
            after: retry_after(headers, now),
            why: why(),
            slow: false,
        },
        Class::Refused => Outcome::Refused {
            code,
            why: why(),
            said: said.to_owned(),
            written: Written::of(headers),
        },
        Class::Misconfigured => Outcome::Misconfigured { code: Some(code), why: why() },
    }
}

/// What was attempted and what came back, with the server's words.
pub(super) fn answered(attempt: &str, code: u16, words: &str) -> String {
    let mut why = format!("{attempt} was answered {code}");
    let reason = hyper::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
    if let Some(reason) = reason {
        why.push(' ');
        why.push_str(reason);
    }
    if !words.is_empty() {
        why.push_str(": ");
        why.push_str(words);
    }
    why
}

/// What is said of a redirect.
pub(super) fn redirects(headers: &HeaderMap) -> Cow<'static, str> {
    match headers.get(LOCATION).and_then(|to| location(to.as_bytes())) {
        Some(to) => format!("the server redirects to {to}; set url to where it is").into(),
        None => "the server redirects; set url to where it is".into(),
    }
}

fn explain(attempt: &str, code: u16, headers: &HeaderMap, words: &str) -> String {
    let mut why = answered(attempt, code, words);
    let hint: Cow<'static, str> = match code {
        300..=399 => redirects(headers),
        401 => "check basic_auth, bearer_token_file and tenant".into(),
        403 => "the server knows these credentials and forbids the push; check rights and tenant"
            .into(),
        404 | 405 => "check the path of url: Mimir's is /api/v1/push, Prometheus' /api/v1/write \
                      (with --web.enable-remote-write-receiver), Loki's /loki/api/v1/push"
            .into(),
        407 => "the proxy wants credentials: check the user and password of proxy_url, or proxy_password_file".into(),
        421 => "the server does not serve this name over this connection: the host of url and tls.server_name have to be the same to it"
            .into(),
        415 => "the server does not take this protocol; check url and protocol".into(),
        _ => return why,
    };
    why.push_str("; ");
    why.push_str(&hint);
    why
}

/// Where a redirect leads, without what may be a secret in it.
fn location(value: &[u8]) -> Option<String> {
    let to = words(value);
    let to = to.split(['?', '#']).next().unwrap_or_default();
    (!to.is_empty() && !to.contains('@')).then(|| to.to_owned())
}

/// The first 512 characters of what a server said, as one line without control characters.
pub fn words(body: &[u8]) -> String {
    // Four bytes are the most that a character takes; one cut in two at the end is left out below.
    let body = body.get(..MAX_WORDS * 4 + 4).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let line = text.trim().chars().take(MAX_WORDS);
    line.map(|c| if hides(c) { ' ' } else { c }).collect::<String>().trim_end().to_owned()
}

/// Control characters, and those that make a terminal or a log viewer show something else.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Retry-After as seconds or as an HTTP date, at most [`MAX_RETRY_AFTER`]. A date is measured against
/// the server's own Date where it gives one: the clock of a board may be years off.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default().min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn a_server_that_is_not_meant_says_what_to_look_at() {
        let outcome =
            judge(&|| "POST https://h/".into(), 421, &HeaderMap::new(), "", SystemTime::UNIX_EPOCH);
        let why = outcome.why().unwrap_or_default();
        assert!(why.starts_with("POST https://h/ was answered 421 Misdirected Request; "), "{why}");
        assert!(why.contains("tls.server_name"), "{why}");
    }

    #[test]
    fn every_status_code_has_its_class() {
        for code in 0..=1000u16 {
            let expected = match code {
                200..=299 => Class::Accepted,
                300..=399 | 401 | 403 | 404 | 405 | 407 | 411 | 415 | 421 | 426 | 431 => {
                    Class::Misconfigured
                }
                429 | 408 => Class::Retry,
                400..=499 => Class::Refused,
                _ => Class::Retry,
            };
            assert_eq!(class(code), expected, "{code}");
        }
    }

    #[test]
    fn words_that_say_more_than_the_code_are_heeded() {
        let large = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)";
        assert_eq!(class_of(500, large), Class::Refused);
        assert_eq!(class_of(500, "ingester is tired"), Class::Retry);
        let rate = "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec)";
        assert_eq!(class_of(400, rate), Class::Retry);
        assert_eq!(class_of(400, "entry too far behind"), Class::Refused);
    }

    #[test]
    fn a_labels_text_says_nothing() {
        let labels =
            r#"stream '{msg="per stream rate limit exceeded"}' has 16 label names; limit 15"#;
        assert_eq!(class_of(400, labels), Class::Refused);
        let long = "stream '{a=\"b\"}' has label value too long: 'Per stream rate limit exceeded'";
        assert_eq!(class_of(400, long), Class::Refused);
        let series = r#"the series {msg="message larger than max"} can't be written now"#;
        assert_eq!(class_of(500, series), Class::Retry);
        let json = r#"{"message":"grpc: received message larger than max (5 vs. 4)"}"#;
        assert_eq!(class_of(500, json), Class::Refused);
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &str)| {
            (hyper::header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date_within_an_hour() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // 06 Nov 1994 08:49:37
        let of = |value: &str| retry_after(&headers(&[("retry-after", value)]), now);
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(of("0"), seconds(0));
        assert_eq!(of("7"), seconds(7));
        assert_eq!(of(" 7 "), seconds(7));
        assert_eq!(of("3601"), seconds(3600));
        assert_eq!(of("99999999999999999999999999"), seconds(3600));
        assert_eq!(of("Sun, 06 Nov 1994 08:50:07 GMT"), seconds(30));
        assert_eq!(of("Sunday, 06-Nov-94 08:50:07 GMT"), seconds(30));
        assert_eq!(of("Sun, 06 Nov 1994 07:00:00 GMT"), seconds(0));
        assert_eq!(of("Sun, 06 Nov 2094 07:00:00 GMT"), None, "the weekday is wrong");
        assert_eq!(of("Sat, 06 Nov 2094 07:00:00 GMT"), seconds(3600));
        for garbage in ["", "-1", "1.5", "+1", "1s", "soon", "0x10", "١"] {
            let value = HeaderValue::from_bytes(garbage.as_bytes()).unwrap();
            let map = HeaderMap::from_iter([(RETRY_AFTER, value)]);
            assert_eq!(retry_after(&map, now), None, "{garbage:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_date_is_measured_against_the_servers_own() {
        let both = headers(&[
            ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]);
        assert_eq!(retry_after(&both, SystemTime::UNIX_EPOCH), Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_is_written_is_said_by_numbers_alone() {
        let of = |value: &str| {
            Written::of(&headers(&[("x-prometheus-remote-write-samples-written", value)])).samples
        };
        assert_eq!(
            (of("0"), of(" 12 "), of("18446744073709551615")),
            (Some(0), Some(12), Some(u64::MAX))
        );
        for garbage in ["", "-1", "1.5", "1e3", "18446744073709551616", "many"] {
            assert_eq!(of(garbage), None, "{garbage:?}");
        }
        assert_eq!(Written::of(&HeaderMap::new()), Written::default());
    }

    #[test]
    fn words_are_short_and_on_one_line() {
        assert_eq!(words(b"  out of\r\norder\x1b[31m\0 "), "out of  order [31m");
        assert_eq!(words(&[b'x'; 9999]).len(), 512);
        assert_eq!(words("ü".repeat(600).as_bytes()).chars().count(), 512);
        assert_eq!(words("\u{10348}".repeat(600).as_bytes()), "\u{10348}".repeat(512));
        assert_eq!(words(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert_eq!(words("a\u{202e}b\u{2028}c".as_bytes()), "a b c");
        assert_eq!(words(b"\n \n"), "");
    }

    #[test]
    fn a_redirect_says_where_to_without_a_query() {
        let map = headers(&[("location", "https://h/push?key=hunter2")]);
        let outcome = judge(&|| "POST http://h/".into(), 301, &map, "", SystemTime::UNIX_EPOCH);
        let why = outcome.why().unwrap();
        assert!(why.contains("redirects to https://h/push;"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
        let map = headers(&[("location", "https://u:hunter2@h/")]);
        let outcome = judge(&|| "POST http://h/".into(), 301, &map, "", SystemTime::UNIX_EPOCH);
        assert!(!outcome.why().unwrap().contains("hunter2"));
    }
}
