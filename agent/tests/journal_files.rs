//! The journal reader on real files: made by Debian's systemd-journal-remote and journald, compared
//! entry by entry with journalctl.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/journals.rs"]
mod journals;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use journals::{Export, Told, journalctl};
use mote::logs::journal::{
    Counts, Cursor, Directory, Entry, FieldSet, Journal, Limits, Matches, Next, Start,
};

const START: u64 = 1_700_000_000_000_000;

fn journal(directories: &[&Path]) -> Journal {
    with(directories, FieldSet::all(64 << 20), Matches::default())
}

fn with(directories: &[&Path], fields: FieldSet, matches: Matches) -> Journal {
    let directory = |path: &&Path| Directory { path: path.to_path_buf(), subdirectories: false };
    let limits = Limits { entry_bytes: 64 << 20, ..Limits::default() };
    Journal::new(directories.iter().map(directory).collect(), fields, matches, limits)
}

fn hex(id: [u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn told(entry: &Entry) -> Told {
    let mut fields: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, value) in entry.fields() {
        let name = String::from_utf8(name.to_vec()).unwrap();
        fields.entry(name).or_default().push(value.to_vec());
    }
    fields.values_mut().for_each(|values| values.sort());
    Told {
        seqnum_id: hex(entry.seqnum_id()),
        seqnum: entry.seqnum(),
        boot_id: hex(entry.boot_id()),
        monotonic: entry.monotonic_us(),
        realtime: entry.realtime_us(),
        fields,
    }
}

fn read(journal: &mut Journal) -> Vec<Told> {
    let mut entry = Entry::new();
    let mut all = Vec::new();
    loop {
        match journal.next(&mut entry).unwrap() {
            Next::Entry => all.push(told(&entry)),
            Next::Busy | Next::Later => {}
            Next::Idle => return all,
        }
    }
}

fn read_all(directories: &[&Path]) -> (Vec<Told>, Counts) {
    let mut journal = journal(directories);
    journal.seek(Start::Head);
    let all = read(&mut journal);
    (all, journal.counts())
}

fn compare(ours: &[Told], theirs: &[Told]) {
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        if ours != theirs {
            let short = |told: &Told| format!("{told:?}").chars().take(2_000).collect::<String>();
            panic!("entry {number}:\n{}\n{}", short(ours), short(theirs));
        }
    }
    assert_eq!(ours.len(), theirs.len());
}

/// Text that does not repeat itself at once, but compresses.
fn filler(seed: usize, len: usize) -> Vec<u8> {
    let mut number = seed as u64 + 1;
    let mut text = Vec::new();
    while text.len() < len {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = ["disk ", "gone ", "sector ", "retry ", "link "][(number >> 33) as usize % 5];
        text.extend(word.bytes());
        if number >> 60 == 0 {
            text.extend((number as u32).to_string().bytes());
        }
    }
    text.truncate(len);
    text
}

/// Small fields, large ones, binary ones, empty ones, and many values of one.
fn mixed(entries: usize) -> Export {
    let mut export = Export::default();
    for number in 0..entries {
        let at = number as u64 * 1_000;
        export
            .entry(START + at, 1_000_000 + at, 0x11)
            .field("MESSAGE", format!("line {number}"))
            .field("PRIORITY", (number % 8).to_string())
            .field("_SYSTEMD_UNIT", format!("unit{}.service", number % 3));
        match number % 25 {
            1 => _ = export.field("DUMP", filler(number, 700 + number * 13)),
            2 => _ = export.field("BINARY", (0..=255u8).cycle().take(900).collect::<Vec<_>>()),
            3 => _ = export.field("EMPTY", ""),
            4 => {
                for value in 0..20 {
                    export.field("MANY", format!("value {value}"));
                }
            }
            5 => _ = export.field("LARGE", filler(number, 300_000)),
            6 => _ = export.field("ZEROS", vec![0; 200_000]),
            7 => _ = export.field("TAB", "a\tb\nc\u{fc}"),
            _ => {}
        }
    }
    export
}

