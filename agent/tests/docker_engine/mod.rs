//! What writes containers' logs, as dockerd 20.10 and Podman's conmon do it: bytes, escapes, parts of
//! lines, and the order of renames in a rotation. Nothing in it uses the agent.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "shared by several test programs"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the copier takes of a line at once.
pub const PART: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    JsonFile,
    Local,
    /// Podman's `k8s-file`, and containerd's files for Kubernetes.
    Cri,
}

/// A container's log.
pub struct Engine {
    pub driver: Driver,
    pub path: PathBuf,
    pub file: File,
    pub max_size: u64,
    pub max_file: u32,
    pub compress: bool,
    size: u64,
    pub time_ns: i64,
}

impl Engine {
    pub fn new(driver: Driver, path: &Path) -> Engine {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Engine {
            driver,
            path: path.to_owned(),
            file,
            max_size: u64::MAX,
            max_file: 5,
            compress: false,
            size: 0,
            time_ns: 1_700_000_000_000_000_000,
        }
    }

    /// A line of the container's, without its break.
    pub fn line(&mut self, stream: &str, line: &[u8]) {
        let mut rest = line;
        self.time_ns += 1_001;
        let mut ordinal = 1;
        let is_long = line.len() >= PART;
        while rest.len() >= PART {
            let (part, after) = rest.split_at(PART);
            self.record(stream, part, Some((ordinal, false)));
            (rest, ordinal) = (after, ordinal + 1);
        }
        self.record(stream, rest, is_long.then_some((ordinal, true)));
    }

    /// What came before the container ended in the middle of a line.
    pub fn end(&mut self, stream: &str, rest: &[u8]) {
        self.time_ns += 1_001;
        self.record(stream, rest, Some((1, false)));
    }

    fn record(&mut self, stream: &str, text: &[u8], part: Option<(u32, bool)>) {
        let bytes = self.bytes(stream, text, part);
        if self.size >= self.max_size {
            self.rotate();
        }
        self.file.write_all(&bytes).unwrap();
        self.size += bytes.len() as u64;
    }

    pub fn bytes(&self, stream: &str, text: &[u8], part: Option<(u32, bool)>) -> Vec<u8> {
        match self.driver {
            Driver::JsonFile => json(stream, text, part, self.time_ns),
            Driver::Local => local(stream, text, part, self.time_ns),
            Driver::Cri => cri(stream, text, part, self.time_ns),
        }
    }

    /// As moby's loggerutils/logfile.go, file by file.
    pub fn rotate(&mut self) {
        let name = |tail: &str| PathBuf::from(format!("{}{tail}", self.path.display()));
        let extension = if self.compress { ".gz" } else { "" };
        if self.max_file >= 2 {
            let _ = fs::remove_file(name(&format!(".{}{extension}", self.max_file - 1)));
            for at in (2..self.max_file).rev() {
                let from = name(&format!(".{}{extension}", at - 1));
                let _ = fs::rename(from, name(&format!(".{at}{extension}")));
            }
            fs::rename(&self.path, name(".1")).unwrap();
        } else {
            fs::remove_file(&self.path).unwrap();
        }
        self.file = File::create(&self.path).unwrap();
        self.size = 0;
        if self.max_file >= 2 && self.compress {
            // What stands in it is of no interest: nobody reads it.
            fs::write(name(".1.gz"), b"\x1f\x8b\x08\0").unwrap();
            fs::remove_file(name(".1")).unwrap();
        }
    }

    /// dockerd is started again, and goes on in the file.
    pub fn reopen(&mut self) {
        self.file = OpenOptions::new().append(true).create(true).open(&self.path).unwrap();
    }
}

fn json(stream: &str, text: &[u8], part: Option<(u32, bool)>, time_ns: i64) -> Vec<u8> {
    let mut log = String::new();
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => log.extend(['\\', character]),
                '\n' => log.push_str("\\n"),
                '\r' => log.push_str("\\r"),
                '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    log.push_str(&format!("\\u{:04x}", u32::from(character)));
                }
                _ => log.push(character),
            }
        }
        log.push_str(&"\\ufffd".repeat(chunk.invalid().len()));
    }
    if part.is_none_or(|(_, last)| last) {
        log.push_str("\\n");
    }
    let time = rfc3339(time_ns);
    format!("{{\"log\":\"{log}\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n").into_bytes()
}

fn local(stream: &str, text: &[u8], part: Option<(u32, bool)>, time_ns: i64) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, stream.as_bytes());
    message.push(2 << 3);
    varint(&mut message, time_ns as u64);
    if !text.is_empty() {
        field(&mut message, 3, text);
    }
    if let Some((ordinal, last)) = part {
        message.extend([4 << 3, 1]);
        let mut metadata = Vec::new();
        if last {
            metadata.extend([1 << 3, 1]);
        }
        field(&mut metadata, 2, &[b'e'; 64]);
        metadata.push(3 << 3);
        varint(&mut metadata, u64::from(ordinal));
        field(&mut message, 5, &metadata);
    }
    let size = (message.len() as u32).to_be_bytes();
    [&size[..], &message, &size].concat()
}

fn cri(stream: &str, text: &[u8], part: Option<(u32, bool)>, time_ns: i64) -> Vec<u8> {
    let tag = if part.is_none_or(|(_, last)| last) { 'F' } else { 'P' };
    // conmon writes local time with its offset.
    let time = rfc3339(time_ns).replace('Z', "+00:00");
    [format!("{time} {stream} {tag} ").as_bytes(), text, b"\n"].concat()
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// As Go's RFC3339Nano, which leaves zeros at the end out.
fn rfc3339(time_ns: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(time_ns as u64);
    let text = humantime::format_rfc3339_nanos(time).to_string();
    let text = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{text}Z")
}
