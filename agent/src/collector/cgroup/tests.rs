//! Questions for names against a strict server on a Unix socket that plays a Docker daemon: it checks the
//! request byte by byte, and hangs, lies, and says no.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::lookup::{Found, Lookup, Question};
use super::recognise::Runtime;
use crate::host::Endpoint;

const ID: &str = "3f4e1a9c0b7d2e5f8a6b9c1d4e7f0a2b5c8d1e4f7a0b3c6d9e2f5a8b1c4d7e0f";

const BODY: &str = r#"{"Id":"3f4e1a9c0b7d2e5f8a6b9c1d4e7f0a2b5c8d1e4f7a0b3c6d9e2f5a8b1c4d7e0f","Name":"/web","Config":{"Image":"nginx","Labels":{}}}"#;

const PATIENCE: Duration = Duration::from_secs(20);

/// Gives one answer to each request, in pieces of `piece` bytes; none: it never answers. What it finds
/// wrong with a request comes out of the channel, and an empty text for each that is right.
fn daemon(root: &Path, answer: Option<Vec<u8>>, piece: usize) -> Receiver<String> {
    std::fs::create_dir_all(root.join("run")).unwrap();
    let path = root.join("run/docker.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(path).unwrap();
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let expected = format!(
                "GET /containers/{ID}/json HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
                 User-Agent: mote\r\nConnection: close\r\n\r\n"
            );
            let mut request = vec![0; expected.len()];
            stream.read_exact(&mut request).unwrap();
            let right = request == expected.as_bytes();
            let wrong = String::from_utf8_lossy(&request).into_owned();
            if say.send(if right { String::new() } else { wrong }).is_err() {
                return;
            }
            match &answer {
                None => open.push(stream),
                // Who has heard enough hangs up.
                Some(bytes) => bytes.chunks(piece).for_each(|part| {
                    let _ = stream.write_all(part);
                }),
            }
        }
    });
    said
}

fn question(user: Option<u32>) -> Question {
    Question { id: ID.into(), runtime: Runtime::Docker, user }
}

fn lookup(patience: Duration) -> Lookup {
    Lookup::new(Endpoint::parse("unix:///var/run/docker.sock"), patience)
}

fn ask(root: &Path, patience: Duration) -> Option<Found> {
    let mut lookup = lookup(patience);
    lookup.want(root, question(None));
    let mut got = None;
    lookup.ask(|id, found| {
        assert_eq!(id, ID);
        got = Some(found);
    });
    got
}

fn found(answer: Vec<u8>, piece: usize) -> Found {
    let root = tempfile::tempdir().unwrap();
    let said = daemon(root.path(), Some(answer), piece);
    let found = ask(root.path(), PATIENCE);
    assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "", "the request is not what it should be");
    found.unwrap()
}

fn with_length(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nApi-Version: 1.47\r\nContent-Length: {length}\r\n\r\n{body}")
        .into()
}

fn chunked(body: &str) -> Vec<u8> {
    let (first, rest) = body.split_at(10);
    format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{first}\r\n{:X}\r\n{rest}\r\n0\r\n\r\n",
        rest.len()
    )
    .into()
}

#[test]
fn a_container_is_found_whatever_pieces_its_answer_comes_in() {
    for piece in [1, 7, 100_000] {
        for answer in [with_length("200 OK", BODY), chunked(BODY)] {
            let Found::Facts(facts) = found(answer, piece) else { panic!("not found") };
            assert_eq!((facts.name.as_str(), facts.image.as_str()), ("web", "nginx"));
        }
    }
}

