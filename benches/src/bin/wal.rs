//! What the metrics WAL costs: bytes on disk a sample, work to append, speed and memory to drain, and bytes
//! handed over for each byte of payload. The data is the recorded hour of a real host (`record`); what
//! reaches a device is in `device`.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use benches::recording::{self, Recorded};
use benches::rounds::{self, FIRST_MS, INTERVAL_MS, MetricsWal, Recorder};
use benches::table::{Table, thousands};
use benches::{Result, cpu, valgrind};

/// An hour.
const ROUNDS: usize = 60;
/// Appends that are timed.
const MANY: i64 = 600;
const TRIES: usize = 20;
/// A default WAL is full with less than so many bytes free.
const NEARLY: u64 = 1 << 20;

/// The first argument of this program's own runs.
const REPEAT: &str = "--repeat";
const DRAIN: &str = "--drain";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => report(),
        [REPEAT, "append", count] => repeat_append(count.parse()?).map(drop),
        [REPEAT, "drain", count] => repeat_drain(count.parse()?),
        [DRAIN, folder] => drain_full(Path::new(folder)),
        _ => Err("wal takes no arguments".into()),
    }
}

fn repeat_append(count: i64) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let mut recorder = Recorder::new(None);
    recorder.collect();
    let mut log = MetricsWal::create(folder.path())?;
    append(&mut log, &recorder, count)?;
    Ok(log.samples)
}

fn append(log: &mut MetricsWal, recorder: &Recorder, count: i64) -> Result<()> {
    for index in 0..count {
        black_box(log.append(FIRST_MS + index * INTERVAL_MS, &recorder.samples)?);
    }
    Ok(())
}

/// Drains an hour again and again; the appending is in every run once.
fn repeat_drain(count: i64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut recorder = Recorder::new(None);
    recorder.collect();
    let mut log = MetricsWal::create(folder.path())?;
    append(&mut log, &recorder, ROUNDS as i64)?;
    for _ in 0..count {
        black_box(rounds::drain(&mut log)?);
    }
    Ok(())
}

fn report() -> Result<()> {
    let mut table = Table::new();
    let mut recorded = recording::read(&recording::hour())?;
    recorded.truncate(ROUNDS);
    let folder = tempfile::tempdir()?;
    let mut log = hour(&mut table, folder.path(), &recorded)?;
    append_speed(&mut table)?;
    drain_speed(&mut table, &mut log)?;
    full(&mut table, &recorded)?;
    instructions(&mut table)?;
    table.print("The metrics WAL");
    Ok(())
}

fn hour(table: &mut Table, folder: &Path, recorded: &[Recorded]) -> Result<MetricsWal> {
    let mut log = MetricsWal::create(folder)?;
    let mut first = 0;
    for round in recorded {
        let next = log.append(round.time_ms, &round.samples)?;
        if first == 0 {
            first = log.payload_bytes;
        }
        log.wal.sync()?;
        let reader = log.reader;
        log.wal.acknowledge(reader, next, true)?;
    }
    let (open, stats) = (disk_bytes(folder)?, log.wal.stats());
    log.wal.close()?;
    let bytes = disk_bytes(folder)?;
    if bytes != log.wal.bytes() {
        return Err(format!("the WAL says {} bytes, its files {bytes}", log.wal.bytes()).into());
    }
    let samples = log.samples;
    let per = |bytes: u64| format!("{:.3}", bytes as f64 / samples as f64);
    let how = format!("{} rounds at 60 s of a real host's default collectors", recorded.len());
    table.row("samples in the hour", thousands(samples), &how);
    table.row("bytes on disk", thousands(bytes), "sizes of all files: segments and one cursor");
    table.row("bytes on disk a sample", per(bytes), "the two above");
    let how = "the same before the newest segment is closed: its file grows by 4 KiB at a time";
    table.row("bytes on disk, while it is open", thousands(open), how);
    table.row("payload of the first record", thousands(first), "with the labels of every series");
    let later = (log.payload_bytes - first) / (recorded.len() as u64 - 1);
    table.row("payload of a later record", thousands(later), "mean of the others");
    let how = "mote_wal_written_bytes_total: records, headers, padding, one cursor write a round";
    table.row("bytes handed to the file system", thousands(stats.written_bytes), how);
    let ratio = |bytes: u64| format!("{:.2}", bytes as f64 / log.payload_bytes as f64);
    table.row("handed over / payload", ratio(stats.written_bytes), "the above / bytes of payload");
    let cursors = recorded.len() as u64 * 512;
    let how = "the same without the cursor's 512 bytes a round";
    table.row("handed over / payload, no endpoint", ratio(stats.written_bytes - cursors), how);
    table.row("syncs", thousands(stats.syncs), "of the segment and, once, of the directory");
    Ok(log)
}

