//! Bytes on disk beside Prometheus's own agent mode, for the same samples at the same time: it scrapes
//! this program once a second, and each round that it gets is appended to the metrics WAL as well.
//! Takes a minute. `$MOTE_PROMETHEUS`, or `prometheus` in `$PATH`.
//!
//! `cargo run --release -p benches --bin agent_mode`.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use benches::Result;
use benches::rounds::{MetricsWal, Recorder};
use benches::table::{Table, thousands};
use mote::encode::write_text;

const ROUNDS: u64 = 60;
/// The most that the rounds may take.
const LIMIT: Duration = Duration::from_secs(85);
/// Prometheus's own series of a scrape: up, and four that begin with `scrape_`.
const SCRAPE_SERIES: u64 = 5;
/// Pages of its WAL.
const PAGE: u64 = 32 << 10;

fn main() -> Result<()> {
    if std::env::args().len() > 1 {
        return Err("agent_mode takes no arguments".into());
    }
    let mut table = Table::new();
    match find() {
        Some(program) => compare(&program, &mut table)?,
        None => {
            table.row("Prometheus's agent mode", "-", "install it: the package prometheus");
        }
    }
    table.print("The metrics WAL beside Prometheus's agent mode");
    Ok(())
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MOTE_PROMETHEUS").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("prometheus"))
        .find(|program| program.is_file())
}

fn compare(program: &Path, table: &mut Table) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (theirs, ours) = (folder.path().join("prometheus"), folder.path().join("mote"));
    fs::create_dir(&ours)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut peer = Peer::start(program, &theirs, listener.local_addr()?.port())?;
    let mut recorder = Recorder::new(None);
    let mut log = MetricsWal::create(&ours)?;
    let (mut scraped, mut text) = (0, Vec::new());
    listener.set_nonblocking(true)?;
    let end = Instant::now() + LIMIT;
    for round in 0..ROUNDS {
        let stream = peer.next_scrape(&listener, end)?;
        recorder.collect();
        text.clear();
        write_text(&recorder.samples, &mut text)?;
        let lines = text.split(|byte| *byte == b'\n');
        scraped += lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).count() as u64;
        answer(stream, &text)?;
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_millis();
        let next = log.append(i64::try_from(now)?, &recorder.samples)?;
        log.wal.sync()?;
        if round == 0 {
            let reader = log.reader;
            log.wal.acknowledge(reader, next, true)?;
        }
    }
    if scraped != log.samples {
        return Err(format!("{scraped} samples scraped, {} appended", log.samples).into());
    }
    // It writes a scrape's records when it has read all of it.
    std::thread::sleep(Duration::from_millis(500));
    let their_bytes = disk_bytes(&theirs)?;
    let their_samples = scraped + ROUNDS * SCRAPE_SERIES;
    let our_bytes = disk_bytes(&ours)?;
    let per = |bytes: u64, samples: u64| bytes as f64 / samples as f64;
    let (they, we) = (per(their_bytes, their_samples), per(our_bytes, log.samples));

    let how = format!("{ROUNDS} rounds of this host's default collectors, one a second");
    table.row("samples", thousands(log.samples), how);
    let how = format!(
        "all files of its WAL while it runs, snappy on (its default); not preallocated, {}; with {SCRAPE_SERIES} series of its own a scrape",
        match their_bytes % PAGE {
            0 => "the last page of 32 KiB filled up",
            _ => "the last page of 32 KiB not filled up",
        }
    );
    table.row("Prometheus: bytes on disk", thousands(their_bytes), how);
    table.row("Prometheus: bytes a sample", format!("{they:.3}"), "of its samples");
    let how = "all files: segments and one cursor; the same samples";
    table.row("mote: bytes on disk", thousands(our_bytes), how);
    table.row("mote: bytes a sample", format!("{we:.3}"), "of its samples");
    table.row("Prometheus / mote", format!("{:.2}", they / we), "bytes a sample");
    Ok(())
}

fn disk_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        bytes += match entry.metadata()? {
            folder if folder.is_dir() => disk_bytes(&entry.path())?,
            file => file.len(),
        };
    }
    Ok(bytes)
}

/// A Prometheus in agent mode that scrapes one port and sends nowhere. It ends with the value.
struct Peer {
    child: Child,
    log: PathBuf,
}

impl Peer {
    fn start(program: &Path, folder: &Path, port: u16) -> Result<Peer> {
        let base = folder.parent().ok_or("no folder for Prometheus")?;
        let (config, log) = (base.join("prometheus.yml"), base.join("log"));
        fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
                 scrape_configs:\n- job_name: integrations/node_exporter\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n"
            ),
        )?;
        let out = fs::File::create(&log)?;
        let child = Command::new(program)
            .args(["--enable-feature=agent", "--web.listen-address=127.0.0.1:0"])
            .arg(format!("--storage.agent.path={}", folder.display()))
            .arg(format!("--config.file={}", config.display()))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| format!("starting {}: {error}", program.display()))?;
        Ok(Peer { child, log })
    }

    /// Waits for its next connection.
    fn next_scrape(&mut self, listener: &TcpListener, end: Instant) -> Result<TcpStream> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(&self.log)?;
                return Err(format!("Prometheus does not scrape ({ended:?}):\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut stream: TcpStream, text: &[u8]) -> Result<()> {
    let mut head = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    )?;
    stream.write_all(text)?;
    Ok(())
}
