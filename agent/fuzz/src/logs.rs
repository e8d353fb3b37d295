//! Log files of foreign bytes, and positions of foreign bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mote::host::ManualClock;
use mote::logs::Progress;
use mote::logs::file::{FileSource, KEY_PREFIX, Limits, Options};
use mote::model::Block;

use super::bytes::Input;

type Stored = BTreeMap<String, Vec<u8>>;

thread_local! {
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(folder());
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary directory")
}

/// A file without contents and without a past.
fn fresh() -> PathBuf {
    let path = FOLDER.with_borrow(|folder| folder.path().join("a.log"));
    fs::write(&path, b"").expect("in the folder");
    path
}

fn source(path: &Path, max_line: usize, stored: &Stored) -> FileSource {
    let options = Options {
        paths: vec![path.to_str().expect("UTF-8").to_owned()],
        max_line,
        ..Options::default()
    };
    // Watches are the kernel's matter, and there is no runtime to wait for them.
    let limits = Limits { watch: false, ..Limits::default() };
    FileSource::with_limits(&[options], stored, Rc::new(ManualClock::at(0)), limits)
        .expect("the path of a temporary file is a pattern")
}

/// Reads all there is: the lines, and the positions after them.
fn read_all(
    source: &mut FileSource,
    limit: usize,
    max_line: usize,
    stored: &mut Stored,
) -> Vec<String> {
    let mut lines = Vec::new();
    // Each round reads a line, or a buffer of 64 KiB, or ends; no input has as many.
    for _ in 0..200_000 {
        let mut block = Block::new();
        let progress = source.read(&mut block, limit);
        for entry in block.entries() {
            assert!(entry.line.len() <= max_line, "{} bytes", entry.line.len());
            assert!(!entry.line.contains('\n'));
            lines.push(entry.line.to_owned());
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

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).expect("the file of this run");
    file.write_all(bytes).expect("in the folder");
}

/// `[max_line u8] [limit u8] [restart u8] [the first part's length u16] [contents]`: read in two parts,
/// with or without a restart between them, the lines are those of the contents, each cut at most at
/// `max_line`.
pub fn log_file(data: &[u8]) {
    let mut input = Input(data);
    let max_line = usize::from(input.u8()).max(16);
    let limit = usize::from(input.u8()) * 8;
    let restart = input.u8() & 1 != 0;
    let first = usize::from(input.u16());
    let contents = input.0;
    let (one, two) = contents.split_at(first.min(contents.len()));

    let path = fresh();
    let mut stored = Stored::new();
    append(&path, one);
    let mut reader = source(&path, max_line, &stored);
    let mut lines = read_all(&mut reader, limit, max_line, &mut stored);
    append(&path, two);
    if restart {
        reader = source(&path, max_line, &stored);
    }
    lines.extend(read_all(&mut reader, limit, max_line, &mut stored));
    if is_no_log(contents) {
        // Not followed at all, or only as long as it was too short to be recognised.
        return;
    }
    let counters = *reader.counters();
    assert_eq!((counters.truncations, counters.lost_bytes, counters.lost_files), (0, 0, 0));
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let mut whole: Vec<&[u8]> = contents.split(|&byte| byte == b'\n').collect();
    // What stands after the last line break is no line yet, unless it is too long to become one.
    let rest = whole.pop().unwrap_or_default();
    if rest.len() > max_line + 1 {
        whole.push(rest);
    }
    assert_eq!(lines.len(), whole.len());
    for (line, bytes) in lines.iter().zip(whole) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let lossy = String::from_utf8_lossy(bytes);
        assert!(lossy.starts_with(line.as_str()), "{line:?} of {lossy:?}");
        // Three bytes at most are given up so that no character is cut in two.
        assert!(lossy.len() <= max_line || line.len() + 3 >= max_line, "{line:?} of {lossy:?}");
        assert!(lossy.len() > max_line || *line == lossy, "{line:?} of {lossy:?}");
    }
}

/// Compressed, or UTF-16.
fn is_no_log(contents: &[u8]) -> bool {
    let magic: [&[u8]; 6] =
        [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh", b"\xff\xfe", b"\xfe\xff"];
    magic.iter().any(|magic| contents.starts_with(magic))
}

/// `[own u8] [a position's bytes]`: with bit 0 of `own`, the first record gets the file's own identity
/// and with bit 1 no check sums, so that it is believed.
pub fn log_position(data: &[u8]) {
    let mut input = Input(data);
    let own = input.u8();
    let mut position = input.0.to_vec();
    let first = position.first() == Some(&1);
    let path = fresh();
    append(&path, b"one\ntwo\r\nthree\n\xff\n");
    let metadata = fs::metadata(&path).expect("it was just written");
    if own & 1 != 0
        && let Some(identity) = position.get_mut(1..17)
    {
        identity[..8].copy_from_slice(&metadata.dev().to_le_bytes());
        identity[8..].copy_from_slice(&metadata.ino().to_le_bytes());
    }
    if own & 2 != 0
        && let Some(sums) = position.get_mut(if first { 25..31 } else { 41..53 })
    {
        sums.fill(0);
    }
    let flags = position.get(if first { 31 } else { 53 }).copied().unwrap_or_default();
    let key = format!("{KEY_PREFIX}{}", path.display());
    let mut stored = Stored::from([(key.clone(), position)]);
    let mut reader = source(&path, 16, &stored);
    let lines = read_all(&mut reader, 1 << 16, 16, &mut stored);
    let all = ["one", "two", "three", "\u{fffd}"];
    assert!(
        lines.len() <= all.len()
            && (lines.is_empty() || lines[1..] == all[all.len() + 1 - lines.len()..])
    );

    // What is stored now is a position of this file's, and nothing comes twice or is missed.
    let mut reader = source(&path, 16, &stored);
    assert_eq!(read_all(&mut reader, 1 << 16, 16, &mut stored), Vec::<String>::new());
    append(&path, b"four\n");
    let more = read_all(&mut reader, 1 << 16, 16, &mut stored);
    let skipping = flags & 1 != 0;
    assert!(more.len() == 1 || (skipping && more.is_empty()), "{more:?}");
}
