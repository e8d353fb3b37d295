//! One connection to one endpoint: sends a request, reads the answer, keeps the connection for the next
//! one. It must not know what a request holds, nor when it is tried again.
//!
//! Everything that a server can make long is bounded: the answer's head (16 KiB), its body (64 KiB), the
//! whole exchange ([`Options::timeout`]). Nothing runs between requests: no task, no timer.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use hyper::header::{
    AUTHORIZATION, DATE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
};
use hyper::{Method, Request, Uri};
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::answer::{MAX_SAID, Outcome, judge};
use super::connect::{ConnectError, Lookup, Proxy, Tls, connect};
use super::intake::{End, Intake, Sink};
use super::keys::Keys;
use super::link::{Broken, Link};
use super::options::{Content, Options, OptionsError, check, fixed_headers};
use super::pipe::Meter;
use super::proxy::proxy_for;
use super::redact::redact;
use super::tunnel::basic;
use super::{ProxyKind, ProxyUrl, SecretError, TlsError, TlsOptions, Url};

/// The body of an answer to a push is read up to here, so that its connection can be kept; beyond, it is
/// closed.
const MAX_BODY: u64 = 64 << 10;

/// What may come with a body, beside as much again for how it is framed: heads, of which a server may send
/// several (1xx), trailers, and what HTTP/2 says between them.
const AROUND: u64 = 128 << 10;

/// The largest request whose memory is kept for the next one.
const MAX_KEPT: usize = 16 << 10;

/// How long the rest of an answer may take after its status said that all is well.
const REST_OF_GOOD_ANSWER: Duration = Duration::from_secs(5);

/// A client for one endpoint, with at most one connection.
pub struct Client {
    options: Options,
    /// As the request line of HTTP/1.1 has it.
    target: Uri,
    /// The whole URL, as HTTP/2 has it.
    absolute: Uri,
    /// The server does not want HTTP/2.
    http1_only: bool,
    headers: HeaderMap,
    /// Those of the last push.
    prepared: Option<(Content, HeaderMap)>,
    hide: Vec<String>,
    /// What the server's certificate has to carry, for https.
    name: Option<ServerName<'static>>,
    proxy: Option<ProxyUrl>,
    /// The same of the proxy, if it speaks TLS.
    proxy_name: Option<ServerName<'static>>,
    keys: Keys,
    lookup: Lookup,
    link: Option<Link>,
    buffer: BytesMut,
    connections: u32,
    /// The last request was sent a second time over another connection, and the server may have had it.
    resent: bool,
    meter: Rc<Meter>,
    /// The server's clock in milliseconds since the Unix epoch, and when it said so.
    server_ms: Option<(i64, Instant)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .field("connected", &self.link.is_some())
            .finish()
    }
}

/// Why there is no answer.
pub(super) enum Fault {
    Secret(SecretError),
    Tls(TlsError),
    Connect(ConnectError),
    Broken(Broken),
    /// The server sent more than an answer has: heads without end, or frames that are none.
    Flood,
    NoAnswer,
}

/// A request, but for the credentials.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The most bytes of the answer's body.
    pub(super) max_bytes: u64,
}

pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) headers: HeaderMap,
    /// The beginning of the body, if no sink had it.
    pub(super) said: String,
    /// What became of the body.
    pub(super) end: End,
    /// Bytes of the body that were read.
    pub(super) bytes: u64,
    /// Whether the connection can be used again.
    keep: bool,
}