/// Compresses the data of a file that has none compressed, as older systemds did it.
fn compress_data(path: &Path, flag: u8, compress: &dyn Fn(&[u8]) -> Vec<u8>) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let u64_at = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    };
    let skip = if bytes[12] & 0x10 != 0 { 72 } else { 64 };
    let (mut at, last, mut compressed) = (u64_at(&bytes, 88), u64_at(&bytes, 136), 0);
    while at <= last {
        let size = u64_at(&bytes, at + 8);
        if bytes[at] == 1 && bytes[at + 1] == 0 && size - skip >= 512 {
            let packed = compress(&bytes[at + skip..at + size]);
            if packed.len() < size - skip {
                bytes[at + 1] = flag;
                bytes[at + skip..at + skip + packed.len()].copy_from_slice(&packed);
                let new = (skip + packed.len()) as u64;
                bytes[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
                compressed += 1;
            }
        }
        at += size.next_multiple_of(8);
    }
    // The flags of the file are those of the objects, but for zstd's.
    bytes[12] |= flag;
    fs::write(path, bytes).unwrap();
    compressed
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("xz")
        .args(["--stdout", "--check=none", "--lzma2=dict=1MiB"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("xz: {error}; run `cargo xtask setup`"));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut packed = (bytes.len() as u64).to_le_bytes().to_vec();
    packed.extend(lz4_flex::block::compress(bytes));
    packed
}

#[test]
fn every_layout_and_compression_reads_as_journalctl_reads_it() {
    let root = tempfile::tempdir().unwrap();
    let export = mixed(35);
    for compact in [false, true] {
        for keyed in [false, true] {
            for codec in ["plain", "zstd", "lz4", "xz"] {
                let path = root.path().join("a.journal");
                let _ = fs::remove_file(&path);
                export.write(&path, compact, keyed, codec == "zstd");
                match codec {
                    "lz4" => assert!(compress_data(&path, 2, &lz4) >= 6),
                    "xz" => assert!(compress_data(&path, 1, &xz) >= 6),
                    _ => {}
                }
                let flags = fs::read(&path).unwrap()[12];
                assert_eq!(flags & 0x10 != 0, compact);
                let theirs = journalctl(["--file".as_ref(), path.as_os_str()]);
                assert_eq!(theirs.len(), 35, "{compact} {keyed} {codec}");
                let (ours, counts) = read_all(&[root.path()]);
                compare(&ours, &theirs);
                let good = Counts { entries: 35, ..Counts::default() };
                assert_eq!(counts, good, "{compact} {keyed} {codec}");
                // The same with bounds: the beginning of each value.
                let fields =
                    FieldSet::new().with("DUMP", 100).with("LARGE", 70_000).with("ZEROS", 1);
                let mut journal = with(&[root.path()], fields, Matches::default());
                journal.seek(Start::Head);
                for (ours, theirs) in read(&mut journal).iter().zip(&theirs) {
                    for (name, max) in [("DUMP", 100), ("LARGE", 70_000), ("ZEROS", 1)] {
                        let want =
                            theirs.fields.get(name).map(|values| vec![values[0][..max].to_vec()]);
                        assert_eq!(ours.fields.get(name), want.as_ref(), "{codec}");
                    }
                    assert!(ours.fields.len() <= 1);
                }
            }
        }
    }
}

/// Files of one machine's boots and of another's, which overlap in time, and a copy of one.
fn several(root: &Path, entries: usize) -> Vec<std::path::PathBuf> {
    let mut paths = Vec::new();
    for file in 0..4usize {
        let mut export = Export::default();
        for number in 0..entries {
            // Two boots of each machine; files 0 and 1 are of the same.
            let machine = [0x10, 0x10, 0x20, 0x30][file];
            let reboot = entries as u64 * (1_700 + machine as u64);
            let at = (number * (file + 3) * 1_000 + file * 7 + number * number % 900) as u64;
            let boot = machine + u128::from(at >= reboot);
            let since_boot = if at >= reboot { at - reboot } else { at };
            export
                .entry(START + at, since_boot + 1_000_000, boot)
                .field("MESSAGE", format!("{file}: {number}"))
                .field("PRIORITY", (number % 4).to_string())
                .field("_SYSTEMD_UNIT", format!("unit{}.service", number % 3));
        }
        let path = root.join(format!("file{file}.journal"));
        export.write(&path, file % 2 == 0, true, true);
        paths.push(path);
    }
    fs::copy(&paths[1], root.join("copy@1-2-3.journal")).unwrap();
    paths
}

#[test]
fn several_files_are_merged_as_journalctl_merges_them_a_copy_counts_once() {
    let root = tempfile::tempdir().unwrap();
    several(root.path(), 400);
    let theirs = journalctl(["--directory".as_ref(), root.path().as_os_str()]);
    assert_eq!(theirs.len(), 1_600);
    let (ours, counts) = read_all(&[root.path()]);
    compare(&ours, &theirs);
    assert_eq!(counts, Counts { entries: 1_600, repeated: 400, ..Counts::default() });
}

#[test]
fn each_entry_arrives_once_however_often_reading_starts_again() {
    let root = tempfile::tempdir().unwrap();
    several(root.path(), 100);
    let (whole, _) = read_all(&[root.path()]);
    let mut parts = Vec::new();
    let mut start = Start::Head;
    let mut entry = Entry::new();
    for part in 0.. {
        let mut journal = journal(&[root.path()]);
        journal.seek(start.clone());
        let before = parts.len();
        for _ in 0..part % 7 {
            if journal.next(&mut entry).unwrap() == Next::Entry {
                parts.push(told(&entry));
            }
        }
        assert_eq!(journal.counts().lost_entries, 0);
        if part % 7 > 0 && parts.len() == before {
            break;
        }
        if let Some(cursor) = journal.cursor() {
            start = Start::After(Cursor::from_bytes(&cursor.to_bytes()).unwrap());
        }
    }
    compare(&parts, &whole);
}

#[test]
fn starts_are_where_they_should_be() {
    let root = tempfile::tempdir().unwrap();
    several(root.path(), 100);
    let (whole, _) = read_all(&[root.path()]);
    for since in [0, START + 1, START + 150_000, START + 333_333, START + 10_000_000] {
        let mut journal = journal(&[root.path()]);
        journal.seek(Start::Since(since));
        let want: Vec<_> = whole.iter().filter(|told| told.realtime >= since).cloned().collect();
        compare(&read(&mut journal), &want);
    }
    let mut journal = journal(&[root.path()]);
    journal.seek(Start::Tail);
    let cursor = journal.cursor().unwrap();
    assert!(read(&mut journal).is_empty());
    let mut export = Export::default();
    export.entry(START + 20_000_000, 9_000_000, 0x10).field("MESSAGE", "more");
    export.write(&root.path().join("file2.journal"), true, true, true);
    let more = read(&mut journal);
    assert_eq!(more.len(), 1);
    assert_eq!(more[0].fields["MESSAGE"], [b"more"]);
    let mut again = self::journal(&[root.path()]);
    again.seek(Start::After(cursor));
    compare(&read(&mut again), &more);
}

#[test]
fn entries_before_a_step_of_the_clock_are_found_too() {
    let root = tempfile::tempdir().unwrap();
    let mut export = Export::default();
    // A board without a clock: each boot begins an hour before the last one's end.
    for number in 0..4_000u64 {
        let boot = number / 1_000;
        let at = number * 2_000_000 - boot * 3_600_000_000 / 4;
        export.entry(START + at, number % 1_000 * 1_000 + 5, 0x70 + u128::from(boot));
        export.field("MESSAGE", number.to_string());
    }
    export.write(&root.path().join("a.journal"), true, true, true);
    let (whole, _) = read_all(&[root.path()]);
    assert_eq!(whole.len(), 4_000);
    for since in (0..35).map(|step| START + step * 200_000_000) {
        let mut journal = journal(&[root.path()]);
        journal.seek(Start::Since(since));
        let first = whole.iter().position(|told| told.realtime >= since).unwrap_or(whole.len());
        compare(&read(&mut journal), &whole[first..]);
    }
}

/// A journal's entries after the cursor of one that ended at `START` and is gone.
fn after_the_one_that_is_gone(times: &[(u64, u128)], running: Option<u128>) -> Vec<usize> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("system.journal");
    let mut export = Export::default();
    for number in 0..10 {
        export.entry(START - 10 + number, 5 + number, 1).field("MESSAGE", "old");
    }
    export.write(&path, true, true, true);
    let mut before = journal(&[root.path()]);
    before.seek(Start::Head);
    assert_eq!(read(&mut before).len(), 10);
    let cursor = before.cursor().unwrap();
    drop(before);
    fs::remove_file(&path).unwrap();
    let mut export = Export::default();
    for (number, (time, boot)) in times.iter().enumerate() {
        export.entry(*time, 5 + number as u64, *boot).field("NUMBER", number.to_string());
    }
    export.write(&path, true, true, true);
    let mut journal = journal(&[root.path()]);
    journal.set_boot(running.map(u128::to_be_bytes));
    journal.seek(Start::After(cursor));
    let number = |told: &Told| String::from_utf8(told.fields["NUMBER"][0].clone()).unwrap();
    read(&mut journal).iter().map(|told| number(told).parse().unwrap()).collect()
}

