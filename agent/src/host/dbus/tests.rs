//! Messages byte by byte, what is not one, and other sides that misbehave.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::*;

const UNITS: &[u8] = include_bytes!("../../../fuzz/seeds/dbus/units");
const UNITS_BIG: &[u8] = include_bytes!("../../../fuzz/seeds/dbus/units-big-endian");
const PROPERTY: &[u8] = include_bytes!("../../../fuzz/seeds/dbus/property");
const ERROR: &[u8] = include_bytes!("../../../fuzz/seeds/dbus/error");

#[test]
fn a_call_is_written_byte_by_byte() {
    let call =
        Call { destination: "d", path: "/p", interface: "i", member: "m", arguments: &["a", "bc"] };
    let mut out = Vec::new();
    write_call(&call, 0x0102, &mut out);
    let expected: &[u8] = b"l\x01\x02\x01\x0f\0\0\0\x02\x01\0\0\x48\0\0\0\
        \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\
        \x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0\
        \x03\x01s\0\x01\0\0\0m\0\0\0\0\0\0\0\
        \x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\
        \x08\x01g\0\x02ss\0\
        \x01\0\0\0a\0\0\0\x02\0\0\0bc\0";
    assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
    let (header, start) = read_header(&out).unwrap();
    assert_eq!((header.kind, header.signature, start), (MessageType::Call, "ss", 88));
}

#[test]
fn answers_are_read_in_either_byte_order() {
    for (message, big) in [(UNITS, false), (UNITS_BIG, true)] {
        let (header, start) = read_header(message).unwrap();
        assert_eq!(header.reply_serial, Some(7));
        assert_eq!((header.kind, header.signature), (MessageType::Return, "a(ssssssouso)"));
        let mut body = Reader::new(&message[start..], big);
        let end = body.array(8).unwrap();
        let mut names = Vec::new();
        while body.position() < end {
            body.align(8).unwrap();
            names.push(body.string().unwrap());
            for _ in 0..5 {
                body.string().unwrap();
            }
            body.path().unwrap();
            body.u32().unwrap();
            body.string().unwrap();
            body.path().unwrap();
        }
        body.end().unwrap();
        assert_eq!(names, ["ssh.service", "tmp.mount"]);
    }
    let (_, start) = read_header(PROPERTY).unwrap();
    let mut body = Reader::new(&PROPERTY[start..], false);
    assert_eq!(body.variant(), Ok(Value::U64(1_700_000_000_000_000)));
    let (header, _) = read_header(ERROR).unwrap();
    assert_eq!(header.error_name, Some("org.freedesktop.DBus.Error.UnknownProperty"));
}

#[test]
fn a_message_with_any_byte_changed_or_cut_never_panics() {
    for message in [UNITS, PROPERTY, ERROR] {
        for at in 0..message.len() {
            assert!(read_header(&message[..at]).is_err(), "cut at {at}");
            for byte in [0, 1, 0x7f, 0xff, message[at] ^ 4] {
                let mut bytes = message.to_vec();
                bytes[at] = byte;
                if let Ok((_, start)) = read_header(&bytes) {
                    let mut body = Reader::new(&bytes[start..], false);
                    let _ = body.clone().variant();
                    while body.string().is_ok() {}
                }
            }
        }
    }
}

#[test]
fn malformed_messages_are_named() {
    let altered = |message: &[u8], at: usize, byte: u8| {
        let mut bytes = message.to_vec();
        bytes[at] = byte;
        read_header(&bytes).unwrap_err()
    };
    assert_eq!(altered(UNITS, 0, b'x').expected, "a message of D-Bus");
    assert_eq!(altered(UNITS, 1, 9).expected, "a type of message");
    assert_eq!(altered(UNITS, 3, 2).expected, "version 1");
    assert_eq!(altered(UNITS, 8, 0).expected, "a serial number");
    assert_eq!(altered(UNITS, 7, 1).expected, "a message of at most 4 MiB");
    assert_eq!(altered(UNITS, 16, 0).expected, "a field of a header");
    assert_eq!(altered(UNITS, 18, b's').expected, "a field of the type that it has");
    let text = |bytes: &[u8]| Reader::new(bytes, false).string().map(str::to_owned).unwrap_err();
    assert_eq!(text(b"\x01\0\0\0a\x01").expected, "a NUL behind a text");
    assert_eq!(text(b"\x01\0\0\0\xff\0").expected, "UTF-8 without NUL");
    assert_eq!(text(b"\x01\0\0\0\0\0").expected, "UTF-8 without NUL");
    assert_eq!(text(b"\xff\xff\xff\xffa\0").expected, "more of the message");
    assert_eq!(Reader::new(b"\x02\0\0\0", false).bool().unwrap_err().expected, "0 or 1");
    assert_eq!(Reader::new(b"\x01v\0\x01s\0", false).variant().unwrap_err().token, "v");
    let mut padded = Reader::new(b"\0\x01\0\0\0\0\0\0", false);
    padded.byte().unwrap();
    assert_eq!(padded.u32().unwrap_err().expected, "padding of zeros");
    for path in ["", "a", "/a/", "//", "/a b"] {
        let mut bytes = (path.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(path.as_bytes());
        bytes.push(0);
        assert!(Reader::new(&bytes, false).path().is_err(), "{path}");
    }
}

#[test]
fn tokens_of_errors_are_cut_and_arrays_end_where_they_say() {
    let long = Malformed::new("ä".repeat(1 << 20), "short");
    assert_eq!(long.token, "ä".repeat(80));
    assert!(long.token.capacity() < 1_000);
    assert_eq!(Malformed::new("ä".repeat(80), "").token, "ä".repeat(80));
    assert_eq!(Malformed::new(format_args!("{}{}", "a".repeat(79), "bc"), "").token.len(), 80);
    let mut reader = Reader::new(b"\x04\0\0\0\x01\0\0\0a\0", false);
    let end = reader.array(4).unwrap();
    assert!(reader.end_of_array(end).is_err());
    reader.string().unwrap();
    assert_eq!(reader.end_of_array(end).unwrap_err().expected, "the end of an array");
}

/// A server of one connection that is authenticated, and what it does then.
fn server(
    then: impl FnOnce(UnixStream) + Send + 'static,
) -> (tempfile::TempDir, PathBuf, JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!("\0AUTH EXTERNAL {uid}\r\n");
        let mut line = vec![0; expected.len()];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(line, expected.as_bytes());
        stream.write_all(b"OK 0123\r\n").unwrap();
        let mut begin = [0; 7];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"BEGIN\r\n");
        then(stream);
    });
    (folder, path, thread)
}

