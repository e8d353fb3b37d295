//! What the probes' programs cost: the kernel's own statistics of BPF (sysctl kernel.bpf_stats_enabled,
//! run_time_ns and run_cnt of each program) while real I/O, connections and OOM kills run through them.
//! Needs root, util-linux and the BPF objects.
//!
//! `cargo run --release -p benches --bin probes`, after `cargo build --release`. The kernel's figures hold
//! its own two readings of the clock for each run. It must not know what the programs count.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use aya::programs::loaded_programs;
use benches::Result;
use benches::table::{Table, thousands};
use mote::host::{Host, Roots};
use mote::probe::{Loader, Mode, Options, Probes};

const BLOCK: usize = 4096;
/// Requests of one measurement, and measurements: the middle one counts, which nothing has interrupted.
const REQUESTS: u64 = 2_000;
const TIMES: usize = 101;
const CONNECTIONS: u32 = 5_000;
/// Nanoseconds that issue and completion of a request may take together, where the JIT is on.
const BUDGET_NS: f64 = 150.0;
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's statistics, switched on until this is dropped.
struct Statistics(String);

impl Statistics {
    fn begin() -> Result<Statistics> {
        let before = fs::read_to_string(SWITCH)?;
        fs::write(SWITCH, "1")?;
        Ok(Statistics(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.0.trim());
    }
}

/// A loop device over a file in memory, undone when it is dropped.
struct Loop {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Loop {
    fn new() -> Result<Loop> {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let image = folder.path().join("image");
        let mut file = File::create(&image)?;
        file.write_all(&vec![0x5a; 1_024 * BLOCK])?;
        let out = Command::new("losetup").args(["--find", "--show"]).arg(&image).output()?;
        if !out.status.success() {
            return Err(format!("losetup: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        Ok(Loop { path: String::from_utf8(out.stdout)?.trim().into(), _folder: folder })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// Requests of one block past the page cache, half of them writes.
fn disk(device: &Loop) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&device.path)?;
    let mut block = Aligned([7; BLOCK]);
    for at in 0..REQUESTS / 2 {
        let offset = at % 1_024 * BLOCK as u64;
        file.write_all_at(&block.0, offset)?;
        file.read_exact_at(&mut block.0, offset)?;
    }
    Ok(())
}

/// Runs and nanoseconds of a program since it was loaded.
fn account(id: u32) -> Result<(u64, u64)> {
    let program = loaded_programs().flatten().find(|program| program.id() == id);
    let program = program.ok_or("a program has gone")?;
    Ok((program.run_count(), program.run_time().as_nanos() as u64))
}

/// The middle of the nanoseconds a run over the measurements, for each program.
fn measure(ids: &[u32]) -> Result<Vec<f64>> {
    let device = Loop::new()?;
    let mut all = vec![Vec::new(); ids.len()];
    for _ in 0..TIMES {
        let before = ids.iter().map(|id| account(*id)).collect::<Result<Vec<_>>>()?;
        disk(&device)?;
        for ((id, (runs, ns)), found) in ids.iter().zip(before).zip(&mut all) {
            let now = account(*id)?;
            // A program that would interrupt another one does not run.
            if now.0 + REQUESTS / 50 < runs + REQUESTS {
                return Err(format!("{} runs for {REQUESTS} requests", now.0 - runs).into());
            }
            found.push((now.1 - ns) as f64 / (now.0 - runs) as f64);
        }
    }
    Ok(all
        .into_iter()
        .map(|mut found| {
            found.sort_by(f64::total_cmp);
            found.get(TIMES / 2).copied().unwrap_or(f64::NAN)
        })
        .collect())
}

/// Connections over loopback that are closed at once, and as many that are refused.
fn network() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let accepting = std::thread::spawn(move || -> std::io::Result<()> {
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = listener.accept()?;
            stream.read_to_end(&mut Vec::new())?;
        }
        Ok(())
    });
    for _ in 0..CONNECTIONS {
        drop(TcpStream::connect(address)?);
    }
    accepting.join().map_err(|_| "the listener has panicked")??;
    for _ in 0..CONNECTIONS {
        // Nobody listens there any more.
        let _ = TcpStream::connect(address);
    }
    Ok(())
}

fn main() -> Result<()> {
    if std::env::args().len() > 1 {
        return Err("probes takes no arguments".into());
    }
    let executable = std::env::current_exe()?.with_file_name("mote");
    if !executable.is_file() {
        return Err(format!("{} is not there: cargo build --release", executable.display()).into());
    }
    let loader = Loader { executable, ..Loader::default() };
    let options = Options { loader, default: Mode::Auto, ..Options::default() };
    let before: Vec<u32> = loaded_programs().flatten().map(|program| program.id()).collect();
    let probes = Probes::start(&options, &Host::new(Roots::default()));
    for status in probes.status() {
        println!("{}: {} {}", status.name, status.source.as_str(), status.reason);
    }
    let ours = || loaded_programs().flatten().filter(|program| !before.contains(&program.id()));
    let of_disk: Vec<u32> = ours()
        .filter(|program| {
            // The kernel keeps 15 bytes of a name.
            let name = program.name_as_str().unwrap_or_default();
            name.starts_with("block_rq_issue") || name.starts_with("block_rq_comple")
        })
        .map(|program| program.id())
        .collect();
    if of_disk.len() != 2 {
        return Err("the probe block does not run".into());
    }
    let statistics = Statistics::begin()?;
    let middle = measure(&of_disk)?;
    network()?;
    drop(statistics);

    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")?.trim() != "0";
    let mut table = Table::new();
    for program in ours() {
        let name = program.name_as_str().unwrap_or("?").to_owned();
        let runs = program.run_count();
        let mean = program.run_time().as_nanos() as f64 / runs.max(1) as f64;
        let at = of_disk.iter().position(|id| *id == program.id());
        let ns = at.and_then(|at| middle.get(at)).copied().unwrap_or(mean);
        let size = program.size_translated().unwrap_or(0) / 8;
        let checked = program.verified_instruction_count().unwrap_or(0);
        let how = format!(
            "{} runs; {size} instructions, {checked} looked at by the verifier, {} bytes of machine code",
            thousands(runs),
            program.size_jitted()
        );
        let ns = if runs == 0 { "not run".to_owned() } else { format!("{ns:.0} ns") };
        table.row(name, ns, how);
    }
    let total: f64 = middle.iter().sum();
    let how = format!("the sum of the two, each the middle of {TIMES} times {REQUESTS} requests");
    table.row("issue and completion", format!("{total:.0} ns"), how);
    let share = format!("{:.2} %", total * 10_000.0 / 1e9 * 100.0);
    table.row("a core's share", share, "at 10,000 requests a second");
    table.print("The probes' programs");
    drop(probes);
    if jit && total > BUDGET_NS {
        return Err(format!("{total:.0} ns are more than the budget of {BUDGET_NS} ns").into());
    }
    Ok(())
}
