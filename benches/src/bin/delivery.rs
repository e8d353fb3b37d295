//! Pushing metrics, beside Prometheus' own agent mode: bytes on the wire for a sample, live (one round in a
//! request) and catching up; CPU for a sample, samples a second and memory of the drain. Both have a round of
//! this host each second: the agent collects its own, Prometheus scrapes the same collectors from this program.
//! Each runs alone, into the same sink, and retries as quickly as Prometheus does by default (at most 5 s); with
//! the agent's own defaults a drain begins with pauses for the sake of fleets (`--bin fleet`).
//!
//! `cargo build --release -p agent && cargo run --release -p benches --bin delivery [SECONDS]`: so many of live
//! rounds, and as many of an outage (default 120; the whole takes about six times that). Prometheus is
//! `$MOTE_PROMETHEUS`, or `prometheus` in `$PATH`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use benches::rounds::Recorder;
use benches::sink::{Protocol, Sink};
use benches::table::Table;
use benches::{Result, cpu};
use mote::encode::write_text;

/// What is running in before anything is counted.
const WARM: Duration = Duration::from_secs(10);
/// The most that a drain may take.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Mote(&'static str),
    Prometheus,
}

impl Who {
    fn name(self) -> String {
        match self {
            Who::Mote(version) => format!("mote, remote write {version}"),
            Who::Prometheus => "Prometheus agent mode, 1.0".into(),
        }
    }
}

/// What one of them came to.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    live_bytes: f64,
    live_cpu_micros: f64,
    drain_bytes: f64,
    drain_rate: f64,
    drain_cpu_micros: f64,
    peak_rss_mib: f64,
    peak_anonymous_mib: f64,
}

type Row = (&'static str, fn(&Figures) -> f64, &'static str);

const ROWS: [Row; 7] = [
    ("live: bytes a sample", |f| f.live_bytes, "requests with their heads, one round in each"),
    (
        "live: CPU a sample, us",
        |f| f.live_cpu_micros,
        "the whole process, collecting or scraping too",
    ),
    ("catching up: bytes a sample", |f| f.drain_bytes, "requests with their heads"),
    (
        "catching up: samples a second",
        |f| f.drain_rate,
        "pauses of the drain included, from its first request on",
    ),
    ("catching up: CPU a sample, us", |f| f.drain_cpu_micros, "the whole process meanwhile"),
    ("catching up: peak RSS, MiB", |f| f.peak_rss_mib, "VmHWM, reset before"),
    (
        "catching up: peak anonymous, MiB",
        |f| f.peak_anonymous_mib,
        "RssAnon, looked at every 20 ms",
    ),
];

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(120), |seconds| seconds.parse())?;
    let mote = std::env::current_exe()?.with_file_name("mote");
    if !mote.is_file() {
        return Err(
            format!("{} is not there: cargo build --release -p agent", mote.display()).into()
        );
    }
    let mut table = Table::new();
    let ours = measure(&mote, Who::Mote("1.0"), seconds)?;
    let two = measure(&mote, Who::Mote("2.0"), seconds);
    let theirs = match find() {
        Some(program) => Some(measure(&program, Who::Prometheus, seconds)?),
        None => {
            table.row("Prometheus' agent mode", "-", "install it: the package prometheus");
            None
        }
    };
    if let Err(error) = &two {
        let why = error.to_string();
        table.row(Who::Mote("2.0").name(), "-", why.lines().next().unwrap_or_default());
    }
    for (what, value, how) in ROWS {
        let mut row = |who: Who, figures: &Figures| {
            table.row(format!("{}: {what}", who.name()), format!("{:.2}", value(figures)), how);
        };
        row(Who::Mote("1.0"), &ours);
        if let Ok(two) = &two {
            row(Who::Mote("2.0"), two);
        }
        let Some(theirs) = &theirs else { continue };
        let how =
            format!("{how}; max_samples_per_send and all else as by default, batches after 500 ms");
        table.row(
            format!("{}: {what}", Who::Prometheus.name()),
            format!("{:.2}", value(theirs)),
            how,
        );
        let ratio = format!("{:.2}", value(theirs) / value(&ours));
        table.row(format!("{what}: Prometheus / mote"), ratio, "1.0 both");
    }
    table.print(&format!("Delivery: {seconds} s live, and an outage of {seconds} s"));
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

