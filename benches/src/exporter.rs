//! node_exporter as the peer: `$MOTE_NODE_EXPORTER`, or `prometheus-node-exporter` or `node_exporter`
//! in `$PATH`, on a free port of the loopback, with the same collectors and no others. It ends with the
//! value, by its process ID.

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

const START: Duration = Duration::from_secs(20);

/// A running node_exporter.
#[derive(Debug)]
pub struct Exporter {
    child: Child,
    address: SocketAddr,
}

/// The program, if this machine has it.
pub fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os("MOTE_NODE_EXPORTER").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path: OsString = env::var_os("PATH")?;
    ["prometheus-node-exporter", "node_exporter"]
        .iter()
        .flat_map(|name| env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
}

/// The collectors that it has, by its own `--help`: `--collector.arp`, in later versions
/// `--[no-]collector.arp`. What has a value or a second dot is an option of one.
///
/// # Errors
/// It can't be started.
pub fn collectors(program: &PathBuf) -> Result<Vec<String>> {
    let output = Command::new(program).arg("--help").stdin(Stdio::null()).output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    let flag = |line: &str| {
        let flag = line.split_whitespace().next()?.replace("[no-]", "");
        let name = flag.strip_prefix("--collector.")?;
        (!name.contains(['.', '='])).then(|| name.to_owned())
    };
    Ok(said.lines().filter_map(flag).filter(|name| name != "disable-defaults").collect())
}

/// Upstream's defaults where Debian's package has others: a collector and its flag.
const FLAGS: [(&str, &str); 2] = [
    ("netdev", "--collector.netdev.device-exclude="),
    (
        "filesystem",
        concat!(
            "--collector.filesystem.mount-points-exclude=^/(dev|proc|run/credentials/.+|sys|",
            "var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
        ),
    ),
];

impl Exporter {
    /// Starts it and waits for its first answer.
    ///
    /// # Errors
    /// It can't be started, ends by itself, or does not answer within 20 seconds.
    pub fn start(program: &PathBuf, collectors: &[&str]) -> Result<Exporter> {
        // Free now; whoever takes it in between makes the start fail, and nothing worse.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new(program)
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.disable-exporter-metrics", "--collector.disable-defaults"])
            .args(collectors.iter().map(|name| format!("--collector.{name}")))
            .args(FLAGS.iter().filter(|(name, _)| collectors.contains(name)).map(|(_, flag)| flag))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("starting {}: {error}", program.display()))?;
        let mut exporter = Exporter { child, address };
        let deadline = Instant::now() + START;
        loop {
            match exporter.scrape() {
                Ok(_) => return Ok(exporter),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = exporter.child.try_wait()? {
                return Err(format!("{} ended with {status}", program.display()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Scrapes it once; returns how many samples it gave.
    ///
    /// # Errors
    /// No connection, or an answer other than 200.
    pub fn scrape(&self) -> Result<usize> {
        let mut stream = TcpStream::connect_timeout(&self.address, START)?;
        stream.set_read_timeout(Some(START))?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a body")?;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(format!("node_exporter answered {status}").into());
        }
        Ok(body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