fn read_call(stream: &mut UnixStream) -> Vec<u8> {
    let mut message = vec![0; message::FIXED];
    stream.read_exact(&mut message).unwrap();
    let (length, _) = message::length(&message).unwrap();
    message.resize(length, 0);
    stream.read_exact(&mut message[message::FIXED..]).unwrap();
    read_header(&message).unwrap();
    message
}

/// An answer to the call with this number.
fn answer(message: &[u8], serial: u32) -> Vec<u8> {
    let mut bytes = message.to_vec();
    bytes[20..24].copy_from_slice(&serial.to_le_bytes());
    bytes
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(300)
}

fn ask(bus: &mut Bus, deadline: Instant) -> Result<Option<u64>, Error> {
    bus.property("d", "/p", "i", "n", deadline).map(|value| match value {
        Value::U64(value) => Some(value),
        _ => None,
    })
}

#[test]
fn answers_come_in_pieces_and_among_others() {
    let (_folder, path, thread) = server(|mut stream| {
        read_call(&mut stream);
        let mut bytes = answer(PROPERTY, 99);
        bytes.extend(answer(PROPERTY, 1));
        for byte in bytes {
            stream.write_all(&[byte]).unwrap();
        }
        read_call(&mut stream);
        stream.write_all(&answer(ERROR, 2)).unwrap();
        read_call(&mut stream);
        stream.write_all(&answer(UNITS, 3)).unwrap();
        let _ = stream.read(&mut [0]);
    });
    let mut bus = Bus::new();
    bus.connect(&path, false, Instant::now() + Duration::from_secs(10)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    assert_eq!(ask(&mut bus, deadline).unwrap(), Some(1_700_000_000_000_000));
    assert!(
        matches!(ask(&mut bus, deadline), Err(Error::Answer(name)) if name.ends_with("UnknownProperty"))
    );
    assert!(bus.is_connected());
    assert!(matches!(ask(&mut bus, deadline), Err(Error::Malformed(_))));
    assert!(!bus.is_connected());
    thread.join().unwrap();
}

#[test]
fn a_side_that_hangs_floods_or_goes_is_left_in_time() {
    type Then = fn(UnixStream);
    type Case = (&'static str, Then, fn(&Error) -> bool);
    let cases: [Case; 5] = [
        (
            "hangs",
            |mut stream| drop(stream.read_to_end(&mut Vec::new())),
            |error| matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut),
        ),
        ("goes", drop, |error| matches!(error, Error::Io(_))),
        (
            "floods",
            |mut stream| while stream.write_all(&answer(PROPERTY, 77)).is_ok() {},
            |error| matches!(error, Error::Io(error) if error.to_string().contains("a thousand")),
        ),
        (
            "is none",
            |mut stream| {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
                drop(stream.read_to_end(&mut Vec::new()));
            },
            |error| matches!(error, Error::Malformed(_)),
        ),
        (
            "announces much",
            |mut stream| {
                stream.write_all(b"l\x02\x01\x01\xff\xff\xff\x7f\x01\0\0\0\0\0\0\0").unwrap();
                drop(stream.read_to_end(&mut Vec::new()));
            },
            |error| matches!(error, Error::Malformed(_)),
        ),
    ];
    for (name, then, expected) in cases {
        let (_folder, path, thread) = server(then);
        let mut bus = Bus::new();
        bus.connect(&path, false, Instant::now() + Duration::from_secs(10)).unwrap();
        let began = Instant::now();
        let error = ask(&mut bus, soon()).unwrap_err();
        assert!(expected(&error), "{name}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5) && !bus.is_connected(), "{name}");
        thread.join().unwrap();
    }
}

#[test]
fn who_does_not_let_us_in_is_no_bus() {
    for (said, shown) in
        [(&b"REJECTED KERBEROS\r\n"[..], "REJECTED"), (&[b'x'; 4096], "without an end"), (b"", "")]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(said);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut bus = Bus::new();
        let error = bus.connect(&path, true, soon()).unwrap_err();
        assert!(error.to_string().contains(shown) && !bus.is_connected(), "{error}");
        thread.join().unwrap();
    }
    let missing = Bus::new().connect(Path::new("/nonexistent/bus"), true, soon());
    assert!(matches!(missing, Err(Error::Connect(_))));
    let long = PathBuf::from(format!("/{}", "x".repeat(200)));
    assert!(matches!(Bus::new().connect(&long, true, soon()), Err(Error::Connect(_))));
}
