//! The collector `systemd` on sockets without a bus: on systemd's own, of a strict fake that gets each of
//! the agent's bytes and of a real systemd, and on one where somebody else listens. The real one needs root,
//! `unshare` and Debian's package `systemd`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/dbus/mod.rs"]
mod dbus;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dbus::message::{Message, text};
use dbus::{Fake, PRIVATE, SOCKET, machine};
use mote::collector::{Options, Outcome, Set};
use mote::encode::write_text;
use mote::host::{Host, Roots};
use mote::model::Samples;

fn agent(root: &Path) -> (Set, Host) {
    let set = Set::new(|entry| entry.name == "systemd", &Options::default());
    assert_eq!(set.status().len(), 1);
    (set, Host::new(Roots { root: root.into(), ..Roots::default() }))
}

fn round((set, host): &mut (Set, Host)) -> (Outcome, String) {
    let mut samples = Samples::with_limit(10_000);
    set.collect(host, &mut samples);
    let mut text = Vec::new();
    write_text(&samples, &mut text).unwrap();
    (set.status().next().unwrap().outcome.clone(), String::from_utf8(text).unwrap())
}

#[test]
fn every_byte_to_systemds_own_socket_is_in_order_and_connections_are_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let mut agent = agent(root.path());
    let golden = include_str!("support/dbus/machine.txt");
    for _ in 0..3 {
        assert!(matches!(round(&mut agent).0, Outcome::NoData(_)));
        let fake = Fake::private(root.path(), machine::small());
        for _ in 0..2 {
            let (outcome, text) = round(&mut agent);
            assert_eq!(outcome, Outcome::Good);
            let told = |line: &&str| {
                line.starts_with("node_systemd_unit_state{")
                    || line.starts_with("node_systemd_units{")
            };
            let told: Vec<_> = text.lines().filter(told).collect();
            assert!(told.len() > 60 && told.iter().all(|line| golden.contains(*line)), "{text}");
        }
        let calls = fake.calls();
        assert!(calls.iter().all(|call| call.flags == 2 && call.sender.is_empty()), "{calls:#?}");
        assert!(calls.windows(2).all(|pair| pair[0].serial < pair[1].serial));
        assert!(!calls.iter().any(|call| call.member == "Hello"));
    }
}

#[test]
fn what_is_no_bus_fails_in_time_whatever_it_says() {
    let signal = Message {
        kind: 4,
        serial: 1,
        path: "/".into(),
        interface: "a.b".into(),
        member: "C".into(),
        ..Message::default()
    };
    let flood = signal.bytes(&[text(&"x".repeat(1 << 20))]);
    let cases: [(&[u8], bool); 7] = [
        (b"", false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (&[0; 4096], false),
        (&[0xff; 4096], false),
        (b"l\x02\x01\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff", false),
        (b"l\x02\x01\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01u\0\x01\0\0\0", false),
        (&flood, true),
    ];
    let took = |said: &[u8], again: bool| {
        let root = tempfile::tempdir().unwrap();
        let mut agent = agent(root.path());
        let socket = root.path().join(SOCKET);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let said = said.to_vec();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 100]);
            stream.write_all(b"OK 0123\r\n").unwrap();
            let _ = stream.read(&mut [0; 100]);
            while stream.write_all(&said).is_ok() && again {}
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let began = Instant::now();
        let (outcome, text) = round(&mut agent);
        let took = began.elapsed();
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        assert!(!text.contains("node_systemd_"), "{text}");
        thread.join().unwrap();
        // And then the right one comes.
        fs::remove_file(&socket).unwrap();
        let _fake = Fake::private(root.path(), machine::small());
        assert_eq!(round(&mut agent).0, Outcome::Good);
        took
    };
    for (said, again) in cases {
        // A machine that stops for a moment does not do so three times.
        let in_time = (0..3).any(|_| took(said, again) < Duration::from_millis(1_900));
        assert!(in_time, "{:?} holds it up", String::from_utf8_lossy(&said[..said.len().min(100)]));
    }
}

struct Systemd(Child);

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_systemd_is_told_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let (run, units) = (root.path().join("run"), root.path().join("units"));
    fs::create_dir_all(&run).unwrap();
    fs::create_dir_all(&units).unwrap();
    let unit = |name: &str, text: &str| fs::write(units.join(name), text).unwrap();
    unit("default.target", "[Unit]\nWants=good.service bad.service\n");
    let service =
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=";
    unit("good.service", &format!("{service}/bin/true\n"));
    unit("bad.service", &format!("{service}/nonexistent\n"));
    // systemd wants to see that the system was booted with it.
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && \
                  exec /lib/systemd/systemd --user --log-target=null";
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .env("XDG_RUNTIME_DIR", &run)
        .env("HOME", root.path())
        .env("SYSTEMD_UNIT_PATH", &units)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _systemd = Systemd(child);
    let mut agent = agent(root.path());
    let began = Instant::now();
    let wanted = [
        "node_systemd_unit_state{name=\"good.service\",state=\"active\",type=\"oneshot\"} 1\n",
        "node_systemd_unit_state{name=\"bad.service\",state=\"failed\",type=\"oneshot\"} 1\n",
        "node_systemd_unit_state{name=\"default.target\",state=\"active\",type=\"\"} 1\n",
        "node_systemd_units{state=\"failed\"} 1\n",
        "node_systemd_system_running 0\n",
    ];
    loop {
        let (outcome, text) = round(&mut agent);
        if outcome == Outcome::Good && wanted.iter().all(|line| text.contains(line)) {
            break;
        }
        let there = root.path().join(PRIVATE).exists();
        assert!(began.elapsed() < Duration::from_secs(10), "{there} {outcome:?}\n{text}");
        thread::sleep(Duration::from_millis(50));
    }
}
