//! Containers' logs read from the files that engines write, while these rotate, break, come and go.

// clippy.toml allows these in #[test] functions, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "docker_engine/bench.rs"]
mod bench;
mod docker_engine;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bench::{ALL, Bench, Dice, LIMIT, Line, MAX_LINE, QUIET, append, source};
use docker_engine::{Driver, Engine, PART};
use mote::host::ManualClock;
use mote::logs::docker::disk::{self, CRI, Container, DiskError, JSON_FILE, LOCAL};
use mote::logs::file::{FileSource, Limits, Options};
use mote::logs::{Progress, Source};
use mote::model::{Block, Labels};
use tokio::time::advance;

/// Rotations, kills that throw blocks away, and blocks of all sizes.
async fn torture(driver: Driver, max_file: u32, compress: bool, seed: u64) {
    let (mut bench, mut engine) = Bench::new(driver);
    (engine.max_file, engine.compress) = (max_file, compress);
    let mut dice = Dice(seed);
    let (mut number, mut rotations, mut kills) = (0, 0, 0);
    let mut written: [Vec<String>; 2] = Default::default();
    while number < 3_000 {
        for _ in 0..dice.roll(60) {
            let length = if dice.roll(20) == 0 { dice.roll(40_000) } else { dice.roll(60) };
            let filling = ["x", "\"", "\u{1}", "ü", "<", "\n"][dice.roll(6) as usize];
            // In a file of lines, a line break ends the line.
            let filling = if filling == "\n" { "\t" } else { filling };
            let line = format!("{number} {}", filling.repeat(length as usize / filling.len()));
            let stream = dice.roll(2) as usize;
            // A character that parts share is no character to json-file, nor to any reader of parts.
            let line = if filling == "ü" { line.replacen(' ', "", 2) } else { line };
            let line = if line.len() >= PART { line.replace('ü', "u") } else { line };
            engine.line(["stdout", "stderr"][stream], line.as_bytes());
            written[stream].push(line);
            number += 1;
        }
        match dice.roll(6) {
            0 => {
                bench.read_once(1 << dice.roll(18), true);
            }
            1 => while bench.read_once(1 << (10 + dice.roll(10)), true) == Progress::More {},
            2 => {
                bench.read_once(1 << dice.roll(18), true);
                bench.read_once(1 << dice.roll(18), false);
                bench.restart();
                kills += 1;
            }
            3 => {
                advance(QUIET).await;
                bench.read_once(LIMIT, true);
            }
            _ => {}
        }
        if dice.roll(3) == 0 {
            // What an agent has in its hand when the file goes: all that was before, or nothing of it.
            bench.read();
            engine.rotate();
            bench.read_once(0, true);
            rotations += 1;
        }
    }
    bench.read();
    assert!(rotations > 20 && kills > 5, "{rotations} rotations, {kills} kills");
    for (stream, written) in ["stdout", "stderr"].into_iter().zip(&written) {
        let read = bench.joined(stream);
        let wrong = read.iter().zip(written).find(|(read, written)| read != written);
        assert_eq!((wrong, read.len()), (None, written.len()), "{driver:?}, seed {seed}");
    }
    for line in bench.lines.windows(2) {
        let same = line[0].stream == line[1].stream;
        // Parts have the time of their line; a new process does not know what it gave to the last one.
        assert!(!same || line[0].time_ns <= line[1].time_ns, "{line:?}");
    }
    for name in ["malformed", "lost_bytes", "truncated_lines", "invalid_utf8", "errors"] {
        assert_eq!(bench.count(name), 0, "{driver:?}: {name}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_line_once_and_in_order_through_rotations_and_kills() {
    for (seed, driver) in (1..).zip(ALL) {
        torture(driver, 5, false, seed).await;
        torture(driver, 2, false, seed + 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_are_removed_when_they_rotate_are_read_to_their_ends() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    let (mut other, mut gz) = Bench::new(Driver::Local);
    (engine.max_file, engine.max_size) = (1, 700);
    (gz.compress, gz.max_size) = (true, 350);
    for number in 0..100 {
        for _ in 0..7 {
            engine.line("stdout", format!("line {number}").as_bytes());
            gz.line("stdout", format!("line {number}").as_bytes());
        }
        while bench.read_once(300, true) == Progress::More {}
        while other.read_once(300, true) == Progress::More {}
    }
    bench.read();
    other.read();
    let expected: Vec<String> = (0..700).map(|number| format!("line {}", number / 7)).collect();
    assert_eq!(bench.joined("stdout"), expected);
    assert_eq!(other.joined("stdout"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_compressed_while_the_agent_was_stopped_is_counted_as_lost() {
    let (mut bench, mut engine) = Bench::new(Driver::Local);
    engine.compress = true;
    engine.line("stdout", b"one");
    assert_eq!(bench.texts(), ["one"]);
    engine.line("stdout", b"lost");
    engine.rotate();
    engine.line("stdout", b"three");
    bench.restart();
    assert_eq!(bench.texts(), ["three"]);
    assert_eq!(bench.count("lost_files"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_rotated_while_the_agent_was_stopped_is_found_again() {
    for driver in ALL {
        let (mut bench, mut engine) = Bench::new(driver);
        engine.line("stdout", b"one");
        assert_eq!(bench.texts(), ["one"]);
        engine.line("stdout", b"two");
        engine.rotate();
        engine.line("stderr", b"three");
        bench.restart();
        assert_eq!(bench.texts(), ["two", "three"], "{driver:?}");
        assert_eq!(bench.count("lost_files"), 0);
    }
}

#[test]
fn records_keep_time_stream_and_parts() {
    for driver in ALL {
        let (mut bench, mut engine) = Bench::new(driver);
        engine.line("stdout", b"\t<one> \"\\ & \0");
        let long = "x".repeat(PART);
        engine.line("stderr", format!("{long}{long}y").as_bytes());
        engine.line("stdout", b"a terminal's\r");
        engine.line("stdout", b"");
        engine.end("stdout", b"the end");
        engine.line("stdout", b"the next run");
        let start = 1_700_000_000_000_000_000;
        let line = |stream: &str, text: &str, after: i64, partial| Line {
            stream: Some(stream.to_owned()),
            text: text.to_owned(),
            time_ns: start + after,
            partial,
            malformed: None,
        };
        let expected = [
            line("stdout", "\t<one> \"\\ & \0", 1_001, false),
            line("stderr", &long, 2_002, true),
            line("stderr", &long, 2_003, true),
            line("stderr", "y", 2_004, false),
            line("stdout", "a terminal's", 3_003, false),
            line("stdout", "", 4_004, false),
            // Docker's last line without an end goes on nowhere; the CRI says of each part that it is one.
            line("stdout", "the end", 5_005, driver == Driver::Cri),
            line("stdout", "the next run", 6_006, false),
        ];
        assert_eq!(bench.read(), expected, "{driver:?}");
    }
}

#[test]
fn lines_of_the_same_time_are_told_apart_and_those_of_a_clock_set_back_keep_it() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    for time_ns in [1_000_000, 1_000_000, 1_000_000, 1_000_001, 500, 500] {
        engine.time_ns = time_ns - 1_001;
        engine.line("stdout", b"again");
    }
    let times: Vec<i64> = bench.read().iter().map(|line| line.time_ns).collect();
    assert_eq!(times, [1_000_000, 1_000_001, 1_000_002, 1_000_003, 500, 501]);
}

#[test]
fn a_record_that_is_not_there_in_full_waits() {
    for driver in ALL {
        let (mut bench, engine) = Bench::new(driver);
        let bytes = engine.bytes("stdout", b"whole", None);
        for byte in &bytes[..bytes.len() - 1] {
            append(&bench.container.path, &[*byte]);
            assert_eq!(bench.read(), []);
            if byte % 8 == 0 {
                bench.restart();
            }
        }
        append(&bench.container.path, &bytes[bytes.len() - 1..]);
        assert_eq!(bench.texts(), ["whole"], "{driver:?}");
    }
}

#[test]
fn a_line_that_a_crash_of_docker_tore_is_kept_and_so_is_the_next() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    engine.line("stdout", b"one");
    let torn = engine.bytes("stdout", b"torn", None);
    append(&bench.container.path, &torn[..20]);
    engine.reopen();
    engine.line("stdout", b"two");
    append(&bench.container.path, b"a foreign line\n");
    engine.line("stdout", b"three");
    let lines = bench.read();
    let texts: Vec<_> = lines.iter().map(|line| (&*line.text, line.malformed.as_deref())).collect();
    let bad = Some("docker");
    let torn = std::str::from_utf8(&torn[..20]).unwrap();
    assert_eq!(
        texts,
        [("one", None), (torn, bad), ("two", None), ("a foreign line", bad), ("three", None)]
    );
    assert_eq!(lines[1].stream, None);
    assert_eq!((bench.count("malformed"), bench.count("lost_bytes")), (2, 0));
}

#[test]
fn a_torn_line_and_the_next_one_are_read_both_or_neither() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    engine.line("stdout", b"one");
    append(&bench.container.path, b"{\"log\":\"torn");
    engine.line("stdout", b"two");
    // Small blocks, each of which is thrown away once.
    for _ in 0..20 {
        bench.read_once(100, false);
        bench.restart();
        bench.read_once(100, true);
        bench.restart();
    }
    let texts: Vec<_> = bench.lines.iter().map(|line| &*line.text).collect();
    assert_eq!(texts, ["one", "{\"log\":\"torn", "two"]);
}

#[test]
fn damage_in_a_file_of_the_local_driver_costs_itself() {
    type Damage = fn(&mut Engine, &[u8]);
    let damages: [(&str, Damage, u64); 5] = [
        ("torn", |engine, record| engine.file.write_all(&record[..record.len() / 2]).unwrap(), 1),
        ("zeros", |engine, _| engine.file.write_all(&[0; 5000]).unwrap(), 1),
        ("a size too large", |engine, _| engine.file.write_all(b"\xff\xff\xff\xff").unwrap(), 1),
        (
            "another size at the end",
            |engine, record| {
                let mut record = record.to_vec();
                *record.last_mut().unwrap() ^= 1;
                engine.file.write_all(&record).unwrap();
            },
            1,
        ),
        (
            "no message",
            |engine, _| engine.file.write_all(b"\0\0\0\x07\x0a\x06std\xff\xff\0\0\0\x07").unwrap(),
            1,
        ),
    ];
    for (what, damage, malformed) in damages {
        let (mut bench, mut engine) = Bench::new(Driver::Local);
        engine.line("stdout", b"one");
        let record = engine.bytes("stdout", &[b'x'; 300], None);
        damage(&mut engine, &record);
        for _ in 0..100 {
            engine.line("stderr", b"two");
        }
        let lines = bench.read();
        let good: Vec<_> =
            lines.iter().filter(|line| line.malformed.is_none()).map(|line| &*line.text).collect();
        assert_eq!(good.len(), 101, "{what}");
        assert_eq!((good[0], good[1]), ("one", "two"));
        assert_eq!(bench.count("malformed"), malformed, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_torn_record_of_a_rotated_file_hides_is_found_at_its_end() {
    let (mut bench, mut engine) = Bench::new(Driver::Local);
    let record = engine.bytes("stdout", &[b'x'; 3000], None);
    engine.file.write_all(&record[..200]).unwrap();
    engine.line("stdout", b"one");
    // Its size says that more is to come.
    assert_eq!(bench.read(), []);
    engine.rotate();
    engine.line("stdout", b"two");
    bench.read();
    advance(QUIET).await;
    bench.read();
    let mut texts: Vec<_> = bench.lines.iter().map(|line| &*line.text).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!((bench.count("malformed"), bench.count("lost_bytes")), (1, 200));
}

#[test]
fn the_hole_that_a_truncation_leaves_costs_no_line() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    // After a rotation dockerd writes at its own offset.
    engine.rotate();
    for _ in 0..3000 {
        engine.line("stdout", b"before");
    }
    assert_eq!(bench.read().len(), 3000);
    OpenOptions::new().write(true).truncate(true).open(&bench.container.path).unwrap();
    assert_eq!(bench.read(), []);
    engine.line("stdout", b"after");
    engine.line("stdout", b"and on");
    assert_eq!(bench.texts(), ["after", "and on"]);
    assert_eq!(bench.count("malformed"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_container_is_read_to_its_end_and_forgotten() {
    for driver in ALL {
        let (mut bench, mut engine) = Bench::new(driver);
        engine.line("stdout", b"one");
        assert_eq!(bench.texts(), ["one"]);
        engine.line("stdout", b"two");
        fs::remove_dir_all(bench.dir.path().join("containers")).unwrap();
        engine.line("stderr", b"the last words");
        bench.disk.remove("c0ffee");
        assert!(!bench.disk.follows("c0ffee"));
        assert_eq!(bench.texts(), ["two", "the last words"], "{driver:?}");
        assert_eq!(bench.positions, BTreeMap::new());
        assert!(!bench.disk.knows(&bench.container.path));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_whose_block_is_lost_is_made_up_for_by_the_next_run() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    engine.line("stdout", b"one");
    bench.read();
    engine.line("stdout", b"two");
    bench.disk.remove("c0ffee");
    bench.read_once(LIMIT, false);
    bench.disk = source(&bench.positions, bench.limits);
    fs::remove_dir_all(bench.dir.path().join("containers")).unwrap();
    assert!(matches!(bench.disk.add(&bench.container), Err(DiskError::Absent)));
    assert_eq!((bench.read(), bench.positions.len()), (Vec::new(), 1));
    // It exists, and can't be read at the moment.
    assert_eq!(bench.disk.forget_others(|id| id == "c0ffee"), 0);
    assert_eq!((bench.read(), bench.positions.len()), (Vec::new(), 1));
    assert_eq!(bench.disk.forget_others(|id| id == "another"), 1);
    assert_eq!((bench.read(), bench.positions.len()), (Vec::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_position_waits_for_its_container() {
    let (mut bench, mut engine) = Bench::new(Driver::Local);
    engine.line("stdout", b"one");
    bench.read();
    engine.line("stdout", b"two");
    bench.disk = source(&bench.positions, bench.limits);
    for _ in 0..3 {
        advance(QUIET).await;
        assert_eq!(bench.read(), []);
    }
    assert!(bench.disk.knows(&bench.container.path));
    bench.disk.add(&bench.container).unwrap();
    assert_eq!(bench.texts(), ["two"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_deleted_under_a_running_container_is_followed_on() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    engine.line("stdout", b"one");
    assert_eq!(bench.texts(), ["one"]);
    fs::remove_file(&bench.container.path).unwrap();
    for _ in 0..5 {
        advance(Duration::from_secs(3600)).await;
        assert_eq!(bench.read(), []);
    }
    assert_eq!(bench.positions.len(), 1);
    engine.line("stdout", b"two");
    assert_eq!(bench.texts(), ["two"]);
    // dockerd is started again.
    engine.reopen();
    engine.line("stdout", b"three");
    advance(QUIET).await;
    assert_eq!(bench.texts(), ["three"]);
}

#[test]
fn labels_and_the_path_change_while_it_runs() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    engine.line("stdout", b"one");
    bench.read();
    bench.container.labels.set("name", "renamed");
    bench.disk.add(&bench.container).unwrap();
    engine.line("stdout", b"two");
    let mut block = Block::new();
    bench.disk.read(&mut block, LIMIT);
    let [stream] = block.streams() else { panic!("{:?}", block.streams()) };
    assert_eq!((stream.get("name"), stream.get("stream")), (Some("renamed"), Some("stdout")));
    assert_eq!(block.entries().map(|entry| entry.line).collect::<Vec<_>>(), ["two"]);
    assert_eq!(stream.get("filename"), None);
}

#[test]
fn a_path_with_the_characters_of_a_glob_is_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a[b]{c}*?");
    fs::write(&path, "2016-10-06T00:17:09.669794202Z stdout F text\n").unwrap();
    fs::write(dir.path().join("ab{c}xx"), "2016-10-06T00:17:09.669794202Z stdout F no\n").unwrap();
    let container = Container {
        id: "a".to_owned(),
        path: path.to_str().unwrap().to_owned(),
        format: CRI,
        labels: Labels::new(),
        max_line: MAX_LINE,
    };
    let mut disk = source(&BTreeMap::new(), Limits { watch: false, ..Limits::default() });
    disk.add(&container).unwrap();
    let mut block = Block::new();
    disk.read(&mut block, LIMIT);
    assert_eq!(block.entries().map(|entry| entry.line).collect::<Vec<_>>(), ["text"]);
}

#[test]
fn a_host_that_is_mounted_elsewhere_has_its_own_paths_and_links() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = Engine::new(Driver::Local, &dir.path().join("disk/docker/log"));
    engine.line("stdout", b"text");
    fs::create_dir_all(dir.path().join("var/lib")).unwrap();
    std::os::unix::fs::symlink("/disk/docker", dir.path().join("var/lib/docker")).unwrap();
    let path = "/var/lib/docker/log".to_owned();
    let labels = Labels::new();
    let container = Container { id: "a".to_owned(), path, format: LOCAL, labels, max_line: 100 };
    let limits = Limits { watch: false, ..disk::limits() };
    let mut disk = source(&BTreeMap::new(), limits).with_root(dir.path());
    disk.add(&container).unwrap();
    let mut block = Block::new();
    disk.read(&mut block, LIMIT);
    assert_eq!(block.entries().map(|entry| entry.line).collect::<Vec<_>>(), ["text"]);
}

#[test]
fn what_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let disk = source(&BTreeMap::new(), disk::limits());
    assert!(matches!(disk.check(&path("none")), Err(DiskError::Absent)));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(disk.check(&path("file")), Ok(())));
    assert!(matches!(disk.check(&path("file/file")), Err(DiskError::Absent)));
    assert!(matches!(disk.check(dir.path().to_str().unwrap()), Err(DiskError::Io(_))));
}

#[tokio::test]
async fn a_line_wakes_the_reader_and_nothing_else_does() {
    let (mut bench, mut engine) = Bench::new(Driver::JsonFile);
    bench.limits = disk::limits();
    bench.restart();
    bench.read();
    let wait = Duration::from_millis(300);
    assert!(tokio::time::timeout(wait, bench.disk.ready()).await.is_err(), "woken by nothing");
    engine.line("stdout", b"one");
    tokio::time::timeout(Duration::from_secs(10), bench.disk.ready()).await.unwrap();
    assert_eq!(bench.texts(), ["one"]);
    engine.rotate();
    engine.line("stdout", b"two");
    tokio::time::timeout(Duration::from_secs(10), bench.disk.ready()).await.unwrap();
    assert_eq!(bench.texts(), ["two"]);
    // Another container, while it waits.
    let other = bench.dir.path().join("other.log");
    let mut second = Engine::new(Driver::Cri, &other);
    let path = other.to_str().unwrap().to_owned();
    let container = Container { id: "b".to_owned(), path, format: CRI, ..bench.container.clone() };
    bench.disk.add(&container).unwrap();
    bench.read();
    second.line("stdout", b"three");
    tokio::time::timeout(Duration::from_secs(10), bench.disk.ready()).await.unwrap();
    assert_eq!(bench.texts(), ["three"]);
}

#[test]
fn users_globs_read_the_formats_too() {
    for (driver, format) in [(Driver::JsonFile, JSON_FILE), (Driver::Cri, CRI)] {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("pods/default_web_1/web/0.log");
        let mut engine = Engine::new(driver, &path);
        engine.line("stderr", b"text");
        let options = Options {
            paths: vec![format!("{}/pods/*/*/*.log", dir.path().display())],
            max_line: MAX_LINE,
            format,
            ..Options::default()
        };
        let clock = Rc::new(ManualClock::at(5));
        let limits = Limits { watch: false, ..Limits::default() };
        let mut files =
            FileSource::with_limits(&[options], &BTreeMap::new(), clock, limits).unwrap();
        let mut block = Block::new();
        files.read(&mut block, LIMIT);
        let stream = &block.streams()[0];
        assert_eq!((stream.get("stream"), stream.get("filename")), (Some("stderr"), path.to_str()));
        let entry = block.entries().next().unwrap();
        assert_eq!((entry.line, entry.timestamp_ns), ("text", 1_700_000_000_000_001_001));
    }
}
