//! What lies between a client and a server: passes bytes on, or breaks connections in the ways in which networks
//! and proxies do. It knows no HTTP.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::Request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Passed on to another server.
    To(SocketAddr),
    /// Closed at once.
    Close,
    /// Reset at once.
    Reset,
    /// Read, and never answered.
    Silent,
    /// Not read and not answered.
    Deaf,
    /// Passed on after this long.
    Late(Duration),
    /// Reset when so many bytes of the request have passed.
    ResetRequest(usize),
    /// Closed when so many bytes of the request have passed.
    CloseRequest(usize),
    /// The request passes; the answer is cut after so many bytes by a reset.
    ResetAnswer(usize),
    /// The request passes; the answer is cut after so many bytes.
    CloseAnswer(usize),
    /// The answer comes byte by byte with this pause between two.
    SlowAnswer(Duration),
    /// The server's side is closed at once, and the client is read.
    HalfClosed,
    /// The request passes; instead of the answer, the server's side is closed.
    HalfClosedAnswer,
}

type Source = Box<dyn FnMut() -> Option<Wire> + Send>;

struct Shared {
    target: SocketAddr,
    source: Mutex<Option<Source>>,
    /// When each connection came that did not simply pass.
    played: Mutex<Vec<Instant>>,
    /// Of those, the ones that have not ended.
    live: AtomicUsize,
    /// All that have not ended.
    open: AtomicUsize,
    /// The gate's own addresses of connections to the server that did not simply pass.
    bad: Mutex<BTreeSet<SocketAddr>>,
    stopping: AtomicBool,
}

/// A gate at a port of its own.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// At a port of 127.0.0.1.
    pub fn before(target: SocketAddr) -> Gate {
        Gate::at("127.0.0.1:0", target)
    }

    /// At this address.
    pub fn at(address: &str, target: SocketAddr) -> Gate {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            source: Mutex::default(),
            played: Mutex::default(),
            live: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            bad: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let acceptor = Some(std::thread::spawn(move || accept(&listener, &own)));
        Gate { address, shared, acceptor }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on each new connection meets what this says; None passes.
    pub fn play(&self, source: impl FnMut() -> Option<Wire> + Send + 'static) {
        *lock(&self.shared.source) = Some(Box::new(source));
    }

    /// The end of [`play`](Gate::play), for new connections.
    pub fn rest(&self) {
        *lock(&self.shared.source) = None;
    }

    /// When each connection came that did not simply pass.
    pub fn played(&self) -> Vec<Instant> {
        lock(&self.shared.played).clone()
    }

    /// Whether a request came to the server over one of them.
    pub fn broke(&self, request: &Request) -> bool {
        request.client.is_some_and(|client| lock(&self.shared.bad).contains(&client))
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many of them have not ended.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut workers = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let wire = lock(&shared.source).as_mut().and_then(|source| source());
        if wire.is_some() {
            lock(&shared.played).push(Instant::now());
            shared.live.fetch_add(1, Ordering::SeqCst);
        }
        workers.retain(|worker: &JoinHandle<()>| !worker.is_finished());
        shared.open.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        workers.push(std::thread::spawn(move || {
            let _ = client.set_nodelay(true);
            // Whatever breaks here is what the client is to see.
            let _ = converse(client, wire, &shared);
            if wire.is_some() {
                shared.live.fetch_sub(1, Ordering::SeqCst);
            }
            shared.open.fetch_sub(1, Ordering::SeqCst);
        }));
    }
    for worker in workers {
        let _ = worker.join();
    }
}

