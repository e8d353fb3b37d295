//! Asks a running agent for its report, as `mote status` does.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Report;

const TIMEOUT: Duration = Duration::from_secs(5);

/// More than a report of a thousand series of everything.
const MAX_ANSWER: u64 = 4 << 20;

/// How many characters of what somebody else said are shown.
const MAX_SHOWN: usize = 200;

/// Why there is no report.
#[derive(Debug)]
pub enum FetchError {
    /// Nobody answers there.
    Connect(SocketAddr, io::Error),
    /// Somebody answers, and not an agent.
    Answer(SocketAddr, String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Connect(address, error) => write!(
                f,
                "asking the agent at http://{address}/api/v1/status: {error}; is it running, with this \
                 http.listen?"
            ),
            FetchError::Answer(address, what) => {
                write!(f, "what answers at http://{address}/api/v1/status is no agent: {what}")
            }
        }
    }
}

impl std::error::Error for FetchError {}

/// The report of the agent that listens at `address`.
///
/// # Errors
/// No connection, or an answer that is none.
pub fn fetch(address: SocketAddr) -> Result<Report, FetchError> {
    // An agent that listens everywhere is reached on loopback.
    let mut target = address;
    if address.ip().is_unspecified() {
        target.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let answer = get(target).map_err(|error| FetchError::Connect(target, error))?;
    parse(&answer).map_err(|what| FetchError::Answer(target, what))
}

/// The report in the bytes of an answer over HTTP/1.0, head included.
///
/// # Errors
/// What is wrong with the answer, cut at 200 characters: who sent it is no agent.
pub fn parse(answer: &[u8]) -> Result<Report, String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no HTTP")?;
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(shown(status));
    }
    serde_json::from_slice(body.get(4..).unwrap_or_default())
        .map_err(|error| shown(&error.to_string()))
}

/// For a terminal: short, and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn get(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // 1.0: the answer is neither chunked nor followed by another.
    write!(stream, "GET /api/v1/status HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.0 {status}\r\ncontent-type: application/json\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn a_report_comes_back() {
        let body = serde_json::to_string(&Report { pid: 7, ..Report::default() }).unwrap();
        assert_eq!(parse(&answer("200 OK", &body)).unwrap().pid, 7);
    }

    #[test]
    fn what_is_no_report_is_said_in_short() {
        let body = serde_json::to_string(&Report::default()).unwrap();
        for len in 0..body.len() {
            assert!(parse(&answer("200 OK", &body[..len])).is_err(), "{len}");
        }
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap_err(), "no HTTP");
        assert_eq!(parse(b"").unwrap_err(), "no HTTP");
        assert_eq!(
            parse(&answer("404 \x1b[31mred", "")).unwrap_err(),
            "HTTP/1.0 404  [31mred",
            "a terminal must not be told to do anything"
        );
        let long = format!("[{}", "x".repeat(9_999));
        assert!(parse(&answer(&long, "")).unwrap_err().len() <= MAX_SHOWN);
        // serde_json shows a token of the body.
        let body = format!("{{\"version\": 1, \"{}\": 1}}", "\u{1b}".repeat(999));
        let error = parse(&answer("200 OK", &body)).unwrap_err();
        assert!(error.len() <= MAX_SHOWN && !error.contains('\u{1b}'), "{error:?}");
        assert!(parse(&answer("200 OK", &"[".repeat(100_000))).is_err());
    }
}
