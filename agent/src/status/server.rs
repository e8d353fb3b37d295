//! The HTTP server: a status page, the agent's metrics, health, reload. Bounded in connections, in
//! bytes of a request's head and in time.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use super::{Report, render};

/// At once; more wait for one to end. A scraper and a person with a browser need three.
const MAX_CONNECTIONS: usize = 8;

/// The most that a connection may live, so that a silent client holds no place for ever.
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(60);

/// The most of a request's head. hyper takes no less than 8 KiB.
const MAX_HEAD: usize = 8 << 10;

/// What the server shows.
pub trait Source {
    /// The state of the agent.
    fn report(&self) -> Report;
    /// The metrics in the text format: the agent's own, and with `newest_round` the newest round.
    fn metrics(&self, newest_round: bool) -> Vec<u8>;
    /// Whether the first round has been collected.
    fn is_ready(&self) -> bool;
    /// Reads the configuration again.
    ///
    /// # Errors
    /// What is wrong with it; the agent goes on with the old one.
    fn reload(&self) -> Result<(), String>;
}

/// Serves until the future is dropped. Call it in a `LocalSet`.
pub async fn serve(listener: TcpListener, source: Rc<dyn Source>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Rc::clone(&source);
                spawn_local(async move {
                    let _ =
                        tokio::time::timeout(MAX_CONNECTION_TIME, connection(stream, source)).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, as a rule: trying again at once would only burn CPU.
                log::warn!("accepting a connection to the status page: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, source: Rc<dyn Source>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, source.as_ref());
        async move { Ok::<_, Infallible>(response) }
    });
    // An error is the client's: it sent no HTTP, or went away.
    let _ = hyper::server::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn respond(request: &Request<Incoming>, source: &dyn Source) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    match (path, reading) {
        ("/-/reload", false) if request.method() == Method::POST => match source.reload() {
            Ok(()) => text(StatusCode::OK, "reloading\n"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        ("/-/reload", true) => refuse("POST"),
        (
            "/" | "/metrics" | "/api/v1/status" | "/-/ready" | "/ready" | "/-/healthy" | "/healthy",
            false,
        ) => refuse("GET, HEAD"),
        ("/", true) => page(&source.report()),
        ("/metrics", true) => {
            let query = request.uri().query().unwrap_or_default();
            let newest_round = query.split('&').any(|pair| pair == "collect=node");
            let body = source.metrics(newest_round);
            answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
        }
        ("/api/v1/status", true) => match serde_json::to_vec(&source.report()) {
            Ok(body) => answer(StatusCode::OK, "application/json", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        ("/-/healthy" | "/healthy", true) => text(StatusCode::OK, "healthy\n"),
        ("/-/ready" | "/ready", true) => {
            if source.is_ready() {
                text(StatusCode::OK, "ready\n")
            } else {
                text(StatusCode::SERVICE_UNAVAILABLE, "the first round is not collected yet\n")
            }
        }
        _ => text(StatusCode::NOT_FOUND, "no such page; see /\n"),
    }
}

fn page(report: &Report) -> Response<Full<Bytes>> {
    let mut body = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>mote</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"10\">\
         <style>body{font:15px/1.4 ui-monospace,monospace;margin:2em;max-width:72em}pre{overflow:auto}\
         @media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8cf}}</style></head><body>\
         <pre>",
    );
    for c in render(report).chars() {
        match c {
            '&' => body.push_str("&amp;"),
            '<' => body.push_str("&lt;"),
            '>' => body.push_str("&gt;"),
            c => body.push(c),
        }
    }
    body.push_str(
        "</pre><p><a href=\"/metrics\">/metrics</a> \
         <a href=\"/metrics?collect=node\">/metrics?collect=node</a> \
         <a href=\"/api/v1/status\">/api/v1/status</a></p></body></html>\n",
    );
    answer(StatusCode::OK, "text/html; charset=utf-8", body)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn refuse(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allow} here\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
