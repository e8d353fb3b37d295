//! Through a proxy to a server: CONNECT (RFC 9110, section 9.3.6) and SOCKS 5 (RFC 1928, 1929). It must not
//! know what goes through the tunnel. What a proxy says is bounded and never shown with a password.

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pipe::Pipe;
use super::{Host, words};

/// The longest head of an answer to CONNECT.
const MAX_HEAD: usize = 8 << 10;

/// Why a proxy lets nothing through.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// The connection to it broke.
    Io(io::Error),
    /// It wants credentials, or others.
    Credentials(String),
    /// It does not allow this server.
    Forbidden(String),
    /// It can't reach the server, now.
    Unreachable(String),
    /// What it says is not the protocol.
    Protocol(&'static str),
}

impl From<io::Error> for TunnelError {
    fn from(error: io::Error) -> TunnelError {
        TunnelError::Io(error)
    }
}

impl std::fmt::Display for TunnelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TunnelError::Io(error) => write!(f, "{error}; the proxy gave up the connection"),
            TunnelError::Credentials(what) => write!(
                f,
                "{what}; check the user and password of proxy_url, or proxy_password_file"
            ),
            TunnelError::Forbidden(what) => {
                write!(
                    f,
                    "{what}; the proxy's own rules forbid this server: allow it there, or set no_proxy"
                )
            }
            TunnelError::Unreachable(what) => {
                write!(f, "{what}; the proxy can't reach the server")
            }
            TunnelError::Protocol(what) => write!(f, "{what}; is it a proxy of this kind?"),
        }
    }
}

/// `Basic` and what belongs behind it (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

/// Asks an HTTP proxy for a tunnel.
pub(super) async fn connect(
    pipe: &mut Pipe,
    host: &Host,
    port: u16,
    authorization: Option<&str>,
) -> Result<(), TunnelError> {
    let agent = env!("CARGO_PKG_VERSION");
    let mut request = format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: mote/{agent}\r\n"
    );
    if let Some(value) = authorization {
        request.push_str(&format!("Proxy-Authorization: {value}\r\n"));
    }
    request.push_str("\r\n");
    pipe.write_all(request.as_bytes()).await?;
    pipe.flush().await?;
    // The server speaks second, so that nothing of its bytes can be behind the head.
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = pipe.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        head.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if head.len() > MAX_HEAD {
            return Err(TunnelError::Protocol("its answer to CONNECT has a head without end"));
        }
    }
    answer(&head)
}

/// What a whole head of an answer to CONNECT means.
fn answer(head: &[u8]) -> Result<(), TunnelError> {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    let code = line
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .filter(|code| code.iter().all(u8::is_ascii_digit))
        .and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok())
        .ok_or(TunnelError::Protocol("its answer to CONNECT is not HTTP"))?;
    let said = || format!("CONNECT was answered {}", words(line.get(9..).unwrap_or_default()));
    match code {
        200..=299 if head.ends_with(b"\r\n\r\n") => Ok(()),
        200..=299 => Err(TunnelError::Protocol("something comes behind its answer to CONNECT")),
        407 => Err(TunnelError::Credentials(said())),
        401 | 403 | 405 => Err(TunnelError::Forbidden(said())),
        _ => Err(TunnelError::Unreachable(said())),
    }
}

/// What a whole head of an answer to CONNECT means, in words if it is no tunnel. For the fuzz targets.
///
/// # Errors
/// There is no tunnel.
#[doc(hidden)]
pub fn connect_answer(head: &[u8]) -> Result<(), String> {
    answer(head).map_err(|error| error.to_string())
}

