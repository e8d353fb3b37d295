//! GET, for what is scraped: the body goes to a sink in pieces as they come, so that nothing holds all of
//! it. It must not know what is scraped.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName, HeaderValue};

use super::Client;
use super::answer::{answered, redirects, words};
use super::client::{Answer, Ask};
use super::intake::{End, content_type};

/// What became of a GET. Every `why` is one line, as those of [`Outcome`](super::Outcome).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetOutcome {
    /// 2xx, and the sink has had all of the body.
    Whole {
        /// The status code.
        code: u16,
        /// The header `Content-Type`; empty if there is none.
        content_type: String,
        /// How long the body is.
        bytes: u64,
    },
    /// 2xx, and the sink wanted no more of the body.
    Stopped,
    /// 2xx, and the body has more bytes than were allowed; the sink has had some of them.
    TooLong {
        /// One line for the log.
        why: String,
    },
    /// Everything else: no connection, no answer in time, another status, a body that breaks off. The sink
    /// may have had some of it.
    Failed {
        /// The status code, if there was an answer.
        code: Option<u16>,
        /// One line for the log.
        why: String,
    },
}

impl Client {
    /// Fetches what is at the URL. `sink` is called with the answer's `Content-Type` and a piece of the body,
    /// which is never empty and may end anywhere, only if the status is 2xx; where it says false, the
    /// connection is closed. The whole exchange takes at most as long as the timeout says, and the body has at
    /// most `max_bytes`. An answer that is compressed is a failure: none is asked for.
    pub async fn get(
        &mut self,
        accept: &str,
        headers: &[(&str, &str)],
        max_bytes: u64,
        sink: &mut dyn FnMut(&str, &[u8]) -> bool,
    ) -> GetOutcome {
        let attempt = self.attempt("GET");
        let fail = |code, why| GetOutcome::Failed { code, why };
        let mut map = self.fixed_headers().clone();
        // Where that is left out, a server may compress as it likes (RFC 9110, section 12.5.3).
        map.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let pairs = headers.iter().copied().chain(Some((ACCEPT.as_str(), accept)));
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                (Ok(name), Ok(value)) => map.insert(name, value),
                _ => return fail(None, format!("{attempt}: the header {name:?} can't be sent")),
            };
        }
        let ask = Ask { method: Method::GET, headers: map, body: Bytes::new(), max_bytes };
        let Answer { code, headers, said, end, bytes, .. } =
            match self.ask(&ask, &mut Some(sink)).await {
                Ok(answer) => answer,
                Err(fault) => return fail(None, self.explain("GET", &fault)),
            };
        let mut why = answered(&attempt, code, &words(said.as_bytes()));
        if !(200..300).contains(&code) {
            if (300..400).contains(&code) {
                why = format!("{why}; {}", redirects(&headers));
            }
            return fail(Some(code), why);
        }
        match end {
            End::Whole => {
                GetOutcome::Whole { code, content_type: content_type(&headers).to_owned(), bytes }
            }
            End::Enough => GetOutcome::Stopped,
            End::TooLong => GetOutcome::TooLong {
                why: format!("{why}, and its body is longer than {max_bytes} bytes"),
            },
            End::Encoded(how) => fail(
                Some(code),
                format!("{why} with Content-Encoding {how:?}, which was not asked for"),
            ),
            End::Broken(error) => {
                fail(Some(code), format!("{why}, and then its body broke off: {error}"))
            }
            End::Timeout => {
                let seconds = self.options().timeout.as_secs_f64();
                fail(Some(code), format!("{why}, and its body has not ended within {seconds} s"))
            }
        }
    }
}