impl Client {
    /// A client that has not connected yet. The secret and the files of the TLS options are read once
    /// to see that they can be; the system's CA certificates only at the first connection.
    ///
    /// # Errors
    /// Options that can't be used, such as a header with a line break or a file that is not there.
    pub fn new(options: Options) -> Result<Client, OptionsError> {
        check(&options)?;
        let headers = fixed_headers(&options)?;
        let environment = |name: &str| std::env::var(name).ok();
        let proxy = proxy_for(&options.proxy, &options.url, &environment)
            .map_err(OptionsError::ProxyEnvironment)?;
        let keys = Keys::new(&options, proxy.as_ref())?;
        let name = options.url.is_tls().then(|| options.tls.name(options.url.host()));
        let proxy_tls = proxy.as_ref().filter(|proxy| proxy.kind() == ProxyKind::Https);
        let proxy_name = proxy_tls.map(|proxy| TlsOptions::default().name(proxy.host()));
        let uri = |text: &str| {
            text.parse::<Uri>().map_err(|_| OptionsError::HeaderValue("request target".into()))
        };
        let absolute = uri(&options.url.absolute())?;
        // RFC 9112, section 3.2.2.
        let target = match by_whole_url(&options.url, proxy.as_ref()) {
            true => absolute.clone(),
            false => uri(options.url.target())?,
        };
        let mut hide: Vec<String> = options.url.query().map(str::to_owned).into_iter().collect();
        hide.extend(options.headers.iter().map(|(_, value)| value.clone()));
        // Shorter ones are no secrets, and would be found in every other word.
        hide.retain(|text| text.len() >= 8);
        Ok(Client {
            target,
            absolute,
            http1_only: !options.http2,
            headers,
            prepared: None,
            hide,
            name: name.transpose().map_err(OptionsError::Tls)?,
            proxy_name: proxy_name.transpose().map_err(OptionsError::Tls)?,
            proxy,
            keys,
            lookup: Lookup::default(),
            link: None,
            buffer: BytesMut::new(),
            connections: 0,
            resent: false,
            meter: Rc::default(),
            server_ms: None,
            options,
        })
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How many connections have been made so far.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// The server's time by the `Date` of its last answer that had one (RFC 9110 section 6.6.1), in
    /// milliseconds since the Unix epoch; exact to a second and the time that the answer took. None if it
    /// has not said so for ten minutes.
    pub fn server_ms(&self) -> Option<i64> {
        let (at_ms, heard) =
            self.server_ms.filter(|(_, heard)| heard.elapsed() < Duration::from_secs(600))?;
        Some(at_ms.saturating_add(i64::try_from(heard.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    /// Closes the connection, if there is one; the next request makes a new one.
    pub fn close(&mut self) {
        self.link = None;
    }

    /// Bytes that were written to sockets since the last call: what a metered link sees of requests, TLS and
    /// its handshakes included, TCP's own headers not.
    pub fn take_sent_bytes(&mut self) -> u64 {
        self.meter.take_sent()
    }

    /// Whether the server may have had the last request twice: an old connection broke before a byte of the
    /// answer had come, and it was sent again over a new one.
    pub fn was_resent(&self) -> bool {
        self.resent
    }

    /// Sends one request and waits for the answer, at most as long as the timeout says. If the future
    /// is dropped before, the connection is closed and the server may or may not have the request.
    pub async fn post(&mut self, content: Content, body: &[u8]) -> Outcome {
        self.resent = false;
        self.buffer.clear();
        self.buffer.extend_from_slice(body);
        let body = self.buffer.split().freeze();
        let headers = match self.prepared.take() {
            Some((of, headers)) if of == content => headers,
            _ => {
                let mut headers = self.headers.clone();
                for &(name, value) in content.headers() {
                    headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
                }
                headers
            }
        };
        let ask = Ask { method: Method::POST, headers, body, max_bytes: MAX_BODY };
        let answer = self.ask(&ask, &mut None).await;
        if ask.body.len() > MAX_KEPT {
            self.buffer = BytesMut::new();
        }
        self.prepared = Some((content, ask.headers));
        match answer {
            Ok(Answer { code, headers, said, .. }) => {
                judge(&|| self.attempt("POST"), code, &headers, &said, SystemTime::now())
            }
            Err(fault) => self.no_answer(&fault),
        }
    }

    /// What is attempted, as messages begin.
    pub(super) fn attempt(&self, method: &str) -> String {
        match &self.proxy {
            Some(proxy) => format!("{method} {} through the proxy {proxy}", self.options.url),
            None => format!("{method} {}", self.options.url),
        }
    }

    /// The headers that are the same for every request.
    pub(super) fn fixed_headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Sends a request and takes its answer, once more if the credentials have changed meanwhile.
    pub(super) async fn ask(
        &mut self,
        ask: &Ask,
        sink: &mut Option<Sink<'_>>,
    ) -> Result<Answer, Fault> {
        let deadline = Instant::now() + self.options.timeout;
        let mut answer = self.exchange(ask, sink, deadline).await;
        if matches!(&answer, Ok(answer) if answer.code == 401) {
            match self.keys.read_secrets(&self.options, self.proxy.as_ref()) {
                Ok(false) => {}
                Ok(true) => answer = self.exchange(ask, sink, deadline).await,
                Err(error) => answer = Err(Fault::Secret(error)),
            }
        }
        if let Ok(answer) = &answer {
            self.server_ms =
                date_ms(&answer.headers).map(|ms| (ms, Instant::now())).or(self.server_ms);
        }
        answer
    }

    fn no_answer(&self, fault: &Fault) -> Outcome {
        let why = self.explain("POST", fault);
        let slow = match fault {
            Fault::Secret(_) | Fault::Tls(_) => {
                return Outcome::Misconfigured { code: None, why };
            }
            Fault::Connect(error) if error.is_misconfigured() => {
                return Outcome::Misconfigured { code: None, why };
            }
            Fault::Connect(_) | Fault::Flood => false,
            Fault::Broken(error) => error.broke_off(),
            Fault::NoAnswer => true,
        };
        Outcome::Retry { code: None, after: None, why, slow }
    }

    /// The line for the log.
    pub(super) fn explain(&self, method: &str, fault: &Fault) -> String {
        let attempt = self.attempt(method);
        let seconds = self.options.timeout.as_secs_f64();
        match fault {
            Fault::Secret(error) => format!("{attempt}: {error}"),
            Fault::Tls(error) => format!("{attempt}: {error}"),
            Fault::Connect(error) if error.is_timeout() => {
                format!("{attempt}: {error} within {seconds} s; check the address and firewalls")
            }
            Fault::Connect(error) => format!("{attempt}: {error}"),
            Fault::Broken(error) => format!("{attempt}: {error}"),
            Fault::Flood => format!(
                "{attempt}: the server sends more than any answer has; is it the right server?"
            ),
            Fault::NoAnswer => format!(
                "{attempt}: connected, and no answer within {seconds} s; is the server overloaded, or \
                 timeout too short?"
            ),
        }
    }

    /// Over the connection that is there, or else a new one.
    async fn exchange(
        &mut self,
        ask: &Ask,
        sink: &mut Option<Sink<'_>>,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        if self.link.is_some()
            && self.keys.are_due()
            && self.keys.look(&self.options, self.proxy.as_ref())
        {
            self.link = None;
        }
        if let Some(mut link) = self.link.take()
            && link.is_open().await
        {
            match self.over(&mut link, ask, sink, deadline).await {
                Ok(answer) => {
                    self.link = answer.keep.then_some(link);
                    return Ok(answer);
                }
                // The server closed it while it was idle: nobody's fault, once more over a new one.
                Err(Fault::Broken(error)) if self.comes_again(&error) => {}
                Err(Fault::Broken(_)) if !self.meter.heard() => self.resent = true,
                Err(fault) => return Err(fault),
            }
        }
        for again in [true, false] {
            let mut link = self.connect(deadline).await?;
            match self.over(&mut link, ask, sink, deadline).await {
                Ok(answer) => {
                    self.link = answer.keep.then_some(link);
                    return Ok(answer);
                }
                Err(Fault::Broken(error)) if again && self.comes_again(&error) => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::NoAnswer)
    }

    /// Whether a request over HTTP/2 goes once more over a new connection at once, since the server says that
    /// it has not looked at it.
    fn comes_again(&mut self, error: &Broken) -> bool {
        self.http1_only |= error.wants_http1();
        error.unprocessed() || error.wants_http1()
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Link, Fault> {
        self.keys.before_connection(&self.options, self.proxy.as_ref());
        let tls = self.tls(self.name.clone(), !self.http1_only)?;
        let proxy_tls = self.tls(self.proxy_name.clone(), false)?;
        let proxy = self.proxy.as_ref().map(|url| Proxy {
            url,
            user: self.keys.proxy_user.as_ref().map(|(user, password)| (&user[..], &password[..])),
            tls: proxy_tls,
        });
        let made =
            connect(&self.options.url, proxy, &mut self.lookup, tls, &self.meter, deadline).await;
        let stream = made.map_err(|error| {
            if error.is_unknown_issuer() {
                self.keys.forget_system_roots(&self.options);
            }
            Fault::Connect(error)
        })?;
        self.connections = self.connections.saturating_add(1);
        // It says something of its own, which may come before the first answer.
        self.meter.expect(AROUND);
        let link = timeout_at(deadline, Link::new(stream)).await;
        link.map_err(|_| Fault::NoAnswer)?.map_err(Fault::Broken)
    }

    /// TLS with somebody of this name, if there is to be any.
    fn tls(
        &mut self,
        name: Option<ServerName<'static>>,
        http2: bool,
    ) -> Result<Option<Tls>, Fault> {
        let Some(name) = name else { return Ok(None) };
        let config = self.keys.tls(&self.options).map_err(Fault::Tls)?;
        let private_ca = self.options.tls.ca_file.is_some();
        Ok(Some(Tls { config, name, private_ca, http2 }))
    }

    async fn over(
        &self,
        link: &mut Link,
        ask: &Ask,
        sink: &mut Option<Sink<'_>>,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        self.meter.expect(ask.max_bytes.saturating_mul(2).saturating_add(AROUND));
        let response = timeout_at(deadline, link.send(self.request(ask, link.is_http2())))
            .await
            .map_err(|_| Fault::NoAnswer)?
            .map_err(|error| match self.meter.flooded() {
                true => Fault::Flood,
                false => Fault::Broken(error),
            })?;
        let (head, mut body) = response.into_parts();
        let good = head.status.is_success();
        // Of a push the status is the answer. Whatever becomes of the body, it only costs the connection.
        let until = match good && sink.is_none() {
            true => deadline.min(Instant::now() + REST_OF_GOOD_ANSWER),
            false => deadline,
        };
        let mut intake = Intake::new(&head.headers, sink.as_mut().filter(|_| good), ask.max_bytes);
        let end = timeout_at(until, intake.drain(link, &mut body)).await.unwrap_or(End::Timeout);
        let (kept, bytes) = (intake.kept, intake.bytes);
        drop(body);
        let keep = matches!(end, End::Whole) && link.is_open().await;
        let broke_off = matches!(end, End::Broken(_) | End::Timeout) && kept.len() < MAX_SAID;
        let secrets = self.keys.hidden().chain(&self.hide).map(String::as_str);
        let (code, said) = (head.status.as_u16(), redact(&kept, secrets, broke_off));
        Ok(Answer { code, headers: head.headers, said, end, bytes, keep })
    }

    fn request(&self, ask: &Ask, http2: bool) -> Request<Bytes> {
        let mut request = Request::new(ask.body.clone());
        *request.method_mut() = ask.method.clone();
        *request.headers_mut() = ask.headers.clone();
        if http2 {
            *request.uri_mut() = self.absolute.clone();
            request.headers_mut().remove(HOST);
        } else {
            *request.uri_mut() = self.target.clone();
        }
        if let Some(credentials) = &self.keys.credentials {
            request.headers_mut().insert(AUTHORIZATION, credentials.header.clone());
        }
        if by_whole_url(&self.options.url, self.proxy.as_ref())
            && let Some((user, password)) = &self.keys.proxy_user
            && let Ok(mut value) = HeaderValue::try_from(basic(user, password))
        {
            value.set_sensitive(true);
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        request
    }
}

/// Whether an HTTP proxy is asked for the whole URL, since there is no TLS that wants a tunnel.
fn by_whole_url(url: &Url, proxy: Option<&ProxyUrl>) -> bool {
    !url.is_tls() && proxy.is_some_and(|proxy| proxy.kind() != ProxyKind::Socks5)
}

/// The `Date` of an answer.
fn date_ms(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    i64::try_from(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}
