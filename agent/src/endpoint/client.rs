//! One connection to one endpoint: sends a request, reads the answer, keeps the connection for the next
//! one. It must not know what a request holds, nor when it is tried again.
//!
//! Everything that a server can make long is bounded: the answer's head (16 KiB), its body (64 KiB), the
//! whole exchange ([`Options::timeout`]). Nothing runs between requests: no task, no timer.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::answer::{MAX_SAID, Outcome, judge};
use super::connect::{ConnectError, Lookup, Stream, Tls, connect};
use super::options::{
    Content, Credentials, Options, OptionsError, check, credentials, fixed_headers,
};
use super::{SecretError, TlsError};

/// Bounds the answer's head, and the connection's buffers.
const MAX_HEAD: usize = 16 << 10;

/// An answer's body is read up to here, so that its connection can be kept; beyond, it is closed.
const MAX_BODY: usize = 64 << 10;

/// The largest request whose memory is kept for the next one.
const MAX_KEPT: usize = 16 << 10;

/// How long the rest of an answer may take after its status said that all is well.
const REST_OF_GOOD_ANSWER: Duration = Duration::from_secs(5);

/// A client for one endpoint, with at most one connection.
pub struct Client {
    options: Options,
    attempt: String,
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
enum Fault {
    Secret(SecretError),
    Tls(TlsError),
    Connect(ConnectError),
    Broken(hyper::Error),
    NoAnswer,
}

struct Answer {
    code: u16,
    headers: HeaderMap,
    said: String,
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
            attempt: format!("POST {}", options.url),
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

    /// Sends one request and waits for the answer, at most as long as the timeout says. If the future
    /// is dropped before, the connection is closed and the server may or may not have the request.
    pub async fn post(&mut self, content: Content, body: &[u8]) -> Outcome {
        self.buffer.clear();
        self.buffer.extend_from_slice(body);
        let body = self.buffer.split().freeze();
        let deadline = Instant::now() + self.options.timeout;
        let mut answer = self.exchange(content, &body, deadline).await;
        if matches!(&answer, Ok(answer) if answer.code == 401) {
            match self.read_credentials() {
                Ok(false) => {}
                Ok(true) => answer = self.exchange(content, &body, deadline).await,
                Err(fault) => answer = Err(fault),
            }
        }
        if body.len() > MAX_KEPT {
            self.buffer = BytesMut::new();
        }
        match answer {
            Ok(Answer { code, headers, said }) => {
                self.server_ms =
                    date_ms(&headers).map(|ms| (ms, Instant::now())).or(self.server_ms);
                judge(&self.attempt, code, &headers, &said, SystemTime::now())
            }
            Err(fault) => self.no_answer(&fault),
        }
    }

    fn no_answer(&self, fault: &Fault) -> Outcome {
        let attempt = &self.attempt;
        let after = None;
        let retry = |why| Outcome::Retry { code: None, after, why, slow: false };
        let slow = |why| Outcome::Retry { code: None, after, why, slow: true };
        let seconds = self.options.timeout.as_secs_f64();
        match fault {
            Fault::Secret(error) => {
                Outcome::Misconfigured { code: None, why: format!("{attempt}: {error}") }
            }
            Fault::Tls(error) => {
                Outcome::Misconfigured { code: None, why: format!("{attempt}: {error}") }
            }
            Fault::Connect(error @ ConnectError::Timeout { .. }) => retry(format!(
                "{attempt}: {error} within {seconds} s; check the address and firewalls"
            )),
            Fault::Connect(error) => retry(format!("{attempt}: {error}")),
            Fault::Broken(error) => slow(format!("{attempt}: {}", broken(error))),
            Fault::NoAnswer => slow(format!(
                "{attempt}: connected, and no answer within {seconds} s; is the server overloaded, or \
                 timeout too short?"
            )),
        }
    }

