//! A small HTTP/1.1 server that forgives nothing: it parses requests byte by byte, records every
//! violation, and follows a script of faults. It knows no telemetry; a [`Service`] does.
//!
//! A server whose violations nobody has looked at fails its test when it is dropped.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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

/// What a server does with requests.
pub trait Service: Send + 'static {
    /// The path that it answers at.
    const PATH: &'static str;

    /// Checks a request and, if `store`, keeps what it holds.
    fn serve(&mut self, request: &Request, store: bool, violations: &mut Vec<String>) -> Response;
}

/// What is sent back.
#[derive(Clone, Debug)]
enum Reply {
    /// The service's own answer.
    Own,
    Answer(Response),
    /// Not a byte.
    Close,
    /// A head that announces a body, and not a byte of it.
    CloseAfterHead(u16),
    /// Not a byte, and the connection stays.
    Never,
    /// A body without end.
    EndlessBody(u16),
    /// A head without end.
    EndlessHead,
    /// These bytes, then close.
    Garbage(Vec<u8>),
}

/// One step of a server's script: it takes the place of the answer to one request.
#[derive(Clone, Debug)]
pub struct Fault {
    accept: bool,
    early: bool,
    close: bool,
    delay: Duration,
    reply: Reply,
}

impl Fault {
    fn of(reply: Reply) -> Fault {
        Fault { accept: false, early: false, close: false, delay: Duration::ZERO, reply }
    }

    /// Answers so instead of accepting.
    pub fn status(code: u16) -> Fault {
        Fault::of(Reply::Answer(Response::new(code, "")))
    }

    /// Adds a header to [`status`](Fault::status).
    pub fn header(mut self, name: &str, value: &str) -> Fault {
        if let Reply::Answer(response) = &mut self.reply {
            response.headers.push((name.into(), value.into()));
        }
        self
    }

    /// Sets the body of [`status`](Fault::status).
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Fault {
        if let Reply::Answer(response) = &mut self.reply {
            response.body = body.into();
        }
        self
    }

    /// Reads the request and closes without a byte.
    pub fn close() -> Fault {
        Fault::of(Reply::Close)
    }

    /// Sends a head and closes without the body that it announces.
    pub fn close_after_head(code: u16) -> Fault {
        Fault::of(Reply::CloseAfterHead(code))
    }

    /// Says nothing until the client gives up or the server stops.
    pub fn never() -> Fault {
        Fault::of(Reply::Never)
    }

    /// Sends a body until the client closes.
    pub fn endless_body(code: u16) -> Fault {
        Fault::of(Reply::EndlessBody(code))
    }

    /// Sends headers until the client closes.
    pub fn endless_head() -> Fault {
        Fault::of(Reply::EndlessHead)
    }

    /// Sends these bytes and closes.
    pub fn garbage(bytes: impl Into<Vec<u8>>) -> Fault {
        Fault::of(Reply::Garbage(bytes.into()))
    }

    /// Stores what the request holds, and closes without a byte.
    pub fn accept_then_lose_answer() -> Fault {
        Fault::close().accepting()
    }

    /// Answers well, after this long.
    pub fn slow(delay: Duration) -> Fault {
        Fault { delay, ..Fault::of(Reply::Own).accepting() }
    }

    /// Stores what the request holds all the same.
    pub fn accepting(mut self) -> Fault {
        self.accept = true;
        self
    }

    /// Waits before it answers.
    pub fn after(mut self, delay: Duration) -> Fault {
        self.delay = delay;
        self
    }

    /// Answers once the head is read, before the body.
    pub fn early(mut self) -> Fault {
        self.early = true;
        self
    }

    /// Closes the connection after the answer, without having said so.
    pub fn then_close(mut self) -> Fault {
        self.close = true;
        self
    }
}