#[test]
fn nobody_who_says_so_is_asked_again_and_who_talks_nonsense_is() {
    let none = r#"{"message":"No such container"}"#;
    assert_eq!(found(with_length("404 Not Found", none), 9), Found::Nothing);
    let nonsense = [
        with_length("200 OK", "[]"),
        with_length("200 OK", &BODY.replace("3f4e", "0000")),
        with_length("500 Internal Server Error", BODY),
        with_length("403 Forbidden", BODY),
        b"\xff\xfe\x00garbage\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}".to_vec(),
        b"".to_vec(),
        [&b"HTTP/1.1 200 OK\r\n"[..], &vec![b'x'; 3 << 20]].concat(),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 << 20).into(),
    ];
    for answer in nonsense {
        let shown = answer.get(..40.min(answer.len())).unwrap().escape_ascii().to_string();
        assert_eq!(found(answer, 64 << 10), Found::Later, "{shown}");
    }
    // No daemon at all.
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(ask(empty.path(), PATIENCE), Some(Found::Later));
}

#[test]
fn a_daemon_that_hangs_holds_no_round() {
    let root = tempfile::tempdir().unwrap();
    let said = daemon(root.path(), None, 1);
    let patience = Duration::from_millis(100);
    let mut lookup = lookup(patience);
    lookup.want(root.path(), question(None));
    let start = Instant::now();
    lookup.ask(|_, found| panic!("{found:?} of a daemon that hangs"));
    assert!(start.elapsed() >= patience);
    assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "");
    // The next rounds don't wait at all, however much they want to know.
    let start = Instant::now();
    (0..10_000).for_each(|_| lookup.want(root.path(), question(None)));
    lookup.ask(|_, found| assert_eq!(found, Found::Later));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // It gives up in the end, and then lets the daemon rest: other questions are not asked of it.
    let deadline = Instant::now() + PATIENCE;
    let mut answers = 0;
    while answers < 2 {
        assert!(Instant::now() < deadline, "{answers} answers");
        thread::sleep(Duration::from_millis(20));
        lookup.want(root.path(), question(None));
        lookup.ask(|_, found| {
            assert_eq!(found, Found::Later);
            answers += 1;
        });
    }
    assert!(said.try_recv().is_err(), "asked again at once");
}

#[test]
fn a_users_daemon_that_hangs_hides_nobody_elses_names() {
    let root = tempfile::tempdir().unwrap();
    let _said = daemon(root.path(), Some(with_length("200 OK", BODY)), 9);
    let users = root.path().join("run/user/1000");
    std::fs::create_dir_all(&users).unwrap();
    let _hangs = UnixListener::bind(users.join("docker.sock")).unwrap();
    let mut lookup = lookup(Duration::from_millis(100));
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    // While it hangs, and while it is left alone after that.
    let mut gave_up = false;
    while found.len() < 20 || !gave_up {
        assert!(Instant::now() < deadline, "{found:?}, {gave_up}");
        lookup.want(root.path(), question(Some(1000)));
        lookup.want(root.path(), question(None));
        lookup.ask(|_, answer| match answer {
            Found::Facts(facts) => found.push(facts.name),
            other => gave_up |= other == Found::Later,
        });
    }
    assert!(found.iter().all(|name| name == "web"), "{found:?}");
}

#[test]
fn a_link_to_a_device_in_the_place_of_a_file_is_not_opened() {
    // Opening it would hang, as long as nobody writes to it, or give what is in it.
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(format!("var/lib/docker/containers/{ID}"));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.v2.json");
    let pipe = root.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    // Who opens a pipe to write without waiting succeeds once somebody has it open to read.
    let (stop, stopped) = mpsc::channel::<()>();
    let watched = pipe.clone();
    let watch = thread::spawn(move || {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        let mut opened = false;
        while stopped.try_recv().is_err() {
            opened |= rustix::fs::open(&watched, flags, rustix::fs::Mode::empty()).is_ok();
        }
        opened
    });
    std::os::unix::fs::symlink(&pipe, &file).unwrap();
    for _ in 0..200 {
        assert_eq!(ask(root.path(), PATIENCE), Some(Found::Later));
    }
    stop.send(()).unwrap();
    assert!(!watch.join().unwrap(), "the pipe was opened");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, BODY).unwrap();
    assert!(matches!(ask(root.path(), PATIENCE), Some(Found::Facts(_))));
}
