//! Requests read off a connection byte by byte, and answers written to it. Whatever RFC 9112 does not
//! allow a client to send is a violation.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

/// No request of a test is larger.
const MAX_BODY: usize = 64 << 20;
const MAX_HEAD: usize = 64 << 10;

/// One whole request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// As they were sent, in their order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection it came over, counted from 1.
    pub connection: usize,
    /// When its head had come.
    pub at: Instant,
    /// Whether a fault was played instead of the service's own answer, or on its way.
    pub faulty: bool,
    /// Whether what it holds was stored.
    pub stored: bool,
    /// The code of the fault's answer, if it has one.
    pub answer: Option<u16>,
    /// The client's address, as the server sees it.
    pub client: Option<SocketAddr>,
    /// Just before its answer was written.
    pub replied: Option<Instant>,
}

impl Request {
    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        let found = all.next();
        assert!(all.next().is_none(), "the header {name} stands twice");
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response { status, headers: Vec::new(), body: body.into() }
    }
}

/// Why there is no request.
pub enum Broken {
    /// The client closed where it may.
    End,
    /// It closed in the middle.
    Aborted(&'static str),
    /// It said something that is not HTTP.
    Violation(String),
}

pub trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// One connection, byte by byte.
pub struct Reader {
    pub(super) stream: Box<dyn Duplex>,
    /// Read, and not yet used.
    pub(super) pending: Vec<u8>,
}

impl Reader {
    fn more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        let read = self.stream.read(&mut chunk)?;
        self.pending.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    pub(super) fn read_out(&mut self) {
        while matches!(self.more(), Ok(read) if read > 0) {
            self.pending.clear();
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub(super) fn answer(&mut self, response: &Response) -> io::Result<()> {
        let mut bytes = format!("HTTP/1.1 {} X\r\n", response.status).into_bytes();
        for (name, value) in &response.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        // RFC 9110, section 8.6: none with 204.
        if response.status != 204 {
            let length = response.body.len();
            bytes.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&response.body);
        self.send(&bytes)
    }

    /// Takes bytes up to a CR LF.
    fn line(&mut self, within: &'static str, limit: usize) -> Result<String, Broken> {
        loop {
            if let Some(at) = self.pending.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=at).collect();
                let Some(line) = line.strip_suffix(b"\r\n") else {
                    return Err(Broken::Violation(format!(
                        "a line of the {within} ends without CR"
                    )));
                };
                let line = String::from_utf8(line.to_vec());
                return line.map_err(|_| Broken::Violation(format!("the {within} is not text")));
            }
            if self.pending.len() > limit {
                return Err(Broken::Violation(format!("the {within} is too long")));
            }
            match self.more() {
                Ok(1..) => {}
                _ if self.pending.is_empty() && within == "request line" => {
                    return Err(Broken::End);
                }
                _ => return Err(Broken::Aborted(within)),
            }
        }
    }

    /// A request without its body.
    pub(super) fn head(&mut self, connection: usize) -> Result<Request, Broken> {
        let violation = |what: String| Err(Broken::Violation(what));
        let line = self.line("request line", MAX_HEAD)?;
        let parts: Vec<_> = line.split(' ').collect();
        let [method, target, "HTTP/1.1"] = parts[..] else {
            return violation(format!("request line {line:?}"));
        };
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut headers: Vec<(String, String)> = Vec::new();
        loop {
            let line = self.line("head", MAX_HEAD)?;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                return violation(format!("header {line:?}"));
            };
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                return violation(format!("header name {name:?}"));
            }
            if value.chars().any(|c| c.is_control() && c != '\t') {
                return violation(format!("control character in header {line:?}"));
            }
            if headers.iter().any(|(have, _)| have.eq_ignore_ascii_case(name)) {
                return violation(format!("the header {name} stands twice"));
            }
            headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        let request = Request {
            method,
            target,
            headers,
            body: Vec::new(),
            connection,
            at: Instant::now(),
            faulty: false,
            stored: false,
            answer: None,
            client: None,
            replied: None,
        };
        match request.header("host") {
            Some(host) if !host.is_empty() => Ok(request),
            _ => violation("no Host".into()),
        }
    }

    pub(super) fn body(&mut self, mut request: Request) -> Result<Request, Broken> {
        let violation = |what: String| Err(Broken::Violation(what));
        let length = request.header("content-length").map(str::to_owned);
        let encoding = request.header("transfer-encoding").map(str::to_owned);
        match (length, encoding) {
            (Some(length), None) => {
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                match length.parse::<usize>() {
                    Ok(n) if digits && n <= MAX_BODY => request.body = self.exactly(n)?,
                    _ => return violation(format!("Content-Length {length:?}")),
                }
            }
            (None, Some(encoding)) if encoding.eq_ignore_ascii_case("chunked") => {
                request.body = self.chunks()?;
            }
            (length, encoding) => {
                return violation(format!(
                    "Content-Length {length:?} and Transfer-Encoding {encoding:?}"
                ));
            }
        }
        Ok(request)
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.pending.len() < length {
            match self.more() {
                Ok(1..) => {}
                _ => return Err(Broken::Aborted("body")),
            }
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.line("chunk", 1024)?;
            let size = usize::from_str_radix(&line, 16).ok().filter(|_| !line.starts_with('+'));
            let Some(size) = size.filter(|size| body.len() + size <= MAX_BODY) else {
                return Err(Broken::Violation(format!("chunk size {line:?}")));
            };
            body.extend(self.exactly(size)?);
            let end = self.line("chunk", 1024)?;
            if !end.is_empty() {
                return Err(Broken::Violation(format!("{end:?} after a chunk")));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