    /// Over the connection that is there, or else a new one.
    async fn exchange(
        &mut self,
        content: Content,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        if let Some(mut link) = self.link.take()
            && link.is_open().await
        {
            match self.over(&mut link, content, body, deadline).await {
                Ok((answer, keep)) => {
                    self.link = keep.then_some(link);
                    return Ok(answer);
                }
                // The server closed it while it was idle: nobody's fault, once more over a new one.
                Err(Fault::Broken(_)) if !link.heard.load(Ordering::Relaxed) => {}
                Err(fault) => return Err(fault),
            }
        }
        let mut link = self.connect(deadline).await?;
        let (answer, keep) = self.over(&mut link, content, body, deadline).await?;
        self.link = keep.then_some(link);
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
        let heard = Arc::new(AtomicBool::new(false));
        let stream = connect(&self.options.url, &mut self.lookup, tls, heard.clone(), deadline)
            .await
            .map_err(Fault::Connect)?;
        self.connections = self.connections.saturating_add(1);
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(64)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Fault::Broken)?;
        Ok(Link { sender, driver: Driver { connection, done: false }, heard })
    }

    /// Whether the secret is another one than before.
    fn read_credentials(&mut self) -> Result<bool, Fault> {
        let fresh = credentials(&self.options.auth).map_err(Fault::Secret)?;
        let header = |of: &Option<Credentials>| of.as_ref().map(|c| c.header.clone());
        let changed = header(&fresh) != header(&self.credentials);
        self.credentials = fresh;
        Ok(changed)
    }

    /// The answer, and whether the connection can be used again.
    async fn over(
        &self,
        link: &mut Link,
        content: Content,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<(Answer, bool), Fault> {
        link.heard.store(false, Ordering::Relaxed);
        let request = self.request(content, body.clone());
        let response = timeout_at(deadline, link.send(request))
            .await
            .map_err(|_| Fault::NoAnswer)?
            .map_err(Fault::Broken)?;
        let (head, mut incoming) = response.into_parts();
        let until = if head.status.is_success() {
            deadline.min(Instant::now() + REST_OF_GOOD_ANSWER)
        } else {
            deadline
        };
        // The status is the answer. Whatever becomes of the body, it only costs the connection.
        let mut kept = Vec::new();
        let whole = timeout_at(until, link.driver.drain(&mut incoming, &mut kept)).await;
        drop(incoming);
        let keep = whole.unwrap_or(false) && link.is_open().await;
        let code = head.status.as_u16();
        Ok((Answer { code, headers: head.headers, said: self.said(&kept) }, keep))
    }

    fn request(&self, content: Content, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        for &(name, value) in content.headers() {
            let name = HeaderName::from_static(name);
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
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

fn broken(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return format!(
            "the head of the answer is longer than {MAX_HEAD} bytes; is it the right server?"
        );
    }
    if error.is_parse() {
        return format!("{error}: the answer is not HTTP; is the URL's scheme or port wrong?");
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    format!("{text}; the server, or something in between, gave up the connection")
}

type Sender = SendRequest<Full<Bytes>>;

struct Link {
    sender: Sender,
    driver: Driver,
    /// Whether a byte of an answer has come since the last request.
    heard: Arc<AtomicBool>,
}

/// hyper's side of the connection. It moves only while a request is waited for.
struct Driver {
    connection: Connection<TokioIo<Stream>, Full<Bytes>>,
    done: bool,
}

impl Link {
    /// Whether another request can be sent. Notices a server that has closed meanwhile.
    async fn is_open(&mut self) -> bool {
        poll_fn(|cx| {
            self.driver.poll(cx);
            Poll::Ready(())
        })
        .await;
        !self.driver.done && self.sender.is_ready()
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let response = self.sender.send_request(request);
        self.driver.while_waiting(response).await
    }
}

impl Driver {
    /// Its errors reach whoever waits for the answer, too.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.done && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.done = true;
        }
    }

    async fn while_waiting<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.poll(cx);
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Reads a body to its end, keeping its first bytes. False if it is too long or breaks off.
    async fn drain(&mut self, body: &mut Incoming, kept: &mut Vec<u8>) -> bool {
        let mut read = 0usize;
        loop {
            match self.while_waiting(body.frame()).await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { continue };
                    read = read.saturating_add(data.len());
                    let room = MAX_SAID.saturating_sub(kept.len()).min(data.len());
                    kept.extend_from_slice(data.get(..room).unwrap_or_default());
                    if read > MAX_BODY {
                        return false;
                    }
                }
            }
        }
    }
}