const YEAR: u64 = 365 * 86_400_000_000;

#[test]
fn of_a_journal_begun_anew_nothing_is_lost_though_the_clock_was_years_behind() {
    // Two boots that began years ago by their clock, until the network told the time.
    let times = [
        (START - 5 * YEAR, 2),
        (START - 5 * YEAR + 1, 2),
        (START + 1_000, 2),
        (START - 5 * YEAR, 3),
        (START + 2_000, 3),
    ];
    assert_eq!(after_the_one_that_is_gone(&times, None), [0, 1, 2, 3, 4]);
    // It has not told it yet.
    let times = [(START - 5 * YEAR, 2), (START - 5 * YEAR + 1, 2)];
    assert_eq!(after_the_one_that_is_gone(&times, Some(2)), [0, 1]);
    // Ahead at first.
    let times = [(START + 5 * YEAR, 2), (START + 1_000, 2)];
    assert_eq!(after_the_one_that_is_gone(&times, Some(2)), [0, 1]);
}

#[test]
fn a_journal_of_another_machine_is_read_from_where_the_first_one_ended() {
    let times = [(START - 9_000, 7), (START - 8_000, 7), (START + 1, 8), (START + 2, 8)];
    assert_eq!(after_the_one_that_is_gone(&times, Some(8)), [2, 3]);
    assert_eq!(after_the_one_that_is_gone(&times[..2], Some(9)), [0usize; 0]);
}