struct Shared<S> {
    service: Mutex<S>,
    changed: Condvar,
    script: Mutex<VecDeque<Fault>>,
    violations: Mutex<Vec<String>>,
    requests: Mutex<Vec<Request>>,
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    aborted: AtomicUsize,
    tolerate_aborts: AtomicBool,
    stopping: AtomicBool,
    /// Bytes of endless answers that were written.
    poured: AtomicUsize,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A server on a port of 127.0.0.1 that stays its own over [`stop`](Server::stop) and
/// [`start`](Server::start).
pub struct Server<S: Service> {
    address: SocketAddr,
    shared: Arc<Shared<S>>,
    acceptor: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Service> Server<S> {
    pub fn with(service: S) -> Server<S> {
        Server::build(service, None)
    }

    pub fn with_tls(service: S, config: rustls::ServerConfig) -> Server<S> {
        Server::build(service, Some(Arc::new(config)))
    }

    fn build(service: S, tls: Option<Arc<rustls::ServerConfig>>) -> Server<S> {
        let shared = Shared {
            service: Mutex::new(service),
            changed: Condvar::new(),
            script: Mutex::default(),
            violations: Mutex::default(),
            requests: Mutex::default(),
            streams: Mutex::default(),
            connections: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
            tolerate_aborts: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            poured: AtomicUsize::new(0),
            tls,
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of 127.0.0.1");
        let address = listener.local_addr().unwrap();
        let mut server = Server { address, shared: Arc::new(shared), acceptor: None };
        server.run(listener);
        server
    }

    fn run(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.acceptor = Some(std::thread::spawn(move || accept(&listener, &shared)));
    }

    /// Closes the port and every connection: a dead backend. What it has stored stays.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
        let _ = acceptor.join();
    }

    /// Opens the port again.
    pub fn start(&mut self) {
        assert!(self.acceptor.is_none(), "the server runs already");
        self.shared.stopping.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(self.address).expect("the same port again");
        self.run(listener);
    }

    /// Where to push to.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, S::PATH)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a step to the script; each request takes one, until there are none.
    pub fn script(&self, fault: Fault) {
        lock(&self.shared.script).push_back(fault);
    }

    /// Steps that no request has taken yet.
    pub fn script_left(&self) -> usize {
        lock(&self.shared.script).len()
    }

    /// Forgets the steps that no request has taken yet.
    pub fn clear_script(&self) {
        lock(&self.shared.script).clear();
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every whole request so far, with its body.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Requests that broke off. A violation each, unless [`tolerate_aborts`](Server::tolerate_aborts).
    pub fn aborted(&self) -> usize {
        self.shared.aborted.load(Ordering::SeqCst)
    }

    /// For tests that kill the client: a request that breaks off is no violation.
    pub fn tolerate_aborts(&self) {
        self.shared.tolerate_aborts.store(true, Ordering::SeqCst);
    }

    /// Bytes of endless answers that found their way into the socket.
    pub fn poured(&self) -> usize {
        self.shared.poured.load(Ordering::SeqCst)
    }

    /// Looks at what the service has stored.
    pub fn with_service<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&lock(&self.shared.service))
    }

    /// Waits until what the service has stored satisfies a condition.
    pub fn wait(&self, what: &str, limit: Duration, mut until: impl FnMut(&S) -> bool) {
        let end = Instant::now() + limit;
        let mut service = lock(&self.shared.service);
        while !until(&service) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(service);
                panic!(
                    "not within {limit:?}: {what}; {} connections, {} requests, violations: {:#?}",
                    self.connections(),
                    lock(&self.shared.requests).len(),
                    lock(&self.shared.violations)
                );
            }
            service = self
                .shared
                .changed
                .wait_timeout(service, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The violations so far, which are forgiven thereby.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.violations))
    }

    /// Fails the test if there was a violation.
    pub fn assert_clean(&self) {
        let violations = self.take_violations();
        assert!(violations.is_empty(), "violations: {violations:#?}");
    }
}

impl<S: Service> Drop for Server<S> {
    fn drop(&mut self) {
        self.stop();
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}

fn accept<S: Service>(listener: &TcpListener, shared: &Arc<Shared<S>>) {
    let mut workers = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept() else { break };
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = stream.set_nodelay(true);
        if let Ok(twin) = stream.try_clone() {
            lock(&shared.streams).push(twin);
        }
        let shared = shared.clone();
        workers.push(std::thread::spawn(move || converse(stream, &shared, connection)));
    }
    for stream in lock(&shared.streams).drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for worker in workers {
        let _ = worker.join();
    }
}

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

fn converse<S: Service>(tcp: TcpStream, shared: &Shared<S>, connection: usize) {
    let twin = tcp.try_clone();
    let stream: Box<dyn Duplex> = match &shared.tls {
        None => Box::new(tcp),
        Some(config) => match rustls::ServerConnection::new(config.clone()) {
            Ok(session) => Box::new(rustls::StreamOwned::new(session, tcp)),
            Err(_) => return,
        },
    };
    let mut reader = Reader { stream, pending: Vec::new() };
    while serve_one(&mut reader, shared, connection) {}
    if let Ok(twin) = twin {
        let _ = twin.shutdown(Shutdown::Both);
    }
}

