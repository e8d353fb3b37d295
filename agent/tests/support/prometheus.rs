//! A real Prometheus with its remote-write receiver, on a free port and in a directory of its own, which
//! is removed at the end. Needs the program `prometheus`, and fails without it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::port::Port;

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

pub struct Prometheus {
    port: Port,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

/// A series and samples of it, of seconds since the Unix epoch and value.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub samples: Vec<(f64, f64)>,
}

impl Series {
    /// Timestamps in milliseconds.
    pub fn times_ms(&self) -> Vec<i64> {
        self.samples.iter().map(|(time, _)| (time * 1000.0).round() as i64).collect()
    }
}

impl Prometheus {
    /// Starts one and waits until it is ready.
    pub fn new() -> Prometheus {
        Prometheus::with_config("global:\n  scrape_interval: 1m\n")
    }

    /// Starts one that scrapes, too.
    pub fn with_config(config: &str) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let mut prometheus = Prometheus { port: Port::new(), dir, child: None };
        prometheus.start();
        prometheus
    }

    /// Starts it again: same port, same data.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "Prometheus runs already");
        let path = |name: &str| self.dir.path().join(name);
        let log = File::options().create(true).append(true).open(path("log")).unwrap();
        let program = std::env::var("MOTE_PROMETHEUS").unwrap_or_else(|_| "prometheus".into());
        let child = Command::new(program)
            .arg("--web.enable-remote-write-receiver")
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port.number()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--config.file={}", path("prometheus.yml").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(match child {
            Ok(child) => child,
            Err(error) => panic!(
                "starting the program prometheus: {error}; install it (package prometheus, or \
                 `cargo xtask setup`)"
            ),
        });
        let end = Instant::now() + START;
        // There is nothing to wait for but the answer itself.
        while !matches!(self.get("/-/ready"), Ok((200, _))) {
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            if exited.is_some() || Instant::now() > end {
                panic!("Prometheus is not ready ({exited:?}); its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGTERM, and waits for the end: what it has is on disk.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let end = Instant::now() + STOP;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                panic!("Prometheus did not stop within {STOP:?}; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where to push to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/write", self.port.number())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// An instant query, now. A range selector (`up[1h]`) gives each stored sample with its own
    /// timestamp; anything else one sample a series.
    pub fn query(&self, promql: &str) -> Vec<Series> {
        self.api(&format!("/api/v1/query?query={}", escape(promql)))
    }

    /// An instant query at a time, in seconds since the Unix epoch.
    pub fn query_at(&self, promql: &str, time: f64) -> Vec<Series> {
        self.api(&format!("/api/v1/query?query={}&time={time}", escape(promql)))
    }

    /// A range query; times in seconds since the Unix epoch, step in seconds.
    pub fn query_range(&self, promql: &str, start: f64, end: f64, step: f64) -> Vec<Series> {
        let query = escape(promql);
        self.api(&format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}"))
    }

    fn api(&self, target: &str) -> Vec<Series> {
        let (status, body) = self.get(target).expect("an answer of Prometheus");
        assert_eq!(status, 200, "GET {target}: {body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        let result = answer["data"]["result"].as_array().expect("data.result").clone();
        result.iter().map(series).collect()
    }

    /// HTTP/1.0, so that the answer is neither chunked nor kept alive.
    fn get(&self, target: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {target} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    }
}

impl Default for Prometheus {
    fn default() -> Prometheus {
        Prometheus::new()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

fn series(value: &Value) -> Series {
    let labels = value["metric"].as_object().expect("metric");
    let labels = labels
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let sample = |pair: &Value| {
        let value = pair[1].as_str().unwrap().parse().expect("a number");
        (pair[0].as_f64().unwrap(), value)
    };
    let samples = match value["values"].as_array() {
        Some(many) => many.iter().map(sample).collect(),
        None => vec![sample(&value["value"])],
    };
    Series { labels, samples }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
