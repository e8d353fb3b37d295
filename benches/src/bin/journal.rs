//! The journal through its source into blocks: entries for one core-second, allocations and the peak of the
//! heap, beside `journalctl --output=json` on the same files. The peer has the easier and the harder task: it
//! reads through a mapping, and prints every field.
//!
//! `cargo run --release -p benches --bin journal`; systemd-journal-remote is Debian's package of that name. The
//! journal is made once, of 300,000 entries in three files, with the fields that journald adds.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::allocator::{Tally, allocated, live, peak};
use benches::table::{Table, thousands};
use benches::{Result, cpu};
use mote::host::{ManualClock, Roots};
use mote::logs::journal::{JournalSource, Matches, Options, Units};
use mote::logs::{Progress, Source};
use mote::model::{Block, Labels};

#[global_allocator]
static ALLOCATOR: Tally = Tally;

const FILES: u64 = 3;
const ENTRIES: u64 = 100_000;
const BLOCK: usize = 64 << 10;
/// Of times one: noise only adds.
const REPEATS: u32 = 3;
const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

fn main() -> Result<()> {
    if std::env::args().len() > 1 {
        return Err("journal takes no arguments".into());
    }
    let folder = tempfile::tempdir()?;
    for file in 0..FILES {
        write(&folder.path().join(format!("{file}.journal")), file * ENTRIES)?;
    }
    let mut table = Table::new();
    let cases: [(&str, &[&str], &[&str]); 3] = [
        ("all", &[], &[]),
        ("matches that one of 20 passes", &["_SYSTEMD_UNIT=unit7.service"], &[]),
        ("units, of which one of 20", &[], &["unit7"]),
    ];
    for (name, matches, units) in cases {
        let mut best = Duration::MAX;
        let mut read = Read::default();
        let mut memory = 0;
        let mut calls = 0;
        for _ in 0..REPEATS {
            let mut result = Ok(Read::default());
            let before = cpu::own()?;
            calls = allocated(|| {
                memory = peak(|| result = source(folder.path(), matches, units));
            })
            .calls;
            best = best.min(cpu::own()?.saturating_sub(before));
            read = result?;
        }
        let rate = (FILES * ENTRIES) as f64 / best.as_secs_f64();
        let how =
            format!("{} of {} entries given", thousands(read.entries), thousands(FILES * ENTRIES));
        table.row(format!("{name}: entries for one core-second"), thousands(rate as u64), how);
        let per = calls as f64 / (FILES * ENTRIES) as f64;
        table.row(
            format!("{name}: allocations an entry"),
            format!("{per:.3}"),
            "calls of the allocator",
        );
        let how = "heap at most, the block included";
        table.row(format!("{name}: memory"), format!("{} KiB", memory >> 10), how);
        let how = "the source after its last entry, without the block";
        table.row(format!("{name}: memory, idle"), format!("{} KiB", read.idle >> 10), how);
        let how = "longest read of one block";
        table.row(
            format!("{name}: turn"),
            format!("{:.1} ms", read.longest.as_secs_f64() * 1e3),
            how,
        );
    }
    let mut best = Duration::MAX;
    for _ in 0..REPEATS {
        best = best.min(journalctl(folder.path())?);
    }
    let rate = (FILES * ENTRIES) as f64 / best.as_secs_f64();
    table.row(
        "journalctl -o json: entries for one core-second",
        thousands(rate as u64),
        "to /dev/null",
    );
    table.print("Journal");
    Ok(())
}

#[derive(Clone, Copy, Debug, Default)]
struct Read {
    entries: u64,
    idle: usize,
    longest: Duration,
}

fn source(folder: &Path, matches: &[&str], units: &[&str]) -> Result<Read> {
    let before = live();
    let options = Options {
        labels: Labels::from_pairs([("job", "bench")])?,
        max_line: 256 << 10,
        max_age: Duration::from_secs(1 << 40),
        matches: Matches::parse(matches)?,
        units: Units::new(units.iter().copied())?,
        directories: vec![folder.to_owned()],
        labels_from: Vec::new(),
        metadata_from: vec![("pid".into(), "_PID".into())],
    };
    let clock = ManualClock::at(1_700_000_000_000_000_000);
    let mut source = JournalSource::new(&options, &Roots::default(), &Default::default(), &clock);
    let mut read = Read::default();
    let mut block = Block::new();
    loop {
        block.clear();
        let began = Instant::now();
        let progress = source.read(&mut block, BLOCK);
        read.longest = read.longest.max(began.elapsed());
        read.entries += block.entries().count() as u64;
        if progress == Progress::Idle {
            break;
        }
    }
    drop(block);
    read.idle = live().saturating_sub(before);
    Ok(read)
}

/// CPU time of journalctl, by what its end adds to this process's children.
fn journalctl(folder: &Path) -> Result<Duration> {
    let mut child = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=json", "--directory"])
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()?;
    let before = children()?;
    child.wait()?;
    Ok(children()?.saturating_sub(before))
}

#[expect(unsafe_code, reason = "std has no clock of children")]
fn children() -> Result<Duration> {
    // SAFETY: rusage is plain numbers, for which zeros are a value, and the kernel writes one of ours.
    let (usage, result) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let result = libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        (usage, result)
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let time = |t: libc::timeval| -> Result<Duration> {
        Ok(Duration::from_secs(t.tv_sec.try_into()?) + Duration::from_micros(t.tv_usec.try_into()?))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}

/// Entries as journald writes them: some twenty fields, of which a few are new each time.
fn write(path: &Path, first: u64) -> Result<()> {
    let mut child = Command::new(REMOTE)
        .arg("--output")
        .arg(path)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!("{REMOTE}: {error}; install the package systemd-journal-remote")
        })?;
    let mut out = BufWriter::new(child.stdin.take().ok_or("no pipe")?);
    for number in first..first + ENTRIES {
        let (unit, time) = (number * 7 % 20, number * 250);
        write!(
            out,
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={:032x}\n\
             MESSAGE=request {number} of user {} took {} ms, status 200, GET /api/v1/items/{}\n\
             PRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=program{unit}\n_TRANSPORT=stdout\n\
             _PID={}\n_UID={unit}\n_GID={unit}\n_COMM=program{unit}\n_EXE=/usr/bin/program{unit}\n\
             _CMDLINE=/usr/bin/program{unit} --config /etc/program{unit}.conf\n_CAP_EFFECTIVE=0\n\
             _SYSTEMD_CGROUP=/system.slice/unit{unit}.service\n_SYSTEMD_UNIT=unit{unit}.service\n\
             _SYSTEMD_SLICE=system.slice\n_SYSTEMD_INVOCATION_ID={unit:032x}\n\
             _STREAM_ID={unit:032x}\n_MACHINE_ID={:032x}\n_HOSTNAME=box\n_RUNTIME_SCOPE=system\n\n",
            1_600_000_000_000_000 + time,
            1_000_000 + time,
            7,
            number.wrapping_mul(2_654_435_761) % 10_007,
            number % 997,
            number * 31 % 4_096,
            1_000 + unit,
            9
        )?;
    }
    drop(out);
    if !child.wait()?.success() {
        return Err("systemd-journal-remote failed".into());
    }
    Ok(())
}
