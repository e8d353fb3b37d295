//! How memory and work grow with the number of series, and that neither grows with time.
//!
//! First rounds of 100, 1,000 and 5,000 made-up series on their way from the samples to a remote write
//! request, counted: bytes held, allocations, instructions. Then the whole agent with as many series of
//! `textfile`, of which every value is new in every round: resident memory and CPU for a round. Then a day,
//! twice: 5,760 rounds of 15 s with series that come and go, through the WAL; and the whole agent with its
//! default collectors at 100 ms for as many rounds as a day of 60 s has. After its first hour and after its
//! last each must hold the same, within a stated bound, or the program fails.
//!
//! `cargo build --release -p agent && cargo run --release -p benches --bin growth [ROUNDS]`: rounds of the
//! agent's day (default 1,440); four minutes.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use benches::allocator::{Tally, allocated, live};
use benches::rounds::{self, Drain, MetricsWal};
use benches::sink::{Protocol, Sink};
use benches::table::{Table, thousands};
use benches::{Result, cpu, made, valgrind};
use mote::model::Samples;

#[global_allocator]
static ALLOCATOR: Tally = Tally;

const SIZES: [usize; 3] = [100, 1_000, 5_000];
/// Rounds before anything is counted: more than lie between two full records of a segment.
const WARM_UP: u64 = 300;
const ROUNDS: u64 = 1_000;

/// A day and an hour at 15 s.
const DAY: u64 = 5_760;
const HOUR: u64 = 240;
/// The agent's day and hour, at its default of 60 s.
const AGENT_DAY: u64 = 1_440;
const AGENT_HOUR: u64 = 60;
const FASTEST: Duration = Duration::from_millis(100);

/// The most by which a day may differ from its first hour. Live bytes are those that the program asked
/// for: what differs is how full a table of series and a list of segments happen to be.
const LIVE: u64 = 64 << 10;
const RESIDENT: u64 = 512 << 10;
/// The whole agent holds connections and answers of its status page, too.
const AGENT_LIVE: u64 = 128 << 10;
const AGENT_RESIDENT: u64 = 1 << 20;

/// The first argument of this program's own runs under valgrind.
const REPEAT: &str = "--repeat";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [REPEAT, series, count] => return repeat(series.parse()?, count.parse()?),
        [] => AGENT_DAY,
        [rounds] => rounds.parse()?,
        _ => return Err("growth takes a number of rounds".into()),
    };
    let mote = std::env::current_exe()?.with_file_name("mote");
    if !mote.is_file() {
        return Err(
            format!("{} is not there: cargo build --release -p agent", mote.display()).into()
        );
    }
    let mut missed = Vec::new();
    let mut table = Table::new();
    for series in SIZES {
        counted(series, &mut table)?;
    }
    for series in SIZES {
        agent(&mote, series, &mut table)?;
    }
    table.print("By the number of series");
    let mut table = Table::new();
    day(&mut table, &mut missed)?;
    agent_day(&mote, rounds, &mut table, &mut missed)?;
    table.print("A day");
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n").into()) }
}

/// Rounds on their way from the samples to the request.
struct Way {
    samples: Samples,
    log: MetricsWal,
    drain: Drain,
    number: u64,
    churn: bool,
    series: usize,
    _folder: tempfile::TempDir,
}

impl Way {
    fn new(series: usize, churn: bool) -> Result<Way> {
        let folder = tempfile::tempdir()?;
        let log = MetricsWal::create(&folder.path().join("wal"))?;
        let samples = Samples::with_limit(series + 10);
        let drain = Drain::default();
        Ok(Way { samples, log, drain, number: 0, churn, series, _folder: folder })
    }

    fn round(&mut self, interval_ms: i64) -> Result<()> {
        made::round(&mut self.samples, self.series, self.number, self.churn);
        let time = rounds::FIRST_MS + i64::try_from(self.number)? * interval_ms;
        self.number += 1;
        self.log.append(time, &self.samples)?;
        let sent = self.drain.newest(&mut self.log)?;
        // Those that are gone get one more.
        if sent < self.samples.len() as u64 {
            return Err(format!("{sent} samples of {} in a request", self.samples.len()).into());
        }
        Ok(())
    }
}

fn repeat(series: usize, count: u64) -> Result<()> {
    let mut way = Way::new(series, false)?;
    for _ in 0..count {
        way.round(rounds::INTERVAL_MS)?;
        black_box(&way.samples);
    }
    Ok(())
}

