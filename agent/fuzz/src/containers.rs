//! Containers' log files of foreign bytes, in every format.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use mote::host::ManualClock;
use mote::logs::Progress;
use mote::logs::docker::disk::{CRI, JSON_FILE, LOCAL};
use mote::logs::file::{FileSource, Format, Limits, Options};
use mote::model::Block;

use super::bytes::Input;

type Stored = BTreeMap<String, Vec<u8>>;

/// What of an entry is the same however the file is cut up.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    stream: Option<String>,
    partial: bool,
    malformed: bool,
}

thread_local! {
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(folder());
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary directory")
}

/// Docker's json-file, see [`log`].
pub fn json_file(data: &[u8]) {
    log(data, JSON_FILE);
}

/// Docker's driver local, see [`log`].
pub fn local_log(data: &[u8]) {
    log(data, LOCAL);
}

/// CRI's files, see [`log`].
pub fn cri_file(data: &[u8]) {
    log(data, CRI);
}

/// `[max_line u8] [limit u8] [restart u8] [the first part's length u16] [contents]`: read in two parts, with
/// or without a restart between them, in small blocks, the lines are those of one reading.
fn log(data: &[u8], format: &'static dyn Format) {
    let mut input = Input(data);
    let max_line = usize::from(input.u8()).max(16);
    let limit = usize::from(input.u8()) * 8;
    let restart = input.u8() & 1 != 0;
    let first = usize::from(input.u16());
    let contents = input.0;
    let (one, two) = contents.split_at(first.min(contents.len()));
    let magic: [&[u8]; 4] = [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh"];
    if magic.iter().any(|magic| contents.starts_with(magic)) {
        return;
    }

    let path = FOLDER.with_borrow(|folder| folder.path().join("c.log"));
    fs::write(&path, one).expect("in the folder");
    let mut stored = Stored::new();
    let mut reader = source(&path, max_line, format, &stored);
    let mut lines = read_all(&mut reader, limit, max_line, &mut stored);
    let mut file = OpenOptions::new().append(true).open(&path).expect("it was just written");
    file.write_all(two).expect("in the folder");
    if restart {
        reader = source(&path, max_line, format, &stored);
    }
    lines.extend(read_all(&mut reader, limit, max_line, &mut stored));

    let mut whole = source(&path, max_line, format, &Stored::new());
    let expected = read_all(&mut whole, 1 << 20, max_line, &mut Stored::new());
    assert_eq!(lines, expected);
    let counters = whole.counters();
    assert!(counters.bytes <= contents.len() as u64 && counters.lost_bytes <= counters.bytes);
    assert_eq!((counters.truncations, counters.lost_files, counters.errors), (0, 0, 0));
}

fn source(
    path: &Path,
    max_line: usize,
    format: &'static dyn Format,
    stored: &Stored,
) -> FileSource {
    let options = Options {
        paths: vec![path.to_str().expect("UTF-8").to_owned()],
        max_line,
        format,
        ..Options::default()
    };
    let limits = Limits { watch: false, ..Limits::default() };
    FileSource::with_limits(&[options], stored, Rc::new(ManualClock::at(0)), limits)
        .expect("the path of a temporary file is a pattern")
}

fn read_all(
    source: &mut FileSource,
    limit: usize,
    max_line: usize,
    stored: &mut Stored,
) -> Vec<Line> {
    let mut lines = Vec::new();
    for _ in 0..200_000 {
        let mut block = Block::new();
        let progress = source.read(&mut block, limit);
        for entry in block.entries() {
            assert!(entry.line.len() <= max_line, "{} bytes", entry.line.len());
            let labels = &block.streams()[usize::from(entry.stream.0)];
            lines.push(Line {
                text: entry.line.to_owned(),
                stream: labels.get("stream").map(str::to_owned),
                partial: entry.partial,
                malformed: entry.metadata.get("malformed").is_some(),
            });
        }
        for position in block.positions() {
            stored.insert(position.key.to_owned(), position.position.to_vec());
        }
        if progress == Progress::Idle {
            return lines;
        }
    }
    panic!("reading comes to no end");
}
