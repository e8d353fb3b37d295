//! A strict server that plays Docker's API, as its reference (v1.41) describes it and dockerd 20.10 to 28 and
//! Podman 4.3 answer: lists, one container, events, and logs, in frames or raw, in chunks. It takes requests
//! byte by byte as the agent should make them, remembers each, and can refuse, hang, cut connections in the
//! middle of a frame, dribble, and be restarted. Nothing in it uses the agent.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};

pub const LIST: &str = "/containers/json?all=1";
pub const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%2C%22died%22%2C%22destroy%22%2C%22remove%22%2C%22rename%22%5D%7D";

/// The first moment of the played time, in nanoseconds.
pub const START: i64 = 1_795_000_000_123_456_789;

/// A message in a log.
#[derive(Clone, Debug)]
pub struct Message {
    pub output: u8,
    pub time_ns: i64,
    /// With its line break, if it has one.
    pub text: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: String,
    pub labels: Value,
    pub tty: bool,
    pub driver: String,
    pub log_path: String,
    pub running: bool,
    /// As lists have it.
    pub status: String,
    pub removed: bool,
    pub log: Vec<Message>,
}

/// What it does otherwise than it should.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Paths that contain this get this code, and message.
    pub refuse: Vec<(String, u16, String)>,
    /// Paths that contain one of these get no answer.
    pub hang: Vec<String>,
    /// Log connections are cut after between one and so many bytes.
    pub cut: Option<u64>,
    /// Logs that are told are not ended as long as this holds.
    pub hold: bool,
    /// Logs are written in pieces of so few bytes.
    pub dribble: Option<usize>,
    /// Messages before `since` are left out one by one, as before 23.0, and not only up to the first behind.
    pub filters_each: bool,
    /// Timestamps, events and names as Podman's.
    pub podman: bool,
}

#[derive(Default)]
pub struct State {
    pub containers: Vec<Container>,
    pub faults: Faults,
    /// Every path that was asked for.
    pub requests: Vec<String>,
    /// What no agent should do.
    pub violations: Vec<String>,
    events: Vec<String>,
    /// The newest time of the host.
    pub now_ns: i64,
    /// Counts the daemon's lives: connections of an earlier one end.
    life: u64,
    /// Open log connections, and the most there were.
    pub open_logs: usize,
    pub most_logs: usize,
    /// Bytes of log answers that were written.
    pub written: u64,
    dice: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// Also after a test has failed with the lock in its hands.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Dockerd {
    shared: Arc<Shared>,
    dir: tempfile::TempDir,
    tcp: Option<u16>,
}

impl Dockerd {
    /// On a Unix socket.
    pub fn new() -> Dockerd {
        let mut daemon = Dockerd::stopped();
        daemon.start();
        daemon
    }