fn counted(series: usize, table: &mut Table) -> Result<()> {
    let before = live();
    let mut way = Way::new(series, false)?;
    for _ in 0..WARM_UP {
        way.round(rounds::INTERVAL_MS)?;
    }
    let held = live().saturating_sub(before) as u64;
    let mut outcome = Ok(());
    let sum = allocated(|| {
        outcome = (0..ROUNDS).try_for_each(|_| way.round(rounds::INTERVAL_MS));
    });
    outcome?;
    let what = format!("{} series, samples to request", thousands(series as u64));
    let how =
        format!("counting allocator, after {WARM_UP} rounds: {} a series", held / series as u64);
    table.row(format!("{what}: bytes held"), thousands(held), how);
    let mean = format!("{:.3}", sum.calls as f64 / ROUNDS as f64);
    let how = format!("mean of {ROUNDS} rounds; new segments of the WAL allocate");
    table.row(format!("{what}: allocations a round"), mean, how);
    let value = match valgrind::is_there() {
        true => thousands(valgrind::instructions_of(&[REPEAT, &series.to_string()], 5, 20)?),
        false => "-".to_owned(),
    };
    let how = match valgrind::is_there() {
        true => {
            "callgrind, user space: (25 repetitions - 5) / 20; making the round up is part of it"
        }
        false => valgrind::MISSING,
    };
    table.row(format!("{what}: instructions a round"), value, how);
    Ok(())
}

/// A day at 15 s with series that come and go.
fn day(table: &mut Table, missed: &mut Vec<String>) -> Result<()> {
    let mut way = Way::new(1_000, true)?;
    let mut at = Vec::new();
    for number in 1..=DAY {
        way.round(15_000)?;
        if number % HOUR == 0 {
            at.push((live() as u64, Fields::of("self")?.resident));
        }
    }
    let what = format!("{} rounds of 1,000 series", thousands(DAY));
    hours(&what, &at, (LIVE, RESIDENT), table, missed);
    Ok(())
}

/// The whole agent at its fastest pace.
fn agent_day(mote: &Path, rounds: u64, table: &mut Table, missed: &mut Vec<String>) -> Result<()> {
    let config = "[probes]\ndefault = \"off\"\n";
    let run = Run::start(mote, FASTEST, config)?;
    let mut at = Vec::new();
    // Where fewer rounds are asked for, an hour is shorter, too.
    let hour = AGENT_HOUR.min((rounds / 4).max(1));
    let first = run.wait(1)?;
    let mut next = first + hour;
    while next <= first + rounds {
        run.wait(next)?;
        let fields = Fields::of(&run.child.id().to_string())?;
        at.push((run.number("mote_memory_live_bytes")?, fields.resident));
        next += hour;
    }
    let (requests, _) = run.sink.requests();
    if requests == 0 {
        return Err("the agent has sent nothing".into());
    }
    let what = format!("the whole agent, {} rounds in {:?} each", thousands(rounds), FASTEST);
    hours(&what, &at, (AGENT_LIVE, AGENT_RESIDENT), table, missed);
    Ok(())
}

/// What was held after the first hour and after the last, and whether that is the same.
fn hours(
    what: &str,
    at: &[(u64, u64)],
    bounds: (u64, u64),
    table: &mut Table,
    missed: &mut Vec<String>,
) {
    let (Some(first), Some(last)) = (at.first(), at.last()) else { return };
    let most = |of: fn(&(u64, u64)) -> u64| at.iter().map(of).max().unwrap_or(0);
    for (name, first, last, most, bound) in [
        ("live bytes", first.0, last.0, most(|hour| hour.0), bounds.0),
        ("resident bytes", first.1, last.1, most(|hour| hour.1), bounds.1),
    ] {
        let grown = last.saturating_sub(first);
        let verdict = if grown <= bound { "kept" } else { "MISSED" };
        let how = format!(
            "after the first of {} hours {}, at most {}; may grow by {}: {verdict}",
            at.len(),
            thousands(first),
            thousands(most),
            thousands(bound)
        );
        table.row(format!("{what}: {name} after the last hour"), thousands(last), how);
        if grown > bound {
            missed.push(format!("{what}: {name} have grown by {grown}, and may by {bound}"));
        }
    }
}

