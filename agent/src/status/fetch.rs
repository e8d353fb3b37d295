//! Asks a running agent for its report, as `mote status` does.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Report;

const TIMEOUT: Duration = Duration::from_secs(5);

/// More than a report of a thousand series of everything.
const MAX_ANSWER: u64 = 4 << 20;

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
    let text = String::from_utf8_lossy(&answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(FetchError::Answer(target, "no HTTP".into()));
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(FetchError::Answer(target, status.chars().take(80).collect()));
    }
    serde_json::from_str(body).map_err(|error| FetchError::Answer(target, error.to_string()))
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
