//! What goes over the wire, counted: a TCP proxy that hands everything on and counts the bytes of the
//! client, heads of HTTP and records of TLS included. It must not know what it carries.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::Result;

/// A proxy on a port of its own, for as long as the command lives.
pub(crate) struct Wire {
    /// Where the client goes.
    pub(crate) address: SocketAddr,
    sent: Arc<AtomicUsize>,
}

impl Wire {
    /// Opens one before `upstream`.
    ///
    /// # Errors
    /// Loopback has no free port.
    pub(crate) fn before(upstream: SocketAddr) -> Result<Wire> {
        let fail = |error| format!("no port for a proxy before {upstream}: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is not there is seen by the client as a connection that breaks.
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone())
                else {
                    continue;
                };
                let counter = Arc::clone(&counter);
                thread::spawn(move || carry(from_client, to_server, Some(&counter)));
                thread::spawn(move || carry(server, client, None));
            }
        });
        Ok(Wire { address, sent })
    }

    /// Bytes of the client so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst) as u64
    }
}

/// One direction until its end, which is passed on.
fn carry(mut from: TcpStream, mut to: TcpStream, counter: Option<&AtomicUsize>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        if let Some(counter) = counter {
            counter.fetch_add(read, Ordering::SeqCst);
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_s_bytes_are_counted_and_nothing_is_changed() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let wire = Wire::before(server.local_addr().expect("an address")).expect("a port");
        let mut client = TcpStream::connect(wire.address).expect("the proxy");
        client.write_all(b"12345").expect("taken");
        client.shutdown(Shutdown::Write).expect("an end");
        let (mut peer, _) = server.accept().expect("the proxy");
        let mut got = Vec::new();
        peer.read_to_end(&mut got).expect("the end is passed on");
        assert_eq!(got, b"12345");
        peer.write_all(b"an answer").expect("taken");
        drop(peer);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer");
        assert_eq!((answer.as_str(), wire.sent()), ("an answer", 5));
    }
}
