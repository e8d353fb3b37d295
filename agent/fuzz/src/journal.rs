//! A journal file of foreign bytes, and cursors of foreign bytes.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use mote::logs::journal::{
    Cursor, Directory, Entry, FieldSet, Journal, Limits, Matches, Next, Start,
};

thread_local! {
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(folder());
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary directory")
}

const MAX: usize = 300;

/// Reads all there is; the bound of calls is the promise that damage is not read for ever.
fn read(path: &Path, start: Start, matches: &str, most: usize) -> (Vec<u64>, Option<Cursor>) {
    let directory = Directory { path: path.to_owned(), subdirectories: false };
    let matches = Matches::parse(matches.split_whitespace()).expect("good terms");
    let fields = FieldSet::all(MAX);
    let mut journal = Journal::new(vec![directory], fields, matches, Limits::default());
    journal.seek(start);
    let mut entry = Entry::new();
    let mut numbers = Vec::new();
    for call in 0.. {
        assert!(call < 1_000, "{:?}", journal.counts());
        match journal.next(&mut entry) {
            Ok(Next::Entry) => {
                numbers.push(entry.seqnum());
                for (name, value) in entry.fields() {
                    assert!((1..=64).contains(&name.len()) && value.len() <= MAX);
                }
                if numbers.len() == most {
                    break;
                }
            }
            Ok(Next::Busy) => {}
            Ok(Next::Later) => panic!("the file can be read"),
            Ok(Next::Idle) => break,
            Err(error) => assert!(error.to_string().contains("journal")),
        }
    }
    (numbers, journal.cursor())
}

/// The bytes of a file.
pub fn journal(data: &[u8]) {
    if let Some(cursor) = Cursor::from_bytes(data) {
        assert_eq!(cursor.to_bytes(), data);
    }
    FOLDER.with_borrow(|folder| {
        let folder = folder.path();
        fs::write(folder.join("a.journal"), data).expect("in the folder");
        let (all, _) = read(folder, Start::Head, "", usize::MAX);
        assert!(all.is_sorted_by(|one, next| one < next), "{all:?}");
        let (some, _) = read(folder, Start::Head, "PRIORITY=6 + MESSAGE=x", usize::MAX);
        assert!(some.iter().all(|number| all.contains(number)));
        // Whoever stops and begins again gets the rest.
        let half = all.len() / 2;
        let (_, cursor) = read(folder, Start::Head, "", half.max(1));
        if let Some(cursor) = cursor.filter(|_| half > 0) {
            let (rest, _) = read(folder, Start::After(cursor), "", usize::MAX);
            assert!(rest.iter().all(|number| all[half..].contains(number)), "{all:?} {rest:?}");
        }
        read(folder, Start::Tail, "", usize::MAX);
        read(folder, Start::Since(1_700_000_000_000_001), "", usize::MAX);
    });
}