/// Asks a SOCKS 5 proxy for a tunnel; a name is looked up by the proxy.
pub(super) async fn socks5(
    pipe: &mut Pipe,
    host: &Host,
    port: u16,
    user: Option<(&str, &str)>,
) -> Result<(), TunnelError> {
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    let refused = || TunnelError::Credentials("it takes no way to say who we are".into());
    let methods: &[u8] = if user.is_some() { &[5, 2, NONE, PASSWORD] } else { &[5, 1, NONE] };
    send(pipe, methods).await?;
    match (receive::<2>(pipe).await?, user) {
        ([5, NONE], _) => {}
        ([5, PASSWORD], Some((user, password))) => {
            let mut request = vec![1];
            short(&mut request, user.as_bytes()).ok_or_else(refused)?;
            short(&mut request, password.as_bytes()).ok_or_else(refused)?;
            send(pipe, &request).await?;
            let [version, status] = receive::<2>(pipe).await?;
            if version != 1 {
                return Err(TunnelError::Protocol("its answer is not SOCKS 5"));
            }
            if status != 0 {
                return Err(TunnelError::Credentials("it refuses user or password".into()));
            }
        }
        ([5, _], _) => return Err(refused()),
        _ => return Err(TunnelError::Protocol("its answer is not SOCKS 5")),
    }
    let mut request = vec![5, 1, 0];
    match host {
        Host::Address(IpAddr::V4(address)) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        Host::Address(IpAddr::V6(address)) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
        Host::Name(name) => {
            request.push(3);
            // A host's name has at most 254 bytes.
            short(&mut request, name.as_bytes())
                .ok_or(TunnelError::Protocol("the server's name is too long for it"))?;
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    send(pipe, &request).await?;
    let [version, reply, _, kind] = receive::<4>(pipe).await?;
    if version != 5 {
        return Err(TunnelError::Protocol("its answer is not SOCKS 5"));
    }
    match reply {
        0 => {}
        2 => return Err(TunnelError::Forbidden("it does not allow the connection".into())),
        _ => return Err(TunnelError::Unreachable(reason(reply))),
    }
    // The address that it connected from, and a port.
    let left = match kind {
        1 => 4 + 2,
        4 => 16 + 2,
        3 => usize::from(receive::<1>(pipe).await?[0]) + 2,
        _ => return Err(TunnelError::Protocol("its answer is not SOCKS 5")),
    };
    let mut rest = [0; 257];
    pipe.read_exact(rest.get_mut(..left).unwrap_or_default()).await?;
    Ok(())
}

/// RFC 1928, section 6.
fn reason(reply: u8) -> String {
    let what = match reply {
        1 => "general failure",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "unknown",
    };
    format!("it answered {reply} ({what})")
}

/// A length in one byte, and the bytes; None if there are too many or none.
fn short(request: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    let length = u8::try_from(bytes.len()).ok().filter(|&length| length > 0)?;
    request.push(length);
    request.extend_from_slice(bytes);
    Some(())
}

async fn send(pipe: &mut Pipe, bytes: &[u8]) -> io::Result<()> {
    pipe.write_all(bytes).await?;
    pipe.flush().await
}

async fn receive<const N: usize>(pipe: &mut Pipe) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    pipe.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_connect_are_told_apart() {
        let of = |head: &[u8]| answer(head).map_err(|error| error.to_string());
        assert_eq!(of(b"HTTP/1.1 200 Connection established\r\n\r\n"), Ok(()));
        assert_eq!(of(b"HTTP/1.0 200\r\nA: b\r\n\r\n"), Ok(()));
        let behind = of(b"HTTP/1.1 200 OK\r\n\r\n\x16").unwrap_err();
        assert!(behind.contains("something comes behind"), "{behind}");
        let credentials = of(b"HTTP/1.1 407 Proxy \x1b Authentication\r\n\r\n").unwrap_err();
        assert!(
            credentials
                .starts_with("CONNECT was answered 407 Proxy   Authentication; check the user"),
            "{credentials}"
        );
        assert!(of(b"HTTP/1.1 403 Filtered\r\n\r\n").unwrap_err().contains("forbid this server"));
        assert!(of(b"HTTP/1.1 502 x\r\n\r\n").unwrap_err().contains("can't reach the server"));
        for garbage in
            ["", "\r\n\r\n", "HTTP/1.", "HTTP/1.1 2", "HTTP/2 200\r\n\r\n", "HTTP/1.1 +20 x"]
        {
            assert!(of(garbage.as_bytes()).unwrap_err().contains("not HTTP"), "{garbage:?}");
        }
    }
}
