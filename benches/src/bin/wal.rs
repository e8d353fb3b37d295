//! What the metrics WAL costs: bytes on disk a sample, work to append, speed to drain, and bytes
//! written for each byte of payload. The data is this machine's: an hour of rounds at 60 s, collected
//! 50 ms apart.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use benches::rounds::{self, FIRST_MS, INTERVAL_MS, MetricsWal, Recorder};
use benches::table::{Table, thousands};
use benches::{Result, cpu, valgrind};

/// An hour.
const ROUNDS: i64 = 60;
const APART: Duration = Duration::from_millis(50);
/// Appends that are timed.
const MANY: i64 = 600;
const TRIES: usize = 20;

/// The first argument of this program's own runs under valgrind.
const REPEAT: &str = "--repeat";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => report(),
        [REPEAT, "append", count] => repeat_append(count.parse()?).map(drop),
        [REPEAT, "drain", count] => repeat_drain(count.parse()?),
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
    append(&mut log, &recorder, ROUNDS)?;
    for _ in 0..count {
        black_box(rounds::drain(&mut log)?);
    }
    Ok(())
}

fn report() -> Result<()> {
    let mut table = Table::new();
    let folder = tempfile::tempdir()?;
    let mut log = hour(&mut table, folder.path())?;
    append_speed(&mut table)?;
    drain_speed(&mut table, &mut log)?;
    instructions(&mut table)?;
    table.print("The metrics WAL");
    Ok(())
}

fn hour(table: &mut Table, folder: &Path) -> Result<MetricsWal> {
    let mut recorder = Recorder::new(None);
    let mut log = MetricsWal::create(folder)?;
    let mut first = 0;
    for index in 0..ROUNDS {
        recorder.collect();
        let next = log.append(FIRST_MS + index * INTERVAL_MS, &recorder.samples)?;
        if index == 0 {
            first = log.payload_bytes;
        }
        log.wal.sync()?;
        let reader = log.reader;
        log.wal.acknowledge(reader, next, true)?;
        std::thread::sleep(APART);
    }
    let bytes = disk_bytes(folder)?;
    if bytes != log.wal.bytes() {
        return Err(format!("the WAL says {} bytes, its files {bytes}", log.wal.bytes()).into());
    }
    let samples = log.samples;
    let per = |bytes: u64| format!("{:.3}", bytes as f64 / samples as f64);
    let how = format!("{ROUNDS} rounds of this host's default collectors");
    table.row("samples in the hour", thousands(samples), &how);
    table.row("bytes on disk", thousands(bytes), "sizes of all files: segments and one cursor");
    table.row("bytes on disk a sample", per(bytes), "the two above");
    table.row("payload of the first record", thousands(first), "with the labels of every series");
    let later = (log.payload_bytes - first) / (ROUNDS - 1).unsigned_abs();
    table.row("payload of a later record", thousands(later), "mean of the others");
    let written = log.wal.stats().written_bytes;
    let how = "mote_wal_written_bytes_total: records, segment headers, one cursor write a round";
    table.row("bytes handed to the file system", thousands(written), how);
    let ratio = |bytes: u64| format!("{:.4}", bytes as f64 / log.payload_bytes as f64);
    table.row("write amplification", ratio(written), "the above / bytes of payload");
    let cursors = ROUNDS.unsigned_abs() * 512;
    let how = "the same without the cursor's 512 bytes a round";
    table.row("write amplification, no endpoint", ratio(written - cursors), how);
    Ok(log)
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
    let how =
        "bodies of the same requests, no HTTP; rounds 50 ms apart differ less than a minute's";
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
    let value = format!("{:.1}", drain as f64 / (samples * ROUNDS.unsigned_abs()) as f64);
    table.row("drain: instructions a sample", value, valgrind::HOW);
    Ok(())
}
