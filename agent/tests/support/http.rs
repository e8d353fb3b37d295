//! A small HTTP/1.1 server that forgives nothing: it records every violation, and follows a script of
//! faults. It knows no telemetry; a [`Service`] does.
//!
//! A server whose violations nobody has looked at fails its test when it is dropped.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::fault::Reply;
use super::message::{Broken, Duplex, Reader};
use super::port::Port;

pub use super::fault::Fault;
pub use super::message::{Request, Response};

/// What a server does with requests.
pub trait Service: Send + 'static {
    /// The path that it answers at.
    const PATH: &'static str;

    /// Checks a request and, if `store`, keeps what it holds.
    fn serve(&mut self, request: &Request, store: bool, violations: &mut Vec<String>) -> Response;
}

type Source = Box<dyn FnMut() -> Option<Fault> + Send>;

struct Shared<S> {
    service: Mutex<S>,
    changed: Condvar,
    script: Mutex<VecDeque<Fault>>,
    /// What comes behind the script, until it is taken away.
    source: Mutex<Option<Source>>,
    /// How many bytes a request may have, and the code for those that have more.
    limit: Mutex<Option<(usize, u16)>>,
    /// Faults that were played.
    played: AtomicUsize,
    /// Whether something on the way breaks what passes.
    bad_way: AtomicBool,
    violations: Mutex<Vec<String>>,
    requests: Mutex<Vec<Request>>,
    /// When the answer to each of `requests` was written; None if it could not be, or is not yet.
    answered: Mutex<Vec<Option<Instant>>>,
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    /// The client of the newest connection.
    newest: Mutex<Option<SocketAddr>>,
    /// Connections that have not ended.
    live: AtomicUsize,
    /// Requests that have begun to arrive and are not answered.
    busy: AtomicUsize,
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
    port: Port,
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
            source: Mutex::default(),
            limit: Mutex::default(),
            played: AtomicUsize::new(0),
            bad_way: AtomicBool::new(false),
            violations: Mutex::default(),
            requests: Mutex::default(),
            answered: Mutex::default(),
            streams: Mutex::default(),
            connections: AtomicUsize::new(0),
            newest: Mutex::default(),
            live: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
            tolerate_aborts: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            poured: AtomicUsize::new(0),
            tls,
        };
        let mut server = Server { port: Port::new(), shared: Arc::new(shared), acceptor: None };
        server.run();
        server
    }

    fn run(&mut self) {
        let listener = TcpListener::bind(self.port.address()).expect("a port that is held");
        let shared = self.shared.clone();
        self.acceptor = Some(std::thread::spawn(move || accept(&listener, &shared)));
    }

    /// Closes the port and every connection: a dead backend. What it has stored stays.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it is to stop.
        let _ = TcpStream::connect(self.port.address());
        let _ = acceptor.join();
    }

    /// Opens the port again.
    pub fn start(&mut self) {
        assert!(self.acceptor.is_none(), "the server runs already");
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.run();
    }

    /// Where to push to.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.port.address(), S::PATH)
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
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

    /// As [`requests`](Server::requests), the newest alone.
    pub fn newest(&self, count: usize) -> Vec<Request> {
        let requests = lock(&self.shared.requests);
        requests[requests.len().saturating_sub(count)..].to_vec()
    }

    /// When the answer to each of [`requests`](Server::requests) was written.
    pub fn answered(&self) -> Vec<Option<Instant>> {
        lock(&self.shared.answered).clone()
    }

    /// From now on each request that the script leaves meets what this says; None is the service's own answer.
    pub fn play(&self, source: impl FnMut() -> Option<Fault> + Send + 'static) {
        *lock(&self.shared.source) = Some(Box::new(source));
    }

    /// The end of [`play`](Server::play).
    pub fn rest(&self) {
        *lock(&self.shared.source) = None;
    }

    /// From now on requests whose bodies have more bytes are answered with this code.
    pub fn limit(&self, bytes: usize, code: u16) {
        *lock(&self.shared.limit) = Some((bytes, code));
    }

    /// How many faults were played to whole requests and early answers.
    pub fn played(&self) -> usize {
        self.shared.played.load(Ordering::SeqCst)
    }

    /// Whether something between client and server breaks what passes: requests are marked so.
    pub fn bad_way(&self, bad: bool) {
        self.shared.bad_way.store(bad, Ordering::SeqCst);
    }

    /// Requests that have begun to arrive and are not answered.
    pub fn busy(&self) -> usize {
        self.shared.busy.load(Ordering::SeqCst)
    }

    /// For a client that is dead: waits until all that it has sent is stored or given up, so that what
    /// its successor sends comes after it.
    pub fn settle(&self) {
        let limit = Instant::now() + Duration::from_secs(30);
        let wait = |until: &dyn Fn() -> bool| {
            while !until() {
                assert!(Instant::now() < limit, "connections of a dead client don't end");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        // Connections are accepted in their order, so all others are once this one is.
        let last = TcpStream::connect(self.port.address()).unwrap();
        let own = last.local_addr().unwrap();
        wait(&|| *lock(&self.shared.newest) == Some(own));
        drop(last);
        wait(&|| self.shared.live.load(Ordering::SeqCst) == 0);
        lock(&self.shared.streams).clear();
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

    /// Changes how the service behaves.
    pub fn change(&self, change: impl FnOnce(&mut S)) {
        change(&mut lock(&self.shared.service));
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
        let Ok((stream, client)) = listener.accept() else { break };
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = stream.set_nodelay(true);
        if let Ok(twin) = stream.try_clone() {
            lock(&shared.streams).push(twin);
        }
        shared.live.fetch_add(1, Ordering::SeqCst);
        *lock(&shared.newest) = Some(client);
        let shared = shared.clone();
        workers.push(std::thread::spawn(move || {
            converse(stream, &shared, connection);
            shared.live.fetch_sub(1, Ordering::SeqCst);
        }));
    }
    for stream in lock(&shared.streams).drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for worker in workers {
        let _ = worker.join();
    }
}

fn converse<S: Service>(tcp: TcpStream, shared: &Shared<S>, connection: usize) {
    let (twin, client) = (tcp.try_clone(), tcp.peer_addr().ok());
    let stream: Box<dyn Duplex> = match &shared.tls {
        None => Box::new(tcp),
        Some(config) => match rustls::ServerConnection::new(config.clone()) {
            Ok(session) => Box::new(rustls::StreamOwned::new(session, tcp)),
            Err(_) => return,
        },
    };
    let mut reader = Reader { stream, pending: Vec::new() };
    loop {
        let head = reader.head(connection);
        shared.busy.fetch_add(1, Ordering::SeqCst);
        let more = serve_one(&mut reader, shared, head, client);
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        if !more {
            break;
        }
    }
    if let Ok(twin) = twin {
        let _ = twin.shutdown(Shutdown::Both);
    }
}

/// Whether the connection goes on.
fn serve_one<S: Service>(
    reader: &mut Reader,
    shared: &Shared<S>,
    head: Result<Request, Broken>,
    client: Option<SocketAddr>,
) -> bool {
    let head = match head {
        Ok(head) => head,
        Err(broken) => return give_up(reader, shared, broken),
    };
    let scripted = lock(&shared.script).pop_front();
    let scripted = scripted.or_else(|| lock(&shared.source).as_mut().and_then(|source| source()));
    let faulty = scripted.is_some();
    let fault = scripted.unwrap_or(Fault::of(Reply::Own).accepting());
    if fault.early {
        shared.played.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(fault.delay);
        reply(reader, shared, &fault.reply, Response::new(200, ""));
        // What the client still sends is read, so that closing doesn't take the answer away with it.
        reader.read_out();
        return false;
    }
    let mut request = match reader.body(head) {
        Ok(request) => request,
        Err(broken) => return give_up(reader, shared, broken),
    };
    shared.played.fetch_add(usize::from(faulty), Ordering::SeqCst);
    request.faulty = faulty || shared.bad_way.load(Ordering::SeqCst);
    request.stored = fault.accept;
    request.client = client;
    if let Reply::Answer(response) = &fault.reply {
        request.answer = Some(response.status);
    }
    let mut violations = Vec::new();
    if !reader.pending.is_empty() {
        violations
            .push(format!("{} bytes after the body, before the answer", reader.pending.len()));
    }
    std::thread::sleep(fault.delay);
    let limit = *lock(&shared.limit);
    let own = if let Some((_, code)) = limit.filter(|(bytes, _)| request.body.len() > *bytes) {
        request.faulty = true;
        Response::new(code, "too large")
    } else if request.method != "POST" {
        violations.push(format!("method {}", request.method));
        Response::new(405, "POST only")
    } else if request.target != S::PATH {
        violations.push(format!("target {}, not {}", request.target, S::PATH));
        Response::new(404, "no such path")
    } else {
        lock(&shared.service).serve(&request, fault.accept, &mut violations)
    };
    if own.status >= 400 {
        // Refused, whatever of that the client gets to know.
        request.stored = false;
        if matches!(fault.reply, Reply::Own) {
            request.answer = Some(own.status);
        }
    }
    let number = {
        let mut requests = lock(&shared.requests);
        requests.push(request);
        lock(&shared.answered).push(None);
        requests.len() - 1
    };
    lock(&shared.violations).extend(violations);
    // The service's lock is taken so that a waiter is either before its look or in its wait.
    drop(lock(&shared.service));
    shared.changed.notify_all();
    std::thread::sleep(fault.late);
    // A server does not say yes to what it refuses.
    let says_yes = match &fault.reply {
        Reply::Answer(answer) => answer.status < 300,
        Reply::CloseAfterHead(code) => *code < 300,
        _ => false,
    };
    let reply_by = if says_yes && own.status >= 400 { &Reply::Own } else { &fault.reply };
    lock(&shared.requests)[number].replied = Some(Instant::now());
    let more = reply(reader, shared, reply_by, own);
    if more {
        lock(&shared.answered)[number] = Some(Instant::now());
    }
    more && !fault.close
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