/// Fills a WAL of default size with the recorded hour, again and again, and drains it in a process of its
/// own.
fn full(table: &mut Table, recorded: &[Recorded]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut log = MetricsWal::create(folder.path())?;
    let mut time_ms = FIRST_MS;
    let mut round = 0;
    while log.wal.bytes() + NEARLY < log.wal.max_bytes() {
        // Forth and back, so that each round differs from the one before as those of a host do.
        let there = round % (2 * recorded.len());
        let there = there.min(2 * recorded.len() - 1 - there);
        let samples = recorded.get(there).map(|r| &r.samples).ok_or("no rounds")?;
        log.append(time_ms, samples)?;
        time_ms += INTERVAL_MS;
        round += 1;
    }
    log.wal.close()?;
    let days = (time_ms - FIRST_MS) as f64 / 86_400_000.0;
    let bytes = log.wal.bytes();
    let what = format!("{} bytes: the recorded hour forth and back", thousands(bytes));
    table.row("a full WAL: samples", thousands(log.samples), &what);
    table.row("a full WAL: days at 60 s", format!("{days:.1}"), &what);
    let per = format!("{:.3}", bytes as f64 / log.samples as f64);
    table.row("a full WAL: bytes a sample", per, &what);
    let start = Instant::now();
    let out = Command::new(std::env::current_exe()?).arg(DRAIN).arg(folder.path()).output()?;
    let text = String::from_utf8(out.stdout)?;
    let numbers: Vec<u64> =
        text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
    let [samples, before, after] = numbers.as_slice() else {
        return Err(String::from_utf8_lossy(&out.stderr).into());
    };
    if *samples != log.samples {
        return Err(format!("{} samples in, {samples} out", log.samples).into());
    }
    let speed = *samples as f64 / start.elapsed().as_secs_f64();
    let how = "read + decode + remote write + snappy in a process of its own, page cache";
    table.row("a full WAL: drain, samples a second", thousands(speed as u64), how);
    let how = "peak resident memory of that process after it, beside before it (VmHWM)";
    let value = format!("{} KiB, {} before", thousands(*after), thousands(*before));
    table.row("a full WAL: drain, peak memory", value, how);
    Ok(())
}

/// Drains a WAL and prints samples, and peak memory before and after in KiB.
fn drain_full(folder: &Path) -> Result<()> {
    let before = peak()?;
    let drained = rounds::drain(&mut MetricsWal::open(folder)?)?;
    println!("{} {before} {}", drained.samples, peak()?);
    Ok(())
}

/// The most memory that was resident, in KiB.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?;
    Ok(number.parse()?)
}

fn disk_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn append_speed(table: &mut Table) -> Result<()> {
    let mut recorder = Recorder::new(None);
    recorder.collect();
    let (mut least, mut samples) = (Duration::MAX, 0);
    for _ in 0..TRIES {
        let folder = tempfile::tempdir()?;
        let mut log = MetricsWal::create(folder.path())?;
        let before = cpu::own()?;
        append(&mut log, &recorder, MANY)?;
        least = least.min(cpu::own()?.saturating_sub(before));
        samples = log.samples;
    }
    let nanos = least.as_nanos() as f64;
    let how = format!("own CPU, encode + append of {MANY} rounds, no fsync, least of {TRIES}");
    table.row("append: a round", format!("{:.1} µs", nanos / 1e3 / MANY as f64), &how);
    table.row("append: a sample", format!("{:.1} ns", nanos / samples as f64), &how);
    Ok(())
}

fn drain_speed(table: &mut Table, log: &mut MetricsWal) -> Result<()> {
    let (mut least, mut wall) = (Duration::MAX, Duration::MAX);
    let mut drained = rounds::Drained::default();
    for _ in 0..TRIES {
        let (before, start) = (cpu::own()?, Instant::now());
        drained = rounds::drain(log)?;
        wall = wall.min(start.elapsed());
        least = least.min(cpu::own()?.saturating_sub(before));
        if drained.samples != log.samples {
            return Err(format!("{} samples in, {} out", log.samples, drained.samples).into());
        }
    }
    let how = format!(
        "read + decode + remote write + snappy of the hour in {} requests, page cache, least of {TRIES}",
        drained.requests
    );
    let speed = |time: Duration| drained.samples as f64 / time.as_secs_f64();
    table.row("drain: samples a second", thousands(speed(wall) as u64), &how);
    let value = format!("{:.1} ns", 1e9 / speed(least));
    table.row("drain: CPU a sample", value, "the same, own CPU");
    let value = format!("{:.2}", drained.bytes as f64 / drained.samples as f64);
    let how = "bodies of the same requests, no HTTP";
    table.row("drain: wire bytes a sample", value, how);
    Ok(())
}

fn instructions(table: &mut Table) -> Result<()> {
    if !valgrind::is_there() {
        table.row("instructions", "-", valgrind::MISSING);
        return Ok(());
    }
    let samples = repeat_append(1)?;
    let append = valgrind::instructions(&[REPEAT, "append"])?;
    table.row("append: instructions a round", thousands(append), valgrind::HOW);
    let value = format!("{:.1}", append as f64 / samples as f64);
    table.row("append: instructions a sample", value, format!("of {samples} samples a round"));
    let drain = valgrind::instructions(&[REPEAT, "drain"])?;
    let value = format!("{:.1}", drain as f64 / (samples * ROUNDS as u64) as f64);
    table.row("drain: instructions a sample", value, valgrind::HOW);
    Ok(())
}
