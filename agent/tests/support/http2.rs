//! An HTTP/2 server (RFC 9113) that says frame by frame what a test tells it to, over TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// HPACK's static table (RFC 7541, appendix A): `:status 200` and `:status 500`.
pub const STATUS_200: &[u8] = &[0x88];
pub const STATUS_500: &[u8] = &[0x8e];

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// One connection, after the prefaces of both sides.
pub struct Frames {
    stream: StreamOwned<ServerConnection, TcpStream>,
}

impl Frames {
    fn accept(tcp: TcpStream, config: &Arc<ServerConfig>) -> Option<Frames> {
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let tls = ServerConnection::new(Arc::clone(config)).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).ok()?;
        if &preface != b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
            return None;
        }
        let mut frames = Frames { stream };
        frames.send(SETTINGS, 0, 0, &[])?;
        Some(frames)
    }

    /// The next frame; None when the client has closed.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        assert!(length <= 16_384, "a frame of {length} bytes that nobody allowed");
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// None if the client has closed.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Option<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).ok()?;
        self.stream.flush().ok()
    }

    /// Reads on to the end of a request: its stream, and the bytes of its body.
    pub fn request(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut body = Vec::new();
        loop {
            let frame = self.next()?;
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
            }
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return Some((frame.stream, body));
            }
        }
    }

    /// An answer without a body.
    pub fn answer(&mut self, stream: u32, status: &[u8]) -> Option<()> {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, status)
    }

    pub fn go_away(&mut self, last: u32, reason: u32) -> Option<()> {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
    }

    pub fn reset(&mut self, stream: u32, reason: u32) -> Option<()> {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes())
    }

    /// Sends a frame again and again until the client closes, at most so many times; how many went.
    pub fn pour(&mut self, most: usize, frame: &Frame) -> usize {
        (0..most)
            .take_while(|_| {
                self.send(frame.kind, frame.flags, frame.stream, &frame.payload).is_some()
            })
            .count()
    }

    /// Reads until the client closes.
    pub fn read_out(&mut self) {
        while self.next().is_some() {}
    }
}

pub struct Http2Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Http2Server {
    /// `serve` has each connection with its number, counted from 0; the connection is closed when it returns.
    pub fn new(
        config: ServerConfig,
        mut serve: impl FnMut(usize, &mut Frames) -> Option<()> + Send + 'static,
    ) -> Http2Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, config) = (Arc::clone(&connections), Arc::new(config));
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                if let Some(mut frames) = Frames::accept(tcp.unwrap(), &config) {
                    let _ = serve(number, &mut frames);
                }
            }
        });
        Http2Server { address, connections }
    }

    pub fn url(&self) -> String {
        format!("https://{}/api/v1/push", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