#[test]
fn a_file_that_takes_anothers_name_and_inode_while_it_is_closed_is_read() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, at: u64| {
        let mut export = Export::default();
        export.entry(START + at, 5 + at, 0x10).field("MESSAGE", text);
        export.write(&root.path().join(name), true, true, true);
    };
    write("a.journal", "one", 0);
    write("b.journal", "two", 1);
    let directory = Directory { path: root.path().to_path_buf(), subdirectories: false };
    let limits = Limits { open_files: 1, ..Limits::default() };
    let mut journal = Journal::new(vec![directory], FieldSet::all(100), Matches::default(), limits);
    journal.seek(Start::Head);
    assert_eq!(read(&mut journal).len(), 2);
    for (round, name) in ["a.journal", "b.journal"].into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.journal");
        let mut export = Export::default();
        let at = 10 + round as u64;
        export.entry(START + at, 5 + at, 0x10).field("MESSAGE", "three");
        export.write(&other, true, true, true);
        // It keeps its inode.
        fs::write(root.path().join(name), fs::read(&other).unwrap()).unwrap();
        journal.rescan();
        let more = read(&mut journal);
        assert_eq!(more.len(), 1, "{name}");
        assert_eq!(more[0].fields["MESSAGE"], [b"three"]);
    }
}

#[test]
fn match_rules_select_what_journalctl_selects() {
    let root = tempfile::tempdir().unwrap();
    several(root.path(), 60);
    let large = mixed(30);
    large.write(&root.path().join("mixed.journal"), true, true, true);
    let rules: &[&[&str]] = &[
        &["PRIORITY=3"],
        &["PRIORITY=3", "PRIORITY=1"],
        &["PRIORITY=3", "_SYSTEMD_UNIT=unit1.service"],
        &["PRIORITY=3", "_SYSTEMD_UNIT=unit1.service", "+", "PRIORITY=2", "+", "EMPTY="],
        &["MANY=value 7"],
        &["NONE=1"],
        &["PRIORITY=33"],
    ];
    for words in rules {
        let arguments = ["--directory", root.path().to_str().unwrap()];
        let theirs = journalctl(arguments.iter().chain(words.iter()));
        let matches = Matches::parse(*words).unwrap();
        let mut journal = with(&[root.path()], FieldSet::all(64 << 20), matches);
        journal.seek(Start::Head);
        compare(&read(&mut journal), &theirs);
        let counts = journal.counts();
        assert_eq!((counts.entries + counts.unmatched, counts.lost_entries), (270, 0), "{words:?}");
    }
}

