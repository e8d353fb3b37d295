//! A real dbus-daemon with a configuration of the test's own, and a service on it, or on a socket of its
//! own, that plays systemd and systemd-logind. It checks every byte that it gets, remembers who asked for
//! what, and can be told to answer otherwise or not at all.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "shared by several test programs")]

pub mod machine;
pub mod message;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use message::{CALL, ERROR, Message, Value};

/// Where the agent looks for the system's bus, below its root.
pub const SOCKET: &str = "run/dbus/system_bus_socket";

/// Where it looks for systemd's own socket.
pub const PRIVATE: &str = "run/systemd/private";

/// A real bus.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts one that lets everybody do everything.
    pub fn start(root: &Path) -> Daemon {
        Daemon::with(root, "")
    }

    /// Starts one with more in its configuration, and waits until it listens.
    pub fn with(root: &Path, more: &str) -> Daemon {
        let socket = root.join(SOCKET);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&socket);
        let configuration = root.join("bus.conf");
        let listen = format!("<listen>unix:path={}</listen>", socket.display());
        let allow = "<allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/>";
        let document = "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">";
        let text = format!(
            "{document}<busconfig>{listen}<auth>EXTERNAL</auth>\
             <policy context=\"default\">{allow}</policy>{more}</busconfig>"
        );
        fs::write(&configuration, text).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg(format!("--config-file={}", configuration.display()));
        command.args(["--nofork", "--nopidfile", "--nosyslog", "--print-address"]);
        let log = root.join("bus.log");
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("dbus-daemon: {error}; `cargo xtask setup` installs it")
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listens = line.starts_with("unix:path=");
        assert!(listens, "dbus-daemon: {line:?} {:?}", fs::read_to_string(log));
        Daemon { child, socket }
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is answered to a method, or to the question for a property, of a name.
#[derive(Clone, Debug)]
pub enum Rule {
    Error(&'static str),
    Silence,
    Values(Vec<Value>),
    Slow(Duration),
}

/// What the service knows, and has heard.
#[derive(Default)]
pub struct State {
    /// Answers by destination and member.
    pub methods: BTreeMap<(String, String), Vec<Value>>,
    /// By path, interface and name.
    pub properties: BTreeMap<(String, String, String), Value>,
    pub rules: BTreeMap<&'static str, Rule>,
    pub calls: Vec<Message>,
    /// Whatever was no message, or one that nobody should send.
    pub faults: Vec<String>,
}

impl State {
    fn answer(&self, call: &Message) -> Result<Vec<Value>, String> {
        let error = |name: &str| Err(format!("org.freedesktop.DBus.Error.{name}"));
        match (call.interface.as_str(), call.member.as_str(), call.arguments.as_slice()) {
            ("org.freedesktop.DBus.Peer", "Ping", []) => Ok(Vec::new()),
            ("org.freedesktop.DBus.Properties", "Get", [interface, name]) => {
                let key = (call.path.clone(), interface.clone(), name.clone());
                match self.properties.get(&key) {
                    Some(value) => Ok(vec![Value::Variant(Box::new(value.clone()))]),
                    None => error("UnknownProperty"),
                }
            }
            (interface, member, []) => {
                let service = interface.strip_suffix(".Manager").unwrap_or_default();
                match self.methods.get(&(service.to_owned(), member.to_owned())) {
                    Some(values) if service == call.destination => Ok(values.clone()),
                    _ => error("UnknownMethod"),
                }
            }
            _ => error("UnknownMethod"),
        }
    }
}

/// The service.
pub struct Fake {
    state: Arc<Mutex<State>>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
    thread: Option<JoinHandle<()>>,
    private: Option<PathBuf>,
}

impl Fake {
    /// A service of these names on a bus.
    pub fn on_bus(root: &Path, names: &[&str], state: State) -> Fake {
        let (mut stream, mut serial) = connect(root);
        for name in names {
            // DBUS_NAME_FLAG_DO_NOT_QUEUE
            let body = [message::text(name), Value::U32(4)];
            ask(&mut stream, &mut serial, "RequestName", &body);
        }
        stream.set_read_timeout(None).unwrap();
        let mut fake = Fake::new(state, None);
        fake.streams.lock().unwrap().push(stream.try_clone().unwrap());
        let state = Arc::clone(&fake.state);
        fake.thread = Some(thread::spawn(move || serve(stream, &state, serial)));
        fake
    }

