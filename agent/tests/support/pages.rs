//! A target for tests: an HTTP server whose page a test sets, and which can do everything that a target
//! should not do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a request gets.
#[derive(Clone)]
pub enum Page {
    /// 200 with this `Content-Type` and body.
    Text(&'static str, String),
    /// A text that is made anew for each request, which has this number, from 0.
    Made(fn(usize) -> String),
    /// Another status.
    Status(u16),
    /// These bytes, and an end.
    Bytes(Vec<u8>),
    /// Well-formed samples without end.
    Endless,
    /// A line without end.
    EndlessLine,
    /// No answer.
    Silent,
    /// A head, and then one byte of the page each 50 ms.
    Trickle,
}

struct Shared {
    page: Mutex<Page>,
    requests: Mutex<Vec<String>>,
    count: AtomicUsize,
    stopping: AtomicBool,
}

/// The target.
pub struct Pages {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Pages {
    pub fn new(page: Page) -> Pages {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            page: Mutex::new(page),
            requests: Mutex::default(),
            count: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let shared = of_thread.clone();
                // A client that goes away is no matter here.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, &shared)));
            }
        });
        Pages { address, shared }
    }

    pub fn text(body: &str) -> Pages {
        Pages::new(Page::Text("text/plain; version=0.0.4; charset=utf-8", body.to_owned()))
    }

    pub fn set(&self, page: Page) {
        *self.shared.page.lock().unwrap_or_else(PoisonError::into_inner) = page;
    }

    pub fn set_text(&self, body: &str) {
        self.set(Page::Text("text/plain; version=0.0.4; charset=utf-8", body.to_owned()));
    }

    /// `host:port`.
    pub fn target(&self) -> String {
        self.address.to_string()
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    let number = shared.count.fetch_add(1, Ordering::SeqCst);
    let page = shared.page.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let good = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
    let whole = |stream: &mut TcpStream, kind: &str, body: &str| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    match page {
        Page::Text(kind, body) => whole(&mut stream, kind, &body),
        Page::Made(make) => whole(&mut stream, "text/plain; version=0.0.4", &make(number)),
        Page::Status(code) => {
            write!(stream, "HTTP/1.1 {code} Nothing\r\nContent-Length: 5\r\n\r\nwhat?")
        }
        Page::Bytes(bytes) => stream.write_all(&bytes),
        Page::Endless | Page::EndlessLine => {
            write!(stream, "{good}\r\n")?;
            for n in 0u64.. {
                match page {
                    Page::Endless => writeln!(stream, "endless{{n=\"{n}\"}} {n}")?,
                    _ => write!(stream, "{}", "x".repeat(1_000))?,
                }
            }
            Ok(())
        }
        Page::Silent => {
            let _ = stream.read(&mut [0]);
            Ok(())
        }
        Page::Trickle => {
            write!(stream, "{good}\r\n")?;
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}
