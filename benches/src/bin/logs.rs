//! Log files followed by the whole agent, and by rsyslog beside it: lines a second for one core-second, CPU and
//! memory at 20,000 lines a second, memory with 1,000 idle files. rsyslog follows the same file (imfile, by
//! inotify) and forwards it over TCP, once from memory and once through its queue on disk, which is what is
//! comparable to the WAL. It has the easier task: no labels, no compression, no answer to wait for.
//!
//! `cargo build --release -p agent && cargo run --release -p benches --bin logs`; rsyslogd is Debian's package
//! rsyslog, or `$MOTE_RSYSLOG`. Takes about two minutes.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use benches::sink::{Protocol, Sink};
use benches::table::{Table, thousands};
use benches::{Result, cpu};

/// Lines of the file that is there from the beginning.
const BACKLOG: u64 = 1_000_000;
/// Lines a second of the writer, and for how long.
const PACE: u64 = 20_000;
const SECONDS: u64 = 20;
const IDLE: usize = 1_000;
/// The most that all lines may take to arrive.
const LIMIT: Duration = Duration::from_secs(180);

/// A line as programs write them, of some 110 bytes, none like the one before.
fn line(out: &mut impl Write, number: u64) -> Result<()> {
    let (user, took) = (number.wrapping_mul(2_654_435_761) % 10_007, number % 997);
    writeln!(
        out,
        "2026-11-21T12:{:02}:{:02}.{:06}Z INFO gateway: request {number} of user {user} took {took} ms, status 200, GET /api/v1/items/{}",
        number / 1_200_000 % 60,
        number / 20_000 % 60,
        number % 20_000 * 50,
        user * 31 % 4_096
    )?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Mote,
    RsyslogMemory,
    RsyslogDisk,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Mote => "mote",
            Who::RsyslogMemory => "rsyslog, queue in memory",
            Who::RsyslogDisk => "rsyslog, queue on disk",
        }
    }
}

fn main() -> Result<()> {
    if std::env::args().len() > 1 {
        return Err("logs takes no arguments".into());
    }
    let mote = std::env::current_exe()?.with_file_name("mote");
    if !mote.is_file() {
        return Err(
            format!("{} is not there: cargo build --release -p agent", mote.display()).into()
        );
    }
    let rsyslog =
        std::env::var_os("MOTE_RSYSLOG").map_or("/usr/sbin/rsyslogd".into(), PathBuf::from);
    let mut all = vec![Who::Mote];
    let mut table = Table::new();
    if rsyslog.is_file() {
        all.extend([Who::RsyslogMemory, Who::RsyslogDisk]);
    } else {
        table.row("rsyslog", "-", "install it: the package rsyslog");
    }
    let programs = Programs { mote, rsyslog };
    for who in all {
        backlog(&programs, who, &mut table)?;
        paced(&programs, who, &mut table)?;
        idle(&programs, who, &mut table)?;
    }
    table.print("Log files");
    Ok(())
}

struct Programs {
    mote: PathBuf,
    rsyslog: PathBuf,
}

/// A million lines that are there.
fn backlog(programs: &Programs, who: Who, table: &mut Table) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut file = BufWriter::new(File::create(folder.path().join("a.log"))?);
    (0..BACKLOG).try_for_each(|number| line(&mut file, number))?;
    file.flush()?;
    let began = Instant::now();
    let run = Run::start(programs, who, folder.path())?;
    run.wait_for(BACKLOG)?;
    let (took, cpu) = (began.elapsed(), cpu::of(run.child.id())?);
    let rate = BACKLOG as f64 / cpu.as_secs_f64();
    let how = format!(
        "{} lines that are there at its start, in {:.1} s",
        thousands(BACKLOG),
        took.as_secs_f64()
    );
    table.row(format!("{}: lines for one core-second", who.name()), thousands(rate as u64), how);
    Ok(())
}

/// 20,000 lines a second.
fn paced(programs: &Programs, who: Who, table: &mut Table) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.log");
    File::create(&path)?;
    let run = Run::start(programs, who, folder.path())?;
    thread::sleep(Duration::from_secs(2));
    let before = cpu::of(run.child.id())?;
    let began = Instant::now();
    let mut file = File::options().append(true).open(&path)?;
    let (mut number, mut most) = (0, 0);
    for tick in 0..SECONDS * 100 {
        let mut lines = Vec::new();
        for _ in 0..PACE / 100 {
            line(&mut lines, number)?;
            number += 1;
        }
        file.write_all(&lines)?;
        most = most.max(resident(run.child.id())?.0);
        let due = Duration::from_millis(10 * (tick + 1));
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    let written = began.elapsed();
    run.wait_for(number)?;
    let lag = began.elapsed().saturating_sub(written);
    let cpu = cpu::of(run.child.id())?.saturating_sub(before);
    let (_, anonymous) = resident(run.child.id())?;
    let share = 100.0 * cpu.as_secs_f64() / written.as_secs_f64();
    let how = format!(
        "{} lines a second for {SECONDS} s; the last arrived {:.1} s later",
        thousands(PACE),
        lag.as_secs_f64()
    );
    table.row(format!("{}: CPU of one core", who.name()), format!("{share:.1} %"), how);
    table.row(
        format!("{}: resident memory meanwhile", who.name()),
        format!("{:.1} MiB", mib(most)),
        format!("the most; {:.1} MiB of it anonymous at the end", mib(anonymous)),
    );
    Ok(())
}

