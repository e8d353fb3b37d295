//! From a URL to a stream of bytes: name lookup, TCP, TLS. It must not know HTTP.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::pipe::{Meter, Pipe, Stream};
use super::tls::HTTP1;
use super::tunnel::{self, TunnelError};
use super::{Host, ProxyKind, ProxyUrl, Url};

/// The most that one of several addresses gets before the next one's turn, of what time there is: a
/// network with a broken IPv6 swallows connections without a word.
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
    /// The proxy opens no way to the server.
    Tunnel(TunnelError),
    /// Something of that is the proxy's.
    Proxy(Box<ConnectError>),
    /// The time is up.
    Timeout { doing: &'static str },
}

impl ConnectError {
    /// Whether no try can succeed until somebody mends the configuration here or of the proxy.
    pub(super) fn is_misconfigured(&self) -> bool {
        match self {
            ConnectError::Proxy(error) => error.is_misconfigured(),
            ConnectError::Tunnel(TunnelError::Credentials(_) | TunnelError::Forbidden(_)) => true,
            _ => false,
        }
    }

    /// Whether the server's certificate, or its proxy's, is of no CA that is known.
    pub(super) fn is_unknown_issuer(&self) -> bool {
        let source = match self {
            ConnectError::Tls { source, .. } => source,
            ConnectError::Proxy(error) => return error.is_unknown_issuer(),
            _ => return false,
        };
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
    }

    pub(super) fn is_timeout(&self) -> bool {
        match self {
            ConnectError::Proxy(error) => error.is_timeout(),
            error => matches!(error, ConnectError::Timeout { .. }),
        }
    }
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
            ConnectError::Tunnel(error) => write!(f, "{error}"),
            ConnectError::Proxy(error) => write!(f, "the proxy: {error}"),
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
            ConnectError::Proxy(error) => error.source(),
            ConnectError::NoAddress { .. }
            | ConnectError::Tunnel(_)
            | ConnectError::Timeout { .. } => None,
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

/// TLS as a connection needs it.
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    pub(super) private_ca: bool,
    /// Whether HTTP/2 is offered.
    pub(super) http2: bool,
}

/// Lookups of all clients at a time: the rest of the runtime's threads for calls that can hang is the disks'. A
/// dead DNS server keeps each of hundreds of targets' lookups for half a minute.
static LOOKUPS: Semaphore = Semaphore::const_new(8);

/// How a host's name becomes addresses; it may block.
type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// The name lookups of one client, of which at most one runs. The resolver can't be stopped: a try
/// whose time is up leaves it running, and the next one waits for the same answer. Otherwise a dead
/// DNS server would take, try by try, every thread that the runtime has for calls that can hang.
pub(super) struct Lookup {
    resolve: Resolve,
    running: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Default for Lookup {
    fn default() -> Lookup {
        Lookup { resolve: system, running: None }
    }
}

/// The system's resolver. Eight are enough of any name's addresses.
fn system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.take(8).collect())
}

impl Lookup {
    /// The addresses of a host, always the same one. Dropping the future loses nothing.
    async fn addresses(
        &mut self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        // An answer that came after its time is good; an error by then is old.
        let late = self.running.as_ref().is_some_and(JoinHandle::is_finished);
        let mut found = self.answer(host, port, deadline).await?;
        if late && !found.as_ref().is_ok_and(|addresses| !addresses.is_empty()) {
            found = self.answer(host, port, deadline).await?;
        }
        let addresses =
            found.map_err(|source| ConnectError::Lookup { host: host.to_owned(), source })?;
        if addresses.is_empty() {
            return Err(ConnectError::NoAddress { host: host.to_owned() });
        }
        Ok(addresses)
    }

