//! Where logs go in a measurement: a server that takes Loki's pushes, or lines over TCP, counts the entries and
//! throws them away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::Result;

/// What a sink is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /loki/api/v1/push`, protobuf in snappy.
    Loki,
    /// Lines that end in a line feed.
    Lines,
}

/// A sink on a port of its own, for as long as the process lives.
#[derive(Debug)]
pub struct Sink {
    /// The port on 127.0.0.1.
    pub port: u16,
    entries: Arc<AtomicU64>,
}

impl Sink {
    /// Starts one.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(protocol: Protocol) -> Result<Sink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let entries = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&entries);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A connection that breaks off is its client's affair.
                thread::spawn(move || {
                    let _ = match protocol {
                        Protocol::Loki => serve(&stream, &counter),
                        Protocol::Lines => count(&stream, &counter),
                    };
                });
            }
        });
        Ok(Sink { port, entries })
    }

    /// Entries that came so far.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
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

fn serve(stream: &TcpStream, counter: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
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
        let raw = snap::raw::Decoder::new().decompress_vec(&body)?;
        counter.fetch_add(entries(&raw)?, Ordering::Relaxed);
        let mut writer = stream;
        writer.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")?;
    }
}

/// How many entries a `logproto.PushRequest` has: field 1 is a stream, whose fields 2 are its entries.
fn entries(request: &[u8]) -> Result<u64> {
    let mut count = 0;
    for (field, stream) in fields(request)? {
        if field == 1 {
            count += fields(stream)?.iter().filter(|(field, _)| *field == 2).count() as u64;
        }
    }
    Ok(count)
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, &[u8])>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (key, length) = (varint(&mut bytes)?, varint(&mut bytes)?);
        if key & 7 != 2 {
            return Err("not a field with a length".into());
        }
        let (field, rest) = bytes
            .split_at_checked(usize::try_from(length)?)
            .ok_or("a field that is longer than its message")?;
        fields.push((key >> 3, field));
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
