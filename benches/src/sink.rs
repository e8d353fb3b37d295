//! Where logs go in a measurement: a server that takes Loki's pushes, or lines over TCP, counts the entries and
//! throws them away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::Result;

/// What a sink is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /loki/api/v1/push`, protobuf in snappy.
    Loki,
    /// Remote write 1.0 or 2.0, protobuf in snappy.
    RemoteWrite,
    /// Lines that end in a line feed.
    Lines,
}

/// A sink on a port of its own, for as long as the process lives.
#[derive(Debug)]
pub struct Sink {
    /// The port on 127.0.0.1.
    pub port: u16,
    counts: Arc<Counts>,
}

/// What a sink has seen.
#[derive(Debug, Default)]
struct Counts {
    /// Entries, samples or lines that were taken.
    entries: AtomicU64,
    /// Requests that were taken.
    requests: AtomicU64,
    /// Their bytes, heads included.
    bytes: AtomicU64,
    /// Whether requests are answered 503.
    down: AtomicBool,
}

impl Sink {
    /// Starts one.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(protocol: Protocol) -> Result<Sink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let counts = Arc::new(Counts::default());
        let counter = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A connection that breaks off is its client's affair.
                thread::spawn(move || {
                    let _ = match protocol {
                        Protocol::Loki | Protocol::RemoteWrite => serve(&stream, &counter),
                        Protocol::Lines => count(&stream, &counter.entries),
                    };
                });
            }
        });
        Ok(Sink { port, counts })
    }

    /// Entries that came so far.
    pub fn entries(&self) -> u64 {
        self.counts.entries.load(Ordering::Relaxed)
    }

    /// Requests that were taken, and their bytes with their heads.
    pub fn requests(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.counts.requests), load(&self.counts.bytes))
    }

    /// From now on requests are answered 503, or taken.
    pub fn set_down(&self, down: bool) {
        self.counts.down.store(down, Ordering::Relaxed);
    }
}

fn count(mut stream: &TcpStream, counter: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = stream.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        counter.fetch_add(lines as u64, Ordering::Relaxed);
    }
}

fn serve(stream: &TcpStream, counts: &Counts) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        let (mut length, mut bytes) = (0, 0);
        loop {
            line.clear();
            let read = reader.read_line(&mut line)?;
            if read == 0 {
                return Ok(());
            }
            bytes += read as u64;
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut writer = stream;
        if counts.down.load(Ordering::Relaxed) {
            writer.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let raw = snap::raw::Decoder::new().decompress_vec(&body)?;
        let items = items(&raw)?;
        counts.entries.fetch_add(items, Ordering::Relaxed);
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes + length as u64, Ordering::Relaxed);
        // What remote write 2.0 wants to hear, and nobody else looks at.
        write!(
            writer,
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\
             X-Prometheus-Remote-Write-Samples-Written: {items}\r\n\
             X-Prometheus-Remote-Write-Histograms-Written: 0\r\n\
             X-Prometheus-Remote-Write-Exemplars-Written: 0\r\n\r\n"
        )?;
    }
}

/// How many entries a `logproto.PushRequest` has, or samples a remote write request: of its streams or series,
/// field 1 (in 2.0 field 5), the fields 2.
fn items(request: &[u8]) -> Result<u64> {
    let mut count = 0;
    for (field, group) in fields(request)? {
        if field == 1 || field == 5 {
            count += fields(group)?.iter().filter(|(field, _)| *field == 2).count() as u64;
        }
    }
    Ok(count)
}

/// The fields that have a length.
fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, &[u8])>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let length = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?)?,
            _ => return Err("a field of no type".into()),
        };
        let (field, rest) =
            bytes.split_at_checked(length).ok_or("a field that is longer than its message")?;
        if key & 7 == 2 {
            fields.push((key >> 3, field));
        }
        bytes = rest;
    }
    Ok(fields)
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a number without an end")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number of more than 64 bits".into())
}
