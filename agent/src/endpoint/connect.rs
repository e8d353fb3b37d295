//! From a URL to a stream of bytes: name lookup, TCP, TLS. It must not know HTTP.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Host, Url};

/// The most that one of several addresses gets before the next one's turn: a network with a broken IPv6
/// swallows connections without a word.
const ADDRESS_SHARE: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The host's name has no address.
    Lookup { host: String, source: io::Error },
    /// The name resolves to nothing.
    NoAddress { host: String },
    /// The last address that was tried.
    Tcp { address: SocketAddr, source: io::Error },
    /// The TCP connection stands, and TLS fails.
    Tls { name: String, source: io::Error, private_ca: bool },
    /// The time is up.
    Timeout { doing: &'static str },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Lookup { host, source } => {
                write!(f, "looking up {host}: {source}; check the name and this machine's DNS")
            }
            ConnectError::NoAddress { host } => write!(f, "looking up {host}: it has no address"),
            ConnectError::Tcp { address, source } => {
                write!(f, "connecting to {address}: {source}")?;
                match source.kind() {
                    io::ErrorKind::ConnectionRefused => {
                        f.write_str("; is the server running, and is the port right?")
                    }
                    _ => f.write_str("; check the address and the network"),
                }
            }
            ConnectError::Tls { name, source, private_ca } => {
                write!(f, "TLS with {name}: {source}")?;
                f.write_str(tls_hint(source, *private_ca))
            }
            ConnectError::Timeout { doing } => write!(f, "{doing}: no answer"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectError::Lookup { source, .. }
            | ConnectError::Tcp { source, .. }
            | ConnectError::Tls { source, .. } => Some(source),
            ConnectError::NoAddress { .. } | ConnectError::Timeout { .. } => None,
        }
    }
}

fn tls_hint(source: &io::Error, private_ca: bool) -> &'static str {
    use CertificateError as C;
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            C::UnknownIssuer if private_ca => {
                "; its certificate is signed by none of the CAs in tls.ca_file"
            }
            C::UnknownIssuer => {
                "; its certificate is signed by no CA that this system knows: set tls.ca_file"
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "; its certificate is for another name: correct url, or set tls.server_name"
            }
            C::BadSignature => {
                "; its CA has the name of one that is trusted, and another key: was the CA made anew?"
            }
            C::Expired | C::ExpiredContext { .. } => "; renew it, or set this machine's clock",
            C::NotValidYet | C::NotValidYetContext { .. } => "; is this machine's clock right?",
            _ => "; the server's certificate can't be used",
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "; the server does not speak TLS at this port: is the URL's scheme http?"
        }
        _ => "",
    }
}

/// A connection, and whether a byte has come back over it.
pub(super) struct Stream {
    inner: Inner,
    heard: Arc<AtomicBool>,
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// TLS as a connection needs it.
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    pub(super) private_ca: bool,
}

/// Connects before the deadline. `heard` is set when the first byte above TLS arrives, and again after
/// whoever watches it has cleared it.
pub(super) async fn connect(
    url: &Url,
    tls: Option<Tls>,
    heard: Arc<AtomicBool>,
    deadline: Instant,
) -> Result<Stream, ConnectError> {
    let tcp = match url.host() {
        Host::Address(address) => dial(&[(*address, url.port()).into()], deadline).await?,
        Host::Name(name) => dial(&look_up(name, url.port(), deadline).await?, deadline).await?,
    };
    // A request is written whole; waiting for more to send only delays it.
    let _ = tcp.set_nodelay(true);
    let Some(tls) = tls else {
        return Ok(Stream { inner: Inner::Plain(tcp), heard });
    };
    let name = tls.name.to_str().into_owned();
    let handshake = TlsConnector::from(tls.config).connect(tls.name, tcp);
    match timeout_at(deadline, handshake).await {
        Err(_) => Err(ConnectError::Timeout { doing: "TLS handshake" }),
        Ok(Err(source)) => Err(ConnectError::Tls { name, source, private_ca: tls.private_ca }),
        Ok(Ok(stream)) => Ok(Stream { inner: Inner::Tls(Box::new(stream)), heard }),
    }
}

async fn look_up(
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let found = timeout_at(deadline, tokio::net::lookup_host((host, port)))
        .await
        .map_err(|_| ConnectError::Timeout { doing: "looking up the host's name" })?
        .map_err(|source| ConnectError::Lookup { host: host.to_owned(), source })?;
    // Eight are enough of any name's addresses.
    let addresses: Vec<_> = found.take(8).collect();
    if addresses.is_empty() {
        return Err(ConnectError::NoAddress { host: host.to_owned() });
    }
    Ok(addresses)
}

async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::Timeout { doing: "connecting" };
    for (index, &address) in addresses.iter().enumerate() {
        let others = addresses.len() - index - 1;
        let until =
            if others == 0 { deadline } else { deadline.min(Instant::now() + ADDRESS_SHARE) };
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => last = ConnectError::Tcp { address, source },
            Err(_) => last = ConnectError::Timeout { doing: "connecting" },
        }
    }
    Err(last)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