    /// The answer of the lookup that runs, or else of a new one.
    async fn answer(
        &mut self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<io::Result<Vec<SocketAddr>>, ConnectError> {
        const DOING: &str = "looking up the host's name";
        let resolve = self.resolve;
        if self.running.is_none() {
            let permit = timeout_at(deadline, LOOKUPS.acquire())
                .await
                .map_err(|_| ConnectError::Timeout { doing: DOING })?;
            let host = host.to_owned();
            self.running = Some(spawn_blocking(move || {
                // It is never closed, so there is one.
                let _permit = permit;
                resolve(&host, port)
            }));
        }
        let Some(running) = &mut self.running else { return Ok(Ok(Vec::new())) };
        let found = timeout_at(deadline, running)
            .await
            .map_err(|_| ConnectError::Timeout { doing: DOING })?;
        self.running = None;
        Ok(found.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

/// A proxy as a connection needs it.
pub(super) struct Proxy<'a> {
    pub(super) url: &'a ProxyUrl,
    /// User and password.
    pub(super) user: Option<(&'a str, &'a str)>,
    /// For a proxy that speaks TLS itself.
    pub(super) tls: Option<Tls>,
}

/// Connects before the deadline. A proxy is asked for a tunnel where there is TLS to go through it, and SOCKS
/// always; otherwise what comes back is a connection to the proxy.
pub(super) async fn connect(
    url: &Url,
    proxy: Option<Proxy<'_>>,
    lookup: &mut Lookup,
    tls: Option<Tls>,
    meter: &Rc<Meter>,
    deadline: Instant,
) -> Result<Stream, ConnectError> {
    let mut pipe = match proxy {
        None => tcp(url.host(), url.port(), lookup, meter, deadline).await?,
        Some(proxy) => {
            let whole = tls.is_some() || proxy.url.kind() == ProxyKind::Socks5;
            let target = whole.then_some((url.host(), url.port()));
            through(proxy, target, lookup, meter, deadline)
                .await
                .map_err(|error| ConnectError::Proxy(Box::new(error)))?
        }
    };
    if let Some(tls) = tls {
        pipe = secure(pipe, tls, deadline).await?;
    }
    Ok(Stream { pipe, meter: Rc::clone(meter) })
}

/// To a proxy, and through it if there is a target.
async fn through(
    proxy: Proxy<'_>,
    target: Option<(&Host, u16)>,
    lookup: &mut Lookup,
    meter: &Rc<Meter>,
    deadline: Instant,
) -> Result<Pipe, ConnectError> {
    let mut pipe = tcp(proxy.url.host(), proxy.url.port(), lookup, meter, deadline).await?;
    if let Some(tls) = proxy.tls {
        pipe = secure(pipe, tls, deadline).await?;
    }
    let Some((host, port)) = target else { return Ok(pipe) };
    let opened = async {
        match proxy.url.kind() {
            ProxyKind::Socks5 => tunnel::socks5(&mut pipe, host, port, proxy.user).await,
            ProxyKind::Http | ProxyKind::Https => {
                let basic = proxy.user.map(|(user, password)| tunnel::basic(user, password));
                tunnel::connect(&mut pipe, host, port, basic.as_deref()).await
            }
        }
    };
    match timeout_at(deadline, opened).await {
        Err(_) => Err(ConnectError::Timeout { doing: "opening a tunnel to the server" }),
        Ok(opened) => opened.map(|()| pipe).map_err(ConnectError::Tunnel),
    }
}

async fn tcp(
    host: &Host,
    port: u16,
    lookup: &mut Lookup,
    meter: &Rc<Meter>,
    deadline: Instant,
) -> Result<Pipe, ConnectError> {
    let tcp = match host {
        Host::Address(address) => dial(&[(*address, port).into()], deadline).await?,
        Host::Name(name) => dial(&lookup.addresses(name, port, deadline).await?, deadline).await?,
    };
    // A request is written whole; waiting for more to send only delays it.
    let _ = tcp.set_nodelay(true);
    Ok(Pipe::Tcp(tcp, Rc::clone(meter)))
}

async fn secure(pipe: Pipe, tls: Tls, deadline: Instant) -> Result<Pipe, ConnectError> {
    let name = tls.name.to_str().into_owned();
    let mut config = tls.config;
    if !tls.http2 && !config.alpn_protocols.is_empty() {
        Arc::make_mut(&mut config).alpn_protocols = vec![HTTP1.to_vec()];
    }
    let handshake = TlsConnector::from(config).connect(tls.name, pipe);
    match timeout_at(deadline, handshake).await {
        Err(_) => Err(ConnectError::Timeout { doing: "TLS handshake" }),
        Ok(Err(source)) => Err(ConnectError::Tls { name, source, private_ca: tls.private_ca }),
        Ok(Ok(stream)) => Ok(Pipe::Tls(Box::new(stream))),
    }
}

async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::Timeout { doing: "connecting" };
    for (left, &address) in (1..=addresses.len()).rev().zip(addresses) {
        let now = Instant::now();
        let until = now + share(deadline.saturating_duration_since(now), left);
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => last = ConnectError::Tcp { address, source },
            Err(_) => last = ConnectError::Timeout { doing: "connecting" },
        }
    }
    Err(last)
}

/// How long an address is tried, if this is the time and as many addresses are left with it.
fn share(time: Duration, addresses: usize) -> Duration {
    match u32::try_from(addresses) {
        Ok(0 | 1) => time,
        count => (time / count.unwrap_or(u32::MAX)).min(ADDRESS_SHARE),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Condvar, Mutex};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATER: Duration = Duration::from_secs(60);

    /// Whether the resolver answers. One test uses it, and is the only one that counts.
    static ANSWERS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static LOOKUPS: AtomicU32 = AtomicU32::new(0);

    fn hangs(_: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        LOOKUPS.fetch_add(1, Ordering::SeqCst);
        drop(ANSWERS.1.wait_while(ANSWERS.0.lock().unwrap(), |answers| !*answers).unwrap());
        Ok(vec![([127, 0, 0, 1], port).into()])
    }

    fn fails(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("no such host"))
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_asked_once_and_its_late_answer_is_taken() {
        let mut lookup = Lookup { resolve: hangs, running: None };
        for _ in 0..5 {
            let found = lookup.addresses("mimir", 9009, Instant::now() + SOON).await;
            assert!(matches!(found, Err(ConnectError::Timeout { .. })), "{found:?}");
        }
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 1);
        *ANSWERS.0.lock().unwrap() = true;
        ANSWERS.1.notify_all();
        let found = lookup.addresses("mimir", 9009, Instant::now() + LATER).await.unwrap();
        assert_eq!(found, [([127, 0, 0, 1], 9009).into()]);
        // What has been answered is not remembered: addresses change.
        lookup.addresses("mimir", 9009, Instant::now() + LATER).await.unwrap();
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_error_that_came_too_late_is_not_taken_for_todays() {
        let old = spawn_blocking(|| fails("", 0));
        while !old.is_finished() {
            tokio::task::yield_now().await;
        }
        let mut lookup = Lookup {
            resolve: |_, port| Ok(vec![([127, 0, 0, 1], port).into()]),
            running: Some(old),
        };
        let found = lookup.addresses("loki", 3100, Instant::now() + LATER).await.unwrap();
        assert_eq!(found, [([127, 0, 0, 1], 3100).into()]);
        let mut lookup = Lookup { resolve: fails, running: None };
        let found = lookup.addresses("loki", 3100, Instant::now() + LATER).await;
        assert!(matches!(found, Err(ConnectError::Lookup { .. })), "{found:?}");
    }

    #[test]
    fn a_proxys_unknown_ca_is_as_a_servers() {
        let tls = |error| ConnectError::Tls {
            name: "h".into(),
            source: io::Error::other(rustls::Error::InvalidCertificate(error)),
            private_ca: false,
        };
        let unknown = ConnectError::Proxy(Box::new(tls(CertificateError::UnknownIssuer)));
        assert!(
            unknown.is_unknown_issuer() && tls(CertificateError::UnknownIssuer).is_unknown_issuer()
        );
        let expired = ConnectError::Proxy(Box::new(tls(CertificateError::Expired)));
        assert!(!expired.is_unknown_issuer());
        assert!(!ConnectError::Timeout { doing: "x" }.is_unknown_issuer());
    }

    #[test]
    fn an_address_gets_its_part_of_the_time_and_the_last_one_what_is_left() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(30), 2), ADDRESS_SHARE);
        assert_eq!(share(seconds(4), 2), seconds(2));
        assert_eq!(share(seconds(24), 8), seconds(3));
        assert_eq!(share(seconds(21), 1), seconds(21));
        assert_eq!(share(Duration::ZERO, 3), Duration::ZERO);
    }

    /// A listener whose queue is full: the kernel drops what else comes, as a broken network does.
    async fn dead() -> (std::net::TcpListener, Vec<TcpStream>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        for _ in 0..16 {
            let until = Instant::now() + Duration::from_millis(200);
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(stream) => queued.push(stream.unwrap()),
                Err(_) => return (listener, queued),
            }
        }
        panic!("the kernel queues 16 connections where it should queue none");
    }

    #[tokio::test]
    async fn a_dead_first_address_leaves_time_for_the_second() {
        let (dead, _queued) = dead().await;
        let alive = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [dead.local_addr().unwrap(), alive.local_addr().unwrap()];
        // Less than ADDRESS_SHARE, as `timeout` may be.
        let time = Duration::from_secs(2);
        let before = Instant::now();
        let stream = dial(&addresses, before + time).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        assert!(before.elapsed() >= time / 2, "{:?}", before.elapsed());
        assert!(before.elapsed() < time, "{:?}", before.elapsed());
        // Alone it gets all the time, and no more.
        let before = Instant::now();
        let error = dial(&addresses[..1], before + time / 4).await.unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { doing: "connecting" }), "{error:?}");
        assert!(before.elapsed() >= time / 4, "{:?}", before.elapsed());
    }
}