/// The connection is closed when this returns.
fn converse(mut client: TcpStream, wire: Option<Wire>, shared: &Shared) -> io::Result<()> {
    match wire {
        Some(Wire::Close) => return Ok(()),
        Some(Wire::Reset) => return reset(client),
        Some(Wire::Silent) => return swallow(&mut client, shared),
        Some(Wire::Deaf) => {
            while wait(&client, PollFlags::HUP | PollFlags::RDHUP, shared).is_ok() {}
            return Ok(());
        }
        Some(Wire::Late(pause)) => {
            let end = Instant::now() + pause;
            // Whom nobody waits for any more is not passed on.
            while Instant::now() < end {
                wait(&client, PollFlags::HUP | PollFlags::RDHUP, shared)?;
            }
        }
        Some(Wire::HalfClosed) => client.shutdown(Shutdown::Write)?,
        _ => {}
    }
    let target = match wire {
        Some(Wire::To(other)) => other,
        _ => shared.target,
    };
    let server = TcpStream::connect(target)?;
    server.set_nodelay(true)?;
    if wire.is_some() {
        lock(&shared.bad).insert(server.local_addr()?);
    }
    pass(client, server, wire, shared)
}

/// Closed so that the other side gets a reset.
fn reset(stream: TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}

/// Reads until the client closes.
fn swallow(client: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = [0; 4 << 10];
    loop {
        if !wait(client, PollFlags::IN, shared)? {
            continue;
        }
        if client.read(&mut buffer)? == 0 {
            return Ok(());
        }
    }
}

/// Whether one of these came within a moment; an error when the gate is closed, or the connection.
fn wait(stream: &TcpStream, flags: PollFlags, shared: &Shared) -> io::Result<bool> {
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut polled = [PollFd::new(stream, flags)];
    let count = poll(&mut polled, Some(&moment))?;
    if shared.stopping.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    if !flags.contains(PollFlags::IN) && count > 0 {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(count > 0)
}

fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    wire: Option<Wire>,
    shared: &Shared,
) -> io::Result<()> {
    let (mut up, mut down) = (0, 0);
    let (mut from_client, mut from_server) = (true, true);
    let mut buffer = [0; 16 << 10];
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    while from_client || from_server {
        let flags = |on| if on { PollFlags::IN } else { PollFlags::empty() };
        let mut polled = [
            PollFd::from_borrowed_fd(client.as_fd(), flags(from_client)),
            PollFd::from_borrowed_fd(server.as_fd(), flags(from_server)),
        ];
        poll(&mut polled, Some(&moment))?;
        if shared.stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
        let ready = polled.map(|polled| !polled.revents().is_empty());
        if ready[0] && from_client {
            let room = match wire {
                Some(Wire::ResetRequest(most) | Wire::CloseRequest(most)) => most - up,
                _ => buffer.len(),
            };
            let room = room.min(buffer.len());
            let read = client.read(&mut buffer[..room])?;
            if read == 0 {
                from_client = false;
                server.shutdown(Shutdown::Write)?;
            }
            server.write_all(&buffer[..read])?;
            up += read;
            match wire {
                Some(Wire::ResetRequest(most)) if up >= most => return reset(client),
                Some(Wire::CloseRequest(most)) if up >= most => return Ok(()),
                _ => {}
            }
        }
        if ready[1] && from_server {
            let read = server.read(&mut buffer)?;
            if read == 0 {
                from_server = false;
                let _ = client.shutdown(Shutdown::Write);
            }
            let bytes = &buffer[..read];
            match wire {
                Some(Wire::HalfClosed) => {}
                Some(Wire::HalfClosedAnswer) => client.shutdown(Shutdown::Write)?,
                Some(Wire::ResetAnswer(most) | Wire::CloseAnswer(most)) if down + read >= most => {
                    client.write_all(&bytes[..most - down])?;
                    if wire == Some(Wire::ResetAnswer(most)) {
                        // What was sent is to be read before the reset takes it away.
                        std::thread::sleep(Duration::from_millis(5));
                        return reset(client);
                    }
                    return Ok(());
                }
                Some(Wire::SlowAnswer(pause)) => {
                    for byte in bytes {
                        client.write_all(&[*byte])?;
                        std::thread::sleep(pause);
                        if shared.stopping.load(Ordering::SeqCst) {
                            return Ok(());
                        }
                    }
                }
                _ => client.write_all(bytes)?,
            }
            down += read;
        }
    }
    Ok(())
}