    /// systemd on a socket of its own, where nobody says hello.
    pub fn private(root: &Path, state: State) -> Fake {
        let socket = root.join(PRIVATE);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let mut fake = Fake::new(state, Some(socket));
        let (state, streams) = (Arc::clone(&fake.state), Arc::clone(&fake.streams));
        let thread = thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                match accept(&mut stream) {
                    Ok(true) => serve(stream, &state, 0),
                    Ok(false) => return,
                    Err(fault) => state.lock().unwrap().faults.push(fault),
                }
            }
        });
        fake.thread = Some(thread);
        fake
    }

    fn new(state: State, private: Option<PathBuf>) -> Fake {
        let state = Arc::new(Mutex::new(state));
        Fake { state, streams: Arc::default(), thread: None, private }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Tells how questions for a name are answered from now on.
    pub fn rule(&self, name: &'static str, rule: Rule) {
        self.state().rules.insert(name, rule);
    }

    /// Takes what was asked, of which nothing was malformed.
    #[track_caller]
    pub fn calls(&self) -> Vec<Message> {
        let mut state = self.state();
        assert_eq!(state.faults, Vec::<String>::new());
        std::mem::take(&mut state.calls)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // The one who accepts is told to end by a connection without a word.
        if let Some(socket) = &self.private {
            drop(UnixStream::connect(socket));
            let _ = fs::remove_file(socket);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection to the bus, greeted, and the serial number of its last call.
fn connect(root: &Path) -> (UnixStream, u32) {
    let mut stream = UnixStream::connect(root.join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let user = rustix::process::geteuid().as_raw().to_string();
    let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes()).unwrap();
    assert!(read_line(&mut stream).unwrap().starts_with("OK "));
    stream.write_all(b"BEGIN\r\n").unwrap();
    let mut serial = 0;
    ask(&mut stream, &mut serial, "Hello", &[]);
    (stream, serial)
}

/// Asks a service as one does who wants it started, and does not wait for the answer.
pub fn ask_and_start(root: &Path, service: &str) -> UnixStream {
    let (mut stream, serial) = connect(root);
    let call = Message {
        kind: CALL,
        serial: serial + 1,
        path: "/".into(),
        interface: "org.freedesktop.DBus.Peer".into(),
        member: "Ping".into(),
        destination: service.into(),
        ..Message::default()
    };
    stream.write_all(&call.bytes(&[])).unwrap();
    stream
}

/// Asks the bus itself, which has to agree.
fn ask(stream: &mut UnixStream, serial: &mut u32, member: &str, body: &[Value]) {
    *serial += 1;
    let call = Message {
        kind: CALL,
        serial: *serial,
        path: "/org/freedesktop/DBus".into(),
        interface: "org.freedesktop.DBus".into(),
        member: member.into(),
        destination: "org.freedesktop.DBus".into(),
        ..Message::default()
    };
    stream.write_all(&call.bytes(body)).unwrap();
    loop {
        let message = read_message(stream).unwrap().unwrap();
        if message.reply_serial == *serial {
            assert_ne!(message.kind, ERROR, "{member}: {message:?}");
            return;
        }
    }
}

/// The client's side of the authentication, byte by byte; whether there was any.
fn accept(stream: &mut UnixStream) -> Result<bool, String> {
    let user = rustix::process::geteuid().as_raw().to_string();
    let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    let line = match read_line(stream) {
        Ok(line) if line.is_empty() => return Ok(false),
        line => line?,
    };
    if line != format!("\0AUTH EXTERNAL {user}\r\n") {
        return Err(format!("{line:?} as the first line"));
    }
    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").map_err(|e| e.to_string())?;
    let line = read_line(stream)?;
    if line == "BEGIN\r\n" { Ok(true) } else { Err(format!("{line:?} as the last line")) }
}

fn read_line(stream: &mut UnixStream) -> Result<String, String> {
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with("\r\n") && stream.read(&mut byte).map_err(|e| e.to_string())? == 1 {
        line.push(char::from(byte[0]));
    }
    Ok(line)
}

/// None at the end of the connection.
fn read_message(stream: &mut UnixStream) -> Result<Option<Message>, String> {
    let mut start = [0; 16];
    if stream.read_exact(&mut start).is_err() {
        return Ok(None);
    }
    let mut bytes = start.to_vec();
    bytes.resize(Message::length(start)?, 0);
    if stream.read_exact(&mut bytes[16..]).is_err() {
        return Ok(None);
    }
    Message::read(&bytes).map(Some)
}

fn serve(mut stream: UnixStream, state: &Mutex<State>, mut serial: u32) {
    loop {
        let call = match read_message(&mut stream) {
            Ok(Some(message)) if message.kind == CALL => message,
            Ok(Some(_)) => continue,
            Ok(None) => return,
            Err(fault) => return state.lock().unwrap().faults.push(fault),
        };
        let property = call.arguments.last().filter(|_| call.member == "Get");
        let (answer, slow) = {
            let mut state = state.lock().unwrap();
            let rule = state.rules.get(property.unwrap_or(&call.member).as_str()).cloned();
            let answer = match &rule {
                Some(Rule::Silence) => None,
                Some(Rule::Error(name)) => Some(Err((*name).to_owned())),
                Some(Rule::Values(values)) => Some(Ok(values.clone())),
                Some(Rule::Slow(_)) | None => Some(state.answer(&call)),
            };
            state.calls.push(call.clone());
            (answer, if let Some(Rule::Slow(time)) = rule { time } else { Duration::ZERO })
        };
        thread::sleep(slow);
        let Some(answer) = answer else { continue };
        serial += 1;
        let bytes = call.answer(serial, answer.as_deref().map_err(String::as_str));
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}