/// Reads whatever can be read, however the files are damaged; says how many calls that took.
fn read_damaged(root: &Path) -> (usize, usize, Counts) {
    let mut journal = with(&[root], FieldSet::all(2_000), Matches::default());
    journal.seek(Start::Head);
    let mut entry = Entry::new();
    let (mut entries, mut calls) = (0, 0);
    loop {
        calls += 1;
        assert!(calls < 5_000, "{:?}", journal.counts());
        match journal.next(&mut entry) {
            Ok(Next::Entry) => entries += 1,
            Ok(Next::Busy | Next::Later) | Err(_) => {}
            Ok(Next::Idle) => return (entries, calls, journal.counts()),
        }
    }
}

/// Where the file's objects end, and where those begin that are read.
fn objects(bytes: &[u8]) -> (usize, Vec<(u8, usize, usize)>) {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let (mut at, last) = (u64_at(88), u64_at(136));
    let mut objects = Vec::new();
    while at <= last {
        let size = u64_at(at + 8);
        objects.push((bytes[at], at, size));
        at += size.next_multiple_of(8);
    }
    (at, objects)
}

#[test]
fn every_byte_flipped_costs_what_it_hit() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = root.path().join("a.journal");
    mixed(12).write(&path, true, true, true);
    let good = fs::read(&path).unwrap();
    let (_, objects) = objects(&good);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let flip = |at: usize, byte: u8| {
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte], at as u64).unwrap();
    };
    let mut whole = 0;
    let mut worst = 12;
    // The hash tables are not read.
    let read_ones = objects.iter().filter(|(kind, ..)| matches!(kind, 1 | 3 | 6));
    let mut seen = [0; 7];
    for &(kind, at, size) in [(0, 0, 272)].iter().chain(read_ones) {
        // Every byte of the first three of a kind; of the others each fourth, another one each time.
        let seen = &mut seen[usize::from(kind)];
        *seen += 1;
        let (first, step) = if *seen <= 3 { (0, 1) } else { (*seen % 4, 4) };
        for at in (at + first..at + size.min(120)).step_by(step) {
            flip(at, good[at] ^ [0x01, 0x80, 0xff][at % 3]);
            let (entries, ..) = read_damaged(root.path());
            flip(at, good[at]);
            assert!(entries <= 12, "{at}");
            // An entry costs itself; data costs its field, an array the entries in it.
            if kind == 1 {
                assert_eq!(entries, 12, "{at}");
            }
            if kind == 3 {
                assert!(entries >= 11, "{at}: {entries}");
            }
            whole += usize::from(entries == 12);
            worst = worst.min(entries);
        }
    }
    assert_eq!(worst, 0);
    assert!(whole > 500, "{whole}");
    assert_eq!(read_damaged(root.path()).0, 12);
}

#[test]
fn a_file_cut_anywhere_is_read_up_to_there() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = root.path().join("a.journal~");
    let made = root.path().join("made.journal");
    mixed(12).write(&made, false, true, false);
    let good = fs::read(&made).unwrap();
    fs::remove_file(&made).unwrap();
    let (end, objects) = objects(&good);
    let mut best = 0;
    let cuts =
        objects.iter().flat_map(|&(_, at, size)| [at, at + 1, at + 17, at + 40, at + size - 1]);
    for len in (0..300).chain(cuts).filter(|len| *len <= end) {
        fs::write(&path, &good[..len]).unwrap();
        let (entries, ..) = read_damaged(root.path());
        let there =
            objects.iter().filter(|(kind, at, size)| *kind == 3 && at + size <= len).count();
        assert!(entries <= there + 1, "{len}: {entries} of {there}");
        best = best.max(entries);
    }
    assert!(best >= 8, "{best}");
}