    /// Not started yet: there is no socket.
    pub fn stopped() -> Dockerd {
        let state = State { now_ns: START, dice: 0x9e37_79b9_7f4a_7c15, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        Dockerd { shared, dir: tempfile::tempdir().unwrap(), tcp: None }
    }

    /// On TCP, as a proxy is.
    pub fn over_tcp() -> Dockerd {
        let mut daemon = Dockerd::stopped();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        daemon.tcp = Some(port);
        let shared = Arc::clone(&daemon.shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, host) = (Arc::clone(&shared), format!("127.0.0.1:{port}"));
                let Ok(stream) = stream else { return };
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || serve(&shared, stream, &host));
            }
        });
        daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// As the configuration names it.
    pub fn host(&self) -> String {
        match self.tcp {
            Some(port) => format!("tcp://127.0.0.1:{port}"),
            None => format!("unix://{}", self.socket().display()),
        }
    }

    pub fn start(&mut self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let shared = Arc::clone(&self.shared);
        let life = self.state().life;
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if shared.lock().life != life {
                    return;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(&shared, stream, "localhost"));
            }
        });
    }

    /// All connections break, and the socket is gone.
    pub fn stop(&mut self) {
        self.change(|state| state.life += 1);
        let _ = std::fs::remove_file(self.socket());
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Changes something and lets the connections see it.
    pub fn change<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let result = what(&mut self.state());
        self.shared.changed.notify_all();
        result
    }

    /// Creates and starts a container; its id.
    pub fn run(&self, name: &str) -> String {
        self.run_as(name, |_| {})
    }

    pub fn run_as(&self, name: &str, with: impl FnOnce(&mut Container)) -> String {
        self.change(|state| {
            let number = state.containers.len() as u64 + 1;
            let id = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(4);
            let mut container = Container {
                id: id.clone(),
                name: name.to_owned(),
                image: "busybox:1".to_owned(),
                labels: json!({}),
                tty: false,
                driver: "json-file".to_owned(),
                log_path: String::new(),
                running: true,
                status: "Up 2 hours".to_owned(),
                removed: false,
                log: Vec::new(),
            };
            with(&mut container);
            let running = container.running;
            state.containers.push(container);
            if running {
                state.event("start", &id);
            }
            id
        })
    }

    /// The container writes; the time is a little later with each line.
    pub fn write(&self, id: &str, output: u8, text: &str) {
        self.change(|state| {
            state.now_ns += 1_003;
            let time_ns = state.now_ns;
            let message = Message { output, time_ns, text: text.as_bytes().to_vec() };
            state.container(id).log.push(message);
        });
    }

    pub fn lines(&self, id: &str, output: u8, lines: std::ops::Range<u32>) {
        for line in lines {
            self.write(id, output, &format!("line {line}\n"));
        }
    }

    pub fn die(&self, id: &str) {
        self.change(|state| {
            state.container(id).running = false;
            let action = if state.faults.podman { "died" } else { "die" };
            state.event(action, id);
        });
    }

    pub fn restart(&self, id: &str) {
        self.change(|state| {
            state.container(id).running = true;
            state.event("start", id);
        });
    }

    pub fn remove(&self, id: &str) {
        self.change(|state| {
            let container = state.container(id);
            (container.running, container.removed) = (false, true);
            let action = if state.faults.podman { "remove" } else { "destroy" };
            state.event(action, id);
        });
    }

    pub fn rename(&self, id: &str, name: &str) {
        self.change(|state| {
            state.container(id).name = name.to_owned();
            state.event("rename", id);
        });
    }

    /// Requests whose paths contain this.
    pub fn asked(&self, part: &str) -> Vec<String> {
        self.state().requests.iter().filter(|path| path.contains(part)).cloned().collect()
    }

    pub fn assert_clean(&self) {
        let violations = self.state().violations.clone();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    pub fn container(&mut self, id: &str) -> &mut Container {
        self.containers.iter_mut().find(|container| container.id == id).unwrap()
    }

    pub fn event(&mut self, action: &str, id: &str) {
        let container = self.container(id);
        let attributes = json!({ "name": container.name, "image": container.image });
        let event = json!({ "status": action, "id": id, "Type": "container", "Action": action,
            "Actor": { "ID": id, "Attributes": attributes }, "scope": "local",
            "time": self.now_ns / 1_000_000_000, "timeNano": self.now_ns });
        self.events.push(event.to_string());
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides.max(1)
    }
}

/// Reads the request and answers it.
fn serve(shared: &Shared, mut stream: impl Read + Write, host: &str) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            // Tests end with connections of which nothing was sent.
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let expected = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mote\r\nConnection: close\r\n\r\n"
    );
    let (life, faults) = {
        let mut state = shared.lock();
        if request != expected {
            state.violations.push(format!("the request {request:?}, not {expected:?}"));
        }
        state.requests.push(path.clone());
        (state.life, state.faults.clone())
    };
    if faults.hang.iter().any(|part| path.contains(part)) {
        drop(wait_while(shared, |state| {
            state.life == life && state.faults.hang.iter().any(|part| path.contains(part))
        }));
        return;
    }
    if let Some((_, code, message)) = faults.refuse.iter().find(|(part, ..)| path.contains(part)) {
        return refuse(&mut stream, *code, message);
    }
    // An error is a connection that the agent or the test has closed.
    let _ = match path.as_str() {
        LIST => list(shared, &mut stream),
        EVENTS => events(shared, &mut stream, life),
        path => match path.strip_prefix("/containers/").and_then(|rest| rest.split_once('/')) {
            Some((id, "json")) => inspect(shared, &mut stream, id),
            Some((id, rest)) if rest.starts_with("logs?") => {
                logs(shared, &mut stream, id, rest, life)
            }
            _ => {
                shared.lock().violations.push(format!("the path {path:?}"));
                refuse(&mut stream, 404, "page not found");
                Ok(())
            }
        },
    };
}