fn measure(program: &Path, who: Who, seconds: u64) -> Result<Figures> {
    let sink = Sink::start(Protocol::RemoteWrite)?;
    let folder = tempfile::tempdir()?;
    let run = Run::start(program, who, folder.path(), sink.port)?;
    run.wait(&sink, Duration::from_secs(60), |now| now.samples > 0)?;
    thread::sleep(WARM);

    let period = Duration::from_secs(seconds);
    let (before, began) = (run.now(&sink)?, Instant::now());
    thread::sleep(period);
    let live = run.now(&sink)?.since(before);
    let a_second = live.samples as f64 / began.elapsed().as_secs_f64();

    sink.set_down(true);
    thread::sleep(period);
    run.reset_peak()?;
    let before = run.now(&sink)?;
    sink.set_down(false);
    run.wait(&sink, LIMIT, |now| now.samples > before.samples)?;
    let began = Instant::now();
    let mut anonymous = 0;
    // It has caught up when it has sent what the outage and the drain have had.
    let drained = run.wait(&sink, LIMIT, |now| {
        anonymous = anonymous.max(run.field("RssAnon:").unwrap_or(0));
        let due = (seconds as f64 + began.elapsed().as_secs_f64() - 3.0) * a_second;
        now.samples.saturating_sub(before.samples) as f64 >= due
    })?;
    let (took, drained) = (began.elapsed(), drained.since(before));
    Ok(Figures {
        live_bytes: live.bytes as f64 / live.samples as f64,
        live_cpu_micros: live.cpu.as_secs_f64() * 1e6 / live.samples as f64,
        drain_bytes: drained.bytes as f64 / drained.samples as f64,
        drain_rate: drained.samples as f64 / took.as_secs_f64().max(0.001),
        drain_cpu_micros: drained.cpu.as_secs_f64() * 1e6 / drained.samples as f64,
        peak_rss_mib: run.field("VmHWM:")? as f64 / 1024.0,
        peak_anonymous_mib: anonymous as f64 / 1024.0,
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct Now {
    samples: u64,
    bytes: u64,
    cpu: Duration,
}

impl Now {
    fn since(self, before: Now) -> Now {
        Now {
            samples: self.samples - before.samples,
            bytes: self.bytes - before.bytes,
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

/// A program that collects or scrapes once a second and writes to the sink. It ends with the value.
struct Run {
    child: Child,
    log: PathBuf,
}

impl Run {
    fn start(program: &Path, who: Who, folder: &Path, sink: u16) -> Result<Run> {
        let (config, log) = (folder.join("config"), folder.join("log"));
        let mut command = Command::new(program);
        match who {
            Who::Mote(version) => {
                let text = format!(
                    "http.listen = \"\"\nclock.wait = \"0s\"\n[agent]\nstate_dir = {:?}\ninterval = \"1s\"\n[probes]\ndefault = \"off\"\n\
                     [wal]\nsync = \"1m\"\n\
                     [[mimir]]\nurl = \"http://127.0.0.1:{sink}/api/v1/push\"\nprotocol = {version:?}\nsend_interval = \"0s\"\n\
                     backoff = {{ min = \"100ms\", max = \"5s\" }}\n",
                    folder.join("state").display().to_string()
                );
                fs::write(&config, text)?;
                let check =
                    Command::new(program).args(["check", "--config"]).arg(&config).output()?;
                if !check.status.success() {
                    return Err(String::from_utf8_lossy(&check.stderr).trim().to_owned().into());
                }
                command.args(["run", "--config"]).arg(&config);
            }
            Who::Prometheus => {
                let port = serve_rounds()?;
                let text = format!(
                    "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
                     scrape_configs:\n- job_name: integrations/node_exporter\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n\
                     remote_write:\n- url: 'http://127.0.0.1:{sink}/api/v1/write'\n  queue_config: {{ batch_send_deadline: 500ms }}\n"
                );
                fs::write(&config, text)?;
                command
                    .args(["--enable-feature=agent", "--web.listen-address=127.0.0.1:0"])
                    .arg(format!("--storage.agent.path={}", folder.join("state").display()))
                    .arg(format!("--config.file={}", config.display()));
            }
        }
        let out = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| format!("starting {}: {error}", program.display()))?;
        Ok(Run { child, log })
    }

    fn now(&self, sink: &Sink) -> Result<Now> {
        let (_, bytes) = sink.requests();
        Ok(Now { samples: sink.entries(), bytes, cpu: cpu::of(self.child.id())? })
    }

    fn wait(
        &self,
        sink: &Sink,
        limit: Duration,
        mut until: impl FnMut(&Now) -> bool,
    ) -> Result<Now> {
        let end = Instant::now() + limit;
        loop {
            let now = self.now(sink)?;
            if until(&now) {
                return Ok(now);
            }
            if Instant::now() > end {
                return Err(
                    format!("not within {limit:?}:\n{}", fs::read_to_string(&self.log)?).into()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn reset_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    /// Of /proc/pid/status, in KiB.
    fn field(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| format!("no {name}").into())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port of a page of this host's default collectors, collected anew for each scrape.
fn serve_rounds() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        let (mut recorder, mut text) = (Recorder::new(None), Vec::new());
        for stream in listener.incoming().flatten() {
            recorder.collect();
            text.clear();
            // A scrape that breaks off is Prometheus' affair.
            let _ = write_text(&recorder.samples, &mut text).map(|()| answer(stream, &text));
        }
    });
    Ok(port)
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
