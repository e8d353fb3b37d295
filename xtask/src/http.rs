//! A GET over plain HTTP on loopback, with a deadline: all that the commands need to ask the servers
//! they have started. It speaks HTTP/1.0, so that a body ends with the connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::Result;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESPONSE: u64 = 16 << 20;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status, such as 200.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: String,
}

/// A port on loopback that was free a moment ago.
///
/// # Errors
/// Loopback has none.
pub(crate) fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port on 127.0.0.1: {error}"))
}

/// Asks a server for `target`, a path with its query.
///
/// # Errors
/// No connection, no answer in 10 seconds, or one that is not HTTP.
pub(crate) fn get(address: SocketAddr, target: &str) -> Result<Response> {
    let fail = |error: std::io::Error| format!("GET http://{address}{target}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(fail)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(fail)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(fail)?;
    let request = format!("GET {target} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(fail)?;
    let mut answer = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut answer).map_err(fail)?;
    parse(&answer).map_err(|what| format!("GET http://{address}{target}: {what}"))
}

fn parse(answer: &[u8]) -> Result<Response> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Err(format!("the answer of {} bytes has no end of its head", answer.len()));
    };
    let (head, body) = answer.split_at(end);
    let (head, body) = (String::from_utf8_lossy(head), body.get(4..).unwrap_or_default());
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| format!("the answer begins with {first:?}"))?;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("{line:?} is not a header"));
        };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(format!("Transfer-Encoding {value:?}, which HTTP/1.0 does not know"));
        }
        if name.eq_ignore_ascii_case("content-length") && value.trim().parse() != Ok(body.len()) {
            return Err(format!("the body was cut: {value} bytes were announced"));
        }
    }
    Ok(Response { status, body: String::from_utf8_lossy(body).into_owned() })
}

/// Percent-encodes a value for a query.
pub(crate) fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let response = parse(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater").expect("good");
        assert_eq!((response.status, response.body.as_str()), (503, "later"));
    }

    #[test]
    fn a_bad_answer_is_an_error() {
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(encode("rate(a{b=\"c\"}[1m])"), "rate%28a%7Bb%3D%22c%22%7D%5B1m%5D%29");
    }
}