/// A thousand files that nobody writes to.
fn idle(programs: &Programs, who: Who, table: &mut Table) -> Result<()> {
    let of = |files: usize| -> Result<(u64, u64)> {
        let folder = tempfile::tempdir()?;
        for number in 0..files {
            let mut file = File::create(folder.path().join(format!("{number:04}.log")))?;
            line(&mut file, number as u64)?;
        }
        let run = Run::start(programs, who, folder.path())?;
        run.wait_for(files as u64)?;
        thread::sleep(Duration::from_secs(3));
        resident(run.child.id())
    };
    let (one, many) = (of(1)?, of(IDLE)?);
    let each = many.0.saturating_sub(one.0) / IDLE as u64;
    let how = format!(
        "{IDLE} idle files, {:.1} MiB with one: {} bytes each; {:.1} MiB anonymous",
        mib(one.0),
        thousands(each),
        mib(many.1)
    );
    table.row(format!("{}: resident memory", who.name()), format!("{:.1} MiB", mib(many.0)), how);
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Resident and anonymous bytes.
fn resident(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
    };
    Ok((field("VmRSS:")?, field("RssAnon:")?))
}

/// One program that follows a folder's files into a sink. It ends with the value.
struct Run {
    child: Child,
    sink: Sink,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Run {
    fn start(programs: &Programs, who: Who, logs: &Path) -> Result<Run> {
        let folder = tempfile::tempdir()?;
        let (base, config, log) =
            (folder.path(), folder.path().join("config"), folder.path().join("log"));
        let sink = Sink::start(if who == Who::Mote { Protocol::Loki } else { Protocol::Lines })?;
        let (text, mut command) = match who {
            Who::Mote => (mote(base, logs, sink.port), Command::new(&programs.mote)),
            _ => (rsyslog(base, logs, sink.port, who), Command::new(&programs.rsyslog)),
        };
        fs::write(&config, text)?;
        match who {
            Who::Mote => command.args(["run", "--config"]).arg(&config),
            _ => command.arg("-n").arg("-i").arg(base.join("pid")).arg("-f").arg(&config),
        };
        let out = File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
        Ok(Run { child, sink, log, _folder: folder })
    }

    fn wait_for(&self, entries: u64) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while self.sink.entries() < entries {
            if Instant::now() > end {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!(
                    "{} of {entries} lines came; its log:\n{log}",
                    self.sink.entries()
                )
                .into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The defaults but for the speed limit, and without collectors and probes: the log reader alone is compared.
fn mote(base: &Path, logs: &Path, port: u16) -> String {
    format!(
        "http.listen = \"\"\nclock.wait = \"0s\"\n[agent]\nstate_dir = {:?}\ninstance = \"box\"\n\
         [metrics]\ncollectors = {{ only = [] }}\n[probes]\ndefault = \"off\"\n\
         [[loki]]\nurl = \"http://127.0.0.1:{port}/loki/api/v1/push\"\nmax_rate = \"1GiB\"\n\
         [[logs.file]]\npaths = [\"{}/*.log\"]\nlabels = {{ job = \"bench\" }}\n",
        base.join("state"),
        logs.display()
    )
}

fn rsyslog(base: &Path, logs: &Path, port: u16, who: Who) -> String {
    let queue = match who {
        Who::RsyslogDisk => {
            "queue.type=\"Disk\" queue.filename=\"q\" queue.maxDiskSpace=\"1g\" queue.syncQueueFiles=\"off\""
        }
        _ => "queue.type=\"LinkedList\" queue.size=\"100000\"",
    };
    format!(
        "global(workDirectory=\"{base}\" maxMessageSize=\"64k\")\n\
         module(load=\"imfile\" mode=\"inotify\")\n\
         input(type=\"imfile\" File=\"{logs}/*.log\" Tag=\"bench\" freshStartTail=\"off\" ruleset=\"r\")\n\
         template(name=\"t\" type=\"string\" string=\"%msg%\\n\")\n\
         ruleset(name=\"r\") {{ action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" template=\"t\" {queue}) }}\n",
        base = base.display(),
        logs = logs.display()
    )
}
