//! Where the lines go: a stand-in for Loki that decodes every push, and a receiver of plain lines over
//! TCP. Both look for the numbers of the measurement's lines, so that a shipper that loses, repeats or
//! changes one is found out; whatever a Loki would refuse is an error of the whole measurement.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{lines, push};
use crate::Result;

const PATH: &str = "/loki/api/v1/push";
/// More is not asked of it.
const MAX_BODY: usize = 8 << 20;

/// What a receiver is sent.
#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    /// Pushes to Loki, protobuf in snappy.
    Loki,
    /// Lines that end in a line feed.
    Lines,
}

/// What has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Which of the measurement's lines.
    numbers: Vec<bool>,
    /// How many of them, each counted once.
    pub(crate) lines: u64,
    /// How many came again.
    pub(crate) again: u64,
    /// Other lines.
    pub(crate) others: u64,
    /// What was wrong first.
    pub(crate) wrong: Option<String>,
}

impl Seen {
    fn take(&mut self, line: &str) {
        let Some(number) = lines::number(line).and_then(|number| usize::try_from(number).ok())
        else {
            self.others += 1;
            return;
        };
        if self.numbers.len() <= number {
            self.numbers.resize(number + 1, false);
        }
        let Some(seen) = self.numbers.get_mut(number) else { return };
        match std::mem::replace(seen, true) {
            true => self.again += 1,
            false => self.lines += 1,
        }
    }
}

/// A receiver on a port of its own, for as long as the command lives.
#[derive(Clone)]
pub(crate) struct Receiver {
    /// Where it is.
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Receiver {
    /// Opens one.
    ///
    /// # Errors
    /// Loopback has no free port.
    pub(crate) fn start(protocol: Protocol) -> Result<Receiver> {
        let fail = |error| format!("no port for a receiver of lines: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&shared);
                thread::spawn(move || {
                    let served = match protocol {
                        Protocol::Loki => pushes(&stream, &seen),
                        Protocol::Lines => plain(&stream, &seen),
                    };
                    if let Err(why) = served {
                        lock(&seen).wrong.get_or_insert(why);
                    }
                });
            }
        });
        Ok(Receiver { address, seen })
    }

    /// What has come so far: lines, repeated ones, others, and the first thing that was wrong.
    pub(crate) fn seen(&self) -> Seen {
        let seen = lock(&self.seen);
        Seen { numbers: Vec::new(), wrong: seen.wrong.clone(), ..*seen }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plain(stream: &TcpStream, seen: &Mutex<Seen>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => lock(seen).take(line.trim_end()),
            Err(error) => return Err(format!("a line: {error}")),
        }
    }
}

fn pushes(stream: &TcpStream, seen: &Mutex<Seen>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let Some(length) = head(&mut reader)? else { return Ok(()) };
        let mut body = vec![0; length];
        reader.read_exact(&mut body).map_err(|error| format!("a body of {length}: {error}"))?;
        let mut came = Vec::new();
        let said = push::decode(&body, |line| came.push(line.to_owned()));
        let code = if said.is_ok() { "204 No Content" } else { "400 Bad Request" };
        if said.is_ok() {
            let mut seen = lock(seen);
            came.iter().for_each(|line| seen.take(line));
        }
        let mut writer = stream;
        write!(writer, "HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n")
            .map_err(|error| format!("an answer: {error}"))?;
        said?;
    }
}

/// A request's head; how long its body is, and None at the end of the connection.
fn head(reader: &mut impl BufRead) -> Result<Option<usize>> {
    let mut line = String::new();
    let (mut length, mut kind, mut first) = (None, None, true);
    loop {
        line.clear();
        let read = reader.read_line(&mut line).map_err(|error| format!("a head: {error}"))?;
        let text = line.trim_end();
        if read == 0 && first {
            return Ok(None);
        }
        if read == 0 || line.len() > 8 << 10 {
            return Err(format!("a head that ends in {text:?}"));
        }
        if std::mem::replace(&mut first, false) {
            if text != format!("POST {PATH} HTTP/1.1") {
                return Err(format!("{text:?}, which is no push"));
            }
        } else if text.is_empty() {
            break;
        } else if let Some((name, value)) = text.split_once(':') {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok(),
                "content-type" => kind = Some(value.to_owned()),
                "content-encoding" if value == "snappy" => {}
                "content-encoding" | "transfer-encoding" => return Err(format!("{name}: {value}")),
                _ => {}
            }
        } else {
            return Err(format!("{text:?} is no header"));
        }
    }
    match (length, kind.as_deref()) {
        (Some(length), Some("application/x-protobuf")) if length <= MAX_BODY => Ok(Some(length)),
        other => Err(format!("a push with this length and type: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_once_and_others_apart() {
        let mut seen = Seen::default();
        for number in [0, 2, 2, 1] {
            seen.take(lines::line(number).trim_end());
        }
        seen.take("hello");
        assert_eq!((seen.lines, seen.again, seen.others), (3, 1, 1));
    }

    #[test]
    fn a_request_that_loki_would_refuse_is_an_error() {
        let of = |text: &str| head(&mut text.as_bytes());
        let good = "POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(of(good), Ok(Some(5)));
        assert_eq!(of(""), Ok(None));
        for bad in [
            good.replace("POST", "GET"),
            good.replace("5", "x"),
            good.replace("5", "99999999"),
            good.replace("x-protobuf", "json"),
            good.replace("snappy", "gzip"),
            good.replace("Host: x", "Transfer-Encoding: chunked"),
            good.replace("Host: x", "nothing"),
            good.replace("\r\n\r\n", "\r\n"),
        ] {
            assert!(of(&bad).is_err(), "{bad:?} was taken");
        }
    }
}
