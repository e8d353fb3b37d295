//! A link of a few bytes a second to a server on this machine: all connections over it share one rate on the
//! way to the server, and a connection that its client has given up carries nothing any more.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What goes in one piece.
const PIECE: usize = 256;

/// A link that lives as long as the test.
pub struct SlowLink {
    address: SocketAddr,
}

impl SlowLink {
    /// A link to this server that takes so many bytes a second.
    pub fn new(server: SocketAddr, bytes_a_second: u32) -> SlowLink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let free_at = Arc::new(Mutex::new(Instant::now()));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(to) = TcpStream::connect(server) else { continue };
                let (mut back, mut answers) =
                    (client.try_clone().unwrap(), to.try_clone().unwrap());
                let free_at = Arc::clone(&free_at);
                thread::spawn(move || {
                    carry(client, &to, bytes_a_second, &free_at);
                    let _ = to.shutdown(Shutdown::Both);
                });
                thread::spawn(move || {
                    let _ = std::io::copy(&mut answers, &mut back);
                    let _ = back.shutdown(Shutdown::Both);
                });
            }
        });
        SlowLink { address }
    }

    /// A server's URL by way of this link.
    pub fn url(&self, server: &str) -> String {
        let (_, path) = server.split_once("//").and_then(|(_, rest)| rest.split_once('/')).unwrap();
        format!("http://{}/{path}", self.address)
    }
}

fn carry(mut from: TcpStream, mut to: &TcpStream, rate: u32, free_at: &Mutex<Instant>) {
    let mut piece = [0; PIECE];
    while let Ok(read) = from.read(&mut piece) {
        if read == 0 || is_given_up(&from) || to.write_all(&piece[..read]).is_err() {
            return;
        }
        let until = {
            let mut free_at = free_at.lock().unwrap();
            let cost = Duration::from_secs_f64(read as f64 / f64::from(rate));
            *free_at = (*free_at).max(Instant::now()) + cost;
            *free_at
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

fn is_given_up(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