fn wait_while(shared: &Shared, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
    let state = shared.lock();
    let waited = shared.changed.wait_while(state, |state| condition(state));
    waited.unwrap_or_else(PoisonError::into_inner)
}

fn refuse(stream: &mut (impl Read + Write), code: u16, message: &str) {
    let body = json!({ "message": message }).to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {code} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
}

fn whole(stream: &mut (impl Read + Write), body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn list(shared: &Shared, stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    let state = shared.lock();
    let item = |c: &Container| {
        json!({ "Id": c.id, "Names": [format!("/{}", c.name)], "Image": c.image, "ImageID": "sha256:0",
            "Command": "sh -c '{\"[\\\\'", "Created": 1, "Ports": [], "Labels": c.labels,
            "State": if c.running { "running" } else { "exited" }, "Status": c.status })
    };
    let all: Vec<Value> = state.containers.iter().filter(|c| !c.removed).map(item).collect();
    drop(state);
    whole(stream, &Value::from(all).to_string())
}

fn inspect(shared: &Shared, stream: &mut (impl Read + Write), id: &str) -> std::io::Result<()> {
    let state = shared.lock();
    let Some(c) = state.containers.iter().find(|c| c.id == id && !c.removed) else {
        drop(state);
        refuse(stream, 404, &format!("No such container: {id}"));
        return Ok(());
    };
    let body = json!({ "Id": c.id, "Name": format!("/{}", c.name), "LogPath": c.log_path,
        "Config": { "Image": c.image, "Labels": c.labels, "Tty": c.tty },
        "State": { "Status": if c.running { "running" } else { "exited" }, "Running": c.running },
        "HostConfig": { "LogConfig": { "Type": c.driver, "Config": {} } } });
    drop(state);
    whole(stream, &body.to_string())
}

fn chunk(stream: &mut (impl Read + Write), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(&chunked(bytes))
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// From now on, as both daemons do without `since`.
fn events(shared: &Shared, stream: &mut (impl Read + Write), life: u64) -> std::io::Result<()> {
    let mut next = shared.lock().events.len();
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    loop {
        let state = wait_while(shared, |state| state.events.len() == next && state.life == life);
        if state.life != life {
            return Ok(());
        }
        let new: Vec<String> = state.events[next..].to_vec();
        drop(state);
        next += new.len();
        for event in new {
            chunk(stream, format!("{event}\n").as_bytes())?;
        }
    }
}

/// A message as it is written: with its timestamp, and in a frame if the container has no terminal.
fn written(message: &Message, tty: bool, podman: bool) -> Vec<u8> {
    let stamp = if podman { rfc3339_seconds(message.time_ns) } else { rfc3339(message.time_ns) };
    let text = [stamp.as_bytes(), b" ", &message.text].concat();
    if tty {
        return text;
    }
    [&[message.output, 0, 0, 0][..], &(text.len() as u32).to_be_bytes(), &text].concat()
}

fn logs(
    shared: &Shared,
    stream: &mut (impl Read + Write),
    id: &str,
    query: &str,
    life: u64,
) -> std::io::Result<()> {
    let (query, since) = match query.split_once("&since=") {
        Some((query, since)) => (query, Some(since)),
        None => (query, None),
    };
    let follow = match query {
        "logs?follow=1&stdout=1&stderr=1&timestamps=1" => true,
        "logs?follow=0&stdout=1&stderr=1&timestamps=1" => false,
        other => {
            shared.lock().violations.push(format!("the query {other:?}"));
            return Ok(());
        }
    };
    let since_ns = match since.map(str::parse::<i64>) {
        None => i64::MIN,
        Some(Ok(seconds)) if seconds > 0 => seconds * 1_000_000_000,
        Some(_) => {
            shared.lock().violations.push(format!("since={since:?}"));
            return Ok(());
        }
    };
    let (tty, faults, mut budget, follow) = {
        let mut state = shared.lock();
        let cut = state.faults.cut;
        let budget = cut.map(|most| 1 + state.roll(most));
        let faults = state.faults.clone();
        let Some(c) = state.containers.iter().find(|c| c.id == id && !c.removed) else {
            drop(state);
            refuse(stream, 404, &format!("No such container: {id}"));
            return Ok(());
        };
        let (tty, follow) = (c.tty, follow && c.running);
        state.open_logs += 1;
        state.most_logs = state.most_logs.max(state.open_logs);
        (tty, faults, budget, follow)
    };
    let result = (|| {
        let server = if faults.podman { "Libpod/4.3.1 (linux)" } else { "Docker/20.10.24 (linux)" };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nServer: {server}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        let (mut next, mut passing) = (0, false);
        loop {
            let state = wait_while(shared, |state| {
                let c = state.containers.iter().find(|c| c.id == id).unwrap();
                state.life == life && c.log.len() == next && follow && c.running
            });
            if state.life != life {
                return Ok(());
            }
            let c = state.containers.iter().find(|c| c.id == id).unwrap();
            let ended = !follow || !c.running;
            // A little at a time, so that what is changed meanwhile is seen.
            let new: Vec<Message> = c.log[next..].iter().take(200).cloned().collect();
            drop(state);
            if new.is_empty() && ended {
                drop(wait_while(shared, |state| state.life == life && state.faults.hold));
                return stream.write_all(b"0\r\n\r\n");
            }
            next += new.len();
            for message in &new {
                if message.time_ns < since_ns && (!passing || faults.filters_each) {
                    continue;
                }
                passing = true;
                let mut bytes = chunked(&written(message, tty, faults.podman));
                if let Some(left) = &mut budget {
                    bytes.truncate(usize::try_from(*left).unwrap());
                    *left -= bytes.len() as u64;
                }
                let pieces = faults.dribble.unwrap_or(bytes.len().max(1));
                for piece in bytes.chunks(pieces) {
                    stream.write_all(piece)?;
                    if faults.dribble.is_some() {
                        thread::yield_now();
                    }
                    shared.lock().written += piece.len() as u64;
                }
                if budget == Some(0) {
                    return Ok(());
                }
            }
        }
    })();
    shared.lock().open_logs -= 1;
    result
}

/// `2006-01-02T15:04:05.000000000Z`, as Docker writes it.
pub fn rfc3339(time_ns: i64) -> String {
    format!("{}.{:09}Z", seconds(time_ns), time_ns.rem_euclid(1_000_000_000))
}

/// As Podman 4.3 does, here in a zone one hour east.
fn rfc3339_seconds(time_ns: i64) -> String {
    format!("{}+01:00", seconds(time_ns + 3_600_000_000_000))
}

fn seconds(time_ns: i64) -> String {
    let seconds = time_ns.div_euclid(1_000_000_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days by years and months, the plain way.
    let (mut year, mut left) = (1970, days);
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", left + 1)
}

/// A json-file log, as dockerd writes it.
pub fn write_json_file(path: &Path, log: &[Message]) {
    let mut file = std::fs::File::create(path).unwrap();
    for message in log {
        let stream = if message.output == 2 { "stderr" } else { "stdout" };
        let line = json!({ "log": String::from_utf8_lossy(&message.text), "stream": stream,
            "time": rfc3339(message.time_ns) });
        // dockerd's order of members is this one.
        writeln!(file, "{line}").unwrap();
    }
}

/// Lines by output, of what was written.
pub fn expected(container: &Container) -> HashMap<u8, Vec<String>> {
    let mut all: HashMap<u8, Vec<String>> = HashMap::new();
    for message in &container.log {
        let text = String::from_utf8_lossy(&message.text);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        all.entry(message.output).or_default().push(text.to_owned());
    }
    all
}
