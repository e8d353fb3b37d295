//! One connection to one endpoint: sends a request, reads the answer, keeps the connection for the next
//! one. It must not know what a request holds, nor when it is tried again.
//!
//! Everything that a server can make long is bounded: the answer's head (16 KiB), its body (64 KiB), the
//! whole exchange ([`Options::timeout`]). Nothing runs between requests: no task, no timer.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use hyper::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::answer::{Outcome, judge};
use super::connect::{ConnectError, Lookup, Tls, connect};
use super::intake::{End, Intake, Sink};
use super::link::{Broken, Link};
use super::options::{
    Content, Credentials, Options, OptionsError, check, credentials, fixed_headers,
};
use super::pipe::Meter;
use super::{SecretError, TlsError};

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
    target: Uri,
    headers: HeaderMap,
    credentials: Option<Credentials>,
    hide: Vec<String>,
    name: Option<ServerName<'static>>,
    tls: Option<Arc<ClientConfig>>,
    lookup: Lookup,
    link: Option<Link>,
    buffer: BytesMut,
    connections: u32,
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
        let credentials = credentials(&options.auth).map_err(OptionsError::Secret)?;
        let (mut name, mut tls) = (None, None);
        if options.url.is_tls() {
            name = Some(options.tls.name(options.url.host()).map_err(OptionsError::Tls)?);
            if options.tls.ca_file.is_some() || options.tls.cert_file.is_some() {
                tls = Some(options.tls.load().map_err(OptionsError::Tls)?);
            }
        }
        let target = options.url.target().parse::<Uri>();
        let mut hide: Vec<String> = options.url.query().map(str::to_owned).into_iter().collect();
        hide.extend(options.headers.iter().map(|(_, value)| value.clone()));
        // Shorter ones are no secrets, and would be found in every other word.
        hide.retain(|text| text.len() >= 8);
        Ok(Client {
            target: target.map_err(|_| OptionsError::HeaderValue("request target".into()))?,
            headers,
            credentials,
            hide,
            name,
            tls,
            lookup: Lookup::default(),
            link: None,
            buffer: BytesMut::new(),
            connections: 0,
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

    /// Sends one request and waits for the answer, at most as long as the timeout says. If the future
    /// is dropped before, the connection is closed and the server may or may not have the request.
    pub async fn post(&mut self, content: Content, body: &[u8]) -> Outcome {
        self.buffer.clear();
        self.buffer.extend_from_slice(body);
        let body = self.buffer.split().freeze();
        let mut headers = self.headers.clone();
        for &(name, value) in content.headers() {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let ask = Ask { method: Method::POST, headers, body, max_bytes: MAX_BODY };
        let answer = self.ask(&ask, &mut None).await;
        if ask.body.len() > MAX_KEPT {
            self.buffer = BytesMut::new();
        }
        match answer {
            Ok(Answer { code, headers, said, .. }) => {
                judge(&self.attempt("POST"), code, &headers, &said, SystemTime::now())
            }
            Err(fault) => self.no_answer(&fault),
        }
    }

    /// What is attempted, as messages begin.
    pub(super) fn attempt(&self, method: &str) -> String {
        format!("{method} {}", self.options.url)
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
            match self.read_credentials() {
                Ok(false) => {}
                Ok(true) => answer = self.exchange(ask, sink, deadline).await,
                Err(fault) => answer = Err(fault),
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
        match fault {
            Fault::Secret(_) | Fault::Tls(_) => Outcome::Misconfigured { code: None, why },
            Fault::Connect(_) => Outcome::Retry { code: None, after: None, why, slow: false },
            Fault::Broken(_) | Fault::NoAnswer => {
                Outcome::Retry { code: None, after: None, why, slow: true }
            }
        }
    }

    /// The line for the log.
    pub(super) fn explain(&self, method: &str, fault: &Fault) -> String {
        let attempt = self.attempt(method);
        let seconds = self.options.timeout.as_secs_f64();
        match fault {
            Fault::Secret(error) => format!("{attempt}: {error}"),
            Fault::Tls(error) => format!("{attempt}: {error}"),
            Fault::Connect(error @ ConnectError::Timeout { .. }) => {
                format!("{attempt}: {error} within {seconds} s; check the address and firewalls")
            }
            Fault::Connect(error) => format!("{attempt}: {error}"),
            Fault::Broken(error) => format!("{attempt}: {error}"),
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
        if let Some(mut link) = self.link.take()
            && link.is_open().await
        {
            match self.over(&mut link, ask, sink, deadline).await {
                Ok(answer) => {
                    self.link = answer.keep.then_some(link);
                    return Ok(answer);
                }
                // The server closed it while it was idle: nobody's fault, once more over a new one.
                Err(Fault::Broken(_)) if !self.meter.heard() => {}
                Err(fault) => return Err(fault),
            }
        }
        let mut link = self.connect(deadline).await?;
        let answer = self.over(&mut link, ask, sink, deadline).await?;
        self.link = answer.keep.then_some(link);
        Ok(answer)
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Link, Fault> {
        self.read_credentials()?;
        let tls = match &self.name {
            None => None,
            Some(name) => {
                let config = match &self.tls {
                    Some(config) => config.clone(),
                    None => self.options.tls.load().map_err(Fault::Tls)?,
                };
                self.tls = Some(config.clone());
                let private_ca = self.options.tls.ca_file.is_some();
                Some(Tls { config, name: name.clone(), private_ca })
            }
        };
        let stream = connect(&self.options.url, &mut self.lookup, tls, &self.meter, deadline)
            .await
            .map_err(Fault::Connect)?;
        self.connections = self.connections.saturating_add(1);
        Link::new(stream).await.map_err(Fault::Broken)
    }

    /// Whether the secret is another one than before.
    fn read_credentials(&mut self) -> Result<bool, Fault> {
        let fresh = credentials(&self.options.auth).map_err(Fault::Secret)?;
        let header = |of: &Option<Credentials>| of.as_ref().map(|c| c.header.clone());
        let changed = header(&fresh) != header(&self.credentials);
        self.credentials = fresh;
        Ok(changed)
    }

    async fn over(
        &self,
        link: &mut Link,
        ask: &Ask,
        sink: &mut Option<Sink<'_>>,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        self.meter.expect(ask.max_bytes.saturating_mul(2).saturating_add(AROUND));
        let response = timeout_at(deadline, link.send(self.request(ask)))
            .await
            .map_err(|_| Fault::NoAnswer)?
            .map_err(Fault::Broken)?;
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
        let (code, said) = (head.status.as_u16(), self.said(&kept));
        Ok(Answer { code, headers: head.headers, said, end, bytes, keep })
    }

    fn request(&self, ask: &Ask) -> Request<Bytes> {
        let mut request = Request::new(ask.body.clone());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = ask.headers.clone();
        if let Some(credentials) = &self.credentials {
            request.headers_mut().insert(AUTHORIZATION, credentials.header.clone());
        }
        request
    }

    /// What the server said, without the secrets, which some servers repeat.
    fn said(&self, body: &[u8]) -> String {
        let secrets = self.credentials.iter().flat_map(|credentials| &credentials.hide);
        let mut text = String::from_utf8_lossy(body);
        for secret in secrets.chain(&self.hide) {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "(redacted)").into();
            }
        }
        text.into_owned()
    }
}

/// The `Date` of an answer.
fn date_ms(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    i64::try_from(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}