/// The whole agent with this many series from a file that is written anew for each round.
fn agent(mote: &Path, series: usize, table: &mut Table) -> Result<()> {
    // Quicker, rounds of 5,000 would be a backlog, which is sent with pauses.
    const PACE: Duration = Duration::from_secs(1);
    const TIME: Duration = Duration::from_secs(12);
    let folder = tempfile::tempdir()?;
    let page = Page { path: folder.path().join("made.prom"), series };
    page.write(0)?;
    let config = format!(
        "[probes]\ndefault = \"off\"\n[metrics]\nmax_series = 6000\n\
         collectors = {{ only = [\"textfile\"] }}\n[metrics.textfile]\ndirectory = {:?}\n",
        folder.path().display().to_string()
    );
    let run = Run::start(mote, PACE, &config)?;
    let mut number = 0;
    let mut until = |limit: Duration| -> Result<()> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            number += 1;
            page.write(number)?;
            thread::sleep(PACE / 2);
        }
        Ok(())
    };
    until(TIME / 2)?;
    let id = run.child.id();
    let (rounds, time, sent) = (run.rounds()?, cpu::of(id)?, run.sink.entries());
    until(TIME)?;
    let rounds = run.rounds()? - rounds;
    let cpu = cpu::of(id)?.saturating_sub(time).as_secs_f64() * 1e6 / rounds as f64;
    // A sender that is behind would be measured at rest.
    let end = Instant::now() + Duration::from_secs(20);
    while run.sink.entries() - sent < rounds * series as u64 {
        if Instant::now() > end {
            let came = run.sink.entries() - sent;
            let log = fs::read_to_string(run.folder.path().join("log")).unwrap_or_default();
            return Err(
                format!("{came} samples of {rounds} rounds of {series} came:\n{log}").into()
            );
        }
        thread::sleep(FASTEST);
    }
    let fields = Fields::of(&id.to_string())?;
    let what = format!("{} series, the whole agent", thousands(series as u64));
    let mib = |bytes: u64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let how = format!("VmRSS; {} of it anonymous", mib(fields.anonymous));
    table.row(format!("{what}: resident"), mib(fields.resident), how);
    let bytes = thousands(run.number("mote_memory_live_bytes")?);
    table.row(format!("{what}: live bytes"), bytes, "its own count");
    let how = format!(
        "user + system, mean of {rounds} rounds of {PACE:?}: text read, parsed, encoded, synced, sent"
    );
    table.row(format!("{what}: CPU a round"), format!("{cpu:.0} µs"), how);
    Ok(())
}

/// A file for `textfile`, replaced as programs do it.
struct Page {
    path: PathBuf,
    series: usize,
}

impl Page {
    fn write(&self, number: u64) -> Result<()> {
        let mut samples = Samples::with_limit(self.series);
        made::round(&mut samples, self.series, number, false);
        let mut text = Vec::new();
        mote::encode::write_text(&samples, &mut text)?;
        let next = self.path.with_extension("next");
        fs::write(&next, text)?;
        fs::rename(next, &self.path)?;
        Ok(())
    }
}

/// Fields of a process' status, in bytes.
struct Fields {
    resident: u64,
    anonymous: u64,
}

impl Fields {
    fn of(process: &str) -> Result<Fields> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.ok_or("no such field")?.trim().trim_end_matches(" kB");
            Ok(number.trim().parse::<u64>()? << 10)
        };
        Ok(Fields { resident: field("VmRSS:")?, anonymous: field("RssAnon:")? })
    }
}

/// The agent, sending to a sink. It ends with the value.
struct Run {
    child: Child,
    sink: Sink,
    port: u16,
    folder: tempfile::TempDir,
}

impl Run {
    fn start(mote: &Path, interval: Duration, more: &str) -> Result<Run> {
        let folder = tempfile::tempdir()?;
        let sink = Sink::start(Protocol::RemoteWrite)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = folder.path().join("mote.toml");
        let pace = interval.as_millis();
        fs::write(
            &config,
            format!(
                "http.listen = \"127.0.0.1:{port}\"\nclock.wait = \"0s\"\n[agent]\ninstance = \"box\"\n\
                 interval = \"{pace}ms\"\nstate_dir = {:?}\n{more}\
                 [[mimir]]\nurl = \"http://127.0.0.1:{}/api/v1/push\"\nsend_interval = \"{pace}ms\"\n",
                folder.path().join("state"),
                sink.port
            ),
        )?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(mote);
        command.args(["run", "--config"]).arg(&config);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let run = Run { child, sink, port, folder };
        run.wait(1)?;
        Ok(run)
    }

    /// Waits until the WAL has this many rounds, and gives how many there are.
    fn wait(&self, rounds: u64) -> Result<u64> {
        let mut have = self.rounds().unwrap_or(0);
        let mut end = Instant::now() + Duration::from_secs(30);
        while have < rounds {
            thread::sleep(FASTEST);
            let now = self.rounds().unwrap_or(have);
            if now > have {
                end = Instant::now() + Duration::from_secs(30);
            }
            have = now;
            if Instant::now() > end {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("{have} of {rounds} rounds; its log:\n{log}").into());
            }
        }
        Ok(have)
    }

    fn rounds(&self) -> Result<u64> {
        self.number("mote_wal_records_total{wal=\"metrics\"}")
    }

    /// A figure of its own page.
    fn number(&self, series: &str) -> Result<u64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let number = line.ok_or_else(|| format!("no {series} on the agent's page"))?;
        Ok(number.trim().parse::<f64>()? as u64)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