/// Why there is no request.
enum Broken {
    /// The client closed where it may.
    End,
    /// It closed in the middle.
    Aborted(&'static str),
    /// It said something that is not HTTP.
    Violation(String),
}

/// Whether the connection goes on.
fn serve_one<S: Service>(reader: &mut Reader, shared: &Shared<S>, connection: usize) -> bool {
    let head = match reader.head(connection) {
        Ok(head) => head,
        Err(broken) => return give_up(reader, shared, broken),
    };
    let fault = lock(&shared.script).pop_front().unwrap_or(Fault::of(Reply::Own).accepting());
    if fault.early {
        std::thread::sleep(fault.delay);
        reply(reader, shared, &fault.reply, Response::new(200, ""));
        // What the client still sends is read, so that closing doesn't take the answer away with it.
        reader.read_out();
        return false;
    }
    let request = match reader.body(head) {
        Ok(request) => request,
        Err(broken) => return give_up(reader, shared, broken),
    };
    let mut violations = Vec::new();
    if !reader.pending.is_empty() {
        violations
            .push(format!("{} bytes after the body, before the answer", reader.pending.len()));
    }
    std::thread::sleep(fault.delay);
    let own = if request.method != "POST" {
        violations.push(format!("method {}", request.method));
        Response::new(405, "POST only")
    } else if request.target != S::PATH {
        violations.push(format!("target {}, not {}", request.target, S::PATH));
        Response::new(404, "no such path")
    } else {
        lock(&shared.service).serve(&request, fault.accept, &mut violations)
    };
    lock(&shared.requests).push(request);
    lock(&shared.violations).extend(violations);
    // The service's lock is taken so that a waiter is either before its look or in its wait.
    drop(lock(&shared.service));
    shared.changed.notify_all();
    reply(reader, shared, &fault.reply, own) && !fault.close
}

fn give_up<S: Service>(reader: &mut Reader, shared: &Shared<S>, broken: Broken) -> bool {
    if shared.stopping.load(Ordering::SeqCst) {
        return false;
    }
    match broken {
        Broken::End => {}
        Broken::Aborted(within) => {
            shared.aborted.fetch_add(1, Ordering::SeqCst);
            if !shared.tolerate_aborts.load(Ordering::SeqCst) {
                lock(&shared.violations).push(format!("the request broke off within its {within}"));
            }
        }
        Broken::Violation(what) => {
            lock(&shared.violations).push(what.clone());
            let _ = reader.answer(&Response::new(400, what));
        }
    }
    false
}

/// Whether the connection goes on.
fn reply<S: Service>(
    reader: &mut Reader,
    shared: &Shared<S>,
    reply: &Reply,
    own: Response,
) -> bool {
    match reply {
        Reply::Own => reader.answer(&own).is_ok(),
        Reply::Answer(response) => reader.answer(response).is_ok(),
        Reply::Close => false,
        Reply::CloseAfterHead(code) => {
            let _ =
                reader.send(format!("HTTP/1.1 {code} X\r\nContent-Length: 10\r\n\r\n").as_bytes());
            false
        }
        Reply::Never => {
            reader.read_out();
            false
        }
        Reply::EndlessBody(code) => {
            let head = format!("HTTP/1.1 {code} X\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            pour(reader, shared, &head, &chunk)
        }
        Reply::EndlessHead => {
            let header = format!("X-Endless: {}\r\n", "x".repeat(1000));
            pour(reader, shared, "HTTP/1.1 200 OK\r\n", &header)
        }
        Reply::Garbage(bytes) => {
            let _ = reader.send(bytes);
            false
        }
    }
}

/// Until the client closes, or after 256 MiB: then it swallows everything.
fn pour<S: Service>(reader: &mut Reader, shared: &Shared<S>, head: &str, again: &str) -> bool {
    let mut more = reader.send(head.as_bytes()).is_ok();
    while more && shared.poured.load(Ordering::SeqCst) < 256 << 20 {
        more = reader.send(again.as_bytes()).is_ok();
        if more {
            shared.poured.fetch_add(again.len(), Ordering::SeqCst);
        }
    }
    false
}

struct Reader {
    stream: Box<dyn Duplex>,
    pending: Vec<u8>,
}

impl Reader {
    fn more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        let read = self.stream.read(&mut chunk)?;
        self.pending.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    fn read_out(&mut self) {
        while matches!(self.more(), Ok(read) if read > 0) {
            self.pending.clear();
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    fn answer(&mut self, response: &Response) -> io::Result<()> {
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
    fn head(&mut self, connection: usize) -> Result<Request, Broken> {
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
        let request = Request { method, target, headers, body: Vec::new(), connection };
        match request.header("host") {
            Some(host) if !host.is_empty() => Ok(request),
            _ => violation("no Host".into()),
        }
    }

    fn body(&mut self, mut request: Request) -> Result<Request, Broken> {
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
