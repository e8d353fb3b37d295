//! Asks a runtime's API for one container: `GET /containers/ID/json` over a Unix socket or TCP, with a
//! bound on time and bytes. It blocks; only the thread that looks names up calls it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::host::{Endpoint, http};

/// For all of it. Docker takes some milliseconds; a busy one on a card, some hundreds.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for a container. The status code, and the body.
pub(super) fn ask(endpoint: &Endpoint, id: &str) -> io::Result<(u16, Vec<u8>)> {
    let deadline = Instant::now() + TIMEOUT;
    match endpoint {
        Endpoint::Unix(path) => {
            let stream = connect(path)?;
            talk(&stream, id, || {
                let left = left(deadline)?;
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            })
        }
        Endpoint::Tcp(authority) => {
            let stream = connect_any(authority.to_socket_addrs()?, deadline)?;
            talk(&stream, id, || {
                let left = left(deadline)?;
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            })
        }
    }
}

/// Connects to the first of a host's addresses that takes it: `localhost` has one of each kind.
fn connect_any(
    addresses: impl Iterator<Item = SocketAddr>,
    deadline: Instant,
) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("a host without an address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Connects without waiting: where a server does not accept and its queue is full, that would be for ever.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn talk<S>(
    mut stream: S,
    id: &str,
    limit: impl Fn() -> io::Result<()>,
) -> io::Result<(u16, Vec<u8>)>
where
    S: Read + Write,
{
    limit()?;
    stream.write_all(request(id).as_bytes())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 8 << 10];
    loop {
        limit()?;
        let count = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if bytes.len() > http::MAX {
            return Err(io::Error::other("more than 1 MiB"));
        }
        match http::answer(&bytes) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(reason) => return Err(io::Error::other(reason)),
        }
    }
}

/// Without a version in the path: the newest that the server has.
fn request(id: &str) -> String {
    format!(
        "GET /containers/{id}/json HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
         User-Agent: mote\r\nConnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_several_addresses_is_reached_by_the_one_that_listens() {
        let [deaf, listens] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [&deaf, &listens].map(|listener| listener.local_addr().unwrap());
        drop(deaf);
        let deadline = Instant::now() + TIMEOUT;
        assert!(connect_any(addresses.into_iter(), deadline).is_ok());
        assert!(connect_any(addresses.into_iter().take(1), deadline).is_err());
        assert!(connect_any(std::iter::empty(), deadline).is_err());
    }
}
